// SPDX-License-Identifier: Apache-2.0

// Options, Open and Close: the life of a NAT link.

package nat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"umrun/stacks"
)

// The network that a view sees. It is the one of QEMU's and slirp's user
// networking, so that what people know of those holds here.
var (
	Net4     = netip.MustParsePrefix("10.0.2.0/24")
	Net6     = netip.MustParsePrefix("fd00:2::/64")
	Addr4    = netip.MustParseAddr("10.0.2.15") // the view's own address
	Addr6    = netip.MustParseAddr("fd00:2::15")
	Gateway4 = netip.MustParseAddr("10.0.2.2") // the host's loopback, if opened
	Gateway6 = netip.MustParseAddr("fd00:2::2")
	DNS4     = netip.MustParseAddr("10.0.2.3") // relays to the host's name servers
	DNS6     = netip.MustParseAddr("fd00:2::3")
)

// DefaultMTU is the link's MTU in bytes unless Options say otherwise. TCP does
// not care, it gets super-segments; large datagrams pass without fragments, and
// no TUN or stack refuses the value.
const DefaultMTU = 65520

const (
	nicID      = 1
	defaultMax = 4096 // bound of TCP connections being opened, and of UDP mappings
)

// Options say what the view may reach, and how. The zero value is useful: the
// host's network, its loopback closed, no name servers.
type Options struct {
	// HostLoopback lets [Gateway4] and [Gateway6] stand for the host's 127.0.0.1
	// and ::1. Otherwise no address leads to the host's loopback.
	HostLoopback bool

	// DNS is how the host resolves names, see [HostDNS]. Its servers are asked on
	// the view's behalf by the relay at [DNS4] and [DNS6], whether or not they are
	// on the host's loopback. Port 0 is 53.
	DNS stacks.DNS

	// Upstream, if set, carries TCP and UDP in the place of the host's sockets, to
	// every address but those at which the NAT itself answers. It then belongs to
	// the link. Nothing else leaves: pings and whatever there is get ICMP errors.
	Upstream stacks.Upstream

	// MTU in bytes of the network layer; 0 is [DefaultMTU].
	MTU int

	// MaxMappings bounds the UDP ports and ICMP echo identifiers of the view that
	// are mapped to host sockets at a time; beyond, the longest idle one goes.
	// 0 is 4096.
	MaxMappings int

	// Idle is after how long without a datagram a mapping goes; 0 is 5 minutes,
	// as RFC 4787 REQ-5 recommends.
	Idle time.Duration

	// Lease is for how long [Serve] gives an address; 0 is [DefaultLease].
	Lease time.Duration

	// Log takes warnings, once each; nil discards them.
	Log *slog.Logger
}

// A Link is the view's end of the NAT; it implements [stacks.Link] and
// [stacks.Offloads].
type Link struct {
	opts  Options
	log   *slog.Logger
	stack *stack.Stack // terminates the view's TCP, reassembles fragments
	dev   *device
	out   *queue
	guard loopback
	stats counters

	// ctx ends when Close begins; alive until then.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // every goroutine of this package; see enter
	done   chan struct{}  // closed when Close is through

	// life is held for reading by whoever works for the view on a goroutine that
	// wg does not count, and for writing to set closed: after that no goroutine
	// is started any more but by a counted one.
	life   sync.RWMutex
	closed bool // +checklocks:life

	syns  synTable // TCP connections being opened
	flows flowSet  // TCP connections relayed
	maps  mapTable // UDP ports and echo identifiers
	pubs  pubSet   // TCP ports of the host
	relay dnsRelay

	// readMu is held by Read: cur[next:] was taken from out and not yet read.
	readMu sync.Mutex
	cur    []packet // +checklocks:readMu
	next   int      // +checklocks:readMu

	warned sync.Map // what was warned of, by message
}

// Open makes the link and the private stack behind it. It opens no host socket
// and sends nothing until the view does. ctx bounds Open alone.
func Open(ctx context.Context, o Options) (*Link, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o.MTU == 0 {
		o.MTU = DefaultMTU
	}
	if o.MTU < 1280 || o.MTU > 65535 { // RFC 8200 §5
		return nil, fmt.Errorf("nat: MTU %d is not in 1280..65535", o.MTU)
	}
	if o.MaxMappings <= 0 {
		o.MaxMappings = defaultMax
	}
	if o.Idle <= 0 {
		o.Idle = 5 * time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	l := &Link{opts: o, log: o.Log, out: newQueue(), done: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.dev = &device{mtu: uint32(o.MTU), out: l.out}
	l.syns.init()
	l.flows.init()
	l.maps.init(l)
	if err := l.newStack(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// newStack makes the private stack: every address is its own (promiscuous), and
// it sends from every address (spoofing).
func (l *Link) newStack() error {
	l.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	if err := tuneTCP(l.stack); err != nil {
		return err
	}
	var err tcpip.Error
	check := func(what string, e tcpip.Error) {
		if err == nil && e != nil {
			l.log.Error("private stack", "step", what, "err", e)
			err = e
		}
	}
	check("nic", l.stack.CreateNIC(nicID, l.dev))
	check("promiscuous", l.stack.SetPromiscuousMode(nicID, true))
	check("spoofing", l.stack.SetSpoofing(nicID, true))
	if err != nil {
		return fmt.Errorf("nat: set up the private stack: %v", err)
	}
	l.stack.SetRouteTable([]tcpip.Route{
		{Destination: subnet(netip.MustParsePrefix("0.0.0.0/0")), NIC: nicID},
		{Destination: subnet(netip.MustParsePrefix("::/0")), NIC: nicID},
	})
	l.handleTCP()
	l.handleFragmentedUDP()
	return nil
}

// enter says that the caller works for the view; false means that the link is
// closed. Between enter and leave goroutines may be started and counted by wg.
func (l *Link) enter() bool {
	l.life.RLock()
	if l.closed {
		l.life.RUnlock()
		return false
	}
	return true
}

func (l *Link) leave() { l.life.RUnlock() }

// Close resets every connection on both sides, but for what the view has sent to its end
// towards the host, closes the host's sockets and
// waits for all goroutines. Blocked and later Read and Write return
// net.ErrClosed. Twice is fine.
func (l *Link) Close() error {
	l.life.Lock()
	first := !l.closed
	l.closed = true
	l.life.Unlock()
	if !first {
		<-l.done
		return nil
	}
	l.cancel()
	l.out.close()
	l.pubs.closeAll()
	l.flows.leaveAll()
	l.maps.closeAll()
	var err error
	if l.opts.Upstream != nil {
		err = l.opts.Upstream.Close()
	}
	l.wg.Wait()
	l.stack.Destroy()
	l.readMu.Lock()
	for _, p := range l.cur[l.next:] {
		p.drop()
	}
	l.cur, l.next = nil, 0
	l.readMu.Unlock()
	close(l.done)
	return err
}

// warn logs msg at most once in the life of the link.
func (l *Link) warn(msg string, args ...any) {
	if _, again := l.warned.LoadOrStore(msg, true); !again {
		l.log.Warn(msg, args...)
	}
}

// A Config is what a view's stack has to be told about this network.
type Config struct {
	Addrs  []netip.Prefix
	Routes []stacks.Route // IfIndex is for the caller to fill in
	DNS    stacks.DNS
	MTU    int // bytes of the network layer
}

// Config returns the view's addresses, its default routes, and the relay as its
// name server if there is any server to relay to.
func (l *Link) Config() Config {
	c := Config{
		Addrs: []netip.Prefix{
			netip.PrefixFrom(Addr4, Net4.Bits()),
			netip.PrefixFrom(Addr6, Net6.Bits()),
		},
		Routes: []stacks.Route{
			{Dst: Net4, Src: Addr4},
			{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Gateway: Gateway4, Src: Addr4},
			{Dst: Net6, Src: Addr6},
			{Dst: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Gateway: Gateway6, Src: Addr6},
		},
		MTU: l.opts.MTU,
	}
	c.DNS.Search = append(c.DNS.Search, l.opts.DNS.Search...)
	if len(l.opts.DNS.Servers) > 0 {
		c.DNS.Servers = []netip.AddrPort{netip.AddrPortFrom(DNS4, dnsPort)}
	}
	return c
}

var (
	_ stacks.Link     = (*Link)(nil)
	_ stacks.Offloads = (*Link)(nil)
)
