// SPDX-License-Identifier: Apache-2.0

// Actions: the answers that a handler can give, parking, and how an answer
// reaches the target exactly once.

package intercept

import (
	"errors"
	"fmt"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// An Action is a handler's answer, made by the functions below. The zero Action
// is Next.
type Action struct {
	kind    actionKind
	ret     int64
	errno   unix.Errno
	fd      int
	cloexec bool

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
	actRepeat
)

// Next leaves the call to the next handler whose rule matches. When no handler is
// left the call continues.
func Next() Action { return Action{} }

// Continue lets the kernel run the call as if it had not been intercepted, with
// whatever the target's memory holds by then.
func Continue() Action { return Action{kind: actContinue} }

// Return makes v the call's result. Nothing else happens in the kernel.
func Return(v int64) Action { return Action{kind: actReturn, ret: v} }

// Fail makes the call fail with errno; Fail(0) is Return(0).
func Fail(errno unix.Errno) Action {
	if errno == 0 {
		return Return(0)
	}
	return Action{kind: actErrno, errno: errno}
}

// Restart makes the call end as one that a signal interrupted and that SA_RESTART
// restarts (ERESTARTSYS): the kernel runs the signal's handler and then calls
// again or returns EINTR, as sigaction(2) was told. Only a cancel function that
// is given [Interrupted] may answer so; without a pending signal the number 512
// would reach the program.
func Restart() Action { return Action{kind: actRestart} }

// Repeat is Restart for calls that no signal ends, as open(2) of a file on a disk: the
// handler runs, and then the kernel calls again whatever sigaction(2) was told
// (ERESTARTNOINTR).
func Repeat() Action { return Action{kind: actRepeat} }

// InstallFD gives the target a duplicate of the supervisor's descriptor fd, under
// its lowest free number, which becomes the call's result; both happen in one
// step or not at all. The Action owns fd: it is closed once it was tried to be
// installed, whatever the outcome. A full descriptor table makes the call fail with EMFILE.
func InstallFD(fd int, cloexec bool) Action {
	return Action{kind: actInstall, fd: fd, cloexec: cloexec}
}

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

// String returns the reason's name.
func (r Reason) String() string {
	if r == Gone {
		return "gone"
	}
	return "interrupted"
}

// Park keeps the call waiting until [Call.Complete] answers it. The handler
// returns the Action that Park returns.
//
// cancel runs instead of Complete, and at most once, when the thread must be let
// go: it undoes what was begun and returns the answer (released unsent if the reason
// is Gone). It runs on the watcher's goroutine, holds no lock of this package, must
// not block, and may run before the handler has returned: a handler parks last,
// when what cancel undoes is in place.
func (c *Call) Park(cancel func(Reason) Action) Action {
	c.cancel = cancel
	// Fails when Complete was faster, and then there is nothing left to park.
	c.state.CompareAndSwap(callActive, callParked)
	return Action{kind: actPark}
}

// Complete answers a parked call, from any goroutine, also before its handler has
// returned. It reports whether it was in time. If not, the call was cancelled or
// completed before: nothing was done with a, neither OnCommit nor OnAbort runs,
// and the descriptor of InstallFD is still the caller's, who undoes or requeues.
func (c *Call) Complete(a Action) bool {
	if !c.take() {
		return false
	}
	c.answer(a)
	return true
}

// CompleteFunc is Complete with what f returns, which runs only if the call was not
// cancelled, and then the call is no more: what f does is done for its answer. f
// cannot park the call anew.
func (c *Call) CompleteFunc(f func() Action) bool {
	if !c.take() {
		return false
	}
	a := f()
	if a.kind == actPark || a.kind == actNext {
		a = Fail(unix.EIO)
	}
	c.answer(a)
	return true
}

// take makes the caller the one who answers.
func (c *Call) take() bool { return c.state.Swap(callAnswered) != callAnswered }

// A PanicError says that a handler panicked. The call was answered with EIO unless
// it had its answer already.
type PanicError struct {
	Call  *Call
	Value any    // of the panic
	Stack []byte // of the goroutine
}

// Error describes the panic without its stack.
func (e *PanicError) Error() string {
	return fmt.Sprintf("handler of %v panicked: %v", e.Call, e.Value)
}

// rescue is deferred around everything of a handler that runs.
func (c *Call) rescue(err *error) {
	v := recover()
	if v == nil {
		return
	}
	*err = &PanicError{Call: c, Value: v, Stack: debug.Stack()}
	if c.take() {
		_, _ = c.b.Reply(c, Reply{Kind: ReplyErrno, Errno: unix.EIO})
	}
}

// Serve asks the handlers in turn and answers the call, unless it is parked. It is
// for a [Backend]; the error can only be a [*PanicError].
func (c *Call) Serve(handlers ...Handler) (parked bool, err error) {
	defer c.rescue(&err)
	a := Continue() // nobody minds
	for _, h := range handlers {
		if r := h.Handle(c); r.kind != actNext {
			a = r
			break
		}
	}
	if a.kind == actPark {
		return c.state.Load() == callParked, nil
	}
	if c.take() {
		c.answer(a)
	} else {
		a.discard() // its handler both completed and answered
	}
	return false, nil
}

// Cancel takes a parked call back for the given reason and reports whether it was
// in time. It is for a [Backend]; the error can only be a [*PanicError].
func (c *Call) Cancel(r Reason) (ok bool, err error) {
	if !c.state.CompareAndSwap(callParked, callAnswered) {
		return false, nil
	}
	ok = true
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Call: c, Value: v, Stack: debug.Stack()}
			_, _ = c.b.Reply(c, Reply{Kind: ReplyErrno, Errno: unix.EIO})
		}
	}()
	a := c.cancel(r)
	if r == Gone {
		a.discard()
		return
	}
	if a.kind == actNext || a.kind == actPark {
		a = Restart() // there is no other handler, and no time
	}
	c.answer(a)
	return
}

// Parked reports whether the call waits for Complete or Cancel. It is for a
// [Backend].
func (c *Call) Parked() bool { return c.state.Load() == callParked }

// answer sends a and runs its callbacks. The caller holds the right to answer.
func (c *Call) answer(a Action) {
	r := Reply{Val: a.ret, Errno: a.errno, FD: a.fd, CloseOnExec: a.cloexec}
	switch a.kind {
	case actReturn:
		r.Kind = ReplyReturn
	case actErrno:
		r.Kind = ReplyErrno
	case actRestart:
		r.Kind = ReplyRestart
	case actRepeat:
		r.Kind = ReplyRepeat
	case actInstall:
		r.Kind = ReplyInstall
	default:
		r.Kind = ReplyContinue
	}
	fd, err := c.b.Reply(c, r)
	if a.kind == actInstall {
		unix.Close(a.fd)
		if err != nil && !errors.Is(err, ErrGone) {
			// The target lives and got nothing: tell it why. The usual
			// reason is EMFILE, RLIMIT_NOFILE of the target.
			_, _ = c.b.Reply(c, Reply{Kind: ReplyErrno, Errno: Errno(err)})
		}
	}
	switch {
	case err != nil && a.OnAbort != nil:
		a.OnAbort()
	case err == nil && a.OnCommit != nil:
		a.OnCommit(fd)
	}
}

// discard releases an Action that is never sent.
func (a Action) discard() {
	if a.kind == actInstall {
		unix.Close(a.fd)
	}
	if a.OnAbort != nil {
		a.OnAbort()
	}
}
