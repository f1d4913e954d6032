// SPDX-License-Identifier: Apache-2.0

// The trees of this package's own kinds of mounts.

package fsmod

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// OpenBuiltin makes the tree of a bind, tmpfs, file or hide mount, or of a device that the
// host has too.
func OpenBuiltin(m Mount) (FS, error) {
	switch m.Kind {
	case Bind:
		return openDirFS(m.Source)
	case Dev:
		if m.Source == Null || m.Source == Zero {
			return openDirFS("/dev/" + m.Source)
		}
	case Tmpfs:
		return openTmpfs(m.Target)
	case Hide:
		return openHidden(m.Target)
	case File:
		info, err := os.Stat(m.Source)
		if err != nil {
			return nil, err
		}
		b, err := os.ReadFile(m.Source)
		if err != nil {
			return nil, err
		}
		return OpenContent(b, info.Mode().Perm())
	}
	return nil, fmt.Errorf("a %s mount is made elsewhere: %w", m.Kind, unix.EINVAL)
}

// Private makes a directory for what goes with the view: gone removes it. That of an umrun
// that was killed is removed by a later one.
func Private() (dir string, gone func() error, err error) {
	dir, lock, err := makePrivate()
	if err != nil {
		return "", nil, err
	}
	return dir, func() error { return errors.Join(removeAll(dir), lock.Close()) }, nil
}

// removeAll is os.RemoveAll that directories which their owner may not write do not stop:
// a program may leave such.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if e != nil && e.IsDir() && os.Chmod(path, 0o700) != nil {
			return fs.SkipDir // not ours
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// openPrivate makes a tree in a place of its own, which goes with it. create makes the root
// of the tree.
func openPrivate(create func(root string) error) (FS, error) {
	place, gone, err := Private()
	if err != nil {
		return nil, err
	}
	root := filepath.Join(place, "root")
	d, err := (*dirFS)(nil), create(root)
	if err == nil {
		d, err = openDirFS(root)
	}
	if err != nil {
		return nil, errors.Join(err, gone())
	}
	d.own = gone
	return d, nil
}

// OpenContent makes a single file.
func OpenContent(content []byte, mode fs.FileMode) (FS, error) {
	return openPrivate(func(root string) error {
		if err := os.WriteFile(root, content, 0o600); err != nil {
			return err
		}
		return os.Chmod(root, mode)
	})
}

// openTmpfs makes an empty directory, with the mode and owner of the one that it covers.
func openTmpfs(target string) (FS, error) {
	return openPrivate(func(root string) error {
		if err := os.Mkdir(root, 0o700); err != nil {
			return err
		}
		var st unix.Stat_t
		if unix.Stat(target, &st) != nil {
			return os.Chmod(root, 0o755)
		}
		if os.Geteuid() == 0 {
			// Root of a user namespace has no number for its owner, or may not give it away.
			if err := os.Lchown(root, int(st.Uid), int(st.Gid)); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
				return err
			}
		}
		return unix.Chmod(root, st.Mode&0o7777|0o700)
	})
}

// openHidden makes an empty file or directory that nobody may open.
func openHidden(target string) (FS, error) {
	info, err := os.Stat(target)
	return openPrivate(func(root string) error { return makeHidden(root, err == nil && info.IsDir()) })
}

func makeHidden(root string, dir bool) error {
	if dir {
		return os.Mkdir(root, 0)
	}
	return os.WriteFile(root, nil, 0)
}
