// SPDX-License-Identifier: Apache-2.0

// The kernel interface of seccomp_unotify(2): structures, ioctls, installation.

package intercept

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// notification is struct seccomp_notif with its struct seccomp_data.
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	val   int64
	errno int32 // negative
	flags uint32
}

// addFD is struct seccomp_notif_addfd.
type addFD struct {
	id         uint64
	flags      uint32
	srcFD      uint32
	newFD      uint32
	newFDFlags uint32
}

// erestartsys is the kernel's ERESTARTSYS, linux/errno.h: it never reaches a
// program while a signal is pending.
const erestartsys = 512

// erestartnointr is ERESTARTNOINTR, of which the same holds.
const erestartnointr = 513

// notifySizes returns the sizes of struct seccomp_notif, seccomp_notif_resp and
// seccomp_data in this kernel.
func notifySizes() (sizes [3]uint16, err error) {
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&sizes)))
	if errno != 0 {
		return sizes, errno
	}
	return sizes, nil
}

// checkNotifySizes makes sure that the kernel will not write more than our
// structures hold.
func checkNotifySizes() error {
	sizes, err := notifySizes()
	if err != nil {
		return &UnsupportedError{Feature: "seccomp user notification", Kernel: "5.0", Err: err}
	}
	if want := [3]uint16{uint16(unsafe.Sizeof(notification{})), uint16(unsafe.Sizeof(response{})), 64}; sizes != want {
		return fmt.Errorf("the kernel's notification structures have %v bytes, not %v: %w", sizes, want, unix.ENOTSUP)
	}
	return nil
}

// installFilter puts the filter on the calling thread alone, which has
// PR_SET_NO_NEW_PRIVS and whose goroutine is locked to it, and returns the listener
// (close-on-exec). Where the kernel can, a
// thread whose call was received is interrupted by fatal signals only
// (WAIT_KILLABLE_RECV, 5.19), unless interruptible asks for the older behaviour.
func installFilter(prog []unix.SockFilter, interruptible bool) (listener int, err error) {
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	install := func(flags uintptr) (int, error) {
		fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&fprog)))
		if errno != 0 {
			return -1, errno
		}
		return int(fd), nil
	}
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	err = unix.EINVAL
	if !interruptible {
		listener, err = install(flags | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	}
	if errors.Is(err, unix.EINVAL) {
		listener, err = install(flags)
	}
	runtime.KeepAlive(prog)
	if err != nil {
		return -1, fmt.Errorf("install the filter: %w", err)
	}
	return listener, nil
}

// listener is the supervisor's end of the filter. Its methods may be used during
// and after close and then give ErrGone.
type listener struct {
	mu   sync.RWMutex // held for reading while fd is in use, but by wait and recv
	fd   int          // -1: closed
	file *os.File     // owns fd
	conn syscall.RawConn

	look  func(uintptr) bool // poll
	there bool               // what poll saw; the receiver's
}

// init makes l of a descriptor, which it owns if there is no error.
func (l *listener) init(fd int) error {
	// Only to let the runtime wait for it: the ioctls know no O_NONBLOCK.
	if err := unix.SetNonblock(fd, true); err != nil {
		return fmt.Errorf("O_NONBLOCK of the listener: %w", err)
	}
	file := os.NewFile(uintptr(fd), "seccomp listener")
	conn, err := file.SyscallConn()
	if err != nil {
		return fmt.Errorf("seccomp listener: %w", err)
	}
	l.fd, l.file, l.conn, l.look = fd, file, conn, l.poll
	return nil
}

// wait waits until there is something to receive, and then gives true; or until nobody is
// left to call, or until interrupt.
func (l *listener) wait() (there bool, err error) {
	err = l.conn.Read(l.look)
	return err == nil && l.there, err
}

// poll sets there, and reports whether it is worth waking up. It waits for nothing, so
// that the runtime need not know.
func (l *listener) poll(fd uintptr) bool {
	for {
		var now unix.Timespec
		p := unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
		n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
		if errno == unix.EINTR || errno == 0 && p.Revents == unix.POLLERR {
			continue // a signal, even if there is no time to be interrupted in
		}
		l.there = errno == 0 && p.Revents&unix.POLLIN != 0
		return errno == 0 && n > 0
	}
}

// interrupt ends a wait and each that follows.
func (l *listener) interrupt() { _ = l.file.SetReadDeadline(time.Unix(1, 0)) }

// close closes the listener: waiting and future calls of the target give ENOSYS.
// Nobody may be in wait or recv.
func (l *listener) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fd >= 0 {
		l.file.Close()
		l.fd = -1
	}
}

// ioctl makes one call. EBADF becomes ErrGone if the listener is closed.
func (l *listener) ioctl(req uintptr, arg unsafe.Pointer) (int, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.fd < 0 {
		return -1, ErrGone
	}
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), req, uintptr(arg))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// setSync asks for the cheaper hand-over between target and supervisor on one
// processor (6.6). Without it everything works, slower.
func (l *listener) setSync() error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	if errno != 0 {
		return errno
	}
	return nil
}

// recv receives the notification that wait has seen. n is all zero before, as the kernel
// demands. ENOENT says that it is there no more.
//
// It never waits, and so does not tell the runtime of it, which would wake the runtime's
// monitor at most times. The kernel counts what was sent and not received; a thread that is
// killed or interrupted before takes its notification away, but leaves the count
// (kernel/seccomp.c: seccomp_do_user_notification, seccomp_notify_recv). So as long as
// nobody else receives the count is not less than the notifications that poll(2) has seen.
func (l *listener) recv(n *notification) error {
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(l.fd), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(n)))
	if errno != 0 {
		return errno
	}
	return nil
}

// valid reports whether notification id still waits.
func (l *listener) valid(id uint64) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.fd < 0 {
		return false
	}
	// Too short for the runtime to be told of it.
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(l.fd), unix.SECCOMP_IOCTL_NOTIF_ID_VALID, uintptr(unsafe.Pointer(&id)))
	return errno == 0
}

// send answers a notification; ErrGone if it no longer waits.
func (l *listener) send(r *response) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.sendOpen(r)
}

// sendOpen is send for the receiver, while which runs nobody closes l.
func (l *listener) sendOpen(r *response) error {
	if l.fd < 0 {
		return ErrGone
	}
	for {
		// It waits for nothing, and is over before the runtime could be told of it.
		_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(l.fd), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(r)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		case unix.ENOENT, unix.EINPROGRESS:
			// EINPROGRESS: answered before, which Call excludes.
			return ErrGone
		}
		return fmt.Errorf("SECCOMP_IOCTL_NOTIF_SEND: %w", errno)
	}
}

// install gives the target a duplicate of fd and that as the answer, in one step
// (5.14), and returns its number.
//
// The ioctl waits until the target has taken the descriptor. A signal to our thread
// in that moment would end the wait and leave the target with the answer 0 and no
// descriptor: seccomp_notify_addfd (kernel/seccomp.c, v6.18) takes the request back,
// but not the state "replied". The Go runtime signals its threads all the time, so
// signals are blocked.
func (l *listener) install(id uint64, fd int, cloexec bool) (int, error) {
	a := addFD{id: id, flags: unix.SECCOMP_ADDFD_FLAG_SEND, srcFD: uint32(fd)}
	if cloexec {
		a.newFDFlags = unix.O_CLOEXEC
	}
	return l.addFD(a)
}

// addFD does what a says, with signals blocked, and returns the number in the
// target.
func (l *listener) addFD(a addFD) (int, error) {
	runtime.LockOSThread() // the mask is the thread's
	defer runtime.UnlockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return -1, fmt.Errorf("block signals: %w", err)
	}
	n, err := l.ioctl(unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&a))
	if e := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil); e != nil && err == nil {
		err = fmt.Errorf("unblock signals: %w", e)
	}
	switch err {
	case nil:
		return n, nil
	case unix.ENOENT, unix.EINPROGRESS, unix.ESRCH, ErrGone:
		return -1, ErrGone
	}
	return -1, err
}

// hungUp reports whether the last task with the filter is gone.
func (l *listener) hungUp() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	p := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&unix.POLLHUP != 0
}
