// SPDX-License-Identifier: Apache-2.0

// Calls of 32-bit programs that name a socket, or may, in a view that has files of its own: see
// duplicate.go.

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
// arguments in a; addresses are the same as for other programs.
func (m *Module) compatUnix(c *intercept.Call, call uint32, a [6]uint32) intercept.Action {
	d, err := c.DupFD(int(int32(a[0])))
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	defer d.Close()
	switch {
	case d.Key.Cookie == 0:
		return intercept.Fail(noSocket(d.N))
	case m.find(d) != nil: // a placeholder that a 64-bit program has passed on
		return intercept.Fail(unix.EAFNOSUPPORT)
	case m.kernel == nil && !isUnix(d):
		return m.foreign(c, d)
	}
	// As a call of the other entry, whose arguments are all that is looked at.
	var args [6]uint64
	for i := range a {
		args[i] = uint64(a[i])
	}
	switch call {
	case callConnect, callBind:
		sa, err := readSockaddr(c, intercept.Addr(a[1]), int32(a[2]))
		if err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		if call == callBind {
			return m.bindTo(c, d, sa)
		}
		return m.connectTo(c, d, sa)
	case callGetsockname, callGetpeername:
		nr := unix.SYS_GETSOCKNAME
		if call == callGetpeername {
			nr = unix.SYS_GETPEERNAME
		}
		return m.nameOfUnix(c, d, nr, intercept.Addr(a[1]), intercept.Addr(a[2]))
	case callSendto:
		return m.sendto(c, d, args)
	case callSendmsg:
		return m.sendmsg(c, d, &compatLayout, args)
	case callSendmmsg:
		return m.sendmmsg(c, d, &compatLayout, args)
	}
	return intercept.Continue()
}

// Of messages of 32-bit programs (linux/compat.h, net/compat.h).
const (
	sizeofCompatMsghdr  = 28
	sizeofCompatCmsghdr = 12
)

var compatLayout = layout{read: readCompatSend, size: sizeofCompatMsghdr + 4, lenAt: sizeofCompatMsghdr}

// readCompatSend is readSend of a 32-bit program's struct msghdr.
func readCompatSend(c *intercept.Call, hdr intercept.Addr, flags int) (*transfer, error) {
	var h [sizeofCompatMsghdr]byte
	if err := c.ReadMem(hdr, h[:]); err != nil {
		return nil, err
	}
	word := func(b []byte, i int) uint32 { return native.Uint32(b[4*i:]) }
	x := &transfer{hdr: hdr, flags: flags}
	var err error
	if name, size := word(h[:], 0), int32(word(h[:], 1)); size < 0 {
		return nil, unix.EINVAL
	} else if name != 0 {
		if x.to, err = readSockaddr(c, intercept.Addr(name), min(size, sockaddrMax)); err != nil {
			return nil, err
		}
	}
	n := word(h[:], 3)
	if n > iovMax {
		return nil, unix.EMSGSIZE
	}
	iov := make([]byte, 8*n)
	if err := c.ReadMem(intercept.Addr(word(h[:], 2)), iov); err != nil {
		return nil, err
	}
	for ; len(iov) > 0; iov = iov[8:] {
		if int32(word(iov, 1)) < 0 {
			return nil, unix.EINVAL
		}
		if err := x.span(uint64(word(iov, 0)), uint64(word(iov, 1))); err != nil {
			return nil, err
		}
	}
	size := word(h[:], 5)
	if size > controlMax {
		return nil, unix.ENOBUFS
	}
	control := make([]byte, size)
	if err := c.ReadMem(intercept.Addr(word(h[:], 4)), control); err != nil {
		return nil, err
	}
	x.ancillary, err = wideControl(control)
	return x, err
}

// wideControl is what 64-bit programs have for control messages of a 32-bit program
// (net/compat.c:cmsghdr_from_user_compat_to_kern).
func wideControl(b []byte) (wide []byte, err error) {
	for len(b) >= sizeofCompatCmsghdr {
		n := int(native.Uint32(b))
		if n < sizeofCompatCmsghdr || n > len(b) {
			return nil, unix.EINVAL
		}
		data := b[sizeofCompatCmsghdr:n]
		at := len(wide)
		wide = append(wide, make([]byte, unix.CmsgSpace(len(data)))...)
		native.PutUint64(wide[at:], uint64(unix.CmsgLen(len(data))))
		copy(wide[at+8:], b[4:12]) // level and type
		copy(wide[at+unix.CmsgLen(0):], data)
		b = b[min((n+3)&^3, len(b)):]
	}
	return wide, nil
}
