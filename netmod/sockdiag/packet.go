// SPDX-License-Identifier: Apache-2.0

// Packet sockets: net/packet/diag.c.

package sockdiag

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
)

// Layouts and numbers of linux/packet_diag.h.
const (
	packetReqLen = 20 // struct packet_diag_req

	packetShowInfo   = 0x01 // PACKET_SHOW_INFO
	packetShowMemory = 0x10 // PACKET_SHOW_MEMINFO

	packetInfo   = 0 // PACKET_DIAG_INFO
	packetUID    = 5 // PACKET_DIAG_UID
	packetMemory = 6 // PACKET_DIAG_MEMINFO

	packetRunning = 1 // PDI_RUNNING
)

// A Packet is one packet socket.
type Packet struct {
	Type     int    // SOCK_RAW or SOCK_DGRAM
	Protocol uint16 // EtherType; 0: it receives nothing
	IfIndex  int    // 0: all
	Cookie   uint64
	Inode    uint32
	UID      uint32

	RecvQ, RcvBuf, SndBuf int // bytes
}

// dumpPackets answers struct packet_diag_req. Rings, filters and memberships are not
// told.
func dumpPackets(req []byte, list []Packet, w *nlmsg.Writer) {
	show := binary.NativeEndian.Uint32(req[8:])
	for _, s := range list {
		w.Begin(byFamily, unix.NLM_F_MULTI)
		w.U8(unix.AF_PACKET, uint8(s.Type))
		w.U16(s.Protocol)
		w.U32(s.Inode)
		w.U64(s.Cookie)
		if show&packetShowInfo != 0 {
			flags := uint32(0)
			if s.Protocol != 0 {
				flags = packetRunning
			}
			// The version of the ring, its reserve, the threshold of copies and the
			// clock of time stamps are as at first.
			b := binary.NativeEndian.AppendUint32(nil, uint32(s.IfIndex))
			b = append(b, make([]byte, 16)...)
			w.Attr(packetInfo, binary.NativeEndian.AppendUint32(b, flags))
			w.AttrU32(packetUID, s.UID)
		}
		if show&packetShowMemory != 0 {
			w.Attr(packetMemory, memory(s.RecvQ, s.RcvBuf, 0, s.SndBuf))
		}
		w.End()
	}
	w.Done()
}
