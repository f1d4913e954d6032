// SPDX-License-Identifier: Apache-2.0

// An execve(2) that the thread makes by itself.
//
// It is seized while it waits in its notification, and goes on with its own call. If that
// succeeds it stops before its first instruction, as PTRACE_O_TRACEEXEC has it. If not it is to
// stop as well, or we would wait for it for ever: so it is asked to, once it goes on, which an
// execve does not mind that reads a local file system.

package intercept

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// exec lets the thread make its call, and lets it go.
func (j *injector) exec(in *Injection) error {
	// It was killed if that fails; or a signal has ended the call, where it can: the thread stops
	// in both cases.
	_, _ = j.n.Reply(j.c, Reply{Kind: ReplyContinue})
	if err := j.interrupt(); err != nil && !errors.Is(err, unix.ESRCH) { // it ends, which the wait tells
		return err
	}
	s, err := j.wait()
	if err != nil {
		_ = in.Exec(j.tid, err)
		return err
	}
	if s == stopExec {
		err = ErrExec
	}
	if err := in.Exec(j.tid, err); err != nil {
		_ = unix.Tgkill(j.tgid, j.tid, unix.SIGKILL)
		return err
	}
	var signal unix.Signal
	if s == stopSignal { // which it was about to get when its call had failed
		signal = j.signal
	}
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_DETACH, uintptr(j.tid), 0, uintptr(signal), 0, 0); errno != 0 {
		return fmt.Errorf("PTRACE_DETACH: %w", errno)
	}
	return nil
}
