// SPDX-License-Identifier: Apache-2.0

// Package detached makes mounts of new file systems that are attached nowhere yet
// (fsopen(2), fsconfig(2), fsmount(2)). They are in the mount namespace of no one until
// move_mount(2) puts them there, and go with their descriptor else. There is no state.
package detached

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount makes one and returns its descriptor. An option is key=value, or a flag alone;
// attributes are MOUNT_ATTR_*. Errors have what the kernel has to say of them.
func Mount(kind string, options []string, attributes int) (int, error) {
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
