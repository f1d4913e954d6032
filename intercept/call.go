// SPDX-License-Identifier: Apache-2.0

// A Call: one blocked system call of the target, and what a handler may do with it.

package intercept

import "errors"

// An Addr is an address in a task's memory.
type Addr uint64

// An Arch says through which system call entry a call came.
type Arch uint8

// The entries. x32 calls never arrive: the filter answers them with ENOSYS.
const (
	Native Arch = iota // the machine's own
	I386               // 32-bit entry of x86: int 0x80 and compat sysenter
)

// ErrGone says that the call a handler works on is over: its thread was killed,
// or was interrupted before the call was received. What the handler has done
// must be undone; there is nobody to answer.
var ErrGone = errors.New("the intercepted call is over")

// A Key identifies an open socket, whoever holds it under whatever number.
type Key struct {
	Ino    uint64 // inode of sockfs; the kernel may use it again after the last close
	Cookie uint64 // SO_COOKIE; never used again while the machine runs
}

// A Handler answers calls. Handle runs inline on the receiving thread and so
// never blocks: what must wait is parked ([Call.Park]).
type Handler interface{ Handle(*Call) Action }

// HandlerFunc makes a function a Handler.
type HandlerFunc func(*Call) Action

// Handle calls f.
func (f HandlerFunc) Handle(c *Call) Action { return f(c) }

// An Action is a handler's answer, made by the functions below. The zero Action
// is Next.
type Action struct {
	kind   actionKind
	ret    int64
	errno  int
	fd     int
	flags  uint32
	cancel func(Reason) Action

	// OnCommit, if set, runs once the answer reached the target; fd is the
	// number that InstallFD was given there, else -1.
	OnCommit func(fd int)
	// OnAbort, if set, runs instead when it did not (target gone, or its
	// descriptor table full: then the target got EMFILE).
	OnAbort func()
}

type actionKind uint8

const (
	actNext actionKind = iota
	actContinue
	actReturn
	actErrno
	actInstall
	actPark
	actRestart
)

// A Reason says why a parked call is taken back.
type Reason int

// The reasons.
const (
	// Interrupted: a signal, a stop or a tracer waits for the thread. The
	// Action that the cancel function returns is sent; Restart() for calls
	// that SA_RESTART may restart, Fail(unix.EINTR) for those it never does.
	Interrupted Reason = iota
	// Gone: the thread is dead or exec'ed; nothing can be answered.
	Gone
)
