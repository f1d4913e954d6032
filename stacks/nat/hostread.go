// SPDX-License-Identifier: Apache-2.0

// What comes back on the sockets of mappings: datagrams, and the error queue.

package nat

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// readBufs are for the largest datagram; a mapping holds one only while its
// socket has something to read.
var readBufs = sync.Pool{New: func() any { return new([maxIP]byte) }}

// read passes on what arrives until the socket is closed.
//
// Closing waits for the poller's callback, and may happen on a goroutine that
// must not wait for the view; so nothing is put into the queue from within.
func (m *mapping) read() {
	defer m.l.wg.Done()
	defer m.l.maps.remove(m)
	var (
		recv    receiver
		buf     *[maxIP]byte
		n, size int
		from    addrPort
		errs    []hostError
	)
	ready := func(fd uintptr) bool {
		buf = readBufs.Get().(*[maxIP]byte)
		var err unix.Errno
		if n, size, from, err = recv.recv(fd, buf[:]); err == 0 {
			return true
		}
		// What is pending may have been reported to a send, so the queue is looked
		// at whenever there is nothing else.
		errs = m.readErrors(int(fd), buf[:])
		if len(errs) > 0 || err != unix.EAGAIN {
			return true
		}
		readBufs.Put(buf)
		return false
	}
	for {
		from = addrPort{}
		if m.rc.Read(ready) != nil {
			return
		}
		if from.IsValid() {
			m.receive(client{from: from, to: recv.local, index: recv.index}, buf[:n], size)
		}
		readBufs.Put(buf)
		for _, e := range errs {
			m.forwardError(e)
		}
		errs = nil
	}
}

// receive passes on a message with datagrams of size bytes, of which the last
// may be shorter.
func (m *mapping) receive(c client, b []byte, size int) {
	from := c.from
	src, ok := m.l.toView(from.Addr())
	if m.pub != nil {
		from = m.pub.heard(c)
		src, ok = from.Addr(), true
	}
	if !ok {
		m.l.stats.ignored.Add(1)
		return
	}
	m.last.Store(m.l.maps.now())
	if m.key.proto != protoUDP {
		m.receiveEcho(src, b)
		return
	}
	from = netip.AddrPortFrom(src, from.Port())
	for len(b) > size {
		m.l.sendUDP(from, m.key.src, b[:size], true)
		b = b[size:]
	}
	m.l.sendUDP(from, m.key.src, b, true)
}

// fromSockaddr converts an address of the host, without its zone.
func fromSockaddr(sa unix.Sockaddr) (addrPort, bool) {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), true
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port)), true
	}
	return addrPort{}, false
}

// A hostError is an entry of the error queue of a socket, ip(7).
type hostError struct {
	to      addrPort // destination of the datagram that it is about
	ext     []byte   // struct sock_extended_err, and who reported it
	payload []byte   // beginning of the datagram
}

// readErrors empties the error queue, which also quiets POLLERR.
func (m *mapping) readErrors(fd int, buf []byte) []hostError {
	var errs []hostError
	var oob []byte
	for {
		// Mostly there is nothing, and no need for a buffer to learn that.
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, 0); n == 0 && err == nil {
			return errs
		}
		if oob == nil {
			oob = make([]byte, 512)
		}
		n, oobn, _, sa, err := unix.Recvmsg(fd, buf, oob, unix.MSG_ERRQUEUE)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return errs
		}
		to, ok := fromSockaddr(sa)
		if !ok {
			continue
		}
		msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			continue
		}
		for _, c := range msgs {
			if c.Header.Level == unix.SOL_IP && c.Header.Type == unix.IP_RECVERR ||
				c.Header.Level == unix.SOL_IPV6 && c.Header.Type == unix.IPV6_RECVERR {
				// ICMP errors of this side quote no more than that.
				errs = append(errs, hostError{to, bytes.Clone(c.Data), bytes.Clone(buf[:min(n, 1280)])})
			}
		}
	}
}

// Origins of a struct sock_extended_err, linux/errqueue.h.
const (
	originLocal = 1
	originICMP  = 2
	originICMP6 = 3
	extendedLen = 16
)

// forwardError makes an ICMP error to the view of one to the host.
func (m *mapping) forwardError(e hostError) {
	ext := e.ext
	if len(ext) < extendedLen {
		return
	}
	origin, typ, code := ext[4], ext[5], ext[6]
	info := binary.NativeEndian.Uint32(ext[8:])
	dst, ok := m.l.toView(e.to.Addr())
	if m.pub != nil {
		dst, ok = source(e.to).Addr(), true
	}
	if !ok {
		return
	}
	var why reason
	from := gateway(dst)
	switch {
	case origin == originLocal && unix.Errno(binary.NativeEndian.Uint32(ext)) == unix.EMSGSIZE:
		why = tooBig
	case origin == originICMP && dst.Is4():
		why = reason{type4: typ, code4: code}
	case origin == originICMP6 && dst.Is6():
		why = reason{type6: typ, code6: code}
	default:
		return
	}
	// Who says that a port or a protocol is closed is the destination itself;
	// who says that the TTL is over is what traceroute wants to know. The rest
	// may be the host's own word, whose addresses are not the view's business.
	switch {
	case origin == originICMP && typ == 3 && (code == 2 || code == 3),
		origin == originICMP6 && typ == 1 && code == 4:
		from = dst
	case origin == originICMP && typ == 11, origin == originICMP6 && typ == 3:
		if a, ok := m.l.toView(readSockaddr(ext[extendedLen:]).Addr()); ok {
			from = a
		}
	}
	transport := m.quote(e.to.Port(), e.payload)
	if transport == nil {
		return
	}
	if orig := original(m.key.src.Addr(), dst, m.key.proto, transport); orig != nil {
		m.l.icmpError(from, m.key.src.Addr(), why, info, orig)
	}
}

// quote makes up the transport header and payload that an error quotes.
func (m *mapping) quote(port uint16, payload []byte) []byte {
	if m.key.proto != protoUDP {
		return m.quoteEcho(payload)
	}
	b := make([]byte, udpHdr+len(payload))
	putUDP(b, m.key.src.Port(), port, len(payload))
	copy(b[udpHdr:], payload)
	return b
}
