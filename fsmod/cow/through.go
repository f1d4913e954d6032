// SPDX-License-Identifier: Apache-2.0

// What is mounted below a tree and not covered by copy on write.

package cow

import (
	"golang.org/x/sys/unix"

	"umrun/fsmod"
)

// through passes a file system, or a single file, through as it is.
type through struct {
	root     int  // O_PATH
	readOnly bool // but for devices and the like, as in a file system that is mounted so
	pseudo   bool // see part
}

func (t *through) close() { closeAll(t.root) }

// Open is as [fsmod.FS] has it.
func (t *through) Open(name string, flags int, mode uint32) (int, error) {
	if t.readOnly && flags&unix.O_PATH == 0 {
		if err := t.readable(name, flags); err != nil {
			return -1, err
		}
		flags &^= unix.O_CREAT
	}
	if name == "" {
		switch {
		case flags&(unix.O_CREAT|unix.O_EXCL) == unix.O_CREAT|unix.O_EXCL:
			return -1, unix.EEXIST
		case flags&unix.O_PATH != 0 && flags&unix.O_DIRECTORY == 0:
			return dup(t.root)
		case flags&unix.O_CREAT != 0:
			var st unix.Stat_t
			if err := unix.Fstat(t.root, &st); err == nil && kind(&st) == unix.S_IFDIR {
				return -1, unix.EISDIR
			}
		}
		return reopenMode(t.root, flags&^(unix.O_CREAT|unix.O_EXCL), mode)
	}
	return openBelow(t.root, name, flags, mode&0o7777)
}

// readable says why a file cannot be opened so where nothing can be changed.
func (t *through) readable(name string, flags int) error {
	if flags&unix.O_TMPFILE == unix.O_TMPFILE {
		return unix.EROFS
	}
	fd, err := t.Open(name, unix.O_PATH, 0)
	if err == unix.ENOENT && flags&unix.O_CREAT != 0 {
		return unix.EROFS
	}
	if err != nil {
		return err
	}
	defer closeAll(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	switch exists := kind(&st) == unix.S_IFREG && access(flags)&unix.W_OK != 0; {
	case flags&(unix.O_CREAT|unix.O_EXCL) == unix.O_CREAT|unix.O_EXCL:
		return unix.EEXIST
	case exists:
		return unix.EROFS
	case flags&unix.O_CREAT != 0 && kind(&st) == unix.S_IFDIR:
		return unix.EISDIR
	}
	return nil
}

// Fill is as [fsmod.Filler] has it: everything is there.
func (t *through) Fill(string) error { return nil }

// Own is as [fsmod.FS] has it: nothing is copied.
func (t *through) Own(name string) (int, error) {
	fd, err := t.Open(name, unix.O_PATH, 0)
	if err == nil && t.readOnly {
		closeAll(fd)
		return -1, unix.EROFS
	}
	return fd, err
}

// in calls f with the directory of a name, and the last name.
func (t *through) in(name string, f func(dir int, name string) error) error {
	if t.readOnly {
		return unix.EROFS
	}
	dir := t.root
	if up := above(name); up != "" {
		fd, err := openDir(t.root, up, &unix.Stat_t{})
		if err != nil {
			return err
		}
		defer closeAll(fd)
		if err := may(fd, unix.X_OK); err != nil {
			return err // as on the way to any name
		}
		dir = fd
	}
	return f(dir, lastName(name))
}

// make is in for a name that is to be new.
func (t *through) make(name string, f func(dir int, name string) error) error {
	if name == "" {
		return unix.EEXIST
	}
	return t.in(name, f)
}

// Mkdir is as [fsmod.FS] has it.
func (t *through) Mkdir(name string, mode uint32) error {
	return t.make(name, func(dir int, name string) error { return unix.Mkdirat(dir, name, mode&0o7777) })
}

// Mknod is as [fsmod.FS] has it.
func (t *through) Mknod(name string, mode uint32, dev uint64) error {
	return t.make(name, func(dir int, name string) error { return unix.Mknodat(dir, name, mode, int(dev)) })
}

// Bind is as [fsmod.Binder] has it.
func (t *through) Bind(name string, bind func(dir int, last string) error) error {
	return t.make(name, func(dir int, last string) error {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, last, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if kind(&st) != unix.S_IFSOCK {
			return unix.EACCES // somebody was faster
		}
		if err := unix.Unlinkat(dir, last, 0); err != nil {
			return err
		}
		return bind(dir, last)
	})
}

// Symlink is as [fsmod.FS] has it.
func (t *through) Symlink(target, name string) error {
	return t.make(name, func(dir int, name string) error { return unix.Symlinkat(target, dir, name) })
}

// Link is as [fsmod.FS] has it.
func (t *through) Link(from, to string) error {
	fd, err := openBelow(t.root, from, unix.O_PATH, 0)
	if err != nil {
		return err // before anything is said of to, as the kernel does
	}
	defer closeAll(fd)
	return t.both(from, to, func(fdir int, from string, tdir int, to string) error {
		return unix.Linkat(fdir, from, tdir, to, 0)
	})
}

// LinkFile is as for [FS].
func (t *through) LinkFile(fd int, to string) error {
	return t.make(to, func(dir int, name string) error {
		return unix.Linkat(unix.AT_FDCWD, fdPath(fd), dir, name, unix.AT_SYMLINK_FOLLOW)
	})
}

// Rename is as [fsmod.FS] has it.
func (t *through) Rename(from, to string, flags uint) error {
	return t.both(from, to, func(fdir int, from string, tdir int, to string) error {
		return unix.Renameat2(fdir, from, tdir, to, flags)
	})
}

func (t *through) both(from, to string, f func(fdir int, from string, tdir int, to string) error) error {
	if from == "" || to == "" {
		return unix.EBUSY
	}
	return t.in(from, func(fdir int, from string) error {
		return t.in(to, func(tdir int, to string) error { return f(fdir, from, tdir, to) })
	})
}

// Remove is as [fsmod.FS] has it.
func (t *through) Remove(name string, dir bool) error {
	flags := 0
	if dir {
		flags = unix.AT_REMOVEDIR
	}
	if name == "" {
		if dir {
			return unix.EBUSY
		}
		return unix.EISDIR
	}
	return t.in(name, func(dir int, name string) error { return unix.Unlinkat(dir, name, flags) })
}

// List is as [fsmod.FS] has it: what the descriptor lists is right.
func (t *through) List(string) ([]fsmod.Dirent, bool, error) { return nil, false, nil }
