// SPDX-License-Identifier: Apache-2.0

// The working directory and the root.
//
// They are the kernel's own, so that fork, CLONE_FS and threads are its business: a task
// in a mount has the directory as its working directory that is mounted. Nothing ever
// starts there in the kernel, since every call with a relative path is answered by us: it
// is asked of /proc, and what the host calls the directory is taken for a name of the view
// again. So a directory that is covered cannot be reached by it.

package fsmod

import (
	"golang.org/x/sys/unix"

	"umrun/intercept"
)

func (m *Module) doChdir(c *intercept.Call) intercept.Action {
	o, err := m.find(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), 0)
	if err != nil {
		return fail(err)
	}
	defer o.close()
	dir, err := openToEnter(&o)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(dir)
	return m.enter(c, &o, dir, func(do func(intercept.Injected) (int64, error), fd int) (int64, error) {
		return do(intercept.Injected{NR: nrs(c).fchdir, Args: [6]uint64{uint64(fd)}})
	})
}

// openToEnter opens the directory o, which the caller may search.
func openToEnter(o *object) (int, error) {
	if o.typ() != unix.S_IFDIR {
		return -1, unix.ENOTDIR
	}
	if err := faccess(o.fd, unix.X_OK); err != nil {
		return -1, err
	}
	return unix.Open(procFD(o.fd), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// lend is [intercept.Call.AddFD] of a descriptor that the thread is to close by an injected
// call: it gets none if there can be no such call.
func (m *Module) lend(c *intercept.Call, fd int) (int, error) {
	if traced(c.TID) {
		m.log.Warn("a thread has a tracer in the view: its call fails", "tid", c.TID, "call", c.NR)
		return -1, unix.EPERM
	}
	return c.AddFD(fd, true)
}

// enter has the thread make calls with dir, the directory o.
func (m *Module) enter(c *intercept.Call, o *object, dir int, run func(do func(intercept.Injected) (int64, error), fd int) (int64, error)) intercept.Action {
	fd, err := m.lend(c, dir)
	if err != nil {
		return fail(err)
	}
	if o.m != nil {
		m.table.went(inodeOf(&o.st), o.m)
	}
	return c.Inject(intercept.Injection{Run: func(_ int, do func(intercept.Injected) (int64, error)) (int64, error) {
		result, err := run(do, fd)
		if err != nil {
			return 0, err
		}
		_, err = do(intercept.Injected{NR: nrs(c).close, Args: [6]uint64{uint64(fd)}})
		return result, err
	}})
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

// doFchdir leaves it to the kernel to go there, and notes by which mount.
func (m *Module) doFchdir(c *intercept.Call) intercept.Action {
	o, err := m.findFD(c, int(int32(c.Args[0])))
	if err != nil {
		return fail(err)
	}
	defer o.close()
	if o.m != nil {
		m.table.went(inodeOf(&o.st), o.m)
	} else {
		m.table.went(inodeOf(&o.st), m.table.host)
	}
	return intercept.Continue()
}

func (m *Module) doGetcwd(c *intercept.Call) intercept.Action {
	view, err := m.cwdOf(c)
	if err != nil {
		return fail(err)
	}
	name := m.seenFrom(c, view) + "\x00"
	switch {
	case len(name) > pathMax:
		return intercept.Fail(unix.ENAMETOOLONG)
	case uint64(len(name)) > c.Args[1]:
		return intercept.Fail(unix.ERANGE)
	}
	if err := c.WriteMem(intercept.Addr(c.Args[0]), []byte(name)); err != nil {
		return fail(err)
	}
	return intercept.Return(int64(len(name)))
}

// doChroot goes to the directory, makes it the root, and goes back.
func (m *Module) doChroot(c *intercept.Call) intercept.Action {
	o, err := m.find(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), 0)
	if err != nil {
		return fail(err)
	}
	defer o.close()
	dir, err := openToEnter(&o)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(dir)
	back, err := unix.Open(taskFile(c.TID, "cwd"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(back)
	cwd, err := m.lend(c, back)
	if err != nil {
		return fail(err)
	}
	m.table.chrooted.Store(true)
	nr := nrs(c)
	return m.enter(c, &o, dir, func(do func(intercept.Injected) (int64, error), fd int) (int64, error) {
		result, err := onPage(c, do, []byte(".\x00"), func(tid int, dot uint64) (result int64, err error) {
			if result, err = do(intercept.Injected{NR: nr.fchdir, Args: [6]uint64{uint64(fd)}}); err != nil || result < 0 {
				return result, err
			}
			if result, err = do(intercept.Injected{NR: nr.chroot, Args: [6]uint64{dot}}); err != nil {
				return 0, err
			}
			_, err = do(intercept.Injected{NR: nr.fchdir, Args: [6]uint64{uint64(cwd)}})
			return result, err
		})
		if err != nil {
			return 0, err
		}
		_, err = do(intercept.Injected{NR: nr.close, Args: [6]uint64{uint64(cwd)}})
		return result, err
	})
}

// onPage gives the thread some memory with a content for as long as f runs, whose result it
// returns, or why there is no memory, a negative errno.
func onPage(c *intercept.Call, do func(intercept.Injected) (int64, error), content []byte, f func(tid int, at uint64) (int64, error)) (int64, error) {
	size := uint64(len(content)+4095) &^ 4095
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
