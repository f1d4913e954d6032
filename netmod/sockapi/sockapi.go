// SPDX-License-Identifier: Apache-2.0

// The shapes of the tables.

package sockapi

import "golang.org/x/sys/unix"

// A Support says how much of something there is. The zero value is no claim, and no
// row may have it.
type Support int

const (
	// Full is as on Linux.
	Full Support = iota + 1
	// Kept can be set and reads back as on Linux; on this network there is
	// nothing for it to do.
	Kept
	// Part works, but for what the row's Gap says.
	Part
	// Refused fails with the row's Errno, which is what makes programs fall back.
	Refused
)

func (s Support) String() string {
	switch s {
	case Full:
		return "yes"
	case Kept:
		return "kept"
	case Part:
		return "part"
	case Refused:
		return "no"
	}
	return "unknown"
}

// A Kind is a set of kinds of sockets.
type Kind uint

// The kinds of sockets that options are tried on.
const (
	TCP4 Kind = 1 << iota
	TCP6
	UDP4
	UDP6
	Ping4 // SOCK_DGRAM, IPPROTO_ICMP
	Ping6 // SOCK_DGRAM, IPPROTO_ICMPV6
	Raw4  // SOCK_RAW, IPPROTO_ICMP
	Raw6  // SOCK_RAW, IPPROTO_ICMPV6
	Packet
	Netlink // SOCK_RAW, NETLINK_ROUTE

	TCP  = TCP4 | TCP6
	UDP  = UDP4 | UDP6
	Ping = Ping4 | Ping6
	Raw  = Raw4 | Raw6
	V4   = TCP4 | UDP4 | Ping4 | Raw4
	V6   = TCP6 | UDP6 | Ping6 | Raw6
	Inet = V4 | V6
	All  = Inet | Packet | Netlink
)

// A Shape is what the value of an option is.
type Shape int

const (
	Int     Shape = iota
	Opaque        // any bytes, of which only the length is compared
	Varying       // an int that is not the same each time
	Linger        // struct linger
	Timeval       // struct timeval
	Text          // a string
	Mreq          // struct ip_mreqn, ipv6_mreq, group_req or packet_mreq
	Bytes         // any bytes, compared as they are
)

// Access says what can be done with an option.
type Access int

const (
	Get Access = 1 << iota
	Set
	Both = Get | Set
)

// An Option is one row of a level's table.
type Option struct {
	Name   string
	Number int
	Access Access // as on Linux, for an ordinary user
	Shape  Shape
	On     Kind // what the walk tries it on; 0: what the level is for
	Support
	Errno unix.Errno // of a refused one
	Gap   string     // what a program may miss, or why it is refused
}

// A Level is what setsockopt(2) calls a level, with its options.
type Level struct {
	Name    string
	Number  int
	Manual  string // where it is described
	On      Kind   // the kinds that have it
	Options []Option
}

// An Entry is a row of the other tables.
type Entry struct {
	Name string
	Support
	Errno unix.Errno // of a refused one
	Gap   string     // what a program may miss, or why it is refused
}

// Levels returns the tables of options.
func Levels() []Level {
	return []Level{
		{"SOL_SOCKET", unix.SOL_SOCKET, "socket(7)", Inet, solSocket},
		{"IPPROTO_IP", unix.IPPROTO_IP, "ip(7)", Inet &^ Raw6, solIP},
		{"IPPROTO_IPV6", unix.IPPROTO_IPV6, "ipv6(7)", V6, solIPv6},
		{"IPPROTO_TCP", unix.IPPROTO_TCP, "tcp(7)", TCP, solTCP},
		{"IPPROTO_UDP", unix.IPPROTO_UDP, "udp(7)", UDP, solUDP},
		{"SOL_RAW", unix.SOL_RAW, "raw(7)", Raw4, solRaw},
		{"IPPROTO_ICMPV6", unix.IPPROTO_ICMPV6, "RFC 3542 §3.2", Raw6, solICMPv6},
		{"SOL_PACKET", unix.SOL_PACKET, "packet(7)", Packet, solPacket},
		{"SOL_NETLINK", unix.SOL_NETLINK, "netlink(7)", Netlink, solNetlink},
	}
}

// no is a row of an option that is not modelled: ENOPROTOOPT, as for one that
// does not exist.
func no(name string, number int, gap string) Option {
	return Option{Name: name, Number: number, Access: Both, Support: Refused, Errno: unix.ENOPROTOOPT, Gap: gap}
}
