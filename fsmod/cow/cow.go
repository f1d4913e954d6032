// SPDX-License-Identifier: Apache-2.0

// Opening trees.

package cow

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
)

// Config says what is covered by what.
type Config struct {
	// Lower is the directory that is covered.
	Lower string
	// Upper is the directory UPPER, see the package's documentation. It is made.
	Upper string
	// Fill, if it is not nil, makes what is in Lower when it is looked at: everything on the
	// way to name, relative to Lower, the entries of a directory that it is, and with content
	// that of a file. It is called before Lower is read, and ends with EINTR when ctx is done.
	Fill func(ctx context.Context, name string, content bool) error
	// Volatile says that Upper need not survive the machine: copies are not synced.
	Volatile bool
}

// An FS is a tree with copy on write, or the union of two: an [fsmod.FS]. While names are
// made the process has the caller's umask, or 0.
type FS struct {
	root   tree
	mounts []mounted // what is mounted below, longest names first
	uppers []*Upper
	owner  creds
	names  []named // set once
}

// tree is one file system's part of an FS.
type tree interface {
	files
	close()
}

// files are what is asked of an FS, and of each of its parts.
type files interface {
	Open(name string, flags int, mode uint32) (int, error)
	Own(name string) (int, error)
	Fill(name string) error
	Mkdir(name string, mode uint32) error
	Mknod(name string, mode uint32, dev uint64) error
	Symlink(target, name string) error
	Link(from, to string) error
	LinkFile(fd int, to string) error
	Rename(from, to string, flags uint) error
	Remove(name string, dir bool) error
	List(name string) ([]fsmod.Dirent, bool, error)
}

// A mounted is a file system below the root of an FS.
type mounted struct {
	name string // of where it is, relative to the root
	tree tree
}

// New opens a tree with copy on write. What is mounted below Lower is covered too, file
// system by file system, each with a part of Upper. File systems of the kernel's own
// state, as proc, are passed through as they are; of a single file there is a copy that
// goes with the tree, or if it is large, the file to be read. A file system that is mounted
// later is not shown: its directory says EXDEV.
func New(conf Config) (*FS, error) {
	f := &FS{owner: current()}
	lower, err := filepath.EvalSymlinks(conf.Lower)
	if err == nil && conf.Fill != nil {
		err = conf.Fill(context.Background(), "", false)
	}
	if err == nil {
		conf.Lower = lower // as the kernel names what is mounted below it
		err = f.open(conf)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	f.name()
	return f, nil
}

func (f *FS) open(conf Config) error {
	upper, err := OpenUpper(conf.Upper, conf.Lower)
	if err != nil {
		return err
	}
	f.uppers = append(f.uppers, upper)
	root, err := newBranch(upper, conf, conf.Upper)
	if err != nil {
		return err
	}
	f.root = root
	below, err := Submounts(conf.Lower)
	if err != nil {
		return err
	}
	for _, m := range below {
		if err := f.mount(conf, m); err != nil {
			return err
		}
	}
	return nil
}

// mount covers, or passes through, what is mounted below the root.
func (f *FS) mount(conf Config, m Submount) error {
	switch devices := m.Type == "devtmpfs" && !capable(unix.CAP_MKNOD); {
	case !m.Dir:
		f.file(m)
		return nil
	case m.Pseudo, devices: // no copy of a device could be made
		f.pass(m, m.Path, false)
		return nil
	}
	sub, err := OpenUpper(filepath.Join(conf.Upper, "sub", Escape(m.Name)), m.Path)
	if err != nil {
		if errors.Is(err, unix.EACCES) {
			return nil
		}
		return err
	}
	f.uppers = append(f.uppers, sub)
	b, err := newBranch(sub, Config{Lower: m.Path, Volatile: conf.Volatile}, conf.Upper)
	if err != nil {
		return err
	}
	f.add(m, b)
	return nil
}

// add adds a part. Those that are mounted in others come before them.
func (f *FS) add(m Submount, t tree) {
	f.mounts = append([]mounted{{m.Name, t}}, f.mounts...)
}

// pass adds a part that is not covered. What cannot be opened is not for us to see, now
// as before.
func (f *FS) pass(m Submount, path string, readOnly bool) {
	if t, err := newThrough(path, readOnly); err == nil {
		f.add(m, t)
	}
}

// file adds a mounted single file: a copy, or the file to be read; a device as it is.
func (f *FS) file(m Submount) {
	b, ok := f.root.(*branch)
	fd, err := unix.Open(m.Path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer closeAll(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && kind(&st) == unix.S_IFREG && st.Size <= MostFile && ok && !b.readOnly() {
		if tmp, err := b.makeCopy(context.Background(), fd, &st, whole); err == nil {
			f.pass(m, fdPath(b.work)+"/"+tmp, false)
			return
		}
	}
	f.pass(m, m.Path, true)
}

// newBranch opens the layers of one file system. hide is a path that is not to be seen in
// lower.
func newBranch(upper *Upper, conf Config, hide string) (*branch, error) {
	b := &branch{upper: -1, lower: -1, work: -1, fill: conf.Fill, volatile: conf.Volatile, owner: current(), trusted: capable(unix.CAP_SYS_ADMIN)}
	err := b.openLayers(conf.Lower, filepath.Join(upper.path, "upper"))
	if err == nil {
		b.work, err = upper.copies()
	}
	if err != nil {
		b.close()
		return nil, err
	}
	b.hidden = within(conf.Lower, hide)
	return b, nil
}

// openLayers opens the roots of both layers.
func (b *branch) openLayers(lower, upper string) error {
	for _, l := range []struct {
		fd   *int
		path string
	}{{&b.lower, lower}, {&b.upper, upper}} {
		fd, err := unix.Open(l.path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", l.path, err)
		}
		*l.fd = fd
	}
	return nil
}

// within is the name that path has below dir on the same file system, "" if it is not there.
func within(dir, path string) string {
	dir, err1 := filepath.EvalSymlinks(dir)
	path, err2 := filepath.EvalSymlinks(path)
	if err1 != nil || err2 != nil {
		return ""
	}
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(dir, "/")+"/")
	if !ok {
		return ""
	}
	return rest
}

// NewMerge opens the union of two directories, of which src has the first word. Nothing
// in it can be changed, nor in what is mounted below dst. What is mounted below src is not
// shown, and its directory says EXDEV. fill is for dst what it is in [Config] for Lower.
func NewMerge(src, dst string, fill func(ctx context.Context, name string, content bool) error) (*FS, error) {
	b := &branch{upper: -1, lower: -1, work: -1, fill: fill, owner: current(), trusted: capable(unix.CAP_SYS_ADMIN)}
	if err := b.openLayers(dst, src); err != nil {
		b.close()
		return nil, err
	}
	b.hidden = within(dst, src)
	f := &FS{root: b, owner: b.owner}
	below, err := Submounts(dst)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	for _, m := range below {
		// A name of src's covers it.
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(src, m.Name), &st) != nil {
			f.pass(m, m.Path, true)
		}
	}
	f.name()
	return f, nil
}

// Close ends the tree and lets go of UPPER. Files that were opened stay open. Twice is fine.
func (f *FS) Close() error {
	if f.root != nil {
		f.root.close()
		f.root = nil
	}
	for _, m := range f.mounts {
		m.tree.close()
	}
	f.mounts = nil
	var err error
	for _, u := range f.uppers {
		err = errors.Join(err, u.Close())
	}
	f.uppers = nil
	return err
}
