// SPDX-License-Identifier: Apache-2.0

// The message calls: what they carry in the target's memory, sending and receiving it.

package netmod

import (
	"net/netip"
	"sync"
	"time"

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
	hdr        intercept.Addr // struct msghdr; 0 for sendto and recvfrom
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

// send writes one datagram into the pair without blocking.
func send(fd int, p []byte) error {
	for {
		_, err := unix.SendmsgN(fd, p, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// readMsghdr decodes struct msghdr at addr.
func readMsghdr(c *intercept.Call, addr intercept.Addr) (*transfer, error) {
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
	n := native.Uint64(h[24:])
	if n > iovMax {
		return nil, unix.EMSGSIZE
	}
	if x.room < 0 {
		return nil, unix.EINVAL
	}
	if x.name == 0 {
		x.room = 0
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
	return m.with(c, func(s socket, d *held) intercept.Action {
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

// handleSendmsg answers sendmsg(2).
func (m *Module) handleSendmsg(c *intercept.Call) intercept.Action {
	return m.with(c, func(s socket, d *held) intercept.Action {
		x, err := readSend(c, intercept.Addr(c.Args[1]), int(int32(c.Args[2])))
		if err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		return s.send(c, d, x)
	})
}

func readSend(c *intercept.Call, hdr intercept.Addr, flags int) (*transfer, error) {
	x, err := readMsghdr(c, hdr)
	if err != nil {
		return nil, err
	}
	x.flags = flags
	if x.name != 0 && x.room > 0 {
		if x.to, err = readSockaddr(c, x.name, int32(x.room)); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// handleSendmmsg answers sendmmsg(2): messages are sent until one would block or
// fails; an error is reported only if it is the first one's.
func (m *Module) handleSendmmsg(c *intercept.Call) intercept.Action {
	return m.with(c, func(s socket, d *held) intercept.Action {
		p, ok := s.(*packet)
		if !ok {
			return intercept.Continue()
		}
		n := min(int(uint32(c.Args[2])), iovMax)
		for i := range n {
			hdr := intercept.Addr(c.Args[1] + uint64(i)*sizeofMmsghdr)
			x, err := readSend(c, hdr, int(int32(c.Args[3])))
			var sent int
			if err == nil {
				sent, err = p.sendOne(c, x)
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
	n, err := s.sendOne(c, x)
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

// sendOne sends one trapped datagram.
func (s *packet) sendOne(c *intercept.Call, x *transfer) (int, error) {
	if x.flags&unix.MSG_OOB != 0 {
		return 0, unix.EOPNOTSUPP
	}
	to, err := s.destination(x)
	if err != nil {
		return 0, err
	}
	if x.size > datagramMax {
		return 0, unix.EMSGSIZE
	}
	buf := getBuffer()
	defer putBuffer(buf)
	n, err := x.gather(c, *buf)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return 0, unix.EBADF
	}
	if nl, ok := s.ep.(*netlink); ok {
		nl.request((*buf)[:n], c.Task.TGID())
		s.m.pump.schedule(&s.job, nudge)
		return n, nil
	}
	if e := s.soErr; e != 0 {
		s.soErr = 0
		return 0, e
	}
	msg, err := readControl(c, x)
	if err != nil {
		return 0, err
	}
	msg.Peer = to
	s.settleLocked()
	if s.heldSet { // what was written before is still waiting
		return 0, unix.EAGAIN
	}
	dst := to
	if !dst.IsValid() {
		dst = s.stubPeer
	}
	if dst.IsValid() && s.isUDP() && s.m.stub.owns(dst) {
		s.m.stub.ask(s, (*buf)[:n], dst)
		return n, nil
	}
	if !to.IsValid() && !s.connected {
		return 0, unix.EDESTADDRREQ
	}
	return n, s.pkt.SendMsg((*buf)[:n], msg)
}

// destination decodes the address that a message is sent to; the zero AddrPort is
// none.
func (s *packet) destination(x *transfer) (netip.AddrPort, error) {
	if len(x.to) == 0 || s.family == unix.AF_NETLINK {
		return netip.AddrPort{}, nil
	}
	if sockaddrFamily(x.to) == unix.AF_UNSPEC && s.family == unix.AF_INET && len(x.to) >= unix.SizeofSockaddrInet4 {
		native.PutUint16(x.to, unix.AF_INET) // net/ipv4/udp.c:udp_sendmsg takes it so
	}
	to, err := parseSockaddr(s.family, x.to)
	if err != nil && !to.IsValid() {
		return to, err
	}
	if to.IsValid() && to.Port() == 0 && s.isUDP() {
		return to, unix.EINVAL
	}
	return to, nil
}

func (s *packet) isUDP() bool {
	return s.typ == unix.SOCK_DGRAM && (s.proto == 0 || s.proto == unix.IPPROTO_UDP)
}

// handleRecvfrom answers recvfrom(2) with an address or special flags.
func (m *Module) handleRecvfrom(c *intercept.Call) intercept.Action {
	return m.with(c, func(s socket, d *held) intercept.Action {
		x := &transfer{flags: int(int32(c.Args[3])), name: intercept.Addr(c.Args[4]), nameLen: intercept.Addr(c.Args[5])}
		if err := x.span(c.Args[1], c.Args[2]); err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		return s.recv(c, d, x)
	})
}

// handleRecvmsg answers recvmsg(2).
func (m *Module) handleRecvmsg(c *intercept.Call) intercept.Action {
	return m.with(c, func(s socket, d *held) intercept.Action {
		flags := int(int32(c.Args[2]))
		x, err := readMsghdr(c, intercept.Addr(c.Args[1]))
		if err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		x.flags = flags
		return s.recv(c, d, x)
	})
}

// handleRecvmmsg answers recvmmsg(2): the first message may be waited for, the
// rest is what is there.
func (m *Module) handleRecvmmsg(c *intercept.Call) intercept.Action {
	return m.with(c, func(s socket, d *held) intercept.Action {
		p, ok := s.(*packet)
		if !ok {
			if int(int32(c.Args[3]))&unix.MSG_ERRQUEUE != 0 {
				return intercept.Fail(unix.EAGAIN)
			}
			return intercept.Continue()
		}
		n := min(int(uint32(c.Args[2])), iovMax)
		for i := range n {
			hdr := intercept.Addr(c.Args[1] + uint64(i)*sizeofMmsghdr)
			x, err := readMsghdr(c, hdr)
			if err != nil {
				if i > 0 {
					return intercept.Return(int64(i))
				}
				return intercept.Fail(intercept.Errno(err))
			}
			x.flags = int(int32(c.Args[3]))
			x.nameLen = hdr + sizeofMsghdr // msg_len, see deliver
			p.mu.Lock()
			_, err = p.recvOne(c, d.N, x)
			p.mu.Unlock()
			if err != nil {
				if i > 0 {
					return intercept.Return(int64(i))
				}
				return p.recv(c, d, x)
			}
		}
		return intercept.Return(int64(n))
	})
}

func (s *packet) recv(c *intercept.Call, d *held, x *transfer) intercept.Action {
	if x.flags&unix.MSG_ERRQUEUE != 0 {
		return intercept.Fail(unix.EAGAIN) // the queue is always empty
	}
	if x.flags&unix.MSG_OOB != 0 {
		return intercept.Fail(unix.EOPNOTSUPP)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.recvOne(c, d.N, x)
	if err == nil {
		return intercept.Return(x.count(n))
	}
	e := intercept.Errno(err)
	if e != unix.EAGAIN || x.flags&unix.MSG_DONTWAIT != 0 || nonblocking(d.N) {
		return intercept.Fail(e)
	}
	return s.park(&s.readers, c, x, s.rcvTimeo)
}

// count is what the call returns: recvmmsg the number of messages.
func (x *transfer) count(n int) int64 {
	if x.hdr != 0 && x.nameLen == x.hdr+sizeofMsghdr {
		return 1
	}
	return int64(n)
}

// recvOne receives one datagram for a trapped call: first the one in the pair,
// through d, then what has not got there.
func (s *packet) recvOne(c *intercept.Call, d int, x *transfer) (int, error) {
	if s.gone {
		return 0, unix.EBADF
	}
	if e := s.soErr; e != 0 {
		s.soErr = 0
		return 0, e
	}
	buf := getBuffer()
	defer putBuffer(buf)
	peek := x.flags & unix.MSG_PEEK
	var m stacks.Message
	size, err := -1, error(unix.EAGAIN)
	if d >= 0 {
		size, err = recvOnce(d, *buf, peek|unix.MSG_TRUNC)
		switch {
		case err == nil && s.inflight:
			m = s.head
			if peek == 0 {
				s.inflight = false
				s.m.pump.schedule(&s.job, nudge)
			}
		case err == nil:
			m = s.peerMessage()
		}
	}
	if err == unix.EAGAIN {
		_, size, m, err = s.next(*buf, peek != 0)
	}
	if err != nil {
		return 0, err
	}
	return s.deliver(c, x, (*buf)[:min(size, len(*buf))], size, m)
}

// peerMessage is what came with a datagram that was pushed without its source.
func (s *packet) peerMessage() stacks.Message {
	m := noMessage
	m.Peer = s.stubPeer
	if !m.Peer.IsValid() {
		_, m.Peer = s.ep.Names()
	}
	return m
}

// deliver stores a datagram as recvmsg(2) does and returns the call's result.
func (s *packet) deliver(c *intercept.Call, x *transfer, data []byte, size int, m stacks.Message) (int, error) {
	n, err := x.scatter(c, data)
	if err != nil {
		return 0, err
	}
	var name []byte
	if s.family == unix.AF_NETLINK {
		name = netlinkName(0)
	} else {
		name = encodeSockaddr(s.family, m.Peer)
	}
	out := 0
	if n < size {
		out |= unix.MSG_TRUNC
	}
	if x.hdr == 0 {
		if x.name != 0 {
			if err := writeSockaddr(c, x.name, x.nameLen, name); err != nil {
				return 0, err
			}
		}
	} else {
		if k := min(x.room, len(name)); k > 0 {
			if err := c.WriteMem(x.name, name[:k]); err != nil {
				return 0, err
			}
		}
		control := s.want.encode(s, m)
		if len(control) > x.controlLen {
			out |= unix.MSG_CTRUNC
			control = control[:0]
		}
		if len(control) > 0 {
			if err := c.WriteMem(x.control, control); err != nil {
				return 0, err
			}
		}
		var tail [16]byte // msg_controllen, msg_flags
		native.PutUint64(tail[0:], uint64(len(control)))
		native.PutUint32(tail[8:], uint32(out))
		if err := c.WriteMem(x.hdr+40, tail[:12]); err != nil {
			return 0, err
		}
		native.PutUint32(tail[:], uint32(len(name)))
		if err := c.WriteMem(x.hdr+8, tail[:4]); err != nil {
			return 0, err
		}
		if x.nameLen != 0 { // recvmmsg's msg_len
			native.PutUint32(tail[:], uint32(n))
			if err := c.WriteMem(x.nameLen, tail[:4]); err != nil {
				return 0, err
			}
		}
	}
	if x.flags&unix.MSG_TRUNC != 0 {
		n = size
	}
	return n, nil
}

// park lets a thread wait for the socket.
func (s *packet) park(list *[]*packetWait, c *intercept.Call, x *transfer, timeout time.Duration) intercept.Action {
	w := &packetWait{call: c, x: x}
	*list = append(*list, w)
	leave := func() bool {
		for i, v := range *list {
			if v == w {
				*list = append((*list)[:i:i], (*list)[i+1:]...)
				return true
			}
		}
		return false
	}
	if timeout > 0 {
		w.timer = time.AfterFunc(timeout, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if leave() {
				w.finish(intercept.Fail(unix.EAGAIN))
			}
		})
	}
	s.m.pump.schedule(&s.job, nudge)
	return c.Park(func(intercept.Reason) intercept.Action {
		s.mu.Lock()
		defer s.mu.Unlock()
		if leave() && w.timer != nil {
			w.timer.Stop()
		}
		s.m.pump.schedule(&s.job, nudge)
		if timeout > 0 {
			return intercept.Fail(unix.EINTR)
		}
		return intercept.Restart()
	})
}

func (w *packetWait) finish(a intercept.Action) bool {
	if w.timer != nil {
		w.timer.Stop()
	}
	return w.call.Complete(a)
}

// serveReaders answers threads that wait in a trapped receive.
func (s *packet) serveReaders() {
	for len(s.readers) > 0 {
		w := s.readers[0]
		if e := s.soErr; e != 0 {
			s.soErr = 0
			s.readers = s.readers[1:]
			w.finish(intercept.Fail(e))
			continue
		}
		buf := getBuffer()
		peek := w.x.flags&unix.MSG_PEEK != 0
		_, size, m, err := s.next(*buf, peek)
		if err != nil && intercept.Errno(err) == unix.EAGAIN {
			putBuffer(buf)
			return
		}
		s.readers = s.readers[1:]
		if err != nil {
			w.finish(intercept.Fail(intercept.Errno(err)))
			putBuffer(buf)
			continue
		}
		data := (*buf)[:min(size, len(*buf))]
		n, err := s.deliver(w.call, w.x, data, size, m)
		a := intercept.Return(w.x.count(n))
		if err != nil {
			a = intercept.Fail(intercept.Errno(err))
		}
		if !w.finish(a) && !peek { // interrupted at the last moment: the next one gets it
			s.inbox = append([]datagram{{append([]byte(nil), data...), m}}, s.inbox...)
		}
		putBuffer(buf)
	}
}

// serveWriters tries again for threads that wait in a trapped send.
func (s *packet) serveWriters() {
	for len(s.writers) > 0 {
		w := s.writers[0]
		s.mu.Unlock()
		n, err := s.sendOne(w.call, w.x)
		s.mu.Lock()
		if err != nil && intercept.Errno(err) == unix.EAGAIN {
			return
		}
		if len(s.writers) > 0 && s.writers[0] == w {
			s.writers = s.writers[1:]
		}
		a := intercept.Return(int64(n))
		if err != nil {
			a = intercept.Fail(intercept.Errno(err))
		}
		w.finish(a)
	}
}
