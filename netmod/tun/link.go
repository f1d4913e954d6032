// SPDX-License-Identifier: Apache-2.0

// A device as the link of a stack: what is in front of packets, and how they are cut.

package tun

import (
	"encoding/binary"
	"net"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/offload"
)

const (
	batchSize = 32
	maxHdr    = 256 // of a virtio_net_hdr that a program may ask for, bytes
	piLen     = 4   // struct tun_pi: flags, EtherType
	etherLen  = 14
)

var (
	_ stacks.Link     = (*device)(nil)
	_ stacks.Offloads = (*device)(nil)
)

// Type returns the type: Ethernet of a TAP, IP of a TUN.
func (d *device) Type() stacks.LinkType { return d.typ }

// MTU is the largest that the interface may have, bytes.
func (d *device) MTU() int { return maxMTU }

// BatchSize returns the most packets that one Read fills.
func (d *device) BatchSize() int { return batchSize }

// Offloads reports that each packet has a virtio_net_hdr.
func (d *device) Offloads() bool { return true }

// A framing is what a program's packets have in front.
type framing struct {
	hdr int  // bytes of a virtio_net_hdr; 0: none
	pi  bool // struct tun_pi

	offloads uint32 // TUN_F_*: what it takes unfinished
}

// current returns the device's file and how it frames packets; nil if there is none.
func (d *device) current() (*file, framing) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := framing{pi: d.flags&unix.IFF_NO_PI == 0}
	if d.flags&unix.IFF_VNET_HDR != 0 {
		f.hdr, f.offloads = d.hdrLen, d.offloads
	}
	return d.file, f
}

// awaitFile waits for a persistent device to get one; nil when it is closed.
func (d *device) awaitFile() *file {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.file == nil && !d.closed {
		d.attached.Wait()
	}
	if d.closed {
		return nil
	}
	return d.file
}

// Read waits for a packet that the program writes, and takes those that are there.
func (d *device) Read(bufs [][]byte, sizes []int) (int, error) {
	if d.in == nil {
		d.in = make([]byte, piLen+maxHdr+stacks.MaxPacket)
	}
	for {
		f := d.awaitFile()
		if f == nil {
			return 0, net.ErrClosed
		}
		n, over := d.readFrom(f, bufs, sizes)
		if over {
			d.m.lost(d, f)
		}
		if n > 0 {
			return n, nil
		}
	}
}

// readFrom reads what f has; over says that it has ended.
func (d *device) readFrom(f *file, bufs [][]byte, sizes []int) (n int, over bool) {
	err := f.raw.Read(func(fd uintptr) bool {
		for n < len(bufs) {
			size, err := f.tryRead(int(fd), d.in)
			switch {
			case err == unix.EAGAIN:
				return n > 0
			case err != nil:
				over = true
				return true
			}
			_, frame := d.current()
			if size = frame.open(bufs[n], d.in[:size], d.typ); size > 0 {
				sizes[n] = size
				n++
			}
		}
		return true
	})
	return n, over || err != nil
}

// open puts a packet that the program has written into b as the link carries it, and
// returns its length; 0 for what is none.
func (f framing) open(b, packet []byte, typ stacks.LinkType) int {
	if f.pi {
		if len(packet) < piLen {
			return 0
		}
		packet = packet[piLen:] // of a TUN, too, the version tells what it is
	}
	var h offload.Hdr
	if f.hdr > 0 {
		if len(packet) < f.hdr || h.Decode(packet) != nil {
			return 0
		}
		packet = packet[f.hdr:]
		if h.GSOType == offload.GSOUDPL4 {
			return 0 // it was not offered
		}
	}
	least := 1
	if typ == stacks.LinkEthernet {
		least = etherLen
	}
	if len(packet) < least || len(b) < offload.HdrLen+len(packet) {
		return 0
	}
	if v := packet[0] >> 4; typ == stacks.LinkIP && v != 4 && v != 6 {
		return 0
	}
	h.Encode(b)
	return offload.HdrLen + copy(b[offload.HdrLen:], packet)
}

// A cutter makes of the stack's packets those that a program reads.
type cutter struct {
	split  offload.Splitter
	bufs   [][]byte // room
	pieces [][]byte
}

// piece returns room for one of at most n bytes.
func (c *cutter) piece(n int) []byte {
	if len(c.pieces) == len(c.bufs) {
		c.bufs = append(c.bufs, nil)
	}
	i := len(c.pieces)
	if cap(c.bufs[i]) < n {
		c.bufs[i] = make([]byte, n)
	}
	return c.bufs[i][:n]
}

// Write gives packets to the program. Without one that has the device open they are
// lost, as those of an interface without carrier.
func (d *device) Write(bufs [][]byte) (int, error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	f, frame := d.current()
	if f == nil {
		return len(bufs), nil
	}
	d.out.pieces = d.out.pieces[:0]
	for _, b := range bufs {
		d.out.add(b, frame, d.typ)
	}
	if _, err := f.write(d.out.pieces); err != nil && d.over() {
		return 0, net.ErrClosed
	}
	return len(bufs), nil // without the program they are lost; the reader hears of it
}

func (d *device) over() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// add adds what is to be read of one packet of the stack's.
func (c *cutter) add(b []byte, f framing, typ stacks.LinkType) {
	var h offload.Hdr
	if h.Decode(b) != nil {
		return
	}
	packet := b[offload.HdrLen:]
	if f.whole(h) {
		c.put(h, packet, f, typ)
		return
	}
	reset := c.split.Reset
	if typ == stacks.LinkEthernet {
		reset = c.split.ResetFrame
	}
	if reset(h, packet) != nil {
		return // nothing that the stack sends
	}
	front := f.front()
	for c.split.More() {
		room := c.piece(front + len(packet))
		n, err := c.split.Next(room[front:])
		if err != nil {
			return
		}
		f.head(room, offload.Hdr{}, room[front:front+n], typ)
		c.pieces = append(c.pieces, room[:front+n])
	}
}

// whole tells whether a program takes a packet as it is.
func (f framing) whole(h offload.Hdr) bool {
	need := uint32(0)
	if h.Flags&offload.NeedsCsum != 0 {
		need |= unix.TUN_F_CSUM
	}
	switch h.GSOType {
	case offload.GSONone:
	case offload.GSOTCPv4:
		need |= unix.TUN_F_TSO4
	case offload.GSOTCPv6:
		need |= unix.TUN_F_TSO6
	default:
		return false
	}
	return f.offloads&need == need
}

// put adds a packet as it is.
func (c *cutter) put(h offload.Hdr, packet []byte, f framing, typ stacks.LinkType) {
	front := f.front()
	room := c.piece(front + len(packet))
	f.head(room, h, packet, typ)
	copy(room[front:], packet)
	c.pieces = append(c.pieces, room)
}

// front is how much stands before a packet, bytes.
func (f framing) front() int {
	if f.pi {
		return piLen + f.hdr
	}
	return f.hdr
}

// head writes that.
func (f framing) head(b []byte, h offload.Hdr, packet []byte, typ stacks.LinkType) {
	if f.pi {
		binary.NativeEndian.PutUint16(b, 0)
		binary.BigEndian.PutUint16(b[2:], protocol(packet, typ))
		b = b[piLen:]
	}
	if f.hdr > 0 {
		clear(b[:f.hdr])
		h.Encode(b)
	}
}

// protocol is the EtherType of a packet.
func protocol(p []byte, typ stacks.LinkType) uint16 {
	switch {
	case typ == stacks.LinkEthernet && len(p) >= etherLen:
		return binary.BigEndian.Uint16(p[etherLen-2:])
	case typ == stacks.LinkIP && len(p) > 0 && p[0]>>4 == 4:
		return unix.ETH_P_IP
	case typ == stacks.LinkIP && len(p) > 0 && p[0]>>4 == 6:
		return unix.ETH_P_IPV6
	}
	return 0
}

// Close ends the link, and the file: the program reads an end.
func (d *device) Close() error {
	d.mu.Lock()
	d.closed = true
	f := d.file
	d.attached.Broadcast()
	d.mu.Unlock()
	if f != nil {
		f.close()
	}
	return nil
}
