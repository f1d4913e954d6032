// SPDX-License-Identifier: Apache-2.0

// Trapped sends and receives on streams: those that AF_UNIX would take otherwise.

package netmod

import (
	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// send answers sendto(2) with an address: TCP ignores it (tcp(7)), AF_UNIX would
// not. MSG_FASTOPEN is the exception, and is not supported.
func (s *stream) send(c *intercept.Call, d *held, x *transfer) intercept.Action {
	if x.flags&unix.MSG_FASTOPEN != 0 {
		return intercept.Fail(unix.EOPNOTSUPP)
	}
	buf := getBuffer()
	defer putBuffer(buf)
	n, err := x.gather(c, *buf)
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	n, err = unix.SendmsgN(d.N, (*buf)[:n], nil, nil, x.flags&(unix.MSG_OOB|unix.MSG_MORE)|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	switch {
	case err == nil:
		return intercept.Return(int64(n))
	case err == unix.EAGAIN && x.flags&unix.MSG_DONTWAIT == 0 && !nonblocking(d.N):
		// It would have to wait for room in the placeholder. The kernel can do
		// that only for the call as it stands, and answers EISCONN; programs
		// that give addresses to connected TCP sockets and fill them are not
		// known.
		return intercept.Continue()
	case err == unix.ENOTCONN || err == unix.EINVAL:
		return intercept.Fail(unix.EPIPE)
	}
	return intercept.Fail(intercept.Errno(err))
}

// recv answers recvfrom(2) with an address or with MSG_TRUNC or MSG_ERRQUEUE. TCP
// tells no address: the length becomes 0.
func (s *stream) recv(c *intercept.Call, d *held, x *transfer) intercept.Action {
	if x.flags&unix.MSG_ERRQUEUE != 0 {
		return intercept.Fail(unix.EAGAIN)
	}
	if x.flags&unix.MSG_TRUNC == 0 {
		return intercept.Continue() // as AF_UNIX: the length becomes 0
	}
	// MSG_TRUNC of tcp(7): the bytes are dropped.
	buf := getBuffer()
	defer putBuffer(buf)
	n, err := recvOnce(d.N, (*buf)[:min(x.size, len(*buf))], x.flags&unix.MSG_PEEK)
	if err == unix.EAGAIN && x.flags&unix.MSG_DONTWAIT == 0 && !nonblocking(d.N) {
		// Wait as a plain receive does: the kernel's stream sockets take the
		// flag as none, and the buffer, which has to be there, gets the bytes.
		return intercept.Continue()
	}
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	return intercept.Return(int64(n))
}
