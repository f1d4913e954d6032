// SPDX-License-Identifier: Apache-2.0

// What a provider sees: the interfaces of its own network, and those that it makes,
// which are another stack's.

package view

import (
	"net/netip"
	"reflect"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"umrun/netmod"
	"umrun/stacks"
	"umrun/stacks/netstack"
)

// A farStack is the stack of the network that a provider brings, as the provider
// changes it: in turn with the network's own program once that has a module.
type farStack struct {
	stack    *netstack.Stack
	provider *provider
	dns      *learner // who is asked for names

	mu     sync.Mutex // held during a change; before the locks of the module and the stack
	whole  stacks.Stack
	mod    *netmod.Module
	closed bool
	resolv []byte // what was written to resolv.conf last
}

// tell has mod know of all later changes.
func (f *farStack) tell(mod *netmod.Module) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mod = mod
	if f.dns.mod = mod; len(f.dns.plan.nets) > 1 { // what came while the networks were joined
		_ = mod.Change(f.whole, func(s stacks.State) stacks.State { return s })
	}
}

// close says that the network ends.
func (f *farStack) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

// inUse tells whether a program runs on the network.
func (f *farStack) inUse() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mod != nil && !f.closed
}

// usable tells whether there is an interface to use.
func (f *farStack) usable() bool {
	return slices.ContainsFunc(f.stack.State().Interfaces, func(i stacks.Interface) bool {
		return !i.Loop && i.Up && slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return !p.Addr().IsLinkLocalUnicast() })
	})
}

// change makes the State what edit makes of it.
func (f *farStack) change(edit func(stacks.State) stacks.State) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := func(s stacks.State) stacks.State {
		s = edit(s)
		f.dns.takeOver(s)
		return s
	}
	if f.mod != nil {
		return f.mod.Change(f.whole, all)
	}
	return f.stack.SetState(all(f.stack.State()))
}

func (f *farStack) attach(l stacks.LinkConfig) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mod != nil {
		return f.mod.Attach(f.stack, l)
	}
	return f.stack.Attach(l)
}

func (f *farStack) detach(index int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mod != nil {
		return f.mod.Detach(f.stack, index)
	}
	return f.stack.Detach(index)
}

// A providerStack is the stack of a provider. Its sockets are those of its own network.
// State tells the interfaces of both, of which the far ones have the higher numbers,
// and SetState gives each stack its part.
type providerStack struct {
	*netstack.Stack
	far   *farStack
	shift int // between the numbers of far interfaces there and here
}

func newProviderStack(own *netstack.Stack, far *farStack) *providerStack {
	return &providerStack{own, far, len(own.State().Interfaces) - 1} // both have lo
}

// isFar tells whether a number, as the provider knows it, is that of a far interface.
func (s *providerStack) isFar(index int) bool { return index > s.shift+1 }

// State returns the configuration of both.
func (s *providerStack) State() stacks.State {
	st, far := s.Stack.State().Clone(), s.far.stack.State().Clone()
	for _, i := range far.Interfaces {
		if !i.Loop {
			i.Index += s.shift
			st.Interfaces = append(st.Interfaces, i)
		}
	}
	loop := far.Interfaces[0].Index
	for _, r := range far.Routes {
		if r.IfIndex > loop {
			r.IfIndex += s.shift
			st.Routes = append(st.Routes, r)
		}
	}
	for _, n := range far.Neighbours {
		if n.IfIndex > loop {
			n.IfIndex += s.shift
			st.Neighbours = append(st.Neighbours, n)
		}
	}
	for _, t := range far.Tables {
		if !slices.Contains(st.Tables, t) {
			st.Tables = append(st.Tables, t)
		}
	}
	return st
}

// SetState changes the stacks of which something has become different. Rules are for
// both: a provider's rule that sends marked packets past its tunnel says nothing of the
// program's, which have no mark.
func (s *providerStack) SetState(next stacks.State) error {
	shown := s.State()
	if own, was := s.own(next), s.own(shown); !reflect.DeepEqual(own, was) {
		if err := s.Stack.SetState(own); err != nil {
			return err
		}
	}
	part, was := s.part(next), s.part(shown)
	if reflect.DeepEqual(part, was) {
		return nil
	}
	return s.far.change(func(st stacks.State) stacks.State {
		st = st.Clone()
		for i := range st.Interfaces {
			at := slices.IndexFunc(part.Interfaces, func(x stacks.Interface) bool { return x.Index == st.Interfaces[i].Index })
			if at >= 0 {
				st.Interfaces[i] = part.Interfaces[at]
			}
		}
		loop := st.Interfaces[0].Index
		st.Routes = append(slices.DeleteFunc(st.Routes, func(r stacks.Route) bool { return r.IfIndex > loop }), part.Routes...)
		st.Neighbours = part.Neighbours
		if !reflect.DeepEqual(part.Rules, was.Rules) {
			st.Rules = part.Rules
		}
		st.Tables = part.Tables
		return st
	})
}

// own is the part of st that is about the provider's own network.
func (s *providerStack) own(st stacks.State) stacks.State {
	st = st.Clone()
	st.Interfaces = slices.DeleteFunc(st.Interfaces, func(i stacks.Interface) bool { return s.isFar(i.Index) })
	st.Routes = slices.DeleteFunc(st.Routes, func(r stacks.Route) bool { return s.isFar(r.IfIndex) })
	st.Neighbours = slices.DeleteFunc(st.Neighbours, func(n stacks.Neighbour) bool { return s.isFar(n.IfIndex) })
	return st
}

// part is the part that is about the far one, with its numbers.
func (s *providerStack) part(st stacks.State) stacks.State {
	out := stacks.State{Rules: st.Rules, Tables: st.Tables}
	for _, i := range st.Interfaces {
		if s.isFar(i.Index) {
			i.Index -= s.shift
			out.Interfaces = append(out.Interfaces, i)
		}
	}
	for _, r := range st.Routes {
		if s.isFar(r.IfIndex) {
			r.IfIndex -= s.shift
			out.Routes = append(out.Routes, r)
		}
	}
	for _, n := range st.Neighbours {
		if s.isFar(n.IfIndex) {
			n.IfIndex -= s.shift
			out.Neighbours = append(out.Neighbours, n)
		}
	}
	return out
}

// Attach adds an interface to the far stack.
func (s *providerStack) Attach(l stacks.LinkConfig) (int, error) {
	index, err := s.far.attach(l)
	return index + s.shift, err
}

// Detach removes one of those.
func (s *providerStack) Detach(index int) error {
	if !s.isFar(index) {
		return unix.ENODEV
	}
	return s.far.detach(index - s.shift)
}

// Notify tells of changes of both.
func (s *providerStack) Notify(f func()) (stop func()) {
	own, far := s.Stack.Notify(f), s.far.stack.Notify(f)
	return func() {
		own()
		far()
	}
}

// Counters tells what passed an interface.
func (s *providerStack) Counters(index int) stacks.Counters {
	if s.isFar(index) {
		return s.far.stack.Counters(index - s.shift)
	}
	return s.Stack.Counters(index)
}
