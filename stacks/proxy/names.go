// SPDX-License-Identifier: Apache-2.0

// Stand-ins: the addresses that programs get for names which the proxy resolves.

package proxy

import (
	"container/list"
	"encoding/binary"
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

// maxNames is how many names have stand-ins at a time: one for each address of
// StandIns4 but those that end in 0 or 255, which some programs take for a
// network's own. Of the names the one goes that was not asked for, and not
// connected to, for longest.
const maxNames = 512 * perOctet

const perOctet = 254

// Names gives names addresses that stand for them. A name keeps its own for as
// long as there is room. It is safe for concurrent use; use [NewNames].
type Names struct {
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

// NewNames returns a table without names.
func NewNames() *Names {
	return &Names{byName: make(map[string]*list.Element), byIndex: make(map[int]*list.Element), used: list.New(), max: maxNames}
}

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
	return addrsOf(s.index)
}

// Name returns the name that a stands for. ok says that a is in a range of the
// stand-ins; the name is empty if it stands for none.
func (n *Names) Name(a netip.Addr) (name string, ok bool) {
	if !StandIns4.Contains(a) && !StandIns6.Contains(a) {
		return "", false
	}
	i, ok := indexOf(a)
	if !ok {
		return "", true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	e, ok := n.byIndex[i]
	if !ok {
		return "", true
	}
	n.used.MoveToFront(e)
	return e.Value.(standIn).name, true
}

// addrsOf returns the stand-ins with a number below maxNames.
func addrsOf(i int) []netip.Addr {
	base := StandIns4.Addr().As4()
	low := binary.BigEndian.Uint32(base[:]) + uint32(i/perOctet)<<8 + uint32(i%perOctet) + 1
	var a4 [4]byte
	binary.BigEndian.PutUint32(a4[:], low)
	a6 := StandIns6.Addr().As16()
	copy(a6[12:], a4[:])
	return []netip.Addr{netip.AddrFrom4(a4), netip.AddrFrom16(a6)}
}

// indexOf is the reverse, for addresses of the ranges.
func indexOf(a netip.Addr) (int, bool) {
	b := a.AsSlice()
	a4 := netip.AddrFrom4([4]byte(b[len(b)-4:]))
	if !StandIns4.Contains(a4) {
		return 0, false
	}
	base := StandIns4.Addr().As4()
	off := int(binary.BigEndian.Uint32(b[len(b)-4:]) - binary.BigEndian.Uint32(base[:]))
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
