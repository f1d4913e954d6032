// SPDX-License-Identifier: Apache-2.0

// The way to the DNS stub: port 53 of the addresses that resolv.conf names.

package netmod

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// A stub hands queries to the Resolver and replies to the program. It stands in
// front of the stack: the stack may have no route to the addresses that it serves,
// or the resolver itself may ask one of them.
type stub struct {
	m     *Module
	addrs map[netip.Addr]bool
	slots chan struct{} // cap: queries under way at once
}

// dnsPort is the only port that the stub serves.
const dnsPort = 53

const (
	stubQueries = 256
	stubIdle    = 30 * time.Second // of a TCP connection (RFC 7766 §6.2.3 leaves it open)
)

func newStub(m *Module) *stub {
	s := &stub{m: m, addrs: make(map[netip.Addr]bool), slots: make(chan struct{}, stubQueries)}
	if m.conf.Resolver != nil {
		for _, a := range m.conf.ResolverAddrs {
			s.addrs[a.Unmap().WithZone("")] = true
		}
	}
	return s
}

// owns tells whether to is served by the stub.
func (s *stub) owns(to netip.AddrPort) bool {
	return to.Port() == dnsPort && s.addrs[to.Addr().Unmap().WithZone("")]
}

// source is the address that a query to a comes from, as a program would see it.
func (s *stub) source(a netip.Addr) netip.Addr {
	if a.IsLoopback() {
		return a
	}
	if a.Is4In6() && a.Unmap().IsLoopback() {
		return a
	}
	for _, ifc := range s.m.stack.State().Interfaces {
		for _, p := range ifc.Addrs {
			if !ifc.Loop && p.Addr().Is4() == a.Unmap().Is4() && !p.Addr().IsLinkLocalUnicast() {
				if a.Is4In6() {
					return netip.AddrFrom16(p.Addr().As16())
				}
				return p.Addr()
			}
		}
	}
	if a.Unmap().Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// ask answers one datagram of p in the background, as coming from the server that
// it was sent to. It does not keep query.
func (s *stub) ask(p *packet, query []byte, server netip.AddrPort) {
	select {
	case s.slots <- struct{}{}:
	default:
		return // dropped, as a busy server would; the program asks again
	}
	q := append([]byte(nil), query...)
	s.m.wg.Add(1)
	go func() {
		defer s.m.wg.Done()
		defer func() { <-s.slots }()
		if reply := s.m.conf.Resolver.Answer(s.m.ctx, q, false); reply != nil {
			p.put(reply, server)
		}
	}()
}

// connectStub connects a stream to the stub.
func (s *stream) connectStub(c *intercept.Call, d *held, to netip.AddrPort) intercept.Action {
	peer, err := s.m.meet.join(d.N)
	if err != nil {
		s.m.log.Error("connect placeholder to the DNS stub", "err", err)
		return intercept.Fail(unix.ENOBUFS)
	}
	local, _ := s.ep.Names()
	port := local.Port()
	if port == 0 {
		port = 53000 // never seen on a wire
	}
	s.state, s.reported, s.stubbed = connected, true, true
	s.remote, s.local = to, netip.AddrPortFrom(s.m.stub.source(to.Addr()), port)
	s.m.stub.serve(s, peer)
	if nonblocking(d.N) {
		s.reported = false
		return intercept.Fail(unix.EINPROGRESS)
	}
	return intercept.Return(0)
}

// serve answers queries on a connection until the program closes it (RFC 1035
// §4.2.2, RFC 7766). The mutex of st is held.
func (s *stub) serve(st *stream, peer int) {
	f := os.NewFile(uintptr(peer), "dns stub")
	conn, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		s.m.log.Error("serve the DNS stub", "err", err)
		return
	}
	s.m.wg.Add(2)
	done := make(chan struct{})
	cookie := st.cookie
	go func() { // ends a read when the module closes
		defer s.m.wg.Done()
		select {
		case <-s.m.ctx.Done():
		case <-done:
		}
		_ = conn.Close()
	}()
	go func() {
		defer s.m.wg.Done()
		defer func() {
			close(done)
			st.mu.Lock()
			if st.cookie == cookie { // else it was dissolved, and is another connection
				st.state = failed
			}
			st.mu.Unlock()
			s.m.live.orphan()
		}()
		var size [2]byte
		for {
			_ = conn.SetReadDeadline(time.Now().Add(stubIdle))
			if _, err := io.ReadFull(conn, size[:]); err != nil {
				return
			}
			q := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(conn, q); err != nil {
				return
			}
			reply := s.m.conf.Resolver.Answer(s.m.ctx, q, true)
			if reply == nil || len(reply) > 0xffff {
				return
			}
			out := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(reply)), uint16(len(reply)))
			if _, err := conn.Write(append(out, reply...)); err != nil {
				return
			}
		}
	}()
}
