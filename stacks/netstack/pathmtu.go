// SPDX-License-Identifier: Apache-2.0

// How large packets may be on the way to an address.

package netstack

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// The defaults of net.ipv4.route.mtu_expires, and of min_pmtu in bytes.
const (
	mtuExpires = 10 * time.Minute
	minMTU4    = 552
)

// maxPaths bounds what is remembered.
const maxPaths = 4096

// paths remembers what routers said of the MTU towards addresses.
type paths struct {
	any atomic.Bool // something was learnt, ever

	mu   sync.Mutex // a leaf
	seen map[netip.Addr]pathMTU
}

type pathMTU struct {
	mtu   int // bytes, IP header included
	until time.Time
}

// learn notes an MTU. It is believed for [mtuExpires].
func (p *paths) learn(dst netip.Addr, mtu int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if len(p.seen) >= maxPaths {
		for a, e := range p.seen {
			if len(p.seen) < maxPaths && now.Before(e.until) {
				continue
			}
			delete(p.seen, a)
		}
	}
	if p.seen == nil {
		p.seen = make(map[netip.Addr]pathMTU)
	}
	if old, ok := p.seen[dst]; ok && now.Before(old.until) && old.mtu < mtu {
		return // a larger one is no news (net/ipv4/route.c:__ip_rt_update_pmtu)
	}
	p.any.Store(true)
	p.seen[dst] = pathMTU{mtu, now.Add(mtuExpires)}
}

// of returns the MTU towards dst over an interface with the given one.
func (p *paths) of(dst netip.Addr, mtu int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.seen[dst]; ok && time.Now().Before(e.until) {
		return min(mtu, e.mtu)
	}
	return mtu
}

// known tells whether of may return less than it is given. It is cheap.
func (p *paths) known() bool { return p.any.Load() }
