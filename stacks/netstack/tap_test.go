// SPDX-License-Identifier: Apache-2.0

// What taps see, and what is put onto interfaces.

package netstack_test

import (
	"errors"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/pipe"
)

// A catch is what a tap has seen.
type catch struct {
	mu     sync.Mutex
	frames []stacks.Frame
}

func (c *catch) see(f *stacks.Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := *f
	g.Data = append([]byte(nil), f.Data...)
	c.frames = append(c.frames, g)
}

// take returns the UDP datagrams seen so far, and forgets them.
func (c *catch) take() (out []stacks.Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.frames {
		if f.Proto == unix.ETH_P_IP && f.Data[9] == unix.IPPROTO_UDP {
			out = append(out, f)
		}
	}
	c.frames = nil
	return out
}

// tap listens to a stack until the test ends.
func tap(t *testing.T, s stacks.Stack) *catch {
	t.Helper()
	c := &catch{}
	t.Cleanup(s.(stacks.Tapper).Tap(c.see))
	return c
}

// awaitFrames waits for n datagrams.
func awaitFrames(t *testing.T, c *catch, n int) []stacks.Frame {
	t.Helper()
	var all []stacks.Frame
	await(t, func() bool { all = append(all, c.take()...); return len(all) >= n })
	if len(all) != n {
		t.Fatalf("%d datagrams, want %d", len(all), n)
	}
	return all
}

func TestTap(t *testing.T) {
	p := newPair(t, pipe.Config{}, nil)
	a, b := tap(t, p.A), tap(t, p.B)
	if err := sends(t, p.A, netip.AddrPortFrom(p.B4, 9), netip.AddrPort{}); err != nil {
		t.Fatal(err)
	}
	const size = 20 + 8 + 1 // IPv4, UDP, data
	for _, tc := range []struct {
		c        *catch
		outgoing bool
	}{{a, true}, {b, false}} {
		f := awaitFrames(t, tc.c, 1)[0]
		if f.IfIndex != 2 || f.Loop || f.Outgoing != tc.outgoing || len(f.Data) != size || f.Stamp == 0 || f.Origin != nil {
			t.Errorf("outgoing %t: got %+v", tc.outgoing, f)
		}
	}
	if err := sends(t, p.A, netip.MustParseAddrPort("127.0.0.1:9"), netip.AddrPort{}); err != nil {
		t.Fatal(err)
	}
	f := awaitFrames(t, a, 2)
	if !f[0].Outgoing || f[1].Outgoing || !f[0].Loop || f[0].IfIndex != 1 || len(f[1].Data) != size {
		t.Errorf("lo: got %+v", f)
	}
}

func TestInject(t *testing.T) {
	p := newPair(t, pipe.Config{}, nil)
	a, b := tap(t, p.A), tap(t, p.B)
	if err := sends(t, p.A, netip.AddrPortFrom(p.B4, 9), netip.AddrPort{}); err != nil {
		t.Fatal(err)
	}
	packet := awaitFrames(t, a, 1)[0].Data
	awaitFrames(t, b, 1)

	in := p.A.(stacks.Tapper).Inject
	me := new(int)
	if err := in(2, unix.ETH_P_IP, packet, me); err != nil {
		t.Fatal(err)
	}
	if f := awaitFrames(t, a, 1)[0]; f.Origin != me || !f.Outgoing {
		t.Errorf("the sender's tap: %+v", f)
	}
	if f := awaitFrames(t, b, 1)[0]; f.Origin != nil || f.Outgoing {
		t.Errorf("the receiver's tap: %+v", f)
	}
	for _, tc := range []struct {
		name  string
		index int
		want  error
	}{{"no interface", 7, unix.ENXIO}, {"index 0", 0, unix.ENXIO}, {"negative", -1, unix.ENXIO}} {
		if err := in(tc.index, unix.ETH_P_IP, packet, nil); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
	}
	if err := in(2, 0x88b5, []byte{0xff}, nil); err != nil { // no IP: lost, if anywhere, on the link
		t.Error(err)
	}
	if err := change(t, p.A, func(st *stacks.State) { st.Interfaces[1].Up, st.Routes = false, nil }); err != nil {
		t.Fatal(err)
	}
	if err := in(2, unix.ETH_P_IP, packet, nil); !errors.Is(err, unix.ENETDOWN) {
		t.Errorf("down: %v", err)
	}
	p.A.Close()
	if err := in(2, unix.ETH_P_IP, packet, nil); !errors.Is(err, unix.ENETDOWN) {
		t.Errorf("closed: %v", err)
	}
}
