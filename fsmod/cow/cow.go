// SPDX-License-Identifier: Apache-2.0

// Opening trees.

package cow

import (
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
	// Volatile says that Upper need not survive the machine: copies are not synced.
	Volatile bool
}

// An FS is a tree with copy on write, or the union of two: an [fsmod.FS]. The process
// that serves it has the umask 0.
type FS struct {
	root   tree
	mounts []mounted // what is mounted below, longest names first
	uppers []*Upper
	owner  creds
}

// tree is one file system's part of an FS.
type tree interface {
	Open(name string, flags int, mode uint32) (int, error)
	Own(name string) (int, error)
	Mkdir(name string, mode uint32) error
	Mknod(name string, mode uint32, dev uint64) error
	Symlink(target, name string) error
	Link(from, to string) error
	LinkFile(fd int, to string) error
	Rename(from, to string, flags uint) error
	Remove(name string, dir bool) error
	List(name string) ([]fsmod.Dirent, bool, error)
	close()
}

// A mounted is a file system below the root of an FS.
type mounted struct {
	name string // of where it is, relative to the root
	tree tree
}

// New opens a tree with copy on write. What is mounted below Lower is covered too, file
// system by file system, each with a part of Upper; what is no storage of files, as proc
// and devices, and single files are passed through. A file system that is mounted later is
// not shown: its directory says EXDEV.
func New(conf Config) (*FS, error) {
	f := &FS{owner: current()}
	if err := f.open(conf); err != nil {
		return nil, errors.Join(err, f.Close())
	}
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
	if m.Through {
		t, err := newThrough(m.Path)
		if err != nil {
			return nil // not for us to see, now as before
		}
		f.mounts = append(f.mounts, mounted{m.Name, t})
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
	f.mounts = append(f.mounts, mounted{m.Name, b})
	return nil
}

// newBranch opens the layers of one file system. hide is a path that is not to be seen in
// lower.
func newBranch(upper *Upper, conf Config, hide string) (*branch, error) {
	b := &branch{upper: -1, lower: -1, work: -1, volatile: conf.Volatile, owner: current(), trusted: capable(unix.CAP_SYS_ADMIN)}
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
// in it can be changed. What is mounted below either is not shown, and its directory says
// EXDEV.
func NewMerge(src, dst string) (*FS, error) {
	b := &branch{upper: -1, lower: -1, work: -1, owner: current(), trusted: capable(unix.CAP_SYS_ADMIN)}
	if err := b.openLayers(dst, src); err != nil {
		b.close()
		return nil, err
	}
	b.hidden = within(dst, src)
	return &FS{root: b, owner: b.owner}, nil
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
