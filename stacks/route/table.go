// SPDX-License-Identifier: Apache-2.0

// The table: rules put into an order, and the lookup.

package route

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"
)

// A Network is what a table knows of a network: its name, and the prefixes and own
// addresses that it is configured with.
type Network struct {
	Name     string
	Prefixes []netip.Prefix
	Addrs    []netip.Addr

	// Alone are addresses that mean something on this network only, as those that
	// stand for names which a proxy resolves. No other is ever sent them.
	Alone []netip.Prefix
}

// A Table says which network, by its number, serves a socket. It is safe for
// concurrent use.
type Table struct {
	exes     []exe
	uids     map[uint32]int
	domains  domains
	prefixes bart.Table[int] // of rules, /0 left out
	ports    map[uint16]int
	all4     int // the rules for 0.0.0.0/0 and ::/0; -1: none
	all6     int

	alone bart.Table[int]                 // what only one network may be sent
	addrs map[netip.Addr]int              // of the view itself, by network
	own   atomic.Pointer[bart.Table[int]] // what networks are configured with
	ownMu sync.Mutex                      // one change at a time
	owned []map[netip.Prefix]bool         // by network, true if it is configured; +checklocks:ownMu

	learned learned
	now     func() time.Time
}

// An exe is a rule about executables.
type exe struct {
	glob    string
	network int
}

// New makes a table of rules for networks, the first of which is the default. It
// fails if a rule names no network, or two rules with one pattern name two.
func New(rules []Rule, networks []Network) (*Table, error) {
	t := &Table{
		uids: make(map[uint32]int), ports: make(map[uint16]int), all4: -1, all6: -1,
		addrs: make(map[netip.Addr]int), owned: make([]map[netip.Prefix]bool, len(networks)), now: time.Now,
	}
	numbers := make(map[string]int, len(networks))
	for i, n := range networks {
		numbers[n.Name] = i
	}
	type given struct {
		network int
		from    string
	}
	seen := make(map[Pattern]given, len(rules))
	var names []*domain
	for _, r := range rules {
		n, ok := numbers[r.Network]
		if !ok {
			return nil, fmt.Errorf("%s: there is no network %q, only %s", r.From, r.Network, known(networks))
		}
		if old, ok := seen[r.Pattern]; ok {
			if old.network != n {
				return nil, fmt.Errorf("%s: %s goes to %s already (%s)", r.From, r.Pattern, networks[old.network].Name, old.from)
			}
			continue
		}
		seen[r.Pattern] = given{n, r.From}
		switch p := r.Pattern; p.Kind {
		case Exe:
			t.exes = append(t.exes, exe{p.Text, n})
		case UID:
			t.uids[p.UID] = n
		case Domain:
			names = append(names, &domain{glob: p.Text, network: n})
		case Port:
			t.ports[p.Port] = n
		case Prefix:
			switch {
			case p.Prefix.Bits() > 0:
				t.prefixes.Insert(p.Prefix, n)
			case p.Prefix.Addr().Is4():
				t.all4 = n
			default:
				t.all6 = n
			}
		}
	}
	t.domains = newDomains(names)
	slices.SortStableFunc(t.exes, func(a, b exe) int {
		if x, y := strings.Contains(a.glob, "/"), strings.Contains(b.glob, "/"); x != y {
			if x {
				return -1
			}
			return 1
		}
		return cmp.Compare(plain(b.glob), plain(a.glob))
	})
	t.ownMu.Lock()
	defer t.ownMu.Unlock()
	for i, n := range slices.Backward(networks) {
		for _, a := range n.Addrs {
			t.addrs[a.Unmap().WithZone("")] = i
		}
		for _, p := range n.Alone {
			t.alone.Insert(p.Masked(), i)
		}
		t.owned[i] = make(map[netip.Prefix]bool)
		for _, p := range n.Prefixes {
			t.owned[i][p.Masked()] = true
		}
	}
	t.rebuild()
	return t, nil
}

func known(networks []Network) string {
	var names []string
	for _, n := range networks {
		names = append(names, strconv.Quote(n.Name))
	}
	return strings.Join(names, ", ")
}

// plain counts the bytes of a glob of path.Match that stand for themselves.
func plain(glob string) int { return len(glob) - strings.Count(glob, "*") - strings.Count(glob, "?") }

// rebuild makes the table of what networks are configured with. Where two have the
// same prefix the first one serves it.
//
// +checklocks:t.ownMu
func (t *Table) rebuild() {
	b := new(bart.Table[int])
	for i, all := range slices.Backward(t.owned) {
		for p := range all {
			if p.Bits() > 0 {
				b.Insert(p, i)
			}
		}
	}
	t.own.Store(b)
}

// Change adds and removes prefixes of a network, as a program of the view changes its
// routes. What the network is configured with stays: it would go to another one.
func (t *Table) Change(network int, add, remove []netip.Prefix) {
	t.ownMu.Lock()
	defer t.ownMu.Unlock()
	own := t.owned[network]
	for _, p := range remove {
		if !own[p.Masked()] {
			delete(own, p.Masked())
		}
	}
	for _, p := range add {
		own[p.Masked()] = own[p.Masked()]
	}
	t.rebuild()
}

// Local returns the network of an address of the view itself: that of loopback is the
// first, and so is that of the wildcard, which connect(2) takes for loopback.
func (t *Table) Local(a netip.Addr) (network int, ok bool) {
	if a = a.Unmap().WithZone(""); a.IsLoopback() || a.IsUnspecified() {
		return 0, true
	}
	network, ok = t.addrs[a]
	return network, ok
}

// AsksExe tells whether there are rules about executables.
func (t *Table) AsksExe() bool { return len(t.exes) > 0 }

// Exe returns the network of a task by the path of its executable.
func (t *Table) Exe(file string) (network int, ok bool) {
	for _, e := range t.exes {
		name := file
		if !strings.Contains(e.glob, "/") {
			name = path.Base(file)
		}
		if hit, _ := path.Match(e.glob, name); hit { // the glob was checked
			return e.network, true
		}
	}
	return 0, false
}

// UID returns the network of a task by its user.
func (t *Table) UID(uid uint32) (network int, ok bool) {
	network, ok = t.uids[uid]
	return network, ok
}

// Alone returns the one network that may be sent an address; ok is false if any may.
func (t *Table) Alone(a netip.Addr) (network int, ok bool) {
	return t.alone.Lookup(a.Unmap().WithZone(""))
}

// Dest returns the network for a destination. ruled says that a rule has chosen it,
// which no socket may go past.
func (t *Table) Dest(to netip.AddrPort) (network int, ruled bool) {
	a := to.Addr().Unmap().WithZone("")
	if r := t.learned.find(a, t.now); r != nil {
		return r.network, true
	}
	if n, ok := t.prefixes.Lookup(a); ok {
		return n, true
	}
	if n, ok := t.ports[to.Port()]; ok {
		return n, true
	}
	all := t.all6
	if a.Is4() {
		all = t.all4
	}
	if n, ok := t.own.Load().Lookup(a); ok {
		return n, n == all // as of a tunnel with 0.0.0.0/1 and 128.0.0.0/1
	}
	if all >= 0 {
		return all, true
	}
	return 0, false
}

// AsksNames tells whether there are rules about names.
func (t *Table) AsksNames() bool { return !t.domains.empty() }

// Name returns the network of a name by the rules about names. name has no trailing
// dot.
func (t *Table) Name(name string) (network int, ok bool) {
	if r := t.domains.find(strings.ToLower(name)); r != nil {
		return r.network, true
	}
	return 0, false
}

// Learn tells the table that addr was answered for names, the one that was asked for
// and its aliases, and for how long that is to hold.
func (t *Table) Learn(names []string, addr netip.Addr, ttl time.Duration) {
	var best *domain
	for _, name := range names {
		if r := t.domains.find(strings.ToLower(name)); r != nil && (best == nil || r.rank < best.rank) {
			best = r
		}
	}
	if best != nil {
		t.learned.add(best, addr.Unmap().WithZone(""), ttl, t.now())
	}
}

// AsksUID tells whether there are rules about users.
func (t *Table) AsksUID() bool { return len(t.uids) > 0 }
