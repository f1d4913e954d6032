// SPDX-License-Identifier: Apache-2.0

// Delayed acknowledgements: a segment that only acknowledges waits for company.

package netstack

import (
	"hash/maphash"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"umrun/stacks/netstack/tcpseg"
)

// gVisor acknowledges what it received at once, in a segment of its own, and the
// program's answer follows in the next one. Over a tunnel a packet costs the same
// whatever is in it, on both sides. So the link holds an acknowledgement back, as
// RFC 9293, 3.8.6.3 has it: until the next segment of the connection, which says the
// same; until a second one, so that every other segment is acknowledged; or for
// ackDelay. What tells the peer more than that, or that there is a hurry, does not
// wait: duplicate and selective acknowledgements, window updates, answers to probes.
const (
	ackTick = time.Millisecond

	// ackDelay is what a program may take to answer, in ticks. Linux waits for 40
	// to 200 ms; a program on this machine that answers at all does it sooner,
	// and a peer that holds data back until it is acknowledged (RFC 1122,
	// 4.2.3.4) should not be kept.
	ackDelay = 5

	// ackGreet is the same for the last segment of the handshake: a client that
	// speaks first does it at once, and one that does not must not keep the server
	// from its greeting.
	ackGreet = 1

	// ackQuick is how many acknowledgements go at once after one that has waited
	// in vain, as on a connection that only receives.
	ackQuick = 16

	// ackFlows is how many connections are known at a time. One that is displaced
	// by another has its acknowledgements sent at once until it sends data.
	ackFlows = 1024
)

// ackFlow is what is known of a connection.
type ackFlow struct {
	tcpseg.Flow
	greeted bool                // an acknowledgement was sent, or waits
	ack     seqnum.Value        // the highest one
	held    *stack.PacketBuffer // waits
	due     uint32              // the tick of its departure
	listed  bool                // is in acks.waiting
	quick   int                 // acknowledgements that are not to wait
}

// take returns what waits, if anything.
func (f *ackFlow) take() *stack.PacketBuffer {
	p := f.held
	f.held = nil
	return p
}

// drop forgets what waits.
func (f *ackFlow) drop() {
	if p := f.take(); p != nil {
		p.DecRef()
	}
}

// acks holds acknowledgements back. It is a part of the endpoint, under its mutex.
type acks struct {
	flows   [ackFlows]ackFlow
	seed    maphash.Seed
	waiting []*ackFlow // those with something held, and some that had
	tick    uint32     // counted while anything waits
	ticking bool
	timer   *time.Timer
}

// init makes the zero value usable; expire is called when tick is to be.
func (a *acks) init(expire func()) {
	a.seed = maphash.MakeSeed()
	a.timer = time.AfterFunc(time.Hour, expire)
	a.timer.Stop()
}

// stop ends the timer.
func (a *acks) stop() { a.timer.Stop() }

// admit is asked about each packet, in the order of sending. It tells whether p was
// kept, and what must be sent before p, which the caller then owns.
func (a *acks) admit(p *stack.PacketBuffer, mtu int) (before *stack.PacketBuffer, kept bool) {
	if p.TransportProtocolNumber != header.TCPProtocolNumber {
		return nil, false
	}
	k, ok := tcpseg.FlowOf(p)
	h := header.TCP(p.TransportHeader().Slice())
	if !ok || len(h) < header.TCPMinimumSize || int(h.DataOffset()) != len(h) {
		return nil, false
	}
	flags, ack := h.Flags(), seqnum.Value(h.AckNumber())
	alone := flags&^header.TCPFlagPsh == header.TCPFlagAck && p.Data().Size() == 0
	f := &a.flows[maphash.Comparable(a.seed, k)%ackFlows]
	if f.Flow != k {
		if alone || flags.Contains(header.TCPFlagRst) {
			return nil, false
		}
		before = f.take()
		*f = ackFlow{Flow: k, listed: f.listed}
	}
	switch {
	case !flags.Contains(header.TCPFlagAck):
		f.drop() // a SYN or a reset: nothing that waits matters any more
		f.greeted = false
		return before, false
	case !alone:
		f.drop()
		f.greeted, f.ack = true, ack
		return before, false
	}
	delay := uint32(ackDelay)
	if !f.greeted {
		delay = ackGreet
	} else if n := int32(ack - f.ack); n <= 0 {
		return f.take(), false // it says something else
	} else if f.held != nil || int(n) > mtu || !onlyTimestamps(h) {
		f.drop()
		f.ack = ack
		return nil, false
	} else if f.quick > 0 {
		f.quick--
		f.ack = ack
		return nil, false
	}
	f.greeted, f.ack, f.held, f.due = true, ack, p.IncRef(), a.tick+delay
	if !f.listed {
		f.listed = true
		a.waiting = append(a.waiting, f)
	}
	if !a.ticking {
		a.ticking = true
		a.timer.Reset(ackTick)
	}
	return nil, true
}

// expired counts a tick and returns what has waited long enough; all of it, if all
// is set. The caller owns them.
func (a *acks) expired(all bool) (out []*stack.PacketBuffer) {
	a.tick++
	rest := a.waiting[:0]
	for _, f := range a.waiting {
		switch {
		case f.held == nil:
			f.listed = false
		case all || int32(a.tick-f.due) >= 0:
			out = append(out, f.take())
			f.listed = false
			f.quick = ackQuick
		default:
			rest = append(rest, f)
		}
	}
	clear(a.waiting[len(rest):])
	a.waiting = rest
	a.ticking = len(rest) > 0 && !all
	if a.ticking {
		a.timer.Reset(ackTick)
	}
	return out
}

// onlyTimestamps tells that a segment has no option but RFC 7323's time stamps, in
// the layout that gVisor and everybody else gives them.
func onlyTimestamps(h header.TCP) bool {
	o := h.Options()
	return len(o) == 0 || len(o) == 12 && o[0] == header.TCPOptionNOP && o[1] == header.TCPOptionNOP && o[2] == header.TCPOptionTS
}
