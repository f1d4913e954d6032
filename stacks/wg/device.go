// SPDX-License-Identifier: Apache-2.0

// The device's TUN side: two hand-overs between a stack and wireguard-go.

package wg

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"

	"umrun/stacks"
	"umrun/stacks/offload"
)

// batch is how many packets go through the device at once. It is the batch of
// the UDP side too, so that no part of it waits for another.
const batch = conn.IdealBatchSize

// A tunDevice is the tun.Device that the device reads and writes: Read takes from
// the stack, Write gives to it.
//
// A device of the kernel takes their place once it is there.
type tunDevice struct {
	mtu    int
	events chan tun.Event
	once   sync.Once
	out    outbox
	in     inbox
	kernel atomic.Pointer[kernelTUN] // nil: the stack is a userspace one

	mu     sync.Mutex // guards closed, and that kernel is set
	closed bool
}

// kernelTUN is a tun.Device behind a pointer.
type kernelTUN struct{ tun.Device }

var _ tun.Device = (*tunDevice)(nil)

func newTUN(mtu int) *tunDevice {
	t := &tunDevice{mtu: mtu, events: make(chan tun.Event)}
	t.out.init(mtu)
	t.in.init()
	return t
}

// Read waits for packets of the stack; tun.Device says what the arguments are.
func (t *tunDevice) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	if k := t.kernel.Load(); k != nil {
		return k.Read(bufs, sizes, offset)
	}
	n, err := t.out.read(bufs, sizes, offset)
	if err != nil && t.kernel.Load() != nil {
		return 0, nil // the device asks again
	}
	return n, err
}

// Write gives decrypted packets to the stack, and waits until it has taken them.
func (t *tunDevice) Write(bufs [][]byte, offset int) (int, error) {
	if k := t.kernel.Load(); k != nil {
		return k.Write(bufs, offset)
	}
	n, err := t.in.write(bufs, offset)
	if k := t.kernel.Load(); err != nil && k != nil {
		return k.Write(bufs, offset) // nothing was taken: nobody ever read
	}
	return n, err
}

// serve puts a device of the kernel in the place of the hand-overs, which end.
func (t *tunDevice) serve(k tun.Device) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return errors.Join(os.ErrClosed, k.Close())
	}
	t.kernel.Store(&kernelTUN{k})
	t.out.close()
	t.in.close()
	return nil
}

func (t *tunDevice) File() *os.File           { return nil }
func (t *tunDevice) MTU() (int, error)        { return t.mtu, nil }
func (t *tunDevice) Name() (string, error)    { return "umrun", nil }
func (t *tunDevice) Events() <-chan tun.Event { return t.events } // none ever come
func (t *tunDevice) BatchSize() int           { return batch }

// Close ends both directions; everything blocked returns os.ErrClosed.
func (t *tunDevice) Close() error {
	var err error
	t.once.Do(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.closed = true
		if k := t.kernel.Load(); k != nil {
			err = k.Close()
		} else {
			t.out.close()
			t.in.close()
		}
		close(t.events)
	})
	return err
}

// An outbox is the way from the stack to the device. The device's only reader
// lends its buffers while it waits; writers cut packets straight into them.
type outbox struct {
	mu     sync.Mutex
	filled sync.Cond // the reader waits for packets
	room   sync.Cond // writers wait for buffers

	meter  meter
	mtu    int
	bufs   [][]byte // lent by the reader; nil while it does not wait
	sizes  []int
	offset int
	n      int // buffers filled
	closed bool

	bad atomic.Uint64 // packets whose header did not fit, or beyond the MTU
}

func (o *outbox) init(mtu int) {
	o.filled.L, o.room.L = &o.mu, &o.mu
	o.mtu = mtu
	o.meter.landed, o.meter.closed = make(chan struct{}, 1), make(chan struct{})
}

func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	close(o.meter.closed)
	o.filled.Broadcast()
	o.room.Broadcast()
}

// read lends bufs to the writers and waits until there is a packet in one. What
// else comes before it runs again is in the same batch.
func (o *outbox) read(bufs [][]byte, sizes []int, offset int) (int, error) {
	bufs = bufs[:min(len(bufs), o.meter.wait())]
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bufs, o.sizes, o.offset, o.n = bufs, sizes, offset, 0
	o.room.Broadcast()
	for o.n == 0 && !o.closed {
		o.filled.Wait()
	}
	n := o.n
	o.bufs, o.sizes, o.n = nil, nil, 0
	if o.closed {
		return 0, os.ErrClosed
	}
	o.meter.flying.Add(int64(n))
	return n, nil
}

// write takes packets, each behind an offload.Hdr, and returns how many. A packet
// that does not fit its header is counted and left out: it is the stack's
// mistake, and the next packet is innocent.
func (o *outbox) write(packets [][]byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var s offload.Splitter
	for i, p := range packets {
		if !o.resetLocked(&s, p) {
			continue
		}
		for s.More() {
			for !o.closed && o.n == len(o.bufs) {
				o.room.Wait() // no buffers, or all of them full
			}
			if o.closed {
				return i, os.ErrClosed
			}
			if !o.fillLocked(&s) {
				break
			}
		}
	}
	return len(packets), nil
}

// tryWrite is write for as long as there are buffers.
func (o *outbox) tryWrite(packets [][]byte) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	var s offload.Splitter
	for i, p := range packets {
		if !o.resetLocked(&s, p) {
			continue
		}
		if o.closed || s.Left() > len(o.bufs)-o.n {
			return i
		}
		for s.More() && o.fillLocked(&s) {
		}
	}
	return len(packets)
}

// resetLocked gives s a packet; false if its header does not fit.
func (o *outbox) resetLocked(s *offload.Splitter, p []byte) bool {
	var h offload.Hdr
	if h.Decode(p) != nil || s.Reset(h, p[offload.HdrLen:]) != nil {
		o.bad.Add(1)
		return false
	}
	return true
}

// fillLocked puts the next piece of s into the next buffer, of which there is
// one; false if the piece is beyond the MTU.
func (o *outbox) fillLocked(s *offload.Splitter) bool {
	n, err := s.Next(o.bufs[o.n][o.offset : o.offset+o.mtu])
	if err != nil {
		o.bad.Add(1)
		return false
	}
	o.sizes[o.n] = n
	o.n++
	if o.n == 1 || o.n == len(o.bufs) {
		o.filled.Signal()
	}
	return true
}

// An inbox is the way from the device to the stack. The stack's only reader lends
// its buffers while it waits; the device's receivers, one per peer, verify and
// coalesce straight into them.
type inbox struct {
	mu     sync.Mutex
	filled sync.Cond // the reader waits for packets
	room   sync.Cond // receivers wait for buffers
	runs   offload.Coalescer
	lent   bool
	closed bool

	push   func(packet []byte) // nil: everything is read
	pushMu sync.Mutex          // guards single and what it is made in
	single offload.Coalescer
	buf    [1][]byte
	size   [1]int

	bad atomic.Uint64 // packets with a wrong length or checksum
}

func (b *inbox) init() { b.filled.L, b.room.L = &b.mu, &b.mu }

func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.filled.Broadcast()
	b.room.Broadcast()
}

// read lends bufs to the receivers and waits until there is a packet in one. Runs
// are closed here and not with each batch of the device, so that a busy reader
// gets longer ones.
func (b *inbox) read(bufs [][]byte, sizes []int) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.runs.Reset(bufs, sizes)
	b.lent = true
	b.room.Broadcast()
	for b.runs.Len() == 0 && !b.closed {
		b.filled.Wait()
	}
	b.lent = false
	n := b.runs.Flush()
	if b.closed {
		return 0, os.ErrClosed
	}
	return n, nil
}

// pushed hands a packet that comes alone to the stack on this very goroutine, if the
// reader has nothing before it: it waits, so it has delivered all that it got.
func (b *inbox) pushed(p []byte) bool {
	b.mu.Lock()
	push := b.push
	if !b.lent || b.runs.Len() > 0 || b.closed {
		push = nil
	}
	b.mu.Unlock()
	if push == nil {
		return false
	}
	b.pushMu.Lock()
	defer b.pushMu.Unlock()
	if b.buf[0] == nil {
		b.buf[0] = make([]byte, stacks.MaxPacket)
	}
	b.single.Reset(b.buf[:], b.size[:])
	if !b.single.Add(p) {
		return false
	}
	b.single.Flush()
	push(b.buf[0][:b.size[0]])
	return true
}

// write takes what the device decrypted. Checksums are summed before the lock is
// taken, so that peers do it at the same time. A bad packet is marked by nil in
// packets, which the device fills anew for each call.
func (b *inbox) write(packets [][]byte, offset int) (int, error) {
	for i, p := range packets {
		if !offload.Verify(p[offset:]) {
			packets[i] = nil
			b.bad.Add(1)
		}
	}
	if len(packets) == 1 && packets[0] != nil && b.pushed(packets[0][offset:]) {
		return 1, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, p := range packets {
		if p == nil {
			continue
		}
		for {
			if b.closed {
				return i, os.ErrClosed
			}
			if b.lent && b.runs.Add(p[offset:]) {
				break
			}
			b.filled.Signal() // full, or the reader is elsewhere
			b.room.Wait()
		}
	}
	b.filled.Signal() // also if nothing was added: it looks itself
	return len(packets), nil
}
