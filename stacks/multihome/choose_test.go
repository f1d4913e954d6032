// SPDX-License-Identifier: Apache-2.0

// Which network a socket finds: streams, datagrams, interfaces, tasks.

package multihome_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/multihome"
	"umrun/stacks/route"
)

// patience bounds every wait; hush is how long a test looks for what must not happen.
const (
	patience = 5 * time.Second
	hush     = 50 * time.Millisecond
)

// The address that answers at the far end of both networks: which of the two has
// answered is told by the payload.
const everywhere = "198.51.100.7"

// A world is a view of two networks, a and b.
type world struct {
	st    *multihome.Stack
	table *route.Table
	a, b  side
}

func newWorld(t testing.TB, rules ...string) *world {
	t.Helper()
	w := &world{
		a: newSide(t, "a0", []string{"10.1.0.1/24", "fd01::1/64"}, []string{"10.1.0.2/24", "fd01::2/64"}, everywhere+"/32", "2001:db8::7/128"),
		b: newSide(t, "b0", []string{"10.2.0.1/24", "fd02::1/64"}, []string{"10.2.0.2/24", "fd02::2/64"}, everywhere+"/32", "2001:db8::7/128"),
	}
	w.table = newTable(t, rules, w.a.addrs, w.b.addrs)
	w.st = multihome.New(w.table, w.a.near, w.b.near)
	return w
}

// serve has something listen on a port of both far ends that says which one it is, by TCP
// and by UDP.
func (w *world) serve(t testing.TB, port uint16) {
	t.Helper()
	for name, st := range map[string]stacks.Stack{"a": w.a.far, "b": w.b.far} {
		for _, family := range []int{unix.AF_INET6} { // IPv4 as well
			s, err := st.Socket(family, unix.SOCK_STREAM, 0)
			if err != nil {
				t.Fatal(err)
			}
			l := s.(stacks.StreamSocket)
			t.Cleanup(func() { l.Close() })
			if err := errors.Join(l.Bind(netip.AddrPortFrom(netip.IPv6Unspecified(), port)), l.Listen(16)); err != nil {
				t.Fatal(err)
			}
			l.Watch(unix.POLLIN, func(stacks.Events) {
				go func() {
					for {
						c, err := l.Accept()
						if err != nil {
							return
						}
						_, _ = c.Send(bytes.NewReader([]byte(name)))
						c.Close()
					}
				}()
			})
			s, err = st.Socket(family, unix.SOCK_DGRAM, 0)
			if err != nil {
				t.Fatal(err)
			}
			u := s.(stacks.PacketSocket)
			t.Cleanup(func() { u.Close() })
			if err := u.Bind(netip.AddrPortFrom(netip.IPv6Unspecified(), port)); err != nil {
				t.Fatal(err)
			}
			u.Watch(unix.POLLIN, func(stacks.Events) {
				go func() {
					buf := make([]byte, 100)
					for {
						n, _, m, err := u.RecvMsg(buf, false)
						if err != nil {
							return
						}
						_ = u.SendMsg(append([]byte(name+":"), buf[:n]...), stacks.Message{Peer: m.Peer, Local: m.Local, TTL: -1, TOS: -1})
					}
				}()
			})
		}
	}
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func tcp(t testing.TB, st stacks.Stack, family int) stacks.StreamSocket {
	t.Helper()
	s, err := st.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(stacks.StreamSocket)
}

func udp(t testing.TB, st stacks.Stack, family int) stacks.PacketSocket {
	t.Helper()
	s, err := st.Socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(stacks.PacketSocket)
}

// await polls until f says that it is done.
func await(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}

// connect connects and waits for the outcome.
func connect(t testing.TB, s stacks.StreamSocket, to netip.AddrPort) error {
	t.Helper()
	var err error
	await(t, "connect to "+to.String(), func() bool {
		err = s.Connect(to)
		return !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.EALREADY)
	})
	return err
}

// read reads a stream to its end.
func read(t testing.TB, s stacks.StreamSocket) string {
	t.Helper()
	var b bytes.Buffer
	await(t, "end of stream", func() bool {
		_, err := s.Recv(&b, 100)
		if err != nil && err != io.EOF && !errors.Is(err, unix.EAGAIN) {
			t.Fatalf("recv: %v", err)
		}
		return err == io.EOF
	})
	return b.String()
}

func send(t testing.TB, s stacks.PacketSocket, p string, to netip.AddrPort) {
	t.Helper()
	if err := s.SendMsg([]byte(p), stacks.Message{Peer: to, TTL: -1, TOS: -1}); err != nil {
		t.Fatalf("send to %s: %v", to, err)
	}
}

// recv waits for a datagram.
func recv(t testing.TB, s stacks.PacketSocket) (string, stacks.Message) {
	t.Helper()
	buf := make([]byte, 2000)
	var n int
	var m stacks.Message
	await(t, "datagram", func() bool {
		var err error
		n, _, m, err = s.RecvMsg(buf, false)
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Fatalf("recv: %v", err)
		}
		return err == nil
	})
	return string(buf[:n]), m
}

// silent fails if anything comes.
func silent(t testing.TB, s stacks.PacketSocket) {
	t.Helper()
	buf := make([]byte, 2000)
	for end := time.Now().Add(hush); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if n, _, m, err := s.RecvMsg(buf, false); err == nil {
			t.Fatalf("got %q from %s", buf[:n], m.Peer)
		}
	}
}

func to(a string, port uint16) netip.AddrPort { return netip.AddrPortFrom(addr(a), port) }

// TestStreams: where connections go, by what rule.
func TestStreams(t *testing.T) {
	w := newWorld(t, "203.0.113.0/24=b", ":2000=b", "2001:db8::/32=b")
	w.serve(t, 1000)
	w.serve(t, 2000)
	for _, c := range []struct {
		to   string
		port uint16
		want string
	}{
		{"10.1.0.2", 1000, "a"},
		{"10.2.0.2", 1000, "b"}, // connected there
		{"fd02::2", 1000, "b"},  // likewise
		{everywhere, 1000, "a"}, // the first one is the default
		{everywhere, 2000, "b"}, // by port
		{"2001:db8::7", 1000, "b"},
		{"10.1.0.2", 2000, "-"}, // the port's rule wins: network b has no such host
	} {
		s := tcp(t, w.st, familyOf(addr(c.to)))
		if c.want == "-" {
			if err := s.Connect(to(c.to, c.port)); !errors.Is(err, unix.EINPROGRESS) {
				t.Errorf("connect to %s:%d: %v", c.to, c.port, err)
			}
			if local, _ := s.Names(); local.Addr() != addr("10.2.0.1") {
				t.Errorf("to %s:%d from %s", c.to, c.port, local)
			}
			continue
		}
		if err := connect(t, s, to(c.to, c.port)); err != nil {
			t.Errorf("connect to %s:%d: %v", c.to, c.port, err)
			continue
		}
		local, remote := s.Names()
		if got := read(t, s); got != c.want || remote != to(c.to, c.port) || !local.Addr().IsValid() || local.Addr().IsUnspecified() {
			t.Errorf("%s:%d was served by %q, want %q; names %s, %s", c.to, c.port, got, c.want, local, remote)
		}
	}
}

// TestMoved: options and a port that were set before are there after the move.
func TestMoved(t *testing.T) {
	w := newWorld(t)
	w.serve(t, 1000)
	s := tcp(t, w.st, unix.AF_INET)
	one := []byte{1, 0, 0, 0}
	if err := s.SetOption(unix.IPPROTO_TCP, unix.TCP_NODELAY, one); err != nil {
		t.Fatal(err)
	}
	if err := s.Bind(to("0.0.0.0", 4567)); err != nil {
		t.Fatal(err)
	}
	woken := make(chan struct{}, 100)
	s.Watch(unix.POLLIN, func(stacks.Events) { woken <- struct{}{} })
	if err := connect(t, s, to("10.2.0.2", 1000)); err != nil {
		t.Fatal(err)
	}
	if local, _ := s.Names(); local != to("10.2.0.1", 4567) {
		t.Errorf("moved to %s", local)
	}
	var v [4]byte
	if n, err := s.Option(unix.IPPROTO_TCP, unix.TCP_NODELAY, v[:]); n != 4 || err != nil || v[0] != 1 {
		t.Errorf("TCP_NODELAY is %v, %v", v[:n], err)
	}
	select {
	case <-woken:
	case <-time.After(patience):
		t.Error("a watch from before the move was not called")
	}
	// The port is free again where the socket is not any more.
	if err := udpOrTCPBind(w.a.near, 4567); err != nil {
		t.Errorf("port of the first network: %v", err)
	}
}

func udpOrTCPBind(st stacks.Stack, port uint16) error {
	s, err := st.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Bind(netip.AddrPortFrom(netip.IPv4Unspecified(), port))
}

// TestFailedConnect: after a failure the socket may go to another network.
func TestFailedConnect(t *testing.T) {
	w := newWorld(t)
	w.serve(t, 1000)
	s := tcp(t, w.st, unix.AF_INET)
	if err := connect(t, s, to("10.1.0.2", 9)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatalf("connect to a closed port: %v", err)
	}
	if err := connect(t, s, to("10.2.0.2", 1000)); err != nil {
		t.Fatalf("connect again: %v", err)
	}
	if got := read(t, s); got != "b" {
		t.Errorf("served by %q", got)
	}
}

// TestListener: one listener serves both networks and loopback, under one port.
func TestListener(t *testing.T) {
	w := newWorld(t)
	l := tcp(t, w.st, unix.AF_INET6)
	if err := errors.Join(l.Bind(netip.AddrPortFrom(netip.IPv6Unspecified(), 0)), l.Listen(8)); err != nil {
		t.Fatal(err)
	}
	local, _ := l.Names()
	if !local.Addr().IsUnspecified() || local.Port() == 0 {
		t.Fatalf("listens on %s", local)
	}
	for _, c := range []struct {
		from stacks.Stack
		to   string
	}{{w.a.far, "10.1.0.1"}, {w.b.far, "10.2.0.1"}, {w.b.far, "fd02::1"}, {w.st, "127.0.0.1"}, {w.st, "10.2.0.1"}, {w.st, "::1"}} {
		s := tcp(t, c.from, familyOf(addr(c.to)))
		if err := connect(t, s, to(c.to, local.Port())); err != nil {
			t.Errorf("connect to %s: %v", c.to, err)
			continue
		}
		var got stacks.StreamSocket
		await(t, "accept", func() bool { var err error; got, err = l.Accept(); return err == nil })
		defer got.Close()
		here, there := got.Names()
		if mine, _ := s.Names(); here.Addr().Unmap() != addr(c.to) || there.Addr().Unmap() != mine.Addr() || there.Port() != mine.Port() {
			t.Errorf("accepted %s -> %s, want %s -> %s", here, there, c.to, mine)
		}
	}
	if _, err := l.Accept(); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("accept of nothing: %v", err)
	}
	n := 0
	for _, e := range w.st.Endpoints() {
		if e.Local.Port() == local.Port() && !e.Remote.IsValid() {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the listener is told %d times", n)
	}
	// A port that one network has in use is in use.
	x := tcp(t, w.b.near, unix.AF_INET)
	if err := errors.Join(x.Bind(netip.AddrPortFrom(netip.IPv4Unspecified(), 0)), x.Listen(1)); err != nil {
		t.Fatal(err)
	}
	taken, _ := x.Names()
	y := tcp(t, w.st, unix.AF_INET)
	if err := y.Bind(netip.AddrPortFrom(netip.IPv4Unspecified(), taken.Port())); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("bind to a port that is taken on one network: %v", err)
	}
	if err := y.Bind(netip.AddrPortFrom(netip.IPv4Unspecified(), 0)); err != nil {
		t.Errorf("bind after a failure: %v", err)
	}
}

// TestListenTaken: a listener that cannot listen on one network listens on none, and is
// bound as before.
func TestListenTaken(t *testing.T) {
	w := newWorld(t)
	reuse := func(s stacks.StreamSocket, bind netip.AddrPort) stacks.StreamSocket {
		t.Helper()
		if err := errors.Join(s.SetOption(unix.SOL_SOCKET, unix.SO_REUSEADDR, []byte{1, 0, 0, 0}), s.Bind(bind)); err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, taken := range []stacks.Stack{w.st, w.a.near, w.b.near} {
		port := uint16(7000)
		x, y := reuse(tcp(t, taken, unix.AF_INET), to("0.0.0.0", port)), reuse(tcp(t, w.st, unix.AF_INET), to("0.0.0.0", port))
		if err := x.Listen(1); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := y.Listen(1); !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("listen beside a listener: %v", err)
			}
			if local, _ := y.Names(); local.Port() != port {
				t.Errorf("then it is bound to %s", local)
			}
		}
		if taken != w.st {
			free := w.a.far
			dst := "10.1.0.1"
			if taken == stacks.Stack(w.a.near) {
				free, dst = w.b.far, "10.2.0.1"
			}
			if err := connect(t, tcp(t, free, unix.AF_INET), to(dst, port)); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("connect where nobody listens: %v", err)
			}
		}
		x.Close()
		if err := y.Listen(1); err != nil {
			t.Errorf("listen when the port is free: %v", err)
		}
		for _, c := range []struct {
			from stacks.Stack
			to   string
		}{{w.a.far, "10.1.0.1"}, {w.b.far, "10.2.0.1"}} {
			if err := connect(t, tcp(t, c.from, unix.AF_INET), to(c.to, port)); err != nil {
				t.Errorf("connect to %s: %v", c.to, err)
			}
		}
		y.Close()
	}
}

// TestBindToAddress: an address chooses the network, for listeners and for connections.
func TestBindToAddress(t *testing.T) {
	w := newWorld(t, "203.0.113.0/24=a")
	w.serve(t, 1000)
	l := tcp(t, w.st, unix.AF_INET)
	if err := errors.Join(l.Bind(to("10.2.0.1", 80)), l.Listen(8)); err != nil {
		t.Fatal(err)
	}
	if err := connect(t, tcp(t, w.b.far, unix.AF_INET), to("10.2.0.1", 80)); err != nil {
		t.Errorf("from its own network: %v", err)
	}
	if err := connect(t, tcp(t, w.a.far, unix.AF_INET), to("10.1.0.1", 80)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("from the other network: %v", err)
	}
	s := tcp(t, w.st, unix.AF_INET)
	if err := s.Bind(to("10.2.0.1", 0)); err != nil {
		t.Fatal(err)
	}
	if err := connect(t, s, to(everywhere, 1000)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s); got != "b" {
		t.Errorf("a connection from the address of b is served by %q", got)
	}
	s = tcp(t, w.st, unix.AF_INET)
	if err := s.Bind(to("10.2.0.1", 0)); err != nil {
		t.Fatal(err)
	}
	if err := s.Connect(to("203.0.113.1", 1000)); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("past a rule: %v", err)
	}
	if err := tcp(t, w.st, unix.AF_INET).Bind(to("10.3.0.1", 0)); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("bind to nobody's address: %v", err)
	}
}

// TestDatagrams: one socket talks to two networks.
func TestDatagrams(t *testing.T) {
	w := newWorld(t)
	w.serve(t, 1000)
	s := udp(t, w.st, unix.AF_INET)
	var before uint16
	for i := range 4 {
		send(t, s, "x"+strconv.Itoa(i), to("10.1.0.2", 1000))
		send(t, s, "y"+strconv.Itoa(i), to("10.2.0.2", 1000))
		if local, _ := s.Names(); i == 0 {
			before = local.Port()
		} else if local.Port() != before || before == 0 {
			t.Errorf("port %d, then %d", before, local.Port())
		}
	}
	got := map[string]netip.AddrPort{}
	ports := map[int]bool{}
	for range 8 {
		p, m := recv(t, s)
		got[p] = m.Peer
		ports[m.IfIndex] = true
	}
	for i := range 4 {
		n := strconv.Itoa(i)
		if got["a:x"+n] != to("10.1.0.2", 1000) || got["b:y"+n] != to("10.2.0.2", 1000) {
			t.Errorf("answers: %v", got)
		}
	}
	if len(ports) != 2 || !ports[2] || !ports[3] {
		t.Errorf("came in by interfaces %v, want 2 and 3", ports)
	}
	if s.Poll()&unix.POLLIN != 0 {
		t.Error("readable with nothing to read")
	}
	// A refusal on the second network is told.
	if err := s.SetOption(unix.IPPROTO_IP, unix.IP_RECVERR, []byte{1, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	send(t, s, "z", to("10.2.0.2", 9))
	await(t, "the refusal", func() bool {
		errno, queue := s.(stacks.Reporter).TakeReports()
		return errno == unix.ECONNREFUSED && len(queue) == 1 && queue[0].Dst == to("10.2.0.2", 9) && queue[0].Msg.IfIndex == 3
	})
}

// TestPeek: what was looked at is what comes.
func TestPeek(t *testing.T) {
	w := newWorld(t)
	w.serve(t, 1000)
	s := udp(t, w.st, unix.AF_INET)
	send(t, s, "x", to("10.1.0.2", 1000))
	send(t, s, "y", to("10.2.0.2", 1000))
	buf := make([]byte, 100)
	for range 2 {
		var n int
		await(t, "datagram", func() bool { var err error; n, _, _, err = s.RecvMsg(buf, true); return err == nil })
		peeked := string(buf[:n])
		if got, _ := recv(t, s); got != peeked {
			t.Errorf("looked at %q, got %q", peeked, got)
		}
	}
}

// TestBoundDatagrams: a server on the wildcard hears both networks, and answers from
// where it was asked.
func TestBoundDatagrams(t *testing.T) {
	w := newWorld(t)
	s := udp(t, w.st, unix.AF_INET6)
	if err := s.Bind(netip.AddrPortFrom(netip.IPv6Unspecified(), 53)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from stacks.Stack
		to   string
	}{{w.a.far, "10.1.0.1"}, {w.b.far, "10.2.0.1"}, {w.b.far, "fd02::1"}, {w.st, "127.0.0.1"}} {
		q := udp(t, c.from, familyOf(addr(c.to)))
		send(t, q, "who", to(c.to, 53))
		_, m := recv(t, s)
		if m.Local.Unmap() != addr(c.to) {
			t.Errorf("sent to %s, told %s", c.to, m.Local)
		}
		if err := s.SendMsg([]byte("me"), stacks.Message{Peer: m.Peer, Local: m.Local, IfIndex: m.IfIndex, TTL: -1, TOS: -1}); err != nil {
			t.Errorf("answer to %s: %v", m.Peer, err)
			continue
		}
		if got, from := recv(t, q); got != "me" || from.Peer != to(c.to, 53) {
			t.Errorf("%q from %s", got, from.Peer)
		}
	}
	// Connected, it hears its peer alone; dissolved, everybody again.
	peer := udp(t, w.b.far, unix.AF_INET6)
	if err := peer.Bind(netip.AddrPortFrom(addr("fd02::2"), 5353)); err != nil {
		t.Fatal(err)
	}
	if err := s.Connect(to("fd02::2", 5353)); err != nil {
		t.Fatal(err)
	}
	send(t, udp(t, w.a.far, unix.AF_INET), "stranger", to("10.1.0.1", 53))
	silent(t, s)
	send(t, s, "hello", netip.AddrPort{})
	if got, m := recv(t, peer); got != "hello" || m.Peer != to("fd02::1", 53) {
		t.Errorf("%q from %s", got, m.Peer)
	}
	if err := s.Connect(netip.AddrPort{}); err != nil {
		t.Fatal(err)
	}
	send(t, udp(t, w.a.far, unix.AF_INET), "again", to("10.1.0.1", 53))
	if got, _ := recv(t, s); got != "again" {
		t.Errorf("after the association was dissolved: %q", got)
	}
}

// TestConnectedSendsElsewhere: sendto of a connected socket to another network.
func TestConnectedSendsElsewhere(t *testing.T) {
	w := newWorld(t)
	w.serve(t, 1000)
	s := udp(t, w.st, unix.AF_INET)
	if err := s.Connect(to("10.1.0.2", 1000)); err != nil {
		t.Fatal(err)
	}
	send(t, s, "there", to("10.2.0.2", 1000))
	silent(t, s) // the answer is not from the peer
	send(t, s, "here", netip.AddrPort{})
	if got, _ := recv(t, s); got != "a:here" {
		t.Errorf("got %q", got)
	}
}

// TestDevice: interfaces choose the network, and their numbers and names are the view's.
func TestDevice(t *testing.T) {
	w := newWorld(t, "203.0.113.0/24=a")
	w.serve(t, 1000)
	s := tcp(t, w.st, unix.AF_INET)
	if err := s.SetOption(unix.SOL_SOCKET, unix.SO_BINDTODEVICE, []byte("b0\x00")); err != nil {
		t.Fatal(err)
	}
	v := make([]byte, 16)
	if n, err := s.Option(unix.SOL_SOCKET, unix.SO_BINDTODEVICE, v); err != nil || string(v[:n]) != "b0\x00" {
		t.Errorf("SO_BINDTODEVICE is %q, %v", v[:n], err)
	}
	if n, err := s.Option(unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, v[:4]); err != nil || n != 4 || binary.NativeEndian.Uint32(v) != 3 {
		t.Errorf("SO_BINDTOIFINDEX is %v, %v", v[:n], err)
	}
	if err := s.SetOption(unix.SOL_SOCKET, unix.SO_BINDTODEVICE, []byte("a0\x00")); !errors.Is(err, unix.EPERM) {
		t.Errorf("another interface: %v", err)
	}
	if err := s.Connect(to("203.0.113.1", 1000)); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("past a rule: %v", err)
	}
	if err := connect(t, s, to(everywhere, 1000)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s); got != "b" {
		t.Errorf("served by %q", got)
	}
	u := udp(t, w.st, unix.AF_INET)
	if err := u.SetOption(unix.SOL_SOCKET, unix.SO_BINDTODEVICE, []byte("eth7\x00")); !errors.Is(err, unix.ENODEV) {
		t.Errorf("an interface that is not there: %v", err)
	}
	if err := u.SetOption(unix.IPPROTO_IP, unix.IP_UNICAST_IF, binary.BigEndian.AppendUint32(nil, 3)); err != nil {
		t.Fatal(err)
	}
	if n, err := u.Option(unix.IPPROTO_IP, unix.IP_UNICAST_IF, v[:4]); err != nil || n != 4 || binary.BigEndian.Uint32(v) != 3 {
		t.Errorf("IP_UNICAST_IF is %v, %v", v[:n], err)
	}
	send(t, u, "x", to(everywhere, 1000))
	if got, _ := recv(t, u); got != "b:x" {
		t.Errorf("IP_UNICAST_IF: %q", got)
	}
	p := udp(t, w.st, unix.AF_INET)
	if err := p.SendMsg([]byte("x"), stacks.Message{Peer: to(everywhere, 1000), IfIndex: 3, TTL: -1, TOS: -1}); err != nil {
		t.Fatal(err)
	}
	if got, m := recv(t, p); got != "b:x" || m.IfIndex != 3 {
		t.Errorf("IP_PKTINFO: %q by %d", got, m.IfIndex)
	}
	if err := p.SendMsg([]byte("x"), stacks.Message{Peer: to(everywhere, 1000), IfIndex: 9, TTL: -1, TOS: -1}); !errors.Is(err, unix.ENODEV) {
		t.Errorf("IP_PKTINFO without such an interface: %v", err)
	}
	// Nor does a group open the socket to another network.
	g := udp(t, w.st, unix.AF_INET)
	if err := g.SetOption(unix.SOL_SOCKET, unix.SO_BINDTODEVICE, []byte("b0\x00")); err != nil {
		t.Fatal(err)
	}
	send(t, g, "x", to(everywhere, 1000))
	if got, _ := recv(t, g); got != "b:x" {
		t.Errorf("SO_BINDTODEVICE: %q", got)
	}
	if err := g.SetOption(unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, append(addr("239.1.2.3").AsSlice(), addr("10.1.0.1").AsSlice()...)); !errors.Is(err, unix.ENODEV) {
		t.Errorf("a group of another network: %v", err)
	}
	if err := g.SetOption(unix.IPPROTO_IP, unix.IP_MULTICAST_IF, addr("10.1.0.1").AsSlice()); !errors.Is(err, unix.EINVAL) {
		t.Errorf("groups by another network: %v", err)
	}
	local, _ := g.Names()
	send(t, udp(t, w.a.far, unix.AF_INET), "stray", to("10.1.0.1", local.Port()))
	silent(t, g)
}

// TestStickyInterface: IPV6_PKTINFO as an option is about groups too, and leaves what
// IPV6_UNICAST_IF has said.
func TestStickyInterface(t *testing.T) {
	w := newWorld(t)
	w.serve(t, 1000)
	info := func(index uint32) []byte { return binary.NativeEndian.AppendUint32(make([]byte, 16), index) }
	s := udp(t, w.st, unix.AF_INET6)
	for _, o := range []struct {
		name  int
		value []byte
		want  string
	}{
		{unix.IPV6_PKTINFO, info(3), "b:x"},
		{unix.IPV6_PKTINFO, info(0), "a:x"},
		{unix.IPV6_UNICAST_IF, binary.BigEndian.AppendUint32(nil, 3), "b:x"},
		{unix.IPV6_PKTINFO, info(2), "a:x"},
		{unix.IPV6_PKTINFO, info(0), "b:x"},
	} {
		if err := s.SetOption(unix.IPPROTO_IPV6, o.name, o.value); err != nil {
			t.Fatal(err)
		}
		send(t, s, "x", to("2001:db8::7", 1000))
		if got, _ := recv(t, s); got != o.want {
			t.Errorf("option %d, %v: %q, want %q", o.name, o.value, got, o.want)
		}
	}
	group := to("ff15::7", 5555)
	for i, far := range []stacks.Stack{w.a.far, w.b.far} {
		peer := udp(t, far, unix.AF_INET6)
		if err := peer.Bind(to("::", group.Port())); err != nil {
			t.Fatal(err)
		}
		if err := peer.SetOption(unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, binary.NativeEndian.AppendUint32(group.Addr().AsSlice(), 2)); err != nil {
			t.Fatal(err)
		}
		if err := s.SetOption(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, info(uint32(2+i))); err != nil {
			t.Fatal(err)
		}
		send(t, s, "all", group)
		if got, _ := recv(t, peer); got != "all" {
			t.Errorf("network %d: %q", i, got)
		}
	}
}

// TestWholeFamily: a rule for all of a family holds for the prefixes of its network too,
// as those of a tunnel that has halves of it.
func TestWholeFamily(t *testing.T) {
	w := newWorld(t, "0.0.0.0/0=a")
	for _, dst := range []string{everywhere, "10.1.0.2"} {
		s := udp(t, w.st, unix.AF_INET)
		err := s.SendMsg([]byte("x"), stacks.Message{Peer: to(dst, 1000), IfIndex: 3, TTL: -1, TOS: -1})
		if !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("to %s by network b: %v", dst, err)
		}
	}
	s := udp(t, w.st, unix.AF_INET)
	if err := s.SendMsg([]byte("x"), stacks.Message{Peer: to("10.2.0.2", 1000), IfIndex: 3, TTL: -1, TOS: -1}); err != nil {
		t.Errorf("to b's own prefix: %v", err)
	}
}

// TestGroups: a group is joined where the interface is, before and after bind.
func TestGroups(t *testing.T) {
	w := newWorld(t)
	for _, early := range []bool{true, false} {
		s := udp(t, w.st, unix.AF_INET)
		join := func() {
			for i, ifc := range []string{"10.1.0.1", "10.2.0.1"} {
				v := append(addr("239.1.2.3").AsSlice(), addr(ifc).AsSlice()...)
				if i == 1 {
					v = binary.NativeEndian.AppendUint32(append(addr("239.1.2.3").AsSlice(), 0, 0, 0, 0), 3)
				}
				if err := s.SetOption(unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, v); err != nil {
					t.Fatalf("join by %s: %v", ifc, err)
				}
			}
		}
		if early {
			join()
		}
		if err := s.SetOption(unix.SOL_SOCKET, unix.SO_REUSEADDR, []byte{1, 0, 0, 0}); err != nil {
			t.Fatal(err)
		}
		if err := s.Bind(to("0.0.0.0", 5353)); err != nil {
			t.Fatal(err)
		}
		if !early {
			join()
		}
		for _, far := range []stacks.Stack{w.a.far, w.b.far} {
			q := udp(t, far, unix.AF_INET)
			send(t, q, "query", to("239.1.2.3", 5353))
			if got, _ := recv(t, s); got != "query" {
				t.Errorf("got %q", got)
			}
		}
		s.Close()
	}
	// What is sent to a group leaves by the interface that was named.
	heard := udp(t, w.b.far, unix.AF_INET)
	if err := errors.Join(heard.Bind(to("0.0.0.0", 5353)),
		heard.SetOption(unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, append(addr("239.1.2.3").AsSlice(), addr("10.2.0.2").AsSlice()...))); err != nil {
		t.Fatal(err)
	}
	s := udp(t, w.st, unix.AF_INET)
	if err := s.SetOption(unix.IPPROTO_IP, unix.IP_MULTICAST_IF, addr("10.2.0.1").AsSlice()); err != nil {
		t.Fatal(err)
	}
	send(t, s, "hello", to("239.1.2.3", 5353))
	if got, m := recv(t, heard); got != "hello" || m.Peer.Addr() != addr("10.2.0.1") {
		t.Errorf("%q from %s", got, m.Peer)
	}
}

// TestTasks: rules about who asks hold for all that a socket does.
func TestTasks(t *testing.T) {
	w := newWorld(t, "exe=/opt/*/client=b", "uid=4711=b", "10.1.0.0/24=a")
	w.serve(t, 1000)
	by := func(exe string, uid uint32) stacks.Caller {
		return stacks.Caller{UID: uid, Exe: func() (string, error) {
			if exe == "" {
				return "", unix.EACCES
			}
			return exe, nil
		}}
	}
	if _, err := w.st.SocketFor(by("", 0), unix.AF_INET, unix.SOCK_STREAM, 0); !errors.Is(err, unix.EACCES) {
		t.Errorf("a task that hides its executable: %v", err)
	}
	for _, c := range []struct {
		by   stacks.Caller
		to   string
		want string
	}{
		{by("/bin/sh", 0), everywhere, "a"},
		{by("/opt/x/client", 0), everywhere, "b"},
		{by("/opt/x/client", 0), "10.2.0.2", "b"},
		{by("/bin/sh", 4711), everywhere, "b"},
	} {
		s, err := w.st.SocketFor(c.by, unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		st := s.(stacks.StreamSocket)
		if err := connect(t, st, to(c.to, 1000)); err != nil {
			t.Error(err)
		} else if got := read(t, st); got != c.want {
			t.Errorf("%s served by %q, want %q", c.to, got, c.want)
		}
		s.Close()
	}
	confined := func(typ int) stacks.Socket {
		s, err := w.st.SocketFor(by("/opt/x/client", 0), unix.AF_INET, typ, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	if err := confined(unix.SOCK_STREAM).Bind(to("10.1.0.1", 0)); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("bind to another network: %v", err)
	}
	if err := confined(unix.SOCK_STREAM).SetOption(unix.SOL_SOCKET, unix.SO_BINDTODEVICE, []byte("a0\x00")); !errors.Is(err, unix.EPERM) {
		t.Errorf("interface of another network: %v", err)
	}
	if err := confined(unix.SOCK_DGRAM).(stacks.PacketSocket).SendMsg([]byte("x"), stacks.Message{Peer: to(everywhere, 1000), IfIndex: 2}); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("datagram by another network: %v", err)
	}
	// A listener of such a task is on its network and on loopback.
	l := confined(unix.SOCK_STREAM).(stacks.StreamSocket)
	if err := errors.Join(l.Bind(to("0.0.0.0", 8080)), l.Listen(4)); err != nil {
		t.Fatal(err)
	}
	for from, want := range map[stacks.Stack]error{w.b.far: nil, w.a.far: unix.ECONNREFUSED} {
		dst := "10.2.0.1"
		if from == stacks.Stack(w.a.far) {
			dst = "10.1.0.1"
		}
		if err := connect(t, tcp(t, from, unix.AF_INET), to(dst, 8080)); !errors.Is(err, want) {
			t.Errorf("to %s: %v, want %v", dst, err, want)
		}
	}
	if err := connect(t, tcp(t, w.st, unix.AF_INET), to("127.0.0.1", 8080)); err != nil {
		t.Errorf("by loopback: %v", err)
	}
}

// TestRaw: a raw socket hears both networks and sends where the destination is.
func TestRaw(t *testing.T) {
	w := newWorld(t)
	w.serve(t, 1000)
	r, err := w.st.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	raw := r.(stacks.PacketSocket)
	s := udp(t, w.st, unix.AF_INET)
	froms := map[netip.Addr]bool{}
	for _, dst := range []string{"10.1.0.2", "10.2.0.2"} {
		send(t, s, "x", to(dst, 1000))
		_, m := recv(t, raw)
		froms[m.Peer.Addr()] = true
	}
	if !froms[addr("10.1.0.2")] || !froms[addr("10.2.0.2")] {
		t.Errorf("heard %v", froms)
	}
	far, err := w.b.far.Socket(unix.AF_INET, unix.SOCK_RAW, 254)
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	mine, err := w.st.Socket(unix.AF_INET, unix.SOCK_RAW, 254)
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	send(t, mine.(stacks.PacketSocket), "protocol", to("10.2.0.2", 0))
	if _, m := recv(t, far.(stacks.PacketSocket)); m.Peer.Addr() != addr("10.2.0.1") {
		t.Errorf("from %s", m.Peer)
	}
}

// TestAlone: what means something on one network only is sent to no other, whatever
// rules or the program say.
func TestAlone(t *testing.T) {
	a := newSide(t, "a0", []string{"10.1.0.1/24", "fd01::1/64"}, []string{"10.1.0.2/24", "fd01::2/64"}, everywhere+"/32")
	b := newSide(t, "b0", []string{"10.2.0.1/24", "fd02::1/64"}, []string{"10.2.0.2/24", "fd02::2/64"}, everywhere+"/32")
	rs, err := route.Parse("exe=client=b")
	if err != nil {
		t.Fatal(err)
	}
	more, err := route.Parse(":1001=b")
	if err != nil {
		t.Fatal(err)
	}
	table, err := route.New(append(rs, more...), []route.Network{
		{Name: "a", Alone: []netip.Prefix{netip.MustParsePrefix(everywhere + "/32")}}, {Name: "b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{st: multihome.New(table, a.near, b.near), table: table, a: a, b: b}
	w.serve(t, 1000)
	w.serve(t, 1001)
	s := tcp(t, w.st, unix.AF_INET)
	if err := connect(t, s, to(everywhere, 1000)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s); got != "a" {
		t.Errorf("served by %q", got)
	}
	ruled, err := w.st.SocketFor(stacks.Caller{Exe: func() (string, error) { return "/bin/client", nil }}, unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer ruled.Close()
	bound := udp(t, w.st, unix.AF_INET)
	if err := bound.Bind(to("10.2.0.1", 0)); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"by a rule about the program": connect(t, ruled.(stacks.StreamSocket), to(everywhere, 1000)),
		"by a rule about the port":    connect(t, tcp(t, w.st, unix.AF_INET), to(everywhere, 1001)),
		"from another's address":      bound.SendMsg([]byte("x"), stacks.Message{Peer: to(everywhere, 1000), TTL: -1, TOS: -1}),
		"by another's interface":      udp(t, w.st, unix.AF_INET).SendMsg([]byte("x"), stacks.Message{Peer: to(everywhere, 1000), IfIndex: 3, TTL: -1, TOS: -1}),
	} {
		if !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("%s: %v, want ENETUNREACH", name, err)
		}
	}
}
