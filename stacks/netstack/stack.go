// SPDX-License-Identifier: Apache-2.0

// The stack: configuration, interfaces, routes, life and death.

package netstack

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"umrun/stacks"
)

// Interface indices: the loopback interface, then the links in order.
const (
	loopbackNIC  = 1
	firstLinkNIC = 2
)

// Buffer sizes, bytes. 8 MiB of window is worth 1.4 to 1.7 times the throughput
// at 20 ms; the receive buffer grows to it only as a connection needs it.
const (
	defaultTCPBuf  = 1 << 20
	defaultRcvMax  = 8 << 20
	defaultSndMax  = 6 << 20
	defaultPktBuf  = 212992 // net.core.rmem_default and wmem_default
	maxPktBuf      = 2 * bufMax
	minPktBuf      = stack.MinBufferSize
	loopbackMTU    = 65536 // of lo; see drivers/net/loopback.c
	maxName        = 15    // IFNAMSIZ - 1
	firstEphemeral = 32768 // ip_local_port_range
	lastEphemeral  = 60999
)

// Config describes a stack. The zero value is one with only a loopback
// interface.
type Config struct {
	Links []stacks.LinkConfig // the stack owns them from the moment that New returns without an error
	DNS   stacks.DNS

	// CongestionControl is "cubic" (the default; for wide-area networks) or
	// "reno" (up to twice as fast where the round trip is short).
	CongestionControl string

	RcvBufMax int // most bytes of a TCP receive buffer; 8 MiB if zero
	SndBufMax int // most bytes of a TCP send buffer; 6 MiB if zero

	Log *slog.Logger // nil: nothing is logged

	giveUp time.Duration // giveUpTime if zero; for tests
}

// A Stack is a userspace TCP/IP stack. It is safe for concurrent use.
type Stack struct {
	gv     *stack.Stack
	links  linkTable
	log    *slog.Logger
	warned sync.Map // keys of differences that were logged
	queues sendQueues
	early  earlyErrors
	raws   rawHub
	taps   taps
	loop   *loopEndpoint

	bypasses  bypasses  // connections whose bytes do not pass here
	directory directory // of datagram sockets
	paths     paths
	urgent    urgents

	setMu sync.Mutex // one SetState at a time
	state atomic.Pointer[stacks.State]

	dad     detections
	notices notices

	policy   atomic.Pointer[policy]
	steering sync.RWMutex // held while gVisor looks for a route that was judged; for writing while its table changes

	closed    atomic.Bool
	closeOnce sync.Once
	done      chan struct{}  // closed by Close
	wg        sync.WaitGroup // watchQueues
	tasks     tasks
}

var _ stacks.Stack = (*Stack)(nil)

// New makes a stack. On error the links remain the caller's.
func New(c Config) (*Stack, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	s := &Stack{log: c.Log, done: make(chan struct{})}
	s.raws.st = s
	s.policy.Store(&policy{plain: true}) // what leaves while interfaces are made
	s.urgent.queues = &s.queues
	s.loop = newLoop(&s.taps)
	s.gv = stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{
			s.failing(ipv4.NewProtocolWithOptions(ipv4.Options{IGMP: ipv4.IGMPOptions{Enabled: true}})),
			// Duplicate address detection is turned on where it has a meaning;
			// package netconf deals with router advertisements.
			s.failing(ipv6.NewProtocolWithOptions(ipv6.Options{MLD: ipv6.MLDOptions{Enabled: true}})),
			arp.NewProtocol,
		},
		TransportProtocols: append([]stack.TransportProtocolFactory{
			tcp.NewProtocolProbe(s.queues.observe),
			udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
		}, s.otherProtocols(tcp.ProtocolNumber, udp.ProtocolNumber, icmp.ProtocolNumber4, icmp.ProtocolNumber6)...),
		HandleLocal: true,
		NUDDisp:     learner{s},
	})
	if err := s.tune(c); err != nil {
		s.gv.Destroy()
		return nil, err
	}
	if err := s.observeICMP(); err != nil {
		s.gv.Destroy()
		return nil, fmt.Errorf("observe ICMP: %w", err)
	}
	if err := s.configure(c); err != nil {
		s.gv.Destroy()
		return nil, err
	}
	for _, e := range s.links.all() {
		e.start()
	}
	if c.giveUp == 0 {
		c.giveUp = giveUpTime
	}
	s.wg.Add(1)
	go s.watchQueues(c.giveUp)
	return s, nil
}

// check refuses what cannot be configured.
func (c *Config) check() error {
	names := map[string]bool{"lo": true}
	for _, l := range c.Links {
		switch {
		case l.Link == nil:
			return fmt.Errorf("interface %q has no link", l.Name)
		case l.Name == "" || len(l.Name) > maxName:
			return fmt.Errorf("interface name %q must have 1 to %d bytes", l.Name, maxName)
		case names[l.Name]:
			return fmt.Errorf("interface name %q is used twice", l.Name)
		case !checkMAC(&l):
			return fmt.Errorf("interface %q: %s is no address for it", l.Name, l.MAC)
		case linkMTU(&l) < header.IPv4MinimumMTU || linkMTU(&l) > 65535:
			return fmt.Errorf("interface %q: MTU %d is not between %d and 65535", l.Name, linkMTU(&l), header.IPv4MinimumMTU)
		}
		names[l.Name] = true
		for _, r := range l.Routes {
			if !r.Dst.IsValid() {
				return fmt.Errorf("interface %q: route without destination", l.Name)
			}
		}
	}
	return nil
}

// linkMTU returns the MTU that an interface begins with, bytes.
func linkMTU(l *stacks.LinkConfig) int {
	if l.MTU != 0 {
		return l.MTU
	}
	return l.Link.MTU()
}

// tune sets the protocol options.
func (s *Stack) tune(c Config) error {
	if c.CongestionControl == "" {
		c.CongestionControl = "cubic"
	}
	if c.RcvBufMax == 0 {
		c.RcvBufMax = defaultRcvMax
	}
	if c.SndBufMax == 0 {
		c.SndBufMax = defaultSndMax
	}
	sack := tcpip.TCPSACKEnabled(true)
	moderate := tcpip.TCPModerateReceiveBufferOption(true) // without it 4 times slower at 20 ms
	// RACK, which copes better with paths that reorder, is off. Its tail loss probe
	// stops the retransmission timer, and when it has fired the timer is started
	// again only if data is outstanding, as this version of gVisor counts it, which
	// leaves a FIN out: a connection whose FIN was lost, or overtook its last data,
	// then waits for ever (rack.go, schedulePTO and probeTimerExpired).
	recovery := tcpip.TCPRecovery(0)
	cc := tcpip.CongestionControlOption(c.CongestionControl)
	nagle := tcpip.TCPDelayEnabled(true) // as Linux; TCP_NODELAY turns it off
	rcv := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: min(defaultTCPBuf, c.RcvBufMax), Max: c.RcvBufMax}
	snd := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: min(defaultTCPBuf, c.SndBufMax), Max: c.SndBufMax}
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &recovery, &cc, &nagle, &rcv, &snd} {
		if err := s.gv.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("set TCP option %T: %s", o, err)
		}
	}
	for _, o := range []any{
		tcpip.SendBufferSizeOption{Min: minPktBuf, Default: defaultPktBuf, Max: maxPktBuf},
		tcpip.ReceiveBufferSizeOption{Min: minPktBuf, Default: defaultPktBuf, Max: maxPktBuf},
	} {
		if err := s.gv.SetOption(o); err != nil {
			return fmt.Errorf("set option %T: %s", o, err)
		}
	}
	if err := s.gv.SetPortRange(firstEphemeral, lastEphemeral); err != nil {
		return fmt.Errorf("set port range: %s", err)
	}
	return nil
}

// configure makes the interfaces and the route table.
func (s *Stack) configure(c Config) error {
	st := stacks.State{DNS: c.DNS}
	loop := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("::1/128")}
	if err := s.addInterface(&st, stacks.Interface{
		Index: loopbackNIC, Name: "lo", Loop: true, Up: true, MTU: loopbackMTU, Addrs: loop,
	}, s.loop, nil); err != nil {
		return err
	}
	for _, l := range c.Links {
		if _, err := s.addLink(&st, l, true); err != nil {
			return err
		}
	}
	s.setPolicy(st)
	s.state.Store(&st)
	return nil
}

// addLink makes the interface of a link and records it in st.
func (s *Stack) addLink(st *stacks.State, l stacks.LinkConfig, up bool) (*endpoint, error) {
	e := s.newLink(l.Link, s.links.next(), linkMTU(&l), s.log.With("link", l.Name))
	ifc := stacks.Interface{Index: e.index, Name: l.Name, Type: l.Link.Type(), Up: up, MTU: linkMTU(&l), Addrs: l.Addrs}
	if e.ether {
		ifc.MAC = slices.Clone(l.MAC)
		if ifc.MAC == nil {
			ifc.MAC = newMAC()
		}
		e.SetLinkAddress(tcpip.LinkAddress(ifc.MAC))
		if !slices.ContainsFunc(l.Addrs, func(p netip.Prefix) bool { return p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() }) {
			ifc.Addrs = append(slices.Clone(l.Addrs), linkLocal(ifc.MAC))
		}
	}
	s.links.add(e)
	if err := s.addInterface(st, ifc, e, l.Routes); err != nil {
		return nil, err
	}
	return e, nil
}

// addInterface makes one interface and records it in st.
func (s *Stack) addInterface(st *stacks.State, ifc stacks.Interface, ep stack.LinkEndpoint, routes []stacks.Route) error {
	id := tcpip.NICID(ifc.Index)
	if err := s.gv.CreateNICWithOptions(id, ep, stack.NICOptions{Name: ifc.Name, Disabled: !ifc.Up}); err != nil {
		return fmt.Errorf("make interface %s: %s", ifc.Name, err)
	}
	for _, p := range ifc.Addrs {
		if err := s.addAddress(id, &ifc, p); err != nil {
			return fmt.Errorf("interface %s: %w", ifc.Name, err)
		}
		// Linux lists a single address of IPv6 as a network of its own.
		if net := p.Masked(); !ifc.Loop && ifc.Up && (!p.IsSingleIP() || p.Addr().Is6()) {
			st.Routes = append(st.Routes, stacks.Route{Dst: net, Src: p.Addr(), IfIndex: ifc.Index})
		}
	}
	for _, r := range routes {
		if !r.Gateway.IsValid() && slices.ContainsFunc(st.Routes, func(o stacks.Route) bool { return o.Dst == r.Dst.Masked() && o.IfIndex == ifc.Index }) {
			continue // an address has brought it
		}
		st.Routes = append(st.Routes, stacks.Route{Dst: r.Dst.Masked(), Gateway: r.Gateway, Src: r.Src, IfIndex: ifc.Index})
	}
	// gVisor is in the group of all nodes of a link, Linux in that of an
	// interface's own too (net/ipv6/mcast.c:ipv6_mc_init_dev).
	own := tcpip.AddrFrom16(netip.MustParseAddr("ff01::1").As16())
	if err := s.gv.JoinGroup(ipv6.ProtocolNumber, id, own); err != nil {
		return fmt.Errorf("interface %s: join its own group: %s", ifc.Name, err)
	}
	st.Interfaces = append(st.Interfaces, ifc)
	return nil
}

// Socket makes a socket, socket(2).
func (s *Stack) Socket(family, typ, proto int) (stacks.Socket, error) {
	if s.closed.Load() {
		return nil, unix.ENETDOWN
	}
	if family != unix.AF_INET && family != unix.AF_INET6 {
		return nil, unix.EAFNOSUPPORT
	}
	// IPPROTO_MAX of linux/in.h, MPTCP included.
	if proto < 0 || proto > unix.IPPROTO_MPTCP {
		return nil, unix.EINVAL
	}
	switch typ {
	case unix.SOCK_STREAM:
		if proto != 0 && proto != unix.IPPROTO_TCP {
			return nil, unix.EPROTONOSUPPORT
		}
		return newStream(s, family)
	case unix.SOCK_DGRAM:
		switch {
		case proto == 0 || proto == unix.IPPROTO_UDP:
			return newPacket(s, family, unix.IPPROTO_UDP)
		case family == unix.AF_INET && proto == unix.IPPROTO_ICMP,
			family == unix.AF_INET6 && proto == unix.IPPROTO_ICMPV6:
			return newPacket(s, family, proto)
		}
		return nil, unix.EPROTONOSUPPORT
	case unix.SOCK_RAW:
		if proto == 0 {
			return nil, unix.EPROTONOSUPPORT
		}
		// What CAP_NET_RAW is for on the host's network, anybody may do here: the
		// view is the program's own.
		return newRaw(s, family, proto)
	}
	return nil, unix.ESOCKTNOSUPPORT
}

// Close resets every connection, closes the links and waits for the stack's
// goroutines. Closing twice is fine.
func (s *Stack) Close() error {
	s.closeOnce.Do(func() {
		s.closed.Store(true)
		s.await()
		close(s.done)
		s.wg.Wait()
		s.tasks.close()
		// Resets go out while the links still run; Destroy waits with locks
		// held that the links' goroutines want, hence this order.
		s.gv.Close()
		for _, e := range s.links.all() {
			e.close()
		}
		s.gv.Destroy()
	})
	return nil
}

// tellOnce notes a difference from Linux that the program may notice, once: in the log,
// since a person who did not write the program can do nothing about it.
func (s *Stack) tellOnce(key, msg string, args ...any) {
	if _, again := s.warned.LoadOrStore(key, true); !again {
		s.log.Info(msg, args...)
	}
}
