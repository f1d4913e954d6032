// SPDX-License-Identifier: Apache-2.0

// Neighbours: who is on a link, and by which link address.

package stacks

import (
	"net"
	"net/netip"
	"time"
)

// A Neighbour is an entry of a neighbour table. Numbers are those of
// linux/neighbour.h.
//
// Permanent ones are part of the State. On an interface with link addresses packets to
// them go to their MAC, and nobody is asked. One without (LinkIP, the loopback
// interface) has entries as those of Linux do, that only tell; of IPv4 it has one, whose
// address is 0.0.0.0 and stands for all.
type Neighbour struct {
	IfIndex int
	Addr    netip.Addr       // without a zone
	MAC     net.HardwareAddr // nil: not known, or the interface has no link addresses
	State   int              // NUD_*
	Flags   uint8            // NTF_*
	Proto   uint8            // who made it, RTPROT_*; 0: not said
	Updated time.Time        // zero: not known
}

// Neighbourhood is implemented by stacks that learn of neighbours (ARP, NDP).
type Neighbourhood interface {
	// Neighbours returns what was learnt, in no order. None of them is permanent. A
	// stack that is a [Notifier] tells of changes.
	Neighbours() []Neighbour

	// Forget removes what was learnt of a neighbour; ENOENT if that is nothing.
	Forget(ifIndex int, a netip.Addr) error
}
