// SPDX-License-Identifier: Apache-2.0

// Messages as bytes: reading queries, and making answers without records.
//
// The question is handled as bytes and not through a message library because a
// forwarder must pass on names that have no text form (a label may hold any
// byte, RFC 2181 §11) and must not change what it does not understand.

package dns

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
)

// Response codes, RFC 1035 §4.1.1.
const (
	rcodeSuccess       = 0
	rcodeFormatError   = 1
	rcodeServerFailure = 2
	rcodeNameError     = 3
	rcodeNotImpl       = 4
	rcodeRefused       = 5
)

// Types, from the IANA registry.
const (
	typeA      = 1
	typeNS     = 2
	typeSOA    = 6
	typePTR    = 12
	typeAAAA   = 28
	typeOPT    = 41
	typeDS     = 43
	typeRRSIG  = 46
	typeNSEC   = 47
	typeDNSKEY = 48
	typeNSEC3  = 50
	typeNSEC3P = 51
	typeSVCB   = 64
	typeHTTPS  = 65
	typeIXFR   = 251
	typeAXFR   = 252
	typeANY    = 255

	classIN  = 1
	classANY = 255
)

// Bits of the second header word.
const (
	flagQR     = 1 << 15
	flagTC     = 1 << 9
	flagRD     = 1 << 8
	flagRA     = 1 << 7
	flagAD     = 1 << 5
	flagCD     = 1 << 4
	maskOpcode = 15 << 11
	maskRcode  = 15
)

const (
	headerLen  = 12
	minUDPSize = 512  // without EDNS, RFC 1035 §4.2.1
	ourUDPSize = 1232 // what we advertise: fits IPv6's least MTU, see dnsflagday.net/2020
	ednsDO     = 1 << 15
	optEDE     = 15 // Extended DNS Error, RFC 8914
	edeNetwork = 23 // its code for "network error"
)

// A query is a well-formed query message and what is to know of it.
type query struct {
	msg   []byte // the whole message
	name  []byte // wire form as asked, ends with the root label; aliases msg
	end   int    // where the question ends; 0 if there is none that can be read
	typ   uint16
	class uint16
	flags uint16
	edns  bool
	do    bool
	size  int  // bytes of UDP payload that the client takes
	plain bool // nothing beside the question but an OPT record
}

// parseQuery reads a message. !ok: not to be answered at all; else rcode says
// what is wrong with it.
func parseQuery(m []byte) (q query, rcode int, ok bool) {
	if len(m) < headerLen {
		return q, 0, false
	}
	q = query{msg: m, flags: binary.BigEndian.Uint16(m[2:]), size: minUDPSize, plain: true}
	if q.flags&flagQR != 0 {
		return q, 0, false // answering answers makes loops
	}
	if q.flags&maskOpcode != 0 {
		return q, rcodeNotImpl, true
	}
	if binary.BigEndian.Uint16(m[4:]) != 1 {
		return q, rcodeFormatError, true
	}
	end := skipName(m, headerLen, false)
	if end < 0 || end+4 > len(m) {
		return q, rcodeFormatError, true
	}
	q.name = m[headerLen:end]
	q.typ = binary.BigEndian.Uint16(m[end:])
	q.class = binary.BigEndian.Uint16(m[end+2:])
	q.end = end + 4
	if !q.parseRecords() {
		return q, rcodeFormatError, true
	}
	if q.typ == typeAXFR {
		return q, rcodeNotImpl, true // many messages; Answer returns one
	}
	return q, rcodeSuccess, true
}

// parseRecords looks for the OPT record; false: malformed.
func (q *query) parseRecords() bool {
	m, at := q.msg, q.end
	front := int(binary.BigEndian.Uint16(m[6:])) + int(binary.BigEndian.Uint16(m[8:]))
	total := front + int(binary.BigEndian.Uint16(m[10:]))
	for i := range total {
		head := skipName(m, at, true)
		if head < 0 || head+10 > len(m) {
			return false
		}
		next := head + 10 + int(binary.BigEndian.Uint16(m[head+8:]))
		if next > len(m) {
			return false
		}
		if i >= front && binary.BigEndian.Uint16(m[head:]) == typeOPT {
			if q.edns || m[at] != 0 { // RFC 6891 §6.1.1: one, owned by the root
				return false
			}
			q.edns = true
			q.size = max(minUDPSize, int(binary.BigEndian.Uint16(m[head+2:])))
			q.do = binary.BigEndian.Uint16(m[head+6:])&ednsDO != 0
		} else {
			q.plain = false
		}
		at = next
	}
	return true
}

// skipName returns the offset behind the name at m[at:], or -1. A compression
// pointer ends a name; it is not followed, so that no message can make loops.
func skipName(m []byte, at int, pointers bool) int {
	start := at
	for at < len(m) && at-start < 255 { // RFC 1035 §2.3.4
		switch n := int(m[at]); {
		case n == 0:
			return at + 1
		case n < 64:
			at += 1 + n
		case n >= 192 && pointers && at+2 <= len(m):
			return at + 2
		default:
			return -1
		}
	}
	return -1
}

// header begins an answer to q: header and question, with room behind.
func (q *query) header(rcode int) []byte {
	b := make([]byte, max(q.end, headerLen), 512)
	copy(b, q.msg)
	flags := flagQR | flagRA | q.flags&(maskOpcode|flagRD|flagCD) | uint16(rcode)
	binary.BigEndian.PutUint16(b[2:], flags)
	clear(b[4:headerLen])
	if q.end > 0 {
		b[5] = 1
	}
	return b
}

// opt adds an OPT record if the client sent one (RFC 6891 §7), with an extended
// error if text is not empty.
func (q *query) opt(b []byte, text string) []byte {
	if !q.edns {
		return b
	}
	b[11]++
	var flags uint16
	if q.do {
		flags = ednsDO
	}
	b = append(b, 0, 0, typeOPT)
	b = binary.BigEndian.AppendUint16(b, ourUDPSize)
	b = append(b, 0, 0) // extended rcode, version
	b = binary.BigEndian.AppendUint16(b, flags)
	if text == "" {
		return append(b, 0, 0)
	}
	if len(text) > 200 {
		text = strings.ToValidUTF8(text[:200], "") // keep the answer below 512 bytes
	}
	b = binary.BigEndian.AppendUint16(b, uint16(6+len(text)))
	b = binary.BigEndian.AppendUint16(b, optEDE)
	b = binary.BigEndian.AppendUint16(b, uint16(2+len(text)))
	b = binary.BigEndian.AppendUint16(b, edeNetwork)
	return append(b, text...)
}

// failure is an answer without records; text may explain it.
func (q *query) failure(rcode int, text string) []byte {
	return q.opt(q.header(rcode), text)
}

// fit cuts a reply down to what the client can take.
func (q *query) fit(reply []byte, tcp bool) []byte {
	if tcp || len(reply) <= q.size {
		return reply
	}
	return q.truncated(int(reply[3] & maskRcode))
}

// truncated is the answer that sends a client to TCP.
func (q *query) truncated(rcode int) []byte {
	b := q.failure(rcode, "")
	b[2] |= flagTC >> 8
	return b
}

// encodeName returns the wire form of a name in text, with or without the
// trailing dot. Escapes are not understood.
func encodeName(s string) ([]byte, bool) {
	s = strings.TrimSuffix(s, ".")
	var b []byte
	for label := range strings.SplitSeq(s, ".") {
		if s == "" {
			break
		}
		if len(label) == 0 || len(label) > 63 {
			return nil, false
		}
		b = append(b, byte(len(label)))
		b = append(b, label...)
	}
	b = append(b, 0)
	return b, len(b) <= 255
}

// nameText is a well-formed wire name as text to compare: in lower case, without
// the last dot. A dot inside a label is escaped, so that it equals no other name.
func nameText(name []byte) string {
	var b []byte
	for at := 0; name[at] != 0; at += 1 + int(name[at]) {
		if at > 0 {
			b = append(b, '.')
		}
		label := bytes.ReplaceAll(name[at+1:at+1+int(name[at])], []byte("."), []byte(`\.`))
		b = append(b, lower(label)...)
	}
	return string(b)
}

// lower folds the 26 letters and nothing else (RFC 4343 §3).
func lower(label []byte) []byte {
	out := bytes.Clone(label)
	for i, c := range out {
		if 'A' <= c && c <= 'Z' {
			out[i] = c + 'a' - 'A'
		}
	}
	return out
}

// reverseName is the name whose PTR record tells the name of an address
// (RFC 1035 §3.5, RFC 3596 §2.5).
func reverseName(a netip.Addr) string {
	a = a.Unmap()
	raw := a.AsSlice()
	var b strings.Builder
	for i := len(raw) - 1; i >= 0; i-- {
		if a.Is4() {
			b.WriteString(strconv.Itoa(int(raw[i])) + ".")
			continue
		}
		const hex = "0123456789abcdef"
		b.Write([]byte{hex[raw[i]&15], '.', hex[raw[i]>>4], '.'})
	}
	if a.Is4() {
		return b.String() + "in-addr.arpa"
	}
	return b.String() + "ip6.arpa"
}
