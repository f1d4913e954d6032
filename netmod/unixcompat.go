// SPDX-License-Identifier: Apache-2.0

// AF_UNIX addresses of 32-bit programs, in a view that has files of its own.

package netmod

import (
	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// Numbers of the i386 entry (arch/x86/entry/syscalls/syscall_32.tbl).
const (
	i386Sendmmsg    = 345
	i386Bind        = 361
	i386Getsockname = 367
	i386Getpeername = 368
	i386Sendto      = 369
	i386Sendmsg     = 370
)

// socketcall(2)'s first argument (linux/net.h).
const (
	callBind        = 2
	callGetsockname = 6
	callGetpeername = 7
	callSendto      = 11
	callSendmsg     = 16
	callSendmmsg    = 20
)

// compatUnixRules are those of calls that name a socket.
func (m *Module) compatUnixRules() intercept.Rules {
	var rules intercept.Rules
	for nr, call := range map[int]uint32{
		i386Connect: callConnect, i386Bind: callBind, i386Getsockname: callGetsockname, i386Getpeername: callGetpeername,
		i386Sendto: callSendto, i386Sendmsg: callSendmsg, i386Sendmmsg: callSendmmsg,
	} {
		rules = append(rules, compat(nr, func(c *intercept.Call) intercept.Action {
			var a [6]uint32
			for i := range a {
				a[i] = uint32(c.Args[i])
			}
			return m.compatUnix(c, call, a)
		}))
	}
	return rules
}

// compatUnixCall answers socketcall(2) of such calls.
func (m *Module) compatUnixCall(c *intercept.Call) intercept.Action {
	call := uint32(c.Args[0])
	words := map[uint32]int{callConnect: 3, callBind: 3, callGetsockname: 3, callGetpeername: 3, callSendto: 6, callSendmsg: 3, callSendmmsg: 4}[call]
	if words == 0 {
		return intercept.Continue()
	}
	b := make([]byte, 4*words)
	if err := c.ReadMem(intercept.Addr(c.Args[1]), b); err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	var a [6]uint32
	for i := range words {
		a[i] = native.Uint32(b[4*i:])
	}
	return m.compatUnix(c, call, a)
}

// compatUnix answers a call by its number in socketcall(2). What is served has its
// arguments in a; addresses are the same as for other programs. Of messages only those
// of sendto(2) are: sendmsg(2) and sendmmsg(2) to an address say EOPNOTSUPP.
func (m *Module) compatUnix(c *intercept.Call, call uint32, a [6]uint32) intercept.Action {
	d, err := c.DupFD(int(int32(a[0])))
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	defer d.Close()
	if m.find(d) != nil { // a placeholder that a 64-bit program has passed on
		return intercept.Fail(unix.EAFNOSUPPORT)
	}
	if !isUnix(d) {
		if m.kernel != nil {
			return intercept.Continue()
		}
		return m.foreign(c, d)
	}
	// As a call of the other entry, whose arguments are all that is looked at.
	switch call {
	case callConnect, callBind:
		sa, err := readSockaddr(c, intercept.Addr(a[1]), int32(a[2]))
		if err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		if call == callBind {
			return m.bindUnixTo(c, d, sa)
		}
		return m.connectUnix(c, d, sa)
	case callGetsockname, callGetpeername:
		nr := unix.SYS_GETSOCKNAME
		if call == callGetpeername {
			nr = unix.SYS_GETPEERNAME
		}
		return m.nameOfUnix(c, d, nr, intercept.Addr(a[1]), intercept.Addr(a[2]))
	}
	if !isUnixDatagram(d) {
		return intercept.Continue()
	}
	x := &transfer{}
	switch call {
	case callSendto:
		if a[4] == 0 {
			return intercept.Continue()
		}
		x.flags = int(int32(a[3]))
		if err := x.span(uint64(a[1]), uint64(a[2])); err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		if x.to, err = readSockaddr(c, intercept.Addr(a[4]), int32(a[5])); err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		return m.sendUnix(c, d, x)
	case callSendmsg, callSendmmsg:
		const header, word = 32, 4 // struct compat_mmsghdr, and of its pointers
		n := 1
		if call == callSendmmsg {
			n = int(min(a[2], iovMax))
		}
		switch named, err := addressed(c, intercept.Addr(a[1]), n, header, word); {
		case err != nil:
			return intercept.Fail(intercept.Errno(err))
		case named:
			return intercept.Fail(unix.EOPNOTSUPP)
		}
	}
	return intercept.Continue()
}
