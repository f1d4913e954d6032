// SPDX-License-Identifier: Apache-2.0

// Walk: what a path of a program of the view names.

package nsmount

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	pathMax   = 4096
	mostLinks = 40 // path_resolution(7)
	procRoot  = 1  // number of the root directory of a procfs
)

// A walker finds files as a task does, name by name and by descriptors: where it has been, no
// other thread can change any more. /proc/self is the task's.
type walker struct {
	root, cwd int // O_PATH of the task's
	pid, tid  int // in the PID namespace of the view's /proc
	fds       int // see readTable
}

// find opens what a path names, with O_PATH. With follow a symbolic link at the end is followed.
func (w *walker) find(path string, follow bool) (int, error) {
	switch {
	case path == "":
		return -1, unix.ENOENT
	case len(path) >= pathMax:
		return -1, unix.ENAMETOOLONG
	}
	at, err := dup(w.start(path))
	for links := 0; err == nil; {
		path = strings.TrimLeft(path, "/")
		if path == "" {
			return at, nil
		}
		name, rest, more := strings.Cut(path, "/")
		var next int
		var target string
		next, target, err = w.step(at, name, more || follow)
		unix.Close(at)
		at = next
		switch {
		case err != nil:
		case target == "":
			if path = rest; more {
				err = mustBeDir(at)
			}
		default:
			if path = target; more {
				path += "/" + rest
			}
			if links++; links > mostLinks { // which bounds the path too
				err = unix.ELOOP
			}
		}
	}
	unix.Close(at)
	return -1, err
}

// start is where a path begins.
func (w *walker) start(path string) int {
	if path[0] == '/' {
		return w.root
	}
	return w.cwd
}

// step opens one name in a directory. If that is a link to be followed, target is what it says,
// and next is where that is looked up.
func (w *walker) step(at int, name string, follow bool) (next int, target string, err error) {
	if name == ".." && same(at, w.root) {
		name = "."
	}
	link, err := unix.Openat(at, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil || !follow || !isLink(link) {
		return link, "", err
	}
	defer unix.Close(link)
	if target, err = w.procLink(at, name, link); err != nil {
		return -1, "", err
	}
	switch target {
	case magic:
		if !w.owns(at) {
			return -1, "", unix.EACCES
		}
		next, err = openPath(at, name)
		return next, "", err
	case "":
		b := make([]byte, pathMax)
		n, err := unix.Readlinkat(link, "", b)
		if err != nil || n == 0 {
			return -1, "", errors.Join(err, unix.ENOENT)
		}
		target = string(b[:n])
	}
	if target[0] == '/' {
		at = w.root
	}
	next, err = dup(at)
	return next, target, err
}

// magic is what procLink says of links that lead to an object and not to a name. No link's text
// has a NUL.
const magic = "\x00"

// procLink is what a link of a procfs says to the task; empty: what it says to all.
func (w *walker) procLink(at int, name string, link int) (string, error) {
	if !onProc(at) || !onProc(link) {
		return "", nil
	}
	var dir unix.Stat_t
	if err := unix.Fstat(at, &dir); err != nil {
		return "", err
	}
	switch {
	case dir.Ino == procRoot && name == "self":
		return fmt.Sprint(w.pid), nil
	case dir.Ino == procRoot && name == "thread-self":
		return fmt.Sprintf("%d/task/%d", w.pid, w.tid), nil
	case dir.Ino == procRoot:
		return "", nil
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(at, name, &how)
	if errors.Is(err, unix.ELOOP) {
		return magic, nil
	}
	if err == nil {
		unix.Close(fd)
	}
	return "", nil
}

// owns reports whether a directory of procfs with links to objects is the task's own. From those
// of others its Landlock domain keeps it (package intercept), and we are in none. It goes by the
// file, since the way there may be by a bind, which has any name; of another procfs than the
// host's none is.
func (w *walker) owns(dir int) bool {
	var there unix.Stat_t
	if unix.Fstat(dir, &there) != nil {
		return false
	}
	for _, task := range []string{fmt.Sprint(w.pid), fmt.Sprintf("%d/task/%d", w.pid, w.tid)} {
		for _, links := range []string{"", "/fd", "/ns", "/map_files"} {
			var own unix.Stat_t
			err := unix.Fstatat(w.fds, "../../"+task+links, &own, unix.AT_SYMLINK_NOFOLLOW)
			if err == nil && own.Dev == there.Dev && own.Ino == there.Ino {
				return true
			}
		}
	}
	return false
}

func onProc(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.PROC_SUPER_MAGIC
}

// mustBeDir is the error of a path that goes on after something else.
func mustBeDir(fd int) error {
	dir, err := isDir(fd)
	if err == nil && !dir {
		err = unix.ENOTDIR
	}
	return err
}

func isLink(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK
}

func dup(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }

// same tells whether two descriptors are of one directory by one mount.
func same(a, b int) bool {
	var x, y unix.Statx_t
	const mask = unix.STATX_INO | unix.STATX_MNT_ID
	return unix.Statx(a, "", unix.AT_EMPTY_PATH, mask, &x) == nil && unix.Statx(b, "", unix.AT_EMPTY_PATH, mask, &y) == nil &&
		x.Mnt_id == y.Mnt_id && x.Ino == y.Ino && x.Dev_major == y.Dev_major && x.Dev_minor == y.Dev_minor
}
