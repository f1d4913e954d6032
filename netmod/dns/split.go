// SPDX-License-Identifier: Apache-2.0

// Split DNS: each network is asked for its own names, the first one for all others.

package dns

import (
	"context"
	"net/netip"
	"time"
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
		Addresses(name, reply, s.Learn)
	}
	return reply
}
