// SPDX-License-Identifier: Apache-2.0

// Giving up connections whose peer has vanished.

package netstack

import (
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// giveUpTime is how long a connection retransmits to a peer that says nothing:
// what the 15 retransmissions of net.ipv4.tcp_retries2 take at least (tcp(7)).
// gVisor alone goes on for ever. TCP_USER_TIMEOUT replaces it, and gVisor knows
// that one. It cannot stand in for this limit, because it ends keep-alive early,
// too, which has a limit of its own.
const giveUpTime = 924 * time.Second

// now is the time of gVisor's clock, ns.
func (s *Stack) now() int64 {
	return int64(s.gv.Clock().NowMonotonic().Sub(tcpip.MonotonicTime{}))
}

// watchQueues ends connections that have waited for giveUp, until the stack is
// closed.
func (s *Stack) watchQueues(giveUp time.Duration) {
	defer s.wg.Done()
	tick := time.NewTicker(giveUp / 32)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-tick.C:
		}
		now := s.now()
		s.queues.m.Range(func(_, v any) bool {
			if q := v.(*sendQueue); now-q.heard.Load() > int64(giveUp) && q.waiting() {
				q.stream.timeOut(q)
			}
			return true
		})
	}
}

// waiting tells whether the peer has yet to acknowledge something. What a program
// has closed has a limit of its own, see orphanTimeout.
func (q *sendQueue) waiting() bool {
	s := q.stream
	if s.closed.Load() {
		return false
	}
	switch s.state() {
	case tcp.StateEstablished, tcp.StateCloseWait:
		if q.bytes.Load() <= 0 {
			return false
		}
	case tcp.StateFinWait1, tcp.StateClosing, tcp.StateLastAck:
	default:
		return false
	}
	var user tcpip.TCPUserTimeoutOption
	err := s.endpoint().GetSockOpt(&user)
	return err == nil && user == 0
}

// timeOut ends the connection that q is the queue of with ETIMEDOUT.
func (s *stream) timeOut(q *sendQueue) {
	s.mu.Lock()
	if s.counted != q || s.closed.Load() || s.errTaken {
		s.mu.Unlock()
		return
	}
	s.err, s.errTaken = unix.ETIMEDOUT, true
	ep := s.endpoint()
	s.mu.Unlock()
	ep.Abort() // wakes the watchers, which take mu
}

// ownError takes the error of a connection that timeOut ended.
func (s *stream) ownError() unix.Errno {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.err
	s.err = 0
	return err
}
