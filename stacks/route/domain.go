// SPDX-License-Identifier: Apache-2.0

// Rules about names, and the addresses that were answered for them.

package route

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// How long an address is kept for a name, and how many are.
const (
	grace      = time.Hour      // beyond the time to live, and after each use
	maxTTL     = 24 * time.Hour // what a server says beyond it is not believed
	maxLearned = 1 << 16        // addresses
)

// A domain is a rule about names, with its place in the order.
type domain struct {
	glob    string
	network int
	rank    int // lower wins
}

// domains are the rules about names. They are not changed once made.
type domains struct {
	exact  map[string]*domain // no wildcard
	suffix map[string]*domain // *.NAME, by NAME
	globs  []*domain          // the others, in their order
}

func newDomains(rules []*domain) domains {
	d := domains{exact: make(map[string]*domain), suffix: make(map[string]*domain)}
	slices.SortStableFunc(rules, func(a, b *domain) int {
		if x, y := strings.Contains(a.glob, "*"), strings.Contains(b.glob, "*"); x != y {
			if x {
				return 1
			}
			return -1
		}
		return cmp.Or(
			cmp.Compare(strings.Count(b.glob, "."), strings.Count(a.glob, ".")),
			cmp.Compare(literal(b.glob), literal(a.glob)),
		)
	})
	for i, r := range rules {
		r.rank = i
		switch rest, below := strings.CutPrefix(r.glob, "*."); {
		case !strings.Contains(r.glob, "*"):
			d.exact[r.glob] = r
		case below && !strings.Contains(rest, "*"):
			d.suffix[rest] = r
		default:
			d.globs = append(d.globs, r)
		}
	}
	return d
}

// literal counts the bytes that are no wildcard.
func literal(glob string) int { return len(glob) - strings.Count(glob, "*") }

func (d *domains) empty() bool { return len(d.exact)+len(d.suffix)+len(d.globs) == 0 }

// find returns the rule for a name in lower case without a trailing dot, or nil.
func (d *domains) find(name string) *domain {
	if r := d.exact[name]; r != nil {
		return r
	}
	var best *domain
	for rest := name; best == nil; {
		_, after, ok := strings.Cut(rest, ".")
		if !ok {
			break
		}
		best, rest = d.suffix[after], after
	}
	for _, r := range d.globs {
		if best != nil && best.rank < r.rank {
			break
		}
		if matchLabels(r.glob, name) {
			return r
		}
	}
	return best
}

// matchLabels matches label by label. A first label that is only `*` stands for one
// label or more, any other `*` for any bytes within its label.
func matchLabels(glob, name string) bool {
	g, n := strings.Split(glob, "."), strings.Split(name, ".")
	if len(n) < len(g) || len(n) > len(g) && g[0] != "*" {
		return false
	}
	n = n[len(n)-len(g):]
	for i := range g {
		if !matchStars(g[i], n[i]) {
			return false
		}
	}
	return true
}

// matchStars matches a string against a pattern with `*` for any bytes.
func matchStars(glob, s string) bool {
	parts := strings.Split(glob, "*")
	if len(parts) == 1 {
		return glob == s
	}
	first, last := parts[0], parts[len(parts)-1]
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return true
}

// learned are the addresses that domain rules hold for.
type learned struct {
	some atomic.Bool // whether there are any, to look at without the lock
	mu   sync.RWMutex
	by   map[netip.Addr][]lesson // +checklocks:mu
}

// A lesson is that an address was answered for a name of a rule.
type lesson struct {
	rule *domain
	ends *atomic.Int64 // ns since the epoch; moved on by use
}

// add keeps that addr was answered for a name of r.
func (l *learned) add(r *domain, addr netip.Addr, ttl time.Duration, now time.Time) {
	ends := now.Add(min(ttl, maxTTL) + grace).UnixNano()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.some.Store(true)
	list := slices.DeleteFunc(l.by[addr], func(x lesson) bool { return x.ends.Load() < now.UnixNano() })
	for _, x := range list {
		if x.rule == r {
			if x.ends.Load() < ends {
				x.ends.Store(ends)
			}
			l.by[addr] = list
			return
		}
	}
	x := lesson{rule: r, ends: new(atomic.Int64)}
	x.ends.Store(ends)
	list = append(list, x)
	slices.SortFunc(list, func(a, b lesson) int { return cmp.Compare(a.rule.rank, b.rule.rank) })
	if l.by == nil {
		l.by = make(map[netip.Addr][]lesson)
	}
	if len(l.by) >= maxLearned {
		l.forget(now)
	}
	l.by[addr] = list
}

// forget makes room: what has ended goes, and if nothing has, the quarter that ends
// first.
func (l *learned) forget(now time.Time) {
	type end struct {
		addr netip.Addr
		at   int64
	}
	var ends []end
	for a, list := range l.by {
		last := int64(0)
		for _, x := range list {
			last = max(last, x.ends.Load())
		}
		if last < now.UnixNano() {
			delete(l.by, a)
			continue
		}
		ends = append(ends, end{a, last})
	}
	if len(l.by) < maxLearned {
		return
	}
	slices.SortFunc(ends, func(a, b end) int { return cmp.Compare(a.at, b.at) })
	for _, e := range ends[:len(ends)/4] {
		delete(l.by, e.addr)
	}
}

// find returns the rule that holds for an address, or nil, and notes its use.
func (l *learned) find(addr netip.Addr, now func() time.Time) *domain {
	if !l.some.Load() {
		return nil
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	list := l.by[addr]
	if len(list) == 0 {
		return nil
	}
	t := now()
	for _, x := range list { // the most specific first
		if end := x.ends.Load(); end >= t.UnixNano() {
			if used := t.Add(grace).UnixNano(); used > end {
				x.ends.Store(used)
			}
			return x.rule
		}
	}
	return nil
}
