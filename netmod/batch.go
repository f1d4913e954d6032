// SPDX-License-Identifier: Apache-2.0

// Many messages in one call: recvmmsg(2).

package netmod

import (
	"io"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// A batch is a recvmmsg under way. It ends as net/socket.c:do_recvmmsg does: when
// all messages are there, at an error, when one would have to be waited for and
// must not, or when its time is over, which is looked at after each message only.
type batch struct {
	at      intercept.Addr // of the next struct mmsghdr
	left    int            // messages that may still come
	done    int
	flags   int
	timeout intercept.Addr // struct timespec; 0: none
	end     time.Time
}

// handleRecvmmsg answers recvmmsg(2).
func (m *Module) handleRecvmmsg(c *intercept.Call) intercept.Action {
	return m.with(c, func(s socket, d *held) intercept.Action {
		p, ok := s.(*packet)
		if !ok {
			if int(int32(c.Args[3]))&unix.MSG_ERRQUEUE != 0 {
				return intercept.Fail(unix.EAGAIN)
			}
			return intercept.Continue()
		}
		b, err := readBatch(c)
		if err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		return p.recvBatch(c, d, b)
	})
}

func readBatch(c *intercept.Call) (*batch, error) {
	b := &batch{
		at:      intercept.Addr(c.Args[1]),
		left:    int(uint32(c.Args[2])),
		flags:   int(int32(c.Args[3])),
		timeout: intercept.Addr(c.Args[4]),
	}
	if b.timeout != 0 {
		var v [16]byte
		if err := c.ReadMem(b.timeout, v[:]); err != nil {
			return nil, err
		}
		sec, nsec := int64(native.Uint64(v[:])), int64(native.Uint64(v[8:]))
		if sec < 0 || nsec < 0 || nsec >= int64(time.Second) {
			return nil, unix.EINVAL
		}
		b.end = time.Now().Add(time.Duration(min(sec, int64(1<<62/time.Second)))*time.Second + time.Duration(nsec))
	}
	return b, nil
}

// next decodes the next message.
func (b *batch) next(c *intercept.Call) (*transfer, error) {
	x, err := readMsghdr(c, b.at, false)
	if err != nil {
		return nil, err
	}
	x.flags = b.flags &^ unix.MSG_WAITFORONE
	x.nameLen = b.at + sizeofMsghdr // msg_len, see deliver
	x.batch = b
	return x, nil
}

// took notes that a message was received, and tells whether there may be more.
func (b *batch) took() bool {
	b.done++
	b.left--
	b.at += sizeofMmsghdr
	if b.flags&unix.MSG_WAITFORONE != 0 {
		b.flags |= unix.MSG_DONTWAIT
	}
	return b.left > 0 && (b.timeout == 0 || time.Now().Before(b.end))
}

// result is what the call returns: the messages that were received or else the error
// e, which is told later if there are some; 0 is none. The socket's mutex is held.
func (b *batch) result(c *intercept.Call, s *packet, e unix.Errno) intercept.Action {
	if b.done == 0 && e != 0 {
		return intercept.Fail(e)
	}
	if e != 0 && e != unix.EAGAIN && e != unix.EINTR { // which says that the thread is gone
		s.soErr, s.quiet, s.unshown = e, false, true
		s.showErrors()
	}
	if b.timeout != 0 && b.done > 0 {
		rest := max(time.Until(b.end), 0)
		var v [16]byte
		native.PutUint64(v[:], uint64(rest/time.Second))
		native.PutUint64(v[8:], uint64(rest%time.Second))
		if err := c.WriteMem(b.timeout, v[:]); err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
	}
	return intercept.Return(int64(b.done))
}

// recvBatch receives what is there, and waits for the rest if it is to be waited for.
func (s *packet) recvBatch(c *intercept.Call, d *held, b *batch) intercept.Action {
	s.mu.Lock()
	defer s.mu.Unlock()
	for more := b.left > 0; more; more = b.took() {
		if b.done == iovMax { // of a socket that is shut there are as many as it likes
			c.TakesLong()
		}
		x, err := b.next(c)
		if err == nil {
			err = s.refuses(x.flags)
		}
		if err == nil {
			if x.flags&unix.MSG_ERRQUEUE != 0 { // is never waited for
				b.flags |= unix.MSG_DONTWAIT
			}
			_, err = s.recvOne(c, d.N, x)
		}
		wait := b.flags&unix.MSG_DONTWAIT == 0 && !nonblocking(d.N)
		if err == io.EOF {
			err = s.shut(c, x, wait)
		}
		if err == nil {
			continue
		}
		e := intercept.Errno(err)
		if e == unix.EAGAIN && wait {
			return s.park(&s.readers, c, x, s.rcvTimeo)
		}
		return b.result(c, s, e)
	}
	return b.result(c, s, 0)
}

// goOn looks at what a waiting recvmmsg does after a message: it waits for the next
// one, and then w.x is that, or ends with an action. The mutex is held.
func (s *packet) goOn(w *packetWait) (end bool, a intercept.Action) {
	b := w.x.batch
	if !b.took() {
		return true, b.result(w.call, s, 0)
	}
	x, err := b.next(w.call)
	if err != nil {
		return true, b.result(w.call, s, intercept.Errno(err))
	}
	w.x = x
	if w.timer != nil {
		w.timer.Reset(s.rcvTimeo)
	}
	return false, a
}
