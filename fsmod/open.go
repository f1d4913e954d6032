// SPDX-License-Identifier: Apache-2.0

// The open calls.

package fsmod

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// ErrHost says that the host's file is the right one.
var ErrHost = errors.New("the file is the host's")

// pathMax is PATH_MAX of linux/limits.h, with the NUL.
const pathMax = 4096

func (m *Module) handleOpen(c *intercept.Call) intercept.Action {
	return m.open(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), uint64(uint32(c.Args[1])))
}

func (m *Module) handleOpenat(c *intercept.Call) intercept.Action {
	return m.open(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), uint64(uint32(c.Args[2])))
}

// handleCreat is for views with devices or sealed directories.
func (m *Module) handleCreat(c *intercept.Call) intercept.Action {
	return m.open(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC)
}

// handleOpenat2 leaves calls with RESOLVE_* to the kernel: they are about the tree of
// the host.
func (m *Module) handleOpenat2(c *intercept.Call) intercept.Action {
	var how [24]byte // struct open_how of linux/openat2.h: flags, mode, resolve
	if c.Args[3] < uint64(len(how)) || c.ReadMem(intercept.Addr(c.Args[2]), how[:]) != nil {
		return intercept.Next()
	}
	flags := binary.NativeEndian.Uint64(how[:])
	if binary.NativeEndian.Uint64(how[16:]) != 0 && len(m.seals) > 0 {
		if path, err := c.ReadString(intercept.Addr(c.Args[1]), pathMax); err == nil && m.sealed(c, int(int32(c.Args[0])), path, flags) {
			return intercept.Fail(unix.EROFS)
		}
	}
	if flags&unix.O_ACCMODE == unix.O_WRONLY && !m.writing() || binary.NativeEndian.Uint64(how[16:]) != 0 {
		return intercept.Next()
	}
	return m.open(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), flags)
}

// open answers an open for reading. What is none of the module's, or cannot be read,
// is for others to judge: the kernel has the errno.
func (m *Module) open(c *intercept.Call, dir int, at intercept.Addr, flags uint64) intercept.Action {
	path, err := c.ReadString(at, pathMax)
	if err != nil || path == "" {
		return intercept.Next()
	}
	if d := m.device(c, dir, path); d != nil {
		if a, ok := openDevice(d, flags); ok {
			return a
		}
	}
	if m.sealed(c, dir, path, flags) {
		return intercept.Fail(unix.EROFS)
	}
	if flags&unix.O_ACCMODE == unix.O_WRONLY || !m.has(path) {
		return intercept.Next()
	}
	if a, ok := m.generated(c, dir, path, flags); ok {
		return a
	}
	return intercept.Next()
}

// generated answers an open for reading if the path leads into a tree.
func (m *Module) generated(c *intercept.Call, dir int, path string, flags uint64) (intercept.Action, bool) {
	tree, rest, ok := m.resolve(c, dir, path)
	if !ok {
		return intercept.Action{}, false
	}
	return m.openNode(c, tree, rest, flags)
}

// generatedAt is generated for a path without symbolic links.
func (m *Module) generatedAt(c *intercept.Call, path string, flags uint64) (intercept.Action, bool) {
	if !m.has(path) {
		return intercept.Action{}, false
	}
	tree, rest, ok := m.treeOf(canonical(path))
	if !ok {
		return intercept.Action{}, false
	}
	return m.openNode(c, tree, rest, flags)
}

// openNode opens a node of a tree, unless it is the host's.
func (m *Module) openNode(c *intercept.Call, tree, rest string, flags uint64) (intercept.Action, bool) {
	node, err := m.trees[tree].Open(rest)
	switch {
	case errors.Is(err, ErrHost):
		return intercept.Action{}, false
	case err != nil && flags&unix.O_CREAT != 0 && errors.Is(err, unix.ENOENT):
		return intercept.Fail(unix.EACCES), true // as from procfs, nobody makes files there
	case err != nil:
		return intercept.Fail(intercept.Errno(err)), true
	}
	c.About("generated")
	fd, err := m.deliver(tree, rest, node, flags)
	if err != nil {
		return intercept.Fail(intercept.Errno(err)), true
	}
	return intercept.InstallFD(fd, flags&unix.O_CLOEXEC != 0), true
}
