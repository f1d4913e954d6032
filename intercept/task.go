// SPDX-License-Identifier: Apache-2.0

// Tasks: the threads of the target, and what /proc and pidfds tell about them.

package intercept

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Task is a thread of the target. The Supervisor keeps one for as long as the
// thread lives; a handler may keep it longer and then gets ESRCH from it.
type Task struct {
	tid int

	mu    sync.Mutex
	pidfd int  // PIDFD_THREAD; -1: not open
	gone  bool // the thread ended, seen by its pidfd
	tgid  int  // 0: not asked yet
}

// NewTask describes thread tid of thread group tgid; 0 lets /proc say which. It is
// for a [Backend].
func NewTask(tid, tgid int) *Task { return &Task{tid: tid, tgid: tgid, pidfd: -1} }

// TID returns the thread's number in the supervisor's PID namespace.
func (t *Task) TID() int { return t.tid }

// TGID returns the number of the thread's group, which is what getpid(2) tells
// the program, or 0 if the thread is gone.
func (t *Task) TGID() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tgid == 0 && !t.gone {
		t.tgid, _ = threadGroup(t.tid)
	}
	return t.tgid
}

// pidfdNetNS is [Call.NetNS] by the thread's pidfd (6.11), which takes a quarter of the
// time. It does not tell the runtime of its calls, which wait for nothing. errNoPidfd
// when the cache knows no pidfd, ESRCH when the thread is gone.
func (t *Task) pidfdNetNS() (ino uint64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone {
		return 0, unix.ESRCH
	}
	if t.pidfd < 0 {
		return 0, errNoPidfd
	}
	fd, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(t.pidfd), unix.PIDFD_GET_NET_NAMESPACE, 0)
	if errno != 0 {
		return 0, errno
	}
	var st unix.Stat_t
	_, _, errno = unix.RawSyscall(unix.SYS_FSTAT, fd, uintptr(unsafe.Pointer(&st)), 0)
	_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return st.Ino, nil
}

// OpenDir opens, with O_PATH, what the thread's paths begin at: "root", "cwd", or
// "fd/N". The caller closes it. ESRCH when the thread is gone, EBADF when it has
// no descriptor N, EACCES when it may not be looked at.
func (t *Task) OpenDir(what string) (*os.File, error) {
	name := fmt.Sprintf("/proc/%d/%s", t.tid, what)
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) && what != "root" && what != "cwd" {
		err = unix.EBADF
	}
	if err == nil && t.Ended() {
		unix.Close(fd)
		err = unix.ESRCH
	}
	if err != nil {
		return nil, fmt.Errorf("%s of %d: %w", what, t.tid, procError(err))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// procError is what the absence of /proc/TID means.
func procError(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return unix.ESRCH
	}
	return err
}

// Ended reports whether the thread is known to have ended, so that its number may
// be another's by now.
func (t *Task) Ended() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pidfd < 0 {
		return t.gone
	}
	p := []unix.PollFd{{Fd: int32(t.pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0
}

// taskCache keeps a Task with an open pidfd for each thread whose descriptors were
// asked for. A number may be another thread's by the time that it calls: its old
// pidfd then gives ESRCH, and the Task is replaced (see getfd). So a Task out of the
// cache is the caller's own only once a descriptor was had by it.
//
// The pidfds of ended threads are readable, and sit in one epoll set, by which they
// are found and closed now and then.
type taskCache struct {
	epoll int

	slots [256]atomic.Pointer[Task] // of tasks, what was got last. Set under mu

	mu    sync.Mutex
	tasks map[int]*Task
}

// sweepEach is how many calls a receiver has between two sweeps while no thread is new.
const sweepEach = 256

func newTaskCache() (*taskCache, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll of threads: %w", err)
	}
	return &taskCache{epoll: fd, tasks: make(map[int]*Task)}, nil
}

// get returns the Task of a thread that waits in a notification, as far as is known.
func (tc *taskCache) get(tid int) *Task {
	slot := tc.slot(tid)
	if t := slot.Load(); t != nil && t.tid == tid {
		return t
	}
	tc.mu.Lock()
	defer tc.mu.Unlock()
	t := tc.tasks[tid]
	if t == nil {
		return NewTask(tid, 0)
	}
	slot.Store(t)
	return t
}

func (tc *taskCache) slot(tid int) *atomic.Pointer[Task] { return &tc.slots[tid%len(tc.slots)] }

// drop forgets t, which has ended.
func (tc *taskCache) drop(t *Task) {
	tc.mu.Lock()
	defer tc.mu.Unlock()
	tc.dropLocked(t)
}

func (tc *taskCache) dropLocked(t *Task) {
	if tc.tasks[t.tid] == t {
		delete(tc.tasks, t.tid)
	}
	tc.slot(t.tid).CompareAndSwap(t, nil)
	t.close()
}

// sweep drops the threads that have ended.
func (tc *taskCache) sweep() {
	tc.mu.Lock()
	defer tc.mu.Unlock()
	if tc.tasks != nil {
		tc.sweepLocked()
	}
}

func (tc *taskCache) sweepLocked() {
	var events [16]unix.EpollEvent
	for {
		n, err := unix.EpollWait(tc.epoll, events[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		for _, e := range events[:max(n, 0)] {
			tid := int(e.Fd)
			if t := tc.tasks[tid]; t != nil {
				tc.dropLocked(t)
			}
		}
		if n < len(events) {
			return
		}
	}
}

// put keeps t, whose thread waits in a call and whose pidfd has just been opened. It gives
// that to t, and leaves t.mu locked if there is no error: as soon as others see t, which may
// have ended by now, one of them may close it.
func (tc *taskCache) put(t *Task, pidfd int) error {
	tc.mu.Lock()
	defer tc.mu.Unlock()
	if tc.tasks == nil {
		return ErrGone // closed
	}
	tc.sweepLocked()
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(t.tid)}
	if err := unix.EpollCtl(tc.epoll, unix.EPOLL_CTL_ADD, pidfd, &e); err != nil {
		return fmt.Errorf("watch thread %d: %w", t.tid, err)
	}
	if old := tc.tasks[t.tid]; old != nil {
		tc.dropLocked(old)
	}
	tc.tasks[t.tid] = t
	t.mu.Lock()
	t.pidfd = pidfd
	return nil
}

// close drops all threads; the cache then stays empty.
func (tc *taskCache) close() {
	tc.mu.Lock()
	defer tc.mu.Unlock()
	if tc.tasks == nil {
		return
	}
	for _, t := range tc.tasks {
		tc.dropLocked(t)
	}
	tc.tasks = nil
	unix.Close(tc.epoll)
}

// close ends the thread's entry; a handler may still hold t.
func (t *Task) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gone = true
	if t.pidfd >= 0 {
		unix.Close(t.pidfd)
		t.pidfd = -1
	}
}

// DupFD implements [Backend] with pidfd_getfd(2).
func (n *notifier) DupFD(c *Call, fd int) (int, error) {
	dup, err := n.getfd(c, fd)
	switch {
	case err == nil:
		return dup, nil
	case errors.Is(err, unix.ESRCH):
		return -1, ErrGone
	case errors.Is(err, unix.EPERM):
		n.denied(c, "pidfd_getfd")
	}
	return -1, err
}

func (n *notifier) getfd(c *Call, fd int) (int, error) {
	dup, err := c.Task.getfd(fd)
	if err == nil {
		return dup, nil
	}
	if !n.stranger(c, err) {
		return -1, fmt.Errorf("pidfd_getfd of %d, descriptor %d: %w", c.TID, fd, err)
	}
	pidfd, done, err := n.pidfd(c)
	if err != nil {
		return -1, err
	}
	defer done()
	dup, err = unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return -1, fmt.Errorf("pidfd_getfd of %d, descriptor %d: %w", c.TID, fd, err)
	}
	return dup, nil
}

// NetNS implements [Backend]. Kernels before 6.11 tell it by /proc alone.
func (n *notifier) NetNS(c *Call) (uint64, error) {
	ino, err := c.Task.pidfdNetNS()
	if err == nil {
		return ino, nil
	}
	if n.stranger(c, err) {
		if _, done, err := n.pidfd(c); err == nil {
			done()
			if ino, err := c.Task.pidfdNetNS(); err == nil {
				return ino, nil
			}
		}
	}
	return procNetNS(c)
}

// Identify implements [Backend].
func (n *notifier) Identify(c *Call) bool {
	err := c.Task.alive()
	if err == nil {
		if n.killable {
			c.known.Store(moment())
		}
		return true
	}
	if !n.stranger(c, err) {
		return false
	}
	_, done, err := n.pidfd(c)
	if err != nil {
		return false
	}
	done()
	return c.Task.alive() == nil // it has none of its own before 6.9
}

// alive asks the pidfd that is in the cache for the thread: nil if it has not ended, or
// not been waited for, so that its number is nobody else's. It does not tell the runtime
// of the call, which waits for nothing.
func (t *Task) alive() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone {
		return unix.ESRCH
	}
	if t.pidfd < 0 {
		return errNoPidfd
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_PIDFD_SEND_SIGNAL, uintptr(t.pidfd), 0, 0, 0, 0, 0)
	if errno != 0 && errno != unix.EPERM { // it is there, and not ours to signal
		return errno
	}
	return nil
}

// stranger tells whether err, which the task of c gave, says that no pidfd of the
// calling thread is known. A task that has ended is not the caller, who is alive: c then
// has another.
func (n *notifier) stranger(c *Call, err error) bool {
	if err == unix.ESRCH {
		n.tasks.drop(c.Task)
		c.Task = NewTask(c.TID, 0)
		return true
	}
	return err == errNoPidfd
}

// errNoPidfd says that the cache knows no pidfd of the thread.
var errNoPidfd = errors.New("no pidfd yet")

// getfd duplicates a descriptor by the pidfd that is in the cache. It does not tell
// the runtime of the call, which takes no longer than that would.
func (t *Task) getfd(fd int) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone {
		return -1, unix.ESRCH
	}
	if t.pidfd < 0 {
		return -1, errNoPidfd
	}
	dup, _, errno := unix.RawSyscall(unix.SYS_PIDFD_GETFD, uintptr(t.pidfd), uintptr(fd), 0)
	if errno != 0 {
		return -1, errno
	}
	return int(dup), nil
}

// pidfd opens a pidfd of the calling thread, good until done is called, and puts it
// into the cache.
//
// It must be the thread's own (PIDFD_THREAD, 6.9): a thread can have another
// descriptor table than its group's leader (unshare(CLONE_FILES)), and a table that
// is not the caller's gives somebody else's file under the same number.
func (n *notifier) pidfd(c *Call) (fd int, done func(), err error) {
	t := c.Task
	fd, err = unix.PidfdOpen(c.TID, unix.PIDFD_THREAD)
	if errors.Is(err, unix.EINVAL) {
		return n.groupPidfd(c)
	}
	if err != nil {
		return -1, nil, fmt.Errorf("pidfd_open of thread %d: %w", c.TID, err)
	}
	// The thread still waits: so it is the one that the number means.
	if !n.Valid(c) {
		unix.Close(fd)
		return -1, nil, ErrGone
	}
	if err := n.tasks.put(t, fd); err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, t.mu.Unlock, nil
}

// groupPidfd is pidfd for kernels that have pidfds of thread groups only: good if
// the thread shares its leader's table. It is not cached, as such a pidfd does not
// tell when the thread ends.
func (n *notifier) groupPidfd(c *Call) (fd int, done func(), err error) {
	tgid, err := threadGroup(c.TID)
	if err != nil {
		return -1, nil, err
	}
	if tgid != c.TID {
		const kcmpFiles = 2 // KCMP_FILES, linux/kcmp.h
		r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(c.TID), uintptr(tgid), kcmpFiles, 0, 0, 0)
		if errno != 0 || r != 0 {
			// Another table, or no way to know.
			return -1, nil, fmt.Errorf("descriptor table of thread %d: %w", c.TID, unix.EPERM)
		}
	}
	fd, err = unix.PidfdOpen(tgid, 0)
	if err != nil {
		return -1, nil, fmt.Errorf("pidfd_open of %d: %w", tgid, err)
	}
	if !n.Valid(c) {
		unix.Close(fd)
		return -1, nil, ErrGone
	}
	return fd, func() { unix.Close(fd) }, nil
}
