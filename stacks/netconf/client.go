// SPDX-License-Identifier: Apache-2.0

// The client: one goroutine that all protocols share.

package netconf

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"umrun/stacks"
	"umrun/stacks/offload"
)

// Words say where an interface has its configuration from.
type Words struct {
	DHCP  bool // DHCPv4
	DHCP6 bool // DHCPv6, whether routers say so or not
	SLAAC bool // addresses from router advertisements, and what RD has
	RD    bool // routes and name servers from router advertisements
	Auto  bool // DHCPv4 and SLAAC, and DHCPv6 as far as routers say so
}

// Any tells whether there is anything to be learned.
func (w Words) Any() bool { return w != Words{} }

// v4, routers, slaac and v6 say who is asked: DHCP, routers, they for addresses, anybody of IPv6.
func (w Words) v4() bool      { return w.DHCP || w.Auto }
func (w Words) routers() bool { return w.SLAAC || w.RD || w.Auto }
func (w Words) slaac() bool   { return w.SLAAC || w.Auto }
func (w Words) v6() bool      { return w.DHCP6 || w.routers() }

// Config says what a client asks for, and as whom.
type Config struct {
	Words
	Name string           // of the interface, for messages
	MAC  net.HardwareAddr // of the interface, 6 bytes

	// FQDN is the name that the host has, or wants to have; empty: it tells none.
	FQDN string

	// Gateways stand in the place of the routers that are learned for the family of
	// each. Routed4 and Routed6 say that a family has its default route already.
	Gateways         []netip.Addr
	Routed4, Routed6 bool

	// MTU is that of the interface where a person has set it; then none is learned.
	MTU int

	Log *slog.Logger // nil: nothing is logged
}

// backlog is how many frames may wait for the client; more come only from who floods.
const backlog = 64

// A Client configures one interface. Its link carries the stack's frames from the
// moment it is made; it asks for nothing before Start.
type Client struct {
	conf  Config
	link  *link
	lower stacks.Link
	log   *slog.Logger
	ll    netip.Addr // the link-local address of the interface

	frames chan packet   // cap backlog
	quit   chan struct{} // closed by close
	poked  chan struct{} // cap 1: the interface may have become another one
	done   chan struct{} // closed when the goroutine has ended
	ready  chan struct{} // closed when Wait has nothing to wait for

	closeOnce sync.Once
	closeErr  error

	mu      sync.Mutex // guards what follows; held for short, and with nothing else
	started bool
	status  Status

	// What follows belongs to the goroutine.
	index   int // of the interface
	apply   func(old, next stacks.Settings) error
	isUp    func() bool
	wasUp   bool
	applied stacks.Settings
	failed  string // why applying failed last
	began   time.Time
	isReady bool
	first   time.Time // when the first protocol was done
	dhcp4   *dhcp4
	dhcp6   *dhcp6
	routers *routers
	sent    tally
	heard   tally
}

// New makes a client over lower, which must be an Ethernet link and which the client's
// link owns from here on.
func New(lower stacks.Link, conf Config) (*Client, error) {
	switch {
	case lower.Type() != stacks.LinkEthernet:
		return nil, errors.New("netconf: only an Ethernet link can be configured by its network")
	case len(conf.MAC) != 6 || conf.MAC[0]&1 != 0:
		return nil, fmt.Errorf("netconf: %q is no address of an interface", conf.MAC)
	}
	if conf.Log == nil {
		conf.Log = slog.New(slog.DiscardHandler)
	}
	c := &Client{
		conf: conf, lower: lower, log: conf.Log.With("link", conf.Name), ll: LinkLocal(conf.MAC),
		frames: make(chan packet, backlog), poked: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}), ready: make(chan struct{}),
	}
	c.link = &link{Link: lower, c: c}
	if o, ok := lower.(stacks.Offloads); ok && o.Offloads() {
		c.link.head = offload.HdrLen
	}
	if conf.v4() {
		c.dhcp4 = &dhcp4{c: c}
	}
	if conf.routers() {
		c.routers = newRouters(c)
	}
	if conf.DHCP6 || conf.Auto {
		c.dhcp6 = newDHCP6(c)
	}
	return c, nil
}

// Link returns the link for the stack. Closing it ends the client, which gives back
// what it has leased, and closes the link below.
func (c *Client) Link() stacks.Link {
	if t, ok := c.lower.(stacks.TryWriter); ok {
		return &tryLink{c.link, t}
	}
	return c.link
}

// Start begins to ask. index is that of the interface in the stack, which must be
// running. apply is called by one goroutine at a time, with what was applied before and
// what the interface shall have instead; it may be called until Link().Close returns.
// isUp tells whether the interface is up; it is called by the same goroutine.
func (c *Client) Start(index int, apply func(old, next stacks.Settings) error, isUp func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.quit:
		return
	default:
	}
	if c.started {
		return
	}
	c.started, c.index, c.apply, c.isUp = true, index, apply, isUp
	go c.run() // close waits for it
}

// Changed says that the interface may have gone down or come up. It does not wait and
// may be called with any locks held.
func (c *Client) Changed() {
	select {
	case c.poked <- struct{}{}:
	default: // it will look
	}
}

// look gives an interface that has come up again what it lost when it went down: its
// routes, and all of IPv6. Routers are asked, as Linux does.
func (c *Client) look(now time.Time) {
	was := c.wasUp
	if c.wasUp = c.isUp(); was || !c.wasUp {
		return
	}
	c.applied = stacks.Settings{MTU: c.mtu()}
	if c.routers != nil {
		c.routers.wait = 0
		c.routers.solicit(now)
	}
}

// A protocol is one of those that the client speaks. Its methods are called by the
// client's goroutine.
type protocol interface {
	begin(now time.Time)
	// next is when tick is to be called; zero: not at all.
	next() time.Time
	tick(now time.Time)
	receive(now time.Time, p packet)
	// settings adds what was learned to s.
	settings(now time.Time, s *stacks.Settings)
	// state tells how far the protocol is.
	state() progress
	// end gives back what was leased. It does not wait for answers.
	end()
}

// protocols are those in use.
func (c *Client) protocols() []protocol {
	var all []protocol
	if c.dhcp4 != nil {
		all = append(all, c.dhcp4)
	}
	if c.dhcp6 != nil { // before the routers: its name servers come first, RFC 8106 §5.3.1
		all = append(all, c.dhcp6)
	}
	if c.routers != nil {
		all = append(all, c.routers)
	}
	return all
}

// run is the client's goroutine.
func (c *Client) run() {
	defer close(c.done)
	all := c.protocols()
	c.applied.MTU, c.wasUp = c.mtu(), c.isUp()
	c.began = time.Now()
	for _, p := range all {
		p.begin(c.began)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		c.settle(now)
		when := c.readyAt(now)
		for _, p := range all {
			when = earlier(when, p.next())
		}
		if when.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(when.Sub(now), 0))
		}
		select {
		case <-c.quit:
			for _, p := range all {
				p.end()
			}
			return
		case p := <-c.frames:
			now = time.Now()
			for _, x := range all {
				x.receive(now, p)
			}
		case <-c.poked:
			c.look(time.Now())
		case <-timer.C:
		}
		now = time.Now()
		for _, p := range all {
			if at := p.next(); !at.IsZero() && !at.After(now) {
				p.tick(now)
			}
		}
	}
}

// earlier is the first of two moments, of which zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// settle applies what has changed, and tells who waits.
func (c *Client) settle(now time.Time) {
	var s stacks.Settings
	for _, p := range c.protocols() {
		p.settings(now, &s)
	}
	if slices.ContainsFunc(s.Addrs, func(a stacks.Address) bool { return a.Prefix.Addr().Is6() }) {
		for _, gw := range c.conf.Gateways {
			if gw.Is6() {
				s.Routes = append(s.Routes, stacks.Route{
					Dst: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Gateway: gw, IfIndex: c.index, Metric: metricRouter, OnLink: !gw.IsLinkLocalUnicast(),
				})
			}
		}
	}
	s.DNS.Servers, s.DNS.Search = unique(s.DNS.Servers), unique(s.DNS.Search)
	if s.MTU == 0 || s.MTU > c.mtu() || c.conf.MTU != 0 {
		s.MTU = c.mtu()
	}
	if !reflect.DeepEqual(s, c.applied) {
		err := c.apply(c.applied, s)
		if err == nil {
			c.applied, c.failed = s, ""
		} else if err.Error() != c.failed { // it is tried again with whatever happens next
			c.failed = err.Error()
			c.log.Error("configure the interface", "err", err)
		}
	}
	c.tell(now)
}

// mtu is what the interface begins with, bytes.
func (c *Client) mtu() int {
	if c.conf.MTU != 0 {
		return c.conf.MTU
	}
	return c.lower.MTU()
}

func unique[T comparable](all []T) []T {
	var out []T
	for _, x := range all {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}

// releaseTime is how long close waits for the link to take what is said last.
const releaseTime = 200 * time.Millisecond

// close ends the client and the link below.
func (c *Client) close() error {
	c.closeOnce.Do(func() {
		c.mu.Lock()
		close(c.quit)
		started := c.started
		c.mu.Unlock()
		if started {
			t := time.NewTimer(releaseTime)
			defer t.Stop()
			select {
			case <-c.done:
			case <-t.C: // a link that takes nothing lets go when it is closed
			}
		}
		c.closeErr = c.lower.Close()
		if started {
			<-c.done
		}
	})
	return c.closeErr
}

// send sends a frame that is counted as what.
func (c *Client) send(what string, frame []byte) {
	c.sent.add(what)
	if err := c.link.send(frame); err != nil && !errors.Is(err, net.ErrClosed) {
		c.log.Debug("frame lost", "what", what, "err", err)
	}
}

// transaction makes up a number that others do not guess; it is not zero.
func transaction() uint32 {
	var b [4]byte
	rand.Read(b[:]) // cannot fail
	return binary.BigEndian.Uint32(b[:]) | 1
}

// jitter is d, a tenth more or less, so that clients which began together part.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((mrand.Float64()*2-1)*float64(d)/10)
}

// tally counts messages by name, in the order in which they were first seen.
type tally struct {
	names  []string
	counts map[string]int
}

func (t *tally) add(name string) {
	if t.counts == nil {
		t.counts = make(map[string]int)
	}
	if t.counts[name] == 0 {
		t.names = append(t.names, name)
	}
	t.counts[name]++
}
