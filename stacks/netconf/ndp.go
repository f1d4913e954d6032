// SPDX-License-Identifier: Apache-2.0

// Messages of neighbour discovery: RFC 4861, with the options of RFC 4191 and RFC 8106.

package netconf

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"time"
)

// Types of ICMPv6, RFC 4861 §4.
const (
	typeRouterSolicit   = 133
	typeRouterAdvert    = 134
	typeNeighborSolicit = 135
	typeNeighborAdvert  = 136
)

// Types of options: RFC 4861 §4.6, RFC 4191 §2.3, RFC 8106 §5.
const (
	optSourceMAC = 1
	optPrefix    = 3
	optMTU       = 5
	optRoute     = 24
	optRDNSS     = 25
	optDNSSL     = 31
)

// infinite is a lifetime that does not end, in seconds.
const infinite = 0xffffffff

// A lifetime is what a message says, in seconds; infinite is for ever.
type lifetime uint32

// until is when a lifetime that begins now ends; zero: never.
func (l lifetime) until(now time.Time) time.Time {
	if l == infinite {
		return time.Time{}
	}
	return now.Add(time.Duration(l) * time.Second)
}

// An advert is a router advertisement.
type advert struct {
	managed, other bool // M and O
	preference     int  // -1, 0, 1
	router         lifetime
	mtu            int
	prefixes       []prefixInfo
	routes         []routeInfo
	servers        []serverInfo
	search         []searchInfo
}

type prefixInfo struct {
	prefix           netip.Prefix
	onLink, auto     bool // L and A
	valid, preferred lifetime
}

type routeInfo struct {
	prefix     netip.Prefix
	preference int
	life       lifetime
}

type serverInfo struct {
	addr netip.Addr
	life lifetime
}

type searchInfo struct {
	domain string
	life   lifetime
}

// preference reads the two bits of RFC 4191 §2.1; ok is false for the reserved value.
func preference(b byte) (p int, ok bool) {
	switch b >> 3 & 3 {
	case 1:
		return 1, true
	case 3:
		return -1, true
	case 0:
		return 0, true
	}
	return 0, false
}

// parseAdvert reads a router advertisement from its type on. A message with an option
// of length zero or one that is cut off says nothing (RFC 4861 §6.1.2); an option that
// is wrong in itself is left out.
func parseAdvert(b []byte) (advert, bool) {
	var a advert
	if len(b) < 16 || b[0] != typeRouterAdvert || b[1] != 0 {
		return a, false
	}
	a.managed, a.other = b[5]&0x80 != 0, b[5]&0x40 != 0
	a.preference, _ = preference(b[5]) // reserved: as medium
	a.router = lifetime(binary.BigEndian.Uint16(b[6:]))
	if a.router == 0 {
		a.preference = 0
	}
	ok := eachOption(b[16:], func(typ byte, o []byte) {
		switch typ {
		case optPrefix:
			if len(o) == 30 && o[0] <= 128 {
				a.prefixes = append(a.prefixes, prefixInfo{
					prefix: netip.PrefixFrom(netip.AddrFrom16([16]byte(o[14:30])), int(o[0])).Masked(),
					onLink: o[1]&0x80 != 0, auto: o[1]&0x40 != 0,
					valid: lifetime(binary.BigEndian.Uint32(o[2:])), preferred: lifetime(binary.BigEndian.Uint32(o[6:])),
				})
			}
		case optMTU:
			if len(o) == 6 {
				a.mtu = int(min(binary.BigEndian.Uint32(o[2:]), 65535))
			}
		case optRoute:
			a.route(o)
		case optRDNSS:
			if len(o) >= 22 && (len(o)-6)%16 == 0 {
				life := lifetime(binary.BigEndian.Uint32(o[2:]))
				for o := o[6:]; len(o) > 0; o = o[16:] {
					a.servers = append(a.servers, serverInfo{netip.AddrFrom16([16]byte(o)), life})
				}
			}
		case optDNSSL:
			if len(o) >= 14 {
				life := lifetime(binary.BigEndian.Uint32(o[2:]))
				for _, d := range domainList(o[6:]) {
					a.search = append(a.search, searchInfo{d, life})
				}
			}
		}
	})
	return a, ok
}

// route reads a route information option, whose prefix may be shorter than 16 bytes.
func (a *advert) route(o []byte) {
	if len(o) != 6 && len(o) != 14 && len(o) != 22 || int(o[0]) > (len(o)-6)*8 {
		return
	}
	p, ok := preference(o[1])
	if !ok {
		return // RFC 4191 §2.3: to be ignored
	}
	var addr [16]byte
	copy(addr[:], o[6:])
	a.routes = append(a.routes, routeInfo{
		prefix: netip.PrefixFrom(netip.AddrFrom16(addr), int(o[0])).Masked(), preference: p, life: lifetime(binary.BigEndian.Uint32(o[2:])),
	})
}

// eachOption calls f with what follows the length of each option; false if they are
// not whole.
func eachOption(b []byte, f func(typ byte, o []byte)) bool {
	for whole := 0; whole < 2; whole++ { // first look at all of them
		for o := b; len(o) > 0; {
			if len(o) < 8 || o[1] == 0 || int(o[1])*8 > len(o) {
				return false
			}
			n := int(o[1]) * 8
			if whole == 1 {
				f(o[0], o[2:n])
			}
			o = o[n:]
		}
	}
	return true
}

// domainList reads names as they stand in messages of DNS, without compression, up to
// zeroes that fill. What is no name of hosts ends it.
func domainList(b []byte) []string {
	var names []string
	for len(b) > 0 && b[0] != 0 {
		var name []byte
		for {
			if len(b) == 0 || int(b[0]) > len(b)-1 || b[0] > 63 {
				return names
			}
			n := int(b[0])
			label := b[1 : 1+n]
			b = b[1+n:]
			if n == 0 {
				break
			}
			if bytes.IndexByte(label, '.') >= 0 {
				return names
			}
			if len(name) > 0 {
				name = append(name, '.')
			}
			name = append(name, label...)
		}
		if !isDomain(string(name)) {
			return names
		}
		names = append(names, string(name))
	}
	return names
}

// isDomain tells whether s can be a search domain: labels of letters, digits, hyphens
// and underscores. What a network says is not trusted to be a name.
func isDomain(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	label := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.':
			if label == 0 {
				return false
			}
			label = 0
			continue
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-' && label > 0:
		default:
			return false
		}
		if label++; label > 63 {
			return false
		}
	}
	return label > 0
}

// routerSolicit is a router solicitation from an address, RFC 4861 §4.1.
func routerSolicit(mac net.HardwareAddr, from netip.Addr) []byte {
	msg := append([]byte{typeRouterSolicit, 0, 0, 0, 0, 0, 0, 0}, optSourceMAC, 1)
	msg = append(msg, mac...)
	return icmp6(groupMAC(allRouters), mac, allRouters, from, msg)
}

// duplicateProbe asks whether somebody has the address, RFC 4862 §5.4.2.
func duplicateProbe(mac net.HardwareAddr, a netip.Addr) []byte {
	to := solicited(a)
	msg := append([]byte{typeNeighborSolicit, 0, 0, 0, 0, 0, 0, 0}, a.AsSlice()...)
	return icmp6(groupMAC(to), mac, to, netip.IPv6Unspecified(), msg)
}

// parseNeighbour reads whom a solicitation or an advertisement is about.
func parseNeighbour(b []byte) (target netip.Addr, ok bool) {
	if len(b) < 24 || b[1] != 0 || b[0] != typeNeighborSolicit && b[0] != typeNeighborAdvert {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16([16]byte(b[8:24])), true
}
