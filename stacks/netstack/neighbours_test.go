// SPDX-License-Identifier: Apache-2.0

// What the stack tells of its neighbours, and does with those that it is told.

package netstack_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/pipe"
)

func TestNeighbourTable(t *testing.T) {
	p := newPair(t, pipe.Config{Ethernet: true}, nil)
	table := p.A.(stacks.Neighbourhood)
	mac := p.B.State().Interfaces[1].MAC
	wrong := net.HardwareAddr{2, 0, 0, 0, 0, 0x77}
	for _, b := range []netip.Addr{p.B4, p.B6} {
		family := unix.AF_INET
		if b.Is6() {
			family = unix.AF_INET6
		}
		at := netip.AddrPortFrom(b, 7)
		r, err := p.B.Socket(family, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := r.Bind(at); err != nil {
			t.Fatal(err)
		}
		receive := func() bool {
			_, _, _, err := r.(stacks.PacketSocket).RecvMsg(make([]byte, 9), false)
			return err == nil
		}
		known := func() (n stacks.Neighbour, ok bool) {
			for _, n := range table.Neighbours() {
				if n.Addr == b {
					return n, true
				}
			}
			return n, false
		}
		send := func() {
			t.Helper()
			if err := sends(t, p.A, at, netip.AddrPort{}); err != nil {
				t.Fatal(err)
			}
		}
		learn := func() {
			t.Helper()
			send()
			await(t, receive)
			n, ok := known()
			if !ok || n.IfIndex != 2 || n.State&(unix.NUD_REACHABLE|unix.NUD_DELAY|unix.NUD_STALE|unix.NUD_PROBE) == 0 || n.MAC.String() != mac.String() || time.Since(n.Updated) > time.Minute {
				t.Errorf("%+v %t, want %s", n, ok, mac)
			}
		}
		learn()
		if err := table.Forget(2, b); err != nil {
			t.Error(err)
		}
		if n, ok := known(); ok {
			t.Errorf("%+v is still known", n)
		}
		if err := table.Forget(2, b); err != unix.ENOENT {
			t.Errorf("forget it again: %v", err)
		}
		learn()
		before := p.A.State()
		if err := change(t, p.A, func(st *stacks.State) {
			st.Neighbours = append(st.Neighbours, stacks.Neighbour{IfIndex: 2, Addr: b, MAC: wrong, State: unix.NUD_PERMANENT})
		}); err != nil {
			t.Fatal(err)
		}
		if n, ok := known(); ok {
			t.Errorf("%+v is no longer learnt", n)
		}
		send()
		time.Sleep(50 * time.Millisecond) // what is not to come
		if receive() {
			t.Error("the datagram went to another address than was said")
		}
		if err := p.A.(stacks.Configurer).SetState(before); err != nil {
			t.Fatal(err)
		}
		learn()
	}
}
