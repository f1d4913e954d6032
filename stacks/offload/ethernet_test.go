// SPDX-License-Identifier: Apache-2.0

// Tests of frames: what merges keeps its link header, and cutting gives back what came.

package offload

import (
	"bytes"
	"testing"
)

// framesOf cuts a run of TCP over IP into frames between two MAC addresses.
func framesOf(v6 bool, mac byte, pieces int) (frames [][]byte) {
	link := []byte{2, 0, 0, 0, 0, mac, 2, 0, 0, 0, 1, mac, 0x08, 0x00}
	if v6 {
		link[12], link[13] = 0x86, 0xdd
	}
	for i := range pieces {
		s := spec{v6: v6, port: 9, seq: uint32(7000 + 1000*i), ack: 3, flags: tcpACK, window: 700, ttl: 60, options: data(12), id: uint16(40 + i), data: data(1000)}
		frames = append(frames, append(bytes.Clone(link), s.packet()...))
	}
	return frames
}

func TestFrames(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		// The same addresses and ports behind two MACs are two flows.
		a, b := framesOf(v6, 1, 5), framesOf(v6, 9, 5)
		arp := append(bytes.Clone(a[0][:12]), 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1)
		tagged := append(append(bytes.Clone(a[0][:12]), 0x81, 0, 0, 5), a[0][12:]...)
		fake := append(append(bytes.Clone(a[0][:12]), 0x88, 0xb5), a[0][14:]...) // looks like IP, and is not
		var in [][]byte
		for i := range a {
			in = append(in, a[i], b[i])
		}
		in = append(in, arp, tagged, fake)
		bufs, sizes := buffers(len(in), maxPacket)
		c := Coalescer{Ethernet: true}
		c.Reset(bufs, sizes)
		for i, f := range in {
			if !c.Add(f) {
				t.Fatalf("no room for frame %d", i)
			}
		}
		n := c.Flush()
		if n != 5 {
			t.Fatalf("v6 %v: %d buffers, want two runs and three others", v6, n)
		}
		var out [][]byte
		for i := range n {
			var h Hdr
			if err := h.Decode(bufs[i]); err != nil {
				t.Fatal(err)
			}
			if i < 2 && (h.GSOSize != 1000 || int(h.CsumStart) != etherLen+map[bool]int{false: ipv4Len, true: ipv6Len}[v6]) {
				t.Errorf("v6 %v: header %+v", v6, h)
			}
			if i >= 2 && h != (Hdr{}) {
				t.Errorf("v6 %v: frame %d has the header %+v", v6, i, h)
			}
			var s Splitter
			if err := s.ResetFrame(h, bufs[i][HdrLen:sizes[i]]); err != nil {
				t.Fatal(err)
			}
			for s.More() {
				dst := make([]byte, 2000)
				k, err := s.Next(dst)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, dst[:k])
			}
		}
		want := append(append(append([][]byte{}, a...), b...), arp, tagged, fake)
		if len(out) != len(want) {
			t.Fatalf("v6 %v: %d frames, want %d", v6, len(out), len(want))
		}
		for i := range want {
			if !bytes.Equal(out[i], want[i]) {
				t.Errorf("v6 %v: frame %d differs\ngot  %x\nwant %x", v6, i, out[i][:60], want[i][:min(60, len(want[i]))])
			}
		}
	}
}

// TestFrameTagged: a kernel hands over super-segments with the tags of VLANs in front;
// each piece has them.
func TestFrameTagged(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		plain := framesOf(v6, 1, 3)
		bufs, sizes := buffers(1, maxPacket)
		c := Coalescer{Ethernet: true}
		c.Reset(bufs, sizes)
		for _, f := range plain {
			c.Add(f)
		}
		c.Flush()
		var h Hdr
		if err := h.Decode(bufs[0]); err != nil || h.GSOSize != 1000 {
			t.Fatalf("header %+v, %v", h, err)
		}
		for _, tags := range []string{"\x81\x00\x60\x05", "\x88\xa8\x00\x07\x81\x00\x00\x05"} {
			tag := func(f []byte) []byte { return append(append(bytes.Clone(f[:12]), tags...), f[12:]...) }
			g := h
			g.HdrLen, g.CsumStart = h.HdrLen+uint16(len(tags)), h.CsumStart+uint16(len(tags))
			var s Splitter
			if err := s.ResetFrame(g, tag(bufs[0][HdrLen:sizes[0]])); err != nil {
				t.Fatal(err)
			}
			for i, f := range plain {
				dst := make([]byte, 2000)
				k, err := s.Next(dst)
				if err != nil || !bytes.Equal(dst[:k], tag(f)) {
					t.Errorf("v6 %v: piece %d: %v\ngot  %x\nwant %x", v6, i, err, dst[:60], tag(f)[:60])
				}
			}
			if s.More() {
				t.Error("there is more")
			}
		}
	}
}

// TestFrameMalformed: a header of a super-segment on what is no IP frame.
func TestFrameMalformed(t *testing.T) {
	f := framesOf(false, 1, 1)[0]
	f[12] = 0x99
	var s Splitter
	if err := s.ResetFrame(Hdr{GSOType: GSOTCPv4, GSOSize: 100}, f); err != ErrMalformed || s.More() {
		t.Errorf("error %v, more %v", err, s.More())
	}
	if err := s.ResetFrame(Hdr{GSOType: GSOTCPv4, GSOSize: 100}, f[:10]); err != ErrMalformed {
		t.Errorf("a runt: %v", err)
	}
}
