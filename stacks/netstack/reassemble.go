// SPDX-License-Identifier: Apache-2.0

// Putting fragments of IPv6 together, for raw sockets: gVisor does it for itself and
// shows the whole packet to nobody else.

package netstack

import (
	"cmp"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Bounds of what waits to be put together.
const (
	fragmentTime  = 60 * time.Second // RFC 8200 §4.5
	fragmentSets  = 64               // packets
	fragmentBytes = 4 << 20          // net.ipv6.ip6frag_high_thresh
)

// fragmentHeader is the length of the fragment header, bytes.
const fragmentHeader = 8

// fragments holds incomplete packets. The zero value is ready.
type fragments struct {
	mu    sync.Mutex // a leaf
	sets  map[fragmentKey]*fragmentSet
	bytes int // of all parts
}

type fragmentKey struct {
	src, dst [header.IPv6AddressSize]byte
	id       uint32
}

type fragmentSet struct {
	head  []byte // what stands before the fragment header, of the first fragment
	next  int    // protocol of the first header behind it
	parts []fragment
	bytes int // of parts
	total int // bytes of the whole; 0: not known yet
	until time.Time
}

type fragment struct {
	at   int // offset in the whole, bytes
	data []byte
}

// atomicFragment tells whether a fragment header is one of a whole packet (RFC 6946).
func atomicFragment(h []byte) bool { return binary.BigEndian.Uint16(h[2:])&^6 == 0 }

// collect takes the fragment b, whose fragment header is at offset at. When it was the
// last that was missing, the packet is returned, without the fragment header, and the
// protocol of what is at that offset.
func (f *fragments) collect(b []byte, at int) (whole []byte, next int) {
	h, ip := b[at:], header.IPv6(b)
	flags := binary.BigEndian.Uint16(h[2:])
	part := fragment{int(flags &^ 7), h[fragmentHeader:]}
	more := flags&1 != 0
	if more && len(part.data)%8 != 0 || len(part.data) == 0 || part.at+len(part.data) > maxIP {
		return nil, 0
	}
	key := fragmentKey{ip.SourceAddress().As16(), ip.DestinationAddress().As16(), binary.BigEndian.Uint32(h[4:])}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.set(key, len(part.data))
	if s == nil {
		return nil, 0
	}
	if !s.fits(part, more) { // RFC 5722: all of it goes
		f.drop(key)
		return nil, 0
	}
	if slices.ContainsFunc(s.parts, func(p fragment) bool { return p.at == part.at }) {
		return nil, 0 // a duplicate
	}
	if !more {
		s.total = part.at + len(part.data)
	}
	if part.at == 0 {
		s.head, s.next = b[:at], int(h[0])
	}
	s.parts = append(s.parts, part)
	s.bytes += len(part.data)
	f.bytes += len(part.data)
	if s.head == nil || s.total == 0 || s.bytes != s.total || len(s.head)-header.IPv6MinimumSize+s.total > maxIP {
		return nil, 0
	}
	slices.SortFunc(s.parts, func(a, b fragment) int { return cmp.Compare(a.at, b.at) })
	whole = slices.Clone(s.head)
	for _, p := range s.parts {
		whole = append(whole, p.data...)
	}
	header.IPv6(whole).SetPayloadLength(uint16(len(whole) - header.IPv6MinimumSize))
	if len(s.head) == header.IPv6MinimumSize {
		header.IPv6(whole).SetNextHeader(uint8(s.next))
	}
	f.drop(key)
	return whole, s.next
}

// set returns the set of a key, making room for n bytes; nil if there is none.
func (f *fragments) set(key fragmentKey, n int) *fragmentSet {
	now := time.Now()
	for k, s := range f.sets {
		if now.After(s.until) {
			f.drop(k)
		}
	}
	if f.bytes+n > fragmentBytes {
		return nil
	}
	s := f.sets[key]
	if s == nil && len(f.sets) < fragmentSets {
		if f.sets == nil {
			f.sets = make(map[fragmentKey]*fragmentSet)
		}
		s = &fragmentSet{until: now.Add(fragmentTime)}
		f.sets[key] = s
	}
	return s
}

func (f *fragments) drop(key fragmentKey) {
	if s := f.sets[key]; s != nil {
		f.bytes -= s.bytes
		delete(f.sets, key)
	}
}

// fits tells whether a part overlaps no other, but for being one of them again, and
// agrees with the length of the whole.
func (s *fragmentSet) fits(part fragment, more bool) bool {
	end := part.at + len(part.data)
	if s.total != 0 && (end > s.total || !more && end != s.total) {
		return false
	}
	for _, p := range s.parts {
		if p.at == part.at && len(p.data) == len(part.data) {
			continue
		}
		if part.at < p.at+len(p.data) && p.at < end || !more && p.at+len(p.data) > end {
			return false
		}
	}
	return true
}
