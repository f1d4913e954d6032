// SPDX-License-Identifier: Apache-2.0

// Datagram sockets that are read and written in batches.

package vde

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchSize is how many frames pass in one system call.
const batchSize = 64

// sockBuf is what is asked of the kernel for the queue of a socket, bytes: 64 KiB
// windows of a few connections, at two and a half times their size in memory.
const sockBuf = 1 << 20

// A sock is a datagram socket in the runtime's poller: nothing waits in a system
// call. recv has one caller at a time, send any number, each with its own batch.
type sock struct {
	f  *os.File
	rc syscall.RawConn
}

// newSock takes over a non-blocking descriptor.
func newSock(fd int, name string) (*sock, error) {
	// Best effort: the limits of the machine hold (net.core.rmem_max).
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sockBuf)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, sockBuf)
	f := os.NewFile(uintptr(fd), name)
	rc, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &sock{f, rc}, nil
}

// socket makes a sock that has no address yet.
func socket(domain, typ int, name string) (*sock, error) {
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	return newSock(fd, name)
}

// control runs f with the descriptor.
func (s *sock) control(f func(fd int) error) error {
	var err error
	if e := s.rc.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return closedError(e)
	}
	return err
}

func (s *sock) close() error { return s.f.Close() }

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	n uint32
	_ [4]byte
}

// A batch is the memory of a sendmmsg or recvmmsg: messages of up to two parts.
type batch struct {
	hdrs  [batchSize]mmsghdr
	iovs  [batchSize][2]unix.Iovec
	names [batchSize]unix.RawSockaddrInet6
}

// set makes message i consist of head, which may be empty, and body.
func (b *batch) set(i int, head, body []byte) {
	h, v := &b.hdrs[i], &b.iovs[i]
	h.Msghdr, h.n = unix.Msghdr{}, 0
	parts := 0
	for _, p := range [2][]byte{head, body} {
		if len(p) > 0 {
			v[parts].Base = &p[0]
			v[parts].SetLen(len(p))
			parts++
		}
	}
	h.Iov = &v[0]
	h.SetIovlen(parts)
}

// name gives message i room for an address, or with n the first n bytes of it.
func (b *batch) name(i int, n int) {
	h := &b.hdrs[i]
	h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
	h.Namelen = uint32(n)
}

// recv waits for at least one message and receives up to n, whose sizes are then
// hdrs[i].n; a message that did not fit has MSG_TRUNC in its flags. The error is
// net.ErrClosed, or what the socket has to tell.
func (s *sock) recv(b *batch, n int) (got int, err error) {
	e := s.rc.Read(func(fd uintptr) bool {
		for {
			r, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.hdrs)), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
			switch errno {
			case 0:
				got, err = int(r), nil
				return true
			case unix.EINTR:
				continue
			case unix.EAGAIN:
				return false
			}
			got, err = 0, errno
			return true
		}
	})
	runtime.KeepAlive(b)
	if e != nil {
		return 0, closedError(e)
	}
	return got, err
}

// send sends the messages from..n of b, and waits where the receiver's queue is
// full. It returns the index of the first that was not sent, and why.
func (s *sock) send(b *batch, from, n int) (at int, err error) {
	at = from
	if at == n {
		return at, nil
	}
	e := s.rc.Write(func(fd uintptr) bool {
		var again bool
		at, again, err = sendSome(fd, b, at, n)
		return !again
	})
	runtime.KeepAlive(b)
	if e != nil {
		return at, closedError(e)
	}
	return at, err
}

// trySend is send without waiting: a receiver whose queue is full gives EAGAIN.
func (s *sock) trySend(b *batch, from, n int) (at int, err error) {
	at = from
	e := s.rc.Control(func(fd uintptr) {
		var again bool
		if at, again, err = sendSome(fd, b, at, n); again {
			err = unix.EAGAIN
		}
	})
	runtime.KeepAlive(b)
	if e != nil {
		return at, closedError(e)
	}
	return at, err
}

func sendSome(fd uintptr, b *batch, at, n int) (next int, again bool, err error) {
	for at < n {
		r, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.hdrs[at])), uintptr(n-at), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			at += int(r)
		case unix.EINTR:
		case unix.EAGAIN:
			return at, true, nil
		default:
			return at, false, errno
		}
	}
	return at, false, nil
}

// closedError names what a RawConn has to tell itself: a deadline, or that the file was
// closed, for which package os has an error of its own inside.
func closedError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return net.ErrClosed
}

// readFrames receives frames into bufs. A runt, and a frame that does not fit into
// its buffer, is thrown away, so none may be left: 0 and no error.
func (s *sock) readFrames(b *batch, bufs [][]byte, sizes []int) (int, error) {
	want := min(len(bufs), len(sizes), batchSize)
	for i := range want {
		b.set(i, nil, bufs[i])
	}
	got, err := s.recv(b, want)
	if err != nil {
		return 0, err
	}
	n := 0
	for i := range got {
		h := &b.hdrs[i]
		if h.n < etherLen || h.Flags&unix.MSG_TRUNC != 0 {
			continue
		}
		if n < i {
			copy(bufs[n], bufs[i][:h.n])
		}
		sizes[n] = int(h.n)
		n++
	}
	return n, nil
}

// writeFrames sends frames and returns how many; without wait it stops with EAGAIN
// where the receiver's queue is full. Frames that no receiver takes (EMSGSIZE) are
// skipped.
func (s *sock) writeFrames(b *batch, bufs [][]byte, wait bool) (done int, err error) {
	send := s.trySend
	if wait {
		send = s.send
	}
	for done < len(bufs) {
		n := min(len(bufs)-done, batchSize)
		for i := range n {
			b.set(i, nil, bufs[done+i])
		}
		at := 0
		for at < n {
			at, err = send(b, at, n)
			if err == unix.EMSGSIZE || err == unix.ENOBUFS {
				at, err = at+1, nil
			}
			if err != nil {
				return done + at, err
			}
		}
		done += n
	}
	return done, nil
}
