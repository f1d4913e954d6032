// SPDX-License-Identifier: Apache-2.0

// TCP sockets.

package netstack

import (
	"io"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"umrun/stacks"
)

// sendMax bounds one Send, bytes: gVisor makes one segment of it.
const sendMax = 64 << 10

// backlogMax is net.core.somaxconn.
const backlogMax = 4096

// orphanTimeout is how long a closed connection tries to get its data to a peer
// that does not answer. It is the time that Linux gives living connections,
// longer than its own for closed ones, so that a peer that pauses loses nothing.
const orphanTimeout = giveUpTime

// A stream is a TCP socket.
type stream struct {
	sock

	// All below: +checklocks:mu
	phase    connPhase
	errTaken bool           // the endpoint's one hard error was taken
	rdShut   bool           // SHUT_RD
	bound    netip.AddrPort // what Bind was given, for new endpoints
	counted  *sendQueue     // the entry of Stack.queues, nil before the connection
	giveUp   *time.Timer    // ends the handshake before gVisor would; may be nil
	cork     cork
	told     bool // Urgent has said that the next byte is
}

var (
	_ stacks.StreamSocket = (*stream)(nil)
	_ stacks.Unacked      = (*stream)(nil)
	_ stacks.Reporter     = (*stream)(nil)
)

func newStream(st *Stack, family int) (*stream, error) {
	s := &stream{sock: sock{st: st, family: family, typ: unix.SOCK_STREAM, proto: unix.IPPROTO_TCP, wq: &waiter.Queue{}, reports: new(reports)}}
	s.uid.Store(me)
	ep, err := s.newEndpoint()
	if err != nil {
		return nil, err
	}
	s.ep.Store(&epBox{ep})
	return s, nil
}

func (s *stream) state() tcp.EndpointState {
	return tcp.EndpointState(s.endpoint().State())
}

// Bind names the socket, bind(2). Any port may be bound: the port space belongs
// to the program's own network.
func (s *stream) Bind(a netip.AddrPort) error {
	if err := s.sock.Bind(a); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bound = s.localName()
	return nil
}

// takeErrorLocked returns the error that SO_ERROR reports, and clears it. gVisor
// keeps a fatal error in two places; only the first is looked at.
//
// +checklocks:s.mu
func (s *stream) takeErrorLocked() unix.Errno {
	s.fetchErrorLocked()
	err := s.err
	s.err = 0
	return err
}

// fetchErrorLocked moves the error of a dead endpoint to s.err. Errors of living
// ones are what Linux calls soft, and stay unreported.
//
// +checklocks:s.mu
func (s *stream) fetchErrorLocked() {
	if s.errTaken || s.state() != tcp.StateError {
		return
	}
	s.errTaken = true
	if err := s.endpoint().LastError(); err != nil {
		s.err = errno(err)
	}
}

func (s *stream) takeError() unix.Errno {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.takeErrorLocked()
}

// reported notes that gVisor itself handed out the fatal error.
func (s *stream) reported() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state() == tcp.StateError {
		s.errTaken = true
	}
}

// Listen turns the socket into a listener, listen(2).
func (s *stream) Listen(backlog int) error {
	if err := s.down(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if backlog < 0 || backlog > backlogMax {
		backlog = backlogMax
	}
	switch st := s.state(); st {
	case tcp.StateListen:
		// gVisor refuses a backlog below what waits; Linux takes it.
		s.endpoint().Listen(backlog + 1)
		s.rdShut = false
		return nil
	case tcp.StateInitial, tcp.StateBound:
	case tcp.StateError, tcp.StateClose:
		if s.phase == phaseConnecting {
			return unix.EINVAL
		}
		if err := s.renewLocked(); err != nil {
			return err
		}
	default:
		return unix.EINVAL
	}
	if s.listenerAt() {
		return unix.EADDRINUSE
	}
	// Linux lets one connection more than the backlog wait
	// (net/sock.h:sk_acceptq_is_full).
	if err := s.endpoint().Listen(backlog + 1); err != nil {
		return bindErrno(err)
	}
	return nil
}

// Accept takes an established connection.
func (s *stream) Accept() (stacks.StreamSocket, error) {
	if err := s.down(); err != nil {
		return nil, err
	}
	ep, wq, err := s.endpoint().Accept(nil)
	if err != nil {
		return nil, errno(err)
	}
	c := &stream{
		sock:  sock{st: s.st, family: s.family, typ: s.typ, proto: s.proto, wq: wq, reports: new(reports)},
		phase: phaseConnected,
	}
	c.ep.Store(&epBox{ep}) // its packets are the listener's, whose owner it has
	c.uid.Store(s.uid.Load())
	s.mu.Lock()
	opts := s.opts.clone()
	vals := s.vals
	s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opts, c.vals = opts, vals
	// A child has its listener's options (net/core/sock.c:sk_clone_lock).
	c.opts.replay(&c.sock, ep)
	c.corkLocked()
	c.countLocked()
	return c, nil
}

// Send queues bytes.
func (s *stream) Send(p stacks.Payload) (int, error) {
	if err := s.down(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	q := s.counted
	s.corkedLocked()
	s.mu.Unlock()
	n, err := s.endpoint().Write(&payload{p, q}, tcpip.WriteOptions{})
	switch err.(type) {
	case nil:
		return int(n), nil
	case *tcpip.ErrWouldBlock:
		return 0, unix.EAGAIN
	case *tcpip.ErrClosedForSend:
		if e := s.takeError(); e != 0 {
			return 0, e
		}
		return 0, unix.EPIPE
	}
	if e := s.ownError(); e != 0 {
		return 0, e
	}
	s.reported()
	return 0, errno(err)
}

// Recv takes received bytes.
func (s *stream) Recv(w io.Writer, n int) (int, error) {
	if err := s.down(); err != nil {
		return 0, err
	}
	ep := s.endpoint()
	s.mu.Lock()
	lw := recvWriter{w: w, left: n, q: s.counted, u: &s.st.urgent, told: s.told}
	s.told = false
	s.mu.Unlock()
	r, err := ep.Read(&lw, tcpip.ReadOptions{})
	switch err.(type) {
	case nil:
		if r.Count > 0 {
			ep.ModerateRecvBuf(r.Count)
			s.took(r.Count)
		}
		return r.Count, nil
	case *tcpip.ErrWouldBlock:
		return 0, unix.EAGAIN
	case *tcpip.ErrBadBuffer:
		// Nothing was taken: w took nothing, or n is 0.
		if lw.err != nil {
			return 0, lw.err
		}
		return 0, nil
	case *tcpip.ErrClosedForReceive:
		if e := s.takeError(); e != 0 {
			return 0, e
		}
		return 0, io.EOF
	case *tcpip.ErrNotConnected:
		if e := s.takeError(); e != 0 {
			return 0, e
		}
		return 0, unix.ENOTCONN
	}
	if e := s.ownError(); e != 0 {
		return 0, e
	}
	s.reported()
	return 0, errno(err)
}

// A recvWriter bounds what one Recv takes, and keeps the error of the writer
// behind it. gVisor panics on a short write without io.ErrShortWrite.
type recvWriter struct {
	w    io.Writer
	left int
	done int
	err  error

	q    *sendQueue // may be nil
	u    *urgents
	told bool // the next byte is urgent, and the reader knows
}

func (l *recvWriter) Write(b []byte) (int, error) {
	full := len(b)
	b = b[:min(full, l.left)]
	b = b[:l.bound(len(b), l.done)]
	n := 0
	if len(b) > 0 {
		n, l.err = l.w.Write(b)
		l.left -= n
		l.done += n
	}
	if n < full && l.err == nil {
		return n, io.ErrShortWrite
	}
	return n, l.err
}

// Shutdown is shutdown(2), with the cases of net/ipv4/af_inet.c:inet_shutdown.
func (s *stream) Shutdown(how int) error {
	flags, err := shutdownFlags(how)
	if err != nil {
		return err
	}
	if err := s.down(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.state() {
	case tcp.StateConnecting, tcp.StateSynSent, tcp.StateSynRecv:
		return s.disconnectLocked()
	case tcp.StateListen:
		if flags&tcpip.ShutdownRead == 0 {
			return nil
		}
		s.rdShut = true
	case tcp.StateInitial, tcp.StateBound, tcp.StateError, tcp.StateClose, tcp.StateTimeWait:
		return unix.ENOTCONN
	default:
		s.rdShut = s.rdShut || flags&tcpip.ShutdownRead != 0
	}
	if c := s.counted; c != nil && flags&tcpip.ShutdownWrite != 0 && c.bytes.Load() <= 0 {
		c.heard.Store(s.st.now())
	}
	if err := s.endpoint().Shutdown(flags); err != nil {
		return errno(err)
	}
	return nil
}

// Poll returns what poll(2) would, with the cases of net/ipv4/tcp.c:tcp_poll.
func (s *stream) Poll() stacks.Events {
	const dead = unix.POLLIN | unix.POLLOUT | unix.POLLHUP | unix.POLLRDHUP
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetchErrorLocked()
	var ev stacks.Events
	if s.err != 0 {
		ev = unix.POLLERR
	}
	st := s.state()
	switch st {
	case tcp.StateInitial, tcp.StateBound:
		return ev | unix.POLLOUT | unix.POLLHUP
	case tcp.StateConnecting, tcp.StateSynSent, tcp.StateSynRecv:
		return ev
	case tcp.StateError, tcp.StateClose:
		return ev | dead
	}
	r := s.endpoint().Readiness(waiter.ReadableEvents | waiter.WritableEvents)
	if st == tcp.StateListen {
		switch {
		case s.rdShut: // tcp_disconnect has made it a closed socket
			return ev | unix.POLLOUT | unix.POLLHUP
		case r&waiter.ReadableEvents != 0:
			return ev | unix.POLLIN
		}
		return ev
	}
	// The FIN of the peer shows in the state; these are the states before it. Who is told of it may
	// look before the state has changed, and is not told again: gVisor changes it afterwards
	// (transport/tcp/rcv.go, consumeSegment). Once our side is shut it shows by POLLIN alone then.
	rdShut, wrShut := s.rdShut, true
	switch st {
	case tcp.StateEstablished:
		rdShut, wrShut = rdShut || r&waiter.EventRdHUp != 0, false
	case tcp.StateCloseWait:
		rdShut, wrShut = true, false
	case tcp.StateFinWait1, tcp.StateFinWait2:
	default:
		rdShut = true
	}
	if rdShut {
		ev |= unix.POLLIN | unix.POLLRDHUP
	} else if r&waiter.ReadableEvents != 0 {
		ev |= unix.POLLIN
	}
	if wrShut || r&waiter.WritableEvents != 0 {
		ev |= unix.POLLOUT
	}
	if rdShut && wrShut {
		ev |= unix.POLLHUP
	}
	return ev
}

// Abort closes with RST.
func (s *stream) Abort() {
	if !s.release() {
		return
	}
	s.endpoint().Abort()
	s.endpoint().Close()
}

// release marks the socket closed and reports whether it was not yet.
func (s *stream) release() bool {
	if s.closed.Swap(true) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopTimerLocked()
	return true
}

// Close releases the socket; see [stacks.Socket].
func (s *stream) Close() error {
	if s.release() {
		ep := s.endpoint()
		var user tcpip.TCPUserTimeoutOption
		if err := ep.GetSockOpt(&user); err == nil && user == 0 {
			user = tcpip.TCPUserTimeoutOption(orphanTimeout)
			ep.SetSockOpt(&user)
		}
		ep.Close()
	}
	return nil
}
