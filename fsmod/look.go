// SPDX-License-Identifier: Apache-2.0

// Looks at files, which are most of what programs ask for, in fewer steps than a walk has.
//
// A walk has a name for all that it passes. Who only looks needs none where the path is made of
// names alone: an absolute one is a place of the view, and the table says which mount it is
// in; a relative one begins in a directory that is open, and if that came through a plain mount
// with no other mount below it, whatever the path leads to is in the same mount, whatever
// happens to names meanwhile. In both cases the kernel follows no link; where there is one it
// says so, and a walk is made.
//
// The path may be that of a call that is over, see intercept.Call.PeekString.

package fsmod

import (
	"bytes"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// A look is a path with what it takes to look there.
type look struct {
	buf  [pathMax]byte // with a NUL behind the path
	path []byte
	how  unix.OpenHow
	st   unix.Stat_t // the answer to stat(2)
	stx  unix.Statx_t
}

var looks = sync.Pool{New: func() any { return new(look) }}

// read reads the path.
func (l *look) read(c *intercept.Call, at intercept.Addr) error {
	n, err := c.PeekString(at, l.buf[:])
	l.path = l.buf[:n]
	return err
}

// A base is a directory that a look begins at. Who has got one leaves it.
type base struct {
	dir  int
	in   *mount // that all of it is in
	held *stand // whose dir is; nil: its own if owned, else the mount's
	own  bool
}

func (b *base) leave() {
	switch {
	case b.held != nil:
		b.held.leave()
	case b.own:
		unix.Close(b.dir) // a file, which the program took for a directory, may be flushed
	}
}

// trim takes a slash away that is behind the path, and reports whether there was one: then what
// is found is to be a directory.
func (l *look) trim() bool {
	n := len(l.path) - 1
	if n < 1 || l.path[n] != '/' {
		return false
	}
	l.path[n] = 0
	l.path = l.path[:n]
	return true
}

// lookAt is find for who only looks: the object need not have a name, and not even a
// descriptor unless opened says so.
func (m *Module) lookAt(c *intercept.Call, l *look, dir int, at intercept.Addr, flags int, opened bool) (object, error) {
	if at == 0 && flags&unix.AT_EMPTY_PATH != 0 {
		return m.findFD(c, dir)
	}
	if err := l.read(c, at); err != nil {
		return object{fd: -1}, err
	}
	if from, name, ok := m.lookFrom(c, l.path, dir); ok {
		o, err := l.look(&from, name, opened)
		from.leave()
		switch {
		case err == unix.ENOENT:
			return o, err
		case err != nil: // the walk knows why
		case o.typ() != unix.S_IFLNK || flags&unix.AT_SYMLINK_NOFOLLOW != 0:
			return o, nil
		}
		o.close()
	}
	return m.findPath(c, dir, string(l.path), flags)
}

// lookFrom is where a look at a path begins, and what is left of it, with the NUL behind it. ok
// is false where it takes a walk.
func (m *Module) lookFrom(c *intercept.Call, path []byte, dir int) (from base, name []byte, ok bool) {
	t := m.table
	if !plain(path) || m.mayBeDisk(path) {
		return from, nil, false
	}
	if path[0] != '/' {
		from, ok = m.openBase(c, dir)
		return from, path, ok
	}
	if t.chrooted.Load() {
		return from, nil, false
	}
	in, rest := t.lookup(unsafe.String(&path[0], len(path)))
	if in.dir == nil || in.dir.file || rest == "" {
		return from, nil, false
	}
	return base{dir: in.dir.root, in: in}, path[len(path)-len(rest):], true
}

// look looks at a name below from. The object has a descriptor if it is to be opened.
func (l *look) look(from *base, name []byte, opened bool) (o object, err error) {
	o = object{m: from.in, fd: -1}
	if !opened && bytes.IndexByte(name, '/') < 0 {
		// It may wait for a disk, or a server.
		_, _, errno := unix.Syscall6(sysFstatat, uintptr(from.dir), uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(&o.st)), unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, 0)
		if errno != 0 {
			return o, errno
		}
		return o, nil
	}
	if o.fd, err = l.open(from.dir, name, unix.O_PATH); err != nil {
		return o, err
	}
	if err = unix.Fstat(o.fd, &o.st); err != nil {
		o.close()
	}
	return o, err
}

// open opens a plain path below dir, through no link. First it asks for what the kernel has at
// hand, without a word to the runtime, as that waits for nothing.
func (l *look) open(dir int, name []byte, flags uint64) (int, error) {
	fd, errno := l.cached(dir, name, flags)
	if errno == unix.EAGAIN || errno == unix.EINVAL { // before 5.12
		l.how.Resolve = unix.RESOLVE_NO_SYMLINKS
		for errno = unix.EINTR; errno == unix.EINTR; {
			var n uintptr
			n, _, errno = unix.Syscall6(unix.SYS_OPENAT2, uintptr(dir), uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(&l.how)), unsafe.Sizeof(l.how), 0, 0)
			fd = int(n)
		}
	}
	if errno != 0 {
		return -1, errno
	}
	return fd, nil
}

// cached is open of what the kernel has at hand, EAGAIN of all else.
func (l *look) cached(dir int, name []byte, flags uint64) (int, unix.Errno) {
	l.how = unix.OpenHow{Flags: flags | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | resolveCached}
	fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT2, uintptr(dir), uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(&l.how)), unsafe.Sizeof(l.how), 0, 0)
	return int(fd), errno
}

// noLink reports whether the path leads to a directory (EINVAL) or to nothing (ENOENT), as
// readlink(2) says of most paths of programs that resolve them by themselves; 0: it takes a
// walk to know. A directory is never opened to be written to, which the kernel says before
// anything else (EISDIR), and with O_DIRECTORY nothing but a directory is (fs/namei.c: do_open).
func (m *Module) noLink(c *intercept.Call, l *look, dir int) unix.Errno {
	from, name, ok := m.lookFrom(c, l.path, dir)
	if !ok {
		return 0
	}
	fd, errno := l.cached(from.dir, name, unix.O_WRONLY|unix.O_DIRECTORY)
	from.leave()
	switch errno {
	case 0:
		unix.Close(fd)
	case unix.EISDIR:
		return unix.EINVAL
	case unix.ENOENT:
		return unix.ENOENT
	}
	return 0
}

// plain reports whether a path is made of names alone, with a slash in front if it is
// absolute.
func plain(path []byte) bool {
	begin := 0
	if len(path) > 0 && path[0] == '/' {
		begin = 1
	}
	for i := begin; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		switch n := i - begin; {
		case n == 0, n == 1 && path[begin] == '.', n == 2 && path[begin] == '.' && path[begin+1] == '.':
			return false
		}
		begin = i + 1
	}
	return true
}

// openBase opens the directory where a relative path begins. ok is false unless it came
// through a mount in which no place is covered.
func (m *Module) openBase(c *intercept.Call, dir int) (from base, ok bool) {
	t := m.table
	if dir != unix.AT_FDCWD {
		fd, err := c.Dup(dir)
		if err != nil {
			return from, false
		}
		from = base{dir: fd, in: t.tagOf(fd), own: true}
		return from, t.uncovered(&from)
	}
	if s := m.where.of(c, t); s != nil {
		return base{s.dir, s.in, s, false}, true
	}
	if !t.within.Load() {
		return from, false
	}
	moves := m.where.moves.Load()
	fd := openCwd(c)
	if fd < 0 {
		return from, false
	}
	var st unix.Stat_t
	from = base{dir: fd, own: true}
	if unix.Fstat(fd, &st) == nil {
		from.in = t.lastSeen(inodeOf(&st))
	}
	if from.in == nil {
		t.within.Store(false) // cwdOf sets it again
	}
	if !t.uncovered(&from) {
		return from, false
	}
	m.where.keep(c, t, &from, moves)
	return from, true
}

// uncovered reports whether the mount is a plain directory with all of it to be seen; if not,
// from is left.
func (t *table) uncovered(from *base) bool {
	if m := from.in; m != nil && m.dir != nil && !m.dir.file && !t.above(m.at) {
		if in, _ := t.lookup(m.at); in == m {
			return true
		}
	}
	from.leave()
	return false
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
