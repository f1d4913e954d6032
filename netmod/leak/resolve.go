// SPDX-License-Identifier: Apache-2.0

// Paths of another task, resolved as that task would.

package leak

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// An inode is the identity of a file.
type inode struct{ dev, ino uint64 }

// identify returns the identity and st_mode of an open file.
func identify(fd int) (inode, uint32, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return inode{}, 0, err
	}
	return inode{uint64(st.Dev), st.Ino}, st.Mode, nil
}

// same reports whether two open files are one.
func same(a, b *os.File) bool {
	x, _, err1 := identify(int(a.Fd()))
	y, _, err2 := identify(int(b.Fd()))
	return err1 == nil && err2 == nil && x == y
}

// openIn opens a path with O_PATH as if root were the root directory: absolute
// symbolic links and dot-dot do not leave it. Magic links (/proc/PID/fd/N) are
// refused with ELOOP: followed here, they would be the supervisor's.
func openIn(root *os.File, p string) (*os.File, error) {
	return openat2(root, p, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
}

func openat2(dir *os.File, p string, resolve uint64) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolve}
	var (
		fd  int
		err error
	)
	// EAGAIN: a rename somewhere made dot-dot uncertain; openat2(2) says retry.
	for range 16 {
		fd, err = unix.Openat2(int(dir.Fd()), p, &how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", p, err)
	}
	return os.NewFile(uintptr(fd), p), nil
}

// resolve opens, with O_PATH, what p means to the task whose root is root.
func resolve(task Dirs, root *os.File, p string) (*os.File, error) {
	base, rest := "root", p
	for base == "root" && strings.HasPrefix(p, "/") {
		what, below, ok := ownProc(p)
		if !ok {
			break
		}
		base, rest, p = what, below, below
	}
	if !strings.HasPrefix(p, "/") && base == "root" {
		base = "cwd"
	}
	if base == "root" {
		f, err := openIn(root, p)
		if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EXDEV) {
			// Through /proc/PID of another task; that is the same file for us.
			// The path then leaves the root, as it does for the program.
			return openat2(root, strings.TrimLeft(p, "/"), 0)
		}
		return f, err
	}
	dir, err := task.OpenDir(base)
	if err != nil {
		return nil, err
	}
	if rest == "" {
		return dir, nil
	}
	defer dir.Close()
	// RESOLVE_IN_ROOT would make dir the root. So the path of dir below the root
	// is put in front, if that is where it is.
	if at, ok := nameIn(root, dir); ok {
		if again, err := openIn(root, at); err == nil {
			it := same(again, dir)
			again.Close()
			if it {
				return openIn(root, at+"/"+rest)
			}
		}
	}
	// A directory outside the root, or removed, or under another mount.
	return openat2(dir, strings.TrimLeft(rest, "/"), unix.RESOLVE_NO_MAGICLINKS)
}

// ownProc takes paths through a task's own entry in /proc apart, by which
// programs connect to sockets whose path is too long for a sockaddr_un:
// "/proc/self/fd/5/socket" is fd/5 and socket.
func ownProc(p string) (what, rest string, ok bool) {
	words := strings.FieldsFunc(p, func(c rune) bool { return c == '/' })
	if len(words) < 3 || words[0] != "proc" || words[1] != "self" && words[1] != "thread-self" {
		return "", "", false
	}
	n := 3
	switch words[2] {
	case "cwd":
	case "root":
		// "root" is where absolute paths begin anyway.
		return "root", "/" + strings.Join(words[3:], "/"), true
	case "fd":
		if n = 4; len(words) < n {
			return "", "", false
		}
	default:
		return "", "", false
	}
	return strings.Join(words[2:n], "/"), strings.Join(words[n:], "/"), true
}

// nameIn returns the absolute path of f below root. !ok: it is not below it, or
// its name is gone.
func nameIn(root, f *os.File) (string, bool) {
	top, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", root.Fd()))
	if err != nil {
		return "", false
	}
	full, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil || !strings.HasPrefix(full, "/") {
		return "", false
	}
	if top == "/" {
		return path.Clean(full), true
	}
	below, ok := strings.CutPrefix(full, top)
	if !ok || below != "" && below[0] != '/' {
		return "", false
	}
	return path.Clean("/" + below), true
}

// holds reports whether a directory, open with O_PATH, has an entry that is the
// inode. Only so many entries are looked at; a daemon's directory has a handful.
func holds(dir *os.File, want inode) bool {
	const most = 64
	d, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return false
	}
	defer d.Close()
	names, _ := d.Readdirnames(most)
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil &&
			(inode{uint64(st.Dev), st.Ino}) == want {
			return true
		}
	}
	return false
}
