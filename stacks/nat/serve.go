// SPDX-License-Identifier: Apache-2.0

// Serve: the NAT as a router at the end of an Ethernet link.

package nat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"umrun/stacks"
	"umrun/stacks/offload"
)

// GatewayMAC is the link-layer address of a [Server]: locally administered, and
// slirp's.
var GatewayMAC = net.HardwareAddr{0x52, 0x55, 10, 0, 2, 2}

// DefaultLease is for how long an address is given, if Options do not say.
const DefaultLease = time.Hour

// mac is the key of tables.
type mac [header.EthernetAddressSize]byte

var (
	ourMAC       = mac(GatewayMAC)
	broadcastMAC = mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
)

// A Server is the router of an Ethernet network, with the host's network behind
// it. Guests find all they need by themselves:
//
//	guests --frames--> Server: ARP, NDP, DHCPv4, RA
//	                     |  ^
//	              packets v  | and neighbours: whose MAC an address has
//	                     Link --> the host's sockets
//
// It is 10.0.2.2 and fd00:2::2 (and fe80::5055:aff:fe00:202), relays names at
// 10.0.2.3 and fd00:2::3, and leases 10.0.2.15 and those that follow. Guests may
// also have addresses of their own choosing within [Net4] and [Net6].
//
// Three goroutines belong to it, until Close: one hands frames of the link to the
// NAT, one packets of the NAT to the link, and one writes what the first answers by
// itself, which must not wait for a guest. Methods are safe for concurrent use.
type Server struct {
	link    stacks.Link
	nat     *Link
	offload bool
	ll      addr // of the server, link-local

	near   neighbours
	leases leaseTable
	ctl    chan []byte // frames of the server's own, without virtio_net_hdr

	closeOnce sync.Once
	stop      chan struct{} // closed when Close begins
	said      chan struct{} // closed when the guests know
	done      chan struct{} // closed when Close is through
	wg        sync.WaitGroup
}

// Serve makes link, which must be an Ethernet link, the way to the host's network for
// whoever is on it. The MTU that guests are told is o.MTU, that of the link if zero.
// The link belongs to the server from success on. The server ends with ctx, with the
// link, or by Close, which must be called in any case.
func Serve(ctx context.Context, link stacks.Link, o Options) (*Server, error) {
	if link.Type() != stacks.LinkEthernet {
		return nil, errors.New("nat: only an Ethernet link can be served")
	}
	if o.MTU == 0 {
		o.MTU = min(link.MTU(), DefaultMTU)
	}
	if o.MTU > link.MTU() {
		return nil, fmt.Errorf("nat: MTU %d is more than the %d of the link", o.MTU, link.MTU())
	}
	if o.Lease <= 0 {
		o.Lease = DefaultLease
	}
	l, err := Open(ctx, o)
	if err != nil {
		return nil, err
	}
	s := &Server{
		link: link, nat: l,
		ll:   fromTCPIP(header.LinkLocalAddr(tcpip.LinkAddress(GatewayMAC))),
		ctl:  make(chan []byte, 256), // a burst of questions; what does not fit is asked again
		stop: make(chan struct{}), said: make(chan struct{}), done: make(chan struct{}),
	}
	if x, ok := link.(stacks.Offloads); ok {
		s.offload = x.Offloads()
	}
	s.near.init()
	s.leases.init(l.opts, &s.near)
	s.wg.Add(3)
	go s.inbound()
	go s.outbound()
	go s.control(ctx)
	return s, nil
}

// Close ends the server, its connections and the link, and waits for its goroutines.
// Twice is fine.
func (s *Server) Close() error {
	s.closeOnce.Do(func() {
		s.begone()
		s.wg.Wait()
		close(s.done)
	})
	<-s.done
	return nil
}

// begone makes all goroutines end.
func (s *Server) begone() {
	s.near.mu.Lock()
	again := s.near.closed
	s.near.closed = true
	s.near.mu.Unlock()
	if again {
		return
	}
	close(s.stop)
	// The guests are told, if the link takes it at once.
	cut := time.AfterFunc(100*time.Millisecond, func() { _ = s.link.Close() })
	<-s.said
	cut.Stop()
	if err := errors.Join(s.nat.Close(), s.link.Close()); err != nil {
		s.nat.log.Debug("close a served link", "err", err)
	}
}

// Done returns a channel that is closed when the server ends, by itself or by Close.
func (s *Server) Done() <-chan struct{} { return s.stop }

// Link returns the NAT behind the server, to publish ports by and to look at. It is not
// to be read, written or closed.
func (s *Server) Link() *Link { return s.nat }

// etherLen is the length of a link header.
const etherLen = header.EthernetMinimumSize

// inbound handles what guests send, until the link is closed.
func (s *Server) inbound() {
	defer s.wg.Done()
	size := etherLen + 4 + s.link.MTU() // a tag too much is seen, and dropped
	front := 0
	if s.offload {
		size, front = stacks.MaxPacket, offload.HdrLen
	}
	batch := max(s.link.BatchSize(), 1)
	bufs, sizes := make([][]byte, batch), make([]int, batch)
	for i := range bufs {
		bufs[i] = make([]byte, size)
	}
	pkts := make([][]byte, 0, batch)
	for {
		n, err := s.link.Read(bufs, sizes)
		pkts = pkts[:0]
		for i := range n {
			if p := s.frame(bufs[i][:sizes[i]], front); p != nil {
				pkts = append(pkts, p)
			}
		}
		if len(pkts) > 0 {
			if _, err := s.nat.Write(pkts); err != nil {
				return
			}
		}
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				s.nat.log.Warn("a served link ended", "err", err)
			}
			s.wg.Go(s.begone)
			return
		}
	}
}

// frame looks at what a guest sent: front bytes of virtio_net_hdr, link header, packet.
// What is not for the server itself is returned as the NAT wants it, its header in the
// place of the link's.
func (s *Server) frame(b []byte, front int) []byte {
	var h offload.Hdr
	if front > 0 {
		if h.Decode(b) != nil {
			s.nat.stats.malformed.Add(1)
			return nil
		}
	}
	if len(b) < front+etherLen {
		s.nat.stats.malformed.Add(1)
		return nil
	}
	eth := b[front : front+etherLen]
	to, from := mac(eth[:6]), mac(eth[6:12])
	if to != ourMAC && to[0]&1 == 0 || from[0]&1 != 0 || from == ourMAC {
		return nil
	}
	p := b[front+etherLen:]
	switch binary.BigEndian.Uint16(eth[12:]) {
	case unix.ETH_P_ARP:
		s.arp(from, p)
		return nil
	case unix.ETH_P_IP:
		if len(p) < header.IPv4MinimumSize || p[0]>>4 != 4 {
			s.nat.stats.malformed.Add(1)
			return nil
		}
		if s.dhcp(p) {
			return nil
		}
		s.near.learn(addr4(p[12:16]), from)
	case unix.ETH_P_IPV6:
		if len(p) < header.IPv6MinimumSize || p[0]>>4 != 6 {
			s.nat.stats.malformed.Add(1)
			return nil
		}
		if s.ndp(from, p) {
			return nil
		}
		s.near.learn(addr6(p[8:24]), from)
	default:
		return nil
	}
	if to != ourMAC {
		return nil // groups are the guests' own
	}
	if h.Flags&offload.NeedsCsum != 0 {
		if h.CsumStart < etherLen {
			s.nat.stats.malformed.Add(1)
			return nil
		}
		h.CsumStart -= etherLen
	}
	h.HdrLen -= min(h.HdrLen, etherLen)
	out := b[front+etherLen-offload.HdrLen:]
	h.Encode(out)
	return out
}

// outbound hands the NAT's packets to their guests, until the NAT is closed.
func (s *Server) outbound() {
	defer s.wg.Done()
	// In front of a packet there is room for the link header: [etherLen][Hdr][packet]
	// becomes [Hdr][etherLen][packet].
	bufs, at, sizes := make([][]byte, batch), make([][]byte, batch), make([]int, batch)
	for i := range bufs {
		bufs[i] = make([]byte, etherLen+offload.HdrLen+maxIP)
		at[i] = bufs[i][etherLen:]
	}
	w := frameWriter{s: s, id: rand.Uint32()}
	for {
		n, err := s.nat.Read(at, sizes)
		for i := range n {
			b := bufs[i][:etherLen+sizes[i]]
			dst, ok := destination(b[etherLen+offload.HdrLen:])
			if !ok {
				continue
			}
			if to, known := s.near.lookup(dst, b); known {
				w.add(to, b)
			}
		}
		w.flush()
		if errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// destination reads where an IP packet goes.
func destination(p []byte) (addr, bool) {
	switch {
	case len(p) >= header.IPv4MinimumSize && p[0]>>4 == 4:
		return addr4(p[16:20]), true
	case len(p) >= header.IPv6MinimumSize && p[0]>>4 == 6:
		return addr6(p[24:40]), true
	}
	return addr{}, false
}

// putEther writes a link header of ours.
func putEther(b []byte, to mac, proto uint16) {
	copy(b, to[:])
	copy(b[6:], ourMAC[:])
	binary.BigEndian.PutUint16(b[12:], proto)
}

func etherType(p []byte) uint16 {
	if p[0]>>4 == 6 {
		return unix.ETH_P_IPV6
	}
	return unix.ETH_P_IP
}

// A frameWriter collects frames for the link, and cuts super-segments where the link
// takes none. It belongs to one goroutine.
type frameWriter struct {
	s      *Server
	out    [][]byte
	pieces [][]byte // buffers to cut into, used up to next
	next   int
	cut    offload.Splitter
	id     uint32 // of the last packet that was sent in fragments
}

// add takes [etherLen][Hdr][packet]; b is used until flush.
func (w *frameWriter) add(to mac, b []byte) {
	var h offload.Hdr
	if h.Decode(b[etherLen:]) != nil {
		return
	}
	p := b[etherLen+offload.HdrLen:]
	if h.GSOType == offload.GSONone && len(p) > w.s.nat.opts.MTU {
		w.fragment(to, h, p)
		return
	}
	if w.s.offload {
		if h.Flags&offload.NeedsCsum != 0 {
			h.CsumStart += etherLen
		}
		if h.HdrLen > 0 {
			h.HdrLen += etherLen
		}
		h.Encode(b)
		putEther(b[offload.HdrLen:], to, etherType(p))
		w.push(b)
		return
	}
	if h.GSOType == offload.GSONone && h.Flags&offload.NeedsCsum == 0 {
		putEther(b[offload.HdrLen:], to, etherType(p))
		w.push(b[offload.HdrLen:])
		return
	}
	if w.cut.Reset(h, p) != nil {
		return
	}
	for w.cut.More() {
		if w.next == len(w.pieces) {
			w.pieces = append(w.pieces, make([]byte, etherLen+w.s.nat.opts.MTU))
		}
		dst := w.pieces[w.next]
		n, err := w.cut.Next(dst[etherLen:])
		if err != nil {
			return
		}
		w.next++
		putEther(dst, to, etherType(p))
		w.push(dst[:etherLen+n])
		if w.next == maxPieces {
			w.flush()
		}
	}
}

// fragment sends a datagram that is too large for the link in parts. What the private
// stack sends is never so.
func (w *frameWriter) fragment(to mac, h offload.Hdr, p []byte) {
	whole := make([]byte, len(p))
	if w.cut.Reset(h, p) != nil { // completes the checksum
		return
	}
	if _, err := w.cut.Next(whole); err != nil {
		return
	}
	room := etherLen
	if w.s.offload {
		room += offload.HdrLen
	}
	w.id++
	fragments(whole, w.s.nat.opts.MTU, room, w.id, func(b []byte) {
		putEther(b[room-etherLen:], to, etherType(p))
		w.push(b)
	})
}

// maxPieces bounds the buffers of a frameWriter.
const maxPieces = 128

func (w *frameWriter) push(b []byte) { w.out = append(w.out, b) }

// flush writes what was added. Where it waits, TCP slows down.
func (w *frameWriter) flush() {
	step := max(w.s.link.BatchSize(), 1)
	for rest := w.out; len(rest) > 0; {
		n := min(len(rest), step)
		if _, err := w.s.link.Write(rest[:n]); err != nil && !errors.Is(err, net.ErrClosed) {
			w.s.nat.log.Debug("frames lost", "err", err, "frames", n)
		}
		rest = rest[n:]
	}
	clear(w.out)
	w.out, w.next = w.out[:0], 0
}

// reply sends a frame of the server's own; it does not wait.
func (s *Server) reply(to mac, proto uint16, packet []byte) {
	b := make([]byte, etherLen+len(packet))
	putEther(b, to, proto)
	copy(b[etherLen:], packet)
	select {
	case s.ctl <- b:
	default:
		s.nat.stats.lost.Add(1)
	}
}

// control writes the server's own frames, advertises the router, asks for
// neighbours, and ends with ctx.
func (s *Server) control(ctx context.Context) {
	defer s.wg.Done()
	adverts := time.NewTimer(0)
	defer adverts.Stop()
	defer s.near.timer.Stop()
	w := frameWriter{s: s, id: rand.Uint32()}
	sent := 0
	for {
		select {
		case <-ctx.Done():
			ctx = context.Background()
			s.wg.Go(s.begone)
		case <-s.stop:
			s.advertise(0) // RFC 4861 §6.2.5
			close(s.said)
			return
		case b := <-s.ctl:
			s.write(b)
		case <-adverts.C:
			s.advertise(routerLife)
			next := advertEvery
			if sent++; sent < initialAdverts {
				next = initialEvery
			}
			adverts.Reset(next)
		case <-s.near.timer.C:
			s.near.again()
		case <-s.near.wake:
			asked, found := s.near.take()
			for _, a := range asked {
				s.solicit(a)
			}
			for _, f := range found {
				w.add(f.to, f.frame)
			}
			w.flush()
		}
	}
}

// write gives the link a frame of the server's own.
func (s *Server) write(b []byte) {
	if s.offload {
		b = append(make([]byte, offload.HdrLen, offload.HdrLen+len(b)), b...)
	}
	if _, err := s.link.Write([][]byte{b}); err != nil && !errors.Is(err, net.ErrClosed) {
		s.nat.log.Debug("a frame was lost", "err", err)
	}
}

// A Lease is an address that a guest was given.
type Lease struct {
	MAC   net.HardwareAddr
	Addr  netip.Addr
	Name  string // as the guest calls itself, may be empty
	Until time.Time
}

// Leases returns the leases that have not run out, in the order of their addresses.
func (s *Server) Leases() []Lease { return s.leases.list() }
