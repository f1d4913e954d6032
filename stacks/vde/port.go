// SPDX-License-Identifier: Apache-2.0

// The ports of a node, and what goes from one to another.

package vde

import (
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/offload"
	"umrun/stacks/pipe"
)

// offloadToken ends the description of a plug that can exchange super-segments, each
// frame behind a virtio_net_hdr, and stands behind the path in the answer of a node
// that will. Others ignore both: the description is text, and a path ends at its zero.
const offloadToken = " umrun-offload=1"

// A port is one plug of a node, or our own.
type port struct {
	name    string
	descr   string
	path    string // of its data socket, if it has been bound
	offload bool   // frames have a virtio_net_hdr; see offloadToken

	local *pipe.End // our own; else nil
	ctl   *net.UnixConn
	data  atomic.Pointer[sock]
	ready atomic.Bool // frames may be sent to it
	ended atomic.Bool
	stuck atomic.Bool // it has let patience run out and taken nothing since
	drops atomic.Uint64
}

// setData gives p its socket; false, and s is closed, if p has ended meanwhile.
func (p *port) setData(s *sock) bool {
	p.data.Store(s)
	if p.ended.Load() {
		s.close()
		return false
	}
	return true
}

// close ends a port; its goroutines see that. Twice is fine.
func (p *port) close() {
	if p.ended.Swap(true) {
		return
	}
	p.ready.Store(false)
	if p.local != nil {
		p.local.Close()
		return
	}
	p.ctl.Close()
	if s := p.data.Load(); s != nil {
		s.close()
	}
}

// patience is how long a full plug holds up the sender of frames for it: enough for a
// reader that is about to run, which slows down the sender's TCP instead of losing its
// segments. It must end, since a plug that waits for us to take its frames (vde_plug
// does) may not read meanwhile.
const patience = 5 * time.Millisecond

// write sends frames of p's own shape.
func (p *port) write(b *batch, frames [][]byte) {
	if p.local != nil {
		p.local.Write(frames) // waits for the stack, which always reads
		return
	}
	s := p.data.Load()
	n, err := s.writeFrames(b, frames, false)
	if n > 0 {
		p.stuck.Store(false)
	}
	if err == unix.EAGAIN && !p.stuck.Load() {
		s.f.SetWriteDeadline(time.Now().Add(patience))
		m, _ := s.writeFrames(b, frames[n:], true)
		if n += m; m == 0 {
			p.stuck.Store(true) // once: the others have to go on
		}
	}
	if n < len(frames) {
		p.drops.Add(uint64(len(frames) - n))
	}
}

// A forwarder forwards what one port sends. It belongs to one goroutine at a time.
type forwarder struct {
	n    *node
	from *port

	in    batch    // of the port's reader
	bufs  [][]byte // what it reads into
	views [][]byte
	sizes []int

	out  batch
	to   *port    // of frames in pend
	pend [][]byte // waits for a frame to another port
	cut  *cutter  // super-segments into frames; made when needed
	glue *gluer   // frames into super-segments
}

func newForwarder(n *node, from *port) *forwarder {
	return &forwarder{n: n, from: from, pend: make([][]byte, 0, batchSize)}
}

// room returns buffers for the port's frames.
func (f *forwarder) room() ([][]byte, []int) {
	if f.bufs == nil {
		size := etherLen + tagLen + f.n.mtu
		if f.from.offload {
			size = stacks.MaxPacket
		}
		f.bufs, f.views, f.sizes = make([][]byte, batchSize), make([][]byte, batchSize), make([]int, batchSize)
		for i := range f.bufs {
			f.bufs[i] = make([]byte, size)
		}
	}
	copy(f.views, f.bufs)
	return f.views, f.sizes
}

// forward sends frames where they belong, in their order.
func (f *forwarder) forward(frames [][]byte) {
	now := time.Now()
	for _, b := range frames {
		e := b
		if f.from.offload {
			if len(b) < offload.HdrLen {
				continue
			}
			e = b[offload.HdrLen:]
		}
		if len(e) < etherLen {
			continue
		}
		var to *port
		switch f.n.kind {
		case switching:
			vlan := vlanOf(e)
			f.n.table.learn(srcOf(e)|vlan, f.from, now)
			to = f.n.table.find(dstOf(e)|vlan, now)
			if to == f.from {
				continue // who sent it is on the same wire
			}
		case starring:
			if f.from != f.n.own {
				to = f.n.own
			}
		}
		if to == nil || to != f.to || len(f.pend) == batchSize {
			f.flush()
		}
		f.to = to
		f.pend = append(f.pend, b)
	}
	f.flush()
}

// flush sends what is pending: to one port, or to all but its sender.
func (f *forwarder) flush() {
	if len(f.pend) == 0 {
		return
	}
	if f.to != nil {
		f.deliver(f.to)
	} else {
		for _, p := range f.n.all() {
			if p != f.from {
				f.deliver(p)
			}
		}
	}
	clear(f.pend)
	f.pend, f.to = f.pend[:0], nil
}

// deliver sends what is pending to p, in the shape that p takes.
func (f *forwarder) deliver(p *port) {
	switch {
	case !p.ready.Load(): // its shape is not agreed yet
	case p.offload == f.from.offload:
		p.write(&f.out, f.pend)
	case f.from.offload:
		if f.cut == nil {
			f.cut = newCutter(f.n.mtu)
		}
		for _, b := range f.pend {
			f.cut.add(b, func(frames [][]byte) error { p.write(&f.out, frames); return nil })
		}
		f.cut.flush(func(frames [][]byte) error { p.write(&f.out, frames); return nil })
	default:
		if f.glue == nil {
			f.glue = newGluer()
		}
		p.write(&f.out, f.glue.whole(f.pend))
	}
}
