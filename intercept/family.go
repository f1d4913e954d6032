// SPDX-License-Identifier: Apache-2.0

// The family: the processes of the target as children of the supervisor; who is
// forked, reaped, signalled.

package intercept

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A family is the first process of a target and the descendants that come to us
// when their parents die.
//
// One goroutine, parent, forks and reaps. It stays locked to its thread, since the
// kernel sends the child's death signal when the thread that forked it ends.
//
// It reaps nobody else's children: the process may have others (helpers, those of
// an embedding program), waited for elsewhere. An orphan is one of ours if it has
// more filters than we have.
type family struct {
	onChange func(unix.WaitStatus)
	sigchld  chan os.Signal // capacity 1: "look again"
	quit     chan struct{}  // closed by close
	stops    *stopWatch     // nil: nobody wants to know of stops
	once     sync.Once
	wg       sync.WaitGroup
	pid      int
	filters  int // seccomp filters on ourselves

	serving chan *notifier // serve to parent; capacity 1
	exited  chan struct{}  // closed when the first process was reaped, or by close
	all     chan struct{}  // closed when nobody is left

	mu     sync.Mutex
	reaped bool
	status unix.WaitStatus
	err    error // why status is none
}

// firstborn holds the first processes of all targets of this process, so that one
// family does not reap another's. It is package-level because children are the
// process's.
var firstborn = struct {
	sync.Mutex
	pids map[int]bool
}{pids: make(map[int]bool)}

// newFamily runs fork, which returns the first process, and begins to reap.
func newFamily(onChange func(unix.WaitStatus), fork func() (int, error)) (*family, error) {
	f := &family{
		onChange: onChange,
		sigchld:  make(chan os.Signal, 1),
		quit:     make(chan struct{}),
		serving:  make(chan *notifier, 1),
		exited:   make(chan struct{}),
		all:      make(chan struct{}),
	}
	f.filters, _ = statusField(os.Getpid(), "Seccomp_filters")
	signal.Notify(f.sigchld, unix.SIGCHLD)
	stopsUntold()
	if onChange != nil {
		f.stops = newStopWatch()
	}
	forked := make(chan error)
	f.wg.Go(func() { f.parent(fork, forked) })
	if err := <-forked; err != nil {
		f.stops = nil // it does not run
		f.close()
		return nil, err
	}
	if f.stops != nil {
		go f.stops.run(f.pid, f.nudge) // close waits for it
	}
	return f, nil
}

// serve tells the family by which listener it can see its end.
func (f *family) serve(n *notifier) {
	n.nudge = f.nudge
	f.serving <- n
}

// nudge has the family look.
func (f *family) nudge() {
	select {
	case f.sigchld <- unix.SIGCHLD:
	default: // it will look anyway
	}
}

// parent is the family's goroutine.
func (f *family) parent(fork func() (int, error), forked chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer signal.Stop(f.sigchld)

	firstborn.Lock() // across the fork: no other family may see the pid unnamed
	pid, err := fork()
	if err == nil {
		f.pid = pid
		firstborn.pids[pid] = true
	}
	firstborn.Unlock()
	forked <- err
	if err != nil {
		return
	}

	var (
		n     *notifier
		ended <-chan struct{} // of n's receiver
		retry <-chan time.Time
	)
	for {
		select {
		case <-f.quit:
			return
		case n = <-f.serving:
			ended = n.ended
		case <-ended:
			ended = nil // hung up: from now on only the dead are left
		case <-f.sigchld:
		case <-retry:
			retry = nil
		}
		f.reapFirst()
		// While anybody may call, only the dead matter; a look at all children takes long.
		dying := (n == nil || ended == nil || someDead()) && f.reapOrphans()
		if n == nil {
			continue
		}
		if ended != nil && n.l.hungUp() {
			// Before 6.11 the kernel does not wake the receiver. ended follows.
			n.stop()
			continue
		}
		switch {
		case ended != nil || !f.hasExited():
		case dying:
			retry = time.After(time.Millisecond) // on its last steps
		default:
			close(f.all)
			<-f.quit
			return
		}
	}
}

// reapFirst collects what the first process has to tell.
func (f *family) reapFirst() {
	for !f.hasExited() {
		var ws unix.WaitStatus
		f.mu.Lock()
		pid, busy, err := wait4(f.pid, &ws, unix.WUNTRACED|unix.WCONTINUED)
		ended := pid == f.pid && (ws.Exited() || ws.Signaled())
		if errors.Is(err, unix.EINTR) {
			f.mu.Unlock()
			continue
		}
		if err != nil { // somebody else has waited for all children
			f.err = fmt.Errorf("wait for %d: %w", f.pid, err)
			ended = true
		}
		if ended {
			f.reaped, f.status = true, ws
		}
		f.mu.Unlock()
		switch {
		case ended:
			firstborn.Lock()
			delete(firstborn.pids, f.pid)
			firstborn.Unlock()
			close(f.exited)
			if f.stops != nil {
				f.stops.look()
			}
		case busy: // we are nudged when it is over
			return
		case pid == 0:
			if f.stops != nil {
				f.stops.look()
			}
			return
		case f.onChange != nil:
			f.onChange(ws)
		}
	}
}

// reapOrphans reaps descendants that were given to us and have ended. dying says
// that others are ending right now.
func (f *family) reapOrphans() (dying bool) {
	for reaped := true; reaped; { // whose children are ours now, and may have come after we looked
		reaped, dying = false, false
		for _, pid := range children() {
			filters, err := statusField(pid, "Seccomp_filters")
			if err != nil || filters <= f.filters {
				continue
			}
			firstborn.Lock()
			if !firstborn.pids[pid] {
				got, busy, err := wait4(pid, nil, 0)
				reaped = reaped || got == pid
				dying = dying || err == nil && got == 0 && (busy || exiting(pid))
			}
			firstborn.Unlock()
		}
	}
	return dying
}

// someDead reports whether a child of ours has ended and was not waited for, be it whose it
// may; or it may be so, as one that is traced is seen first when it stops.
func someDead() bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil)
	return err == nil && info.Signo != 0
}

// children returns our own children.
func children() []int { return childrenOf("self") }

// childrenOf returns the children of all threads of a process, as /proc names it
// (proc_tid_children(5)).
func childrenOf(process string) []int {
	var pids []int
	tasks := "/proc/" + process + "/task/"
	dir, err := os.Open(tasks)
	if err != nil {
		return nil
	}
	defer dir.Close()
	tids, _ := dir.Readdirnames(-1)
	var buf procFile
	for _, tid := range tids {
		b, err := ReadProc(tasks+tid+"/children", buf[:])
		if err != nil {
			continue
		}
		for _, word := range bytes.Fields(b) {
			if pid, err := strconv.Atoi(string(word)); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func (f *family) hasExited() bool {
	select {
	case <-f.exited:
		return true
	default:
		return false
	}
}

// signal sends sig to the first process, if it has not been reaped.
func (f *family) signal(sig unix.Signal) error {
	f.mu.Lock() // the number is its own until reapFirst has it
	defer f.mu.Unlock()
	if f.reaped {
		return unix.ESRCH
	}
	return unix.Kill(f.pid, sig)
}

// kill ends the first process.
func (f *family) kill() { _ = f.signal(unix.SIGKILL) }

// close ends the goroutine. Who is not reaped by then stays unreaped.
func (f *family) close() {
	f.once.Do(func() {
		close(f.quit)
		if f.stops != nil {
			f.stops.end()
		}
	})
	f.wg.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.hasExited() {
		f.err = net.ErrClosed
		close(f.exited)
	}
}

// PID returns the process number of the program, its thread group.
func (s *Supervisor) PID() int { return s.f.pid }

// Wait waits for the program (the first process) to end and returns how. It may be
// called often. After Close it returns net.ErrClosed unless the end was seen before.
func (s *Supervisor) Wait() (unix.WaitStatus, error) {
	<-s.f.exited
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	return s.f.status, s.f.err
}

// WaitAll waits until no task of the target is left, daemons included, or the
// context or the Supervisor ends.
func (s *Supervisor) WaitAll(ctx context.Context) error {
	select {
	case <-s.f.all:
		return nil
	case <-s.f.quit:
		select {
		case <-s.f.all: // both; the better news
			return nil
		default:
			return net.ErrClosed
		}
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Signal sends a signal to the program (the first process); ESRCH once it has
// ended.
func (s *Supervisor) Signal(sig unix.Signal) error { return s.f.signal(sig) }

// Close ends supervision. It kills nobody, but nobody answers any more: parked
// calls are cancelled ([Gone]), and every intercepted call of tasks that are left
// fails with ENOSYS. Close waits for the goroutines and so must not be called by a
// handler. Twice is fine.
func (s *Supervisor) Close() error {
	if s.n != nil {
		s.n.close()
	}
	s.f.close()
	for _, f := range s.handed {
		f.Close()
	}
	return nil
}
