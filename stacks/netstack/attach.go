// SPDX-License-Identifier: Apache-2.0

// Interfaces that come and go while the stack runs.

package netstack

import (
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"

	"umrun/stacks"
)

var _ stacks.Attacher = (*Stack)(nil)

// linkTable holds the endpoints of links by the index of their interface. An index is
// never given twice, so the place of one that is gone stays empty.
type linkTable struct {
	list atomic.Pointer[[]*endpoint] // replaced as a whole, with Stack.setMu held
}

// all returns the endpoints there are, each with its index.
func (t *linkTable) all() []*endpoint {
	if p := t.list.Load(); p != nil {
		return slices.DeleteFunc(slices.Clone(*p), func(e *endpoint) bool { return e == nil })
	}
	return nil
}

// of returns the endpoint of an interface; nil if it has no link, or is gone.
func (t *linkTable) of(index int) *endpoint {
	p, i := t.list.Load(), index-firstLinkNIC
	if p == nil || i < 0 || i >= len(*p) {
		return nil
	}
	return (*p)[i]
}

// next is the index of the interface that add takes.
func (t *linkTable) next() int {
	if p := t.list.Load(); p != nil {
		return firstLinkNIC + len(*p)
	}
	return firstLinkNIC
}

func (t *linkTable) add(e *endpoint) {
	var list []*endpoint
	if p := t.list.Load(); p != nil {
		list = slices.Clone(*p)
	}
	list = append(list, e)
	t.list.Store(&list)
}

func (t *linkTable) remove(index int) {
	list := slices.Clone(*t.list.Load())
	list[index-firstLinkNIC] = nil
	t.list.Store(&list)
}

// Attach adds an interface; see [stacks.Attacher].
func (s *Stack) Attach(l stacks.LinkConfig) (int, error) {
	s.setMu.Lock()
	defer s.setMu.Unlock()
	if s.closed.Load() {
		return 0, unix.ENETDOWN
	}
	if err := (&Config{Links: []stacks.LinkConfig{l}}).check(); err != nil || len(l.Routes) > 0 {
		return 0, fmt.Errorf("attach %s: %w", l.Name, unix.EINVAL)
	}
	next := s.state.Load().Clone()
	if slices.ContainsFunc(next.Interfaces, func(i stacks.Interface) bool { return i.Name == l.Name }) {
		return 0, fmt.Errorf("attach %s: %w", l.Name, unix.EEXIST)
	}
	e, err := s.addLink(&next, l, false)
	if err != nil {
		index := s.links.next() - 1
		_ = s.gv.RemoveNIC(tcpip.NICID(index)) // as far as it was made
		s.links.remove(index)
		return 0, err
	}
	s.setPolicy(next)
	s.state.Store(&next)
	e.start()
	s.notices.notify()
	return e.index, nil
}

// Detach removes one; see [stacks.Attacher].
func (s *Stack) Detach(index int) error {
	s.setMu.Lock()
	defer s.setMu.Unlock()
	if s.closed.Load() {
		return nil // Close has done so, or does
	}
	e := s.links.of(index)
	if e == nil {
		return unix.ENODEV
	}
	next := s.state.Load().Clone()
	next.Interfaces = slices.DeleteFunc(next.Interfaces, func(i stacks.Interface) bool {
		if i.Index == index {
			for _, p := range i.Addrs {
				s.dad.set(dadKey{tcpip.NICID(index), p.Addr()}, 0)
			}
		}
		return i.Index == index
	})
	next.Routes = slices.DeleteFunc(next.Routes, func(r stacks.Route) bool { return r.IfIndex == index })
	next.Neighbours = slices.DeleteFunc(next.Neighbours, func(n stacks.Neighbour) bool { return n.IfIndex == index })
	s.setPolicy(next)
	s.state.Store(&next)
	s.links.remove(index)
	s.bypasses.recall(nil)
	// The link's goroutines want locks that RemoveNIC holds: they end first.
	e.close()
	if err := s.gv.RemoveNIC(tcpip.NICID(index)); err != nil {
		s.log.Error("remove an interface", "index", index, "err", err)
	}
	s.notices.notify()
	return nil
}

// await waits for a change that is under way; there are no more once s.closed is set.
func (s *Stack) await() {
	s.setMu.Lock()
	defer s.setMu.Unlock()
}
