// SPDX-License-Identifier: Apache-2.0

// Acknowledgements for a connection that has shut its window.

package tcpseg

import (
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// ShutWindows knows the connections that have told their peers to send nothing, and has
// gVisor hear what those acknowledge.
//
// What a window has room for is rounded down when it is told, so that it can close
// before the bytes that the last one allowed are there. Of a connection whose window is
// shut gVisor takes no segment but one without data at the very next sequence number
// (header.Acceptable), and throws away others with what they acknowledge. The peer has
// bytes on their way, which it sends again and again, and whose numbers its
// acknowledgements have behind them: not one of its segments is heard any more. If the
// program at our end waits until it can send before it reads on, as one does that sends
// back what it gets, the connection stands still until it is given up. RFC 9293, 3.10.7.4
// wants acknowledgements heard of such segments, and Linux does so
// (net/ipv4/tcp_input.c:tcp_sequence). So each is preceded by one that has the same to
// say, no data, and the number that gVisor waits for.
//
// The zero value is ready. It is safe for concurrent use.
type ShutWindows struct {
	n atomic.Int32 // of flows

	mu    sync.Mutex
	flows map[Flow]uint32 // what was acknowledged with the shut window; +checklocks:mu
}

const (
	// shutMost bounds the connections that are known. Those that end with a shut window
	// leave their entry behind, so that all are dropped where there are too many.
	shutMost = 4096

	// shutAhead is how far a peer may be ahead of a shut window: what the scale of RFC
	// 7323, 14 at most, rounds off.
	shutAhead = 1 << 14
)

// Leaving notes what a packet that gVisor sends says of the window. What others send
// with the same addresses is not for it.
func (s *ShutWindows) Leaving(p *stack.PacketBuffer) {
	if p.TransportProtocolNumber != header.TCPProtocolNumber {
		return
	}
	h := header.TCP(p.TransportHeader().Slice())
	if len(h) < header.TCPMinimumSize {
		return
	}
	shut := h.WindowSize() == 0 && h.Flags()&(header.TCPFlagAck|header.TCPFlagSyn|header.TCPFlagRst) == header.TCPFlagAck
	if !shut && s.n.Load() == 0 {
		return
	}
	k, ok := FlowOf(p)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !shut:
		delete(s.flows, k)
	case s.flows == nil || len(s.flows) >= shutMost:
		s.flows = map[Flow]uint32{k: h.AckNumber()}
	default:
		s.flows[k] = h.AckNumber()
	}
	s.n.Store(int32(len(s.flows)))
}

// Arriving returns what gVisor is to be given before the packet b: nil if that is heard
// as it is. The caller has seen to b's checksums, or will; those of the result are not to
// be looked at.
func (s *ShutWindows) Arriving(b []byte) []byte {
	if s.n.Load() == 0 {
		return nil
	}
	p, ok := Of(b)
	if !ok || p.TCP.Flags()&(header.TCPFlagAck|header.TCPFlagSyn|header.TCPFlagRst) != header.TCPFlagAck {
		return nil
	}
	s.mu.Lock()
	next, shut := s.flows[p.back()]
	s.mu.Unlock()
	network := len(b) - len(p.TCP)
	headers := network + int(p.TCP.DataOffset())
	size := packetSize(b)
	if !shut || p.TCP.SequenceNumber()-next >= shutAhead || p.TCP.SequenceNumber() == next && headers == size ||
		headers < network+header.TCPMinimumSize || headers > size || size > len(b) {
		return nil
	}
	ack := append([]byte(nil), b[:headers]...)
	if p.ID.LocalAddress.Len() == header.IPv4AddressSize {
		header.IPv4(ack).SetTotalLength(uint16(headers))
	} else {
		header.IPv6(ack).SetPayloadLength(uint16(headers - network))
	}
	t := header.TCP(ack[network:])
	t.SetSequenceNumber(next)
	t.SetFlags(uint8(header.TCPFlagAck))
	return ack
}

// packetSize is what an IP packet with whole headers says of its size.
func packetSize(b []byte) int {
	if header.IPVersion(b) == header.IPv4Version {
		return int(header.IPv4(b).TotalLength())
	}
	return header.IPv6MinimumSize + int(header.IPv6(b).PayloadLength())
}
