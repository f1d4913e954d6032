// SPDX-License-Identifier: Apache-2.0

// Streams whose bytes go past the stack: between the placeholder and a descriptor of
// the link's, within the kernel.

package netmod

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/stacks"
)

const (
	// A way past the stack is asked for when a stream has moved so many bytes, or has
	// had so many turns: short connections are not worth it.
	bypassBytes = 128 << 10
	bypassTurns = 24
	// and again, where there was none, after this many times as much.
	bypassAgain = 16

	// maxBypass bounds the streams that have one: each has two pipes, for all of which
	// an ordinary user has 64 MiB (pipe(7), pipe-user-pages-soft).
	maxBypass = 100

	// pipeBytes is the size of a pipe.
	pipeBytes = 256 << 10

	// spliceMin is from how many bytes on splice(2) costs less than a copy.
	spliceMin = 16 << 10
)

// A bypass is the way past the stack of one stream. The directions change over one by
// one, when nothing is on its way by the stack: see [stacks.Conduit].
//
// Pages are moved by splice(2), by way of a pipe for each direction, which keeps what
// the other side has no room for; a few bytes are copied.
type bypass struct {
	c          stacks.Conduit
	up, down   bool // the direction has changed over
	toUp, pipe pipe
}

// A pipe is one of pipe(2), with n bytes in it.
type pipe struct{ r, w, n int }

func (p *pipe) open() error {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeBytes) // else it is smaller
	*p = pipe{r: fds[0], w: fds[1]}
	return nil
}

// close returns what was still in it.
func (p *pipe) close() (left []byte, err error) {
	if p.w == 0 {
		return nil, nil
	}
	left = make([]byte, p.n)
	for n := 0; n < len(left); {
		m, e := unix.Read(p.r, left[n:])
		if e == unix.EINTR {
			continue
		}
		if m <= 0 {
			left, err = left[:n], fmt.Errorf("read from a pipe: %w", e)
			break
		}
		n += m
	}
	unix.Close(p.r)
	unix.Close(p.w)
	*p = pipe{}
	return left, err
}

// A traffic is what a stream keeps account of for its bypass.
type traffic struct {
	sent, got uint64 // bytes, by the stack
	turns     int
	due       uint64 // when to ask, in bytes and turns
	dueTurns  int
	never     bool // the descriptor has come to its end

	restUp   []byte // was taken from the program, and is for the stack or the conduit first
	restDown []byte // was taken from the conduit, and is for the program first
}

// tryBypass asks for a way past the stack if the stream has earned one. Streams whose
// program has shut a side, or that wait for MSG_MORE, stay.
func (s *stream) tryBypass() {
	t := &s.traffic
	t.turns++
	moved := t.sent + t.got
	if s.bypass != nil || t.never || moved < t.due+bypassBytes && t.turns < t.dueTurns+bypassTurns {
		return
	}
	t.due, t.dueTurns = moved+(bypassAgain-1)*bypassBytes, t.turns+(bypassAgain-1)*bypassTurns
	from, ok := s.tcp.(stacks.Bypass)
	if !ok || s.appShut || s.appHup || s.finSent || s.downEOF || s.deaf || s.mute || s.more || s.stubbed || s.came.asked.Load() {
		return
	}
	if s.m.bypasses.Add(1) > maxBypass {
		s.m.bypasses.Add(-1)
		return
	}
	b := &bypass{}
	job := &s.job
	b.c = from.Bypass(func() { s.m.pump.schedule(job, nudge) })
	if b.c == nil {
		s.m.bypasses.Add(-1)
		return
	}
	err := unix.SetNonblock(s.peer, true)
	if err == nil {
		err = b.pipe.open()
	}
	if err == nil {
		err = b.toUp.open()
	}
	if err != nil {
		_, _ = b.pipe.close()
		s.m.bypasses.Add(-1)
		b.c.Release(nil)
		s.m.log.Debug("no way past the stack", "err", err)
		return
	}
	s.bypass = b
	if e := b.c.Control(func(fd uintptr) { err = s.m.pump.addFar(job, int(fd)) }); e != nil || err != nil {
		s.endBypass(nil)
	}
}

// endBypass leads the bytes through the stack again. err is as in
// [stacks.Conduit.Release].
func (s *stream) endBypass(err error) {
	b := s.bypass
	if b == nil {
		return
	}
	s.bypass = nil
	s.m.bypasses.Add(-1)
	down, e1 := b.pipe.close()
	up, e2 := b.toUp.close()
	if e := errors.Join(e1, e2); e != nil {
		s.m.log.Error("bytes of a stream are lost", "err", e)
	}
	s.traffic.restDown = append(s.traffic.restDown, down...)
	s.traffic.restUp = append(up, s.traffic.restUp...)
	_ = b.c.Control(func(fd uintptr) { s.m.pump.dropFar(int(fd)) }) // gone by itself where that fails
	b.c.Release(err)
	s.m.pump.schedule(&s.job, nudge)
}

// changeOver looks which directions can change over, and gives the bypass up if it is
// recalled.
func (s *stream) changeOver() {
	b := s.bypass
	if b == nil {
		return
	}
	if b.c.Recalled() {
		s.endBypass(nil)
		return
	}
	was := [2]bool{b.up, b.down}
	b.up = b.up || b.c.Up() == s.traffic.sent
	if !b.down {
		n, stopped := b.c.Down()
		b.down = stopped && n == s.traffic.got
	}
	if was != [2]bool{b.up, b.down} {
		s.m.pump.schedule(&s.job, nudge) // what waits has had its event
	}
}

// spent returns err, if it is the connection's: whoever asks the descriptor next does not
// hear of it. Else the way past the stack cannot be gone here, and is not tried again.
func (s *stream) spent(err error) error {
	switch err {
	case unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP, unix.ENOMEM, unix.ENOBUFS:
		s.m.log.Debug("no way past the stack", "err", err)
		s.traffic.never = true
		return nil
	}
	return err
}

// A rest is a stacks.Payload of bytes that were taken from the program already.
type rest struct{ b []byte }

func (r *rest) Len() int { return len(r.b) }

func (r *rest) Read(p []byte) (int, error) {
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}

// leftUp is how many bytes were taken from the program and not yet sent.
func (s *stream) leftUp() int {
	n := len(s.traffic.restUp)
	if s.bypass != nil {
		n += s.bypass.toUp.n
	}
	return n
}

// sendRest sends what was taken from the program and not yet sent; false if it has to
// wait, or the connection has ended.
func (s *stream) sendRest() bool {
	t := &s.traffic
	if s.bypass != nil && s.bypass.toUp.n > 0 && !s.drainUp() {
		return false
	}
	for len(t.restUp) > 0 {
		var n int
		var err error
		if s.bypass != nil && s.bypass.up {
			if n, err = s.writePast(t.restUp); err != nil && s.bypass == nil {
				return false
			}
		} else {
			n, err = s.tcp.Send(&rest{t.restUp[:min(len(t.restUp), sendChunk)]})
			t.sent += uint64(max(n, 0))
		}
		t.restUp = t.restUp[max(n, 0):]
		switch {
		case err != nil && intercept.Errno(err) != unix.EAGAIN:
			s.broken(intercept.Errno(err))
			return false
		case err != nil || n == 0:
			s.upFull = true
			return false
		}
	}
	t.restUp = nil
	return true
}

// writePast writes to the conduit. EAGAIN says that it takes no more for now; after any
// other error there is no bypass any more.
func (s *stream) writePast(p []byte) (done int, err error) {
	c := s.bypass.c
	e := c.Control(func(fd uintptr) {
		for {
			done, err = unix.SendmsgN(int(fd), p, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if err != unix.EINTR {
				return
			}
		}
	})
	done = max(done, 0)
	switch {
	case e != nil:
		s.endBypass(nil)
		return 0, e
	case err == nil:
		c.Moved(done, 0)
		if done < len(p) {
			err = unix.EAGAIN
		}
	case err != unix.EAGAIN:
		s.endBypass(s.spent(err))
	}
	return done, err
}

// upPast writes up to n bytes of the program's to the conduit, and returns how many were
// taken from the program. Errors are those of writePast.
func (s *stream) upPast(n int) (taken int, err error) {
	if n >= spliceMin {
		return s.upPages(n - 1) // the last byte stays, see "The last byte"
	}
	buf := getBuffer()
	defer putBuffer(buf)
	r := &lagReader{s: s, left: min(n, len(*buf))}
	if taken, err = r.Read(*buf); err != nil || taken == 0 {
		return 0, unix.EAGAIN
	}
	done, err := s.writePast((*buf)[:taken])
	if done < taken {
		s.traffic.restUp = append([]byte(nil), (*buf)[done:taken]...)
	}
	return taken, err
}

// upPages is upPast by splice(2). The caller has more to send.
func (s *stream) upPages(n int) (taken int, err error) {
	b := s.bypass
	if s.lag > 0 {
		var old [1]byte
		m, err := unix.Read(s.peer, old[:])
		if m != 1 {
			return 0, errors.Join(err, unix.EAGAIN)
		}
		s.lag = 0
	}
	if taken, err = splice(s.peer, b.toUp.w, min(n, pipeBytes), 0); err != nil {
		if err != unix.EAGAIN { // nothing would wake the stream again
			s.traffic.never = true
			s.endBypass(nil)
		}
		return 0, unix.EAGAIN
	}
	b.toUp.n = taken
	if !s.drainUp() && s.bypass != nil {
		err = unix.EAGAIN
	}
	return taken, err
}

// drainUp moves what is in the pipe to the conduit; false if it takes no more for now,
// or there is no bypass any more.
func (s *stream) drainUp() bool {
	b := s.bypass
	for b.toUp.n > 0 {
		n, err := 0, error(nil)
		e := b.c.Control(func(fd uintptr) {
			n, err = splice(b.toUp.r, int(fd), b.toUp.n, unix.SPLICE_F_MORE)
		})
		b.toUp.n -= n
		b.c.Moved(n, 0)
		switch {
		case e != nil:
			s.endBypass(nil)
			return false
		case err == unix.EAGAIN:
			s.upFull = true
			return false
		case err != nil:
			s.endBypass(s.spent(err))
			return false
		}
	}
	return true
}

// downPast moves what came on the conduit to the program, up to limit bytes.
func (s *stream) downPast(limit int) (again bool) {
	b := s.bypass
	for limit > 0 {
		for b.pipe.n > 0 {
			n, err := splice(b.pipe.r, s.peer, b.pipe.n, 0)
			b.pipe.n -= n
			limit -= n
			switch err {
			case nil:
			case unix.EAGAIN:
				s.wantOut(true)
				return false
			default: // nobody reads any more: what comes is thrown away
				s.endBypass(nil)
				return true
			}
		}
		s.wantOut(false)
		if limit <= 0 {
			break
		}
		n, err := 0, error(nil)
		e := b.c.Control(func(fd uintptr) {
			n, err = splice(int(fd), b.pipe.w, min(limit, pipeBytes), 0)
			if err == unix.EAGAIN && waiting(int(fd)) {
				// It has come this moment, or an urgent byte is next: that stops
				// splice(2), but not the stack, for which it is data like any other.
				n, err = splice(int(fd), b.pipe.w, min(limit, pipeBytes), 0)
				if err == unix.EAGAIN {
					err = nil
				}
			}
		})
		switch {
		case e != nil, n == 0 && err == nil: // the end: the stack says how
			s.traffic.never = true
			s.endBypass(nil)
			return true
		case err == unix.EAGAIN:
			return false
		case err != nil:
			s.endBypass(s.spent(err))
			return true
		}
		b.pipe.n = n
		b.c.Moved(0, n)
	}
	return true
}

// downRest gives the program what an earlier bypass has left; false if it has to wait.
func (s *stream) downRest() bool {
	w := appWriter{s: s}
	n, err := w.Write(s.traffic.restDown)
	s.traffic.restDown = s.traffic.restDown[n:]
	if w.full {
		s.wantOut(true)
		return false
	}
	if err != nil {
		s.m.log.Error("write to a placeholder", "err", err)
	}
	s.traffic.restDown = nil
	return true
}

// waiting tells whether there is something to read.
func waiting(fd int) bool {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	return err == nil && n > 0
}

// splice moves up to n bytes between a pipe and a stream, without waiting.
func splice(from, to, n, flags int) (int, error) {
	for {
		m, err := unix.Splice(from, nil, to, nil, n, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE|flags)
		if err != unix.EINTR {
			return max(int(m), 0), err
		}
	}
}

// farBit marks the events of a bypass's descriptor among those of its job.
const farBit = 1 << 63

// addFar lets events on fd, the descriptor of a bypass, mark j.
func (p *pump) addFar(j *job, fd int) error {
	if err := p.ctl(unix.EPOLL_CTL_ADD, fd, j.id|farBit, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET); err != nil {
		return fmt.Errorf("wait for a bypass: %w", err)
	}
	return nil
}

// dropFar takes it back.
func (p *pump) dropFar(fd int) { _ = p.ctl(unix.EPOLL_CTL_DEL, fd, 0, 0) }
