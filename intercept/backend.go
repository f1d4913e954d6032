// SPDX-License-Identifier: Apache-2.0

// Backend: what stands between a Call and the kernel.

package intercept

import "golang.org/x/sys/unix"

// A Backend delivers calls and carries out what their methods ask for. A handler
// cannot tell which one delivered its Call: the seccomp listener ([Supervisor]),
// or the fake process of package intercepttest.
//
// Methods are safe for concurrent use and do not block. Their errors are
// unix.Errno, possibly wrapped, or [ErrGone].
type Backend interface {
	// ReadMem and WriteMem move all of p (never empty), or give EFAULT, EPERM or
	// ErrGone. ReadMem may read another process's memory if the call is over: had the
	// thread died, its number could belong to that. Valid then says so.
	ReadMem(c *Call, a Addr, p []byte) error
	WriteMem(c *Call, a Addr, p []byte) error

	// DupFD duplicates descriptor fd (not negative) of the calling thread.
	DupFD(c *Call, fd int) (int, error)

	// Identify makes c.Task the one Task of the calling thread, see [Call.Identify].
	Identify(c *Call) bool

	// NetNS tells the inode number of the calling thread's network namespace.
	NetNS(c *Call) (uint64, error)

	// ReplaceFD puts a duplicate of fd under the number at of the calling thread,
	// as dup3(2) would, and keeps the close-on-exec flag of what was there. The
	// thread still waits for its answer. Errors: EBADF, ErrGone.
	ReplaceFD(c *Call, at, fd int) error

	// AddFD gives the calling thread a duplicate of fd while it waits, and returns its
	// number there. Errors: EMFILE, ErrGone.
	AddFD(c *Call, fd int, cloexec bool) (int, error)

	// Inject answers the call with what the thread is made to do.
	Inject(c *Call, in Injection) Action

	// Valid reports whether the thread still waits for its answer.
	Valid(c *Call) bool

	// Reply answers and lets the thread run; fd is the number under which
	// ReplyInstall put the descriptor, else -1. ErrGone when the thread no longer
	// waits; any other error only for ReplyInstall, and then the thread still
	// waits for a second Reply. Reply does not close r.FD.
	Reply(c *Call, r Reply) (fd int, err error)
}

// A Reply is an answer as a Backend sends it.
type Reply struct {
	Kind        ReplyKind
	Val         int64      // ReplyReturn: the result
	Errno       unix.Errno // ReplyErrno: the error, positive
	FD          int        // ReplyInstall: descriptor of the supervisor
	CloseOnExec bool       // ReplyInstall: FD_CLOEXEC of the new descriptor
}

// A ReplyKind says which sort of answer a Reply is.
type ReplyKind uint8

// The kinds of Reply.
const (
	ReplyContinue ReplyKind = iota // the kernel runs the call
	ReplyReturn                    // the call returns Val
	ReplyErrno                     // the call fails with Errno
	ReplyRestart                   // the call ends with ERESTARTSYS
	ReplyInstall                   // the call returns a duplicate of FD
	ReplyRepeat                    // the call ends with ERESTARTNOINTR
)

// String returns the kind's name.
func (k ReplyKind) String() string {
	return [...]string{"continue", "return", "errno", "restart", "install", "repeat"}[k]
}

// NewCall makes a Call that b delivers; id is b's own and comes back by [Call.ID].
func NewCall(b Backend, id uint64, arch Arch, nr int, args [6]uint64, task *Task) *Call {
	return &Call{NR: nr, Args: args, TID: task.tid, Arch: arch, Task: task, b: b, id: id}
}

// ID returns the number by which the call's Backend knows it.
func (c *Call) ID() uint64 { return c.id }
