// SPDX-License-Identifier: Apache-2.0

// Receiving messages: recvfrom, recvmsg, recvmmsg.

package netmod

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/stacks"
)

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
		x, err := readMsghdr(c, intercept.Addr(c.Args[1]), false)
		if err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		x.flags = flags
		return s.recv(c, d, x)
	})
}

func (s *packet) recv(c *intercept.Call, d *held, x *transfer) intercept.Action {
	if err := s.refuses(x.flags); err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := x.flags&(unix.MSG_DONTWAIT|unix.MSG_ERRQUEUE) == 0 && !nonblocking(d.N)
	n, err := s.recvOne(c, d.N, x)
	if err == io.EOF {
		err = s.shut(c, x, wait)
	}
	if err == nil {
		return intercept.Return(int64(n))
	}
	if e := intercept.Errno(err); e != unix.EAGAIN || !wait {
		return intercept.Fail(e)
	}
	return s.park(&s.readers, c, x, s.rcvTimeo)
}

// refuses is the error of flags that a receive cannot have.
func (s *packet) refuses(flags int) error {
	switch {
	case s.family == unix.AF_PACKET && flags&^afpacketFlags != 0:
		return unix.EINVAL
	case flags&unix.MSG_OOB != 0 && !s.isUDP(): // which does not look at it
		return unix.EOPNOTSUPP
	}
	return nil
}

// shut is what a receive gets from a socket that is shut and empty. One that would wait has nothing
// to wait for, and so an empty message from nobody (net/core/datagram.c:__skb_wait_for_more_packets).
func (s *packet) shut(c *intercept.Call, x *transfer, wait bool) error {
	if !wait {
		return unix.EAGAIN
	}
	_, err := s.deliver(c, x, nil, incoming{})
	return err
}

// recvOne receives one datagram for a trapped call: first the one in the pair,
// through d, then what has not got there.
func (s *packet) recvOne(c *intercept.Call, d int, x *transfer) (int, error) {
	if x.flags&unix.MSG_ERRQUEUE != 0 {
		return s.recvError(c, d, x)
	}
	if s.gone {
		return 0, unix.EBADF
	}
	s.hear()
	s.clearError(d)
	defer s.showErrors()
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
	s.tookStamp(m.Stamp)
	return s.hand(c, x, (*buf)[:min(size, len(*buf))], size, m)
}

// hand gives a datagram to the thread that it was taken for. If that was killed meanwhile it
// is for the next one, which may be another process's.
func (s *packet) hand(c *intercept.Call, x *transfer, data []byte, size int, m stacks.Message) (int, error) {
	n, err := s.deliver(c, x, data, s.incoming(size, m))
	if errors.Is(err, intercept.ErrGone) && x.flags&unix.MSG_PEEK == 0 {
		s.inbox = append([]datagram{{append([]byte(nil), data...), m}}, s.inbox...)
		s.m.pump.schedule(&s.job, nudge)
	}
	return n, err
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

// incoming is what recvmsg(2) tells of a message beside its data.
type incoming struct {
	size    int    // of the message, in bytes
	name    []byte // a sockaddr, or none
	control []byte // messages as cmsg(3) has them
	flags   int    // of msg_flags, but for those of truncation
}

// incoming describes a datagram of a size that came with m.
func (s *packet) incoming(size int, m stacks.Message) incoming {
	in := incoming{size: size, control: s.want.encode(s, m)}
	switch s.family {
	case unix.AF_NETLINK:
		in.name = netlinkName(0, m.IfIndex)
	case unix.AF_PACKET:
		in.name = make([]byte, unix.SizeofSockaddrLinklayer)
		if l, ok := m.Link.(*linkInfo); ok {
			copy(in.name, l.name[:])
		}
	default:
		in.name = encodeSockaddr(s.family, m.Peer)
	}
	return in
}

// deliver stores a message as recvmsg(2) does and returns the call's result.
func (s *packet) deliver(c *intercept.Call, x *transfer, data []byte, in incoming) (int, error) {
	return x.deliver(c, data, in, s.isPing())
}

// deliver stores a message; ping says that it is a ping socket's.
func (x *transfer) deliver(c *intercept.Call, data []byte, in incoming, ping bool) (int, error) {
	n, err := x.scatter(c, data)
	if err != nil {
		return 0, err
	}
	name, size := in.name, in.size
	out := in.flags | x.flags&unix.MSG_CMSG_CLOEXEC // net/socket.c:____sys_recvmsg
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
		control, whole := fitControl(in.control, x.controlLen)
		if !whole {
			out |= unix.MSG_CTRUNC
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
		if x.name != 0 { // else msg_namelen is left alone
			native.PutUint32(tail[:], uint32(len(name)))
			if err := c.WriteMem(x.hdr+8, tail[:4]); err != nil {
				return 0, err
			}
		}
		if x.nameLen != 0 { // recvmmsg's msg_len
			native.PutUint32(tail[:], uint32(n))
			if x.flags&unix.MSG_TRUNC != 0 && !ping {
				native.PutUint32(tail[:], uint32(size))
			}
			if err := c.WriteMem(x.nameLen, tail[:4]); err != nil {
				return 0, err
			}
		}
	}
	if x.flags&unix.MSG_TRUNC != 0 && !ping { // net/ipv4/ping.c:ping_recvmsg does not look at it
		n = size
	}
	return n, nil
}
