// SPDX-License-Identifier: Apache-2.0

// AF_UNIX sockets that are none of the module's: most of what traps in programs that
// pass messages.

package netmod

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// strangers remembers AF_UNIX sockets that are none of the module's: the filter cannot
// tell them from placeholders, and programs that pass messages make thousands of calls
// on them, each of which is looked at and goes on.
//
// A stranger is remembered by its cookie, which no other socket ever has. To learn the
// cookie takes a duplicate: three system calls, which are half of what the trap costs. One
// that calls again and again is therefore marked ([intercept.Mark]), and by which
// descriptor of which thread it was called is noted, as a guess: that it is right the
// kernel says, in one call.
type strangers struct {
	mu     sync.Mutex // a leaf
	known  map[uint64]*stranger
	seats  [strangersSeats]seated // where marked ones were seen; maybe they are there no more
	marked [strangersMarked]*stranger
	oldest int  // of marked
	off    bool // the kernel knows no marks
}

// A stranger is one such socket.
type stranger struct {
	cookie uint64
	seen   int             // how often it took a duplicate to know it
	mark   *intercept.Mark // or nil
}

// A seat is a place at which a thread has an open file.
type seat struct{ tid, fd int }

// index is where a seat is kept; another one may have taken the place.
func (s seat) index() uint { return uint(s.tid*31+s.fd) % strangersSeats }

// seated is a seat that is taken; by nobody if mark is nil.
type seated struct {
	seat
	mark *intercept.Mark // of who
	who  *stranger
}

// aboutUnix is what the meter calls such calls.
const aboutUnix = "AF_UNIX"

// Bounds of strangers. No close of them is seen, so what is full begins anew.
const (
	strangersKnown  = 4096
	strangersMarked = 64 // descriptors of ours
	strangersSeats  = 256

	// strangersSeen is how often one is looked up by its cookie before it is marked,
	// which takes as long as another time or two.
	strangersSeen = 4
)

func newStrangers() *strangers {
	return &strangers{known: make(map[uint64]*stranger)}
}

// pass is [intercept.Rule]'s: calls go on that are on a marked stranger.
func (ss *strangers) pass(g *intercept.Glance) (about string, ok bool) {
	at := seat{g.TID, int(int32(g.Args[0]))}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s := &ss.seats[at.index()]
	if s.mark == nil || s.seat != at || !g.Marked(at.fd, s.mark) {
		return "", false
	}
	return aboutUnix, true
}

// knows tells whether d, a duplicate of the descriptor of the call, is a stranger that was
// met before.
func (ss *strangers) knows(c *intercept.Call, d intercept.FD) bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s := ss.known[d.Key.Cookie]
	if s == nil {
		return false
	}
	if s.seen++; s.mark == nil && s.seen >= strangersSeen && !ss.off {
		ss.markLocked(s, d)
	}
	if s.mark != nil {
		at := seat{c.TID, int(int32(c.Args[0]))}
		ss.seats[at.index()] = seated{at, s.mark, s}
	}
	return true
}

// markLocked marks s, of which d is a duplicate, in place of the one marked longest ago.
func (ss *strangers) markLocked(s *stranger, d intercept.FD) {
	m, err := intercept.NewMark(d)
	var unsupported *intercept.UnsupportedError
	if errors.As(err, &unsupported) {
		ss.off = true
	}
	s.seen = 0
	if err != nil {
		return
	}
	s.mark = m
	ss.unmarkLocked(ss.marked[ss.oldest])
	ss.marked[ss.oldest] = s
	ss.oldest = (ss.oldest + 1) % len(ss.marked)
}

// unmarkLocked takes the mark off s, if it has one.
func (ss *strangers) unmarkLocked(s *stranger) {
	if s == nil || s.mark == nil {
		return
	}
	for i := range ss.seats {
		if ss.seats[i].who == s {
			ss.seats[i] = seated{}
		}
	}
	s.mark.Close()
	s.mark = nil
}

// meet remembers the AF_UNIX socket of a cookie.
func (ss *strangers) meet(cookie uint64) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if len(ss.known) >= strangersKnown {
		for cookie, s := range ss.known {
			if s.mark == nil {
				delete(ss.known, cookie)
			}
		}
	}
	if ss.known[cookie] == nil {
		ss.known[cookie] = &stranger{cookie: cookie}
	}
}

// forget says that the socket of a cookie is one of the module's.
func (ss *strangers) forget(cookie uint64) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.unmarkLocked(ss.known[cookie])
	delete(ss.known, cookie)
}

// close takes all marks off. Nobody calls any more.
func (ss *strangers) close() {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, s := range ss.marked {
		ss.unmarkLocked(s)
	}
	clear(ss.known)
	ss.off = true
}

// foreign answers for a descriptor that is none of the module's sockets. The
// kernel serves it, but sockets of the host's network, however the program came
// by them, stay out of use.
func (m *Module) foreign(c *intercept.Call, d intercept.FD) intercept.Action {
	if d.Key.Cookie == 0 {
		return intercept.Continue() // no socket: the kernel has the errno
	}
	domain, err := unix.GetsockoptInt(d.N, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	if domain != unix.AF_UNIX {
		m.warnOnce("foreign", "a socket of the host's network was passed in and is refused", "pid", c.Task.TGID(), "domain", domain)
		return intercept.Fail(unix.EACCES)
	}
	m.strangers.meet(d.Key.Cookie)
	c.About(aboutUnix)
	return intercept.Continue()
}
