// SPDX-License-Identifier: Apache-2.0

// What is said between a stack and its helper: one message each way, over an AF_UNIX
// socket that keeps them apart; descriptors come before the reply, in one of their own.

package kernel

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// An op is what is asked for.
type op uint32

const (
	opSockets op = iota + 1 // n sockets of family a, type b, protocol c
	opTUN                   // a device with the flags a and the name text
	opWrite                 // a file: its name, a NUL, what goes in
)

// batchMax is the most sockets that one reply brings; the kernel passes 253 at once
// (net/scm.h:SCM_MAX_FD).
const batchMax = 250

// A request is asked of the helper.
type request struct {
	op      op
	n       uint32
	a, b, c int32
	text    string
}

const (
	requestLen = 20
	requestMax = 4096
)

func (q *request) encode() []byte {
	b := make([]byte, requestLen, requestLen+len(q.text))
	binary.NativeEndian.PutUint32(b, uint32(q.op))
	binary.NativeEndian.PutUint32(b[4:], q.n)
	binary.NativeEndian.PutUint32(b[8:], uint32(q.a))
	binary.NativeEndian.PutUint32(b[12:], uint32(q.b))
	binary.NativeEndian.PutUint32(b[16:], uint32(q.c))
	return append(b, q.text...)
}

func (q *request) decode(b []byte) bool {
	if len(b) < requestLen {
		return false
	}
	q.op = op(binary.NativeEndian.Uint32(b))
	q.n = binary.NativeEndian.Uint32(b[4:])
	q.a = int32(binary.NativeEndian.Uint32(b[8:]))
	q.b = int32(binary.NativeEndian.Uint32(b[12:]))
	q.c = int32(binary.NativeEndian.Uint32(b[16:]))
	q.text = string(b[requestLen:])
	return true
}

// A reply is what the helper says. The first one comes unasked, when it is where it
// shall be; its value is the inode of the namespace.
type reply struct {
	errno unix.Errno
	value uint64
	step  string // that failed
}

const (
	replyLen = 12
	replyMax = replyLen + 256
)

// failed is the reply that a step did not succeed.
func failed(step string, err error) reply { return reply{errno: errno(err), step: step} }

func (r *reply) encode() []byte {
	b := make([]byte, replyLen, replyLen+len(r.step))
	binary.NativeEndian.PutUint32(b, uint32(r.errno))
	binary.NativeEndian.PutUint64(b[4:], r.value)
	return append(b, r.step[:min(len(r.step), replyMax-replyLen)]...)
}

func (r *reply) decode(b []byte) bool {
	if len(b) < replyLen {
		return false
	}
	r.errno = unix.Errno(binary.NativeEndian.Uint32(b))
	r.value = binary.NativeEndian.Uint64(b[4:])
	r.step = string(b[replyLen:])
	return true
}
