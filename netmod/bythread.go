// SPDX-License-Identifier: Apache-2.0

// Messages that an ordinary user's thread is made to send itself.
//
// By connected AF_UNIX sockets programs tell each other which process they are
// (SCM_CREDENTIALS), as Chromium's children do their parent, and only root may say so of
// another process than its own. Nor can the call go on: what is under the number of the
// descriptor when the kernel looks, and what is in the message, may be somebody else's choice
// by then, and so an address. The thread is made to call sendto(2) without one instead, which
// has all in registers. That is a message of one piece with nothing beside its bytes, which is
// what is sent to be known by; others are sent from here.

package netmod

import (
	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// byThread has the calling thread send x by its descriptor fd, of which d is a duplicate. ok
// is false if the message is to be sent from here.
func (m *Module) byThread(c *intercept.Call, d intercept.FD, fd uint64, x *transfer) (a intercept.Action, ok bool) {
	if me == 0 || !isUnix(d) || isDatagram(d) || m.find(d) != nil ||
		len(x.to) > 0 || len(x.ancillary) > 0 || len(x.iov) > 1 {
		return a, false
	}
	waits := x.flags&unix.MSG_DONTWAIT == 0 && !nonblocking(d.N)
	if waits && !takesNow(d, x) || !c.Injectable() {
		return a, false
	}
	call := intercept.Injected{NR: unix.SYS_SENDTO}
	if c.Arch == intercept.I386 {
		call.NR = i386Sendto
	}
	call.Args[0], call.Args[3] = fd, uint64(uint32(x.flags|unix.MSG_DONTWAIT))
	if len(x.iov) > 0 {
		call.Args[1], call.Args[2] = x.iov[0][0], x.iov[0][1]
	}
	c.About(aboutUnix)
	return c.Inject(intercept.Injection{Run: func(_ int, do func(intercept.Injected) (int64, error)) (int64, error) {
		n, err := do(call)
		if err == nil && waits && n == -int64(unix.EAGAIN) { // another thread was faster
			err = intercept.ErrAgain
		}
		return n, err
	}}), true
}

// takesNow reports whether a socket takes all of a message without waiting: what it has room
// for, of a stream, is at least half of its buffer (net/unix/af_unix.c:unix_stream_sendmsg).
func takesNow(d intercept.FD, x *transfer) bool {
	if room, err := unix.GetsockoptInt(d.N, unix.SOL_SOCKET, unix.SO_SNDBUF); err != nil || x.left() > room/2-64 {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(d.N), Events: unix.POLLOUT}}
	n, err := unix.Poll(fds, 0)
	return n == 1 && err == nil
}
