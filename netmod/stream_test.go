// SPDX-License-Identifier: Apache-2.0

// Streams held against the kernel.

package netmod_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestStreamTranscripts(t *testing.T) {
	for name, differ := range map[string]known{
		"epoll-before-connect": nil,
		"refused":              nil,
		"blocking-refused":     nil,
		"half-close":           nil,
		"reset":                nil,
		"reset-after-data":     nil,
		"reset-after-shutdown": nil,
		"close-unread":         nil,
		"listener-states":      nil,
		"names":                nil,
		"accept-forms":         nil,
		"stream-misuse": {
			// AF_UNIX has its own errno for a socket that was never connected,
			// and signals EPIPE where TCP does too.
			"read unconnected: ENOTCONN": "read unconnected: EINVAL",
			"send unconnected: EPIPE":    "send unconnected: ENOTCONN",
		},
		"bulk": nil,
		"again": {
			// tcp_disconnect leaves ECONNRESET; a new placeholder has none.
			"dissolved: OUT|ERR|HUP": "dissolved: OUT|HUP",
		},
		"sendfile": nil,
		"urgent":   nil,
	} {
		t.Run(name, func(t *testing.T) { compare(t, name, differ) })
	}
}

func init() {
	targets["epoll-before-connect"] = epollBeforeConnect
	targets["refused"] = refused
	targets["blocking-refused"] = blockingRefused
	targets["half-close"] = halfClose
	targets["reset"] = func(w *transcript) { reset(w, false, false) }
	targets["reset-after-data"] = func(w *transcript) { reset(w, true, false) }
	targets["reset-after-shutdown"] = func(w *transcript) { reset(w, false, true) }
	targets["close-unread"] = closeUnread
	targets["listener-states"] = listenerStates
	targets["names"] = names
	targets["accept-forms"] = acceptForms
	targets["stream-misuse"] = streamMisuse
	targets["bulk"] = bulk
	targets["again"] = again
	targets["sendfile"] = sendfile
	targets["urgent"] = urgent
}

var loopback4 = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}

// listener makes a listening socket and returns where it listens.
func listener(w *transcript) (int, *unix.SockaddrInet4) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	w.must("socket", err)
	w.must("bind", unix.Bind(fd, loopback4))
	w.must("listen", unix.Listen(fd, 16))
	sa, err := unix.Getsockname(fd)
	w.must("getsockname", err)
	return fd, sa.(*unix.SockaddrInet4)
}

// closedPort returns an address where nobody listens.
func closedPort(w *transcript) *unix.SockaddrInet4 {
	fd, sa := listener(w)
	unix.Close(fd)
	return sa
}

// pair returns two connected sockets.
func pair(w *transcript) (client, server int) {
	l, sa := listener(w)
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	w.must("socket", err)
	w.must("connect", unix.Connect(client, sa))
	server, _, err = unix.Accept(l)
	w.must("accept", err)
	unix.Close(l)
	return client, server
}

func events(fd int, timeout int) string {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLOUT | unix.POLLRDHUP | unix.POLLPRI}}
	if _, err := unix.Poll(p, timeout); err != nil {
		return err.Error()
	}
	return maskString(uint32(p[0].Revents))
}

func maskString(m uint32) string {
	var s []string
	for _, b := range []struct {
		bit  uint32
		name string
	}{{unix.POLLIN, "IN"}, {unix.POLLPRI, "PRI"}, {unix.POLLOUT, "OUT"}, {unix.POLLERR, "ERR"}, {unix.POLLHUP, "HUP"}, {unix.POLLRDHUP, "RDHUP"}} {
		if m&b.bit != 0 {
			s = append(s, b.name)
		}
	}
	if s == nil {
		return "-"
	}
	return strings.Join(s, "|")
}

// until waits until poll shows every event of want, and says what it shows.
func (w *transcript) until(what string, fd int, want uint32) {
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLOUT | unix.POLLRDHUP}}
		_, _ = unix.Poll(p, 100)
		if uint32(p[0].Revents)&want == want {
			w.say("%s: %s", what, maskString(uint32(p[0].Revents)))
			return
		}
		time.Sleep(time.Millisecond)
	}
	w.say("%s: still %s", what, events(fd, 0))
}

// urgent: what is sent with MSG_OOB, read in line, both ways.
func urgent(w *transcript) {
	a, b := pair(w)
	for _, fd := range []int{a, b} {
		w.must("SO_OOBINLINE", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1))
	}
	for _, side := range [][2]int{{a, b}, {b, a}} {
		for i, part := range []string{"ab", "!", "cd", "ABOR\r\n", "ef"} {
			n, err := unix.SendmsgN(side[0], []byte(part), nil, nil, i%2*unix.MSG_OOB)
			w.say("send %d %v", n, err)
		}
		w.must("shutdown", unix.Shutdown(side[0], unix.SHUT_WR))
		var all []byte
		for {
			p := make([]byte, 100)
			n, err := unix.Read(side[1], p)
			w.must("read", err)
			if n == 0 {
				break
			}
			all = append(all, p[:n]...)
		}
		w.say("received %q", all)
	}
}

func (w *transcript) soError(fd int) {
	e, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	w.must("SO_ERROR", err)
	w.say("SO_ERROR: %s", unix.ErrnoName(unix.Errno(e)))
}

func epollBeforeConnect(w *transcript) {
	l, sa := listener(w)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	w.must("socket", err)
	for _, et := range []uint32{0, unix.EPOLLET} {
		ep, err := unix.EpollCreate1(0)
		w.must("epoll_create", err)
		defer unix.Close(ep)
		w.must("epoll_ctl", unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | et}))
		defer func() {
			ev := make([]unix.EpollEvent, 4)
			n, err := unix.EpollWait(ep, ev, 1000)
			w.must("epoll_wait", err)
			w.say("after connect: %d %s", n, maskString(ev[0].Events))
		}()
		ev := make([]unix.EpollEvent, 4)
		n, _ := unix.EpollWait(ep, ev, 0)
		w.say("before connect: %d %s", n, maskString(ev[0].Events))
	}
	err = unix.Connect(fd, sa)
	if err != unix.EINPROGRESS {
		w.result("connect", err)
	}
	w.until("connected", fd, unix.POLLOUT)
	w.soError(fd)
	w.result("connect again", unix.Connect(fd, sa))
	w.result("connect a third time", unix.Connect(fd, sa))
	s, _, err := unix.Accept(l)
	w.must("accept", err)
	_, err = unix.Write(s, []byte("hello"))
	w.must("write", err)
	w.until("data", fd, unix.POLLIN)
	b := make([]byte, 10)
	n, err := unix.Read(fd, b)
	w.say("read %q %v", b[:n], err)
	w.say("emptied: %s", events(fd, 0))
}

func refused(w *transcript) {
	sa := closedPort(w)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	w.must("socket", err)
	w.say("fresh: %s", events(fd, 0))
	err = unix.Connect(fd, sa)
	if err != unix.EINPROGRESS && err != unix.ECONNREFUSED {
		w.result("connect", err)
	}
	// AF_UNIX wakes before it has emptied the queue: for a moment POLLOUT lacks.
	w.until("refused", fd, unix.POLLHUP|unix.POLLOUT)
	w.soError(fd)
	w.soError(fd)
	_, err = unix.Read(fd, make([]byte, 1))
	w.result("read", err)
	err = unix.Send(fd, []byte("x"), unix.MSG_NOSIGNAL)
	w.result("write", err)
}

func blockingRefused(w *transcript) {
	sa := closedPort(w)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	w.must("socket", err)
	for range 3 {
		w.result("connect", unix.Connect(fd, sa))
	}
	w.soError(fd)
	l, ok := listener(w)
	w.result("connect to a listener", unix.Connect(fd, ok))
	w.say("connected: %s", events(fd, 0))
	unix.Close(l)
}

func halfClose(w *transcript) {
	c, s := pair(w)
	_, err := unix.Write(c, []byte("question"))
	w.must("write", err)
	w.result("shutdown", unix.Shutdown(c, unix.SHUT_WR))
	w.until("server", s, unix.POLLRDHUP)
	b := make([]byte, 100)
	n, err := unix.Read(s, b)
	w.say("server reads %q %v", b[:n], err)
	n, err = unix.Read(s, b)
	w.say("server reads %d %v", n, err)
	_, err = unix.Write(s, []byte("answer"))
	w.result("server writes", err)
	w.until("client", c, unix.POLLIN)
	n, err = unix.Read(c, b)
	w.say("client reads %q %v", b[:n], err)
	unix.Close(s)
	w.until("client", c, unix.POLLHUP)
	n, err = unix.Read(c, b)
	w.say("client reads %d %v", n, err)
	err = unix.Send(c, []byte("x"), unix.MSG_NOSIGNAL)
	w.result("client writes", err)
}

// reset: the peer's abort must never look like a clean end.
func reset(w *transcript, data, shutdown bool) {
	c, s := pair(w)
	_, err := unix.Write(c, []byte("x"))
	w.must("write", err)
	w.until("server", s, unix.POLLIN)
	_, err = unix.Read(s, make([]byte, 1))
	w.must("read", err)
	if shutdown {
		w.must("shutdown", unix.Shutdown(c, unix.SHUT_WR))
		w.until("server", s, unix.POLLRDHUP)
	}
	if data {
		_, err := unix.Write(s, []byte("last words"))
		w.must("write", err)
		w.until("client", c, unix.POLLIN)
	}
	w.must("SO_LINGER", unix.SetsockoptLinger(s, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
	unix.Close(s)
	w.until("client", c, unix.POLLHUP|unix.POLLERR)
	b := make([]byte, 100)
	for range 3 {
		n, err := unix.Read(c, b)
		w.say("client reads %q %v", b[:max(n, 0)], err)
	}
	w.soError(c)
}

func closeUnread(w *transcript) {
	c, s := pair(w)
	_, err := unix.Write(c, []byte("not read"))
	w.must("write", err)
	w.until("server", s, unix.POLLIN)
	unix.Close(s)
	w.until("client", c, unix.POLLERR)
	_, err = unix.Read(c, make([]byte, 1))
	w.result("client reads", err)
}

func listenerStates(w *transcript) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	w.must("socket", err)
	_, _, err = unix.Accept(fd)
	w.result("accept on a fresh socket", err)
	w.must("bind", unix.Bind(fd, loopback4))
	w.result("bind twice", unix.Bind(fd, loopback4))
	w.say("bound: %s", events(fd, 0))
	w.result("listen", unix.Listen(fd, 1))
	w.result("listen again", unix.Listen(fd, 8))
	w.say("listening: %s", events(fd, 0))
	_, _, err = unix.Accept(fd)
	w.result("accept of nothing", err)
	v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	w.say("SO_ACCEPTCONN %d %v", v, err)
	sa, _ := unix.Getsockname(fd)
	w.result("connect of a listener", unix.Connect(fd, sa))
	other, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	w.must("socket", err)
	w.result("bind to the same port", unix.Bind(other, sa))
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	w.must("socket", err)
	w.must("connect", unix.Connect(c, sa))
	w.until("listener", fd, unix.POLLIN)
	_, err = unix.Getpeername(fd)
	w.result("getpeername of a listener", err)
	s, from, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	w.result("accept", err)
	cn, _ := unix.Getsockname(c)
	w.say("accepted the right peer: %v", fmt.Sprint(from) == fmt.Sprint(cn))
	fl, _ := unix.FcntlInt(uintptr(s), unix.F_GETFL, 0)
	fd2, _ := unix.FcntlInt(uintptr(s), unix.F_GETFD, 0)
	w.say("O_NONBLOCK %v, FD_CLOEXEC %v", fl&unix.O_NONBLOCK != 0, fd2&unix.FD_CLOEXEC != 0)
	w.say("listener: %s", events(fd, 0))
	unix.Close(fd)
	w.say("accepted after the listener is closed: %s", events(s, 0))
}

func names(w *transcript) {
	c, s := pair(w)
	get := func(f func(int) (unix.Sockaddr, error), fd int) string {
		sa, err := f(fd)
		if err != nil {
			return err.Error()
		}
		a := sa.(*unix.SockaddrInet4)
		return fmt.Sprint(a.Addr, a.Port)
	}
	w.say("client's peer is the server: %v", get(unix.Getpeername, c) == get(unix.Getsockname, s))
	w.say("server's peer is the client: %v", get(unix.Getpeername, s) == get(unix.Getsockname, c))
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	w.must("socket", err)
	w.say("fresh: %s", get(unix.Getsockname, fd))
	w.say("fresh peer: %s", get(unix.Getpeername, fd))
	for _, o := range []int{unix.SO_TYPE, unix.SO_DOMAIN, unix.SO_PROTOCOL, unix.SO_ACCEPTCONN, unix.SO_ERROR, unix.SO_KEEPALIVE, unix.SO_REUSEADDR} {
		v, err := unix.GetsockoptInt(c, unix.SOL_SOCKET, o)
		w.say("option %d: %d %v", o, v, err)
	}
}

func acceptForms(w *transcript) {
	l, sa := listener(w)
	for i := range 5 {
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		w.must("socket", err)
		w.must("connect", unix.Connect(c, sa))
		_, err = unix.Write(c, []byte{byte(i)})
		w.must("write", err)
	}
	// A client is connected before its last ACK has reached the listener, and the
	// stack handles connections side by side: of some that come within microseconds
	// one may overtake another. None is lost, and none comes twice.
	var got []int
	for range 5 {
		s, _, err := unix.Accept(l)
		w.must("accept", err)
		b := make([]byte, 1)
		_, err = io.ReadFull(fdReader(s), b)
		w.must("read", err)
		got = append(got, int(b[0]))
	}
	slices.Sort(got)
	w.say("each once: %v", got)
	done := make(chan int)
	go func() {
		s, _, err := unix.Accept(l)
		w.result("accept that waits", err)
		done <- s
	}()
	time.Sleep(50 * time.Millisecond)
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	w.must("socket", err)
	w.must("connect", unix.Connect(c, sa))
	<-done
	// A full descriptor table loses no connection.
	var lim unix.Rlimit
	w.must("getrlimit", unix.Getrlimit(unix.RLIMIT_NOFILE, &lim))
	c, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	w.must("socket", err)
	w.must("connect", unix.Connect(c, sa))
	w.until("listener", l, unix.POLLIN)
	low := lim
	low.Cur = uint64(c + 1)
	w.must("setrlimit", unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
	_, _, err = unix.Accept(l)
	w.result("accept with a full table", err)
	w.must("setrlimit", unix.Setrlimit(unix.RLIMIT_NOFILE, &lim))
	w.until("listener", l, unix.POLLIN)
	s, _, err := unix.Accept(l)
	w.result("accept with room", err)
	_, err = unix.Write(c, []byte("abc"))
	w.must("write", err)
	b := make([]byte, 3)
	_, err = io.ReadFull(fdReader(s), b)
	w.say("read %q %v", b, err)
}

func streamMisuse(w *transcript) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	w.must("socket", err)
	_, err = unix.Read(fd, make([]byte, 1))
	w.result("read unconnected", err)
	w.result("send unconnected", unix.Send(fd, []byte("x"), unix.MSG_NOSIGNAL))
	w.result("shutdown unconnected", unix.Shutdown(fd, unix.SHUT_RDWR))
	w.result("bind elsewhere", unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{203, 0, 113, 1}}))
	w.result("bind of the other family", unix.Bind(fd, &unix.SockaddrInet6{}))
	w.result("connect to the other family", unix.Connect(fd, &unix.SockaddrInet6{Port: 1}))
	w.result("unknown option", unix.SetsockoptInt(fd, unix.IPPROTO_TCP, 12345, 1))
	w.result("wrong shutdown", unix.Shutdown(fd, 7))
}

func bulk(w *transcript) {
	l, sa := listener(w)
	data := make([]byte, 8<<20)
	rand.New(rand.NewSource(1)).Read(data)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s, _, err := unix.Accept(l)
		w.must("accept", err)
		h := sha256.New()
		_, err = io.Copy(h, fdReader(s))
		w.must("copy", err)
		_, err = unix.Write(s, h.Sum(nil))
		w.must("write", err)
		unix.Close(s)
	}()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", sa.Port))
	w.must("dial", err)
	for n, i := 1, 0; i < len(data); n = n*3%100003 + 1 { // writes of all sizes
		m := min(n, len(data)-i)
		_, err := conn.Write(data[i : i+m])
		w.must("write", err)
		i += m
	}
	w.must("shutdown", conn.(*net.TCPConn).CloseWrite())
	sum, err := io.ReadAll(conn)
	w.must("read", err)
	want := sha256.Sum256(data)
	w.say("same: %v", string(sum) == string(want[:]))
	<-done
}

// fdReader reads a descriptor until its end.
type fdReader int

func (r fdReader) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(r), p)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return 0, io.EOF
		}
		return n, nil
	}
}

// sendfile fills the placeholder without a write of the program's own in between.
func sendfile(w *transcript) {
	c, s := pair(w)
	f, err := os.Open("/proc/self/exe")
	w.must("open", err)
	st, err := f.Stat()
	w.must("stat", err)
	const want = 3 << 20
	if st.Size() < want {
		w.say("too short")
	}
	go func() {
		for n := 0; n < want; {
			m, err := unix.Sendfile(c, int(f.Fd()), nil, want-n)
			w.must("sendfile", err)
			n += m
		}
		unix.Close(c)
	}()
	h := sha256.New()
	n, err := io.Copy(h, fdReader(s))
	w.say("%d bytes, %x, %v", n, h.Sum(nil), err)
}

// again connects one socket several times: after a failure that poll has told, and
// after it was dissolved.
func again(w *transcript) {
	closed := closedPort(w)
	l, sa := listener(w)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	w.must("socket", err)
	w.must("SO_KEEPALIVE", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1))
	for i := range 2 {
		if i > 0 {
			w.result("connect after a failure", unix.Connect(fd, closed))
		}
		err = unix.Connect(fd, closed)
		if err != unix.EINPROGRESS && err != unix.ECONNREFUSED {
			w.result("connect", err)
		}
		w.until("refused", fd, unix.POLLHUP|unix.POLLOUT)
		w.soError(fd)
	}
	for range 2 {
		if err = unix.Connect(fd, sa); err == unix.ECONNABORTED {
			w.say("told once more")
			err = unix.Connect(fd, sa)
		}
		if err != unix.EINPROGRESS {
			w.result("connect", err)
		}
		w.until("connected", fd, unix.POLLOUT)
		w.soError(fd)
		s, _, err := unix.Accept(l)
		w.must("accept", err)
		_, err = unix.Write(fd, []byte("hello"))
		w.must("write", err)
		b := make([]byte, 10)
		n, err := unix.Read(s, b)
		w.say("server reads %q %v", b[:n], err)
		v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE)
		w.say("SO_KEEPALIVE %d %v", v, err)
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		w.say("close-on-exec %d %v", flags, err)
		w.result("dissolve", unspec(fd))
		w.until("server", s, unix.POLLHUP)
		_, err = unix.Getpeername(fd)
		w.result("getpeername", err)
		w.say("dissolved: %s", events(fd, 0))
		unix.Close(s)
	}
}
