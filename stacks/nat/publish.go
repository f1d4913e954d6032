// SPDX-License-Identifier: Apache-2.0

// Ports of the host that lead into the view.

package nat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	// inboundTime is for how long the view may take to accept a connection.
	inboundTime = 30 * time.Second

	// maxClients bounds the clients of a UDP port that are remembered: only to them
	// may it answer where the network itself would not lead.
	maxClients = 4096
)

// A Publication is a port of the host that leads to one of the view. The view sees who
// writes to it, with the address and port that the client has: the link writes packets
// whose source is the client. Only clients on the host itself, by its loopback, and
// those whose address is one of the view's own network, are seen as the gateway.
//
// TCP: a listener of the host. Each connection is made again from the private stack,
// which may send from any address, and is a flow from then on; the client knows no
// refusal but a reset. UDP: a socket that is the mapping of the view's port for good.
type Publication struct {
	l      *Link
	listen net.Listener // of TCP; nil for UDP
	m      *mapping     // of UDP; nil for TCP
	host   addrPort

	mu    sync.Mutex
	peers map[addrPort]client // +checklocks:mu, by the address that the view knows
}

// Publish leads a port of the host, "tcp" or "udp" at host, to a port of the view: view,
// or [Addr4] and [Addr6] if that has no address. host's address decides the family; port
// 0 is any. Errors wrap a unix.Errno: EADDRINUSE, EACCES, EADDRNOTAVAIL, EAFNOSUPPORT.
// The publication ends with the link, or by Close.
func (l *Link) Publish(proto string, host, view netip.AddrPort) (*Publication, error) {
	if !view.Addr().IsValid() {
		a := Addr4
		if host.Addr().Is6() {
			a = Addr6
		}
		view = netip.AddrPortFrom(a, view.Port())
	}
	if view.Addr().Is4() != host.Addr().Is4() || view.Port() == 0 || !guest(view.Addr()) {
		return nil, fmt.Errorf("nat: %s cannot be led to %s: %w", host, view, unix.EINVAL)
	}
	if !l.enter() {
		return nil, net.ErrClosed
	}
	defer l.leave()
	p := &Publication{l: l, peers: make(map[addrPort]client)}
	var err error
	switch proto {
	case "tcp":
		err = p.openTCP(host, view)
	case "udp":
		err = p.openUDP(host, view)
	default:
		err = unix.EPROTONOSUPPORT
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Addr returns the host's address and port.
func (p *Publication) Addr() netip.AddrPort { return p.host }

// Close takes the port back. Connections live on. Twice is fine.
func (p *Publication) Close() error {
	if p.listen != nil {
		_ = p.listen.Close()
		p.l.pubs.remove(p)
		return nil
	}
	p.l.maps.unpublish(p.m)
	return nil
}

// pubSet is every TCP publication.
type pubSet struct {
	mu  sync.Mutex
	all map[*Publication]struct{} // +checklocks:mu
}

func (s *pubSet) add(p *Publication) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[*Publication]struct{})
	}
	s.all[p] = struct{}{}
}

func (s *pubSet) remove(p *Publication) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, p)
}

func (s *pubSet) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.all {
		_ = p.listen.Close()
	}
	clear(s.all)
}

// only keeps a socket of IPv6 to that, and has the byte that a peer marks as urgent read
// in its place; it would not be read otherwise.
func only(network, _ string, c syscall.RawConn) error {
	var err error
	e := c.Control(func(fd uintptr) {
		if network == "tcp6" {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_V6ONLY, 1)
		}
		err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1))
	})
	return errors.Join(e, err)
}

// openTCP listens, and starts the goroutine that accepts. The caller is between enter
// and leave.
func (p *Publication) openTCP(host, view addrPort) error {
	lc := net.ListenConfig{Control: only, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: keepIdle, Interval: keepIdle, Count: keepCount,
	}}
	network := "tcp4"
	if host.Addr().Is6() {
		network = "tcp6"
	}
	ln, err := lc.Listen(context.Background(), network, host.String())
	if err != nil {
		return err
	}
	p.listen = ln
	p.host = ln.Addr().(*net.TCPAddr).AddrPort()
	p.l.pubs.add(p)
	p.l.wg.Add(1)
	go p.accept(view)
	return nil
}

// accept hands connections to the view until the listener is closed.
func (p *Publication) accept(view addrPort) {
	defer p.l.wg.Done()
	for {
		c, err := p.listen.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptors, above all: clients wait
			p.l.warn("a published port cannot take connections", "addr", p.host.String(), "err", err)
			select {
			case <-p.l.ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		p.l.wg.Add(1) // by a goroutine that is counted already
		go func() {
			defer p.l.wg.Done()
			p.l.inbound(c.(*net.TCPConn), view)
		}()
	}
}

// source is the address that the view sees of a client. One that cannot be a neighbour's
// or a stranger's there is seen as the gateway, which answers lead back to.
func source(from addrPort) addrPort {
	a := from.Addr().Unmap().WithZone("")
	if a.IsLoopback() || Net4.Contains(a) || Net6.Contains(a) || a.Is6() && a.IsLinkLocalUnicast() || !toUnicast(a) {
		a = gateway(a)
	}
	return netip.AddrPortFrom(a, from.Port())
}

// inbound makes the view's part of a connection that a client has made, and relays.
func (l *Link) inbound(host *net.TCPConn, view addrPort) {
	from := source(host.RemoteAddr().(*net.TCPAddr).AddrPort())
	f := newFlow(l, flowName{view: view, dst: from}, host)
	if !l.flows.add(f) {
		f.resetHost()
		return
	}
	defer func() { l.flows.remove(f) }()
	ep, from, err := l.connectView(f, from, view)
	if err != nil {
		l.stats.tcpRefused.Add(1)
		l.log.Debug("a published port is not served", "view", view, "client", from, "err", err)
		f.resetHost()
		return
	}
	if from != f.name.dst {
		l.flows.rename(f, flowName{view: view, dst: from})
	}
	l.stats.tcpOpened.Add(1)
	l.stats.tcpActive.Add(1)
	defer l.stats.tcpActive.Add(-1)
	f.relay(ep)
}

// connectView connects the private stack to the view, from the client's address. Where
// that is taken, which only the gateway's can be, the port is another.
func (l *Link) connectView(f *flow, from, view addrPort) (tcpip.Endpoint, addrPort, error) {
	proto := ipv4.ProtocolNumber
	if view.Addr().Is6() {
		proto = ipv6.ProtocolNumber
	}
	ep, terr := l.stack.NewEndpoint(tcp.ProtocolNumber, proto, &f.wq)
	if terr != nil {
		return nil, from, fmt.Errorf("endpoint: %v", terr)
	}
	full := func(a addrPort) tcpip.FullAddress {
		return tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}
	}
	terr = ep.Bind(full(from))
	if _, used := terr.(*tcpip.ErrPortInUse); used {
		from = netip.AddrPortFrom(from.Addr(), 0)
		terr = ep.Bind(full(from))
	}
	if terr != nil {
		ep.Close()
		return nil, from, fmt.Errorf("bind: %v", terr)
	}
	entry, changed := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	f.wq.EventRegister(&entry)
	defer f.wq.EventUnregister(&entry)
	give := time.NewTimer(inboundTime)
	defer give.Stop()
	terr = ep.Connect(full(view))
	if _, started := terr.(*tcpip.ErrConnectStarted); started {
		select {
		case <-changed:
			terr = ep.LastError()
		case <-give.C:
			terr = &tcpip.ErrTimeout{}
		case <-f.dead:
			terr = &tcpip.ErrAborted{}
		}
		if terr == nil && tcp.EndpointState(ep.State()) != tcp.StateEstablished && tcp.EndpointState(ep.State()) != tcp.StateCloseWait {
			terr = &tcpip.ErrConnectionRefused{}
		}
	}
	if terr != nil {
		ep.Abort()
		return nil, from, fmt.Errorf("connect: %v", terr)
	}
	if from.Port() == 0 {
		if a, err := ep.GetLocalAddress(); err == nil {
			from = netip.AddrPortFrom(from.Addr(), a.Port)
		}
	}
	return ep, from, nil
}

// openUDP makes the socket, and the mapping that it is. The caller is between enter and
// leave.
func (p *Publication) openUDP(host, view addrPort) error {
	fd, err := openSocket(host.Addr(), unix.SOCK_DGRAM, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	if err = unix.Bind(fd, sockaddr(host)); err == nil {
		if host.Addr().Is4() {
			err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_PKTINFO, 1)
		} else {
			err = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
	}
	var name unix.Sockaddr
	if err == nil {
		name, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return os.NewSyscallError("bind", err)
	}
	p.host, _ = fromSockaddr(name)
	_ = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
	m := &mapping{l: p.l, key: mapKey{proto: protoUDP, src: view}, pub: p}
	if err := m.attach(fd, "udp"); err != nil {
		return err
	}
	p.m = m
	return p.l.maps.publish(m)
}

// publish makes m, a mapping of a publication, one of those that are there for good.
func (t *mapTable) publish(m *mapping) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		_ = m.file.Close()
		return net.ErrClosed
	}
	t.pubs[m.key] = append(slices.Clone(t.pubs[m.key]), m)
	t.l.wg.Add(1)
	go m.read()
	return nil
}

// unpublish ends m.
func (t *mapTable) unpublish(m *mapping) {
	t.mu.Lock()
	defer t.mu.Unlock()
	left := slices.DeleteFunc(slices.Clone(t.pubs[m.key]), func(o *mapping) bool { return o == m })
	if t.pubs[m.key] = left; len(left) == 0 {
		delete(t.pubs, m.key)
	}
	_ = m.file.Close()
}

// published finds the mapping by which a published port of the view writes to a
// destination, and the client that this is. To others it writes by a port that is
// published at every address of the host: ok is then false.
func (t *mapTable) published(key mapKey, to addrPort) (m *mapping, c client, ok bool) {
	t.mu.Lock()
	all := t.pubs[key]
	t.mu.Unlock()
	for _, p := range all {
		if c, ok := p.pub.peer(to); ok {
			return p, c, true
		}
		if p.pub.host.Addr().IsUnspecified() {
			m = p
		}
	}
	return m, client{}, false
}

// A client is who has written to a UDP port.
type client struct {
	from  addrPort // on the host's network
	to    addr     // the host's own address that it has written to
	index int      // and the interface
}

// heard notes who has written to the port, and returns how the view knows them.
func (p *Publication) heard(c client) addrPort {
	seen := source(c.from)
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, again := p.peers[seen]; !again && len(p.peers) >= maxClients {
		for old := range p.peers { // any: whoever is still there writes again
			delete(p.peers, old)
			break
		}
	}
	p.peers[seen] = c
	return seen
}

// peer returns the client that the view knows as a.
func (p *Publication) peer(a addrPort) (client, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.peers[a]
	return c, ok
}

// fromMessage is the control message that chooses the source of one datagram:
// struct in_pktinfo or in6_pktinfo, ip(7) and ipv6(7).
func (c *client) fromMessage() []byte {
	level, typ, size := unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo
	if c.to.Is6() {
		level, typ, size = unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo
	}
	b := make([]byte, unix.CmsgSpace(size))
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(size)))
	binary.NativeEndian.PutUint32(b[8:], uint32(level))
	binary.NativeEndian.PutUint32(b[12:], uint32(typ))
	info := b[unix.CmsgLen(0):]
	if c.to.Is6() {
		copy(info, c.to.AsSlice())
		if c.from.Addr().IsLinkLocalUnicast() {
			binary.NativeEndian.PutUint32(info[16:], uint32(c.index))
		}
	} else {
		copy(info[4:], c.to.AsSlice())
	}
	return b
}
