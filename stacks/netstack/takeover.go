// SPDX-License-Identifier: Apache-2.0

// New connections in place of old ones in TIME_WAIT.

package netstack

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"umrun/stacks/netstack/tcpseg"
)

// takeOver makes way for a SYN to a listener where an old connection of the same name
// is in TIME_WAIT. gVisor lets one with a higher sequence number than the old
// connection's take over, and drops others without a word: those of another client with
// the same address, for as long as it tries. Linux looks at the time stamp as well, and
// else answers with an acknowledgement, for which the client resets the old connection
// before its next SYN (net/ipv4/tcp_minisocks.c:tcp_timewait_state_process). Here the
// first SYN does that.
func (s *Stack) takeOver(b []byte, nic int) {
	if tcpseg.FlagsOf(b)&(header.TCPFlagSyn|header.TCPFlagAck|header.TCPFlagRst) != header.TCPFlagSyn {
		return
	}
	p, ok := tcpseg.Of(b)
	if !ok {
		return
	}
	id := p.ID
	proto := header.IPv4ProtocolNumber
	if id.LocalAddress.Len() == header.IPv6AddressSize {
		proto = header.IPv6ProtocolNumber
	}
	old := s.tcpEndpoint(proto, id, nic)
	if old == nil || old.EndpointState() != tcp.StateTimeWait {
		return
	}
	id.RemoteAddress, id.RemotePort = tcpip.Address{}, 0
	l := s.tcpEndpoint(proto, id, nic)
	if l == nil && proto == header.IPv4ProtocolNumber {
		l = s.tcpEndpoint(header.IPv6ProtocolNumber, id, nic)
	}
	if l != nil && l.EndpointState() == tcp.StateListen {
		old.Abort() // its reset has no number that the new connection would take
	}
}

// tcpEndpoint finds the endpoint that takes segments of an id; nil if there is none.
func (s *Stack) tcpEndpoint(proto tcpip.NetworkProtocolNumber, id stack.TransportEndpointID, nic int) *tcp.Endpoint {
	ep, _ := s.gv.FindTransportEndpoint(proto, header.TCPProtocolNumber, id, tcpip.NICID(nic)).(*tcp.Endpoint)
	return ep
}
