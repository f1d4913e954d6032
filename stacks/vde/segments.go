// SPDX-License-Identifier: Apache-2.0

// Super-segments of the stack to frames, and back.

package vde

import (
	"net"
	"sync"

	"umrun/stacks"
	"umrun/stacks/offload"
)

// A cutter makes frames of what has a virtio_net_hdr in front. Frames that need no
// change are not copied. It belongs to one goroutine at a time.
type cutter struct {
	split offload.Splitter
	mem   [batchSize][]byte
	size  int
	out   [][]byte
}

func newCutter(mtu int) *cutter {
	return &cutter{size: etherLen + tagLen + mtu, out: make([][]byte, 0, batchSize)}
}

// room returns the memory of the next frame.
func (c *cutter) room(n int) []byte {
	m := &c.mem[len(c.out)]
	if cap(*m) < n {
		*m = make([]byte, max(n, c.size))
	}
	return (*m)[:cap(*m)]
}

// add cuts b, and hands full batches to send. What does not fit its header is lost.
// Frames are valid until send has had them: flush must follow before b changes.
func (c *cutter) add(b []byte, send func([][]byte) error) error {
	var h offload.Hdr
	if h.Decode(b) != nil {
		return nil
	}
	e := b[offload.HdrLen:]
	if len(e) < etherLen {
		return nil
	}
	if h.GSOType == offload.GSONone && h.Flags&offload.NeedsCsum == 0 {
		c.out = append(c.out, e)
		return c.full(send)
	}
	if c.split.ResetFrame(h, e) != nil {
		return nil
	}
	for c.split.More() {
		n := len(e)
		if h.GSOType != offload.GSONone {
			n = min(n, c.size)
		}
		m := c.room(n)
		k, err := c.split.Next(m)
		if err != nil {
			return nil // pieces longer than the MTU: nobody would take them
		}
		c.out = append(c.out, m[:k])
		if err := c.full(send); err != nil {
			return err
		}
	}
	return nil
}

func (c *cutter) full(send func([][]byte) error) error {
	if len(c.out) < batchSize {
		return nil
	}
	return c.flush(send)
}

// flush sends what has been cut.
func (c *cutter) flush(send func([][]byte) error) error {
	if len(c.out) == 0 {
		return nil
	}
	err := send(c.out)
	clear(c.out)
	c.out = c.out[:0]
	return err
}

// glue puts frames, with verified checksums where they are right, into bufs, each
// behind its header, with runs of TCP segments in one. There must be as many buffers as
// frames. It returns how many it filled.
func glue(c *offload.Coalescer, frames, bufs [][]byte, sizes []int) int {
	c.Ethernet = true
	c.Reset(bufs, sizes)
	for _, f := range frames {
		if offload.IsIP(f) && offload.Verify(f[etherLen:]) {
			c.Add(f)
		} else {
			c.AddUnverified(f)
		}
	}
	return c.Flush()
}

// A gluer is memory for frames that are put together for a port.
type gluer struct {
	c     offload.Coalescer
	bufs  [][]byte
	sizes []int
	out   [][]byte
}

func newGluer() *gluer {
	g := &gluer{bufs: make([][]byte, batchSize), sizes: make([]int, batchSize), out: make([][]byte, batchSize)}
	for i := range g.bufs {
		g.bufs[i] = make([]byte, stacks.MaxPacket)
	}
	return g
}

// whole returns frames in the shape of a port that takes super-segments, until the
// next call.
func (g *gluer) whole(frames [][]byte) [][]byte {
	n := glue(&g.c, frames, g.bufs, g.sizes)
	for i := range n {
		g.out[i] = g.bufs[i][:g.sizes[i]]
	}
	return g.out[:n]
}

// A carrier is a link whose other end may take super-segments, from time to time.
type carrier interface {
	stacks.Link

	// readAny is Read, of frames into small, or of what has a header into big.
	readAny(small, big [][]byte, sizes []int) (n int, whole bool, err error)
	// writeWhole is Write of frames with headers. If the other end takes none, ok is
	// false and nothing was sent.
	writeWhole(bufs [][]byte, wait bool) (n int, ok bool, err error)
}

// An offloading is a link with offload over one without: it cuts what the stack sends
// into frames, and puts runs of received ones together.
type offloading struct {
	stacks.Link
	carrier carrier          // Link, or nil
	try     stacks.TryWriter // Link, or nil

	// Of Read, which has one caller at a time.
	small  [][]byte
	got    []int
	frames [][]byte
	runs   offload.Coalescer

	cutters sync.Pool
}

var (
	_ stacks.Offloads  = (*offloading)(nil)
	_ stacks.TryWriter = (*offloading)(nil)
)

// withOffload returns l with offload. Links that have it are left as they are.
func withOffload(l stacks.Link) stacks.Link {
	if o, ok := l.(stacks.Offloads); ok && o.Offloads() {
		return l
	}
	o := &offloading{Link: l}
	o.carrier, _ = l.(carrier)
	o.try, _ = l.(stacks.TryWriter)
	o.cutters.New = func() any { return newCutter(l.MTU()) }
	return o
}

// Offloads implements [stacks.Offloads].
func (*offloading) Offloads() bool { return true }

// Read implements [stacks.Link].
func (o *offloading) Read(bufs [][]byte, sizes []int) (int, error) {
	if len(bufs) == 0 {
		return 0, nil
	}
	if o.small == nil {
		o.small, o.got = make([][]byte, o.BatchSize()), make([]int, o.BatchSize())
		for i := range o.small {
			o.small[i] = make([]byte, etherLen+tagLen+o.MTU())
		}
	}
	want := min(len(o.small), len(bufs))
	for {
		var n int
		var err error
		if o.carrier != nil {
			var whole bool
			if n, whole, err = o.carrier.readAny(o.small[:want], bufs, sizes); whole {
				return n, err
			}
			copy(o.got, sizes[:n])
		} else {
			n, err = o.Link.Read(o.small[:want], o.got)
		}
		if err != nil {
			return 0, err
		}
		o.frames = o.frames[:0]
		for i := range n {
			o.frames = append(o.frames, o.small[i][:o.got[i]])
		}
		if k := glue(&o.runs, o.frames, bufs, sizes); k > 0 {
			return k, nil
		}
	}
}

// Write implements [stacks.Link].
func (o *offloading) Write(bufs [][]byte) (int, error) {
	if o.carrier != nil {
		if n, ok, err := o.carrier.writeWhole(bufs, true); ok {
			return n, err
		}
	}
	c := o.cutters.Get().(*cutter)
	defer o.cutters.Put(c)
	send := func(frames [][]byte) error { _, err := o.Link.Write(frames); return err }
	for i, b := range bufs {
		if err := c.add(b, send); err != nil {
			clear(c.out)
			c.out = c.out[:0]
			return i, err
		}
	}
	if err := c.flush(send); err != nil {
		return 0, err
	}
	return len(bufs), nil
}

// TryWrite implements [stacks.TryWriter] for packets that are one frame: of a
// super-segment a part might go.
func (o *offloading) TryWrite(bufs [][]byte) int {
	if o.try == nil {
		return 0
	}
	if o.carrier != nil {
		if n, ok, _ := o.carrier.writeWhole(bufs, false); ok {
			return n
		}
	}
	c := o.cutters.Get().(*cutter)
	defer o.cutters.Put(c)
	sent := 0
	send := func(frames [][]byte) error {
		if n := o.try.TryWrite(frames); n < len(frames) {
			return net.ErrClosed // any: it ends here
		}
		return nil
	}
	for _, b := range bufs {
		var h offload.Hdr
		if h.Decode(b) == nil && h.GSOType != offload.GSONone {
			break
		}
		if c.add(b, send) != nil || c.flush(send) != nil {
			clear(c.out)
			c.out = c.out[:0]
			break
		}
		sent++
	}
	return sent
}

// A framed is a link without offload over one with: where another plug looks into
// frames.
type framed struct {
	stacks.Link
	cut *cutter

	// Of Read, which has one caller at a time.
	bufs  [][]byte
	sizes []int
	left  [][]byte // frames that were cut and not yet read
	out   sync.Pool
}

// withoutOffload returns l without offload. Links that have none are left as they are.
func withoutOffload(l stacks.Link) stacks.Link {
	if o, ok := l.(stacks.Offloads); !ok || !o.Offloads() {
		return l
	}
	f := &framed{Link: l, cut: newCutter(l.MTU())}
	f.out.New = func() any { return new([][]byte) }
	return f
}

// Read implements [stacks.Link].
func (f *framed) Read(bufs [][]byte, sizes []int) (int, error) {
	if f.bufs == nil {
		f.bufs, f.sizes = make([][]byte, f.BatchSize()), make([]int, f.BatchSize())
		for i := range f.bufs {
			f.bufs[i] = make([]byte, stacks.MaxPacket)
		}
	}
	for len(f.left) == 0 {
		n, err := f.Link.Read(f.bufs, f.sizes)
		if err != nil {
			return 0, err
		}
		keep := func(frames [][]byte) error {
			for _, b := range frames {
				f.left = append(f.left, append([]byte(nil), b...))
			}
			return nil
		}
		for i := range n {
			f.cut.add(f.bufs[i][:f.sizes[i]], keep)
		}
		f.cut.flush(keep)
	}
	n := 0
	for ; n < len(bufs) && len(f.left) > 0; f.left = f.left[1:] {
		if b := f.left[0]; len(b) <= len(bufs[n]) { // else it is thrown away, see readFrames
			sizes[n] = copy(bufs[n], b)
			n++
		}
	}
	return n, nil
}

// Write implements [stacks.Link].
func (f *framed) Write(bufs [][]byte) (int, error) {
	p := f.out.Get().(*[][]byte)
	defer f.out.Put(p)
	out := *p
	for len(out) < len(bufs) {
		out = append(out, nil)
	}
	*p = out
	for i, b := range bufs {
		out[i] = append(append(out[i][:0], make([]byte, offload.HdrLen)...), b...)
	}
	return f.Link.Write(out[:len(bufs)])
}
