// SPDX-License-Identifier: Apache-2.0

// Package route decides which of several networks serves a socket: the rules of
// --route, what the networks themselves are configured for, and the first network
// for everything else.
//
// # The order
//
// A rule is about who asks (exe=GLOB, uid=), about a name (a domain glob), about an
// address (a prefix) or about a port. The most specific one wins. That is a total
// order, from the first to the last:
//
//  1. exe=GLOB: the executable of the task that made the socket. A whole path before
//     a base name, then the one with more bytes that are no wildcard, then the one
//     that was given first.
//  2. uid=: the task's user.
//  3. a domain, for the addresses that the view's own DNS has answered with. A name
//     without wildcards first, then more labels, then more bytes that are no wildcard.
//  4. a prefix, the longest first, but not /0.
//  5. :port
//  6. a prefix that a network is configured with (AllowedIPs, ip=, the subnet of nat),
//     the longest first, then in the order of the networks, but not /0.
//  7. the prefixes 0.0.0.0/0 and ::/0. What is their network's by 6. is so by this rule
//     as well, and no socket may go past it.
//  8. the first network.
//
// Rules of the same pattern for different networks are an error. Before all rules come
// the addresses of the view itself, as in the kernel's table local: loopback, which is
// that of the first network, and those that networks are configured with.
//
// So everything that a table decides is written down before the program starts. What
// a network says at run time, by DHCP or router advertisements, moves nothing: else
// whoever runs one network could draw the traffic of another one by announcing a
// route to it, or by leasing an address of it. For the same reason a default route of another network than the first
// attracts nothing, unless 0.0.0.0/0=NAME or ::/0=NAME says so, and a network that is
// down keeps what is its. Only the addresses behind names change, see below, and what
// a program of the view itself does with its routes.
//
// Past all rules, some addresses mean something on one network only: those that stand
// for names which a proxy resolves ([Table.Alone]). A rule that sends them elsewhere
// makes them unreachable; no other network sees them.
//
// # Names and addresses
//
// Programs connect to addresses, so a domain rule holds for the addresses that were
// answered for its names ([Table.Learn]): for the time to live of the answer and an
// hour of grace, since programs keep addresses longer than they may, and an hour
// after each use. All names of a chain of aliases count. Where names of two rules
// have one address, the more specific rule has it; a rule wins over names that have
// none, because what leaves by the wrong network does more harm than what takes a
// detour.
//
// # Cost
//
// A lookup is at most three map accesses and three walks through a [bart.Table]: well
// below a microsecond with 100,000 prefixes.
package route
