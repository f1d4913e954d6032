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

// handleOpenat2 leaves calls with RESOLVE_* to the kernel: they are about the tree of
// the host.
func (m *Module) handleOpenat2(c *intercept.Call) intercept.Action {
	var how [24]byte // struct open_how of linux/openat2.h: flags, mode, resolve
	if c.Args[3] < uint64(len(how)) || c.ReadMem(intercept.Addr(c.Args[2]), how[:]) != nil {
		return intercept.Next()
	}
	flags := binary.NativeEndian.Uint64(how[:])
	if flags&unix.O_ACCMODE == unix.O_WRONLY || binary.NativeEndian.Uint64(how[16:]) != 0 {
		return intercept.Next()
	}
	return m.open(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), flags)
}

// open answers an open for reading. What is none of the module's, or cannot be read,
// is for others to judge: the kernel has the errno.
func (m *Module) open(c *intercept.Call, dir int, at intercept.Addr, flags uint64) intercept.Action {
	path, err := c.ReadString(at, pathMax)
	if err != nil || path == "" || !m.has(path) {
		return intercept.Next()
	}
	tree, rest, ok := m.resolve(c, dir, path)
	if !ok {
		return intercept.Next()
	}
	node, err := m.trees[tree].Open(rest)
	switch {
	case errors.Is(err, ErrHost):
		return intercept.Next()
	case err != nil && flags&unix.O_CREAT != 0 && errors.Is(err, unix.ENOENT):
		return intercept.Fail(unix.EACCES) // as from procfs, nobody makes files there
	case err != nil:
		return intercept.Fail(intercept.Errno(err))
	}
	c.About("generated")
	fd, err := m.deliver(tree, rest, node, flags)
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	return intercept.InstallFD(fd, flags&unix.O_CLOEXEC != 0)
}
