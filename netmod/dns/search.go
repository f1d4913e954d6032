// SPDX-License-Identifier: Apache-2.0

// Search domains: a dotless name, tried below each of them.

package dns

import (
	"bytes"
	"context"
	"encoding/binary"

	"golang.org/x/net/dns/dnsmessage"
)

// searchable reports whether q may be answered by a search domain.
func (s *Stub) searchable(q query) bool { return q.dotless() && s.local(q) == nil }

// dotless reports whether q is about a host with a name of one label.
func (q *query) dotless() bool {
	if q.class != classIN || !q.plain || q.flags&flagCD != 0 {
		return false
	}
	if first := int(q.name[0]); first == 0 || q.name[1+first] != 0 {
		return false // the root, or more than one label
	}
	switch q.typ {
	case typeNS, typeSOA, typeDS, typeRRSIG, typeNSEC, typeDNSKEY, typeNSEC3, typeNSEC3P, typeIXFR:
		return false // questions about zones, not about hosts
	}
	return true
}

// exists reports whether a reply has records, or is cut off and may have some.
func exists(reply []byte) bool {
	return reply[3]&maskRcode == rcodeSuccess &&
		(reply[2]&(flagTC>>8) != 0 || binary.BigEndian.Uint16(reply[6:]) > 0)
}

// searchFor returns the answer of the first search domain that knows the name,
// or asked, the reply to the name as it was asked.
func (s *Stub) searchFor(ctx context.Context, up *upstream, q query, tcp bool, asked []byte) []byte {
	// The name itself exists, without such data: nothing less than records is
	// better than that.
	noData := asked[3]&maskRcode == rcodeSuccess
	for _, domain := range up.search {
		q2, ok := q.below(domain)
		if !ok {
			continue
		}
		reply, answered := s.lookup(ctx, up, q2, tcp)
		if !answered {
			return asked // out of time
		}
		if reply[3]&maskRcode != rcodeSuccess || noData && !exists(reply) {
			continue
		}
		if reply[2]&(flagTC>>8) != 0 {
			return q.truncated(rcodeSuccess)
		}
		if made, err := q.alias(q2, reply); err == nil {
			return made
		}
	}
	return asked
}

// below returns q for its label under domain.
func (q *query) below(domain []byte) (query, bool) {
	label := q.name[:len(q.name)-1]
	if len(label)+len(domain) > 255 {
		return query{}, false
	}
	msg := bytes.Join([][]byte{q.msg[:headerLen], label, domain, q.msg[q.end-4:]}, nil)
	q2, rcode, ok := parseQuery(msg)
	return q2, ok && rcode == rcodeSuccess
}

// alias turns the reply to q2 into one to q: the question is q's again, and a
// CNAME record leads to the name that was found. The message is taken apart and
// built anew because compression pointers count from its beginning.
func (q *query) alias(q2 query, reply []byte) ([]byte, error) {
	var m, orig, found dnsmessage.Message
	if err := m.Unpack(reply); err != nil {
		return nil, err
	}
	if err := orig.Unpack(q.msg); err != nil {
		return nil, err
	}
	if err := found.Unpack(q2.msg); err != nil {
		return nil, err
	}
	ttl := uint32(localTTL)
	if len(m.Answers) > 0 {
		ttl = m.Answers[0].Header.TTL
	}
	m.AuthenticData = false
	m.Questions = orig.Questions
	m.Answers = append([]dnsmessage.Resource{{
		Header: dnsmessage.ResourceHeader{
			Name:  orig.Questions[0].Name,
			Class: dnsmessage.ClassINET,
			TTL:   ttl,
		},
		Body: &dnsmessage.CNAMEResource{CNAME: found.Questions[0].Name},
	}}, m.Answers...)
	return m.Pack()
}
