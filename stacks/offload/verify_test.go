// SPDX-License-Identifier: Apache-2.0

// Tests of checksums and their verification.

package offload

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
)

func TestSum(t *testing.T) {
	big := bytes.Repeat([]byte{0xff}, 70000)
	random := data(2000)
	for n := range 300 {
		for _, p := range [][]byte{random[n%7 : n%7+n], big[:n], make([]byte, n)} {
			var swapped [2]byte
			putSum(swapped[:], fold(sum(p, 0)))
			if got, want := binary.BigEndian.Uint16(swapped[:]), refSum(p, 0); got != want {
				t.Fatalf("%d bytes: sum %#x, want %#x", n, got, want)
			}
		}
	}
	if got := fold(sum(big, ^uint64(0))); got != 0xffff {
		t.Errorf("carries got lost: %#x", got)
	}
}

// FuzzSum compares with the slow sum, from any odd state.
func FuzzSum(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint64(0))
	f.Add(bytes.Repeat([]byte{0xff}, 64), ^uint64(0))
	f.Fuzz(func(t *testing.T, p []byte, acc uint64) {
		var start [8]byte
		binary.LittleEndian.PutUint64(start[:], acc)
		var got [2]byte
		putSum(got[:], fold(sum(p, acc)))
		want := refSum(p, uint32(refSum(start[:], 0)))
		if g := binary.BigEndian.Uint16(got[:]); g != want {
			t.Fatalf("%#x, want %#x", g, want)
		}
	})
}

// kinds returns a good packet of each kind that has a checksum.
func kinds() map[string][]byte {
	ps := make(map[string][]byte)
	for _, v6 := range []bool{false, true} {
		for _, n := range []int{0, 1, 2, 3, 63, 64, 1380} {
			name := func(s string) string { return fmt.Sprintf("%s-v6=%v-%d", s, v6, n) }
			ps[name("tcp")] = spec{v6: v6, flags: tcpACK, ttl: 64, data: data(n), options: make([]byte, 12)}.packet()
			udp := append([]byte{1, 2, 3, 4, byte((udpLen + n) >> 8), byte(udpLen + n), 0, 0}, data(n)...)
			ps[name("udp")] = transport(v6, 1, 0, 64, 0, protoUDP, 6, udp)
			echo := append([]byte{8, 0, 0, 0, 0, 1, 0, 2}, data(n)...)
			if v6 {
				echo[0] = 128
				ps[name("icmp")] = transport(v6, 1, 0, 64, 0, protoICMPv6, 2, echo)
			} else {
				ps[name("icmp")] = transport(v6, 1, 0, 64, 0, protoICMP, 2, echo)
			}
		}
	}
	return ps
}

// TestVerify: good packets are good, also with padding after them, and not with
// any single bit changed that a checksum covers.
func TestVerify(t *testing.T) {
	for name, p := range kinds() {
		if !Verify(p) {
			t.Errorf("%s: not verified", name)
		}
		if !Verify(append(bytes.Clone(p), 0xaa, 0xbb)) {
			t.Errorf("%s: not verified with padding", name)
		}
		if Verify(p[:len(p)-1]) {
			t.Errorf("%s: verified though cut short", name)
		}
		for i := range p[:min(len(p), 100)] {
			if p[0]>>4 == 6 && (i < 4 || i == 7) {
				continue // traffic class, flow label, hop limit: no checksum covers them
			}
			for bit := range 8 {
				bad := bytes.Clone(p)
				bad[i] ^= 1 << bit
				if got, want := Verify(bad), refVerify(bad); i != 6 && got != want {
					t.Errorf("%s: byte %d bit %d: %v, want %v", name, i, bit, got, want)
				}
			}
		}
	}
}

func TestVerifyCases(t *testing.T) {
	udp := func(v6 bool, n int, sum uint16, tail ...byte) []byte {
		p := append([]byte{0, 1, 0, 2, byte(n >> 8), byte(n), byte(sum >> 8), byte(sum)}, tail...)
		return transport(v6, 1, 0, 64, 0, protoUDP, -1, p)
	}
	fragment := func(v6 bool, offset byte) []byte {
		if v6 {
			return transport(true, 1, 0, 64, 0, protoFragment, -1, append([]byte{protoUDP, 0, 0, offset, 0, 0, 0, 1}, data(16)...))
		}
		p := transport(false, 1, 0, 64, 0, protoUDP, -1, data(16))
		p[6], p[7], p[10], p[11] = 0, offset, 0, 0
		binary.BigEndian.PutUint16(p[10:], ^refSum(p[:ipv4Len], 0))
		return p
	}
	// A hop-by-hop header in front of a good segment, RFC 8200 §4.3.
	extended := func(ext ...byte) []byte {
		inner := spec{v6: true, flags: tcpACK, data: data(10)}.packet()
		p := append(bytes.Clone(inner[:ipv6Len]), ext...)
		p = append(p, inner[ipv6Len:]...)
		p[6] = protoHopByHop
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-ipv6Len))
		return p
	}
	routed := extended(protoTCP, 0, 4, 1, 0, 0, 0, 0)
	routed[6] = protoRouting
	damaged := extended(protoTCP, 0, 1, 4, 0, 0, 0, 0)
	damaged[len(damaged)-1]++
	// IP may carry bytes after the datagram, which its checksum leaves out.
	trailing := transport(false, 1, 0, 64, 0, protoUDP, 6, []byte{0, 1, 0, 2, 0, 8, 0, 0})
	trailing = append(trailing, 1, 2, 3)
	trailing[3] += 3
	putSum(trailing[10:], 0)
	putSum(trailing[10:], ^fold(sum(trailing[:ipv4Len], 0)))
	putSum(trailing[ipv4Len+6:], 0)
	putSum(trailing[ipv4Len+6:], ^fold(sum(trailing[ipv4Len:ipv4Len+udpLen], pseudo(trailing[12:ipv4Len], protoUDP, udpLen))))
	tests := []struct {
		name string
		p    []byte
		want bool
	}{
		{"bytes after a summed datagram", trailing, true},
		{"nothing", nil, false},
		{"one byte", []byte{0x45}, false},
		{"version 5", bytes.Repeat([]byte{0x55}, 60), false},
		{"no UDP checksum over IPv4", udp(false, 8, 0), true},
		{"no UDP checksum over IPv6", udp(true, 8, 0), false},
		{"UDP length beyond the packet", udp(false, 9, 0), false},
		{"UDP length below its header", udp(false, 7, 0), false},
		{"bytes after the datagram", udp(false, 8, 0, 1, 2, 3), true},
		{"no room for UDP", transport(false, 1, 0, 64, 0, protoUDP, -1, data(7)), false},
		{"no room for TCP", transport(false, 1, 0, 64, 0, protoTCP, -1, data(19)), false},
		{"no room for ICMP", transport(false, 1, 0, 64, 0, protoICMP, -1, data(3)), false},
		{"no room for ICMPv6", transport(true, 1, 0, 64, 0, protoICMPv6, -1, data(3)), false},
		{"TCP options beyond the packet", transport(false, 1, 0, 64, 0, protoTCP, 16, append(make([]byte, 12), 0xf0, 0, 0, 0, 0, 0, 0, 0)), false},
		{"other protocol", transport(false, 1, 0, 64, 0, 47, -1, data(5)), true},
		{"ICMPv6 over IPv4", transport(false, 1, 0, 64, 0, protoICMPv6, -1, data(5)), true},
		{"first fragment", fragment(false, 0x00|0x20), true},
		{"later fragment", fragment(false, 3), true},
		{"IPv6 fragment", fragment(true, 1), true},
		{"IPv6 atomic fragment with a bad sum", fragment(true, 0), false},
		{"hop-by-hop header", extended(protoTCP, 0, 1, 4, 0, 0, 0, 0), true},
		{"damaged behind a hop-by-hop header", damaged, false},
		{"hop-by-hop header beyond the packet", extended(protoTCP, 200, 1, 4, 0, 0, 0, 0), false},
		{"segments left", routed, false},
	}
	for _, tt := range tests {
		if got := Verify(tt.p); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// FuzzVerify compares with a slow and simple implementation.
func FuzzVerify(f *testing.F) {
	for _, p := range kinds() {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		got := Verify(p)
		var l layers
		if !l.parse(p) {
			if got {
				t.Fatal("verified what does not parse")
			}
			return
		}
		if l.v6 && !l.plain {
			return // the reference knows no extension headers
		}
		if want := refVerify(p); got != want {
			t.Fatalf("%v, want %v for % x", got, want, p)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	p := spec{flags: tcpACK, data: data(1368), options: make([]byte, 12)}.packet()
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if !Verify(p) {
			b.Fatal("bad")
		}
	}
}
