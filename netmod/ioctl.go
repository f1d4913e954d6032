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
	// The same with 64 bits of time, which C programs have.
	siocgstampNew   = 0x80108906
	siocgstampnsNew = 0x80108907
	siocoutqnsd     = 0x894b
	siocprotoMin    = 0x89e0 // SIOCPROTOPRIVATE: of the family, SIOCUNIXFILE among them
	siocprotoMax    = 0x89ef
)

// handleIoctl answers ioctls of the socket range on whatever socket, and TIOCOUTQ
// (SIOCOUTQ) on the module's. The command is the kernel's unsigned int.
func (m *Module) handleIoctl(c *intercept.Call) intercept.Action {
	fd, err := m.dup(c)
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
	case siocatmark:
		if _, ok := s.(*packet); ok {
			return intercept.Fail(unix.ENOTTY)
		}
		return intercept.Continue()
	case fiosetown, siocspgrp, fiogetown, siocgpgrp:
		return intercept.Continue()
	case siocgstamp, siocgstampns, siocgstampNew, siocgstampnsNew:
		if s == nil {
			return intercept.Continue()
		}
		if p, ok := s.(*packet); ok && p.family != unix.AF_NETLINK {
			return p.gstamp(c, arg, cmd == siocgstampns || cmd == siocgstampnsNew)
		}
		return intercept.Fail(unix.ENOENT) // a stream gets no datagrams
	}
	if cmd >= siocprotoMin && cmd <= siocprotoMax {
		if s == nil {
			return intercept.Continue()
		}
		return intercept.Fail(unix.ENOTTY)
	}
	family := unix.AF_UNSPEC // of another kind of socket, or not ours
	if s != nil {
		family = s.common().family
	}
	switch cmd {
	case unix.SIOCGIFCONF:
		return m.ifconf(c, arg, rtnetlink.IfreqLen)
	case unix.SIOCETHTOOL:
		return m.ethtool(c, arg)
	case unix.SIOCADDRT, unix.SIOCDELRT:
		return m.routeIoctl(c, family, cmd == unix.SIOCDELRT, arg)
	case unix.SIOCSIFADDR, unix.SIOCDIFADDR:
		if family == unix.AF_INET6 {
			return m.changeIoctl(c, arg, rtnetlink.In6IfreqLen, func(set rtnetlink.Setter, b []byte) unix.Errno {
				return rtnetlink.Addr6Ioctl(m.stack.State(), set, cmd == unix.SIOCDIFADDR, b)
			})
		}
	}
	return m.deviceIoctl(c, family, cmd, arg, rtnetlink.IfreqLen)
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
func (m *Module) deviceIoctl(c *intercept.Call, family int, cmd uint32, arg intercept.Addr, size int) intercept.Action {
	ifr := make([]byte, size)
	if err := c.ReadMem(arg, ifr); err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	m.changing.Lock()
	n, errno := rtnetlink.Ioctl(m.stack.State(), m.setState(), family, cmd, ifr)
	m.changing.Unlock()
	if errno != 0 {
		return intercept.Fail(errno)
	}
	if n > 0 {
		return result(c.WriteMem(arg, ifr[:n]))
	}
	return intercept.Return(0)
}

// changeIoctl reads a structure of n bytes and has f change the state by it.
func (m *Module) changeIoctl(c *intercept.Call, arg intercept.Addr, n int, f func(set rtnetlink.Setter, b []byte) unix.Errno) intercept.Action {
	b := make([]byte, n)
	if err := c.ReadMem(arg, b); err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	m.changing.Lock()
	defer m.changing.Unlock()
	if errno := f(m.setState(), b); errno != 0 {
		return intercept.Fail(errno)
	}
	return intercept.Return(0)
}

// routeIoctl is SIOCADDRT and SIOCDELRT, which each family has a structure for.
func (m *Module) routeIoctl(c *intercept.Call, family int, del bool, arg intercept.Addr) intercept.Action {
	switch family {
	case unix.AF_INET, unix.AF_PACKET:
		var device string
		return m.changeIoctl(c, arg, rtnetlink.RtentryLen, func(set rtnetlink.Setter, b []byte) unix.Errno {
			if at := native.Uint64(b[rtnetlink.RtentryDevice:]); at != 0 {
				name := make([]byte, unix.IFNAMSIZ-1)
				if err := c.ReadMem(intercept.Addr(at), name); err != nil {
					return intercept.Errno(err)
				}
				device = cString(name)
			}
			return rtnetlink.RouteIoctl(m.stack.State(), set, del, b, device)
		})
	case unix.AF_INET6:
		return m.changeIoctl(c, arg, rtnetlink.In6RtmsgLen, func(set rtnetlink.Setter, b []byte) unix.Errno {
			return rtnetlink.Route6Ioctl(m.stack.State(), set, del, b)
		})
	}
	return intercept.Fail(unix.ENOTTY)
}

// ethtool is SIOCETHTOOL, whose ifreq points to another structure.
func (m *Module) ethtool(c *intercept.Call, arg intercept.Addr) intercept.Action {
	ifr := make([]byte, rtnetlink.IfreqLen)
	if err := c.ReadMem(arg, ifr); err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	ifr[unix.IFNAMSIZ-1] = 0
	data := intercept.Addr(native.Uint64(ifr[unix.IFNAMSIZ:]))
	in := make([]byte, rtnetlink.EthtoolLen)
	if err := c.ReadMem(data, in[:4]); err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	// Not all structures are that long.
	_ = c.ReadMem(data, in)
	out, errno := rtnetlink.Ethtool(m.stack.State(), ifr, in)
	if errno != 0 {
		return intercept.Fail(errno)
	}
	return result(c.WriteMem(data, out))
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
