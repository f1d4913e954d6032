// SPDX-License-Identifier: Apache-2.0

// Pins: the directories above a mount stay where they are.
//
// The kernel covers a place in one mount. Could a directory above it be moved into another one that
// is bound elsewhere, the place would be found there, and nothing covers it. But a directory is
// neither renamed nor removed (EBUSY) while it is the place of a mount in the caller's namespace,
// whatever way leads to it (fs/namespace.c:__is_local_mountpoint). So each of them is made one: a
// copy of the directory is mounted where nobody sees it, and on that the next.
//
// That is in the base, a tmpfs that the root directory is mounted on, as on the rootfs of a machine
// that has started: no path leads below a root directory, and nobody in a user namespace below can
// take away what is mounted on it. In the base NUMBER/ has the pins of the mount of that number,
// with an empty directory on top.

package nsmount

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// newBase makes the base, and puts the root directory on it. Who calls is the only process in the
// namespace.
func newBase() (base int, err error) {
	if base, err = newTmpfs("mode=700"); err != nil {
		return -1, err
	}
	if err := errors.Join(attach(base, "/"), unix.Mkdirat(base, "was", 0o700), unix.Fchdir(base)); err != nil {
		return -1, err
	}
	if err := unix.PivotRoot(".", "was"); err != nil {
		return -1, fmt.Errorf("pivot_root: %w", err)
	}
	root, err := openPath(base, "was")
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	return base, errors.Join(attachTo(root, base), unix.Fchdir(root), unix.Chroot("."), unix.Unlinkat(base, "was", unix.AT_REMOVEDIR))
}

// mountInBase puts a detached mount at a name of its own in the base.
func mountInBase(base int, name string, tree int) error {
	if err := unix.Mkdirat(base, name, 0o700); err != nil {
		return err
	}
	return attachAt(tree, base, name)
}

// A pinner pins what is above mounts.
type pinner struct {
	base int
	fds  int  // O_PATH of our /proc/self/fd
	user bool // the view is an ordinary user's, who may not move all
}

// put puts a detached mount on the file at, and pins what is above.
func (p *pinner) put(tree, at int) error {
	number, err := mountID(tree, "")
	if err != nil {
		return err
	}
	if err := p.pin(at, number); err != nil {
		return err
	}
	return attachTo(tree, at)
}

// pin pins what is above the file at, on which the mount of that number is or will be.
func (p *pinner) pin(at int, number uint64) error {
	dirs, err := p.above(at)
	defer func() {
		for _, dir := range dirs {
			unix.Close(dir)
		}
	}()
	if err != nil || len(dirs) == 0 {
		return err
	}
	name := strconv.FormatUint(number, 10)
	if err := p.drop(name); err != nil { // of another mount, whose number it was
		return err
	}
	if err := unix.Mkdirat(p.base, name, 0); err != nil {
		return err
	}
	lid, err := cloneTree(p.base, name, false)
	if err != nil {
		return err
	}
	defer unix.Close(lid)
	for _, dir := range dirs {
		copied, err := cloneTree(dir, "", false)
		if errors.Is(err, unix.EINVAL) { // mounts of the host are locked to it
			copied, err = cloneTree(dir, "", true)
		}
		if err == nil {
			err = attachAt(copied, p.base, name) // on what is there
			unix.Close(copied)
		}
		if err != nil {
			what, _ := nameOf(p.fds, dir)
			return fmt.Errorf("keep %s where it is: %w", what, err)
		}
	}
	return attachAt(lid, p.base, name)
}

// above opens the directories above a file that could be moved.
func (p *pinner) above(at int) (dirs []int, err error) {
	dir, err := openPath(at, "..")
	if err != nil { // it is none, or may not be searched
		var name string
		if name, err = nameOf(p.fds, at); err != nil {
			return nil, err
		}
		dir, err = openPath(unix.AT_FDCWD, path.Dir(name))
	}
	for err == nil {
		var up int
		if up, err = openPath(dir, ".."); err != nil {
			break
		}
		if same(dir, up) {
			unix.Close(up)
			break
		}
		if !isRoot(dir) && (!p.user || mayMoveIn(up)) {
			dirs = append(dirs, dir)
		} else {
			unix.Close(dir)
		}
		dir = up
	}
	if dir >= 0 {
		unix.Close(dir)
	}
	return dirs, err
}

// mayMoveIn reports whether the user may, now or later, rename what is in a directory. It may not
// in one of somebody else without the right to write.
func mayMoveIn(dir int) bool {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil || int(st.Uid) == os.Geteuid() {
		return true
	}
	return unix.Faccessat(dir, ".", unix.W_OK, unix.AT_EACCESS) != unix.EACCES
}

// dropGone drops the pins of mounts that have gone.
func (p *pinner) dropGone(rows []row) error {
	fd, err := openDir(p.base, ".")
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "base")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	for _, name := range names {
		if !slices.ContainsFunc(rows, func(r row) bool { return strconv.FormatUint(r.id, 10) == name }) {
			err = errors.Join(err, p.drop(name))
		}
	}
	return err
}

// drop drops the pins of that name, if there are any.
func (p *pinner) drop(name string) error {
	if err := unix.Fchdir(p.base); err != nil {
		return err
	}
	for unix.Unmount(name, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
	}
	err := unix.Rmdir(name)
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return errors.Join(err, unix.Fchdir(p.fds))
}
