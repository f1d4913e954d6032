// SPDX-License-Identifier: Apache-2.0

// Rushes: programs that call without a pause, answered by threads that wait in the kernel.
//
// A receiver usually waits as Go waits for sockets (see notifier.receive), which costs it half
// a dozen steps for each call. That is right where a call makes goroutines run. A program that
// asks for one file after the other makes none run: after rushCalls calls to rules that are
// [Rule.Apart], in a short time, the receiver keeps to its thread and waits in
// SECCOMP_IOCTL_NOTIF_RECV itself, until some other call comes, or few.
//
// Who calls is brought to the receiver's processor by the kernel's hand-over
// (SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP). For one thread that calls nothing is faster. Where
// several do, they soon share one processor and the others idle. Then there is a second
// receiver, on a thread and a processor of its own, and no hand-over, unless so many call that
// the processors have enough to do in any case; then it is tried whether two are faster (trial.go).
// The kernel wakes both for each call; see seat for what makes that cheap. The second has an umask
// of its own: where it cannot have that (unshare(2)) there is one.
//
// The second receiver handles only calls that are apart. If it receives another it passes it on
// to the first, whose turn it is, and the rush ends with it: so those are still handled one at a
// time. As long as the second receives, the first does not wait as usual, as what it sees by
// poll(2) could be taken away before it receives.
//
// A thread in the ioctl keeps a processor of the runtime (P) for some time. Config.Waiting is
// told how many do.

package intercept

import (
	"math/bits"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// rushCalls calls that are apart make a rush if they come in rushBegins, and are judged
	// together while it lasts.
	rushCalls  = 64
	rushBegins = 5 * time.Millisecond

	// A rush ends when rushCalls calls take longer than this.
	rushEnds = 50 * time.Millisecond

	// rushChanges is how many of rushCalls calls are by another thread than the one before
	// when several threads call at the same time. Of programs that run one after the other
	// fewer are.
	rushChanges = rushCalls / 4

	// rushAlone is how many times in turn one thread has made all calls when the second
	// receiver leaves.
	rushAlone = 6

	// kickEach is how long to wait for a thread to hear Wake.
	kickEach = time.Millisecond
)

// A rush is its state in a notifier. It lasts as long as usher runs.
type rush struct {
	on      bool              // now. Of the receiver whose turn it is
	waiting func(threads int) // Config.Waiting, or nil

	calming atomic.Bool   // it is to end
	hurry   chan struct{} // capacity 1: tells the usher
	over    chan struct{} // closed when it is. Of the receiver whose turn it is
	judged  atomic.Uint32 // how often calls were judged
	first   perch         // of the first receiver
	asked   bool          // the usher has been told of calming. Of the receiver whose turn it is

	alone    atomic.Bool   // there can be no second receiver
	two      atomic.Bool   // there are to be two receivers
	second   perch         // of the second
	wanted   chan struct{} // capacity 1: it is to receive; nil: there is none yet. Of the receiver whose turn it is
	passed   chan *notification
	sync     atomic.Bool      // the kernel hands over
	assisted atomic.Int64     // calls that the second receiver has answered and the first has not counted
	trial    trial            // of the receiver whose turn it is
	seen     [2]atomic.Uint64 // threads that have called each receiver, as bits, until the other has looked
}

// A window is what a receiver has seen of a rush since calls were judged last.
type window struct {
	calls, changes int
	last           uint32 // thread that called last
	seen           uint64 // threads that called: bit n is for those of number n modulo 64
	since          time.Time
	alone          int // how many times in turn one thread had made all calls
}

// begins counts calls outside of a rush, and reports whether there is one.
func (w *window) begins(apart bool) bool {
	if !apart {
		w.calls = 0
		return false
	}
	if w.calls == 0 {
		w.since = time.Now()
	}
	if w.calls++; w.calls < rushCalls {
		return false
	}
	w.calls = 0
	return time.Since(w.since) < rushBegins
}

// add counts a call in a rush, and reports whether it is time to judge.
func (w *window) add(tid uint32) bool {
	if tid != w.last {
		w.last = tid
		w.changes++
	}
	w.seen |= 1 << (tid % 64)
	w.calls++
	return w.calls >= rushCalls
}

// rush receives while it lasts, and reports whether the receiver goes on.
func (n *notifier) rush(r *receiver) bool {
	u := &n.rushes
	MakeWakeable()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer r.seat.leave()
	u.first.tid.Store(int32(unix.Gettid()))
	r.window = window{since: time.Now()}
	if u.over == nil { // else it was another receiver's
		u.over = make(chan struct{})
		n.l.unwatch()
		over := u.over
		n.wg.Go(func() { n.usher(over) })
		u.tell(1)
	} else if u.two.Load() {
		r.seat.take(0)
	}
	for {
		nt := &r.nt
		select {
		case nt = <-u.passed:
		default:
			switch {
			case n.stopping.Load():
				n.endRush()
				return false
			case u.calming.Load() && n.calm():
				return true
			}
			err := u.first.recv(&n.l, nt)
			switch {
			case err == unix.EINTR:
				continue
			case err == unix.ENOENT && !n.l.hungUp(): // its thread is gone
				continue
			case err != nil:
				if err != unix.ENOENT {
					n.failed(err)
				}
				n.endRush()
				return false
			}
		}
		r.calls++
		tid := nt.pid
		apart := n.handle(r, nt, n.meter.read())
		if !r.back() {
			return false
		}
		switch {
		case !apart:
			u.calming.Store(true)
		case r.window.add(tid):
			n.judge(r)
		}
	}
}

// calm ends the rush, unless the second receiver has not left yet.
func (n *notifier) calm() bool {
	u := &n.rushes
	if !n.dismiss() {
		if !u.asked {
			u.asked = true
			u.look()
		}
		return false
	}
	if err := n.l.watch(); err != nil {
		n.log.Debug("wait for calls by poll", "err", err)
		u.asked = false
		u.calming.Store(false) // it goes on
		return false
	}
	n.endRush()
	n.handOverBy(true)
	return true
}

// endRush ends it, also if the second receiver is still in a handler: then nobody receives any
// more.
func (n *notifier) endRush() {
	u := &n.rushes
	n.dismiss()
	u.first.tid.Store(0)
	close(u.over)
	u.on, u.over, u.asked = false, nil, false
	u.calming.Store(false)
	u.tell(0)
}

// usher is the goroutine that sees to the end of a rush.
func (n *notifier) usher(over <-chan struct{}) {
	u := &n.rushes
	idle := time.NewTicker(rushEnds)
	defer idle.Stop()
	judged := u.judged.Load()
	for again := kickEach; ; {
		var later <-chan time.Time
		if stopping := n.stopping.Load(); u.calming.Load() || stopping {
			u.two.Store(false)
			u.second.kick()
			if stopping || u.second.tid.Load() == 0 { // else the first can do no more than to go on
				u.first.kick()
			}
			later = time.After(again)
			again = min(2*again, rushEnds) // the second may be in a handler that waits
		} else {
			again = kickEach
		}
		select {
		case <-over:
			return
		case <-u.hurry:
		case <-later:
		case <-idle.C: // nobody calls, if nothing was judged since
			now := u.judged.Load()
			if now == judged {
				u.calming.Store(true)
			}
			judged = now
		}
	}
}

// look has the usher look around.
func (u *rush) look() {
	select {
	case u.hurry <- struct{}{}:
	default: // it will
	}
}

// judge looks at the last rushCalls calls to the first receiver.
func (n *notifier) judge(r *receiver) {
	u, w := &n.rushes, &r.window
	u.judged.Add(1)
	took := time.Since(w.since)
	threads := bits.OnesCount64(w.seen | u.seen[1].Swap(0))
	calls := w.calls + int(u.assisted.Swap(0))
	many := threads >= manyThreads
	switch {
	case took > rushEnds:
		u.calming.Store(true)
	case many && !u.trial.two(u.two.Load(), calls, took):
		u.two.Store(false)
	case !u.two.Load() && w.changes >= rushChanges && took < rushBegins:
		n.enlist(r)
	case u.two.Load() && threads > 1:
		w.alone = 0
		n.handOverBy(many)
	case u.two.Load():
		if w.alone++; w.alone >= rushAlone {
			u.two.Store(false)
		}
	}
	if !u.two.Load() && n.dismiss() && r.seat.taken {
		r.seat.leave()
		n.handOverBy(true)
		u.tell(1)
	}
	u.seen[0].Store(w.seen)
	*w = window{last: w.last, since: w.since.Add(took), alone: w.alone}
}

// manyThreads is how many threads call when the processors have enough to do wherever these are.
var manyThreads = 3 * runtime.NumCPU()

// enlist has there be a second receiver.
func (n *notifier) enlist(r *receiver) {
	u := &n.rushes
	if runtime.NumCPU() < 2 || u.alone.Load() || u.second.tid.Load() != 0 {
		return
	}
	if u.wanted == nil {
		u.wanted = make(chan struct{}, 1)
		go n.assist(u.wanted) // until ended is closed
	}
	u.two.Store(true)
	u.second.tid.Store(-1)
	u.tell(2)
	n.handOverBy(false)
	r.seat.take(0)
	u.wanted <- struct{}{}
}

// dismiss has the second receiver leave, and reports whether it has.
func (n *notifier) dismiss() bool {
	u := &n.rushes
	u.two.Store(false)
	u.second.kick()
	return u.second.tid.Load() == 0
}

// assist is the goroutine of the second receiver.
func (n *notifier) assist(wanted <-chan struct{}) {
	runtime.LockOSThread() // for good: its seat is the thread's, and its umask
	u := &n.rushes
	r := &receiver{second: true}
	// A handler may have another umask for a moment, which is the other receiver's no more.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		n.log.Debug("one thread receives: unshare", "err", err)
		u.alone.Store(true)
	}
	for {
		select {
		case <-n.ended:
			return
		case <-wanted:
		}
		n.lost.Add(1) // as close does not wait for it as for the first
		r.seat.take(1)
		u.second.tid.Store(int32(unix.Gettid()))
		if u.alone.Load() {
			u.two.Store(false)
		}
		n.receiveApart(r)
		u.second.tid.Store(0)
		if u.calming.Load() {
			u.look()
		}
		n.lost.Add(-1)
	}
}

// receiveApart receives as long as there are to be two receivers.
func (n *notifier) receiveApart(r *receiver) {
	u := &n.rushes
	r.window = window{}
	for u.two.Load() && !n.stopping.Load() {
		if err := u.second.recv(&n.l, &r.nt); err != nil {
			if err != unix.EINTR && (err != unix.ENOENT || n.l.hungUp()) {
				return
			}
			continue
		}
		r.calls++
		tid := r.nt.pid
		if !n.apart(&r.nt) {
			n.passOn(r.nt)
			continue
		}
		n.handle(r, &r.nt, n.meter.read())
		if r.window.add(tid) {
			seen := r.window.seen
			threads := bits.OnesCount64(seen | u.seen[0].Swap(0))
			u.seen[1].Store(seen)
			u.assisted.Add(int64(r.window.calls))
			u.judged.Add(1)
			if threads > 1 {
				r.window.alone = 0
			} else if r.window.alone++; r.window.alone >= rushAlone {
				u.two.Store(false) // the first sees it
			}
			r.window = window{last: r.window.last, alone: r.window.alone}
		}
	}
}

// passOn gives a call to the first receiver.
func (n *notifier) passOn(nt notification) {
	u := &n.rushes
	t := time.NewTicker(kickEach)
	defer t.Stop()
	for {
		u.first.kick()
		select {
		case u.passed <- &nt:
			return
		case <-n.ended: // nobody answers any more
			return
		case <-t.C:
		}
	}
}

// handOverBy sets whether the kernel hands over on one processor.
func (n *notifier) handOverBy(sync bool) {
	if n.sync == nil && n.rushes.sync.Swap(sync) != sync {
		_ = n.l.setSync(sync)
	}
}

// tell says how many receivers wait in the kernel.
func (u *rush) tell(threads int) {
	if u.waiting != nil {
		u.waiting(threads)
	}
}
