// SPDX-License-Identifier: Apache-2.0

// What a stack tells about itself: interfaces, addresses, routes, name servers.

package stacks

import (
	"net"
	"net/netip"
)

// State is a snapshot of a stack's configuration, in the order in which
// rtnetlink(7) dumps list it. The loopback interface is Index 1, "lo".
type State struct {
	Interfaces []Interface
	Routes     []Route
	DNS        DNS
}

// An Interface is a network interface of a stack.
type Interface struct {
	Index int    // from 1
	Name  string // at most 15 bytes
	Type  LinkType
	Loop  bool // the loopback interface
	Up    bool
	MTU   int              // bytes of the network layer
	MAC   net.HardwareAddr // nil without a link header
	Addrs []netip.Prefix   // address with the length of its on-link prefix

	// Counters is for those who tell of interfaces. It is no part of the
	// configuration: State leaves it zero, see [Counter].
	Counters Counters
}

// Counters count what passed an interface since the stack was made.
type Counters struct {
	RxPackets, TxPackets uint64
	RxBytes, TxBytes     uint64
	RxDropped, TxDropped uint64 // packets
}

// A Counter is implemented by stacks that count what passes their interfaces.
type Counter interface {
	// Counters returns those of the interface with an index, zero if there is none.
	Counters(index int) Counters
}

// A Route is an entry of the main routing table.
type Route struct {
	Dst     netip.Prefix
	Gateway netip.Addr // zero: on link
	Src     netip.Addr // preferred source, zero: any
	IfIndex int
	Metric  int
}

// DNS is where names are asked on this network.
type DNS struct {
	Servers []netip.AddrPort // in order; port 53 unless said otherwise
	Search  []string         // search domains, without leading or trailing dots
}
