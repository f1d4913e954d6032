// SPDX-License-Identifier: Apache-2.0

// The target's memory: process_vm_readv(2) and process_vm_writev(2).

package intercept

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// ReadMem implements [Backend].
func (n *notifier) ReadMem(c *Call, a Addr, p []byte) error {
	local := []unix.Iovec{{Base: &p[0]}}
	local[0].SetLen(len(p))
	remote := []unix.RemoteIovec{{Base: uintptr(a), Len: len(p)}}
	got, err := unix.ProcessVMReadv(c.TID, local, remote, 0)
	return n.transferred(c, "process_vm_readv", got, len(p), err)
}

// WriteMem implements [Backend]. The id is checked before, so that nothing is
// written to a stranger: a waiting thread keeps its number, and it waits unless a
// fatal signal comes between the check and the write. To have identified the thread a moment
// ago is as good; after that its number may be another's, or its leader's place have been taken
// by a thread that is another program now (execve(2)).
func (n *notifier) WriteMem(c *Call, a Addr, p []byte) error {
	if known := c.known.Load(); (known == 0 || moment()-known > knownFor) && !n.Valid(c) {
		return ErrGone
	}
	local := []unix.Iovec{{Base: &p[0]}}
	local[0].SetLen(len(p))
	remote := []unix.RemoteIovec{{Base: uintptr(a), Len: len(p)}}
	got, err := unix.ProcessVMWritev(c.TID, local, remote, 0)
	return n.transferred(c, "process_vm_writev", got, len(p), err)
}

// knownFor is how long it is known that a thread waits: longer than handlers take that wait
// for nothing, and not as long as it takes to end a thread and have another have its number.
const knownFor = int64(20 * time.Microsecond)

// moment is the time, in nanoseconds since some moment before.
func moment() int64 { return int64(time.Since(started)) }

var started = time.Now().Add(-1)

// transferred judges the result of moving want bytes: less than all is a fault.
func (n *notifier) transferred(c *Call, call string, got, want int, err error) error {
	switch {
	case err == nil && got == want:
		return nil
	case err == nil:
		return unix.EFAULT
	case errors.Is(err, unix.ESRCH):
		return ErrGone
	case errors.Is(err, unix.EPERM):
		n.denied(c, call)
	}
	return fmt.Errorf("%s of %d: %w", call, c.TID, err)
}
