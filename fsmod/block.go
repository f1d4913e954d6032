// SPDX-License-Identifier: Apache-2.0

// Ramdisks are block devices for who looks at them: by a descriptor in every view that has
// one, by the path where path calls trap.

package fsmod

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// diskMajor is the number of no driver, so that nobody finds another disk by it (Linux,
// Documentation/admin-guide/devices.txt: for local and experimental use).
const diskMajor = 60

// disks are the ramdisks, by their minor numbers.
func (m *Module) disks() (all []*Disk) {
	for _, at := range slices.Sorted(maps.Keys(m.devices)) {
		if d, ok := m.devices[at].(*Disk); ok {
			all = append(all, d)
		}
	}
	return all
}

// asBlock makes what the kernel says of a ramdisk what it says of a block device.
func (m *Module) asBlock(st *unix.Stat_t) bool {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false
	}
	id := inodeOf(st)
	minor := slices.IndexFunc(m.blocks, func(d *Disk) bool { return d.id == id })
	if minor < 0 {
		return false
	}
	st.Mode = st.Mode&^unix.S_IFMT | unix.S_IFBLK
	st.Rdev, st.Size, st.Blocks = unix.Mkdev(diskMajor, uint32(minor)), 0, 0
	return true
}

// asBlockX is asBlock for statx(2), with what stat(2) says of the same file.
func asBlockX(stx *unix.Statx_t, st *unix.Stat_t) {
	stx.Mode = uint16(st.Mode)
	stx.Rdev_major, stx.Rdev_minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	stx.Size, stx.Blocks = 0, 0
}

// mayBeDisk reports whether a path has the last name of a ramdisk's.
func (m *Module) mayBeDisk(path []byte) bool {
	if len(m.blocks) == 0 {
		return false
	}
	last := path[bytes.LastIndexByte(path, '/')+1:]
	for at := range m.devices {
		if string(last) == at[strings.LastIndexByte(at, '/')+1:] {
			return true
		}
	}
	return false
}

// findDisk is the object of a path that names a ramdisk.
func (m *Module) findDisk(c *intercept.Call, dir int, path string) (o object, ok bool) {
	if len(m.blocks) == 0 {
		return o, false
	}
	d, ok := m.device(c, dir, path).(*Disk)
	if !ok {
		return o, false
	}
	o.fd, ok = -1, false
	if fd, err := unix.Open(d.Path(), unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
		o.fd = fd
		ok = unix.Fstat(fd, &o.st) == nil
	}
	if !ok {
		o.close()
	}
	return o, ok
}

// diskRules are those of looks by a descriptor. Where path calls trap, those that may also be
// by a path are answered by them.
func (m *Module) diskRules() (rules intercept.Rules) {
	if len(m.blocks) == 0 {
		return nil
	}
	add := func(arch intercept.Arch, nr int, f intercept.HandlerFunc, args ...intercept.Arg) {
		rules = append(rules, intercept.Rule{Arch: arch, NR: nr, Args: args, Do: intercept.Notify, Handler: f})
	}
	fstat := func(c *intercept.Call) intercept.Action { return m.fstatDisk(c, intercept.Addr(c.Args[1])) }
	add(intercept.Native, unix.SYS_FSTAT, fstat)
	add(intercept.I386, i386Fstat64, fstat)
	if m.table != nil {
		return rules
	}
	fstatat := func(c *intercept.Call) intercept.Action {
		if !noPath(c) {
			return intercept.Next()
		}
		return m.fstatDisk(c, intercept.Addr(c.Args[2]))
	}
	add(intercept.Native, sysFstatat, fstatat, intercept.ArgMasked(3, unix.AT_EMPTY_PATH, unix.AT_EMPTY_PATH))
	add(intercept.I386, i386Fstatat64, fstatat, intercept.ArgMasked(3, unix.AT_EMPTY_PATH, unix.AT_EMPTY_PATH))
	add(intercept.Native, unix.SYS_STATX, m.statxDisk, intercept.ArgMasked(2, unix.AT_EMPTY_PATH, unix.AT_EMPTY_PATH))
	add(intercept.I386, i386Statx, m.statxDisk, intercept.ArgMasked(2, unix.AT_EMPTY_PATH, unix.AT_EMPTY_PATH))
	return rules
}

// Numbers of the i386 entry (arch/x86/entry/syscalls/syscall_32.tbl).
const (
	i386Fstat64   = 197
	i386Fstatat64 = 300
	i386Statx     = 383
)

// disk tells whether the descriptor that a call has is of a ramdisk, and what stat(2) says of
// it then. All else is for the kernel.
func (m *Module) disk(c *intercept.Call) (st unix.Stat_t, ok bool) {
	fd, err := c.DupFD(int(int32(c.Args[0])))
	if err != nil {
		return st, false
	}
	defer fd.Close()
	ok = !fd.IsSocket() && unix.Fstat(fd.N, &st) == nil && m.asBlock(&st)
	return st, ok
}

func (m *Module) fstatDisk(c *intercept.Call, to intercept.Addr) intercept.Action {
	st, ok := m.disk(c)
	if !ok {
		return intercept.Next()
	}
	if c.Arch == intercept.I386 {
		b := stat64(&st)
		return result(c.WriteMem(to, b[:]))
	}
	return result(c.WriteMem(to, unsafe.Slice((*byte)(unsafe.Pointer(&st)), unsafe.Sizeof(st))))
}

// noPath reports whether a call with AT_EMPTY_PATH is about its descriptor.
func noPath(c *intercept.Call) bool {
	if c.Args[1] == 0 {
		return true
	}
	path, err := c.ReadString(intercept.Addr(c.Args[1]), pathMax)
	return err == nil && path == ""
}

func (m *Module) statxDisk(c *intercept.Call) intercept.Action {
	if !noPath(c) {
		return intercept.Next()
	}
	st, ok := m.disk(c)
	if !ok {
		return intercept.Next()
	}
	fd, err := c.DupFD(int(int32(c.Args[0])))
	if err != nil {
		return intercept.Next()
	}
	defer fd.Close()
	var stx unix.Statx_t
	if err := unix.Statx(fd.N, "", int(uint32(c.Args[2])), int(uint32(c.Args[3])), &stx); err != nil {
		return fail(err)
	}
	asBlockX(&stx, &st)
	return result(c.WriteMem(intercept.Addr(c.Args[4]), unsafe.Slice((*byte)(unsafe.Pointer(&stx)), unsafe.Sizeof(stx))))
}
