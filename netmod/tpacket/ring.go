// SPDX-License-Identifier: Apache-2.0

// Rings: what a program may ask for, and the frames of versions 1 and 2.

package tpacket

import (
	"encoding/binary"
	"math"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

var native = binary.NativeEndian

// Versions of rings (linux/if_packet.h: TPACKET_V1 and so on).
const (
	V1 = iota
	V2
	V3
)

// Bits of a status word (linux/if_packet.h).
const (
	StatusKernel       = 0
	StatusUser         = 1 << 0
	StatusLosing       = 1 << 2
	StatusCsumNotReady = 1 << 3
	statusBlkTmo       = 1 << 5
	StatusCsumValid    = 1 << 7
	StatusGSOTCP       = 1 << 8
)

// maxRing bounds the memory of a ring, bytes. The kernel has no such bound, but who
// asks it is root.
const maxRing = 1 << 30

// alignment of headers and frames (TPACKET_ALIGNMENT).
const alignment = 16

func align(n, to int) int { return (n + to - 1) &^ (to - 1) }

// HeaderLen is the size of a version's frame header (PACKET_HDRLEN), bytes. EINVAL
// for a version that does not exist.
func HeaderLen(version int) (int, error) {
	switch version {
	case V1, V2:
		return 32, nil
	case V3:
		return 48, nil
	}
	return 0, unix.EINVAL
}

// A Request is a struct tpacket_req or tpacket_req3, decoded.
type Request struct {
	Version   int // V1, V2 or V3
	Reserve   int // PACKET_RESERVE, bytes
	BlockSize int // bytes
	Blocks    int
	FrameSize int           // bytes
	Private   int           // bytes at the start of a block that are the program's; V3
	Retire    time.Duration // a block is given up after; V3
}

// defaultRetire is DEFAULT_PRB_RETIRE_TOV.
const defaultRetire = 8 * time.Millisecond

// Decode reads and checks a request, in the order of packet_set_ring. Blocks is 0 in
// one that frees the ring. EINVAL for what the kernel refuses, ENOMEM for a ring that
// is too large.
func Decode(version, reserve int, b []byte) (Request, error) {
	want := 16
	if version == V3 {
		want = 28
	}
	if len(b) < want {
		return Request{}, unix.EINVAL
	}
	word := func(i int) int { return int(native.Uint32(b[4*i:])) }
	q := Request{Version: version, Reserve: reserve, BlockSize: word(0), Blocks: word(1), FrameSize: word(2)}
	frames := word(3)
	if version == V3 {
		q.Retire, q.Private = time.Duration(word(4))*time.Millisecond, word(5)
		if q.Retire == 0 {
			q.Retire = defaultRetire
		}
	}
	if q.Blocks == 0 {
		if frames != 0 {
			return Request{}, unix.EINVAL
		}
		return q, nil
	}
	least := q.headroom() + reserve
	switch {
	case q.BlockSize == 0 || q.BlockSize > math.MaxInt32 || q.BlockSize%os.Getpagesize() != 0,
		version == V3 && q.BlockSize < q.firstPacket()+least,
		q.FrameSize < least || q.FrameSize%alignment != 0,
		q.FrameSize > q.BlockSize,
		q.BlockSize/q.FrameSize*q.Blocks != frames:
		return Request{}, unix.EINVAL
	case q.Size() > maxRing:
		return Request{}, unix.ENOMEM
	}
	return q, nil
}

// Size is how much memory the ring takes, bytes.
func (q *Request) Size() int { return q.BlockSize * q.Blocks }

// headroom is TPACKET_HDRLEN and its like: a frame's header with its address.
func (q *Request) headroom() int {
	n, _ := HeaderLen(q.Version)
	return align(n, alignment) + unix.SizeofSockaddrLinklayer
}

// A Packet is what is put into a ring.
type Packet struct {
	Data   []byte // as far as it is kept
	Len    int    // of all of it, bytes
	Link   int    // length of the link header that Data begins with
	Cooked bool   // the socket is SOCK_DGRAM: Data has no link header
	Name   []byte // struct sockaddr_ll
	Stamp  int64  // ns since the epoch
	Status uint32 // besides StatusUser
}

// A Ring is the writer's side of a ring.
type Ring struct {
	Request
	mem    []byte // shared with the program
	frames int    // in a block
	head   int    // frame (V1, V2) or block (V3) that is written next
	blocks blockWriter
}

// New makes a ring in mem, which is zero and Size bytes long, and stays valid for
// as long as the Ring is used. now begins the first block.
func New(q Request, mem []byte, now time.Time) *Ring {
	r := &Ring{Request: q, mem: mem, frames: q.BlockSize / q.FrameSize}
	if q.Version == V3 {
		r.open(now)
	}
	return r
}

// status is the status word at an offset. Version 1 has an unsigned long, whose
// low half this is on a little-endian machine; the other half stays zero.
func (r *Ring) status(at int) *uint32 { return (*uint32)(unsafe.Pointer(&r.mem[at])) }

// frameAt is the offset of a frame; frames do not cross blocks.
func (r *Ring) frameAt(i int) int { return i/r.frames*r.BlockSize + i%r.frames*r.FrameSize }

// offsets are where the link header and the network header of p are put in a frame
// (af_packet.c:tpacket_rcv).
func (r *Ring) offsets(p *Packet) (mac, net int) {
	if p.Cooked {
		net = align(r.headroom(), alignment) + 16 + r.Reserve
		return net, net
	}
	net = align(r.headroom()+max(p.Link, 16), alignment) + r.Reserve
	return net - p.Link, net
}

// Add puts a packet into the ring. ok: there was room; wake: the program has
// something to read that it had not before.
func (r *Ring) Add(p *Packet) (ok, wake bool) {
	mac, net := r.offsets(p)
	if net > math.MaxUint16 {
		return false, false
	}
	if r.Version == V3 {
		return r.addBlock(p, mac, net)
	}
	at := r.frameAt(r.head)
	if atomic.LoadUint32(r.status(at)) != StatusKernel {
		return false, false
	}
	data := p.Data[:min(len(p.Data), max(r.FrameSize-mac, 0))]
	b := r.mem[at : at+r.FrameSize]
	if len(data) > 0 {
		copy(b[mac:], data)
	}
	sec, frac := uint32(p.Stamp/1e9), uint32(p.Stamp%1e9)
	h := b[8:] // V1: behind the unsigned long
	if r.Version == V2 {
		h = b[4:]
	} else {
		frac /= 1000
	}
	native.PutUint32(h[0:], uint32(p.Len))
	native.PutUint32(h[4:], uint32(len(data)))
	native.PutUint16(h[8:], uint16(mac))
	native.PutUint16(h[10:], uint16(net))
	native.PutUint32(h[12:], sec)
	native.PutUint32(h[16:], frac)
	if r.Version == V2 {
		clear(b[24:32]) // no VLAN tag
	}
	copy(b[r.headroom()-unix.SizeofSockaddrLinklayer:], p.Name)
	atomic.StoreUint32(r.status(at), StatusUser|p.Status)
	r.head = (r.head + 1) % (r.frames * r.Blocks)
	return true, true
}

// Pending tells whether poll(2) says that the ring can be read: what was handed over
// last has not been given back (af_packet.c:packet_poll).
func (r *Ring) Pending() bool {
	at := 0
	if r.Version == V3 {
		at = (r.head+r.Blocks-1)%r.Blocks*r.BlockSize + blockStatus
	} else {
		n := r.frames * r.Blocks
		at = r.frameAt((r.head + n - 1) % n)
	}
	return atomic.LoadUint32(r.status(at)) != StatusKernel
}
