// SPDX-License-Identifier: Apache-2.0

// Receivers that wait: a handler that does not come back is left to itself, and another
// receiver takes its place.

package intercept

import (
	"slices"
	"sync/atomic"
	"time"
)

// A receiver is one goroutine that receives calls. There is one whose turn it is. While it
// runs a handler that has said that it may wait ([Call.MayWait]) the guard looks at it now and
// then; if it is in the same handler for too long, the turn goes to a new one, and the
// old one ends when its handler does. So handlers run one at a time, but for those that
// wait, and for those that a rush gives to a second receiver (rush.go).
type receiver struct {
	calls uint64        // how many it has begun; its own
	waits atomic.Uint64 // which of them it is in and may wait in; 0: none; lost: it has no turn any more

	second bool // that of a rush, which has no turn to lose
	window window
	seat   seat

	// Of the call that it has received last.
	nt       notification
	handlers []Handler
	glance   Glance
	answered response // if it passed
}

// What waits is when the turn was given to another, and when the handler has come back then.
const (
	lost = ^uint64(0)
	over = ^uint64(0) - 1
)

// back ends a call, and reports whether it is still the receiver's turn.
func (r *receiver) back() bool {
	call := r.waits.Load()
	return call == 0 || call != lost && r.waits.CompareAndSwap(call, 0)
}

// stuckAfter is how long a handler may wait, at least, until the others go on without it.
const stuckAfter = 100 * time.Millisecond

// silentAfter is how often the guard finds a handler waiting, each time stuckAfter later, until
// it says so: ten seconds. It is not the time of the clock, of which umrun may have had nothing
// itself: it was stopped, the machine slept, or others had the processors.
const silentAfter = 100

// lostFor is how long close waits for handlers that do not come back. What they wait for ends
// with the process.
const lostFor = time.Second

// MayWait says that from here on the handler may wait for somebody who does not answer, as for
// the server of a file system. Other calls are handled meanwhile if it takes long: what it
// shares with other handlers it must lock.
func (c *Call) MayWait() {
	if c.by == nil || c.by.second {
		return // nobody waits for the one who handles it
	}
	c.by.waits.CompareAndSwap(0, c.by.calls) // else it has said so, or is lost
	n := c.b.(*notifier)
	if !n.guarding.Load() && n.guarding.CompareAndSwap(false, true) {
		select {
		case n.guarded <- struct{}{}:
		default: // it has been told
		}
	}
}

// TakesLong is MayWait for a handler that is known to take long: other calls are handled
// meanwhile from now on.
func (c *Call) TakesLong() {
	if c.by == nil || c.by.second {
		return
	}
	if c.by.waits.Swap(lost) != lost {
		c.b.(*notifier).handOver()
	}
}

// guard is the goroutine that gives the turn to a new receiver. It sleeps while no handler
// that may wait has run.
//
// That a handler waits for stuckAfter says nothing about what it waits for: it may have had no
// processor, the thread that is to take its descriptor may have none, the disk may be busy. It does
// no harm that others go on, so nobody is told until silentAfter.
func (n *notifier) guard() {
	for {
		select {
		case <-n.ended:
			return
		case <-n.guarded:
		}
		var silent []*silence
		for again := true; again; {
			r := n.turn.Load()
			call := r.waits.Load()
			select {
			case <-n.ended:
				return
			case <-time.After(stuckAfter):
			}
			silent = slices.DeleteFunc(silent, func(s *silence) bool { return n.isOver(s) })
			switch {
			case call != 0 && call != lost && r.waits.CompareAndSwap(call, lost):
				silent = append(silent, &silence{of: r, tid: int(r.nt.pid), call: callName(r.nt.entry(), int(r.nt.nr))})
				n.handOver()
			case call == 0 && r.waits.Load() == 0 && len(silent) == 0:
				n.guarding.Store(false)
				// One that began before that has told nobody.
				again = r.waits.Load() != 0 && n.guarding.CompareAndSwap(false, true)
			}
		}
	}
}

// A silence is a handler that has lost its receiver's turn as it did not come back.
type silence struct {
	of    *receiver
	tid   int
	call  string
	looks int // how often the guard has found it
}

// isOver reports whether the handler has come back. If it has not for long enough it is told
// once, and so is then its end.
func (n *notifier) isOver(s *silence) bool {
	if s.of.waits.Load() == over {
		if s.looks >= n.silentAfter {
			n.log.Info("the call that waited is over", "call", s.call, "tid", s.tid)
		}
		return true
	}
	if s.looks++; s.looks == n.silentAfter {
		n.log.Warn("a call waits for a file system that does not answer (NFS, FUSE, an automount) or is very slow: others go on meanwhile",
			"call", s.call, "tid", s.tid, "for", stuckAfter*time.Duration(1+n.silentAfter))
	}
	return false
}

// handOver gives the turn of a receiver that is lost to a new one.
func (n *notifier) handOver() {
	n.lost.Add(1)
	next := new(receiver)
	n.turn.Store(next)
	go n.receive(next) // close waits for the one that closes ended, and for the others so long
}

// waitLost waits for handlers that did not come back, for some time.
func (n *notifier) waitLost() {
	for end := time.Now().Add(lostFor); n.lost.Load() > 0 && time.Now().Before(end); {
		n.rushes.second.kick() // which may have been about to wait
		time.Sleep(time.Millisecond)
	}
}
