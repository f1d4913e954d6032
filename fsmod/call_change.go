// SPDX-License-Identifier: Apache-2.0

// The calls that make, remove and move names.

package fsmod

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// A nameAt is the place of a name that is about to be made, removed or moved: a directory,
// and the last component of the path, which is not followed.
type nameAt struct {
	m       *mount
	in      *mount // the directory's, which is not m at a mount
	name    string
	view    string
	slash   bool   // a slash stood behind it
	special string // the last component if it is none: "/", "." or ".."
}

// onName resolves the place of a path and calls f with it. The first try takes the path
// by its words; a tree says ELOOP where a symbolic link is on the way.
func (m *Module) onName(c *intercept.Call, dir int, at intercept.Addr, f func(n *nameAt) error) error {
	path, err := c.ReadString(at, pathMax)
	if err != nil {
		return err
	}
	return m.onPath(c, dir, path, f)
}

func (m *Module) onPath(c *intercept.Call, dir int, path string, f func(n *nameAt) error) (err error) {
	if path == "" {
		return unix.ENOENT
	}
	n := nameAt{slash: path[len(path)-1] == '/'}
	defer func() {
		if err != nil && n.in != nil && !errors.Is(err, unix.ELOOP) && !n.searchable() {
			err = unix.EACCES // which the kernel says of a path before anything of its last name
		}
	}()
	bare := strings.TrimRight(path, "/")
	i := strings.LastIndexByte(bare, '/')
	last := bare[i+1:]
	switch last {
	case "":
		n.special = "/"
		root, err := m.rootOf(c)
		if err != nil {
			return err
		}
		n.view = root
		n.in, _ = m.table.lookup(root)
		return f(&n)
	case ".", "..":
		o, err := m.resolvePath(c, dir, bare[:i+1]+".", true, 0) // ".." itself is not looked for
		if err != nil {
			return err
		}
		n.in, n.view = o.m, o.view
		o.close()
		if o.typ() != unix.S_IFDIR { // a file that a descriptor is of
			return unix.ENOTDIR
		}
		n.special = last
		return f(&n)
	}
	up := bare[:i+1]
	w := walk{m: m, c: c}
	if w.root, err = m.rootOf(c); err != nil {
		return err
	}
	cur := w.root
	if path[0] != '/' {
		if cur, err = m.baseOf(c, dir, path); err != nil {
			return err
		}
	}
	var o object
	if view, dots, ok := w.lexical(cur, up, &o); ok && !dots {
		// What f says of a place holds only if the directory is one: behind a link it
		// is another.
		n.in, n.view = m.table.directory(view), view+"/"+last
		n.m, n.name = m.table.lookup(n.view)
		err := m.table.isDirectory(view)
		if err == nil {
			err = f(&n)
		}
		if !errors.Is(err, unix.ELOOP) {
			return err
		}
	}
	if up == "" {
		up = "."
	}
	for range maxLinks {
		o, err := w.to(cur, up, true)
		if err != nil {
			return err
		}
		o.close()
		switch {
		case o.typ() != unix.S_IFDIR:
			return unix.ENOTDIR
		case o.m == nil:
			return unix.EACCES
		}
		n.in, n.view = o.m, o.view+"/"+last
		n.m, n.name = m.table.lookup(n.view)
		if err := f(&n); !errors.Is(err, unix.ELOOP) {
			return err
		}
	}
	return unix.ELOOP
}

// directory is the mount that a directory of the view is in.
func (t *table) directory(view string) *mount {
	m, _ := t.lookup(view)
	return m
}

// isBase is isDirectory for where a path begins: no link is on the way there.
func (t *table) isBase(view string) error {
	err := t.isDirectory(view)
	if errors.Is(err, unix.ELOOP) {
		return unix.ENOTDIR
	}
	return err
}

// isDirectory is nil if the view has a directory there, and ELOOP if a symbolic link
// is on the way or is it.
func (t *table) isDirectory(view string) error {
	m, name := t.lookup(view)
	st, err := m.stat(name)
	if err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return nil
	case unix.S_IFLNK:
		return unix.ELOOP
	}
	return unix.ENOTDIR
}

// searchable reports whether the caller may look for names in the directory, if there is one.
func (n *nameAt) searchable() bool {
	dir := n.view // of "." and ".."
	if n.special == "" {
		dir = dir[:strings.LastIndexByte(dir, '/')]
	}
	fd, err := n.in.fs.Open(strings.TrimPrefix(dir[len(n.in.at):], "/"), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	return faccess(fd, unix.X_OK) != unix.EACCES
}

// there reports whether something has the name.
func (n *nameAt) there() (unix.Stat_t, error) { return n.m.stat(n.name) }

// refusesNew is why nothing can be made at the place, as filename_create of fs/namei.c
// has it; dir says that it is to be a directory.
func (n *nameAt) refusesNew(t *table, dir bool) error {
	switch {
	case n.special != "", t.has(n.view):
		return unix.EEXIST
	case n.slash && !dir || n.m.ReadOnly:
		_, err := n.there()
		switch {
		case err == nil:
			return unix.EEXIST
		case !errors.Is(err, unix.ENOENT):
			return err
		case n.slash && !dir:
			return unix.ENOENT
		}
		if i := strings.LastIndexByte(n.name, '/'); i > 0 { // a parent that is not there comes first
			fd, err := n.m.fs.Open(n.name[:i], unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			unix.Close(fd)
		}
		return unix.EROFS
	}
	return nil
}

// staysPut reports whether what is at the place must stay: it is a mount, or on the way to one.
func (n *nameAt) staysPut(t *table) bool {
	if t.has(n.view) || t.above(n.view) {
		return true
	}
	st, err := n.there()
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && t.parents[inodeOf(&st)]
}

func (m *Module) doMkdir(c *intercept.Call) intercept.Action {
	return m.mkdir(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), uint32(c.Args[1]))
}

func (m *Module) doMkdirat(c *intercept.Call) intercept.Action {
	return m.mkdir(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), uint32(c.Args[2]))
}

func (m *Module) mkdir(c *intercept.Call, dir int, path intercept.Addr, mode uint32) intercept.Action {
	return result(m.onName(c, dir, path, func(n *nameAt) error {
		if err := n.refusesNew(m.table, true); err != nil {
			return err
		}
		return m.create(c, mode&0o1777, func(mode uint32) error { return n.m.fs.Mkdir(n.name, mode) })
	}))
}

func (m *Module) doMknod(c *intercept.Call) intercept.Action {
	return m.mknod(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), uint32(c.Args[1]), c.Args[2])
}

func (m *Module) doMknodat(c *intercept.Call) intercept.Action {
	return m.mknod(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), uint32(c.Args[2]), c.Args[3])
}

func (m *Module) mknod(c *intercept.Call, dir int, path intercept.Addr, mode uint32, dev uint64) intercept.Action {
	mode &= 0xffff // umode_t
	switch mode & unix.S_IFMT {
	case 0:
		mode |= unix.S_IFREG
	case unix.S_IFREG, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK:
	case unix.S_IFDIR:
		return intercept.Fail(unix.EPERM)
	default:
		return intercept.Fail(unix.EINVAL)
	}
	return result(m.onName(c, dir, path, func(n *nameAt) error {
		if err := n.refusesNew(m.table, false); err != nil {
			return err
		}
		return m.create(c, mode, func(mode uint32) error { return n.m.fs.Mknod(n.name, mode, uint64(uint32(dev))) })
	}))
}

func (m *Module) doSymlink(c *intercept.Call) intercept.Action {
	return m.symlink(c, intercept.Addr(c.Args[0]), unix.AT_FDCWD, intercept.Addr(c.Args[1]))
}

func (m *Module) doSymlinkat(c *intercept.Call) intercept.Action {
	return m.symlink(c, intercept.Addr(c.Args[0]), int(int32(c.Args[1])), intercept.Addr(c.Args[2]))
}

func (m *Module) symlink(c *intercept.Call, target intercept.Addr, dir int, path intercept.Addr) intercept.Action {
	text, err := c.ReadString(target, pathMax)
	switch {
	case err != nil:
		return fail(err)
	case text == "":
		return intercept.Fail(unix.ENOENT)
	}
	return result(m.onName(c, dir, path, func(n *nameAt) error {
		if err := n.refusesNew(m.table, false); err != nil {
			return err
		}
		return n.m.fs.Symlink(text, n.name)
	}))
}

func (m *Module) doUnlink(c *intercept.Call) intercept.Action {
	return m.remove(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), false)
}

func (m *Module) doRmdir(c *intercept.Call) intercept.Action {
	return m.remove(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), true)
}

func (m *Module) doUnlinkat(c *intercept.Call) intercept.Action {
	flags := uint32(c.Args[2])
	if flags&^unix.AT_REMOVEDIR != 0 {
		return intercept.Fail(unix.EINVAL)
	}
	return m.remove(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), flags != 0)
}

func (m *Module) remove(c *intercept.Call, at int, path intercept.Addr, dir bool) intercept.Action {
	return result(m.onName(c, at, path, func(n *nameAt) error {
		switch {
		case n.special != "" && !dir:
			return unix.EISDIR
		case n.special == "/":
			return unix.EBUSY
		case n.special == ".":
			return unix.EINVAL
		case n.special == "..":
			return unix.ENOTEMPTY
		case n.in.ReadOnly:
			return unix.EROFS // before the name is looked for
		}
		mounted := m.table.has(n.view)
		if mounted || !dir && n.slash {
			st, err := n.there()
			isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
			switch {
			case err != nil:
				return err
			case isDir && !dir:
				return unix.EISDIR
			case !isDir && (dir || n.slash):
				return unix.ENOTDIR
			}
			return unix.EBUSY
		}
		if dir && n.staysPut(m.table) {
			return unix.EBUSY
		}
		return n.m.fs.Remove(n.name, dir)
	}))
}

func (m *Module) doRename(c *intercept.Call) intercept.Action {
	return m.rename(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), unix.AT_FDCWD, intercept.Addr(c.Args[1]), 0)
}

func (m *Module) doRenameat(c *intercept.Call) intercept.Action {
	return m.rename(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), int(int32(c.Args[2])), intercept.Addr(c.Args[3]), 0)
}

func (m *Module) doRenameat2(c *intercept.Call) intercept.Action {
	return m.rename(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), int(int32(c.Args[2])), intercept.Addr(c.Args[3]), uint(uint32(c.Args[4])))
}

func (m *Module) rename(c *intercept.Call, fromDir int, from intercept.Addr, toDir int, to intercept.Addr, flags uint) intercept.Action {
	const known = unix.RENAME_NOREPLACE | unix.RENAME_EXCHANGE | unix.RENAME_WHITEOUT
	if flags&^known != 0 || flags&(unix.RENAME_NOREPLACE|unix.RENAME_WHITEOUT) != 0 && flags&unix.RENAME_EXCHANGE != 0 {
		return intercept.Fail(unix.EINVAL)
	}
	err := m.onTwo(c, fromDir, from, toDir, to, func(f, t *nameAt) error {
		switch {
		case f.in != t.in:
			return unix.EXDEV
		case f.special != "":
			return unix.EBUSY
		case t.special != "":
			if flags&unix.RENAME_NOREPLACE != 0 {
				return unix.EEXIST
			}
			return unix.EBUSY
		}
		if f.in.ReadOnly {
			return unix.EROFS // before the names are looked for
		}
		st, err := f.there()
		if err != nil {
			return elsewhere(f, t, err)
		}
		if flags&unix.RENAME_NOREPLACE != 0 {
			if _, err := t.there(); err == nil {
				return elsewhere(f, t, unix.EEXIST)
			}
		}
		dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if flags&unix.RENAME_EXCHANGE != 0 {
			over, err := t.there()
			if err == nil && t.slash && over.Mode&unix.S_IFMT != unix.S_IFDIR {
				err = unix.ENOTDIR
			}
			if err != nil {
				return elsewhere(f, t, err)
			}
		}
		if !dir && (f.slash || t.slash && flags&unix.RENAME_EXCHANGE == 0) {
			return elsewhere(f, t, unix.ENOTDIR)
		}
		if f.staysPut(m.table) || t.staysPut(m.table) {
			return elsewhere(f, t, refusesRename(&st, f, t, flags))
		}
		if err := m.prepare(c, f.m, f.name, UseMove, 0); err != nil {
			return err
		}
		if flags&unix.RENAME_EXCHANGE != 0 {
			if err := m.prepare(c, t.m, t.name, UseMove, 0); err != nil {
				return err
			}
		}
		err = f.m.fs.Rename(f.name, t.name, flags)
		if err == nil && dir {
			m.table.refresh()
		}
		return err
	})
	return m.orLater(c, err, func(m *Module) intercept.Action { return m.rename(c, fromDir, from, toDir, to, flags) })
}

// elsewhere is EXDEV for two names that the host has on different file systems, and else err:
// which names there are matters less.
func elsewhere(f, t *nameAt, err error) error {
	var a, b unix.Stat_t
	var e error
	if f.in.dir != nil && f.in == t.in {
		if a, e = f.above(); e == nil {
			b, e = t.above()
		}
		if e == nil && a.Dev != b.Dev {
			return unix.EXDEV
		}
	}
	return err
}

// above looks at the directory that the name is in.
func (n *nameAt) above() (unix.Stat_t, error) {
	dir := n.view[len(n.in.at):strings.LastIndexByte(n.view, '/')]
	return n.in.stat(strings.TrimPrefix(dir, "/"))
}

// refusesRename is why what has the mode of st cannot be moved where one of the two is busy
// (fs/namei.c: do_renameat2, may_delete).
func refusesRename(st *unix.Stat_t, from, to *nameAt, flags uint) error {
	over, err := to.there()
	exchange := flags&unix.RENAME_EXCHANGE != 0
	isDir := func(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }
	switch {
	case err != nil && (exchange || !errors.Is(err, unix.ENOENT)):
		return err
	case strings.HasPrefix(to.view, from.view+"/"):
		return unix.EINVAL
	case strings.HasPrefix(from.view, to.view+"/") && exchange:
		return unix.EINVAL
	case strings.HasPrefix(from.view, to.view+"/"):
		return unix.ENOTEMPTY
	case from.view == to.view:
		return nil // vfs_rename: one name is left where it is
	case err != nil || exchange:
	case isDir(st) && !isDir(&over):
		return unix.ENOTDIR
	case !isDir(st) && isDir(&over):
		return unix.EISDIR
	}
	return unix.EBUSY
}

// onTwo is onName for two places.
func (m *Module) onTwo(c *intercept.Call, dir1 int, at1 intercept.Addr, dir2 int, at2 intercept.Addr, f func(a, b *nameAt) error) error {
	one, err := c.ReadString(at1, pathMax)
	if err != nil {
		return err
	}
	two, err := c.ReadString(at2, pathMax)
	if err != nil {
		return err
	}
	return m.onPath(c, dir1, one, func(a *nameAt) error {
		return m.onPath(c, dir2, two, func(b *nameAt) error { return f(a, b) })
	})
}

// refresh learns where the directories of binds are, after one was moved.
func (t *table) refresh() {
	for _, m := range t.tagged {
		if m != nil && m.dir != nil {
			m.dir.refresh()
		}
	}
}
