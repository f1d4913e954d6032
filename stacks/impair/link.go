// SPDX-License-Identifier: Apache-2.0

// The link.

package impair

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"umrun/stacks"
	"umrun/stacks/offload"
)

// Queues in front of the rate, as a time: that of a network card, kept short by the
// sender, and that of a router.
const (
	outQueue = 50 * time.Millisecond
	inQueue  = 250 * time.Millisecond
)

// drainTime is how long Close waits for what is on its way.
const drainTime = time.Second

// etherHeader is the length of Ethernet's header, bytes.
const etherHeader = 14

// A Link is another link, impaired. It is safe for concurrent use, but that Read is
// called by one goroutine at a time.
type Link struct {
	stacks.Link
	offload bool
	cut     bool // super-segments are
	out, in *line

	done    chan struct{} // closed by Close
	drained chan struct{} // closed when nothing outbound is on its way any more
	once    sync.Once
	wg      sync.WaitGroup

	got  [][]byte // scratch of Read
	mu   sync.Mutex
	lost error // why the link below ended; +checklocks:mu
}

var (
	_ stacks.Link      = (*Link)(nil)
	_ stacks.Offloads  = (*Link)(nil)
	_ stacks.TryWriter = (*Link)(nil)
	_ stacks.Waiter    = (*Link)(nil)
	_ stacks.Carrier   = (*Link)(nil)
	_ stacks.Lingerer  = (*Link)(nil)
)

// Carried implements [stacks.Carrier].
func (l *Link) Carried(local, remote netip.AddrPort) int {
	if c, ok := l.Link.(stacks.Carrier); ok {
		return c.Carried(local, remote)
	}
	return 0
}

// Undelivered is that of the link below.
func (l *Link) Undelivered() (bytes, waiting int) {
	if u, ok := l.Link.(stacks.Lingerer); ok {
		return u.Undelivered()
	}
	return 0, 0
}

// New impairs a link, which it then owns.
func New(inner stacks.Link, c Config) *Link {
	l := &Link{Link: inner, done: make(chan struct{}), drained: make(chan struct{})}
	if o, ok := inner.(stacks.Offloads); ok {
		l.offload = o.Offloads()
	}
	l.cut = l.offload && (c.Rate > 0 || c.Jitter > 0 || c.Loss > 0)
	one := inner.MTU() + l.link()
	l.out, l.in = newLine(c, outQueue, one), newLine(c, inQueue, one)
	l.wg.Add(2)
	go l.carryOut()
	go l.carryIn()
	return l
}

// link is the length of the link header, bytes.
func (l *Link) link() int {
	if l.Type() == stacks.LinkEthernet {
		return etherHeader
	}
	return 0
}

// Offloads reports whether the link below does.
func (l *Link) Offloads() bool { return l.offload }

// Up returns the channel of the link below, or a closed one if it is always up.
func (l *Link) Up() <-chan struct{} {
	if w, ok := l.Link.(stacks.Waiter); ok {
		return w.Up()
	}
	up := make(chan struct{})
	close(up)
	return up
}

// Read waits for packets to arrive. A packet that does not fit into its buffer is
// thrown away: the reader broke the contract of [stacks.Link].
func (l *Link) Read(bufs [][]byte, sizes []int) (int, error) {
	for {
		l.got = l.in.receive(l.got[:0], min(len(bufs), len(sizes)))
		n := 0
		for _, p := range l.got {
			if len(p) <= len(bufs[n]) {
				sizes[n] = copy(bufs[n], p)
				n++
			}
		}
		switch {
		case n > 0:
			return n, nil
		case len(l.got) == 0:
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.lost != nil {
				return 0, l.lost
			}
			return 0, net.ErrClosed
		}
	}
}

// Write puts packets on their way, and waits where the queue is full.
func (l *Link) Write(bufs [][]byte) (int, error) {
	for i, b := range bufs {
		for _, p := range l.pieces(b, 0) {
			for {
				wait, ok := l.out.send(p, l.size(p), time.Now())
				if !ok {
					return i, net.ErrClosed
				}
				if wait == 0 {
					break
				}
				t := time.NewTimer(wait)
				select {
				case <-t.C:
				case <-l.done:
				}
				t.Stop()
			}
		}
	}
	return len(bufs), nil
}

// TryWrite implements [stacks.TryWriter]. Super-segments it leaves to Write.
func (l *Link) TryWrite(bufs [][]byte) int {
	for i, b := range bufs {
		if l.cuts(b) {
			return i
		}
		if wait, ok := l.out.send(bytes.Clone(b), l.size(b), time.Now()); !ok || wait != 0 {
			return i
		}
	}
	return len(bufs)
}

// size is what a packet counts, bytes.
func (l *Link) size(b []byte) int {
	if l.offload {
		return len(b) - offload.HdrLen
	}
	return len(b)
}

// cuts tells whether a packet is a super-segment that is to be cut.
func (l *Link) cuts(b []byte) bool {
	var h offload.Hdr
	return l.cut && h.Decode(b) == nil && h.GSOType != offload.GSONone
}

// pieces returns copies of what b is on the wire; flags are of the pieces' headers.
func (l *Link) pieces(b []byte, flags uint8) [][]byte {
	var h offload.Hdr
	if !l.cuts(b) || h.Decode(b) != nil {
		return [][]byte{bytes.Clone(b)}
	}
	var s offload.Splitter
	reset := s.Reset
	if l.Type() == stacks.LinkEthernet {
		reset = s.ResetFrame
	}
	if reset(h, b[offload.HdrLen:]) != nil {
		return nil // nothing that a stack sends
	}
	piece := make([]byte, len(b)) // none is longer; what waits is no longer than it has to be
	offload.Hdr{Flags: flags}.Encode(piece)
	out := make([][]byte, 0, s.Left())
	for s.More() {
		n, err := s.Next(piece[offload.HdrLen:])
		if err != nil {
			break
		}
		out = append(out, bytes.Clone(piece[:offload.HdrLen+n]))
	}
	return out
}

// carryOut writes what has arrived to the link below, until Close.
func (l *Link) carryOut() {
	defer l.wg.Done()
	defer close(l.drained)
	batch := max(l.BatchSize(), 1)
	var bufs [][]byte
	for {
		bufs = l.out.receive(bufs[:0], batch)
		if len(bufs) == 0 {
			return
		}
		// What the link below does not take is lost, and nobody waits for it.
		_, _ = l.Link.Write(bufs)
	}
}

// carryIn reads the link below until it ends.
func (l *Link) carryIn() {
	defer l.wg.Done()
	defer l.in.end(false)
	size := l.MTU() + l.link() + 4 // and the tag of a VLAN
	if l.offload {
		size = stacks.MaxPacket
	}
	bufs, sizes := make([][]byte, max(l.BatchSize(), 1)), make([]int, max(l.BatchSize(), 1))
	for i := range bufs {
		bufs[i] = make([]byte, size)
	}
	for {
		n, err := l.Link.Read(bufs, sizes)
		now := time.Now()
		for i := range n {
			// The sums of the pieces were made here.
			for _, p := range l.pieces(bufs[i][:sizes[i]], offload.DataValid) {
				l.in.send(p, l.size(p), now) // or lost on a full queue
			}
		}
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				l.mu.Lock()
				l.lost = err
				l.mu.Unlock()
			}
			return
		}
	}
}

// Close ends the link and the one below. What is on its way outbound arrives before
// that, if it does so soon.
func (l *Link) Close() error {
	var err error
	l.once.Do(func() {
		close(l.done)
		l.in.end(true)
		l.out.end(false)
		t := time.NewTimer(drainTime)
		defer t.Stop()
		select {
		case <-l.drained:
		case <-t.C:
			l.out.end(true)
		}
		err = l.Link.Close()
		l.wg.Wait()
	})
	return err
}
