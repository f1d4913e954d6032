// SPDX-License-Identifier: Apache-2.0

// Replies: putting messages together and messages into datagrams.

package nlmsg

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// MaxDatagram is NLMSG_GOODSIZE on a machine with pages of 4 KiB: a page less
// the 320 bytes of struct skb_shared_info. A single message may be larger.
const MaxDatagram = 4096 - 320

const (
	errAttrMsg = 1      // NLMSGERR_ATTR_MSG
	ackTLVs    = 0x0200 // NLM_F_ACK_TLVS
	capped     = 0x0100 // NLM_F_CAPPED
)

// NewWriter makes a Writer for messages that tell of the request with a sequence
// number from a port.
func NewWriter(seq, port uint32) *Writer { return &Writer{seq: seq, port: port} }

// A Writer collects messages. The zero value is one for messages that nobody
// asked for: they have neither sequence number nor port.
type Writer struct {
	// Filtered is NLM_F_DUMP_FILTERED if the dump leaves out what was not asked
	// for. Done tells it and clears it.
	Filtered uint16

	seq, port uint32
	opts      Options
	full      [][]byte // finished datagrams
	cur       []byte   // the one that is being filled
	start     int      // where the current message begins in cur
	size      int      // bytes of all messages so far
}

// Align rounds up to the alignment of messages and attributes, which is the same.
func Align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

// Size returns the bytes of all messages so far.
func (w *Writer) Size() int { return w.size }

// Datagrams ends the datagram that is being filled and returns all.
func (w *Writer) Datagrams() [][]byte {
	w.flush()
	return w.full
}

// flush ends the datagram: what follows goes into another.
func (w *Writer) flush() {
	if len(w.cur) > 0 {
		w.full = append(w.full, w.cur)
		w.cur = nil
	}
}

// Begin starts a message; End finishes it.
func (w *Writer) Begin(typ, flags uint16) {
	w.start = len(w.cur)
	w.U32(0) // length, set by end
	w.U16(typ)
	w.U16(flags)
	w.U32(w.seq)
	w.U32(w.port)
}

// End finishes the message that Begin started.
func (w *Writer) End() {
	size := len(w.cur) - w.start
	binary.NativeEndian.PutUint32(w.cur[w.start:], uint32(size))
	w.pad()
	w.size += len(w.cur) - w.start
	if w.start > 0 && len(w.cur) > MaxDatagram {
		last := append([]byte(nil), w.cur[w.start:]...)
		w.cur = w.cur[:w.start:w.start]
		w.flush()
		w.cur = last
	}
}

// Done ends a dump. It shares the last datagram where there is room, as in the
// kernel.
func (w *Writer) Done() { w.DoneWith(&Failure{}) }

// DoneWith ends a dump that failed when it had begun.
func (w *Writer) DoneWith(f *Failure) {
	flags := unix.NLM_F_MULTI | w.Filtered
	tell := f.Text != "" && w.opts.ExtAck
	if tell {
		flags |= ackTLVs
	}
	w.Begin(unix.NLMSG_DONE, flags)
	w.Filtered = 0
	w.U32(uint32(-int32(f.Errno)))
	if tell {
		w.AttrString(errAttrMsg, f.Text)
	}
	w.End()
	w.flush()
}

// ack adds the acknowledgement of raw, or what went wrong with it (nil: nothing).
func (w *Writer) ack(raw []byte, f *Failure) {
	var (
		flags uint16
		errno unix.Errno
		text  string
	)
	if f != nil {
		errno = f.Errno
		if w.opts.ExtAck {
			text = f.Text
		}
	}
	if f == nil || w.opts.CapAck {
		flags |= capped
		raw = raw[:unix.NLMSG_HDRLEN]
	}
	if text != "" {
		flags |= ackTLVs
	}
	w.Begin(unix.NLMSG_ERROR, flags)
	w.U32(uint32(-int32(errno)))
	w.Bytes(raw)
	w.pad()
	if text != "" {
		w.Attr(errAttrMsg, append([]byte(text), 0))
	}
	w.End()
	w.flush()
}

// U8, U16, U32, U64, Bytes and Zero add what their names say, in the order of
// bytes of the machine, without padding.
func (w *Writer) U8(v ...uint8)  { w.cur = append(w.cur, v...) }
func (w *Writer) U16(v uint16)   { w.cur = binary.NativeEndian.AppendUint16(w.cur, v) }
func (w *Writer) U32(v uint32)   { w.cur = binary.NativeEndian.AppendUint32(w.cur, v) }
func (w *Writer) U64(v uint64)   { w.cur = binary.NativeEndian.AppendUint64(w.cur, v) }
func (w *Writer) Bytes(b []byte) { w.cur = append(w.cur, b...) }
func (w *Writer) Zero(n int)     { w.cur = append(w.cur, make([]byte, n)...) }
func (w *Writer) pad()           { w.Zero(Align(len(w.cur)) - len(w.cur)) }

// Attr adds an attribute, rtnetlink(7); those below are of one kind of value.
func (w *Writer) Attr(typ uint16, data []byte) {
	w.U16(uint16(unix.SizeofRtAttr + len(data)))
	w.U16(typ)
	w.Bytes(data)
	w.pad()
}

// AppendAttr appends an attribute to b, for those that are nested in another.
func AppendAttr(b []byte, typ uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(data)))
	b = append(binary.NativeEndian.AppendUint16(b, typ), data...)
	return append(b, make([]byte, Align(len(data))-len(data))...)
}

// AttrU8 adds a byte.
func (w *Writer) AttrU8(typ uint16, v uint8) { w.Attr(typ, []byte{v}) }

// AttrU32 adds a number.
func (w *Writer) AttrU32(typ uint16, v uint32) {
	w.Attr(typ, binary.NativeEndian.AppendUint32(nil, v))
}

// AttrString adds a string with its final zero.
func (w *Writer) AttrString(typ uint16, s string) { w.Attr(typ, append([]byte(s), 0)) }

// AttrAddr adds an address of 4 or 16 bytes.
func (w *Writer) AttrAddr(typ uint16, a netip.Addr) { w.Attr(typ, a.AsSlice()) }

// AttrZero adds n bytes that are zero.
func (w *Writer) AttrZero(typ uint16, n int) { w.Attr(typ, make([]byte, n)) }
