// SPDX-License-Identifier: Apache-2.0

// Package rtnetlink tells programs what network they are on: it answers
// rtnetlink(7) requests and the netdevice(7) ioctls from a [stacks.State], as
// the kernel would for interfaces of that configuration. Everything in it is a
// pure function of what it is given (and of the user, who owns it all); it holds no state, starts no goroutine and is safe for
// concurrent use.
//
// # What is answered
//
//	RTM_GETLINK    dump; one by index or name
//	RTM_GETADDR    dump; IPv6: one by address
//	RTM_GETROUTE   dump of all tables; the route to an address
//	RTM_GETRULE    dump
//	RTM_GETNEIGH   dump; one by address
//
// That is what getifaddrs(3), getaddrinfo(3) with AI_ADDRCONFIG, Go's net
// package, Chromium's address tracker and iproute2's show commands ask for. Each
// other request gets EOPNOTSUPP. What is refused and how is that of the kernel
// (net/core/rtnetlink.c, v6.18).
//
// # What can be changed
//
//	RTM_NEWADDR, DELADDR     addresses, and with them the routes to their networks
//	RTM_NEWLINK, SETLINK     up or down, MTU, name, MAC
//	RTM_NEWROUTE, DELROUTE   unicast routes with one next hop, and those that refuse packets
//	RTM_NEWNEIGH, DELNEIGH   neighbours: permanent ones; any can be forgotten
//	RTM_NEWRULE, DELRULE     rules, and with them what sockets reach
//	SIOCSIFADDR, NETMASK, BRDADDR, DSTADDR, FLAGS, MTU, NAME, TXQLEN, HWADDR
//	SIOCDIFADDR, SIOCADDRT, SIOCDELRT
//
// A change is a function too: from a State to the next ([Options.Serve], [Ioctl]),
// with everything that follows from it in the kernel, and from two States to what
// the multicast groups are told ([Changes]). Without somebody who takes the next
// State each of them gets EPERM, as from a program without CAP_NET_ADMIN.
//
// # What a State does not say
//
// The table local, broadcast and multicast routes follow from the addresses, by
// the rules of net/ipv4/fib_frontend.c and net/ipv6/addrconf.c. The main table is
// [stacks.State.Routes] and nothing more: a stack lists its connected routes.
// Interfaces without link header look like a TUN device, those with one like an
// Ethernet device. Attributes that describe drivers, queues
// and per-device sysctls are left out (IFLA_AF_SPEC, IFLA_XDP, IFLA_LINKINFO and
// the like), and the test that compares with the kernel lists them.
package rtnetlink
