// SPDX-License-Identifier: Apache-2.0

// Urgent data, which gVisor does not know: where it is in a stream is kept beside
// the stack, and the urgent pointer is put into segments and taken from them where
// they pass the link.

package netstack

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"umrun/stacks"
	"umrun/stacks/netstack/tcpseg"
)

// urgents is what a stack knows of urgent data. Places in a stream are counted in
// bytes from its beginning, modulo 2^32, as sequence numbers are, which differ from
// them by a number that both sides tell in their SYN.
type urgents struct {
	// used is set with the first place that is noted. Until then no segment and
	// no receive is looked at, but for its SYN.
	used atomic.Bool

	in  sync.Map // tcp.TCPEndpointID -> uint32: the place of the urgent byte
	out sync.Map // tcp.TCPEndpointID -> uint32: its sequence number

	queues *sendQueues // the stack's

	mu    sync.Mutex
	first map[tcp.TCPEndpointID]firsts // +checklocks:mu
}

// firsts are the sequence numbers of the first byte in both directions.
type firsts struct {
	snd, rcv           uint32
	sndKnown, rcvKnown bool
}

// firstsMax bounds the connections whose first numbers are kept. Most entries go with
// their connection; those of handshakes that come to nothing do not, so that all are
// dropped where there are too many. What a program then marks is ordinary data.
const firstsMax = 1 << 14

var _ stacks.Urgent = (*stream)(nil)

// MarkUrgent marks a byte that is not sent yet; see [stacks.Urgent].
func (s *stream) MarkUrgent(ahead int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.counted
	if q == nil {
		return false
	}
	u, place := &s.st.urgent, uint32(q.sent.Load())+uint32(ahead)
	if s.st.owns(q.id.RemoteAddress) {
		u.used.Store(true)
		u.in.Store(swap(q.id), place)
		return true
	}
	u.mu.Lock()
	f := u.first[q.id]
	u.mu.Unlock()
	if !f.sndKnown {
		return false
	}
	u.used.Store(true)
	u.out.Store(q.id, f.snd+place)
	return true
}

// Urgent tells where the urgent byte is; see [stacks.Urgent].
func (s *stream) Urgent() (ahead int, ok bool) {
	u := &s.st.urgent
	if !u.used.Load() {
		return 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.counted == nil {
		return 0, false
	}
	ahead, ok = u.ahead(s.counted, 0)
	s.told = ok && ahead == 0
	return ahead, ok
}

// ahead returns how many bytes are before the urgent one, when done more have been
// received than were counted.
func (u *urgents) ahead(q *sendQueue, done int) (ahead int, ok bool) {
	if !u.used.Load() {
		return 0, false
	}
	v, ok := u.in.Load(q.id)
	if !ok {
		return 0, false
	}
	ahead = int(int32(v.(uint32) - uint32(q.taken.Load()) - uint32(done)))
	if ahead < 0 { // it was received
		u.in.CompareAndDelete(q.id, v)
		return 0, false
	}
	return ahead, true
}

// bound returns how many of n bytes that are there may be received at once, when
// done have been: none goes over an urgent byte, and that one goes alone, when
// Urgent has told of it. The place is known before the byte is there.
func (l *recvWriter) bound(n, done int) int {
	if l.q == nil {
		return n
	}
	switch ahead, ok := l.u.ahead(l.q, done); {
	case l.told:
		return min(n, 1-done)
	case ok:
		return min(n, ahead)
	}
	return n
}

// owns tells whether segments to an address stay in the stack.
func (s *Stack) owns(a tcpip.Address) bool {
	return s.gv.CheckLocalAddress(0, protoOf(addrOf(unix.AF_INET, a, 0).Unmap()), a) != 0
}

// swap names a connection as its other end does.
func swap(id tcp.TCPEndpointID) tcp.TCPEndpointID {
	id.LocalAddress, id.RemoteAddress = id.RemoteAddress, id.LocalAddress
	id.LocalPort, id.RemotePort = id.RemotePort, id.LocalPort
	return id
}

// begun returns the sequence number of the stack's SYN of a connection, if it is known.
func (u *urgents) begun(id tcp.TCPEndpointID) (seq uint32, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f := u.first[id]
	return f.snd - 1, f.sndKnown
}

// forget drops what is known of a connection that is dead.
func (u *urgents) forget(id tcp.TCPEndpointID) {
	u.in.Delete(id)
	u.out.Delete(id)
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.first, id)
}

// clear drops what an earlier connection between the same ports may have left.
func (u *urgents) clear(id tcp.TCPEndpointID) {
	if u.used.Load() {
		for _, id := range []tcp.TCPEndpointID{id, swap(id)} {
			u.in.Delete(id)
			u.out.Delete(id)
		}
	}
}

// know notes the first sequence numbers of a connection.
func (u *urgents) know(id tcp.TCPEndpointID, f func(*firsts)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.first == nil || len(u.first) >= firstsMax {
		u.first = make(map[tcp.TCPEndpointID]firsts)
	}
	v := u.first[id]
	f(&v)
	u.first[id] = v
}

// leaving looks at a packet before it is given to the link, and points to urgent
// data in it or soon behind it. partial says that its checksum is not complete.
func (u *urgents) leaving(b []byte, partial bool) {
	syn := tcpseg.FlagsOf(b)&header.TCPFlagSyn != 0
	if !syn && !u.used.Load() {
		return
	}
	s, ok := tcpseg.Of(b)
	if !ok {
		return
	}
	id, seq := swap(tcp.TCPEndpointID(s.ID)), s.TCP.SequenceNumber()
	if syn {
		if s.TCP.Flags()&header.TCPFlagAck == 0 {
			u.clear(id)
		}
		u.know(id, func(f *firsts) { f.snd, f.sndKnown = seq+1, true })
		return
	}
	v, ok := u.out.Load(id)
	if !ok || s.TCP.Flags()&header.TCPFlagRst != 0 {
		return
	}
	// The pointer says what follows the urgent byte, as everybody has it
	// (RFC 6093 §2), and reaches no further than 16 bits.
	ahead := int32(v.(uint32) + 1 - seq)
	if ahead <= 0 || ahead > 0xffff {
		return
	}
	old := s.TCP.Flags()
	s.TCP.SetFlags(uint8(old | header.TCPFlagUrg))
	s.TCP.SetUrgentPointer(uint16(ahead))
	if !partial {
		// RFC 1624: the sum changes by what the two words do.
		sum := uint32(^s.TCP.Checksum()) + uint32(header.TCPFlagUrg) + uint32(ahead)
		if old&header.TCPFlagUrg != 0 {
			sum -= uint32(header.TCPFlagUrg)
		}
		sum = sum>>16 + sum&0xffff
		sum = sum>>16 + sum&0xffff
		s.TCP.SetChecksum(^uint16(sum))
	}
}

// arriving looks at a packet before gVisor gets it.
func (u *urgents) arriving(b []byte) {
	flags := tcpseg.FlagsOf(b)
	if flags&(header.TCPFlagSyn|header.TCPFlagUrg) == 0 {
		return
	}
	s, ok := tcpseg.Of(b)
	if !ok {
		return
	}
	id, seq := tcp.TCPEndpointID(s.ID), s.TCP.SequenceNumber()
	v, _ := u.queues.m.Load(id)
	q, open := v.(*sendQueue)
	if flags&header.TCPFlagSyn != 0 {
		if !open {
			u.clear(id)
		}
		u.know(id, func(f *firsts) {
			if !f.rcvKnown || !open { // what comes later is an old one, or forged
				f.rcv, f.rcvKnown = seq+1, true
			}
		})
		return
	}
	if open && !q.peek.acceptable(uint32(seq)) {
		return
	}
	u.mu.Lock()
	f := u.first[id]
	u.mu.Unlock()
	if p := binary.BigEndian.Uint16(s.TCP[header.TCPUrgentPtrOffset:]); p != 0 && f.rcvKnown {
		u.used.Store(true)
		u.in.Store(id, seq+uint32(p)-1-f.rcv)
	}
}
