// SPDX-License-Identifier: Apache-2.0

// Routers: what they advertise, RFC 4861 §6.3, and the addresses that follow from it,
// RFC 4862 §5.5.

package netconf

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// Times of router solicitations: those of RFC 7559 §2, which go on, with an hour
// between them at last. A second one follows soon: the port of a bridge or switch that
// the link has just come up at may not forward the first.
const (
	quickSolicit = time.Second
	firstSolicit = 4 * time.Second
	lastSolicit  = time.Hour
)

// Bounds on what is kept, so that who floods the link finds no room.
const (
	maxRouters  = 16
	maxPrefixes = 16 // of all routers
	maxNames    = 16 // servers and search domains, of each router
)

// twoHours is below what an advertisement may shorten the life of an address to, since
// anybody on the link can send one (RFC 4862 §5.5.3 (e)).
const twoHours = 2 * time.Hour

// Metrics of what Linux takes from routers: IP6_RT_PRIO_ADDRCONF and IP6_RT_PRIO_USER.
// Preferences stand around the latter.
const (
	metricPrefix = 256
	metricRouter = 1024
)

// minMTU6 is the least MTU of IPv6, RFC 8200 §5.
const minMTU6 = 1280

// routers is what is known from advertisements.
type routers struct {
	c        *Client
	at       time.Time // of the next solicitation; zero: none
	wait     time.Duration
	all      []*router // in the order in which they were heard first
	prefixes []*prefix // likewise
	dad      duplicates
	adverts  int
	trouble  string
}

// A router is who sends advertisements.
type router struct {
	addr           netip.Addr // link-local
	until          time.Time  // as a default router; zero: for ever
	isDefault      bool
	preference     int
	mtu            int // 0: not said
	managed, other bool
	routes         []heardRoute
	servers        []heardServer
	search         []heardSearch
}

type heardRoute struct {
	prefix     netip.Prefix
	preference int
	until      time.Time
}

type heardServer struct {
	addr  netip.Addr
	until time.Time
}

type heardSearch struct {
	domain string
	until  time.Time
}

// A prefix is one of the link, or of addresses on it. Which router has said so does not
// matter.
type prefix struct {
	prefix    netip.Prefix
	onLink    bool
	linkUntil time.Time // zero: for ever
	auto      bool      // there is an address of it
	addr      netip.Addr
	got       time.Time
	preferred time.Time // zero: for ever
	valid     time.Time
	mtu       int
}

func newRouters(c *Client) *routers { return &routers{c: c, dad: duplicates{c: c}} }

func (r *routers) begin(now time.Time) {
	r.c.wantNeighbours()
	r.solicit(now)
}

// solicit asks for advertisements, and again until there is one.
func (r *routers) solicit(now time.Time) {
	r.c.send("router solicitation", routerSolicit(r.c.conf.MAC, r.c.ll))
	switch {
	case r.wait == 0:
		r.wait = quickSolicit
	case r.wait < firstSolicit:
		r.wait = firstSolicit
	default:
		r.wait = min(2*r.wait, lastSolicit)
	}
	r.at = now.Add(jitter(r.wait))
}

// ends are the moments at which something of what is known ends.
func (r *routers) ends(f func(t time.Time)) {
	for _, x := range r.all {
		if x.isDefault {
			f(x.until)
		}
		for _, y := range x.routes {
			f(y.until)
		}
		for _, y := range x.servers {
			f(y.until)
		}
		for _, y := range x.search {
			f(y.until)
		}
	}
	for _, p := range r.prefixes {
		if p.onLink {
			f(p.linkUntil)
		}
		if p.auto {
			f(p.valid)
			if p.preferred != epoch {
				f(p.preferred)
			}
		}
	}
}

func (r *routers) next() time.Time {
	at := earlier(r.at, r.dad.next())
	r.ends(func(t time.Time) { at = earlier(at, t) })
	return at
}

func (r *routers) tick(now time.Time) {
	if passed(r.at, now) {
		r.solicit(now)
	}
	r.dad.tick(now)
	r.expire(now)
}

// expire forgets what has ended.
func (r *routers) expire(now time.Time) {
	for _, x := range r.all {
		x.isDefault = x.isDefault && !passed(x.until, now)
		x.routes = slices.DeleteFunc(x.routes, func(y heardRoute) bool { return passed(y.until, now) })
		x.servers = slices.DeleteFunc(x.servers, func(y heardServer) bool { return passed(y.until, now) })
		x.search = slices.DeleteFunc(x.search, func(y heardSearch) bool { return passed(y.until, now) })
	}
	r.all = slices.DeleteFunc(r.all, func(x *router) bool {
		return !x.isDefault && len(x.routes)+len(x.servers)+len(x.search) == 0
	})
	for _, p := range r.prefixes {
		p.onLink = p.onLink && !passed(p.linkUntil, now)
		if p.auto && passed(p.valid, now) {
			p.auto = false
			r.dad.forget(p.addr)
			r.c.log.Info("the address has ended", "addr", p.addr)
		}
		if passed(p.preferred, now) { // it is told by now; what it means is in settings
			p.preferred = epoch
		}
	}
	r.prefixes = slices.DeleteFunc(r.prefixes, func(p *prefix) bool { return !p.onLink && !p.auto })
}

// epoch is a moment that has passed, for what is told of it and not waited for.
var epoch = time.Unix(0, 0)

func (r *routers) receive(now time.Time, p packet) {
	if p.proto != unix.IPPROTO_ICMPV6 {
		return
	}
	if p.data[0] != typeRouterAdvert {
		r.dad.receive(p)
		for _, x := range r.prefixes {
			if mac, taken := r.dad.taken(x.addr); taken && x.auto && r.trouble == "" {
				r.trouble = x.addr.String() + " is in use by " + mac.String()
				r.c.log.Warn("the address that follows from the prefix is in use", "addr", x.addr, "mac", mac)
			}
		}
		return
	}
	// RFC 4861 §6.1.2.
	if p.hops != hopLimit || !p.from.IsLinkLocalUnicast() || p.from == r.c.ll {
		return
	}
	if a, ok := parseAdvert(p.data); ok {
		r.c.heard.add("router advertisement")
		r.advertised(now, p.from, a)
	}
}

// advertised takes an advertisement.
func (r *routers) advertised(now time.Time, from netip.Addr, a advert) {
	r.adverts++
	if a.router > 0 || len(a.prefixes) > 0 { // RFC 7559 §2.1: a router is there
		r.at = time.Time{}
	}
	i := slices.IndexFunc(r.all, func(x *router) bool { return x.addr == from })
	if i < 0 && len(r.all) < maxRouters {
		r.all = append(r.all, &router{addr: from})
		i = len(r.all) - 1
	}
	if i >= 0 {
		r.all[i].say(now, a)
	}
	for _, p := range a.prefixes {
		r.prefixed(now, p, r.usable(a.mtu))
	}
	r.expire(now)
	if d := r.c.dhcp6; d != nil {
		var managed, other bool
		for _, x := range r.all {
			managed, other = managed || x.managed, other || x.other
		}
		d.advised(now, managed || a.managed, other || a.other)
	}
}

// usable is an MTU as far as the link can carry it and IPv6 allows, else 0.
func (r *routers) usable(mtu int) int {
	if mtu < minMTU6 || mtu >= r.c.mtu() {
		return 0
	}
	return mtu
}

// say takes what a router says of itself.
func (x *router) say(now time.Time, a advert) {
	x.isDefault, x.until, x.preference = a.router > 0, a.router.until(now), a.preference
	x.managed, x.other = a.managed, a.other
	if a.mtu != 0 {
		x.mtu = a.mtu
	}
	for _, o := range a.routes {
		if o.prefix.Bits() == 0 { // RFC 4191 §3.1: it stands for what the header says
			x.isDefault, x.until, x.preference = o.life > 0, o.life.until(now), o.preference
			continue
		}
		if o.prefix.Addr().IsMulticast() || o.prefix.Addr().IsLinkLocalUnicast() {
			continue
		}
		y := heardRoute{o.prefix, o.preference, o.life.until(now)}
		x.routes = put(x.routes, y, func(z heardRoute) bool { return z.prefix == o.prefix }, o.life > 0)
	}
	for _, o := range a.servers {
		if nameServer6(o.addr) {
			y := heardServer{o.addr, o.life.until(now)}
			x.servers = put(x.servers, y, func(z heardServer) bool { return z.addr == o.addr }, o.life > 0)
		}
	}
	for _, o := range a.search {
		y := heardSearch{o.domain, o.life.until(now)}
		x.search = put(x.search, y, func(z heardSearch) bool { return z.domain == o.domain }, o.life > 0)
	}
}

// put replaces or adds y, or removes it if it does not live.
func put[T any](all []T, y T, same func(T) bool, lives bool) []T {
	i := slices.IndexFunc(all, same)
	switch {
	case i >= 0 && lives:
		all[i] = y
	case i >= 0:
		all = slices.Delete(all, i, i+1)
	case lives && len(all) < maxNames:
		all = append(all, y)
	}
	return all
}

// prefixed takes a prefix information option.
func (r *routers) prefixed(now time.Time, o prefixInfo, mtu int) {
	a := o.prefix.Addr()
	if a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() && o.prefix.Bits() > 0 || a.Is4In6() || o.prefix.Bits() == 0 {
		return
	}
	i := slices.IndexFunc(r.prefixes, func(p *prefix) bool { return p.prefix == o.prefix })
	if i < 0 {
		if o.valid == 0 || len(r.prefixes) >= maxPrefixes || !o.onLink && !o.auto {
			return
		}
		r.prefixes = append(r.prefixes, &prefix{prefix: o.prefix})
		i = len(r.prefixes) - 1
	}
	p := r.prefixes[i]
	p.mtu = mtu
	if o.onLink { // RFC 4861 §6.3.4: without the flag nothing is said
		p.onLink, p.linkUntil = o.valid > 0, o.valid.until(now)
	}
	// The rest is RFC 4862 §5.5.3.
	if !o.auto || !r.c.conf.slaac() || o.preferred > o.valid || o.prefix.Bits() != 64 {
		return
	}
	switch {
	case !p.auto && o.valid == 0:
		return
	case !p.auto:
		p.auto, p.addr, p.got = true, eui64(o.prefix, r.c.conf.MAC), now
		p.preferred, p.valid = o.preferred.until(now), o.valid.until(now)
		r.dad.ask(now, p.addr)
		return
	}
	p.preferred = o.preferred.until(now)
	switch next := o.valid.until(now); {
	case next.IsZero() || next.Sub(now) > twoHours || !p.valid.IsZero() && next.After(p.valid):
		p.valid = next
	case !p.valid.IsZero() && p.valid.Sub(now) <= twoHours: // as it was
	default:
		p.valid = now.Add(twoHours)
	}
}

func (r *routers) settings(now time.Time, s *stacks.Settings) {
	for _, p := range r.prefixes {
		if p.onLink {
			s.Routes = append(s.Routes, stacks.Route{
				Dst: p.prefix, IfIndex: r.c.index, Metric: metricPrefix, MTU: p.mtu, Proto: unix.RTPROT_RA,
			})
		}
		if !p.auto || r.dad.busy(p.addr) {
			continue
		}
		if _, taken := r.dad.taken(p.addr); taken {
			continue
		}
		info := stacks.AddrInfo{Flags: unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_NODAD, Preferred: p.preferred, Valid: p.valid, Added: p.got, Changed: p.got}
		if passed(p.preferred, now) {
			info.Flags |= unix.IFA_F_DEPRECATED
		}
		s.Addrs = append(s.Addrs, stacks.Address{Prefix: netip.PrefixFrom(p.addr, 64), Info: info})
	}
	byPreference := slices.Clone(r.all)
	slices.SortStableFunc(byPreference, func(a, b *router) int { return cmp.Compare(b.preference, a.preference) })
	r.ways(byPreference, s)
	for _, x := range byPreference {
		for _, y := range x.servers {
			s.DNS.Servers = append(s.DNS.Servers, netip.AddrPortFrom(r.c.scoped(y.addr), 53))
		}
		for _, y := range x.search {
			s.DNS.Search = append(s.DNS.Search, y.domain)
		}
	}
}

// ways adds the routes by routers.
func (r *routers) ways(all []*router, s *stacks.Settings) {
	everywhere := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	ours := slices.ContainsFunc(r.c.conf.Gateways, netip.Addr.Is6)
	for i, x := range all {
		mtu := r.usable(x.mtu)
		if x.isDefault && !ours && !r.c.conf.Routed6 {
			s.Routes = append(s.Routes, stacks.Route{
				Dst: everywhere, Gateway: x.addr, IfIndex: r.c.index, Metric: metricRouter + i, MTU: mtu, Proto: unix.RTPROT_RA,
			})
		}
		for _, y := range x.routes {
			s.Routes = append(s.Routes, stacks.Route{
				Dst: y.prefix, Gateway: x.addr, IfIndex: r.c.index, Metric: metricRouter - y.preference*maxRouters + i, MTU: mtu, Proto: unix.RTPROT_RA,
			})
		}
	}
}

func (r *routers) state() progress {
	switch {
	case r.adverts == 0:
		return silent
	case !r.c.conf.slaac():
		return settled
	}
	busy, has := false, false
	for _, p := range r.prefixes {
		_, taken := r.dad.taken(p.addr)
		busy = busy || p.auto && r.dad.busy(p.addr)
		has = has || p.auto && !r.dad.busy(p.addr) && !taken
	}
	switch {
	case busy:
		return underWay
	case has:
		return settled
	}
	return unasked // there are routers, and they give no addresses
}

// end has nothing to give back.
func (r *routers) end() {}

// scoped is an address with the interface as its zone, if it needs one.
func (c *Client) scoped(a netip.Addr) netip.Addr {
	if a.IsLinkLocalUnicast() {
		return a.WithZone(strconv.Itoa(c.index))
	}
	return a
}
