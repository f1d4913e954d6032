// SPDX-License-Identifier: Apache-2.0

// Threads that wait in a trapped send or receive of datagrams.

package netmod

import (
	"io"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// A packetWait is a thread that waits in a trapped send or receive.
type packetWait struct {
	call   *intercept.Call
	x      *transfer
	timer  *time.Timer
	answer *intercept.Action // nil while it waits
}

// park lets a thread wait for the socket.
func (s *packet) park(list *[]*packetWait, c *intercept.Call, x *transfer, timeout time.Duration) intercept.Action {
	w := &packetWait{call: c, x: x}
	*list = append(*list, w)
	leave := func() bool {
		for i, v := range *list {
			if v == w {
				*list = append((*list)[:i:i], (*list)[i+1:]...)
				return true
			}
		}
		return false
	}
	if timeout > 0 {
		w.timer = time.AfterFunc(timeout, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if leave() {
				w.finish(s.failed(w, unix.EAGAIN))
			}
		})
	}
	s.m.pump.schedule(&s.job, nudge)
	return c.Park(func(intercept.Reason) intercept.Action {
		s.mu.Lock()
		defer s.mu.Unlock()
		if leave() && w.timer != nil {
			w.timer.Stop()
		}
		s.m.pump.schedule(&s.job, nudge)
		if w.answer != nil { // the wait was over, and what was done for it is told
			return *w.answer
		}
		if b := w.x.batch; b != nil && b.done > 0 {
			return b.result(w.call, s, 0)
		}
		if timeout > 0 {
			return intercept.Fail(unix.EINTR)
		}
		return intercept.Restart()
	})
}

// failed answers a thread whose wait has ended with an error.
func (s *packet) failed(w *packetWait, e unix.Errno) intercept.Action {
	if w.x.batch != nil {
		return w.x.batch.result(w.call, s, e)
	}
	return intercept.Fail(e)
}

// finish answers a thread. If it is wanted in this moment its cancel function, which waits
// for the socket's mutex, answers the same.
func (w *packetWait) finish(a intercept.Action) {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.answer = &a
	w.call.Complete(a)
}

// serveReaders answers threads that wait in a trapped receive.
func (s *packet) serveReaders() {
	for len(s.readers) > 0 {
		w := s.readers[0]
		if e := s.soErr; e != 0 {
			s.soErr = 0
			s.readers = s.readers[1:]
			s.showErrors() // the queue, before the thread can look for it
			w.finish(s.failed(w, e))
			continue
		}
		buf := getBuffer()
		peek := w.x.flags&unix.MSG_PEEK != 0
		_, size, m, err := s.next(*buf, peek)
		b := w.x.batch
		ends := b != nil && b.flags&unix.MSG_DONTWAIT != 0 // when it has all that was there
		if err != nil && (intercept.Errno(err) == unix.EAGAIN || err == io.EOF && ends) {
			putBuffer(buf)
			if ends {
				s.readers = s.readers[1:]
				w.finish(b.result(w.call, s, unix.EAGAIN))
				continue
			}
			return
		}
		n := 0
		switch err {
		case nil:
			s.tookStamp(m.Stamp)
			n, err = s.hand(w.call, w.x, (*buf)[:min(size, len(*buf))], size, m)
		case io.EOF: // shut meanwhile
			err = s.shut(w.call, w.x, true)
		}
		a := intercept.Return(int64(n))
		if err != nil {
			a = s.failed(w, intercept.Errno(err))
		} else if w.x.batch != nil {
			var end bool
			if end, a = s.goOn(w); !end {
				putBuffer(buf)
				continue
			}
		}
		s.readers = s.readers[1:]
		w.finish(a)
		putBuffer(buf)
	}
}

// serveWriters tries again for threads that wait in a trapped send. The mutex is held from
// when a message is sent until that is told: a call that is taken back sends it again.
func (s *packet) serveWriters() {
	for len(s.writers) > 0 {
		w := s.writers[0]
		n, err := s.sendOneLocked(w.call, -1, w.x)
		if err != nil && intercept.Errno(err) == unix.EAGAIN {
			return
		}
		if len(s.writers) > 0 && s.writers[0] == w {
			s.writers = s.writers[1:]
		}
		a := intercept.Return(int64(n))
		if err != nil {
			a = intercept.Fail(intercept.Errno(err))
		}
		w.finish(a)
	}
}
