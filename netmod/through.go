// SPDX-License-Identifier: Apache-2.0

// Trapped sends and receives on streams: those that AF_UNIX would take otherwise.

package netmod

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/stacks"
)

// send answers sendmsg(2), and sendto(2) with an address, MSG_MORE or MSG_OOB: TCP ignores the address
// (tcp(7)), AF_UNIX would not. A message without one is left to the kernel, since
// whatever the memory says by then goes into the placeholder.
func (s *stream) send(c *intercept.Call, d *held, x *transfer) intercept.Action {
	if x.flags&unix.MSG_FASTOPEN != 0 {
		return intercept.Fail(unix.EOPNOTSUPP)
	}
	more, urgent := x.flags&unix.MSG_MORE != 0, x.flags&unix.MSG_OOB != 0
	if plain := x.hdr != 0 && len(x.to) == 0 && !more && !urgent; plain && s.m.paths != nil {
		return s.m.sendCopy(c, d.FD, x)
	} else if plain {
		return intercept.Continue()
	}
	try := func() (int, error) {
		buf := getBuffer()
		defer putBuffer(buf)
		n, err := x.gather(c, *buf)
		if err != nil {
			return 0, err
		}
		if more || urgent {
			s.mu.Lock()
			defer s.mu.Unlock()
		}
		if more {
			s.corkLocked()
			defer s.upCorkedLocked()
		}
		n, err = unix.SendmsgN(d.N, (*buf)[:n], nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if urgent && n > 0 {
			s.markLocked()
		}
		if err == unix.ENOTCONN || err == unix.EINVAL {
			err = unix.EPIPE
		}
		return n, err
	}
	return s.natively(c, d, x.flags, unix.EPOLLOUT, try, nil)
}

// markLocked makes the last byte that was written urgent. The pump, which has not
// moved it yet, waits for the mutex.
func (s *stream) markLocked() {
	u, ok := s.tcp.(stacks.Urgent)
	if !ok || s.state != connected || s.gone || s.stubbed {
		return
	}
	n, err := unix.IoctlGetInt(s.peer, unix.TIOCINQ)
	if err != nil || n <= s.lag {
		return
	}
	s.endBypass(nil)
	if !u.MarkUrgent(n - s.lag - 1 + len(s.traffic.restUp)) {
		s.m.warnOnce("urgent", "urgent data is sent as ordinary data, in its place")
	}
	s.up(quantum)
}

// corkLocked sends what was written so far, and lets what follows be held back.
func (s *stream) corkLocked() {
	if s.state != connected || s.gone || s.stubbed {
		return
	}
	s.endBypass(nil)
	s.up(quantum)
	if c, ok := s.tcp.(stacks.Corked); ok && s.state == connected {
		c.More(true)
		s.more = true
	}
}

// upCorkedLocked moves what was written with MSG_MORE. What the pump moves later was
// written without it, and ends the cork.
func (s *stream) upCorkedLocked() {
	if more := s.more; more && s.state == connected && !s.gone {
		s.more = false
		s.up(quantum)
		s.more = s.state == connected
	}
}

// uncorkLocked is called when data was moved that came without MSG_MORE.
func (s *stream) uncorkLocked() {
	if c, ok := s.tcp.(stacks.Corked); ok && s.more {
		s.more = false
		c.More(false)
	}
}

// recv answers recvmsg(2), and recvfrom(2) with an address or with MSG_TRUNC or
// MSG_ERRQUEUE: TCP tells no address, AF_UNIX would tell that of the module's end;
// MSG_TRUNC drops the bytes (tcp(7)). So it does recvmsg(2) where stamps are told.
// Others are left to the kernel.
func (s *stream) recv(c *intercept.Call, d *held, x *transfer) intercept.Action {
	if x.flags&unix.MSG_ERRQUEUE != 0 {
		return s.recvError(c, d, x)
	}
	stamped := x.hdr != 0 && s.came.asked.Load()
	if x.name == 0 && !stamped && x.flags&unix.MSG_TRUNC == 0 || x.flags&unix.MSG_OOB != 0 {
		return intercept.Continue()
	}
	var had int64 // bytes that MSG_WAITALL has taken so far
	all := x.flags&(unix.MSG_WAITALL|unix.MSG_PEEK|unix.MSG_TRUNC) == unix.MSG_WAITALL
	fd := d.N
	try := func() (int, error) {
		buf := getBuffer()
		defer putBuffer(buf)
		n, err := x.takeStream(c, fd, (*buf)[:min(x.left(), len(*buf))])
		if err != nil {
			return 0, err
		}
		if err := s.tell(c, x, fd, n); err != nil || !all {
			return n, err
		}
		x.skip(n)
		had += int64(n)
		if n > 0 && x.left() > 0 {
			return 0, unix.EAGAIN
		}
		return int(had), nil
	}
	return s.natively(c, d, x.flags, unix.EPOLLIN, try, &had)
}

// takeStream receives from a placeholder what there is, by way of buf. What cannot be stored
// stays there, as a segment does (net/ipv4/tcp.c:tcp_recvmsg_locked). Nothing can be put back:
// so it is stored first, and then taken.
func (x *transfer) takeStream(c *intercept.Call, fd int, buf []byte) (int, error) {
	if x.flags&unix.MSG_TRUNC != 0 {
		return recvOnce(fd, buf, x.flags&unix.MSG_PEEK)
	}
	n, err := recvOnce(fd, buf, unix.MSG_PEEK)
	if err == nil {
		_, err = x.scatter(c, buf[:n])
	}
	if err != nil || n == 0 || x.flags&unix.MSG_PEEK != 0 {
		return n, err
	}
	taken := getBuffer()
	defer putBuffer(taken)
	n, err = recvOnce(fd, (*taken)[:n], 0)
	if err == nil && !bytes.Equal((*taken)[:n], buf[:n]) { // another thread has taken those
		_, err = x.scatter(c, (*taken)[:n])
	}
	return n, err
}

// left is how many bytes there is room for.
func (x *transfer) left() int {
	n := uint64(0)
	for _, v := range x.iov {
		n = min(n+v[1], math.MaxInt32)
	}
	return int(n)
}

// skip takes the first n bytes off the buffers.
func (x *transfer) skip(n int) {
	for i := range x.iov {
		k := min(x.iov[i][1], uint64(n))
		x.iov[i][0] += k
		x.iov[i][1] -= k
		n -= int(k)
	}
}

// noName stores that there is no address and no control message.
func (s *stream) noName(c *intercept.Call, x *transfer) error {
	var zero [12]byte
	if x.hdr == 0 {
		if x.name == 0 {
			return nil
		}
		return c.WriteMem(x.nameLen, zero[:4])
	}
	if x.name != 0 { // else msg_namelen is left alone
		if err := c.WriteMem(x.hdr+8, zero[:4]); err != nil {
			return err
		}
	}
	return c.WriteMem(x.hdr+40, zero[:12]) // msg_controllen, msg_flags
}

// natively does try, an operation on the placeholder itself that does not block,
// and lets the thread wait for events where it would have to. A goroutine waits
// for it: such calls are rare. had, if not nil, is what earlier tries have taken: the
// call returns that when it would fail.
func (s *stream) natively(c *intercept.Call, d *held, flags int, events uint32, try func() (int, error), had *int64) intercept.Action {
	answer := func(n int, err error) intercept.Action {
		if err != nil && had != nil && *had > 0 {
			return intercept.Return(*had)
		}
		return counted(int64(n), err)
	}
	n, err := try()
	if intercept.Errno(err) != unix.EAGAIN || flags&unix.MSG_DONTWAIT != 0 || nonblocking(d.N) {
		return answer(n, err)
	}
	fd := d.take()
	ready, err := newReadiness(fd.N, events)
	if err != nil {
		fd.Close()
		s.m.log.Error("wait for a placeholder", "err", err)
		return intercept.Fail(unix.ENOBUFS)
	}
	s.mu.Lock()
	timeout := s.rcvTimeo
	if events == unix.EPOLLOUT {
		timeout = s.sndTimeo
	}
	s.mu.Unlock()
	var deadline time.Time
	if timeout > 0 {
		deadline = time.Now().Add(timeout)
	}
	// Bytes that were moved must be told, also to a call that is taken back meanwhile.
	var mu sync.Mutex // held during try, before s.mu; guards what follows, and had
	var end *intercept.Action
	back := false
	step := func(err error) (over bool) {
		mu.Lock()
		defer mu.Unlock()
		n := 0
		switch {
		case back:
			return true
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = unix.EAGAIN
		case err != nil: // the module ends
			return true
		default:
			if n, err = try(); intercept.Errno(err) == unix.EAGAIN {
				return false
			}
		}
		a := answer(n, err)
		end = &a
		return true
	}
	stop := context.AfterFunc(s.m.ctx, ready.close)
	s.m.wg.Go(func() {
		defer fd.Close()
		defer ready.close()
		defer stop()
		for !step(ready.wait(deadline)) {
		}
		if end != nil { // too late when it was taken back
			c.Complete(*end)
		}
	})
	return c.Park(func(intercept.Reason) intercept.Action {
		ready.close()
		mu.Lock()
		defer mu.Unlock()
		back = true
		if end != nil {
			return *end
		}
		if timeout > 0 || had != nil && *had > 0 {
			return answer(0, unix.EINTR)
		}
		return intercept.Restart()
	})
}
