// SPDX-License-Identifier: Apache-2.0

// UDP: datagrams of the view out of the host's sockets, and back.

package nat

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// shortTTL is below what a program gets unless it asks for less: such a TTL is
// passed on, less the hop that the NAT is, so that traceroute sees the path.
const shortTTL = 32

// inputUDP takes a whole datagram of the view, d.payload from the UDP header on.
func (l *Link) inputUDP(d datagram) {
	seg := header.UDP(d.payload)
	if len(seg) < udpHdr || int(seg.Length()) < udpHdr || int(seg.Length()) > len(seg) {
		l.stats.malformed.Add(1)
		return
	}
	seg = seg[:seg.Length()]
	// A checksum of zero is none, in IPv4 (RFC 768).
	if !d.summed && !(d.src.Is4() && seg.Checksum() == 0) &&
		!sumOK(protoUDP, d.src.AsSlice(), d.dst.AsSlice(), seg) {
		l.stats.malformed.Add(1)
		return
	}
	if seg.DestinationPort() == 0 {
		l.stats.ignored.Add(1)
		return
	}
	d.payload = seg
	l.sendOut(d)
}

// handleFragmentedUDP has the private stack put fragments together; it sees no
// other UDP.
func (l *Link) handleFragmentedUDP() {
	l.stack.SetTransportProtocolHandler(udp.ProtocolNumber, func(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
		h := pkt.TransportHeader().Slice()
		seg := append(append(make([]byte, 0, len(h)+pkt.Data().Size()), h...), pkt.Data().AsRange().ToSlice()...)
		l.inputUDP(datagram{
			packet:  append(append([]byte(nil), pkt.NetworkHeader().Slice()...), seg[:min(len(seg), udpHdr)]...),
			src:     fromTCPIP(id.RemoteAddress),
			dst:     fromTCPIP(id.LocalAddress),
			ttl:     ourTTL,
			payload: seg,
		})
		return true // what is wrong with it was said
	})
}

// sendOut sends a valid UDP datagram on its way.
func (l *Link) sendOut(d datagram) {
	from := netip.AddrPortFrom(d.src, binary.BigEndian.Uint16(d.payload))
	to := netip.AddrPortFrom(d.dst, binary.BigEndian.Uint16(d.payload[2:]))
	l.stats.udpOut.Add(1)
	if isDNS(to.Addr()) && to.Port() == dnsPort {
		l.queryDNS(from, to, d)
		return
	}
	if l.answerOut(from, to, d) {
		return
	}
	if l.opts.Upstream != nil && !ours(to.Addr()) {
		l.sendUpstream(from, to, d)
		return
	}
	host, ok := l.toHost(to.Addr())
	if !ok {
		if ours(to.Addr()) {
			l.unreachable(d, unreachPort)
		} else {
			l.unreachable(d, unreachHost)
		}
		return
	}
	if d.ttl <= 1 {
		l.unreachable(d, exceeded)
		return
	}
	m, _, _ := l.maps.published(mapKey{proto: protoUDP, src: from}, to)
	if m == nil {
		var err error
		if m, err = l.maps.get(mapKey{proto: protoUDP, src: from}, (*mapping).openUDP); err != nil {
			l.sendFailed(d, err)
			return
		}
	}
	if to.Port() != dnsPort && m.kind.Load() != usedLong {
		m.kind.Store(usedLong)
	}
	if err := m.send(netip.AddrPortFrom(host, to.Port()), d.payload[udpHdr:], d.ttl, nil); err != nil {
		l.sendFailed(d, err)
	}
}

// answerOut sends a datagram of a published port to a client of that; false if it is
// none. It goes wherever the client is, also on the host.
func (l *Link) answerOut(from, to addrPort, d datagram) bool {
	m, c, ok := l.maps.published(mapKey{proto: protoUDP, src: from}, to)
	if !ok {
		return false
	}
	if d.ttl <= 1 {
		l.unreachable(d, exceeded)
	} else if err := m.send(c.from, d.payload[udpHdr:], d.ttl, c.fromMessage()); err != nil {
		l.sendFailed(d, err)
	}
	return true
}

// sendFailed tells the view why its datagram went nowhere.
func (l *Link) sendFailed(d datagram, err error) {
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) {
		l.stats.lost.Add(1)
		return
	}
	// EACCES is what a broadcast address of the host's network gives, ip(7).
	if why, ok := reasonOf(err); ok && why != prohibited {
		l.unreachable(d, why)
	}
}

// openUDP makes the mapping's socket. It is bound by the first send; only then
// can anything arrive.
func (m *mapping) openUDP() error {
	fd, err := openSocket(m.key.src.Addr(), unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) // where there is none, one at a time
	return m.attach(fd, "udp")
}

// openSocket makes a non-blocking socket of a's family that queues ICMP errors
// with the destination that they are about (ip(7), IP_RECVERR).
func openSocket(a addr, typ, proto int) (int, error) {
	family := unix.AF_INET
	if a.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return -1, err
	}
	switch {
	case a.Is4():
		err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVERR, 1)
	case typ == unix.SOCK_RAW: // cannot be asked to be V6ONLY, and is
		err = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVERR, 1)
	default:
		err = errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1),
			unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVERR, 1))
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// send sends payload to the host's address to, with control messages. An error that an earlier datagram
// met is not this one's: read reports it.
func (m *mapping) send(to addrPort, payload []byte, ttl uint8, oob []byte) error {
	m.last.Store(m.l.maps.now())
	if ttl <= shortTTL {
		oob = append(oob, ttlMessage(to.Addr(), int(ttl)-1)...)
	}
	sa := sockaddr(to)
	var err error
	cerr := m.rc.Control(func(fd uintptr) {
		for range 4 { // pending errors, each reported once
			_, err = unix.SendmsgN(int(fd), payload, oob, sa, unix.MSG_NOSIGNAL)
			if err != unix.ECONNREFUSED && err != unix.EHOSTUNREACH && err != unix.ENETUNREACH &&
				err != unix.EINTR && err != unix.EPROTO {
				return
			}
		}
	})
	if cerr != nil {
		return nil // evicted this moment: lost, as datagrams are
	}
	return err
}

func sockaddr(a addrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// ttlMessage is the control message that sets one datagram's TTL or hop limit.
func ttlMessage(to addr, ttl int) []byte {
	level, typ := unix.SOL_IP, unix.IP_TTL
	if to.Is6() {
		level, typ = unix.SOL_IPV6, unix.IPV6_HOPLIMIT
	}
	b := make([]byte, unix.CmsgSpace(4))
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(4)))
	binary.NativeEndian.PutUint32(b[8:], uint32(level))
	binary.NativeEndian.PutUint32(b[12:], uint32(typ))
	binary.NativeEndian.PutUint32(b[unix.CmsgLen(0):], uint32(ttl))
	return b
}
