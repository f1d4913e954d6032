// SPDX-License-Identifier: Apache-2.0

// Package multihome makes several stacks one, as a host with several networks is one
// host (RFC 1122 §3.3.4): what is above it sees one stack with the interfaces of all,
// and its sockets find their network by themselves.
//
// # When a network is chosen
//
// A socket is made on the first network, and stays there only until something says
// more: connect, or the destination of a datagram, and then [route.Table] decides; a
// bind to an address, or to an interface, which belongs to a network; an interface
// that goes with one datagram (IP_PKTINFO, a scope). If that is another network the
// socket gets a new endpoint there, with the options that were set so far, and the
// old one goes. Who holds the socket does not notice.
//
// Addresses of the view itself come before all rules ([route.Table.Local]): loopback is
// that of the first network, for all. Addresses that a network was given at run time
// do not count: who gives them must not draw to that network what is another one's.
//
// A rule of the table holds whatever a program binds to. If it has bound to one
// network and a rule says that the destination is for another, ENETUNREACH is the
// answer: neither way is right. A rule about the task (exe=, uid=) holds for all that
// its sockets do: addresses and interfaces of other networks cannot be bound, but
// for loopback.
//
// # Sockets on several networks
//
// A socket bound to the wildcard, or to a group, has an endpoint on every network that
// can serve it, all with one port. A listener accepts from all, a datagram socket
// receives from all in turn; a connect leaves the one that it needs. A datagram
// socket that was never bound has endpoints on the networks that it has sent to. Raw
// sockets hear everything, so they are everywhere from the beginning.
//
// The sockets of a task that a rule has confined are on their network and, where a
// wildcard includes loopback, on the loopback interface of the first one.
//
// # Interfaces
//
// Indices of all networks are mapped to one sequence (number.go), names that are used
// twice get a number. There is one loopback interface, the first network's. Whatever
// carries an index or a name is translated: State, options, messages, scopes, frames.
// Default routes of further networks are told with a higher metric, since the first
// one's is used.
//
// # Cost
//
// A stream that is connected costs one atomic load and an interface call more than
// without this package, a datagram that is sent to an address one lookup. With one
// network the package is not used at all.
//
// # Locks
//
// The package starts no goroutine. A socket's mutex is held while it changes, and while
// calls that do not move a stream's bytes go through it; Stack.setMu while a configuration
// changes. Below either come the locks of the stacks and of the table, and Stack.numMu, a
// leaf. Callbacks of the stacks take numMu at most; those of Notify may run with setMu held.
package multihome
