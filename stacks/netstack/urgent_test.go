// SPDX-License-Identifier: Apache-2.0

// Urgent pointers in packets.

package netstack

import (
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

var urgentHere, urgentThere = tcpip.AddrFrom4([4]byte{10, 0, 0, 1}), tcpip.AddrFrom4([4]byte{10, 0, 0, 2})

// urgentPacket makes an IPv4 packet with TCP and data.
func urgentPacket(src, dst tcpip.Address, f header.TCPFields, data string) []byte {
	f.DataOffset, f.WindowSize = header.TCPMinimumSize, 1000
	b := make([]byte, header.IPv4MinimumSize+header.TCPMinimumSize, 100)
	b = append(b, data...)
	header.IPv4(b).Encode(&header.IPv4Fields{TotalLength: uint16(len(b)), TTL: 64, Protocol: uint8(header.TCPProtocolNumber), SrcAddr: src, DstAddr: dst})
	t := header.TCP(b[header.IPv4MinimumSize:])
	t.Encode(&f)
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, src, dst, uint16(len(t)))
	t.SetChecksum(^t.CalculateChecksum(checksum.Checksum([]byte(data), sum)))
	return b
}

func urgentValid(b []byte) bool {
	ip, t := header.IPv4(b), header.TCP(b[header.IPv4MinimumSize:])
	data := t.Payload()
	return t.IsChecksumValid(ip.SourceAddress(), ip.DestinationAddress(), checksum.Checksum(data, 0), uint16(len(data)))
}

// TestUrgentLeaving: the pointer is in every segment that is before the urgent byte
// or has it, and the checksum stays right.
func TestUrgentLeaving(t *testing.T) {
	u := &urgents{queues: &sendQueues{}}
	f := header.TCPFields{SrcPort: 1000, DstPort: 80, SeqNum: 0xfffffff0, Flags: header.TCPFlagSyn}
	u.leaving(urgentPacket(urgentHere, urgentThere, f, ""), false)
	id := tcp.TCPEndpointID{LocalPort: 1000, LocalAddress: urgentHere, RemotePort: 80, RemoteAddress: urgentThere}
	first := u.first[id]
	if !first.sndKnown || first.snd != 0xfffffff1 {
		t.Fatalf("first sequence number %+v", first)
	}
	u.used.Store(true)
	u.out.Store(id, first.snd+20) // behind the wrap
	for _, tt := range []struct {
		seq  uint32
		want uint16 // 0: no pointer
	}{
		{first.snd, 21}, {first.snd + 20, 1}, {first.snd + 21, 0}, {first.snd - 65514, 65535}, {first.snd - 65515, 0},
	} {
		for _, partial := range []bool{false, true} {
			f.SeqNum, f.Flags = tt.seq, header.TCPFlagAck|header.TCPFlagPsh
			b := urgentPacket(urgentHere, urgentThere, f, "some data")
			before := header.TCP(b[header.IPv4MinimumSize:]).Checksum()
			u.leaving(b, partial)
			h := header.TCP(b[header.IPv4MinimumSize:])
			if got := h.UrgentPointer(); got != tt.want || h.Flags()&header.TCPFlagUrg != 0 != (tt.want != 0) {
				t.Errorf("seq %#x: pointer %d, want %d, flags %v", tt.seq, got, tt.want, h.Flags())
			}
			if partial && h.Checksum() != before {
				t.Errorf("seq %#x: a partial checksum was changed", tt.seq)
			}
			if !partial && !urgentValid(b) {
				t.Errorf("seq %#x: bad checksum", tt.seq)
			}
		}
	}
}

// TestUrgentArriving: a pointer is taken from segments that the connection may have,
// and not from others.
func TestUrgentArriving(t *testing.T) {
	u := &urgents{queues: &sendQueues{}}
	f := header.TCPFields{SrcPort: 80, DstPort: 1000, SeqNum: 5000, Flags: header.TCPFlagSyn | header.TCPFlagAck}
	u.arriving(urgentPacket(urgentThere, urgentHere, f, ""))
	id := tcp.TCPEndpointID{LocalPort: 1000, LocalAddress: urgentHere, RemotePort: 80, RemoteAddress: urgentThere}
	q := &sendQueue{id: id}
	u.queues.m.Store(id, q)
	var st tcp.TCPEndpointState
	st.Receiver.RcvNxt, st.Receiver.RcvAcc = 5001, 5001+1000
	q.peek.store(&st)

	f.SeqNum = 9 // of another connection, or forged
	u.arriving(urgentPacket(urgentThere, urgentHere, f, ""))
	f.Flags, f.UrgentPointer = header.TCPFlagAck|header.TCPFlagUrg, 3
	for _, seq := range []uint32{5001 + 1001, 5001 - 1001, 1 << 31} {
		f.SeqNum = seq
		u.arriving(urgentPacket(urgentThere, urgentHere, f, "abc"))
		if v, ok := u.in.Load(id); ok {
			t.Errorf("seq %d: place %v", seq, v)
		}
	}
	f.SeqNum = 5011
	u.arriving(urgentPacket(urgentThere, urgentHere, f, "abc"))
	if v, _ := u.in.Load(id); v != uint32(12) {
		t.Errorf("place %v, want 12", v)
	}
}
