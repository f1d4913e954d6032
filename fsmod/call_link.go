// SPDX-License-Identifier: Apache-2.0

// The calls that give a file one more name.

package fsmod

import (
	"cmp"
	"errors"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

func (m *Module) doLink(c *intercept.Call) intercept.Action {
	return m.link(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), unix.AT_FDCWD, intercept.Addr(c.Args[1]), 0)
}

func (m *Module) doLinkat(c *intercept.Call) intercept.Action {
	flags := int(uint32(c.Args[4]))
	if flags&^(unix.AT_SYMLINK_FOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return intercept.Fail(unix.EINVAL)
	}
	return m.link(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), int(int32(c.Args[2])), intercept.Addr(c.Args[3]), flags)
}

func (m *Module) link(c *intercept.Call, fromDir int, from intercept.Addr, toDir int, to intercept.Addr, flags int) intercept.Action {
	how := flags & unix.AT_EMPTY_PATH
	if flags&unix.AT_SYMLINK_FOLLOW == 0 {
		how |= unix.AT_SYMLINK_NOFOLLOW
	}
	o, err := m.find(c, fromDir, from, how)
	if err != nil {
		return fail(err)
	}
	defer o.close()
	err = m.onName(c, toDir, to, func(n *nameAt) error {
		switch err := n.refusesNew(m.table, false); {
		case err != nil:
			return err
		case o.view == "" && o.typ() != unix.S_IFDIR:
			return m.linkFD(&o, n)
		case o.m != n.m || o.typ() == unix.S_IFDIR:
			if _, err := n.there(); !errors.Is(err, unix.ENOENT) {
				return cmp.Or(err, error(unix.EEXIST))
			}
			from := o.m
			if from == nil {
				if from, err = m.table.cameThrough(&o); err != nil {
					return err
				}
			}
			if cmp.Or(from, m.table.host) != n.m {
				return unix.EXDEV
			}
			return unix.EPERM
		}
		if err := m.prepare(c, o.m, o.name, UseLink, 0); err != nil {
			return err
		}
		return n.m.fs.Link(o.name, n.name)
	})
	return m.orLater(c, err, func(m *Module) intercept.Action { return m.link(c, fromDir, from, toDir, to, flags) })
}

// linkFD gives a name to a file that has none, as one of O_TMPFILE.
func (m *Module) linkFD(o *object, n *nameAt) error {
	if _, err := n.there(); !errors.Is(err, unix.ENOENT) {
		return cmp.Or(err, error(unix.EEXIST))
	}
	mt, err := m.table.cameThrough(o)
	if err != nil {
		return err
	}
	if f, ok := n.m.fs.(FileLinker); ok && mt == n.m {
		return f.LinkFile(o.fd, n.name)
	}
	if n.m.dir == nil {
		return unix.EXDEV
	}
	if mt != n.m && (mt != nil || n.m != m.table.host) {
		return unix.EXDEV
	}
	return n.m.dir.parent(n.name, func(dir int, last string) error {
		return unix.Linkat(unix.AT_FDCWD, procFD(o.fd), dir, last, unix.AT_SYMLINK_FOLLOW)
	})
}
