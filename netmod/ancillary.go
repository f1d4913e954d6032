// SPDX-License-Identifier: Apache-2.0

// Control messages of datagrams: what is told on receive, what can be asked on send.

package netmod

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// ancillary is the set of control messages that a socket has asked for.
type ancillary uint32

// The control messages.
const (
	wantPktinfo ancillary = 1 << iota
	wantTTL
	wantTOS
	wantPktinfo6
	wantHopLimit
	wantTClass
	wantTimestamp
	wantTimestampNS
	wantOrigDst
	wantOrigDst6
	wantGroup
	wantCreds
	wantGRO
	wantDrops
	wantPktinfo2292
	wantHopLimit2292
	wantAuxdata

	wantTimestampNew // the options with _NEW in their names
	wantTimestamping // SO_TIMESTAMPING, of what comes in
	wantLastStamp    // SIOCGSTAMP

	wantStamps = wantTimestamp | wantTimestampNS | wantTimestampNew | wantTimestamping
)

var ancillaryOptions = map[optionKey]ancillary{
	{unix.IPPROTO_IP, unix.IP_PKTINFO}:             wantPktinfo,
	{unix.IPPROTO_IP, unix.IP_RECVTTL}:             wantTTL,
	{unix.IPPROTO_IP, unix.IP_RECVTOS}:             wantTOS,
	{unix.IPPROTO_IP, unix.IP_RECVORIGDSTADDR}:     wantOrigDst,
	{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO}:     wantPktinfo6,
	{unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT}:    wantHopLimit,
	{unix.IPPROTO_IPV6, unix.IPV6_2292PKTINFO}:     wantPktinfo2292,
	{unix.IPPROTO_IPV6, unix.IPV6_2292HOPLIMIT}:    wantHopLimit2292,
	{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS}:      wantTClass,
	{unix.SOL_SOCKET, unix.SO_RXQ_OVFL}:            wantDrops,
	{unix.SOL_NETLINK, unix.NETLINK_PKTINFO}:       wantGroup,
	{unix.SOL_SOCKET, unix.SO_PASSCRED}:            wantCreds, // of netlink only
	{unix.IPPROTO_IPV6, unix.IPV6_RECVORIGDSTADDR}: wantOrigDst6,
	{unix.IPPROTO_UDP, unix.UDP_GRO}:               wantGRO,
	{unix.SOL_PACKET, unix.PACKET_AUXDATA}:         wantAuxdata,
}

// note records that an option was set.
func (w *ancillary) note(level, name int, v []byte) {
	bit, ok := ancillaryOptions[optionKey{level, name}]
	if !ok || len(v) == 0 {
		return
	}
	on := v[0] != 0
	if len(v) >= 4 {
		on = native.Uint32(v) != 0
	}
	if on {
		*w |= bit
	} else {
		*w &^= bit
	}
}

// encode makes the control messages of a received datagram, as recvmsg(2) stores
// them.
func (w ancillary) encode(s *packet, m stacks.Message) []byte {
	if w == 0 {
		return nil
	}
	var out []byte
	add := func(level, typ int, data []byte) { out = appendControl(out, level, typ, data) }
	out = w.encodeStamp(out, m.Stamp)
	if w&wantDrops != 0 && m.Dropped != 0 {
		add(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, int32Value(int(m.Dropped)))
	}
	if w&wantGroup != 0 {
		add(unix.SOL_NETLINK, unix.NETLINK_PKTINFO, int32Value(m.IfIndex))
	}
	if w&wantCreds != 0 {
		add(unix.SOL_SOCKET, unix.SCM_CREDENTIALS, make([]byte, unix.SizeofUcred)) // the kernel's
	}
	if m.Segment > 0 && w&wantGRO != 0 {
		add(unix.IPPROTO_UDP, unix.UDP_GRO, int32Value(m.Segment))
	}
	if l, ok := m.Link.(*linkInfo); ok && w&wantAuxdata != 0 {
		add(unix.SOL_PACKET, unix.PACKET_AUXDATA, l.auxdata())
	}
	is4 := s.family == unix.AF_INET || m.Peer.Addr().Is4In6()
	// Of IPv4 on an IPv6 socket IPV6_PKTINFO comes first, and the rest is IPv4's
	// (net/ipv6/udp.c:udpv6_recvmsg).
	info := make([]byte, 20) // struct in6_pktinfo
	if m.Local.IsValid() {
		v := m.Local.As16()
		copy(info, v[:])
	}
	native.PutUint32(info[16:], uint32(m.IfIndex))
	if s.family == unix.AF_INET6 && w&wantPktinfo6 != 0 {
		add(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, info)
	}
	if w&wantPktinfo != 0 && is4 {
		b := make([]byte, 12)
		native.PutUint32(b, uint32(m.IfIndex))
		if a := m.Local.Unmap(); a.Is4() {
			v := a.As4()
			copy(b[8:], v[:])
			v = s.m.answerFrom(a, m.IfIndex).As4()
			copy(b[4:], v[:])
		}
		add(unix.IPPROTO_IP, unix.IP_PKTINFO, b)
	}
	if w&wantTTL != 0 && is4 && m.TTL >= 0 {
		add(unix.IPPROTO_IP, unix.IP_TTL, int32Value(m.TTL))
	}
	if w&wantTOS != 0 && is4 && m.TOS >= 0 {
		add(unix.IPPROTO_IP, unix.IP_TOS, []byte{byte(m.TOS)})
	}
	if w&wantOrigDst != 0 && is4 && m.Local.IsValid() {
		local, _ := s.ep.Names()
		add(unix.IPPROTO_IP, unix.IP_ORIGDSTADDR, encodeSockaddr(unix.AF_INET, netip.AddrPortFrom(m.Local, local.Port())))
	}
	if s.family != unix.AF_INET6 || is4 {
		return out
	}
	if w&wantHopLimit != 0 && m.TTL >= 0 {
		add(unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT, int32Value(m.TTL))
	}
	if w&wantTClass != 0 && m.TOS >= 0 {
		add(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, int32Value(m.TOS))
	}
	if w&wantOrigDst6 != 0 && m.Local.IsValid() {
		local, _ := s.ep.Names()
		add(unix.IPPROTO_IPV6, unix.IPV6_ORIGDSTADDR, encodeSockaddr(unix.AF_INET6, netip.AddrPortFrom(m.Local, local.Port())))
	}
	if w&wantPktinfo2292 != 0 {
		add(unix.IPPROTO_IPV6, unix.IPV6_2292PKTINFO, info)
	}
	if w&wantHopLimit2292 != 0 && m.TTL >= 0 {
		add(unix.IPPROTO_IPV6, unix.IPV6_2292HOPLIMIT, int32Value(m.TTL))
	}
	return out
}

// appendControl appends a control message.
func appendControl(out []byte, level, typ int, data []byte) []byte {
	at := len(out)
	out = append(out, make([]byte, unix.CmsgSpace(len(data)))...)
	native.PutUint64(out[at:], uint64(unix.CmsgLen(len(data))))
	native.PutUint32(out[at+8:], uint32(level))
	native.PutUint32(out[at+12:], uint32(typ))
	copy(out[at+unix.CmsgLen(0):], data)
	return out
}

// answerFrom is the address that answers to a datagram have, ipi_spec_dst of ip(7):
// the one it was sent to, or the interface's first if that is a group or everyone.
func (m *Module) answerFrom(to netip.Addr, index int) netip.Addr {
	for _, ifc := range m.stack.State().Interfaces {
		if ifc.Index != index {
			continue
		}
		first := to
		for _, p := range slices.Backward(ifc.Addrs) {
			if p.Addr() == to || ifc.Loop && p.Contains(to) && to != broadcastOf(p) {
				return to
			}
			if p.Addr().Is4() {
				first = p.Addr()
			}
		}
		return first
	}
	return to
}

// broadcastOf is the last address of an IPv4 prefix.
func broadcastOf(p netip.Prefix) netip.Addr {
	if !p.Addr().Is4() {
		return netip.Addr{}
	}
	b := p.Addr().As4()
	host := ^uint32(0) >> p.Bits()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])|host)
	return netip.AddrFrom4(b)
}

// fitControl cuts encoded control messages down to what there is room for, as
// net/core/scm.c:put_cmsg does: a message that does not fit is cut, also within
// its data, and says so in its length; whole is false then. It changes b.
func fitControl(b []byte, room int) (fitting []byte, whole bool) {
	for at := 0; at < len(b); {
		left := room - at
		if left < unix.SizeofCmsghdr {
			return b[:min(at, room)], false
		}
		n := int(native.Uint64(b[at:]))
		if n > left {
			native.PutUint64(b[at:], uint64(left))
			return b[:room], false
		}
		at += unix.CmsgSpace(n - unix.CmsgLen(0))
	}
	return b[:min(len(b), room)], true
}

// controlMax is net.core.optmem_max, which bounds what one call may pass.
const controlMax = 128 << 10

// readControl decodes the control messages of a datagram to dst that s sends, the
// zero AddrPort being an unknown one. As in the kernel (net/ipv4/ip_sockglue.c:
// ip_cmsg_send, net/ipv6/datagram.c:ip6_datagram_send_ctl, v6.18) messages of other
// protocols are ignored, and unknown ones of the socket's own are EINVAL. So is what
// the module does not model, so that a program (a QUIC stack that tries
// UDP_SEGMENT, say) falls back.
func (s *packet) readControl(b []byte, dst netip.AddrPort) (stacks.Message, error) {
	m := noMessage
	s.stamps.sending, s.stamps.own = s.stamps.flags, false
	ip6 := s.family == unix.AF_INET6
	for len(b) >= unix.SizeofCmsghdr {
		n := native.Uint64(b)
		if n < unix.SizeofCmsghdr || n > uint64(len(b)) {
			return m, unix.EINVAL
		}
		level, typ := int(int32(native.Uint32(b[8:]))), int(int32(native.Uint32(b[12:])))
		v := b[unix.CmsgLen(0):n]
		var err error
		switch {
		case level == unix.SOL_SOCKET:
			err = s.controlOfSocket(&m, typ, v)
		case level == unix.IPPROTO_UDP && s.isUDP():
			err = controlOfUDP(&m, typ, v)
		case level == unix.IPPROTO_IPV6 && ip6 && dst.Addr().Is4In6():
			if typ == unix.IPV6_PKTINFO {
				err = controlOfIPv6(&m, typ, v)
				if err == nil && !m.Local.Is4In6() {
					err = unix.EINVAL
				}
			}
		case level == unix.IPPROTO_IPV6 && ip6:
			err = controlOfIPv6(&m, typ, v)
		case level == unix.IPPROTO_IP && (!ip6 || dst.Addr().Is4In6()):
			err = controlOfIP(&m, typ, v)
		}
		if err != nil {
			return m, err
		}
		b = b[min(unix.CmsgSpace(int(n)-unix.CmsgLen(0)), len(b)):]
	}
	return m, nil
}

// controlOfSocket is net/core/sock.c:__sock_cmsg_send.
func (s *packet) controlOfSocket(m *stacks.Message, typ int, v []byte) error {
	switch typ {
	case unix.SO_TIMESTAMPING, unix.SO_TIMESTAMPING_NEW, scmTSOptID:
		return s.controlOfStamps(typ, v)
	case unix.SCM_RIGHTS, unix.SCM_CREDENTIALS:
		return nil // of AF_UNIX: ignored
	case unix.SO_MARK: // no capability is asked for, as of the option
		if len(v) != 4 {
			return unix.EINVAL
		}
		m.Mark, m.Marked = native.Uint32(v), true
		return nil
	}
	return unix.EINVAL
}

// controlOfUDP is net/ipv4/udp.c:__udp_cmsg_send.
func controlOfUDP(m *stacks.Message, typ int, v []byte) error {
	if typ != unix.UDP_SEGMENT || len(v) != 2 {
		return unix.EINVAL
	}
	if m.Segment = int(native.Uint16(v)); m.Segment == 0 {
		m.Segment = -1
	}
	return nil
}

// controlWord is an int whose values go from least to most.
func controlWord(v []byte, least, most int) (int, error) {
	if len(v) != 4 {
		return 0, unix.EINVAL
	}
	n := int(int32(native.Uint32(v)))
	if n < least || n > most {
		return 0, unix.EINVAL
	}
	return n, nil
}

func controlOfIP(m *stacks.Message, typ int, v []byte) (err error) {
	switch typ {
	case unix.IP_PKTINFO:
		if len(v) != unix.SizeofInet4Pktinfo {
			return unix.EINVAL
		}
		if i := int(int32(native.Uint32(v))); i != 0 {
			m.IfIndex = i
		}
		m.Local = netip.Addr{}
		if a := netip.AddrFrom4([4]byte(v[4:8])); !a.IsUnspecified() { // ipi_spec_dst
			m.Local = a
		}
	case unix.IP_TTL:
		m.TTL, err = controlWord(v, 1, 255)
	case unix.IP_TOS:
		if len(v) == 1 {
			m.TOS = int(v[0])
			return nil
		}
		m.TOS, err = controlWord(v, 0, 255)
	default:
		return unix.EINVAL
	}
	return err
}

func controlOfIPv6(m *stacks.Message, typ int, v []byte) (err error) {
	switch typ {
	case unix.IPV6_PKTINFO, unix.IPV6_2292PKTINFO:
		if len(v) < unix.SizeofInet6Pktinfo {
			return unix.EINVAL
		}
		i := int(int32(native.Uint32(v[16:])))
		if i != 0 {
			if m.IfIndex != 0 && m.IfIndex != i {
				return unix.EINVAL
			}
			m.IfIndex = i
		}
		if a := netip.AddrFrom16([16]byte(v[:16])); !a.IsUnspecified() {
			m.Local = a
			if i != 0 && a.IsLinkLocalUnicast() {
				m.Local = a.WithZone(strconv.Itoa(i))
			}
		}
	case unix.IPV6_HOPLIMIT, unix.IPV6_2292HOPLIMIT:
		if len(v) != 4 {
			return unix.EINVAL
		}
		// Only its lower half is looked at.
		if m.TTL = int(int16(native.Uint32(v))); m.TTL < -1 || m.TTL > 255 {
			return unix.EINVAL
		}
	case unix.IPV6_TCLASS:
		m.TOS, err = controlWord(v, -1, 255)
	default:
		return unix.EINVAL
	}
	return err
}
