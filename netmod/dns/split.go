// SPDX-License-Identifier: Apache-2.0

// Split DNS: each network is asked for its own names, the first one for all others.

package dns

import (
	"context"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A Resolver answers queries, as [Stub] does.
type Resolver interface {
	Answer(ctx context.Context, query []byte, tcp bool) []byte
}

// A Split is a resolver made of those of several networks.
type Split struct {
	// Networks are the resolvers, by the number of their network; the first is asked
	// for what is nobody's.
	Networks []Resolver

	// Name returns the network whose name it is, lower case without a trailing dot;
	// ok is false for names that are nobody's.
	Name func(name string) (network int, ok bool)

	// Addr returns the network that serves an address: its resolver is asked for the
	// address's name.
	Addr func(a netip.Addr) (network int)

	// Searchers are the networks, other than the first, in whose search domains names
	// without a dot are tried.
	Searchers []int

	// Learn, if set, is told of each address in an answer, before the program is: the
	// names that led to it, and the time to live.
	Learn func(names []string, addr netip.Addr, ttl time.Duration)
}

// Answer has the query answered by the network that it is about.
func (s *Split) Answer(ctx context.Context, query []byte, tcp bool) []byte {
	q, rcode, ok := parseQuery(query)
	if !ok || rcode != rcodeSuccess {
		return s.Networks[0].Answer(ctx, query, tcp) // which says what is wrong with it
	}
	name := nameText(q.name)
	n, owned := s.Name(name)
	if a, isAddr := parseReverse(name); isAddr && !owned && !a.IsLoopback() {
		n, owned = s.Addr(a), true
	}
	if !owned {
		n = 0
	}
	reply := s.Networks[n].Answer(ctx, query, tcp)
	if !owned && q.dotless() && (reply == nil || !exists(reply)) {
		for _, x := range s.Searchers {
			if other := s.Networks[x].Answer(ctx, query, tcp); other != nil && exists(other) {
				reply = other
				break
			}
		}
	}
	if s.Learn != nil && reply != nil {
		s.learn(name, reply)
	}
	return reply
}

// learn tells of the addresses in a reply to a query for name. Every address is one of
// the name that was asked for, of its aliases, and of the name that its record has; so
// are those that SVCB and HTTPS records hint at (RFC 9460 §7.3), to which programs
// connect without asking again.
func (s *Split) learn(name string, reply []byte) {
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
	for _, f := range all {
		s.Learn(append(names[:len(names):len(names)], f.owner), f.addr, time.Duration(f.ttl)*time.Second)
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
