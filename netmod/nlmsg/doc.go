// SPDX-License-Identifier: Apache-2.0

// Package nlmsg is what the netlink(7) protocols have in common: [Serve] takes
// a request apart into messages and acknowledges them, and a [Writer] puts the
// answer together. It does both as the kernel does (netlink_rcv_skb and
// netlink_dump of net/netlink/af_netlink.c, v6.18), malformed requests
// included. It holds no state and starts no goroutine.
//
// # Datagrams
//
// A dump comes in datagrams of at most [MaxDatagram] bytes: the kernel's own
// limit on machines with 4 KiB pages (NLMSG_GOODSIZE), on which readers rely;
// glibc and Go read into one page.
package nlmsg
