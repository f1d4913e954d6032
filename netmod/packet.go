// SPDX-License-Identifier: Apache-2.0

// A datagram socket: UDP, ICMP echo, netlink.

package netmod

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/stacks"
)

// datagramMax is the largest datagram that a program can write.
const datagramMax = 64 << 10

// A datagram is one message with what came with it.
type datagram struct {
	data []byte
	msg  stacks.Message
}

// A packet is a datagram socket of the program.
type packet struct {
	base
	pkt       stacks.PacketSocket // the same as base.ep
	connected bool
	stubPeer  netip.AddrPort // connected to the DNS stub, not to the stack
	want      ancillary      // what is told with each datagram

	inbox    []datagram     // to be received before what the stack has
	inflight bool           // in the one-datagram window, the pair holds one
	head     stacks.Message // its source
	outWait  bool           // EPOLLOUT is on
	appHup   bool
	rdShut   bool
	wrShut   bool
	rdwrShut bool   // both: a hang-up is no close
	held     []byte // written natively, but the stack was full
	heldSet  bool
	cork     cork
	readers  []*packetWait
	writers  []*packetWait
}

// newPacket makes a datagram socket and its placeholder.
func (m *Module) newPacket(family, typ, proto int, ep stacks.PacketSocket, nonblock int) (socket, int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		_ = ep.Close()
		return nil, -1, err
	}
	s := &packet{pkt: ep}
	s.base = base{m: m, self: s, family: family, typ: typ, proto: proto, ep: ep, peer: pair[1]}
	s.job.turn = s.turn
	err = unix.SetNonblock(pair[1], true)
	if err == nil {
		err = markDatagrams(pair[1])
	}
	if err == nil && nonblock != 0 {
		err = unix.SetNonblock(pair[0], true)
	}
	if err == nil {
		err = s.register(pair[0], false)
	}
	if err != nil {
		unix.Close(pair[0])
		s.destroy()
		return nil, -1, fmt.Errorf("datagram placeholder: %w", err)
	}
	return s, pair[0], nil
}

// constSource tells whether datagrams can be pushed without keeping their source.
func (s *packet) constSource() bool {
	if n, ok := s.pkt.(*netlink); ok {
		return s.want == 0 && n.constSource()
	}
	// A raw socket's source is not its peer: the peer may have a port.
	return s.connected && s.typ != unix.SOCK_RAW && s.want == 0
}

// turn is the job of a datagram socket.
func (s *packet) turn(ready uint32) (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return false
	}
	if ready&appHup != 0 && !s.rdwrShut {
		s.appHup = true
	}
	if s.up() {
		again = true
	}
	if s.gone {
		return false
	}
	s.serveWriters()
	s.serveReaders()
	if s.down() {
		again = true
	}
	if again {
		s.job.ready.Or(nudge)
	}
	return again
}

// up sends what the program wrote natively; false when nothing is left or the
// stack is full.
func (s *packet) up() (again bool) {
	if s.heldSet {
		if !s.sendNative(s.held) {
			return false
		}
		s.held, s.heldSet = nil, false
	}
	buf := getBuffer()
	defer putBuffer(buf)
	for range 64 {
		n, ended, err := recvMarked(s.peer, *buf)
		if err == unix.EAGAIN {
			return false
		}
		if err != nil || ended { // the last close or a shutdown, and all is read
			if s.appHup {
				s.finish()
			}
			return false
		}
		if !s.sendNative((*buf)[:n]) {
			s.held, s.heldSet = append([]byte(nil), (*buf)[:n]...), true
			return false
		}
	}
	return true
}

// sendNative sends what came without an address. It returns false if the stack
// is full; any other error is kept for SO_ERROR and the next trapped call, since
// the write has long returned.
func (s *packet) sendNative(p []byte) bool {
	if s.corked(0) && s.connected {
		if err := s.addPiece(p, noMessage, s.peerMessage().Peer, 0); err != nil && err != unix.EAGAIN {
			s.soErr = intercept.Errno(err)
		}
		return true
	}
	if s.stubPeer.IsValid() {
		s.m.stub.ask(s, p, s.stubPeer)
		return true
	}
	if !s.connected && s.family != unix.AF_NETLINK {
		s.soErr = unix.EDESTADDRREQ
		return true
	}
	if err := s.pkt.SendMsg(p, noMessage); err != nil {
		e := intercept.Errno(err)
		if e == unix.EAGAIN {
			return false
		}
		s.soErr = e
	}
	return true
}

// noMessage asks for the socket's own settings.
var noMessage = stacks.Message{TTL: -1, TOS: -1}

// next takes the next datagram that has not reached the pair yet.
func (s *packet) next(p []byte, peek bool) (n, size int, m stacks.Message, err error) {
	if len(s.inbox) > 0 {
		d := s.inbox[0]
		n = copy(p, d.data)
		if !peek {
			s.inbox = s.inbox[1:]
		}
		return n, len(d.data), d.msg, nil
	}
	if s.stubPeer.IsValid() {
		return 0, 0, stacks.Message{}, unix.EAGAIN
	}
	return s.pkt.RecvMsg(p, peek)
}

// down pushes datagrams into the pair.
func (s *packet) down() (again bool) {
	if s.peer < 0 || s.appHup || len(s.readers) > 0 {
		return false
	}
	buf := getBuffer()
	defer putBuffer(buf)
	for range 64 {
		if s.inflight && !s.windowEmpty() {
			s.wantOut(true)
			return false
		}
		n, size, m, err := s.next(*buf, false)
		if err != nil {
			if e := intercept.Errno(err); e != unix.EAGAIN {
				s.soErr = e
			}
			s.wantOut(false)
			return false
		}
		n = min(n, size)
		switch err := send(s.peer, (*buf)[:n]); err {
		case nil:
		case unix.EAGAIN:
			s.inbox = append([]datagram{{append([]byte(nil), (*buf)[:n]...), m}}, s.inbox...)
			s.wantOut(true)
			return false
		default: // the program has shut its read side: drop
			continue
		}
		if !s.constSource() {
			s.inflight, s.head = true, m
			s.wantOut(true)
			return false
		}
	}
	return true
}

// windowEmpty tells whether the program has taken the datagram in the window.
func (s *packet) windowEmpty() bool {
	if n, err := unix.IoctlGetInt(s.peer, unix.TIOCOUTQ); err != nil || n == 0 {
		s.inflight = false
	}
	return !s.inflight
}

func (s *packet) wantOut(on bool) {
	if s.outWait != on && s.peer >= 0 {
		s.outWait = on
		s.m.pump.wantOut(&s.job, s.peer, on)
	}
}

// put queues a datagram that did not come from the stack.
func (s *packet) put(data []byte, from netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || len(s.inbox) >= 64 {
		return
	}
	m := noMessage
	m.Peer = from
	s.inbox = append(s.inbox, datagram{data, m})
	s.m.pump.schedule(&s.job, nudge)
}

// settle sends what the program has written natively so far, so that a trapped
// call does not overtake it.
func (s *packet) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleLocked()
}

func (s *packet) settleLocked() {
	if !s.gone && s.peer >= 0 {
		s.up()
	}
}

func (s *packet) connect(_ *intercept.Call, _ *held, to netip.AddrPort) intercept.Action {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleLocked()
	if s.m.stub.owns(to) && s.typ == unix.SOCK_DGRAM && s.proto != unix.IPPROTO_ICMP && s.proto != unix.IPPROTO_ICMPV6 {
		if s.connected && !s.stubPeer.IsValid() {
			_ = s.ep.Connect(netip.AddrPort{})
		}
		if local, _ := s.ep.Names(); local.Port() == 0 {
			any := netip.IPv4Unspecified()
			if s.family == unix.AF_INET6 {
				any = netip.IPv6Unspecified()
			}
			if err := s.ep.Bind(netip.AddrPortFrom(any, 0)); err != nil {
				return intercept.Fail(intercept.Errno(err))
			}
		}
		s.connected, s.stubPeer = true, to
		return intercept.Return(0)
	}
	if err := s.ep.Connect(to); err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	s.connected, s.stubPeer = to.IsValid(), netip.AddrPort{}
	s.m.pump.schedule(&s.job, nudge)
	return intercept.Return(0)
}

// stubLocal is the local address of a socket that is connected to the stub: what
// the route to that address would give.
func (s *packet) stubLocal(local netip.AddrPort) netip.AddrPort {
	if !local.Addr().IsUnspecified() && local.Addr().IsValid() {
		return local
	}
	return netip.AddrPortFrom(s.m.stub.source(s.stubPeer.Addr()), local.Port())
}

func (s *packet) listen(*intercept.Call, intercept.FD, int) intercept.Action {
	return intercept.Fail(unix.EOPNOTSUPP)
}

func (s *packet) accept(*intercept.Call, *held, acceptArgs) intercept.Action {
	return intercept.Fail(unix.EOPNOTSUPP)
}

func (s *packet) shutdown(c *intercept.Call, d intercept.FD, how int) intercept.Action {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleLocked()
	if !s.connected {
		return intercept.Fail(unix.ENOTCONN)
	}
	if !s.stubPeer.IsValid() {
		if err := s.ep.Shutdown(how); err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
	}
	if s.typ == unix.SOCK_RAW {
		return shutRaw(d, how)
	}
	s.rdShut = s.rdShut || how != unix.SHUT_WR
	s.wrShut = s.wrShut || how != unix.SHUT_RD
	if s.rdShut && s.wrShut && !s.rdwrShut {
		// From now on our end looks hung up, and only a scan tells of the close.
		if err := s.m.live.watch(d.N, s.cookie); err != nil {
			s.m.log.Error("watch a socket that is shut", "err", err)
		}
		s.rdwrShut = true
		s.m.live.orphan()
	}
	return intercept.Continue() // wakes readers, and makes writes fail
}

// reapHungUp ends a socket that is closed, if its hang-up has not been served yet; what
// the program wrote before is sent.
func (s *packet) reapHungUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.peer < 0 || s.rdwrShut {
		return
	}
	p := []unix.PollFd{{Fd: int32(s.peer)}}
	if n, err := unix.Poll(p, 0); err != nil || n == 0 || p[0].Revents&unix.POLLHUP == 0 {
		return
	}
	s.appHup = true
	for s.up() {
	}
}

// orphaned tells whether only a scan will find s closed.
func (s *packet) orphaned() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.gone && s.rdwrShut
}

// reap is called when the placeholder with the given cookie is closed for good.
func (s *packet) reap(cookie uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || cookie != s.cookie {
		return
	}
	for s.up() { // what was written before it was shut
	}
	if !s.gone {
		s.finish()
	}
}

// finish ends a socket that nobody holds any more.
func (s *packet) finish() {
	s.gone = true
	s.unwatch()
	s.dropPeer()
	for _, w := range append(s.readers, s.writers...) {
		w.finish(intercept.Fail(unix.EBADF))
	}
	s.readers, s.writers = nil, nil
	_ = s.ep.Close()
	s.m.leave(s)
}

func (s *packet) pending() (int, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.family == unix.AF_NETLINK {
		return 0, false
	}
	n, err := unix.IoctlGetInt(s.peer, unix.TIOCINQ)
	if err != nil {
		return 0, false
	}
	n += len(s.held)
	return n, n > 0 || s.heldSet
}

func (s *packet) destroy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return
	}
	s.finish()
}
