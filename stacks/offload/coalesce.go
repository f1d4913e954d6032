// SPDX-License-Identifier: Apache-2.0

// Putting runs of TCP segments together again.

package offload

import (
	"bytes"
	"encoding/binary"
)

// maxRuns is how many flows a Coalescer follows at once. Media deliver bursts of
// few flows; a list this short is searched faster than a map.
const maxRuns = 8

// maxIP is the largest IP packet in bytes that its length field can tell.
const maxIP = 65535

// A Coalescer copies verified packets into buffers, each behind a [Hdr], and
// appends to the packet before it what continues the same TCP flow: the next
// data segment with the same acknowledgement, window, options, TTL and traffic
// class. PSH ends a run and is kept; segments with other flags, with options of
// IP, or of another size stand alone, as do packets that are not TCP. Packets of
// one flow never change their order; packets of different flows may.
//
// With Ethernet set, packets are frames, and what a Hdr says counts from the frame's
// start. Frames of another EtherType than IP's, tagged ones too, stand alone; a flow is
// also one of the same link header.
//
// The IPv4 identification of a merged packet is that of its first segment; it
// means nothing in packets that are not fragments (RFC 6864 §4.1).
type Coalescer struct {
	Ethernet bool // constant while there are runs

	bufs  [][]byte
	sizes []int
	n     int // buffers in use
	runs  [maxRuns]run
	nruns int
	evict int // which run to close next when all are open
}

// A run is a super-segment that may still grow.
type run struct {
	link   []byte // header in front of it
	packet []byte // as far as it got; the headers are the first segment's
	buf    int    // index of its buffer
	hl     int    // bytes of headers
	l4     int
	size   int    // payload bytes of each segment but the last
	next   uint32 // sequence number that continues it
	count  int    // segments
}

// Reset begins with empty buffers, of which each must hold stacks.MaxPacket
// bytes. They are the Coalescer's until [Coalescer.Flush].
func (c *Coalescer) Reset(bufs [][]byte, sizes []int) {
	c.bufs, c.sizes = bufs[:min(len(bufs), len(sizes))], sizes
	c.n, c.nruns, c.evict = 0, 0, 0
}

// Len returns how many buffers are in use.
func (c *Coalescer) Len() int { return c.n }

// Add takes a copy of a packet for which [Verify] was true. It reports false if
// there was no room left, and then took nothing.
func (c *Coalescer) Add(packet []byte) bool {
	var l layers
	var link []byte
	if c.Ethernet {
		if !IsIP(packet) {
			return c.alone(nil, packet, 0)
		}
		link, packet = packet[:etherLen], packet[etherLen:]
	}
	if !l.parse(packet) {
		return c.alone(link, packet, 0)
	}
	packet = packet[:l.end]
	if l.fragment {
		return c.alone(link, packet, 0) // Verify saw no transport checksum
	}
	if l.proto != protoTCP || !l.plain || l.end-l.l4 < tcpLen {
		return c.alone(link, packet, DataValid)
	}
	tcp := packet[l.l4:]
	hl := l.l4 + int(tcp[12]>>4)*4
	if hl > l.end {
		return c.alone(link, packet, 0)
	}
	data := packet[hl:]
	flags := tcp[13]
	mergeable := len(data) > 0 && flags&^(tcpPSH|tcpECE) == tcpACK
	// Whatever does not continue the run of its flow ends it: its buffer comes
	// before the one that this packet gets.
	if i := c.find(link, packet, &l); i >= 0 {
		if mergeable && c.runs[i].fits(packet, hl, &l) {
			c.append(i, data, flags)
			return true
		}
		if c.n == len(c.bufs) {
			return false
		}
		c.close(i)
	}
	if !c.alone(link, packet, DataValid) {
		return false
	}
	if mergeable && flags&tcpPSH == 0 {
		b := c.bufs[c.n-1][HdrLen:]
		c.open(run{
			link:   b[:len(link)],
			packet: b[len(link) : len(link)+len(packet)],
			buf:    c.n - 1,
			hl:     hl,
			l4:     l.l4,
			size:   len(data),
			next:   binary.BigEndian.Uint32(tcp[4:]) + uint32(len(data)),
			count:  1,
		})
	}
	return true
}

// Flush ends every run and returns how many buffers hold packets.
func (c *Coalescer) Flush() int {
	for c.nruns > 0 {
		c.close(c.nruns - 1)
	}
	n := c.n
	c.bufs, c.sizes, c.n = nil, nil, 0
	return n
}

// AddUnverified takes a copy of a packet for which [Verify] was false, or was not
// asked, and leaves that to the reader. It reports false as [Coalescer.Add] does.
func (c *Coalescer) AddUnverified(packet []byte) bool { return c.alone(nil, packet, 0) }

// alone puts packet, behind its link header, into a buffer of its own.
func (c *Coalescer) alone(link, packet []byte, flags uint8) bool {
	if c.n == len(c.bufs) {
		return false
	}
	b := c.bufs[c.n]
	Hdr{Flags: flags}.Encode(b)
	n := HdrLen + copy(b[HdrLen:], link)
	c.sizes[c.n] = n + copy(b[n:], packet)
	c.n++
	return true
}

// find returns the open run of packet's flow, or -1.
func (c *Coalescer) find(link, packet []byte, l *layers) int {
	for i := range c.runs[:c.nruns] {
		r := &c.runs[i]
		if r.l4 == l.l4 && // which tells IPv4 from IPv6, since both are plain
			bytes.Equal(r.packet[r.l4:r.l4+4], packet[l.l4:l.l4+4]) && // ports
			bytes.Equal(l.addrs(r.packet), l.addrs(packet)) &&
			bytes.Equal(r.link, link) {
			return i
		}
	}
	return -1
}

// fits reports whether a data segment of the same flow continues r.
func (r *run) fits(packet []byte, hl int, l *layers) bool {
	n := len(packet) - hl
	if hl != r.hl || n > r.size || len(r.packet)+n > maxIP || len(r.packet)+n > cap(r.packet) {
		return false
	}
	a, b := r.packet, packet
	if l.v6 {
		// Version, traffic class, flow label; hop limit.
		if !bytes.Equal(a[:4], b[:4]) || a[7] != b[7] {
			return false
		}
	} else if a[1] != b[1] || a[6]&0x40 != b[6]&0x40 || a[8] != b[8] {
		// Traffic class with its ECN bits, DF, TTL.
		return false
	}
	a, b = a[r.l4:], b[l.l4:]
	return binary.BigEndian.Uint32(b[4:]) == r.next &&
		bytes.Equal(a[8:13], b[8:13]) && // acknowledgement, header length
		(a[13]^b[13])&^tcpPSH == 0 && // flags; a has no PSH
		bytes.Equal(a[14:16], b[14:16]) && // window
		bytes.Equal(a[tcpLen:r.hl-r.l4], b[tcpLen:hl-l.l4]) // options
}

// append adds a segment's data to run i, and closes it after the last one that
// it can take.
func (c *Coalescer) append(i int, data []byte, flags uint8) {
	r := &c.runs[i]
	r.packet = append(r.packet, data...)
	r.next += uint32(len(data))
	r.count++
	r.packet[r.l4+13] |= flags & tcpPSH
	if flags&tcpPSH != 0 || len(data) < r.size {
		c.close(i)
	}
}

// open begins a run, if need be in place of another.
func (c *Coalescer) open(r run) {
	if c.nruns == maxRuns {
		c.close(c.evict)
		c.evict = (c.evict + 1) % maxRuns
	}
	c.runs[c.nruns] = r
	c.nruns++
}

// close writes the headers of run i and forgets it.
func (c *Coalescer) close(i int) {
	r := c.runs[i]
	c.nruns--
	c.runs[i] = c.runs[c.nruns]
	c.runs[c.nruns] = run{}
	if r.count == 1 {
		return // already whole
	}
	h := Hdr{
		Flags:      DataValid | NeedsCsum,
		GSOType:    GSOTCPv4,
		HdrLen:     uint16(len(r.link) + r.hl),
		GSOSize:    uint16(r.size),
		CsumStart:  uint16(len(r.link) + r.l4),
		CsumOffset: 16,
	}
	p := r.packet
	addrs := p[12:ipv4Len]
	if r.l4 == ipv6Len {
		h.GSOType = GSOTCPv6
		addrs = p[8:ipv6Len]
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-ipv6Len))
	} else {
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
		putSum(p[10:], 0)
		putSum(p[10:], ^fold(sum(p[:r.l4], 0)))
	}
	// The pseudo header's sum, so that the packet can go on to another medium.
	putSum(p[r.l4+16:], fold(pseudo(addrs, protoTCP, len(p)-r.l4)))
	h.Encode(c.bufs[r.buf])
	c.sizes[r.buf] = HdrLen + len(r.link) + len(p)
}
