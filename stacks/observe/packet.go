// SPDX-License-Identifier: Apache-2.0

// Packets: what flow they are of, and their checksums.

package observe

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks/offload"
)

// A packet is one that passed an interface.
type packet struct {
	at      time.Time
	ifIndex int
	out     bool
	frame   []byte // with the link header, if the interface has one
	header  int    // bytes of that
	undone  bool   // the checksum of the transport header is not summed
}

// data is the packet from the network header on.
func (p *packet) data() []byte { return p.frame[p.header:] }

// A Flow names a flow from this end.
type Flow struct {
	Proto         int // IPPROTO_*
	Local, Remote netip.AddrPort
}

// String is "tcp 10.0.0.2:4242 > 10.0.0.1:80".
func (f Flow) String() string {
	return fmt.Sprintf("%s %v > %v", protoName(f.Proto), f.Local, f.Remote)
}

// protoName is how people write a protocol.
func protoName(proto int) string {
	switch proto {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_ICMP:
		return "icmp"
	case unix.IPPROTO_ICMPV6:
		return "icmpv6"
	}
	return fmt.Sprintf("ip-%d", proto)
}

// A parsed packet.
type parsed struct {
	flow      Flow
	transport []byte // from the transport header on
	start     int    // of it
	fragment  bool   // not the first one: without ports
}

// parse finds the flow of a packet; ok is false if it is no IP, or cut off.
func parse(p *packet) (x parsed, ok bool) {
	d := p.data()
	var src, dst netip.Addr
	var proto, start, end int
	switch {
	case len(d) >= 20 && d[0]>>4 == 4: // RFC 791 §3.1
		start = int(d[0]&0xf) * 4
		end = int(binary.BigEndian.Uint16(d[2:]))
		proto = int(d[9])
		src, dst = netip.AddrFrom4([4]byte(d[12:])), netip.AddrFrom4([4]byte(d[16:]))
		x.fragment = binary.BigEndian.Uint16(d[6:])&0x1fff != 0
	case len(d) >= 40 && d[0]>>4 == 6: // RFC 8200 §3
		proto, start = int(d[6]), 40
		end = 40 + int(binary.BigEndian.Uint16(d[4:]))
		src, dst = netip.AddrFrom16([16]byte(d[8:])), netip.AddrFrom16([16]byte(d[24:]))
		proto, start, x.fragment = extensions(d, proto, start)
	default:
		return x, false
	}
	if start < 20 || start > len(d) {
		return x, false
	}
	if end < start || end > len(d) {
		end = len(d) // a super-segment may have no length
	}
	x.start, x.transport = start, d[start:end]
	sport, dport := ports(proto, x)
	if p.out {
		x.flow = Flow{proto, netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)}
	} else {
		x.flow = Flow{proto, netip.AddrPortFrom(dst, dport), netip.AddrPortFrom(src, sport)}
	}
	return x, true
}

// extensions skips the extension headers of IPv6 (RFC 8200 §4).
func extensions(d []byte, proto, start int) (int, int, bool) {
	fragment := false
	for range 8 {
		if len(d) < start+8 {
			return proto, start, fragment
		}
		switch proto {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
			proto, start = int(d[start]), start+8+8*int(d[start+1])
		case unix.IPPROTO_FRAGMENT:
			fragment = fragment || binary.BigEndian.Uint16(d[start+2:])&^7 != 0
			proto, start = int(d[start]), start+8
		default:
			return proto, start, fragment
		}
	}
	return proto, start, fragment
}

// begins tells whether x opens a TCP connection.
func (x *parsed) begins() bool {
	return x.flow.Proto == unix.IPPROTO_TCP && len(x.transport) >= 20 && x.transport[13]&(tcpSYN|tcpACK) == tcpSYN
}

// ports returns the ports of a packet as it travels; of ICMP echo both are the
// identifier.
func ports(proto int, x parsed) (src, dst uint16) {
	t := x.transport
	if x.fragment {
		return 0, 0
	}
	switch {
	case (proto == unix.IPPROTO_TCP || proto == unix.IPPROTO_UDP) && len(t) >= 4:
		return binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
	case proto == unix.IPPROTO_ICMP && len(t) >= 8 && (t[0] == 0 || t[0] == 8), // RFC 792, echo
		proto == unix.IPPROTO_ICMPV6 && len(t) >= 8 && (t[0] == 128 || t[0] == 129): // RFC 4443 §4
		id := binary.BigEndian.Uint16(t[4:])
		return id, id
	}
	return 0, 0
}

// finish sums the checksum of an undone packet.
func finish(p *packet) {
	x, ok := parse(p)
	if !p.undone || !ok || x.fragment {
		return
	}
	h := offload.Hdr{Flags: offload.NeedsCsum, CsumStart: uint16(x.start)}
	switch x.flow.Proto {
	case unix.IPPROTO_TCP:
		h.CsumOffset = 16
	case unix.IPPROTO_UDP:
		h.CsumOffset = 6
	default:
		return
	}
	done := make([]byte, len(p.frame))
	copy(done, p.frame[:p.header])
	sizes := make([]int, 1)
	if n, err := offload.Split(h, p.data(), [][]byte{done}, sizes, p.header); err == nil && n == 1 && sizes[0] == len(p.data()) {
		p.frame, p.undone = done, false
	}
}
