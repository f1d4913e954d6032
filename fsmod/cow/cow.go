// SPDX-License-Identifier: Apache-2.0

// Opening trees.

package cow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
)

// Config says what is covered by what.
type Config struct {
	// Lower is what is covered. Its trees must not be closed before the one over them.
	Lower []Source
	// Upper is the directory UPPER, see the package's documentation. It is made.
	Upper string
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
	ids    identities
}

// tree is one file system's part of an FS.
type tree interface {
	files
	part(name string) (part, error)
	dirs() []int
	close()
}

// files are what is asked of an FS, and of each of its parts.
type files interface {
	Open(name string, flags int, mode uint32) (int, error)
	Own(name string) (int, error)
	Fill(name string) error
	Mkdir(name string, mode uint32) error
	Mknod(name string, mode uint32, dev uint64) error
	Bind(name string, bind func(dir int, last string) error) error
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
	parts, err := partsOf(conf.Lower)
	if err != nil {
		return nil, err
	}
	for i, p := range parts {
		if err = f.cover(conf, p); err != nil {
			closeParts(parts[i+1:])
			return nil, errors.Join(err, f.Close())
		}
	}
	f.name()
	return f, nil
}

// cover covers, or passes through, a part, which is the tree's or closed then.
func (f *FS) cover(conf Config, p part) error {
	switch {
	case !p.dir:
		f.file(p)
		return nil
	case p.pseudo && p.name != "": // the root was asked for
		f.pass(p, false)
		return nil
	}
	at := conf.Upper
	if p.name != "" {
		at = filepath.Join(conf.Upper, "sub", Escape(p.name))
	}
	upper, err := OpenUpper(at, fdPath(p.layers[0].Dir))
	if err != nil {
		closeParts([]part{p})
		if errors.Is(err, unix.EACCES) && p.name != "" {
			return nil
		}
		return err
	}
	f.uppers = append(f.uppers, upper)
	if err := hide(p.layers, conf.Upper); err != nil {
		closeParts([]part{p})
		return err
	}
	b, err := newBranch(upper, p.layers, conf.Volatile)
	if err != nil {
		return err
	}
	f.add(p, b)
	return b.identify(&f.ids)
}

// add adds a part, the root first. Those that are mounted in others come before them.
func (f *FS) add(p part, t tree) {
	if p.name == "" {
		f.root = t
		return
	}
	f.mounts = append([]mounted{{p.name, t}}, f.mounts...)
}

// pass adds a part of one layer that is not covered.
func (f *FS) pass(p part, readOnly bool) {
	f.add(p, &through{root: p.layers[0].Dir, readOnly: readOnly, pseudo: p.pseudo})
}

// file adds a mounted single file: a copy, or the file to be read; a device as it is.
func (f *FS) file(p part) {
	b, ok := f.root.(*branch)
	fd := p.layers[0].Dir
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && kind(&st) == unix.S_IFREG && st.Size <= MostFile && ok && !b.readOnly() {
		if tmp, err := b.makeCopy(context.Background(), fd, &st, whole); err == nil {
			if own, err := openBelow(b.work, tmp, unix.O_PATH, 0); err == nil {
				closeAll(fd)
				p.layers[0].Dir = own
				f.pass(p, false)
				return
			}
		}
	}
	f.pass(p, true)
}

// newBranch opens the upper layer of one file system. The lower ones are the branch's, or
// closed.
func newBranch(upper *Upper, lowers []layer, volatile bool) (b *branch, err error) {
	b = &branch{upper: -1, work: -1, volatile: volatile, owner: current(), trusted: capable(unix.CAP_SYS_ADMIN)}
	b.over(lowers)
	path := filepath.Join(upper.path, "upper")
	if b.upper, err = unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		b.upper, err = -1, fmt.Errorf("open %s: %w", path, err)
	}
	if err == nil {
		b.work, err = upper.copies()
	}
	if err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// NewMerge opens the union of a directory and what is at dst, of which src has the first
// word; but a directory that is mounted below dst is shown alone, also where src has one.
// Nothing in it can be changed, nor in what is mounted below dst. What is mounted below src
// is not shown, and its directory says EXDEV.
func NewMerge(src string, dst []Source) (*FS, error) {
	parts, err := partsOf(dst)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(src, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		if err = hide(parts[0].layers, src); err != nil {
			closeAll(fd)
		}
	}
	if err != nil {
		closeParts(parts)
		return nil, &os.PathError{Op: "open", Path: src, Err: err}
	}
	parts[0].layers = append([]layer{{Layer: fsmod.Layer{Dir: fd}}}, parts[0].layers...)
	f := &FS{owner: current()}
	for _, p := range parts {
		var st unix.Stat_t
		there := p.name != "" && unix.Lstat(filepath.Join(src, p.name), &st) == nil
		switch {
		case there && p.dir != (kind(&st) == unix.S_IFDIR): // it covers what is mounted there
			closeParts([]part{p})
		case len(p.layers) == 1 && p.layers[0].Fill == nil:
			f.pass(p, true)
		default:
			b := &branch{upper: -1, work: -1, owner: f.owner, trusted: capable(unix.CAP_SYS_ADMIN)}
			b.over(p.layers)
			f.add(p, b)
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
