// SPDX-License-Identifier: Apache-2.0

// Streams: one endpoint from the connect on, and a listener on every network.

package multihome

import (
	"io"
	"net/netip"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// A stream is a TCP socket.
type stream struct {
	socket
	started   bool // a connect is under way or has succeeded
	listening bool
	turn      int // whose connections come next
}

var (
	_ stacks.StreamSocket = (*stream)(nil)
	_ stacks.Unacked      = (*stream)(nil)
	_ stacks.Corked       = (*stream)(nil)
	_ stacks.Urgent       = (*stream)(nil)
	_ stacks.Owned        = (*stream)(nil)
	_ stacks.Reporter     = (*stream)(nil)
	_ stacks.Bypass       = (*stream)(nil)
)

// Connect chooses the network, once.
func (s *stream) Connect(to netip.AddrPort) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started || s.listening || !to.IsValid() {
		return s.connectOn(s.main.Load(), to)
	}
	net, err := s.choose(to, noMessage)
	if err != nil {
		return err
	}
	e, isNew, err := s.reach(net)
	if err != nil {
		return err
	}
	if isNew || len(s.ends) > 1 {
		s.use(e)
	}
	return s.connectOn(e, to)
}

// connectOn connects an endpoint. What failed may go elsewhere the next time. The mutex
// is held.
func (s *stream) connectOn(e *end, to netip.AddrPort) error {
	err := e.ep.Connect(s.st.inward(e.net.n, to))
	switch errnoOf(err) {
	case 0, unix.EINPROGRESS, unix.EALREADY, unix.EISCONN:
		s.started = to.IsValid()
	default:
		s.started = false
	}
	return err
}

// Listen listens on every network that the socket is bound on.
func (s *stream) Listen(backlog int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	local, remote := s.main.Load().ep.Names()
	if !s.listening && !s.started && !remote.IsValid() && local.Port() == 0 {
		any := netip.IPv4Unspecified()
		if s.family == unix.AF_INET6 {
			any = netip.IPv6Unspecified()
		}
		if err := s.bind(netip.AddrPortFrom(any, 0)); err != nil {
			return err
		}
	}
	var hear []*end
	for i, e := range s.ends {
		switch err := e.stream.Listen(backlog); {
		case err == nil:
			hear = append(hear, e)
		case i == 0 || errnoOf(err) == unix.EADDRINUSE:
			s.unlisten(hear)
			return err
		} // else it cannot
	}
	s.use(hear...)
	s.listening = true
	return nil
}

// unlisten makes endpoints that have begun to listen bound ones again; those that cannot
// be are left out, as long as one is left. The mutex is held.
func (s *stream) unlisten(begun []*end) {
	if s.listening {
		return // as before, with another backlog
	}
	for _, e := range begun {
		if s.bound.IsValid() {
			s.shut(e) // first: it has the port
		}
		fresh, err := s.open(e.net.n)
		if err == nil && s.bound.IsValid() {
			if err = fresh.ep.Bind(s.st.inward(e.net.n, s.bound)); err != nil {
				s.shut(fresh)
			}
		}
		var ends []*end
		for _, x := range s.ends {
			switch {
			case x != e:
				ends = append(ends, x)
			case err == nil:
				ends = append(ends, fresh)
			}
		}
		if len(ends) > 0 {
			s.ends = ends
			s.main.Store(ends[0])
		}
	}
}

// Accept takes a connection, from each network in turn.
func (s *stream) Accept() (stacks.StreamSocket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var first error
	for i := range s.ends {
		e := s.ends[(s.turn+i)%len(s.ends)]
		tcp, err := e.stream.Accept()
		if err == nil {
			s.turn = (s.turn + i + 1) % len(s.ends)
			return s.child(e, tcp), nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// child is an accepted connection, which stays on its network.
func (s *stream) child(e *end, tcp stacks.StreamSocket) *stream {
	c := &stream{started: true}
	c.init(s.st, s.who, s.family, s.typ, s.proto)
	c.device, c.bindNet = s.device, e.net.n
	own := &end{net: e.net, ep: tcp, stream: tcp}
	c.ends = []*end{own}
	c.main.Store(own)
	return c
}

// Send queues bytes.
func (s *stream) Send(p stacks.Payload) (int, error) { return s.main.Load().stream.Send(p) }

// Recv takes received bytes.
func (s *stream) Recv(w io.Writer, n int) (int, error) { return s.main.Load().stream.Recv(w, n) }

// Poll is that of the one endpoint, but for a listener's.
func (s *stream) Poll() stacks.Events {
	s.mu.Lock()
	listening := s.listening
	s.mu.Unlock()
	if !listening {
		return s.main.Load().ep.Poll()
	}
	return s.socket.Poll()
}

// Abort ends the connection.
func (s *stream) Abort() {
	s.main.Load().stream.Abort()
	_ = s.Close()
}

// Unacked tells what is on its way.
func (s *stream) Unacked() (bytes int, done bool) {
	if u, ok := s.main.Load().ep.(stacks.Unacked); ok {
		return u.Unacked()
	}
	return 0, true
}

// More says whether a segment may be held back.
func (s *stream) More(more bool) {
	if c, ok := s.main.Load().ep.(stacks.Corked); ok {
		c.More(more)
	}
}

// Bypass is the way past the stack of the connection's network.
func (s *stream) Bypass(changed func()) stacks.Conduit {
	if b, ok := s.main.Load().ep.(stacks.Bypass); ok {
		return b.Bypass(changed)
	}
	return nil
}

// MarkUrgent marks a byte that is still to be sent.
func (s *stream) MarkUrgent(ahead int) bool {
	u, ok := s.main.Load().ep.(stacks.Urgent)
	return ok && u.MarkUrgent(ahead)
}

// Urgent tells of a byte that the peer has marked.
func (s *stream) Urgent() (ahead int, ok bool) {
	if u, ok := s.main.Load().ep.(stacks.Urgent); ok {
		return u.Urgent()
	}
	return 0, false
}

// TakeReports tells what the network says of a connection that is being made.
func (s *stream) TakeReports() (pending unix.Errno, queue []stacks.Report) {
	e := s.main.Load()
	r, ok := e.ep.(stacks.Reporter)
	if !ok {
		return 0, nil
	}
	pending, queue = r.TakeReports()
	for i := range queue {
		queue[i].Dst = s.st.outward(e.net.n, queue[i].Dst)
	}
	return pending, queue
}
