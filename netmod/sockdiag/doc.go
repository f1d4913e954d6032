// SPDX-License-Identifier: Apache-2.0

// Package sockdiag tells ss(8) which sockets there are: it answers sock_diag(7)
// requests (NETLINK_SOCK_DIAG) from a list of sockets, as the kernel would for
// its own. Everything in it is a pure function; it holds no state, starts no
// goroutine and is safe for concurrent use.
//
// # What is answered
//
//	AF_INET, AF_INET6   TCP and UDP: dumps, filtered by state, port and
//	                    INET_DIAG_REQ_BYTECODE; one socket by its addresses
//	raw sockets         dump
//	AF_NETLINK, AF_PACKET   dump
//
// Everything else gives ENOENT, as from a kernel without the module for it; ss
// then reads /proc/net, which for AF_UNIX is right: those sockets are the host's.
// SOCK_DESTROY ends a socket of TCP, UDP or raw that a program holds.
//
// # What is told of a socket
//
// struct inet_diag_msg, and of its attributes INET_DIAG_SHUTDOWN, INFO, CONG,
// SKMEMINFO and SKV6ONLY; of netlink sockets all. The others are left out, TOS, marks,
// classes and control groups among them; readers take what is there. Rules and errnos are those
// of net/core/sock_diag.c and net/ipv4/{inet,tcp,udp}_diag.c, v6.18.
package sockdiag
