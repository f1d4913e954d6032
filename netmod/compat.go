// SPDX-License-Identifier: Apache-2.0

// The i386 entry: 32-bit programs run, with AF_UNIX sockets only.

package netmod

import (
	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/netmod/rtnetlink"
)

// handleSocketcall answers socketcall(2) of SOCKET and CONNECT, whose arguments
// are an array of 32-bit words in memory. They are copied once, and the copy is
// what is acted on: a socket is made here and installed, never left to the kernel.
// The other calls act on sockets that exist, and there are only AF_UNIX ones.
func (m *Module) handleSocketcall(c *intercept.Call) intercept.Action {
	switch call := uint32(c.Args[0]); {
	case call == callSocket, call == callConnect:
	case m.paths != nil:
		return m.compatUnixCall(c)
	default:
		return intercept.Continue()
	}
	var b [12]byte
	if err := c.ReadMem(intercept.Addr(c.Args[1]), b[:]); err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	a0, a1, a2 := native.Uint32(b[0:]), native.Uint32(b[4:]), native.Uint32(b[8:])
	if uint32(c.Args[0]) == callConnect {
		return m.compatConnect(c, int(int32(a0)), intercept.Addr(a1), int32(a2))
	}
	if int32(a0) != unix.AF_UNIX {
		return intercept.Fail(unix.EAFNOSUPPORT)
	}
	return makeUnix(int(int32(a1)), int(int32(a2)))
}

// makeUnix makes an AF_UNIX socket here, for a call whose arguments are in memory.
func makeUnix(typ, proto int) intercept.Action {
	fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	return intercept.InstallFD(fd, typ&unix.SOCK_CLOEXEC != 0)
}

func (m *Module) handleCompatConnect(c *intercept.Call) intercept.Action {
	return m.compatConnect(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), int32(c.Args[2]))
}

// compatConnect judges a connect as handleConnect does; sockaddrs are the same for
// 32-bit programs.
func (m *Module) compatConnect(c *intercept.Call, fd int, addr intercept.Addr, length int32) intercept.Action {
	sa, err := readSockaddr(c, addr, length)
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	d, err := c.DupFD(fd)
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	defer d.Close()
	if m.find(d) != nil { // a placeholder that a 64-bit program has passed on
		return intercept.Fail(unix.EAFNOSUPPORT)
	}
	return m.connectForeign(c, d, sa)
}

// handleCompatIoctl answers the socket ioctls of 32-bit programs, whose struct
// ifreq is shorter.
func (m *Module) handleCompatIoctl(c *intercept.Call) intercept.Action {
	fd, err := c.DupFD(int(int32(c.Args[0])))
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	defer fd.Close()
	cmd := uint32(c.Args[1])
	if !fd.IsSocket() || cmd <= siocgstampns || cmd >= siocprotoMin && cmd <= siocprotoMax {
		return intercept.Continue()
	}
	if cmd == unix.SIOCGIFCONF {
		return m.ifconf(c, intercept.Addr(c.Args[2]), rtnetlink.IfreqLen32)
	}
	return m.deviceIoctl(c, unix.AF_UNIX, cmd, intercept.Addr(c.Args[2]), rtnetlink.IfreqLen32)
}
