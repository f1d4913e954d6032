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
// and after close and then give ErrGone. They take no lock, which two receivers would
// hand to and fro: close puts an eventfd in the place of the descriptor, whose number is
// nobody else's until the listener is unreachable.
type listener struct {
	fd   int
	none int // the eventfd; -1 when it is in place

	look  func(uintptr) bool // poll
	there bool               // what poll saw; the receiver's

	watching    sync.Mutex
	watched     *os.File        // a duplicate that the runtime waits for; nil: it does not. Guarded by watching
	conn        syscall.RawConn // of watched; the receiver's
	interrupted bool            // guarded by watching
}

// init makes l of a descriptor, which it owns if there is no error.
func (l *listener) init(fd int) error {
	// Only to let the runtime wait for it: the ioctls know no O_NONBLOCK.
	if err := unix.SetNonblock(fd, true); err != nil {
		return fmt.Errorf("O_NONBLOCK of the listener: %w", err)
	}
	none, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	l.fd, l.none, l.look = fd, none, l.poll
	if err := l.watch(); err != nil {
		unix.Close(none)
		return err
	}
	runtime.AddCleanup(l, func(fd int) { unix.Close(fd) }, fd)
	return nil
}

// watch lets the runtime wait for it. It is the receiver's, as unwatch and wait are.
func (l *listener) watch() error {
	fd, err := unix.FcntlInt(uintptr(l.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("duplicate the listener: %w", err)
	}
	file := os.NewFile(uintptr(fd), "seccomp listener")
	conn, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return fmt.Errorf("seccomp listener: %w", err)
	}
	l.watching.Lock()
	defer l.watching.Unlock()
	l.watched, l.conn = file, conn
	if l.interrupted {
		_ = file.SetReadDeadline(time.Unix(1, 0))
	}
	return nil
}

// unwatch ends it: then each call would wake a thread of the runtime's in vain.
func (l *listener) unwatch() {
	l.watching.Lock()
	defer l.watching.Unlock()
	if l.watched != nil {
		l.watched.Close()
		l.watched = nil
	}
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
func (l *listener) interrupt() {
	l.watching.Lock()
	defer l.watching.Unlock()
	l.interrupted = true
	if l.watched != nil {
		_ = l.watched.SetReadDeadline(time.Unix(1, 0))
	}
}

// close closes the listener: waiting and future calls of the target give ENOSYS, once nobody
// is in recvWaiting. Nobody may be in wait.
func (l *listener) close() {
	l.unwatch()
	l.watching.Lock()
	defer l.watching.Unlock()
	if l.none >= 0 {
		_ = unix.Dup3(l.none, l.fd, unix.O_CLOEXEC) // both are open
		unix.Close(l.none)
		l.none = -1
	}
}

// closed is what ioctls of a listener give when it is closed.
const closed = unix.ENOTTY

// ioctl makes one call.
func (l *listener) ioctl(req uintptr, arg unsafe.Pointer) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), req, uintptr(arg))
	switch errno {
	case 0:
	case closed:
		return -1, ErrGone
	default:
		return -1, errno
	}
	return int(n), nil
}

// setSync says whether there is to be the cheaper hand-over between target and supervisor on one
// processor (6.6). Without it everything works.
func (l *listener) setSync(on bool) error {
	var flags uintptr
	if on {
		flags = unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
	}
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(l.fd), unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, flags)
	if errno != 0 {
		return errno
	}
	return nil
}

// recvWaiting waits for a notification and receives it. EINTR: somebody has interrupted the
// thread (Wake). ENOENT: its thread is gone, or nobody is left to call.
func (l *listener) recvWaiting(n *notification) error {
	*n = notification{} // as the kernel demands
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(n)))
	if errno != 0 {
		return errno
	}
	return nil
}

// recv receives the notification that wait has seen. ENOENT says that it is there no more.
//
// It never waits, and so does not tell the runtime of it, which would wake the runtime's
// monitor at most times. The kernel counts what was sent and not received; a thread that is
// killed or interrupted before takes its notification away, but leaves the count
// (kernel/seccomp.c: seccomp_do_user_notification, seccomp_notify_recv). So as long as
// nobody else receives the count is not less than the notifications that poll(2) has seen.
func (l *listener) recv(n *notification) error {
	*n = notification{} // as the kernel demands
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(l.fd), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(n)))
	if errno != 0 {
		return errno
	}
	return nil
}

// valid reports whether notification id still waits.
func (l *listener) valid(id uint64) bool {
	// Too short for the runtime to be told of it.
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(l.fd), unix.SECCOMP_IOCTL_NOTIF_ID_VALID, uintptr(unsafe.Pointer(&id)))
	return errno == 0
}

// send answers a notification; ErrGone if it no longer waits.
func (l *listener) send(r *response) error {
	for {
		// It waits for nothing, and is over before the runtime could be told of it.
		_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(l.fd), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(r)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		case unix.ENOENT, unix.EINPROGRESS, closed:
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
	p := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&unix.POLLHUP != 0
}
