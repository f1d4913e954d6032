// SPDX-License-Identifier: Apache-2.0

// Which network serves a destination, or an address of the view.

package multihome

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// anyNet stands for no network in particular.
const anyNet = -1

// own returns the network that has an address, to bind to it or to send from it.
// Loopback is the first one's.
func (s *Stack) own(a netip.Addr) (net int, ok bool) {
	zone := a.Zone()
	a = a.Unmap().WithZone("")
	if a.IsLoopback() || a.IsUnspecified() {
		return 0, true
	}
	for _, n := range s.nets {
		for _, ifc := range n.stack.State().Interfaces {
			for _, p := range ifc.Addrs {
				if p.Addr() != a {
					continue
				}
				if z, scoped := s.zoneOf(a.WithZone(zone)); scoped && z != n.n {
					continue // each link has such addresses
				}
				return n.n, true
			}
		}
	}
	return 0, false
}

// choose returns the network for what a socket sends to an address, alone or as a
// datagram m. The mutex is held. An address that means something on another network
// only is unreachable: whatever the rules say, it would lead to a stranger.
func (k *socket) choose(to netip.AddrPort, m stacks.Message) (int, error) {
	n, err := k.prefer(to, m)
	if only, alone := k.st.table.Alone(to.Addr()); err == nil && alone && only != n {
		err = unix.ENETUNREACH
	}
	if from := k.bound.Addr().Unmap(); err == unix.ENETUNREACH && from.Is4() && from.IsLoopback() {
		err = unix.EINVAL // net/ipv4/route.c:ip_mkroute_output: such a source does not leave
	}
	return n, err
}

// prefer is choose by rules, and by what the socket names.
func (k *socket) prefer(to netip.AddrPort, m stacks.Message) (int, error) {
	said, inView, err := k.said(to.Addr(), m)
	if err != nil {
		return 0, err
	}
	if inView {
		return 0, nil // no rule is about what does not leave
	}
	if n, local := k.st.table.Local(to.Addr()); local && (said == anyNet || said == n) {
		return n, nil
	}
	if k.who != anyNet {
		if said != anyNet && said != k.who {
			return 0, unix.ENETUNREACH
		}
		return k.who, nil
	}
	n, ruled := k.st.table.Dest(to)
	if said != anyNet {
		if ruled && n != said {
			return 0, unix.ENETUNREACH
		}
		return said, nil
	}
	return n, nil
}

// said returns the network that the socket, or the datagram, names by an interface or
// an address of its own; anyNet if none. inView: it is the loopback interface, and what
// is sent does not leave the view.
func (k *socket) said(to netip.Addr, m stacks.Message) (net int, inView bool, err error) {
	zone, zoned := k.st.zoneOf(to)
	if k.device != anyNet {
		if n, _, ok := k.st.inner(m.IfIndex); m.IfIndex != 0 && (!ok || n != k.device) || zoned && zone != k.device {
			if k.typ == unix.SOCK_STREAM && to.IsMulticast() {
				return 0, false, unix.ENETUNREACH // before anybody looks at interfaces
			}
			return 0, false, unix.EINVAL
		}
		return k.device, k.onLoop, nil
	}
	group := to.Unmap().IsMulticast()
	if m.IfIndex != 0 {
		n, index, ok := k.st.inner(m.IfIndex)
		switch {
		case !ok:
			return 0, false, unix.ENODEV
		case index != loopback:
			return n, false, nil
		case group:
			return 0, true, nil
		}
	}
	if zoned && !k.st.isLoopZone(to) {
		return zone, false, nil
	}
	if group && (m.Local.Unmap().IsLoopback() || !m.Local.IsValid() && k.bound.Addr().Unmap().IsLoopback()) {
		return 0, true, nil // the source says by which interface
	}
	if m.Local.IsValid() && !m.Local.IsUnspecified() {
		if n, ok := k.st.own(m.Local); ok {
			return n, false, nil
		}
	}
	level := unix.IPPROTO_IPV6
	if to.Unmap().Is4() {
		level = unix.IPPROTO_IP
	}
	by := k.ucast
	if group {
		by = k.mcast
	}
	out, chosen := k.sticky[level]
	if !chosen {
		out, chosen = by[level]
	}
	switch {
	case chosen && out.loop && group:
		return 0, true, nil
	case k.bindNet != anyNet:
		return k.bindNet, false, nil
	case chosen:
		return out.net, false, nil
	}
	return anyNet, false, nil
}

// An outgoing is the interface that a socket has chosen for datagrams.
type outgoing struct {
	net  int
	loop bool // it is the loopback interface
}

// bindNets returns the networks on which bind(2) to an address gives an endpoint; the
// first is the one that names and errors are asked of. The mutex is held.
func (k *socket) bindNets(a netip.Addr) ([]int, error) {
	zone, zoned := k.st.zoneOf(a)
	if zoned = zoned && !k.st.isLoopZone(a); zoned {
		switch {
		case a.IsMulticast() && k.device == anyNet && (k.who == anyNet || k.who == zone):
			return []int{zone}, nil
		case !a.IsMulticast() && k.device != anyNet && k.device != zone:
			return nil, unix.EADDRNOTAVAIL
		}
	}
	if a.IsUnspecified() || a.Unmap().IsUnspecified() || a.Unmap().IsMulticast() || a.Unmap() == broadcast4 {
		return k.everywhere(), nil
	}
	n, ok := k.st.own(a)
	if !ok {
		n, ok = k.st.subnetOf(a)
	}
	if !ok && zoned {
		n, ok = zone, true
	}
	switch {
	case k.device != anyNet:
		return []int{k.device}, nil // which knows whether that is right
	case !ok && k.who != anyNet:
		return []int{k.who}, nil
	case !ok:
		return []int{k.main.Load().net.n}, nil // which has the errno
	case k.who != anyNet && n != k.who && !a.Unmap().IsLoopback():
		return nil, unix.EADDRNOTAVAIL
	}
	return []int{n}, nil
}

var broadcast4 = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// subnetOf returns the network with an interface in the same subnet as an address,
// such as the broadcast address of that.
func (s *Stack) subnetOf(a netip.Addr) (net int, ok bool) {
	a = a.Unmap()
	for _, n := range s.nets {
		for _, ifc := range n.stack.State().Interfaces {
			for _, p := range ifc.Addrs {
				if a.Is4() && p.Bits() < 32 && p.Contains(a) {
					return n.n, true
				}
			}
		}
	}
	return 0, false
}

// everywhere returns the networks on which a socket has an endpoint that is for all of
// them. The mutex is held.
func (k *socket) everywhere() []int {
	switch {
	case k.device != anyNet:
		return []int{k.device}
	case k.who > 0:
		return []int{k.who, 0}
	case k.who == 0:
		return []int{0}
	}
	first := k.main.Load().net.n
	nets := []int{first}
	for _, n := range k.st.nets {
		if n.n != first {
			nets = append(nets, n.n)
		}
	}
	return nets
}
