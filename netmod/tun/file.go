// SPDX-License-Identifier: Apache-2.0

// A file: the supervisor's end of what an open of the device has made.

package tun

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// queueBytes is what may wait for the program, as the kernel counts it: some 100
// packets, where the limit for everybody allows it. The queue of a TUN has 500.
const queueBytes = 1 << 20

// A file is one open file of the device, however many descriptors refer to it.
type file struct {
	cookie uint64 // of the program's end
	f      *os.File
	raw    syscall.RawConn
	idled  chan struct{} // closed when idle has returned
	dev    *device       // nil: none yet; guarded by Module.making
}

// newFile makes one of a pair; ours is its own, also on an error.
func newFile(ours, theirs int) (_ *file, err error) {
	f := &file{f: os.NewFile(uintptr(ours), "tun"), idled: make(chan struct{})}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if f.cookie, err = unix.GetsockoptUint64(theirs, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil {
		return nil, fmt.Errorf("SO_COOKIE: %w", err)
	}
	if err := unix.SetNonblock(ours, true); err != nil {
		return nil, err
	}
	for _, fd := range []int{ours, theirs} {
		// As much as is allowed; less only means to wait earlier.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, queueBytes)
	}
	// Anew: a file that was blocking when os.NewFile saw it would not be polled.
	fd, err := unix.FcntlInt(uintptr(ours), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f.f.Close()
	f.f = os.NewFile(uintptr(fd), "tun")
	f.raw, err = f.f.SyscallConn()
	return f, err
}

func (f *file) close() { f.f.Close() }

// idle waits until the file gets a device or is closed by the program, and tells
// whether it is the latter. What is written meanwhile is lost.
func (f *file) idle() (over bool) {
	defer close(f.idled)
	var b [1]byte
	for {
		n, err := f.read(b[:])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, os.ErrClosed):
			return false
		case err != nil || n < 0:
			return true
		}
	}
}

// take ends idle; false says that the program has closed the file meanwhile.
func (f *file) take() bool {
	if err := f.f.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return false
	}
	<-f.idled
	return f.f.SetReadDeadline(time.Time{}) == nil
}

// read waits for a packet; io.EOF says that the program has closed the file.
func (f *file) read(b []byte) (n int, err error) {
	var failed error
	err = f.raw.Read(func(fd uintptr) bool {
		n, failed = f.tryRead(int(fd), b)
		return failed != unix.EAGAIN
	})
	if err == nil {
		err = failed
	}
	return n, err
}

// tryRead reads a packet that is there; EAGAIN if there is none. The program may write
// an empty one, which is none of the end.
func (f *file) tryRead(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || n > 0:
			return n, err
		}
		p := []unix.PollFd{{Fd: int32(fd)}}
		if _, err := unix.Poll(p, 0); err == nil && p[0].Revents&unix.POLLHUP != 0 {
			return 0, io.EOF
		}
	}
}

// write gives packets to the program and waits while it does not read; n is how many it
// has taken, or will never take.
func (f *file) write(bufs [][]byte) (n int, err error) {
	var lost error
	err = f.raw.Write(func(fd uintptr) bool {
		for n < len(bufs) {
			_, err := unix.Write(int(fd), bufs[n])
			switch {
			case err == unix.EINTR:
				continue
			case err == unix.EAGAIN:
				return false
			case err != nil:
				lost = err
			}
			n++
		}
		return true
	})
	return n, errors.Join(err, lost)
}
