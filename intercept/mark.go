// SPDX-License-Identifier: Apache-2.0

// Marks: recognising an open file again, without a duplicate of it.

package intercept

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Mark is on an open file and says, in one system call, whether a descriptor of the
// target is that file: [Glance.Marked]. It does not keep the file open, and costs a
// descriptor of the supervisor.
//
// It is an epoll set that has the file for its only entry. A set holds no reference,
// and an entry goes when its file does; kcmp(2) compares a descriptor of any thread with
// an entry (KCMP_EPOLL_TFD, 4.13). While the entry is there the file is, and no other
// can have its place in memory: so that what is equal is the same. What becomes of the
// descriptor numbers in the target, by close(2), dup2(2), SCM_RIGHTS or in another task
// of the same number, does not matter, since the kernel is asked each time.
type Mark struct {
	epoll int
	entry uint32 // the number under which the file was put into the set
}

// kcmpEpollTFD is KCMP_EPOLL_TFD, linux/kcmp.h.
const kcmpEpollTFD = 7

// epollSlot is struct kcmp_epoll_slot, linux/kcmp.h.
type epollSlot struct{ epoll, entry, offset uint32 }

// pid is this process, whose sets kcmp(2) looks into.
var pid = os.Getpid()

// NewMark marks the file of f. An [*UnsupportedError] says that the kernel cannot
// compare, and that no other mark will do; Close takes the mark off.
func NewMark(f FD) (*Mark, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll of a mark: %w", err)
	}
	m := &Mark{epoll: fd, entry: uint32(f.N)}
	// Edge-triggered, and for nothing but errors: its readers' wake-ups pass by.
	if err := unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, f.N, &unix.EpollEvent{Events: unix.EPOLLET}); err != nil {
		m.Close()
		return nil, fmt.Errorf("epoll of a mark: %w", err)
	}
	if errno := m.compare(pid, f.N); errno != 0 {
		m.Close()
		return nil, &UnsupportedError{Feature: "kcmp(2) with epoll sets", Kernel: "4.13", Err: errno}
	}
	return m, nil
}

// Close takes the mark off. Nobody may be in [Glance.Marked] with it.
func (m *Mark) Close() {
	unix.Close(m.epoll)
	m.epoll = -1
}

// compare asks whether descriptor fd of thread tid is the file: 0 if it is.
// [unix.ENOENT] says that the file was closed, EBADF that there is no such descriptor,
// and EXDEV that it is another file.
func (m *Mark) compare(tid, fd int) unix.Errno {
	slot := epollSlot{epoll: uint32(m.epoll), entry: m.entry}
	// It takes less time than to tell the runtime of it.
	order, _, errno := unix.RawSyscall6(unix.SYS_KCMP, uintptr(tid), uintptr(pid), kcmpEpollTFD,
		uintptr(fd), uintptr(unsafe.Pointer(&slot)), 0)
	if errno == 0 && order != 0 {
		return unix.EXDEV
	}
	return errno
}
