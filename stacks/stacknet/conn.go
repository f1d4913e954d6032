// SPDX-License-Identifier: Apache-2.0

// Connections.

package stacknet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// watched is every event that a connection waits for.
const watched = stacks.Events(unix.POLLIN | unix.POLLOUT | unix.POLLERR | unix.POLLHUP | unix.POLLRDHUP)

// Dial connects to addr through s; network is "tcp" or "udp". Errors wrap a
// unix.Errno or that of ctx.
func Dial(ctx context.Context, s stacks.Stack, network string, addr netip.AddrPort) (net.Conn, error) {
	switch network {
	case "tcp":
		return DialSocket(ctx, s, unix.SOCK_STREAM, unix.IPPROTO_TCP, addr)
	case "udp":
		return DialSocket(ctx, s, unix.SOCK_DGRAM, unix.IPPROTO_UDP, addr)
	}
	return nil, net.UnknownNetworkError(network)
}

// DialSocket connects a socket of any type and protocol that the stack has, such
// as SOCK_DGRAM and IPPROTO_ICMP.
func DialSocket(ctx context.Context, s stacks.Stack, typ, proto int, addr netip.AddrPort) (net.Conn, error) {
	sock, err := s.Socket(familyOf(addr.Addr()), typ, proto)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	c := newConn(sock)
	if err := c.connect(ctx, addr); err != nil {
		c.Close()
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return c, nil
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func newConn(sock stacks.Socket) *conn {
	c := &conn{
		sock:   sock,
		in:     make(chan struct{}, 1), // one wake-up is as good as many: the call is tried again
		out:    make(chan struct{}, 1),
		closed: make(chan struct{}),
	}
	c.read.init()
	c.write.init()
	c.stop = sock.Watch(watched, func(stacks.Events) {
		wake(c.in)
		wake(c.out)
	})
	return c
}

func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// A conn is a net.Conn over a socket of a stack.
type conn struct {
	sock    stacks.Socket
	stop    func()
	in, out chan struct{} // something may have become readable, writable
	once    sync.Once
	closed  chan struct{}

	read, write deadline
}

func (c *conn) connect(ctx context.Context, addr netip.AddrPort) error {
	for {
		switch err := c.sock.Connect(addr); {
		case err == nil || errors.Is(err, unix.EISCONN):
			return nil
		case !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.EALREADY):
			return err
		}
		select {
		case <-c.out:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Read reads bytes, or one datagram, which is cut to p.
func (c *conn) Read(p []byte) (n int, err error) {
	for {
		if err := c.read.passed(); err != nil {
			return 0, err
		}
		switch s := c.sock.(type) {
		case stacks.StreamSocket:
			w := sink{p: p}
			n, err = s.Recv(&w, len(p))
		case stacks.PacketSocket:
			n, _, _, err = s.RecvMsg(p, false)
		}
		if n > 0 || !errors.Is(err, unix.EAGAIN) || len(p) == 0 {
			return n, c.ending(err)
		}
		if err := c.wait(c.in, &c.read); err != nil {
			return 0, err
		}
	}
}

// Write writes all of p, or one datagram.
func (c *conn) Write(p []byte) (int, error) {
	done := 0
	for {
		var n int
		err := c.write.passed()
		if err != nil {
			return done, err
		}
		switch s := c.sock.(type) {
		case stacks.StreamSocket:
			n, err = s.Send(bytes.NewReader(p[done:]))
		case stacks.PacketSocket:
			if err = s.SendMsg(p, stacks.Message{TTL: -1, TOS: -1}); err == nil {
				return len(p), nil
			}
		}
		done += n
		switch {
		case err == nil && done == len(p):
			return done, nil
		case err != nil && !errors.Is(err, unix.EAGAIN):
			return done, c.ending(err)
		case err == nil && n > 0:
			continue
		}
		if err := c.wait(c.out, &c.write); err != nil {
			return done, err
		}
	}
}

// ending returns net.ErrClosed instead of what a socket says that was closed.
func (c *conn) ending(err error) error {
	select {
	case <-c.closed:
		return net.ErrClosed
	default:
		return err
	}
}

// wait waits for a hint on ready.
func (c *conn) wait(ready chan struct{}, d *deadline) error {
	select {
	case <-c.closed:
		return net.ErrClosed
	case <-d.over():
		return os.ErrDeadlineExceeded
	case <-ready:
		return nil
	}
}

// Close closes the socket; blocked calls return net.ErrClosed.
func (c *conn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.stop()
		c.sock.Close()
		c.read.set(time.Time{})
		c.write.set(time.Time{})
	})
	return nil
}

// Option is getsockopt(2) on the socket; a caller finds it by its own interface.
func (c *conn) Option(level, name int, buf []byte) (int, error) {
	return c.sock.Option(level, name, buf)
}

// CloseWrite ends the sending direction of a TCP connection.
func (c *conn) CloseWrite() error { return c.sock.Shutdown(unix.SHUT_WR) }

// Abort closes a TCP connection with a reset; anything else is closed.
func (c *conn) Abort() {
	if s, ok := c.sock.(stacks.StreamSocket); ok {
		s.Abort()
	}
	c.Close()
}

func (c *conn) LocalAddr() net.Addr {
	a, _ := c.sock.Names()
	return c.netAddr(a)
}

func (c *conn) RemoteAddr() net.Addr {
	_, a := c.sock.Names()
	return c.netAddr(a)
}

func (c *conn) netAddr(a netip.AddrPort) net.Addr {
	if _, ok := c.sock.(stacks.StreamSocket); ok {
		return net.TCPAddrFromAddrPort(a)
	}
	return net.UDPAddrFromAddrPort(a)
}

func (c *conn) SetDeadline(t time.Time) error {
	c.read.set(t)
	c.write.set(t)
	return nil
}
func (c *conn) SetReadDeadline(t time.Time) error  { c.read.set(t); return nil }
func (c *conn) SetWriteDeadline(t time.Time) error { c.write.set(t); return nil }

// expired stands for a timer that has fired: Stop returns false.
var expired = func() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}()

// A deadline is a point in time that can be moved while others wait for it.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	ch    chan struct{} // closed when the time has come
}

func (d *deadline) init() { d.ch = make(chan struct{}) }

func (d *deadline) over() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ch
}

// passed returns os.ErrDeadlineExceeded once the time has come.
func (d *deadline) passed() error {
	select {
	case <-d.over():
		return os.ErrDeadlineExceeded
	default:
		return nil
	}
}

// set moves the deadline; the zero Time is never. Who waits already is not told of
// a later time, and waits for the earlier one only if that has come.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		d.ch = make(chan struct{}) // the old one is closed, or about to be
	}
	d.timer = nil
	if t.IsZero() {
		return
	}
	ch := d.ch
	if left := time.Until(t); left > 0 {
		d.timer = time.AfterFunc(left, func() { close(ch) })
		return
	}
	close(ch) // at once, not when a timer gets its turn
	d.timer = expired
}

// sink is an io.Writer into a slice.
type sink struct {
	p []byte
	n int
}

func (s *sink) Write(b []byte) (int, error) {
	n := copy(s.p[s.n:], b)
	s.n += n
	if n < len(b) {
		return n, io.ErrShortWrite
	}
	return n, nil
}
