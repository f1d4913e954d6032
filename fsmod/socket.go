// SPDX-License-Identifier: Apache-2.0

// AF_UNIX sockets: what their paths lead to, and the places that they are bound to.
//
// The kernel is given no path of the program's. Who connects is given the socket's file, by
// a descriptor. A bind is made by a path of the host that was found to lead to the judged
// directory: the calls that change what paths mean are made by the thread that is busy with this
// one, but for those beside a call that waits and those that had to be prepared.

package fsmod

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// sunPathMax is the longest path in a struct sockaddr_un; with all of it there is no NUL.
const sunPathMax = 108

// Mounts reports whether the module has mounts, and so other files than the host.
func (m *Module) Mounts() bool { return m.table != nil }

// As runs f with the rights that the calling thread has over files.
func (m *Module) As(c *intercept.Call, f func()) error {
	if !m.mixed.Load() {
		f()
		return nil
	}
	err := error(unix.EACCES)
	m.as(c, func() intercept.Action {
		err = nil
		f()
		return intercept.Action{}
	})
	return err
}

// OpenSocket opens, with O_PATH, what a path means to the calling thread.
func (m *Module) OpenSocket(c *intercept.Call, path string) (fd int, err error) {
	fd = -1
	c.MayWait()
	m = m.enterCall()
	defer m.using.RUnlock()
	e := m.As(c, func() {
		var o object
		o, err = m.resolvePath(c, unix.AT_FDCWD, path, true, 0)
		if view, ok := m.table.named(path); err != nil && ok { // as the kernel has told of it
			o, err = m.resolvePath(c, unix.AT_FDCWD, view, true, 0)
		}
		fd = o.fd
	})
	if e != nil {
		err = e
	}
	return fd, err
}

// named is the view's path of one of a file that is in a place of ours.
func (t *table) named(host string) (view string, ok bool) {
	if !strings.HasPrefix(host, "/") {
		return "", false
	}
	host = filepath.Clean(host)
	view = t.viewOfHost(host, func() *mount { return nil })
	return view, view != host && !strings.HasPrefix(view, detachedMark)
}

// SocketName is the path in the view of one that the kernel tells of a socket.
func (m *Module) SocketName(path string) string {
	m = m.enterCall()
	defer m.using.RUnlock()
	t := m.table
	t.mu.Lock()
	name, ok := t.socks[path]
	t.mu.Unlock()
	if ok {
		return name
	}
	if view, ok := t.named(path); ok && len(view) <= sunPathMax {
		return view
	}
	return path
}

// BindSocket binds fd, a socket of the calling thread's, to a path.
func (m *Module) BindSocket(c *intercept.Call, fd int, path string) (err error) {
	c.MayWait()
	m = m.enterCall()
	defer m.using.RUnlock()
	b := binding{m: m, c: c, fd: fd, path: path}
	e := m.As(c, func() {
		err = m.onPath(c, unix.AT_FDCWD, path, func(n *nameAt) error {
			if err := n.refusesNew(m.table, false); err != nil {
				return err
			}
			if n.m.dir != nil {
				b.apart = n.m.dir.apart
				return n.m.dir.parent(n.name, b.bind)
			}
			return b.layered(n)
		})
	})
	if e != nil {
		err = e
	}
	return err
}

// A binding is a bind(2) of the program's.
type binding struct {
	m    *Module
	c    *intercept.Call
	fd   int
	path string // as the program has it

	apart  *apart // where the directory is, if that is not in our mount namespace
	locked bool   // the tree is, and umasking is taken before that
}

// layered binds to a name in a tree that makes its files itself, which judges by making the place.
func (b *binding) layered(n *nameAt) error {
	if err := b.m.create(b.c, unix.S_IFSOCK|0o777, func(mode uint32) error { return n.m.fs.Mknod(n.name, mode, 0) }); err != nil {
		return err
	}
	fs, ok := n.m.fs.(Binder)
	if !ok {
		return unix.EROFS
	}
	b.locked = true
	return fs.Bind(n.name, b.bind)
}

// bind binds to a name in a directory. The kernel's name of the socket, which others see, is
// the program's own where it leads there, else the path on the host.
func (b *binding) bind(dir int, last string) error {
	var at unix.Stat_t
	if err := unix.Fstat(dir, &at); err != nil {
		return err
	}
	leads := func(path string) bool {
		var st unix.Stat_t
		up, name := filepath.Split(path)
		return name == last && len(path) <= sunPathMax && unix.Stat(up, &st) == nil && inodeOf(&st) == inodeOf(&at)
	}
	if !strings.HasPrefix(b.path, "/") {
		if err := b.below(last, &at); err != errElsewhere {
			return err
		}
	}
	host := ""
	if up, err := os.Readlink(procFD(dir)); err == nil {
		host = filepath.Join(up, last)
	}
	for _, path := range []string{b.path, host} {
		if !strings.HasPrefix(path, "/") || !leads(path) {
			continue
		}
		err := b.here(path)
		if err == nil && path != b.path {
			b.m.table.sock(path, b.path)
		}
		return err
	}
	if b.apart != nil && len(host) <= sunPathMax {
		err := b.onThread(b.apart.enter, func() error { return bindPath(b.fd, host) })
		if err == nil {
			b.m.table.sock(host, b.path)
		}
		return err
	}
	return b.onThread(func() error { return unix.Unshare(unix.CLONE_FS) }, func() error {
		if err := unix.Fchdir(dir); err != nil {
			return err
		}
		return bindPath(b.fd, last)
	})
}

// here binds to an absolute path, with the umask of the task.
func (b *binding) here(path string) error {
	if b.locked {
		return b.onThread(func() error { return unix.Unshare(unix.CLONE_FS) }, func() error { return bindPath(b.fd, path) })
	}
	return b.m.create(b.c, 0, func(uint32) error { return bindPath(b.fd, path) })
}

// errElsewhere says that a path of the program's does not lead where its socket is to be.
var errElsewhere = errors.New("the path leads elsewhere")

// below binds by a relative path of the program's, on a thread with its working directory.
func (b *binding) below(last string, at *unix.Stat_t) error {
	return b.onThread(func() error { return unix.Unshare(unix.CLONE_FS) }, func() error {
		var st unix.Stat_t
		up, name := filepath.Split(b.path)
		if name != last || unix.Chdir(taskFile(b.c.TID, "cwd")) != nil || unix.Stat("./"+up, &st) != nil || inodeOf(&st) != inodeOf(at) {
			return errElsewhere
		}
		return bindPath(b.fd, b.path)
	})
}

// onThread runs bind with the umask and the credentials of the task, on a thread that has become
// another by enter before.
func (b *binding) onThread(enter, bind func() error) error {
	umask := b.m.creds.umask
	cr, err := taskCredentials(strconv.Itoa(b.c.TID))
	if err != nil {
		return err
	}
	if b.m.umasked.Load() {
		umask = cr.umask
	}
	intercept.OnThread(func() {
		if err = enter(); err != nil {
			return
		}
		unix.Umask(int(umask))
		if !b.m.mixed.Load() || cr.same(&b.m.creds) {
			err = bind()
		} else if b.m.creds.during(&cr, func() { err = bind() }) != nil {
			err = unix.EACCES
		}
	})
	return err
}

// bindPath is bind(2) to a path, whatever it begins with.
func bindPath(fd int, path string) error {
	var sa unix.RawSockaddrUnix
	sa.Family = unix.AF_UNIX
	for i := range len(path) {
		sa.Path[i] = int8(path[i])
	}
	size := unsafe.Offsetof(sa.Path) + uintptr(len(path)) + 1
	if _, _, errno := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&sa)), min(size, unsafe.Sizeof(sa))); errno != 0 {
		return errno
	}
	return nil
}

// sock notes what the program calls a socket that the kernel knows by a path of the host.
func (t *table) sock(host, view string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const enough = 1 << 14
	if len(t.socks) >= enough {
		clear(t.socks) // from here on by their clean names
	}
	t.socks[host] = view
}
