// SPDX-License-Identifier: Apache-2.0

// What ICMP says about datagrams, and which socket it is said to.

package netstack

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"

	"umrun/stacks"
)

// gVisor tells UDP endpoints of unreachable ports only, ping sockets of nothing,
// and neither who said it. So every ICMP packet that is delivered is looked at
// here as well, by an observer among gVisor's raw endpoints; what gVisor itself
// noted of it is dropped (see packetSocket.write and RecvMsg).

// A portKey is what datagram sockets are looked for by.
type portKey struct {
	proto int // IPPROTO_UDP, IPPROTO_ICMP or IPPROTO_ICMPV6
	port  uint16
}

// A directory knows which sockets use a port.
type directory struct {
	mu    sync.RWMutex // a leaf
	ports map[portKey][]*packetSocket
}

// reports is what a socket was told. Its mutex is a leaf.
type reports struct {
	recv4, recv6 atomic.Bool // IP_RECVERR, IPV6_RECVERR
	connected    atomic.Bool
	named        atomic.Bool  // in the directory
	strategy     atomic.Int32 // IP_MTU_DISCOVER
	news         atomic.Bool  // there may be something below

	// Of the directory, guarded by its mutex.
	key           portKey
	local, remote netip.AddrPort // unmapped; without an address: any

	mu      sync.Mutex
	pending unix.Errno
	queue   []stacks.Report
	size    int // of queue, in bytes
}

// reportOverhead is what an entry counts for besides its payload, about what it
// costs the kernel.
const reportOverhead = 768

// enroll enters the socket into the directory under its present names, or takes it
// out.
func (s *packetSocket) enroll() {
	r, d := s.reports, &s.st.directory
	local, remote := s.Names()
	if s.closed.Load() {
		local = netip.AddrPort{}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	key := portKey{s.proto, local.Port()}
	if r.key != key {
		if old := d.ports[r.key]; len(old) > 0 {
			kept := old[:0:0]
			for _, o := range old {
				if o != s {
					kept = append(kept, o)
				}
			}
			if len(kept) == 0 {
				delete(d.ports, r.key)
			} else {
				d.ports[r.key] = kept
			}
		}
		if key.port != 0 {
			if d.ports == nil {
				d.ports = make(map[portKey][]*packetSocket)
			}
			d.ports[key] = append(d.ports[key], s)
		}
		r.key = key
	}
	r.local, r.remote = bare(local), bare(remote)
	r.connected.Store(remote.IsValid())
	r.named.Store(key.port != 0)
}

// bare is an address as packets have it; the unspecified one is none.
func bare(a netip.AddrPort) netip.AddrPort {
	ip := a.Addr().Unmap().WithZone("")
	if ip.IsUnspecified() {
		ip = netip.Addr{}
	}
	return netip.AddrPortFrom(ip, a.Port())
}

// sender returns the socket that sent a datagram from src to dst, the best match
// as in net/ipv4/udp.c:__udp4_lib_lookup.
func (d *directory) sender(proto int, src, dst netip.AddrPort) *packetSocket {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var best *packetSocket
	score := -1
	for _, s := range d.ports[portKey{proto, src.Port()}] {
		n := 0
		switch {
		case s.family == unix.AF_INET && !src.Addr().Is4():
			continue
		case !s.reports.local.Addr().IsValid():
		case s.reports.local.Addr() == src.Addr():
			n++
		default:
			continue
		}
		switch {
		case !s.reports.remote.Addr().IsValid() || proto != unix.IPPROTO_UDP:
		case s.reports.remote == dst:
			n += 2
		default:
			continue
		}
		if n > score {
			best, score = s, n
		}
	}
	return best
}

// report tells the socket of an error; hard ones are told to connected sockets
// that did not ask (net/ipv4/udp.c:__udp4_lib_err). The caller owns nothing of r
// any more.
func (s *sock) report(r stacks.Report, hard bool) {
	asked := s.reports.recv4.Load()
	if r.Origin == unix.SO_EE_ORIGIN_ICMP6 || r.Origin == unix.SO_EE_ORIGIN_LOCAL && r.Dst.Addr().Is6() && !r.Dst.Addr().Is4In6() {
		asked = s.reports.recv6.Load()
	}
	if !asked && !(hard && s.reports.connected.Load()) {
		return
	}
	rep := s.reports
	rep.mu.Lock()
	if asked {
		rep.addLocked(r)
	}
	if r.Origin != unix.SO_EE_ORIGIN_LOCAL { // the call itself tells that
		rep.pending = r.Errno
	}
	rep.news.Store(true)
	rep.mu.Unlock()
	s.wq.Notify(waiter.EventErr)
}

// addLocked queues an entry, if there is room.
//
// +checklocks:r.mu
func (r *reports) addLocked(e stacks.Report) {
	if size := reportOverhead + len(e.Payload); r.size+size <= defaultPktBuf {
		r.queue = append(r.queue, e)
		r.size += size
	}
}

// TakeReports implements stacks.Reporter.
func (s *sock) TakeReports() (pending unix.Errno, queue []stacks.Report) {
	r := s.reports
	if !r.news.Load() {
		return 0, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	pending, queue = r.pending, r.queue
	r.pending, r.queue, r.size = 0, nil, 0
	r.news.Store(false)
	return pending, queue
}

// takePending returns the pending error and clears it.
func (s *sock) takePending() unix.Errno {
	r := s.reports
	if !r.news.Load() {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.pending
	r.pending = 0
	r.news.Store(len(r.queue) > 0)
	return e
}

// troubled tells whether poll(2) shows POLLERR.
func (s *sock) troubled() bool {
	r := s.reports
	if !r.news.Load() {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pending != 0 || len(r.queue) > 0
}

// An icmpObserver gets a copy of every ICMP packet that is delivered.
type icmpObserver struct{ st *Stack }

// observeICMP has the stack look at ICMP packets.
func (s *Stack) observeICMP() error {
	o := &icmpObserver{s}
	if err := s.gv.RegisterRawTransportEndpoint(header.IPv4ProtocolNumber, header.ICMPv4ProtocolNumber, o); err != nil {
		return errno(err)
	}
	if err := s.gv.RegisterRawTransportEndpoint(header.IPv6ProtocolNumber, header.ICMPv6ProtocolNumber, o); err != nil {
		return errno(err)
	}
	s.gv.SetTransportProtocolHandler(header.ICMPv4ProtocolNumber, forAll)
	return nil
}

// forAll takes echo requests for everybody away from gVisor, which would answer
// (net.ipv4.icmp_echo_ignore_broadcasts).
func forAll(id stack.TransportEndpointID, p *stack.PacketBuffer) bool {
	h := header.ICMPv4(p.TransportHeader().Slice())
	return len(h) >= header.ICMPv4MinimumSize && h.Type() == header.ICMPv4Echo &&
		(p.NetworkPacketInfo.LocalAddressBroadcast || header.IsV4MulticastAddress(id.LocalAddress))
}

// HandlePacket implements stack.RawTransportEndpoint. It runs where the packet
// arrived, maybe below a call that sends.
func (o *icmpObserver) HandlePacket(p *stack.PacketBuffer) {
	ip := p.NetworkHeader().Slice()
	b := append(append([]byte(nil), p.TransportHeader().Slice()...), p.Data().AsRange().ToSlice()...)
	e, ok := parseICMP(ip, b)
	if !ok {
		return
	}
	o.st.raws.report(e, p.NICID)
	if e.proto == unix.IPPROTO_TCP {
		o.st.reportSYN(e, p.NICID)
	}
	if !e.named {
		return
	}
	s := o.st.directory.sender(e.proto, e.src, e.dst)
	if s == nil || o.st.gv.CheckLocalAddress(0, protoOf(e.src.Addr()), gvAddr(e.src.Addr())) == 0 {
		return
	}
	if e.mtu != 0 {
		o.st.paths.learn(e.dst.Addr(), e.mtu)
		if s.reports.strategy.Load() == unix.IP_PMTUDISC_DONT {
			if e.src.Addr().Is4() {
				return
			}
			e.hard = false
		}
	}
	s.report(e.reportTo(s.family, p.NICID), e.hard)
}

// reportTo is the report as a socket of a family has it; the message came by nic.
func (e *icmpError) reportTo(family int, nic tcpip.NICID) stacks.Report {
	r := e.report
	r.Msg.IfIndex = int(nic)
	r.Msg.Stamp = time.Now().UnixNano()
	if family == unix.AF_INET6 {
		for _, a := range []*netip.Addr{&r.Offender, &r.Msg.Local} {
			*a = netip.AddrFrom16(a.As16())
		}
		r.Dst = netip.AddrPortFrom(netip.AddrFrom16(r.Dst.Addr().As16()), r.Dst.Port())
	}
	return r
}
