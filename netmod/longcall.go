// SPDX-License-Identifier: Apache-2.0

// Calls that may wait, made here for the program.

package netmod

import (
	"context"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// A longCall is a call that is made on a thread of its own, where it waits as long as the
// kernel has it wait: by O_NONBLOCK of the program's file, and by its time-outs.
//
// It is brought back by a signal. A call that was interrupted is made again by the kernel, with
// the same number of a descriptor (SA_RESTART, which all handlers of the runtime have): so
// the number is given to a file of O_PATH first, and the call fails.
type longCall struct {
	m    *Module
	done chan struct{} // closed when answer is there

	answer intercept.Action // written before done is closed

	mu   sync.Mutex // a leaf; guards what follows
	fd   int        // a duplicate; -1 when the call is over
	tid  int        // of the thread while it is in the call; else 0
	back bool       // the call is to come back
}

// bringBackSignal is one that the runtime sends to its own threads, and the program to nobody here.
const bringBackSignal = unix.SIGURG

// bringBackLimit bounds how long a thread is waited for that was brought back. A file system that
// does not answer holds it longer, and then nobody hears how the call has ended.
const bringBackLimit = 100 * time.Millisecond

// mayWait answers by call, which gets a duplicate of d under a number of its own; d stays the
// caller's, files are closed at the end. A call whose system call fails with
// errBroughtBack makes no other.
func (m *Module) mayWait(c *intercept.Call, d intercept.FD, files []int, call func(fd int) (int64, error)) intercept.Action {
	fd, err := unix.FcntlInt(uintptr(d.N), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		closeFiles(files)
		return intercept.Fail(intercept.Errno(err))
	}
	// A signal ends with EINTR what has a time-out: signal(7).
	interrupted := intercept.Restart()
	if limit, err := unix.GetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO); err == nil && (limit.Sec != 0 || limit.Usec != 0) {
		interrupted = intercept.Fail(unix.EINTR)
	}
	w := &longCall{m: m, fd: fd, done: make(chan struct{})}
	m.wg.Go(func() { // ends with the call, or the module
		defer context.AfterFunc(m.ctx, w.bringBack)()
		n, err := w.run(call)
		closeFiles(files)
		w.answer = counted(n, err)
		if err == errBroughtBack {
			w.answer = interrupted
		}
		close(w.done)
		c.Complete(w.answer) // too late when it was brought back
	})
	return c.Park(func(why intercept.Reason) intercept.Action {
		w.bringBack()
		if why == intercept.Gone {
			return interrupted
		}
		select {
		case <-w.done:
			return w.answer
		case <-time.After(bringBackLimit):
			return interrupted
		}
	})
}

// errBroughtBack is how a call ends that has not come to its end.
const errBroughtBack = unix.EBADF

// run makes the call.
func (w *longCall) run(call func(fd int) (int64, error)) (n int64, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		w.mu.Lock()
		back := w.back
		w.tid = unix.Gettid()
		w.mu.Unlock()
		err = errBroughtBack
		if !back {
			n, err = call(w.fd)
		}
		w.mu.Lock()
		w.tid = 0
		if err == unix.EINTR && !w.back { // by a signal of the runtime's
			w.mu.Unlock()
			continue
		}
		if err == unix.EINTR {
			err = errBroughtBack
		}
		unix.Close(w.fd)
		w.fd = -1
		w.mu.Unlock()
		return n, err
	}
}

// bringBack ends the call if it waits.
func (w *longCall) bringBack() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.back || w.fd < 0 {
		return
	}
	w.back = true
	_ = unix.Dup3(w.m.meet.nook.path, w.fd, unix.O_CLOEXEC) // both are open, and so it is done
	if w.tid != 0 {
		_ = unix.Tgkill(os.Getpid(), w.tid, bringBackSignal)
	}
}

// counted answers a call that returns a number, or fails.
func counted(n int64, err error) intercept.Action {
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	return intercept.Return(n)
}

// closeFiles closes descriptors, of which -1 is none.
func closeFiles(files []int) {
	for _, fd := range files {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
