// SPDX-License-Identifier: Apache-2.0

// Where threads stand: their working directories, kept from one look to the next.
//
// To ask /proc for a thread's directory costs more than to look at a file in it. So it is
// kept, by a descriptor of O_PATH, as long as three things hold:
//
// The thread is the same. A number that was another thread's is told by that one's pidfd,
// which is asked at each look (intercept.Call.Identify): not the kernel's order of
// numbers, nor time, decides. A thread of a clone or fork has a number that nothing is kept by.
//
// Nobody has gone elsewhere. Only a thread itself, or one that shares its directory with it
// (CLONE_FS), can go: by chdir, fchdir, chroot, unshare(CLONE_NEWNS), and by execve, after
// which a leader's number is the thread's that called it. All of these trap, and when one begins
// all that is kept is dropped, whoever it was of; nothing is kept nor used until it is known to
// be over: by what the injection says, by the thread's next call or by its end. A directory
// that is renamed or removed is still the thread's.
//
// The mounts are the same: what is kept is one table's, and dropped when another takes
// its place.
//
// What is kept keeps its file system busy, as the thread does that stands there. When that has
// ended, it is dropped as soon as it was not used for keptFor, as all that is not used.

package fsmod

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// A stand is the working directory of a thread. Who has got one leaves it, and so does who keeps
// it.
type stand struct {
	dir     int    // closed by the last who leaves
	in      *mount // that all of it is in
	table   *table
	task    *intercept.Task
	moves   uint64      // when it was asked for
	used    atomic.Bool // since it was last looked whether it is
	holders atomic.Int32
}

// hold is to be one more who leaves. False: all have left.
func (s *stand) hold() bool {
	for {
		n := s.holders.Load()
		if n == 0 {
			return false
		}
		if s.holders.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (s *stand) leave() {
	if s.holders.Add(-1) == 0 {
		unix.Close(s.dir)
	}
}

// keptFor is how long a stand is kept that nobody uses, at least; and at most twice as long.
const keptFor = 200 * time.Millisecond

// stands are those that are kept: one for a thread, and not more than there are slots.
type stands struct {
	slots [64]standSlot
	moves atomic.Uint64 // that have begun, and that are over
	aging atomic.Bool   // dropUnused will run
	ended atomic.Bool   // nothing is kept any more

	moving atomic.Int32 // how many movers there are
	mu     sync.Mutex
	movers []*intercept.Task // threads that may be going elsewhere. Guarded by mu
}

// A standSlot is for the threads whose number, divided by that of the slots, leaves the
// slot's.
type standSlot struct {
	kept  atomic.Pointer[stand]
	asked atomic.Int64 // thread that was last looked for in vain
}

func (w *stands) slot(tid int) *standSlot { return &w.slots[tid%len(w.slots)] }

// of returns where the calling thread stands, if that is kept; else nil.
func (w *stands) of(c *intercept.Call, t *table) *stand {
	if !w.settled(c) {
		return nil
	}
	s := w.slot(c.TID).kept.Load()
	if s == nil || s.task != c.Task || s.table != t || s.moves != w.moves.Load() || !s.hold() {
		return nil
	}
	if !c.Identify() || s.task != c.Task {
		s.leave()
		return nil
	}
	if !s.used.Load() {
		s.used.Store(true)
	}
	return s
}

// keep keeps where the calling thread was found to stand after moves was read, and makes its
// own of that. It does so if it is asked twice: for one more look it is not worth it.
func (w *stands) keep(c *intercept.Call, t *table, from *base, moves uint64) {
	slot := w.slot(c.TID)
	if slot.asked.Swap(int64(c.TID)) != int64(c.TID) || w.moving.Load() != 0 || !c.Identify() {
		return
	}
	s := &stand{dir: from.dir, in: from.in, table: t, task: c.Task, moves: moves}
	s.used.Store(true)
	s.holders.Store(2)
	from.held, from.own = s, false
	if old := slot.kept.Swap(s); old != nil {
		old.leave()
	}
	if w.moves.Load() != moves || w.ended.Load() { // what was dropped then may not have been s
		slot.drop(s)
		return
	}
	w.age()
}

// drop keeps s no more.
func (slot *standSlot) drop(s *stand) {
	if slot.kept.CompareAndSwap(s, nil) {
		s.leave()
	}
}

// dropAll keeps nothing of what is kept now.
func (w *stands) dropAll() {
	for i := range w.slots {
		if s := w.slots[i].kept.Load(); s != nil {
			w.slots[i].drop(s)
		}
	}
}

// end keeps nothing from now on.
func (w *stands) end() {
	w.ended.Store(true)
	w.dropAll()
}

// age has dropUnused run in some time, if it will not anyway.
func (w *stands) age() {
	if w.aging.CompareAndSwap(false, true) {
		time.AfterFunc(keptFor, w.dropUnused)
	}
}

func (w *stands) dropUnused() {
	w.aging.Store(false) // what is kept from here on ages anew
	left := false
	for i := range w.slots {
		s := w.slots[i].kept.Load()
		if s == nil {
			continue
		}
		if s.used.Swap(false) {
			left = true
		} else {
			w.slots[i].drop(s)
		}
	}
	if left {
		w.age()
	}
}

// begin says that the calling thread may go elsewhere from now on.
func (w *stands) begin(c *intercept.Call) {
	c.Identify() // so that its end is known
	w.mu.Lock()
	defer w.mu.Unlock()
	w.movers = append(slices.DeleteFunc(w.movers, func(t *intercept.Task) bool { return t == c.Task || t.Ended() }), c.Task)
	w.moving.Store(int32(len(w.movers)))
	w.moves.Add(1)
	w.dropAll()
}

// over says that the thread is where it is.
func (w *stands) over(tid int) { w.remove(func(t *intercept.Task) bool { return t.TID() == tid }) }

// settled reports whether nobody is going elsewhere while the calling thread, which is not,
// waits.
func (w *stands) settled(c *intercept.Call) bool {
	return w.moving.Load() == 0 || w.remove(func(t *intercept.Task) bool { return t.TID() == c.TID || t.Ended() })
}

// remove forgets movers that have gone where they go, and reports whether there are no more.
func (w *stands) remove(gone func(*intercept.Task) bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := len(w.movers)
	w.movers = slices.DeleteFunc(w.movers, gone)
	if len(w.movers) < before {
		w.moves.Add(1) // before moving, which who keeps a stand reads later
		w.dropAll()
		w.moving.Store(int32(len(w.movers)))
	}
	return len(w.movers) == 0
}

// moves is Inject of what takes the thread elsewhere, or makes another program of it.
func (m *Module) moves(c *intercept.Call, run func(tid int, do func(intercept.Injected) (int64, error)) (int64, error)) intercept.Action {
	m.where.begin(c)
	return c.Inject(intercept.Injection{Run: func(tid int, do func(intercept.Injected) (int64, error)) (int64, error) {
		result, err := run(tid, do)
		if err != nil {
			m.whose.became(c)
		}
		if err == nil || err == intercept.ErrExec {
			m.where.over(c.TID)
		}
		return result, err
	}})
}

// noteNamespace sees a thread get mounts of its own, of which its directory is one then.
func (m *Module) noteNamespace(c *intercept.Call) intercept.Action {
	m.where.begin(c)
	return intercept.Next()
}
