// SPDX-License-Identifier: Apache-2.0

// The options of level IPPROTO_UDP, udp(7), and those of IP that are not for streams.

package netstack

import (
	"math"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
)

var solUDP = map[optKey]option{
	{unix.IPPROTO_UDP, unix.UDP_SEGMENT}: udpSegment(),
	// netmod puts datagrams together.
	{unix.IPPROTO_UDP, unix.UDP_GRO}: keptBool(unix.IPPROTO_UDP, unix.UDP_GRO, "UDP_GRO", 0, ""),

	{unix.IPPROTO_UDP, unix.UDP_CORK}: keptBool(unix.IPPROTO_UDP, unix.UDP_CORK, "UDP_CORK", 0, ""), // netmod holds pieces back
}

// udpSegment is the size that messages are cut into, in bytes.
func udpSegment() option {
	k := optKey{unix.IPPROTO_UDP, unix.UDP_SEGMENT}
	o := kept(k.level, k.name, "UDP_SEGMENT", 0, 0, math.MaxUint16, intOf, "")
	set := o.set
	o.set = func(s *sock, ep tcpip.Endpoint, v []byte) error {
		if err := set(s, ep, v); err != nil {
			return err
		}
		s.segment.Store(int32(s.val(k, 0)))
		return nil
	}
	return o
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
