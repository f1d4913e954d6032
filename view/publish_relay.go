// SPDX-License-Identifier: Apache-2.0

// Published ports where the network itself cannot lead into the view: a connection of
// the host's is made once more within the view's stack.

package view

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/stacknet"
)

const (
	// relayDial is for how long a port of the view may take to accept.
	relayDial = 10 * time.Second

	// A client of a UDP port has a socket in the view until it is silent for so long
	// (RFC 4787 REQ-5), and there are so many at most.
	relayIdle    = 5 * time.Minute
	relayClients = 1024

	maxDatagram = 65535
)

// A relayPublisher publishes ports of a stack. The view sees its own address as the
// client: whose packets they are its network would not know.
type relayPublisher struct {
	st  stacks.Stack
	log *slog.Logger
}

// A relay is one port of the host.
type relay struct {
	relayPublisher
	port   uint16
	ctx    context.Context // alive until Close
	cancel context.CancelFunc
	listen io.Closer
	wg     sync.WaitGroup // every goroutine

	mu    sync.Mutex
	open  map[io.Closer]struct{}      // +checklocks:mu, what Close has to close
	peers map[netip.AddrPort]net.Conn // +checklocks:mu, of UDP
}

func (p relayPublisher) publish(proto string, host netip.AddrPort, port uint16) (io.Closer, error) {
	r := &relay{relayPublisher: p, port: port, open: make(map[io.Closer]struct{}), peers: make(map[netip.AddrPort]net.Conn)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	family := "4"
	if host.Addr().Is6() {
		family = "6"
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		if family == "4" {
			return nil
		}
		var err error
		e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_V6ONLY, 1) })
		return errors.Join(e, err)
	}}
	if proto == "udp" {
		c, err := lc.ListenPacket(r.ctx, "udp"+family, host.String())
		if err != nil {
			r.cancel()
			return nil, err
		}
		r.listen = c
		r.wg.Go(func() { r.datagrams(c.(*net.UDPConn)) })
		return r, nil
	}
	ln, err := lc.Listen(r.ctx, "tcp"+family, host.String())
	if err != nil {
		r.cancel()
		return nil, err
	}
	r.listen = ln
	r.wg.Go(func() { r.accept(ln) })
	return r, nil
}

// Close takes the port back and ends its connections.
func (r *relay) Close() error {
	r.cancel()
	err := r.listen.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	r.mu.Lock()
	for c := range r.open {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
	return err
}

// keep has Close close c; false means that it has begun.
func (r *relay) keep(c io.Closer) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return false
	}
	r.open[c] = struct{}{}
	return true
}

func (r *relay) drop(c io.Closer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, c)
}

// target is where the view's program listens: at an address of the view's, of the
// family asked for if it has one, or on its loopback if it has none at all.
func (r *relay) target(v6 bool) netip.AddrPort {
	var other, loop netip.Addr
	st := r.st.State()
	for _, i := range st.Interfaces {
		for _, p := range i.Addrs {
			switch a := p.Addr(); {
			case !i.Up || a.Is6() && a.IsLinkLocalUnicast():
			case i.Loop:
				if a.Is6() == v6 {
					loop = a
				}
			case a.Is6() == v6:
				return netip.AddrPortFrom(a, r.port)
			default:
				other = a
			}
		}
	}
	if !other.IsValid() {
		other = loop
	}
	return netip.AddrPortFrom(other, r.port)
}

func (r *relay) dial(network string, v6 bool) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(r.ctx, relayDial)
	defer cancel()
	to := r.target(v6)
	if !to.Addr().IsValid() {
		return nil, unix.ENETUNREACH
	}
	return stacknet.Dial(ctx, r.st, network, to)
}

func (r *relay) accept(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptors, above all
			r.log.Warn("a published port cannot take connections", "addr", ln.Addr().String(), "err", err)
			select {
			case <-r.ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		r.wg.Go(func() { r.connection(c.(*net.TCPConn)) })
	}
}

// An ender is the view's end of a relayed connection, see package stacknet.
type ender interface {
	net.Conn
	CloseWrite() error
	Abort()
}

// connection relays a connection until both directions have ended. A reset is handed
// on.
func (r *relay) connection(host *net.TCPConn) {
	abort := func() {
		_ = host.SetLinger(0)
		_ = host.Close()
	}
	if !r.keep(host) {
		abort()
		return
	}
	defer r.drop(host)
	c, err := r.dial("tcp", host.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().Is6())
	if err != nil {
		r.log.Debug("a published port is not served", "port", r.port, "err", err)
		abort()
		return
	}
	in := c.(ender)
	if !r.keep(in) {
		in.Abort()
		abort()
		return
	}
	defer r.drop(in)
	up := make(chan bool, 1) // whether that direction has ended well
	go func() {              // waited for below
		_, err := io.Copy(in, struct{ io.Reader }{host})
		if err == nil {
			err = in.CloseWrite()
		} else {
			in.Abort() // ends the other direction too
		}
		up <- err == nil
	}()
	_, err = io.Copy(struct{ io.Writer }{host}, in)
	if err == nil {
		_ = host.CloseWrite()
	} else {
		abort()
	}
	if ok := <-up; !ok {
		abort()
	}
	in.Close()
	_ = host.Close()
}

// datagrams hands datagrams to the view: each client has a socket there.
func (r *relay) datagrams(c *net.UDPConn) {
	b := make([]byte, maxDatagram)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an answer
		}
		r.mu.Lock()
		in := r.peers[from]
		full := len(r.peers) >= relayClients
		r.mu.Unlock()
		if in == nil {
			if full {
				continue // lost, as datagrams are
			}
			if in, err = r.dial("udp", from.Addr().Unmap().Is6()); err != nil {
				r.log.Debug("a published port is not served", "port", r.port, "err", err)
				continue
			}
			if !r.keep(in) {
				in.Close()
				return
			}
			r.mu.Lock()
			r.peers[from] = in
			r.mu.Unlock()
			r.wg.Go(func() { r.answers(c, in, from) })
		}
		_ = in.SetReadDeadline(time.Now().Add(relayIdle))
		_, _ = in.Write(b[:n]) // an error of an earlier datagram; this one is lost, too
	}
}

// answers hands what the view answers to a client, until both are silent.
func (r *relay) answers(c *net.UDPConn, in net.Conn, to netip.AddrPort) {
	defer func() {
		r.mu.Lock()
		delete(r.peers, to)
		r.mu.Unlock()
		r.drop(in)
		in.Close()
	}()
	b := make([]byte, maxDatagram)
	for {
		n, err := in.Read(b)
		if errors.Is(err, unix.ECONNREFUSED) {
			continue // nobody listens yet
		}
		if err != nil {
			return
		}
		_ = in.SetReadDeadline(time.Now().Add(relayIdle))
		_, _ = c.WriteToUDPAddrPort(b[:n], to)
	}
}
