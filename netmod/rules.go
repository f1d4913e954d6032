// SPDX-License-Identifier: Apache-2.0

// What traps: the rules that the module hands to intercept.

package netmod

import (
	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// Numbers of the i386 entry (arch/x86/entry/syscalls/syscall_32.tbl).
const (
	i386Ioctl      = 54
	i386Socketcall = 102
	i386Socket     = 359
	i386Connect    = 362
)

// socketcall(2)'s first argument (linux/net.h).
const (
	callSocket  = 1
	callConnect = 3
)

// on is a rule for a call of the native entry.
func on(nr int, f func(*intercept.Call) intercept.Action, args ...intercept.Arg) intercept.Rule {
	return intercept.Rule{NR: nr, Args: args, Do: intercept.Notify, Handler: intercept.HandlerFunc(f)}
}

// passing is the rule r for calls that go on when their descriptor is a known stranger's.
func (m *Module) passing(r intercept.Rule) intercept.Rule {
	r.Pass = m.strangers.pass
	return r
}

// passingSend is passing for calls that may name a socket: where paths are judged none goes on
// unseen.
func (m *Module) passingSend(r intercept.Rule) intercept.Rule {
	if m.paths != nil {
		return r
	}
	return m.passing(r)
}

// compat is one for a call of the i386 entry.
func compat(nr int, f func(*intercept.Call) intercept.Action, args ...intercept.Arg) intercept.Rule {
	r := on(nr, f, args...)
	r.Arch = intercept.I386
	return r
}

// Rules declares what the module must see. A call without an entry here is the
// kernel's own and costs nothing.
func (m *Module) Rules() intercept.Rules {
	if m.kernel != nil {
		return m.kernelRules()
	}
	rules := intercept.Rules{
		on(unix.SYS_CONNECT, m.handleConnect),
		on(unix.SYS_BIND, m.handleBind),
		on(unix.SYS_LISTEN, m.handleListen),
		on(unix.SYS_ACCEPT, m.handleAccept),
		on(unix.SYS_ACCEPT4, m.handleAccept),
		on(unix.SYS_GETSOCKNAME, m.handleGetsockname),
		on(unix.SYS_GETPEERNAME, m.handleGetpeername),
		on(unix.SYS_SHUTDOWN, m.handleShutdown),
		on(unix.SYS_SETSOCKOPT, m.handleSetsockopt),
		on(unix.SYS_GETSOCKOPT, m.handleGetsockopt),

		// Without an address, and without flags that AF_UNIX takes another way,
		// the placeholder does it.
		on(unix.SYS_SENDTO, m.handleSendto, intercept.ArgNonZero(4)),
		on(unix.SYS_SENDTO, m.handleSendto, intercept.ArgEqual32(2, dumpRequest)),
		on(unix.SYS_SENDTO, m.handleSendto, intercept.ArgMasked(3, unix.MSG_MORE, unix.MSG_MORE)),
		on(unix.SYS_SENDTO, m.handleSendto, intercept.ArgMasked(3, unix.MSG_OOB, unix.MSG_OOB)),
		on(unix.SYS_RECVFROM, m.handleRecvfrom, intercept.ArgNonZero(4)),
		on(unix.SYS_RECVFROM, m.handleRecvfrom, intercept.ArgMasked(3, unix.MSG_ERRQUEUE, unix.MSG_ERRQUEUE)),
		on(unix.SYS_RECVFROM, m.handleRecvfrom, intercept.ArgMasked(3, unix.MSG_TRUNC, unix.MSG_TRUNC)),

		// The address is in memory.
		m.passingSend(on(unix.SYS_SENDMSG, m.handleSendmsg)),
		m.passingSend(on(unix.SYS_SENDMMSG, m.handleSendmmsg)),
		m.passing(on(unix.SYS_RECVMSG, m.handleRecvmsg)),
		m.passing(on(unix.SYS_RECVMMSG, m.handleRecvmmsg)),

		// Socket ioctls, and the size of the send queue.
		on(unix.SYS_IOCTL, m.handleIoctl, intercept.ArgMasked(1, 0xffffff00, 0x8900)),
		on(unix.SYS_IOCTL, m.handleIoctl, intercept.ArgMasked(1, 0xffffff00, 0x8b00)), // wireless
		on(unix.SYS_IOCTL, m.handleIoctl, intercept.ArgEqual32(1, unix.TIOCOUTQ)),
		on(unix.SYS_IOCTL, m.handleIoctl, intercept.ArgMasked(1, 0xfffffffe, siocgstampNew)), // and siocgstampnsNew

		// 32-bit programs have no inet sockets, but the doors are watched.
		compat(i386Socketcall, m.handleSocketcall),
		compat(i386Ioctl, m.handleCompatIoctl, intercept.ArgMasked(1, 0xffffff00, 0x8900)),
		compat(i386Ioctl, m.handleCompatIoctl, intercept.ArgMasked(1, 0xffffff00, 0x8b00)),
	}
	if m.paths != nil {
		rules = append(rules, m.compatUnixRules()...)
	} else {
		rules = append(rules, compat(i386Connect, m.handleCompatConnect))
	}
	for _, args := range notAFUnix() {
		rules = append(rules,
			on(unix.SYS_SOCKET, m.handleSocket, args),
			on(unix.SYS_SOCKETPAIR, m.handleSocketpair, args),
			compat(i386Socket, m.handleSocket, args))
	}
	return append(rules, m.landlockRules()...)
}

// notAFUnix returns conditions of which at least one holds exactly when the low 32
// bits of argument 0 are not AF_UNIX (1): a condition can compare with a mask, but
// not for "differs", so one is made for each bit.
func notAFUnix() []intercept.Arg {
	args := []intercept.Arg{intercept.ArgMasked(0, 1, 0)}
	for bit := 1; bit < 32; bit++ {
		args = append(args, intercept.ArgMasked(0, 1<<bit, 1<<bit))
	}
	return args
}

// handleSocketpair answers socketpair(2) for all families but AF_UNIX: inet has
// none, and the others do not exist here.
func (m *Module) handleSocketpair(c *intercept.Call) intercept.Action {
	switch int32(c.Args[0]) {
	case unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET:
		return intercept.Fail(unix.EOPNOTSUPP)
	}
	return intercept.Fail(unix.EAFNOSUPPORT)
}

// handleShutdown answers shutdown(2).
func (m *Module) handleShutdown(c *intercept.Call) intercept.Action {
	return m.with(c, func(s socket, d *held) intercept.Action {
		how := int(int32(c.Args[1]))
		if how < unix.SHUT_RD || how > unix.SHUT_RDWR {
			return intercept.Fail(unix.EINVAL)
		}
		return s.shutdown(c, d.FD, how)
	})
}
