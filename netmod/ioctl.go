// SPDX-License-Identifier: Apache-2.0

// ioctl(2) on sockets: the view's interfaces, and the size of a send queue.

package netmod

import (
	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/netmod/rtnetlink"
	"umrun/stacks"
)

// Socket ioctls that concern the file, not the network (asm-generic/sockios.h).
const (
	fiosetown    = 0x8901
	siocspgrp    = 0x8902
	fiogetown    = 0x8903
	siocgpgrp    = 0x8904
	siocatmark   = 0x8905
	siocgstamp   = 0x8906
	siocgstampns = 0x8907
	siocoutqnsd  = 0x894b
	siocprotoMin = 0x89e0 // SIOCPROTOPRIVATE: of the family, SIOCUNIXFILE among them
	siocprotoMax = 0x89ef
)

// handleIoctl answers ioctls of the socket range on whatever socket, and TIOCOUTQ
// (SIOCOUTQ) on the module's. The command is the kernel's unsigned int.
func (m *Module) handleIoctl(c *intercept.Call) intercept.Action {
	fd, err := c.DupFD(int(int32(c.Args[0])))
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	defer fd.Close()
	if !fd.IsSocket() {
		return intercept.Continue()
	}
	cmd, arg := uint32(c.Args[1]), intercept.Addr(c.Args[2])
	s := m.find(fd)
	switch cmd {
	case unix.TIOCOUTQ, siocoutqnsd:
		if s == nil {
			return intercept.Continue()
		}
		n, err := outq(s, cmd == siocoutqnsd)
		if err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		return result(c.WriteMem(arg, int32Value(n)))
	case fiosetown, siocspgrp, fiogetown, siocgpgrp, siocatmark:
		return intercept.Continue()
	case siocgstamp, siocgstampns:
		if s == nil {
			return intercept.Continue()
		}
		return intercept.Fail(unix.ENOENT) // as with timestamps off
	}
	if cmd >= siocprotoMin && cmd <= siocprotoMax {
		if s == nil {
			return intercept.Continue()
		}
		return intercept.Fail(unix.ENOTTY)
	}
	return m.deviceIoctl(c, cmd, arg, rtnetlink.IfreqLen)
}

// outq is SIOCOUTQ (bytes not acknowledged) and SIOCOUTQNSD (not sent, which is
// told as the same) of tcp(7), udp(7).
func outq(s socket, unsent bool) (int, error) {
	switch s := s.(type) {
	case *stream:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.state == listening {
			return 0, unix.EINVAL
		}
		return s.unsentLocked(), nil
	case *packet:
		n, _ := s.pending()
		return n, nil
	}
	return 0, unix.ENOTTY
}

// unsentLocked is how many bytes the program wrote that were not acknowledged. The
// mutex is held.
func (s *stream) unsentLocked() int {
	if s.state != connected {
		return 0
	}
	n := 0
	if s.peer >= 0 {
		n, _ = unix.IoctlGetInt(s.peer, unix.TIOCINQ)
		n = max(n-s.lag, 0)
	}
	if u, ok := s.ep.(stacks.Unacked); ok {
		b, _ := u.Unacked()
		n += b
	}
	return n
}

// deviceIoctl answers netdevice(7) from the view's state.
func (m *Module) deviceIoctl(c *intercept.Call, cmd uint32, arg intercept.Addr, size int) intercept.Action {
	if cmd == unix.SIOCGIFCONF {
		return m.ifconf(c, arg, size)
	}
	ifr := make([]byte, size)
	if err := c.ReadMem(arg, ifr); err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	m.changing.Lock()
	n, errno := rtnetlink.Ioctl(m.stack.State(), m.setState(), cmd, ifr)
	m.changing.Unlock()
	if errno != 0 {
		return intercept.Fail(errno)
	}
	if n > 0 {
		return result(c.WriteMem(arg, ifr[:n]))
	}
	return intercept.Return(0)
}

// ifconf answers SIOCGIFCONF: struct ifconf is a length and a pointer, which may
// be null to ask for the length alone.
func (m *Module) ifconf(c *intercept.Call, arg intercept.Addr, size int) intercept.Action {
	var b [16]byte
	ptr := 8
	if size == rtnetlink.IfreqLen32 {
		ptr = 4
	}
	if err := c.ReadMem(arg, b[:2*ptr]); err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	room := int(int32(native.Uint32(b[:])))
	buf := intercept.Addr(native.Uint32(b[4:]))
	if ptr == 8 {
		buf = intercept.Addr(native.Uint64(b[8:]))
	}
	if buf == 0 {
		room = 1 << 20
	}
	out := rtnetlink.Ifconf(m.stack.State(), size, room)
	if buf != 0 && len(out) > 0 {
		if err := c.WriteMem(buf, out); err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
	}
	return result(c.WriteMem(arg, int32Value(len(out))))
}
