// SPDX-License-Identifier: Apache-2.0

// ICMP messages, right and damaged, and what is remembered of paths.

package netstack

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// about is an ICMP message of a type about an IPv4 datagram from port 1000 to 2000
// with the payload "data", and the IP header that it came behind.
func about(typ, code byte, rest uint32, proto byte) (ip, icmp []byte) {
	ip = make([]byte, header.IPv4MinimumSize)
	header.IPv4(ip).Encode(&header.IPv4Fields{TotalLength: 60, TTL: 61, Protocol: uint8(header.ICMPv4ProtocolNumber),
		SrcAddr: tcpip.AddrFrom4([4]byte{192, 0, 2, 9}), DstAddr: tcpip.AddrFrom4([4]byte{192, 0, 2, 1})})
	icmp = []byte{typ, code, 0, 0, byte(rest >> 24), byte(rest >> 16), byte(rest >> 8), byte(rest)}
	quoted := make([]byte, header.IPv4MinimumSize)
	header.IPv4(quoted).Encode(&header.IPv4Fields{TotalLength: 32, TTL: 1, Protocol: proto,
		SrcAddr: tcpip.AddrFrom4([4]byte{192, 0, 2, 1}), DstAddr: tcpip.AddrFrom4([4]byte{198, 51, 100, 1})})
	icmp = append(icmp, quoted...)
	icmp = append(icmp, 0x03, 0xe8, 0x07, 0xd0, 0, 12, 0, 0)
	icmp = append(icmp, "data"...)
	sum := ^checksum.Checksum(icmp, 0)
	icmp[2], icmp[3] = byte(sum>>8), byte(sum)
	return ip, icmp
}

func TestParseICMP(t *testing.T) {
	for _, tc := range []struct {
		name      string
		typ, code byte
		rest      uint32
		proto     byte
		errno     unix.Errno
		hard      bool
		mtu       int
		info      uint32
	}{
		{name: "port unreachable", typ: 3, code: 3, proto: 17, errno: unix.ECONNREFUSED, hard: true},
		{name: "host unreachable", typ: 3, code: 1, proto: 17, errno: unix.EHOSTUNREACH},
		{name: "a code of the future", typ: 3, code: 99, proto: 17, errno: unix.EHOSTUNREACH},
		{name: "time exceeded", typ: 11, proto: 17, errno: unix.EHOSTUNREACH},
		{name: "parameter problem", typ: 12, rest: 7 << 24, proto: 17, errno: unix.EPROTO, hard: true, info: 7},
		{name: "too large", typ: 3, code: 4, rest: 1300, proto: 17, errno: unix.EMSGSIZE, hard: true, mtu: 1300, info: 1300},
		{name: "too large for almost nothing", typ: 3, code: 4, rest: 68, proto: 17, errno: unix.EMSGSIZE, hard: true, mtu: minMTU4, info: 68},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ip, b := about(tc.typ, tc.code, tc.rest, tc.proto)
			e, ok := parseICMP(ip, b)
			if !ok || e.report.Errno != tc.errno || e.hard != tc.hard || e.mtu != tc.mtu || e.report.Info != tc.info {
				t.Fatalf("%+v, %v", e, ok)
			}
			if e.src != netip.MustParseAddrPort("192.0.2.1:1000") || e.dst != netip.MustParseAddrPort("198.51.100.1:2000") ||
				string(e.report.Payload) != "data" || e.report.Offender != netip.MustParseAddr("192.0.2.9") || e.report.Msg.TTL != 61 {
				t.Errorf("%+v", e)
			}
			for i := range b { // no byte of it is beside the point
				b[i] ^= 1
				if _, ok := parseICMP(ip, b); ok {
					t.Errorf("byte %d damaged, and taken", i)
				}
				b[i] ^= 1
			}
			for n := range len(b) {
				if _, ok := parseICMP(ip, b[:n]); ok {
					t.Errorf("%d bytes of %d taken", n, len(b))
				}
			}
		})
	}
	for _, typ := range []byte{0, 4, 5, 8, 13} {
		if _, ok := parseICMP(about(typ, 0, 0, 17)); ok {
			t.Errorf("type %d taken for an error", typ)
		}
	}
}

// FuzzICMP: whatever arrives is decoded or not, and says nothing beyond itself.
func FuzzICMP(f *testing.F) {
	for _, typ := range []byte{1, 2, 3, 4, 11, 12} {
		ip, b := about(typ, 4, 1300, 17)
		f.Add(ip, b)
		f.Add(make([]byte, 40), b)
	}
	f.Fuzz(func(t *testing.T, ip, b []byte) {
		switch { // what the network layer has checked
		case len(ip) >= header.IPv4MinimumSize && header.IPVersion(ip) == header.IPv4Version && int(header.IPv4(ip).HeaderLength()) == len(ip):
		case len(ip) == header.IPv6MinimumSize && header.IPVersion(ip) == header.IPv6Version:
		default:
			return
		}
		if e, ok := parseICMP(ip, b); ok && (len(e.report.Payload) > len(b) || !e.dst.Addr().IsValid()) {
			t.Errorf("%+v", e)
		}
	})
}

func TestPaths(t *testing.T) {
	var p paths
	a := netip.MustParseAddr("192.0.2.1")
	if p.known() || p.of(a, 1500) != 1500 {
		t.Error("something is known from the start")
	}
	p.learn(a, 1300)
	p.learn(a, 1400) // no news
	if !p.known() || p.of(a, 1500) != 1300 || p.of(a, 1200) != 1200 {
		t.Errorf("learnt 1300, has %d", p.of(a, 1500))
	}
	p.seen[a] = pathMTU{1300, time.Now().Add(-time.Second)}
	if n := p.of(a, 1500); n != 1500 {
		t.Errorf("outdated, and still %d", n)
	}
	for i := range 2 * maxPaths {
		p.learn(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1300)
	}
	if len(p.seen) > maxPaths {
		t.Errorf("%d paths are remembered", len(p.seen))
	}
}
