// SPDX-License-Identifier: Apache-2.0

// Which timer a connection waits for. gVisor does not tell: it follows from what was
// heard last, and when.

package netstack

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"umrun/stacks"
)

// handshakeRTO is after what time a SYN is sent again (RFC 6298 §2).
const handshakeRTO = time.Second

// timer is that of the connection c, whose state is st.
func (s *Stack) timer(ep tcpip.Endpoint, st tcp.EndpointState, c *sendQueue) stacks.Timer {
	elapsed := time.Duration(max(0, s.now()-c.heard.Load()))
	switch st {
	case tcp.StateConnecting, tcp.StateSynSent, tcp.StateSynRecv:
		return backedOff(stacks.TimerRetransmit, handshakeRTO, elapsed)
	case tcp.StateTimeWait:
		var o tcpip.TCPTimeWaitTimeoutOption
		if err := s.gv.TransportProtocolOption(tcp.ProtocolNumber, &o); err != nil {
			return stacks.Timer{}
		}
		return stacks.Timer{Kind: stacks.TimerTimeWait, Expires: max(0, time.Duration(o)-elapsed)}
	case tcp.StateEstablished, tcp.StateCloseWait:
		if c.bytes.Load() > 0 {
			break
		}
		return keepAlive(ep, elapsed)
	case tcp.StateFinWait1, tcp.StateClosing, tcp.StateLastAck: // a FIN is on its way at least
	default:
		return stacks.Timer{}
	}
	rto := time.Duration(c.peek.rto.Load())
	if rto <= 0 { // nothing was heard yet
		var info tcpip.TCPInfoOption
		if err := ep.GetSockOpt(&info); err != nil || info.RTO <= 0 {
			info.RTO = handshakeRTO
		}
		rto = info.RTO
	}
	kind := stacks.TimerRetransmit
	if c.peek.expected.Load() != 0 && uint32(c.peek.windows.Load()) == 0 {
		kind = stacks.TimerProbe
	}
	return backedOff(kind, rto, elapsed)
}

// backedOff is a timer that was first set to rto, and runs twice as long each time.
func backedOff(kind stacks.TimerKind, rto, elapsed time.Duration) stacks.Timer {
	t := stacks.Timer{Kind: kind}
	due := rto
	for ; due <= elapsed; t.Retries++ {
		rto = min(2*rto, tcp.MaxRTO)
		due += rto
	}
	t.Expires = due - elapsed
	return t
}

// keepAlive is the timer of a connection on which nothing is on its way.
func keepAlive(ep tcpip.Endpoint, elapsed time.Duration) stacks.Timer {
	var idle tcpip.KeepaliveIdleOption
	var interval tcpip.KeepaliveIntervalOption
	if !ep.SocketOptions().GetKeepAlive() || ep.GetSockOpt(&idle) != nil || ep.GetSockOpt(&interval) != nil || interval <= 0 {
		return stacks.Timer{}
	}
	t := stacks.Timer{Kind: stacks.TimerKeepAlive}
	due := time.Duration(idle)
	if late := elapsed - due; late >= 0 {
		t.Retries = int(late/time.Duration(interval)) + 1
		due += time.Duration(t.Retries) * time.Duration(interval)
	}
	t.Expires = due - elapsed
	return t
}
