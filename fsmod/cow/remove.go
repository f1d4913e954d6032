// SPDX-License-Identifier: Apache-2.0

// Removing names.

package cow

import (
	"golang.org/x/sys/unix"
)

// Remove is as [fsmod.FS] has it.
func (b *branch) Remove(name string, dir bool) error {
	if name == "" {
		if dir {
			return unix.EBUSY
		}
		return unix.EISDIR
	}
	return b.change(func() error {
		p, err := b.walk(name, true)
		if err != nil {
			return err
		}
		defer p.close()
		if b.readOnly() {
			return unix.EROFS
		}
		if !p.exists() {
			return unix.ENOENT
		}
		if err := b.removable(name, p, dir); err != nil {
			return err
		}
		if p.dir.up < 0 {
			return copyFirst(above(name))
		}
		if err := b.owner.do(func() error { return b.remove(name, p) }); err != nil {
			return err
		}
		b.left(&p.node)
		return nil
	})
}

// removable says why p cannot be removed.
func (b *branch) removable(name string, p *place, dir bool) error {
	if err := b.mayRemove(p); err != nil {
		return err
	}
	if dir != p.isDir() {
		if dir {
			return unix.ENOTDIR
		}
		return unix.EISDIR
	}
	if !dir {
		return nil
	}
	empty, err := b.empty(name, &p.node)
	if mode := p.st.Mode & 0o7777; err == unix.EACCES && p.up >= 0 && unix.Chmod(fdPath(p.up), mode|0o500) == nil {
		// Its owner need not be able to read it.
		empty, err = b.empty(name, &p.node)
		_ = unix.Chmod(fdPath(p.up), mode)
	}
	switch {
	case err != nil:
		return err
	case !empty:
		return unix.ENOTEMPTY
	}
	return nil
}

// remove takes what is at p away, in one step.
func (b *branch) remove(name string, p *place) error {
	below, err := b.below(p, name)
	if err != nil {
		return err
	}
	switch {
	case !below && !p.isDir():
		return unix.Unlinkat(p.dir.up, p.name, 0)
	case !below:
		if err := unix.Unlinkat(p.dir.up, p.name, unix.AT_REMOVEDIR); err != unix.ENOTEMPTY {
			return err
		}
		// Whiteouts of another lower layer.
		tmp := b.temp()
		if err := unix.Renameat2(p.dir.up, p.name, b.work, tmp, unix.RENAME_NOREPLACE); err != nil {
			return err
		}
		b.discard(tmp)
		return nil
	case p.up < 0:
		return makeWhiteout(p.dir.up, p.name)
	}
	tmp := b.temp()
	if err := makeWhiteout(b.work, tmp); err != nil {
		return err
	}
	// A directory may have whiteouts in it, and is only then to be emptied.
	err = b.swap(tmp, &p.dir, p.name, &p.node)
	b.discard(tmp)
	return err
}

// swap lets what is at tmp change places with n.
func (b *branch) swap(tmp string, dir *node, name string, n *node) error {
	err := unix.Renameat2(b.work, tmp, dir.up, name, unix.RENAME_EXCHANGE)
	if err == unix.EACCES && n.isDir() && unix.Chmod(fdPath(n.up), n.st.Mode&0o7777|0o700) == nil {
		// It has no more use for its mode, and moves only if it can be written.
		err = unix.Renameat2(b.work, tmp, dir.up, name, unix.RENAME_EXCHANGE)
	}
	return err
}

// makeWhiteout makes one; whoever may make a name in the directory may do so since v5.8.
func makeWhiteout(dir int, name string) error { return unix.Mknodat(dir, name, unix.S_IFCHR, 0) }
