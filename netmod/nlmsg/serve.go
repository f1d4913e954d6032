// SPDX-License-Identifier: Apache-2.0

// Requests: the messages of one, their attributes, and what is said in return.

package nlmsg

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Options are the socket options of netlink(7) that change answers. The zero
// value is that of a new socket.
type Options struct {
	ExtAck bool // NETLINK_EXT_ACK: errors say in words what they mean
	CapAck bool // NETLINK_CAP_ACK: errors do not repeat the request
	Strict bool // NETLINK_GET_STRICT_CHK: dumps honour filters in the request
}

// A Failure is an error with the words that NETLINK_EXT_ACK adds.
type Failure struct {
	Errno unix.Errno
	Text  string // may be empty
}

// Fail makes a Failure.
func Fail(errno unix.Errno, text string) *Failure { return &Failure{errno, text} }

// A Message is one message of a request.
type Message struct {
	Type  uint16
	Flags uint16 // NLM_F_*
	Seq   uint32
	Body  []byte // what follows the header
}

// dumpBit is NLM_F_DUMP; either bit of it means a dump.
const dumpBit = unix.NLM_F_DUMP

// Dump tells whether the message asks for all objects.
func (m Message) Dump() bool { return m.Flags&dumpBit != 0 }

// Serve hands each message of req, what a socket with the address port sent in
// one sendmsg(2), to answer, and returns the datagrams that the socket receives,
// in order. None is a valid result: messages that are cut off or no requests
// are ignored. dumped says that a dump was answered, which is not acknowledged
// beside its NLMSG_DONE. req is only read.
func Serve(o Options, req []byte, port uint32, answer func(m Message, w *Writer) (dumped bool, _ *Failure)) [][]byte {
	w := Writer{port: port, opts: o}
	for len(req) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(req))
		if size < unix.NLMSG_HDRLEN || size > len(req) {
			break
		}
		m := Message{
			Type:  binary.NativeEndian.Uint16(req[4:]),
			Flags: binary.NativeEndian.Uint16(req[6:]),
			Seq:   binary.NativeEndian.Uint32(req[8:]),
			Body:  req[unix.NLMSG_HDRLEN:size],
		}
		w.seq = m.Seq
		var failed *Failure
		dumped := false
		if m.Flags&unix.NLM_F_REQUEST != 0 && m.Type >= unix.NLMSG_MIN_TYPE {
			dumped, failed = answer(m, &w)
		}
		w.flush()
		if failed != nil || m.Flags&unix.NLM_F_ACK != 0 && !dumped {
			w.ack(req[:size], failed)
		}
		req = req[min(len(req), Align(size)):]
	}
	return w.full
}

// Attrs returns the attributes behind the fixed part of n bytes of a body, the
// last of each type; those that are cut off end the list.
func Attrs(body []byte, n int) map[uint16][]byte {
	if n > len(body) {
		return nil
	}
	out := make(map[uint16][]byte)
	for b := body[n:]; len(b) >= unix.SizeofRtAttr; {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			break
		}
		typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		out[typ] = b[unix.SizeofRtAttr:size]
		b = b[min(len(b), Align(size)):]
	}
	return out
}
