// SPDX-License-Identifier: Apache-2.0

// Routes that refuse packets, and those with an MTU, seen by sockets.

package netstack_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/pipe"
)

func TestRefusingRoutes(t *testing.T) {
	p := newPair(t, pipe.Config{}, nil)
	for _, to := range []netip.AddrPort{netip.AddrPortFrom(p.B4, 9), netip.AddrPortFrom(p.B6, 9)} {
		family := unix.AF_INET
		if to.Addr().Is6() {
			family = unix.AF_INET6
		}
		old, err := p.A.Socket(family, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer old.Close()
		if err := old.Connect(to); err != nil {
			t.Fatal(err)
		}
		host := netip.PrefixFrom(to.Addr(), to.Addr().BitLen())
		for _, c := range []struct {
			typ  int
			want error
		}{
			{unix.RTN_BLACKHOLE, unix.EINVAL}, {unix.RTN_UNREACHABLE, unix.EHOSTUNREACH},
			{unix.RTN_PROHIBIT, unix.EACCES}, {unix.RTN_THROW, unix.ENETUNREACH}, {unix.RTN_UNICAST, nil},
		} {
			before := p.A.State()
			if err := change(t, p.A, func(st *stacks.State) {
				r := stacks.Route{Dst: host, Type: c.typ}
				if c.want == nil {
					r.IfIndex = 2
				}
				st.Routes = append(st.Routes, r)
			}); err != nil {
				t.Fatal(err)
			}
			if err := sends(t, p.A, to, netip.AddrPort{}); !errors.Is(err, c.want) {
				t.Errorf("type %d: send to %v: %v, want %v", c.typ, to, err, c.want)
			}
			if err := old.(stacks.PacketSocket).SendMsg([]byte("x"), stacks.Message{TTL: -1, TOS: -1}); !errors.Is(err, c.want) {
				t.Errorf("type %d: send on a connected socket: %v, want %v", c.typ, err, c.want)
			}
			s, err := p.A.Socket(family, unix.SOCK_STREAM, 0)
			if err != nil {
				t.Fatal(err)
			}
			want := c.want
			if want == nil {
				want = unix.EINPROGRESS
			}
			if err := s.Connect(to); !errors.Is(err, want) {
				t.Errorf("type %d: connect to %v: %v, want %v", c.typ, to, err, want)
			}
			s.Close()
			if err := p.A.(stacks.Configurer).SetState(before); err != nil {
				t.Fatal(err)
			}
			if err := sends(t, p.A, to, netip.AddrPort{}); err != nil {
				t.Errorf("type %d: send when the route is gone: %v", c.typ, err)
			}
		}
	}
}

// TestRefusedAnswers: what is sent without asking for an errno does not leave
// either: here the answer to a SYN.
func TestRefusedAnswers(t *testing.T) {
	p := newPair(t, pipe.Config{}, nil)
	l, err := p.A.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := netip.AddrPortFrom(p.A4, 80)
	if err := l.Bind(at); err != nil {
		t.Fatal(err)
	}
	if err := l.(stacks.StreamSocket).Listen(1); err != nil {
		t.Fatal(err)
	}
	if err := change(t, p.A, func(st *stacks.State) {
		st.Routes = append(st.Routes, stacks.Route{Dst: netip.PrefixFrom(p.B4, 32), Type: unix.RTN_BLACKHOLE})
	}); err != nil {
		t.Fatal(err)
	}
	sent := p.B.(stacks.Counter).Counters(2)
	c, err := p.B.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Connect(at); !errors.Is(err, unix.EINPROGRESS) {
		t.Fatal(err)
	}
	await(t, func() bool { return p.A.(stacks.Counter).Counters(2).RxPackets > 0 })
	time.Sleep(50 * time.Millisecond) // what is not to come
	if got := p.B.(stacks.Counter).Counters(2).RxPackets; got != sent.RxPackets {
		t.Errorf("%d packets came back", got-sent.RxPackets)
	}
	// Its own addresses are reached whatever the routes say.
	if err := change(t, p.A, func(st *stacks.State) {
		st.Routes = append(st.Routes, stacks.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Type: unix.RTN_BLACKHOLE})
	}); err != nil {
		t.Fatal(err)
	}
	for _, to := range []netip.Addr{p.A4, netip.MustParseAddr("127.0.0.1")} {
		if err := sends(t, p.A, netip.AddrPortFrom(to, 9), netip.AddrPort{}); err != nil {
			t.Errorf("send to %v: %v", to, err)
		}
	}
}

// TestRouteMTU: a route's MTU is that of its destinations.
func TestRouteMTU(t *testing.T) {
	p := newPair(t, pipe.Config{}, nil)
	if err := change(t, p.A, func(st *stacks.State) {
		st.Routes = append(st.Routes, stacks.Route{Dst: netip.PrefixFrom(p.B4, 32), IfIndex: 2, MTU: 1300})
	}); err != nil {
		t.Fatal(err)
	}
	u, err := p.A.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if err := u.Connect(netip.AddrPortFrom(p.B4, 9)); err != nil {
		t.Fatal(err)
	}
	var v [4]byte
	if _, err := u.Option(unix.IPPROTO_IP, unix.IP_MTU, v[:]); err != nil || int(v[0])|int(v[1])<<8 != 1300 {
		t.Errorf("IP_MTU %v %v", v, err)
	}
	if err := u.SetOption(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, []byte{unix.IP_PMTUDISC_DO, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	for size, want := range map[int]error{1300 - 28: nil, 1300 - 27: unix.EMSGSIZE} {
		if err := u.(stacks.PacketSocket).SendMsg(make([]byte, size), stacks.Message{TTL: -1, TOS: -1}); !errors.Is(err, want) {
			t.Errorf("%d bytes: %v, want %v", size, err, want)
		}
	}
}
