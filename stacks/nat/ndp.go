// SPDX-License-Identifier: Apache-2.0

// Neighbour discovery of a Server: solicitations, and advertisements of the router.

package nat

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"umrun/stacks/offload"
)

// Times of router advertisements, RFC 4861 §6.2.1 and §10, RFC 8106 §5.
const (
	advertEvery    = 10 * time.Minute
	initialEvery   = 16 * time.Second
	initialAdverts = 3
	routerLife     = 30 * time.Minute
	prefixValid    = 24 * time.Hour
	prefixPrefers  = 4 * time.Hour
	ndpHops        = 255
)

// Types of messages and options, RFC 4861 §4 and RFC 8106.
const (
	routerSolicit, routerAdvert   = 133, 134
	neighborSolicit, neighborAdvt = 135, 136

	optSourceLL, optTargetLL, optPrefix, optMTU = 1, 2, 3, 5
	optRDNSS, optDNSSL                          = 25, 31
)

var (
	allNodes = netip.MustParseAddr("ff02::1")
)

// solicitedNode is the group of a, RFC 4291 §2.7.1.
func solicitedNode(a addr) addr {
	b := netip.MustParseAddr("ff02::1:ff00:0").As16()
	f := a.As16()
	copy(b[13:], f[13:])
	return netip.AddrFrom16(b)
}

// ndp handles a message of neighbour discovery from a guest; false means that the
// packet is none. RFC 4861 §6.1 and §7.1 say which are valid.
func (s *Server) ndp(from mac, p []byte) bool {
	ip := header.IPv6(p)
	if ip.NextHeader() != protoICMP6 {
		return false
	}
	n := int(ip.PayloadLength())
	if n > len(p)-header.IPv6MinimumSize || n < header.ICMPv6MinimumSize {
		return false
	}
	msg := p[header.IPv6MinimumSize : header.IPv6MinimumSize+n]
	typ := msg[0]
	if typ < routerSolicit || typ > neighborAdvt+1 { // and redirects
		return false
	}
	src, dst := addr6(p[8:24]), addr6(p[24:40])
	if ip.HopLimit() != ndpHops || msg[1] != 0 || !sumOK(protoICMP6, src.AsSlice(), dst.AsSlice(), msg) {
		s.nat.stats.malformed.Add(1)
		return true
	}
	switch typ {
	case routerSolicit:
		if len(msg) < 8 {
			break
		}
		if ll, ok := linkAddr(msg[8:], optSourceLL); ok {
			s.near.learn(src, ll)
		}
		to, hw := allNodes, groupMAC(allNodes)
		if !src.IsUnspecified() {
			to, hw = src, from
		}
		s.reply(hw, unix.ETH_P_IPV6, s.advert(to, routerLife))
	case neighborSolicit:
		if len(msg) < 24 {
			break
		}
		if ll, ok := linkAddr(msg[24:], optSourceLL); ok && !src.IsUnspecified() {
			s.near.learn(src, ll)
		}
		target := addr6(msg[8:24])
		if target != s.ll && !ours(target) {
			break
		}
		// Who asks with no address of its own wants to take this one (RFC 4862 §5.4.4).
		to, hw, flags := src, from, byte(0xe0) // router, solicited, override
		if src.IsUnspecified() {
			to, hw, flags = allNodes, groupMAC(allNodes), 0xa0
		}
		m := make([]byte, 24, 32)
		m[0], m[4] = neighborAdvt, flags
		copy(m[8:], target.AsSlice())
		s.reply(hw, unix.ETH_P_IPV6, packet6(target, to, linkOption(m, optTargetLL)))
	case neighborAdvt:
		if len(msg) < 24 {
			break
		}
		hw, ok := linkAddr(msg[24:], optTargetLL)
		if !ok {
			hw = from
		}
		s.near.learn(addr6(msg[8:24]), hw)
	}
	return true
}

// linkAddr finds a link-layer address among options.
func linkAddr(b []byte, typ byte) (mac, bool) {
	for len(b) >= 8 {
		n := 8 * int(b[1])
		if n == 0 || n > len(b) {
			break
		}
		if b[0] == typ {
			m := mac(b[2:8])
			return m, m[0]&1 == 0 && m != ourMAC
		}
		b = b[n:]
	}
	return mac{}, false
}

func linkOption(b []byte, typ byte) []byte {
	return append(append(b, typ, 1), ourMAC[:]...)
}

// packet6 makes an IPv6 packet of a message of neighbour discovery, and sums it.
func packet6(from, to addr, msg []byte) []byte {
	raw, m := newRaw(from, to, protoICMP6, len(msg))
	copy(m, msg)
	sumICMP(from, to, m)
	p := raw[offload.HdrLen:]
	header.IPv6(p).SetHopLimit(ndpHops)
	return p
}

// solicit6 asks the guests who has a; only the control goroutine does.
func (s *Server) solicit6(a addr) {
	m := make([]byte, 24, 32)
	m[0] = neighborSolicit
	copy(m[8:], a.AsSlice())
	group := solicitedNode(a)
	from := s.ll
	if !a.IsLinkLocalUnicast() {
		from = Gateway6
	}
	s.sendOwn(groupMAC(group), unix.ETH_P_IPV6, packet6(from, group, linkOption(m, optSourceLL)))
}

// advertise tells all guests of the router, which is there for life; only the control
// goroutine does.
func (s *Server) advertise(life time.Duration) {
	s.sendOwn(groupMAC(allNodes), unix.ETH_P_IPV6, s.advert(allNodes, life))
}

// advert makes a router advertisement: [Net6] is on link and for autoconfiguration, the
// MTU, and who answers names (RFC 8106).
func (s *Server) advert(to addr, life time.Duration) []byte {
	seconds := func(b []byte, d time.Duration) { binary.BigEndian.PutUint32(b, uint32(d.Seconds())) }
	m := make([]byte, 16, 128)
	m[0], m[4] = routerAdvert, ourTTL
	binary.BigEndian.PutUint16(m[6:], uint16(life.Seconds()))
	m = linkOption(m, optSourceLL)

	var mtu [8]byte
	mtu[0], mtu[1] = optMTU, 1
	binary.BigEndian.PutUint32(mtu[4:], uint32(s.nat.opts.MTU))
	m = append(m, mtu[:]...)

	var prefix [32]byte
	prefix[0], prefix[1], prefix[2], prefix[3] = optPrefix, 4, byte(Net6.Bits()), 0xc0
	seconds(prefix[4:], prefixValid)
	seconds(prefix[8:], prefixPrefers)
	copy(prefix[16:], Net6.Addr().AsSlice())
	m = append(m, prefix[:]...)

	c := s.nat.Config().DNS
	if len(c.Servers) > 0 {
		var dns [24]byte
		dns[0], dns[1] = optRDNSS, 3
		seconds(dns[4:], life)
		copy(dns[8:], DNS6.AsSlice())
		m = append(m, dns[:]...)
	}
	if names := labels(c.Search); len(names) > 0 {
		b := make([]byte, 8, 8+len(names)+7)
		seconds(b[4:], life)
		b = append(b, names...)
		for len(b)%8 != 0 {
			b = append(b, 0)
		}
		b[0], b[1] = optDNSSL, byte(len(b)/8)
		m = append(m, b...)
	}
	return packet6(s.ll, to, m)
}

// maxSearch is what an option holds of search domains, bytes.
const maxSearch = 255*8 - 8 - 7

// labels writes names as RFC 1035 §3.1 does, as many as there is room for; those that
// cannot be written so are left out.
func labels(names []string) []byte {
	var out []byte
next:
	for _, n := range names {
		var b []byte
		for l := range strings.SplitSeq(n, ".") {
			if l == "" || len(l) > 63 {
				continue next
			}
			b = append(append(b, byte(len(l))), l...)
		}
		if len(b) < 255 && len(out)+len(b)+1 <= maxSearch {
			out = append(append(out, b...), 0)
		}
	}
	return out
}
