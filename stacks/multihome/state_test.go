// SPDX-License-Identifier: Apache-2.0

// One configuration: numbers, names, changes, what is told to packet sockets.

package multihome_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/multihome"
)

func interfaces(st stacks.State) (names []string) {
	for i, ifc := range st.Interfaces {
		names = append(names, ifc.Name)
		if ifc.Index != i+1 {
			names = append(names, "out of order")
		}
	}
	return names
}

func TestState(t *testing.T) {
	w := newWorld(t)
	st := w.st.State()
	if got := interfaces(st); !slices.Equal(got, []string{"lo", "a0", "b0"}) {
		t.Errorf("interfaces: %v", got)
	}
	var defaults []int
	for _, r := range st.Routes {
		if r.Dst == prefix("0.0.0.0/0") {
			defaults = append(defaults, r.IfIndex, r.Metric)
		}
		if r.IfIndex != 2 && r.IfIndex != 3 {
			t.Errorf("route %v", r)
		}
	}
	if !slices.Equal(defaults, []int{2, 0, 3, 10000}) {
		t.Errorf("default routes: interface, metric: %v", defaults)
	}
	if guided := w.st.StateTo(stacks.Flow{Dst: addr("10.2.0.9")}); slices.ContainsFunc(guided.Routes, func(r stacks.Route) bool { return r.IfIndex == 2 }) || len(guided.Routes) == 0 {
		t.Errorf("towards network b: %v", guided.Routes)
	}
	// Two of one name.
	x, y := newSide(t, "wg0", []string{"10.5.0.1/24"}, []string{"10.5.0.2/24"}), newSide(t, "wg0", []string{"10.6.0.1/24"}, []string{"10.6.0.2/24"})
	twins := multihome.New(newTable(t, nil, x.addrs, y.addrs), x.near, y.near)
	if got := interfaces(twins.State()); !slices.Equal(got, []string{"lo", "wg0", "wg1"}) {
		t.Errorf("interfaces: %v", got)
	}
	s := tcp(t, twins, unix.AF_INET)
	if err := s.SetOption(unix.SOL_SOCKET, unix.SO_BINDTODEVICE, []byte("wg1\x00")); err != nil {
		t.Fatal(err)
	}
	v := make([]byte, 16)
	if n, err := s.Option(unix.SOL_SOCKET, unix.SO_BINDTODEVICE, v); err != nil || string(v[:n]) != "wg1\x00" {
		t.Errorf("bound to %q, %v", v[:n], err)
	}
}

// TestSetState: a change reaches the network that it is about, and moves what follows
// from it.
func TestSetState(t *testing.T) {
	w := newWorld(t)
	w.serve(t, 1000)
	before := w.a.near.State()
	st := w.st.State().Clone()
	st.Interfaces[2].Addrs = append(st.Interfaces[2].Addrs, prefix("10.9.0.1/24"))
	st.Interfaces[2].MTU = 1300
	st.Routes = append(st.Routes, stacks.Route{Dst: prefix("10.9.0.0/24"), IfIndex: 3, Src: addr("10.9.0.1")},
		stacks.Route{Dst: prefix(everywhere + "/32"), IfIndex: 3},
		stacks.Route{Dst: prefix("203.0.113.0/24"), Type: unix.RTN_UNREACHABLE})
	st.Neighbours = []stacks.Neighbour{{IfIndex: 3, Addr: addr("10.9.0.9"), State: unix.NUD_PERMANENT}}
	if err := w.st.SetState(st); err != nil {
		t.Fatal(err)
	}
	if a, b, all := w.a.near.State().Neighbours, w.b.near.State().Neighbours, w.st.State().Neighbours; len(a) != 0 || len(b) != 1 || b[0].IfIndex != 2 || len(all) != 1 || all[0].IfIndex != 3 {
		t.Errorf("neighbours %+v and %+v, in all %+v", a, b, all)
	}
	b := w.b.near.State()
	if b.Interfaces[1].MTU != 1300 || !slices.Contains(b.Interfaces[1].Addrs, prefix("10.9.0.1/24")) || b.Interfaces[1].Name != "b0" || b.Interfaces[1].Index != 2 {
		t.Errorf("network b has %+v", b.Interfaces[1])
	}
	if got := w.a.near.State().Interfaces[1]; got.MTU != before.Interfaces[1].MTU || len(got.Addrs) != len(before.Interfaces[1].Addrs) {
		t.Errorf("network a has %+v", got)
	}
	for _, r := range b.Routes {
		if r.Dst == prefix("0.0.0.0/0") && r.Metric != 0 {
			t.Errorf("the default route of b has become %+v", r)
		}
	}
	s := tcp(t, w.st, unix.AF_INET)
	if err := connect(t, s, to(everywhere, 1000)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s); got != "b" {
		t.Errorf("a route that a program has added to b leads to %q", got)
	}
	for _, n := range []string{"203.0.113.1"} {
		if err := tcp(t, w.st, unix.AF_INET).Connect(to(n, 1)); !errors.Is(err, unix.EHOSTUNREACH) {
			t.Errorf("connect along a route that refuses: %v", err)
		}
	}
	if got := interfaces(w.st.State()); !slices.Equal(got, []string{"lo", "a0", "b0"}) {
		t.Errorf("interfaces: %v", got)
	}
	// And back.
	st = w.st.State().Clone()
	st.Routes = slices.DeleteFunc(st.Routes, func(r stacks.Route) bool { return r.Dst == prefix(everywhere+"/32") })
	if err := w.st.SetState(st); err != nil {
		t.Fatal(err)
	}
	s = tcp(t, w.st, unix.AF_INET)
	if err := connect(t, s, to(everywhere, 1000)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s); got != "a" {
		t.Errorf("without the route: %q", got)
	}
	// Nobody takes an interface away.
	st = w.st.State().Clone()
	st.Interfaces[1].MTU = 1 << 20
	if err := w.st.SetState(st); !errors.Is(err, unix.EINVAL) {
		t.Errorf("an MTU that no link carries: %v", err)
	}
}

// TestPart: a network that configures itself moves nothing, also not when a program
// changes something else later.
func TestPart(t *testing.T) {
	w := newWorld(t)
	w.serve(t, 1000)
	part, ok := w.st.Part(w.b.near)
	if !ok {
		t.Fatal("there is no part of b")
	}
	st := w.b.near.State().Clone()
	st.Routes = append(st.Routes, stacks.Route{Dst: prefix(everywhere + "/32"), IfIndex: 2})
	if err := part.SetState(st); err != nil {
		t.Fatal(err)
	}
	where := func() string {
		s := tcp(t, w.st, unix.AF_INET)
		if err := connect(t, s, to(everywhere, 1000)); err != nil {
			t.Fatal(err)
		}
		return read(t, s)
	}
	if got := where(); got != "a" {
		t.Errorf("a route that a network has learnt leads to %q", got)
	}
	st = w.st.State().Clone()
	st.Interfaces[2].MTU = 1300
	if err := w.st.SetState(st); err != nil {
		t.Fatal(err)
	}
	if got := where(); got != "a" {
		t.Errorf("after another change it leads to %q", got)
	}
	if _, ok := w.st.Part(w.a.far); ok {
		t.Error("a stack of others is a part")
	}
}

// TestFrames: packet sockets see the interfaces of all networks by their numbers, and
// send by them.
func TestFrames(t *testing.T) {
	w := newWorld(t)
	w.serve(t, 1000)
	seen := make(chan int, 1000)
	stop := w.st.Tap(func(f *stacks.Frame) {
		select {
		case seen <- f.IfIndex:
		default:
		}
	})
	defer stop()
	s := udp(t, w.st, unix.AF_INET)
	for dst, want := range map[string]int{"10.1.0.2": 2, "10.2.0.2": 3} {
		send(t, s, "x", to(dst, 1000))
		recv(t, s)
		for got := -1; got != want; {
			select {
			case got = <-seen:
				if got != want && got != 2 && got != 3 && got != 1 {
					t.Fatalf("a frame of interface %d", got)
				}
			default:
				t.Fatalf("no frame of interface %d was seen", want)
			}
		}
	}
	if c := w.st.Counters(3); c.TxPackets == 0 || c.RxPackets == 0 {
		t.Errorf("counters of b0: %+v", c)
	}
	if c := w.st.Counters(9); c != (stacks.Counters{}) {
		t.Errorf("counters of nothing: %+v", c)
	}
	heard := make(chan struct{}, 10)
	defer w.b.far.Tap(func(f *stacks.Frame) {
		if !f.Outgoing {
			heard <- struct{}{}
		}
	})()
	ip := append([]byte{0x45, 0, 0, 20, 0, 0, 0, 0, 64, 254, 0, 0}, append(addr("10.2.0.1").AsSlice(), addr("10.2.0.2").AsSlice()...)...)
	if err := w.st.Inject(3, unix.ETH_P_IP, ip, nil); err != nil {
		t.Fatal(err)
	}
	await(t, "the packet", func() bool { return len(heard) > 0 })
	if err := w.st.Inject(4, unix.ETH_P_IP, ip, nil); !errors.Is(err, unix.ENXIO) {
		t.Errorf("inject by no interface: %v", err)
	}
}

// TestScopes: a scope is a number of the view, and names the network.
func TestScopes(t *testing.T) {
	x, y := newSide(t, "x0", []string{"fe80::1/64"}, []string{"fe80::2/64"}), newSide(t, "y0", []string{"fe80::1/64"}, []string{"fe80::2/64"})
	w := &world{st: multihome.New(newTable(t, nil, x.addrs, y.addrs), x.near, y.near), a: x, b: y}
	w.serve(t, 1000)
	for zone, want := range map[string]string{"2": "a", "3": "b"} {
		s := udp(t, w.st, unix.AF_INET6)
		dst := netip.AddrPortFrom(addr("fe80::2").WithZone(zone), 1000)
		send(t, s, "x", dst)
		if got, m := recv(t, s); got != want+":x" || m.Peer != dst {
			t.Errorf("by %s: %q from %s", zone, got, m.Peer)
		}
		c := tcp(t, w.st, unix.AF_INET6)
		if err := connect(t, c, dst); err != nil {
			t.Fatal(err)
		}
		if local, remote := c.Names(); remote != dst || local.Addr() != addr("fe80::1").WithZone(zone) {
			t.Errorf("by %s: names %s, %s", zone, local, remote)
		}
	}
}
