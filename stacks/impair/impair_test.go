// SPDX-License-Identifier: Apache-2.0

// Rates, delays and losses, measured.

package impair_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"umrun/stacks"
	"umrun/stacks/impair"
	"umrun/stacks/netstack"
	"umrun/stacks/offload"
	"umrun/stacks/pipe"
	"umrun/stacks/stacknet"
	"umrun/stacks/stacktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newPair makes an impaired end of a pipe, and the other end.
func newPair(t testing.TB, c impair.Config, p pipe.Config) (*impair.Link, *pipe.End) {
	t.Helper()
	a, b := pipe.New(p)
	l := impair.New(a, c)
	t.Cleanup(func() { b.Close(); l.Close() })
	return l, b
}

// numbered is a packet of n bytes with a number in it.
func numbered(i, n int) []byte {
	p := make([]byte, n)
	binary.BigEndian.PutUint32(p, uint32(i))
	return p
}

// collect reads from l until n packets have come or nothing comes any more for patience.
func collect(t testing.TB, l stacks.Link, n int, patience time.Duration) (numbers []int, last time.Time) {
	t.Helper()
	type batch struct {
		numbers []int
		at      time.Time
	}
	ch := make(chan batch)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		bufs, sizes := make([][]byte, 64), make([]int, 64)
		for i := range bufs {
			bufs[i] = make([]byte, 70000)
		}
		for {
			k, err := l.Read(bufs, sizes)
			if err != nil {
				return
			}
			b := batch{at: time.Now()}
			for i := range k {
				b.numbers = append(b.numbers, int(binary.BigEndian.Uint32(bufs[i])))
			}
			select {
			case ch <- b:
			case <-stop:
				return
			}
		}
	}()
	for len(numbers) < n {
		select {
		case b := <-ch:
			numbers, last = append(numbers, b.numbers...), b.at
		case <-time.After(patience):
			return numbers, last
		}
	}
	return numbers, last
}

// ways are both directions of an impaired link.
func ways(t *testing.T, c impair.Config, f func(t *testing.T, from, to stacks.Link)) {
	t.Helper()
	t.Run("out", func(t *testing.T) {
		l, far := newPair(t, c, pipe.Config{})
		f(t, l, far)
	})
	t.Run("in", func(t *testing.T) {
		l, far := newPair(t, c, pipe.Config{})
		f(t, far, l)
	})
}

func TestDelay(t *testing.T) {
	ways(t, impair.Config{Delay: 50 * time.Millisecond}, func(t *testing.T, from, to stacks.Link) {
		began := time.Now()
		for i := range 100 {
			if _, err := from.Write([][]byte{numbered(i, 100)}); err != nil {
				t.Fatal(err)
			}
		}
		got, last := collect(t, to, 100, 5*time.Second)
		for i, n := range got {
			if i != n {
				t.Fatalf("packet %d comes in place of %d", n, i)
			}
		}
		if took := last.Sub(began); len(got) != 100 || took < 50*time.Millisecond || took > 5*time.Second {
			t.Errorf("%d packets in %v", len(got), took)
		}
	})
}

// TestJitter: packets overtake each other, and none comes too soon.
func TestJitter(t *testing.T) {
	ways(t, impair.Config{Delay: 30 * time.Millisecond, Jitter: 20 * time.Millisecond}, func(t *testing.T, from, to stacks.Link) {
		began := time.Now()
		for i := range 200 {
			from.Write([][]byte{numbered(i, 100)})
		}
		got, last := collect(t, to, 200, 5*time.Second)
		turned := 0
		for i := 1; i < len(got); i++ {
			if got[i] < got[i-1] {
				turned++
			}
		}
		if len(got) != 200 || turned < 20 {
			t.Errorf("%d packets, %d of them in another order", len(got), turned)
		}
		if took := last.Sub(began); took < 40*time.Millisecond || took > 5*time.Second {
			t.Errorf("the last one came after %v", took)
		}
	})
}

func TestLoss(t *testing.T) {
	const n, share = 20000, 0.1
	ways(t, impair.Config{Loss: share}, func(t *testing.T, from, to stacks.Link) {
		go func() {
			for i := range n {
				from.Write([][]byte{numbered(i, 60)})
			}
		}()
		got, _ := collect(t, to, n, time.Second)
		// Six standard deviations of a binomial distribution.
		if d := len(got) - n*9/10; d < -255 || d > 255 {
			t.Errorf("%d of %d packets came", len(got), n)
		}
	})
}

// TestRate: what is sent steadily takes its time, and a writer is held back.
func TestRate(t *testing.T) {
	const size, n = 1000, 250
	r, err := impair.ParseRate("4mbit") // 500 kB/s
	if err != nil {
		t.Fatal(err)
	}
	l, far := newPair(t, impair.Config{Rate: r}, pipe.Config{})
	began := time.Now()
	go func() {
		for i := range n {
			l.Write([][]byte{numbered(i, size)})
		}
	}()
	got, last := collect(t, far, n, 5*time.Second)
	took := last.Sub(began)
	if len(got) != n || took < 480*time.Millisecond || took > 4*time.Second {
		t.Errorf("%d packets of %d in %v, should be 500 ms", len(got), n, took)
	}
}

// TestRateIn: what comes faster than the rate is queued for a quarter of a second, and
// beyond that lost; the sender does not notice.
func TestRateIn(t *testing.T) {
	const size, n = 1000, 2000
	l, far := newPair(t, impair.Config{Rate: 500e3}, pipe.Config{})
	began := time.Now()
	for i := range n {
		if _, err := far.Write([][]byte{numbered(i, size)}); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 3*time.Second { // 4 s at the rate
		t.Errorf("the sender waited: %v", took)
	}
	got, last := collect(t, l, n, time.Second)
	took := last.Sub(began).Seconds()
	if len(got) < 100 || len(got) == n || float64(len(got)*size) > 500e3*took*1.2+5000 {
		t.Errorf("%d of %d packets came in %.3f s", len(got), n, took)
	}
}

// super is a super-segment of n bytes, in pieces of 1000, behind a link header of head
// bytes.
func super(head, n int) []byte {
	p := make([]byte, offload.HdrLen+head+40+n)
	offload.Hdr{Flags: offload.NeedsCsum, GSOType: offload.GSOTCPv4, GSOSize: 1000, HdrLen: uint16(head + 40), CsumStart: uint16(head + 20), CsumOffset: 16}.Encode(p)
	if head > 0 {
		p[offload.HdrLen+12] = 8 // IPv4's EtherType
	}
	ip := p[offload.HdrLen+head:]
	ip[0], ip[8], ip[9] = 0x45, 64, 6
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	copy(ip[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	ip[32] = 0x50
	return p
}

// TestCut: a super-segment is packets on the wire, with right checksums.
func TestCut(t *testing.T) {
	for _, ether := range []bool{false, true} {
		l, far := newPair(t, impair.Config{Rate: 1e9}, pipe.Config{Offload: true, Ethernet: ether})
		if !l.Offloads() {
			t.Fatal("the link does not offload")
		}
		head := 0
		if ether {
			head = 14
		}
		p := super(head, 3500)
		if n := l.TryWrite([][]byte{p}); n != 0 {
			t.Error("TryWrite takes a super-segment")
		}
		for name, way := range map[string][2]stacks.Link{"out": {l, far}, "in": {far, l}} {
			if _, err := way[0].Write([][]byte{p}); err != nil {
				t.Fatal(err)
			}
			bufs, sizes := make([][]byte, 64), make([]int, 64)
			for i := range bufs {
				bufs[i] = make([]byte, stacks.MaxPacket)
			}
			for got := 0; got < 4; {
				n, err := way[1].Read(bufs, sizes)
				if err != nil {
					t.Fatal(err)
				}
				for i := range n {
					b := bufs[i][:sizes[i]]
					if !offload.Verify(b[offload.HdrLen+head:]) || b[1] != offload.GSONone || len(b) > offload.HdrLen+head+1040 {
						t.Errorf("%s: a piece of %d bytes, or its sum is wrong", name, len(b))
					}
				}
				got += n
			}
		}
	}
}

// TestCutMemory: the pieces of a super-segment take no more memory than they are long.
func TestCutMemory(t *testing.T) {
	l, _ := newPair(t, impair.Config{Delay: time.Minute, Jitter: time.Second}, pipe.Config{Offload: true})
	heap := func() int {
		var m runtime.MemStats
		for range 3 { // one leaves what pools of other tests hold, and what finalizers have still to see
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	p := super(0, 65000)
	before := heap()
	const n = 100
	for range n {
		if _, err := l.Write([][]byte{p}); err != nil {
			t.Fatal(err)
		}
	}
	if grown := heap() - before; grown < n*len(p) || grown > 2*n*len(p) {
		t.Errorf("%d bytes on their way take %d", n*len(p), grown)
	}
}

// TestClose: what is on its way arrives, and nobody waits for ever.
func TestClose(t *testing.T) {
	a, b := pipe.New(pipe.Config{})
	defer b.Close()
	l := impair.New(a, impair.Config{Delay: 50 * time.Millisecond, Rate: 1e5})
	if _, err := l.Write([][]byte{numbered(7, 100)}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { _, err := l.Read([][]byte{make([]byte, 2000)}, make([]int, 1)); ended <- err }()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read: %v", err)
	}
	if _, err := l.Write([][]byte{numbered(8, 100)}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write: %v", err)
	}
	if got, _ := collect(t, b, 1, time.Second); len(got) != 1 || got[0] != 7 {
		t.Errorf("%v arrived", got)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}

	a, b2 := pipe.New(pipe.Config{})
	defer b2.Close()
	l = impair.New(a, impair.Config{Rate: 1000}) // a packet in a second
	go func() {
		for {
			if _, err := l.Write([][]byte{numbered(1, 1000)}); err != nil {
				ended <- err
				return
			}
		}
	}()
	time.AfterFunc(20*time.Millisecond, func() { l.Close() })
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a Write that waits: %v", err)
	}
	l.Close()
}

// stackPair joins two stacks by a pipe, one end of which is impaired.
func stackPair(t *testing.T, c impair.Config, p pipe.Config) stacktest.Pair {
	t.Helper()
	a, b := pipe.New(p)
	newStack := func(l stacks.Link, addrs ...string) stacks.Stack {
		var ps []netip.Prefix
		for _, s := range addrs {
			ps = append(ps, netip.MustParsePrefix(s))
		}
		s, err := netstack.New(netstack.Config{Links: []stacks.LinkConfig{{Name: "x0", Link: l, Addrs: ps}}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	ip := netip.MustParseAddr
	return stacktest.Pair{
		A: newStack(impair.New(a, c), "10.1.0.1/24", "fd00::1/64"), B: newStack(b, "10.1.0.2/24", "fd00::2/64"),
		A4: ip("10.1.0.1"), B4: ip("10.1.0.2"), A6: ip("fd00::1"), B6: ip("fd00::2"), Ping: true,
	}
}

// TestStacks: connections are what they are, only later.
func TestStacks(t *testing.T) {
	stacktest.Run(t, stackPair(t, impair.Config{Delay: time.Millisecond, Rate: 1e8}, pipe.Config{Offload: true}))
}

// TestTransfer: a stream over a bad line arrives whole, in the time that it takes.
func TestTransfer(t *testing.T) {
	p := stackPair(t, impair.Config{Delay: 10 * time.Millisecond, Jitter: time.Millisecond, Rate: 2.5e6, Loss: 0.002}, pipe.Config{Offload: true})
	const size = 1 << 20
	h := sha256.New()
	noise := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{9}), size) }
	io.Copy(h, noise())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	l, err := stacknet.Listen(p.B, netip.AddrPortFrom(p.B4, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	began := time.Now()
	c, err := stacknet.Dial(ctx, p.A, "tcp", netip.AddrPortFrom(p.B4, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if took := time.Since(began); took < 18*time.Millisecond {
		t.Errorf("connected after %v", took)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, way := range [][2]net.Conn{{c, s}, {s, c}} {
		began := time.Now()
		go io.Copy(way[0], noise())
		got := sha256.New()
		if _, err := io.CopyN(got, way[1], size); err != nil || !bytes.Equal(got.Sum(nil), h.Sum(nil)) {
			t.Errorf("what arrived is something else (%v)", err)
		}
		if took := time.Since(began); took < 380*time.Millisecond {
			t.Errorf("1 MiB at 20 Mbit/s took %v", took)
		}
	}
}

func TestParse(t *testing.T) {
	for s, want := range map[string]float64{"10mbit": 1.25e6, "500kbit": 62500, "1.5Mbit": 187500, "1gbit": 1.25e8, "100kbps": 1e5, "1mibit": 131072, "9600bit": 1200} {
		if got, err := impair.ParseRate(s); err != nil || got != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for s, want := range map[string]time.Duration{"20ms": 20 * time.Millisecond, "1.5s": 1500 * time.Millisecond, "300us": 300 * time.Microsecond, "0ms": 0, "2secs": 2 * time.Second} {
		if got, err := impair.ParseDelay(s); err != nil || got != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for s, want := range map[string]float64{"0.5%": 0.005, "100%": 1, "0%": 0} {
		if got, err := impair.ParseLoss(s); err != nil || got != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "10", "10m", "-1mbit", "nanmbit", "infbit", "1bit", "99tbit", "mbit", "10mbit/s"} {
		if _, err := impair.ParseRate(s); err == nil {
			t.Errorf("rate %q is taken", s)
		}
	}
	for _, s := range []string{"", "20", "-1ms", "1h", "2 ms", "61s", "ms"} {
		if _, err := impair.ParseDelay(s); err == nil {
			t.Errorf("delay %q is taken", s)
		}
	}
	for _, s := range []string{"", "0.5", "101%", "-1%", "%", "nan%"} {
		if _, err := impair.ParseLoss(s); err == nil || !strings.Contains(err.Error(), "0.5%") {
			t.Errorf("loss %q: %v", s, err)
		}
	}
}
