// SPDX-License-Identifier: Apache-2.0

// Probe: what this kernel allows, tried and not guessed from its version.

package intercept

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A Feature is something of the kernel that interception uses.
type Feature struct {
	Name     string // as the man pages call it
	Kernel   string // first Linux version that has it; empty: not a matter of version
	Required bool   // nothing works without
	Without  string // what is worse without it, if not required
	Err      error  // nil: it is there
}

// A Report says what the machine can do.
type Report struct {
	Kernel   string // release, as uname(2) says
	Yama     int    // kernel.yama.ptrace_scope; -1: there is no Yama
	Features []Feature
}

// Missing returns an [*UnsupportedError] for the first required feature that is
// missing, or nil.
func (r *Report) Missing() error {
	for _, f := range r.Features {
		if f.Required && f.Err != nil {
			return &UnsupportedError{Feature: f.Name, Kernel: f.Kernel, Err: f.Err}
		}
	}
	return nil
}

// Probe tries everything that a supervisor needs on a child that never runs a
// program: its execve(2) is intercepted and used for the trials. Like [Start], of
// which it is a run, it makes the process a subreaper that is not dumpable, and
// needs [ChildMain].
func Probe(ctx context.Context) *Report {
	r := &Report{Kernel: kernelRelease(), Yama: yamaScope()}

	var (
		untried  = errors.New("not tried, as nothing was intercepted")
		memory   = untried
		getfd    = untried
		install  = untried
		syncWake = untried
		launched error
	)
	onExec := func(c *Call) Action {
		syncWake = c.b.(*notifier).sync
		// The thread of the child is not its first one, as with any program
		// that has threads.
		memory = c.ReadMem(Addr(c.Args[0]), make([]byte, 1))
		f, err := c.DupFD(1)
		if getfd = err; err != nil {
			return Fail(unix.ECANCELED)
		}
		install = errors.New("the descriptor did not reach the child")
		a := InstallFD(f.N, true)
		a.OnCommit = func(int) { install = nil }
		return a
	}
	s, err := Start(ctx, Config{
		Path:  "/proc/self/exe",
		Rules: Rules{{NR: unix.SYS_EXECVE, Handler: HandlerFunc(onExec)}},
	})
	var refused *ExecError
	switch {
	case err == nil: // the call was not intercepted after all
		launched = errors.New("the filter has no effect")
		s.f.kill()
		<-s.f.exited
		s.Close()
	case !errors.As(err, &refused):
		launched = err
	}

	r.Features = []Feature{
		{Name: "seccomp user notification", Kernel: "5.0", Required: true, Err: launched},
		{Name: "memory of the program (process_vm_readv)", Required: true, Err: memory},
		{Name: "descriptors of the program (pidfd_getfd)", Kernel: "5.6", Required: true, Err: getfd},
		{Name: "SECCOMP_ADDFD_FLAG_SEND", Kernel: "5.14", Required: true, Err: install},
		{Name: "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", Kernel: "5.19", Err: probeFilterFlags(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV),
			Without: "a signal at the wrong moment can make a call happen twice"},
		{Name: "SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP", Kernel: "6.6", Err: syncWake,
			Without: "intercepted calls are slower"},
		{Name: "PIDFD_THREAD", Kernel: "6.9", Err: probePidfdThread(),
			Without: "threads with a descriptor table of their own have no network"},
		{Name: "Landlock domains (LANDLOCK_ACCESS_NET_BIND_TCP)", Kernel: "6.7", Err: probeDomain(),
			Without: "a hostile program can use other processes of its user (ptrace, pidfd_getfd), unless Yama forbids it"},
	}
	return r
}

// probeFilterFlags asks whether seccomp(2) knows the flags: it looks at them before
// it looks for the filter, which is not there.
func probeFilterFlags(flags uintptr) error {
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, 0)
	if errno == unix.EFAULT {
		return nil
	}
	return errno
}

// probePidfdThread opens a pidfd of the calling thread.
func probePidfdThread() error {
	fd, err := unix.PidfdOpen(unix.Gettid(), unix.PIDFD_THREAD)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// probeDomain puts a thread that is thrown away into a domain.
func probeDomain() error {
	var err error
	OnThread(func() {
		if err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err == nil {
			err = EnterDomain()
		}
	})
	return err
}

// kernelRelease is what uname -r prints.
func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// yamaScope reads kernel.yama.ptrace_scope; -1 if there is no Yama.
func yamaScope() int {
	b, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if err != nil {
		return -1
	}
	var n int
	if _, err := fmt.Sscan(string(bytes.TrimSpace(b)), &n); err != nil {
		return -1
	}
	return n
}
