// SPDX-License-Identifier: Apache-2.0

// Package netconf has an interface configured by its network: DHCP (RFC 2131), DHCPv6
// (RFC 8415), and what routers advertise (RFC 4861, 4862, 4191, 8106).
//
//	 stack (netstack, or the kernel's)        [stacks.Configurer]
//	   | frames                                     ^ addresses, routes, MTU, DNS
//	[Client.Link] -- what is for the client --> [Client]
//	   | frames                                     |
//	 link (vde, tap, ...) <-------- its own frames -+
//
// # Why below the stack
//
// The client wraps the link and speaks through it with frames of its own, so that it is
// the same for every stack and needs nothing of it: no socket that the program could see
// or be in the way of, no address before there is a lease, no packet socket. What it
// learns it hands to one function, by which the stack's State is changed.
//
// The price: what the client sends and hears does not pass the stack, and so neither
// tcpdump in the view nor pcap= shows its DHCP. Router advertisements and ARP are copied
// and go on to the stack, which takes no configuration from them; answers of DHCP to
// the client's own transactions end here. Those to others do not: a program may run a
// DHCP client of its own.
//
// Frames of connections are not touched: on the way down nothing is looked at, on the
// way up the type, the protocol and a port (link.go). What the link below can do
// (offload, TryWrite, Push, Up) the client's link can do too.
//
// # Protocols
//
// Each protocol is a structure with a state and the moment of its next step, and no
// goroutine: [protocol] is what they have in common. The client's one goroutine gives
// them frames and time, then puts together what they know ([stacks.Settings]) and
// applies it if it has become different.
//
//	dhcp4.go    DISCOVER to RELEASE; arp.go: probes, announcements, conflicts
//	dhcp6.go    Solicit to Release, Information-request
//	routers.go  solicitations, routers, prefixes and addresses, name servers
//	dad.go      duplicate address detection for the last two
//
// Where both say something, DHCP comes before DHCPv6 and that before routers (RFC 8106
// §5.3.1). What a person has said comes before all: gateways, MTU, and, in package
// view, name servers and search domains.
//
// An interface that comes up again gets everything once more, and routers are asked
// ([Client.Changed]): it lost its routes when it went down, and all of IPv6. Beside that
// what the program itself has changed is left alone until something new is learned.
//
// # Decisions
//
//   - The interface identifier of SLAAC is the modified EUI-64 of the MAC, as on Linux
//     without another setting. The MAC is made up for each run unless one is given, so
//     that it tells nothing.
//   - An address is used when nobody has claimed it: three ARP probes of 150 ms
//     (RFC 5227 has 1 to 2 s, for the networks of 2008; programs wait here), one
//     neighbour solicitation and a second.
//   - A lease is given back at the end. RFC 2131 leaves that open; with another MAC in
//     each run leases would pile up at the server.
//   - The first questions of DHCP follow each other after 1, 2, 4... seconds, not 4, 8;
//     routers after one more second, and then as RFC 7559 says, for as long as there are none.
//   - The first offer of DHCP is taken. Of DHCPv6 it is the best of those that come
//     within a second (RFC 8415 §18.2.1), unless a server commits at once.
//   - A router that has become silent is used until its lifetime ends, also if there
//     are others: which neighbours can be reached is the stack's knowledge.
//   - What a network says is not trusted: lists are bounded, names that are no names of
//     hosts left out, advertisements must come from the link (hop limit 255), and they
//     cannot shorten the life of an address to less than two hours (RFC 4862 §5.5.3).
//     An answer counts by its transaction, which others cannot guess.
//   - Not done: Reconfigure (RFC 8415 §18.2.11), temporary addresses (RFC 8981), prefix
//     delegation, authentication.
//
// # Goroutines and locks
//
// [Client.Start] starts one goroutine; Close of the client's link ends it, waits for it,
// and closes the link below. A link that takes nothing holds Close up for 200 ms at
// most. Client.mu guards the [Status] and is a leaf.
package netconf
