// SPDX-License-Identifier: Apache-2.0

// What a stack tells about itself: interfaces, addresses, routes, name servers.

package stacks

import (
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// State is a snapshot of a stack's configuration, in the order in which
// rtnetlink(7) dumps list it. The loopback interface is Index 1, "lo".
type State struct {
	Interfaces []Interface
	Routes     []Route
	Tables     []Table     // that routes and rules have made, beside main and local
	Neighbours []Neighbour // permanent ones; see [Neighbourhood] for the others
	Rules      []Rule      // those of IPv4 first, by Priority; nil: nobody has changed them, see [State.Policy]
	DNS        DNS
}

// A Table is a routing table of a family. It stays when its last route goes.
type Table struct {
	Family int // AF_INET or AF_INET6
	ID     int // RT_TABLE_*
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

	// Flipped are the IFF_* that a program has turned round: PROMISC, ALLMULTI,
	// MULTICAST, NOARP and the like, which an interface without neighbours only tells.
	Flipped uint32

	// TxQueue is the length of the transmit queue as a program has set it, packets;
	// negative: 0. It is only told.
	TxQueue int

	Addrs []netip.Prefix // address with the length of its on-link prefix

	// Info says more of those addresses that programs have added or changed.
	Info map[netip.Prefix]AddrInfo

	// Counters is for those who tell of interfaces. It is no part of the
	// configuration: State leaves it zero, see [Counter].
	Counters Counters
}

// AddrInfo is what is known of an address beside its prefix. Flags and numbers are
// those of linux/if_addr.h and linux/rtnetlink.h.
type AddrInfo struct {
	Peer      netip.Addr // the other end of a point-to-point link; the on-link prefix of IPv4 is then its
	Broadcast netip.Addr // IPv4, zero: none; only told
	Label     string     // IPv4; empty: the name of the interface
	Flags     uint32     // IFA_F_NODAD, NOPREFIXROUTE, DEPRECATED; TENTATIVE and DADFAILED, which only the stack sets
	Told      bool       // Scope and Proto are as a program said, and do not follow from the address
	Scope     uint8      // RT_SCOPE_*
	Proto     uint8      // IFAPROT_*
	Metric    int        // of the route to the prefix; 0: as usual

	// Until when it is to be used for new connections, and at all; zero: for ever.
	Preferred, Valid time.Time
	// When it was added and last changed; zero: with the stack.
	Added, Changed time.Time
}

// Network is the on-link prefix of p, which is one of i.Addrs.
func (i *Interface) Network(p netip.Prefix) netip.Prefix {
	if peer := i.Info[p].Peer; peer.Is4() {
		return netip.PrefixFrom(peer, p.Bits()).Masked()
	}
	return p.Masked()
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

// A Route is an entry of a routing table. Numbers are those of linux/rtnetlink.h.
// Routes of other tables than main (RT_TABLE_MAIN, also 0) lead somewhere if a [Rule]
// refers to them.
type Route struct {
	Dst     netip.Prefix
	Gateway netip.Addr // zero: on link
	Src     netip.Addr // preferred source, zero: any
	IfIndex int        // 0 if the type refuses packets
	Metric  int
	MTU     int // bytes; 0: that of the interface
	Table   int // RT_TABLE_*
	Type    int // RTN_*: UNICAST (also 0), BLACKHOLE, UNREACHABLE, PROHIBIT or THROW

	// These change nothing. Proto is who made the route, RTPROT_*; with 0 that and
	// Scope, RT_SCOPE_*, follow from the rest.
	Proto  int
	Scope  int
	OnLink bool // RTNH_F_ONLINK: the gateway needs no route to it
}

// Refuses tells what packets along r fail with: 0 if they do not.
func (r *Route) Refuses() unix.Errno {
	switch r.Type {
	case unix.RTN_BLACKHOLE:
		return unix.EINVAL
	case unix.RTN_UNREACHABLE:
		return unix.EHOSTUNREACH
	case unix.RTN_PROHIBIT:
		return unix.EACCES
	case unix.RTN_THROW:
		return unix.ENETUNREACH // no other table has more to say
	}
	return 0
}

// Main tells whether r is of the table main.
func (r *Route) Main() bool { return r.Table == 0 || r.Table == unix.RT_TABLE_MAIN }

// DNS is where names are asked on this network.
type DNS struct {
	Servers []netip.AddrPort // in order; port 53 unless said otherwise
	Search  []string         // search domains, without leading or trailing dots
}
