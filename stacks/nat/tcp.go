// SPDX-License-Identifier: Apache-2.0

// TCP connections of the view: opening them on the host first.

package nat

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"umrun/stacks"
)

const (
	// maxSyns bounds connections being opened; a SYN beyond is ignored and comes
	// again.
	maxSyns = defaultMax

	// A relay's buffers only have to span the scheduling delay of this process:
	// whatever they hold, the program believes to be sent.
	tcpBufMin = tcp.MinBufferSize
	tcpBufDef = 512 << 10
	tcpBufMax = 1 << 20

	// timeWait need not outlast stray segments, this link neither reorders nor
	// duplicates any (RFC 9293 §3.6.1 asks for it on the network's account).
	timeWait = 100 * time.Millisecond

	// Keep-alive of the host's connections. The view's own probes end at the
	// private stack.
	keepIdle  = 75 * time.Second
	keepCount = 9 // tcp(7) tcp_keepalive_probes
)

// tuneTCP sets the private stack up for a lossless link without delay.
func tuneTCP(s *stack.Stack) error {
	rcv := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcpBufMin, Default: tcpBufDef, Max: tcpBufMax}
	snd := tcpip.TCPSendBufferSizeRangeOption{Min: tcpBufMin, Default: tcpBufDef, Max: tcpBufMax}
	mod := tcpip.TCPModerateReceiveBufferOption(true)
	rec := tcpip.TCPRecovery(0) // RACK measures reordering that cannot be
	cc := tcpip.CongestionControlOption("reno")
	tw := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	for _, o := range []tcpip.SettableTransportProtocolOption{&rcv, &snd, &mod, &rec, &cc, &tw} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("nat: private stack refuses %T: %v", o, err)
		}
	}
	return nil
}

// A synTable holds the connections of the view that are being opened on the
// host, with the beginning of the SYN for an ICMP error to quote.
type synTable struct {
	mu   sync.Mutex
	syns map[stack.TransportEndpointID][]byte // +checklocks:mu
}

func (t *synTable) init() { t.syns = make(map[stack.TransportEndpointID][]byte) }

// add reports whether id is new and there is room.
func (t *synTable) add(id stack.TransportEndpointID, quote []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, again := t.syns[id]; again || len(t.syns) >= maxSyns {
		return false
	}
	t.syns[id] = quote
	return true
}

// remove returns the beginning of the SYN.
func (t *synTable) remove(id stack.TransportEndpointID) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	quote := t.syns[id]
	delete(t.syns, id)
	return quote
}

// handleTCP makes the private stack pass on segments of unknown connections.
//
// The forwarder starts a goroutine for every SYN it has not got in flight, and
// nobody could wait for those. So the table says first which SYN is new: it is a
// superset of what the forwarder has in flight, for an entry is removed after
// ForwarderRequest.Complete, and what it lets pass is counted.
func (l *Link) handleTCP() {
	fwd := tcp.NewForwarder(l.stack, tcpBufDef, maxSyns+1, func(r *tcp.ForwarderRequest) {
		defer l.wg.Done()
		l.openTCP(r)
	})
	l.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, func(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
		seg := header.TCP(pkt.TransportHeader().Slice())
		if f := seg.Flags(); !f.Contains(header.TCPFlagSyn) || f.Contains(header.TCPFlagAck) {
			return false // the private stack resets it
		}
		quote := append(append([]byte(nil), pkt.NetworkHeader().Slice()...), seg...)
		if !l.syns.add(id, quote) {
			return true
		}
		// On the goroutine of Write, which is between enter and leave.
		l.wg.Add(1)
		if !fwd.HandlePacket(id, pkt) {
			l.wg.Done()
			l.syns.remove(id)
			return false
		}
		return true
	})
}

// openTCP connects on the host and, only if that succeeds, completes the
// handshake with the view; then it relays until both sides are through.
func (l *Link) openTCP(r *tcp.ForwarderRequest) {
	id := r.ID()
	host, err := l.dialTCP(addrPortOf(id.LocalAddress, id.LocalPort))
	// One that was reset before anybody looked was established none the less: so
	// it is for the view, with host == nil.
	if err != nil && !errors.Is(err, unix.ECONNRESET) {
		l.refuse(r, err)
		return
	}
	f := newFlow(l, flowName{
		view: addrPortOf(id.RemoteAddress, id.RemotePort), dst: addrPortOf(id.LocalAddress, id.LocalPort),
	}, host)
	if !l.flows.add(f) {
		r.Complete(false)
		l.syns.remove(id)
		f.resetHost()
		return
	}
	defer l.flows.remove(f)
	ep, terr := r.CreateEndpoint(&f.wq)
	r.Complete(false)
	l.syns.remove(id)
	if terr != nil { // the view has gone meanwhile
		f.resetHost()
		return
	}
	if host == nil {
		ep.Abort()
		return
	}
	l.stats.tcpOpened.Add(1)
	l.stats.tcpActive.Add(1)
	defer l.stats.tcpActive.Add(-1)
	f.relay(ep)
}

// refuse answers the SYN so that the program's connect gives the host's errno.
// After a timeout it says nothing: the view's stack comes to the same end. Nor
// does it where another SYN may have better luck.
func (l *Link) refuse(r *tcp.ForwarderRequest, err error) {
	l.stats.tcpRefused.Add(1)
	id := r.ID()
	reset := errors.Is(err, unix.ECONNREFUSED)
	r.Complete(reset)
	quote := l.syns.remove(id)
	switch {
	case reset, l.ctx.Err() != nil, errors.Is(err, unix.ETIMEDOUT):
		return
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
		l.warn("no descriptors or memory left: connections wait", "err", err)
		return
	}
	why, ok := reasonOf(err)
	if !ok {
		why = unreachHost
	}
	src, dst := fromTCPIP(id.RemoteAddress), fromTCPIP(id.LocalAddress)
	d := datagram{packet: quote, src: src, dst: dst}
	l.unreachable(d, why)
	if dst.Is6() && why != unreachNet && why != unreachPort {
		// gVisor's IPv6 knows of codes 0 and 4 alone (network/ipv6/icmp.go), and
		// would go on with its SYNs. Who knows better has given up already.
		l.unreachable(d, unreachNet)
	}
}

// dialTCP connects to what dst of the view stands for. Its errors wrap a
// unix.Errno, or are the context's.
func (l *Link) dialTCP(dst addrPort) (stacks.UpstreamConn, error) {
	if isDNS(dst.Addr()) && dst.Port() == dnsPort {
		return upstreamConn(l.dialDNS())
	}
	if l.opts.Upstream != nil && !ours(dst.Addr()) {
		return l.opts.Upstream.DialStream(l.ctx, dst)
	}
	to, ok := l.toHost(dst.Addr())
	if !ok {
		return nil, closedTo(dst.Addr())
	}
	return upstreamConn(dialHost(l.ctx, netip.AddrPortFrom(to, dst.Port())))
}

// upstreamConn keeps a nil connection from becoming an interface that is not.
func upstreamConn(c *net.TCPConn, err error) (stacks.UpstreamConn, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}

// closedTo is the error for a destination that toHost refuses.
func closedTo(dst addr) error {
	if ours(dst) {
		return unix.ECONNREFUSED
	}
	return unix.EHOSTUNREACH
}

// dialHost connects without ever mistaking an IPv4-mapped address for IPv6.
func dialHost(ctx context.Context, to addrPort) (*net.TCPConn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: keepIdle, Interval: keepIdle, Count: keepCount,
	}, Control: only}
	network := "tcp4"
	if to.Addr().Is6() {
		network = "tcp6"
	}
	return d.DialTCP(ctx, network, addrPort{}, to)
}

type addrPort = netip.AddrPort

func addrPortOf(a tcpip.Address, port uint16) addrPort {
	return netip.AddrPortFrom(fromTCPIP(a), port)
}

// A flowSet is every connection that has a socket of the host.
type flowSet struct {
	mu     sync.Mutex
	flows  map[*flow]struct{} // +checklocks:mu
	named  map[flowName]*flow // +checklocks:mu
	closed bool               // +checklocks:mu
}

func (s *flowSet) init() { s.flows, s.named = make(map[*flow]struct{}), make(map[flowName]*flow) }

// find returns the flow of a connection of the view, or nil.
func (s *flowSet) find(view, dst addrPort) *flow {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.named[flowName{view, dst}]
}

func (s *flowSet) add(f *flow) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.flows[f], s.named[f.name] = struct{}{}, f
	return true
}

// rename notes by what name the private stack knows f.
func (s *flowSet) rename(f *flow, n flowName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.named[f.name] == f {
		delete(s.named, f.name)
	}
	f.name = n
	s.named[n] = f
}

func (s *flowSet) remove(f *flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flows, f)
	if s.named[f.name] == f { // the name may be another's by now
		delete(s.named, f.name)
	}
}

// leaveAll ends every connection, now and for ever.
func (s *flowSet) leaveAll() {
	s.mu.Lock()
	s.closed = true
	all := make([]*flow, 0, len(s.flows))
	for f := range s.flows {
		all = append(all, f)
	}
	s.mu.Unlock()
	for _, f := range all {
		f.leave()
		// A handshake with the view waits on this queue, for whatever becomes of
		// the endpoint; it then finds it not connected and gives up.
		f.wq.Notify(waiter.WritableEvents)
	}
}
