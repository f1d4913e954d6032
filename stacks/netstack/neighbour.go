// SPDX-License-Identifier: Apache-2.0

// Neighbours: what becomes of packets to those that do not answer, and news by ARP.

package netstack

import (
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// gVisor's neighbour cache asks as Linux does: three times, a second apart, then what
// waited for the answer has failed. It tells TCP of that, and nobody else. So its
// network endpoints are wrapped, and the stack sends itself the ICMP error that Linux
// sends itself (net/ipv4/route.c:ipv4_link_failure): every kind of socket hears that.

// An ipEndpoint is what both of gVisor's IP endpoints can do.
type ipEndpoint interface {
	stack.ForwardingNetworkEndpoint
	stack.MulticastForwardingNetworkEndpoint
	stack.AddressableEndpoint
	stack.GroupAddressableEndpoint
	stack.LinkResolvableNetworkEndpoint
}

// An ip6Endpoint is what that of IPv6 can do.
type ip6Endpoint interface {
	ipEndpoint
	stack.NDPEndpoint
	stack.DuplicateAddressDetector
	stack.LinkAddressResolver
}

type (
	failing4 struct {
		ipEndpoint
		st *Stack
	}
	failing6 struct {
		ip6Endpoint
		st *Stack
	}
)

// HandleLinkResolutionFailure implements stack.LinkResolvableNetworkEndpoint.
func (e *failing4) HandleLinkResolutionFailure(p *stack.PacketBuffer) { e.st.unreachable(flat(p)) }

// HandleLinkResolutionFailure implements stack.LinkResolvableNetworkEndpoint.
func (e *failing6) HandleLinkResolutionFailure(p *stack.PacketBuffer) { e.st.unreachable(flat(p)) }

// failing is a network protocol whose endpoints say so.
type failing struct {
	stack.NetworkProtocol
	st *Stack
}

// NewEndpoint implements stack.NetworkProtocol.
func (p *failing) NewEndpoint(nic stack.NetworkInterface, d stack.TransportDispatcher) stack.NetworkEndpoint {
	switch e := p.NetworkProtocol.NewEndpoint(nic, d).(type) {
	case ip6Endpoint:
		return &failing6{e, p.st}
	case ipEndpoint:
		return &failing4{e, p.st}
	default:
		return e
	}
}

// failing wraps the protocol that make makes.
func (s *Stack) failing(make stack.NetworkProtocolFactory) stack.NetworkProtocolFactory {
	return func(gv *stack.Stack) stack.NetworkProtocol { return &failing{make(gv), s} }
}

// unreachable tells the sender of b, a packet of the stack's own from its IP header on,
// that the next hop did not answer.
func (s *Stack) unreachable(b []byte) {
	switch header.IPVersion(b) {
	case header.IPv4Version:
		if h := header.IPv4(b); len(b) >= header.IPv4MinimumSize && h.FragmentOffset() == 0 {
			s.sayAbout(b, h.SourceAddress(), h.SourceAddress(), byte(header.ICMPv4DstUnreachable), byte(header.ICMPv4HostUnreachable), 0)
		}
	case header.IPv6Version:
		if h := header.IPv6(b); len(b) >= header.IPv6MinimumSize {
			s.sayAbout(b, h.SourceAddress(), h.SourceAddress(), byte(header.ICMPv6DstUnreachable), byte(header.ICMPv6AddressUnreachable), 0)
		}
	}
}

// lockTime is how long a neighbour that was just heard of keeps its address, whatever
// others claim (net.ipv4.neigh.*.locktime).
const lockTime = time.Second

// heardARP looks at a packet of ARP before gVisor does: an answer that nobody asked for
// tells of another address of a neighbour that is known (net/ipv4/arp.c:arp_process).
// gVisor would go on with the old one until that has failed to answer. Forgotten, it is
// asked for anew with the next packet.
func (s *Stack) heardARP(nic int, b []byte) {
	h := header.ARP(b)
	if !h.IsValid() {
		return
	}
	from := tcpip.AddrFrom4Slice(h.ProtocolAddressSender())
	if h.Op() != header.ARPReply && from != tcpip.AddrFrom4Slice(h.ProtocolAddressTarget()) {
		return
	}
	id := tcpip.NICID(nic)
	known, err := s.gv.Neighbors(id, header.IPv4ProtocolNumber)
	if err != nil {
		return
	}
	now := s.gv.Clock().NowMonotonic()
	for _, n := range known {
		if n.Addr != from || string(n.LinkAddr) == string(h.HardwareAddressSender()) {
			continue
		}
		switch n.State {
		case stack.Reachable, stack.Stale, stack.Delay, stack.Probe:
			if now.Sub(n.UpdatedAt) >= lockTime {
				if err := s.gv.RemoveNeighbor(id, header.IPv4ProtocolNumber, from); err != nil {
					s.log.Debug("forget a neighbour", "err", err)
				}
			}
		}
	}
}

// toNeighbour sends b, an IP packet, as it is to the next hop of w, now or when that has
// answered.
func (s *Stack) toNeighbour(b []byte, w *way) tcpip.Error {
	e := s.links.of(int(w.nic))
	if e == nil {
		return &tcpip.ErrUnknownNICID{}
	}
	proto := protoOf(w.dst)
	// Called with a lock of the neighbour's held, which those who send want, too.
	send := func(to tcpip.LinkAddress, err tcpip.Error) {
		if err != nil {
			s.tasks.start(func() { s.unreachable(b) })
			return
		}
		p := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: header.EthernetMinimumSize, Payload: buffer.MakeWithData(b)})
		defer p.DecRef()
		p.NetworkProtocolNumber = proto
		p.EgressRoute.RemoteLinkAddress = to
		e.AddHeader(p)
		e.inject(p, nil)
	}
	var err tcpip.Error
	if w.route != nil {
		err = w.route.ResolvedFields(func(r stack.ResolvedFieldsResult) { send(r.RouteInfo.RemoteLinkAddress, r.Err) })
	} else { // on link, whatever the routes say
		err = s.gv.GetLinkAddress(w.nic, gvAddr(w.dst), tcpip.Address{}, proto, func(r stack.LinkResolutionResult) { send(r.LinkAddress, r.Err) })
	}
	if _, wait := err.(*tcpip.ErrWouldBlock); wait {
		return nil
	}
	return err
}
