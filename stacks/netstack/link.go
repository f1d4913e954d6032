// SPDX-License-Identifier: Apache-2.0

// The endpoint that joins a stacks.Link to gVisor: the packet path.

package netstack

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"umrun/stacks"
	"umrun/stacks/netstack/tcpseg"
	"umrun/stacks/offload"
)

// gsoMaxSize bounds a super-segment, bytes. It is below 64 KiB so that what an
// encrypting link makes of one super-segment still fits one UDP_SEGMENT send.
const gsoMaxSize = 57344

// Bounds of the outbound queue. TCP data waits above the soft bounds; what must
// not wait is dropped above the hard one.
const (
	softPackets = 512
	softBytes   = 1 << 20
	hardPackets = 8 * softPackets
)

// flushTime is how long Close waits for queued packets (the resets of open
// connections) to leave.
const flushTime = 100 * time.Millisecond

// An endpoint is the gVisor side of one link.
//
// Two goroutines belong to it, from start to close: outbound hands the queue to
// Link.Write, inbound gives what Link.Read returns to gVisor. The first may
// block in the link for as long as the link likes. The second must never wait
// for the first: two stacks that answer each other's packets from their inbound
// goroutines through full queues would wait for each other. Hence the rule of
// [endpoint.WritePackets].
type endpoint struct {
	st      *Stack
	link    stacks.Link
	ether   bool                              // frames have an Ethernet header
	mac     atomic.Pointer[tcpip.LinkAddress] // of an Ethernet link
	offload bool
	mtu     atomic.Uint32
	maxMTU  int // what the link carries, and receive buffers hold
	index   int // of the interface
	taps    *taps
	log     *slog.Logger

	shut   tcpseg.ShutWindows
	policy *atomic.Pointer[policy] // the stack's
	urgent *urgents                // the stack's

	// rxValid says whether the checksums of the packet that inbound is
	// delivering were verified. gVisor asks for it per endpoint, by
	// Capabilities, in the call that delivers a packet; since one packet is
	// delivered at a time, an answer per packet is exact.
	rxValid  atomic.Bool
	delivery sync.Mutex // held while a packet is delivered, by inbound or by the link

	mu       sync.Mutex
	notEmpty sync.Cond // waited for by outbound
	notFull  sync.Cond // waited for by TCP senders
	idle     sync.Cond // waited for by close

	try     stacks.TryWriter        // nil: the link has none
	direct  [1][]byte               // scratch of sendLocked; +checklocks:mu
	acks    acks                    // what is held back; +checklocks:mu
	queue   []*stack.PacketBuffer   // +checklocks:mu
	bytes   int                     // of queue; +checklocks:mu
	busy    bool                    // outbound is in Link.Write; +checklocks:mu
	closed  bool                    // +checklocks:mu
	started bool                    // +checklocks:mu
	disp    stack.NetworkDispatcher // +checklocks:mu

	dropped atomic.Uint64 // packets lost on a full queue
	past    pastCounters  // see bypass
	wg      sync.WaitGroup
}

var (
	_ stack.LinkEndpoint = (*endpoint)(nil)
	_ stack.GSOEndpoint  = (*endpoint)(nil)
)

func (s *Stack) newLink(l stacks.Link, index, mtu int, log *slog.Logger) *endpoint {
	e := &endpoint{st: s, link: l, index: index, maxMTU: max(mtu, l.MTU()), log: log, policy: &s.policy, urgent: &s.urgent, taps: &s.taps}
	e.ether = l.Type() == stacks.LinkEthernet
	e.mtu.Store(uint32(mtu))
	if o, ok := l.(stacks.Offloads); ok {
		e.offload = o.Offloads()
	}
	e.try, _ = l.(stacks.TryWriter)
	e.notEmpty.L, e.notFull.L, e.idle.L = &e.mu, &e.mu, &e.mu
	e.acks.init(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if !e.closed {
			e.expireLocked(false)
		}
	})
	return e
}

// WritePackets implements stack.LinkWriter: it queues packets for outbound, or
// spares it the work.
//
// TCP segments with data wait while the queue is full: that is the
// back-pressure. Their senders are processor goroutines and callers of Send.
// Everything else goes in at once, because it may come from an inbound
// goroutine (resets, ICMP) or from a call that must not block (SYN, datagrams;
// the latter are bounded by SO_SNDBUF, which counts them until they were
// written).
func (e *endpoint) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	policy := e.policy.Load()
	for _, p := range pkts.AsSlice() {
		if policy.keeps(p, e.index) || !e.ether && groupReport(p) {
			n++
			continue
		}
		if p.TransportProtocolNumber == header.TCPProtocolNumber && p.Data().Size() > 0 {
			for !e.closed && e.fullLocked() {
				e.notEmpty.Signal()
				e.notFull.Wait()
			}
		}
		if e.closed {
			return n, &tcpip.ErrClosedForSend{}
		}
		before, kept := e.acks.admit(p, int(e.mtu.Load()))
		if before != nil {
			e.emitLocked(before, nil)
			before.DecRef()
		}
		if kept || e.emitLocked(p, nil) {
			n++
		}
	}
	if !e.busy && len(e.queue) > 0 {
		e.notEmpty.Signal()
	}
	if n == 0 {
		return 0, &tcpip.ErrNoBufferSpace{}
	}
	return n, nil
}

// emitLocked sends p or queues it, and shows it to taps; false if there is no room.
// origin is nil for what the stack itself sends.
//
// +checklocks:e.mu
func (e *endpoint) emitLocked(p *stack.PacketBuffer, origin any) bool {
	if len(e.queue) >= hardPackets {
		e.dropped.Add(1)
		return false
	}
	if e.taps.on() {
		e.showOut(p, origin)
	}
	if p.Mark != rawMark {
		e.shut.Leaving(p)
	}
	if e.sendLocked(p) {
		return true
	}
	e.queue = append(e.queue, p.IncRef())
	e.bytes += p.Size()
	return true
}

// expireLocked sends the acknowledgements that have waited long enough; all of them, if
// all is set.
//
// +checklocks:e.mu
func (e *endpoint) expireLocked(all bool) {
	for _, p := range e.acks.expired(all) {
		e.emitLocked(p, nil)
		p.DecRef()
	}
	if !e.busy && len(e.queue) > 0 {
		e.notEmpty.Signal()
	}
}

// sendLocked gives p to the link at once, if it is the next one and the link need
// not wait: a packet that comes alone is not worth a change of goroutines.
//
// +checklocks:e.mu
func (e *endpoint) sendLocked(p *stack.PacketBuffer) bool {
	if e.try == nil || e.busy || len(e.queue) > 0 {
		return false
	}
	e.direct[0] = e.flatten(e.direct[0][:0], p)
	return e.try.TryWrite(e.direct[:]) == 1
}

// +checklocks:e.mu
func (e *endpoint) fullLocked() bool {
	return len(e.queue) >= softPackets || e.bytes >= softBytes
}

// outbound writes the queue to the link, whole bursts at a time, until close.
func (e *endpoint) outbound() {
	defer e.wg.Done()
	batch := max(e.link.BatchSize(), 1)
	bufs := make([][]byte, batch)
	var spare []*stack.PacketBuffer
	for {
		e.mu.Lock()
		e.busy = false
		e.idle.Broadcast()
		for len(e.queue) == 0 && !e.closed {
			e.notEmpty.Wait()
		}
		if e.closed {
			e.mu.Unlock()
			return
		}
		burst := e.queue
		e.queue, e.bytes = spare[:0], 0
		e.busy = true
		e.notFull.Broadcast()
		e.mu.Unlock()

		for rest := burst; len(rest) > 0; {
			n := min(len(rest), batch)
			for i, p := range rest[:n] {
				bufs[i] = e.flatten(bufs[i][:0], p)
				p.DecRef()
			}
			if _, err := e.link.Write(bufs[:n]); err != nil && !errors.Is(err, net.ErrClosed) {
				e.log.Debug("packets lost", "err", err, "packets", n)
			}
			rest = rest[n:]
		}
		clear(burst)
		spare = burst
	}
}

// flatten appends the packet, behind its virtio_net_hdr if the link offloads.
func (e *endpoint) flatten(b []byte, p *stack.PacketBuffer) []byte {
	partial := false
	if e.offload {
		var hdr [offload.HdrLen]byte
		h := virtioHdr(p)
		h.Encode(hdr[:])
		b = append(b, hdr[:]...)
		partial = h.Flags&offload.NeedsCsum != 0
	}
	start := len(b) + len(p.LinkHeader().Slice())
	views, offset := p.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		s := v.AsSlice()
		if offset >= len(s) {
			offset -= len(s)
			continue
		}
		b = append(b, s[offset:]...)
		offset = 0
	}
	e.urgent.leaving(b[start:], partial)
	return b
}

// virtioHdr describes what gVisor left undone of p.
func virtioHdr(p *stack.PacketBuffer) offload.Hdr {
	var h offload.Hdr
	gso := &p.GSOOptions
	if gso.Type == stack.GSONone || !gso.NeedsCsum {
		return h
	}
	l3 := len(p.LinkHeader().Slice()) + len(p.NetworkHeader().Slice())
	h.Flags = offload.NeedsCsum
	h.CsumStart = uint16(l3)
	h.CsumOffset = gso.CsumOffset
	// Control segments carry a GSO type with an MSS of 0, and short ones need
	// no cutting: neither is a super-segment.
	if gso.MSS == 0 || p.Data().Size() <= int(gso.MSS) {
		return h
	}
	switch gso.Type {
	case stack.GSOTCPv4:
		h.GSOType = offload.GSOTCPv4
	case stack.GSOTCPv6:
		h.GSOType = offload.GSOTCPv6
	default:
		return h
	}
	h.GSOSize = gso.MSS
	h.HdrLen = uint16(l3 + len(p.TransportHeader().Slice()))
	return h
}

// inbound delivers what the link reads, until the link is closed.
func (e *endpoint) inbound(d stack.NetworkDispatcher) {
	defer e.wg.Done()
	size := int(e.MaxHeaderLength()) + vlanTag + e.maxMTU
	if e.offload {
		size = stacks.MaxPacket
	}
	batch := max(e.link.BatchSize(), 1)
	bufs, sizes := make([][]byte, batch), make([]int, batch)
	for i := range bufs {
		bufs[i] = make([]byte, size)
	}
	if p, ok := e.link.(stacks.Pusher); ok {
		p.Push(func(b []byte) { e.deliver(d, b) })
	}
	for {
		n, err := e.link.Read(bufs, sizes)
		for i := range n {
			e.deliver(d, bufs[i][:sizes[i]])
		}
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				e.log.Warn("link ended", "err", err)
			}
			return
		}
	}
}

// deliver hands one packet to gVisor, which verifies its checksums unless the
// link has done so or made the packet in this process.
func (e *endpoint) deliver(d stack.NetworkDispatcher, b []byte) {
	valid := false
	var h offload.Hdr
	if e.offload {
		if h.Decode(b) != nil {
			return
		}
		// NeedsCsum: the sender left the sum to a device that was never
		// reached, so the data never left memory. Linux trusts it likewise
		// (skbuff.h, CHECKSUM_PARTIAL on receive).
		valid = h.Flags&(offload.DataValid|offload.NeedsCsum) != 0
		b = b[offload.HdrLen:]
	}
	f := received{hdr: h, data: b}
	if e.ether && !e.unwrap(&f) || !e.ether && !f.unwrapIP() {
		return
	}
	e.urgent.arriving(f.data)
	if e.taps.on() {
		e.showIn(&f)
	}
	switch f.proto {
	case header.IPv4ProtocolNumber:
		// The flags speak of the transport layer only, but for gVisor they
		// would cover the IPv4 header too.
		if valid {
			h := header.IPv4(f.data)
			if len(h) < header.IPv4MinimumSize || int(h.HeaderLength()) > len(h) || !h.IsChecksumValid() {
				return
			}
		}
	case header.ARPProtocolNumber:
		e.st.heardARP(e.index, f.data)
	}
	if f.kind == tcpip.PacketOtherHost || len(f.data) == 0 {
		return
	}
	e.st.takeOver(f.data, e.index)
	if ack := e.shut.Arriving(f.data); ack != nil && (valid || offload.Verify(f.data)) {
		e.hand(d, f.proto, f.kind, ack, true)
	}
	e.hand(d, f.proto, f.kind, f.data, valid)
}

// hand gives gVisor a packet; valid says that its checksums are not to be looked at.
func (e *endpoint) hand(d stack.NetworkDispatcher, proto tcpip.NetworkProtocolNumber, kind tcpip.PacketType, b []byte, valid bool) {
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
	p.PktType = kind
	e.delivery.Lock()
	e.rxValid.Store(valid)
	d.DeliverNetworkPacket(proto, p)
	e.delivery.Unlock()
	p.DecRef()
}

// close ends both goroutines and closes the link, after a short time in which
// queued packets may leave. It waits for the goroutines.
func (e *endpoint) close() {
	e.mu.Lock()
	if e.started && !e.closed {
		e.expireLocked(true)
		expired := false
		t := time.AfterFunc(flushTime, func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			expired = true
			e.idle.Broadcast()
		})
		for (e.busy || len(e.queue) > 0) && !expired && !e.closed {
			e.idle.Wait()
		}
		t.Stop()
	}
	e.closed = true
	for _, p := range e.acks.expired(true) {
		p.DecRef()
	}
	e.acks.stop()
	for _, p := range e.queue {
		p.DecRef()
	}
	e.queue, e.bytes = nil, 0
	e.notEmpty.Broadcast()
	e.notFull.Broadcast()
	e.idle.Broadcast()
	e.mu.Unlock()
	if err := e.link.Close(); err != nil {
		e.log.Debug("close link", "err", err)
	}
	e.wg.Wait()
	if n := e.dropped.Load(); n > 0 {
		e.log.Info("packets were lost on a full queue", "packets", n)
	}
}

// start starts the goroutines; packets flow from here on. close ends them.
func (e *endpoint) start() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.started = true
	e.wg.Add(2)
	go e.outbound()
	go e.inbound(e.disp)
}

// Attach implements stack.NetworkLinkEndpoint.
func (e *endpoint) Attach(d stack.NetworkDispatcher) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.disp = d
}

// IsAttached implements stack.NetworkLinkEndpoint.
func (e *endpoint) IsAttached() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.disp != nil
}

// Capabilities implements stack.NetworkLinkEndpoint; see rxValid.
func (e *endpoint) Capabilities() stack.LinkEndpointCapabilities {
	var c stack.LinkEndpointCapabilities
	if e.rxValid.Load() {
		c |= stack.CapabilityRXChecksumOffload
	}
	if e.ether {
		c |= stack.CapabilityResolutionRequired
	}
	return c
}

// SupportedGSO implements stack.GSOEndpoint.
func (e *endpoint) SupportedGSO() stack.SupportedGSO {
	if e.offload {
		return stack.HostGSOSupported
	}
	return stack.GSONotSupported
}

// GSOMaxSize implements stack.GSOEndpoint.
func (e *endpoint) GSOMaxSize() uint32 { return gsoMaxSize }

// MTU implements stack.NetworkLinkEndpoint.
func (e *endpoint) MTU() uint32 { return e.mtu.Load() }

// SetMTU implements stack.NetworkLinkEndpoint. Stack.SetState has checked it.
func (e *endpoint) SetMTU(mtu uint32) { e.mtu.Store(mtu) }

// SetOnCloseAction implements stack.NetworkLinkEndpoint.
func (e *endpoint) SetOnCloseAction(func()) {}

// Wait implements stack.NetworkLinkEndpoint. gVisor calls it with locks held
// that inbound may want, so it does not wait: Stack.Close has done so before.
func (e *endpoint) Wait() {}

// Close implements stack.NetworkLinkEndpoint; Stack.Close has done it before.
func (e *endpoint) Close() {}
