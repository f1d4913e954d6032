// SPDX-License-Identifier: Apache-2.0

// The two ends of a pipe and the queues between them.

package pipe

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"umrun/stacks"
	"umrun/stacks/offload"
)

// Bounds of one direction. A packet goes in while both are still free, so the
// queue may exceed maxBytes by one packet: the largest always fits.
const (
	maxPackets = 512
	maxBytes   = 1 << 20
	batchSize  = 64
)

// What a frame may have in front of its packet: Ethernet's header, with the tag of a
// VLAN; bytes.
const (
	vlanTag     = 4
	etherHeader = 14 + vlanTag
)

// poolMax is the largest capacity that is kept for reuse, bytes.
const poolMax = stacks.MaxPacket + vlanTag

// ErrTooLong is returned by Write for a packet that exceeds the MTU, or 64 KiB
// if the pipe offloads.
var ErrTooLong = errors.New("pipe: packet too long")

// Config describes a pipe. The zero value is one of 1500 bytes per packet
// without offload.
type Config struct {
	MTU     int  // bytes of the network layer, 1500 if zero
	Offload bool // a virtio_net_hdr precedes each packet; see [stacks.Offloads]

	Ethernet bool // it carries frames
}

// New returns the two ends of a pipe.
func New(c Config) (a, b *End) {
	if c.MTU == 0 {
		c.MTU = 1500
	}
	ab, ba := newQueue(), newQueue()
	return &End{cfg: c, in: ba, out: ab}, &End{cfg: c, in: ab, out: ba}
}

// An End is one end of a pipe. It is safe for concurrent use.
type End struct {
	cfg     Config
	in, out *queue
}

var (
	_ stacks.Link     = (*End)(nil)
	_ stacks.Offloads = (*End)(nil)
)

// Type returns the type that the pipe was made with.
func (e *End) Type() stacks.LinkType {
	if e.cfg.Ethernet {
		return stacks.LinkEthernet
	}
	return stacks.LinkIP
}

// MTU returns the bytes of the network layer that fit into one packet.
func (e *End) MTU() int { return e.cfg.MTU }

// BatchSize returns the most packets that one Read fills.
func (e *End) BatchSize() int { return batchSize }

// Offloads reports whether a virtio_net_hdr precedes each packet.
func (e *End) Offloads() bool { return e.cfg.Offload }

// Read waits for packets and takes as many as there are buffers for. A packet
// that does not fit into its buffer is thrown away: the reader broke the
// contract of [stacks.Link].
func (e *End) Read(bufs [][]byte, sizes []int) (int, error) {
	return e.in.read(bufs, sizes)
}

// Write queues packets and waits while the queue is full. The error is
// net.ErrClosed or [ErrTooLong]; the count is of packets taken before it.
func (e *End) Write(bufs [][]byte) (int, error) {
	for i, b := range bufs {
		if max := e.maxLen(); len(b) > max {
			n, err := e.out.write(bufs[:i])
			if err == nil {
				err = fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, len(b), max)
			}
			return n, err
		}
	}
	return e.out.write(bufs)
}

// maxLen is the longest buffer that Write takes, bytes.
func (e *End) maxLen() int {
	n := e.cfg.MTU
	if e.cfg.Offload {
		n = offload.HdrLen + 65535
	}
	if e.cfg.Ethernet {
		n += etherHeader
	}
	return n
}

// Close unplugs this end. Closing twice is fine.
func (e *End) Close() error {
	e.in.closeReader()
	e.out.closeWriter()
	return nil
}

// A queue is one direction of a pipe.
type queue struct {
	mu       sync.Mutex
	notEmpty sync.Cond // waited for by the reader
	notFull  sync.Cond // waited for by writers

	packets  [][]byte // +checklocks:mu
	bytes    int      // +checklocks:mu
	noReader bool     // +checklocks:mu
	noWriter bool     // +checklocks:mu

	pool sync.Pool // of *[]byte: the memory of packets that were read
}

func newQueue() *queue {
	q := &queue{}
	q.notEmpty.L, q.notFull.L = &q.mu, &q.mu
	return q
}

func (q *queue) write(bufs [][]byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, b := range bufs {
		for !q.noWriter && !q.noReader && (len(q.packets) >= maxPackets || q.bytes >= maxBytes) {
			// The reader may still sleep on the first packets of this call.
			q.notEmpty.Signal()
			q.notFull.Wait()
		}
		if q.noWriter {
			return i, net.ErrClosed
		}
		if q.noReader {
			continue // nobody is there to hear it
		}
		q.packets = append(q.packets, q.copyOf(b))
		q.bytes += len(b)
	}
	q.notEmpty.Signal()
	return len(bufs), nil
}

func (q *queue) read(bufs [][]byte, sizes []int) (int, error) {
	q.mu.Lock()
	for len(q.packets) == 0 && !q.noReader {
		q.notEmpty.Wait()
	}
	if q.noReader {
		q.mu.Unlock()
		return 0, net.ErrClosed
	}
	take := min(len(q.packets), len(bufs), len(sizes))
	taken := make([][]byte, take)
	copy(taken, q.packets)
	rest := copy(q.packets, q.packets[take:])
	clear(q.packets[rest:])
	q.packets = q.packets[:rest]
	for _, p := range taken {
		q.bytes -= len(p)
	}
	q.notFull.Broadcast()
	q.mu.Unlock()

	// The copies are made without the lock: writers go on meanwhile.
	n := 0
	for _, p := range taken {
		if len(p) <= len(bufs[n]) {
			sizes[n] = copy(bufs[n], p)
			n++
		}
		q.free(p)
	}
	return n, nil
}

func (q *queue) closeReader() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.noReader = true
	q.packets, q.bytes = nil, 0
	q.notEmpty.Broadcast()
	q.notFull.Broadcast()
}

func (q *queue) closeWriter() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.noWriter = true
	q.notFull.Broadcast()
}

// copyOf returns a copy of b in memory of the pool. Small packets do not take
// big memory out of it: 64 KiB for each ACK would be the whole cache.
func (q *queue) copyOf(b []byte) []byte {
	if len(b) <= smallPacket {
		return append([]byte(nil), b...)
	}
	p, _ := q.pool.Get().(*[]byte)
	if p == nil {
		s := make([]byte, poolMax)
		p = &s
	}
	return append((*p)[:0], b...)
}

// smallPacket is the size up to which a packet gets memory of its own, bytes.
const smallPacket = 2048

func (q *queue) free(p []byte) {
	if cap(p) >= poolMax {
		p = p[:cap(p)]
		q.pool.Put(&p)
	}
}
