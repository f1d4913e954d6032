// SPDX-License-Identifier: Apache-2.0

// Names of addresses: by what name the program asked for one.

package view

import (
	"context"
	"io"
	"net/netip"
	"slices"
	"sync"
	"time"

	"umrun/netmod"
	"umrun/netmod/dns"
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

var _ io.Closer = named{} // which the view looks for

// Close implements [io.Closer] with what the resolver keeps open.
func (r named) Close() error {
	if c, ok := r.Resolver.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// learn remembers the addresses of an answer.
func (n *naming) learn(reply []byte) {
	name, ok := dns.Asked(reply)
	if !ok {
		return
	}
	dns.Addresses(name, reply, func(names []string, a netip.Addr, _ time.Duration) {
		name, chain, owner := name, names[:len(names)-1], names[len(names)-1]
		if !slices.Contains(chain, owner) { // told beside the answer, as of a mail server
			name = owner
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		if len(n.names) > namesMax || n.names == nil {
			n.names = make(map[netip.Addr]string)
		}
		n.names[a] = name
	})
}

// name returns the name of an address, "" if it was not asked for.
func (n *naming) name(a netip.Addr) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.names[a.Unmap()]
}
