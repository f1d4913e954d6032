// SPDX-License-Identifier: Apache-2.0

// A stream socket: its states and its end.

package netmod

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/stacks"
)

// streamState is where a stream socket is in its life.
type streamState int

const (
	fresh      streamState = iota // not connected; may be bound
	connecting                    // the stack is connecting
	connected                     // the placeholder carries data
	failed                        // a connect behind a gate failed, or the connection broke
	listening
)

// A stream is a TCP socket of the program.
type stream struct {
	base
	state    streamState
	tcp      stacks.StreamSocket // the same as base.ep
	local    netip.AddrPort      // set where the endpoint does not know it
	remote   netip.AddrPort
	gate     int             // bytes of filler in the gate; 0 when it is not up
	opener   *intercept.Call // the connect(2) behind the gate: it names the descriptor
	reported bool            // connect(2) has told the program of its success
	waiters  []*connectWait
	broke    bool // failed after it was connected
	stubbed  bool // the DNS stub serves the connection
	errors   []stacks.Report

	// Of a connected one.
	appShut bool // the program sends no more: its last byte is known
	appHup  bool // nobody reads either
	finSent bool // ... and the stack was told
	lag     int  // bytes in the queue that are to be dropped: see "The last byte"
	more    bool // what was sent last had MSG_MORE

	bypass  *bypass // nil: all bytes pass the stack
	traffic traffic
	came    arrivals

	upFull   bool // the stack takes no more for now
	downFull bool // the program's queue is full: EPOLLOUT is on
	downEOF  bool // the peer has sent FIN
	deaf     bool // the program shut its read side: what comes is thrown away
	mute     bool // it shut its write side
	rdwrShut bool // both: a hang-up is no close

	queue *acceptQueue // of a listener
}

// newStream makes a stream socket and its placeholder.
func (m *Module) newStream(family, typ, proto int, ep stacks.StreamSocket, nonblock int) (socket, int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|nonblock, 0)
	if err != nil {
		_ = ep.Close()
		return nil, -1, err
	}
	s := m.makeStream(family, typ, proto, ep)
	err = roomy(fd)
	if err == nil {
		err = m.enterStream(s, fd)
	}
	if err != nil {
		unix.Close(fd)
		s.destroy()
		return nil, -1, err
	}
	return s, fd, nil
}

func (m *Module) makeStream(family, typ, proto int, ep stacks.StreamSocket) *stream {
	s := &stream{tcp: ep}
	s.base = base{m: m, self: s, family: family, typ: typ, proto: proto, uid: me, ep: ep, peer: -1}
	s.job.turn = s.turn
	return s
}

// enterStream makes s known; fd is its placeholder.
func (m *Module) enterStream(s *stream, fd int) error {
	return s.register(fd, true)
}

// turn is the job of a stream: whatever can move, moves.
func (s *stream) turn(ready uint32) (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return false
	}
	switch s.state {
	case connecting:
		s.progressConnect(ready)
		if s.state == connected {
			return s.move(ready | appIn | stackAny)
		}
	case connected:
		return s.move(ready)
	case listening:
		s.progressListen()
	}
	return false
}

// settle moves what the program has written to the stack, as far as it takes it.
func (s *stream) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == connected && !s.gone && !s.stubbed {
		s.up(quantum)
	}
}

// shutdown answers shutdown(2).
func (s *stream) shutdown(c *intercept.Call, d intercept.FD, how int) intercept.Action {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.state {
	case listening:
		// Linux: a listener that is shut for reading goes back to the closed
		// state (inet_shutdown). The placeholder's poll mask differs from then
		// on; accept answers EINVAL.
		if how == unix.SHUT_WR {
			return intercept.Return(0)
		}
		s.closeListener()
		s.state = failed
		return intercept.Return(0)
	case connecting: // it is given up (inet_shutdown, tcp_disconnect)
		s.tcp.Abort()
		s.connectFailed(unix.ECONNRESET)
		return intercept.Return(0)
	case connected:
	default:
		return intercept.Fail(unix.ENOTCONN)
	}
	s.deaf = s.deaf || how != unix.SHUT_WR
	s.mute = s.mute || how != unix.SHUT_RD
	if s.deaf && s.mute {
		s.rdwrShut = true
		s.m.live.orphan()
	}
	// The kernel's own shutdown marks the placeholder; what is written before it
	// is still read on our end, and the mark comes after it.
	return intercept.Continue()
}

// reap is called when the placeholder with the given cookie, 0 for the one of now,
// is closed for good.
func (s *stream) reap(cookie uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || cookie != 0 && cookie != s.cookie {
		return // it has a new one
	}
	switch {
	case s.state == connected && s.peer >= 0 && s.finSent:
		s.finish()
	case s.state == connected && s.peer >= 0 && !s.rdwrShut:
		// The hang-up of the pair does it, after the data.
	default:
		s.release(false)
	}
}

// release ends the socket for good; the endpoint is closed or aborted.
func (s *stream) release(abort bool) {
	if s.gone {
		return
	}
	s.gone = true
	s.cancelWaiters()
	s.unwatch()
	if s.queue != nil {
		s.closeListener()
	}
	s.endBypass(nil)
	s.dropPeer()
	if abort {
		s.tcp.Abort()
	} else {
		_ = s.tcp.Close()
		if s.remote.IsValid() {
			s.m.linger(s.tcp)
		}
	}
	s.m.leave(s)
}

// destroy releases the socket with everything in it.
func (s *stream) destroy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release(s.remote.IsValid())
}

// pending tells what the program wrote into a placeholder that is now closed, or
// that will be when its last holder is gone, and what of it the endpoint still holds.
// A socket that is gone lingers with the module instead.
func (s *stream) pending() (int, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.state != connected || s.stubbed || s.peer < 0 {
		return 0, false
	}
	unacked := 0
	if u, ok := s.tcp.(stacks.Unacked); ok {
		unacked, _ = u.Unacked()
	}
	if s.finSent {
		return unacked, unacked > 0
	}
	n, err := unix.IoctlGetInt(s.peer, unix.TIOCINQ)
	if err != nil {
		return 0, false
	}
	n = max(n-s.lag, 0) + unacked + s.leftUp()
	return n, n > 0 || !s.appHup
}
