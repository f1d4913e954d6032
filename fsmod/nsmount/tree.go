// SPDX-License-Identifier: Apache-2.0

// Trees: mounts that are made first and put somewhere then (fsopen(2), open_tree(2),
// move_mount(2), mount_setattr(2)).

package nsmount

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
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

// newTmpfs makes a file system in memory.
func newTmpfs(options ...string) (int, error) { return newMount("tmpfs", options, 0) }

// newMount makes a detached mount of a new file system. An option without a value is
// a flag.
func newMount(kind string, options []string, attributes int) (int, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", kind, err)
	}
	defer unix.Close(fs)
	for _, o := range options {
		if key, value, ok := strings.Cut(o, "="); ok {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return -1, fmt.Errorf("%s: %s: %w", kind, o, errors.Join(err, complaint(fs)))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("%s: %w", kind, errors.Join(err, complaint(fs)))
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attributes)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", kind, errors.Join(err, complaint(fs)))
	}
	return fd, nil
}

// complaint is what the kernel has to say of a file system that it did not make.
func complaint(fs int) error {
	var all []error
	for {
		b := make([]byte, 1024) // messages are short; a longer one is left out
		n, err := unix.Read(fs, b)
		if err != nil || n == 0 {
			return errors.Join(all...)
		}
		if text, bad := strings.CutPrefix(strings.TrimSpace(string(b[:n])), "e "); bad {
			all = append(all, errors.New(text))
		}
	}
}

// mountID returns the number of the mount that a file is on.
func mountID(dir int, name string) (uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(dir, name, unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
	return st.Mnt_id, err
}
