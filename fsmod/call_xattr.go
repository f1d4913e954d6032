// SPDX-License-Identifier: Apache-2.0

// Extended attributes, xattr(7).

package fsmod

import (
	"bytes"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// xattrMax is XATTR_SIZE_MAX and XATTR_LIST_MAX of linux/limits.h, nameMax XATTR_NAME_MAX.
const (
	xattrMax     = 65536
	xattrNameMax = 255
)

// xattrName reads the name of an attribute.
func xattrName(c *intercept.Call, at intercept.Addr) (string, error) {
	name, err := c.ReadString(at, xattrNameMax+1)
	if err == unix.ENAMETOOLONG || err == nil && name == "" {
		err = unix.ERANGE
	}
	return name, err
}

func (m *Module) doSetxattr(c *intercept.Call) intercept.Action { return m.setxattr(c, 0) }
func (m *Module) doLsetxattr(c *intercept.Call) intercept.Action {
	return m.setxattr(c, unix.AT_SYMLINK_NOFOLLOW)
}

func (m *Module) setxattr(c *intercept.Call, flags int) intercept.Action {
	f, err := m.xattrSetter(c)
	if err != nil {
		return fail(err)
	}
	return m.change(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), flags, f)
}

func (m *Module) doFsetxattr(c *intercept.Call) intercept.Action {
	f, err := m.xattrSetter(c)
	if err != nil {
		return fail(err)
	}
	return m.changeFD(c, int(int32(c.Args[0])), f)
}

// xattrSetter reads the arguments but the first of setxattr(2).
func (m *Module) xattrSetter(c *intercept.Call) (func(*object, int) error, error) {
	flags := uint32(c.Args[4])
	if flags&^(unix.XATTR_CREATE|unix.XATTR_REPLACE) != 0 {
		return nil, unix.EINVAL
	}
	name, err := xattrName(c, intercept.Addr(c.Args[1]))
	if err != nil {
		return nil, err
	}
	if c.Args[3] > xattrMax {
		return nil, unix.E2BIG
	}
	value := make([]byte, c.Args[3])
	if err := c.ReadMem(intercept.Addr(c.Args[2]), value); err != nil {
		return nil, err
	}
	return func(o *object, fd int) error {
		if o.reserves(name) {
			return unix.EOPNOTSUPP
		}
		return unix.Setxattr(procFD(fd), name, value, int(flags))
	}, nil
}

// reserves reports whether an attribute is its tree's own, as overlayfs has some.
func (o *object) reserves(name string) bool {
	if o.m == nil {
		return false
	}
	r, ok := o.m.fs.(Reserver)
	return ok && r.Reserved(name)
}

func (m *Module) doGetxattr(c *intercept.Call) intercept.Action { return m.getxattr(c, 0) }
func (m *Module) doLgetxattr(c *intercept.Call) intercept.Action {
	return m.getxattr(c, unix.AT_SYMLINK_NOFOLLOW)
}

func (m *Module) getxattr(c *intercept.Call, flags int) intercept.Action {
	name, err := xattrName(c, intercept.Addr(c.Args[1]))
	if err != nil {
		return fail(err)
	}
	return m.xattrValue(c, flags, func(o *object, buf []byte) (int, error) {
		if o.reserves(name) {
			return 0, unix.EOPNOTSUPP
		}
		return unix.Getxattr(procFD(o.fd), name, buf)
	}, 2)
}

func (m *Module) doListxattr(c *intercept.Call) intercept.Action {
	return m.xattrValue(c, 0, xattrList, 1)
}

func (m *Module) doLlistxattr(c *intercept.Call) intercept.Action {
	return m.xattrValue(c, unix.AT_SYMLINK_NOFOLLOW, xattrList, 1)
}

// xattrList lists attributes but those of the tree.
func xattrList(o *object, buf []byte) (int, error) {
	if o.m == nil {
		return unix.Listxattr(procFD(o.fd), buf)
	}
	if _, ok := o.m.fs.(Reserver); !ok {
		return unix.Listxattr(procFD(o.fd), buf)
	}
	all := make([]byte, xattrMax)
	n, err := unix.Listxattr(procFD(o.fd), all)
	if err != nil {
		return 0, err
	}
	var list []byte
	for name := range bytes.SplitAfterSeq(all[:n], []byte{0}) {
		if !o.reserves(string(bytes.TrimSuffix(name, []byte{0}))) {
			list = append(list, name...)
		}
	}
	if len(buf) > 0 && len(buf) < len(list) {
		return 0, unix.ERANGE
	}
	copy(buf, list)
	return len(list), nil
}

// xattrValue answers with what get has to say, to the buffer and size in the arguments
// from arg on.
func (m *Module) xattrValue(c *intercept.Call, flags int, get func(*object, []byte) (int, error), arg int) intercept.Action {
	o, err := m.find(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), flags)
	if err != nil {
		return fail(err)
	}
	defer o.close()
	buf := make([]byte, min(c.Args[arg+1], xattrMax))
	n, err := get(&o, buf)
	if err != nil {
		return fail(err)
	}
	if len(buf) > 0 {
		if err := c.WriteMem(intercept.Addr(c.Args[arg]), buf[:n]); err != nil {
			return fail(err)
		}
	}
	return intercept.Return(int64(n))
}

func (m *Module) doRemovexattr(c *intercept.Call) intercept.Action { return m.removexattr(c, 0) }
func (m *Module) doLremovexattr(c *intercept.Call) intercept.Action {
	return m.removexattr(c, unix.AT_SYMLINK_NOFOLLOW)
}

func (m *Module) removexattr(c *intercept.Call, flags int) intercept.Action {
	name, err := xattrName(c, intercept.Addr(c.Args[1]))
	if err != nil {
		return fail(err)
	}
	return m.change(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), flags, func(o *object, fd int) error {
		if o.reserves(name) {
			return unix.EOPNOTSUPP
		}
		return unix.Removexattr(procFD(fd), name)
	})
}

func (m *Module) doFremovexattr(c *intercept.Call) intercept.Action {
	name, err := xattrName(c, intercept.Addr(c.Args[1]))
	if err != nil {
		return fail(err)
	}
	return m.changeFD(c, int(int32(c.Args[0])), func(o *object, fd int) error {
		if o.reserves(name) {
			return unix.EOPNOTSUPP
		}
		return unix.Removexattr(procFD(fd), name)
	})
}
