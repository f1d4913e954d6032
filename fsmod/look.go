// SPDX-License-Identifier: Apache-2.0

// Looks at files by relative paths, which are most of what programs ask for, in fewer
// steps than a walk has.
//
// A walk finds the name of the directory where the path begins, and goes from the root of
// a mount to the file. That is not needed where nothing is covered: in a directory that
// came through a plain mount with no other mount below it, whatever a path without ".."
// and links leads to is in the same mount. The directory itself is held while it is looked
// into, so that it does not matter what happens to names meanwhile.

package fsmod

import (
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// lookAt is find for who only looks: the object need not have a name, and not even a
// descriptor unless opened says so.
func (m *Module) lookAt(c *intercept.Call, dir int, at intercept.Addr, flags int, opened bool) (object, error) {
	if at == 0 && flags&unix.AT_EMPTY_PATH != 0 {
		return m.findFD(c, dir)
	}
	path, err := c.ReadString(at, pathMax)
	if err != nil {
		return object{fd: -1}, err
	}
	if o, err, ok := m.lookFrom(c, dir, path, flags&unix.AT_SYMLINK_NOFOLLOW == 0, opened); ok {
		return o, err
	}
	return m.findPath(c, dir, path, flags)
}

// lookFrom looks from the directory itself. ok is false where it takes a walk.
func (m *Module) lookFrom(c *intercept.Call, dir int, path string, follow, opened bool) (o object, err error, ok bool) {
	if !plain(path) {
		return o, nil, false
	}
	base, mt := m.openBase(c, dir)
	if base < 0 {
		return o, nil, false
	}
	o = object{m: mt, fd: -1}
	if opened || strings.Contains(path, "/") {
		from := dirFS{root: base}
		if o.fd, err = from.raw(path); err == nil {
			err = unix.Fstat(o.fd, &o.st)
		}
	} else {
		err = unix.Fstatat(base, path, &o.st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT)
	}
	unix.Close(base) // a file, which the program took for a directory, may be flushed
	if err == unix.ENOENT {
		return o, err, true
	}
	if err != nil || follow && o.typ() == unix.S_IFLNK {
		o.close()
		return o, nil, false
	}
	return o, nil, true
}

// plain reports whether a path is relative and made of names alone. Some that are it does
// not know.
func plain(path string) bool {
	return path != "" && path[0] != '/' && path[len(path)-1] != '/' && path[len(path)-1] != '.' &&
		!strings.Contains(path, "./") && !strings.Contains(path, "//")
}

// openBase opens the directory where a relative path begins, if it came through a mount
// in which no place is covered; else -1.
func (m *Module) openBase(c *intercept.Call, dir int) (int, *mount) {
	t := m.table
	if dir != unix.AT_FDCWD {
		fd, err := c.Dup(dir)
		if err != nil {
			return -1, nil
		}
		return t.uncovered(fd, t.tagOf(fd))
	}
	if !t.within.Load() {
		return -1, nil
	}
	fd := openCwd(c)
	if fd < 0 {
		return -1, nil
	}
	var st unix.Stat_t
	var mt *mount
	if unix.Fstat(fd, &st) == nil {
		mt = t.lastSeen(inodeOf(&st))
	}
	if mt == nil {
		t.within.Store(false) // cwdOf sets it again
	}
	return t.uncovered(fd, mt)
}

// uncovered returns what it is given if the mount is a plain directory with all of it to be
// seen; else it closes fd and returns -1.
func (t *table) uncovered(fd int, m *mount) (int, *mount) {
	if m != nil && m.dir != nil && !m.dir.file && !t.above(m.at) {
		if in, _ := t.lookup(m.at); in == m {
			return fd, m
		}
	}
	unix.Close(fd)
	return -1, nil
}

// openCwd opens the working directory of the calling thread with O_PATH; -1: it cannot be
// had. The runtime is told: a network file system may ask its server (d_weak_revalidate).
func openCwd(c *intercept.Call) int {
	var path [64]byte
	p := append(path[:0], "/proc/"...)
	p = strconv.AppendInt(p, int64(c.TID), 10)
	p = append(p, "/cwd\x00"...)
	at := unix.AT_FDCWD
	fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(&p[0])), unix.O_PATH|unix.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return -1
	}
	return int(fd)
}
