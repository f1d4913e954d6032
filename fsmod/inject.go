// SPDX-License-Identifier: Apache-2.0

// What it takes to have a thread make calls: descriptors, numbers of calls, memory.

package fsmod

import (
	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// lend is [intercept.Call.AddFD] of a descriptor that the thread is to close by an injected
// call: it gets none if there can be no such call.
func (m *Module) lend(c *intercept.Call, fd int) (int, error) {
	if traced(c.TID) {
		m.log.Warn("a thread has a tracer in the view: its call fails", "tid", c.TID, "call", c.NR)
		return -1, unix.EPERM
	}
	return c.AddFD(fd, true)
}

// failLent is fail, once the thread has given back what it was lent.
func failLent(c *intercept.Call, err error, lent ...int) intercept.Action {
	if len(lent) == 0 {
		return fail(err)
	}
	return c.Inject(intercept.Injection{Run: func(_ int, do func(intercept.Injected) (int64, error)) (int64, error) {
		return -int64(intercept.Errno(err)), giveBack(c, do, lent...)
	}})
}

// giveBack has the thread close descriptors that it was lent.
func giveBack(c *intercept.Call, do func(intercept.Injected) (int64, error), lent ...int) error {
	for _, fd := range lent {
		if _, err := do(intercept.Injected{NR: nrs(c).close, Args: [6]uint64{uint64(fd)}}); err != nil {
			return err
		}
	}
	return nil
}

// numbers are those of calls that are injected.
type numbers struct{ fchdir, chroot, close, execveat, mmap, munmap int }

var (
	nativeNumbers = numbers{unix.SYS_FCHDIR, unix.SYS_CHROOT, unix.SYS_CLOSE, unix.SYS_EXECVEAT, unix.SYS_MMAP, unix.SYS_MUNMAP}
	i386Numbers   = numbers{133, 61, 6, 358, 192, 91}
)

func nrs(c *intercept.Call) *numbers {
	if c.Arch == intercept.I386 {
		return &i386Numbers
	}
	return &nativeNumbers
}

// OnPage gives the thread some memory with a content for as long as f runs, whose result it
// returns, or why there is no memory, a negative errno.
func OnPage(c *intercept.Call, do func(intercept.Injected) (int64, error), content []byte, f func(tid int, at uint64) (int64, error)) (int64, error) {
	size := pages(content)
	const private = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	at, err := do(intercept.Injected{NR: nrs(c).mmap, Args: [6]uint64{0, size, unix.PROT_READ | unix.PROT_WRITE, private, ^uint64(0) & mask(c), 0}})
	if err != nil || at < 0 && at > -4096 {
		return at, err
	}
	addr := uint64(at) & mask(c)
	if err := poke(c.TID, addr, content); err != nil {
		return 0, err
	}
	result, err := f(c.TID, addr)
	if err != nil {
		return 0, err
	}
	_, err = do(intercept.Injected{NR: nrs(c).munmap, Args: [6]uint64{addr, size}})
	return result, err
}

// mask is what registers of the call's entry hold.
func mask(c *intercept.Call) uint64 {
	if c.Arch == intercept.I386 {
		return 0xffffffff
	}
	return ^uint64(0)
}

// peek reads the memory of a thread that is stopped.
func peek(tid int, at uint64, b []byte) error {
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	n, err := unix.ProcessVMReadv(tid, local, []unix.RemoteIovec{{Base: uintptr(at), Len: len(b)}}, 0)
	if err != nil || n != len(b) {
		return unix.EFAULT
	}
	return nil
}

// poke writes to the memory of a thread that is stopped.
func poke(tid int, at uint64, b []byte) error {
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	n, err := unix.ProcessVMWritev(tid, local, []unix.RemoteIovec{{Base: uintptr(at), Len: len(b)}}, 0)
	if err != nil || n != len(b) {
		return unix.EFAULT
	}
	return nil
}
