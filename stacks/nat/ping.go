// SPDX-License-Identifier: Apache-2.0

// ICMP echo: the view's pings out of the host's ping sockets, and back.

package nat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Echo types of both versions.
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
)

// inputEcho takes an ICMP message of the view. Only echo requests are carried:
// errors about what the NAT sent have nobody to go to.
func (l *Link) inputEcho(d datagram) {
	msg := d.payload
	if len(msg) < icmpHdr {
		l.stats.malformed.Add(1)
		return
	}
	proto, request := protoICMP4, byte(echoRequest4)
	if d.src.Is6() {
		proto, request = protoICMP6, echoRequest6
	}
	if msg[0] != request || msg[1] != 0 {
		l.stats.ignored.Add(1)
		return
	}
	if !d.summed && !icmpSumOK(d, proto, msg) {
		l.stats.malformed.Add(1)
		return
	}
	l.stats.echoOut.Add(1)
	if ours(d.dst) {
		l.sendEcho(d.dst, d.src, binary.BigEndian.Uint16(msg[4:]), msg, false)
		return
	}
	if l.opts.Upstream != nil {
		l.unreachable(d, unreachProhibited)
		return
	}
	host, ok := l.toHost(d.dst)
	if !ok {
		l.unreachable(d, unreachHost)
		return
	}
	if d.ttl <= 1 {
		l.unreachable(d, exceeded)
		return
	}
	key := mapKey{proto: proto, src: netip.AddrPortFrom(d.src, binary.BigEndian.Uint16(msg[4:]))}
	m, err := l.maps.get(key, (*mapping).openEcho)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		l.warn("no ping: net.ipv4.ping_group_range excludes this user's group", "err", err)
		return
	}
	if err == nil {
		if m.raw {
			msg = bytes.Clone(msg) // the caller's
			binary.BigEndian.PutUint16(msg[4:], m.id)
			// The kernel completes that of ICMPv6 (RFC 3542 §3.1), and of ping sockets.
			sumICMP4(msg)
		}
		err = m.send(netip.AddrPortFrom(host, 0), msg, d.ttl, nil)
	}
	if err != nil {
		l.sendFailed(d, err)
	}
}

func icmpSumOK(d datagram, proto uint8, msg []byte) bool {
	if proto == protoICMP6 {
		return sumOK(proto, d.src.AsSlice(), d.dst.AsSlice(), msg)
	}
	return checksum.Checksum(msg, 0) == 0xffff
}

func sumICMP4(msg []byte) {
	msg[2], msg[3] = 0, 0
	binary.BigEndian.PutUint16(msg[2:], ^checksum.Checksum(msg, 0))
}

// openEcho makes a ping socket (icmp(7), ping_group_range), or a raw one where
// only that is allowed.
func (m *mapping) openEcho() error {
	proto := unix.IPPROTO_ICMP
	if m.key.proto == protoICMP6 {
		proto = unix.IPPROTO_ICMPV6
	}
	a := m.key.src.Addr()
	fd, err := openSocket(a, unix.SOCK_DGRAM, proto)
	if errors.Is(err, unix.EACCES) {
		if fd, err = openSocket(a, unix.SOCK_RAW, proto); err == nil {
			m.raw, m.id = true, uint16(rand.Uint32())
		}
	}
	if err != nil {
		return err
	}
	return m.attach(fd, "ping")
}

// receiveEcho passes on a reply.
func (m *mapping) receiveEcho(src addr, b []byte) {
	reply := byte(echoReply4)
	if m.key.proto == protoICMP6 {
		reply = echoReply6
	} else if m.raw { // raw(7): the IPv4 header is read too
		if len(b) < header.IPv4MinimumSize {
			return
		}
		b = b[min(len(b), int(header.IPv4(b).HeaderLength())):]
	}
	// A raw socket hears every ICMP message that the host receives.
	if len(b) < icmpHdr || b[0] != reply || m.raw && binary.BigEndian.Uint16(b[4:]) != m.id {
		return
	}
	m.l.sendEcho(src, m.key.src.Addr(), m.key.src.Port(), b, true)
}

// sendEcho sends the view an echo reply with the sequence number and data of
// msg; wait is that of queue.put.
func (l *Link) sendEcho(from, to addr, id uint16, msg []byte, wait bool) {
	proto, typ := protoICMP4, byte(echoReply4)
	if from.Is6() {
		proto, typ = protoICMP6, echoReply6
	}
	raw, out := newRaw(from, to, proto, len(msg))
	if raw == nil {
		l.stats.ignored.Add(1)
		return
	}
	copy(out, msg)
	out[0], out[1] = typ, 0
	binary.BigEndian.PutUint16(out[4:], id)
	sumICMP(from, to, out)
	l.stats.echoIn.Add(1)
	l.out.put(packet{raw: raw}, wait)
}

// quoteEcho is quote for echo requests: the error queue has the message, with
// the host's identifier. nil means that it was another socket's.
func (m *mapping) quoteEcho(msg []byte) []byte {
	if len(msg) < icmpHdr || m.raw && binary.BigEndian.Uint16(msg[4:]) != m.id {
		return nil
	}
	binary.BigEndian.PutUint16(msg[4:], m.key.src.Port())
	return msg
}
