// SPDX-License-Identifier: Apache-2.0

// Stand-ins: the addresses that programs get for names which the proxy resolves.

package proxy

import (
	"container/list"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"strings"
	"sync"
)

// The ranges of the stand-ins. That of IPv4 is for benchmarks (RFC 2544), which
// no network uses; that of IPv6 is a local one (RFC 4193), and its last 32 bits are
// the stand-in of IPv4.
var (
	StandIns4 = netip.MustParsePrefix("198.18.0.0/15")
	StandIns6 = netip.MustParsePrefix("fd00:198:18::/96")
)

// perOctet is how many stand-ins there are with the same first three bytes: not
// those that end in 0 or 255, which some programs take for a network's own.
const perOctet = 254

// Names gives names addresses that stand for them. A name keeps its own for as
// long as there is room; then the one goes that was not asked for, and not
// connected to, for longest. It is safe for concurrent use; use [NewNames].
type Names struct {
	range4, range6 netip.Prefix // parts of StandIns4 and StandIns6
	all            []*Names     // that were made with it

	mu      sync.Mutex
	byName  map[string]*list.Element // +checklocks:mu
	byIndex map[int]*list.Element    // +checklocks:mu
	used    *list.List               // +checklocks:mu, of standIn, the latest first
	max     int
}

type standIn struct {
	name  string
	index int
}

// MaxParts is how many tables can share the ranges.
const MaxParts = 64

// NewNames returns tables without names, one for each proxy of a view: n of them,
// from 1 to [MaxParts]. Each gives its names stand-ins of a part of the ranges, so
// that the address tells by which proxy the name is to be resolved; all of them know
// what it stands for.
func NewNames(n int) []*Names {
	all := make([]*Names, n)
	size := bits.Len(uint(n - 1)) // log2, rounded up
	for i := range all {
		all[i] = newNames(i, size)
		all[i].all = all
	}
	return all
}

func newNames(part, size int) *Names {
	base := binary.BigEndian.Uint32(StandIns4.Addr().AsSlice())
	base += uint32(part) << (32 - StandIns4.Bits() - size)
	var a4 [4]byte
	binary.BigEndian.PutUint32(a4[:], base)
	a6 := StandIns6.Addr().As16()
	copy(a6[12:], a4[:])
	length := StandIns4.Bits() + size
	return &Names{
		range4: netip.PrefixFrom(netip.AddrFrom4(a4), length),
		range6: netip.PrefixFrom(netip.AddrFrom16(a6), 96+length),
		byName: make(map[string]*list.Element), byIndex: make(map[int]*list.Element), used: list.New(),
		max: 1 << (24 - length) * perOctet,
	}
}

// Ranges returns the prefixes of the stand-ins, of IPv4 and of IPv6.
func (n *Names) Ranges() []netip.Prefix { return []netip.Prefix{n.range4, n.range6} }

// Addrs returns the stand-ins of name, an IPv4 and an IPv6 address; none if name
// cannot be a host's. It is in lower case, without a trailing dot.
func (n *Names) Addrs(name string) []netip.Addr {
	if !hostName(name) {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	e, ok := n.byName[name]
	switch {
	case ok:
		n.used.MoveToFront(e)
	case n.used.Len() < n.max:
		e = n.used.PushFront(standIn{name, n.used.Len()})
	default:
		e = n.used.Back()
		old := e.Value.(standIn)
		delete(n.byName, old.name)
		e.Value = standIn{name, old.index}
		n.used.MoveToFront(e)
	}
	s := e.Value.(standIn)
	n.byName[name], n.byIndex[s.index] = e, e
	return n.addrs(s.index)
}

// Name returns the name that a stands for. ok says that a is in a range of all
// stand-ins; the name is empty if it stands for none.
func (n *Names) Name(a netip.Addr) (name string, ok bool) {
	if !StandIns4.Contains(a) && !StandIns6.Contains(a) {
		return "", false
	}
	for _, t := range n.all {
		if i, ok := t.index(a); ok {
			return t.name(i), true
		}
	}
	return "", true
}

func (n *Names) name(i int) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	e, ok := n.byIndex[i]
	if !ok {
		return ""
	}
	n.used.MoveToFront(e)
	return e.Value.(standIn).name
}

// addrs returns the stand-ins with a number.
func (n *Names) addrs(i int) []netip.Addr {
	low := binary.BigEndian.Uint32(n.range4.Addr().AsSlice()) + uint32(i/perOctet)<<8 + uint32(i%perOctet) + 1
	var a4 [4]byte
	binary.BigEndian.PutUint32(a4[:], low)
	a6 := n.range6.Addr().As16()
	copy(a6[12:], a4[:])
	return []netip.Addr{netip.AddrFrom4(a4), netip.AddrFrom16(a6)}
}

// index is the reverse; false: a is no stand-in of this table.
func (n *Names) index(a netip.Addr) (int, bool) {
	if !n.range4.Contains(a) && !n.range6.Contains(a) {
		return 0, false
	}
	b := a.AsSlice()
	off := int(binary.BigEndian.Uint32(b[len(b)-4:]) - binary.BigEndian.Uint32(n.range4.Addr().AsSlice()))
	if last := off & 255; last == 0 || last == 255 {
		return 0, false
	}
	return off>>8*perOctet + off&255 - 1, true
}

// hostName reports whether name can be a host's: labels of letters, digits,
// hyphens, underscores and what is not ASCII, 253 bytes in all (RFC 1123 §2.1),
// and not all digits at the end, which would be an address.
func hostName(name string) bool {
	if len(name) == 0 || len(name) > 253 {
		return false
	}
	digits := true
	for label := range strings.SplitSeq(name, ".") {
		if len(label) == 0 || len(label) > 63 {
			return false
		}
		digits = true
		for _, c := range []byte(label) {
			switch {
			case '0' <= c && c <= '9':
			case 'a' <= c && c <= 'z', c == '-', c == '_', c >= 0x80:
				digits = false
			default:
				return false
			}
		}
	}
	return !digits
}
