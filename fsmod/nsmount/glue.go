// SPDX-License-Identifier: Apache-2.0

// Glue: places for mounts that are not there on the host.

package nsmount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// place makes sure that there is something to mount on at path, a directory or else.
func (b *builder) place(path string, dir bool) error {
	st, err := os.Stat(path)
	switch {
	case err == nil && dir && !st.IsDir():
		return fmt.Errorf("%s: %w", path, unix.ENOTDIR)
	case err == nil && !dir && st.IsDir():
		return fmt.Errorf("%s: %w", path, unix.EISDIR)
	case err == nil:
		return nil
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	if target, err := os.Readlink(path); err == nil {
		return fmt.Errorf("%s: it is a symbolic link to %s, which is not there: %w", path, target, unix.ENOENT)
	}
	at, rest, err := above(path)
	if err != nil {
		return err
	}
	id, err := mountID(unix.AT_FDCWD, at)
	if err != nil {
		return err
	}
	if !slices.Contains(b.ours, id) {
		if err := b.cover(at); err != nil {
			return fmt.Errorf("glue over %s: %w", at, err)
		}
	}
	return makePlace(at, rest, dir)
}

// makePlace makes the directories of rest, and its last name.
func makePlace(at, rest string, dir bool) error {
	parents := filepath.Join(at, rest)
	if !dir {
		parents = filepath.Dir(parents)
	}
	if err := os.MkdirAll(parents, 0o755); err != nil || dir {
		return err
	}
	f, err := os.OpenFile(filepath.Join(at, rest), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// cover lays glue over a directory: the same names, each bound from what is covered.
func (b *builder) cover(path string) error {
	was, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(was)
	glue, err := b.newGlue(was, true)
	if err != nil {
		return err
	}
	if path != "/" {
		if err := b.put(glue, path); err != nil {
			return err
		}
		return b.bindEntries(was, glue)
	}
	// On a new root one can mount only once it is somewhere.
	if err := attach(glue, "/"); err != nil {
		return err
	}
	if err := b.bindEntries(was, glue); err != nil {
		return err
	}
	return b.pivot(glue)
}

// newGlue makes the tmpfs of a directory's glue, which is read-only in the end if it is
// to be sealed.
func (b *builder) newGlue(was int, sealed bool) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(was, &st); err != nil {
		return -1, err
	}
	fd, err := newTmpfs("mode=755")
	if err != nil {
		return -1, err
	}
	like(fd, &st)
	if sealed {
		b.glue = append(b.glue, fd)
	}
	return fd, b.own(fd)
}

// bindEntries gives the directory glue the entries of was. glue is mounted somewhere.
func (b *builder) bindEntries(was, glue int) error {
	entries, err := os.ReadDir(byFD(was))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := b.bindEntry(was, glue, e); err != nil {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
	}
	return nil
}

func (b *builder) bindEntry(was, glue int, e os.DirEntry) error {
	name := e.Name()
	if e.Type() == os.ModeSymlink {
		return copyLink(was, glue, name)
	}
	tree, err := cloneTree(was, name, true)
	if errors.Is(err, unix.ENOENT) {
		return nil // gone meanwhile
	}
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	if err := standIn(glue, name, e.IsDir()); err != nil {
		return err
	}
	return attachAt(tree, glue, name)
}

// standIn makes what is then mounted on.
func standIn(dir int, name string, isDir bool) error {
	if isDir {
		return unix.Mkdirat(dir, name, 0o755)
	}
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// copyLink makes the same symbolic link.
func copyLink(from, to int, name string) error {
	target, err := os.Readlink(byFD(from) + "/" + name)
	if err != nil {
		return err
	}
	return unix.Symlinkat(target, to, name)
}
