// SPDX-License-Identifier: Apache-2.0

// The neighbour tables of links with link addresses, which are gVisor's.

package netstack

import (
	"bytes"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"umrun/stacks"
)

var _ stacks.Neighbourhood = (*Stack)(nil)

// nudStates are gVisor's states as Linux numbers them.
var nudStates = map[stack.NeighborState]int{
	stack.Unknown: unix.NUD_NONE, stack.Incomplete: unix.NUD_INCOMPLETE, stack.Reachable: unix.NUD_REACHABLE, stack.Stale: unix.NUD_STALE,
	stack.Delay: unix.NUD_DELAY, stack.Probe: unix.NUD_PROBE, stack.Static: unix.NUD_PERMANENT, stack.Unreachable: unix.NUD_FAILED,
}

// Neighbours returns what was learnt by ARP and NDP.
func (s *Stack) Neighbours() (all []stacks.Neighbour) {
	now := s.gv.Clock().NowMonotonic()
	for _, e := range s.links.all() {
		if !e.ether {
			continue
		}
		for _, proto := range []tcpip.NetworkProtocolNumber{header.IPv4ProtocolNumber, header.IPv6ProtocolNumber} {
			known, err := s.gv.Neighbors(tcpip.NICID(e.index), proto)
			if err != nil {
				continue
			}
			for _, n := range known {
				if n.State == stack.Static || n.State == stack.Unknown {
					continue
				}
				all = append(all, stacks.Neighbour{
					IfIndex: e.index, Addr: addrOf(unix.AF_INET, n.Addr, 0), MAC: net.HardwareAddr(n.LinkAddr), State: nudStates[n.State],
					Updated: time.Now().Add(-now.Sub(n.UpdatedAt)),
				})
			}
		}
	}
	return all
}

// Forget removes what was learnt of a neighbour.
func (s *Stack) Forget(ifIndex int, a netip.Addr) error {
	if err := s.gv.RemoveNeighbor(tcpip.NICID(ifIndex), protoOf(a), gvAddr(a)); err != nil {
		return unix.ENOENT
	}
	return nil
}

// static makes the permanent neighbours those of next.
func (s *Stack) static(old, next []stacks.Neighbour) {
	type key struct {
		nic  int
		addr netip.Addr
	}
	asked := func(n stacks.Neighbour) bool { // whose link address gVisor would ask for
		e := s.links.of(n.IfIndex)
		return e != nil && e.ether && len(n.MAC) > 0
	}
	had, has := make(map[key]net.HardwareAddr), make(map[key]bool)
	for _, n := range old {
		had[key{n.IfIndex, n.Addr}] = n.MAC
	}
	for _, n := range next {
		k := key{n.IfIndex, n.Addr}
		has[k] = true
		if mac, ok := had[k]; !asked(n) || ok && bytes.Equal(mac, n.MAC) {
			continue
		}
		if err := s.gv.AddStaticNeighbor(tcpip.NICID(n.IfIndex), protoOf(n.Addr), gvAddr(n.Addr), tcpip.LinkAddress(n.MAC)); err != nil {
			s.log.Error("add a neighbour", "addr", n.Addr, "err", err)
		}
	}
	for _, n := range old {
		if asked(n) && !has[key{n.IfIndex, n.Addr}] {
			// It may be gone with its interface.
			if err := s.Forget(n.IfIndex, n.Addr); err != nil {
				s.log.Debug("remove a neighbour", "addr", n.Addr, "err", err)
			}
		}
	}
}

// A learner hears of changes of gVisor's tables.
type learner struct{ st *Stack }

// OnNeighborAdded implements stack.NUDDispatcher, as do those below.
func (l learner) OnNeighborAdded(tcpip.NICID, stack.NeighborEntry)   { l.st.notices.notify() }
func (l learner) OnNeighborChanged(tcpip.NICID, stack.NeighborEntry) { l.st.notices.notify() }
func (l learner) OnNeighborRemoved(tcpip.NICID, stack.NeighborEntry) { l.st.notices.notify() }
