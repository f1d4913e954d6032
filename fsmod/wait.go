// SPDX-License-Identifier: Apache-2.0

// Opens that wait: of a FIFO for its other end, of a leased file, of a device.

package fsmod

import (
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// mostWaiting bounds the opens that wait for another program: each has a thread of ours, of which Go's
// runtime has 10,000 and then gives up, and two descriptors, which all calls of the view need.
func mostWaiting() int32 {
	const most = 4096
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return most
	}
	return int32(min(limit.Cur/8, most))
}

// openWaiting opens the object anew on a goroutine of its own. A call that is interrupted
// takes its open back, so that nobody finds a reader who is not there.
func (m *Module) openWaiting(c *intercept.Call, o *object, flags int) intercept.Action {
	over := func() {}
	if t := o.typ(); flags&unix.O_NONBLOCK == 0 && (t == unix.S_IFREG || t == unix.S_IFIFO && flags&unix.O_ACCMODE != unix.O_RDWR) {
		over = func() { m.waiting.Add(-1) }
		if m.waiting.Add(1) > mostWaiting() {
			over()
			m.crowded.Do(func() { m.log.Warn("so many opens wait that further ones which would wait fail with ENFILE") })
			return intercept.Fail(unix.ENFILE)
		}
	}
	fd, err := unix.FcntlInt(uintptr(o.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		over()
		return fail(err)
	}
	terminal := -1
	if o.isTerminalOfCaller() {
		if terminal, err = terminalOf(c.TID); err == nil && terminal >= 0 {
			err = faccess(fd, accessOf(flags))
		}
		if err == nil && !c.Valid() {
			err = intercept.ErrGone
		}
		if err != nil {
			unix.Close(fd)
			if terminal >= 0 {
				unix.Close(terminal)
			}
			return fail(err)
		}
		if terminal >= 0 { // whose owner is asked as little as natively
			unix.Close(fd)
			fd = terminal
		}
	}
	tag := 0
	if t := o.typ(); o.m != nil && (t == unix.S_IFREG || t == unix.S_IFDIR) {
		tag = o.m.tag
	}
	var theirs *rights
	if m.mixed.Load() && terminal < 0 {
		if theirs, err = m.rightsOf(c); err != nil {
			unix.Close(fd)
			over()
			return fail(err)
		}
	}
	w := &waitingOpen{done: make(chan struct{})}
	m.waits.Go(func() {
		defer over()
		defer unix.Close(fd)
		defer close(w.done)
		var got int
		var err error
		f := func() {
			got, err = w.open(fd, flags&^(unix.O_NOFOLLOW|unix.O_CREAT|unix.O_EXCL)|unix.O_CLOEXEC|unix.O_NOCTTY)
		}
		if theirs != nil && !theirs.ours {
			if e := m.creds.during(&theirs.credentials, f); e != nil {
				err = unix.EACCES
			}
		} else {
			f()
		}
		if err != nil {
			c.Complete(fail(err))
			return
		}
		setTag(got, tag)
		if !c.Complete(intercept.InstallFD(got, flags&unix.O_CLOEXEC != 0)) {
			unix.Close(got)
		}
	})
	return c.Park(func(intercept.Reason) intercept.Action {
		m.waits.Go(w.interrupt)
		return intercept.Restart()
	})
}

// accessOf is what access(2) is asked of a file that is opened so.
func accessOf(flags int) uint32 {
	switch flags & unix.O_ACCMODE {
	case unix.O_RDONLY:
		return unix.R_OK
	case unix.O_WRONLY:
		return unix.W_OK
	}
	return unix.R_OK | unix.W_OK
}

// A waitingOpen is an open(2) of ours that may block.
type waitingOpen struct {
	mu        sync.Mutex
	tid       int  // of the thread that is in it; 0: none. Guarded by mu
	cancelled bool // guarded by mu
	done      chan struct{}
}

func (w *waitingOpen) open(fd, flags int) (int, error) {
	intercept.MakeWakeable()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		w.mu.Lock()
		if w.cancelled {
			w.mu.Unlock()
			return -1, unix.EINTR
		}
		w.tid = unix.Gettid()
		w.mu.Unlock()
		got, err := unix.Open(procFD(fd), flags, 0)
		w.mu.Lock()
		w.tid = 0
		w.mu.Unlock()
		if err != unix.EINTR {
			return got, err
		}
	}
}

// interrupt ends the open. The signal is repeated, as its thread may be on its way into
// the call.
func (w *waitingOpen) interrupt() {
	for {
		w.mu.Lock()
		w.cancelled = true
		if w.tid != 0 {
			intercept.Wake(w.tid)
		}
		w.mu.Unlock()
		select {
		case <-w.done:
			return
		case <-time.After(time.Millisecond):
		}
	}
}
