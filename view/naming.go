// SPDX-License-Identifier: Apache-2.0

// Names of addresses: by what name the program asked for one.

package view

import (
	"context"
	"net/netip"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"

	"umrun/netmod"
)

// namesMax bounds what is remembered; then it begins anew.
const namesMax = 1 << 16

// A naming is a resolver that remembers what it was asked for, by the addresses
// that it answered. It is for those who tell of flows, and decides nothing.
type naming struct {
	netmod.Resolver

	mu    sync.Mutex
	names map[netip.Addr]string
}

// Answer implements [netmod.Resolver].
func (n *naming) Answer(ctx context.Context, query []byte, tcp bool) []byte {
	reply := n.Resolver.Answer(ctx, query, tcp)
	var p dnsmessage.Parser
	if _, err := p.Start(reply); err != nil {
		return reply
	}
	q, err := p.Question()
	if err != nil || p.SkipAllQuestions() != nil {
		return reply
	}
	name := strings.TrimSuffix(strings.ToLower(q.Name.String()), ".")
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.names) > namesMax {
		clear(n.names)
	}
	for {
		h, err := p.AnswerHeader()
		if err != nil {
			return reply
		}
		switch h.Type {
		case dnsmessage.TypeA:
			if a, err := p.AResource(); err == nil {
				n.names[netip.AddrFrom4(a.A)] = name
			}
		case dnsmessage.TypeAAAA:
			if a, err := p.AAAAResource(); err == nil {
				n.names[netip.AddrFrom16(a.AAAA)] = name
			}
		default:
			if p.SkipAnswer() != nil {
				return reply
			}
		}
	}
}

// name returns the name of an address, "" if it was not asked for.
func (n *naming) name(a netip.Addr) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.names[a.Unmap()]
}
