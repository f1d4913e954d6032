// SPDX-License-Identifier: Apache-2.0

// bind(2) where the program holds the kernel stack's own sockets: its domain refuses
// those of TCP.

package netmod

import (
	"fmt"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// A target is in a Landlock domain (package intercept), and the kernel refuses it bind(2)
// of stream sockets of AF_INET and AF_INET6: before Linux 6.14 all of them, then those of
// TCP. So these are bound here, by a duplicate, with a copy of the address, and the
// program's rights. All others the kernel binds. In a view with files of its own all are
// bound in such a way (duplicate.go).

// kernelBindRules are none where there are no domains.
func (m *Module) kernelBindRules() intercept.Rules {
	if !m.bars {
		return nil
	}
	return intercept.Rules{
		on(unix.SYS_BIND, m.handleKernelBind),
		compat(i386Bind, m.handleKernelBind),
	}
}

func (m *Module) handleKernelBind(c *intercept.Call) intercept.Action {
	return m.kernelBind(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), int32(c.Args[2]))
}

// kernelBind judges nothing: what should not have gone on the domain refuses.
func (m *Module) kernelBind(c *intercept.Call, fd int, addr intercept.Addr, length int32) intercept.Action {
	sa, err := readSockaddr(c, addr, length)
	if err != nil {
		return intercept.Continue() // the kernel has the errno
	}
	switch sockaddrFamily(sa) {
	case unix.AF_UNIX, unix.AF_NETLINK, unix.AF_PACKET: // glibc asks netlink at each lookup of a name
		return intercept.Continue()
	}
	d, err := c.DupFD(fd)
	if errno := intercept.Errno(err); errno == unix.EPERM { // it may not be looked into
		return intercept.Continue()
	} else if err != nil {
		return intercept.Fail(errno)
	}
	defer d.Close()
	if !isInetStream(d) {
		return intercept.Continue()
	}
	return result(bindFor(c, d.N, sa))
}

// isInetStream reports whether d is a stream socket of AF_INET or AF_INET6.
func isInetStream(d intercept.FD) bool {
	if domain := domainOf(d); domain != unix.AF_INET && domain != unix.AF_INET6 {
		return false
	}
	typ, err := unix.GetsockoptInt(d.N, unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil && typ == unix.SOCK_STREAM
}

// bindFor binds a socket for the calling thread. What rights decide is whether a low port
// may be had (CAP_NET_BIND_SERVICE over the socket's namespace): a right that we have and
// the caller has not is laid down by the thread that binds. Over a namespace
// that our user owns we have it either way, and so have the user's programs.
func bindFor(c *intercept.Call, fd int, sa []byte) (err error) {
	const low = 1 << unix.CAP_NET_BIND_SERVICE
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	if caps[0].Effective&low == 0 || c.Capable(unix.CAP_NET_BIND_SERVICE) {
		return nameCall(unix.SYS_BIND, fd, sa)
	}
	caps[0].Effective &^= low
	intercept.OnThread(func() {
		if err = unix.Capset(&hdr, &caps[0]); err != nil {
			err = fmt.Errorf("lay down CAP_NET_BIND_SERVICE: %w", err)
			return
		}
		err = nameCall(unix.SYS_BIND, fd, sa)
	})
	return err
}
