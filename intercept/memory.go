// SPDX-License-Identifier: Apache-2.0

// The target's memory: process_vm_readv(2) and process_vm_writev(2).

package intercept

import (
	"errors"
	"fmt"

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
// fatal signal comes between the check and the write. Of a thread that was identified after
// its call was received this is known.
func (n *notifier) WriteMem(c *Call, a Addr, p []byte) error {
	if !c.known.Load() && !n.Valid(c) {
		return ErrGone
	}
	local := []unix.Iovec{{Base: &p[0]}}
	local[0].SetLen(len(p))
	remote := []unix.RemoteIovec{{Base: uintptr(a), Len: len(p)}}
	got, err := unix.ProcessVMWritev(c.TID, local, remote, 0)
	return n.transferred(c, "process_vm_writev", got, len(p), err)
}

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
