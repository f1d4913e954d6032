// SPDX-License-Identifier: Apache-2.0

// Changes of a running stack, seen by its sockets.

package netstack_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/netstack"
	"umrun/stacks/pipe"
)

// change applies f to the stack's state.
func change(t *testing.T, s stacks.Stack, f func(st *stacks.State)) error {
	t.Helper()
	st := s.State().Clone()
	f(&st)
	return s.(stacks.Configurer).SetState(st)
}

// sends tries to send a datagram to a, from a if it is valid.
func sends(t *testing.T, s stacks.Stack, to, from netip.AddrPort) error {
	t.Helper()
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	u, err := s.Socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if from.IsValid() {
		if err := u.Bind(from); err != nil {
			return err
		}
	}
	return u.(stacks.PacketSocket).SendMsg([]byte("x"), stacks.Message{Peer: to, TTL: -1, TOS: -1})
}

func TestChanges(t *testing.T) {
	p := newPair(t, pipe.Config{}, nil)
	peer := netip.AddrPortFrom(p.B4, 9)
	far := netip.MustParseAddrPort("203.0.113.7:9")
	extra := netip.MustParsePrefix("10.9.0.1/24")
	want := func(what string, got, want error) {
		t.Helper()
		if !errors.Is(got, want) {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	want("send", sends(t, p.A, peer, netip.AddrPort{}), nil)
	want("bind to a foreign address", sends(t, p.A, peer, netip.AddrPortFrom(extra.Addr(), 7)), unix.EADDRNOTAVAIL)
	want("send without route", sends(t, p.A, far, netip.AddrPort{}), unix.ENETUNREACH)

	want("add", change(t, p.A, func(st *stacks.State) {
		st.Interfaces[1].Addrs = append(st.Interfaces[1].Addrs, extra)
		st.Routes = append(st.Routes, stacks.Route{Dst: netip.MustParsePrefix("203.0.113.0/24"), IfIndex: 2})
	}), nil)
	want("bind to it", sends(t, p.A, peer, netip.AddrPortFrom(extra.Addr(), 7)), nil)
	want("send by the new route", sends(t, p.A, far, netip.AddrPort{}), nil)

	want("remove", change(t, p.A, func(st *stacks.State) {
		st.Interfaces[1].Addrs = slices.DeleteFunc(st.Interfaces[1].Addrs, func(q netip.Prefix) bool { return q == extra })
		st.Routes = slices.DeleteFunc(st.Routes, func(r stacks.Route) bool { return r.Dst.Contains(far.Addr()) })
	}), nil)
	want("bind to what is gone", sends(t, p.A, peer, netip.AddrPortFrom(extra.Addr(), 7)), unix.EADDRNOTAVAIL)
	want("send by what is gone", sends(t, p.A, far, netip.AddrPort{}), unix.ENETUNREACH)

	routes := p.A.State().Routes
	want("down", change(t, p.A, func(st *stacks.State) { st.Interfaces[1].Up, st.Routes = false, nil }), nil)
	want("send while down", sends(t, p.A, peer, netip.AddrPort{}), unix.ENETUNREACH)
	want("up", change(t, p.A, func(st *stacks.State) { st.Interfaces[1].Up, st.Routes = true, routes }), nil)
	want("send when up", sends(t, p.A, peer, netip.AddrPort{}), nil)

	old := p.A.State()
	want("MTU too large", change(t, p.A, func(st *stacks.State) { st.Interfaces[1].MTU = 65535 }), unix.EINVAL)
	want("MTU too small", change(t, p.A, func(st *stacks.State) { st.Interfaces[1].MTU = 60 }), unix.EINVAL)
	if got := p.A.State().Interfaces[1].MTU; got != old.Interfaces[1].MTU {
		t.Errorf("MTU %d after refused changes", got)
	}
	want("MTU", change(t, p.A, func(st *stacks.State) { st.Interfaces[1].MTU = 1280 }), nil)
	u, err := p.A.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if err := u.Connect(peer); err != nil {
		t.Fatal(err)
	}
	var v [4]byte
	if _, err := u.Option(unix.IPPROTO_IP, unix.IP_MTU, v[:]); err != nil || int(v[0])|int(v[1])<<8 != 1280 {
		t.Errorf("IP_MTU %v %v", v, err)
	}
	want("interfaces are fixed", change(t, p.A, func(st *stacks.State) { st.Interfaces = st.Interfaces[:1] }), unix.EOPNOTSUPP)
	p.A.Close()
	want("closed", change(t, p.A, func(*stacks.State) {}), unix.ENETDOWN)
}

// TestLoopbackDown: the loopback interface survives being taken down.
func TestLoopbackDown(t *testing.T) {
	s, err := netstack.New(netstack.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	to4, to6 := netip.MustParseAddrPort("127.0.0.1:9"), netip.MustParseAddrPort("[::1]:9")
	for range 2 {
		if err := change(t, s, func(st *stacks.State) { st.Interfaces[0].Up = false }); err != nil {
			t.Fatal(err)
		}
		for _, to := range []netip.AddrPort{to4, to6} {
			if err := sends(t, s, to, netip.AddrPort{}); err == nil {
				t.Errorf("sent to %s while lo is down", to)
			}
		}
		if err := change(t, s, func(st *stacks.State) { st.Interfaces[0].Up = true }); err != nil {
			t.Fatal(err)
		}
		for _, to := range []netip.AddrPort{to4, to6, netip.MustParseAddrPort("127.0.0.53:9")} {
			if err := sends(t, s, to, netip.AddrPort{}); err != nil {
				t.Errorf("send to %s: %v", to, err)
			}
		}
	}
}

// TestCounters: what is sent is counted on the interface that it leaves by.
func TestCounters(t *testing.T) {
	p := newPair(t, pipe.Config{}, nil)
	a, b := p.A.(stacks.Counter), p.B.(stacks.Counter)
	sent, lo := a.Counters(2), a.Counters(1)
	if err := sends(t, p.A, netip.AddrPortFrom(p.B4, 9), netip.AddrPort{}); err != nil {
		t.Fatal(err)
	}
	const size = 20 + 8 + 1 // IPv4, UDP, data
	await(t, func() bool { c := b.Counters(2); return c.RxPackets == 1 && c.RxBytes == size })
	got := a.Counters(2)
	if got.TxPackets != sent.TxPackets+1 || got.TxBytes != sent.TxBytes+size {
		t.Errorf("before %+v, after %+v", sent, got)
	}
	if got := a.Counters(1); got != lo {
		t.Errorf("lo: before %+v, after %+v", lo, got)
	}
	if got := a.Counters(77); got != (stacks.Counters{}) {
		t.Errorf("no interface: %+v", got)
	}
}
