// SPDX-License-Identifier: Apache-2.0

// Calls that are made here in place of the program's, on duplicates of its descriptors: those
// that name a socket by an address, in a view in which paths mean other files than to the
// kernel.

package netmod

import (
	"bytes"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// unixRules are those of a kernel stack.
func (m *Module) unixRules() intercept.Rules {
	return intercept.Rules{
		on(unix.SYS_CONNECT, m.onDuplicate(named(m.connectTo))),
		on(unix.SYS_BIND, m.onDuplicate(named(m.bindTo))),
		on(unix.SYS_GETSOCKNAME, m.onDuplicate(m.nameUnix)),
		on(unix.SYS_GETPEERNAME, m.onDuplicate(m.nameUnix)),
		on(unix.SYS_SENDTO, m.onDuplicate(m.sendtoCopy), intercept.ArgNonZero(4)),
		on(unix.SYS_SENDMSG, m.onDuplicate(m.sendmsgCopy)),
		on(unix.SYS_SENDMMSG, m.onDuplicate(m.sendmmsgCopy)),
	}
}

// onDuplicate answers calls by f, which gets a duplicate of the descriptor.
func (m *Module) onDuplicate(f func(*intercept.Call, intercept.FD) intercept.Action) func(*intercept.Call) intercept.Action {
	return func(c *intercept.Call) intercept.Action {
		d, err := c.DupFD(int(int32(c.Args[0])))
		if err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		defer d.Close()
		if d.Key.Cookie == 0 {
			return intercept.Fail(noSocket(d.N))
		}
		return f(c, d)
	}
}

// noSocket is the errno for a file that is no socket: by now the number could be one's.
func noSocket(fd int) unix.Errno {
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err == nil && flags&unix.O_PATH != 0 {
		return unix.EBADF
	}
	return unix.ENOTSOCK
}

// domainOf is the family of a socket.
func domainOf(d intercept.FD) int {
	domain, err := unix.GetsockoptInt(d.N, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return unix.AF_UNSPEC
	}
	return domain
}

// isDatagram reports whether a socket connects without having to wait.
func isDatagram(d intercept.FD) bool {
	typ, err := unix.GetsockoptInt(d.N, unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil && (typ == unix.SOCK_DGRAM || typ == unix.SOCK_RAW || typ == sockPacket)
}

// named answers connect(2) or bind(2) by f, which gets a copy of the address.
func named(f func(*intercept.Call, intercept.FD, []byte) intercept.Action) func(*intercept.Call, intercept.FD) intercept.Action {
	return func(c *intercept.Call, d intercept.FD) intercept.Action {
		sa, err := readSockaddr(c, intercept.Addr(c.Args[1]), int32(c.Args[2]))
		if err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		return f(c, d, sa)
	}
}

// connectTo is connect(2) to an address.
func (m *Module) connectTo(c *intercept.Call, d intercept.FD, sa []byte) intercept.Action {
	var files []int
	switch domainOf(d) {
	case unix.AF_UNIX:
		c.About(aboutUnix)
		to, file, err := m.unixTo(c, sa)
		if err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		sa, files = to, []int{file}
	case unix.AF_NETLINK:
		takePort(c, d)
	}
	connect := func(fd int) (n int64, err error) {
		if e := m.paths.As(c, func() { err = nameCall(unix.SYS_CONNECT, fd, sa) }); e != nil {
			err = e
		}
		return 0, err
	}
	if !isDatagram(d) && !nonblocking(d.N) {
		return m.mayWait(c, d, files, connect)
	}
	c.MayWait() // if O_NONBLOCK is taken away in this moment
	n, err := connect(d.N)
	closeFiles(files)
	return counted(n, err)
}

// nameCall is connect(2) or bind(2) with a sockaddr as it is.
func nameCall(nr uintptr, fd int, sa []byte) error {
	var p unsafe.Pointer
	if len(sa) > 0 {
		p = unsafe.Pointer(&sa[0])
	}
	if _, _, errno := unix.Syscall(nr, uintptr(fd), uintptr(p), uintptr(len(sa))); errno != 0 {
		return errno
	}
	return nil
}

// bindTo is bind(2) to an address.
func (m *Module) bindTo(c *intercept.Call, d intercept.FD, sa []byte) intercept.Action {
	domain := domainOf(d)
	if domain == unix.AF_UNIX {
		c.About(aboutUnix)
		path, ok := socketPath(sa)
		if !ok {
			return result(nameCall(unix.SYS_BIND, d.N, sa))
		}
		err := m.paths.BindSocket(c, d.N, path)
		if intercept.Errno(err) == unix.EEXIST {
			err = unix.EADDRINUSE
		}
		return result(err)
	}
	bind := func(sa []byte) (err error) {
		if e := m.paths.As(c, func() { err = nameCall(unix.SYS_BIND, d.N, sa) }); e != nil {
			err = e
		}
		return err
	}
	if domain == unix.AF_NETLINK {
		if err := bind(ownPort(c, d, sa)); err != unix.EADDRINUSE {
			return result(err)
		}
	}
	return result(bind(sa))
}

// ownPort is the address that a netlink socket is to have where the kernel would choose one: by
// the process that calls, which is to be the program's.
func ownPort(c *intercept.Call, d intercept.FD, sa []byte) []byte {
	if len(sa) < unix.SizeofSockaddrNetlink || native.Uint32(sa[4:]) != 0 {
		return sa
	}
	if has, err := unix.Getsockname(d.N); err != nil || has.(*unix.SockaddrNetlink).Pid != 0 {
		return sa
	}
	own := bytes.Clone(sa)
	native.PutUint32(own[4:], uint32(c.Task.TGID()))
	return own
}

// takePort gives such a port to a netlink socket that has none, if it is free.
func takePort(c *intercept.Call, d intercept.FD) {
	if sa := ownPort(c, d, netlinkName(0, 0)); native.Uint32(sa[4:]) != 0 {
		_ = nameCall(unix.SYS_BIND, d.N, sa)
	}
}
