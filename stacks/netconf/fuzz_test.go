// SPDX-License-Identifier: Apache-2.0

// Whatever a network says: nothing ends the client, and what it takes makes sense.

package netconf

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"

	"umrun/stacks"
	"umrun/stacks/offload"
)

// sane says what of s no stack should be given.
func sane(t *testing.T, s stacks.Settings) {
	t.Helper()
	for _, a := range s.Addrs {
		x := a.Prefix.Addr()
		if !a.Prefix.IsValid() || x.IsUnspecified() || x.IsLoopback() || x.IsMulticast() || x.Is4In6() || x.Zone() != "" {
			t.Errorf("address %s", a.Prefix)
		}
	}
	for _, r := range s.Routes {
		if !r.Dst.IsValid() || r.Dst != r.Dst.Masked() || r.Dst.Addr().IsMulticast() || r.Dst.Addr().Is4In6() {
			t.Errorf("route %+v", r)
		}
		if r.Gateway.IsValid() && (r.Gateway.Is4() != r.Dst.Addr().Is4() || r.Gateway.IsUnspecified() || r.Gateway.IsMulticast()) {
			t.Errorf("route %+v", r)
		}
		if r.MTU != 0 && r.MTU < minMTU6 {
			t.Errorf("route %+v", r)
		}
	}
	if s.MTU != 0 && s.MTU < leastMTU || s.MTU > 1500 {
		t.Errorf("MTU %d", s.MTU)
	}
	for _, d := range s.DNS.Servers {
		if x := d.Addr(); x.IsUnspecified() || x.IsLoopback() || x.IsMulticast() || d.Port() != 53 {
			t.Errorf("name server %s", d)
		}
	}
	for _, d := range s.DNS.Search {
		if !isDomain(d) {
			t.Errorf("search domain %q", d)
		}
	}
}

// stuck is a client that is not started, for protocols to be driven by hand.
func stuck(t testing.TB, w Words) *Client {
	c, err := New(newWire(), Config{Words: w, MAC: ourMAC})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Link().Close() })
	c.index, c.apply, c.applied.MTU = 7, func(_, _ stacks.Settings) error { return nil }, c.mtu()
	return c
}

// FuzzFrame: a frame is taken apart within its bounds, and the same way whether or not
// its checksums are looked at.
func FuzzFrame(f *testing.F) {
	f.Add(advertFrame(routerAddr, pio("2001:db8::/64", 0xc0, 9, 9), 1800), false)
	f.Add(udp4(ourMAC, serverMAC, addr("192.0.2.7"), addr("192.0.2.1"), 68, 67, bootp(7, ourMAC)), false)
	f.Add(udp6(ourMAC, serverMAC, LinkLocal(ourMAC), addr("fe80::1"), 546, 547, []byte{7, 0, 0, 9}), true)
	f.Add(arp(otherMAC, addr("192.0.2.1"), addr("192.0.2.2")), false)
	f.Fuzz(func(t *testing.T, b []byte, summed bool) {
		p, ok := parse(b, summed)
		if !ok {
			return
		}
		if again, ok := parse(b, true); !ok || again.proto != p.proto || again.toPort != p.toPort || !slices.Equal(again.data, p.data) {
			t.Errorf("without a look at checksums: %v %+v, with %+v", ok, again, p)
		}
		if len(p.data) > len(b)-etherLen {
			t.Errorf("%d bytes of %d", len(p.data), len(b))
		}
		if p.proto == 0 {
			parseARP(p.data)
		}
		c := stuck(t, Words{Auto: true})
		c.link.xid4.Store(7)
		c.link.xid6.Store(9 | 1<<31)
		c.link.nd.Store(wantRA | wantNeighbour)
		c.link.take(b)
		c.link.head = offload.HdrLen
		c.link.take(b)
	})
}

// FuzzDHCP: an answer of a server is a lease that makes sense, or none.
func FuzzDHCP(f *testing.F) {
	d := dhcp4{c: stuck(f, Words{DHCP: true})}
	m := d.message(dhcpv4.MessageTypeAck)
	m.OpCode, m.YourIPAddr = dhcpv4.OpcodeBootReply, []byte{192, 0, 2, 7}
	for _, o := range newServer("192.0.2.7").opts {
		m.UpdateOption(o)
	}
	f.Add(m.ToBytes())
	m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClasslessStaticRoute, []byte{0, 192, 0, 2, 9, 16, 10, 1, 192, 0, 2, 8}))
	m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionDNSDomainSearchList, []byte("\x01a\x07example\x00\x01b\xc0\x02")))
	m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionOptionOverload, []byte{3}))
	f.Add(m.ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseDHCP(b, ourMAC)
		if err != nil {
			return
		}
		c := stuck(t, Words{Auto: true})
		now := time.Unix(1000, 0)
		c.dhcp4.begin(now)
		m.TransactionID = [4]byte{}
		binary.BigEndian.PutUint32(m.TransactionID[:], c.dhcp4.xid)
		reply := packet{proto: 17, toPort: 68, from: addr("192.0.2.1"), mac: serverMAC}
		for _, typ := range []dhcpv4.MessageType{dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNone} {
			if typ != dhcpv4.MessageTypeNone {
				m.UpdateOption(dhcpv4.OptMessageType(typ))
			}
			reply.data = m.ToBytes()
			c.dhcp4.receive(now, reply)
		}
		for range 10 {
			if at := c.dhcp4.next(); !at.IsZero() {
				now = at
			}
			c.dhcp4.tick(now)
		}
		var s stacks.Settings
		c.dhcp4.settings(now, &s)
		sane(t, s)
		if l := c.dhcp4.lease; l.life < 0 || l.t1 > l.t2 || l.t2 > l.life && l.life > 0 {
			t.Errorf("for %s, T1 %s, T2 %s", l.life, l.t1, l.t2)
		}
		c.dhcp4.end()
	})
}

// FuzzDHCP6: the same for DHCPv6.
func FuzzDHCP6(f *testing.F) {
	c := stuck(f, Words{DHCP6: true})
	s := newServer6("2001:db8::7")
	for _, typ := range []dhcpv6.MessageType{dhcpv6.MessageTypeSolicit, dhcpv6.MessageTypeInformationRequest} {
		c.dhcp6.typ = typ
		p, _ := parse(udp6(ourMAC, ourMAC, dhcpServers, c.ll, server6, client6, c.dhcp6.message(time.Now()).ToBytes()), true)
		for _, frame := range s.peer(p, nil) {
			p, _ := parse(frame, true)
			f.Add(p.data[4:])
		}
	}
	f.Fuzz(func(t *testing.T, opts []byte) {
		c := stuck(t, Words{Auto: true})
		d := c.dhcp6
		now := time.Unix(1000, 0)
		reply := packet{proto: 17, toPort: 546, from: addr("fe80::1"), mac: serverMAC}
		for _, flags := range [][2]bool{{false, true}, {true, true}} {
			d.advised(now, flags[0], flags[1])
			for _, typ := range []dhcpv6.MessageType{dhcpv6.MessageTypeAdvertise, dhcpv6.MessageTypeReply, dhcpv6.MessageTypeReply} {
				reply.data = append([]byte{byte(typ), byte(d.xid >> 16), byte(d.xid >> 8), byte(d.xid)}, opts...)
				d.receive(now, reply)
				now = now.Add(1100 * time.Millisecond)
				d.tick(now)
			}
		}
		var s stacks.Settings
		for range 10 {
			s = stacks.Settings{}
			d.settings(now, &s)
			sane(t, s)
			if at := d.next(); !at.IsZero() {
				now = at
			}
			d.tick(now)
		}
		d.end()
	})
}

// FuzzAdvert: what a router says.
func FuzzAdvert(f *testing.F) {
	add := func(frame []byte) {
		p, _ := parse(frame, true)
		f.Add(p.data)
	}
	add(advertFlags(routerAddr, 0xc8, 1800, slices.Concat(pio("2001:db8::/64", 0xc0, 3600, 1800), mtuOption(1400), routeOption("2001:db8:a::/48", 1, 600))))
	add(advertFrame(routerAddr, slices.Concat(rdnss(600, "2001:db8::53", "fe80::1"), dnssl(600, "a.example", "b.example")), 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < icmpLen {
			return
		}
		c := stuck(t, Words{Auto: true})
		now := time.Unix(1000, 0)
		c.routers.begin(now)
		for i := range 3 {
			a := routerAddr.As16()
			a[15] += byte(i)
			c.routers.receive(now, packet{proto: 58, hops: hopLimit, from: netip.AddrFrom16(a), mac: serverMAC, data: b})
		}
		for range 20 {
			var s stacks.Settings
			c.routers.settings(now, &s)
			sane(t, s)
			at := c.routers.next()
			if at.IsZero() {
				break
			}
			if now.Before(at) {
				now = at
			}
			c.routers.tick(now)
			if next := c.routers.next(); !next.IsZero() && !next.After(now) {
				t.Fatalf("at %s it is to be called again at %s", now, next)
			}
		}
	})
}
