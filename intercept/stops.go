// SPDX-License-Identifier: Apache-2.0

// Stops of the first process.
//
// The kernel tells a parent, by SIGCHLD, that a child has stopped, and a tracer that what it traces
// has: three times for each execve(2) that is injected, to be handled by a thread that is woken
// for nothing. So it is asked to tell of ends alone (SA_NOCLDSTOP), and a thread waits for the
// stops of the first process, where somebody wants to know.

package intercept

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stopsUntold has the kernel send this process no SIGCHLD for children that stop or go on. The
// signal is being notified (os/signal), so that the runtime has its handler in place.
func stopsUntold() {
	var act struct { // struct sigaction of the kernel, <asm-generic/signal.h>
		handler, flags, restorer uintptr
		mask                     uint64
	}
	const noCldStop = 1 // SA_NOCLDSTOP
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), 0, uintptr(unsafe.Pointer(&act)), unsafe.Sizeof(act.mask), 0, 0); errno == 0 {
		act.flags |= noCldStop
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), uintptr(unsafe.Pointer(&act)), 0, unsafe.Sizeof(act.mask), 0, 0)
	}
}

// A stopWatch is the goroutine that waits for stops.
type stopWatch struct {
	quit   atomic.Bool   // it is to end
	looked chan struct{} // capacity 1: the family has looked
	done   chan struct{} // closed when it has ended

	mu  sync.Mutex
	tid int // thread of the goroutine; 0: it has none yet, or no more. Guarded by mu
}

func newStopWatch() *stopWatch {
	return &stopWatch{looked: make(chan struct{}, 1), done: make(chan struct{})}
}

// run is the goroutine. nudge has the family look.
func (w *stopWatch) run(pid int, nudge func()) {
	defer close(w.done)
	MakeWakeable()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	w.on(unix.Gettid())
	defer w.on(0)
	for !w.quit.Load() {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WSTOPPED|unix.WCONTINUED|unix.WNOWAIT, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil, ended(&info):
			return // SIGCHLD has told
		}
		select {
		case <-w.looked: // before it stopped
		default:
		}
		nudge()
		<-w.looked
	}
}

func (w *stopWatch) on(tid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tid = tid
}

// wake interrupts its wait.
func (w *stopWatch) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tid != 0 {
		Wake(w.tid)
	}
}

// look lets it wait again.
func (w *stopWatch) look() {
	select {
	case w.looked <- struct{}{}:
	default:
	}
}

// end ends the goroutine, and waits for that.
func (w *stopWatch) end() {
	w.quit.Store(true)
	for again := kickEach; ; again *= 2 {
		w.look()
		w.wake()
		select {
		case <-w.done:
			return
		case <-time.After(again):
		}
	}
}

// ended reports whether a child that was waited for has ended, and not stopped or gone on.
func ended(info *unix.Siginfo) bool {
	return info.Signo != 0 && (info.Code == cldExited || info.Code == cldKilled || info.Code == cldDumped)
}

// si_code of SIGCHLD, asm-generic/siginfo.h.
const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)
