// SPDX-License-Identifier: Apache-2.0

// A tree that is a directory of the host, or a single file.

package fsmod

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A dirFS serves what is below a directory, or a file alone. Names are resolved by the
// kernel, below the descriptor and through no symbolic link.
type dirFS struct {
	root int                    // O_PATH
	file bool                   // root is no directory
	path atomic.Pointer[string] // of root on the host, as /proc names it; "" for "/"
	own  func() error           // removes what is the tree's alone; may be nil
	// apart is where the tree is if path leads there in another mount namespace, which is empty
	// but for it. nil: in our own.
	apart *apart
}

// openDirFS opens path, following symbolic links.
func openDirFS(path string) (*dirFS, error) {
	flags := unix.O_PATH | unix.O_CLOEXEC
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	d, err := newDirFS(fd)
	if err != nil {
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	return d, nil
}

// newDirFS makes a tree of what root is of, which is the tree's, or closed.
func newDirFS(root int) (*dirFS, error) {
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil {
		unix.Close(root)
		return nil, err
	}
	d := &dirFS{root: root, file: st.Mode&unix.S_IFMT != unix.S_IFDIR}
	d.path.Store(new(string))
	d.refresh()
	return d, nil
}

// dirFSOf makes a tree of what a descriptor is of, which stays the caller's.
func dirFSOf(fd int) (*dirFS, error) {
	root, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return newDirFS(root)
}

// OpenRoot makes a tree of what is below a directory that is open, with O_PATH: it need not be
// where a path of this process leads. dir stays the caller's.
func OpenRoot(dir *os.File) (FS, error) {
	d, err := dirFSOf(int(dir.Fd()))
	if err != nil {
		return nil, err
	}
	return d, nil
}

// refresh asks where the root is.
func (d *dirFS) refresh() {
	if path, err := os.Readlink(procFD(d.root)); err == nil {
		path = strings.TrimSuffix(path, "/")
		d.path.Store(&path)
	}
}

// procFD names a descriptor of ours so that it is opened anew.
func procFD(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// Close implements [FS].
func (d *dirFS) Close() error {
	err := unix.Close(d.root)
	if d.own != nil {
		return d.own()
	}
	return err
}

// Name implements [Namer].
func (d *dirFS) Name(host string) (string, bool) {
	path := *d.path.Load()
	if host == path {
		return "", true
	}
	if len(host) <= len(path) || host[len(path)] != '/' || host[:len(path)] != path {
		return "", false
	}
	return host[len(path)+1:], true
}

// Layer implements [Layered].
func (d *dirFS) Layer(name string) (l Layer, err error) {
	l.Dir, err = d.openat(name, unix.O_PATH, 0)
	return l, err
}

// openat opens a name below the root, through no symbolic link.
func (d *dirFS) openat(name string, flags int, mode uint32) (int, error) {
	if len(name) >= pathMax-1 {
		return d.openLong(name, flags, mode)
	}
	flags |= unix.O_CLOEXEC | unix.O_NOFOLLOW
	if name == "" || d.file {
		if name != "" {
			return -1, unix.ENOTDIR
		}
		return d.openRoot(flags, mode)
	}
	how := unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_NO_SYMLINKS}
	if flags&(unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY) != 0 {
		how.Mode = uint64(mode & 0o7777) // else openat2(2) does not take one
	}
	return d.openat2(name, &how)
}

// openLong opens a name that is too long for one call.
func (d *dirFS) openLong(name string, flags int, mode uint32) (int, error) {
	at := dirFS{root: d.root}
	for len(name) >= pathMax-1 {
		i := strings.LastIndexByte(name[:pathMax-1], '/')
		if i < 0 {
			return -1, unix.ENAMETOOLONG
		}
		fd, err := at.openDir(name[:i])
		if err != nil {
			return -1, err
		}
		defer unix.Close(fd)
		at.root, name = fd, name[i+1:]
	}
	return at.openat(name, flags, mode)
}

// openDir opens a directory on the way to something, with O_PATH.
func (d *dirFS) openDir(name string) (int, error) {
	dir, err := d.openat(name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == unix.ENOTDIR {
		// O_DIRECTORY on a symbolic link says so too.
		if fd, e := d.openat(name, unix.O_PATH, 0); e == nil {
			var st unix.Stat_t
			if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
				err = unix.ELOOP
			}
			unix.Close(fd)
		}
	}
	return dir, err
}

// openat2 is openat2(2), which an interruption does not end.
func (d *dirFS) openat2(name string, how *unix.OpenHow) (int, error) {
	for {
		fd, err := unix.Openat2(d.root, name, how)
		if err == unix.EINTR {
			continue
		}
		return fd, err
	}
}

// raw opens a path that may have ".." in it and stays below the root, with O_PATH.
func (d *dirFS) raw(path string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH}
	return d.openat2(path, &how)
}

// there reports whether raw finds something.
func (d *dirFS) there(path string) bool {
	fd, err := d.raw(path)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

// openRoot opens the root anew.
func (d *dirFS) openRoot(flags int, mode uint32) (int, error) {
	switch {
	case d.file && flags&unix.O_DIRECTORY != 0:
		return -1, unix.ENOTDIR
	case flags&(unix.O_CREAT|unix.O_EXCL) == unix.O_CREAT|unix.O_EXCL:
		return -1, unix.EEXIST
	case flags&unix.O_PATH != 0: // which takes no right to search it
		return unix.FcntlInt(uintptr(d.root), unix.F_DUPFD_CLOEXEC, 0)
	case d.file:
		return unix.Open(procFD(d.root), flags&^(unix.O_NOFOLLOW|unix.O_CREAT), 0)
	case flags&unix.O_CREAT != 0:
		return -1, unix.EISDIR
	}
	return unix.Openat(d.root, ".", flags, mode) // of O_TMPFILE
}

// Open implements [FS].
func (d *dirFS) Open(name string, flags int, mode uint32) (int, error) {
	return d.openat(name, flags, mode)
}

// Own implements [FS].
func (d *dirFS) Own(name string) (int, error) { return d.openat(name, unix.O_PATH, 0) }

// List implements [FS]: the kernel lists.
func (d *dirFS) List(string) ([]Dirent, bool, error) { return nil, false, nil }

// parent opens the directory of a name, and calls f with it and the last name.
func (d *dirFS) parent(name string, f func(dir int, last string) error) error {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		if name == "" {
			return unix.EBUSY // the root of the tree
		}
		if d.file {
			return unix.ENOTDIR
		}
		return f(d.root, name)
	}
	dir, err := d.openDir(name[:i])
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return f(dir, name[i+1:])
}

// Mkdir implements [FS].
func (d *dirFS) Mkdir(name string, mode uint32) error {
	return d.parent(name, func(dir int, last string) error { return unix.Mkdirat(dir, last, mode) })
}

// Mknod implements [FS].
func (d *dirFS) Mknod(name string, mode uint32, dev uint64) error {
	return d.parent(name, func(dir int, last string) error { return unix.Mknodat(dir, last, mode, int(dev)) })
}

// Symlink implements [FS].
func (d *dirFS) Symlink(target, name string) error {
	return d.parent(name, func(dir int, last string) error { return unix.Symlinkat(target, dir, last) })
}

// Remove implements [FS].
func (d *dirFS) Remove(name string, isDir bool) error {
	flags := 0
	if isDir {
		flags = unix.AT_REMOVEDIR
	}
	return d.parent(name, func(dir int, last string) error { return unix.Unlinkat(dir, last, flags) })
}

// Link implements [FS].
func (d *dirFS) Link(from, to string) error {
	return d.parent(from, func(fromDir int, fromLast string) error {
		return d.parent(to, func(toDir int, toLast string) error {
			return unix.Linkat(fromDir, fromLast, toDir, toLast, 0)
		})
	})
}

// Rename implements [FS].
func (d *dirFS) Rename(from, to string, flags uint) error {
	return d.parent(from, func(fromDir int, fromLast string) error {
		return d.parent(to, func(toDir int, toLast string) error {
			return unix.Renameat2(fromDir, fromLast, toDir, toLast, flags)
		})
	})
}
