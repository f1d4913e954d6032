// SPDX-License-Identifier: Apache-2.0

// Taps: what packet sockets see of the interfaces, and how they send.

package netstack

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/loopback"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"umrun/stacks"
	"umrun/stacks/offload"
)

var _ stacks.Tapper = (*Stack)(nil)

// taps are the functions that see every packet. gVisor has packet endpoints of its
// own, which see a super-segment as nothing special and are no use for a ring; the
// endpoints of our links tell these instead. Without taps they cost one load.
type taps struct {
	mu   sync.Mutex // held while the list is changed
	list atomic.Pointer[[]*tap]
}

type tap struct{ f func(*stacks.Frame) }

// on tells whether anybody looks.
func (t *taps) on() bool { return t.list.Load() != nil }

// show gives a packet to every tap.
func (t *taps) show(f *stacks.Frame) {
	list := t.list.Load()
	if list == nil {
		return
	}
	f.Stamp = time.Now().UnixNano()
	for _, x := range *list {
		x.f(f)
	}
}

func (t *taps) add(x *tap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*tap
	if old := t.list.Load(); old != nil {
		all = slices.Clone(*old)
	}
	all = append(all, x)
	t.list.Store(&all)
}

func (t *taps) remove(x *tap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.list.Load()
	if old == nil {
		return
	}
	all := slices.DeleteFunc(slices.Clone(*old), func(y *tap) bool { return x == y })
	if len(all) == 0 {
		t.list.Store(nil)
		return
	}
	t.list.Store(&all)
}

// Tap implements [stacks.Tapper].
func (s *Stack) Tap(f func(*stacks.Frame)) (stop func()) {
	x := &tap{f}
	s.taps.add(x)
	s.bypasses.recall(nil)
	return func() { s.taps.remove(x) }
}

// Inject implements [stacks.Tapper].
func (s *Stack) Inject(ifIndex int, proto uint16, p []byte, origin any) error {
	if s.closed.Load() {
		return unix.ENETDOWN
	}
	st := s.state.Load()
	at := slices.IndexFunc(st.Interfaces, func(i stacks.Interface) bool { return i.Index == ifIndex })
	switch {
	case at < 0:
		return unix.ENXIO
	case !st.Interfaces[at].Up:
		return unix.ENETDOWN
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(p)})
	defer pkt.DecRef()
	pkt.NetworkProtocolNumber = tcpip.NetworkProtocolNumber(proto)
	if s.hardware(tcpip.NICID(ifIndex)) == unix.ARPHRD_ETHER {
		if _, ok := pkt.LinkHeader().Consume(header.EthernetMinimumSize); !ok {
			return unix.EINVAL
		}
	}
	if ifIndex == loopbackNIC {
		// Linux takes an IPv4 packet with a source of its own only from its own
		// stack (net/ipv4/fib_frontend.c:__fib_validate_source).
		s.loop.send(pkt, origin, !ownSource(st, proto, p))
		return nil
	}
	if e := s.links.of(ifIndex); e != nil {
		e.inject(pkt, origin)
	}
	return nil
}

// ownSource tells whether p is an IPv4 packet that claims to come from the stack.
func ownSource(st *stacks.State, proto uint16, p []byte) bool {
	if proto != unix.ETH_P_IP || len(p) < header.IPv4MinimumSize {
		return false
	}
	src := netip.AddrFrom4([4]byte(p[12:16]))
	for _, ifc := range st.Interfaces {
		for _, a := range ifc.Addrs {
			if a.Addr() == src || ifc.Loop && a.Contains(src) {
				return true
			}
		}
	}
	return false
}

// inject queues a packet that a packet socket sends.
func (e *endpoint) inject(p *stack.PacketBuffer, origin any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	if e.emitLocked(p, origin) {
		e.past.sent(p.Size())
	}
	if !e.busy && len(e.queue) > 0 {
		e.notEmpty.Signal()
	}
}

// showOut shows taps a packet that leaves.
func (e *endpoint) showOut(p *stack.PacketBuffer, origin any) {
	h, b := virtioHdr(p), wire(p)
	head, b := b[:len(p.LinkHeader().Slice())], b[len(p.LinkHeader().Slice()):]
	unsummed := h.Flags&offload.NeedsCsum != 0
	e.urgent.leaving(b, unsummed) // as flatten does
	proto := p.NetworkProtocolNumber
	if e.ether {
		proto = etherType(head)
	}
	e.taps.show(&stacks.Frame{IfIndex: e.index, Proto: uint16(proto), Outgoing: true, Header: head, Data: b,
		Unsummed: unsummed, GSOTCP: h.GSOType != 0, Origin: origin})
}

// showIn shows taps a packet that came in.
func (e *endpoint) showIn(f *received) {
	e.taps.show(&stacks.Frame{IfIndex: e.index, Proto: uint16(f.proto), Header: f.head, Data: f.data, Type: f.packetType(),
		Unsummed: f.hdr.Flags&offload.NeedsCsum != 0, Summed: f.hdr.Flags&offload.DataValid != 0, GSOTCP: f.hdr.GSOType != 0})
}

// wire returns a copy of a packet on its way out.
func wire(p *stack.PacketBuffer) []byte {
	b := p.ToBuffer()
	defer b.Release()
	return b.Flatten()
}

// A loopEndpoint is gVisor's loopback device with taps.
type loopEndpoint struct {
	stack.LinkEndpoint
	taps *taps
	past pastCounters // what packet sockets put onto it

	mu   sync.Mutex
	disp stack.NetworkDispatcher // +checklocks:mu
}

func newLoop(t *taps) *loopEndpoint { return &loopEndpoint{LinkEndpoint: loopback.New(), taps: t} }

// Attach implements stack.NetworkLinkEndpoint.
func (e *loopEndpoint) Attach(d stack.NetworkDispatcher) {
	e.mu.Lock()
	e.disp = d
	e.mu.Unlock()
	e.LinkEndpoint.Attach(d)
}

// WritePackets implements stack.LinkWriter.
func (e *loopEndpoint) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	if e.taps.on() {
		for _, p := range pkts.AsSlice() {
			e.show(p, nil)
		}
	}
	return e.LinkEndpoint.WritePackets(pkts)
}

// show shows taps a packet on its way out and in.
func (e *loopEndpoint) show(p *stack.PacketBuffer, origin any) {
	f := stacks.Frame{IfIndex: loopbackNIC, Loop: true, Proto: uint16(p.NetworkProtocolNumber), Outgoing: true, Data: wire(p), Origin: origin}
	f.Unsummed = origin == nil // the device claims to compute checksums
	f.GSOTCP = p.GSOOptions.Type != stack.GSONone && p.GSOOptions.MSS != 0
	e.taps.show(&f)
	f.Outgoing, f.Origin = false, nil // even its sender sees it come back
	e.taps.show(&f)
}

// send puts a packet of a packet socket onto the device; deliver: the stack gets it.
func (e *loopEndpoint) send(p *stack.PacketBuffer, origin any, deliver bool) {
	e.show(p, origin)
	e.past.sent(p.Size())
	e.mu.Lock()
	d := e.disp
	e.mu.Unlock()
	if !deliver || d == nil {
		e.past.received(p.Size())
		return
	}
	in := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: p.ToBuffer()})
	defer in.DecRef()
	d.DeliverNetworkPacket(p.NetworkProtocolNumber, in)
}
