// SPDX-License-Identifier: Apache-2.0

// AF_UNIX sockets in a view that has files of its own: their names are paths of the view.

package netmod

import (
	"bytes"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// Paths tells where the paths of AF_UNIX addresses lead, in a view in which the kernel would
// find other files by them.
type Paths interface {
	// OpenSocket opens, with O_PATH, what a path means to the calling thread. The caller
	// closes it.
	OpenSocket(c *intercept.Call, path string) (fd int, err error)

	// BindSocket gives fd, a socket of the calling thread's, a path that means to the
	// thread what path does.
	BindSocket(c *intercept.Call, fd int, path string) error

	// SocketName is the path in the view of one that the kernel tells of a socket.
	SocketName(path string) string

	// As runs f with the rights of the calling thread over files.
	As(c *intercept.Call, f func()) error
}

// UsePaths has the paths of AF_UNIX addresses be p's to find. It is called before
// [Module.Rules].
//
// The calls that name a socket, or may, are then made here, on a duplicate of the program's,
// with an address that holds what was judged: the kernel reads neither the program's memory
// nor its descriptor, which may be other ones by then. So it is with all families:
// what is another socket now may be one of AF_UNIX in a moment. What the one who is called
// learns of the caller is the caller's user and groups, and our process, but for messages that
// need no address ([Module.byThread]). The thread could be made to make the others itself ([intercept.Call.Inject]), with an address that no other one can change
// (mseal(2), Linux 6.10); but what it names would have to be a descriptor of the program's,
// and another thread could put one of a door under its number.
func (m *Module) UsePaths(p Paths) { m.paths = p }

// withUnix is [Module.with], but that AF_UNIX sockets are foreign's in a view with paths of
// its own.
func (m *Module) withUnix(c *intercept.Call, foreign func(*intercept.Call, intercept.FD) intercept.Action, f func(s socket, d *held) intercept.Action) intercept.Action {
	if m.paths == nil {
		return m.with(c, f)
	}
	fd, err := m.dup(c)
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	d := &held{FD: fd}
	defer d.drop()
	if s := m.find(fd); s != nil {
		return f(s, d)
	}
	if isUnix(fd) {
		return foreign(c, fd)
	}
	if fd.Key.Cookie == 0 {
		return intercept.Fail(noSocket(fd.N))
	}
	return m.foreign(c, fd)
}

// isUnix reports whether d is an AF_UNIX socket.
func isUnix(d intercept.FD) bool { return d.Key.Cookie != 0 && domainOf(d) == unix.AF_UNIX }

// socketPath is the path in a sockaddr_un; ok is false if it has none, or the kernel takes
// it for malformed: unix(7), net/unix/af_unix.c:unix_validate_addr.
func socketPath(sa []byte) (path string, ok bool) {
	if len(sa) <= 2 || len(sa) > unix.SizeofSockaddrUnix || sockaddrFamily(sa) != unix.AF_UNIX || sa[2] == 0 {
		return "", false
	}
	p := sa[2:]
	if i := bytes.IndexByte(p, 0); i >= 0 {
		p = p[:i]
	}
	return string(p), true
}

// unixAddress is the sockaddr_un of a path.
func unixAddress(path string) []byte {
	return append(append(native.AppendUint16(nil, unix.AF_UNIX), path...), 0)
}

// unixTo judges the destination of a call, and returns the address to use in its place. The
// file in it, if there is one, is to be closed.
func (m *Module) unixTo(c *intercept.Call, sa []byte) (to []byte, file int, err error) {
	path, ok := socketPath(sa)
	if !ok {
		if m.conf.Doors != nil {
			err = m.conf.Doors.Judge(c.Task, sa)
		}
		return sa, -1, err
	}
	if file, err = m.paths.OpenSocket(c, path); err != nil {
		return nil, -1, err
	}
	if m.conf.Doors != nil {
		if err = m.conf.Doors.JudgeFile(file); err != nil {
			unix.Close(file)
			return nil, -1, err
		}
	}
	return unixAddress("/proc/self/fd/" + strconv.Itoa(file)), file, nil
}

// nameUnix is getsockname(2) and getpeername(2) of an AF_UNIX socket.
func (m *Module) nameUnix(c *intercept.Call, d intercept.FD) intercept.Action {
	if !isUnix(d) {
		return intercept.Continue() // which looks at nothing
	}
	c.About(aboutUnix)
	return m.nameOfUnix(c, d, c.NR, intercept.Addr(c.Args[1]), intercept.Addr(c.Args[2]))
}

// nameOfUnix is nameUnix with its arguments; nr is the number of the call.
func (m *Module) nameOfUnix(c *intercept.Call, d intercept.FD, nr int, addr, lenAddr intercept.Addr) intercept.Action {
	sa := make([]byte, sockaddrMax)
	size := uint32(len(sa))
	if _, _, errno := unix.RawSyscall(uintptr(nr), uintptr(d.N), uintptr(unsafe.Pointer(&sa[0])), uintptr(unsafe.Pointer(&size))); errno != 0 {
		return intercept.Continue() // the kernel has the errno
	}
	path, ok := socketPath(sa[:min(int(size), unix.SizeofSockaddrUnix)])
	if !ok {
		return intercept.Continue()
	}
	name := m.paths.SocketName(path)
	if name == path {
		return intercept.Continue()
	}
	return result(writeSockaddr(c, addr, lenAddr, unixAddress(name)))
}
