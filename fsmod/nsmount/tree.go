// SPDX-License-Identifier: Apache-2.0

// Trees: mounts that are made first and put somewhere then (fsopen(2), open_tree(2),
// move_mount(2), mount_setattr(2)).

package nsmount

import (
	"strconv"

	"golang.org/x/sys/unix"

	"umrun/fsmod/detached"
)

// openPath opens a file for its place alone.
func openPath(dir int, name string) (int, error) {
	return unix.Openat(dir, name, unix.O_PATH|unix.O_CLOEXEC, 0)
}

// cloneTree makes a copy of what is mounted at name, and with whole of all that is
// mounted below.
func cloneTree(dir int, name string, whole bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if whole {
		flags |= unix.AT_RECURSIVE
	}
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return unix.OpenTree(dir, name, flags)
}

// attach puts a detached mount at a path.
func attach(tree int, path string) error { return attachAt(tree, unix.AT_FDCWD, path) }

func attachAt(tree, dir int, name string) error {
	flags := unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_SYMLINKS
	return unix.MoveMount(tree, "", dir, name, flags)
}

// attachTo puts a detached mount on what a descriptor refers to.
func attachTo(tree, at int) error {
	return unix.MoveMount(tree, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// readOnly makes a mount read-only, and with whole all that is mounted in it. Then it is
// private, too: what the host mounts there later would come in as the host has it, to be
// written to.
func readOnly(tree int, whole bool) error {
	flags, attr := uint(unix.AT_EMPTY_PATH), unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if whole {
		flags |= unix.AT_RECURSIVE
		attr.Propagation = unix.MS_PRIVATE
	}
	return unix.MountSetattr(tree, "", flags, &attr)
}

// private keeps what the host mounts later in a tree, of which no copy would be made when
// it is written to, out of it.
func private(tree int) error {
	return unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_PRIVATE})
}

// newTmpfs makes a file system in memory.
func newTmpfs(options ...string) (int, error) { return detached.Mount("tmpfs", options, 0) }

// mountID returns the number of the mount that a file is on.
func mountID(dir int, name string) (uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(dir, name, unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
	return st.Mnt_id, err
}

// nameOf is the path of an open file, from the root of the namespace. fds is of our /proc/self/fd.
func nameOf(fds, fd int) (string, error) {
	b := make([]byte, 2*pathMax)
	n, err := unix.Readlinkat(fds, strconv.Itoa(fd), b)
	return string(b[:max(n, 0)]), err
}

// isRoot reports whether a file is the root of the mount that it is on.
func isRoot(fd int) bool {
	var st unix.Statx_t
	return unix.Statx(fd, "", unix.AT_EMPTY_PATH, 0, &st) == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}
