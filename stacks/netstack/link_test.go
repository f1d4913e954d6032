// SPDX-License-Identifier: Apache-2.0

// Tests of the packet path: checksums, corrupted packets, floods, dead links.

package netstack_test

import (
	"bytes"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/netstack"
	"umrun/stacks/offload"
	"umrun/stacks/pipe"
	"umrun/stacks/stacktest"
)

// A tapLink shows every packet that is written to f, which returns what is
// written instead.
type tapLink struct {
	stacks.Link
	f func(packet []byte) [][]byte
}

func (l *tapLink) Offloads() bool {
	o, ok := l.Link.(stacks.Offloads)
	return ok && o.Offloads()
}

func (l *tapLink) Write(bufs [][]byte) (int, error) {
	for i, b := range bufs {
		if _, err := l.Link.Write(l.f(bytes.Clone(b))); err != nil {
			return i, err
		}
	}
	return len(bufs), nil
}

// A cardLink makes an offloading link of one that does not: packets that come in
// have the flags of an honest network card that verified nothing, packets that
// go out are cut and summed.
type cardLink struct{ stacks.Link }

func (cardLink) Offloads() bool { return true }

func (l cardLink) Read(bufs [][]byte, sizes []int) (int, error) {
	inner := make([][]byte, len(bufs))
	for i, b := range bufs {
		inner[i] = b[offload.HdrLen:]
	}
	n, err := l.Link.Read(inner, sizes)
	for i := range n {
		offload.Hdr{}.Encode(bufs[i])
		sizes[i] += offload.HdrLen
	}
	return n, err
}

func (l cardLink) Write(bufs [][]byte) (int, error) {
	for i, b := range bufs {
		var h offload.Hdr
		if err := h.Decode(b); err != nil {
			return i, err
		}
		out, sizes := make([][]byte, 64), make([]int, 64)
		for j := range out {
			out[j] = make([]byte, l.MTU())
		}
		n, err := offload.Split(h, b[offload.HdrLen:], out, sizes, 0)
		if err != nil {
			return i, err
		}
		for j := range n {
			out[j] = out[j][:sizes[j]]
		}
		if _, err := l.Link.Write(out[:n]); err != nil {
			return i, err
		}
	}
	return len(bufs), nil
}

// TestChecksumsOnSend runs all cases over links that look at every packet: each
// is complete, also behind a link that cuts super-segments.
func TestChecksumsOnSend(t *testing.T) {
	for _, card := range []bool{false, true} {
		var bad, total atomic.Int64
		check := func(l stacks.Link) stacks.Link {
			tap := &tapLink{Link: l, f: func(p []byte) [][]byte {
				total.Add(1)
				if !offload.Verify(p) {
					bad.Add(1)
				}
				return [][]byte{p}
			}}
			if card {
				return cardLink{tap}
			}
			return tap
		}
		stacktest.Run(t, newPair(t, pipe.Config{}, func(a, b stacks.Link) (stacks.Link, stacks.Link) {
			return check(a), check(b)
		}))
		if bad.Load() != 0 || total.Load() < 1000 {
			t.Errorf("card %v: %d of %d packets left with a bad checksum", card, bad.Load(), total.Load())
		}
	}
}

// corrupt returns copies of a packet with one bit flipped, which no receiver can
// take: in the IPv4 header, or behind the part of the IPv6 header that no
// checksum covers.
func corrupt(p []byte) [][]byte {
	first := 0
	if p[0]>>4 == 6 {
		first = 8
	}
	var out [][]byte
	step := 1 + len(p)/16
	if len(p) > 200 {
		step = 1 + len(p)/2 // bulk data: two copies are enough to be slow
	}
	first += int(p[len(p)-1]) % min(step, 20)
	for i := first; i < len(p); i += step {
		c := bytes.Clone(p)
		c[i] ^= 1 << (i % 8)
		out = append(out, c)
	}
	c := bytes.Clone(p)
	c[len(c)-1] ^= 0x40
	return append(out, c)
}

// TestCorruptedPackets sends corrupted copies before each good packet: the cases
// pass all the same, so that none of them was delivered. (Large datagrams are
// left out: a corrupted fragment spoils the whole, as anywhere.)
func TestCorruptedPackets(t *testing.T) {
	for _, tt := range []struct {
		name string
		card bool
	}{{"plain link", false}, {"offloading link", true}} {
		t.Run(tt.name, func(t *testing.T) {
			spoil := func(l stacks.Link) stacks.Link {
				l = &tapLink{Link: l, f: func(p []byte) [][]byte { return append(corrupt(p), p) }}
				if tt.card {
					return cardLink{l}
				}
				return l
			}
			p := newPair(t, pipe.Config{}, func(a, b stacks.Link) (stacks.Link, stacks.Link) {
				return spoil(a), spoil(b)
			})
			p.Known = map[string]string{"udp_large": "a corrupted fragment spoils the datagram"}
			stacktest.Run(t, p)
		})
	}
}

// TestCorruptedEcho counts the answers to corrupted echo requests and datagrams:
// only the good ones are answered.
func TestCorruptedEcho(t *testing.T) {
	var answers atomic.Int64
	p := newPair(t, pipe.Config{}, func(a, b stacks.Link) (stacks.Link, stacks.Link) {
		return &tapLink{Link: a, f: func(p []byte) [][]byte { return append(corrupt(p), p) }},
			&tapLink{Link: b, f: func(p []byte) [][]byte { answers.Add(1); return [][]byte{p} }}
	})
	s, err := p.A.Socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ping := s.(stacks.PacketSocket)
	const rounds = 20
	for range rounds {
		if err := ping.SendMsg([]byte("\x08\x00\x00\x00\x00\x00\x00\x01data"), stacks.Message{Peer: netip.AddrPortFrom(p.B4, 0)}); err != nil {
			t.Fatal(err)
		}
	}
	for got := 0; got < rounds; {
		await(t, func() bool { return s.Poll()&unix.POLLIN != 0 })
		if _, _, _, err := ping.RecvMsg(make([]byte, 100), false); err != nil {
			t.Fatal(err)
		}
		got++
	}
	if n := answers.Load(); n != rounds {
		t.Errorf("%d answers to %d good requests", n, rounds)
	}
}

// TestIPv4HeaderBehindFlags: DATA_VALID speaks of the transport checksum only.
func TestIPv4HeaderBehindFlags(t *testing.T) {
	p := newPair(t, pipe.Config{Offload: true}, func(a, b stacks.Link) (stacks.Link, stacks.Link) {
		return &tapLink{Link: a, f: func(p []byte) [][]byte {
			spoilt := bytes.Clone(p)
			offload.Hdr{Flags: offload.DataValid}.Encode(spoilt)
			spoilt[offload.HdrLen+8]++ // TTL
			return [][]byte{spoilt, p}
		}}, b
	})
	rs, _ := p.B.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	recv := rs.(stacks.PacketSocket)
	defer recv.Close()
	if err := recv.Bind(netip.AddrPortFrom(p.B4, 9)); err != nil {
		t.Fatal(err)
	}
	ss, _ := p.A.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	send := ss.(stacks.PacketSocket)
	defer send.Close()
	for range 3 {
		if err := send.SendMsg([]byte("x"), stacks.Message{Peer: netip.AddrPortFrom(p.B4, 9)}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		await(t, func() bool { return recv.Poll()&unix.POLLIN != 0 })
		if _, _, m, err := recv.RecvMsg(make([]byte, 10), false); err != nil || m.TTL != 64 {
			t.Fatalf("TTL %d, %v", m.TTL, err)
		}
	}
}

// TestFlood lets both stacks answer each other's floods: with full queues in
// both directions nobody waits for the other for ever.
func TestFlood(t *testing.T) {
	p := newPair(t, pipe.Config{}, nil)
	var wg sync.WaitGroup
	for _, from := range []struct {
		st stacks.Stack
		to netip.Addr
	}{{p.A, p.B4}, {p.B, p.A4}} {
		for range 2 {
			s, err := from.st.Socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)
			if err != nil {
				t.Fatal(err)
			}
			ping := s.(stacks.PacketSocket)
			wg.Add(1)
			go func() {
				defer wg.Done()
				defer s.Close()
				msg := append([]byte{8, 0, 0, 0, 0, 0, 0, 1}, make([]byte, 1000)...)
				buf := make([]byte, 2000)
				for range 5000 {
					ping.SendMsg(msg, stacks.Message{Peer: netip.AddrPortFrom(from.to, 0)})
					ping.RecvMsg(buf, false)
				}
			}()
		}
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("the stacks wait for each other")
	}
	// And still work.
	s, _ := p.A.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	defer s.Close()
	s.Connect(netip.AddrPortFrom(p.B4, 1))
	await(t, func() bool { return s.Poll()&unix.POLLERR != 0 })
}

// TestConnectTimesOut connects over a cable that ends nowhere.
func TestConnectTimesOut(t *testing.T) {
	for _, tt := range []struct {
		name  string
		opt   int
		value byte
		min   time.Duration
	}{
		{"TCP_SYNCNT", unix.TCP_SYNCNT, 1, 2 * time.Second},
		{"TCP_USER_TIMEOUT", unix.TCP_USER_TIMEOUT, 200, 900 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, b := pipe.New(pipe.Config{})
			b.Close()
			st := newStack(t, a, a4, a6)
			s, err := st.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := s.SetOption(unix.IPPROTO_TCP, tt.opt, []byte{tt.value, 0, 0, 0}); err != nil {
				t.Fatal(err)
			}
			edge := make(chan struct{}, 10)
			defer s.Watch(unix.POLLOUT, func(stacks.Events) {
				select {
				case edge <- struct{}{}:
				default:
				}
			})()
			start := time.Now()
			addr := netip.AddrPortFrom(b4.Addr(), 80)
			if err := s.Connect(addr); err != unix.EINPROGRESS {
				t.Fatalf("connect: %v", err)
			}
			if err := s.Connect(addr); err != unix.EALREADY {
				t.Errorf("second connect: %v, want EALREADY", err)
			}
			if ev := s.Poll(); ev != 0 {
				t.Errorf("poll while connecting %#x", ev)
			}
			for s.Poll() == 0 {
				select {
				case <-edge:
				case <-time.After(10 * time.Second):
					t.Fatal("no edge")
				}
			}
			if d := time.Since(start); d < tt.min {
				t.Errorf("timed out after %v", d)
			}
			want := stacks.Events(unix.POLLIN | unix.POLLOUT | unix.POLLERR | unix.POLLHUP | unix.POLLRDHUP)
			if ev := s.Poll(); ev != want {
				t.Errorf("poll %#x, want %#x", ev, want)
			}
			if err := s.Connect(addr); err != unix.ETIMEDOUT {
				t.Errorf("connect: %v, want ETIMEDOUT", err)
			}
		})
	}
}

// TestPeerGone closes the other stack: its resets arrive.
func TestPeerGone(t *testing.T) {
	p := newPair(t, pipe.Config{}, nil)
	l, _ := p.B.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err := l.(stacks.StreamSocket).Listen(1); err != nil {
		t.Fatal(err)
	}
	local, _ := l.Names()
	c, _ := p.A.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	defer c.Close()
	c.Connect(netip.AddrPortFrom(p.B4, local.Port()))
	await(t, func() bool { return c.Poll() == unix.POLLOUT && l.Poll() == unix.POLLIN })
	if _, err := l.(stacks.StreamSocket).Accept(); err != nil {
		t.Fatal(err)
	}
	if err := p.B.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return c.Poll()&unix.POLLERR != 0 })
	_, err := c.(stacks.StreamSocket).Recv(&bytes.Buffer{}, 10)
	if err != unix.ECONNRESET {
		t.Errorf("recv: %v, want ECONNRESET", err)
	}
}

// TestStackDown: after Close every call gives ENETDOWN.
func TestStackDown(t *testing.T) {
	st, err := netstack.New(netstack.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s, _ := st.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	u, _ := st.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	for range 2 {
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	}
	any := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	_, _, _, recvErr := u.(stacks.PacketSocket).RecvMsg(nil, false)
	_, sendErr := s.(stacks.StreamSocket).Send(strings.NewReader("x"))
	_, socketErr := st.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	for name, err := range map[string]error{
		"bind": s.Bind(any), "connect": s.Connect(netip.MustParseAddrPort("127.0.0.1:1")),
		"shutdown": s.Shutdown(0), "listen": s.(stacks.StreamSocket).Listen(1),
		"send": sendErr, "recv": recvErr, "socket": socketErr,
	} {
		if err != unix.ENETDOWN {
			t.Errorf("%s: %v, want ENETDOWN", name, err)
		}
	}
	for _, s := range []stacks.Socket{s, u} {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		s.Poll()
	}
}

// await polls until cond holds.
func await(t *testing.T, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("gave up waiting")
		}
	}
}
