// SPDX-License-Identifier: Apache-2.0

// Serving queries on sockets, where programs have the kernel's own and nobody can
// answer in its place.

package dns

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"
)

// Bounds of a server.
const (
	serveQueries = 256              // datagrams under way at once; more are dropped, and asked again
	serveConns   = 64               // TCP connections at once; more wait to be accepted
	serveIdle    = 30 * time.Second // of a TCP connection (RFC 7766 §6.2.3 leaves it open)
	queryMax     = 4096             // bytes of a datagram that is no nonsense
)

// A Server answers the queries that come to its sockets. It has a goroutine for each
// socket, each connection and each query under way.
type Server struct {
	answer Resolver
	ctx    context.Context // alive until Close
	cancel context.CancelFunc
	slots  chan struct{} // cap: serveQueries
	wg     sync.WaitGroup

	mu     sync.Mutex
	open   map[io.Closer]struct{}
	closed bool
}

// NewServer makes a server without sockets. Close ends it.
func NewServer(a Resolver) *Server {
	s := &Server{answer: a, slots: make(chan struct{}, serveQueries), open: make(map[io.Closer]struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Serve answers on a UDP and a TCP socket, which are the server's from then on.
func (s *Server) Serve(udp net.PacketConn, tcp net.Listener) {
	if s.hold(udp) {
		s.wg.Go(func() { s.datagrams(udp) })
	}
	if s.hold(tcp) {
		s.wg.Go(func() { s.connections(tcp) })
	}
}

// hold has Close close c; false if it has been called already.
func (s *Server) hold(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return false
	}
	s.open[c] = struct{}{}
	return true
}

// release closes what hold has taken.
func (s *Server) release(c io.Closer) {
	s.mu.Lock()
	delete(s.open, c)
	s.mu.Unlock()
	_ = c.Close()
}

func (s *Server) datagrams(c net.PacketConn) {
	defer s.release(c)
	buf := make([]byte, queryMax)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			if s.ctx.Err() != nil {
				return
			}
			continue // what ICMP says of an answer that nobody waited for
		}
		select {
		case s.slots <- struct{}{}:
		default:
			continue
		}
		q := append([]byte(nil), buf[:n]...)
		s.wg.Go(func() {
			defer func() { <-s.slots }()
			if reply := s.answer.Answer(s.ctx, q, false); reply != nil {
				_, _ = c.WriteTo(reply, from) // who gets none asks again
			}
		})
	}
}

func (s *Server) connections(l net.Listener) {
	defer s.release(l)
	room := make(chan struct{}, serveConns)
	for {
		select {
		case room <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
		c, err := l.Accept()
		if err != nil {
			<-room
			if s.ctx.Err() != nil {
				return
			}
			// A connection that was reset, or no descriptor is free for the moment.
			select {
			case <-time.After(10 * time.Millisecond):
			case <-s.ctx.Done():
			}
			continue
		}
		if !s.hold(c) {
			return
		}
		s.wg.Go(func() {
			defer func() { <-room }()
			defer s.release(c)
			s.converse(c)
		})
	}
}

// converse answers on a connection until its peer closes it (RFC 1035 §4.2.2).
func (s *Server) converse(c net.Conn) {
	var size [2]byte
	for {
		_ = c.SetDeadline(time.Now().Add(serveIdle))
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		q := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, q); err != nil {
			return
		}
		reply := s.answer.Answer(s.ctx, q, true)
		if reply == nil || len(reply) > 0xffff {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(reply)), uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

// Close closes the sockets and waits until nobody answers any more. Twice is fine.
func (s *Server) Close() error {
	s.cancel()
	s.mu.Lock()
	s.closed = true
	for c := range s.open {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}
