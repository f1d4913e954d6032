// SPDX-License-Identifier: Apache-2.0

// The fake process as a backend of calls.

package intercepttest

import (
	"golang.org/x/sys/unix"
	"umrun/intercept"
)

// backend keeps the methods of intercept.Backend off the Process.
type backend Process

// ReadMem implements intercept.Backend.
func (b *backend) ReadMem(c *intercept.Call, a intercept.Addr, p []byte) error {
	if !b.Valid(c) {
		return intercept.ErrGone
	}
	return (*Process)(b).access(a, p, false)
}

// WriteMem implements intercept.Backend.
func (b *backend) WriteMem(c *intercept.Call, a intercept.Addr, p []byte) error {
	if !b.Valid(c) {
		return intercept.ErrGone
	}
	return (*Process)(b).access(a, p, true)
}

// DupFD implements intercept.Backend.
func (b *backend) DupFD(c *intercept.Call, fd int) (int, error) {
	if !b.Valid(c) {
		return -1, intercept.ErrGone
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	host, ok := b.fds[fd]
	if !ok {
		return -1, unix.EBADF
	}
	return unix.FcntlInt(uintptr(host), unix.F_DUPFD_CLOEXEC, 0)
}

// Identify implements intercept.Backend: the tasks of the fake last.
func (b *backend) Identify(c *intercept.Call) bool { return b.Valid(c) }

// NetNS implements intercept.Backend: the process is in the namespace of the test.
func (b *backend) NetNS(c *intercept.Call) (uint64, error) {
	if !b.Valid(c) {
		return 0, intercept.ErrGone
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}

// ReplaceFD implements intercept.Backend.
func (b *backend) ReplaceFD(c *intercept.Call, at, fd int) error {
	if !b.Valid(c) {
		return intercept.ErrGone
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old, ok := b.fds[at]
	if !ok {
		return unix.EBADF
	}
	host, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	unix.Close(old)
	b.fds[at] = host
	return nil
}

// AddFD implements intercept.Backend.
func (b *backend) AddFD(c *intercept.Call, fd int, cloexec bool) (int, error) {
	if !b.Valid(c) {
		return -1, intercept.ErrGone
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.addLocked(fd, cloexec)
}

// addLocked puts a duplicate of fd under the lowest free number.
func (b *backend) addLocked(fd int, cloexec bool) (int, error) {
	for n := 0; n < b.MaxFD; n++ {
		if _, used := b.fds[n]; used {
			continue
		}
		host, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		b.fds[n], b.cloexec[n] = host, cloexec
		return n, nil
	}
	return -1, unix.EMFILE
}

// Inject implements intercept.Backend: there is no thread that could do anything.
func (b *backend) Inject(*intercept.Call, intercept.Injection) intercept.Action {
	return intercept.Fail(unix.ENOSYS)
}

// Valid implements intercept.Backend.
func (b *backend) Valid(c *intercept.Call) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	call := b.calls[c.ID()]
	return call != nil && !call.gone
}

// Reply implements intercept.Backend. An answered call is forgotten, so that a
// second answer finds nobody.
func (b *backend) Reply(c *intercept.Call, r intercept.Reply) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	call := b.calls[c.ID()]
	if call == nil || call.gone {
		return -1, intercept.ErrGone
	}
	fd := -1
	call.result = Result{Kind: r.Kind, Val: r.Val, Errno: r.Errno}
	if r.Kind == intercept.ReplyInstall {
		var err error
		if fd, err = b.addLocked(r.FD, r.CloseOnExec); err != nil {
			return -1, err
		}
		call.result = Result{Kind: r.Kind, Val: int64(fd)}
	}
	delete(b.calls, c.ID())
	close(call.answered)
	return fd, nil
}
