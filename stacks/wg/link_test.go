// SPDX-License-Identifier: Apache-2.0

// Tests of links, two of them back to back over UDP on loopback.

package wg_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"umrun/stacks"
	"umrun/stacks/offload"
	"umrun/stacks/wg"
	"umrun/stacks/wg/wgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadline is how long anything may take that takes milliseconds when it works.
const deadline = 20 * time.Second

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func open(t testing.TB, c *wg.Config) *wg.Link {
	t.Helper()
	l, err := wg.Open(within(t, deadline), c, wg.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// openPair opens two links that know each other, a with b's endpoint.
func openPair(t testing.TB, change func(a, b *wg.Config)) (a, b *wg.Link) {
	t.Helper()
	ca, cb := wgtest.Pair()
	if change != nil {
		change(ca, cb)
	}
	b = open(t, cb)
	ca.Peers[0].Endpoint = wgtest.Endpoint(b.Stats().ListenPort)
	return open(t, ca), b
}

func waitUp(t testing.TB, l *wg.Link) {
	t.Helper()
	if err := l.WaitUp(within(t, deadline)); err != nil {
		t.Fatal(err)
	}
}

// A reader is a stack's reader of a link: what it got comes out of a channel that
// ends with the link.
type reader struct {
	packets chan []byte // each with its offload.Hdr
	err     error
}

func read(l *wg.Link) *reader {
	r := &reader{packets: make(chan []byte, 4096)}
	go func() { // ends when the link closes
		defer close(r.packets)
		bufs, sizes := make([][]byte, l.BatchSize()), make([]int, l.BatchSize())
		for i := range bufs {
			bufs[i] = make([]byte, stacks.MaxPacket)
		}
		for {
			n, err := l.Read(bufs, sizes)
			for i := range n {
				r.packets <- bytes.Clone(bufs[i][:sizes[i]])
			}
			if err != nil {
				r.err = err
				return
			}
		}
	}()
	return r
}

// next returns the next packet, without its header.
func (r *reader) next(t testing.TB) (offload.Hdr, []byte) {
	t.Helper()
	select {
	case p, ok := <-r.packets:
		if !ok {
			t.Fatalf("link ended: %v", r.err)
		}
		var h offload.Hdr
		if err := h.Decode(p); err != nil {
			t.Fatal(err)
		}
		return h, p[offload.HdrLen:]
	case <-time.After(deadline):
		t.Fatal("no packet")
	}
	return offload.Hdr{}, nil
}

func write(t testing.TB, l *wg.Link, h offload.Hdr, p []byte) {
	t.Helper()
	b := make([]byte, offload.HdrLen+len(p))
	h.Encode(b)
	copy(b[offload.HdrLen:], p)
	if n, err := l.Write([][]byte{b}); n != 1 || err != nil {
		t.Fatalf("Write = %d, %v", n, err)
	}
}

var (
	addrA = wgtest.AddrA.Addr()
	addrB = wgtest.AddrB.Addr()
)

func TestPackets(t *testing.T) {
	a, b := openPair(t, nil)
	waitUp(t, a)
	ra, rb := read(a), read(b)
	for _, payload := range []string{"", "x", "hello", strings.Repeat("y", 1380)} {
		p := wgtest.UDP(addrA, addrB, 1000, 2000, []byte(payload))
		write(t, a, offload.Hdr{}, p)
		if h, got := rb.next(t); !bytes.Equal(got, p) || h.Flags != offload.DataValid {
			t.Errorf("got %+v % x, want % x", h, got, p)
		}
		p = wgtest.UDP(addrB, addrA, 2000, 1000, []byte(payload))
		write(t, b, offload.Hdr{}, p)
		if _, got := ra.next(t); !bytes.Equal(got, p) {
			t.Errorf("back: got % x, want % x", got, p)
		}
	}
	waitUp(t, b) // no endpoint: from the start
	s := a.Stats()
	if p := s.Peers[0]; p.LastHandshake.IsZero() || p.Sent < 1 || p.Replies < 1 || p.RxBytes == 0 || p.TxBytes == 0 {
		t.Errorf("stats %+v", p)
	}
	if s.BadIn != 0 || s.BadOut != 0 {
		t.Errorf("bad packets: %+v", s)
	}
}

// TestSuperSegments sends a stream in super-segments and expects it back whole,
// in far fewer packets than it had segments.
func TestSuperSegments(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		src, dst := addrA, addrB
		if v6 {
			src, dst = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
		}
		a, b := openPair(t, nil)
		waitUp(t, a)
		rb := read(b)
		var sent, got []byte
		const count, mss = 20, 1348
		for i := range count {
			data := bytes.Repeat([]byte{byte(i + 1)}, 60000+i)
			h, p := wgtest.TCP(src, dst, uint32(len(sent)), data, mss)
			sent = append(sent, data...)
			write(t, a, h, p)
		}
		packets := 0
		for len(got) < len(sent) {
			h, p := rb.next(t)
			if h.Flags&offload.DataValid == 0 {
				t.Fatalf("not valid: %+v", h)
			}
			seq, data := wgtest.Segment(p)
			if seq != uint32(len(got)) {
				t.Fatalf("sequence %d, want %d", seq, len(got))
			}
			got = append(got, data...)
			packets++
		}
		if !bytes.Equal(got, sent) {
			t.Error("stream damaged")
		}
		if segments := count * (60000/mss + 1); packets > segments/4 {
			t.Errorf("v6 %v: %d packets for %d segments: not coalesced", v6, packets, segments)
		}
		a.Close()
		b.Close()
	}
}

// TestOversize checks that what does not fit is dropped and counted, and what
// comes after is not held up.
func TestOversize(t *testing.T) {
	a, b := openPair(t, nil)
	waitUp(t, a)
	rb := read(b)
	write(t, a, offload.Hdr{}, wgtest.UDP(addrA, addrB, 1, 2, make([]byte, a.MTU()-27)))
	write(t, a, offload.Hdr{GSOType: offload.GSOTCPv6, GSOSize: 100}, wgtest.UDP(addrA, addrB, 1, 2, make([]byte, 200)))
	if n, err := a.Write([][]byte{{1, 2, 3}}); n != 1 || err != nil {
		t.Errorf("short packet: %d, %v", n, err)
	}
	good := wgtest.UDP(addrA, addrB, 1, 2, make([]byte, a.MTU()-28))
	write(t, a, offload.Hdr{}, good)
	if _, got := rb.next(t); !bytes.Equal(got, good) {
		t.Errorf("got %d bytes, want the %d of the good packet", len(got), len(good))
	}
	if got := a.Stats().BadOut; got != 3 {
		t.Errorf("BadOut = %d, want 3", got)
	}
}

// TestUpAtOnce: with nobody to send a handshake to, there is nothing to wait for.
func TestUpAtOnce(t *testing.T) {
	_, cb := wgtest.Pair()
	select {
	case <-open(t, cb).Up():
	default:
		t.Error("not up though no peer has an endpoint")
	}
}

func TestPresharedKey(t *testing.T) {
	psk := wg.NewPresharedKey()
	a, _ := openPair(t, func(a, b *wg.Config) {
		a.Peers[0].PresharedKey, b.Peers[0].PresharedKey = psk, psk
	})
	waitUp(t, a)
}

// noAnswer waits for a link that cannot come up.
func noAnswer(t *testing.T, l *wg.Link) *wg.NoAnswerError {
	t.Helper()
	end := time.Now().Add(deadline)
	for time.Now().Before(end) {
		err := l.WaitUp(within(t, 20*time.Millisecond))
		var na *wg.NoAnswerError
		if !errors.As(err, &na) {
			t.Fatalf("WaitUp: %v, want a NoAnswerError", err)
		}
		if na.Sent > 0 {
			return na
		}
	}
	t.Fatal("no handshake was sent")
	return nil
}

func TestWrongKey(t *testing.T) {
	a, _ := openPair(t, func(a, b *wg.Config) { a.PrivateKey = wgtest.Key() }) // b expects another
	na := noAnswer(t, a)
	if na.Replies != 0 || na.Sent != 1 || na.Addr.Addr() != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("%+v", na)
	}
	na.Waited = 10 * time.Second
	na.Addr = netip.MustParseAddrPort("198.51.100.7:51820")
	if got, want := na.Error(), "no answer from 198.51.100.7:51820 in 10 s (1 handshake sent, 0 replies)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	select {
	case <-a.Up():
		t.Error("up with a wrong key")
	default:
	}
}

// TestWrongPresharedKey knows the case by the replies: the peer accepts the
// initiation, but its response cannot be read.
func TestWrongPresharedKey(t *testing.T) {
	a, _ := openPair(t, func(a, b *wg.Config) { a.Peers[0].PresharedKey = wg.NewPresharedKey() })
	end := time.Now().Add(deadline)
	for time.Now().Before(end) {
		if na := noAnswer(t, a); na.Replies > 0 {
			if !strings.Contains(na.Hint(), "PresharedKey") {
				t.Errorf("hint %q", na.Hint())
			}
			return
		}
	}
	t.Error("no reply was counted")
}

// TestCorruptedPackets sends packets of every kind, each with one checksum or
// length wrong, under valid WireGuard.
func TestCorruptedPackets(t *testing.T) {
	ca, _ := wgtest.Pair()
	key := wgtest.Key()
	ca.Peers[0].PublicKey = key.Public()
	p, err := wgtest.NewRawPeer(key, ca.PrivateKey.Public(), wg.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ca.Peers[0].Endpoint = wgtest.Endpoint(p.Port)
	a := open(t, ca)
	waitUp(t, a)
	ra := read(a)
	v6a, v6b := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	_, tcp4 := wgtest.TCP(addrB, addrA, 7, []byte("data!"), 0)
	_, tcp6 := wgtest.TCP(v6b, v6a, 7, []byte("data!"), 0)
	kinds := [][]byte{
		tcp4, tcp6,
		wgtest.UDP(addrB, addrA, 5, 6, []byte("data!")), wgtest.UDP(v6b, v6a, 5, 6, []byte("data!")),
		wgtest.Echo(addrB, addrA, []byte("data!")), wgtest.Echo(v6b, v6a, []byte("data!")),
	}
	bad := uint64(0)
	for _, good := range kinds {
		for bit := range 8 {
			damaged := bytes.Clone(good)
			damaged[len(damaged)-1-bit%5] ^= 1 << bit
			p.Out() <- damaged
			bad++
		}
		if good[0]>>4 == 4 {
			damaged := bytes.Clone(good)
			damaged[8]++ // TTL, which only the header checksum covers
			p.Out() <- damaged
			bad++
		}
		p.Out() <- good
		if _, got := ra.next(t); !bytes.Equal(got, good) {
			t.Fatalf("delivered % x\nwant      % x", got, good)
		}
	}
	if got := a.Stats().BadIn; got != bad {
		t.Errorf("BadIn = %d, want %d", got, bad)
	}
}

// TestCryptokeyRouting: what is outside of AllowedIPs does not pass, either way.
func TestCryptokeyRouting(t *testing.T) {
	a, b := openPair(t, func(a, b *wg.Config) {
		a.Peers[0].AllowedIPs = []netip.Prefix{netip.PrefixFrom(addrB, 32)}
	})
	waitUp(t, a)
	ra, rb := read(a), read(b)
	other := netip.MustParseAddr("10.99.0.1")
	good := wgtest.UDP(addrA, addrB, 1, 2, []byte("good"))
	write(t, a, offload.Hdr{}, wgtest.UDP(addrA, other, 1, 2, []byte("outside")))
	write(t, a, offload.Hdr{}, good)
	if _, got := rb.next(t); !bytes.Equal(got, good) {
		t.Errorf("to a peer: % x", got)
	}
	good = wgtest.UDP(addrB, addrA, 1, 2, []byte("good"))
	write(t, b, offload.Hdr{}, wgtest.UDP(other, addrA, 1, 2, []byte("outside")))
	write(t, b, offload.Hdr{}, good)
	if _, got := ra.next(t); !bytes.Equal(got, good) {
		t.Errorf("from a peer: % x", got)
	}
}

// TestBackPressure: with nobody reading, nothing is lost, and everything comes
// once somebody does.
func TestBackPressure(t *testing.T) {
	a, b := openPair(t, nil)
	waitUp(t, a)
	const n = 500
	for i := range n {
		write(t, a, offload.Hdr{}, wgtest.UDP(addrA, addrB, 1, 2, []byte{byte(i), byte(i >> 8)}))
	}
	rb := read(b)
	for i := range n {
		_, p := rb.next(t)
		if got := int(p[28]) + int(p[29])<<8; got != i {
			t.Fatalf("packet %d, want %d", got, i)
		}
	}
}

func TestClose(t *testing.T) {
	a, b := openPair(t, nil)
	r := read(a)
	done := make(chan error, 1)
	go func() { // ends by Close: the device takes packets until then
		p := make([]byte, offload.HdrLen)
		p = append(p, wgtest.UDP(addrA, addrB, 1, 2, nil)...)
		for {
			if _, err := a.Write([][]byte{p}); err != nil {
				done <- err
				return
			}
		}
	}()
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	for range r.packets {
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) || !errors.Is(r.err, net.ErrClosed) {
		t.Errorf("Write: %v, Read: %v, want net.ErrClosed", err, r.err)
	}
	if err := a.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := a.Write(nil); err != nil {
		t.Errorf("Write of nothing: %v", err)
	}
	b.Close()
}

func TestOpenErrors(t *testing.T) {
	busy, err := net.ListenUDP("udp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	c, _ := wgtest.Pair()
	c.ListenPort = uint16(busy.LocalAddr().(*net.UDPAddr).Port)
	if _, err := wg.Open(within(t, deadline), c, wg.Options{}); err == nil || !strings.Contains(err.Error(), "listen on UDP port") {
		t.Errorf("busy port: %v", err)
	}

	for _, tt := range []struct {
		change func(*wg.Config)
		want   string
	}{
		{func(c *wg.Config) { c.PrivateKey = wg.Secret{} }, "no private key"},
		{func(c *wg.Config) { c.MTU = -1 }, "MTU -1"},
		{func(c *wg.Config) { c.MTU = 65500 }, "MTU 65500"},
		{func(c *wg.Config) { c.MTU, c.Addresses[0] = 1200, netip.MustParsePrefix("fd00::1/64") }, "IPv6"},
	} {
		c, _ := wgtest.Pair()
		tt.change(c)
		if _, err := wg.Open(within(t, deadline), c, wg.Options{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}

	c, _ = wgtest.Pair()
	c.Peers[0].Endpoint = wg.Endpoint{Host: "vpn.example", Port: 1}
	resolve := func(context.Context, string) ([]netip.Addr, error) { return nil, io.ErrUnexpectedEOF }
	_, err = wg.Open(within(t, deadline), c, wg.Options{Resolve: resolve})
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "vpn.example") {
		t.Errorf("resolver broken: %v", err)
	}
}

// BenchmarkLink sends super-segments from link to link; both ends, with their
// crypto, are in this process.
func BenchmarkLink(b *testing.B) {
	for _, bm := range []struct {
		name      string
		data, mss int
	}{{"super", 60000, 1348}, {"single", 1348, 0}} {
		b.Run(bm.name, func(b *testing.B) {
			from, to := openPair(b, nil)
			waitUp(b, from)
			received := make(chan int, 1)
			go func() { // ends when the link closes
				bufs, sizes := make([][]byte, to.BatchSize()), make([]int, to.BatchSize())
				for i := range bufs {
					bufs[i] = make([]byte, stacks.MaxPacket)
				}
				for {
					n, err := to.Read(bufs, sizes)
					if err != nil {
						return
					}
					sum := 0
					for _, size := range sizes[:n] {
						sum += size
					}
					select {
					case got := <-received:
						received <- got + sum
					default:
						received <- sum
					}
				}
			}()
			h, p := wgtest.TCP(addrA, addrB, 0, make([]byte, bm.data), bm.mss)
			one := make([]byte, offload.HdrLen+len(p))
			h.Encode(one)
			copy(one[offload.HdrLen:], p)
			b.SetBytes(int64(bm.data))
			// The medium is UDP, which drops; a window like TCP's keeps that rare.
			const window = 2 << 20
			flying, lost := 0, 0
			for b.Loop() {
				if n, err := from.Write([][]byte{one}); n != 1 || err != nil {
					b.Fatalf("Write = %d, %v", n, err)
				}
				for flying += bm.data; flying > window; {
					select {
					case got := <-received:
						flying -= got
					case <-time.After(100 * time.Millisecond):
						lost += flying
						flying = 0
					}
				}
			}
			b.ReportMetric(100*float64(lost)/float64(b.N*bm.data), "%lost")
			from.Close()
			to.Close()
		})
	}
}
