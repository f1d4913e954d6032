// SPDX-License-Identifier: Apache-2.0

// The watcher of parked calls: notices that a parked thread must be let go.

package intercept

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// How often the state of a parked thread is looked at. A thread is looked at often
// while it is young, since most signals that hit a waiting call are timers of the
// program and come soon; and very often after it was interrupted, as a program with
// a fast timer would lose ticks.
const (
	watchYoung = 2 * time.Millisecond
	youngFor   = 20 * time.Millisecond
	watchOld   = 10 * time.Millisecond
	watchHot   = 300 * time.Microsecond
	hotFor     = 100 * time.Millisecond

	// A look takes about 3 µs (BenchmarkLook). From 500 parked threads on, old ones
	// are looked at less often, so that the watcher takes a sixth of a processor.
	watchEach = 20 * time.Microsecond
)

// A watcher looks after the parked calls of a notifier.
//
// With WAIT_KILLABLE_RECV a thread whose call was received sleeps interruptibly
// (state S) until a signal, a stop, a tracer or the freezer wants it; from then on
// it sleeps so that only a fatal signal ends it (state D). So D with a valid id says
// exactly, and for good, "this thread is wanted": its call is cancelled and answered
// with ERESTARTSYS or EINTR, and the kernel does what it does for any interrupted
// call. (The masks SigPnd and ShdPnd do not: a signal of the group may be another
// thread's, and a tracer shows in neither.)
//
// Without WAIT_KILLABLE_RECV the kernel ends the call by itself; the watcher sees
// that the id is no longer valid, or the thread calls again: Gone in both cases.
//
// One goroutine, run; it sleeps on a timer that is not armed while nothing is parked.
type watcher struct {
	n     *notifier
	timer *time.Timer
	nap   napper
	quit  chan struct{} // closed by stop
	once  sync.Once

	parked atomic.Int32 // entries of byTID

	mu     sync.Mutex
	wakeAt time.Time         // when run looks next; zero: not before add arms the timer
	byTID  map[int]*watched  // one thread has one call at most
	stale  []*watched        // replaced in byTID; look closes them
	hot    map[int]time.Time // threads that were interrupted, until when they are hot
	over   bool              // nothing is watched any more
}

// watched is a parked call; fields are run's but for call.
type watched struct {
	call  *Call
	since time.Time
	due   time.Time
	stat  int // descriptor of /proc/TID/stat, -1: not open
}

func newWatcher(n *notifier) (*watcher, error) {
	nap, err := newNapper()
	if err != nil {
		return nil, err
	}
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &watcher{n: n, timer: t, nap: nap, quit: make(chan struct{}), byTID: make(map[int]*watched), hot: make(map[int]time.Time)}, nil
}

// stop ends run, which then takes back all that is parked. The receiver has ended
// or ends: nothing is added any more, but by receivers that have lost their turn.
func (w *watcher) stop() { w.once.Do(func() { close(w.quit) }) }

// add watches a call that has just been parked. Its receiver may be the second, or have lost its
// turn: then the call may be over, and another of the thread, or of the same number, be watched.
func (w *watcher) add(c *Call) {
	now := time.Now()
	e := &watched{call: c, since: now, stat: -1}
	beside := c.by != nil && (c.by.second || c.by.waits.Load() == lost)
	w.mu.Lock()
	// What is there now is older as long as this call waits; what is newer comes after it.
	if w.over || beside && !w.n.Valid(c) {
		w.mu.Unlock()
		w.cancel(e, Gone)
		return
	}
	defer w.mu.Unlock()
	e.due = now.Add(w.intervalLocked(e, now))
	if old := w.byTID[c.TID]; old != nil {
		w.stale = append(w.stale, old)
	} else {
		w.parked.Add(1)
	}
	w.byTID[c.TID] = e
	if w.wakeAt.IsZero() || e.due.Before(w.wakeAt) {
		w.wakeAt = e.due
		w.timer.Reset(e.due.Sub(now))
	}
}

// supersede takes back what thread tid has parked: it calls again, so the parked
// call is over.
func (w *watcher) supersede(tid int) {
	if w.parked.Load() == 0 {
		return
	}
	w.mu.Lock()
	e := w.byTID[tid]
	w.mu.Unlock()
	if e != nil {
		w.cancel(e, Gone)
	}
}

// intervalLocked is how long to wait until the next look at e.
func (w *watcher) intervalLocked(e *watched, now time.Time) time.Duration {
	switch until, hot := w.hot[e.call.TID]; {
	case hot && now.Before(until):
		return watchHot
	case now.Sub(e.since) < youngFor:
		return watchYoung
	}
	return max(watchOld, time.Duration(len(w.byTID))*watchEach)
}

// run is the watcher's goroutine.
func (w *watcher) run() {
	defer w.nap.close()
	defer w.cancelAll()
	for {
		select {
		case <-w.quit:
			return
		case <-w.timer.C:
		}
		for {
			d, more := w.look(time.Now())
			if !more {
				break
			}
			if !w.sleep(d) {
				return
			}
		}
	}
}

// sleep waits for d and reports false if the watcher was stopped.
func (w *watcher) sleep(d time.Duration) bool {
	if d < time.Millisecond {
		w.nap.sleep(max(d, 50*time.Microsecond))
		select {
		case <-w.quit:
			return false
		default:
			return true
		}
	}
	w.mu.Lock() // add may have brought wakeAt forward since look
	w.timer.Reset(time.Until(w.wakeAt))
	w.mu.Unlock()
	select {
	case <-w.quit:
		return false
	case <-w.timer.C:
		return true
	}
}

// look examines what is due and returns the time until the next look; more is
// false when nothing is left to watch, and add will arm the timer again.
func (w *watcher) look(now time.Time) (next time.Duration, more bool) {
	w.mu.Lock()
	for _, e := range w.stale {
		e.close()
	}
	w.stale = nil
	var due []*watched
	for tid, e := range w.byTID {
		if !e.call.Parked() {
			e.close()
			delete(w.byTID, tid)
			w.parked.Add(-1)
		} else if !now.Before(e.due) {
			due = append(due, e)
		}
	}
	w.mu.Unlock()

	for _, e := range due {
		w.examine(e)
	}

	w.mu.Lock()
	defer w.mu.Unlock()
	next = time.Hour // of what is left, something is due before
	for tid, until := range w.hot {
		if now.After(until) {
			delete(w.hot, tid)
		} else {
			next = watchHot // it will be back in a moment
		}
	}
	for _, e := range due {
		e.due = now.Add(w.intervalLocked(e, now))
	}
	for _, e := range w.byTID {
		next = min(next, e.due.Sub(now))
	}
	if len(w.byTID) == 0 && len(w.hot) == 0 {
		w.wakeAt = time.Time{}
		return 0, false
	}
	w.wakeAt = now.Add(next)
	return max(time.Until(w.wakeAt), 0), true
}

// examine looks at one parked thread.
func (w *watcher) examine(e *watched) {
	state, err := e.state()
	// The id is looked at last: if it is still valid, the thread that was
	// examined is the one that waits.
	switch valid := w.n.Valid(e.call); {
	case !valid:
		w.cancel(e, Gone)
	case err == nil && state == 'D':
		w.mu.Lock()
		w.hot[e.call.TID] = time.Now().Add(hotFor)
		w.mu.Unlock()
		w.cancel(e, Interrupted)
	}
}

func (w *watcher) cancel(e *watched, r Reason) {
	if _, err := e.call.Cancel(r); err != nil {
		w.n.panicked(err)
	}
}

// cancelAll ends the watch.
func (w *watcher) cancelAll() {
	w.timer.Stop()
	w.mu.Lock()
	all := w.stale
	for _, e := range w.byTID {
		all = append(all, e)
	}
	w.byTID, w.stale, w.over = make(map[int]*watched), nil, true
	w.parked.Store(0)
	w.mu.Unlock()
	for _, e := range all {
		w.cancel(e, Gone)
		e.close()
	}
}

// state returns the state character of the thread, proc_pid_stat(5). The file is
// opened at the first look: most parked calls are over before.
func (e *watched) state() (byte, error) {
	if e.stat < 0 {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/stat", e.call.TID), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, err
		}
		e.stat = fd
	}
	var buf [128]byte // "TID (comm) S", comm at most 64 bytes
	n, err := unix.Pread(e.stat, buf[:], 0)
	if err != nil {
		return 0, err
	}
	// comm may contain anything, also ") D".
	i := bytes.LastIndexByte(buf[:n], ')')
	if i < 0 || i+2 >= n {
		return 0, unix.ENODATA
	}
	return buf[i+2], nil
}

func (e *watched) close() {
	if e.stat >= 0 {
		unix.Close(e.stat)
		e.stat = -1
	}
}
