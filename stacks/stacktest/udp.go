// SPDX-License-Identifier: Apache-2.0

// Cases of datagram sockets: UDP and ICMP echo.

package stacktest

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

var udpCases = []testCase{
	{"udp_echo", udpEcho},
	{"udp_order", udpOrder},
	{"udp_truncation_and_peek", udpTruncation},
	{"udp_zero_length", udpZeroLength},
	{"udp_connected_filters", udpConnected},
	{"udp_connection_refused", udpRefused},
	{"udp_unspec_dissolves", udpUnspec},
	{"udp_connect_for_source", udpConnectSource},
	{"udp_send_errors", udpSendErrors},
	{"udp_broadcast", udpBroadcast},
	{"udp_large", udpLarge},
	{"udp_dont_fragment", udpDontFragment},
	{"udp_multicast", udpMulticast},
	{"udp_message_fields", udpMessage},
	{"udp_dual_stack", udpDualStack},
	{"udp_bind_errors", udpBindErrors},
	{"udp_shutdown", udpShutdown},
	{"udp_poll", udpPoll},
	{"udp_wildcard_source", udpWildcard},
	{"ping_echo", pingEcho},
	{"socket_errors", socketErrors},
}

func sendMsg(t *testing.T, s stacks.PacketSocket, b []byte, to netip.AddrPort) {
	t.Helper()
	if err := s.SendMsg(b, stacks.Message{Peer: to}); err != nil {
		t.Fatalf("send %d bytes to %s: %v", len(b), to, err)
	}
}

func udpEcho(t *testing.T, p Pair) {
	for _, b := range []netip.Addr{p.B4, p.B6} {
		s, addr := bindUDP(t, p.B, b)
		c := newUDP(t, p.A, family(b))
		sendMsg(t, c, []byte("question"), addr)
		got, m := recvMsg(t, s, 100)
		local, _ := c.Names()
		if string(got) != "question" || m.Peer.Port() != local.Port() {
			t.Errorf("got %q from %s, sent from port %d", got, m.Peer, local.Port())
		}
		sendMsg(t, s, []byte("answer"), m.Peer)
		if got, m := recvMsg(t, c, 100); string(got) != "answer" || m.Peer != addr {
			t.Errorf("got %q from %s, want %s", got, m.Peer, addr)
		}
		if port := local.Port(); port < 32768 || port > 60999 {
			t.Errorf("ephemeral port %d", port)
		}
	}
}

func udpOrder(t *testing.T, p Pair) {
	s, addr := bindUDP(t, p.B, p.B4)
	c := newUDP(t, p.A, unix.AF_INET)
	for i := range 50 {
		sendMsg(t, c, fmt.Appendf(nil, "datagram %d", i), addr)
	}
	for i := range 50 {
		if got, _ := recvMsg(t, s, 100); string(got) != fmt.Sprintf("datagram %d", i) {
			t.Fatalf("datagram %d is %q", i, got)
		}
	}
	_, _, _, err := s.RecvMsg(make([]byte, 10), false)
	wantErr(t, "recv of nothing", err, unix.EAGAIN)
}

func udpTruncation(t *testing.T, p Pair) {
	s, addr := bindUDP(t, p.B, p.B4)
	c := newUDP(t, p.A, unix.AF_INET)
	sendMsg(t, c, []byte("0123456789"), addr)
	sendMsg(t, c, []byte("next"), addr)
	awaitEvent(t, s, unix.POLLIN)
	b := make([]byte, 4)
	for _, peek := range []bool{true, true, false} {
		n, size, _, err := s.RecvMsg(b, peek)
		if err != nil || n != 4 || size != 10 || string(b) != "0123" {
			t.Fatalf("peek %v: %d of %d bytes %q, %v", peek, n, size, b, err)
		}
	}
	if got, _ := recvMsg(t, s, 100); string(got) != "next" {
		t.Errorf("after truncation: %q", got)
	}
	sendMsg(t, c, []byte("unseen"), addr)
	awaitEvent(t, s, unix.POLLIN)
	if n, size, _, err := s.RecvMsg(nil, false); n != 0 || size != 6 || err != nil {
		t.Errorf("no buffer: %d of %d bytes, %v", n, size, err)
	}
	wantPoll(t, "all taken", s, unix.POLLOUT)
}

func udpZeroLength(t *testing.T, p Pair) {
	s, addr := bindUDP(t, p.B, p.B4)
	c := newUDP(t, p.A, unix.AF_INET)
	for _, m := range []string{"", "", "x", ""} {
		sendMsg(t, c, []byte(m), addr)
	}
	for i, want := range []string{"", "", "x", ""} {
		awaitEvent(t, s, unix.POLLIN)
		b := make([]byte, 10)
		n, size, m, err := s.RecvMsg(b, false)
		if err != nil || n != len(want) || size != len(want) || !m.Peer.IsValid() {
			t.Fatalf("datagram %d: %d of %d bytes from %v, %v", i, n, size, m.Peer, err)
		}
	}
	wantPoll(t, "all taken", s, unix.POLLOUT)
}

func udpConnected(t *testing.T, p Pair) {
	s, addr := bindUDP(t, p.B, p.B4)
	other, _ := bindUDP(t, p.B, p.B4)
	c := newUDP(t, p.A, unix.AF_INET)
	wantErr(t, "connect", c.Connect(addr), nil)
	local, remote := c.Names()
	if remote != addr || local.Addr() != p.A4 || local.Port() == 0 {
		t.Fatalf("names %s, %s", local, remote)
	}
	if err := c.SendMsg([]byte("to the peer"), stacks.Message{}); err != nil {
		t.Fatal(err)
	}
	if got, _ := recvMsg(t, s, 100); string(got) != "to the peer" {
		t.Errorf("got %q", got)
	}
	// Strangers are not heard.
	sendMsg(t, other, []byte("stranger"), local)
	sendMsg(t, s, []byte("peer"), local)
	if got, m := recvMsg(t, c, 100); string(got) != "peer" || m.Peer != addr {
		t.Errorf("got %q from %s", got, m.Peer)
	}
	// An address given to send wins over the peer.
	sendMsg(t, c, []byte("elsewhere"), reach(other, p.B4))
	if got, _ := recvMsg(t, other, 100); string(got) != "elsewhere" {
		t.Errorf("got %q", got)
	}
	// Connecting again changes the peer.
	wantErr(t, "connect again", c.Connect(reach(other, p.B4)), nil)
	if err := c.SendMsg([]byte("new peer"), stacks.Message{}); err != nil {
		t.Fatal(err)
	}
	if got, _ := recvMsg(t, other, 100); string(got) != "new peer" {
		t.Errorf("got %q", got)
	}
}

func udpRefused(t *testing.T, p Pair) {
	for _, b := range []netip.Addr{p.B4, p.B6} {
		s, addr := bindUDP(t, p.B, b)
		s.Close()
		c := newUDP(t, p.A, family(b))
		wantErr(t, "connect", c.Connect(addr), nil)
		for _, report := range []struct {
			how string
			f   func() error
		}{
			{"recv", func() error { _, _, _, err := c.RecvMsg(make([]byte, 1), false); return err }},
			{"send", func() error { return c.SendMsg([]byte("x"), stacks.Message{}) }},
			{"SO_ERROR", func() error {
				if e := soError(t, c); e != 0 {
					return e
				}
				return nil
			}},
		} {
			if err := c.SendMsg([]byte("x"), stacks.Message{}); err != nil {
				t.Fatalf("send: %v", err)
			}
			awaitEvent(t, c, unix.POLLERR)
			wantErr(t, report.how, report.f(), unix.ECONNREFUSED)
			wantPoll(t, "after "+report.how, c, unix.POLLOUT)
		}
		// An unconnected socket hears nothing of it.
		u := newUDP(t, p.A, family(b))
		sendMsg(t, u, []byte("x"), addr)
		time.Sleep(hush)
		wantPoll(t, "unconnected", u, unix.POLLOUT)
	}
}

func udpUnspec(t *testing.T, p Pair) {
	s, addr := bindUDP(t, p.B, p.B4)
	// A port that was picked would be lost (net/ipv4/udp.c:__udp_disconnect).
	free, local := bindUDP(t, p.A, p.A4)
	free.Close()
	c := newUDP(t, p.A, unix.AF_INET)
	wantErr(t, "bind", c.Bind(local), nil)
	wantErr(t, "connect", c.Connect(addr), nil)
	wantErr(t, "dissolve", c.Connect(netip.AddrPort{}), nil)
	got, remote := c.Names()
	if got != local || remote.IsValid() {
		t.Errorf("names %s, %s; bound to %s", got, remote, local)
	}
	wantErr(t, "send", c.SendMsg([]byte("x"), stacks.Message{}), unix.EDESTADDRREQ)
	other, _ := bindUDP(t, p.B, p.B4)
	sendMsg(t, other, []byte("stranger"), local)
	if got, _ := recvMsg(t, c, 100); string(got) != "stranger" {
		t.Errorf("got %q", got)
	}
	sendMsg(t, c, []byte("x"), addr)
	recvMsg(t, s, 10)
}

// udpConnectSource asks for source addresses as getaddrinfo(3) does to sort its
// results: connect to port 0, getsockname, dissolve, again.
func udpConnectSource(t *testing.T, p Pair) {
	for _, pair := range [][2]netip.Addr{{p.A4, p.B4}, {p.A6, p.B6}} {
		c := newUDP(t, p.A, family(pair[0]))
		for range 2 {
			wantErr(t, "connect", c.Connect(netip.AddrPortFrom(pair[1], 0)), nil)
			if local, _ := c.Names(); local.Addr() != pair[0] || local.Port() == 0 {
				t.Errorf("source for %s is %s, want %s", pair[1], local, pair[0])
			}
			wantErr(t, "dissolve", c.Connect(netip.AddrPort{}), nil)
		}
		if local, _ := c.Names(); !local.Addr().IsUnspecified() || local.Port() != 0 {
			t.Errorf("name %s after dissolving", local)
		}
	}
}

func udpSendErrors(t *testing.T, p Pair) {
	s, addr := bindUDP(t, p.B, p.B4)
	c := newUDP(t, p.A, unix.AF_INET)
	wantErr(t, "send without peer", c.SendMsg([]byte("x"), stacks.Message{}), unix.EDESTADDRREQ)
	wantErr(t, "send to port 0", c.SendMsg([]byte("x"), stacks.Message{Peer: netip.AddrPortFrom(p.B4, 0)}), unix.EINVAL)
	wantErr(t, "send too much", c.SendMsg(make([]byte, 65508), stacks.Message{Peer: addr}), unix.EMSGSIZE)
	sendMsg(t, c, []byte("fine"), addr)
	recvMsg(t, s, 10)
}

func udpBroadcast(t *testing.T, p Pair) {
	if !p.Broadcast.IsValid() {
		t.Skip("this pair has no network with a broadcast address")
	}
	s := newUDP(t, p.B, unix.AF_INET)
	if err := s.Bind(netip.AddrPortFrom(netip.IPv4Unspecified(), 0)); err != nil {
		t.Fatal(err)
	}
	c := newUDP(t, p.A, unix.AF_INET)
	to := reach(s, p.Broadcast)
	wantErr(t, "broadcast", c.SendMsg([]byte("x"), stacks.Message{Peer: to}), unix.EACCES)
	d := newUDP(t, p.A, unix.AF_INET)
	wantErr(t, "connect", d.Connect(to), unix.EACCES)
	if local, remote := d.Names(); !local.Addr().IsUnspecified() || local.Port() == 0 || remote.IsValid() {
		t.Errorf("after the refusal %s -> %s", local, remote)
	}
	setInt(t, d, unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
	wantErr(t, "connect with SO_BROADCAST", d.Connect(to), nil)
	setInt(t, c, unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
	sendMsg(t, c, []byte("to all"), to)
	if got, m := recvMsg(t, s, 100); string(got) != "to all" || m.Local != p.Broadcast {
		t.Errorf("got %q sent to %s", got, m.Local)
	}
}

func udpLarge(t *testing.T, p Pair) {
	for _, b := range []netip.Addr{p.B4, p.B6} {
		s, addr := bindUDP(t, p.B, b)
		c := newUDP(t, p.A, family(b))
		for _, n := range []int{1400, 1473, 9000, 65507} {
			want := bytes.Repeat([]byte{byte(n)}, n)
			sendMsg(t, c, want, addr)
			if got, _ := recvMsg(t, s, 70000); !bytes.Equal(got, want) {
				t.Errorf("%d bytes arrived as %d", n, len(got))
			}
		}
	}
}

func udpDualStack(t *testing.T, p Pair) {
	s := newUDP(t, p.B, unix.AF_INET6)
	if err := s.Bind(netip.AddrPortFrom(netip.IPv6Unspecified(), 0)); err != nil {
		t.Fatal(err)
	}
	for _, b := range []netip.Addr{p.B4, p.B6} {
		c, local := bindUDP(t, p.A, map[bool]netip.Addr{true: p.A4, false: p.A6}[b.Is4()])
		sendMsg(t, c, []byte("x"), reach(s, b))
		_, m := recvMsg(t, s, 10)
		if want := netip.AddrPortFrom(netip.AddrFrom16(local.Addr().As16()), local.Port()); m.Peer != want {
			t.Errorf("from %s, want %s", m.Peer, want)
		}
		sendMsg(t, s, []byte("y"), m.Peer)
		if got, m := recvMsg(t, c, 10); string(got) != "y" || m.Peer != reach(s, b) {
			t.Errorf("got %q from %s, want it from %s", got, m.Peer, reach(s, b))
		}
	}
}

func udpBindErrors(t *testing.T, p Pair) {
	a, addr := bindUDP(t, p.A, p.A4)
	wantErr(t, "bind twice", a.Bind(netip.AddrPortFrom(p.A4, 0)), unix.EINVAL)
	wantErr(t, "bind to a port in use", newUDP(t, p.A, unix.AF_INET).Bind(addr), unix.EADDRINUSE)
	wantErr(t, "bind to a foreign address",
		newUDP(t, p.A, unix.AF_INET).Bind(netip.MustParseAddrPort("203.0.113.77:0")), unix.EADDRNOTAVAIL)
	b, c := newUDP(t, p.A, unix.AF_INET), newUDP(t, p.A, unix.AF_INET)
	setInt(t, b, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	setInt(t, c, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	wantErr(t, "bind", b.Bind(netip.AddrPortFrom(p.A4, 0)), nil)
	wantErr(t, "bind with SO_REUSEPORT", c.Bind(reach(b, p.A4)), nil)
}

func udpShutdown(t *testing.T, p Pair) {
	s, addr := bindUDP(t, p.B, p.B4)
	c := newUDP(t, p.A, unix.AF_INET)
	wantErr(t, "shutdown without peer", newUDP(t, p.A, unix.AF_INET).Shutdown(unix.SHUT_RD), unix.ENOTCONN)
	wantErr(t, "connect", c.Connect(addr), nil)
	wantErr(t, "SHUT_WR", c.Shutdown(unix.SHUT_WR), nil)
	wantErr(t, "send", c.SendMsg([]byte("x"), stacks.Message{}), unix.EPIPE)
	wantPoll(t, "after SHUT_WR", c, unix.POLLOUT)
	wantErr(t, "SHUT_RD", c.Shutdown(unix.SHUT_RD), nil)
	wantPoll(t, "after SHUT_RD", c, evDead)
	_ = s
}

func udpPoll(t *testing.T, p Pair) {
	s, addr := bindUDP(t, p.B, p.B4)
	wantPoll(t, "bound", s, unix.POLLOUT)
	c := newUDP(t, p.A, unix.AF_INET)
	wantPoll(t, "fresh", c, unix.POLLOUT)
	wake := make(chan struct{}, 1)
	stop := s.Watch(unix.POLLIN, func(stacks.Events) {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	defer stop()
	for i := range 3 {
		sendMsg(t, c, []byte{}, addr)
		deadline := time.After(patience)
		for s.Poll() != unix.POLLIN|unix.POLLOUT {
			select {
			case <-wake:
			case <-deadline:
				t.Fatalf("no edge for datagram %d", i)
			}
		}
		recvMsg(t, s, 1)
	}
}

func udpWildcard(t *testing.T, p Pair) {
	s := newUDP(t, p.A, unix.AF_INET)
	if err := s.Bind(netip.AddrPortFrom(netip.IPv4Unspecified(), 0)); err != nil {
		t.Fatal(err)
	}
	local, _ := s.Names()
	c := newUDP(t, p.A, unix.AF_INET)
	sendMsg(t, c, []byte("x"), local) // to 0.0.0.0: this machine
	if _, m := recvMsg(t, s, 10); !m.Peer.Addr().IsLoopback() {
		t.Errorf("from %s", m.Peer)
	}
}

func socketErrors(t *testing.T, p Pair) {
	for _, tt := range []struct {
		family, typ, proto int
		want               error
	}{
		{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP, nil},
		{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP, nil},
		{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_UDP, unix.EPROTONOSUPPORT},
		{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_TCP, unix.EPROTONOSUPPORT},
		{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_ICMP, unix.EPROTONOSUPPORT},
		{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMPV6, unix.EPROTONOSUPPORT},
		{unix.AF_INET, unix.SOCK_STREAM, -1, unix.EINVAL},
		{unix.AF_INET, unix.SOCK_STREAM, 1000, unix.EINVAL},
		{unix.AF_INET, unix.SOCK_RDM, 0, unix.ESOCKTNOSUPPORT},
		{unix.AF_INET, unix.SOCK_SEQPACKET, 0, unix.ESOCKTNOSUPPORT},
		{unix.AF_MAX, unix.SOCK_STREAM, 0, unix.EAFNOSUPPORT},
	} {
		s, err := p.A.Socket(tt.family, tt.typ, tt.proto)
		if err == nil {
			s.Close()
		}
		wantErr(t, fmt.Sprintf("socket(%d, %d, %d)", tt.family, tt.typ, tt.proto), err, tt.want)
	}
}
