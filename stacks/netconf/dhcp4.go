// SPDX-License-Identifier: Apache-2.0

// DHCP for IPv4: the states of RFC 2131 §4.4, from the first question to the last.

package netconf

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// A phase4 is a state of the client, RFC 2131 figure 5. PROBING is between REQUESTING
// and BOUND.
type phase4 int

const (
	selecting phase4 = iota
	requesting
	probing
	bound
	renewing
	rebinding
	declined // waits before it begins again
)

// Times. The first answer of a network that is there comes within milliseconds; so the
// first questions follow each other faster than the 4 s of RFC 2131 §4.1, whose end of
// 64 s is kept.
const (
	firstTry4  = time.Second
	lastTry4   = 64 * time.Second
	requests4  = 4           // before another offer is looked for
	maxOffers  = 16          // that are counted
	minRenewal = time.Second // between two tries
	maxRenewal = time.Minute // no longer than that if there is the time, RFC 2131 §4.4.5
)

// Times of RFC 5227 §1.1, made for a program that waits for its network: a neighbour on
// a wire or in another process answers at once.
const (
	probes4       = 3
	probeInterval = 150 * time.Millisecond
	announces4    = 2
	announceEvery = 2 * time.Second
	defendEvery   = 10 * time.Second
	declineWait   = 10 * time.Second // RFC 2131 §3.1 (5); the first time it is a second
)

// dhcp4 is the client of DHCP.
type dhcp4 struct {
	c     *Client
	phase phase4
	at    time.Time // of the next tick
	xid   uint32
	began time.Time // of the transaction, for the field secs
	tries int
	asked time.Time // when the request was sent that a lease begins with

	offer  lease4 // in requesting and probing
	lease  lease4 // from bound to rebinding
	got    time.Time
	offers []netip.Addr // who made them in this transaction

	left     int       // probes and announcements to be sent
	announce time.Time // of the next announcement
	defended time.Time
	declines int
	trouble  string // what went wrong last, for a person
}

func (d *dhcp4) begin(now time.Time) {
	d.phase, d.tries, d.offers = selecting, 0, nil
	d.transaction(now)
	d.tick(now)
}

// transaction begins one.
func (d *dhcp4) transaction(now time.Time) {
	d.xid, d.began, d.tries, d.at = transaction(), now, 0, now
	d.c.link.xid4.Store(d.xid)
}

func (d *dhcp4) next() time.Time { return earlier(d.at, d.announce) }

// expiry is when the lease ends; zero: never.
func (d *dhcp4) expiry() time.Time { return d.after(d.lease.life) }

// after is a time after the lease began, zero if that does not end.
func (d *dhcp4) after(t time.Duration) time.Time {
	if d.lease.life == 0 {
		return time.Time{}
	}
	return d.got.Add(t)
}

func (d *dhcp4) tick(now time.Time) {
	if !d.announce.IsZero() && !d.announce.After(now) {
		d.tellNeighbours(now)
	}
	if d.at.IsZero() || d.at.After(now) {
		return
	}
	switch d.phase {
	case selecting:
		d.broadcast(d.message(dhcpv4.MessageTypeDiscover, d.wishes()...), now)
		d.at = now.Add(d.backoff())
	case requesting:
		if d.tries >= requests4 {
			d.trouble = fmt.Sprintf("%s offered %s and did not give it", d.offer.server, d.offer.addr.Addr())
			d.begin(now)
			return
		}
		d.request(now)
	case probing:
		d.probe(now)
	case declined:
		d.begin(now)
	case bound, renewing, rebinding:
		d.extend(now)
	}
}

// backoff is how long to wait for an answer to the try that was just made.
func (d *dhcp4) backoff() time.Duration {
	wait := firstTry4 << min(d.tries, 6)
	d.tries++
	return jitter(min(wait, lastTry4))
}

// request takes an offer.
func (d *dhcp4) request(now time.Time) {
	opts := append(d.wishes(), dhcpv4.OptRequestedIPAddress(d.offer.addr.Addr().AsSlice()), dhcpv4.OptServerIdentifier(d.offer.server.AsSlice()))
	d.asked = now
	d.broadcast(d.message(dhcpv4.MessageTypeRequest, opts...), now)
	d.at = now.Add(d.backoff())
}

// extend asks for more time: first the server of the lease, then all. Without an answer
// the lease ends.
func (d *dhcp4) extend(now time.Time) {
	t2, end := d.after(d.lease.t2), d.expiry()
	switch {
	case !end.IsZero() && !now.Before(end):
		d.drop(now, fmt.Sprintf("the lease of %s has ended and was not renewed", d.lease.addr.Addr()))
		return
	case !now.Before(t2):
		if d.phase != rebinding {
			d.phase = rebinding
			d.transaction(now)
		}
	case d.phase == bound:
		d.phase = renewing
		d.transaction(now)
	}
	m := d.message(dhcpv4.MessageTypeRequest, d.wishes()...)
	m.ClientIPAddr = d.lease.addr.Addr().AsSlice()
	d.asked = now
	d.tries++
	limit := end
	if d.phase == renewing {
		limit = t2
		m.NumSeconds = d.seconds(now)
		d.c.send("DHCPREQUEST", udp4(d.lease.mac, d.c.conf.MAC, d.lease.server, d.lease.addr.Addr(), server4, client4, m.ToBytes()))
	} else {
		d.broadcast(m, now)
	}
	// RFC 2131 §4.4.5: half of what is left, but a minute at least. That would leave a
	// short lease a single try, so there it is a sixteenth of the lease.
	rest := limit.Sub(now)
	wait := max(rest/2, min(maxRenewal, max(d.lease.life/16, minRenewal)))
	d.at = now.Add(min(wait, rest))
}

func (d *dhcp4) seconds(now time.Time) uint16 {
	return uint16(min(now.Sub(d.began)/time.Second, 65535))
}

// broadcast sends a message to all servers, from the address that the client has.
func (d *dhcp4) broadcast(m *dhcpv4.DHCPv4, now time.Time) {
	from := netip.IPv4Unspecified()
	if d.phase == rebinding {
		from = d.lease.addr.Addr()
	}
	m.NumSeconds = d.seconds(now)
	d.c.send("DHCP"+m.MessageType().String(), udp4(broadcastMAC, d.c.conf.MAC, broadcast4, from, server4, client4, m.ToBytes()))
}

func (d *dhcp4) receive(now time.Time, p packet) {
	switch {
	case p.proto == 0:
		d.hear(now, p.data)
		return
	case p.proto != unix.IPPROTO_UDP || p.toPort != client4 || !p.from.Is4():
		return
	}
	m, err := parseDHCP(p.data, d.c.conf.MAC)
	if err != nil || uint32(m.TransactionID[0])<<24|uint32(m.TransactionID[1])<<16|uint32(m.TransactionID[2])<<8|uint32(m.TransactionID[3]) != d.xid {
		return
	}
	typ := m.MessageType()
	d.c.heard.add("DHCP" + typ.String())
	switch {
	case typ == dhcpv4.MessageTypeOffer && (d.phase == selecting || d.phase == requesting):
		l, err := leaseOf(m)
		if err != nil || !l.server.IsValid() {
			return
		}
		if !slices.Contains(d.offers, l.server) && len(d.offers) < maxOffers {
			d.offers = append(d.offers, l.server)
		}
		if d.phase == selecting { // the first one is taken; the others hear of it
			d.offer, d.phase, d.tries = l, requesting, 0
			d.request(now)
		}
	case typ == dhcpv4.MessageTypeAck:
		d.acknowledged(now, m, p)
	case typ == dhcpv4.MessageTypeNak:
		d.refused(now, m)
	}
}

// acknowledged takes an acknowledgement.
func (d *dhcp4) acknowledged(now time.Time, m *dhcpv4.DHCPv4, p packet) {
	l, err := leaseOf(m)
	if err != nil {
		return
	}
	l.mac = p.mac
	switch d.phase {
	case requesting:
		if l.addr.Addr() != d.offer.addr.Addr() || l.server.IsValid() && l.server != d.offer.server {
			return
		}
		if !l.server.IsValid() {
			l.server = d.offer.server
		}
		d.offer, d.got = l, d.asked
		d.phase, d.left = probing, probes4
		d.c.link.xid4.Store(0)
		d.c.link.addr4.Store(as4(l.addr.Addr()))
		d.probe(now)
	case renewing, rebinding:
		if l.addr.Addr() != d.lease.addr.Addr() {
			return
		}
		if !l.server.IsValid() {
			l.server = d.lease.server
		}
		d.hold(now, l, d.asked)
	}
}

// hold begins the time of a lease, or begins it anew.
func (d *dhcp4) hold(now time.Time, l lease4, since time.Time) {
	d.lease, d.got, d.phase, d.trouble = l, since, bound, ""
	d.c.link.xid4.Store(0)
	d.at = d.after(min(jitter(l.t1), l.t2))
	d.c.log.Info("leased", "addr", l.addr, "server", l.server, "for", l.life)
	if !d.at.IsZero() && d.at.Before(now) {
		d.at = now
	}
}

// refused takes a NAK: what the client has, or wants, is not its own.
func (d *dhcp4) refused(now time.Time, m *dhcpv4.DHCPv4) {
	server, _ := host4(m.Options.Get(dhcpv4.OptionServerIdentifier))
	switch d.phase {
	case requesting:
		if server.IsValid() && server != d.offer.server {
			return
		}
		d.trouble = fmt.Sprintf("%s offered %s and then refused it", d.offer.server, d.offer.addr.Addr())
		d.c.log.Info(d.trouble)
		// Not at once: a server that does so again would be asked without a pause.
		d.phase, d.at = declined, now.Add(jitter(firstTry4))
	case renewing, rebinding:
		d.drop(now, fmt.Sprintf("%s refuses to renew the lease of %s", server, d.lease.addr.Addr()))
	}
}

// drop ends the lease and begins anew.
func (d *dhcp4) drop(now time.Time, why string) {
	d.trouble = why
	d.c.log.Warn("the address is gone: "+why, "addr", d.lease.addr)
	d.lease, d.announce = lease4{}, time.Time{}
	d.c.link.addr4.Store(0)
	d.begin(now)
}

func (d *dhcp4) settings(_ time.Time, s *stacks.Settings) {
	if d.phase < bound || d.phase == declined {
		return
	}
	l := &d.lease
	end := d.expiry()
	s.Addrs = append(s.Addrs, stacks.Address{Prefix: l.addr, Info: stacks.AddrInfo{
		Broadcast: l.broadcast, Preferred: end, Valid: end, Added: d.got, Changed: d.got,
	}})
	s.MTU = l.mtu
	if s.MTU < minMTU6 && d.c.conf.v6() {
		s.MTU = 0 // it would take IPv6 off the interface
	}
	s.DNS.Servers = append(s.DNS.Servers, l.dns.Servers...)
	s.DNS.Search = append(s.DNS.Search, l.dns.Search...)
	routes, metric := slices.Clone(l.routes), 0
	for _, gw := range d.c.conf.Gateways {
		if gw.Is4() {
			routes = slices.DeleteFunc(routes, isDefault)
			routes = append(routes, stacks.Route{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Gateway: gw, OnLink: !l.addr.Contains(gw)})
		}
	}
	for _, r := range routes {
		if isDefault(r) {
			if d.c.conf.Routed4 {
				continue
			}
			r.Metric = metric // the second router stands behind the first
			metric++
		}
		r.Proto, r.Src, r.IfIndex = unix.RTPROT_DHCP, l.addr.Addr(), d.c.index
		if !r.Gateway.IsValid() {
			r.Scope = unix.RT_SCOPE_LINK
		}
		s.Routes = append(s.Routes, r)
	}
}

func isDefault(r stacks.Route) bool { return r.Dst.Bits() == 0 }

func (d *dhcp4) state() progress {
	switch {
	case d.phase >= bound && d.phase != declined:
		return settled
	case d.phase == selecting:
		return silent
	}
	return underWay
}

// end gives the address back. RFC 2131 §3.1 (6) leaves that to the client; here the next
// run has another MAC most of the time, and would leave a trail of leases.
func (d *dhcp4) end() {
	if d.phase < bound || d.phase == declined {
		return
	}
	d.xid = transaction()
	m := d.message(dhcpv4.MessageTypeRelease, dhcpv4.OptServerIdentifier(d.lease.server.AsSlice()))
	m.ClientIPAddr = d.lease.addr.Addr().AsSlice()
	d.c.send("DHCPRELEASE", udp4(d.lease.mac, d.c.conf.MAC, d.lease.server, d.lease.addr.Addr(), server4, client4, m.ToBytes()))
}
