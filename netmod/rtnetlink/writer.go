// SPDX-License-Identifier: Apache-2.0

// Replies: putting messages together and messages into datagrams.

package rtnetlink

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// maxDatagram is NLMSG_GOODSIZE on a machine with pages of 4 KiB: a page less
// the 320 bytes of struct skb_shared_info. A single message may be larger.
const maxDatagram = 4096 - 320

const (
	errAttrMsg = 1      // NLMSGERR_ATTR_MSG
	ackTLVs    = 0x0200 // NLM_F_ACK_TLVS
	capped     = 0x0100 // NLM_F_CAPPED
)

// A writer collects messages.
type writer struct {
	seq, pid uint32
	opts     Options
	full     [][]byte // finished datagrams
	cur      []byte   // the one that is being filled
	start    int      // where the current message begins in cur
	size     int      // bytes of all messages so far
	filtered uint16   // NLM_F_DUMP_FILTERED if the dump leaves out what was not asked for
}

func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

// flush ends the datagram: what follows goes into another.
func (w *writer) flush() {
	if len(w.cur) > 0 {
		w.full = append(w.full, w.cur)
		w.cur = nil
	}
}

// begin starts a message; end finishes it.
func (w *writer) begin(typ, flags uint16) {
	w.start = len(w.cur)
	w.u32(0) // length, set by end
	w.u16(typ)
	w.u16(flags)
	w.u32(w.seq)
	w.u32(w.pid)
}

func (w *writer) end() {
	size := len(w.cur) - w.start
	binary.NativeEndian.PutUint32(w.cur[w.start:], uint32(size))
	w.pad()
	w.size += len(w.cur) - w.start
	if w.start > 0 && len(w.cur) > maxDatagram {
		last := append([]byte(nil), w.cur[w.start:]...)
		w.cur = w.cur[:w.start:w.start]
		w.flush()
		w.cur = last
	}
}

// done ends a dump. It shares the last datagram where there is room, as in the
// kernel.
func (w *writer) done() {
	w.begin(unix.NLMSG_DONE, unix.NLM_F_MULTI|w.filtered)
	w.filtered = 0
	w.u32(0) // the dump's result
	w.end()
	w.flush()
}

// ack adds the acknowledgement of raw, or what went wrong with it (nil: nothing).
func (w *writer) ack(raw []byte, f *failure) {
	var (
		flags uint16
		errno unix.Errno
		text  string
	)
	if f != nil {
		errno = f.errno
		if w.opts.ExtAck {
			text = f.text
		}
	}
	if f == nil || w.opts.CapAck {
		flags |= capped
		raw = raw[:unix.NLMSG_HDRLEN]
	}
	if text != "" {
		flags |= ackTLVs
	}
	w.begin(unix.NLMSG_ERROR, flags)
	w.u32(uint32(-int32(errno)))
	w.bytes(raw)
	w.pad()
	if text != "" {
		w.attr(errAttrMsg, append([]byte(text), 0))
	}
	w.end()
	w.flush()
}

func (w *writer) u8(v ...uint8)  { w.cur = append(w.cur, v...) }
func (w *writer) u16(v uint16)   { w.cur = binary.NativeEndian.AppendUint16(w.cur, v) }
func (w *writer) u32(v uint32)   { w.cur = binary.NativeEndian.AppendUint32(w.cur, v) }
func (w *writer) bytes(b []byte) { w.cur = append(w.cur, b...) }
func (w *writer) zero(n int)     { w.cur = append(w.cur, make([]byte, n)...) }
func (w *writer) pad()           { w.zero(align(len(w.cur)) - len(w.cur)) }

// attr adds an attribute, rtnetlink(7).
func (w *writer) attr(typ uint16, data []byte) {
	w.u16(uint16(unix.SizeofRtAttr + len(data)))
	w.u16(typ)
	w.bytes(data)
	w.pad()
}

func (w *writer) attrU8(typ uint16, v uint8)        { w.attr(typ, []byte{v}) }
func (w *writer) attrString(typ uint16, s string)   { w.attr(typ, append([]byte(s), 0)) }
func (w *writer) attrAddr(typ uint16, a netip.Addr) { w.attr(typ, a.AsSlice()) }
func (w *writer) attrZero(typ uint16, n int)        { w.attr(typ, make([]byte, n)) }
func (w *writer) attrU32(typ uint16, v uint32) {
	w.attr(typ, binary.NativeEndian.AppendUint32(nil, v))
}
