// SPDX-License-Identifier: Apache-2.0

// Neighbours of all networks.

package multihome

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

var _ stacks.Neighbourhood = (*Stack)(nil)

// Neighbours returns what the networks have learnt.
func (s *Stack) Neighbours() (all []stacks.Neighbour) {
	for _, n := range s.nets {
		if h, ok := n.stack.(stacks.Neighbourhood); ok {
			all = append(all, s.neighboursOutward(n.n, h.Neighbours())...)
		}
	}
	return all
}

// Forget removes what a network has learnt.
func (s *Stack) Forget(ifIndex int, a netip.Addr) error {
	if net, index, ok := s.inner(ifIndex); ok {
		if h, ok := s.nets[net].stack.(stacks.Neighbourhood); ok {
			return h.Forget(index, a)
		}
	}
	return unix.ENOENT
}

// neighboursOutward are neighbours of a network as they are told.
func (s *Stack) neighboursOutward(net int, of []stacks.Neighbour) (out []stacks.Neighbour) {
	for _, n := range of {
		n.IfIndex = s.outer(net, n.IfIndex)
		out = append(out, n)
	}
	return out
}

// neighboursInward are those that belong to a network.
func (s *Stack) neighboursInward(net int, of []stacks.Neighbour) (in []stacks.Neighbour) {
	for _, n := range of {
		if to, index, ok := s.inner(n.IfIndex); ok && to == net {
			n.IfIndex = index
			in = append(in, n)
		}
	}
	return in
}
