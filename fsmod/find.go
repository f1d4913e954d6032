// SPDX-License-Identifier: Apache-2.0

// From the arguments of a call to an object.

package fsmod

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// fail makes an error the call's answer.
func fail(err error) intercept.Action { return intercept.Fail(intercept.Errno(err)) }

// result is fail, or 0.
func result(err error) intercept.Action {
	if err != nil {
		return fail(err)
	}
	return intercept.Return(0)
}

// find resolves a path argument, as AT_SYMLINK_NOFOLLOW and AT_EMPTY_PATH in flags say.
func (m *Module) find(c *intercept.Call, dir int, at intercept.Addr, flags int) (object, error) {
	if at == 0 && flags&unix.AT_EMPTY_PATH != 0 {
		return m.findFD(c, dir) // as Linux has it since 6.11
	}
	path, err := c.ReadString(at, pathMax)
	if err != nil {
		return object{fd: -1}, err
	}
	return m.findPath(c, dir, path, flags)
}

// findPath is find of a path that was read.
func (m *Module) findPath(c *intercept.Call, dir int, path string, flags int) (object, error) {
	if path == "" && flags&unix.AT_EMPTY_PATH != 0 {
		return m.findFD(c, dir)
	}
	if o, ok := m.findDisk(c, dir, path); ok {
		return o, nil
	}
	return m.resolvePath(c, dir, path, flags&unix.AT_SYMLINK_NOFOLLOW == 0, 0)
}

// findFD is the object of a descriptor, with a mount if it came through one.
func (m *Module) findFD(c *intercept.Call, fd int) (object, error) {
	if fd == unix.AT_FDCWD {
		return m.resolvePath(c, fd, ".", true, 0)
	}
	n, err := c.Dup(fd)
	if err != nil {
		return object{fd: -1}, err
	}
	o := object{fd: n}
	if err := unix.Fstat(n, &o.st); err != nil {
		o.close()
		return o, err
	}
	if t := o.typ(); t == unix.S_IFREG || t == unix.S_IFDIR {
		o.m = m.table.tagOf(n)
	}
	return o, nil
}

// resolvePath resolves a path of the calling task.
func (m *Module) resolvePath(c *intercept.Call, dir int, path string, follow bool, resolve uint64) (object, error) {
	none := object{fd: -1}
	if path == "" {
		return none, unix.ENOENT
	}
	w := walk{m: m, c: c, resolve: resolve}
	var err error
	if w.root, err = m.rootOf(c); err != nil {
		return none, err
	}
	cur := w.root
	if path[0] != '/' || resolve&(unix.RESOLVE_BENEATH|unix.RESOLVE_IN_ROOT) != 0 {
		if cur, err = m.baseOf(c, dir, path); err != nil {
			if err == unix.ENOENT && strings.Trim(path, "/") == "." {
				return m.removedDir(c, dir)
			}
			above, e := m.aboveRemoved(c, dir)
			if err != unix.ENOENT || e != nil || path != ".." && !strings.HasPrefix(path, "../") {
				return none, err
			}
			cur, path = above, strings.TrimLeft(path[2:], "/")
			if path == "" {
				path = "."
			}
		}
		w.base = cur
		if resolve&unix.RESOLVE_IN_ROOT != 0 {
			w.root = cur
		}
	}
	return w.to(cur, path, follow)
}

// baseOf is where a relative path begins.
func (m *Module) baseOf(c *intercept.Call, dir int, path string) (view string, err error) {
	if dir == unix.AT_FDCWD {
		return m.cwdOf(c)
	}
	if view, err = m.dirOf(c, dir); err == nil && strings.HasPrefix(path, "..") {
		err = m.table.isBase(view)
	}
	return view, err
}

// aboveRemoved is where the working directory was that is no more.
func (m *Module) aboveRemoved(c *intercept.Call, dir int) (string, error) {
	what := "cwd"
	if dir != unix.AT_FDCWD {
		what = "fd/" + strconv.Itoa(dir)
	}
	host, err := link(c, what)
	if err == unix.ENAMETOOLONG {
		if host, err = deepAbove(c, what); err == nil {
			return m.table.viewOfHost(host, func() *mount { return m.seenAt(c, what) }), nil
		}
	}
	if err != nil || !strings.HasSuffix(host, deleted) {
		return "", unix.ENOENT
	}
	up := host[:strings.LastIndexByte(strings.TrimSuffix(host, deleted), '/')]
	return m.table.viewOfHost(up, func() *mount { return m.seenAt(c, what) }), nil
}

// removedDir is the object of a working directory that is no more.
func (m *Module) removedDir(c *intercept.Call, dir int) (object, error) {
	if dir != unix.AT_FDCWD {
		return m.findFD(c, dir)
	}
	o := object{}
	var err error
	if o.fd, err = unix.Open(taskFile(c.TID, "cwd"), unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
		o.fd = -1
		return o, err
	}
	return o, unix.Fstat(o.fd, &o.st)
}
