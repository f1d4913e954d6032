// SPDX-License-Identifier: Apache-2.0

// Tests of peers that move: behind a NAT that forgets, and behind a name with
// several addresses.

package wg_test

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"umrun/stacks/offload"
	"umrun/stacks/wg"
	"umrun/stacks/wg/wgtest"
)

// A relay stands between two peers as a NAT does: what comes to its front goes to
// the target from the back socket, and the other way round.
//
//	client <-> front | back <-> target
type relay struct {
	t      *testing.T
	front  *net.UDPConn
	target netip.AddrPort
	wg     sync.WaitGroup

	mu     sync.Mutex
	client netip.AddrPort
	back   *net.UDPConn
	backs  []*net.UDPConn
}

func listen(t *testing.T, addr string, port uint16) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), port)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newRelay(t *testing.T, addr string, target netip.AddrPort) *relay {
	r := &relay{t: t, front: listen(t, addr, 0), target: target}
	r.move()
	r.wg.Go(func() { // ends when front closes
		p := make([]byte, 65536)
		for {
			n, from, err := r.front.ReadFromUDPAddrPort(p)
			if err != nil {
				return
			}
			r.mu.Lock()
			r.client = from
			r.back.WriteToUDPAddrPort(p[:n], r.target)
			r.mu.Unlock()
		}
	})
	t.Cleanup(r.close)
	return r
}

// move takes a new port towards the target, and drops what still comes to the
// old one.
func (r *relay) move() {
	back := listen(r.t, "127.0.0.1", 0)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.back = back
	r.backs = append(r.backs, back)
	r.wg.Go(func() { // ends when back closes
		p := make([]byte, 65536)
		for {
			n, _, err := back.ReadFromUDPAddrPort(p)
			if err != nil {
				return
			}
			r.mu.Lock()
			if r.back == back {
				r.front.WriteToUDPAddrPort(p[:n], r.client)
			}
			r.mu.Unlock()
		}
	})
}

func (r *relay) close() {
	r.front.Close()
	r.mu.Lock()
	for _, b := range r.backs {
		b.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

func addrPort(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// TestRoaming moves the client to another port in mid session.
func TestRoaming(t *testing.T) {
	ca, cb := wgtest.Pair()
	b := open(t, cb)
	r := newRelay(t, "127.0.0.1", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), b.Stats().ListenPort))
	ca.Peers[0].Endpoint = wgtest.Endpoint(addrPort(r.front).Port())
	a := open(t, ca)
	waitUp(t, a)
	ra, rb := read(a), read(b)
	for range 3 {
		there := wgtest.UDP(addrA, addrB, 1, 2, []byte("there"))
		write(t, a, offload.Hdr{}, there)
		if _, got := rb.next(t); !bytes.Equal(got, there) {
			t.Fatalf("there: % x", got)
		}
		back := wgtest.UDP(addrB, addrA, 2, 1, []byte("back"))
		write(t, b, offload.Hdr{}, back)
		if _, got := ra.next(t); !bytes.Equal(got, back) {
			t.Fatalf("back: % x", got)
		}
		if got, want := b.Stats().Peers[0].Addr, addrPort(r.back); got != want {
			t.Errorf("b thinks that a is at %s, want %s", got, want)
		}
		r.move()
	}
}

// TestEndpointByName has a name with two addresses, of which the first one is
// dead. It takes as long as WireGuard needs to send a second handshake.
func TestEndpointByName(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s of WireGuard's own timers; not with -short")
	}
	t.Parallel()
	ca, cb := wgtest.Pair()
	b := open(t, cb)
	r := newRelay(t, "127.77.0.2", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), b.Stats().ListenPort))
	ca.Peers[0].Endpoint = wg.Endpoint{Host: "peer.test", Port: addrPort(r.front).Port()}
	var mu sync.Mutex
	var asked []string
	resolve := func(_ context.Context, host string) ([]netip.Addr, error) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, host)
		return []netip.Addr{netip.MustParseAddr("127.77.0.1"), netip.MustParseAddr("::ffff:127.77.0.2")}, nil
	}
	a, err := wg.Open(within(t, deadline), ca, wg.Options{Resolve: resolve})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := a.WaitUp(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if got, want := a.Stats().Peers[0].Addr, addrPort(r.front); got != want {
		t.Errorf("peer is at %s, want %s", got, want)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, host := range asked {
		if host != "peer.test" {
			t.Errorf("asked for %q", host)
		}
	}
}
