// SPDX-License-Identifier: Apache-2.0

// Device and inode numbers of trees that show others than the kernel has.

package fsmod

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// identifyCalls are those that look at a descriptor alone, which trap if there is or may be a
// tree that shows other numbers.
var identifyCalls = []pathCall{
	{native: unix.SYS_FSTAT, i386: i386Fstat64, do: (*Module).doFstat},
}

// identifiers are the trees among some rows that show other numbers.
func identifiers(rows []*mount) (all []Identifier) {
	for _, m := range rows {
		if s, ok := m.fs.(Identifier); ok && m.Kind == Cow {
			all = append(all, s)
		}
	}
	return all
}

// identify makes of the kernel's numbers those that are shown.
func (m *Module) identify(st *unix.Stat_t) bool {
	for _, s := range m.table.identifiers {
		if dev, ino, ok := s.Shown(st.Dev, st.Ino); ok {
			st.Dev, st.Ino = dev, ino
			return true
		}
	}
	return false
}

// identifyX is identify for statx(2).
func (m *Module) identifyX(stx *unix.Statx_t) {
	st := unix.Stat_t{Dev: unix.Mkdev(stx.Dev_major, stx.Dev_minor), Ino: stx.Ino}
	if m.identify(&st) {
		stx.Dev_major, stx.Dev_minor, stx.Ino = unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino
	}
}

// doFstat leaves all files to the kernel that have its numbers.
func (m *Module) doFstat(c *intercept.Call) intercept.Action {
	if len(m.table.identifiers) == 0 {
		return intercept.Next()
	}
	fd, err := c.DupFD(int(int32(c.Args[0])))
	if err != nil {
		return intercept.Next() // EBADF
	}
	defer fd.Close()
	l := looks.Get().(*look)
	defer looks.Put(l)
	if fd.IsSocket() || unix.Fstat(fd.N, &l.st) != nil || !m.identify(&l.st) {
		return intercept.Next()
	}
	to := intercept.Addr(c.Args[1])
	if c.Arch == intercept.I386 {
		b := stat64(&l.st)
		return result(c.WriteMem(to, b[:]))
	}
	return result(c.WriteMem(to, unsafe.Slice((*byte)(unsafe.Pointer(&l.st)), unsafe.Sizeof(l.st))))
}
