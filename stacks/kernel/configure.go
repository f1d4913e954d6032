// SPDX-License-Identifier: Apache-2.0

// Changes of the configuration: what differs is told to the kernel, piece by piece.

package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

var _ stacks.Configurer = (*Stack)(nil)

// SetState makes the namespace what next says; see [stacks.Configurer]. Where the
// kernel refuses a piece, what was changed before is taken back.
func (s *Stack) SetState(next stacks.State) error {
	if !s.private {
		return unix.EPERM
	}
	if len(next.Neighbours) > 0 || next.Rules != nil {
		return unix.EOPNOTSUPP // State has none: programs ask the kernel
	}
	s.setMu.Lock()
	defer s.setMu.Unlock()
	old, err := s.nl.state()
	if err != nil {
		return err
	}
	if err := s.nl.transform(old, next); err != nil {
		if now, e := s.nl.state(); e == nil {
			if e := s.nl.transform(now, old); e != nil {
				s.log.Error("take a change back", "err", e)
			}
		}
		return err
	}
	s.dns.Store(&next.DNS)
	return nil
}

// transform goes from one state to another.
func (r *rtnl) transform(old, next stacks.State) error {
	if len(old.Interfaces) != len(next.Interfaces) {
		return unix.EOPNOTSUPP
	}
	for i := range next.Interfaces {
		j := slices.IndexFunc(old.Interfaces, func(o stacks.Interface) bool { return o.Index == next.Interfaces[i].Index })
		if j < 0 {
			return unix.EINVAL
		}
		if err := r.changeInterface(&old.Interfaces[j], &next.Interfaces[i]); err != nil {
			return err
		}
	}
	// Addresses and interfaces take routes along, and bring some.
	now, err := r.routes()
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	for _, rt := range now {
		if !slices.ContainsFunc(next.Routes, func(o stacks.Route) bool { return same(o, rt) }) {
			if err := r.setRoute(unix.RTM_DELROUTE, rt); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("remove the route to %s: %w", rt.Dst, err)
			}
		}
	}
	// Those without a gateway first, since gateways are reached by them.
	for _, gateways := range []bool{false, true} {
		for _, rt := range next.Routes {
			if rt.Gateway.IsValid() != gateways || slices.ContainsFunc(now, func(o stacks.Route) bool { return same(o, rt) }) {
				continue
			}
			if err := r.setRoute(unix.RTM_NEWROUTE, rt); err != nil && !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("route to %s: %w", rt.Dst, err)
			}
		}
	}
	return nil
}

// same tells whether two routes lead the same way; IPv6 has a metric for those that
// have none.
func same(a, b stacks.Route) bool {
	norm := func(r stacks.Route) stacks.Route {
		r.Proto, r.Scope, r.OnLink = 0, 0, false
		if r.Table == 0 {
			r.Table = unix.RT_TABLE_MAIN
		}
		if r.Type == 0 {
			r.Type = unix.RTN_UNICAST
		}
		if r.Metric == 0 && r.Dst.Addr().Is6() {
			r.Metric = ip6Metric
		}
		if a := r.Gateway; a.IsValid() {
			r.Gateway = a.WithZone("")
		}
		return r
	}
	return norm(a) == norm(b)
}

// ip6Metric is what IPv6 routes get without a metric (IP6_RT_PRIO_USER).
const ip6Metric = 1024

// changeInterface changes one interface and its addresses.
func (r *rtnl) changeInterface(old, next *stacks.Interface) error {
	var flags, mask uint32
	if old.Up != next.Up {
		mask = unix.IFF_UP
		if next.Up {
			flags = unix.IFF_UP
		}
	}
	if f := old.Flipped ^ next.Flipped; f != 0 {
		mask |= f
		flags |= next.Flipped & f
	}
	mtu := 0
	if old.MTU != next.MTU {
		mtu = next.MTU
	}
	mac := next.MAC
	if bytes.Equal(old.MAC, next.MAC) {
		mac = nil
	}
	queue := 0
	if old.TxQueue != next.TxQueue {
		queue = max(next.TxQueue, 0)
	}
	if mask != 0 || mtu != 0 || mac != nil || queue != 0 {
		if err := r.setLink(next.Index, flags, mask, mtu, mac, queue); err != nil {
			return fmt.Errorf("interface %s: %w", next.Name, err)
		}
	}
	for _, p := range old.Addrs {
		if !slices.Contains(next.Addrs, p) {
			if err := r.setAddr(unix.RTM_DELADDR, next.Index, p, old.Info[p]); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				return fmt.Errorf("remove %s from %s: %w", p, next.Name, err)
			}
		}
	}
	for _, p := range next.Addrs {
		if slices.Contains(old.Addrs, p) && old.Info[p] == next.Info[p] {
			continue
		}
		if err := r.setAddr(unix.RTM_NEWADDR, next.Index, p, next.Info[p]); err != nil {
			return fmt.Errorf("add %s to %s: %w", p, next.Name, err)
		}
	}
	return nil
}
