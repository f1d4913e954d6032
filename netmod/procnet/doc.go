// SPDX-License-Identifier: Apache-2.0

// Package procnet writes what a view's /proc/net and /sys/class/net hold, as
// proc_net(5) and sysfs(5) have it, for programs that read files where others ask
// netlink: netstat, ifconfig, nmap. Everything in it is a pure function of a
// [Source]; it holds no state, starts no goroutine and is safe for concurrent use.
//
// # What there is
//
//	/proc/net/dev, route, if_inet6, ipv6_route, arp       interfaces and routes
//	/proc/net/tcp, tcp6, udp, udp6, raw, raw6, icmp, icmp6,
//	          packet, netlink, sockstat, sockstat6         sockets
//	/sys/class/net/IFACE/address, mtu, flags, ...          interfaces
//
// /proc/net/unix is the host's, as AF_UNIX sockets are. Nothing else of that
// directory exists: a file of counters that nobody counts would be a lie, and the
// host's would be another's.
//
// Formats are those of Linux v6.18, byte for byte but for pointers (always zero, as
// the kernel shows them to ordinary users): net/core/net-procfs.c,
// net/ipv4/{fib_trie,tcp_ipv4,udp,raw,arp}.c, net/ipv6/{addrconf,route,tcp_ipv6}.c.
package procnet
