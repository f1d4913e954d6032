// SPDX-License-Identifier: Apache-2.0

// Opening files of mounts and of the host around them.

package fsmod

import (
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// resolveCached is RESOLVE_CACHED of linux/openat2.h.
const resolveCached = 0x20

// An opening is an open call.
type opening struct {
	dir     int
	path    string
	flags   int
	mode    uint32
	resolve uint64
}

func (m *Module) doOpen(c *intercept.Call) intercept.Action {
	return m.mountedOpen(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), c.Args[1], c.Args[2], 0)
}

func (m *Module) doCreat(c *intercept.Call) intercept.Action {
	return m.mountedOpen(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC, c.Args[1], 0)
}

func (m *Module) doOpenat(c *intercept.Call) intercept.Action {
	return m.mountedOpen(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), c.Args[2], c.Args[3], 0)
}

func (m *Module) doOpenat2(c *intercept.Call) intercept.Action {
	var how [24]byte // struct open_how of linux/openat2.h: flags, mode, resolve
	if c.Args[3] < uint64(len(how)) {
		return intercept.Fail(unix.EINVAL)
	}
	if c.Args[3] > pathMax { // a page, which is as much
		return intercept.Fail(unix.E2BIG)
	}
	if c.Args[3] > uint64(len(how)) {
		more := make([]byte, min(c.Args[3], pathMax)-uint64(len(how)))
		if err := c.ReadMem(intercept.Addr(c.Args[2])+intercept.Addr(len(how)), more); err != nil {
			return fail(err)
		}
		for _, b := range more {
			if b != 0 {
				return intercept.Fail(unix.E2BIG)
			}
		}
	}
	if err := c.ReadMem(intercept.Addr(c.Args[2]), how[:]); err != nil {
		return fail(err)
	}
	flags, mode, resolve := binary.NativeEndian.Uint64(how[:]), binary.NativeEndian.Uint64(how[8:]), binary.NativeEndian.Uint64(how[16:])
	const known = unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH | unix.RESOLVE_IN_ROOT | resolveCached
	creates := flags&unix.O_CREAT != 0 || flags&unix.O_TMPFILE == unix.O_TMPFILE
	switch {
	case resolve&^known != 0, flags>>32 != 0, mode != 0 && !creates, mode&^0o7777 != 0,
		resolve&(unix.RESOLVE_BENEATH|unix.RESOLVE_IN_ROOT) == unix.RESOLVE_BENEATH|unix.RESOLVE_IN_ROOT:
		return intercept.Fail(unix.EINVAL)
	case resolve&resolveCached != 0:
		return intercept.Fail(unix.EAGAIN)
	}
	return m.mountedOpen(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), flags, mode, resolve)
}

// mountedOpen is open(2) in a view with mounts.
func (m *Module) mountedOpen(c *intercept.Call, dir int, at intercept.Addr, flags, mode, resolve uint64) intercept.Action {
	l := looks.Get().(*look)
	defer looks.Put(l)
	if err := l.read(c, at); err != nil {
		return fail(err)
	}
	if !c.Valid() { // the path may be a stranger's
		return fail(intercept.ErrGone)
	}
	path := string(l.path)
	if path == "" {
		return intercept.Fail(unix.ENOENT)
	}
	if d := m.device(c, dir, path); d != nil && resolve == 0 {
		if a, ok := openDevice(d, flags); ok {
			return a
		}
	}
	if len(m.trees) > 0 && flags&unix.O_ACCMODE != unix.O_WRONLY && resolve == 0 && m.has(path) {
		if a, ok := m.generated(c, dir, path, flags); ok {
			return a
		}
	}
	o := &opening{dir: dir, path: path, flags: int(uint32(flags)), mode: uint32(mode), resolve: resolve}
	found, err := m.lookToOpen(c, l, o)
	if err != nil {
		return fail(err)
	}
	return m.openObject(c, o, found)
}

// lookToOpen looks for what is to be opened, if it need not be made. Without a walk it can be
// known that there is nothing (ENOENT), and what there is by an absolute path, or by a relative one
// if it need not be called by a name; else the object has no descriptor. A descriptor is not
// enough where files are told apart by name (a tree of generated ones over the host's, procfs).
func (m *Module) lookToOpen(c *intercept.Call, l *look, op *opening) (object, error) {
	none := object{fd: -1}
	if op.flags&(unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY) != 0 || op.resolve != 0 {
		return none, nil
	}
	slash := l.trim()
	from, name, ok := m.lookFrom(c, l.path, op.dir)
	if !ok {
		return none, nil
	}
	o, err := l.look(&from, name, true)
	from.leave()
	switch {
	case err == unix.ENOENT:
		return none, err
	case err != nil:
		return none, nil
	case o.typ() == unix.S_IFLNK, slash && o.typ() != unix.S_IFDIR:
		o.close()
		return none, nil
	case op.path[0] == '/':
		o.view = op.path[:len(l.path)]
		o.name = o.view[len(o.view)-len(name):]
	case op.flags&unix.O_PATH != 0, len(m.trees) > 0 && o.m == m.table.host,
		o.typ() != unix.S_IFREG && o.typ() != unix.S_IFDIR,
		unix.Major(o.st.Dev) == 0 && isProc(o.fd):
		o.close()
		return none, nil
	}
	return o, nil
}

// openObject finds what an open is about, unless that was found, and opens it, which is done
// anew when somebody makes or removes the file meanwhile.
func (m *Module) openObject(c *intercept.Call, op *opening, found object) intercept.Action {
	defer found.close()
	if op.flags&unix.O_PATH != 0 {
		op.flags &= unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	}
	if op.flags&(unix.O_CREAT|unix.O_DIRECTORY) == unix.O_CREAT|unix.O_DIRECTORY {
		return intercept.Fail(unix.EINVAL) // O_TMPFILE has the second in it
	}
	creates := op.flags&unix.O_CREAT != 0
	if creates && op.path[len(op.path)-1] == '/' {
		return m.createsDirectory(c, op)
	}
	exclusive := creates && op.flags&unix.O_EXCL != 0
	follow := op.flags&unix.O_NOFOLLOW == 0 && !exclusive
	for range maxLinks {
		o, err := found, error(nil)
		if found.fd = -1; o.fd < 0 {
			o, err = m.resolvePath(c, op.dir, op.path, follow, op.resolve)
		}
		switch {
		case err == nil && exclusive:
			o.close()
			return intercept.Fail(unix.EEXIST)
		case err == nil:
			if len(m.trees) > 0 && o.m == m.table.host && op.flags&unix.O_ACCMODE != unix.O_WRONLY {
				if a, ok := m.generatedAt(c, o.view, uint64(op.flags)); ok {
					o.close()
					return a
				}
			}
			if a, ok := m.openMounts(c, &o, op.flags); ok {
				o.close()
				return a
			}
			a, again := m.openThere(c, op, &o)
			o.close()
			if again {
				continue
			}
			return a
		case !errors.Is(err, unix.ENOENT) || !creates || o.m == nil:
			return fail(err)
		case o.dir && strings.HasSuffix(op.path, "."):
			return fail(err)
		case o.dir: // by a link with a slash behind it
			return below(&o, unix.EISDIR)
		case o.m == m.table.host && m.isSealed(o.view):
			return intercept.Fail(unix.EROFS)
		case o.m.ReadOnly:
			return below(&o, unix.EROFS)
		}
		var fd int
		err = m.create(c, op.mode&0o7777, func(mode uint32) (err error) {
			fd, err = o.m.fs.Open(o.name, op.flags|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
			return err
		})
		switch {
		case err == nil:
			return m.install(c, fd, o.m, op.flags)
		case errors.Is(err, unix.EEXIST) && !exclusive, errors.Is(err, unix.ELOOP) && o.m.dir != nil:
			continue // somebody was faster
		}
		return fail(err)
	}
	return intercept.Fail(unix.ELOOP)
}

// createsDirectory answers an open that shall create what has a slash behind it: no file
// is made there, nor a directory.
func (m *Module) createsDirectory(c *intercept.Call, op *opening) intercept.Action {
	name := strings.TrimRight(op.path, "/")
	if name == "" && op.flags&unix.O_EXCL != 0 {
		return intercept.Fail(unix.EEXIST)
	}
	if name == "" {
		return intercept.Fail(unix.EISDIR)
	}
	o, err := m.resolvePath(c, op.dir, name, false, op.resolve)
	o.close()
	switch {
	case err == nil:
		return intercept.Fail(unix.EISDIR)
	case errors.Is(err, unix.ENOENT) && o.m != nil:
		return below(&o, unix.EISDIR)
	}
	return fail(err)
}

// below fails with errno, the reason why what is not there cannot be made, or with what there is
// against the directory that it would be in.
func below(o *object, errno unix.Errno) intercept.Action {
	i := strings.LastIndexByte(o.name, '/')
	fd, err := o.m.fs.Open(o.name[:max(i, 0)], unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	unix.Close(fd)
	return intercept.Fail(errno)
}

// openThere opens an object that is there.
func (m *Module) openThere(c *intercept.Call, op *opening, o *object) (a intercept.Action, again bool) {
	flags := op.flags &^ unix.O_CREAT
	if flags&unix.O_TMPFILE != unix.O_TMPFILE {
		flags &^= unix.O_EXCL
	}
	write := flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0
	switch o.typ() {
	case unix.S_IFLNK:
		if flags&unix.O_PATH != 0 && flags&unix.O_DIRECTORY == 0 {
			break
		}
		if flags&unix.O_DIRECTORY != 0 {
			return intercept.Fail(unix.ENOTDIR), false
		}
		return intercept.Fail(unix.ELOOP), false
	case unix.S_IFDIR:
		if op.flags&unix.O_CREAT != 0 && flags&unix.O_PATH == 0 {
			return intercept.Fail(unix.EISDIR), false
		}
	default:
		if flags&unix.O_DIRECTORY != 0 {
			return intercept.Fail(unix.ENOTDIR), false
		}
	}
	if flags&unix.O_PATH != 0 {
		return m.openPath(c, o, flags), false
	}
	if write && len(m.seals) > 0 && m.sealedFile(o.fd) {
		return intercept.Fail(unix.EROFS), false
	}
	if o.m == nil {
		return m.openNameless(c, o, flags), false
	}
	if m.secret(c, o) {
		return intercept.Fail(unix.EACCES), false
	}
	if o.m.hidesDevice(o) {
		return intercept.Fail(unix.EACCES), false
	}
	special := o.typ() != unix.S_IFREG && o.typ() != unix.S_IFDIR
	if o.m.ReadOnly && !special && (write || flags&unix.O_TMPFILE == unix.O_TMPFILE) {
		if o.typ() == unix.S_IFDIR && flags&unix.O_TMPFILE != unix.O_TMPFILE {
			return intercept.Fail(unix.EISDIR), false
		}
		return intercept.Fail(unix.EROFS), false
	}
	if special {
		// The descriptor that was judged is opened anew; it may wait for somebody.
		return m.openWaiting(c, o, flags), false
	}
	if l := m.prepare(c, o.m, o.name, UseOpen, flags); l != nil {
		again := *op
		return m.orLater(c, l, func(m *Module) intercept.Action { return m.openObject(c, &again, object{fd: -1}) }), false
	}
	var fd int
	var err error
	switch {
	case m.foreignProc(c, o):
		fd, err = m.openInNamespace(c, o, flags&^unix.O_NOFOLLOW|unix.O_NONBLOCK)
	case o.m.dir != nil && flags&unix.O_TMPFILE != unix.O_TMPFILE:
		if e := m.guardedFile(c, o, func() {
			fd, err = unix.Openat(m.fds, strconv.Itoa(o.fd), flags&^unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		}); e != nil {
			err = e
		}
	case flags&unix.O_TMPFILE == unix.O_TMPFILE:
		err = m.create(c, op.mode&0o7777, func(mode uint32) (err error) {
			fd, err = o.m.fs.Open(o.name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
			return err
		})
	default:
		if e := m.guardedFile(c, o, func() {
			fd, err = o.m.fs.Open(o.name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		}); e != nil {
			err = e
		}
	}
	switch {
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOENT):
		return intercept.Action{}, true // replaced meanwhile
	case errors.Is(err, unix.EWOULDBLOCK) && flags&unix.O_NONBLOCK == 0 && o.view == "":
		return intercept.Action{}, true // with a name, as for what follows
	case errors.Is(err, unix.EWOULDBLOCK) && flags&unix.O_NONBLOCK == 0: // a lease, fcntl(2)
		if !m.table.same(o.view, inodeOf(&o.st)) {
			return intercept.Action{}, true // of another file, as a copy of o is
		}
		return m.openWaiting(c, o, flags), false
	case err != nil:
		return fail(err), false
	}
	if flags&unix.O_NONBLOCK == 0 && flags&unix.O_TMPFILE != unix.O_TMPFILE {
		const settable = unix.O_APPEND | unix.O_DIRECT | unix.O_NOATIME | unix.O_ASYNC // fcntl(2)
		_, _, _ = unix.RawSyscall(unix.SYS_FCNTL, uintptr(fd), unix.F_SETFL, uintptr(flags&settable))
	}
	return m.install(c, fd, o.m, flags), false
}

// hidesDevice reports whether o is a device, of a mount with MS_NODEV (fs/namei.c:may_open_dev).
func (m *mount) hidesDevice(o *object) bool {
	return m != nil && m.flags&unix.MS_NODEV != 0 && (o.typ() == unix.S_IFCHR || o.typ() == unix.S_IFBLK)
}

// install hands out a file of a mount.
func (m *Module) install(c *intercept.Call, fd int, mt *mount, flags int) intercept.Action {
	if mt != nil {
		setTag(fd, mt.tag)
	}
	return m.give(c, fd, flags&unix.O_CLOEXEC != 0)
}

// give is intercept.InstallFD for a file that the program may be watching: that umrun closes
// its own descriptor may be the last that is heard of the file, and comes before the
// program goes on.
func (m *Module) give(c *intercept.Call, fd int, cloexec bool) intercept.Action {
	if !m.watched.Load() {
		return intercept.InstallFD(fd, cloexec)
	}
	at, err := c.AddFD(fd, cloexec)
	unix.Close(fd)
	if err != nil {
		return fail(err)
	}
	return intercept.Return(int64(at))
}

// openNameless opens what a magic link leads to, with no more access than the descriptor
// behind it has.
func (m *Module) openNameless(c *intercept.Call, o *object, flags int) intercept.Action {
	if o.typ() == unix.S_IFSOCK {
		return intercept.Fail(unix.ENXIO)
	}
	want := flags & unix.O_ACCMODE
	mt := m.table.tagOf(o.fd)
	if mt.hidesDevice(o) {
		return intercept.Fail(unix.EACCES)
	}
	gone := o.st.Nlink == 0 // and it was the program's: by no name could it be covered
	if write := want != unix.O_RDONLY || flags&unix.O_TRUNC != 0; write && mt != nil && mt.ReadOnly {
		return intercept.Fail(unix.EROFS)
	}
	if !gone && o.typ() == unix.S_IFREG && (o.access != unix.O_RDWR && want != o.access || flags&unix.O_TRUNC != 0 && o.access == unix.O_RDONLY) {
		return intercept.Fail(unix.EACCES)
	}
	if o.typ() != unix.S_IFREG && o.typ() != unix.S_IFDIR {
		return m.openWaiting(c, o, flags)
	}
	fd, err := unix.Open(procFD(o.fd), flags&^(unix.O_NOFOLLOW|unix.O_CREAT)|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	if mt != nil {
		setTag(fd, mt.tag)
	}
	return m.give(c, fd, flags&unix.O_CLOEXEC != 0)
}

// openPath answers an open with O_PATH. Where the descriptor that was judged cannot be
// handed over, the program gets the nearest thing.
func (m *Module) openPath(c *intercept.Call, o *object, flags int) intercept.Action {
	if o.m == nil { // what a magic link leads to, and no such descriptor yet
		fd, err := unix.Open(procFD(o.fd), unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return fail(err)
		}
		o.close()
		o.fd = fd
	} else {
		m.table.went(inodeOf(&o.st), o.m)
	}
	if a, ok := m.givePath(c, o.fd, flags&unix.O_CLOEXEC != 0); ok {
		return a
	}
	if o.typ() != unix.S_IFDIR && o.typ() != unix.S_IFREG || o.m != nil && m.secret(c, o) {
		return intercept.Fail(unix.EOPNOTSUPP)
	}
	fd, err := o.reopen(unix.O_NONBLOCK)
	if err != nil {
		return fail(err)
	}
	return m.install(c, fd, o.m, flags)
}

// secret reports whether o is a file in procfs that the caller may not have: of the
// supervisor one that only its own user could read were it dumpable, which it is to itself;
// of a process outside of the view one that is only for who may trace it, since then the
// kernel asks about us, and we are in no domain. It goes by the host's name of the file: a
// mount may show procfs as well.
func (m *Module) secret(c *intercept.Call, o *object) bool {
	if o.st.Mode&unix.S_IFMT == unix.S_IFDIR && o.st.Mode&0o077 != 0 {
		return false
	}
	tasks, names := procTasks(o)
	if len(tasks) == 0 {
		return false
	}
	switch last := names[len(names)-1]; last {
	case "stat", "status", "statm", "cmdline", "comm", "cgroup", "limits", "oom_score", "oom_score_adj", "sched":
		return false
	default:
		return slices.ContainsFunc(tasks, m.ours) || !slices.Contains(unguarded, last) && !slices.Contains(names, "net") && !slices.Contains(names, "attr") &&
			slices.ContainsFunc(tasks, func(tid int) bool { return m.outside(c, tid) })
	}
}

// unguarded are further files of a task that the kernel does not keep for who may trace it
// (fs/proc/base.c); "fd" is the directory, which is its user's.
var unguarded = []string{
	"autogroup", "children", "clear_refs", "coredump_filter", "cpu_resctrl_groups", "cpuset", "fd", "gid_map", "latency", "loginuid", "mountinfo", "mounts",
	"mountstats", "oom_adj", "projid_map", "schedstat", "sessionid", "setgroups", "timens_offsets", "timerslack_ns", "uid_map", "wchan",
}

// procTasks are the numbers of tasks in the name of a file of procfs, and the parts of the name from
// the first one on: what is above a procfs may have any name.
func procTasks(o *object) (tasks []int, names []string) {
	if unix.Major(o.st.Dev) != 0 || !isProc(o.fd) {
		return nil, nil
	}
	host, err := readlink(procFD(o.fd))
	if err != nil {
		return nil, nil
	}
	parts := strings.Split(host, "/")
	for i, p := range parts {
		if i > 0 && numeric(p) && (parts[i-1] == "task" || isProcRoot(strings.Join(parts[:i], "/"))) {
			if n, err := strconv.Atoi(p); err == nil {
				if tasks == nil {
					names = parts[i:]
				}
				tasks = append(tasks, n)
			}
		}
	}
	return tasks, names
}

// isProcRoot reports whether a path on procfs is its root, as far as can be told.
func isProcRoot(path string) bool {
	const ino = 1 // PROC_ROOT_INO, linux/proc_ns.h
	var st unix.Stat_t
	return path == "/proc" || unix.Stat(path, &st) != nil || st.Ino == ino
}
