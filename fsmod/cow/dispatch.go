// SPDX-License-Identifier: Apache-2.0

// Which file system a name is on.

package cow

import (
	"strings"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
)

// at finds the part that a name is in, and its name there.
func (f *FS) at(name string) (tree, string) {
	for _, m := range f.mounts {
		if name == m.name {
			return m.tree, ""
		}
		if rest, ok := strings.CutPrefix(name, m.name+"/"); ok {
			return m.tree, rest
		}
	}
	return f.root, name
}

// on is at for a caller that must be able to get there.
func (f *FS) on(name string) (tree, string, error) {
	t, rest := f.at(name)
	if t == f.root {
		return t, rest, nil
	}
	return t, rest, f.reach(strings.TrimSuffix(strings.TrimSuffix(name, rest), "/"))
}

// reach says why the caller cannot get to a mounted file system: we that opened it could.
func (f *FS) reach(mount string) error {
	if current() == f.owner {
		return nil
	}
	t, rest, err := f.on(above(mount))
	if err != nil {
		return err
	}
	fd, err := t.Open(rest, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer closeAll(fd)
	return may(fd, unix.X_OK)
}

// onBoth finds the part that two names are in.
func (f *FS) onBoth(from, to string) (t tree, a, b string, err error) {
	t, a, err = f.on(from)
	if err != nil {
		return nil, "", "", err
	}
	other, b, err := f.on(to)
	if err == nil && other != t {
		err = unix.EXDEV
	}
	return t, a, b, err
}

// Open is as [fsmod.FS] has it.
func (f *FS) Open(name string, flags int, mode uint32) (int, error) {
	t, name, err := f.on(name)
	if err != nil {
		return -1, err
	}
	return t.Open(name, flags, mode)
}

// Own is as [fsmod.FS] has it.
func (f *FS) Own(name string) (int, error) {
	t, name, err := f.on(name)
	if err != nil {
		return -1, err
	}
	return t.Own(name)
}

// Fill is as [fsmod.Filler] has it.
func (f *FS) Fill(name string) error {
	t, name, err := f.on(name)
	if err != nil {
		return err
	}
	return t.Fill(name)
}

// Mkdir is as [fsmod.FS] has it.
func (f *FS) Mkdir(name string, mode uint32) error {
	t, name, err := f.on(name)
	if err != nil {
		return err
	}
	return t.Mkdir(name, mode)
}

// Mknod is as [fsmod.FS] has it.
func (f *FS) Mknod(name string, mode uint32, dev uint64) error {
	t, name, err := f.on(name)
	if err != nil {
		return err
	}
	return t.Mknod(name, mode, dev)
}

// Bind is as [fsmod.Binder] has it.
func (f *FS) Bind(name string, bind func(dir int, last string) error) error {
	t, name, err := f.on(name)
	if err != nil {
		return err
	}
	return t.Bind(name, bind)
}

// Symlink is as [fsmod.FS] has it.
func (f *FS) Symlink(target, name string) error {
	t, name, err := f.on(name)
	if err != nil {
		return err
	}
	return t.Symlink(target, name)
}

// Link is as [fsmod.FS] has it.
func (f *FS) Link(from, to string) error {
	t, from, to, err := f.onBoth(from, to)
	if err != nil {
		return err
	}
	return t.Link(from, to)
}

// LinkFile gives a name to a file that was opened with O_TMPFILE and has none yet, as
// linkat(2) with AT_EMPTY_PATH does. Any other file says EXDEV; it has a name that can
// be given to Link.
func (f *FS) LinkFile(fd int, to string) error {
	t, to, err := f.on(to)
	if err != nil {
		return err
	}
	return t.LinkFile(fd, to)
}

// Rename is as [fsmod.FS] has it. EXDEV is said also of directories that the lower layer has.
func (f *FS) Rename(from, to string, flags uint) error {
	t, from, to, err := f.onBoth(from, to)
	if err != nil {
		return err
	}
	return t.Rename(from, to, flags)
}

// Remove is as [fsmod.FS] has it.
func (f *FS) Remove(name string, dir bool) error {
	t, name, err := f.on(name)
	if err != nil {
		return err
	}
	return t.Remove(name, dir)
}

// List is as [fsmod.FS] has it.
func (f *FS) List(name string) ([]fsmod.Dirent, bool, error) {
	t, name, err := f.on(name)
	if err != nil {
		return nil, false, err
	}
	return t.List(name)
}
