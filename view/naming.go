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

// A naming remembers by what names a view's resolvers were asked for the addresses
// that they answered. It is for those who tell of flows, and decides nothing.
type naming struct {
	mu    sync.Mutex
	names map[netip.Addr]string // guarded by mu
}

// over is r, listened to.
func (n *naming) over(r netmod.Resolver) netmod.Resolver { return named{r, n} }

type named struct {
	netmod.Resolver
	into *naming
}

// Answer implements [netmod.Resolver].
func (r named) Answer(ctx context.Context, query []byte, tcp bool) []byte {
	reply := r.Resolver.Answer(ctx, query, tcp)
	r.into.learn(reply)
	return reply
}

// learn reads the addresses of an answer.
func (n *naming) learn(reply []byte) {
	var p dnsmessage.Parser
	if _, err := p.Start(reply); err != nil {
		return
	}
	q, err := p.Question()
	if err != nil || p.SkipAllQuestions() != nil {
		return
	}
	name := strings.TrimSuffix(strings.ToLower(q.Name.String()), ".")
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.names) > namesMax || n.names == nil {
		n.names = make(map[netip.Addr]string)
	}
	for {
		h, err := p.AnswerHeader()
		if err != nil {
			return
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
				return
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
