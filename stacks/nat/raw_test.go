// SPDX-License-Identifier: Apache-2.0

// Packets by hand: what a stack would not send, or not show.

package nat_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"umrun/stacks"
	"umrun/stacks/nat"
	"umrun/stacks/offload"
)

// ipPacket makes an IP packet that needs no look at its transport checksum.
func ipPacket(src, dst string, proto, ttl uint8, payload []byte) []byte {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	var hdr []byte
	if s.Is4() {
		h := header.IPv4(make([]byte, header.IPv4MinimumSize))
		h.Encode(&header.IPv4Fields{
			TotalLength: uint16(len(h) + len(payload)), TTL: ttl, Protocol: proto,
			SrcAddr: tcpip.AddrFrom4(s.As4()), DstAddr: tcpip.AddrFrom4(d.As4()),
		})
		h.SetChecksum(^h.CalculateChecksum())
		hdr = h
	} else {
		h := header.IPv6(make([]byte, header.IPv6MinimumSize))
		h.Encode(&header.IPv6Fields{
			PayloadLength: uint16(len(payload)), HopLimit: ttl, TransportProtocol: tcpip.TransportProtocolNumber(proto),
			SrcAddr: tcpip.AddrFrom16(s.As16()), DstAddr: tcpip.AddrFrom16(d.As16()),
		})
		hdr = h
	}
	vnet := make([]byte, offload.HdrLen)
	offload.Hdr{Flags: offload.DataValid}.Encode(vnet)
	return bytes.Join([][]byte{vnet, hdr, payload}, nil)
}

func udpPacket(src, dst string, ttl uint8) []byte {
	u := []byte{0x10, 0, 0x20, 0, 0, 12, 0, 0, 'd', 'a', 't', 'a'}
	return ipPacket(src, dst, 17, ttl, u)
}

func pingPacket(src, dst string, ttl uint8) []byte {
	if netip.MustParseAddr(src).Is6() {
		return ipPacket(src, dst, 58, ttl, []byte{128, 0, 0, 0, 0x12, 0x34, 0, 1, 'd', 'a', 't', 'a'})
	}
	return ipPacket(src, dst, 1, ttl, []byte{8, 0, 0, 0, 0x12, 0x34, 0, 1, 'd', 'a', 't', 'a'})
}

// readOne reads one packet of the link, without its virtio_net_hdr.
func readOne(t *testing.T, l *nat.Link) []byte {
	t.Helper()
	type result struct {
		b   []byte
		err error
	}
	got := make(chan result, 1)
	go func() {
		buf, sizes := make([]byte, stacks.MaxPacket), []int{0}
		_, err := l.Read([][]byte{buf}, sizes)
		got <- result{buf[:sizes[0]], err}
	}()
	select {
	case r := <-got:
		if r.err != nil {
			t.Fatal(r.err)
		}
		return r.b[offload.HdrLen:]
	case <-time.After(10 * time.Second):
		l.Close()
		t.Fatal("nothing to read")
		return nil
	}
}

func openRaw(t testing.TB, o nat.Options) *nat.Link {
	t.Helper()
	l, err := nat.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// TestICMPErrors: who says what about a packet, quoting what of it.
func TestICMPErrors(t *testing.T) {
	startRouter(t)
	const v4, v6 = "10.0.2.15", "fd00:2::15"
	for _, tt := range []struct {
		name       string
		packet     []byte
		from       string
		typ, code  uint8
		quoteMore  bool // transport headers are quoted as sent, too
		pointerMTU uint32
	}{
		{name: "protocol", packet: ipPacket(v4, "198.51.100.2", 132, 64, make([]byte, 20)), from: "10.0.2.2", typ: 3, code: 2},
		{name: "protocol v6", packet: ipPacket(v6, "2001:db8::2", 132, 64, make([]byte, 20)), from: "fd00:2::2", typ: 4, code: 1, pointerMTU: 6},
		{name: "udp ttl 1", packet: udpPacket(v4, "198.18.0.1", 1), from: "10.0.2.2", typ: 11, quoteMore: true},
		{name: "udp ttl 1 v6", packet: udpPacket(v6, "2001:db8:18::1", 1), from: "fd00:2::2", typ: 3, quoteMore: true},
		{name: "udp ttl 2", packet: udpPacket(v4, "198.18.0.1", 2), from: "192.0.0.1", typ: 11, quoteMore: true},
		{name: "udp ttl 2 v6", packet: udpPacket(v6, "2001:db8:18::1", 2), from: "2001:db8:9::1", typ: 3, quoteMore: true},
		{name: "ping ttl 1", packet: pingPacket(v4, "198.18.0.1", 1), from: "10.0.2.2", typ: 11, quoteMore: true},
		{name: "ping ttl 2", packet: pingPacket(v4, "198.18.0.1", 2), from: "192.0.0.1", typ: 11},
		{name: "ping ttl 2 v6", packet: pingPacket(v6, "2001:db8:18::1", 2), from: "2001:db8:9::1", typ: 3},
		{name: "udp port", packet: udpPacket(v4, "192.0.0.1", 64), from: "192.0.0.1", typ: 3, code: 3, quoteMore: true},
		{name: "udp port v6", packet: udpPacket(v6, "2001:db8:9::1", 64), from: "2001:db8:9::1", typ: 1, code: 4, quoteMore: true},
		{name: "udp host", packet: udpPacket(v4, "10.0.2.9", 64), from: "10.0.2.2", typ: 3, code: 1, quoteMore: true},
		{name: "udp net", packet: udpPacket(v4, "100.64.0.1", 64), from: "10.0.2.2", typ: 3, code: 0, quoteMore: true},
		{name: "ping net", packet: pingPacket(v4, "100.64.0.1", 64), from: "10.0.2.2", typ: 3, code: 0, quoteMore: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := openRaw(t, nat.Options{})
			if _, err := l.Write([][]byte{tt.packet}); err != nil {
				t.Fatal(err)
			}
			got := readOne(t, l)
			sent := tt.packet[offload.HdrLen:]
			var from netip.Addr
			var msg []byte
			var sum, ipLen = uint16(0), 20
			if got[0]>>4 == 4 {
				from, msg = netip.AddrFrom4([4]byte(got[12:16])), got[20:]
				if !header.IPv4(got).IsChecksumValid() {
					t.Error("IP checksum")
				}
			} else {
				from, msg, ipLen = netip.AddrFrom16([16]byte(got[8:24])), got[40:], 40
				sum = header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber,
					tcpip.AddrFromSlice(got[8:24]), tcpip.AddrFromSlice(got[24:40]), uint16(len(msg)))
			}
			if checksum.Checksum(msg, sum) != 0xffff {
				t.Error("ICMP checksum")
			}
			if from.String() != tt.from || msg[0] != tt.typ || msg[1] != tt.code {
				t.Errorf("got type %d code %d from %v", msg[0], msg[1], from)
			}
			if n := binary.BigEndian.Uint32(msg[4:]); n != tt.pointerMTU {
				t.Errorf("second word %d", n)
			}
			quote := msg[8:]
			// Lengths, protocol and addresses are those of the packet sent; TTL, DF
			// and checksum need not be.
			if ipLen == 20 && (!bytes.Equal(quote[2:4], sent[2:4]) || quote[9] != sent[9] || !bytes.Equal(quote[12:20], sent[12:20])) ||
				ipLen == 40 && (!bytes.Equal(quote[4:7], sent[4:7]) || !bytes.Equal(quote[8:40], sent[8:40])) {
				t.Errorf("quotes %x\n   sent %x", quote, sent)
			}
			if tt.quoteMore && !bytes.Equal(quote[ipLen:], sent[ipLen:]) {
				t.Errorf("quotes %x\n   sent %x", quote[ipLen:], sent[ipLen:])
			}
			if !tt.quoteMore && len(quote) >= ipLen+8 && sent[ipLen] == 8 && !bytes.Equal(quote[ipLen+4:ipLen+8], sent[ipLen+4:ipLen+8]) {
				t.Errorf("quotes identifier and sequence %x", quote[ipLen+4:ipLen+8])
			}
		})
	}
}

// TestForeignSources: the view cannot speak for others, and rubbish is rubbish.
func TestForeignSources(t *testing.T) {
	l := openRaw(t, nat.Options{})
	bad := udpPacket("10.0.2.15", "198.51.100.2", 64)
	bad[offload.HdrLen+10] ^= 1 // IP checksum
	unsummed := udpPacket("10.0.2.15", "198.51.100.2", 64)
	unsummed[0] = 0
	unsummed[offload.HdrLen+20+6] = 1 // UDP checksum
	for i, tt := range []struct {
		packet             []byte
		malformed, ignored uint64
	}{
		{udpPacket("192.0.2.1", "198.51.100.2", 64), 0, 1},
		{udpPacket("10.0.2.2", "198.51.100.2", 64), 0, 1},
		{udpPacket("2001:db8::9", "2001:db8::2", 64), 0, 1},
		{udpPacket("10.0.2.15", "255.255.255.255", 64), 0, 1},
		{udpPacket("fd00:2::15", "ff02::fb", 64), 0, 1},
		{bad, 1, 0},
		{unsummed, 1, 0},
		{nil, 1, 0},
		{make([]byte, offload.HdrLen), 1, 0},
		{make([]byte, 40), 1, 0},
		{udpPacket("10.0.2.15", "198.51.100.2", 64)[:offload.HdrLen+22], 1, 0},
	} {
		before := l.Stats()
		if _, err := l.Write([][]byte{tt.packet}); err != nil {
			t.Fatal(err)
		}
		s := l.Stats()
		if m, n := s.Malformed-before.Malformed, s.Ignored-before.Ignored; m != tt.malformed || n != tt.ignored {
			t.Errorf("%d: malformed %d, ignored %d", i, m, n)
		}
	}
	if s := l.Stats(); s.UDPOut != 0 || s.Mappings != 0 || s.ICMPErrors != 0 {
		t.Errorf("%+v", s)
	}
}

// FuzzWrite: no packet of the view ends this process.
func FuzzWrite(f *testing.F) {
	f.Add(udpPacket("10.0.2.15", "198.51.100.2", 64))
	f.Add(udpPacket("fd00:2::15", "2001:db8::2", 64))
	f.Add(pingPacket("10.0.2.15", "10.0.2.2", 64))
	f.Add(pingPacket("fd00:2::15", "fd00:2::2", 64))
	f.Add(ipPacket("10.0.2.15", "10.0.2.2", 6, 64, []byte{0, 80, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0}))
	f.Add(ipPacket("fd00:2::15", "fd00:2::3", 0, 64, []byte{60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0, 0, 1, 0, 53, 0, 8, 0, 0}))
	f.Add(ipPacket("fd00:2::15", "2001:db8::2", 44, 64, []byte{17, 0, 0, 1, 0, 0, 0, 9, 0, 1, 0, 53, 0, 16, 0, 0}))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := nat.Open(context.Background(), nat.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := l.Write([][]byte{b, b}); n != 2 || err != nil {
			t.Error(fmt.Sprint(n, err))
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}
