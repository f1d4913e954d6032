// SPDX-License-Identifier: Apache-2.0

// Tests of configuration, routes, own addresses and dialling.

package netstack_test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/netstack"
	"umrun/stacks/pipe"
)

func prefixes(s ...string) (p []netip.Prefix) {
	for _, s := range s {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

func TestState(t *testing.T) {
	a, b := pipe.New(pipe.Config{MTU: 1420})
	defer b.Close()
	dns := stacks.DNS{Servers: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.53:53")}, Search: []string{"example"}}
	st, err := netstack.New(netstack.Config{DNS: dns, Links: []stacks.LinkConfig{{
		Name: "wg0", Link: a, Addrs: prefixes("10.0.0.2/24", "fd00::2/128"),
		Routes: []stacks.Route{
			{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.0.0.1")},
			{Dst: netip.MustParsePrefix("::/0")},
		},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	want := stacks.State{
		DNS: dns,
		Interfaces: []stacks.Interface{
			{Index: 1, Name: "lo", Loop: true, Up: true, MTU: 65536, Addrs: prefixes("127.0.0.1/8", "::1/128")},
			{Index: 2, Name: "wg0", Up: true, MTU: 1420, Addrs: prefixes("10.0.0.2/24", "fd00::2/128")},
		},
		Routes: []stacks.Route{
			{Dst: netip.MustParsePrefix("10.0.0.0/24"), Src: netip.MustParseAddr("10.0.0.2"), IfIndex: 2},
			{Dst: netip.MustParsePrefix("fd00::2/128"), Src: netip.MustParseAddr("fd00::2"), IfIndex: 2},
			{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.0.0.1"), IfIndex: 2},
			{Dst: netip.MustParsePrefix("::/0"), IfIndex: 2},
		},
	}
	cmpAddrs := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	cmpPrefixes := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	cmpPorts := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	if d := cmp.Diff(want, st.State(), cmpAddrs, cmpPrefixes, cmpPorts); d != "" {
		t.Errorf("state (-want +got):\n%s", d)
	}
}

func TestBadConfig(t *testing.T) {
	a, b := pipe.New(pipe.Config{})
	defer a.Close()
	defer b.Close()
	for _, tt := range []struct {
		name  string
		links []stacks.LinkConfig
		want  string
	}{
		{"no link", []stacks.LinkConfig{{Name: "x"}}, "has no link"},
		{"no name", []stacks.LinkConfig{{Link: a}}, "1 to 15 bytes"},
		{"long name", []stacks.LinkConfig{{Name: "sixteen-bytes-xx", Link: a}}, "1 to 15 bytes"},
		{"lo", []stacks.LinkConfig{{Name: "lo", Link: a}}, "used twice"},
		{"twice", []stacks.LinkConfig{{Name: "x", Link: a}, {Name: "x", Link: b}}, "used twice"},
		{"MTU", []stacks.LinkConfig{{Name: "x", Link: a, MTU: 10}}, "MTU 10"},
		{"route", []stacks.LinkConfig{{Name: "x", Link: a, Routes: []stacks.Route{{}}}}, "without destination"},
		{"address twice", []stacks.LinkConfig{{Name: "x", Link: a, Addrs: prefixes("10.0.0.1/24", "10.0.0.1/24")}}, "add address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := netstack.New(netstack.Config{Links: tt.links})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	if _, err := netstack.New(netstack.Config{CongestionControl: "bbr"}); err == nil {
		t.Error("unknown congestion control taken")
	}
	// The links are still the caller's.
	if _, err := a.Write([][]byte{{1}}); err != nil {
		t.Error(err)
	}
}

// TestRoutes sees which destinations are reachable, by connect.
func TestRoutes(t *testing.T) {
	p := newPair(t, pipe.Config{}, nil)
	for _, tt := range []struct {
		addr string
		want error
	}{
		{"10.1.0.2:1", unix.EINPROGRESS},
		{"198.51.100.7:1", unix.EINPROGRESS}, // by the configured route
		{"203.0.113.7:1", unix.ENETUNREACH},
		{"[fd00::2]:1", unix.EINPROGRESS},
		{"[2001:db8::7]:1", unix.ENETUNREACH},
		{"[fe80::7]:1", unix.EINVAL}, // no zone
		{"[fe80::7%77]:1", unix.ENETUNREACH},
	} {
		a := netip.MustParseAddrPort(tt.addr)
		family := unix.AF_INET6
		if a.Addr().Is4() {
			family = unix.AF_INET
		}
		s, err := p.A.Socket(family, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Connect(a); err != tt.want {
			t.Errorf("connect to %s: %v, want %v", tt.addr, err, tt.want)
		}
		s.Close()
		u, err := p.A.Socket(family, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		want := tt.want
		switch want {
		case unix.EINPROGRESS:
			want = nil
		case unix.EINVAL: // sendto takes any interface that there is a route by
			want = unix.ENETUNREACH
		}
		if err := u.(stacks.PacketSocket).SendMsg([]byte("x"), stacks.Message{Peer: a}); !errors.Is(err, want) {
			t.Errorf("send to %s: %v, want %v", tt.addr, err, want)
		}
		u.Close()
	}
}

// TestConnectToGroup: TCP has no peers there (net/ipv4/tcp_ipv4.c).
func TestConnectToGroup(t *testing.T) {
	p := newPair(t, pipe.Config{}, nil)
	s, err := p.A.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Connect(netip.MustParseAddrPort("224.0.0.1:9")); err != unix.ENETUNREACH {
		t.Errorf("connect: %v, want ENETUNREACH", err)
	}
}

// TestOwnAddresses: all of 127/8 and the addresses of links are this machine,
// and privileged ports are free.
func TestOwnAddresses(t *testing.T) {
	p := newPair(t, pipe.Config{}, nil)
	for _, own := range []netip.Addr{netip.MustParseAddr("127.0.0.53"), p.A4, p.A6} {
		family := unix.AF_INET
		if own.Is6() {
			family = unix.AF_INET6
		}
		l, err := p.A.Socket(family, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Bind(netip.AddrPortFrom(own, 80)); err != nil {
			t.Fatalf("bind to port 80 of %s: %v", own, err)
		}
		if err := l.(stacks.StreamSocket).Listen(1); err != nil {
			t.Fatal(err)
		}
		c, err := p.A.Socket(family, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Connect(netip.AddrPortFrom(own, 80)); err != unix.EINPROGRESS {
			t.Fatalf("connect to %s: %v", own, err)
		}
		await(t, func() bool { return c.Poll() == unix.POLLOUT && l.Poll() == unix.POLLIN })
		c.Close()
		l.Close()
	}
}

// TestLinkLocal: scoped addresses carry the interface index.
func TestLinkLocal(t *testing.T) {
	a, b := pipe.New(pipe.Config{})
	sa, sb := newStack(t, a, prefixes("fe80::1/64")...), newStack(t, b, prefixes("fe80::2/64")...)
	us, _ := sb.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	server := us.(stacks.PacketSocket)
	defer server.Close()
	if err := server.Bind(netip.MustParseAddrPort("[fe80::2%2]:99")); err != nil {
		t.Fatal(err)
	}
	uc, _ := sa.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	client := uc.(stacks.PacketSocket)
	defer client.Close()
	if err := client.SendMsg([]byte("x"), stacks.Message{Peer: netip.MustParseAddrPort("[fe80::2%2]:99")}); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return server.Poll()&unix.POLLIN != 0 })
	_, _, m, err := server.RecvMsg(make([]byte, 10), false)
	if err != nil || m.Peer.Addr() != netip.MustParseAddr("fe80::1%2") || m.IfIndex != 2 {
		t.Errorf("got %+v, %v", m, err)
	}
}

// TestSourceAddress answers from the address that was asked, as servers with
// IP_PKTINFO do, though the route would choose another one.
func TestSourceAddress(t *testing.T) {
	a, b := pipe.New(pipe.Config{})
	sa := newStack(t, a, a4, a6)
	sb := newStack(t, b, prefixes("10.1.0.2/24", "10.1.0.3/24", "fd00::2/64", "fd00::3/64")...)
	for _, addrs := range [][]string{{"10.1.0.2", "10.1.0.3"}, {"fd00::2", "fd00::3"}} {
		family := unix.AF_INET
		any := netip.IPv4Unspecified()
		if strings.Contains(addrs[0], ":") {
			family, any = unix.AF_INET6, netip.IPv6Unspecified()
		}
		us, _ := sb.Socket(family, unix.SOCK_DGRAM, 0)
		server := us.(stacks.PacketSocket)
		defer server.Close()
		if err := server.Bind(netip.AddrPortFrom(any, 53)); err != nil {
			t.Fatal(err)
		}
		for _, to := range addrs {
			uc, _ := sa.Socket(family, unix.SOCK_DGRAM, 0)
			client := uc.(stacks.PacketSocket)
			defer client.Close()
			dst := netip.AddrPortFrom(netip.MustParseAddr(to), 53)
			if err := client.Connect(dst); err != nil {
				t.Fatal(err)
			}
			if err := client.SendMsg([]byte("question"), stacks.Message{}); err != nil {
				t.Fatal(err)
			}
			await(t, func() bool { return server.Poll()&unix.POLLIN != 0 })
			_, _, m, err := server.RecvMsg(make([]byte, 100), false)
			if err != nil || m.Local != dst.Addr() {
				t.Fatalf("got %+v, %v", m, err)
			}
			if err := server.SendMsg([]byte("answer"), stacks.Message{Peer: m.Peer, Local: m.Local, TTL: 9, TOS: 0x10}); err != nil {
				t.Fatal(err)
			}
			// Connected, the client hears nobody but dst.
			await(t, func() bool { return client.Poll()&unix.POLLIN != 0 })
			if _, _, m, err := client.RecvMsg(make([]byte, 100), false); err != nil || m.Peer != dst || m.TTL != 9 || m.TOS != 0x10 {
				t.Errorf("got %+v, %v", m, err)
			}
		}
		err := server.SendMsg([]byte("x"), stacks.Message{
			Peer: netip.AddrPortFrom(netip.MustParseAddr(addrs[0]), 9), Local: netip.MustParseAddr("203.0.113.1"),
		})
		want := unix.EINVAL
		if netip.MustParseAddr(addrs[0]).Is4() {
			want = unix.ENETUNREACH
		}
		if err != want {
			t.Errorf("send from a foreign address: %v, want %v", err, want)
		}
		server.Close() // the IPv6 wildcard takes the port of IPv4 too
	}
}

func TestDialContext(t *testing.T) {
	p := newPair(t, pipe.Config{}, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, b := range []netip.Addr{p.B4, p.B6} {
		family := unix.AF_INET
		if b.Is6() {
			family = unix.AF_INET6
		}
		l, _ := p.B.Socket(family, unix.SOCK_STREAM, 0)
		defer l.Close()
		if err := l.(stacks.StreamSocket).Listen(1); err != nil {
			t.Fatal(err)
		}
		local, _ := l.Names()
		dial := p.A.(*netstack.Stack).DialContext
		c, err := dial(ctx, "tcp", netip.AddrPortFrom(b, local.Port()))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		await(t, func() bool { return l.Poll() == unix.POLLIN })
		s, err := l.(stacks.StreamSocket).Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Send(strings.NewReader("hello")); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		u, err := dial(ctx, "udp", netip.AddrPortFrom(b, 9))
		if err != nil {
			t.Fatal(err)
		}
		u.Close()
		if _, err := dial(ctx, "sctp", netip.AddrPortFrom(b, 9)); err == nil {
			t.Error("dialled SCTP")
		}
	}
}
