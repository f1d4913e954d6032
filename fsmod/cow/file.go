// SPDX-License-Identifier: Apache-2.0

// System calls on descriptors.

package cow

import (
	"errors"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// beneath is how names are opened in a layer: never out of it, through no symbolic link
// and into no other file system.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// pathMax is PATH_MAX of linux/limits.h, with the NUL.
const pathMax = 4096

// openBelow opens a name relative to a directory of a layer. The last name is not
// followed; with O_PATH a symbolic link is opened itself.
func openBelow(dir int, name string, flags int, mode uint32) (int, error) {
	for len(name) >= pathMax { // which is too long for one call
		i := strings.LastIndexByte(name[:pathMax-1], '/')
		if i < 0 {
			return -1, unix.ENAMETOOLONG
		}
		fd, err := openDir(dir, name[:i], new(unix.Stat_t))
		if err != nil {
			return -1, err
		}
		defer unix.Close(fd)
		dir, name = fd, name[i+1:]
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_NOFOLLOW | unix.O_CLOEXEC), Mode: uint64(mode), Resolve: beneath}
	for {
		fd, err := unix.Openat2(dir, name, &how)
		if err != unix.EINTR && err != unix.EAGAIN { // EAGAIN: a rename somewhere on the way
			return fd, err
		}
	}
}

// openDir opens, with O_PATH, a directory on the way to something.
func openDir(dir int, name string, st *unix.Stat_t) (int, error) {
	fd, err := openBelow(dir, name, unix.O_PATH, 0)
	if err != nil {
		return -1, err
	}
	err = unix.Fstat(fd, st)
	switch {
	case err != nil:
	case kind(st) == unix.S_IFLNK:
		err = unix.ELOOP
	case kind(st) != unix.S_IFDIR:
		err = unix.ENOTDIR
	}
	if err != nil {
		closeAll(fd)
		return -1, err
	}
	return fd, nil
}

// fdPath is the name of what a descriptor is of, O_PATH too, for calls that take only names.
func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// reopen opens what fd is of with other flags.
func reopen(fd, flags int) (int, error) {
	return reopenMode(fd, flags&^(unix.O_CREAT|unix.O_EXCL), 0)
}

func reopenMode(fd, flags int, mode uint32) (int, error) {
	for {
		n, err := unix.Open(fdPath(fd), flags&^unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// dup duplicates fd.
func dup(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }

// may reports with EACCES and the like whether the calling thread has access to what fd
// is of, by its file system credentials: access(2), W_OK and the like.
func may(fd int, mode uint32) error {
	empty := [1]byte{}
	_, _, e := unix.Syscall6(unix.SYS_FACCESSAT2, uintptr(fd), uintptr(unsafe.Pointer(&empty[0])),
		uintptr(mode), unix.AT_EMPTY_PATH|unix.AT_EACCESS, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// mayLower is may for a file of the lower layer, which is allowed to be on a file system
// that is mounted read-only.
func mayLower(fd int, st *unix.Stat_t, mode uint32) error {
	err := may(fd, mode)
	if err != unix.EROFS {
		return err
	}
	if mode &^= unix.W_OK; mode != 0 {
		if err := may(fd, mode); err != nil {
			return err
		}
	}
	return modeAllows(st, unix.W_OK)
}

// modeAllows judges by the mode bits alone, as a file system without access control
// lists would.
func modeAllows(st *unix.Stat_t, want uint32) error {
	me := current()
	bits := st.Mode
	switch {
	case capable(unix.CAP_DAC_OVERRIDE):
		return nil
	case int(st.Uid) == me.uid:
		bits >>= 6
	case int(st.Gid) == me.gid || member(int(st.Gid)):
		bits >>= 3
	}
	if bits&want != want {
		return unix.EACCES
	}
	return nil
}

// kind is the file type in a mode.
func kind(st *unix.Stat_t) uint32 { return st.Mode & unix.S_IFMT }

// whiteout reports whether a file stands for a name that is gone.
func whiteout(st *unix.Stat_t) bool { return kind(st) == unix.S_IFCHR && st.Rdev == 0 }

// same reports whether two are the same file.
func same(a, b *unix.Stat_t) bool { return a.Dev == b.Dev && a.Ino == b.Ino }

// closeAll closes descriptors that are there.
func closeAll(fds ...int) {
	for _, fd := range fds {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// errno is the system's error in err, which is nothing else.
func errno(err error) unix.Errno {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EIO
}
