// SPDX-License-Identifier: Apache-2.0

// Waiting for a descriptor of the program's, on a goroutine.

package netmod

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A readiness waits for events of a descriptor whose O_NONBLOCK is the program's, so
// that the runtime cannot wait for it itself: it waits for an epoll set around it.
// poll(2) would keep a processor of the runtime, which may be the only one.
type readiness struct {
	set  *os.File
	conn syscall.RawConn
}

// newReadiness watches fd, which must stay open until close, for EPOLL* events.
func newReadiness(fd int, events uint32) (*readiness, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	err = unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events})
	if err == nil {
		err = unix.SetNonblock(epfd, true)
	}
	if err != nil {
		unix.Close(epfd)
		return nil, fmt.Errorf("watch a descriptor: %w", err)
	}
	r := &readiness{set: os.NewFile(uintptr(epfd), "epoll")}
	if r.conn, err = r.set.SyscallConn(); err != nil {
		r.set.Close()
		return nil, fmt.Errorf("watch a descriptor: %w", err)
	}
	return r, nil
}

// wait waits until an event is there. Errors are os.ErrDeadlineExceeded when
// deadline, if it is one, has passed, and os.ErrClosed after close.
func (r *readiness) wait(deadline time.Time) error {
	if err := r.set.SetReadDeadline(deadline); err != nil {
		return err
	}
	var failed error
	err := r.conn.Read(func(fd uintptr) bool {
		var ev [1]unix.EpollEvent
		n, err := unix.EpollWait(int(fd), ev[:], 0)
		if err != nil && err != unix.EINTR {
			failed = fmt.Errorf("epoll_wait: %w", err)
		}
		return n > 0 || failed != nil
	})
	return errors.Join(err, failed)
}

// close ends a wait and each that follows. Twice is fine.
func (r *readiness) close() { r.set.Close() }
