// SPDX-License-Identifier: Apache-2.0

// A wire with the client at one end and made-up servers and routers at the other. The
// tests run in bubbles of testing/synctest: hours of a lease pass in no time.

package netconf

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"umrun/stacks"
	"umrun/stacks/offload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	ourMAC    = net.HardwareAddr{2, 0, 0, 0, 0, 0x11}
	serverMAC = net.HardwareAddr{2, 0, 0, 0, 0, 0xaa}
	otherMAC  = net.HardwareAddr{2, 0, 0, 0, 0, 0xbb}
)

// A peer hears a frame and says what it says to it. It runs on the client's goroutine.
type peer func(p packet, frame []byte) [][]byte

// A wire is the link below the client.
type wire struct {
	head int // of virtio
	in   chan []byte
	quit chan struct{}
	once sync.Once

	mu    sync.Mutex
	peers []peer
	sent  []note
	stack [][]byte // what reached the stack
	block chan struct{}
}

// A note is of a frame that the client has sent.
type note struct {
	at    time.Duration // since the client began
	frame packet
	raw   []byte
}

func newWire(peers ...peer) *wire {
	return &wire{in: make(chan []byte, 256), quit: make(chan struct{}), peers: peers}
}

func (w *wire) Type() stacks.LinkType { return stacks.LinkEthernet }
func (w *wire) MTU() int              { return 1500 }
func (w *wire) BatchSize() int        { return 8 }
func (w *wire) Offloads() bool        { return w.head > 0 }

func (w *wire) Read(bufs [][]byte, sizes []int) (int, error) {
	select {
	case b := <-w.in:
		n := 0
		for {
			sizes[n] = copy(bufs[n], append(make([]byte, w.head), b...))
			n++
			if n == len(bufs) || len(w.in) == 0 {
				return n, nil
			}
			b = <-w.in
		}
	case <-w.quit:
		return 0, net.ErrClosed
	}
}

func (w *wire) Write(bufs [][]byte) (int, error) {
	w.mu.Lock()
	block := w.block
	w.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-w.quit:
			return 0, net.ErrClosed
		}
	}
	for _, b := range bufs {
		b = slices.Clone(b[w.head:])
		p, ok := parse(b, false)
		if !ok {
			panic(fmt.Sprintf("the client sends a broken frame: %x", b))
		}
		w.mu.Lock()
		w.sent = append(w.sent, note{frame: p, raw: b, at: time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))})
		peers := w.peers
		w.mu.Unlock()
		for _, f := range peers {
			for _, answer := range f(p, b) {
				w.say(answer)
			}
		}
		w.meet()
	}
	return len(bufs), nil
}

// meet orders what the peers did before what the test does, and the other way round,
// which the race detector does not learn from time that passes.
func (w *wire) meet() {
	w.mu.Lock()
	w.mu.Unlock() //lint:ignore SA2001 for its order alone
}

// say puts a frame onto the wire, towards the client.
func (w *wire) say(frame []byte) {
	select {
	case w.in <- frame:
	default:
		panic("the wire is full")
	}
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.quit) })
	return nil
}

// sends returns what was sent since it was last asked.
func (w *wire) sends() []note {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.sent
	w.sent = nil
	return s
}

// passed returns what reached the stack since it was last asked.
func (w *wire) passed() [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stack
	w.stack = nil
	return s
}

// A world is a wire, a client, and the interface that it configures.
type world struct {
	*wire
	t       *testing.T
	c       *Client
	link    stacks.Link
	mu      sync.Mutex
	now     stacks.Settings
	applied int  // how often
	down    bool // the interface is
	wg      sync.WaitGroup
}

// start runs a client on w.
func start(t *testing.T, w *wire, conf Config) *world {
	t.Helper()
	conf.Name, conf.MAC = "test0", ourMAC
	if testing.Verbose() {
		conf.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	c, err := New(w, conf)
	if err != nil {
		t.Fatal(err)
	}
	x := &world{wire: w, t: t, c: c, link: c.Link()}
	x.wg.Go(func() { // the stack
		bufs, sizes := make([][]byte, 8), make([]int, 8)
		for i := range bufs {
			bufs[i] = make([]byte, stacks.MaxPacket)
		}
		for {
			n, err := x.link.Read(bufs, sizes)
			if err != nil {
				return
			}
			w.mu.Lock()
			for i := range n {
				w.stack = append(w.stack, slices.Clone(bufs[i][w.head:sizes[i]]))
			}
			w.mu.Unlock()
		}
	})
	t.Cleanup(x.close)
	c.Start(7, func(_, next stacks.Settings) error {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.now = next
		x.applied++
		return nil
	}, func() bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		return !x.down
	})
	synctest.Wait() // it listens
	x.meet()
	return x
}

func (x *world) close() {
	x.link.Close()
	x.wg.Wait()
}

// pass lets time pass.
func (x *world) pass(d time.Duration) {
	x.meet()
	time.Sleep(d) // of the bubble
	synctest.Wait()
	x.meet()
}

// wait is Client.Wait.
func (x *world) wait(ctx context.Context) error {
	x.meet()
	defer x.meet()
	return x.c.Wait(ctx)
}

func (x *world) settings() stacks.Settings {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.now
}

// addrs are the addresses that the interface has now.
func (x *world) addrs() []string {
	var out []string
	for _, a := range x.settings().Addrs {
		out = append(out, a.Prefix.String())
	}
	return out
}

// routes are the routes that the interface has now.
func (x *world) routes() []string {
	var out []string
	for _, r := range x.settings().Routes {
		s := r.Dst.String()
		if r.Gateway.IsValid() {
			s += " via " + r.Gateway.String()
		}
		if r.OnLink {
			s += " onlink"
		}
		out = append(out, fmt.Sprintf("%s metric %d mtu %d", s, r.Metric, r.MTU))
	}
	return out
}

func (x *world) want(what string, got, want any) {
	x.t.Helper()
	x.meet()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		x.t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// TestLinkPasses: what is not the client's passes in its order, and so does the order
// of buffers.
func TestLinkPasses(t *testing.T) {
	for _, head := range []int{0, offload.HdrLen} {
		synctest.Test(t, func(t *testing.T) {
			w := newWire()
			w.head = head
			x := start(t, w, Config{Words: Words{DHCP: true, SLAAC: true}})
			synctest.Wait()
			x.passed()
			xid := x.c.link.xid4.Load()
			data := func(n byte) []byte {
				return udp4(ourMAC, serverMAC, addr("192.0.2.7"), addr("192.0.2.1"), 9999, 53, []byte{n, 1, 2, 3, 4, 5, 6, 7, 8, 9})
			}
			reply := bootp(xid, ourMAC)
			foreign := bootp(xid+2, ourMAC)
			ours := udp4(ourMAC, serverMAC, addr("192.0.2.7"), addr("192.0.2.1"), 68, 67, reply)
			others := udp4(ourMAC, serverMAC, addr("192.0.2.7"), addr("192.0.2.1"), 68, 67, foreign)
			damaged := slices.Clone(ours)
			damaged[len(damaged)-1] ^= 1
			ra := advertFrame(routerAddr, nil, 1800)
			short := []byte{1, 2, 3}
			// One batch, since the stack reads when all are there.
			for _, b := range [][]byte{data(1), ours, data(2), ra, ours, short, others, data(3), damaged} {
				x.say(b)
			}
			synctest.Wait()
			got := x.passed()
			want := [][]byte{data(1), data(2), ra, short, others, data(3), damaged}
			if !slices.EqualFunc(got, want, slices.Equal[[]byte]) {
				t.Errorf("head %d: %d frames passed, want %d\n%x\n%x", head, len(got), len(want), got, want)
			}
			x.close()
		})
	}
}

// trier is a wire that takes packets without waiting, and pushes.
type trier struct {
	*wire
	push func([]byte)
}

func (t *trier) TryWrite(bufs [][]byte) int { n, _ := t.Write(bufs); return n }
func (t *trier) Push(f func([]byte))        { t.push = f }
func (t *trier) Up() <-chan struct{}        { return t.quit }

// TestLinkKeepsWhatTheLinkBelowCan: the optional methods are there if they are below.
func TestLinkKeepsWhatTheLinkBelowCan(t *testing.T) {
	plain, err := New(newWire(), Config{MAC: ourMAC})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Link().Close()
	if _, ok := plain.Link().(stacks.TryWriter); ok {
		t.Error("a link that waits promises that it does not")
	}
	select {
	case <-plain.Link().(stacks.Waiter).Up():
	default:
		t.Error("a link that is up at once is not")
	}
	low := &trier{wire: newWire()}
	c, err := New(low, Config{MAC: ourMAC, Words: Words{DHCP: true}})
	if err != nil {
		t.Fatal(err)
	}
	l := c.Link()
	c.link.xid4.Store(77)
	if n := l.(stacks.TryWriter).TryWrite([][]byte{arp(ourMAC, addr("192.0.2.1"), addr("192.0.2.2"))}); n != 1 || len(low.sends()) != 1 {
		t.Error("TryWrite does not reach the link below")
	}
	var got [][]byte
	l.(stacks.Pusher).Push(func(b []byte) { got = append(got, b) })
	low.push(udp4(ourMAC, serverMAC, addr("192.0.2.7"), addr("192.0.2.1"), 68, 67, bootp(77, ourMAC)))
	other := udp4(ourMAC, serverMAC, addr("192.0.2.7"), addr("192.0.2.1"), 68, 67, bootp(78, ourMAC))
	low.push(other)
	if len(got) != 1 || !slices.Equal(got[0], other) {
		t.Errorf("%d frames were pushed on, want the foreign one", len(got))
	}
	select {
	case <-l.(stacks.Waiter).Up():
		t.Error("a link that is not up is")
	default:
	}
	l.Close()
	if _, err := New(ipLink{low}, Config{MAC: ourMAC}); err == nil {
		t.Error("a link without frames was taken")
	}
	if _, err := New(low, Config{MAC: net.HardwareAddr{1, 2, 3, 4, 5, 6}}); err == nil {
		t.Error("the address of a group was taken")
	}
}

type ipLink struct{ stacks.Link }

func (ipLink) Type() stacks.LinkType { return stacks.LinkIP }

// TestCloseDoesNotWaitForTheLink: a link that takes nothing does not hold up the end.
func TestCloseDoesNotWaitForTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		w.block = make(chan struct{})
		x := start(t, w, Config{Words: Words{Auto: true}})
		synctest.Wait()
		began := time.Now()
		x.close()
		if d := time.Since(began); d > releaseTime {
			t.Errorf("closing took %s", d)
		}
		x.close() // twice is fine
	})
}

// TestNotStarted: a client that was never started closes its link.
func TestNotStarted(t *testing.T) {
	w := newWire()
	c, err := New(w, Config{MAC: ourMAC, Words: Words{Auto: true}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Link().Close(); err != nil {
		t.Fatal(err)
	}
	c.Start(2, nil, nil)
	if err := c.Wait(t.Context()); err != net.ErrClosed {
		t.Errorf("waiting for a closed link: %v", err)
	}
}

// TestUpAgain: an interface that was down gets everything anew, and routers are asked.
func TestUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ra := func() []byte { return advertFrame(routerAddr, pio("2001:db8:1::/64", 0xc0, 3600, 3600), 1800) }
		x := start(t, newWire(newServer("192.0.2.50").peer, answering(ra)), Config{Words: Words{Auto: true}})
		x.pass(10 * time.Second)
		n := x.applied
		x.sends()
		for _, down := range []bool{false, true, true, false} {
			x.mu.Lock()
			x.down = down
			x.mu.Unlock()
			x.c.Changed()
			x.c.Changed()
			synctest.Wait()
			if down && x.applied != n {
				t.Errorf("applied %d times to an interface that is down", x.applied-n)
			}
		}
		x.pass(time.Second)
		if x.applied == n || len(x.addrs()) != 2 || len(x.routes()) != 3 {
			t.Errorf("applied %d times: %v, %v", x.applied-n, x.addrs(), x.routes())
		}
		if got := x.sends(); len(got) != 1 || got[0].frame.data[0] != typeRouterSolicit {
			t.Errorf("%d frames, want a solicitation", len(got))
		}
		x.close()
	})
}

// BenchmarkTake is what a frame of a connection costs on its way up.
func BenchmarkTake(b *testing.B) {
	c, err := New(newWire(), Config{MAC: ourMAC, Words: Words{Auto: true}})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Link().Close()
	c.link.addr4.Store(as4(addr("192.0.2.7"))) // as with a lease
	c.link.nd.Store(wantRA)
	tcp := udp4(ourMAC, serverMAC, addr("192.0.2.7"), addr("192.0.2.1"), 9999, 53, make([]byte, 1400))
	for b.Loop() {
		if c.link.take(tcp) {
			b.Fatal("taken")
		}
	}
}
