// SPDX-License-Identifier: Apache-2.0

// Tests of the coalescer: what merges, what does not, and that cutting again
// gives back what came.

package offload

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

const maxPacket = HdrLen + 14 + 65535 // stacks.MaxPacket

// coalesce runs packets through a Coalescer with room for all.
func coalesce(t testing.TB, packets [][]byte) (hdrs []Hdr, out [][]byte) {
	t.Helper()
	bufs, sizes := buffers(len(packets), maxPacket)
	var c Coalescer
	c.Reset(bufs, sizes)
	for i, p := range packets {
		if !c.Add(p) {
			t.Fatalf("no room for packet %d", i)
		}
	}
	for i := range c.Flush() {
		var h Hdr
		if err := h.Decode(bufs[i]); err != nil {
			t.Fatal(err)
		}
		hdrs, out = append(hdrs, h), append(out, bufs[i][HdrLen:sizes[i]])
	}
	return hdrs, out
}

// TestCoalesceRun merges a run with PSH at its end.
func TestCoalesceRun(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		s := spec{v6: v6, port: 9, seq: 0xffffff00, ack: 3, flags: tcpACK, window: 700, ttl: 60, options: data(12), id: 40}
		payload := data(4500)
		var packets [][]byte
		for at := 0; at < len(payload); at += 1000 {
			p := s
			p.seq, p.id, p.data = s.seq+uint32(at), s.id+uint16(at/1000), payload[at:min(at+1000, len(payload))]
			if at == 4000 {
				p.flags |= tcpPSH
			}
			packets = append(packets, p.packet())
		}
		hdrs, out := coalesce(t, packets)
		if len(out) != 1 {
			t.Fatalf("v6 %v: %d packets, want 1", v6, len(out))
		}
		want := Hdr{Flags: DataValid | NeedsCsum, GSOType: GSOTCPv4, HdrLen: 52, GSOSize: 1000, CsumStart: 20, CsumOffset: 16}
		if v6 {
			want.GSOType, want.HdrLen, want.CsumStart = GSOTCPv6, 72, 40
		}
		if hdrs[0] != want {
			t.Errorf("v6 %v: header %+v, want %+v", v6, hdrs[0], want)
		}
		whole := s
		whole.data, whole.flags = payload, tcpACK|tcpPSH
		p := whole.packet()
		copy(p[want.CsumStart+16:], out[0][want.CsumStart+16:][:2]) // partial there
		if !bytes.Equal(out[0], p) {
			t.Errorf("v6 %v: super-segment differs", v6)
		}
		bufs, sizes := buffers(8, 2000)
		n, err := Split(hdrs[0], out[0], bufs, sizes, 0)
		if err != nil || n != len(packets) {
			t.Fatalf("cut into %d, %v", n, err)
		}
		for i := range n {
			if !bytes.Equal(bufs[i][:sizes[i]], packets[i]) {
				t.Errorf("v6 %v: piece %d differs from what came", v6, i)
			}
		}
		// And without cutting: finish the checksum that the header leaves.
		n, err = Split(Hdr{Flags: hdrs[0].Flags, CsumStart: hdrs[0].CsumStart, CsumOffset: 16}, out[0], [][]byte{make([]byte, 9000)}, sizes, 0)
		if err != nil || n != 1 {
			t.Fatalf("completing: %d, %v", n, err)
		}
	}
}

// TestCoalescePairs says for two packets whether they may become one.
func TestCoalescePairs(t *testing.T) {
	first := spec{port: 9, seq: 1000, ack: 3, flags: tcpACK, window: 700, ttl: 60, options: data(12), data: data(100)}
	tests := []struct {
		name   string
		first  func(*spec)
		second func(*spec)
		want   bool
	}{
		{"next", nil, nil, true},
		{"shorter", nil, func(s *spec) { s.data = s.data[:50] }, true},
		{"longer", nil, func(s *spec) { s.data = data(101) }, false},
		{"PSH on the second", nil, func(s *spec) { s.flags |= tcpPSH }, true},
		{"PSH on the first", func(s *spec) { s.flags |= tcpPSH }, nil, false},
		{"FIN", nil, func(s *spec) { s.flags |= tcpFIN }, false},
		{"FIN on the first", func(s *spec) { s.flags |= tcpFIN }, nil, false},
		{"RST", nil, func(s *spec) { s.flags |= tcpRST }, false},
		{"SYN", nil, func(s *spec) { s.flags |= tcpSYN }, false},
		{"URG", nil, func(s *spec) { s.flags |= tcpURG }, false},
		{"CWR", nil, func(s *spec) { s.flags |= tcpCWR }, false},
		{"ECE on one", nil, func(s *spec) { s.flags |= tcpECE }, false},
		{"ECE on both", func(s *spec) { s.flags |= tcpECE }, func(s *spec) { s.flags |= tcpECE }, true},
		{"FIN on both", func(s *spec) { s.flags |= tcpFIN }, func(s *spec) { s.flags |= tcpFIN }, false},
		{"RST on both", func(s *spec) { s.flags |= tcpRST }, func(s *spec) { s.flags |= tcpRST }, false},
		{"SYN on both", func(s *spec) { s.flags |= tcpSYN }, func(s *spec) { s.flags |= tcpSYN }, false},
		{"URG on both", func(s *spec) { s.flags |= tcpURG }, func(s *spec) { s.flags |= tcpURG }, false},
		{"CWR on both", func(s *spec) { s.flags |= tcpCWR }, func(s *spec) { s.flags |= tcpCWR }, false},
		{"no ACK", func(s *spec) { s.flags = 0 }, func(s *spec) { s.flags = 0 }, false},
		{"hole", nil, func(s *spec) { s.seq++ }, false},
		{"again", nil, func(s *spec) { s.seq -= 100 }, false},
		{"no data", nil, func(s *spec) { s.data = nil }, false},
		{"other acknowledgement", nil, func(s *spec) { s.ack++ }, false},
		{"other window", nil, func(s *spec) { s.window++ }, false},
		{"other options", nil, func(s *spec) { s.options = data(13)[:12] }, false},
		{"more options", nil, func(s *spec) { s.options = data(16) }, false},
		{"other TTL", nil, func(s *spec) { s.ttl++ }, false},
		{"other traffic class", nil, func(s *spec) { s.tos = 3 }, false},
		{"other port", nil, func(s *spec) { s.port++ }, false},
		{"other address", nil, func(s *spec) { s.src++ }, false},
		{"other identification", nil, func(s *spec) { s.id += 77 }, true},
	}
	for _, tt := range tests {
		for _, v6 := range []bool{false, true} {
			a, b := first, first
			b.seq += 100
			a.v6, b.v6 = v6, v6
			if tt.first != nil {
				tt.first(&a)
			}
			if tt.second != nil {
				tt.second(&b)
			}
			pa, pb := a.packet(), b.packet()
			hdrs, out := coalesce(t, [][]byte{pa, pb})
			if got := len(out) == 1; got != tt.want {
				t.Errorf("%s, v6 %v: merged %v, want %v", tt.name, v6, got, tt.want)
			}
			if len(out) == 2 && (!bytes.Equal(out[0], pa) || !bytes.Equal(out[1], pb) || hdrs[0] != Hdr{Flags: DataValid}) {
				t.Errorf("%s, v6 %v: packets changed though not merged, %+v", tt.name, v6, hdrs)
			}
		}
	}
}

// TestCoalesceOrder: a segment that cannot be merged ends the run before it.
func TestCoalesceOrder(t *testing.T) {
	s := spec{port: 9, flags: tcpACK, data: data(10)}
	at := func(seq uint32, flags byte) []byte {
		p := s
		p.seq, p.flags = seq, flags
		return p.packet()
	}
	ack := s
	ack.data, ack.seq, ack.ack = nil, 20, 50
	packets := [][]byte{
		at(0, tcpACK), at(10, tcpACK), ack.packet(), at(20, tcpACK), at(30, tcpACK|tcpFIN), at(40, tcpACK),
		at(50, tcpACK|tcpPSH), at(60, tcpACK), // PSH ends the run that it belongs to
	}
	_, out := coalesce(t, packets)
	var seqs []uint32
	for _, p := range out {
		seqs = append(seqs, binary.BigEndian.Uint32(p[24:]))
	}
	want := []uint32{0, 20, 20, 30, 40, 60}
	if len(seqs) != len(want) {
		t.Fatalf("sequence numbers %v, want %v", seqs, want)
	}
	for i := range want {
		if seqs[i] != want[i] {
			t.Fatalf("sequence numbers %v, want %v", seqs, want)
		}
	}
}

// TestCoalesceFlows interleaves more flows than are followed at once.
func TestCoalesceFlows(t *testing.T) {
	for _, flows := range []int{1, 2, maxRuns, maxRuns + 3} {
		var packets [][]byte
		for i := range 10 {
			for f := range flows {
				packets = append(packets, spec{v6: f%2 == 1, port: uint16(f), seq: uint32(i * 10), flags: tcpACK, data: data(10)}.packet())
			}
		}
		hdrs, out := coalesce(t, packets)
		if flows <= maxRuns && len(out) != flows {
			t.Errorf("%d flows: %d packets", flows, len(out))
		}
		checkStreams(t, packets, hdrs, out)
	}
}

// TestCoalesceFragments: what Verify could not see is not marked valid.
func TestCoalesceFragments(t *testing.T) {
	p := transport(false, 1, 0, 64, 0, protoUDP, -1, data(16))
	p[6], p[7] = 0x20, 0
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], ^refSum(p[:ipv4Len], 0))
	hdrs, out := coalesce(t, [][]byte{p, append(kinds()["udp-v6=false-64"], 0, 0)})
	if len(hdrs) != 2 || hdrs[0].Flags != 0 || hdrs[1].Flags != DataValid {
		t.Errorf("headers %+v", hdrs)
	}
	if !bytes.Equal(out[1], kinds()["udp-v6=false-64"]) {
		t.Error("padding was not left out")
	}
}

// TestCoalesceFull: no room is said before anything is taken, and a run goes on
// growing where it needs none.
func TestCoalesceFull(t *testing.T) {
	bufs, sizes := buffers(1, maxPacket)
	var c Coalescer
	if c.Add(spec{}.packet()) {
		t.Error("took a packet without buffers")
	}
	c.Reset(bufs, sizes)
	one := spec{flags: tcpACK, data: data(10)}
	two, other := one, one
	two.seq, other.port = 10, 77
	if !c.Add(one.packet()) || c.Add(other.packet()) || !c.Add(two.packet()) {
		t.Error("wrong about its room")
	}
	if n := c.Flush(); n != 1 || sizes[0] != HdrLen+40+20 {
		t.Errorf("%d packets, the first of %d bytes", n, sizes[0])
	}
}

// TestCoalesceLimit: a super-segment stays an IP packet, though the buffer has
// room for a few bytes more.
func TestCoalesceLimit(t *testing.T) {
	const size = 1310 // 50 of them and the headers are 65540 bytes
	var packets [][]byte
	for i := range 50 {
		packets = append(packets, spec{seq: uint32(i * size), flags: tcpACK, data: data(size)}.packet())
	}
	hdrs, out := coalesce(t, packets)
	if len(out) != 2 {
		t.Errorf("%d packets, want 2", len(out))
	}
	checkStreams(t, packets, hdrs, out)
}

// checkStreams compares what each flow said before and after, in bytes and flags.
func checkStreams(t testing.TB, in [][]byte, hdrs []Hdr, out [][]byte) {
	t.Helper()
	bufs, sizes := buffers(len(in), maxPacket)
	var again [][]byte
	for i, p := range out {
		if len(p) > maxIP {
			t.Fatalf("packet of %d bytes", len(p))
		}
		n, err := Split(hdrs[i], p, bufs[len(again):], sizes[len(again):], 0)
		if err != nil {
			t.Fatalf("cut %+v: %v", hdrs[i], err)
		}
		for range n {
			again = append(again, bufs[len(again)][:sizes[len(again)]])
		}
	}
	if len(again) != len(in) {
		t.Fatalf("%d packets came, %d are left", len(in), len(again))
	}
	// By flow, in order; the identification is free (RFC 6864), and with it the
	// header checksum.
	flows := func(ps [][]byte) map[string][]byte {
		m := make(map[string][]byte)
		for _, p := range ps {
			if !Verify(p) {
				t.Fatalf("does not verify: % x", p[:min(len(p), 60)])
			}
			p = bytes.Clone(p)
			key := string(p[8:44])
			if p[0]>>4 == 4 {
				p[4], p[5], p[10], p[11] = 0, 0, 0, 0
				key = string(p[12:24])
			}
			m[key] = append(m[key], p...)
		}
		return m
	}
	before, after := flows(in), flows(again)
	for key := range before {
		if !bytes.Equal(before[key], after[key]) {
			t.Fatalf("flow % x changed", key)
		}
	}
}

// FuzzCoalesce makes bursts of segments out of the input: after coalescing and
// cutting, every flow is what it was.
func FuzzCoalesce(f *testing.F) {
	f.Add(uint64(1), []byte("aaaaaaaaaabbbbaaaa"))
	f.Add(uint64(2), []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 200, 201, 0, 0})
	f.Fuzz(func(t *testing.T, seed uint64, program []byte) {
		if len(program) > 200 {
			program = program[:200]
		}
		r := rand.New(rand.NewPCG(seed, 0))
		var next [16]uint32
		var packets [][]byte
		for _, op := range program {
			flow := int(op>>4) % 12
			s := spec{v6: flow%2 == 1, port: uint16(flow), seq: next[flow], ack: 1, flags: tcpACK, window: 5, ttl: 64, data: data(100)}
			switch op & 15 {
			case 0:
				s.data = data(1 + r.IntN(200))
			case 1:
				s.flags |= byte(r.Uint32()) // any flags
			case 2:
				s.seq += r.Uint32N(3) - 1
			case 3:
				s.ack += r.Uint32N(2)
			case 4:
				s.data = nil
			case 5:
				s.options = data(4 * r.IntN(10))
			case 6:
				s.tos = byte(r.Uint32())
			case 7:
				s.flags |= tcpPSH
			}
			next[flow] = s.seq + uint32(len(s.data))
			packets = append(packets, s.packet())
		}
		hdrs, out := coalesce(t, packets)
		checkStreams(t, packets, hdrs, out)
	})
}

func BenchmarkCoalesce(b *testing.B) {
	var packets [][]byte
	bytes := 0
	for i := range 128 {
		packets = append(packets, spec{seq: uint32(i * 1368), flags: tcpACK, options: make([]byte, 12), data: data(1368)}.packet())
		bytes += len(packets[i])
	}
	bufs, sizes := buffers(128, maxPacket)
	var c Coalescer
	b.SetBytes(int64(bytes))
	for b.Loop() {
		c.Reset(bufs, sizes)
		for _, p := range packets {
			c.Add(p)
		}
		c.Flush()
	}
}
