// SPDX-License-Identifier: Apache-2.0

// umount2(2) of a program, in the child.

package nsmount

import (
	"errors"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// umount removes the mount id, that at is on.
func (c *caller) umount(at int, id uint64) error {
	in := below(c.rows, id, "/")
	switch {
	case !isRoot(at):
		return unix.EINVAL
	case c.own(id) == nil:
		return unix.EPERM
	case c.Flags&unix.MNT_DETACH == 0:
		return c.umountUnused(at, id)
	case !c.others(in):
		return detachHere(at)
	case slices.ContainsFunc(in, func(r row) bool { return !slices.ContainsFunc(c.made, func(m Made) bool { return m.ID == r.id }) }):
		return unix.EPERM // others have mounted in it
	}
	return detachWhole(at)
}

// umountUnused is umount2(2) without MNT_DETACH.
func (c *caller) umountUnused(at int, id uint64) error {
	unix.Close(at) // or it is in use
	dir, err := c.placeOf(id)
	if err != nil {
		return err
	}
	if err := unix.Fchdir(dir); err != nil {
		return err
	}
	return unix.Unmount(path.Base(find(c.rows, id).point), int(c.Flags)&unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW)
}

// topmost goes to what is mounted on the file at, as umount2(2) does.
func (c *caller) topmost(at int, id uint64) (int, uint64, error) {
	point, err := nameOf(c.fds, at)
	if err != nil {
		return -1, 0, err
	}
	top := id
	for i := 0; i >= 0; {
		if i = slices.IndexFunc(c.rows, func(r row) bool { return r.parent == top && r.id != top && r.point == point }); i >= 0 {
			top = c.rows[i].id
		}
	}
	if top == id {
		return at, id, nil
	}
	dir, err := c.placeOf(top)
	if err != nil {
		return -1, 0, err
	}
	at, err = unix.Openat(dir, path.Base(point), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	return at, top, err
}

// placeOf opens the directory that a mount is in, if that is the topmost one there. Its name
// there does not change while it is mounted.
func (c *caller) placeOf(id uint64) (dir int, err error) {
	point := find(c.rows, id).point
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	if dir, err = unix.Openat2(unix.AT_FDCWD, path.Dir(point), &how); err != nil {
		return -1, err
	}
	if now, err := mountID(dir, path.Base(point)); err != nil || now != id {
		return -1, errors.Join(err, unix.EBUSY) // it is covered, or was moved meanwhile
	}
	return dir, nil
}
