// SPDX-License-Identifier: Apache-2.0

// Version 3: blocks of packets of any size, handed over when they are full or
// have been open for long enough.

package tpacket

import (
	"sync/atomic"
	"time"
)

// Offsets in a block descriptor (struct tpacket_block_desc, tpacket_hdr_v1), bytes.
const (
	blockVersion = 0
	blockPrivate = 4
	blockStatus  = 8
	blockPackets = 12
	blockFirst   = 16
	blockLen     = 20
	blockSeq     = 24
	blockOpened  = 32 // seconds and nanoseconds
	blockLast    = 40
	blockHeader  = 48
)

// blockAlign is V3_ALIGNMENT.
const blockAlign = 8

// A blockWriter is the state of version 3's current block.
type blockWriter struct {
	seq     uint64
	opened  time.Time // when the block was
	packets int
	next    int // offset in the block where the next packet goes
	last    int // of the last packet
	stamp   int64
	frozen  bool // the program has not given the block back
	freezes uint32
}

// firstPacket is the offset of a block's first packet.
func (q *Request) firstPacket() int { return blockHeader + align(q.Private, blockAlign) }

// Freezes returns how often the ring was full since the last call.
func (r *Ring) Freezes() uint32 {
	n := r.blocks.freezes
	r.blocks.freezes = 0
	return n
}

// open begins the block at the head (af_packet.c:prb_open_block).
func (r *Ring) open(now time.Time) {
	w := &r.blocks
	w.seq++
	w.opened, w.packets, w.next, w.last, w.frozen = now, 0, r.firstPacket(), 0, false
	b := r.block()
	native.PutUint32(b[blockVersion:], V3)
	native.PutUint32(b[blockPrivate:], blockHeader)
	native.PutUint32(b[blockPackets:], 0)
	native.PutUint32(b[blockFirst:], uint32(w.next))
	native.PutUint64(b[blockSeq:], w.seq)
	native.PutUint32(b[blockOpened:], uint32(now.Unix()))
	native.PutUint32(b[blockOpened+4:], uint32(now.Nanosecond()))
}

func (r *Ring) block() []byte { return r.mem[r.head*r.BlockSize:][:r.BlockSize] }

// used tells whether the program has the block at the head.
func (r *Ring) used() bool {
	return atomic.LoadUint32(r.status(r.head*r.BlockSize+blockStatus)) != StatusKernel
}

// retire hands the block at the head over and begins the next one, if the program has
// given that back.
func (r *Ring) retire(why uint32, now time.Time) {
	w := &r.blocks
	b := r.block()
	native.PutUint32(b[w.last:], 0) // tp_next_offset
	native.PutUint32(b[blockPackets:], uint32(w.packets))
	native.PutUint32(b[blockLen:], uint32(w.next))
	native.PutUint32(b[blockLast:], uint32(w.stamp/1e9))
	native.PutUint32(b[blockLast+4:], uint32(w.stamp%1e9))
	atomic.StoreUint32(r.status(r.head*r.BlockSize+blockStatus), StatusUser|why)
	r.head = (r.head + 1) % r.Blocks
	if r.used() {
		w.frozen = true
		w.freezes++
		return
	}
	r.open(now)
}

// addBlock is Add for version 3.
func (r *Ring) addBlock(p *Packet, mac, net int) (ok, wake bool) {
	w := &r.blocks
	now := time.Unix(0, p.Stamp)
	if w.frozen {
		if r.used() {
			return false, false
		}
		r.open(now)
	}
	room := r.BlockSize - r.firstPacket()
	data := p.Data[:min(len(p.Data), max(room-mac-blockAlign, 0))]
	size := align(mac+len(data), blockAlign)
	if w.next+size >= r.BlockSize {
		if w.packets == 0 { // not even in a block of its own
			return false, false
		}
		r.retire(0, now)
		wake = true
		if w.frozen {
			return false, true
		}
		if w.next+size >= r.BlockSize {
			return false, true
		}
	}
	b := r.block()[w.next : w.next+size]
	clear(b[:mac])
	native.PutUint32(b[0:], uint32(size))
	native.PutUint32(b[4:], uint32(p.Stamp/1e9))
	native.PutUint32(b[8:], uint32(p.Stamp%1e9))
	native.PutUint32(b[12:], uint32(len(data)))
	native.PutUint32(b[16:], uint32(p.Len))
	native.PutUint32(b[20:], StatusUser|p.Status)
	native.PutUint16(b[24:], uint16(mac))
	native.PutUint16(b[26:], uint16(net))
	copy(b[blockHeader:], p.Name) // struct tpacket3_hdr is as long
	copy(b[mac:], data)
	w.last, w.stamp = w.next, p.Stamp
	w.next += size
	w.packets++
	return true, wake
}

// Deadline returns when Expire is to be called; false: only after another Add. The
// kernel's timer runs all the time, from when a block is opened; here it is asked for
// only when there is something to hand over.
func (r *Ring) Deadline(now time.Time) (time.Time, bool) {
	w := &r.blocks
	if r.Version != V3 || w.frozen || w.packets == 0 {
		return time.Time{}, false
	}
	periods := max(now.Sub(w.opened)/r.Retire, 0) + 1
	return w.opened.Add(periods * r.Retire), true
}

// Expire hands over a block that was open for long enough and has packets.
func (r *Ring) Expire(now time.Time) (wake bool) {
	w := &r.blocks
	if r.Version != V3 || w.frozen || w.packets == 0 {
		return false
	}
	r.retire(statusBlkTmo, now)
	return true
}
