// SPDX-License-Identifier: Apache-2.0

// The walker: from a path of the program to an object of one of the trees.

package fsmod

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// maxLinks is MAXSYMLINKS of linux/namei.h.
const maxLinks = 40

// An object is what a path leads to. It is closed by who got it.
type object struct {
	m    *mount // nil: it has no name in the view, and fd is all there is
	name string // in m
	view string // path in the view, clean and free of symbolic links; "" for "/"
	fd   int    // O_PATH, or with what access is limited to; -1: there is nothing, yet
	st   unix.Stat_t

	dir    bool   // a slash stood behind it: it is to be a directory
	last   string // last component as it was written
	access int    // of an object without a name: F_GETFL of the descriptor it is
}

// reopen opens the object that was judged to be read, with its content, see [Filler].
func (o *object) reopen(flags int) (int, error) {
	if o.m != nil && o.typ() == unix.S_IFREG {
		if f, ok := o.m.fs.(Filler); ok {
			if err := f.Fill(o.name); err != nil {
				return -1, err
			}
		}
	}
	return unix.Open(procFD(o.fd), unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
}

func (o *object) close() {
	if o.fd >= 0 {
		_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(o.fd), 0, 0)
		o.fd = -1
	}
}

func (o *object) typ() uint32 { return o.st.Mode & unix.S_IFMT }

// readOnly reports whether o is of a mount that takes no changes.
func (o *object) readOnly() bool { return o.m != nil && o.m.ReadOnly }

// A walk resolves one path. Places are clean paths of the view: what a place is in is
// decided by the mount table alone, and the trees promise to follow no symbolic link on
// the way to it. So nothing that happens meanwhile leads to a place that was not judged.
type walk struct {
	m       *Module
	c       *intercept.Call
	root    string // view's path of the task's root
	base    string // of RESOLVE_BENEATH and RESOLVE_IN_ROOT
	resolve uint64 // RESOLVE_* of openat2(2)
	links   int
}

// to resolves path from a directory of the view; follow says whether a symbolic link at
// its end is followed. With ENOENT the object says where it would be, if only the
// last name is missing.
func (w *walk) to(cur, path string, follow bool) (object, error) {
	rest := path
	if strings.HasPrefix(path, "/") {
		if w.resolve&unix.RESOLVE_BENEATH != 0 {
			return object{fd: -1}, unix.EXDEV
		}
		cur = w.root
	}
	for range 3 * maxLinks { // one more try for each link, and some for races
		o, err := w.attempt(cur, rest)
		if err == nil {
			if o.typ() != unix.S_IFLNK || !follow && !o.dir {
				return o, w.settle(&o)
			}
			// The last one is a link.
			up := o.view[:strings.LastIndexByte(o.view, '/')]
			suffix := ""
			if o.dir {
				suffix = "/"
			}
			next, r, end, err := w.substitute(up, o.view[len(up)+1:], &o, suffix)
			if err != nil || end != nil {
				return w.ended(end, err, r)
			}
			cur, rest = next, r
			continue
		}
		if !errors.Is(err, unix.ELOOP) {
			return o, err
		}
		if err := w.m.table.isDirectory(cur); errors.Is(err, unix.ELOOP) {
			return object{fd: -1}, unix.ENOTDIR // a descriptor of a link, where the path begins
		}
		next, r, end, err := w.step(cur, rest)
		if err != nil || end != nil {
			return w.ended(end, err, r)
		}
		cur, rest = next, r
	}
	return object{fd: -1}, unix.ELOOP
}

// ended makes the result of a walk that a magic link ended at an object without name.
func (w *walk) ended(end *object, err error, rest string) (object, error) {
	if err != nil {
		return object{fd: -1}, err
	}
	if strings.Trim(rest, "/.") == "" && (rest == "" || end.typ() == unix.S_IFDIR) {
		return *end, nil
	}
	dir := end.typ() == unix.S_IFDIR
	end.close()
	if dir {
		return object{fd: -1}, unix.EACCES // a directory that the view has no name for
	}
	return object{fd: -1}, unix.ENOTDIR
}

// settle makes the last checks of an object.
func (w *walk) settle(o *object) error {
	if o.dir && o.typ() != unix.S_IFDIR {
		o.close()
		return unix.ENOTDIR
	}
	return nil
}

// attempt goes all the way at once, which works if no symbolic link is in it, and ELOOP
// says that there may be one.
func (w *walk) attempt(cur, rest string) (object, error) {
	o := object{fd: -1}
	view, dots, ok := w.lexical(cur, rest, &o)
	if !ok {
		return o, unix.ELOOP
	}
	t := w.m.table
	o.view = view
	o.m, o.name = t.lookup(view)
	var err error
	if w.resolve&unix.RESOLVE_NO_XDEV != 0 {
		if strings.Contains(strings.Trim(rest, "/"), "/") {
			return o, unix.ELOOP // name by name: the host has mounts of its own
		}
		if m, _ := t.lookup(cur); m != o.m {
			return o, unix.EXDEV
		}
	}
	if dots {
		if o.m.dir == nil || o.m.dir.file {
			return o, unix.ELOOP
		}
		// The kernel checks each name before a "..".
		from := strings.TrimPrefix(cur[len(o.m.at):], "/")
		if from == "" {
			from = "."
		}
		path := from + "/" + strings.TrimRight(rest, "/")
		if len(path) >= pathMax { // step by step
			return o, unix.ELOOP
		}
		o.fd, err = o.m.dir.raw(path)
		if err == unix.EXDEV || err == unix.EAGAIN {
			err = unix.ELOOP
		}
		if err == unix.ENOENT && !o.m.dir.there(path[:strings.LastIndexByte(path, '/')]) {
			o.m = nil // more than the last name is missing
		}
	} else {
		o.fd, err = w.open(&o)
	}
	if err != nil {
		o.fd = -1
		return o, err
	}
	if err := unix.Fstat(o.fd, &o.st); err != nil {
		o.close()
		return o, err
	}
	if w.resolve&unix.RESOLVE_NO_XDEV != 0 && w.crosses(cur, &o) {
		o.close()
		return o, unix.EXDEV
	}
	return o, nil
}

// crosses reports whether the kernel has o on another mount than the directory cur, which is in
// the same one of ours.
func (w *walk) crosses(cur string, o *object) bool {
	m, name := w.m.table.lookup(cur)
	if m.dir == nil {
		return false
	}
	fd, err := m.fs.Open(name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var a, b unix.Statx_t
	return unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &a) == nil &&
		unix.Statx(o.fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &b) == nil && a.Mnt_id != b.Mnt_id
}

// open opens the place of o with O_PATH.
func (w *walk) open(o *object) (fd int, err error) {
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err = o.m.fs.Open(o.name, flags, 0)
	if err == unix.EACCES && o.m == w.m.table.host && w.m.ownFDs(w.c, o.view) {
		w.m.asOurselves(func() { fd, err = o.m.fs.Open(o.name, flags, 0) })
	}
	return fd, err
}

// lexical joins a path to a place by its words. ok is false when a ".." leads above the
// root, above the base or into another mount, which has to be walked step by step.
func (w *walk) lexical(cur, rest string, o *object) (view string, dots, ok bool) {
	o.dir = strings.HasSuffix(rest, "/")
	simple := !strings.Contains(rest, "//") && !strings.Contains(rest, "./") && !strings.HasSuffix(rest, ".")
	if simple {
		rest = strings.Trim(rest, "/")
		o.last = rest[strings.LastIndexByte(rest, '/')+1:]
		if rest == "" {
			return cur, false, true
		}
		return cur + "/" + rest, false, true
	}
	t := w.m.table
	first, _ := t.lookup(cur)
	view = cur
	for name := range strings.SplitSeq(rest, "/") {
		switch name {
		case "":
			continue
		case ".":
		case "..":
			dots = true
			if len(view) <= len(w.root) || len(view) <= len(w.base) || len(view) <= len(first.at) {
				return "", false, false
			}
			if m, _ := t.lookup(view); m != first {
				return "", false, false
			}
			view = view[:strings.LastIndexByte(view, '/')]
		default:
			view += "/" + name
		}
		o.last = name
	}
	if o.last == "." || o.last == ".." {
		o.dir = true
	}
	if dots {
		if m, _ := t.lookup(view); m != first {
			return "", false, false
		}
	}
	return view, dots, true
}

// step goes name by name up to the first symbolic link, and returns where it leads and
// what is left, or the object without a name where it ends.
func (w *walk) step(cur, rest string) (next, left string, end *object, err error) {
	t := w.m.table
	for {
		rest = strings.TrimLeft(rest, "/")
		if rest == "" {
			return cur, "", nil, nil
		}
		name, after, more := strings.Cut(rest, "/")
		switch name {
		case ".":
		case "..":
			if err := w.leaves(cur); err != nil {
				return "", "", nil, err
			}
			switch {
			case w.resolve&unix.RESOLVE_BENEATH != 0 && cur == w.base:
				return "", "", nil, unix.EXDEV
			case cur == w.root || cur == "" || isDetachedRoot(cur):
			default:
				up := cur[:strings.LastIndexByte(cur, '/')]
				if w.resolve&unix.RESOLVE_NO_XDEV != 0 {
					was, _ := t.lookup(cur)
					if m, _ := t.lookup(up); m != was {
						return "", "", nil, unix.EXDEV
					}
				}
				cur = up
			}
		default:
			o := object{fd: -1, view: cur + "/" + name}
			o.m, o.name = t.lookup(o.view)
			if w.resolve&unix.RESOLVE_NO_XDEV != 0 {
				if m, _ := t.lookup(cur); m != o.m {
					return "", "", nil, unix.EXDEV
				}
			}
			if o.fd, err = w.open(&o); err != nil {
				if !more || strings.Trim(after, "/") == "" { // the last one: attempt has the error
					return cur, rest, nil, nil
				}
				return "", "", nil, err
			}
			if err = unix.Fstat(o.fd, &o.st); err != nil {
				o.close()
				return "", "", nil, err
			}
			if w.resolve&unix.RESOLVE_NO_XDEV != 0 && w.crosses(cur, &o) {
				o.close()
				return "", "", nil, unix.EXDEV
			}
			switch o.typ() {
			case unix.S_IFLNK:
				if !more {
					o.close()
					return cur, rest, nil, nil // whether it is followed, to knows
				}
				return w.substitute(cur, name, &o, "/"+after)
			case unix.S_IFDIR:
			default:
				o.close()
				if more {
					return "", "", nil, unix.ENOTDIR
				}
				return cur, rest, nil, nil
			}
			o.close()
			cur = o.view
		}
		rest = after
		if !more {
			return cur, "", nil, nil
		}
	}
}

// leaves is why a path cannot go on with ".." from what may be a file, where a magic link leads, or
// a directory that the caller may not search.
func (w *walk) leaves(cur string) error {
	m, name := w.m.table.lookup(cur)
	fd, err := m.fs.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.ENOTDIR) {
			return err
		}
		return nil // it was removed
	}
	defer unix.Close(fd)
	if err := faccess(fd, unix.X_OK); err == unix.EACCES {
		return err
	}
	return nil
}

// substitute follows the symbolic link o, the name in cur, and closes it.
func (w *walk) substitute(cur, name string, o *object, after string) (next, left string, end *object, err error) {
	defer o.close()
	if w.links++; w.links > maxLinks || w.resolve&unix.RESOLVE_NO_SYMLINKS != 0 {
		return "", "", nil, unix.ELOOP
	}
	if isProc(o.fd) {
		text, to, err := w.magic(cur, name)
		switch {
		case err != nil:
			return "", "", nil, err
		case to != nil && w.resolve&(unix.RESOLVE_NO_MAGICLINKS|unix.RESOLVE_BENEATH|unix.RESOLVE_IN_ROOT) != 0:
			to.close()
			if w.resolve&unix.RESOLVE_NO_MAGICLINKS != 0 {
				return "", "", nil, unix.ELOOP
			}
			return "", "", nil, unix.EXDEV
		case to != nil && w.resolve&unix.RESOLVE_NO_XDEV != 0 && !isProc(to.fd): // nd_jump_link
			to.close()
			return "", "", nil, unix.EXDEV
		case to != nil && (to.m == nil || to.typ() == unix.S_IFLNK):
			return "", after, to, nil
		case to != nil:
			to.close()
			return to.view, after, nil, nil
		case text != "":
			return cur, text + after, nil, nil
		}
	}
	buf := make([]byte, pathMax)
	n, err := unix.Readlinkat(o.fd, "", buf)
	switch {
	case err != nil:
		return "", "", nil, err
	case n == 0:
		return "", "", nil, unix.ENOENT
	}
	text := string(buf[:n])
	if text[0] == '/' {
		if w.resolve&unix.RESOLVE_BENEATH != 0 {
			return "", "", nil, unix.EXDEV
		}
		if w.resolve&unix.RESOLVE_NO_XDEV != 0 { // fs/namei.c: nd_jump_root
			was, _ := w.m.table.lookup(cur)
			if m, _ := w.m.table.lookup(w.root); m != was {
				return "", "", nil, unix.EXDEV
			}
		}
		cur = w.root
	}
	return cur, text + after, nil, nil
}
