// SPDX-License-Identifier: Apache-2.0

// Cases of TCP sockets: connecting, listening, names.

package stacktest

import (
	"io"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// Event sets that recur.
const (
	evFresh = unix.POLLOUT | unix.POLLHUP
	evDead  = unix.POLLIN | unix.POLLOUT | unix.POLLHUP | unix.POLLRDHUP
)

var tcpCases = []testCase{
	{"tcp_connect_accepted", tcpConnectAccepted},
	{"tcp_connect_refused", tcpConnectRefused},
	{"tcp_connect_refused_so_error", tcpConnectRefusedSOError},
	{"tcp_connect_no_unicast", tcpConnectNoUnicast},
	{"tcp_poll_states", tcpPollStates},
	{"tcp_half_close", tcpHalfClose},
	{"tcp_shut_rdwr", tcpShutRDWR},
	{"tcp_reset", tcpReset},
	{"tcp_reset_behind_data", tcpResetBehindData},
	{"tcp_reset_by_send", tcpResetBySend},
	{"tcp_close_unread_resets", tcpCloseUnreadResets},
	{"tcp_linger_zero_resets", tcpLingerZero},
	{"tcp_unconnected_calls", tcpUnconnected},
	{"tcp_epipe", tcpEPIPE},
	{"tcp_accept_states", tcpAcceptStates},
	{"tcp_accept_many", tcpAcceptMany},
	{"tcp_accept_reset", tcpAcceptReset},
	{"tcp_backlog_full", tcpBacklog},
	{"tcp_listener_shutdown", tcpListenerShutdown},
	{"tcp_listener_close_resets", tcpListenerClose},
	{"tcp_ephemeral_ports", tcpEphemeral},
	{"tcp_bind_errors", tcpBindErrors},
	{"tcp_reuseaddr_after_close", tcpReuseAddr},
	{"tcp_dual_stack", tcpDualStack},
	{"tcp_v6only", tcpV6Only},
	{"tcp_unspec_disconnects", tcpUnspec},
	{"tcp_wildcard_connect", tcpWildcard},
	{"tcp_bulk", tcpBulk},
	{"tcp_bulk_v6", tcpBulkV6},
	{"tcp_full_buffer", tcpFullBuffer},
	{"tcp_short_writer", tcpShortWriter},
	{"tcp_unacked", tcpUnacked},
	{"tcp_close_delivers", tcpCloseDelivers},
	{"tcp_watch_edges", tcpWatch},
	{"tcp_small_messages", tcpSmallMessages},
}

func tcpConnectAccepted(t *testing.T, p Pair) {
	for _, b := range []netip.Addr{p.B4, p.B6} {
		l, addr := listen(t, p.B, b, 8)
		c := newTCP(t, p.A, family(b))
		wantErr(t, "connect", c.Connect(addr), unix.EINPROGRESS)
		awaitPoll(t, c, unix.POLLOUT)
		wantErr(t, "second connect", c.Connect(addr), nil)
		wantErr(t, "third connect", c.Connect(addr), unix.EISCONN)
		if e := soError(t, c); e != 0 {
			t.Errorf("SO_ERROR %v", e)
		}
		s := accept(t, l)
		cl, cr := c.Names()
		sl, sr := s.Names()
		if cl != sr || cr != sl || cr != addr {
			t.Errorf("client %s -> %s, server %s -> %s, listener %s", cl, cr, sl, sr, addr)
		}
		send(t, c, []byte("question"))
		if got := recv(t, s, 8); string(got) != "question" {
			t.Errorf("server got %q", got)
		}
		send(t, s, []byte("answer"))
		if got := recv(t, c, 6); string(got) != "answer" {
			t.Errorf("client got %q", got)
		}
	}
}

// closedPort returns an address of B where nobody listens.
func closedPort(t *testing.T, p Pair, b netip.Addr) netip.AddrPort {
	t.Helper()
	// Bound but not listening: nobody else gets the port meanwhile.
	s := newTCP(t, p.B, family(b))
	if err := s.Bind(netip.AddrPortFrom(b, 0)); err != nil {
		t.Fatal(err)
	}
	return reach(s, b)
}

func tcpConnectRefused(t *testing.T, p Pair) {
	for _, b := range []netip.Addr{p.B4, p.B6} {
		c := newTCP(t, p.A, family(b))
		wantErr(t, "connect", c.Connect(closedPort(t, p, b)), unix.EINPROGRESS)
		awaitPoll(t, c, evDead|unix.POLLERR)
		wantErr(t, "second connect", c.Connect(closedPort(t, p, b)), unix.ECONNREFUSED)
		wantPoll(t, "after the report", c, evFresh)
		// The socket is as new.
		l, addr := listen(t, p.B, b, 8)
		connect(t, c, addr)
		accept(t, l)
	}
}

func tcpConnectRefusedSOError(t *testing.T, p Pair) {
	c := newTCP(t, p.A, unix.AF_INET)
	dead := closedPort(t, p, p.B4)
	wantErr(t, "connect", c.Connect(dead), unix.EINPROGRESS)
	awaitPoll(t, c, evDead|unix.POLLERR)
	if e := soError(t, c); e != unix.ECONNREFUSED {
		t.Errorf("SO_ERROR %v, want ECONNREFUSED", e)
	}
	if e := soError(t, c); e != 0 {
		t.Errorf("second SO_ERROR %v", e)
	}
	wantPoll(t, "after SO_ERROR", c, evDead)
	wantErr(t, "connect", c.Connect(dead), unix.ECONNABORTED)
	wantErr(t, "connect", c.Connect(dead), unix.EINPROGRESS)
	awaitPoll(t, c, evDead|unix.POLLERR)
	wantErr(t, "recv", recvErr(c), unix.ECONNREFUSED)
	wantErr(t, "second recv", recvErr(c), io.EOF)
	wantErr(t, "send", sendErr(c), unix.EPIPE)
}

// tcpConnectNoUnicast: addresses that stand for more than one host are refused
// before anything is sent, and leave the socket as it was.
func tcpConnectNoUnicast(t *testing.T, p Pair) {
	to := []netip.Addr{
		netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("::ffff:255.255.255.255"),
		netip.MustParseAddr("224.0.0.251"), netip.MustParseAddr("::ffff:224.0.0.251"),
		netip.MustParseAddr("ff0e::1"),
	}
	if p.Broadcast.IsValid() {
		to = append(to, p.Broadcast)
	}
	for _, a := range to {
		c := newTCP(t, p.A, family(a))
		wantErr(t, "connect to "+a.String(), c.Connect(netip.AddrPortFrom(a, 9)), unix.ENETUNREACH)
		wantPoll(t, "after "+a.String(), c, evFresh)
		if local, _ := c.Names(); local.Port() != 0 {
			t.Errorf("connect to %s: bound to %s", a, local)
		}
	}
}

func tcpUnconnected(t *testing.T, p Pair) {
	c := newTCP(t, p.A, unix.AF_INET)
	wantErr(t, "recv", recvErr(c), unix.ENOTCONN)
	wantErr(t, "send", sendErr(c), unix.EPIPE)
	wantErr(t, "shutdown", newTCP(t, p.A, unix.AF_INET).Shutdown(unix.SHUT_WR), unix.ENOTCONN)
	_, err := c.Accept()
	wantErr(t, "accept", err, unix.EINVAL)
	local, remote := c.Names()
	if want := netip.AddrPortFrom(netip.IPv4Unspecified(), 0); local != want || remote.IsValid() {
		t.Errorf("names %s, %s", local, remote)
	}
	local, _ = newTCP(t, p.A, unix.AF_INET6).Names()
	if want := netip.AddrPortFrom(netip.IPv6Unspecified(), 0); local != want {
		t.Errorf("IPv6 name %s", local)
	}
}

func tcpEPIPE(t *testing.T, p Pair) {
	c, s := connected(t, p, p.B4)
	s.Close()
	awaitEvent(t, c, unix.POLLRDHUP)
	// The first send is answered by RST, the second finds that out.
	send(t, c, []byte("x"))
	awaitEvent(t, c, unix.POLLHUP)
	wantErr(t, "send", sendErr(c), unix.EPIPE)
}

func tcpAcceptStates(t *testing.T, p Pair) {
	l, addr := listen(t, p.B, p.B4, 8)
	_, err := l.Accept()
	wantErr(t, "accept", err, unix.EAGAIN)
	wantErr(t, "recv", recvErr(l), unix.ENOTCONN)
	wantErr(t, "send", sendErr(l), unix.EPIPE)
	wantErr(t, "connect", l.Connect(addr), unix.EISCONN)
	wantErr(t, "listen again", l.Listen(4), nil)
	wantErr(t, "bind", l.Bind(netip.AddrPortFrom(p.B4, 0)), unix.EINVAL)
	c := newTCP(t, p.A, unix.AF_INET)
	connect(t, c, addr)
	wantErr(t, "listen when connected", c.Listen(4), unix.EINVAL)
	// Without bind, listen picks a port.
	u := newTCP(t, p.B, unix.AF_INET)
	wantErr(t, "listen unbound", u.Listen(1), nil)
	if local, _ := u.Names(); local.Port() == 0 {
		t.Error("unbound listener has no port")
	}
}

// tcpAcceptMany accepts each of many connections once. Their order is that of the
// last segments of the handshakes, which no client sees.
func tcpAcceptMany(t *testing.T, p Pair) {
	l, addr := listen(t, p.B, p.B4, 16)
	want := map[netip.AddrPort]bool{}
	for range 10 {
		c := newTCP(t, p.A, unix.AF_INET)
		connect(t, c, addr)
		local, _ := c.Names()
		want[local] = true
	}
	for i := range 10 {
		s := accept(t, l)
		_, remote := s.Names()
		if !want[remote] {
			t.Errorf("connection %d comes from %s", i, remote)
		}
		delete(want, remote)
	}
	wantPoll(t, "all accepted", l, 0)
}

func tcpAcceptReset(t *testing.T, p Pair) {
	l, addr := listen(t, p.B, p.B4, 8)
	c := newTCP(t, p.A, unix.AF_INET)
	connect(t, c, addr)
	awaitEvent(t, l, unix.POLLIN)
	c.Abort()
	s := accept(t, l)
	awaitEvent(t, s, unix.POLLHUP)
	wantErr(t, "recv", recvErr(s), unix.ECONNRESET)
}

func tcpBacklog(t *testing.T, p Pair) {
	const backlog = 2
	l, addr := listen(t, p.B, p.B4, backlog)
	// One more than the backlog waits at the listener.
	for range backlog + 1 {
		connect(t, newTCP(t, p.A, unix.AF_INET), addr)
	}
	for i := range backlog + 1 {
		awaitEvent(t, l, unix.POLLIN)
		c, err := l.Accept()
		if err != nil {
			t.Fatalf("accept %d: %v", i, err)
		}
		c.Close()
	}
}

func tcpListenerShutdown(t *testing.T, p Pair) {
	l, addr := listen(t, p.B, p.B4, 8)
	wantErr(t, "SHUT_WR", l.Shutdown(unix.SHUT_WR), nil)
	wantErr(t, "SHUT_RD", l.Shutdown(unix.SHUT_RD), nil)
	awaitPoll(t, l, evFresh)
	_, err := l.Accept()
	wantErr(t, "accept", err, unix.EINVAL)
	c := newTCP(t, p.A, unix.AF_INET)
	wantErr(t, "connect", c.Connect(addr), unix.EINPROGRESS)
	awaitEvent(t, c, unix.POLLERR)
	wantErr(t, "connect", c.Connect(addr), unix.ECONNREFUSED)
	// An ephemeral port is lost with it.
	wantErr(t, "listen again", l.Listen(8), nil)
	connect(t, c, reach(l, p.B4))
	accept(t, l)
}

func tcpListenerClose(t *testing.T, p Pair) {
	l, addr := listen(t, p.B, p.B4, 8)
	c := newTCP(t, p.A, unix.AF_INET)
	connect(t, c, addr)
	awaitEvent(t, l, unix.POLLIN)
	l.Close()
	awaitPoll(t, c, evDead|unix.POLLERR)
	wantErr(t, "recv", recvErr(c), unix.ECONNRESET)
}

func tcpEphemeral(t *testing.T, p Pair) {
	seen := map[uint16]bool{}
	for range 20 {
		s := newTCP(t, p.A, unix.AF_INET)
		if err := s.Bind(netip.AddrPortFrom(p.A4, 0)); err != nil {
			t.Fatal(err)
		}
		port := reach(s, p.A4).Port()
		if port < 32768 || port > 60999 || seen[port] {
			t.Errorf("ephemeral port %d (seen before: %v)", port, seen[port])
		}
		seen[port] = true
	}
	l, addr := listen(t, p.B, p.B4, 8)
	for range 5 {
		c := newTCP(t, p.A, unix.AF_INET)
		connect(t, c, addr)
		accept(t, l)
		local, _ := c.Names()
		if port := local.Port(); port < 32768 || port > 60999 || local.Addr() != p.A4 {
			t.Errorf("connected from %s", local)
		}
	}
}

func tcpBindErrors(t *testing.T, p Pair) {
	foreign := netip.MustParseAddr("203.0.113.77")
	wantErr(t, "bind to a foreign address",
		newTCP(t, p.A, unix.AF_INET).Bind(netip.AddrPortFrom(foreign, 0)), unix.EADDRNOTAVAIL)
	wantErr(t, "bind to a foreign IPv6 address",
		newTCP(t, p.A, unix.AF_INET6).Bind(netip.MustParseAddrPort("[2001:db8::77]:0")), unix.EADDRNOTAVAIL)
	a := newTCP(t, p.A, unix.AF_INET)
	wantErr(t, "bind", a.Bind(netip.AddrPortFrom(p.A4, 0)), nil)
	wantErr(t, "bind twice", a.Bind(netip.AddrPortFrom(p.A4, 0)), unix.EINVAL)
	same := reach(a, p.A4)
	wantErr(t, "bind to a port in use", newTCP(t, p.A, unix.AF_INET).Bind(same), unix.EADDRINUSE)
	wantErr(t, "wildcard over a port in use", newTCP(t, p.A, unix.AF_INET).Bind(
		netip.AddrPortFrom(netip.IPv4Unspecified(), same.Port())), unix.EADDRINUSE)
	if err := a.Listen(1); err != nil {
		t.Fatal(err)
	}
	b := newTCP(t, p.A, unix.AF_INET)
	setInt(t, b, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	wantErr(t, "SO_REUSEADDR beside a listener", b.Bind(same), unix.EADDRINUSE)
	wantErr(t, "IPv6 address on AF_INET6 only", newTCP(t, p.A, unix.AF_INET6).Bind(netip.AddrPortFrom(p.A6, 0)), nil)
}

func tcpReuseAddr(t *testing.T, p Pair) {
	l := newTCP(t, p.B, unix.AF_INET)
	setInt(t, l, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) // its children need it too
	if err := l.Bind(netip.AddrPortFrom(p.B4, 0)); err != nil {
		t.Fatal(err)
	}
	if err := l.Listen(8); err != nil {
		t.Fatal(err)
	}
	addr := reach(l, p.B4)
	c := newTCP(t, p.A, unix.AF_INET)
	connect(t, c, addr)
	s := accept(t, l)
	s.Close() // the server closes first and has the TIME-WAIT
	awaitEvent(t, c, unix.POLLRDHUP)
	c.Close()
	l.Close()
	again := newTCP(t, p.B, unix.AF_INET)
	setInt(t, again, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	wantErr(t, "bind", again.Bind(addr), nil)
	wantErr(t, "listen", again.Listen(8), nil)
	c2 := newTCP(t, p.A, unix.AF_INET)
	connect(t, c2, addr)
	accept(t, again)
}

func tcpDualStack(t *testing.T, p Pair) {
	l := newTCP(t, p.B, unix.AF_INET6)
	if err := l.Bind(netip.AddrPortFrom(netip.IPv6Unspecified(), 0)); err != nil {
		t.Fatal(err)
	}
	if err := l.Listen(8); err != nil {
		t.Fatal(err)
	}
	for _, b := range []netip.Addr{p.B4, p.B6} {
		c := newTCP(t, p.A, family(b))
		connect(t, c, reach(l, b))
		s := accept(t, l)
		local, remote := s.Names()
		cl, _ := c.Names()
		mapped := func(a netip.AddrPort) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
		}
		if remote != mapped(cl) || local != mapped(reach(l, b)) {
			t.Errorf("server has %s -> %s for client %s", local, remote, cl)
		}
	}
	// An AF_INET6 socket reaches IPv4 by the mapped address.
	l4, addr := listen(t, p.B, p.B4, 8)
	c := newTCP(t, p.A, unix.AF_INET6)
	connect(t, c, netip.AddrPortFrom(netip.AddrFrom16(p.B4.As16()), addr.Port()))
	s := accept(t, l4)
	if _, remote := s.Names(); !remote.Addr().Is4() {
		t.Errorf("AF_INET peer %s", remote)
	}
	if _, remote := c.Names(); !remote.Addr().Is4In6() {
		t.Errorf("AF_INET6 peer %s", remote)
	}
}

func tcpV6Only(t *testing.T, p Pair) {
	l := newTCP(t, p.B, unix.AF_INET6)
	setInt(t, l, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	if err := l.Bind(netip.AddrPortFrom(netip.IPv6Unspecified(), 0)); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "IPV6_V6ONLY after bind", l.SetOption(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, i32(0)), unix.EINVAL)
	if err := l.Listen(8); err != nil {
		t.Fatal(err)
	}
	// The same port is free for IPv4.
	l4 := newTCP(t, p.B, unix.AF_INET)
	wantErr(t, "bind IPv4", l4.Bind(reach(l, netip.IPv4Unspecified())), nil)
	c := newTCP(t, p.A, unix.AF_INET)
	wantErr(t, "connect", c.Connect(reach(l, p.B4)), unix.EINPROGRESS)
	awaitEvent(t, c, unix.POLLERR)
	if e := soError(t, c); e != unix.ECONNREFUSED {
		t.Errorf("SO_ERROR %v, want ECONNREFUSED", e)
	}
	c6 := newTCP(t, p.A, unix.AF_INET6)
	setInt(t, c6, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	wantErr(t, "mapped address on a V6ONLY socket",
		c6.Connect(netip.AddrPortFrom(netip.AddrFrom16(p.B4.As16()), 9)), unix.ENETUNREACH)
}

func tcpUnspec(t *testing.T, p Pair) {
	c, s := connected(t, p, p.B4)
	wantErr(t, "connect to AF_UNSPEC", c.Connect(netip.AddrPort{}), nil)
	awaitPoll(t, s, evDead|unix.POLLERR)
	wantErr(t, "peer's recv", recvErr(s), unix.ECONNRESET)
	awaitPoll(t, c, evFresh|unix.POLLERR)
	if e := soError(t, c); e != unix.ECONNRESET {
		t.Errorf("SO_ERROR %v, want ECONNRESET", e)
	}
	wantPoll(t, "after SO_ERROR", c, evFresh)
	l, addr := listen(t, p.B, p.B4, 8)
	connect(t, c, addr)
	accept(t, l)
}

func tcpWildcard(t *testing.T, p Pair) {
	for _, any := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		l, addr := listen(t, p.A, any, 8)
		c := newTCP(t, p.A, family(any))
		connect(t, c, addr)
		accept(t, l)
		if _, remote := c.Names(); !remote.Addr().IsLoopback() {
			t.Errorf("connect to %s reached %s", addr, remote)
		}
	}
}
