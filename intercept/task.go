// SPDX-License-Identifier: Apache-2.0

// Tasks: the threads of the target, and what /proc and pidfds tell about them.

package intercept

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A Task is a thread of the target. The Supervisor keeps one for as long as the
// thread lives; a handler may keep it longer and then gets ESRCH from it.
type Task struct {
	tid   int
	pidfd int // PIDFD_THREAD; -1: not open

	mu   sync.Mutex
	tgid int // 0: not asked yet
}

// NewTask describes thread tid of thread group tgid. It is for a [Backend].
func NewTask(tid, tgid int) *Task { return &Task{tid: tid, tgid: tgid, pidfd: -1} }

// TID returns the thread's number in the supervisor's PID namespace.
func (t *Task) TID() int { return t.tid }

// TGID returns the number of the thread's group, which is what getpid(2) tells
// the program, or 0 if the thread is gone.
func (t *Task) TGID() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tgid == 0 {
		t.tgid, _ = threadGroup(t.tid)
	}
	return t.tgid
}

// NetNS returns the inode number of the thread's network namespace.
func (t *Task) NetNS() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", t.tid), &st); err != nil {
		return 0, fmt.Errorf("network namespace of %d: %w", t.tid, err)
	}
	return st.Ino, nil
}

// OpenDir opens, with O_PATH, what the thread's paths begin at: "root", "cwd", or
// "fd/N".
func (t *Task) OpenDir(what string) (*os.File, error) {
	name := fmt.Sprintf("/proc/%d/%s", t.tid, what)
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s of %d: %w", what, t.tid, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
