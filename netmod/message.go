// SPDX-License-Identifier: Apache-2.0

// Messages in the target's memory, and sending them.

package netmod

import (
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/stacks"
)

// Sizes of struct msghdr and mmsghdr on 64-bit machines (bits/socket.h).
const (
	sizeofMsghdr  = 56
	sizeofMmsghdr = 64
	iovMax        = 1024 // UIO_MAXIOV
)

// A transfer is a decoded sendto, sendmsg, recvfrom or recvmsg.
type transfer struct {
	iov        [][2]uint64 // base, length
	size       int         // bytes in iov, at most datagramMax
	flags      int
	name       intercept.Addr
	nameLen    intercept.Addr // where the length of the name is stored when receiving; 0: in hdr
	room       int            // for the name
	to         []byte         // the copied destination when sending
	control    intercept.Addr
	controlLen int
	ancillary  []byte         // the copied control messages when sending
	hdr        intercept.Addr // struct msghdr; 0 for sendto and recvfrom
	batch      *batch         // of recvmmsg
}

var buffers = sync.Pool{New: func() any { b := make([]byte, datagramMax); return &b }}

func getBuffer() *[]byte  { return buffers.Get().(*[]byte) }
func putBuffer(b *[]byte) { buffers.Put(b) }

// recvOnce receives one datagram of the pair without blocking. With MSG_TRUNC in
// flags it returns the full size.
func recvOnce(fd int, p []byte, flags int) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, p, flags|unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// markDatagrams makes the kernel add a control message to every datagram that is
// received from fd, and so lets recvMarked tell an empty one from the end.
func markDatagrams(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMP_NEW, 1)
}

// recvMarked is recvOnce for the module's end of a pair. recvmsg(2) returns 0 for
// an empty datagram and also, again and again, when the other end is closed or
// shut down for writing; only a datagram has a time stamp.
func recvMarked(fd int, p []byte) (n int, ended bool, err error) {
	var control [64]byte // one struct __kernel_sock_timeval, 32 bytes with its header
	for {
		n, oob, _, _, err := unix.Recvmsg(fd, p, control[:], unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			return max(n, 0), err == nil && n == 0 && oob == 0, err
		}
	}
}

// send writes one datagram into the pair without blocking.
func send(fd int, p []byte) error {
	for {
		_, err := unix.SendmsgN(fd, p, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// readMsghdr decodes struct msghdr at addr and copies the address and the control
// messages of one that is sent. The order is that of net/socket.c:copy_msghdr_from_user.
func readMsghdr(c *intercept.Call, addr intercept.Addr, sending bool) (*transfer, error) {
	var h [sizeofMsghdr]byte
	if err := c.ReadMem(addr, h[:]); err != nil {
		return nil, err
	}
	x := &transfer{
		hdr:        addr,
		name:       intercept.Addr(native.Uint64(h[0:])),
		room:       int(int32(native.Uint32(h[8:]))),
		control:    intercept.Addr(native.Uint64(h[32:])),
		controlLen: int(min(native.Uint64(h[40:]), 1<<20)),
	}
	if x.name == 0 {
		x.room = 0
	}
	if x.room < 0 {
		return nil, unix.EINVAL
	}
	x.room = min(x.room, sockaddrMax)
	if sending {
		var err error
		if x.to, err = readSockaddr(c, x.name, int32(x.room)); err != nil {
			return nil, err
		}
	}
	n := native.Uint64(h[24:])
	if n > iovMax {
		return nil, unix.EMSGSIZE
	}
	if n > 0 {
		b := make([]byte, n*16)
		if err := c.ReadMem(intercept.Addr(native.Uint64(h[16:])), b); err != nil {
			return nil, err
		}
		for i := range n {
			if err := x.span(native.Uint64(b[i*16:]), native.Uint64(b[i*16+8:])); err != nil {
				return nil, err
			}
		}
	}
	if sending && x.controlLen > 0 {
		if x.controlLen > controlMax {
			return nil, unix.ENOBUFS
		}
		x.ancillary = make([]byte, x.controlLen)
		if err := c.ReadMem(x.control, x.ancillary); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// span adds a buffer. Beyond datagramMax nothing is copied, but a sender must
// know that there is more.
func (x *transfer) span(base, length uint64) error {
	if int64(length) < 0 {
		return unix.EINVAL
	}
	x.iov = append(x.iov, [2]uint64{base, length})
	x.size += int(min(length, 2*datagramMax))
	if x.size > 2*datagramMax {
		x.size = 2 * datagramMax
	}
	return nil
}

// gather copies what is to be sent into p and returns how much it is.
func (x *transfer) gather(c *intercept.Call, p []byte) (int, error) {
	n := 0
	for _, v := range x.iov {
		m := int(min(v[1], uint64(len(p)-n)))
		if m == 0 {
			continue
		}
		if err := c.ReadMem(intercept.Addr(v[0]), p[n:n+m]); err != nil {
			return 0, err
		}
		n += m
	}
	return n, nil
}

// scatter stores what was received and returns how much fitted.
func (x *transfer) scatter(c *intercept.Call, p []byte) (int, error) {
	n := 0
	for _, v := range x.iov {
		m := int(min(v[1], uint64(len(p)-n)))
		if m == 0 {
			continue
		}
		if err := c.WriteMem(intercept.Addr(v[0]), p[n:n+m]); err != nil {
			return 0, err
		}
		n += m
	}
	return n, nil
}

// handleSendto answers sendto(2) with an address.
func (m *Module) handleSendto(c *intercept.Call) intercept.Action {
	return m.withUnix(c, m.sendtoCopy, func(s socket, d *held) intercept.Action {
		p, datagrams := s.(*packet)
		netlink := datagrams && p.family == unix.AF_NETLINK
		special := int32(c.Args[3])&(unix.MSG_MORE|unix.MSG_OOB) != 0
		if c.Args[4] == 0 && !netlink && !special {
			return intercept.Continue()
		}
		x := &transfer{flags: int(int32(c.Args[3]))}
		if err := x.span(c.Args[1], c.Args[2]); err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		sa, err := readSockaddr(c, intercept.Addr(c.Args[4]), int32(c.Args[5]))
		if err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		x.to = sa
		return s.send(c, d, x)
	})
}

// dumpRequest is the size of a netlink request for a dump, header and struct
// rtgenmsg padded to 4 bytes. musl writes it without an address and reads the reply
// with MSG_DONTWAIT (src/network/netlink.c): the kernel has answered when send(2)
// returns, and so must we. Other sends of that size go on natively.
const dumpRequest = 20

// handleSendmsg answers sendmsg(2).
func (m *Module) handleSendmsg(c *intercept.Call) intercept.Action {
	return m.withUnix(c, m.sendmsgCopy, func(s socket, d *held) intercept.Action {
		x, err := readSend(c, intercept.Addr(c.Args[1]), int(int32(c.Args[2])))
		if err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		return s.send(c, d, x)
	})
}

func readSend(c *intercept.Call, hdr intercept.Addr, flags int) (*transfer, error) {
	x, err := readMsghdr(c, hdr, true)
	if err != nil {
		return nil, err
	}
	x.flags = flags
	return x, nil
}

// handleSendmmsg answers sendmmsg(2): messages are sent until one would block or
// fails; an error is reported only if it is the first one's.
func (m *Module) handleSendmmsg(c *intercept.Call) intercept.Action {
	return m.withUnix(c, m.sendmmsgCopy, func(s socket, d *held) intercept.Action {
		p, ok := s.(*packet)
		if !ok && m.paths != nil {
			return m.sendmmsgCopy(c, d.FD)
		}
		if !ok {
			return intercept.Continue()
		}
		n := min(int(uint32(c.Args[2])), iovMax)
		for i := range n {
			hdr := intercept.Addr(c.Args[1] + uint64(i)*sizeofMmsghdr)
			x, err := readSend(c, hdr, int(int32(c.Args[3])))
			var sent int
			if err == nil {
				sent, err = p.sendOne(c, d.N, x)
			}
			if err == nil {
				var v [4]byte
				native.PutUint32(v[:], uint32(sent))
				err = c.WriteMem(hdr+sizeofMsghdr, v[:])
			}
			if err != nil {
				if i > 0 {
					return intercept.Return(int64(i))
				}
				return intercept.Fail(intercept.Errno(err))
			}
		}
		return intercept.Return(int64(n))
	})
}

func (s *packet) send(c *intercept.Call, d *held, x *transfer) intercept.Action {
	n, err := s.sendOne(c, d.N, x)
	if err == nil {
		return intercept.Return(int64(n))
	}
	e := intercept.Errno(err)
	if e != unix.EAGAIN || x.flags&unix.MSG_DONTWAIT != 0 || nonblocking(d.N) {
		return intercept.Fail(e)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.park(&s.writers, c, x, s.sndTimeo)
}

// sendOne sends one trapped datagram. The order in which mistakes are found is that
// of net/ipv4/udp.c:udp_sendmsg and net/ipv6/udp.c:udpv6_sendmsg. d is a duplicate
// of the placeholder, or -1.
func (s *packet) sendOne(c *intercept.Call, d int, x *transfer) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sendOneLocked(c, d, x)
}

func (s *packet) sendOneLocked(c *intercept.Call, d int, x *transfer) (int, error) {
	if a, ok := s.pkt.(*afpacket); ok {
		return s.sendFrame(c, a, x)
	}
	if s.family != unix.AF_INET6 || !s.isUDP() {
		if x.size >= datagramMax {
			return 0, unix.EMSGSIZE
		}
		if x.flags&unix.MSG_OOB != 0 {
			return 0, unix.EOPNOTSUPP
		}
	}
	if s.gone {
		return 0, unix.EBADF
	}
	to, err := s.destination(x)
	if to.Addr().Is4In6() && err != unix.ENETUNREACH { // goes on in udp_sendmsg
		switch {
		case x.size >= datagramMax:
			err = unix.EMSGSIZE
		case x.flags&unix.MSG_OOB != 0:
			err = unix.EOPNOTSUPP
		}
	}
	if err != nil {
		return 0, err
	}
	if !to.IsValid() && !s.connected && s.isUDP() {
		if s.soErr == unix.EDESTADDRREQ { // of a write that did not trap
			s.soErr = 0
		}
		return 0, unix.EDESTADDRREQ
	}
	dst := to
	if !dst.IsValid() {
		dst = s.peerMessage().Peer
	}
	msg, err := s.readControl(x.ancillary, dst)
	if err != nil {
		return 0, err
	}
	msg.Peer = to
	if x.size > s.payloadMax(dst) {
		if _, ok := s.ep.(stacks.Reporter); ok {
			_ = s.pkt.SendMsg(make([]byte, x.size), msg) // refused, and maybe reported
			s.hear()
			s.showErrors()
		}
		return 0, unix.EMSGSIZE
	}
	buf := getBuffer()
	defer putBuffer(buf)
	n, err := x.gather(c, *buf)
	if err != nil {
		return 0, err
	}
	if nl, ok := s.ep.(*netlink); ok {
		nl.request((*buf)[:n], c.Task.TGID())
		if s.down() {
			s.m.pump.schedule(&s.job, nudge)
		}
		return n, nil
	}
	s.hear()
	s.clearError(d)
	defer func() {
		s.hear()
		s.showErrors()
	}()
	s.forgetUnaddressed(to)
	if e := s.soErr; e != 0 {
		s.soErr = 0
		return 0, e
	}
	s.settleLocked()
	s.forgetUnaddressed(to)
	if len(s.held) > 0 { // what was written before is still waiting
		return 0, unix.EAGAIN
	}
	if !to.IsValid() && !s.connected {
		return 0, unix.EDESTADDRREQ
	}
	if s.corked(x.flags) {
		return n, s.addPiece((*buf)[:n], msg, dst, x.flags)
	}
	return n, s.sendComplete((*buf)[:n], msg, dst)
}

// forgetUnaddressed drops the error of a write without an address that did not trap, for a
// message that has one: by that one it would be lost. The mutex is held.
func (s *packet) forgetUnaddressed(to netip.AddrPort) {
	if to.IsValid() && s.soErr == unix.EDESTADDRREQ {
		s.soErr = 0
	}
}

// payloadMax is the most that one datagram to dst can carry: for UDP what the length
// field of IPv4 or IPv6 leaves (RFC 768, RFC 8200 section 3).
func (s *packet) payloadMax(dst netip.AddrPort) int {
	switch {
	case !s.isUDP():
		return datagramMax
	case s.family == unix.AF_INET || dst.Addr().Is4In6():
		return 65535 - 20 - 8
	}
	return 65535 - 8
}

// destination decodes the address that a message is sent to; the zero AddrPort is
// none. The mutex is held.
func (s *packet) destination(x *transfer) (netip.AddrPort, error) {
	if len(x.to) == 0 || s.family == unix.AF_NETLINK {
		return netip.AddrPort{}, nil
	}
	if s.typ == unix.SOCK_RAW {
		return rawDestination(s.family, x.to)
	}
	switch f := sockaddrFamily(x.to); {
	case s.family == unix.AF_INET && len(x.to) < unix.SizeofSockaddrInet4:
		return netip.AddrPort{}, unix.EINVAL
	case s.family == unix.AF_INET && f == unix.AF_UNSPEC:
		native.PutUint16(x.to, unix.AF_INET) // net/ipv4/udp.c:udp_sendmsg takes it so
	case s.family == unix.AF_INET6 && s.isPing() && len(x.to) < unix.SizeofSockaddrInet6:
		return netip.AddrPort{}, unix.EINVAL
	case s.family == unix.AF_INET6 && s.isPing() && f != unix.AF_INET6:
		return netip.AddrPort{}, unix.EAFNOSUPPORT
	case s.family == unix.AF_INET6 && s.isUDP():
		switch f {
		case unix.AF_INET:
			if s.only6() {
				return netip.AddrPort{}, unix.ENETUNREACH
			}
		case unix.AF_INET6, unix.AF_UNSPEC:
		default:
			return netip.AddrPort{}, unix.EINVAL
		}
	}
	to, err := parseSockaddr(s.family, x.to)
	switch {
	case err != nil && !to.IsValid():
		return to, err
	case !to.IsValid() || !s.isUDP():
		return to, nil
	case s.family == unix.AF_INET6 && to.Addr().Is4In6() && s.only6():
		return to, unix.ENETUNREACH
	case to.Port() == 0:
		return to, unix.EINVAL
	}
	return to, nil
}

// only6 tells whether an IPv6 socket sends no IPv4: it was told so, or has an IPv6
// address of its own (net/ipv6/af_inet6.c:__inet6_bind). The mutex is held.
func (s *packet) only6() bool {
	if a, _ := s.ep.Names(); a.Addr().Is6() && !a.Addr().Is4In6() && !a.Addr().IsUnspecified() {
		return true
	}
	var v [4]byte
	_, err := s.ep.Option(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, v[:])
	return err == nil && native.Uint32(v[:]) != 0
}

// refuses4 is only6 for a call that does not hold the mutex.
func (s *packet) refuses4() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.only6()
}

func (s *packet) isPing() bool {
	return s.typ == unix.SOCK_DGRAM && (s.proto == unix.IPPROTO_ICMP || s.proto == unix.IPPROTO_ICMPV6)
}

func (s *packet) isUDP() bool {
	return s.family != unix.AF_NETLINK && s.family != unix.AF_PACKET && s.typ == unix.SOCK_DGRAM && (s.proto == 0 || s.proto == unix.IPPROTO_UDP)
}
