// SPDX-License-Identifier: Apache-2.0

// The options of level IPPROTO_UDP, udp(7), and those of IP that are not for streams.

package netstack

import (
	"golang.org/x/sys/unix"
)

var solUDP = map[optKey]option{
	{unix.IPPROTO_UDP, unix.UDP_CORK}: keptBool(unix.IPPROTO_UDP, unix.UDP_CORK, "UDP_CORK", 0, ""), // netmod holds pieces back
}

// notOnStreams has what Linux answers to setting an option on a stream socket
// (net/ipv4/ip_sockglue.c:do_ip_setsockopt, net/ipv6/ipv6_sockglue.c). Reading is
// allowed.
var notOnStreams = map[optKey]unix.Errno{
	{ip4, unix.IP_MULTICAST_TTL}:    unix.EINVAL,
	{ip4, unix.IP_MULTICAST_IF}:     unix.EINVAL,
	{ip4, unix.IP_ADD_MEMBERSHIP}:   unix.EPROTO,
	{ip4, unix.IP_DROP_MEMBERSHIP}:  unix.EPROTO,
	{ip6, unix.IPV6_MULTICAST_HOPS}: unix.ENOPROTOOPT,
	{ip6, unix.IPV6_MULTICAST_IF}:   unix.ENOPROTOOPT,
}
