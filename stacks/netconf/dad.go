// SPDX-License-Identifier: Apache-2.0

// Duplicate address detection for IPv6, RFC 4862 §5.4, before the stack has the address.

package netconf

import (
	"net"
	"net/netip"
	"slices"
	"time"
)

// detectTime is RETRANS_TIMER of RFC 4861 §10: how long others have to speak up after
// the one solicitation that DupAddrDetectTransmits stands for.
const detectTime = time.Second

// duplicates finds out which addresses others have. The zero value but for c is ready.
type duplicates struct {
	c     *Client
	tests map[netip.Addr]*detection
}

// A detection is what is known of an address.
type detection struct {
	until time.Time        // when nobody has spoken up; zero: it is over
	mac   net.HardwareAddr // of who has it
}

// ask begins to look for an address, unless that is under way.
func (d *duplicates) ask(now time.Time, a netip.Addr) {
	if t := d.tests[a]; t != nil && !t.until.IsZero() {
		return
	}
	if d.tests == nil {
		d.tests = make(map[netip.Addr]*detection)
	}
	d.tests[a] = &detection{until: now.Add(detectTime)}
	d.c.wantNeighbours()
	d.c.send("duplicate address probe", duplicateProbe(d.c.conf.MAC, a))
}

// busy tells whether an address is being looked for.
func (d *duplicates) busy(a netip.Addr) bool {
	t := d.tests[a]
	return t != nil && !t.until.IsZero()
}

// done tells whether none is.
func (d *duplicates) done() bool { return d.next().IsZero() }

// taken tells who has an address.
func (d *duplicates) taken(a netip.Addr) (net.HardwareAddr, bool) {
	t := d.tests[a]
	if t == nil || t.mac == nil {
		return nil, false
	}
	return t.mac, true
}

// forget drops what is known of an address.
func (d *duplicates) forget(a netip.Addr) { delete(d.tests, a) }

func (d *duplicates) next() time.Time {
	var at time.Time
	for _, t := range d.tests {
		at = earlier(at, t.until)
	}
	return at
}

func (d *duplicates) tick(now time.Time) {
	for _, t := range d.tests {
		if passed(t.until, now) {
			t.until = time.Time{}
		}
	}
	d.c.wantNeighbours()
}

// receive looks for somebody who has one of the addresses, or is about to take it. Our
// own solicitation may come back to us; it is told by its sender.
func (d *duplicates) receive(p packet) {
	target, ok := parseNeighbour(p.data)
	t := d.tests[target]
	if !ok || p.hops != hopLimit || t == nil || t.until.IsZero() || slices.Equal(p.mac, d.c.conf.MAC) {
		return
	}
	if p.data[0] == typeNeighborSolicit && !p.from.IsUnspecified() {
		return // somebody looks for it, as for a neighbour
	}
	t.until, t.mac = time.Time{}, p.mac
}

// wantNeighbours has the link show messages about neighbours as long as they matter.
func (c *Client) wantNeighbours() {
	want := uint32(0)
	if c.routers != nil {
		want |= wantRA
		if !c.routers.dad.done() {
			want |= wantNeighbour
		}
	}
	if c.dhcp6 != nil && !c.dhcp6.dad.done() {
		want |= wantNeighbour
	}
	c.link.nd.Store(want)
}
