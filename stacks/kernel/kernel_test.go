// SPDX-License-Identifier: Apache-2.0

// Tests in namespaces that the stack makes itself: as root, and as a user who may.

package kernel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/net/nettest"
	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/kernel"
	"umrun/stacks/netstack"
	"umrun/stacks/pipe"
	"umrun/stacks/stacknet"
	"umrun/stacks/stacktest"
)

func TestMain(m *testing.M) {
	kernel.ChildMain()
	if os.Getenv(undumpableEnv) != "" {
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
			panic(err)
		}
	}
	if os.Getenv(parentEnv) != "" {
		parent()
		return
	}
	goleak.VerifyTestMain(m)
}

// need skips where this machine has no private namespaces, or no TUN devices.
func need(t testing.TB, tun bool) {
	t.Helper()
	var un *kernel.UnavailableError
	if err := kernel.Probe(tun); errors.As(err, &un) {
		t.Skipf("needs %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// newStack makes a stack that ends with the test.
func newStack(t testing.TB, links ...stacks.LinkConfig) *kernel.Stack {
	t.Helper()
	need(t, len(links) > 0)
	st, err := kernel.New(kernel.Config{Links: links})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

// Addresses of the two ends.
var (
	a4 = netip.MustParsePrefix("10.1.0.1/24")
	b4 = netip.MustParsePrefix("10.1.0.2/24")
	a6 = netip.MustParsePrefix("fd00::1/64")
	b6 = netip.MustParsePrefix("fd00::2/64")
)

func linkTo(l stacks.Link, addrs ...netip.Prefix) stacks.LinkConfig {
	return stacks.LinkConfig{Name: "net0", Link: l, Addrs: addrs}
}

// newPair joins a kernel stack and one that other makes by a pipe.
func newPair(t testing.TB, c pipe.Config, other func(testing.TB, stacks.LinkConfig) stacks.Stack) stacktest.Pair {
	t.Helper()
	need(t, true)
	a, b := pipe.New(c)
	return stacktest.Pair{
		A: newStack(t, linkTo(a, a4, a6)), B: other(t, linkTo(b, b4, b6)),
		A4: a4.Addr(), A6: a6.Addr(), B4: b4.Addr(), B6: b6.Addr(),
		Broadcast: netip.MustParseAddr("10.1.0.255"), Ping: true,
	}
}

func asKernel(t testing.TB, l stacks.LinkConfig) stacks.Stack { return newStack(t, l) }

func asNetstack(t testing.TB, l stacks.LinkConfig) stacks.Stack {
	t.Helper()
	st, err := netstack.New(netstack.Config{Links: []stacks.LinkConfig{l}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

// TestStack runs what every stack is held to: on the loopback, and between two
// namespaces over a link.
func TestStack(t *testing.T) {
	t.Run("loopback", func(t *testing.T) {
		st := newStack(t)
		v4, v6 := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()
		stacktest.Run(t, stacktest.Pair{A: st, B: st, A4: v4, B4: v4, A6: v6, B6: v6,
			Broadcast: netip.AddrFrom4([4]byte{127, 255, 255, 255}), Ping: true})
	})
	t.Run("offload", func(t *testing.T) {
		stacktest.Run(t, newPair(t, pipe.Config{MTU: 1420, Offload: true}, asKernel))
	})
}

// TestBulk moves data between a kernel stack and another over every kind of link, both
// ways at once, and compares it.
func TestBulk(t *testing.T) {
	for _, offload := range []bool{true, false} {
		for _, ether := range []bool{true, false} {
			for name, other := range map[string]func(testing.TB, stacks.LinkConfig) stacks.Stack{"kernel": asKernel, "netstack": asNetstack} {
				t.Run(fmt.Sprintf("offload=%v,ethernet=%v,%s", offload, ether, name), func(t *testing.T) {
					p := newPair(t, pipe.Config{MTU: 1420, Offload: offload, Ethernet: ether}, other)
					for _, to := range []netip.Addr{p.B4, p.B6} {
						bulk(t, p, to)
					}
				})
			}
		}
	}
}

// bulk sends a few MiB both ways over one connection.
func bulk(t *testing.T, p stacktest.Pair, to netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var l net.Listener
	eventually(t, "the addresses are known to be unique", func() (ok bool) {
		from := p.A4
		if to.Is6() {
			from = p.A6
		}
		probe, err := stacknet.Listen(p.A, netip.AddrPortFrom(from, 7))
		if err != nil {
			return false
		}
		probe.Close()
		l, err = stacknet.Listen(p.B, netip.AddrPortFrom(to, 7))
		return err == nil
	})
	defer l.Close()
	data := bytes.Repeat([]byte("0123456789abcdefg"), 200_000)
	type half struct {
		n   int64
		err error
	}
	done := make(chan half, 1)         // one result
	accepted := make(chan net.Conn, 1) // one connection
	go func() {                        // ends with its connection
		c, err := l.Accept()
		if err != nil {
			done <- half{0, err}
			return
		}
		accepted <- c
		defer c.Close()
		n, err := io.Copy(c, io.LimitReader(c, int64(len(data))))
		done <- half{n, err}
	}()
	c, err := stacknet.Dial(ctx, p.A, "tcp", netip.AddrPortFrom(to, 7))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	sent := make(chan error, 1) // one result
	go func() {                 // ends with its connection
		_, err := c.Write(data)
		sent <- err
	}()
	got := make([]byte, len(data))
	if n, err := io.ReadFull(c, got); err != nil {
		t.Logf("A: %s", tcpState(c))
		select {
		case c := <-accepted:
			t.Logf("B: %s", tcpState(c))
		default:
			t.Log("B has accepted none")
		}
		t.Fatalf("%s: after %d bytes: %v", to, n, err)
	}
	if !bytes.Equal(got, data) {
		t.Errorf("%s: what comes back is not what was sent", to)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if h := <-done; h.err != nil || h.n != int64(len(data)) {
		t.Errorf("%s: the other end has seen %d bytes, %v", to, h.n, h.err)
	}
}

// tcpState says how a connection stands, for one that has stopped.
func tcpState(c net.Conn) string {
	buf := make([]byte, unsafe.Sizeof(unix.TCPInfo{}))
	o, ok := c.(interface {
		Option(level, name int, buf []byte) (int, error)
	})
	if !ok {
		return "unknown"
	}
	if _, err := o.Option(unix.IPPROTO_TCP, unix.TCP_INFO, buf); err != nil {
		return err.Error()
	}
	var in, out [4]byte
	_, _ = o.Option(unix.SOL_SOCKET, unix.SO_RCVBUF, in[:])
	_, _ = o.Option(unix.SOL_SOCKET, unix.SO_SNDBUF, out[:])
	return fmt.Sprintf("%+v, buffers %x %x", *(*unix.TCPInfo)(unsafe.Pointer(&buf[0])), in, out)
}

// TestConn holds connections against what the standard library asks of them.
func TestConn(t *testing.T) {
	st := newStack(t)
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		l, err := stacknet.Listen(st, netip.MustParseAddrPort("127.0.0.1:0"))
		if err != nil {
			return nil, nil, nil, err
		}
		defer l.Close()
		if c1, err = stacknet.Dial(t.Context(), st, "tcp", l.Addr().(*net.TCPAddr).AddrPort()); err != nil {
			return nil, nil, nil, err
		}
		if c2, err = l.Accept(); err != nil {
			return nil, nil, nil, err
		}
		return c1, c2, func() { c1.Close(); c2.Close() }, nil
	})
}

// TestState changes the configuration and reads it back.
func TestState(t *testing.T) {
	need(t, true)
	a, b := pipe.New(pipe.Config{MTU: 1420, Offload: true})
	defer b.Close()
	st := newStack(t, stacks.LinkConfig{Name: "net0", Link: a, Addrs: []netip.Prefix{a4, a6}, Routes: []stacks.Route{
		{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.1.0.9")},
		{Dst: netip.MustParsePrefix("2001:db8::/32")},
		{Dst: netip.MustParsePrefix("192.0.2.0/24"), Type: unix.RTN_UNREACHABLE},
	}})
	s := st.State()
	if len(s.Interfaces) < 2 || !s.Interfaces[0].Loop || s.Interfaces[0].Name != "lo" || !s.Interfaces[0].Up {
		t.Fatalf("interfaces: %+v", s.Interfaces)
	}
	at := slices.IndexFunc(s.Interfaces, func(i stacks.Interface) bool { return i.Name == "net0" })
	if at < 0 {
		t.Fatalf("no net0 among %+v", s.Interfaces)
	}
	ifc := s.Interfaces[at]
	if !ifc.Up || ifc.MTU != 1420 || !slices.Contains(ifc.Addrs, a4) || !slices.Contains(ifc.Addrs, a6) || ifc.Type != stacks.LinkIP {
		t.Errorf("net0: %+v", ifc)
	}
	for _, want := range []string{"0.0.0.0/0", "10.1.0.0/24", "192.0.2.0/24", "2001:db8::/32", "fd00::/64"} {
		if !slices.ContainsFunc(s.Routes, func(r stacks.Route) bool { return r.Dst.String() == want }) {
			t.Errorf("no route to %s among %+v", want, s.Routes)
		}
	}

	next := s.Clone()
	n := &next.Interfaces[at]
	more, gone := netip.MustParsePrefix("10.2.0.1/16"), netip.MustParsePrefix("10.1.0.0/24")
	n.MTU, n.Addrs = 1300, []netip.Prefix{a6, more}
	next.Routes = slices.DeleteFunc(next.Routes, func(r stacks.Route) bool {
		return r.Dst == gone || r.Gateway.IsValid() || r.Type == unix.RTN_UNREACHABLE
	})
	next.Routes = append(next.Routes,
		stacks.Route{Dst: netip.MustParsePrefix("10.2.0.0/16"), IfIndex: n.Index, Src: more.Addr()},
		stacks.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), IfIndex: n.Index, Gateway: netip.MustParseAddr("10.2.0.9"), Metric: 7})
	next.DNS = stacks.DNS{Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}}
	if err := st.SetState(next); err != nil {
		t.Fatal(err)
	}
	now := st.State()
	if len(now.DNS.Servers) != 1 || now.DNS.Servers[0] != next.DNS.Servers[0] {
		t.Errorf("name servers afterwards: %v", now.DNS)
	}
	if ifc := now.Interfaces[at]; ifc.MTU != 1300 || slices.Contains(ifc.Addrs, a4) || !slices.Contains(ifc.Addrs, more) {
		t.Errorf("net0 afterwards: %+v", ifc)
	}
	var dsts []string
	for _, r := range now.Routes {
		dsts = append(dsts, r.Dst.String())
		if r.Gateway.IsValid() && (r.Gateway.String() != "10.2.0.9" || r.Metric != 7) {
			t.Errorf("route %+v", r)
		}
	}
	slices.Sort(dsts)
	if got, want := strings.Join(dsts, " "), "0.0.0.0/0 10.2.0.0/16 2001:db8::/32 fd00::/64"; got != want {
		t.Errorf("routes afterwards: %s, want %s", got, want)
	}

	// What the kernel refuses changes nothing.
	bad := now.Clone()
	bad.Interfaces[at].Addrs = []netip.Prefix{a6, a4}
	bad.Routes = append(bad.Routes, stacks.Route{Dst: netip.MustParsePrefix("203.0.113.0/24"), Gateway: netip.MustParseAddr("203.0.113.1"), IfIndex: n.Index})
	if err := st.SetState(bad); err == nil {
		t.Error("a gateway that no route leads to was accepted")
	}
	if again := st.State(); !slices.Contains(again.Interfaces[at].Addrs, more) || slices.Contains(again.Interfaces[at].Addrs, a4) {
		t.Errorf("after a refused change: %+v", again.Interfaces[at])
	}
}

// TestNames asks on addresses that the namespace does not have: only their port 53 is
// turned round, and not for the stack's own sockets.
func TestNames(t *testing.T) {
	need(t, true)
	a, b := pipe.New(pipe.Config{MTU: 1420, Offload: true})
	st := newStack(t, stacks.LinkConfig{Name: "net0", Link: a, Addrs: []netip.Prefix{a4, a6}, Routes: []stacks.Route{
		{Dst: netip.MustParsePrefix("0.0.0.0/0")}, {Dst: netip.MustParsePrefix("::/0")},
	}})
	far := asNetstack(t, stacks.LinkConfig{Name: "net0", Link: b, Addrs: []netip.Prefix{b4, b6, netip.MustParsePrefix("198.51.100.1/32"), netip.MustParsePrefix("2001:db8::53/128")}})
	for _, addr := range []string{"127.0.0.53:53", "[::1]:53", "198.51.100.1:53", "[2001:db8::53]:53"} {
		t.Run(addr, func(t *testing.T) {
			at := netip.MustParseAddrPort(addr)
			udp, tcp, err := st.ListenNames(at)
			if err != nil {
				t.Fatal(err)
			}
			defer udp.Close()
			defer tcp.Close()
			go echoDatagrams(udp, "here")
			go echoConns(tcp, "here")
			want := map[string]string{"udp": "here", "tcp": "here"}
			for _, network := range []string{"udp", "tcp"} {
				if got := askAs(t, st, network, at); got != want[network] {
					t.Errorf("a program asks %s over %s and hears %q, want %q", at, network, got, want[network])
				}
			}
			if at.Addr().IsLoopback() {
				return
			}
			// The far end has the address too, and answers what is not diverted.
			for _, port := range []uint16{53, 54} {
				to := netip.AddrPortFrom(at.Addr(), port)
				pc, err := stacknet.ListenPacket(far, to)
				if err != nil {
					t.Fatal(err)
				}
				go echoDatagrams(pc, "far")
				c, err := stacknet.Dial(t.Context(), st, "udp", to)
				if err != nil {
					t.Fatal(err)
				}
				if got := exchange(t, c); got != "far" {
					t.Errorf("the stack itself asks %s and hears %q, want the far end", to, got)
				}
				c.Close()
				if port == 54 {
					if got := askAs(t, st, "udp", to); got != "far" {
						t.Errorf("a program asks %s and hears %q, want the far end", to, got)
					}
				}
				pc.Close()
			}
		})
	}
}

// echoDatagrams answers every datagram until c is closed.
func echoDatagrams(c net.PacketConn, with string) {
	buf := make([]byte, 100)
	for {
		_, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteTo([]byte(with), from)
	}
}

// echoConns answers on every connection until l is closed.
func echoConns(l net.Listener, with string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = c.Read(make([]byte, 100))
		_, _ = c.Write([]byte(with))
		c.Close()
	}
}

// askAs asks by a socket as a program gets it.
func askAs(t *testing.T, st *kernel.Stack, network string, at netip.AddrPort) string {
	t.Helper()
	family, typ := unix.AF_INET, unix.SOCK_STREAM
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	if network == "udp" {
		typ = unix.SOCK_DGRAM
	}
	fd, err := st.SocketFD(family, typ, 0)
	if err != nil {
		t.Fatal(err)
	}
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(at.Port())}
	if at.Addr().Is4() {
		sa.(*unix.SockaddrInet4).Addr = at.Addr().As4()
	} else {
		sa = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 5})
	if err := unix.Connect(fd, sa); err != nil {
		return err.Error()
	}
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return exchange(t, c)
}

func exchange(t *testing.T, c net.Conn) string {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("?")); err != nil {
		return err.Error()
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil {
		return err.Error()
	}
	return string(buf[:n])
}

// TestUndelivered: what a closed socket still has to send is known until it is there.
func TestUndelivered(t *testing.T) {
	p := newPair(t, pipe.Config{MTU: 1420, Offload: true}, asNetstack)
	st := p.A.(*kernel.Stack)
	l, err := stacknet.Listen(p.B, netip.AddrPortFrom(p.B4, 7))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fd, err := st.SocketFD(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: p.B4.As4(), Port: 7}); err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = unix.SetNonblock(fd, true)
	sent := 0
	for last := time.Now(); time.Since(last) < 300*time.Millisecond; { // until the peer's window is closed for good
		n, err := unix.Write(fd, make([]byte, 64<<10))
		if n > 0 {
			sent += n
			last = time.Now()
		}
		if err != nil {
			time.Sleep(time.Millisecond)
		}
		if sent > 64<<20 {
			t.Fatal("the peer's window never closes")
		}
	}
	if bytes, n := st.Undelivered(); n != 0 {
		t.Errorf("of an open socket: %d bytes, %d connections", bytes, n)
	}
	unix.Close(fd)
	if bytes, n := st.Undelivered(); n != 1 || bytes == 0 {
		t.Errorf("of a closed one: %d bytes, %d connections", bytes, n)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if n, err := io.Copy(io.Discard, c); err != nil || n != int64(sent) {
		t.Errorf("%d of %d bytes arrived, %v", n, sent, err)
	}
	c.Close()
	eventually(t, "all delivered", func() bool { _, n := st.Undelivered(); return n == 0 })
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// TestKinds: what can be made is made, and the errno of what cannot is the kernel's.
func TestKinds(t *testing.T) {
	st := newStack(t)
	for _, tc := range []struct {
		family, typ, proto int
		want               error
	}{
		{unix.AF_INET, unix.SOCK_STREAM, 0, nil},
		{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP, nil},
		{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP, nil},
		{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP, nil},
		{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_ICMPV6, nil},
		{unix.AF_PACKET, unix.SOCK_RAW, 0, nil},
		{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, nil},
		{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_UDP, unix.EPROTONOSUPPORT},
		{unix.AF_INET, unix.SOCK_SEQPACKET, 0, unix.ESOCKTNOSUPPORT},
		{99, unix.SOCK_STREAM, 0, unix.EAFNOSUPPORT},
	} {
		for range 3 { // the first makes the pool learn
			fd, err := st.SocketFD(tc.family, tc.typ, tc.proto)
			if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
				t.Errorf("socket(%d, %d, %d): %v, want %v", tc.family, tc.typ, tc.proto, err, tc.want)
			}
			if err == nil {
				if got, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); got != tc.typ {
					t.Errorf("socket(%d, %d, %d) is of type %d", tc.family, tc.typ, tc.proto, got)
				}
				unix.Close(fd)
			}
		}
	}
	// A port below 1024, for whoever this is.
	fd, err := st.SocketFD(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: 80}); err != nil {
		t.Errorf("bind to port 80: %v", err)
	}
}

// TestBorrowed: of a namespace that was there nothing is changed, and nothing ends.
func TestBorrowed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	st := newStack(t)
	// The helper of one stack shows the namespace for the other.
	path := fmt.Sprintf("/proc/%d/ns/net", kernel.HelperPID(st))
	before := st.State()
	b, err := kernel.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b.Namespace().Inode != st.Namespace().Inode || b.Namespace().Private {
		t.Errorf("namespace %+v, want %+v, not private", b.Namespace(), st.Namespace())
	}
	if err := b.SetState(before); !errors.Is(err, unix.EPERM) {
		t.Errorf("SetState: %v, want EPERM", err)
	}
	if _, _, err := b.ListenNames(netip.MustParseAddrPort("127.0.0.1:53")); !errors.Is(err, unix.EPERM) {
		t.Errorf("ListenNames: %v, want EPERM", err)
	}
	l, err := stacknet.Listen(b, netip.MustParseAddrPort("127.0.0.1:7"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := stacknet.Dial(t.Context(), st, "tcp", netip.MustParseAddrPort("127.0.0.1:7"))
	if err != nil {
		t.Errorf("the two are not one namespace: %v", err)
	} else {
		c.Close()
	}
	l.Close()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := stacknet.Listen(st, netip.MustParseAddrPort("127.0.0.1:7")); err != nil {
		t.Errorf("after the guest has left: %v", err)
	}
	if _, err := kernel.Open("/etc/passwd", nil); !errors.Is(err, unix.EINVAL) {
		t.Errorf("Open of an ordinary file: %v", err)
	}
}

// TestHelperDies: sockets live on, new ones cannot be had, and Close returns.
func TestHelperDies(t *testing.T) {
	st := newStack(t)
	c, err := st.SocketFD(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c)
	if err := unix.Kill(kernel.HelperPID(st), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no more sockets", func() bool {
		fd, err := st.SocketFD(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP)
		if err == nil {
			unix.Close(fd)
			return false
		}
		return errors.Is(err, unix.ENETDOWN)
	})
	if err := unix.Bind(c, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Errorf("a socket from before: %v", err)
	}
}

const parentEnv = "KERNEL_TEST_PARENT"

// parent is a process that has a stack and is killed.
func parent() {
	st, err := kernel.New(kernel.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(kernel.HelperPID(st))
	select {}
}

// TestParentDies: the helper goes too.
func TestParentDies(t *testing.T) {
	need(t, false)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), parentEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	eventually(t, "the helper ends", func() bool { n, _ := unix.Poll(p, 0); return n == 1 })
}

// TestOrdinaryUser runs the other tests as a user without privileges.
func TestOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become someone else")
	}
	need(t, false)
	exe := copyOfSelf(t)
	cmd := exec.CommandContext(t.Context(), exe, "-test.run", "^(TestStack|TestKinds|TestNames|TestHelperDies|TestParentDies|TestConn)$", "-test.v")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61234, Gid: 61234}}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if !bytes.Contains(out, []byte("--- PASS: TestKinds")) {
		t.Errorf("nothing was tested:\n%s", out)
	}
	// And in a process that has a view already.
	cmd = exec.CommandContext(t.Context(), exe, "-test.run", "^(TestKinds|TestParentDies)$", "-test.v")
	cmd.Env = append(os.Environ(), undumpableEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61234, Gid: 61234}}
	cmd.Dir = "/"
	if out, err = cmd.CombinedOutput(); err != nil || bytes.Count(out, []byte("--- PASS: Test")) != 2 {
		t.Errorf("not dumpable: %v\n%s", err, out)
	}
}

// undumpableEnv has the tests run in a process that is not dumpable.
const undumpableEnv = "KERNEL_TEST_UNDUMPABLE"

// copyOfSelf is this program where everyone may run it.
func copyOfSelf(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.CreateTemp("", "kernel.test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(f.Name()) })
	_, err = f.Write(b)
	if err := errors.Join(err, f.Chmod(0o755), f.Close()); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// TestNotify: a change is told, whoever makes it.
func TestNotify(t *testing.T) {
	st := newStack(t)
	told := make(chan struct{}, 1) // one is enough
	stop := st.Notify(func() {
		select {
		case told <- struct{}{}:
		default:
		}
	})
	next := st.State().Clone()
	next.Interfaces[0].Addrs = append(next.Interfaces[0].Addrs, netip.MustParsePrefix("192.0.2.1/32"))
	if err := st.SetState(next); err != nil {
		t.Fatal(err)
	}
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing is told")
	}
	stop()
	stop()
}

// TestFresh: a raw socket has heard nothing before it was asked for.
func TestFresh(t *testing.T) {
	st := newStack(t)
	for range 3 {
		fd, err := st.SocketFD(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := unix.Recvfrom(fd, make([]byte, 100), unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("recv on a new socket: %v", err)
		}
		unix.Close(fd)
		u, err := st.SocketFD(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Sendto(u, []byte("x"), 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9}); err != nil {
			t.Error(err)
		}
		unix.Close(u)
	}
}

// TestHelperSession: no signal of a terminal is for the helper, and the scheduler takes it
// for one of us (sched(7), autogroup).
func TestHelperSession(t *testing.T) {
	need(t, false)
	s, err := kernel.New(kernel.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	pid := kernel.HelperPID(s)
	ours, err := unix.Getsid(0)
	theirs, err2 := unix.Getsid(pid)
	group, err3 := unix.Getpgid(pid)
	if err := errors.Join(err, err2, err3); err != nil || theirs != ours || group == unix.Getpgrp() {
		t.Errorf("it has the session %d and the group %d, %v; ours are %d and %d", theirs, group, err, ours, unix.Getpgrp())
	}
}
