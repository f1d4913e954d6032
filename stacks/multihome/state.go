// SPDX-License-Identifier: Apache-2.0

// One configuration made of several, and its changes taken apart again.

package multihome

import (
	"net/netip"
	"reflect"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// metricStep lies between the metrics of the default routes of one network and those of
// the next, as they are told: more than the 1024 that IPv6 has without one.
const metricStep = 10000

// State tells the interfaces and routes of all networks. The DNS is the first one's.
func (s *Stack) State() stacks.State {
	var all stacks.State
	names := make(map[string]bool)
	for _, n := range s.nets {
		st := n.stack.State()
		if n.n == 0 {
			all.DNS, all.Rules = st.DNS, st.Rules
		}
		loops := make(map[int]bool)
		for _, ifc := range st.Interfaces {
			loops[ifc.Index] = ifc.Loop
			if ifc.Loop && n.n > 0 {
				continue
			}
			ifc.Index = s.number(inside{n.n, ifc.Index}, ifc.Loop)
			ifc.Name = unused(ifc.Name, names)
			names[ifc.Name] = true
			all.Interfaces = append(all.Interfaces, ifc)
		}
		for _, r := range st.Routes {
			switch {
			case n.n > 0 && loops[r.IfIndex]:
				continue
			case r.IfIndex == 0:
				if slices.Contains(all.Routes, r) {
					continue
				}
			default:
				r = s.routeOutward(n.n, r)
			}
			all.Routes = append(all.Routes, r)
		}
		all.Neighbours = append(all.Neighbours, s.neighboursOutward(n.n, st.Neighbours)...)
		for _, t := range st.Tables {
			if !slices.Contains(all.Tables, t) {
				all.Tables = append(all.Tables, t)
			}
		}
	}
	return all
}

// unused returns a name for an interface that no other one has.
func unused(name string, used map[string]bool) string {
	for i := 1; used[name]; i++ {
		n := strconv.Itoa(i)
		base := name
		for len(base) > 0 && base[len(base)-1] >= '0' && base[len(base)-1] <= '9' {
			base = base[:len(base)-1]
		}
		if base = base[:min(len(base), unix.IFNAMSIZ-1-len(n))]; !used[base+n] {
			return base + n
		}
	}
	return name
}

func isDefault(r *stacks.Route) bool { return r.Dst.Bits() == 0 && r.Main() && r.Refuses() == 0 }

// routeOutward is a route of a network as it is told.
func (s *Stack) routeOutward(net int, r stacks.Route) stacks.Route {
	r.IfIndex = s.outer(net, r.IfIndex)
	if isDefault(&r) {
		r.Metric += net * metricStep
	}
	return r
}

// routeInward is its reverse.
func routeInward(net, index int, r stacks.Route) stacks.Route {
	r.IfIndex = index
	if isDefault(&r) && r.Metric >= net*metricStep {
		r.Metric -= net * metricStep
	}
	return r
}

// StateTo is State with the routes of the network that serves a flow of no task in
// particular.
func (s *Stack) StateTo(f stacks.Flow) stacks.State {
	st := s.State()
	net, own := 0, false
	if f.Src.IsValid() && !f.Src.IsUnspecified() {
		net, own = s.own(f.Src)
	}
	if !own {
		if net, own = s.table.Local(f.Dst); !own {
			net, _ = s.table.Dest(netip.AddrPortFrom(f.Dst, f.DPort))
		}
	}
	st.Routes = slices.DeleteFunc(slices.Clone(st.Routes), func(r stacks.Route) bool {
		n, _, ok := s.inner(r.IfIndex)
		return ok && n != net && r.Main()
	})
	return st
}

// SetState takes a configuration apart and gives each network its own. Routes that lead
// nowhere are for all. The prefixes that a change gives a network are its own from
// then on, see [route.Table.Change].
func (s *Stack) SetState(next stacks.State) error {
	s.setMu.Lock()
	defer s.setMu.Unlock()
	shown := s.State()
	type change struct {
		net       *network
		old, next stacks.State
	}
	var changes []change
	for _, n := range s.nets {
		old := n.stack.State()
		want := s.part(n, old, shown, next)
		if reflect.DeepEqual(plainState(old), plainState(want)) {
			continue
		}
		if _, ok := n.stack.(stacks.Configurer); !ok {
			return unix.EPERM
		}
		changes = append(changes, change{n, old, want})
	}
	for i, c := range changes {
		err := c.net.stack.(stacks.Configurer).SetState(c.next)
		if err == nil {
			continue
		}
		for _, done := range changes[:i] {
			_ = done.net.stack.(stacks.Configurer).SetState(done.old) // as it was
		}
		return err
	}
	for _, c := range changes {
		s.moved(c.net, c.next)
	}
	return nil
}

// moved tells the table what a network has now that it had not, and the other way round.
func (s *Stack) moved(net *network, next stacks.State) {
	was, is := net.told, prefixes(next)
	net.told = is
	var add, remove []netip.Prefix
	for p := range is {
		if !was[p] {
			add = append(add, p)
		}
	}
	for p := range was {
		if !is[p] {
			remove = append(remove, p)
		}
	}
	if len(add)+len(remove) > 0 {
		s.table.Change(net.n, add, remove)
	}
}

// A part is one of the networks, as it configures itself.
type part struct {
	s   *Stack
	net *network
}

// Part implements [stacks.Divided].
func (s *Stack) Part(st stacks.Stack) (stacks.Configurer, bool) {
	for _, n := range s.nets {
		if _, ok := st.(stacks.Configurer); ok && n.stack == st {
			return part{s, n}, true
		}
	}
	return nil, false
}

// SetState gives one network its configuration, which was derived from its own State.
// Nothing moves: it is what the network says, and no program has asked for it.
func (p part) SetState(next stacks.State) error {
	p.s.setMu.Lock()
	defer p.s.setMu.Unlock()
	if err := p.net.stack.(stacks.Configurer).SetState(next); err != nil {
		return err
	}
	p.net.told = prefixes(next)
	return nil
}

// plainState makes nil and empty the same, for comparisons.
func plainState(s stacks.State) stacks.State {
	s = s.Clone()
	for i := range s.Interfaces {
		ifc := &s.Interfaces[i]
		ifc.Counters = stacks.Counters{}
		if len(ifc.Addrs) == 0 {
			ifc.Addrs = nil
		}
		if len(ifc.Info) == 0 {
			ifc.Info = nil
		}
	}
	if len(s.Routes) == 0 {
		s.Routes = nil
	}
	if len(s.Tables) == 0 {
		s.Tables = nil
	}
	if len(s.Neighbours) == 0 {
		s.Neighbours = nil
	}
	return s
}

// prefixes are those of the main table that lead out, and the addresses.
func prefixes(s stacks.State) map[netip.Prefix]bool {
	loops := make(map[int]bool)
	all := make(map[netip.Prefix]bool)
	for _, ifc := range s.Interfaces {
		loops[ifc.Index] = ifc.Loop
		for _, p := range ifc.Addrs {
			if !ifc.Loop && !isLocalOnly(p) {
				all[netip.PrefixFrom(p.Addr(), p.Addr().BitLen())] = true
			}
		}
	}
	for _, r := range s.Routes {
		if r.Main() && r.Refuses() == 0 && r.IfIndex != 0 && !loops[r.IfIndex] && !isLocalOnly(r.Dst) {
			all[r.Dst.Masked()] = true
		}
	}
	return all
}

// isLocalOnly tells of prefixes that every link has, or that are no hosts.
func isLocalOnly(p netip.Prefix) bool {
	return p.Addr().IsLinkLocalUnicast() && p.Addr().Is6() || p.Addr().IsMulticast()
}

// part is the part of next, which was made of shown, that is for a network.
func (s *Stack) part(n *network, old, shown, next stacks.State) stacks.State {
	want := old.Clone()
	names := make(map[int]string, len(shown.Interfaces))
	for _, ifc := range shown.Interfaces {
		names[ifc.Index] = ifc.Name
	}
	for i := range want.Interfaces {
		was := want.Interfaces[i]
		if was.Loop && n.n > 0 {
			continue
		}
		number := s.number(inside{n.n, was.Index}, was.Loop)
		at := slices.IndexFunc(next.Interfaces, func(x stacks.Interface) bool { return x.Index == number })
		if at < 0 {
			continue // not there: none goes
		}
		ifc := next.Interfaces[at]
		ifc.Index = was.Index
		if ifc.Name == names[number] {
			ifc.Name = was.Name
		}
		want.Interfaces[i] = ifc
	}
	want.Routes = slices.DeleteFunc(want.Routes, func(r stacks.Route) bool {
		for _, ifc := range old.Interfaces {
			if ifc.Index == r.IfIndex && ifc.Loop && n.n > 0 {
				return false // it is not told
			}
		}
		return true
	})
	for _, r := range next.Routes {
		if r.IfIndex == 0 {
			want.Routes = append(want.Routes, r)
		} else if net, index, ok := s.inner(r.IfIndex); ok && net == n.n {
			want.Routes = append(want.Routes, routeInward(net, index, r))
		}
	}
	want.Tables, want.Rules = slices.Clone(next.Tables), slices.Clone(next.Rules)
	want.Neighbours = s.neighboursInward(n.n, next.Neighbours)
	return want
}
