// SPDX-License-Identifier: Apache-2.0

// The magic links of procfs, and places by their descriptors.

package fsmod

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// isProc reports whether a file is on procfs.
func isProc(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.PROC_SUPER_MAGIC
}

// Links that nobody follows: those of the supervisor, which is not dumpable, and those of
// processes that are not of the target, from which its domain keeps it (package intercept).
var (
	errOurs    = fmt.Errorf("a file of the supervisor: %w", unix.EACCES)
	errOutside = fmt.Errorf("a file of a process outside of the view: %w", unix.EACCES)
)

// magic resolves a symbolic link of procfs, by its name and the directory that it is in.
// It gives a text where the link has one that is the program's own, or the object that it
// stands for; neither for a link like any other.
func (w *walk) magic(dir, name string) (text string, to *object, err error) {
	switch name {
	case "self":
		return strconv.Itoa(w.c.Task.TGID()), nil, nil
	case "thread-self":
		return strconv.Itoa(w.c.Task.TGID()) + "/task/" + strconv.Itoa(w.c.TID), nil, nil
	}
	parts := strings.Split(dir, "/")
	in := parts[len(parts)-1]
	owner := in // the number of a task
	if in == "fd" || in == "ns" || in == "map_files" {
		owner = parts[len(parts)-2]
	}
	tid, err := strconv.Atoi(owner)
	if err != nil {
		return "", nil, nil
	}
	if w.m.ours(tid) {
		return "", nil, errOurs
	}
	magic := in == "fd" || in == "ns" || in == "map_files" || name == "cwd" || name == "root" || name == "exe"
	if magic && w.m.outside(w.c, tid) {
		return "", nil, errOutside
	}
	switch {
	case in == "fd":
		n, err := strconv.Atoi(name)
		if err != nil {
			return "", nil, unix.ENOENT
		}
		var fd int
		if tid != w.c.TID && tid != w.c.Task.TGID() {
			if e := w.m.guarded(w.c, tid, func() { _, err = readlink("/proc/" + owner + "/fd/" + name) }); e != nil {
				err = e
			}
		}
		if err == nil {
			fd, err = w.m.fdOf(w.c, tid, n)
		}
		if err != nil {
			return "", nil, err
		}
		to, err = w.byFD(fd)
		return "", to, err
	case in == "map_files", in == "ns":
		fd, err := w.openTask(tid, in+"/"+name)
		if err != nil {
			return "", nil, err
		}
		if in == "map_files" {
			to, err = w.byFD(fd)
			return "", to, err
		}
		to = &object{fd: fd, access: unix.O_RDONLY}
		return "", to, unix.Fstat(fd, &to.st)
	case name == "cwd", name == "root", name == "exe":
		fd, err := w.openTask(tid, name)
		if err != nil {
			return "", nil, err
		}
		to, err = w.byFD(fd)
		return "", to, err
	}
	return "", nil, nil
}

// openTask opens what a link of a task leads to.
func (w *walk) openTask(tid int, name string) (fd int, err error) {
	if e := w.m.guarded(w.c, tid, func() { fd, err = unix.Open(taskFile(tid, name), unix.O_PATH|unix.O_CLOEXEC, 0) }); e != nil {
		return -1, e
	}
	return fd, err
}

// byFD finds the place of a file that a descriptor of ours, which it takes, refers to. Of
// one that has no name in the view the object is the descriptor itself, with no more
// access than it has.
func (w *walk) byFD(fd int) (*object, error) {
	o := &object{fd: fd}
	if err := unix.Fstat(fd, &o.st); err != nil {
		o.close()
		return nil, err
	}
	if view, ok := w.m.viewOf(fd, &o.st); ok {
		o.view = view
		o.m, o.name = w.m.table.lookup(view)
		return o, nil
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		o.close()
		return nil, err
	}
	if flags&unix.O_PATH != 0 {
		// Of a file of a mount's own that was removed, or of one outside of the view.
		flags = unix.O_RDONLY
		if o.st.Nlink != 0 && o.typ() != unix.S_IFREG {
			o.close()
			return nil, &unnamed{w.m.table.lastSeen(inodeOf(&o.st))}
		}
	}
	o.access = flags & unix.O_ACCMODE
	return o, nil
}

// unnamed is EACCES for what has no name in the view, or no more.
type unnamed struct {
	in *mount // by which a task last went there; may be nil
}

func (*unnamed) Error() string { return unix.EACCES.Error() }
func (*unnamed) Unwrap() error { return unix.EACCES }

// fdOf duplicates descriptor n of a task.
func (m *Module) fdOf(c *intercept.Call, tid, n int) (int, error) {
	if tid == c.TID || tid == c.Task.TGID() {
		d, err := c.DupFD(n)
		if err != nil {
			if intercept.Errno(err) == unix.EBADF {
				err = unix.ENOENT
			}
			return -1, err
		}
		return d.N, nil
	}
	pidfd, err := unix.PidfdOpen(tid, unix.PIDFD_THREAD)
	if err != nil {
		return -1, unix.ENOENT
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, n, 0)
	switch err {
	case nil:
		unix.CloseOnExec(fd)
		return fd, nil
	case unix.EBADF:
		return -1, unix.ENOENT
	}
	return -1, unix.EACCES
}

// ours reports whether a task number is of this process.
func (m *Module) ours(tid int) bool {
	return tid == m.pid || unix.Access("/proc/self/task/"+strconv.Itoa(tid), unix.F_OK) == nil
}

// outside reports whether a task is not of the target of the caller.
func (m *Module) outside(c *intercept.Call, tid int) bool {
	return m.member != nil && tid != c.TID && tid != c.Task.TGID() && !m.member(tid)
}

// viewOf names an open file. ok is false unless the file that has the name in the view is
// this very one, or a directory that a tree has copied it to: a directory is where its names are.
func (m *Module) viewOf(fd int, st *unix.Stat_t) (view string, ok bool) {
	host, err := nameOfFD(fd)
	if err != nil || !strings.HasPrefix(host, "/") {
		return "", false
	}
	t := m.table
	id := inodeOf(st)
	if mt := t.tagOf(fd); mt != nil && mt.namer != nil {
		if name, ok := mt.namer.Name(host); ok {
			// Another file may have taken its place there, as a copy does; where else this one is
			// found is not where it was opened.
			return mt.below(name), t.same(mt.below(name), id) || t.copied(mt.below(name), st)
		}
	}
	view = t.viewOfHost(host, func() *mount { return t.lastSeen(id) })
	return view, t.same(view, id) || t.copied(view, st)
}

// copied reports whether a place of the view, which an open directory has the name of, holds a
// directory that may be another layer's: what is in the one that is open is found there.
func (t *table) copied(view string, st *unix.Stat_t) bool {
	m, _ := t.lookup(view)
	return st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Nlink != 0 && m.dir == nil && m.namer != nil && t.isDirectory(view) == nil
}

// same reports whether a place of the view holds the file id.
func (t *table) same(view string, id inode) bool {
	m, name := t.lookup(view)
	st, err := m.stat(name)
	return err == nil && inodeOf(&st) == id
}

// viewOfHost says what a path of the host is called in the view. A file that a mount with
// alias shows may have two names there; through tells then by which mount it was reached, nil:
// by none.
func (t *table) viewOfHost(host string, through func() *mount) string {
	if host == "/" {
		host = ""
	}
	if m, name := t.mountOfHost(host, through); m != nil {
		return m.below(name)
	}
	return host
}

// mountOfHost is the mount that shows a path of the host, as viewOfHost has it, and the name
// there; nil: the view has what the host has.
func (t *table) mountOfHost(host string, through func() *mount) (first *mount, below string) {
	for _, m := range t.tagged {
		if m == nil || m.namer == nil {
			continue
		}
		name, ok := m.namer.Name(host)
		if !ok {
			continue
		}
		if !m.alias && !m.detached() {
			return m, name
		}
		if through() == m {
			return m, name
		}
		if at, _ := t.lookup(host); at != t.host && !m.detached() && first == nil {
			first, below = m, name // of those that it may be, if by none of them
		}
	}
	return first, below
}

// ambiguous reports whether viewOfHost would ask.
func (t *table) ambiguous(host string) bool {
	for _, m := range t.tagged {
		if m != nil && m.namer != nil && (m.alias || m.detached()) {
			if _, ok := m.namer.Name(host); ok {
				return true
			}
		}
	}
	return false
}

// lastSeen returns the mount by which a task last went into a directory.
func (t *table) lastSeen(id inode) *mount {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tag := t.dirs[id]; tag != 0 && tag <= len(t.tagged) {
		return t.tagged[tag-1]
	}
	return nil
}

// went notes by which mount a task went into a directory.
func (t *table) went(id inode, m *mount) {
	if m == nil || m.dir == nil && m.namer == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.tag == 0 {
		delete(t.dirs, id)
		return
	}
	const enough = 1 << 16
	if len(t.dirs) >= enough {
		clear(t.dirs) // from here on by the name on the host
	}
	t.dirs[id] = m.tag
}

// isPath reports whether a descriptor is one of O_PATH, which cannot be marked.
func isPath(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_PATH != 0
}

// Directories that are no more have this behind their name (fs/d_path.c).
const deleted = " (deleted)"

// rootOf is the view's path of a task's root.
func (m *Module) rootOf(c *intercept.Call) (string, error) {
	if !m.table.chrooted.Load() {
		return "", nil
	}
	host, err := linkOf(c, "root")
	if err != nil {
		return "", unix.EACCES
	}
	return m.table.viewOfHost(host, func() *mount { return m.seenAt(c, "root") }), nil
}

// seenAt is lastSeen of a directory of the task.
func (m *Module) seenAt(c *intercept.Call, what string) *mount {
	var st unix.Stat_t
	if unix.Stat(taskFile(c.TID, what), &st) != nil {
		return nil
	}
	return m.table.lastSeen(inodeOf(&st))
}

// procSize is more than most files of procfs have, see intercept.ReadProc.
const procSize = 4096

func taskFile(tid int, what string) string { return "/proc/" + strconv.Itoa(tid) + "/" + what }

// cwdOf is the view's path of a task's working directory.
func (m *Module) cwdOf(c *intercept.Call) (string, error) {
	host, err := linkOf(c, "cwd")
	switch {
	case err == unix.ENOENT:
		return "", err
	case err != nil:
		return "", unix.EACCES
	}
	if strings.HasSuffix(host, deleted) || !strings.HasPrefix(host, "/") {
		var st unix.Stat_t
		if unix.Stat(taskFile(c.TID, "cwd"), &st) != nil || st.Nlink == 0 || host[0] != '/' {
			return "", unix.ENOENT
		}
	}
	return m.table.viewOfHost(host, func() *mount {
		mt := m.seenAt(c, "cwd")
		m.table.within.Store(mt != nil)
		return mt
	}), nil
}

// dirOf is the view's path of a directory that the program has open.
func (m *Module) dirOf(c *intercept.Call, fd int) (string, error) {
	if fd < 0 {
		return "", unix.EBADF
	}
	host, err := link(c, "fd/"+strconv.Itoa(fd))
	if err != nil {
		// There is none, or the task has changed its user: its directory in procfs is root's then.
		d, err := c.DupFD(fd)
		if err != nil {
			return "", err
		}
		host, err = nameOfFD(d.N)
		d.CloseShort()
		if err != nil {
			return "", err
		}
	}
	if !strings.HasPrefix(host, "/") {
		return "", unix.ENOTDIR
	}
	t := m.table
	if tree, rest, ok := m.inside(host); ok { // a directory that was made for a generated tree
		return strings.TrimSuffix(tree+"/"+rest, "/"), nil
	}
	if !strings.HasSuffix(host, deleted) && !t.ambiguous(host) {
		view := t.viewOfHost(host, nil)
		if m, _ := t.lookup(view); m.dir != nil {
			return view, nil
		} // what a tree has there may be a directory, and what is open a file of the layer below
	}
	o := object{}
	if o.fd, err = c.Dup(fd); err != nil {
		return "", err
	}
	defer o.close()
	if err := unix.Fstat(o.fd, &o.st); err != nil {
		return "", err
	}
	if o.typ() != unix.S_IFDIR {
		return "", unix.ENOTDIR
	}
	if o.st.Nlink == 0 {
		return "", unix.ENOENT
	}
	return t.viewOfHost(host, func() *mount {
		if mt := t.tagOf(o.fd); mt != nil || !isPath(o.fd) {
			return mt
		}
		return t.lastSeen(inodeOf(&o.st))
	}), nil
}
