// SPDX-License-Identifier: Apache-2.0

// listen(2) and accept(2) on streams.

package netmod

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/stacks"
)

// An acceptQueue mirrors the connections that wait for accept into the queue of
// the AF_UNIX listener that the program polls. Both are first in, first out, and
// only the module connects and accepts, so the heads belong together.
type acceptQueue struct {
	nook    *nook
	ready   []*child
	held    stacks.StreamSocket // accepted, but the kernel's queue was full
	waiters []*acceptWait
	backlog int // for ss

	back struct { // children that could not be handed over, on their way back
		sync.Mutex
		list []*child
	}
}

// A child is an accepted connection before the program has it.
type child struct {
	tcp  stacks.StreamSocket
	peer int // the module's end
	// Set once the program was offered the connection:
	sock *stream // nil before
	made int     // the program's end
}

func (ch *child) drop() {
	if ch.sock != nil {
		unix.Close(ch.made)
		ch.sock.destroy()
		return
	}
	unix.Close(ch.peer)
	ch.tcp.Abort()
}

// lose closes a connection that the program will never see.
func (ch *child) lose() {
	unix.Close(ch.made) // its end hangs up, and the socket with it
}

// An acceptWait is a thread that waits in a blocking accept.
type acceptWait struct {
	call  *intercept.Call
	d     intercept.FD
	args  acceptArgs
	timer *time.Timer // SO_RCVTIMEO
}

func (w *acceptWait) end() {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.d.Close()
}

// acceptArgs are the arguments of accept4(2) behind the descriptor.
type acceptArgs struct {
	addr, length intercept.Addr
	flags        int
}

// handleListen answers listen(2).
func (m *Module) handleListen(c *intercept.Call) intercept.Action {
	return m.with(c, func(s socket, d *held) intercept.Action {
		m.live.sweep()
		return s.listen(c, d.FD, int(int32(c.Args[1])))
	})
}

func (s *stream) listen(c *intercept.Call, d intercept.FD, backlog int) intercept.Action {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != fresh && s.state != listening {
		return intercept.Fail(unix.EINVAL)
	}
	if backlog < 0 { // compared as unsigned (net/socket.c:__sys_listen_socket)
		backlog = unix.SOMAXCONN
	}
	backlog = min(backlog, unix.SOMAXCONN)
	err := s.tcp.Listen(backlog)
	if intercept.Errno(err) == unix.EADDRINUSE {
		s.mu.Unlock()
		s.m.live.reapClosed()
		s.mu.Lock()
		if s.gone || s.state != fresh && s.state != listening {
			return intercept.Fail(unix.EINVAL)
		}
		err = s.tcp.Listen(backlog)
	}
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	if s.state == listening {
		s.queue.backlog = backlog
		s.m.pump.schedule(&s.job, nudge)
		return intercept.Return(0)
	}
	n, err := newNook(d.N)
	if err == nil {
		err = unix.Listen(d.N, unix.SOMAXCONN)
	}
	if err != nil {
		s.m.log.Error("listen placeholder", "err", err)
		n.close()
		return intercept.Fail(unix.ENOBUFS)
	}
	s.queue, s.state, s.bound = &acceptQueue{nook: n, backlog: backlog}, listening, true
	s.announce(unix.IPPROTO_TCP)
	s.m.live.listener(s, n)
	s.m.pump.schedule(&s.job, nudge)
	return intercept.Return(0)
}

// progressListen takes what has arrived: to threads that wait in accept, else
// into the placeholder's queue.
func (s *stream) progressListen() {
	q := s.queue
	q.back.Lock()
	back := q.back.list
	q.back.list = nil
	q.back.Unlock()
	for _, ch := range back {
		s.putBack(ch)
	}
	for {
		tcp := q.held
		q.held = nil
		if tcp == nil {
			if len(q.ready) > q.backlog { // the rest waits in the stack, which has as much room
				break
			}
			var err error
			if tcp, err = s.tcp.Accept(); err != nil {
				break
			}
		}
		peer, err := knock(q.nook)
		switch err {
		case nil:
			q.ready = append(q.ready, &child{tcp: tcp, peer: peer})
		case unix.EAGAIN:
			q.held = tcp
		case unix.ECONNREFUSED: // the program has closed the listener
			tcp.Abort()
			s.release(false)
			return
		default:
			s.m.log.Error("knock at a listener", "err", err)
			tcp.Abort()
		}
		if q.held != nil {
			break
		}
	}
	for len(q.waiters) > 0 && len(q.ready) > 0 {
		w := q.waiters[0]
		q.waiters = q.waiters[1:]
		a, ch, fd := s.admit(w.call, w.d.N, w.args)
		if !w.call.Complete(a) && ch != nil {
			unix.Close(fd)
			s.putBack(ch)
		}
		w.end()
	}
}

// knock connects a new end to the listener at n.
func knock(n *nook) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	err = urgentInline(fd)
	if err == nil {
		err = unix.Connect(fd, n.addr())
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// handleAccept answers accept(2) and accept4(2).
func (m *Module) handleAccept(c *intercept.Call) intercept.Action {
	a := acceptArgs{addr: intercept.Addr(c.Args[1]), length: intercept.Addr(c.Args[2])}
	if c.NR == unix.SYS_ACCEPT4 {
		a.flags = int(int32(c.Args[3]))
		if a.flags&^(unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC) != 0 {
			return intercept.Fail(unix.EINVAL)
		}
	}
	return m.with(c, func(s socket, d *held) intercept.Action { return s.accept(c, d, a) })
}

func (s *stream) accept(c *intercept.Call, d *held, args acceptArgs) intercept.Action {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != listening {
		return intercept.Fail(unix.EINVAL)
	}
	s.progressListen()
	if s.gone {
		return intercept.Fail(unix.EINVAL)
	}
	if len(s.queue.ready) > 0 {
		a, _, _ := s.admit(c, d.N, args)
		return a
	}
	if nonblocking(d.N) {
		return intercept.Fail(unix.EAGAIN)
	}
	return s.waitAccept(c, d, args)
}

// waitAccept parks a blocking accept.
func (s *stream) waitAccept(c *intercept.Call, d *held, args acceptArgs) intercept.Action {
	w := &acceptWait{call: c, d: d.take(), args: args}
	q := s.queue
	q.waiters = append(q.waiters, w)
	timed := s.rcvTimeo > 0
	leave := func() bool {
		for i, x := range q.waiters {
			if x == w {
				q.waiters = append(q.waiters[:i:i], q.waiters[i+1:]...)
				return true
			}
		}
		return false
	}
	if timed {
		w.timer = time.AfterFunc(s.rcvTimeo, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if leave() {
				c.Complete(intercept.Fail(unix.EAGAIN))
				w.end()
			}
		})
	}
	return c.Park(func(why intercept.Reason) intercept.Action {
		s.mu.Lock()
		defer s.mu.Unlock()
		if leave() {
			w.end()
		}
		if timed {
			return intercept.Fail(unix.EINTR)
		}
		return intercept.Restart()
	})
}

// admit takes the first child out of the queue and makes it a socket of the
// program. It returns the answer, and the child and the descriptor if it installs
// one.
func (s *stream) admit(c *intercept.Call, listener int, args acceptArgs) (intercept.Action, *child, int) {
	q := s.queue
	ch := q.ready[0]
	if q.ready = q.ready[1:]; len(q.ready) >= q.backlog {
		s.m.pump.schedule(&s.job, nudge) // there is room again, see progressListen
	}
	nonblock := args.flags&unix.SOCK_NONBLOCK != 0
	fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		s.m.log.Error("accept placeholder", "err", err)
		ch.drop()
		return intercept.Fail(unix.ECONNABORTED), nil, -1
	}
	if ch.sock != nil { // it was offered before: what was queued is a stand-in
		unix.Close(fd)
	} else if err := s.m.adopt(s, ch, fd); err != nil {
		return intercept.Fail(intercept.Errno(err)), nil, -1
	}
	s.m.claim(ch.sock, c)
	_, remote := ch.tcp.Names()
	if args.addr != 0 {
		if err := writeSockaddr(c, args.addr, args.length, encodeSockaddr(s.family, remote)); err != nil {
			ch.lose() // as the kernel (net/socket.c:do_accept)
			return intercept.Fail(intercept.Errno(err)), nil, -1
		}
	}
	err = unix.SetNonblock(ch.made, nonblock)
	if err == nil {
		fd, err = unix.FcntlInt(uintptr(ch.made), unix.F_DUPFD_CLOEXEC, 3)
	}
	if err != nil {
		ch.drop()
		return intercept.Fail(unix.ENFILE), nil, -1
	}
	a := intercept.InstallFD(fd, args.flags&unix.SOCK_CLOEXEC != 0)
	a.OnCommit = func(int) {
		unix.Close(ch.made)
		s.m.pump.schedule(&ch.sock.job, nudge|appIn)
	}
	a.OnAbort = func() {
		q.back.Lock()
		q.back.list = append(q.back.list, ch)
		q.back.Unlock()
		s.m.pump.schedule(&s.job, nudge)
	}
	return a, ch, fd
}

// adopt makes ch, whose program's end is fd, a socket. It owns fd; on an error
// ch is dropped.
func (m *Module) adopt(listener *stream, ch *child, fd int) error {
	s := m.makeStream(listener.family, listener.typ, listener.proto, ch.tcp)
	s.peer, s.state, s.reported, s.uid = ch.peer, connected, true, listener.uid
	_, s.remote = ch.tcp.Names()
	s.by = listener.by
	s.rcvTimeo, s.sndTimeo = listener.rcvTimeo, listener.sndTimeo
	s.came.want = listener.came.want
	s.came.asked.Store(listener.came.asked.Load())
	ch.sock, ch.made = s, fd
	err := roomy(fd)
	if err == nil {
		err = lag(fd)
	}
	if err == nil {
		err = s.inherit(fd, listener.kept)
	}
	if err == nil {
		s.lag = 1
		err = m.enterStream(s, fd)
	}
	if err != nil {
		ch.drop()
	}
	return err
}

// putBack queues a child again that could not be handed over: a stand-in in the
// placeholder's queue keeps it readable.
func (s *stream) putBack(ch *child) {
	if s.gone || s.queue == nil {
		ch.drop()
		return
	}
	fd, err := knock(s.queue.nook)
	if err != nil {
		ch.drop()
		return
	}
	unix.Close(fd) // accept takes it all the same
	s.queue.ready = append(s.queue.ready, ch)
}

// closeListener ends a listener: what waits in its queue is reset.
func (s *stream) closeListener() {
	q := s.queue
	s.queue = nil
	s.withdraw()
	_ = s.tcp.Close() // first: who sees a reset and tries again is refused
	for _, w := range q.waiters {
		w.call.Complete(intercept.Fail(unix.EINVAL))
		w.end()
	}
	q.waiters = nil // a cancel that was faster must not end them again
	for _, ch := range q.ready {
		ch.drop()
	}
	if q.held != nil {
		q.held.Abort()
	}
	q.back.Lock()
	for _, ch := range q.back.list {
		ch.drop()
	}
	q.back.list = nil
	q.back.Unlock()
	s.m.live.unlisten(s)
	q.nook.close()
}
