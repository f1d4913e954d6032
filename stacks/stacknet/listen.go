// SPDX-License-Identifier: Apache-2.0

// Listeners, and packet connections without a peer.

package stacknet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// backlog is what Go's own listeners ask for.
const backlog = 4096 // net.core.somaxconn

// Listen announces a TCP address of s.
func Listen(s stacks.Stack, addr netip.AddrPort) (net.Listener, error) {
	sock, err := s.Socket(familyOf(addr.Addr()), unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	stream := sock.(stacks.StreamSocket) // the contract of SOCK_STREAM
	if err := errors.Join(stream.Bind(addr), stream.Listen(backlog)); err != nil {
		stream.Close()
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	l := &listener{sock: stream, in: make(chan struct{}, 1), closed: make(chan struct{})}
	l.stop = stream.Watch(unix.POLLIN, func(stacks.Events) { wake(l.in) })
	return l, nil
}

type listener struct {
	sock   stacks.StreamSocket
	in     chan struct{} // capacity 1: something may be there to accept
	stop   func()
	once   sync.Once
	closed chan struct{}
}

// Accept waits for a connection.
func (l *listener) Accept() (net.Conn, error) {
	for {
		sock, err := l.sock.Accept()
		if err == nil {
			wake(l.in) // for another caller: the edge may have stood for several
			return newConn(sock), nil
		}
		select {
		case <-l.closed:
			return nil, net.ErrClosed
		default:
		}
		if !errors.Is(err, unix.EAGAIN) {
			return nil, err
		}
		select {
		case <-l.in:
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
}

// Close ends the listener; a blocked Accept returns net.ErrClosed.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.stop()
		l.sock.Close()
	})
	return nil
}

func (l *listener) Addr() net.Addr {
	a, _ := l.sock.Names()
	return net.TCPAddrFromAddrPort(a)
}

// ListenPacket opens a UDP socket on an address of s.
func ListenPacket(s stacks.Stack, addr netip.AddrPort) (net.PacketConn, error) {
	sock, err := s.Socket(familyOf(addr.Addr()), unix.SOCK_DGRAM, unix.IPPROTO_UDP)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	c := newConn(sock)
	if err := sock.Bind(addr); err != nil {
		c.Close()
		return nil, fmt.Errorf("bind %s: %w", addr, err)
	}
	return &packetConn{conn: c, sock: sock.(stacks.PacketSocket)}, nil
}

type packetConn struct {
	*conn
	sock stacks.PacketSocket
}

// ReadFrom waits for a datagram, which is cut to p.
func (c *packetConn) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, _, m, err := c.sock.RecvMsg(p, false)
		if err == nil {
			return n, net.UDPAddrFromAddrPort(m.Peer), nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			return 0, nil, c.ending(err)
		}
		if err := c.wait(c.in, &c.read); err != nil {
			return 0, nil, err
		}
	}
}

// WriteTo sends a datagram to a *net.UDPAddr.
func (c *packetConn) WriteTo(p []byte, to net.Addr) (int, error) {
	a, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, net.InvalidAddrError("not a UDP address")
	}
	for {
		err := c.sock.SendMsg(p, stacks.Message{Peer: a.AddrPort(), TTL: -1, TOS: -1})
		if err == nil {
			return len(p), nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			return 0, c.ending(err)
		}
		if err := c.wait(c.out, &c.write); err != nil {
			return 0, err
		}
	}
}
