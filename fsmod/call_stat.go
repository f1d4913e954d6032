// SPDX-License-Identifier: Apache-2.0

// The calls that look: stat, access, readlink, statfs.

package fsmod

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

func (m *Module) doStat(c *intercept.Call) intercept.Action {
	return m.stat(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), intercept.Addr(c.Args[1]), 0)
}

func (m *Module) doLstat(c *intercept.Call) intercept.Action {
	return m.stat(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), intercept.Addr(c.Args[1]), unix.AT_SYMLINK_NOFOLLOW)
}

func (m *Module) doFstatat(c *intercept.Call) intercept.Action {
	flags := int(uint32(c.Args[3]))
	if flags&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|unix.AT_EMPTY_PATH) != 0 {
		return intercept.Fail(unix.EINVAL)
	}
	return m.stat(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), intercept.Addr(c.Args[2]), flags)
}

func (m *Module) stat(c *intercept.Call, dir int, path, to intercept.Addr, flags int) intercept.Action {
	l := looks.Get().(*look)
	defer looks.Put(l)
	o, err := m.lookAt(c, l, dir, path, flags, false)
	if err != nil {
		return fail(err)
	}
	o.close()
	m.asBlock(&o.st)
	m.identify(&o.st)
	if c.Arch == intercept.I386 {
		b := stat64(&o.st)
		return result(c.WriteMem(to, b[:]))
	}
	l.st = o.st
	return result(c.WriteMem(to, unsafe.Slice((*byte)(unsafe.Pointer(&l.st)), unsafe.Sizeof(l.st))))
}

// stat64 is struct stat64 of the i386 entry, arch/x86/include/uapi/asm/stat.h.
func stat64(st *unix.Stat_t) (b [96]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], st.Dev)
	le.PutUint32(b[12:], uint32(st.Ino))
	le.PutUint32(b[16:], st.Mode)
	le.PutUint32(b[20:], uint32(st.Nlink))
	le.PutUint32(b[24:], st.Uid)
	le.PutUint32(b[28:], st.Gid)
	le.PutUint64(b[32:], st.Rdev)
	le.PutUint64(b[44:], uint64(st.Size))
	le.PutUint32(b[52:], uint32(st.Blksize))
	le.PutUint64(b[56:], uint64(st.Blocks))
	for i, ts := range []unix.Timespec{st.Atim, st.Mtim, st.Ctim} {
		le.PutUint32(b[64+8*i:], uint32(ts.Sec))
		le.PutUint32(b[68+8*i:], uint32(ts.Nsec))
	}
	le.PutUint64(b[88:], st.Ino)
	return b
}

func (m *Module) doStatx(c *intercept.Call) intercept.Action {
	flags := int(uint32(c.Args[2]))
	const sync = 0x6000 // AT_STATX_SYNC_TYPE
	if flags&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|unix.AT_EMPTY_PATH|sync) != 0 || flags&sync == sync {
		return intercept.Fail(unix.EINVAL)
	}
	const reserved = 0x80000000 // STATX__RESERVED
	if c.Args[3]&reserved != 0 {
		return intercept.Fail(unix.EINVAL)
	}
	l := looks.Get().(*look)
	defer looks.Put(l)
	o, err := m.lookAt(c, l, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), flags, true)
	if err != nil {
		return fail(err)
	}
	defer o.close()
	l.stx = unix.Statx_t{}
	if err := unix.Statx(o.fd, "", unix.AT_EMPTY_PATH|flags&sync, int(uint32(c.Args[3])), &l.stx); err != nil {
		return fail(err)
	}
	if m.asBlock(&o.st) {
		asBlockX(&l.stx, &o.st)
	}
	m.identifyX(&l.stx)
	return result(c.WriteMem(intercept.Addr(c.Args[4]), unsafe.Slice((*byte)(unsafe.Pointer(&l.stx)), unsafe.Sizeof(l.stx))))
}

func (m *Module) doAccess(c *intercept.Call) intercept.Action {
	return m.access(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), uint32(c.Args[1]), 0)
}

func (m *Module) doFaccessat(c *intercept.Call) intercept.Action {
	return m.access(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), uint32(c.Args[2]), 0)
}

func (m *Module) doFaccessat2(c *intercept.Call) intercept.Action {
	flags := int(uint32(c.Args[3]))
	if flags&^(unix.AT_EACCESS|unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return intercept.Fail(unix.EINVAL)
	}
	return m.access(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), uint32(c.Args[2]), flags)
}

func (m *Module) access(c *intercept.Call, dir int, path intercept.Addr, mode uint32, flags int) intercept.Action {
	if mode&^7 != 0 {
		return intercept.Fail(unix.EINVAL)
	}
	l := looks.Get().(*look)
	defer looks.Put(l)
	o, err := m.lookAt(c, l, dir, path, flags, mode != unix.F_OK)
	if err != nil {
		return fail(err)
	}
	defer o.close()
	if mode != unix.F_OK {
		if m.secret(c, &o) {
			return intercept.Fail(unix.EACCES)
		}
		if err := faccess(o.fd, mode); err != nil {
			return fail(err)
		}
	}
	if t := o.typ(); mode&unix.W_OK != 0 && o.readOnly() && (t == unix.S_IFREG || t == unix.S_IFDIR || t == unix.S_IFLNK) {
		return intercept.Fail(unix.EROFS)
	}
	return intercept.Return(0)
}

// asksReal reports whether a call is access(2) or one like it, which are about the real user.
func asksReal(c *intercept.Call) bool {
	if c.Arch == intercept.I386 {
		return c.NR == 33 || c.NR == 307 || c.NR == unix.SYS_FACCESSAT2 && c.Args[3]&unix.AT_EACCESS == 0
	}
	return c.NR == sysAccess || c.NR == unix.SYS_FACCESSAT || c.NR == unix.SYS_FACCESSAT2 && c.Args[3]&unix.AT_EACCESS == 0
}

// faccess asks for access to what fd refers to, with the thread's effective rights.
func faccess(fd int, mode uint32) error {
	var empty byte
	_, _, errno := unix.Syscall6(unix.SYS_FACCESSAT2, uintptr(fd), uintptr(unsafe.Pointer(&empty)), uintptr(mode), unix.AT_EMPTY_PATH|unix.AT_EACCESS, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func (m *Module) doReadlink(c *intercept.Call) intercept.Action {
	return m.readlink(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), intercept.Addr(c.Args[1]), int32(c.Args[2]))
}

func (m *Module) doReadlinkat(c *intercept.Call) intercept.Action {
	return m.readlink(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), intercept.Addr(c.Args[2]), int32(c.Args[3]))
}

func (m *Module) readlink(c *intercept.Call, dir int, at, to intercept.Addr, size int32) intercept.Action {
	if size <= 0 {
		return intercept.Fail(unix.EINVAL)
	}
	if at == 0 {
		return intercept.Fail(unix.EFAULT)
	}
	l := looks.Get().(*look)
	defer looks.Put(l)
	if err := l.read(c, at); err != nil {
		return fail(err)
	}
	if errno := m.noLink(c, l, dir); errno != 0 {
		return intercept.Fail(errno)
	}
	path := string(l.path)
	o, err := m.findPath(c, dir, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
	if err != nil {
		return fail(err)
	}
	defer o.close()
	if o.typ() != unix.S_IFLNK {
		if path == "" {
			return intercept.Fail(unix.ENOENT)
		}
		return intercept.Fail(unix.EINVAL)
	}
	text, err := m.linkText(c, &o)
	if err != nil {
		return fail(err)
	}
	text = text[:min(len(text), int(size))]
	if err := c.WriteMem(to, []byte(text)); err != nil {
		return fail(err)
	}
	return intercept.Return(int64(len(text)))
}

// linkText is what readlink(2) says of a symbolic link: of those in procfs, what the view
// calls the file.
func (m *Module) linkText(c *intercept.Call, o *object) (string, error) {
	var replaced *unnamed                  // what the link stands for has another file at its place
	if o.st.Size == 0 || o.st.Size == 64 { // as those of procfs
		view := o.view
		if view == "" { // a descriptor of the link itself
			view, _ = readlink(procFD(o.fd))
		}
		if i := strings.LastIndexByte(view, '/'); i >= 0 && isProc(o.fd) {
			w := &walk{m: m, c: c}
			text, to, err := w.magic(view[:i], view[i+1:])
			switch {
			case text != "":
				return text, nil
			case err == errOurs || err == errOutside || err != nil && !errors.Is(err, unix.EACCES):
				return "", err
			case err != nil && !errors.As(err, &replaced):
				replaced = &unnamed{}
			case replaced != nil:
			case to != nil:
				defer to.close()
				if view[i+1:] == "exe" {
					if name, ok := m.table.exe(inodeOf(&to.st)); ok {
						return name, nil
					}
				}
				if to.m != nil {
					return m.seenFrom(c, to.view), nil
				}
				if name, ok := m.formerName(c, to); ok {
					return name, nil
				}
			}
		}
	}
	buf := make([]byte, pathMax)
	var n int
	var err error
	if e := m.guardedFile(c, o, func() { n, err = unix.Readlinkat(o.fd, "", buf) }); e != nil {
		err = e
	}
	if err != nil {
		return "", err
	}
	text := string(buf[:n])
	if replaced != nil {
		if view := m.table.viewOfHost(text, func() *mount { return replaced.in }); view != text {
			text = m.seenFrom(c, view) + m.table.goneFrom(view)
		}
	}
	return text, nil
}

// formerName is what procfs says of an open file that has no name in the view, or no more:
// a program still sees the one that it opened it by, also if that is a copy's now.
func (m *Module) formerName(c *intercept.Call, o *object) (string, bool) {
	host, err := os.Readlink(procFD(o.fd))
	if err != nil {
		return "", false
	}
	if !strings.HasPrefix(host, "/") {
		return host, true
	}
	cut, gone := strings.CutSuffix(host, deleted)
	view := m.table.viewOfHost(cut, func() *mount {
		if mt := m.table.tagOf(o.fd); mt != nil {
			return mt
		}
		return m.table.lastSeen(inodeOf(&o.st))
	})
	if gone && strings.HasPrefix(view, detachedMark) {
		view = detachedName(view)
	}
	if gone {
		return view + deleted, true
	}
	removed := m.table.goneFrom(view)
	return m.seenFrom(c, view) + removed, view != cut || removed != ""
}

// goneFrom is what procfs has behind a name that is no more, if a tree has removed it and the
// layer below has it still.
func (t *table) goneFrom(view string) string {
	m, name := t.lookup(view)
	if m.dir != nil || m.namer == nil {
		return ""
	}
	if _, err := m.stat(name); !errors.Is(err, unix.ENOENT) {
		return ""
	}
	return deleted
}

// exe is the view's path of a program that was started by it.
func (t *table) exe(id inode) (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	view, ok := t.exes[id]
	return view, ok
}

// seenFrom is a path of the view as a task with another root sees it.
func (m *Module) seenFrom(c *intercept.Call, view string) string {
	if strings.HasPrefix(view, detachedMark) {
		return detachedName(view)
	}
	root, err := m.rootOf(c)
	if err == nil && root != "" {
		if view == root {
			return "/"
		}
		if rest, ok := strings.CutPrefix(view, root+"/"); ok {
			return "/" + rest
		}
		return "(unreachable)" + view
	}
	if view == "" {
		return "/"
	}
	return view
}

// doHandle answers name_to_handle_at(2): nobody could open what it would give.
func (m *Module) doHandle(c *intercept.Call) intercept.Action {
	flags := int(uint32(c.Args[4]))
	how := unix.AT_SYMLINK_NOFOLLOW | flags&unix.AT_EMPTY_PATH
	if flags&unix.AT_SYMLINK_FOLLOW != 0 {
		how &^= unix.AT_SYMLINK_NOFOLLOW
	}
	o, err := m.find(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), how)
	if err != nil {
		return fail(err)
	}
	o.close()
	return intercept.Fail(unix.EOPNOTSUPP)
}

func (m *Module) doStatfs(c *intercept.Call) intercept.Action {
	return m.statfs(c, intercept.Addr(c.Args[1]))
}

// doStatfs64 is the one of the i386 entry that has a size.
func (m *Module) doStatfs64(c *intercept.Call) intercept.Action {
	if c.Args[1] != 84 && c.Args[1] != 88 {
		return intercept.Fail(unix.EINVAL)
	}
	return m.statfs(c, intercept.Addr(c.Args[2]))
}

func (m *Module) statfs(c *intercept.Call, to intercept.Addr) intercept.Action {
	o, err := m.find(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), 0)
	if err != nil {
		return fail(err)
	}
	defer o.close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(o.fd, &fs); err != nil {
		return fail(err)
	}
	if o.readOnly() {
		fs.Flags |= unix.ST_RDONLY
	}
	if c.Arch == intercept.I386 {
		b := statfs64(&fs)
		return result(c.WriteMem(to, b[:]))
	}
	return result(c.WriteMem(to, unsafe.Slice((*byte)(unsafe.Pointer(&fs)), unsafe.Sizeof(fs))))
}

// statfs64 is struct compat_statfs64 of the i386 entry.
func statfs64(fs *unix.Statfs_t) (b [84]byte) {
	le := binary.LittleEndian
	le.PutUint32(b[0:], uint32(fs.Type))
	le.PutUint32(b[4:], uint32(fs.Bsize))
	for i, v := range []uint64{fs.Blocks, fs.Bfree, fs.Bavail, fs.Files, fs.Ffree} {
		le.PutUint64(b[8+8*i:], v)
	}
	le.PutUint32(b[48:], uint32(fs.Fsid.Val[0]))
	le.PutUint32(b[52:], uint32(fs.Fsid.Val[1]))
	le.PutUint32(b[56:], uint32(fs.Namelen))
	le.PutUint32(b[60:], uint32(fs.Frsize))
	le.PutUint32(b[64:], uint32(fs.Flags))
	return b
}
