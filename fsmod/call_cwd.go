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
	"strings"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

func (m *Module) doChdir(c *intercept.Call) intercept.Action {
	o, dir, err := m.findToEnter(c)
	if err != nil {
		return fail(err)
	}
	defer o.close()
	defer unix.Close(dir)
	return m.enter(c, &o, dir, func(do func(intercept.Injected) (int64, error), fd int) (int64, error) {
		return do(intercept.Injected{NR: nrs(c).fchdir, Args: [6]uint64{uint64(fd)}})
	})
}

// findToEnter finds and opens the directory that the call's path leads to, which the
// caller may search. Who gets the two closes them.
func (m *Module) findToEnter(c *intercept.Call) (o object, dir int, err error) {
	if o, err = m.find(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), 0); err != nil {
		return o, -1, err
	}
	if o.typ() != unix.S_IFDIR {
		err = unix.ENOTDIR
	} else if err = faccess(o.fd, unix.X_OK); err == nil {
		dir, err = unix.Open(procFD(o.fd), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		o.close()
	}
	return o, dir, err
}

// enter has the thread make calls with dir, the directory o, and then give back what else
// it was lent for them.
func (m *Module) enter(c *intercept.Call, o *object, dir int, run func(do func(intercept.Injected) (int64, error), fd int) (int64, error), lent ...int) intercept.Action {
	fd, err := m.lend(c, dir)
	if err != nil {
		return failLent(c, err, lent...)
	}
	if o.m != nil {
		m.table.went(inodeOf(&o.st), o.m)
	}
	return m.moves(c, func(_ int, do func(intercept.Injected) (int64, error)) (int64, error) {
		result, err := run(do, fd)
		if err != nil {
			return 0, err
		}
		return result, giveBack(c, do, append(lent, fd)...)
	})
}

// doFchdir leaves it to the kernel to go there, and notes by which mount.
func (m *Module) doFchdir(c *intercept.Call) intercept.Action {
	o, err := m.findFD(c, int(int32(c.Args[0])))
	if err != nil {
		return fail(err)
	}
	defer o.close()
	switch {
	case o.typ() != unix.S_IFDIR:
		return intercept.Fail(unix.ENOTDIR)
	case o.m != nil:
		m.table.went(inodeOf(&o.st), o.m)
	case !isPath(o.fd): // what has no mark: whoever opened it has noted the way
		m.table.went(inodeOf(&o.st), m.table.host)
	}
	m.where.begin(c)
	return intercept.Continue()
}

func (m *Module) doGetcwd(c *intercept.Call) intercept.Action {
	view, err := m.cwdOf(c)
	if err == nil && m.table.goneFrom(view) != "" {
		err = unix.ENOENT
	}
	if err != nil {
		return fail(err)
	}
	name := m.seenFrom(c, view) + "\x00"
	if strings.HasPrefix(view, detachedMark) {
		name = "(unreachable)" + name
	}
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
	o, dir, err := m.findToEnter(c)
	if err != nil {
		return fail(err)
	}
	defer o.close()
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
		return OnPage(c, do, []byte(".\x00"), func(tid int, dot uint64) (result int64, err error) {
			if result, err = do(intercept.Injected{NR: nr.fchdir, Args: [6]uint64{uint64(fd)}}); err != nil || result < 0 {
				return result, err
			}
			if result, err = do(intercept.Injected{NR: nr.chroot, Args: [6]uint64{dot}}); err != nil {
				return 0, err
			}
			_, err = do(intercept.Injected{NR: nr.fchdir, Args: [6]uint64{uint64(cwd)}})
			return result, err
		})
	}, cwd)
}
