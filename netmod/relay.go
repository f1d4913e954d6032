// SPDX-License-Identifier: Apache-2.0

// The pump of a connected stream: program to stack (up), stack to program (down).

package netmod

import (
	"io"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/stacks"
)

const (
	// quantum is the most that one turn moves in each direction, so that busy
	// sockets take turns.
	quantum = 256 << 10
	// sendChunk is the most that is offered to the stack at once: beyond 64 KiB
	// a stack splits what it got, at a cost.
	sendChunk = 48 << 10
	recvChunk = 128 << 10
)

// move is a turn of a connected socket.
func (s *stream) move(ready uint32) (again bool) {
	if s.stubbed {
		return false
	}
	if ready&appHup != 0 && !s.rdwrShut {
		s.appHup = true
	}
	if s.appHup && s.finSent {
		s.halfClosed()
		return false
	}
	if ready&appShut != 0 {
		s.appShut = true
	}
	s.tryBypass()
	s.changeOver()
	retry := s.upFull && ready&(stackAny|nudge) != 0
	if retry {
		s.upFull = false
	}
	if retry || ready&(appIn|appShut|appHup|nudge) != 0 {
		again = s.up(quantum)
		if s.gone || s.state != connected {
			return false
		}
		if s.appHup && s.upFull && s.abrupt() {
			s.release(true)
			return false
		}
	}
	if ready&(appOut|stackAny|nudge) != 0 {
		if s.down(quantum) {
			again = true
		}
		if s.gone || s.state != connected {
			return false
		}
	}
	if again {
		s.job.ready.Or(nudge)
	}
	return again
}

// up moves what the program wrote to the stack, up to limit bytes, and ends the
// direction where the program has.
func (s *stream) up(limit int) (again bool) {
	if s.finSent || s.peer < 0 {
		return false
	}
	for limit > 0 {
		shut := s.appShut // read before the queue: nothing is added behind the mark
		n, err := unix.IoctlGetInt(s.peer, unix.TIOCINQ)
		if err != nil {
			s.m.log.Error("size of a placeholder's queue", "err", err)
			return false
		}
		n -= s.lag
		past := s.bypass != nil && s.bypass.up
		if s.leftUp() > 0 && (s.upFull || !s.sendRest()) {
			return false
		}
		if n <= 0 {
			if shut {
				s.upEnd()
			}
			return false
		}
		if s.upFull {
			return false
		}
		if s.bypass != nil && !past {
			return false // until what was sent has left the stack
		}
		var sent int
		if past {
			sent, err = s.upPast(n)
			if err != nil && s.bypass == nil {
				return true // the stack tells what has become of the connection
			}
		} else {
			sent, err = s.tcp.Send(&lagReader{s: s, left: min(n, sendChunk)})
			s.traffic.sent += uint64(max(sent, 0))
		}
		limit -= sent
		if err != nil {
			if intercept.Errno(err) == unix.EAGAIN {
				s.upFull = true
				return false
			}
			s.broken(intercept.Errno(err))
			return false
		}
		s.uncorkLocked()
		if sent == 0 {
			s.upFull = true
			return false
		}
		if sent == n && !shut {
			return false // what has come meanwhile has an event of its own
		}
	}
	return true
}

// abrupt tells whether close(2) throws away what is not sent (SO_LINGER with no
// time, socket(7)).
func (s *stream) abrupt() bool {
	var v [8]byte // struct linger
	n, err := s.tcp.Option(unix.SOL_SOCKET, unix.SO_LINGER, v[:])
	return err == nil && n == len(v) && native.Uint32(v[:]) != 0 && native.Uint32(v[4:]) == 0
}

// upEnd is the end of what the program says: after SHUT_WR the last byte stays,
// after the last close it is read, and tells whether the program left input
// unread, which is an abort.
func (s *stream) upEnd() {
	if !s.appHup {
		s.finSent = true
		if err := s.tcp.Shutdown(unix.SHUT_WR); err != nil {
			s.m.log.Debug("shutdown", "err", err)
		}
		return
	}
	s.finish()
}

// finish releases the socket after the last close, as an abort if the program left
// input unread.
func (s *stream) finish() {
	var b [1]byte
	for {
		n, err := unix.Read(s.peer, b[:])
		if err == unix.EINTR || n > 0 {
			continue
		}
		s.release(err == unix.ECONNRESET)
		return
	}
}

// halfClosed is a hang-up after the program's SHUT_WR. It is the last close, unless
// our end is shut as well: then the pair hangs up whether somebody holds it or not,
// and a scan must tell.
func (s *stream) halfClosed() {
	if !s.downEOF {
		s.finish()
		return
	}
	s.m.live.orphan()
}

// A lagReader reads what the program wrote and leaves the last byte that it hands
// out in the queue. It is a stacks.Payload.
type lagReader struct {
	s    *stream
	left int
}

func (r *lagReader) Len() int { return r.left }

func (r *lagReader) Read(p []byte) (int, error) {
	p = p[:min(len(p), r.left)]
	if len(p) == 0 {
		if r.left == 0 {
			return 0, io.EOF
		}
		return 0, nil
	}
	s, last := r.s, len(p)-1
	var old [2]byte
	if s.lag+last > 0 {
		got, err := readv(s.peer, [][]byte{old[:s.lag], p[:last]})
		if err != nil {
			return 0, err
		}
		dropped := min(got, s.lag)
		s.lag -= dropped
		if got -= dropped; got < last { // less than the queue was said to hold
			r.left -= got
			return got, nil
		}
	}
	if _, _, err := unix.Recvfrom(s.peer, p[last:], unix.MSG_PEEK|unix.MSG_DONTWAIT); err != nil {
		r.left -= last
		return last, nil
	}
	s.lag = 1
	r.left -= len(p)
	return len(p), nil
}

func readv(fd int, iov [][]byte) (int, error) {
	for {
		n, err := unix.Readv(fd, iov)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// down moves what came for the program, up to limit bytes.
func (s *stream) down(limit int) (again bool) {
	for limit > 0 && !s.downEOF {
		if len(s.traffic.restDown) > 0 && !s.downRest() {
			return false
		}
		if s.changeOver(); s.bypass != nil && s.bypass.down {
			return s.downPast(limit)
		}
		w := appWriter{s: s}
		if u, ok := s.tcp.(stacks.Urgent); ok {
			ahead, ok := u.Urgent()
			w.urgent = ok && ahead == 0
		}
		n, err := s.tcp.Recv(&w, min(limit, recvChunk))
		limit -= n
		s.traffic.got += uint64(n)
		if w.full {
			s.wantOut(true)
			return false
		}
		switch {
		case err == nil:
			s.wantOut(false)
		case err == io.EOF:
			s.downEOF = true
			s.wantOut(false)
			if err := unix.Shutdown(s.peer, unix.SHUT_WR); err != nil {
				s.m.log.Debug("shutdown placeholder", "err", err)
			}
		case intercept.Errno(err) == unix.EAGAIN:
			s.wantOut(false)
			return false
		default:
			s.broken(intercept.Errno(err))
			return false
		}
	}
	if s.downEOF { // a reset may follow the FIN
		if s.ep.Poll()&unix.POLLERR != 0 {
			if err := endpointError(s.ep); err != 0 {
				s.broken(err)
			}
		}
		return false
	}
	return true
}

func (s *stream) wantOut(on bool) {
	if s.downFull != on {
		s.downFull = on
		s.m.pump.wantOut(&s.job, s.peer, on)
	}
}

// An appWriter writes into the program's queue. Where the program has shut its
// read side, bytes are thrown away, as TCP goes on acknowledging them.
type appWriter struct {
	s      *stream
	full   bool
	urgent bool // the byte is: the placeholder has MSG_OOB, too
}

func (w *appWriter) Write(p []byte) (n int, err error) {
	for n < len(p) {
		flags := unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
		if w.urgent {
			flags |= unix.MSG_OOB
		}
		m, err := unix.SendmsgN(w.s.peer, p[n:], nil, nil, flags)
		switch err {
		case nil:
			n += m
			if w.s.came.asked.Load() {
				w.s.came.note(m, time.Now().UnixNano())
			}
		case unix.EOPNOTSUPP: // a kernel without CONFIG_AF_UNIX_OOB
			if !w.urgent {
				return n, err
			}
			w.urgent = false
		case unix.EINTR:
		case unix.EAGAIN:
			w.full = true
			return n, io.ErrShortWrite
		case unix.EPIPE, unix.ECONNRESET:
			return len(p), nil
		default:
			return n, err
		}
	}
	return n, nil
}

// broken is the end by the network: the connection was reset or timed out.
func (s *stream) broken(err unix.Errno) {
	if err == unix.EPIPE {
		// The peer's reset was reported in the other direction, or this side was
		// shut: find the cause.
		if e := endpointError(s.ep); e != 0 {
			err = e
		} else {
			err = unix.ECONNRESET
		}
	}
	s.reset(err)
}

// reset shows the program a broken connection: its end gets ECONNRESET behind
// what is already queued, since a byte of its own is unread.
func (s *stream) reset(err unix.Errno) {
	s.state, s.soErr, s.broke = failed, err, true
	s.local, _ = s.ep.Names() // the endpoint forgets it
	hup := s.appHup
	s.marked = s.lag > 0
	s.endBypass(nil)
	s.dropPeer()
	if hup {
		s.release(true)
		return
	}
	s.unwatch()
	s.tcp.Abort()
	s.m.live.orphan()
}
