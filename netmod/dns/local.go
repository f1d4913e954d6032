// SPDX-License-Identifier: Apache-2.0

// Names that are answered here and never leave the view.

package dns

import (
	"encoding/binary"
	"net/netip"
	"strings"
)

// localTTL is short: these answers cost nothing.
const localTTL = 10 // seconds

// canary is the name by which Firefox asks whether it may by-pass the network's
// resolver (support.mozilla.org, "Canary domain - use-application-dns.net").
const canary = "use-application-dns.net"

var loopbackAddrs = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// loopback6 is the reverse name of ::1.
var loopback6 = reverseName(netip.IPv6Loopback())

// local returns the answer to a local name, or nil if q must be forwarded.
func (s *Stub) local(q query) []byte {
	if q.class != classIN && q.class != classANY {
		return nil
	}
	name := nameText(q.name)
	if addrs, ok := s.hosts[name]; ok {
		return q.addresses(addrs)
	}
	if host, ok := s.reverse[name]; ok {
		return q.pointer(host)
	}
	switch {
	case within(name, "localhost"):
		return q.addresses(loopbackAddrs)
	case within(name, "127.in-addr.arpa"):
		if strings.Count(name, ".") == 5 {
			return q.pointer("localhost")
		}
		return q.failure(rcodeSuccess, "")
	case name == loopback6:
		return q.pointer("localhost")
	case within(name, canary):
		return q.failure(rcodeNameError, "")
	case within(name, "resolver.arpa"):
		return q.failure(rcodeSuccess, "")
	}
	if s.conf.Names != nil {
		return s.named(q)
	}
	return nil
}

// within reports whether name is domain or below it.
func within(name, domain string) bool {
	head, ok := strings.CutSuffix(name, domain)
	return ok && (head == "" || strings.HasSuffix(head, ".") && !strings.HasSuffix(head, `\.`))
}

// addresses answers with those of addrs that have the type asked for.
func (q *query) addresses(addrs []netip.Addr) []byte {
	b := q.header(rcodeSuccess)
	n := uint16(0)
	for _, a := range addrs {
		typ := uint16(typeAAAA)
		if a = a.Unmap(); a.Is4() {
			typ = typeA
		}
		if q.typ == typ || q.typ == typeANY {
			b = appendRecord(b, typ, a.AsSlice())
			n++
		}
	}
	binary.BigEndian.PutUint16(b[6:], n)
	return q.opt(b, "")
}

// pointer answers a reverse name.
func (q *query) pointer(host string) []byte {
	b := q.header(rcodeSuccess)
	if wire, ok := encodeName(host); ok && (q.typ == typePTR || q.typ == typeANY) {
		b = appendRecord(b, typePTR, wire)
		b[7] = 1
	}
	return q.opt(b, "")
}

// appendRecord adds a record of the name in the question.
func appendRecord(b []byte, typ uint16, data []byte) []byte {
	b = append(b, 0xc0, headerLen) // pointer to the question
	b = binary.BigEndian.AppendUint16(b, typ)
	b = binary.BigEndian.AppendUint16(b, classIN)
	b = binary.BigEndian.AppendUint32(b, localTTL)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}
