// SPDX-License-Identifier: Apache-2.0

// Frames: those that the client sends, and what concerns it in those that come.

package netconf

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Sizes of headers, bytes.
const (
	etherLen = 14
	ip4Len   = 20
	ip6Len   = 40
	udpLen   = 8
	arpLen   = 28
	icmpLen  = 4
)

// Ports of DHCP, RFC 2131 §4.1 and RFC 8415 §7.2.
const (
	client4, server4 = 68, 67
	client6, server6 = 546, 547
)

// hopLimit is that of neighbour discovery, in both directions: whoever has it left is
// on the link (RFC 4861 §6.1).
const hopLimit = 255

// Well-known addresses.
var (
	broadcastMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	broadcast4   = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	allRouters   = netip.MustParseAddr("ff02::2")
	dhcpServers  = netip.MustParseAddr("ff02::1:2")
)

// LinkLocal is the address that an interface with mac has of itself: fe80::/64 and the
// modified EUI-64 of its MAC (RFC 4291, appendix A).
func LinkLocal(mac net.HardwareAddr) netip.Addr {
	return eui64(netip.MustParsePrefix("fe80::/64"), mac)
}

// eui64 is the address with a prefix of 64 bits that follows from mac, RFC 4862 §5.5.3.
func eui64(p netip.Prefix, mac net.HardwareAddr) netip.Addr {
	a := p.Addr().As16()
	copy(a[8:], mac[:3])
	a[8] ^= 2
	a[11], a[12] = 0xff, 0xfe
	copy(a[13:], mac[3:])
	return netip.AddrFrom16(a)
}

// solicited is the group in which neighbours with address a listen, RFC 4291 §2.7.1.
func solicited(a netip.Addr) netip.Addr {
	g := netip.MustParseAddr("ff02::1:ff00:0").As16()
	b := a.As16()
	copy(g[13:], b[13:])
	return netip.AddrFrom16(g)
}

// groupMAC is where frames to a multicast address of IPv6 go, RFC 2464 §7.
func groupMAC(a netip.Addr) net.HardwareAddr {
	b := a.As16()
	return net.HardwareAddr{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// ether begins a frame.
func ether(dst, src net.HardwareAddr, typ uint16) []byte {
	b := make([]byte, 0, etherLen+128)
	b = append(append(b, dst...), src...)
	return binary.BigEndian.AppendUint16(b, typ)
}

// udp4 is a frame with a datagram of IPv4.
func udp4(dst, src net.HardwareAddr, to, from netip.Addr, toPort, fromPort uint16, data []byte) []byte {
	b := ether(dst, src, unix.ETH_P_IP)
	total := ip4Len + udpLen + len(data)
	b = append(b, 0x45, 0xc0) // DSCP CS6, network control, as other clients send
	b = binary.BigEndian.AppendUint16(b, uint16(total))
	b = append(b, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0)
	b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(b[etherLen+10:], checksum(b[etherLen:], 0))
	return appendUDP(b, to, from, toPort, fromPort, data)
}

// udp6 is a frame with a datagram of IPv6.
func udp6(dst, src net.HardwareAddr, to, from netip.Addr, toPort, fromPort uint16, data []byte) []byte {
	b := appendIP6(ether(dst, src, unix.ETH_P_IPV6), to, from, unix.IPPROTO_UDP, 1, udpLen+len(data))
	return appendUDP(b, to, from, toPort, fromPort, data)
}

func appendUDP(b []byte, to, from netip.Addr, toPort, fromPort uint16, data []byte) []byte {
	at := len(b)
	b = binary.BigEndian.AppendUint16(b, fromPort)
	b = binary.BigEndian.AppendUint16(b, toPort)
	b = binary.BigEndian.AppendUint16(b, uint16(udpLen+len(data)))
	b = append(append(b, 0, 0), data...)
	sum := checksum(b[at:], pseudo(to, from, unix.IPPROTO_UDP, len(b)-at))
	if sum == 0 {
		sum = 0xffff // RFC 768: 0 says that there is none
	}
	binary.BigEndian.PutUint16(b[at+6:], sum)
	return b
}

// icmp6 is a frame with a message of ICMPv6, whose checksum is still to be computed.
func icmp6(dst, src net.HardwareAddr, to, from netip.Addr, msg []byte) []byte {
	b := appendIP6(ether(dst, src, unix.ETH_P_IPV6), to, from, unix.IPPROTO_ICMPV6, hopLimit, len(msg))
	at := len(b)
	b = append(b, msg...)
	binary.BigEndian.PutUint16(b[at+2:], checksum(b[at:], pseudo(to, from, unix.IPPROTO_ICMPV6, len(msg))))
	return b
}

func appendIP6(b []byte, to, from netip.Addr, proto, hops uint8, length int) []byte {
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	b = append(b, proto, hops)
	return append(append(b, from.AsSlice()...), to.AsSlice()...)
}

// pseudo sums the pseudo header of UDP and ICMPv6 (RFC 768, RFC 8200 §8.1).
func pseudo(to, from netip.Addr, proto uint8, length int) uint32 {
	return add(from.AsSlice(), add(to.AsSlice(), uint32(proto)+uint32(length)))
}

// add adds b to a sum of 16-bit words. 64 KiB of them do not overflow it.
func add(b []byte, sum uint32) uint32 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) > 0 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

// checksum is the Internet checksum (RFC 1071) of b, which is 0 where b has it.
func checksum(b []byte, sum uint32) uint16 {
	sum = add(b, sum)
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum)
}

// A packet is what a frame holds for the client.
type packet struct {
	mac      net.HardwareAddr // of who sent the frame
	from, to netip.Addr
	hops     uint8  // TTL or hop limit
	toPort   uint16 // of UDP
	proto    uint8  // IPPROTO_UDP or ICMPV6, 0: ARP
	data     []byte // what UDP carries, a message of ICMPv6, or one of ARP
}

// parse takes a frame apart; false if it is not for the client, cut off, or damaged.
// summed says that its checksums need no look. Nothing of b is kept but by data.
func parse(b []byte, summed bool) (packet, bool) {
	if len(b) < etherLen {
		return packet{}, false
	}
	p := packet{mac: net.HardwareAddr(slices.Clone(b[6:12]))}
	typ, b := binary.BigEndian.Uint16(b[12:]), b[etherLen:]
	var rest []byte
	switch typ {
	case unix.ETH_P_ARP:
		if len(b) < arpLen {
			return p, false
		}
		p.data = b[:arpLen]
		return p, true
	case unix.ETH_P_IP:
		if len(b) < ip4Len || b[0]>>4 != 4 {
			return p, false
		}
		head, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
		// A fragment is none of ours: a server keeps to the 576 bytes that we say.
		if head < ip4Len || total < head || total > len(b) || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 || checksum(b[:head], 0) != 0 {
			return p, false
		}
		p.from, p.to = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		p.hops, p.proto, rest = b[8], b[9], b[head:total]
	case unix.ETH_P_IPV6:
		if len(b) < ip6Len || b[0]>>4 != 6 {
			return p, false
		}
		length := int(binary.BigEndian.Uint16(b[4:]))
		if length > len(b)-ip6Len {
			return p, false
		}
		p.from, p.to = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		p.hops, p.proto, rest = b[7], b[6], b[ip6Len:ip6Len+length]
	default:
		return p, false
	}
	switch {
	case p.proto == unix.IPPROTO_UDP:
		if len(rest) < udpLen {
			return p, false
		}
		length, sum := int(binary.BigEndian.Uint16(rest[4:])), binary.BigEndian.Uint16(rest[6:])
		if length < udpLen || length > len(rest) {
			return p, false
		}
		none := sum == 0 && p.to.Is4()
		if !summed && !none && checksum(rest[:length], pseudo(p.to, p.from, p.proto, length)) != 0 {
			return p, false
		}
		p.toPort, p.data = binary.BigEndian.Uint16(rest[2:]), rest[udpLen:length]
		return p, true
	case p.proto == unix.IPPROTO_ICMPV6 && p.to.Is6():
		if len(rest) < icmpLen || !summed && checksum(rest, pseudo(p.to, p.from, p.proto, len(rest))) != 0 {
			return p, false
		}
		p.data = rest
		return p, true
	}
	return p, false
}
