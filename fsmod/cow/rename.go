// SPDX-License-Identifier: Apache-2.0

// Renaming.

package cow

import (
	"context"
	"strings"

	"golang.org/x/sys/unix"
)

// Rename is as [fsmod.FS] has it. A directory that the lower layer has says EXDEV.
func (b *branch) Rename(from, to string, flags uint) error {
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 || flags == unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE {
		return unix.EINVAL
	}
	return b.change(func() error {
		if from == "" || to == "" {
			return unix.EBUSY
		}
		f, err := b.walk(from, true)
		if err != nil {
			return err
		}
		defer f.close()
		t, err := b.walk(to, true)
		if err != nil {
			return err
		}
		defer t.close()
		if b.readOnly() {
			return unix.EROFS
		}
		r := renaming{b: b, from: from, to: to, f: f, t: t, exchange: flags&unix.RENAME_EXCHANGE != 0}
		if done, err := r.check(flags); done || err != nil {
			return err
		}
		if err := r.needs(); err != nil {
			return err
		}
		if err := b.owner.do(r.do); err != nil {
			return err
		}
		b.left(&t.node)
		return nil
	})
}

// A renaming is one under way.
type renaming struct {
	b        *branch
	from, to string
	f, t     *place
	exchange bool
}

// check says what speaks against it, in the order in which the kernel does
// (fs/namei.c:do_renameat2 and vfs_rename, fs/overlayfs/dir.c:ovl_rename). done: there
// is nothing to do.
func (r *renaming) check(flags uint) (done bool, err error) {
	f, t := r.f, r.t
	switch {
	case !f.exists():
		return false, unix.ENOENT
	case flags&unix.RENAME_NOREPLACE != 0 && t.exists():
		return false, unix.EEXIST
	case r.exchange && !t.exists():
		return false, unix.ENOENT
	case strings.HasPrefix(r.to, r.from+"/"):
		return false, unix.EINVAL
	case strings.HasPrefix(r.from, r.to+"/"):
		if r.exchange {
			return false, unix.EINVAL
		}
		return false, unix.ENOTEMPTY
	case r.from == r.to:
		return true, nil
	case f.up >= 0 && t.up >= 0 && same(&f.st, &t.st):
		return true, nil // rename(2): two names of one file
	}
	if err := r.b.mayRemove(f); err != nil {
		return false, err
	}
	if t.exists() {
		err = r.b.mayRemove(t)
	} else {
		err = r.b.mayChange(&t.dir)
	}
	fdir, tdir := f.isDir(), t.isDir()
	switch {
	case err != nil:
		return false, err
	case r.exchange || !t.exists():
	case fdir && !tdir:
		return false, unix.ENOTDIR
	case !fdir && tdir:
		return false, unix.EISDIR
	}
	if above(r.from) != above(r.to) { // its ".." changes
		if err := mayMove(f); err != nil {
			return false, err
		}
		if r.exchange {
			if err := mayMove(t); err != nil {
				return false, err
			}
		}
	}
	if fdir && f.low >= 0 || r.exchange && tdir && t.low >= 0 {
		return false, unix.EXDEV
	}
	if !r.exchange && tdir {
		empty, err := r.b.empty(r.to, &t.node)
		if err == nil && !empty {
			err = unix.ENOTEMPTY
		}
		return false, err
	}
	return false, nil
}

func mayMove(p *place) error {
	if !p.isDir() {
		return nil
	}
	return mayLower(p.top(), &p.st, unix.W_OK)
}

// needs names what must be in the upper layer first.
func (r *renaming) needs() error {
	switch {
	case r.f.up < 0:
		return copyFirst(r.from)
	case r.t.dir.up < 0:
		return copyFirst(above(r.to))
	case r.exchange && r.t.up < 0:
		return copyFirst(r.to)
	}
	return nil
}

// do renames.
func (r *renaming) do() error {
	b, f, t := r.b, r.f, r.t
	fromBelow, err := b.below(f, r.from)
	if err != nil {
		return err
	}
	toBelow, err := b.below(t, r.to)
	if err != nil {
		return err
	}
	// A directory must not show what the lower layer has at its new place.
	if f.isDir() && !f.opaque && toBelow {
		if err := setOpaque(f.up); err != nil {
			return err
		}
	}
	if r.exchange {
		if t.isDir() && !t.opaque && fromBelow {
			if err := setOpaque(t.up); err != nil {
				return err
			}
		}
		return unix.Renameat2(f.dir.up, f.name, t.dir.up, t.name, unix.RENAME_EXCHANGE)
	}
	if t.isDir() && t.up >= 0 {
		if err := r.clear(); err != nil {
			return err
		}
	}
	switch {
	case !fromBelow && !t.white, !fromBelow && !f.isDir():
		return unix.Renameat(f.dir.up, f.name, t.dir.up, t.name)
	case !fromBelow: // a directory to the place of a whiteout
		if err := unix.Renameat2(f.dir.up, f.name, t.dir.up, t.name, unix.RENAME_EXCHANGE); err != nil {
			return err
		}
		// At the old place a whiteout of nothing is left, which is harmless.
		return unix.Unlinkat(f.dir.up, f.name, 0)
	case t.white: // which is just what the old place needs
		return unix.Renameat2(f.dir.up, f.name, t.dir.up, t.name, unix.RENAME_EXCHANGE)
	}
	return unix.Renameat2(f.dir.up, f.name, t.dir.up, t.name, unix.RENAME_WHITEOUT)
}

// clear makes the directory that is renamed over, and shows no names, empty: an opaque one
// without whiteouts changes places with it. The view shows no difference.
func (r *renaming) clear() error {
	b, t := r.b, r.t
	if t.low < 0 {
		if entries, err := readLayer(t.up, true); err == nil && len(entries) == 0 {
			return nil
		}
	}
	tmp, err := b.makeCopy(context.Background(), t.up, &t.st, without)
	if err != nil {
		return err
	}
	fd, err := openBelow(b.work, tmp, unix.O_PATH, 0)
	if err == nil {
		err = setOpaque(fd)
		closeAll(fd)
	}
	if err == nil {
		err = b.swap(tmp, &t.dir, t.name, &t.node)
	}
	b.discard(tmp)
	return err
}
