// SPDX-License-Identifier: Apache-2.0

// The addresses in an answer, and the names that lead to them.

package dns

import (
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Asked returns the name that a query or its answer is about, lower case without a
// trailing dot; ok is false for what is no message with a question.
func Asked(message []byte) (name string, ok bool) {
	var p dnsmessage.Parser
	if _, err := p.Start(message); err != nil {
		return "", false
	}
	q, err := p.Question()
	return plainName(q.Name), err == nil
}

// Addresses calls f for each address in a reply to a query for name, with the names that
// lead to it and its time to live. Every address is one of the name that was asked for,
// which comes first, of its aliases, and of the name that its record has; so are those
// that SVCB and HTTPS records hint at (RFC 9460 §7.3), to which programs connect without
// asking again.
func Addresses(name string, reply []byte, f func(names []string, addr netip.Addr, ttl time.Duration)) {
	var p dnsmessage.Parser
	if _, err := p.Start(reply); err != nil || p.SkipAllQuestions() != nil {
		return
	}
	type found struct {
		owner string
		addr  netip.Addr
		ttl   uint32
	}
	var all []found
	names := []string{name}
	for _, section := range []struct {
		header func() (dnsmessage.ResourceHeader, error)
		skip   func() error
		rest   func() error
	}{{p.AnswerHeader, p.SkipAnswer, p.SkipAllAuthorities}, {p.AdditionalHeader, p.SkipAdditional, func() error { return nil }}} {
		for {
			h, err := section.header()
			if err != nil {
				break // of the section, or nothing more can be read
			}
			owner := plainName(h.Name)
			switch {
			case h.Type == dnsmessage.TypeA && h.Length == 4:
				if r, err := p.AResource(); err == nil {
					all = append(all, found{owner, netip.AddrFrom4(r.A), h.TTL})
					continue
				}
			case h.Type == dnsmessage.TypeAAAA && h.Length == 16:
				if r, err := p.AAAAResource(); err == nil {
					all = append(all, found{owner, netip.AddrFrom16(r.AAAA).Unmap(), h.TTL})
					continue
				}
			case h.Type == dnsmessage.TypeCNAME:
				if r, err := p.CNAMEResource(); err == nil {
					names = append(names, plainName(r.CNAME))
					continue
				}
			case h.Type == dnsmessage.TypeSVCB:
				if r, err := p.SVCBResource(); err == nil {
					for _, a := range hints(r) {
						all = append(all, found{owner, a, h.TTL})
					}
					continue
				}
			case h.Type == dnsmessage.TypeHTTPS:
				if r, err := p.HTTPSResource(); err == nil {
					for _, a := range hints(r.SVCBResource) {
						all = append(all, found{owner, a, h.TTL})
					}
					continue
				}
			}
			if section.skip() != nil {
				return
			}
		}
		if section.rest() != nil {
			break
		}
	}
	for _, a := range all {
		f(append(names[:len(names):len(names)], a.owner), a.addr, time.Duration(a.ttl)*time.Second)
	}
}

// hints are the addresses of a SVCB or HTTPS record.
func hints(r dnsmessage.SVCBResource) (all []netip.Addr) {
	if v, ok := r.GetParam(dnsmessage.SVCParamIPv4Hint); ok {
		for ; len(v) >= 4; v = v[4:] {
			all = append(all, netip.AddrFrom4([4]byte(v)))
		}
	}
	if v, ok := r.GetParam(dnsmessage.SVCParamIPv6Hint); ok {
		for ; len(v) >= 16; v = v[16:] {
			all = append(all, netip.AddrFrom16([16]byte(v)).Unmap())
		}
	}
	return all
}

// plainName is a name as nameText writes it.
func plainName(n dnsmessage.Name) string {
	text := string(lower(n.Data[:n.Length]))
	if len(text) > 0 && text[len(text)-1] == '.' {
		text = text[:len(text)-1]
	}
	return text
}
