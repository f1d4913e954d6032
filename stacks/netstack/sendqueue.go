// SPDX-License-Identifier: Apache-2.0

// How much each connection has yet to get acknowledged.

package netstack

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"umrun/stacks"
)

// sendQueues knows the send queue of each connection. gVisor does not tell it
// (SendQueueSizeOption is for other endpoints), but shows the state of a
// connection after each segment that it received, which is when the queue
// shrinks. Growth is counted before gVisor queues it: what a concurrent segment
// then overwrites is put right by the segment that acknowledges the data.
type sendQueues struct {
	m sync.Map // tcp.TCPEndpointID -> *sendQueue
}

// A sendQueue is the entry of one connection.
type sendQueue struct {
	id     tcp.TCPEndpointID
	stream *stream
	bytes  atomic.Int64 // as of the last segment received, and sent since
	heard  atomic.Int64 // when the last segment came, or the wait for one began, ns
	sent   atomic.Int64 // bytes, in all
	taken  atomic.Int64 // bytes that the program has received, in all
	peek   peek

	gone waiter.Entry // on the stream's queue: drops the entry of a dead connection
}

// observe is gVisor's TCP probe. It runs with the connection locked.
func (q *sendQueues) observe(s *tcp.TCPEndpointState) {
	if v, ok := q.m.Load(s.ID); ok {
		c := v.(*sendQueue)
		c.bytes.Store(int64(s.SndBufState.SndBufUsed))
		c.heard.Store(int64(s.SegTime.Sub(tcpip.MonotonicTime{})))
		c.peek.store(s)
	}
}

// countLocked begins to follow the connection that was just started or accepted,
// until it is dead.
//
// +checklocks:s.mu
func (s *stream) countLocked() {
	ep := s.endpoint()
	info, ok := ep.Info().(*stack.TransportEndpointInfo)
	if !ok {
		return
	}
	c := &sendQueue{id: tcp.TCPEndpointID(info.ID), stream: s}
	c.heard.Store(s.st.now())
	s.counted = c
	s.st.queues.m.Store(c.id, c)
	c.gone = waiter.NewFunctionEntry(waiter.EventHUp|waiter.EventErr, func(waiter.EventMask) {
		switch tcp.EndpointState(ep.State()) {
		case tcp.StateClose, tcp.StateError:
			s.st.queues.m.CompareAndDelete(c.id, c)
			s.st.urgent.forget(c.id)
		}
	})
	s.wq.EventRegister(&c.gone)
}

// uncountLocked forgets a connection whose endpoint is replaced.
//
// +checklocks:s.mu
func (s *stream) uncountLocked() {
	if c := s.counted; c != nil {
		s.wq.EventUnregister(&c.gone)
		s.st.queues.m.CompareAndDelete(c.id, c)
		s.st.urgent.forget(c.id)
		s.counted = nil
	}
}

// took counts what the program has received.
func (s *stream) took(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.counted != nil {
		s.counted.taken.Add(int64(n))
	}
}

// carried asks the links what of a connection they have acknowledged too early.
func (s *Stack) carried(c *sendQueue) int {
	for _, e := range s.links.all() {
		if l, ok := e.link.(stacks.Carrier); ok {
			local := netip.AddrPortFrom(addrOf(unix.AF_INET6, c.id.LocalAddress, 0).Unmap(), c.id.LocalPort)
			remote := netip.AddrPortFrom(addrOf(unix.AF_INET6, c.id.RemoteAddress, 0).Unmap(), c.id.RemotePort)
			if n := l.Carried(local, remote); n > 0 {
				return n
			}
		}
	}
	return 0
}

// A payload bounds one Send and counts what gVisor takes out of it.
type payload struct {
	p stacks.Payload
	q *sendQueue // may be nil
}

func (p *payload) Len() int { return min(p.p.Len(), sendMax) }

func (p *payload) Read(b []byte) (int, error) {
	n, err := p.p.Read(b)
	if q := p.q; q != nil {
		q.sent.Add(int64(n))
		if q.bytes.Add(int64(n)) == int64(n) {
			q.heard.Store(q.stream.st.now())
		}
	}
	return n, err
}

// Unacked returns the bytes that the peer has not acknowledged; see
// [stacks.Unacked].
func (s *stream) Unacked() (bytes int, done bool) {
	s.mu.Lock()
	c := s.counted
	s.mu.Unlock()
	switch s.state() {
	case tcp.StateInitial, tcp.StateBound, tcp.StateListen, tcp.StateError:
		return 0, true
	case tcp.StateConnecting, tcp.StateSynSent, tcp.StateSynRecv:
		return 0, false
	case tcp.StateFinWait2, tcp.StateTimeWait, tcp.StateClose:
		// Our FIN was acknowledged, or nobody is left to do it.
		if c != nil {
			bytes = s.st.carried(c)
		}
		return bytes, bytes == 0
	}
	if c != nil {
		bytes = max(0, int(c.bytes.Load()))
	}
	return bytes, bytes == 0 && !s.closed.Load()
}
