// SPDX-License-Identifier: Apache-2.0

// Kernel stacks: the program gets sockets of a network namespace, and is left alone.

package netmod

import (
	"slices"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// families are those that a network namespace contains. Of others some lead out of any
// (AF_VSOCK, AF_ALG), and the rest exists nowhere here.
var families = []int{unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET}

// protocols are those of netlink(7) that speak of a network namespace. Others are about
// the machine (NETLINK_AUDIT), or reach its network in the kernel (NETLINK_ISCSI).
var protocols = []int{
	unix.NETLINK_ROUTE, unix.NETLINK_USERSOCK, unix.NETLINK_INET_DIAG, unix.NETLINK_XFRM, unix.NETLINK_FIB_LOOKUP,
	unix.NETLINK_NETFILTER, unix.NETLINK_KOBJECT_UEVENT, unix.NETLINK_GENERIC,
}

// sockPacket is SOCK_PACKET, the packet sockets of Linux 2.0 (packet(7)).
const sockPacket = 10

// kernelRules declares what traps where the program holds the stack's own sockets.
// connect(2) is there for the doors alone: which family it is for stands in memory.
func (m *Module) kernelRules() intercept.Rules {
	var rules intercept.Rules
	switch {
	case m.paths != nil:
		rules = append(rules, m.unixRules()...)
		rules = append(rules, m.compatUnixRules()...)
	case m.conf.Doors != nil:
		rules = append(rules,
			on(unix.SYS_CONNECT, m.handleKernelConnect),
			compat(i386Connect, m.handleKernelConnect))
	}
	if m.paths == nil {
		rules = append(rules, m.kernelBindRules()...)
	}
	if m.paths != nil || m.bars {
		rules = append(rules, m.landlockRules()...)
	}
	rules = append(rules, compat(i386Socketcall, m.handleKernelSocketcall))
	if m.kernel.Namespace().Inode == m.netns {
		return append(rules, familyRules()...)
	}
	// Sockets of AF_UNIX are of the namespace that the program is in.
	for _, r := range []uint64{0x8900, 0x8b00} {
		rules = append(rules,
			on(unix.SYS_IOCTL, m.handleKernelIoctl, intercept.ArgMasked(1, 0xffffff00, r)),
			compat(i386Ioctl, m.handleKernelIoctl, intercept.ArgMasked(1, 0xffffff00, r)))
	}
	for _, args := range notAFUnix() {
		rules = append(rules,
			on(unix.SYS_SOCKET, m.handleKernelSocket, args),
			on(unix.SYS_SOCKETPAIR, m.handleSocketpair, args),
			compat(i386Socket, m.handleKernelSocket, args))
	}
	return rules
}

// familyRules let the kernel make sockets of the namespace that the program is in,
// but those of other families.
func familyRules() intercept.Rules {
	var rules intercept.Rules
	for family := range uint32(64) { // one more than AF_MAX will be for long, and a power of two
		switch int(family) {
		case unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET:
			continue
		}
		rules = append(rules, refuseFamily(intercept.ArgEqual32(0, family))...)
	}
	for bit := 6; bit < 32; bit++ {
		rules = append(rules, refuseFamily(intercept.ArgMasked(0, 1<<bit, 1<<bit))...)
	}
	return rules
}

// refuseFamily refuses socket(2) and socketpair(2) where a holds.
func refuseFamily(a intercept.Arg) intercept.Rules {
	no := intercept.Deny(unix.EAFNOSUPPORT)
	return intercept.Rules{
		{NR: unix.SYS_SOCKET, Args: []intercept.Arg{a}, Do: no},
		{NR: unix.SYS_SOCKETPAIR, Args: []intercept.Arg{a}, Do: no},
		{Arch: intercept.I386, NR: i386Socket, Args: []intercept.Arg{a}, Do: no},
	}
}

// handleKernelSocket answers socket(2).
func (m *Module) handleKernelSocket(c *intercept.Call) intercept.Action {
	m.active()
	return m.kernelSocket(c, int(int32(c.Args[0])), int(int32(c.Args[1])), int(int32(c.Args[2])))
}

// active says that the program does something with the network.
func (m *Module) active() {
	if m.conf.Active != nil {
		m.conf.Active()
	}
}

// kernelSocket installs a socket of the stack's namespace.
func (m *Module) kernelSocket(c *intercept.Call, family, typ, proto int) intercept.Action {
	if !namespaced(family) {
		return intercept.Fail(unix.EAFNOSUPPORT)
	}
	// See handleSocket.
	if ns, err := c.NetNS(); err != nil || ns != m.netns {
		return intercept.Fail(unix.EACCES)
	}
	flags := typ &^ 0xf
	typ &= 0xf
	if flags&^(unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC) != 0 || typ >= sockMax {
		return intercept.Fail(unix.EINVAL)
	}
	if family == unix.AF_NETLINK && (typ == unix.SOCK_RAW || typ == unix.SOCK_DGRAM) && !slices.Contains(protocols, proto) {
		return intercept.Fail(unix.EPROTONOSUPPORT)
	}
	if raw := family == unix.AF_PACKET || family != unix.AF_NETLINK && (typ == unix.SOCK_RAW || typ == sockPacket); raw && !m.kernel.Namespace().Private && !mayRaw(c) {
		return intercept.Fail(unix.EPERM)
	}
	if m.installing.Load() == 0 {
		if fd, ok := m.kernel.ReadyFD(family, typ, proto); ok {
			m.claimKernel(fd, c)
			return installKernel(fd, flags)
		}
	}
	return m.parkKernel(c, family, typ, proto, flags)
}

// parkKernel has a socket made by who may have to wait for it, in the background.
//
// The program may close its socket before we have closed ours, and then expects its port
// to be free for the next one. So sockets are installed one after the other: the next
// call is answered when nothing is left of the one before.
func (m *Module) parkKernel(c *intercept.Call, family, typ, proto, flags int) intercept.Action {
	m.installing.Add(1)
	m.wg.Go(func() {
		m.install.Lock()
		defer m.installing.Add(-1)
		defer m.install.Unlock()
		fd, err := m.kernel.SocketFD(family, typ, proto)
		if err != nil {
			c.Complete(intercept.Fail(intercept.Errno(err)))
			return
		}
		m.claimKernel(fd, c)
		if !c.Complete(installKernel(fd, flags)) {
			unix.Close(fd)
		}
	})
	return c.Park(func(intercept.Reason) intercept.Action { return intercept.Fail(restartNoIntr) })
}

// restartNoIntr is ERESTARTNOINTR (linux/errno.h): the call comes again after a
// signal's handler, whatever sigaction(2) was told, since socket(2) never ends with
// EINTR. Like ERESTARTSYS it never reaches the program while a signal waits.
const restartNoIntr = unix.Errno(513)

// installKernel hands fd to the program.
func installKernel(fd, flags int) intercept.Action {
	if flags&unix.SOCK_NONBLOCK != 0 {
		if err := unix.SetNonblock(fd, true); err != nil {
			unix.Close(fd)
			return intercept.Fail(intercept.Errno(err))
		}
	}
	return intercept.InstallFD(fd, flags&unix.SOCK_CLOEXEC != 0)
}

// namespaced tells whether sockets of a family are confined to a network namespace.
func namespaced(family int) bool {
	return slices.Contains(families, family)
}

// mayRaw tells whether the thread has CAP_NET_RAW here: the stack's namespace is not
// the view's own, so that what others must not do there the program must not either.
func mayRaw(c *intercept.Call) bool { return c.Capable(unix.CAP_NET_RAW) }

// handleKernelSocketcall answers socketcall(2): see handleSocketcall.
func (m *Module) handleKernelSocketcall(c *intercept.Call) intercept.Action {
	switch call := uint32(c.Args[0]); {
	case call == callSocket:
	case m.paths != nil:
		return m.compatUnixCall(c)
	case call == callConnect && m.conf.Doors != nil, call == callBind && m.bars:
	default:
		return intercept.Continue()
	}
	var b [12]byte
	if err := c.ReadMem(intercept.Addr(c.Args[1]), b[:]); err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	a0, a1, a2 := native.Uint32(b[0:]), native.Uint32(b[4:]), native.Uint32(b[8:])
	switch {
	case uint32(c.Args[0]) == callBind:
		return m.kernelBind(c, int(int32(a0)), intercept.Addr(a1), int32(a2))
	case uint32(c.Args[0]) == callConnect:
		return m.kernelConnect(c, int(int32(a0)), intercept.Addr(a1), int32(a2))
	case int32(a0) == unix.AF_UNIX:
		return makeUnix(int(int32(a1)), int(int32(a2)))
	}
	return m.kernelSocket(c, int(int32(a0)), int(int32(a1)), int(int32(a2)))
}

// handleKernelConnect judges where AF_UNIX sockets connect to.
func (m *Module) handleKernelConnect(c *intercept.Call) intercept.Action {
	return m.kernelConnect(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), int32(c.Args[2]))
}

// kernelConnect looks at the address alone, since only AF_UNIX sockets take one of
// AF_UNIX. As for other stacks the doors are judged by a copy, and the kernel connects:
// with the program's own credentials, and against mistakes, not against malice.
func (m *Module) kernelConnect(c *intercept.Call, fd int, addr intercept.Addr, length int32) intercept.Action {
	if length < 2 || length > sockaddrMax {
		return intercept.Continue() // the kernel has the errno
	}
	var b [sockaddrMax]byte
	sa := b[:length]
	if err := c.ReadMem(addr, sa); err != nil {
		if d, err := c.DupFD(fd); err == nil {
			d.Close()
		} else { // which the kernel looks at first
			return intercept.Fail(intercept.Errno(err))
		}
		return intercept.Fail(intercept.Errno(err))
	}
	if sockaddrFamily(sa) == unix.AF_UNIX {
		c.About("AF_UNIX")
		if err := m.conf.Doors.Judge(c.Task, sa); err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
	}
	return intercept.Continue()
}

// handleKernelIoctl answers what AF_UNIX sockets are asked about interfaces from the
// stack's namespace; other sockets are there.
func (m *Module) handleKernelIoctl(c *intercept.Call) intercept.Action {
	fd, err := c.DupFD(int(int32(c.Args[0])))
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	defer fd.Close()
	if !isUnix(fd) {
		return intercept.Continue()
	}
	if c.Arch == intercept.I386 {
		return m.handleCompatIoctl(c)
	}
	return m.handleIoctl(c)
}
