// SPDX-License-Identifier: Apache-2.0

// Whose rights: the credentials of threads, kept from one look to the next.
//
// To ask /proc for them costs more than most calls. A thread's are kept as long as two things
// hold:
//
// The thread is the same, which its pidfd tells at each look, as it does in where.go.
//
// It has changed nothing. Credentials are the thread's own: no other changes them, and what
// glibc's setuid(3) does to all threads is a call of each. It changes them by the noted calls
// (notedCalls) and by execve. What is kept is dropped before such a call goes on, and since
// the thread waits for that, or for the answer to another call, its next look comes when they
// are what they are. By execve a thread may take its leader's number, and pidfd: until it has, the
// leader's calls keep the leader's. So both are dropped when that is done, before it runs.
//
// What was read is the calling thread's only if its call still waits afterwards: else the number
// may have been another's already, or the thread have gone on to change them, as a handler of
// a signal may. Then nothing is kept, and nothing done by it.
//
// The umask is not kept, which threads may share (CLONE_FS).

package fsmod

import (
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// Rights are the credentials of a thread. Nobody changes them once they are kept.
type rights struct {
	credentials             // without the umask
	asked       credentials // those that access(2) asks with
	ours, ask   bool        // the one and the other are ours
	task        *intercept.Task
}

// whose are those that are kept: one thread's in a slot.
type whose struct {
	slots [256]whoseSlot
}

// A whoseSlot is for the threads whose number, divided by that of the slots, leaves the slot's.
type whoseSlot struct {
	mu      sync.Mutex
	kept    *rights // guarded by mu
	changes uint64  // that threads of the slot were about to make, or have made. Guarded by mu
}

func (w *whose) slot(tid int) *whoseSlot { return &w.slots[tid%len(w.slots)] }

// drop keeps no more what thread tid could do.
func (w *whose) drop(tid int) {
	s := w.slot(tid)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	s.kept = nil
}

func (w *whose) dropAll() {
	for tid := range w.slots {
		w.drop(tid)
	}
}

// became says that a thread that called execve is another program, or has ended.
func (w *whose) became(c *intercept.Call) {
	tgid := c.Task.TGID()
	if tgid == 0 {
		w.dropAll()
		return
	}
	w.drop(c.TID)
	w.drop(tgid)
}

// rightsOf returns the credentials of the calling thread. Nobody waits for the answer to its
// call if there are none.
func (m *Module) rightsOf(c *intercept.Call) (*rights, error) {
	s := m.whose.slot(c.TID)
	s.mu.Lock()
	r, changes := s.kept, s.changes
	s.mu.Unlock()
	if r != nil && r.task == c.Task && c.Identify() && r.task == c.Task {
		return r, nil
	}
	cr, err := taskCredentials(strconv.Itoa(c.TID))
	if err != nil {
		return nil, err
	}
	same := c.Identify()
	if !c.Valid() {
		return nil, unix.ESRCH
	}
	cr.umask = 0o777 // nobody's
	r = &rights{credentials: cr, asked: cr.real(), task: c.Task}
	r.ours, r.ask = r.same(&m.creds), r.asked.same(&m.creds)
	if same {
		s.mu.Lock()
		if s.changes == changes {
			s.kept = r
		}
		s.mu.Unlock()
	}
	return r, nil
}

// noteCredentials sees a task change its credentials.
func (m *Module) noteCredentials(c *intercept.Call) intercept.Action {
	m.whose.drop(c.TID)
	if m.privileged() {
		m.mixed.Store(true)
	}
	return intercept.Next()
}

// noteIDs is noteCredentials of a call with some ids as its arguments, each of so many bits,
// which are users or groups. GNU make makes them in each of its children, for what is so.
func noteIDs(n, bits int, now func(*credentials) [4]uint32) func(*Module, *intercept.Call) intercept.Action {
	return func(m *Module, c *intercept.Call) intercept.Action {
		if m.privileged() && !m.mixed.Load() {
			cr, err := taskCredentials(strconv.Itoa(c.TID))
			if err == nil && allAre(now(&cr), c.Args[:n], bits) && c.Valid() {
				return intercept.Next()
			}
		}
		return m.noteCredentials(c)
	}
}

// allAre reports whether a call changes no id: all four are the same, and each that it asks
// for is that, or none (-1). Capabilities stay as well, which change when a user becomes root,
// or is so no more (security/commoncap.c:cap_emulate_setxuid). As long as credentials are not
// mixed no task is in a user namespace of its own: an id is what it is to us.
func allAre(now [4]uint32, args []uint64, bits int) bool {
	none := ^uint32(0) >> (32 - bits)
	for _, id := range now {
		if id != now[0] {
			return false
		}
	}
	for _, a := range args {
		if id := uint32(a) & none; id != none && id != now[0] {
			return false
		}
	}
	return true
}

func users(cr *credentials) [4]uint32  { return cr.uids }
func groups(cr *credentials) [4]uint32 { return cr.gids }
