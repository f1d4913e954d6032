// SPDX-License-Identifier: Apache-2.0

// Tests of what delayed acknowledgements let through, and when.

package netstack

import (
	"fmt"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// segment makes a TCP segment of connection number conn.
func segment(conn int, flags header.TCPFlags, ack uint32, data int, options ...byte) *stack.PacketBuffer {
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.IPv4MinimumSize + header.TCPHeaderMaximumSize,
		Payload:            buffer.MakeWithData(make([]byte, data)),
	})
	t := header.TCP(p.TransportHeader().Push(header.TCPMinimumSize + len(options)))
	t.Encode(&header.TCPFields{SrcPort: uint16(conn), DstPort: 80, AckNum: ack, DataOffset: uint8(len(t)), Flags: flags})
	copy(t[header.TCPMinimumSize:], options)
	p.TransportProtocolNumber = header.TCPProtocolNumber
	n := header.IPv4(p.NetworkHeader().Push(header.IPv4MinimumSize))
	n.Encode(&header.IPv4Fields{TotalLength: uint16(len(n) + len(t) + data), Protocol: 6})
	p.NetworkProtocolNumber = header.IPv4ProtocolNumber
	return p
}

// TestAcks feeds segments and ticks and tells which segments go, by their
// acknowledgement numbers, at each step.
func TestAcks(t *testing.T) {
	const mtu = 1420
	syn, ack, psh, fin, rst := header.TCPFlagSyn, header.TCPFlagAck, header.TCPFlagPsh, header.TCPFlagFin, header.TCPFlagRst
	stamps := []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	sack := []byte{1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	type step struct {
		p    *stack.PacketBuffer // nil: ticks
		n    int                 // of them
		sent string
	}
	tick := func(n int, sent string) step { return step{n: n, sent: sent} }
	send := func(p *stack.PacketBuffer, sent string) step { return step{p: p, sent: sent} }
	open := func(then ...step) []step {
		return append([]step{send(segment(1, syn, 0, 0), "0"), send(segment(1, ack|psh, 1, 10), "1")}, then...)
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"handshake goes with the request", []step{send(segment(1, syn, 0, 0), "0"), send(segment(1, ack, 1, 0, stamps...), ""), send(segment(1, ack|psh, 1, 10), "1"), tick(10, "")}},
		{"handshake alone", []step{send(segment(1, syn, 0, 0), "0"), send(segment(1, ack, 1, 0), ""), tick(1, "1"), tick(10, "")}},
		{"answer takes it along", open(send(segment(1, ack, 50, 0, stamps...), ""), tick(3, ""), send(segment(1, ack|psh, 50, 10), "50"), tick(10, ""))},
		{"end takes it along", open(send(segment(1, ack, 50, 0), ""), send(segment(1, ack|fin, 51, 0), "51"), tick(10, ""))},
		{"it waits for five ticks", open(send(segment(1, ack, 50, 0), ""), tick(4, ""), tick(1, "50"), tick(10, ""))},
		{"the second one goes", open(send(segment(1, ack, 50, 0), ""), send(segment(1, ack, 60, 0), "60"), send(segment(1, ack, 70, 0), ""), tick(5, "70"))},
		{"much at once goes", open(send(segment(1, ack, 1+mtu+1, 0), "1422"), tick(10, ""))},
		{"duplicate goes, behind what waits", open(send(segment(1, ack, 50, 0), ""), send(segment(1, ack, 50, 0), "50 50"), send(segment(1, ack, 50, 0), "50"))},
		{"selective goes", open(send(segment(1, ack, 50, 0, sack...), "50"))},
		{"keep-alive goes", open(send(segment(1, ack, 1, 0), "1"), send(segment(1, ack, 1, 0), "1"))},
		{"a reset forgets", open(send(segment(1, ack, 50, 0), ""), send(segment(1, rst, 0, 0), "0"), tick(10, ""))},
		{"unknown connection goes", []step{send(segment(2, ack, 50, 0), "50"), send(segment(2, ack, 60, 0), "60")}},
		{"numbers wrap", []step{send(segment(1, ack|syn, 1<<32-10, 0), "4294967286"), send(segment(1, ack, 5, 0), ""), tick(5, "5")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var a acks
			a.init(func() {})
			defer a.stop()
			for i, s := range c.steps {
				var sent []*stack.PacketBuffer
				for range s.n {
					sent = append(sent, a.expired(false)...)
				}
				if s.p != nil {
					before, kept := a.admit(s.p, mtu)
					if before != nil {
						sent = append(sent, before)
					}
					if !kept {
						sent = append(sent, s.p.IncRef())
					}
					s.p.DecRef()
				}
				got := ""
				for i, p := range sent {
					if i > 0 {
						got += " "
					}
					got += fmt.Sprint(header.TCP(p.TransportHeader().Slice()).AckNumber())
					p.DecRef()
				}
				if got != s.sent {
					t.Errorf("step %d: sent %q, want %q", i+1, got, s.sent)
				}
			}
		})
	}
}

// TestAcksInVain sees that a connection that only receives is delayed once in a
// while only.
func TestAcksInVain(t *testing.T) {
	var a acks
	a.init(func() {})
	defer a.stop()
	delayed := 0
	admit := func(p *stack.PacketBuffer) {
		if _, kept := a.admit(p, 1420); kept {
			delayed++
			for range ackDelay {
				for _, q := range a.expired(false) {
					q.DecRef()
				}
			}
		}
		p.DecRef()
	}
	admit(segment(1, header.TCPFlagSyn, 0, 0))
	const n = 10 * (ackQuick + 1)
	for i := range n {
		admit(segment(1, header.TCPFlagAck, uint32(1+i), 0))
	}
	if want := n/(ackQuick+1) + 1; delayed > want || delayed < want-2 {
		t.Errorf("%d of %d acknowledgements were delayed, want %d", delayed, n, want)
	}
}

// TestAcksManyConnections displaces connections whose acknowledgements wait: each
// goes sooner or later, and none twice.
func TestAcksManyConnections(t *testing.T) {
	var a acks
	a.init(func() {})
	defer a.stop()
	seen := map[uint32]int{}
	count := func(p *stack.PacketBuffer) {
		h := header.TCP(p.TransportHeader().Slice())
		if h.Flags() == header.TCPFlagAck {
			seen[h.AckNumber()]++
		}
		p.DecRef()
	}
	const n = 3 * ackFlows
	for i := 1; i <= n; i++ {
		for _, p := range []*stack.PacketBuffer{segment(i, header.TCPFlagSyn, 0, 0), segment(i, header.TCPFlagAck, uint32(i), 0)} {
			before, kept := a.admit(p, 1420)
			if before != nil {
				count(before)
			}
			if kept {
				p.DecRef()
			} else {
				count(p)
			}
		}
	}
	for _, p := range a.expired(true) {
		count(p)
	}
	for i := uint32(1); i <= n; i++ {
		if seen[i] != 1 {
			t.Fatalf("acknowledgement %d was sent %d times", i, seen[i])
		}
	}
	if len(a.waiting) != 0 {
		t.Errorf("%d still wait", len(a.waiting))
	}
}
