// SPDX-License-Identifier: Apache-2.0

// The calls that change what a file is like: mode, owner, times, size, flags.

package fsmod

import (
	"encoding/binary"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// change resolves a path, or a descriptor, and calls f with a descriptor of the file whose
// attributes may be changed.
func (m *Module) change(c *intercept.Call, dir int, path intercept.Addr, flags int, f func(o *object, fd int) error) intercept.Action {
	o, err := m.find(c, dir, path, flags)
	if err != nil {
		return fail(err)
	}
	defer o.close()
	return m.orLater(c, m.changeObject(c, &o, f), func(m *Module) intercept.Action { return m.change(c, dir, path, flags, f) })
}

// changeFD is change of a descriptor.
func (m *Module) changeFD(c *intercept.Call, fd int, f func(o *object, fd int) error) intercept.Action {
	o, err := m.findFD(c, fd)
	if err != nil {
		return fail(err)
	}
	defer o.close()
	if flags, err := unix.FcntlInt(uintptr(o.fd), unix.F_GETFL, 0); err != nil || flags&unix.O_PATH != 0 {
		return intercept.Fail(unix.EBADF)
	}
	return m.orLater(c, m.changeObject(c, &o, f), func(m *Module) intercept.Action { return m.changeFD(c, fd, f) })
}

func (m *Module) changeObject(c *intercept.Call, o *object, f func(o *object, fd int) error) error {
	if o.m == nil {
		var err error
		if o.m, err = m.table.cameThrough(o); err != nil {
			return err
		}
	}
	switch {
	case o.readOnly():
		return unix.EROFS
	case o.m == nil, o.m.dir != nil:
		return f(o, o.fd)
	}
	name := o.name
	if o.view == "" && name == "" { // a descriptor
		if o.m.namer == nil {
			return unix.EOPNOTSUPP
		}
		host, err := readlink(procFD(o.fd))
		if err != nil {
			return err
		}
		if o.st.Nlink == 0 && strings.HasSuffix(host, deleted) {
			return f(o, o.fd) // no name leads to it
		}
		var ok bool
		if name, ok = o.m.namer.Name(host); !ok {
			return unix.EIO
		}
	}
	if l := m.prepare(c, o.m, name, UseOwn, 0); l != nil {
		return l
	}
	fd, err := o.m.fs.Own(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(o, fd)
}

func (m *Module) doChmod(c *intercept.Call) intercept.Action {
	return m.chmod(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), uint32(c.Args[1]), 0)
}

func (m *Module) doFchmodat(c *intercept.Call) intercept.Action {
	return m.chmod(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), uint32(c.Args[2]), 0)
}

func (m *Module) doFchmodat2(c *intercept.Call) intercept.Action {
	flags := int(uint32(c.Args[3]))
	if flags&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return intercept.Fail(unix.EINVAL)
	}
	return m.chmod(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), uint32(c.Args[2]), flags)
}

func (m *Module) chmod(c *intercept.Call, dir int, path intercept.Addr, mode uint32, flags int) intercept.Action {
	return m.change(c, dir, path, flags, func(o *object, fd int) error {
		if o.typ() == unix.S_IFLNK {
			return unix.EOPNOTSUPP
		}
		return unix.Fchmodat(unix.AT_FDCWD, procFD(fd), mode&0o7777, 0)
	})
}

func (m *Module) doFchmod(c *intercept.Call) intercept.Action {
	mode := uint32(c.Args[1]) & 0o7777
	return m.changeFD(c, int(int32(c.Args[0])), func(o *object, fd int) error {
		if fd == o.fd {
			return unix.Fchmod(fd, mode)
		}
		return unix.Fchmodat(unix.AT_FDCWD, procFD(fd), mode, 0)
	})
}

func (m *Module) doChown(c *intercept.Call) intercept.Action {
	return m.chown(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), id(c.Args[1]), id(c.Args[2]), 0)
}

func (m *Module) doLchown(c *intercept.Call) intercept.Action {
	return m.chown(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), id(c.Args[1]), id(c.Args[2]), unix.AT_SYMLINK_NOFOLLOW)
}

// doChown16 and doLchown16 are those of the i386 entry with the users of Linux 2.0.
func (m *Module) doChown16(c *intercept.Call) intercept.Action {
	return m.chown(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), id16(c.Args[1]), id16(c.Args[2]), 0)
}

func (m *Module) doLchown16(c *intercept.Call) intercept.Action {
	return m.chown(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), id16(c.Args[1]), id16(c.Args[2]), unix.AT_SYMLINK_NOFOLLOW)
}

func (m *Module) doFchownat(c *intercept.Call) intercept.Action {
	flags := int(uint32(c.Args[4]))
	if flags&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return intercept.Fail(unix.EINVAL)
	}
	return m.chown(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), id(c.Args[2]), id(c.Args[3]), flags)
}

// id is a user or group argument: -1 leaves the one that is there.
func id(arg uint64) int { return int(int32(uint32(arg))) }

func id16(arg uint64) int {
	if uint16(arg) == 0xffff {
		return -1
	}
	return int(uint16(arg))
}

func (m *Module) chown(c *intercept.Call, dir int, path intercept.Addr, uid, gid, flags int) intercept.Action {
	return m.change(c, dir, path, flags, func(_ *object, fd int) error {
		return unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH)
	})
}

func (m *Module) doFchown(c *intercept.Call) intercept.Action {
	return m.changeFD(c, int(int32(c.Args[0])), func(_ *object, fd int) error {
		return unix.Fchownat(fd, "", id(c.Args[1]), id(c.Args[2]), unix.AT_EMPTY_PATH)
	})
}

// times sets those of a file; nil: now.
func (m *Module) times(c *intercept.Call, dir int, path intercept.Addr, flags int, ts *[2]unix.Timespec) intercept.Action {
	const omit = 0x3ffffffe // UTIME_OMIT
	if ts != nil {
		for _, t := range ts {
			if t.Nsec != omit && t.Nsec != omit+1 && (t.Nsec < 0 || t.Nsec > 999999999) {
				return intercept.Fail(unix.EINVAL)
			}
		}
		if ts[0].Nsec == omit && ts[1].Nsec == omit {
			return intercept.Return(0) // fs/utimes.c: not even the path is looked at
		}
	}
	set := func(_ *object, fd int) error {
		var p unsafe.Pointer
		if ts != nil {
			p = unsafe.Pointer(ts)
		}
		var empty byte
		_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), uintptr(unsafe.Pointer(&empty)), uintptr(p), unix.AT_EMPTY_PATH, 0, 0)
		if errno != 0 {
			return errno
		}
		return nil
	}
	if path == 0 && dir != unix.AT_FDCWD {
		return m.changeFD(c, dir, set)
	}
	return m.change(c, dir, path, flags, set)
}

// timespecs reads two struct timespec, of the i386 entry in two sizes.
func timespecs(c *intercept.Call, at intercept.Addr, short bool) (*[2]unix.Timespec, error) {
	if at == 0 {
		return nil, nil
	}
	var b [32]byte
	n := 32
	if short {
		n = 16
	}
	if err := c.ReadMem(at, b[:n]); err != nil {
		return nil, err
	}
	ts := new([2]unix.Timespec)
	for i := range ts {
		if short {
			ts[i].Sec = int64(int32(binary.LittleEndian.Uint32(b[8*i:])))
			ts[i].Nsec = int64(int32(binary.LittleEndian.Uint32(b[8*i+4:])))
		} else {
			ts[i].Sec = int64(binary.NativeEndian.Uint64(b[16*i:]))
			ts[i].Nsec = int64(binary.NativeEndian.Uint64(b[16*i+8:]))
			if c.Arch == intercept.I386 {
				ts[i].Nsec = int64(int32(ts[i].Nsec))
			}
		}
	}
	return ts, nil
}

func (m *Module) doUtimensat(c *intercept.Call) intercept.Action {
	return m.utimensat(c, c.Arch == intercept.I386)
}

// doUtimensat64 is the one of the i386 entry whose seconds have 64 bits.
func (m *Module) doUtimensat64(c *intercept.Call) intercept.Action { return m.utimensat(c, false) }

func (m *Module) utimensat(c *intercept.Call, short bool) intercept.Action {
	flags := int(uint32(c.Args[3]))
	if flags&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return intercept.Fail(unix.EINVAL)
	}
	ts, err := timespecs(c, intercept.Addr(c.Args[2]), short)
	if err != nil {
		return fail(err)
	}
	if c.Args[1] == 0 && flags&unix.AT_EMPTY_PATH == 0 {
		if int32(c.Args[0]) == unix.AT_FDCWD {
			return intercept.Fail(unix.EFAULT)
		}
		if flags != 0 {
			return intercept.Fail(unix.EINVAL)
		}
	}
	return m.times(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), flags, ts)
}

func (m *Module) doUtime(c *intercept.Call) intercept.Action {
	var ts *[2]unix.Timespec
	if at := intercept.Addr(c.Args[1]); at != 0 {
		ts = new([2]unix.Timespec)
		var b [16]byte
		if c.Arch == intercept.I386 {
			if err := c.ReadMem(at, b[:8]); err != nil {
				return fail(err)
			}
			for i := range ts {
				ts[i].Sec = int64(int32(binary.LittleEndian.Uint32(b[4*i:])))
			}
		} else {
			if err := c.ReadMem(at, b[:]); err != nil {
				return fail(err)
			}
			for i := range ts {
				ts[i].Sec = int64(binary.NativeEndian.Uint64(b[8*i:]))
			}
		}
	}
	return m.times(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), 0, ts)
}

func (m *Module) doUtimes(c *intercept.Call) intercept.Action {
	return m.utimes(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), intercept.Addr(c.Args[1]))
}

func (m *Module) doFutimesat(c *intercept.Call) intercept.Action {
	return m.utimes(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), intercept.Addr(c.Args[2]))
}

// utimes takes microseconds.
func (m *Module) utimes(c *intercept.Call, dir int, path, at intercept.Addr) intercept.Action {
	ts, err := timespecs(c, at, c.Arch == intercept.I386)
	if err != nil {
		return fail(err)
	}
	if ts != nil {
		for i := range ts {
			if ts[i].Nsec < 0 || ts[i].Nsec >= 1000000 {
				return intercept.Fail(unix.EINVAL)
			}
			ts[i].Nsec *= 1000
		}
	}
	return m.times(c, dir, path, 0, ts)
}

func (m *Module) doTruncate(c *intercept.Call) intercept.Action {
	size := int64(c.Args[1])
	if c.Arch == intercept.I386 {
		size = int64(int32(c.Args[1]))
	}
	return m.truncate(c, size)
}

// doTruncate64 is the one of the i386 entry: the size is in two registers.
func (m *Module) doTruncate64(c *intercept.Call) intercept.Action {
	return m.truncate(c, int64(c.Args[1]&0xffffffff|c.Args[2]<<32))
}

func (m *Module) truncate(c *intercept.Call, size int64) intercept.Action {
	if size < 0 {
		return intercept.Fail(unix.EINVAL)
	}
	o, err := m.find(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), 0)
	if err != nil {
		return fail(err)
	}
	defer o.close()
	switch {
	case o.typ() == unix.S_IFDIR:
		return intercept.Fail(unix.EISDIR)
	case o.typ() != unix.S_IFREG:
		return intercept.Fail(unix.EINVAL)
	case o.readOnly() && faccess(o.fd, unix.W_OK) == unix.EACCES: // fs/open.c: vfs_truncate, v6.18
		return intercept.Fail(unix.EACCES)
	case o.readOnly():
		return intercept.Fail(unix.EROFS)
	case o.m == nil && o.access == unix.O_RDONLY:
		return intercept.Fail(unix.EACCES)
	}
	if size > o.st.Size && tooLarge(c, size) {
		if err := faccess(o.fd, unix.W_OK); err != nil {
			return fail(err)
		}
		_ = unix.Tgkill(c.Task.TGID(), c.TID, unix.SIGXFSZ)
		return intercept.Fail(unix.EFBIG)
	}
	if o.m == nil || o.m.dir != nil {
		return result(unix.Truncate(procFD(o.fd), size))
	}
	const flags = unix.O_WRONLY | unix.O_NONBLOCK | unix.O_NOFOLLOW | unix.O_CLOEXEC
	if l := m.prepare(c, o.m, o.name, UseOpen, flags); l != nil {
		return m.orLater(c, l, func(m *Module) intercept.Action { return m.truncate(c, size) })
	}
	fd, err := o.m.fs.Open(o.name, flags, 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	return result(unix.Ftruncate(fd, size))
}

// tooLarge reports whether the calling task may make no file of a size (getrlimit(2)).
func tooLarge(c *intercept.Call, size int64) bool {
	var limit unix.Rlimit
	return unix.Prlimit(c.Task.TGID(), unix.RLIMIT_FSIZE, nil, &limit) == nil && uint64(size) > limit.Cur
}

// doSetFlags answers FS_IOC_SETFLAGS (ioctl_iflags(2)), which needs no file that is open
// for writing.
func (m *Module) doSetFlags(c *intercept.Call) intercept.Action {
	return m.setFlags(c, unix.FS_IOC_SETFLAGS, 4)
}

// doSetXattrFlags answers FS_IOC_FSSETXATTR, which is given a struct fsxattr.
func (m *Module) doSetXattrFlags(c *intercept.Call) intercept.Action {
	return m.setFlags(c, fsIocFSSetXattr, 28)
}

func (m *Module) setFlags(c *intercept.Call, request uintptr, size int) intercept.Action {
	o, err := m.findFD(c, int(int32(c.Args[0])))
	if err != nil {
		return fail(err)
	}
	defer o.close()
	switch {
	case o.readOnly():
		return intercept.Fail(unix.EROFS)
	case o.m != nil && o.m.dir == nil:
		return intercept.Fail(unix.EOPNOTSUPP)
	}
	var flags [28]byte
	if err := c.ReadMem(intercept.Addr(c.Args[2]), flags[:size]); err != nil {
		return fail(err)
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(o.fd), request, uintptr(unsafe.Pointer(&flags)))
	return intercept.Fail(errno)
}

// doSetSig answers F_SETSIG, whose place on files is taken (see tag.go).
func (m *Module) doSetSig(c *intercept.Call) intercept.Action {
	o, err := m.findFD(c, int(int32(c.Args[0])))
	if err != nil {
		return fail(err)
	}
	defer o.close()
	if t := o.typ(); t == unix.S_IFREG || t == unix.S_IFDIR {
		return intercept.Fail(unix.EINVAL)
	}
	_, err = unix.FcntlInt(uintptr(o.fd), unix.F_SETSIG, int(c.Args[2]))
	return result(err)
}

// doInotify answers inotify_add_watch(2).
func (m *Module) doInotify(c *intercept.Call) intercept.Action {
	mask := uint32(c.Args[2])
	flags := 0
	if mask&unix.IN_DONT_FOLLOW != 0 {
		flags = unix.AT_SYMLINK_NOFOLLOW
	}
	d, err := c.DupFD(int(int32(c.Args[0])))
	if err != nil {
		return fail(err)
	}
	defer d.Close()
	o, err := m.find(c, unix.AT_FDCWD, intercept.Addr(c.Args[1]), flags)
	if err != nil {
		return fail(err)
	}
	defer o.close()
	m.watched.Store(true)
	wd, err := unix.InotifyAddWatch(d.N, procFD(o.fd), mask&^unix.IN_DONT_FOLLOW)
	if err != nil {
		return fail(err)
	}
	return intercept.Return(int64(wd))
}

func readlink(path string) (string, error) {
	buf := make([]byte, pathMax)
	n, err := unix.Readlink(path, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}
