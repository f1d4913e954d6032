// SPDX-License-Identifier: Apache-2.0

// DHCPv6: the exchanges of RFC 8415 §18.2, for one address and for information alone.

package netconf

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// A phase6 is what the client is about.
type phase6 int

const (
	idle6       phase6 = iota // routers have not said that there is anything to ask
	informing                 // Information-request
	informed                  // and its answer
	soliciting                // Solicit
	requesting6               // Request
	detecting                 // is the address a duplicate?
	bound6
	renewing6  // Renew
	rebinding6 // Rebind
	declining  // Decline
	pausing6   // before it begins again
)

// A retry is how a message is repeated, RFC 8415 §7.6 and §15.
type retry struct {
	first, most time.Duration
	count       int // most tries; 0: no end
}

var retries = map[dhcpv6.MessageType]retry{
	dhcpv6.MessageTypeSolicit:            {time.Second, time.Hour, 0},
	dhcpv6.MessageTypeRequest:            {time.Second, 30 * time.Second, 10},
	dhcpv6.MessageTypeRenew:              {10 * time.Second, 10 * time.Minute, 0},
	dhcpv6.MessageTypeRebind:             {10 * time.Second, 10 * time.Minute, 0},
	dhcpv6.MessageTypeInformationRequest: {time.Second, time.Hour, 0},
	dhcpv6.MessageTypeDecline:            {time.Second, time.Second, 4},
}

// Times of information, RFC 8415 §7.6 and §21.23.
const (
	refreshDefault = 24 * time.Hour
	refreshLeast   = 10 * time.Minute
)

// dhcp6 is the client of DHCPv6.
type dhcp6 struct {
	c      *Client
	duid   dhcpv6.DUID
	iaid   [4]byte
	phase  phase6
	at     time.Time // of the next tick
	xid    uint32
	typ    dhcpv6.MessageType // of the exchange
	began  time.Time
	tries  int
	wait   time.Duration // of the last try
	solMax time.Duration // SOL_MAX_RT, if a server has set it
	infMax time.Duration // INF_MAX_RT, likewise

	best    *offer6      // from Solicit to Request
	offers  []netip.Addr // who has made some in this exchange
	lease   lease6
	info    info6 // what an Information-request brought
	dad     duplicates
	trouble string

	failures int  // of requests, one after the other
	expected bool // routers say that there are addresses
}

// An offer6 is an Advertise.
type offer6 struct {
	lease      lease6
	preference uint8
}

func newDHCP6(c *Client) *dhcp6 {
	d := &dhcp6{c: c, duid: &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: c.conf.MAC}}
	copy(d.iaid[:], c.conf.MAC[2:]) // stable where the MAC is, RFC 8415 §12
	d.dad = duplicates{c: c}
	return d
}

// begin starts at once if a person has asked for it; else routers will.
func (d *dhcp6) begin(now time.Time) {
	if d.c.conf.DHCP6 {
		d.exchange(now, soliciting, dhcpv6.MessageTypeSolicit)
	}
}

// advised is told what routers say: M and O of RFC 4861 §4.2, if any of them does.
func (d *dhcp6) advised(now time.Time, managed, other bool) {
	switch {
	case d.c.conf.DHCP6 || !d.c.conf.Auto:
	case managed && (d.phase <= informed):
		d.info, d.expected = info6{}, true
		d.exchange(now, soliciting, dhcpv6.MessageTypeSolicit)
	case other && d.phase == idle6:
		d.exchange(now, informing, dhcpv6.MessageTypeInformationRequest)
	}
}

// exchange begins one: a message, and its repetitions until it is answered.
func (d *dhcp6) exchange(now time.Time, p phase6, typ dhcpv6.MessageType) {
	d.phase, d.typ, d.xid = p, typ, transaction()
	d.began, d.tries, d.wait, d.at = now, 0, 0, now
	if p == soliciting {
		d.best, d.offers, d.lease = nil, nil, lease6{}
	}
	d.c.link.xid6.Store(d.xid&0xffffff | 1<<31)
	d.tick(now)
}

// rest waits without anything under way.
func (d *dhcp6) rest(p phase6, until time.Time) {
	d.phase, d.at = p, until
	d.c.link.xid6.Store(0)
}

func (d *dhcp6) next() time.Time {
	at := earlier(d.at, d.dad.next())
	if d.has() && d.lease.preferred != epoch {
		at = earlier(at, d.lease.preferred)
	}
	return at
}

func (d *dhcp6) tick(now time.Time) {
	d.dad.tick(now)
	if passed(d.lease.preferred, now) {
		d.lease.preferred = epoch // what it means is in settings
	}
	if d.phase == detecting && d.dad.done() {
		d.detected(now)
	}
	if d.at.IsZero() || d.at.After(now) {
		return
	}
	switch d.phase {
	case informed:
		d.exchange(now, informing, dhcpv6.MessageTypeInformationRequest)
		return
	case pausing6:
		d.exchange(now, soliciting, dhcpv6.MessageTypeSolicit)
		return
	case bound6:
		d.exchange(now, renewing6, dhcpv6.MessageTypeRenew)
		return
	case renewing6:
		if passed(d.lease.t2, now) {
			d.exchange(now, rebinding6, dhcpv6.MessageTypeRebind)
			return
		}
	case rebinding6:
		if passed(d.lease.until, now) {
			d.drop(now, fmt.Sprintf("the lease of %s has ended and was not renewed", d.lease.addr))
			return
		}
	case soliciting:
		if d.best != nil {
			d.exchange(now, requesting6, dhcpv6.MessageTypeRequest)
			return
		}
	}
	r := retries[d.typ]
	if r.count > 0 && d.tries >= r.count {
		switch d.phase {
		case requesting6:
			d.trouble = "a server offered an address and did not give it"
			d.exchange(now, soliciting, dhcpv6.MessageTypeSolicit)
		case declining:
			d.exchange(now, soliciting, dhcpv6.MessageTypeSolicit)
		}
		return
	}
	d.sendOne(now, r)
}

// sendOne sends the message of the exchange once more and sets the next try: RFC 8415
// §15, where RAND of the first Solicit is not negative, so that offers have a second.
func (d *dhcp6) sendOne(now time.Time, r retry) {
	switch {
	case d.typ == dhcpv6.MessageTypeSolicit && d.solMax > 0:
		r.most = d.solMax
	case d.typ == dhcpv6.MessageTypeInformationRequest && d.infMax > 0:
		r.most = d.infMax
	}
	random := func(d time.Duration) time.Duration { return time.Duration((rand.Float64()*2 - 1) * float64(d) / 10) }
	switch {
	case d.tries > 0:
		d.wait = 2*d.wait + random(d.wait)
	case d.phase == soliciting:
		d.wait = r.first + random(r.first).Abs()
	default:
		d.wait = r.first + random(r.first)
	}
	if d.wait > r.most {
		d.wait = r.most + random(r.most)
	}
	d.tries++
	d.at = now.Add(d.wait)
	// The exchange ends with what it is about, and 10 s until the next try are too long
	// for a lease of a few seconds.
	var limit time.Time
	switch d.phase {
	case renewing6:
		limit = d.lease.t2
	case rebinding6:
		limit = d.lease.until
	}
	if !limit.IsZero() {
		d.at = earlier(d.at, earlier(limit, now.Add(max(limit.Sub(now)/2, minRenewal))))
	}
	m := d.message(now)
	d.c.send("DHCPv6 "+d.typ.String(), udp6(groupMAC(dhcpServers), d.c.conf.MAC, dhcpServers, d.c.ll, server6, client6, m.ToBytes()))
}

// passed tells whether a moment has come, of which zero never does.
func passed(t, now time.Time) bool { return !t.IsZero() && !now.Before(t) }

func (d *dhcp6) receive(now time.Time, p packet) {
	if p.proto == unix.IPPROTO_ICMPV6 {
		d.dad.receive(p)
		if d.phase == detecting && d.dad.done() {
			d.detected(now)
		}
		return
	}
	if p.proto != unix.IPPROTO_UDP || p.toPort != client6 || !p.from.Is6() {
		return
	}
	m, ok := d.parse(p.data)
	if !ok {
		return
	}
	d.c.heard.add("DHCPv6 " + m.MessageType.String())
	d.limits(m)
	switch {
	case m.MessageType == dhcpv6.MessageTypeAdvertise && d.phase == soliciting:
		d.offered(now, m, p.from)
	case m.MessageType == dhcpv6.MessageTypeReply && d.phase == informing:
		d.told(now, m)
	case m.MessageType == dhcpv6.MessageTypeReply && d.phase == declining:
		d.exchange(now, soliciting, dhcpv6.MessageTypeSolicit)
	case m.MessageType == dhcpv6.MessageTypeReply && (d.phase == soliciting && rapid(m) || d.phase == requesting6 || d.phase == renewing6 || d.phase == rebinding6):
		d.replied(now, m, p.from)
	}
}

// offered takes an Advertise: the best of those that come in the first second, or one
// of the highest preference at once (RFC 8415 §18.2.1).
func (d *dhcp6) offered(now time.Time, m *dhcpv6.Message, from netip.Addr) {
	l, why := leaseOf6(m, d.iaid, now)
	if why != "" {
		d.trouble = why
		return
	}
	o := &offer6{lease: l, preference: m.Options.Preference()}
	if !slices.Contains(d.offers, from) && len(d.offers) < maxOffers {
		d.offers = append(d.offers, from)
	}
	if d.best == nil || o.preference > d.best.preference {
		d.best = o
	}
	if o.preference == 255 || d.tries > 1 {
		d.exchange(now, requesting6, dhcpv6.MessageTypeRequest)
	}
}

// told takes the answer to an Information-request.
func (d *dhcp6) told(now time.Time, m *dhcpv6.Message) {
	d.info = infoOf(m)
	refresh := m.Options.InformationRefreshTime(refreshDefault)
	d.trouble = ""
	if refresh >= infinite*time.Second {
		d.rest(informed, time.Time{})
		return
	}
	d.rest(informed, now.Add(jitter(max(refresh, refreshLeast))))
}

// replied takes the answer to Request, Renew, Rebind, or a Solicit with Rapid Commit.
func (d *dhcp6) replied(now time.Time, m *dhcpv6.Message, from netip.Addr) {
	l, why := leaseOf6(m, d.iaid, now)
	l.from = from
	switch {
	case why == "" && (d.phase == renewing6 || d.phase == rebinding6) && l.addr == d.lease.addr:
		d.hold(l)
	case why == "":
		if d.lease.addr.IsValid() { // it is given another address
			d.c.log.Warn("the address is gone: the server gives another", "addr", d.lease.addr)
		}
		d.lease = l
		d.rest(detecting, time.Time{})
		d.dad.ask(now, l.addr)
	case d.phase == renewing6 || d.phase == rebinding6:
		switch m := status(m, d.iaid); m {
		case iana.StatusNoBinding, iana.StatusNotOnLink, iana.StatusNoAddrsAvail:
			d.drop(now, "the server does not renew it: "+why)
		default: // RFC 8415 §18.2.10.1: as if nothing had come
			d.trouble = why
		}
	default:
		d.trouble = why
		if d.phase == requesting6 && status(m, d.iaid) != iana.StatusUseMulticast {
			// Not at once: a server that does so again would be asked without a pause
			// (RFC 8415 §14.1).
			d.failures++
			d.rest(pausing6, now.Add(jitter(min(time.Second<<min(d.failures, 10), lastTry4))))
		}
	}
}

// detected goes on when it is known whether somebody else has the address.
func (d *dhcp6) detected(now time.Time) {
	mac, taken := d.dad.taken(d.lease.addr)
	if !taken {
		d.hold(d.lease)
		return
	}
	d.trouble = fmt.Sprintf("%s was given and is in use by %s", d.lease.addr, mac)
	d.c.log.Warn("the address that was given is in use", "addr", d.lease.addr, "mac", mac)
	d.exchange(now, declining, dhcpv6.MessageTypeDecline)
}

// hold begins the time of a lease, or begins it anew.
func (d *dhcp6) hold(l lease6) {
	d.lease, d.trouble, d.failures = l, "", 0
	d.c.log.Info("leased", "addr", l.addr, "server", l.from, "until", l.until)
	d.rest(bound6, l.t1)
}

// drop ends the lease and begins anew.
func (d *dhcp6) drop(now time.Time, why string) {
	d.trouble = why
	d.c.log.Warn("the address is gone: "+why, "addr", d.lease.addr)
	d.exchange(now, soliciting, dhcpv6.MessageTypeSolicit)
}

// has tells whether the lease is in use.
func (d *dhcp6) has() bool {
	return d.phase == bound6 || d.phase == renewing6 || d.phase == rebinding6
}

func (d *dhcp6) settings(now time.Time, s *stacks.Settings) {
	info := d.info
	if d.has() {
		l := &d.lease
		info = l.info
		a := stacks.AddrInfo{Flags: unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_NODAD, Preferred: l.preferred, Valid: l.until, Added: l.got, Changed: l.got}
		if passed(l.preferred, now) {
			a.Flags |= unix.IFA_F_DEPRECATED
		}
		// Which prefixes are on the link is a matter of routers, RFC 5942 §4.
		s.Addrs = append(s.Addrs, stacks.Address{Prefix: netip.PrefixFrom(l.addr, 128), Info: a})
	}
	for _, a := range info.servers {
		s.DNS.Servers = append(s.DNS.Servers, netip.AddrPortFrom(d.c.scoped(a), 53))
	}
	s.DNS.Search = append(s.DNS.Search, info.search...)
}

func (d *dhcp6) state() progress {
	switch {
	case d.has() || d.phase == informed:
		return settled
	case d.phase == idle6:
		return unasked
	case (d.phase == soliciting && !d.expected || d.phase == informing) && len(d.offers) == 0:
		return silent
	}
	return underWay
}

// end gives the address back, without waiting for the answer.
func (d *dhcp6) end() {
	if d.has() {
		d.phase, d.typ, d.xid, d.tries = idle6, dhcpv6.MessageTypeRelease, transaction(), 0
		d.sendOne(time.Now(), retry{})
	}
}
