// SPDX-License-Identifier: Apache-2.0

// Tests of cutting super-segments and completing checksums.

package offload

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// super makes a super-segment out of a spec: the checksum that the stack leaves
// to us is garbage where it recomputes anyway.
func super(s spec, mss int) (Hdr, []byte) {
	p := s.packet()
	h := Hdr{Flags: NeedsCsum, GSOType: GSOTCPv4, GSOSize: uint16(mss), CsumStart: ipv4Len, CsumOffset: 16}
	if s.v6 {
		h.GSOType, h.CsumStart = GSOTCPv6, ipv6Len
	}
	return h, p
}

func TestSplit(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, n := range []int{0, 1, 999, 1000, 1001, 2000, 2500, 64000} {
			s := spec{v6: v6, port: 5, seq: 0xfffffc00, ack: 7, id: 0xffff, ttl: 64, window: 512,
				flags: tcpACK | tcpPSH | tcpFIN | tcpCWR | tcpECE, data: data(n), options: data(12)}
			h, p := super(s, 1000)
			bufs, sizes := buffers(70, 2000)
			got, err := Split(h, p, bufs, sizes, 16)
			want := max(1, (n+999)/1000)
			if err != nil || got != want {
				t.Fatalf("v6 %v, %d bytes: %d pieces, %v, want %d", v6, n, got, err, want)
			}
			hl := len(p) - n
			for i := range got {
				piece := bufs[i][16 : 16+sizes[i]]
				w := s
				w.data = s.data[i*1000 : min(i*1000+1000, n)]
				w.seq += uint32(i * 1000)
				w.id += uint16(i)
				if i > 0 {
					w.flags &^= tcpCWR
				}
				if i < got-1 {
					w.flags &^= tcpFIN | tcpPSH
				}
				if !bytes.Equal(piece, w.packet()) {
					t.Fatalf("v6 %v, %d bytes, piece %d:\n% x\n% x", v6, n, i, piece[:hl], w.packet()[:hl])
				}
			}
		}
	}
}

func TestSplitUDP(t *testing.T) {
	payload := data(2500)
	udp := append([]byte{0, 1, 0, 2, 0, 0, 0, 0}, payload...)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	p := transport(true, 1, 0, 64, 0, protoUDP, 6, udp)
	bufs, sizes := buffers(5, 2000)
	n, err := Split(Hdr{GSOType: GSOUDPL4, GSOSize: 1000}, p, bufs, sizes, 0)
	if err != nil || n != 3 {
		t.Fatalf("%d pieces, %v, want 3", n, err)
	}
	var got []byte
	for i := range n {
		piece := bufs[i][:sizes[i]]
		if !refVerify(piece) {
			t.Errorf("piece %d has a bad checksum", i)
		}
		got = append(got, piece[ipv6Len+udpLen:]...)
	}
	if !bytes.Equal(got, payload) {
		t.Error("payload damaged")
	}
}

// TestComplete finishes a partial checksum, as the kernel leaves it.
func TestComplete(t *testing.T) {
	for name, p := range kinds() {
		var l layers
		if !l.parse(p) || l.proto == protoICMP {
			continue
		}
		offset := map[uint8]int{protoTCP: 16, protoUDP: 6, protoICMPv6: 2}[l.proto]
		partial := bytes.Clone(p)
		putSum(partial[l.l4+offset:], fold(pseudo(l.addrs(p), l.proto, l.end-l.l4)))
		bufs, sizes := buffers(1, 2000)
		h := Hdr{Flags: NeedsCsum, CsumStart: uint16(l.l4), CsumOffset: uint16(offset)}
		if n, err := Split(h, partial, bufs, sizes, 0); n != 1 || err != nil {
			t.Fatalf("%s: %d, %v", name, n, err)
		}
		if got := bufs[0][:sizes[0]]; !bytes.Equal(got, p) {
			t.Errorf("%s: checksum % x, want % x", name, got[l.l4+offset:][:2], p[l.l4+offset:][:2])
		}
	}
}

// TestSplitResumes goes on in the next batch where one was full.
func TestSplitResumes(t *testing.T) {
	h, p := super(spec{flags: tcpACK, data: data(5000)}, 1000)
	var s Splitter
	if err := s.Reset(h, p); err != nil {
		t.Fatal(err)
	}
	small, buf := make([]byte, 1039), make([]byte, 1040)
	for i := range 5 {
		if _, err := s.Next(small); !errors.Is(err, ErrShort) {
			t.Fatalf("piece %d into too little: %v", i, err)
		}
		n, err := s.Next(buf)
		if err != nil || n != 1040 || !bytes.Equal(buf[40:], p[40+i*1000:][:1000]) {
			t.Fatalf("piece %d: %d bytes, %v", i, n, err)
		}
		if s.More() != (i < 4) {
			t.Fatalf("piece %d: More = %v", i, s.More())
		}
	}
}

// TestSplitNothing: a Splitter without a packet has no pieces.
func TestSplitNothing(t *testing.T) {
	var s Splitter
	if s.More() || s.Left() != 0 {
		t.Errorf("More %t, %d pieces left", s.More(), s.Left())
	}
}

func TestSplitErrors(t *testing.T) {
	h4, p4 := super(spec{flags: tcpACK, data: data(3000)}, 1000)
	_, p6 := super(spec{v6: true, flags: tcpACK, data: data(3000)}, 1000)
	short := bytes.Clone(p4[:30])
	binary.BigEndian.PutUint16(short[2:], 30)
	offset := bytes.Clone(p4)
	offset[ipv4Len+12] = 4 << 4
	tests := []struct {
		name string
		h    Hdr
		p    []byte
		want error
	}{
		{"empty", Hdr{}, nil, ErrShort},
		{"sum beyond the packet", Hdr{Flags: NeedsCsum, CsumStart: 3030, CsumOffset: 16}, p4, ErrMalformed},
		{"wrong version", h4, p6, ErrMalformed},
		{"unknown kind", Hdr{GSOType: 3, GSOSize: 1}, p4, ErrMalformed},
		{"TCP as UDP", Hdr{GSOType: GSOUDPL4, GSOSize: 1}, p4, ErrMalformed},
		{"no packet", h4, []byte("x"), ErrMalformed},
		{"no room for TCP", h4, short, ErrShort},
		{"TCP header too short", h4, offset, ErrMalformed},
		{"too few buffers", h4, p4, ErrShort},
	}
	for _, tt := range tests {
		bufs, sizes := buffers(2, 1500)
		if _, err := Split(tt.h, tt.p, bufs, sizes, 0); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// FuzzSplit cuts anything: no panic, and what comes out of a super-segment is
// right.
func FuzzSplit(f *testing.F) {
	h, p := super(spec{flags: tcpACK, data: data(3000), options: make([]byte, 12)}, 1000)
	b := make([]byte, HdrLen)
	h.Encode(b)
	f.Add(append(b, p...))
	h, p = super(spec{v6: true, flags: tcpACK | tcpPSH, data: data(100)}, 30)
	b = make([]byte, HdrLen)
	h.Encode(b)
	f.Add(append(b, p...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Hdr
		if h.Decode(b) != nil {
			return
		}
		bufs, sizes := buffers(64, 3000)
		n, _ := Split(h, b[HdrLen:], bufs, sizes, 0)
		for i := range n {
			if h.GSOType != GSONone && !Verify(bufs[i][:sizes[i]]) {
				t.Fatalf("piece %d of %+v does not verify: % x", i, h, bufs[i][:sizes[i]])
			}
		}
	})
}

func BenchmarkSplit(b *testing.B) {
	h, p := super(spec{flags: tcpACK, data: data(60000), options: make([]byte, 12)}, 1368)
	bufs, sizes := buffers(64, 1500)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if _, err := Split(h, p, bufs, sizes, 0); err != nil {
			b.Fatal(err)
		}
	}
}

// TestSplitUrgent: the urgent pointer counts from each piece, and not from behind
// the urgent byte.
func TestSplitUrgent(t *testing.T) {
	s := spec{port: 5, ack: 7, ttl: 64, window: 512, flags: tcpACK | tcpURG, data: data(2500)}
	h, p := super(s, 1000)
	binary.BigEndian.PutUint16(p[ipv4Len+18:], 1500)
	bufs, sizes := buffers(5, 2000)
	n, err := Split(h, p, bufs, sizes, 0)
	if err != nil || n != 3 {
		t.Fatalf("%d pieces, %v, want 3", n, err)
	}
	for i, want := range []uint16{1500, 500, 0} {
		piece := bufs[i][:sizes[i]]
		if got := binary.BigEndian.Uint16(piece[ipv4Len+18:]); got != want || piece[ipv4Len+13]&tcpURG != 0 != (want != 0) {
			t.Errorf("piece %d: pointer %d, want %d, flags %#x", i, got, want, piece[ipv4Len+13])
		}
		if !refVerify(piece) {
			t.Errorf("piece %d has a bad checksum", i)
		}
	}
}
