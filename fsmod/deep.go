// SPDX-License-Identifier: Apache-2.0

// Directories whose path is longer than PATH_MAX, and so is not told by the kernel: programs come
// there by relative calls.

package fsmod

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// deepest is the longest path that a directory is known by.
const deepest = 1 << 20

// linkOf is link of a directory of the calling thread, however long.
func linkOf(c *intercept.Call, name string) (string, error) {
	host, err := link(c, name)
	if err != unix.ENAMETOOLONG {
		return host, err
	}
	fd, err := unix.Open(taskFile(c.TID, name), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return deepName(fd)
}

// deepAbove is the path of the directory in which one of the calling thread was that is no more.
func deepAbove(c *intercept.Call, name string) (string, error) {
	fd, err := unix.Open(taskFile(c.TID, name), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Nlink > 0 {
		return "", unix.ENOENT
	}
	up, err := unix.Openat(fd, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(up)
	return nameOfFD(up)
}

// nameOfFD is the path on the host of what a descriptor is of, of a directory however long.
func nameOfFD(fd int) (string, error) {
	host, err := readlink(procFD(fd))
	if err == unix.ENAMETOOLONG {
		return deepName(fd)
	}
	return host, err
}

// deepName makes the path of a directory of the name of one above it and those of the directories
// between, for which it looks in each.
func deepName(dir int) (string, error) {
	at, err := unix.FcntlInt(uintptr(dir), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer func() { unix.Close(at) }()
	below := ""
	for len(below) < deepest {
		host, err := readlink(procFD(at))
		if err == nil {
			return host + below, nil
		}
		if err != unix.ENAMETOOLONG {
			return "", err
		}
		up, err := unix.Openat(at, "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		name, err := nameIn(up, at)
		unix.Close(at)
		at = up
		if err != nil {
			return "", err
		}
		below = "/" + name + below
	}
	return "", unix.ENAMETOOLONG
}

// nameIn is the name of a directory in the one above it. ENOENT: it was removed.
func nameIn(up, dir int) (string, error) {
	var want, st unix.Stat_t
	if err := unix.Fstat(dir, &want); err != nil {
		return "", err
	}
	fd, err := unix.Openat(up, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), strconv.Itoa(fd))
	defer f.Close()
	for {
		entries, err := f.ReadDir(256)
		for _, e := range entries {
			if e.IsDir() && unix.Fstatat(up, e.Name(), &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT) == nil && inodeOf(&st) == inodeOf(&want) {
				return e.Name(), nil
			}
		}
		if err != nil {
			return "", unix.ENOENT
		}
	}
}
