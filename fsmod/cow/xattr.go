// SPDX-License-Identifier: Apache-2.0

// Extended attributes: those of the format, and those that are copied.

package cow

import (
	"strings"

	"golang.org/x/sys/unix"
)

// Attributes of overlayfs (Documentation/filesystems/overlayfs.rst).
const (
	userPrefix    = "user.overlay."
	trustedPrefix = "trusted.overlay."
	opaqueName    = "opaque"
	metacopyName  = "metacopy"
)

// Reserved implements [fsmod.Reserver].
func (f *FS) Reserved(attr string) bool {
	return strings.HasPrefix(attr, userPrefix) || strings.HasPrefix(attr, trustedPrefix)
}

// isOpaque reports whether a directory hides those of its name in layers below its own. It is
// for the tree to know, also if the caller may not read the directory, or nobody: then the
// mode of one that is ours is another for a moment, which b.peek keeps to one at a time.
func (b *branch) isOpaque(fd int, ours bool) (is bool, err error) {
	err = b.owner.do(func() error {
		is, err = has(fd, userPrefix+opaqueName)
		if err == unix.EACCES && !ours {
			err = nil // as the kernel takes it
		}
		if err == unix.EACCES {
			b.peek.Lock()
			defer b.peek.Unlock()
			var st unix.Stat_t
			if err := unix.Fstat(fd, &st); err != nil {
				return err
			}
			err = writable(fd, &st, func() (err error) {
				is, err = has(fd, userPrefix+opaqueName)
				return err
			})
		}
		if err == nil && !is && b.trusted {
			is, err = has(fd, trustedPrefix+opaqueName)
		}
		return err
	})
	return is, err
}

func has(fd int, attr string) (bool, error) {
	var v [2]byte
	n, err := unix.Getxattr(fdPath(fd), attr, v[:])
	switch err {
	case unix.ENODATA, unix.EOPNOTSUPP, unix.ERANGE:
		return false, nil
	}
	return err == nil && n == 1 && v[0] == 'y', err
}

// setOpaque makes a directory of the upper layer, or one that is to be renamed there, opaque.
func setOpaque(fd int) error { return unix.Setxattr(fdPath(fd), userPrefix+opaqueName, []byte("y"), 0) }

// copyXattrs gives to all extended attributes of from, but those of the format. What
// only the privileged may set is left out where it cannot be set; access control lists
// never are, since the mode would then allow too much.
func copyXattrs(to, from int) error {
	names, err := xattrNames(from)
	if err != nil {
		if err == unix.EOPNOTSUPP {
			return nil
		}
		return err
	}
	var value []byte
	for _, name := range names {
		if strings.HasPrefix(name, userPrefix) || strings.HasPrefix(name, trustedPrefix) {
			continue
		}
		if value, err = xattr(from, name, value); err != nil {
			if err == unix.ENODATA || err == unix.EOPNOTSUPP || err == unix.EPERM {
				continue // gone meanwhile, or not for us
			}
			return err
		}
		err = unix.Setxattr(fdPath(to), name, value, 0)
		switch {
		case err == nil:
		case strings.HasPrefix(name, "system.posix_acl_"):
			return err
		case err == unix.EOPNOTSUPP, err == unix.EPERM:
		default:
			return err
		}
	}
	return nil
}

// xattrNames lists the attributes of a file.
func xattrNames(fd int) ([]string, error) {
	buf := make([]byte, 1024)
	for {
		n, err := unix.Listxattr(fdPath(fd), buf)
		if err == unix.ERANGE && len(buf) < 1<<16 {
			buf = make([]byte, 1<<16) // XATTR_LIST_MAX
			continue
		}
		if err != nil {
			return nil, err
		}
		return strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 }), nil
	}
}

// xattr reads an attribute, into buf if it is large enough.
func xattr(fd int, name string, buf []byte) ([]byte, error) {
	buf = buf[:cap(buf)]
	if len(buf) == 0 {
		buf = make([]byte, 256)
	}
	for {
		n, err := unix.Getxattr(fdPath(fd), name, buf)
		if err == unix.ERANGE && len(buf) < 1<<16 {
			buf = make([]byte, 1<<16) // XATTR_SIZE_MAX
			continue
		}
		if err != nil {
			return buf, err
		}
		return buf[:n], nil
	}
}
