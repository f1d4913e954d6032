// SPDX-License-Identifier: Apache-2.0

// New names: directories, special files, links.

package cow

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// Mkdir is as [fsmod.FS] has it.
func (b *branch) Mkdir(name string, mode uint32) error {
	return b.create(name, true, func(dir int, name string) error { return unix.Mkdirat(dir, name, mode&0o7777) })
}

// Mknod is as [fsmod.FS] has it. A whiteout cannot be made, as on overlayfs.
func (b *branch) Mknod(name string, mode uint32, dev uint64) error {
	device := mode&unix.S_IFMT == unix.S_IFCHR || mode&unix.S_IFMT == unix.S_IFBLK
	if mode&unix.S_IFMT == unix.S_IFCHR && dev == 0 || device && !capable(unix.CAP_MKNOD) {
		b.mu.RLock()
		defer b.mu.RUnlock()
		p, err := b.vacant(name)
		if err == nil {
			p.close()
		}
		if _, ok := err.(copyFirst); ok || err == nil {
			err = unix.EPERM
		}
		return err
	}
	return b.create(name, false, func(dir int, name string) error { return unix.Mknodat(dir, name, mode, int(dev)) })
}

// Bind is as [fsmod.Binder] has it. The lock is held, so that nobody sees what the name covers.
func (b *branch) Bind(name string, bind func(dir int, last string) error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, err := b.walk(name, true)
	if err != nil {
		return err
	}
	defer p.close()
	if p.up < 0 || kind(&p.st) != unix.S_IFSOCK {
		return unix.EACCES // somebody was faster
	}
	below, err := b.below(p, name)
	if err == nil {
		err = b.owner.do(func() error { return unix.Unlinkat(p.dir.up, p.name, 0) })
	}
	if err != nil {
		return err
	}
	if err = bind(p.dir.up, p.name); err != nil && below {
		err = errors.Join(err, b.owner.do(func() error { return makeWhiteout(p.dir.up, p.name) }))
	}
	return err
}

// Symlink is as [fsmod.FS] has it.
func (b *branch) Symlink(target, name string) error {
	return b.create(name, false, func(dir int, name string) error { return unix.Symlinkat(target, dir, name) })
}

// create makes something new: made is called, at most once with success, with a
// directory and a name in it where nothing is.
func (b *branch) create(name string, isDir bool, made func(dir int, name string) error) error {
	return b.change(func() error {
		p, err := b.vacant(name)
		if err != nil {
			return err
		}
		defer p.close()
		me := current()
		if !p.white && me == b.owner {
			return made(p.dir.up, p.name)
		}
		gid := int(p.dir.st.Gid)
		p.stranger = p.dir.st.Mode&unix.S_ISGID != 0 && gid != me.gid && !member(gid) && !capable(unix.CAP_FSETID)
		return b.owner.do(func() error { return b.createAside(p, isDir, me, made) })
	})
}

// vacant finds the place of a name that can be made now. The caller closes it.
func (b *branch) vacant(name string) (*place, error) {
	p, err := b.walk(name, true)
	if err != nil {
		return nil, err
	}
	switch {
	case p.exists():
		err = unix.EEXIST
	case b.readOnly():
		err = unix.EROFS
	default:
		if err = b.mayChange(&p.dir); err == nil && p.dir.up < 0 {
			err = copyFirst(above(name))
		}
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// createAside makes something in copies/ and renames it to p, over the whiteout if there
// is one. It belongs to the caller.
func (b *branch) createAside(p *place, isDir bool, me creds, made func(dir int, name string) error) error {
	dir, tmp, done, err := b.nursery(&p.dir)
	if err != nil {
		return err
	}
	defer done()
	if err := made(dir, tmp); err != nil {
		return err
	}
	if err := b.adopt(dir, tmp, p, isDir, me); err != nil {
		discardAt(dir, tmp)
		return err
	}
	return nil
}

// adopt finishes what was made aside, and puts it to its place.
func (b *branch) adopt(dir int, tmp string, p *place, isDir bool, me creds) error {
	fd, err := openBelow(dir, tmp, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer closeAll(fd)
	if me != b.owner {
		if err := give(fd, p, me); err != nil {
			return err
		}
	}
	if isDir && p.white {
		if err := setOpaque(fd); err != nil {
			return err
		}
	}
	put := func() error { return b.place(dir, tmp, p, isDir) }
	if err = put(); err == unix.EACCES && isDir { // that moves has a new "..", which it must let be written
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil {
			err = writable(fd, &st, put)
		}
	}
	return err
}

// place renames what is at tmp to p, where nothing is shown.
func (b *branch) place(dir int, tmp string, p *place, isDir bool) error {
	switch {
	case !p.white:
		return unix.Renameat2(dir, tmp, p.dir.up, p.name, unix.RENAME_NOREPLACE)
	case !isDir:
		return unix.Renameat(dir, tmp, p.dir.up, p.name)
	}
	// No directory can be renamed over a whiteout, but the two can change places.
	if err := unix.Renameat2(dir, tmp, p.dir.up, p.name, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	discardAt(dir, tmp)
	return nil
}

// give makes a new file the caller's, with the group that the directory's mode says.
func give(fd int, p *place, me creds) error {
	gid := me.gid
	if p.dir.st.Mode&unix.S_ISGID != 0 {
		gid = int(p.dir.st.Gid)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := unix.Fchownat(fd, "", me.uid, gid, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	const forGroup = unix.S_ISGID | unix.S_IXGRP
	if p.stranger && st.Mode&forGroup == forGroup { // inode(7): not for a group that the caller is not in
		st.Mode &^= unix.S_ISGID
	}
	if k := kind(&st); st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 && k != unix.S_IFDIR && k != unix.S_IFLNK { // chown(2) takes them away
		return unix.Chmod(fdPath(fd), st.Mode&0o7777)
	}
	return nil
}

// nursery is a directory in which what is made gets what it would get in d: group and
// access control lists. That is copies/, unless d has something to give. done removes it.
func (b *branch) nursery(d *node) (dir int, tmp string, done func(), err error) {
	tmp = b.temp()
	_, acl := unix.Getxattr(fdPath(d.up), "system.posix_acl_default", nil)
	if d.st.Mode&unix.S_ISGID == 0 && acl != nil {
		return b.work, tmp, func() {}, nil
	}
	name, err := b.makeCopy(context.Background(), d.up, &d.st, without)
	if err != nil {
		return -1, "", nil, err
	}
	if dir, err = openBelow(b.work, name, unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		b.discard(name)
		return -1, "", nil, err
	}
	return dir, tmp, func() {
		closeAll(dir)
		b.discard(name)
	}, nil
}

// Link is as [fsmod.FS] has it.
func (b *branch) Link(from, to string) error {
	return b.change(func() error {
		f, err := b.walk(from, true)
		if err != nil {
			return err
		}
		defer f.close()
		if !f.exists() {
			return unix.ENOENT
		}
		if f.up < 0 || to == "" {
			// Is all well, but for the copy?
			if err := b.linkable(f, to); err != nil {
				return err
			}
			return copyFirst(from)
		}
		if err := b.linkable(f, to); err != nil {
			return err
		}
		return b.link(to, func(dir int, name string) error { return unix.Linkat(f.dir.up, f.name, dir, name, 0) })
	})
}

// linkable says why f cannot have the name to.
func (b *branch) linkable(f *place, to string) error {
	p, err := b.walk(to, true)
	if err != nil {
		return err
	}
	defer p.close()
	switch {
	case p.exists():
		return unix.EEXIST
	case b.readOnly():
		return unix.EROFS
	case !mayLink(f):
		return unix.EPERM
	}
	if err := b.mayChange(&p.dir); err != nil {
		return err
	}
	if f.isDir() {
		return unix.EPERM
	}
	return nil
}

// mayLink reports whether the caller may give a file one more name: proc_sys_fs(5),
// protected_hardlinks.
func mayLink(f *place) bool {
	return owns(&f.st) || kind(&f.st) == unix.S_IFREG && f.st.Mode&(unix.S_ISUID|unix.S_ISGID) == 0 &&
		mayLower(f.top(), &f.st, unix.R_OK|unix.W_OK) == nil
}

// LinkFile gives a name to a file without one, which was opened with O_TMPFILE: linkat(2)
// with AT_EMPTY_PATH, or of its name in /proc. Others say EXDEV: they may be the lower
// layer's, and have names by which they can be linked.
func (b *branch) LinkFile(fd int, to string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Nlink != 0 || kind(&st) != unix.S_IFREG {
		return unix.EXDEV
	}
	return b.change(func() error {
		return b.link(to, func(dir int, name string) error {
			return unix.Linkat(unix.AT_FDCWD, fdPath(fd), dir, name, unix.AT_SYMLINK_FOLLOW)
		})
	})
}

// link makes a new name with made. b.mu is held.
func (b *branch) link(to string, made func(dir int, name string) error) error {
	p, err := b.vacant(to)
	if err != nil {
		return err
	}
	defer p.close()
	return b.owner.do(func() error {
		if !p.white {
			return made(p.dir.up, p.name)
		}
		tmp := b.temp()
		if err := made(b.work, tmp); err != nil {
			return err
		}
		err := b.place(b.work, tmp, p, false)
		if err != nil {
			b.discard(tmp)
		}
		return err
	})
}
