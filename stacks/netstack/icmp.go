// SPDX-License-Identifier: Apache-2.0

// ICMP messages about packets that were sent.

package netstack

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"umrun/stacks"
)

// An icmpError is a message about a datagram.
type icmpError struct {
	proto    int            // of the datagram
	src, dst netip.AddrPort // of the datagram; a ping's identifier is the port of src
	mtu      int            // bytes; 0: the message is not about the size
	hard     bool           // told to connected sockets in any case (RFC 1122 §4.1.3.3)
	named    bool           // src and dst have ports: it is UDP's, or a ping's
	packet   []byte         // what the message quotes, from its IP header on
	body     []byte         // the same from its transport header on, 8 bytes at least
	report   stacks.Report  // Payload and Dst as UDP and ping sockets tell them
}

// Linux's errno and hardness of the codes of "destination unreachable"
// (net/ipv4/icmp.c:icmp_err_convert, net/ipv6/icmp.c:tab_unreach).
type verdict struct {
	errno unix.Errno
	hard  bool
}

var unreachable4 = [...]verdict{
	{unix.ENETUNREACH, false}, {unix.EHOSTUNREACH, false}, {unix.ENOPROTOOPT, true}, {unix.ECONNREFUSED, true},
	{unix.EMSGSIZE, true}, {unix.EOPNOTSUPP, false}, {unix.ENETUNREACH, true}, {unix.EHOSTDOWN, true},
	{unix.ENONET, true}, {unix.ENETUNREACH, true}, {unix.EHOSTUNREACH, true}, {unix.ENETUNREACH, false},
	{unix.EHOSTUNREACH, false}, {unix.EHOSTUNREACH, true}, {unix.EHOSTUNREACH, true}, {unix.EHOSTUNREACH, true},
}

var unreachable6 = [...]verdict{
	{unix.ENETUNREACH, false}, {unix.EACCES, true}, {unix.EHOSTUNREACH, false}, {unix.EHOSTUNREACH, false},
	{unix.ECONNREFUSED, true}, {unix.EACCES, true}, {unix.EACCES, true},
}

// icmpHeader is the length of the header of an ICMP message, in bytes; the packet
// that it is about follows.
const icmpHeader = 8

// parseICMP decodes an ICMP message b behind an IP header. ok is false if it is no
// error about a packet, or if it is damaged.
func parseICMP(ip, b []byte) (e icmpError, ok bool) {
	if len(b) < icmpHeader {
		return e, false
	}
	if header.IPVersion(ip) == header.IPv4Version {
		return parseICMP4(header.IPv4(ip), b)
	}
	return parseICMP6(header.IPv6(ip), b)
}

func parseICMP4(ip header.IPv4, b []byte) (e icmpError, ok bool) {
	typ, code := b[0], b[1]
	var v verdict
	info := uint32(0)
	switch header.ICMPv4Type(typ) {
	case header.ICMPv4DstUnreachable:
		v = verdict{unix.EHOSTUNREACH, false}
		if int(code) < len(unreachable4) {
			v = unreachable4[code]
		}
		if header.ICMPv4Code(code) == header.ICMPv4FragmentationNeeded {
			info = uint32(binary.BigEndian.Uint16(b[6:]))
			e.mtu = max(int(info), minMTU4)
		}
	case header.ICMPv4TimeExceeded:
		v = verdict{unix.EHOSTUNREACH, false}
	case header.ICMPv4ParamProblem:
		v = verdict{unix.EPROTO, true}
		info = uint32(b[4])
	default:
		return e, false
	}
	if checksum.Checksum(b, 0) != 0xffff {
		return e, false
	}
	e.hard = v.hard
	e.report = stacks.Report{Errno: v.errno, Origin: unix.SO_EE_ORIGIN_ICMP, Type: typ, Code: code, Info: info,
		Offender: netip.AddrFrom4(ip.SourceAddress().As4()),
		Msg:      stacks.Message{Local: netip.AddrFrom4(ip.DestinationAddress().As4()), TTL: int(ip.TTL())}}
	tos, _ := ip.TOS()
	e.report.Msg.TOS = int(tos)

	q := header.IPv4(b[icmpHeader:]) // what the message quotes
	if len(q) < header.IPv4MinimumSize || header.IPVersion(q) != header.IPv4Version ||
		int(q.HeaderLength()) > len(q) || q.HeaderLength() < header.IPv4MinimumSize || q.FragmentOffset() != 0 {
		return e, false
	}
	e.packet = q
	return e, e.quote(netip.AddrFrom4(q.SourceAddress().As4()), netip.AddrFrom4(q.DestinationAddress().As4()),
		q.TransportProtocol(), q[q.HeaderLength():])
}

func parseICMP6(ip header.IPv6, b []byte) (e icmpError, ok bool) {
	typ, code := b[0], b[1]
	var v verdict
	info := uint32(0)
	switch header.ICMPv6Type(typ) {
	case header.ICMPv6DstUnreachable:
		v = verdict{unix.EPROTO, true}
		if int(code) < len(unreachable6) {
			v = unreachable6[code]
		}
	case header.ICMPv6PacketTooBig:
		v = verdict{unix.EMSGSIZE, true}
		info = binary.BigEndian.Uint32(b[4:])
		e.mtu = int(max(min(info, 65535), header.IPv6MinimumMTU))
	case header.ICMPv6TimeExceeded:
		v = verdict{unix.EHOSTUNREACH, false}
	case header.ICMPv6ParamProblem:
		v = verdict{unix.EPROTO, true}
		info = binary.BigEndian.Uint32(b[4:])
	default:
		return e, false
	}
	sum := header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), uint16(len(b)))
	if checksum.Checksum(b, sum) != 0xffff {
		return e, false
	}
	e.hard = v.hard
	e.report = stacks.Report{Errno: v.errno, Origin: unix.SO_EE_ORIGIN_ICMP6, Type: typ, Code: code, Info: info,
		Offender: netip.AddrFrom16(ip.SourceAddress().As16()),
		Msg:      stacks.Message{Local: netip.AddrFrom16(ip.DestinationAddress().As16()), TTL: int(ip.HopLimit())}}
	tos, _ := ip.TOS()
	e.report.Msg.TOS = int(tos)

	q := header.IPv6(b[icmpHeader:])
	if len(q) < header.IPv6MinimumSize || header.IPVersion(q) != header.IPv6Version {
		return e, false
	}
	next, rest := tcpip.TransportProtocolNumber(q.NextHeader()), []byte(q[header.IPv6MinimumSize:])
	if next == tcpip.TransportProtocolNumber(header.IPv6FragmentHeader) {
		const size = 8
		if len(rest) < size || binary.BigEndian.Uint16(rest[2:])&^7 != 0 {
			return e, false
		}
		next, rest = tcpip.TransportProtocolNumber(rest[0]), rest[size:]
	}
	e.packet = q
	return e, e.quote(netip.AddrFrom16(q.SourceAddress().As16()), netip.AddrFrom16(q.DestinationAddress().As16()), next, rest)
}

// quote fills in what b, the quoted datagram from its transport header on, says.
func (e *icmpError) quote(src, dst netip.Addr, proto tcpip.TransportProtocolNumber, b []byte) bool {
	const head = 8 // bytes of either header, and what must be quoted at least
	if len(b) < head {
		return false
	}
	e.proto, e.body, e.named = int(proto), b, true
	switch {
	case proto == header.UDPProtocolNumber:
		e.src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(b))
		e.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:]))
		e.report.Payload = b[head:]
	case proto == header.ICMPv4ProtocolNumber && src.Is4() && header.ICMPv4Type(b[0]) == header.ICMPv4Echo,
		proto == header.ICMPv6ProtocolNumber && src.Is6() && header.ICMPv6Type(b[0]) == header.ICMPv6EchoRequest:
		e.src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(b[4:]))
		e.dst = netip.AddrPortFrom(dst, 0)
		e.report.Payload = b // net/ipv4/ping.c:ping_err: from the ICMP header on
	default:
		e.named = false
		e.src, e.dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)
	}
	e.report.Dst = e.dst
	return true
}
