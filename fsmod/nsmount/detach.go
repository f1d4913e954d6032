// SPDX-License-Identifier: Apache-2.0

// Detach: a mount that goes although it is in use.
//
// MNT_DETACH takes the mounts of a tree apart: who is still in one of them sees what the others
// have covered there, hidden things too. Mounts that are locked to each other the kernel leaves
// together (fs/namespace.c:disconnect_mount), and so it does with a tree whose place is removed
// from the disk by somebody to whom it is no place of a mount (__detach_mounts). Here that is
// done: the tree is moved to a directory that only we know, and a thread in another mount
// namespace, that was copied before, removes the directory.

package nsmount

import (
	"errors"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// detach removes a mount from the view, whose root at is, with all that is mounted in it.
func detach(at int, rows []row) error {
	id, err := mountID(at, "")
	if err != nil {
		return err
	}
	if len(below(rows, id, "/")) == 0 {
		return detachHere(at)
	}
	return detachWhole(at)
}

// detachHere is MNT_DETACH.
func detachHere(at int) error {
	if err := unix.Fchdir(at); err != nil {
		return err
	}
	return errors.Join(unix.Unmount(".", unix.MNT_DETACH), unix.Chdir("/"))
}

// detachWhole has a tree go as it is.
func detachWhole(at int) error {
	dir, err := isDir(at)
	if err != nil {
		return err
	}
	// In the base no path leads to it, see pin.go.
	pool, err := newTmpfs("mode=700")
	if err != nil {
		return err
	}
	defer unix.Close(pool)
	if err := standIn(pool, "gone", dir); err != nil {
		return err
	}
	elsewhere, moved := make(chan error), make(chan bool)
	go intercept.OnThread(func() { // ends with moved
		elsewhere <- unix.Unshare(unix.CLONE_NEWNS)
		if <-moved {
			how := 0
			if dir {
				how = unix.AT_REMOVEDIR
			}
			elsewhere <- unix.Unlinkat(pool, "gone", how)
		}
	})
	if err := <-elsewhere; err != nil {
		moved <- false
		return err
	}
	err = mountInBase(enterBase, "gone", pool)
	if err == nil {
		err = unix.MoveMount(at, "", pool, "gone", unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	if moved <- err == nil; err == nil {
		err = <-elsewhere
	}
	return errors.Join(err, detachHere(pool), unix.Unlinkat(enterBase, "gone", unix.AT_REMOVEDIR))
}
