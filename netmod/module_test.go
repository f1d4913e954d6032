// SPDX-License-Identifier: Apache-2.0

// The module as a whole: nothing left behind, nothing lost, bad memory, the DNS stub.

package netmod_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"umrun/netmod"
	"umrun/stacks"
)

func init() {
	targets["churn"] = churn
	targets["parting"] = parting
	targets["bad-pointers"] = badPointers
	targets["lookup"] = lookup
	targets["families"] = families
}

// TestNothingIsLeft: sockets that a program made and left in every state are gone
// from the table when it has ended, and so are their descriptors.
func TestNothingIsLeft(t *testing.T) {
	w := newWorld(t, nil)
	before := openFDs(t)
	out, _ := w.run(t, "churn")
	if out != "done\n" {
		t.Fatalf("target says %q", out)
	}
	deadline := time.Now().Add(5 * time.Second)
	for netmod.Sockets(w.mod) > 0 || openFDs(t) > before {
		if time.Now().After(deadline) {
			t.Fatalf("%d sockets in the table, %d descriptors more than before", netmod.Sockets(w.mod), openFDs(t)-before)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func openFDs(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

func churn(w *transcript) {
	closed := closedPort(w)
	for i := range 200 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		w.must("socket", err)
		switch i % 5 {
		case 1:
			w.must("bind", unix.Bind(fd, loopback4))
		case 2:
			w.must("listen", unix.Listen(fd, 1))
		case 3:
			_ = unix.Connect(fd, closed)
		case 4:
			c, s := pair(w)
			_, err := unix.Write(c, []byte("unread"))
			w.must("write", err)
			unix.Close(s)
			_ = unix.Shutdown(c, unix.SHUT_RDWR)
			if i%2 == 0 {
				unix.Close(c)
			}
		}
		u, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		w.must("socket", err)
		if i%2 == 0 {
			unix.Close(fd)
			unix.Close(u)
		}
	}
	w.say("done")
}

// TestParting: what a program wrote before it ended at once is delivered.
func TestParting(t *testing.T) {
	w := newWorld(t, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	l, err := w.stack.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type streamListener interface {
		Listen(int) error
	}
	if err := l.Bind(netip.MustParseAddrPort("127.0.0.1:7777")); err != nil {
		t.Fatal(err)
	}
	if err := l.(streamListener).Listen(1); err != nil {
		t.Fatal(err)
	}
	got := make(chan int, 1)
	go func() {
		n, err := receiveAll(ctx, l)
		if err != nil {
			t.Error(err)
		}
		got <- n
	}()
	if _, status := w.run(t, "parting"); status.Signal() != unix.SIGTERM {
		t.Errorf("target ended with %#x", status)
	}
	if n := <-got; n != partingBytes {
		t.Errorf("%d of %d bytes arrived", n, partingBytes)
	}
}

const partingBytes = 150_000

func parting(w *transcript) {
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	w.must("socket", err)
	w.must("connect", unix.Connect(c, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 7777}))
	n, err := unix.Write(c, make([]byte, partingBytes))
	w.must("write", err)
	if n != partingBytes {
		w.say("short write %d", n)
	}
	_ = unix.Kill(unix.Getpid(), unix.SIGTERM)
	select {}
}

// TestBadPointers: each trapped call with memory that is not there gives what the
// kernel gives.
func TestBadPointers(t *testing.T) {
	compare(t, "bad-pointers", nil)
}

func badPointers(w *transcript) {
	tcp, sa := listener(w)
	udp, _ := udp(w)
	conn, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	w.must("socket", err)
	w.must("connect", unix.Connect(conn, sa))
	waiting, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	w.must("socket", err)
	w.must("connect", unix.Connect(waiting, sa))
	const bad = 8
	page, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON)
	w.must("mmap", err)
	ro := uintptr(unsafe.Pointer(&page[0]))
	call := func(what string, nr uintptr, a ...uintptr) {
		for len(a) < 6 {
			a = append(a, 0)
		}
		_, _, e := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
		w.say("%s: %s", what, unix.ErrnoName(e))
	}
	fresh, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	w.must("socket", err)
	for _, p := range []uintptr{bad, ro} {
		write := p // reading zeros from the read-only page is fine, and says AF_UNSPEC
		if p == bad {
			call("connect", unix.SYS_CONNECT, uintptr(fresh), p, 16)
			call("bind", unix.SYS_BIND, uintptr(fresh), p, 16)
			call("sendto", unix.SYS_SENDTO, uintptr(udp), p, 10, 0, uintptr(unsafe.Pointer(&page[0])), 16)
			call("sendto address", unix.SYS_SENDTO, uintptr(udp), ro, 10, 0, p, 16)
			call("sendmsg", unix.SYS_SENDMSG, uintptr(udp), p, 0)
			call("setsockopt", unix.SYS_SETSOCKOPT, uintptr(conn), unix.SOL_SOCKET, unix.SO_REUSEADDR, p, 4)
		}
		call("accept", unix.SYS_ACCEPT, uintptr(tcp), write, write)
		call("getsockname", unix.SYS_GETSOCKNAME, uintptr(conn), write, write)
		call("getsockname without length", unix.SYS_GETSOCKNAME, uintptr(conn), write, 0)
		call("getpeername", unix.SYS_GETPEERNAME, uintptr(conn), write, write)
		call("getsockopt", unix.SYS_GETSOCKOPT, uintptr(conn), unix.SOL_SOCKET, unix.SO_TYPE, write, write)
		call("recvmsg", unix.SYS_RECVMSG, uintptr(udp), p, unix.MSG_DONTWAIT)
		call("SIOCGIFCONF", unix.SYS_IOCTL, uintptr(udp), unix.SIOCGIFCONF, p)
		call("SIOCOUTQ", unix.SYS_IOCTL, uintptr(conn), unix.TIOCOUTQ, p)
	}
	call("connect with a long address", unix.SYS_CONNECT, uintptr(fresh), ro, 200)
	call("connect with a negative length", unix.SYS_CONNECT, uintptr(fresh), ro, ^uintptr(0))
	call("setsockopt with a negative length", unix.SYS_SETSOCKOPT, uintptr(conn), unix.SOL_SOCKET, unix.SO_REUSEADDR, ro, ^uintptr(0))
	call("no socket", unix.SYS_GETSOCKNAME, 0, ro, ro)
	call("no descriptor", unix.SYS_GETSOCKNAME, 9999, ro, ro)
}

// TestFamilies: what is not served does not exist.
func TestFamilies(t *testing.T) {
	got, _ := newWorld(t, nil).run(t, "families")
	for _, l := range strings.Split(strings.TrimSpace(got), "\n") {
		family, errno, _ := strings.Cut(l, ": ")
		want := "EAFNOSUPPORT"
		switch family {
		case "1", "2", "10", "16":
			want = "ok"
		case "pair 2", "pair 10", "pair 16":
			want = "ENOTSUP" // the same number as EOPNOTSUPP
		case "pair 1", "17 with high bits":
			want = "ok"
		case "17":
			want = "ESOCKTNOSUPPORT" // packet sockets are no streams
		case "pair 17":
			want = "ENOTSUP"
		}
		if errno != want {
			t.Errorf("family %s: %s, want %s", family, errno, want)
		}
	}
	if n := strings.Count(got, "\n"); n != 2*(1+46) {
		t.Errorf("%d lines", n)
	}
}

func families(w *transcript) {
	for f := range uintptr(46) {
		typ := uintptr(unix.SOCK_STREAM)
		if f == unix.AF_NETLINK {
			typ = unix.SOCK_RAW
		}
		_, _, e := unix.Syscall(unix.SYS_SOCKET, f, typ, 0)
		w.result(fmt.Sprint(f), asError(e))
		var fds [2]int32
		_, _, e = unix.Syscall6(unix.SYS_SOCKETPAIR, f, unix.SOCK_STREAM, 0, uintptr(unsafe.Pointer(&fds)), 0, 0)
		w.result(fmt.Sprint("pair ", f), asError(e))
	}
	// The kernel takes the low 32 bits, and so does the filter.
	_, _, e := unix.Syscall(unix.SYS_SOCKET, 1<<32|unix.AF_PACKET, unix.SOCK_RAW, 0)
	w.result("17 with high bits", asError(e))
	_, _, e = unix.Syscall6(unix.SYS_SOCKETPAIR, 1<<32|30, unix.SOCK_STREAM, 0, 0, 0, 0)
	w.result("pair 30 with high bits", asError(e))
}

func asError(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// answers is a Resolver that knows one name.
type answers struct{ addr [4]byte }

func (a answers) Answer(_ context.Context, query []byte, _ bool) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response, m.Additionals = true, nil
	q := m.Questions[0]
	switch {
	case q.Name.String() != "known.test.":
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: a.addr}}}
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

// TestStub: names are asked of the resolver over UDP and TCP, at addresses that
// the stack does not even reach.
func TestStub(t *testing.T) {
	w := newWorld(t, func(c *netmod.Config) {
		c.Resolver = answers{[4]byte{198, 51, 100, 9}}
		c.ResolverAddrs = []netip.Addr{netip.MustParseAddr("203.0.113.53"), netip.MustParseAddr("fe80::53%eth0"), netip.MustParseAddr("127.0.0.53")}
	})
	got, _ := w.run(t, "lookup")
	const want = `udp 203.0.113.53:53: [198.51.100.9] <nil>
udp 127.0.0.53:53: [198.51.100.9] <nil>
tcp 203.0.113.53:53: [198.51.100.9] <nil>
unknown: no such host
by unconnected sockets: 1, source right: true
elsewhere: network is unreachable
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func lookup(w *transcript) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	server, network := "", ""
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server)
	}}
	for _, s := range []string{"udp 203.0.113.53:53", "udp 127.0.0.53:53", "tcp 203.0.113.53:53"} {
		network, server, _ = strings.Cut(s, " ")
		addrs, err := r.LookupIP(ctx, "ip4", "known.test.")
		w.say("%s: %v %v", s, addrs, err)
	}
	_, err := r.LookupIP(ctx, "ip4", "unknown.test.")
	w.say("unknown: %v", err.(*net.DNSError).Err)

	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	w.must("socket", err)
	q := dnsmessage.Message{Header: dnsmessage.Header{ID: 7}, Questions: []dnsmessage.Question{{
		Name: dnsmessage.MustNewName("known.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	b, err := q.Pack()
	w.must("pack", err)
	w.must("sendto", unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: [4]byte{203, 0, 113, 53}, Port: 53}))
	buf := make([]byte, 512)
	n, from, err := unix.Recvfrom(fd, buf, 0)
	w.must("recvfrom", err)
	w.must("unpack", q.Unpack(buf[:n]))
	w.say("by unconnected sockets: %d, source right: %v", len(q.Answers), from.(*unix.SockaddrInet4).Addr == [4]byte{203, 0, 113, 53})
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{203, 0, 113, 53}, Port: 54})
	w.say("elsewhere: %v", err)
}

// receiveAll accepts one connection on l and reads it to its end.
func receiveAll(ctx context.Context, l interface{ Poll() stacks.Events }) (int, error) {
	acceptor := l.(interface {
		Accept() (stacks.StreamSocket, error)
	})
	for {
		s, err := acceptor.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			time.Sleep(time.Millisecond)
			continue
		}
		defer s.Close()
		total := 0
		for {
			n, err := s.Recv(io.Discard, 1<<20)
			total += n
			if err == io.EOF {
				return total, nil
			}
			if ctx.Err() != nil {
				return total, ctx.Err()
			}
			if err != nil {
				time.Sleep(time.Millisecond)
			}
		}
	}
}
