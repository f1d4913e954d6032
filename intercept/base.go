// SPDX-License-Identifier: Apache-2.0

// The rules that hold for every program: what would open a way around the others.

package intercept

import (
	"os"

	"golang.org/x/sys/unix"
)

// Numbers of the i386 entry, arch/x86/entry/syscalls/syscall_32.tbl.
const (
	i386Ptrace          = 26
	i386Ioctl           = 54
	i386Prctl           = 172
	i386AddKey          = 286
	i386RequestKey      = 287
	i386Keyctl          = 288
	i386Seccomp         = 354
	i386IOURingSetup    = 425
	i386IOURingEnter    = 426
	i386IOURingRegister = 427
)

var traceMeArgs = []Arg{ArgMasked(0, ^uint64(0), unix.PTRACE_TRACEME)}

// traceMe answers PTRACE_TRACEME, by which the parent becomes the tracer. Where that is us, a
// program that asks whether somebody traces it, as those that mind do, would stop for good at
// its next signal or execve(2), and could not be traced to make calls for us. It is told that
// all is well, and is not traced.
func traceMe(c *Call) Action {
	if parent, err := statusField(c.TID, "PPid"); err == nil && parent == os.Getpid() && c.Valid() {
		return Return(0)
	}
	return Next()
}

// baseRules returns the rules that Start puts before those of its Config.
func baseRules() Rules {
	calls := func(native, i386 int, do Verdict, args ...Arg) Rules {
		return Rules{
			{Arch: Native, NR: native, Args: args, Do: do},
			{Arch: I386, NR: i386, Args: args, Do: do},
		}
	}
	var rs Rules
	for _, r := range []Rules{
		// Of two listeners the newest gets the calls. Once the supervisor is
		// dead a target could install its own and answer "continue". The
		// kernel says EBUSY while a listener is there, so say it for ever.
		calls(unix.SYS_SECCOMP, i386Seccomp, Deny(unix.EBUSY),
			ArgEqual32(0, unix.SECCOMP_SET_MODE_FILTER),
			ArgMasked(1, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)),

		// What a ring does is done by no system call that a filter could see.
		// Programs fall back as on kernels without io_uring.
		calls(unix.SYS_IO_URING_SETUP, i386IOURingSetup, Deny(unix.ENOSYS)),
		calls(unix.SYS_IO_URING_ENTER, i386IOURingEnter, Deny(unix.ENOSYS)),
		calls(unix.SYS_IO_URING_REGISTER, i386IOURingRegister, Deny(unix.ENOSYS)),

		// request_key(2) of a dns_resolver key makes the host look up a name.
		calls(unix.SYS_ADD_KEY, i386AddKey, Deny(unix.ENOSYS)),
		calls(unix.SYS_REQUEST_KEY, i386RequestKey, Deny(unix.ENOSYS)),
		calls(unix.SYS_KEYCTL, i386Keyctl, Deny(unix.ENOSYS)),

		// What is typed for another goes to the shell on the same terminal when the
		// program has ended. EIO is what the kernel says where it is not for all
		// (dev.tty.legacy_tiocsti is 0). Of a virtual console TIOCLINUX pastes; other
		// terminals do not know it, and programs do without.
		calls(unix.SYS_IOCTL, i386Ioctl, Deny(unix.EIO), ArgEqual32(1, unix.TIOCSTI)),
		calls(unix.SYS_IOCTL, i386Ioctl, Deny(unix.ENOTTY), ArgEqual32(1, unix.TIOCLINUX)),

		// A program that is not dumpable cannot be read by an ordinary user's
		// supervisor (ptrace(2), access mode checking). It is told that it is.
		calls(unix.SYS_PRCTL, i386Prctl, Deny(0),
			ArgEqual32(0, unix.PR_SET_DUMPABLE), ArgMasked(1, ^uint64(0), 0)),

		{
			{Arch: Native, NR: unix.SYS_PTRACE, Args: traceMeArgs, Handler: HandlerFunc(traceMe)},
			{Arch: I386, NR: i386Ptrace, Args: traceMeArgs, Handler: HandlerFunc(traceMe)},
		},
	} {
		rs = append(rs, r...)
	}
	return rs
}
