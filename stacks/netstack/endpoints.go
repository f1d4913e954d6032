// SPDX-License-Identifier: Apache-2.0

// The list of endpoints, for ss(8).

package netstack

import (
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"umrun/stacks"
)

var _ stacks.Lister = (*Stack)(nil)

// tcpStates are the numbers of netinet/tcp.h; states that are not here occupy no
// port pair.
var tcpStates = map[tcp.EndpointState]int{
	tcp.StateEstablished: 1, // TCP_ESTABLISHED
	tcp.StateConnecting:  2, // TCP_SYN_SENT
	tcp.StateSynSent:     2,
	tcp.StateSynRecv:     3, // TCP_SYN_RECV
	tcp.StateFinWait1:    4, // TCP_FIN_WAIT1
	tcp.StateFinWait2:    5, // TCP_FIN_WAIT2
	tcp.StateTimeWait:    6, // TCP_TIME_WAIT
	tcp.StateCloseWait:   8, // TCP_CLOSE_WAIT
	tcp.StateLastAck:     9, // TCP_LAST_ACK
	tcp.StateListen:      10,
	tcp.StateClosing:     11,
}

// States of a datagram endpoint.
const (
	udpConnected   = 1 // TCP_ESTABLISHED
	udpUnconnected = 7 // TCP_CLOSE
)

// Endpoints lists what gVisor's demultiplexer knows, and what it is cleaning up.
func (s *Stack) Endpoints() []stacks.Endpoint {
	var out []stacks.Endpoint
	seen := make(map[stack.TransportEndpoint]bool) // one for both families is there twice
	for _, te := range append(s.gv.RegisteredEndpoints(), s.gv.CleanupEndpoints()...) {
		if seen[te] {
			continue
		}
		seen[te] = true
		if e, ok := s.describe(te); ok {
			out = append(out, e)
		}
	}
	return out
}

// describe tells what one endpoint is; !ok: nothing that ss shows.
func (s *Stack) describe(te stack.TransportEndpoint) (_ stacks.Endpoint, ok bool) {
	ep, ok := te.(tcpip.Endpoint)
	if !ok {
		return stacks.Endpoint{}, false
	}
	info, ok := ep.Info().(*stack.TransportEndpointInfo)
	if !ok {
		return stacks.Endpoint{}, false
	}
	e := stacks.Endpoint{Family: unix.AF_INET}
	if info.NetProto == header.IPv6ProtocolNumber {
		e.Family = unix.AF_INET6
	}
	local, err := ep.GetLocalAddress()
	if err != nil {
		return stacks.Endpoint{}, false
	}
	e.Local = addrPort(e.Family, local)
	if remote, err := ep.GetRemoteAddress(); err == nil {
		e.Remote = addrPort(e.Family, remote)
	}
	if n, err := ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption); err == nil {
		e.RecvQ = n
	}
	switch info.TransProto {
	case tcp.ProtocolNumber:
		e.Proto = unix.IPPROTO_TCP
		st := tcp.EndpointState(ep.State())
		if e.State, ok = tcpStates[st]; !ok {
			return stacks.Endpoint{}, false
		}
		if st == tcp.StateListen {
			e.Remote = netip.AddrPort{}
		}
		if q, ok := s.queues.m.Load(tcp.TCPEndpointID(info.ID)); ok {
			c := q.(*sendQueue)
			e.SendQ = max(0, int(c.bytes.Load()))
			e.Timer = s.timer(ep, st, c)
		}
	case udp.ProtocolNumber:
		e.Proto, e.State = unix.IPPROTO_UDP, udpUnconnected
		if e.Remote.IsValid() {
			e.State = udpConnected
		}
	default:
		return stacks.Endpoint{}, false
	}
	return e, true
}
