// SPDX-License-Identifier: Apache-2.0

// The queue of packets on their way to the view.

package nat

import (
	"net"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// queueSoft is how many packets may wait before those who can wait do.
	queueSoft = 256
	// queueHard is how many may wait in all; what comes then is dropped.
	queueHard = 8192
)

// A packet waits for the view: exactly one of the two is set. Who takes it from
// the queue drops it in the end.
type packet struct {
	pkt *stack.PacketBuffer // from the private stack; the queue holds a reference
	raw []byte              // complete, virtio_net_hdr first; of newRaw
}

// drop lets go of the packet's memory.
func (p packet) drop() {
	if p.pkt != nil {
		p.pkt.DecRef()
		return
	}
	putRaw(p.raw)
}

// A queue has any number of writers and one reader, which takes all there is at
// a time: one lock and at most one wake-up for a burst.
//
// Back-pressure must not reach those who run on the goroutine that is in
// [Link.Write]. The view's reader may be waiting for that very goroutine (it may
// answer a packet on the spot), and would then never come to drain the queue.
// Hence two limits: TCP segments with data and datagrams from the host, which
// are sent by goroutines of our own, wait at the soft one; all else is small and
// goes on to the hard one.
type queue struct {
	mu       sync.Mutex
	notEmpty sync.Cond
	notFull  sync.Cond
	pkts     []packet // +checklocks:mu
	closed   bool     // +checklocks:mu
	dropped  uint64   // +checklocks:mu
}

func newQueue() *queue {
	q := &queue{}
	q.notEmpty.L = &q.mu
	q.notFull.L = &q.mu
	return q
}

// put appends p, which then belongs to the queue whatever the outcome. With wait
// it blocks while the queue is full. It reports whether p will be delivered.
func (q *queue) put(p packet, wait bool) bool {
	q.mu.Lock()
	for wait && len(q.pkts) >= queueSoft && !q.closed {
		q.notFull.Wait()
	}
	if q.closed || len(q.pkts) >= queueHard {
		q.dropped++
		q.mu.Unlock()
		p.drop()
		return false
	}
	q.pkts = append(q.pkts, p)
	first := len(q.pkts) == 1
	q.mu.Unlock()
	if first {
		q.notEmpty.Signal()
	}
	return true
}

// take waits for packets and returns all of them; spare is the slice of an
// earlier call, to be used again. The error is net.ErrClosed.
func (q *queue) take(spare []packet) ([]packet, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.pkts) == 0 && !q.closed {
		q.notEmpty.Wait()
	}
	if q.closed {
		return nil, net.ErrClosed
	}
	got := q.pkts
	q.pkts = spare[:0]
	if len(got) >= queueSoft {
		q.notFull.Broadcast()
	}
	return got, nil
}

// close drops what waits and wakes everybody.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	left := q.pkts
	q.pkts = nil
	q.mu.Unlock()
	q.notEmpty.Broadcast()
	q.notFull.Broadcast()
	for _, p := range left {
		p.drop()
	}
}

// drops returns how many packets were thrown away.
func (q *queue) drops() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}
