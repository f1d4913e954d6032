// SPDX-License-Identifier: Apache-2.0

// Package stacks says what a network is to the rest of umrun: a [Stack] makes
// sockets, a [Link] moves packets, a [State] describes interfaces, addresses,
// routes and name servers. It holds contracts and the small data types that
// cross them; the implementations are the packages below it.
//
//	netmod  --Socket-->  Stack (netstack, kernel, proxy)  --Link-->  wg, nat, vde, tap, pipe
//
// # Two kinds of stack
//
// A userspace stack has endpoints: [StreamSocket] and [PacketSocket] are never
// blocking, report readiness by [Socket.Poll] and changes of it by
// [Socket.Watch], and netmod pumps bytes between them and the file that the
// program holds. A [KernelStack] hands over real sockets instead, and netmod is
// out of the way once they are installed.
//
// # Errors
//
// Every error that crosses these interfaces is a unix.Errno, possibly wrapped,
// and is the one that Linux gives for the same call; io.EOF is the end of a
// stream. An implementation's own error types end inside it.
//
// # Addresses
//
// Addresses are netip.AddrPort. The zone of a scoped IPv6 address is the decimal
// interface index ("fe80::1%2"). The zero AddrPort means "no address" (connect
// to AF_UNSPEC, an unnamed peer). An IPv4 address on an AF_INET6 socket is
// written as its IPv4-mapped form, in both directions, as Linux does.
//
// # Concurrency
//
// Everything here is safe for concurrent use unless it says otherwise. Watch
// callbacks run on the stack's own goroutines, possibly with its locks held: a
// callback notes the event, wakes somebody and returns; it never calls back into
// the stack.
package stacks
