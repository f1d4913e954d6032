// SPDX-License-Identifier: Apache-2.0

// A datagram socket: UDP, ICMP echo, netlink.

package netmod

import (
	"fmt"
	"io"
	"net/netip"
	"sync/atomic"
	"time"

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
	held     [][]byte // written natively, but the stack was full
	cork     cork
	readers  []*packetWait
	writers  []*packetWait

	// Of the placeholder, see pair.go.
	end      unix.Sockaddr // name of the program's end; nil: it cannot show errors
	wd       int           // of the watch for its close
	closed   atomic.Bool   // it was closed
	lost     bool          // the module's end is not connected to it any more
	dealt    int           // datagrams in the queue of the module's end that were sent
	leaveMax int           // bytes of the largest one that may stay there
	cut      bool          // the last one was not read to its end
	quiet    bool          // soErr is what a native write would have told itself
	errors   []stacks.Report
	unshown  bool      // something of soErr and errors may not stand in the placeholder
	wrote    time.Time // when the program last did something with the socket, if that is a prober's
	hushed   bool      // showErrors is called again when it has been quiet for a while
	stamps   stamps
}

// newPacket makes a datagram socket and its placeholder.
func (m *Module) newPacket(family, typ, proto int, ep stacks.PacketSocket, nonblock int) (socket, int, error) {
	s := &packet{pkt: ep}
	s.base = base{m: m, self: s, family: family, typ: typ, proto: proto, uid: me, ep: ep, peer: -1}
	s.job.turn = s.turn
	fd, err := s.pair(nonblock)
	if err == nil {
		if err = s.register(fd, false); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		s.destroy()
		return nil, -1, fmt.Errorf("datagram placeholder: %w", err)
	}
	return s, fd, nil
}

// constSource tells whether datagrams can be pushed without keeping their source.
func (s *packet) constSource() bool {
	if n, ok := s.pkt.(*netlink); ok {
		return s.want == 0 && n.constSource()
	}
	if s.family == unix.AF_PACKET {
		return false
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
	if ready&appHup != 0 {
		s.appHup = true
	}
	s.hear()
	if s.up() {
		again = true
	}
	if s.gone {
		return false
	}
	if a, ok := s.pkt.(*afpacket); ok {
		a.tell(s.peer)
	}
	s.serveWriters()
	s.serveReaders()
	if s.down() {
		again = true
	}
	s.showErrors()
	if again {
		s.job.ready.Or(nudge)
	}
	return again
}

// up sends what the program wrote natively; false when nothing is left or the
// stack is full.
func (s *packet) up() (again bool) {
	for len(s.held) > 0 {
		if !s.sendNative(s.held[0]) {
			return false
		}
		s.held = s.held[1:]
	}
	if s.end != nil {
		again = s.upPair()
	} else {
		again = s.upStream()
	}
	if !again && s.appHup && len(s.held) == 0 { // the last close, and all is read
		s.finish()
	}
	return again
}

// upStream is up on a placeholder that hangs up by itself.
func (s *packet) upStream() (again bool) {
	buf := getBuffer()
	defer putBuffer(buf)
	for range 64 {
		n, ended, err := recvMarked(s.peer, *buf)
		if err != nil || ended {
			return false
		}
		if !s.sendNative((*buf)[:n]) {
			s.held = append(s.held, append([]byte(nil), (*buf)[:n]...))
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
			s.soErr, s.quiet, s.unshown = intercept.Errno(err), err == unix.EMSGSIZE, true
		}
		return true
	}
	if s.stubPeer.IsValid() {
		s.m.stub.ask(s, p, s.stubPeer)
		return true
	}
	if !s.connected && s.family != unix.AF_NETLINK && s.family != unix.AF_PACKET {
		s.soErr, s.quiet, s.unshown = unix.EDESTADDRREQ, true, true
		return true
	}
	err := s.pkt.SendMsg(p, noMessage)
	if err != nil && s.probes() {
		// What an earlier probe met is in the error queue; this one was taken.
		if s.hear(); len(s.errors) > 0 {
			err = s.pkt.SendMsg(p, noMessage)
		}
	}
	if err != nil {
		e := intercept.Errno(err)
		if e == unix.EAGAIN {
			return false
		}
		s.soErr, s.quiet, s.unshown = e, e == unix.EMSGSIZE || s.family == unix.AF_PACKET, true
		return true
	}
	if s.stamps.flags != 0 {
		s.stamps.sending, s.stamps.own = s.stamps.flags, false
		s.stampSent(p, s.peerMessage().Peer)
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
	if s.want&wantGRO == 0 {
		return s.pkt.RecvMsg(p, peek)
	}
	if n, size, m, err = s.pkt.RecvMsg(p, false); err != nil {
		return n, size, m, err
	}
	s.gather(p[:n], m)
	return s.next(p, peek)
}

// down pushes datagrams into the pair.
func (s *packet) down() (again bool) {
	if s.peer < 0 || s.appHup || s.lost || len(s.readers) > 0 {
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
			if e := intercept.Errno(err); e != unix.EAGAIN && err != io.EOF {
				s.soErr, s.quiet, s.unshown = e, false, true
			}
			s.wantOut(false)
			return false
		}
		n = min(n, size)
		switch err := send(s.peer, (*buf)[:n]); err {
		case nil:
			s.stamps.came = true
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
	if s.family == unix.AF_PACKET {
		return intercept.Fail(unix.EOPNOTSUPP)
	}
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
	return intercept.Continue() // wakes readers, and makes writes fail
}

// reapHungUp ends a socket that is closed, if that has not been served yet; what
// the program wrote before is sent. closes was read.
func (s *packet) reapHungUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.peer < 0 || !s.hungUp() {
		return
	}
	s.appHup = true
	for s.up() {
	}
}

func (s *packet) hungUp() bool {
	if s.end != nil {
		return s.closed.Load()
	}
	p := []unix.PollFd{{Fd: int32(s.peer)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&unix.POLLHUP != 0
}

// finish ends a socket that nobody holds any more.
func (s *packet) finish() {
	s.gone = true
	s.withdraw()
	s.unwatch()
	if s.end != nil {
		s.m.closes.remove(s)
	}
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
	s.up()
	n := 0
	for _, p := range s.held {
		n += len(p)
	}
	return n, len(s.held) > 0
}

func (s *packet) destroy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return
	}
	s.finish()
}
