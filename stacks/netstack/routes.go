// SPDX-License-Identifier: Apache-2.0

// Routes: gVisor's table, and the destinations that a route refuses.

package netstack

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"umrun/stacks"
)

// setRoutes makes the routes those of st.
func (s *Stack) setRoutes(st stacks.State) {
	// What refuses comes first and goes last, so that nothing slips through.
	refusing := newRefusal(st)
	if refusing != nil {
		s.refusing.Store(refusing)
	}
	s.gv.SetRouteTable(routeTable(st))
	s.refusing.Store(refusing)
}

// routeTable is gVisor's table: it takes the first that matches of the longest
// prefixes, so routes go in by metric.
func routeTable(st stacks.State) []tcpip.Route {
	var table []tcpip.Route
	for _, r := range byMetric(st.Routes) {
		if !r.Main() || r.Refuses() != 0 {
			continue
		}
		for _, ifc := range st.Interfaces {
			if ifc.Index == r.IfIndex && r.MTU >= ifc.MTU {
				r.MTU = 0
			}
		}
		table = append(table, gvRoute(r))
	}
	// Loopback routes are answered by HandleLocal; the table needs them for
	// addresses of 127/8 that nobody bound.
	for _, ifc := range st.Interfaces {
		if !ifc.Loop || !ifc.Up {
			continue
		}
		for _, p := range ifc.Addrs {
			table = append(table, gvRoute(stacks.Route{Dst: p.Masked(), IfIndex: ifc.Index}))
		}
	}
	return table
}

func byMetric(routes []stacks.Route) []stacks.Route {
	routes = slices.Clone(routes)
	slices.SortStableFunc(routes, func(a, b stacks.Route) int { return cmp.Compare(a.Metric, b.Metric) })
	return routes
}

func gvRoute(r stacks.Route) tcpip.Route {
	sub, err := tcpip.NewSubnet(gvAddr(r.Dst.Addr()), tcpip.MaskFromBytes(maskOf(r.Dst)))
	if err != nil {
		// The prefix was masked, and masks of prefixes have the right length.
		panic(fmt.Sprintf("netstack: subnet of %s: %v", r.Dst, err))
	}
	t := tcpip.Route{Destination: sub, NIC: tcpip.NICID(r.IfIndex)}
	if r.Gateway.IsValid() {
		t.Gateway = gvAddr(r.Gateway)
	}
	if r.Src.IsValid() {
		t.SourceHint = gvAddr(r.Src)
	}
	t.MTU = uint32(r.MTU)
	return t
}

// A refusal knows which destinations a route refuses. gVisor has no such routes: in
// its table a destination is served or left to shorter prefixes.
type refusal struct {
	routes []stacks.Route // of the table main, by length of the prefix and metric
	own    map[netip.Addr]bool
}

// newRefusal returns nil if no route refuses anything, as is usual.
func newRefusal(st stacks.State) *refusal {
	var f refusal
	some := false
	for _, r := range byMetric(st.Routes) {
		if r.Main() {
			f.routes = append(f.routes, r)
			some = some || r.Refuses() != 0
		}
	}
	if !some {
		return nil
	}
	slices.SortStableFunc(f.routes, func(a, b stacks.Route) int { return cmp.Compare(b.Dst.Bits(), a.Dst.Bits()) })
	f.own = make(map[netip.Addr]bool)
	for _, ifc := range st.Interfaces {
		for _, p := range ifc.Addrs {
			f.own[p.Addr()] = true
		}
	}
	return &f
}

// errno is what packets to a fail with, 0 if nothing refuses them. The view's own
// addresses and multicast of IPv6 are of the table local, which comes first.
func (f *refusal) errno(a netip.Addr) unix.Errno {
	if f == nil {
		return 0
	}
	a = a.Unmap().WithZone("")
	if a.IsLoopback() || a.IsUnspecified() || a.Is6() && a.IsMulticast() || f.own[a] {
		return 0
	}
	for i := range f.routes {
		if f.routes[i].Dst.Contains(a) {
			return f.routes[i].Refuses()
		}
	}
	return 0
}

// refused is [refusal.errno] as an error.
func (s *Stack) refused(a netip.Addr) error {
	if e := s.refusing.Load().errno(a); e != 0 {
		return e
	}
	return nil
}

// refuses tells whether p goes where a route refuses packets: one of a connection
// that is older than the route, an answer, or what else did not ask for its errno.
func (f *refusal) refuses(p *stack.PacketBuffer) bool {
	if f == nil {
		return false
	}
	var to netip.Addr
	switch h := p.NetworkHeader().Slice(); {
	case p.NetworkProtocolNumber == header.IPv4ProtocolNumber && len(h) >= header.IPv4MinimumSize:
		to = addrOf(unix.AF_INET, header.IPv4(h).DestinationAddress(), 0)
	case p.NetworkProtocolNumber == header.IPv6ProtocolNumber && len(h) >= header.IPv6MinimumSize:
		to = addrOf(unix.AF_INET6, header.IPv6(h).DestinationAddress(), 0)
	default:
		return false
	}
	return f.errno(to) != 0
}
