// SPDX-License-Identifier: Apache-2.0

// Changes of the running configuration.

package netstack

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"umrun/stacks"
)

var (
	_ stacks.Configurer = (*Stack)(nil)
	_ stacks.Counter    = (*Stack)(nil)
)

// State returns the configuration.
func (s *Stack) State() stacks.State { return s.dad.told(*s.state.Load()) }

// SetState makes gVisor's configuration what next says; see [stacks.Configurer].
func (s *Stack) SetState(next stacks.State) error {
	s.setMu.Lock()
	defer s.setMu.Unlock()
	if s.closed.Load() {
		return unix.ENETDOWN
	}
	old := *s.state.Load()
	next = next.Clone()
	if len(next.Interfaces) != len(old.Interfaces) {
		return unix.EOPNOTSUPP
	}
	for i := range next.Interfaces {
		next.Interfaces[i].Counters = stacks.Counters{}
		untold(&next.Interfaces[i])
		if err := s.allowed(&next.Interfaces[i]); err != nil || next.Interfaces[i].Index != old.Interfaces[i].Index {
			return unix.EINVAL
		}
	}
	// Nothing below fails: the interfaces exist, and addresses are compared
	// before they are added or removed.
	for i := range next.Interfaces {
		if err := s.apply(&old.Interfaces[i], &next.Interfaces[i]); err != nil {
			s.log.Error("change interface", "link", next.Interfaces[i].Name, "err", err)
		}
	}
	next.Neighbours = slices.DeleteFunc(next.Neighbours, func(n stacks.Neighbour) bool {
		// Others are known by what is learnt, or mean nothing.
		return s.hardware(tcpip.NICID(n.IfIndex)) == unix.ARPHRD_ETHER && n.State&unix.NUD_PERMANENT == 0
	})
	s.static(old.Neighbours, next.Neighbours)
	s.setPolicy(next)
	s.state.Store(&next)
	s.bypasses.recall(nil)
	s.notices.notify()
	return nil
}

// Counters tells what passed an interface. A super-segment counts as one packet.
func (s *Stack) Counters(index int) stacks.Counters {
	info, ok := s.gv.SingleNICInfo(tcpip.NICID(index))
	if !ok {
		return stacks.Counters{}
	}
	st := info.Stats
	c := stacks.Counters{
		RxPackets: st.Rx.Packets.Value(), RxBytes: st.Rx.Bytes.Value(), RxDropped: st.DisabledRx.Packets.Value(),
		TxPackets: st.Tx.Packets.Value(), TxBytes: st.Tx.Bytes.Value(), TxDropped: st.TxPacketsDroppedNoBufferSpace.Value(),
	}
	if index == loopbackNIC {
		s.loop.past.addTo(&c)
	}
	if e := s.links.of(index); e != nil {
		c.TxDropped += e.dropped.Load()
		e.past.addTo(&c)
		c.RxBytes += c.RxPackets * uint64(e.MaxHeaderLength())
	}
	return c
}

// allowed tells whether the link can carry the MTU and have the MAC.
func (s *Stack) allowed(ifc *stacks.Interface) error {
	if ifc.Loop {
		return nil
	}
	e := s.links.of(ifc.Index)
	if e == nil {
		return fmt.Errorf("there is no interface %d", ifc.Index)
	}
	if ifc.MTU < header.IPv4MinimumMTU || ifc.MTU > e.maxMTU {
		return fmt.Errorf("MTU %d is not between %d and %d", ifc.MTU, header.IPv4MinimumMTU, e.maxMTU)
	}
	if e.ether && !validMAC(ifc.MAC) {
		return fmt.Errorf("%s is no link address", ifc.MAC)
	}
	return nil
}

// apply changes one interface.
func (s *Stack) apply(old, next *stacks.Interface) error {
	id := tcpip.NICID(next.Index)
	if old.Name != next.Name {
		if err := s.gv.SetNICName(id, next.Name); err != nil {
			return fmt.Errorf("name: %s", err)
		}
	}
	if old.MTU != next.MTU && !next.Loop {
		s.links.of(next.Index).SetMTU(uint32(next.MTU))
	}
	if !bytes.Equal(old.MAC, next.MAC) && !next.Loop {
		s.links.of(next.Index).SetLinkAddress(tcpip.LinkAddress(next.MAC))
	}
	// gVisor knows an address once, whatever the lengths of its prefixes.
	have, want := addresses(old), addresses(next)
	for a := range have {
		if _, ok := want[a]; !ok {
			if err := s.removeAddress(id, a); err != nil {
				return err
			}
		}
	}
	for _, p := range next.Addrs { // in their order, by which sources are chosen
		if want[p.Addr()] != p {
			continue
		}
		if q, ok := have[p.Addr()]; !ok {
			if err := s.addAddress(id, next, p); err != nil {
				return err
			}
		} else if l := lifetimes(next, p); l != lifetimes(old, q) {
			if err := s.gv.SetAddressLifetimes(id, gvAddr(p.Addr()), l); err != nil && s.dad.of(dadKey{id, p.Addr()}) == 0 {
				return fmt.Errorf("lifetime of %s: %s", p, err)
			}
		}
	}
	if old.Up != next.Up {
		set := s.gv.DisableNIC
		if next.Up {
			set = s.gv.EnableNIC
		}
		if err := set(id); err != nil {
			return fmt.Errorf("up %t: %s", next.Up, err)
		}
	}
	return nil
}

// addresses are those of an interface, with the first prefix that each has.
func addresses(ifc *stacks.Interface) map[netip.Addr]netip.Prefix {
	out := make(map[netip.Addr]netip.Prefix, len(ifc.Addrs))
	for _, p := range ifc.Addrs {
		if _, ok := out[p.Addr()]; !ok {
			out[p.Addr()] = p
		}
	}
	return out
}

func (s *Stack) addAddress(id tcpip.NICID, ifc *stacks.Interface, p netip.Prefix) error {
	pa := tcpip.ProtocolAddress{
		Protocol:          protoOf(p.Addr()),
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: gvAddr(p.Addr()), PrefixLen: p.Bits()},
	}
	if ifc.Info[p].Peer.Is4() {
		pa.AddressWithPrefix.PrefixLen = 32 // the network is not its own
	}
	props := stack.AddressProperties{Lifetimes: lifetimes(ifc, p)}
	if s.detects(id, p.Addr(), ifc.Info[p].Flags) {
		props.Disp = &detection{s, dadKey{id, p.Addr()}}
		s.detect(id, true)
		defer s.detect(id, false)
	}
	if err := s.gv.AddProtocolAddress(id, pa, props); err != nil {
		return fmt.Errorf("add address %s: %s", p, err)
	}
	return nil
}

// removeAddress removes one; gVisor has removed it already if somebody else has it.
func (s *Stack) removeAddress(id tcpip.NICID, a netip.Addr) error {
	k := dadKey{id, a}
	failed := s.dad.of(k)&unix.IFA_F_DADFAILED != 0
	if err := s.gv.RemoveAddress(id, gvAddr(a)); err != nil && !failed {
		return fmt.Errorf("remove address %s: %s", a, err)
	}
	s.dad.set(k, 0)
	return nil
}

// lifetimes tells gVisor which addresses are not to be chosen as a source while there
// are others: deprecated ones of IPv6 (RFC 6724, rule 3). Linux looks at those only.
func lifetimes(ifc *stacks.Interface, p netip.Prefix) stack.AddressLifetimes {
	return stack.AddressLifetimes{Deprecated: p.Addr().Is6() && ifc.Info[p].Flags&unix.IFA_F_DEPRECATED != 0}
}

// minMTU is the smallest MTU of all interfaces and routes, bytes.
func (s *Stack) minMTU() int {
	least := loopbackMTU
	st := s.state.Load()
	for i := range st.Interfaces {
		least = min(least, st.Interfaces[i].MTU)
	}
	for i := range st.Routes {
		if mtu := st.Routes[i].MTU; mtu != 0 {
			least = min(least, mtu)
		}
	}
	return least
}
