// SPDX-License-Identifier: Apache-2.0

// connect(2): of AF_UNIX sockets, of streams, and of what waits for it.

package netmod

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/stacks"
)

// handleConnect answers connect(2).
func (m *Module) handleConnect(c *intercept.Call) intercept.Action {
	fd, err := m.dup(c)
	if err != nil { // the kernel looks at the descriptor first, too
		return intercept.Fail(intercept.Errno(err))
	}
	d := &held{FD: fd}
	defer d.drop()
	if !fd.IsSocket() {
		return intercept.Fail(unix.ENOTSOCK)
	}
	sa, err := readSockaddr(c, intercept.Addr(c.Args[1]), int32(c.Args[2]))
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	s := m.find(fd)
	if s == nil {
		return m.connectForeign(c, fd, sa)
	}
	b := s.common()
	if b.family == unix.AF_NETLINK {
		return result(b.ep.(*netlink).connect(sa, c.Task.TGID())) // which never changes
	}
	if b.family == unix.AF_PACKET {
		return intercept.Fail(unix.EOPNOTSUPP)
	}
	to, err := parseSockaddr(b.family, sa)
	if b.typ == unix.SOCK_RAW {
		to, err = rawPeer(b.family, sa)
	}
	if p, ok := s.(*packet); ok && p.isPing() && to.IsValid() && err != nil {
		return intercept.Fail(unix.EAFNOSUPPORT)
	}
	if p, ok := s.(*packet); ok && p.isUDP() && to.IsValid() {
		if err != nil && p.refuses4() {
			return intercept.Fail(unix.EAFNOSUPPORT)
		}
		err = nil // an IPv4 destination of an IPv6 socket: __ip6_datagram_connect takes it
	}
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	if _, ok := s.(*stream); ok && m.own(to.Addr()) {
		m.live.probeListeners() // one that the program has closed must not answer
	}
	return s.connect(c, d, to)
}

// connectForeign judges a connect of a socket that is none of the module's: AF_UNIX
// may go anywhere but through a door that is shut.
func (m *Module) connectForeign(c *intercept.Call, d intercept.FD, sa []byte) intercept.Action {
	switch {
	case m.paths == nil:
	case d.Key.Cookie == 0:
		return intercept.Fail(noSocket(d.N))
	case isUnix(d):
		return m.connectTo(c, d, sa)
	}
	if sockaddrFamily(sa) == unix.AF_UNIX && m.conf.Doors != nil {
		if err := m.conf.Doors.Judge(c.Task, sa); err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
	}
	return m.foreign(c, d)
}

// own tells whether a is an address of the view itself.
func (m *Module) own(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsValid() || a.IsLoopback() || a.IsUnspecified() {
		return a.IsValid()
	}
	for _, ifc := range m.stack.State().Interfaces {
		for _, p := range ifc.Addrs {
			if p.Addr().WithZone("") == a {
				return true
			}
		}
	}
	return false
}

// A connectWait is a thread that waits in a blocking connect.
type connectWait struct {
	call  *intercept.Call
	d     intercept.FD // of the placeholder; ours to close
	timer *time.Timer  // SO_SNDTIMEO
}

func (w *connectWait) end() {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.d.Close()
}

// connect is connect(2) on a stream, with the state machine of
// net/ipv4/af_inet.c:__inet_stream_connect.
func (s *stream) connect(c *intercept.Call, d *held, to netip.AddrPort) intercept.Action {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !to.IsValid() { // AF_UNSPEC: disconnect
		return s.disconnect(c, d)
	}
	switch s.state {
	case connected:
		if s.reported {
			return intercept.Fail(unix.EISCONN)
		}
		s.reported = true
		return intercept.Return(0)
	case listening:
		return intercept.Fail(unix.EISCONN)
	case failed:
		if s.broke {
			return intercept.Fail(unix.EISCONN) // until it is dissolved
		}
		// The failure is told once more, then the socket can be used again.
		e := s.takeError(d.N)
		if e == 0 {
			e = unix.ECONNABORTED
		}
		if err := s.startAfresh(c, d); err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		return intercept.Fail(e)
	case connecting:
		if nonblocking(d.N) {
			return intercept.Fail(unix.EALREADY)
		}
		return s.waitConnect(c, d)
	}
	if s.m.stub.owns(to) {
		return s.connectStub(c, d, to)
	}
	err := s.ep.Connect(to)
	if err != nil && intercept.Errno(err) != unix.EINPROGRESS {
		return intercept.Fail(intercept.Errno(err))
	}
	s.state, s.remote, s.reported = connecting, to, false
	if !nonblocking(d.N) {
		a := s.waitConnect(c, d)
		if err == nil { // no event will follow
			s.m.pump.schedule(&s.job, nudge)
		}
		return a
	}
	if err := s.raiseGate(c, d.N); err != nil {
		s.m.log.Error("gate of a connecting socket", "err", err)
		return intercept.Fail(unix.ENOBUFS)
	}
	s.m.pump.schedule(&s.job, nudge)
	return intercept.Fail(unix.EINPROGRESS)
}

// raiseGate connects the placeholder d is a duplicate of, and fills it.
func (s *stream) raiseGate(c *intercept.Call, d int) error {
	peer, err := s.m.meet.join(d)
	if err != nil {
		return err
	}
	s.opener = c
	if err := unix.SetsockoptInt(d, unix.SOL_SOCKET, unix.SO_SNDBUF, gateBuf); err != nil {
		s.m.log.Debug("narrow a gate", "err", err) // it is filled all the same
	}
	s.peer, s.gate = peer, fill(d)
	return s.m.pump.add(&s.job, peer)
}

// openGate lets the program write: the filler goes, but for its last bytes, and the
// send buffer gets its full size. That needs a descriptor of the placeholder, which
// nobody kept: the one that connect named, if the same file is still there.
func (s *stream) openGate() {
	err := s.widen()
	if err != nil {
		// Moved away by dup2, or the thread has ended. A byte left behind would
		// keep writers asleep in so small a buffer (see placeholderBuf), so none
		// is: a reset of this connection will look like its end.
		s.m.log.Debug("open a gate whose descriptor is gone", "err", err)
		s.lag = 0
		err = drain(s.peer, s.gate)
	}
	if err != nil {
		s.m.log.Error("open gate", "err", err)
	}
	s.gate, s.opener = 0, nil
}

// widen opens the gate through the program's own descriptor.
func (s *stream) widen() error {
	d, err := s.opener.DupFD(int(int32(s.opener.Args[0])))
	if err != nil {
		return err
	}
	defer d.Close()
	if d.Key.Cookie != s.cookie {
		return unix.EBADF
	}
	// Two of the filler's bytes, each with a buffer of its own, are too many for
	// the narrow send buffer. So it is the widening that lets the program write,
	// and there is one edge of POLLOUT.
	s.lag = min(2, s.gate)
	if err := drain(s.peer, s.gate-s.lag); err != nil {
		return err
	}
	s.gate = s.lag
	return roomy(d.N)
}

// waitConnect parks a blocking connect.
func (s *stream) waitConnect(c *intercept.Call, d *held) intercept.Action {
	w := &connectWait{call: c, d: d.take()}
	s.waiters = append(s.waiters, w)
	if s.sndTimeo > 0 {
		w.timer = time.AfterFunc(s.sndTimeo, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if !s.dropWaiter(w) {
				return
			}
			s.closeGateFor(w)
			c.Complete(intercept.Fail(unix.EINPROGRESS))
			w.end()
		})
	}
	timed := s.sndTimeo > 0
	return c.Park(func(why intercept.Reason) intercept.Action {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.dropWaiter(w) {
			s.closeGateFor(w)
			w.end()
		}
		// A socket that has connected meanwhile says so when the call comes again.
		if timed {
			return intercept.Fail(unix.EINTR)
		}
		return intercept.Restart()
	})
}

// closeGateFor puts up the gate when nobody waits in connect any longer, so that
// poll is right from then on.
func (s *stream) closeGateFor(w *connectWait) {
	if s.state != connecting || s.peer >= 0 || s.gone {
		return
	}
	if err := s.raiseGate(w.call, w.d.N); err != nil {
		s.m.log.Error("gate of an interrupted connect", "err", err)
	}
}

// dropWaiter takes w out of the list; false if it is not in it any more.
func (s *stream) dropWaiter(w *connectWait) bool {
	for i, x := range s.waiters {
		if x == w {
			s.waiters = append(s.waiters[:i], s.waiters[i+1:]...)
			return true
		}
	}
	return false
}

// cancelWaiters answers all waiters of a socket that is torn down.
func (s *stream) cancelWaiters() {
	for _, w := range s.waiters {
		w.call.Complete(intercept.Fail(unix.ECONNABORTED))
		w.end()
	}
	s.waiters = nil
}

// progressConnect looks whether the stack has a result.
func (s *stream) progressConnect(ready uint32) {
	if ready&appHup != 0 { // closed behind the gate
		s.release(true)
		return
	}
	ev := s.ep.Poll()
	if ev&(unix.POLLOUT|unix.POLLERR|unix.POLLHUP) == 0 {
		return
	}
	if err := endpointError(s.ep); err != 0 {
		s.connectFailed(err)
		return
	}
	if ev&unix.POLLHUP != 0 { // neither connected nor told why
		s.connectFailed(unix.ECONNREFUSED)
		return
	}
	s.connectDone()
}

func (s *stream) connectFailed(err unix.Errno) {
	if s.peer < 0 { // nobody saw a gate: the socket is as before
		ws := s.waiters
		s.waiters = nil
		s.state, s.remote = fresh, netip.AddrPort{}
		s.renew()
		for _, w := range ws {
			w.call.Complete(intercept.Fail(err))
			w.end()
		}
		return
	}
	s.state, s.soErr = failed, err
	s.dropPeer() // with the filler unread: POLLERR and ECONNRESET
	s.marked = true
	s.gate = 0
	for _, w := range s.waiters {
		if w.call.Complete(intercept.Fail(err)) {
			s.soErr = 0
		}
		w.end()
	}
	s.waiters = nil
}

func (s *stream) connectDone() {
	if s.peer >= 0 {
		s.state = connected
		s.openGate()
	} else if len(s.waiters) > 0 {
		w := s.waiters[0]
		peer, err := s.m.meet.join(w.d.N)
		if err == nil {
			err = lag(w.d.N)
		}
		if err != nil {
			s.m.log.Error("connect placeholder", "err", err)
			s.connectFailed(unix.ENOBUFS)
			return
		}
		s.peer, s.lag, s.state = peer, 1, connected
		if err := s.m.pump.add(&s.job, peer); err != nil {
			s.m.log.Error("watch placeholder", "err", err)
		}
	}
	s.state = connected
	if _, remote := s.ep.Names(); remote.IsValid() && !s.stubbed {
		s.remote = remote
	}
	for _, w := range s.waiters {
		if w.call.Complete(intercept.Return(0)) {
			s.reported = true
		}
		w.end()
	}
	s.waiters = nil
}

// renew replaces an endpoint that has failed to connect: Linux allows another
// attempt on the same socket, a stack's endpoint need not.
func (s *stream) renew() {
	local, _ := s.ep.Names()
	if s.local.IsValid() {
		local = s.local
	}
	s.renewAt(local)
}

// forgetPort lets a socket be bound whose port was chosen for a connection that is
// over (net/ipv4/tcp.c:tcp_set_state gives such a port back). The mutex is held.
func (s *stream) forgetPort() {
	if local, _ := s.ep.Names(); s.state == fresh && !s.bound && local.Port() != 0 {
		s.renewAt(netip.AddrPort{})
	}
}

// renewAt replaces the endpoint by one with an address, none if its port is 0.
func (s *stream) renewAt(local netip.AddrPort) {
	ep, err := s.m.endpoint(s.by, s.family, s.typ, s.proto)
	if err != nil {
		s.m.log.Error("renew socket", "err", err)
		return
	}
	tcp, ok := ep.(stacks.StreamSocket)
	if !ok {
		_ = ep.Close()
		return
	}
	s.unwatch()
	s.hear()
	_ = s.tcp.Close()
	s.tcp, s.ep = tcp, tcp
	s.tellOwner()
	for _, o := range s.opts {
		_ = tcp.SetOption(o.level, o.name, o.value) // it was taken once
	}
	if !s.bound && local.Port() != 0 {
		// The address was the route's, the port is kept.
		any := netip.IPv4Unspecified()
		if s.family == unix.AF_INET6 {
			any = netip.IPv6Unspecified()
		}
		local = netip.AddrPortFrom(any, local.Port())
	}
	if local.Port() != 0 {
		if err := tcp.Bind(local); err != nil {
			s.m.log.Debug("bind renewed socket", "err", err)
		}
	}
	s.watch()
}

// disconnect is connect with AF_UNSPEC (tcp_disconnect): the socket is as new, but
// for its options and its port.
func (s *stream) disconnect(c *intercept.Call, d *held) intercept.Action {
	if s.state == fresh {
		return intercept.Return(0)
	}
	return result(s.startAfresh(c, d))
}

// startAfresh gives the program a new placeholder under the number that the call
// names, and the socket a new endpoint. What an AF_UNIX stream has been connected to
// it cannot forget, TCP can. Duplicates of the old placeholder stay broken: programs
// that connect a socket again do it with one descriptor.
func (s *stream) startAfresh(c *intercept.Call, d *held) error {
	flags := unix.SOCK_STREAM | unix.SOCK_CLOEXEC
	if nonblocking(d.N) {
		flags |= unix.SOCK_NONBLOCK
	}
	fd, err := unix.Socket(unix.AF_UNIX, flags, 0)
	if err != nil {
		return unix.ENOBUFS
	}
	defer unix.Close(fd)
	if err := roomy(fd); err != nil {
		return unix.ENOBUFS
	}
	if err := c.ReplaceFD(int(int32(c.Args[0])), fd); err != nil {
		return err
	}
	if s.queue != nil {
		s.closeListener()
	}
	s.cancelWaiters()
	s.endBypass(nil)
	s.dropPeer()
	s.m.pump.forget(&s.job)
	if s.state == connecting || s.state == connected {
		s.tcp.Abort()
	}
	s.renew()
	s.state, s.local, s.remote = fresh, netip.AddrPort{}, netip.AddrPort{}
	s.gate, s.soErr, s.marked, s.broke, s.reported, s.stubbed = 0, 0, false, false, false, false
	s.appShut, s.appHup, s.finSent, s.lag = false, false, false, 0
	s.traffic = traffic{}
	s.more, s.upFull, s.downFull, s.downEOF, s.deaf, s.mute, s.rdwrShut = false, false, false, false, false, false, false
	id, err := identify(fd)
	if err != nil {
		return err
	}
	if err := s.m.live.watch(fd, id.cookie); err != nil {
		return err
	}
	return s.m.move(&s.base, id)
}
