// SPDX-License-Identifier: Apache-2.0

// DHCP against a made-up server.

package netconf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"
	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// bootp is a reply without options.
func bootp(xid uint32, mac net.HardwareAddr) []byte {
	m := &dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootReply, HWType: 1, ClientHWAddr: mac, Options: dhcpv4.Options{}}
	binary.BigEndian.PutUint32(m.TransactionID[:], xid)
	return m.ToBytes()
}

// A dhcpServer answers as it is set. Its fields change only while the client rests.
type dhcpServer struct {
	addr    netip.Addr // of the server
	mac     net.HardwareAddr
	give    []string // addresses, the first for the first client
	opts    []dhcpv4.Option
	lose    int  // messages that it does not hear
	nak     bool // it refuses requests
	forget  bool // it refuses to renew
	mute    bool
	taken   map[string]bool // addresses that somebody has
	heard   []dhcpv4.MessageType
	last    *dhcpv4.DHCPv4
	lastTo  netip.Addr
	lastMAC net.HardwareAddr
}

func newServer(give ...string) *dhcpServer {
	return &dhcpServer{addr: addr("192.0.2.1"), mac: serverMAC, give: give, taken: map[string]bool{}, opts: []dhcpv4.Option{
		dhcpv4.OptSubnetMask(net.CIDRMask(24, 32)),
		dhcpv4.OptRouter(net.IP{192, 0, 2, 1}),
		dhcpv4.OptDNS(net.IP{192, 0, 2, 53}, net.IP{192, 0, 2, 54}),
		dhcpv4.OptDomainName("corp.example"),
		dhcpv4.OptIPAddressLeaseTime(2 * time.Minute),
	}}
}

func (s *dhcpServer) peer(p packet, raw []byte) [][]byte {
	if p.proto == 0 { // a probe for an address that somebody has
		m, _ := parseARP(p.data)
		if m.from.IsUnspecified() && s.taken[m.to.String()] {
			return [][]byte{arpReply(otherMAC, m.to)}
		}
		return nil
	}
	if p.proto != unix.IPPROTO_UDP || p.toPort != server4 {
		return nil
	}
	m, err := dhcpv4.FromBytes(p.data)
	if err != nil {
		panic(err)
	}
	s.heard = append(s.heard, m.MessageType())
	s.last, s.lastTo, s.lastMAC = m, p.to, slices.Clone(raw[:6])
	if s.lose > 0 {
		s.lose--
		return nil
	}
	if id := m.ServerIdentifier(); s.mute || id != nil && !id.Equal(s.addr.AsSlice()) {
		return nil
	}
	var r *dhcpv4.DHCPv4
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		r = s.reply(m, dhcpv4.MessageTypeOffer)
	case dhcpv4.MessageTypeRequest:
		if r = s.reply(m, dhcpv4.MessageTypeAck); s.nak || s.forget && !m.ClientIPAddr.IsUnspecified() {
			r = s.reply(m, dhcpv4.MessageTypeNak)
			r.YourIPAddr = net.IPv4zero
		}
	case dhcpv4.MessageTypeDecline:
		s.give = s.give[1:]
		return nil
	default:
		return nil
	}
	return [][]byte{udp4(ourMAC, s.mac, addr("255.255.255.255"), s.addr, 68, 67, r.ToBytes())}
}

func (s *dhcpServer) reply(m *dhcpv4.DHCPv4, typ dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	r, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(typ))
	if err != nil {
		panic(err)
	}
	r.YourIPAddr = net.ParseIP(s.give[0])
	r.UpdateOption(dhcpv4.OptServerIdentifier(s.addr.AsSlice()))
	if typ != dhcpv4.MessageTypeNak {
		for _, o := range s.opts {
			r.UpdateOption(o)
		}
	}
	return r
}

func arpReply(mac net.HardwareAddr, a netip.Addr) []byte {
	b := arp(mac, a, a)
	b[etherLen+7] = 2
	return b
}

func TestDHCP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer("192.0.2.50")
		w := newWire(s.peer)
		x := start(t, w, Config{Words: Words{DHCP: true}, FQDN: "host.corp.example"})
		began := time.Now()
		if err := x.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("a lease took %s", d)
		}
		synctest.Wait()
		x.want("addresses", x.addrs(), "[192.0.2.50/24]")
		x.want("routes", x.routes(), "[0.0.0.0/0 via 192.0.2.1 metric 0 mtu 0]")
		x.want("DNS", x.settings().DNS, "{[192.0.2.53:53 192.0.2.54:53] [corp.example]}")
		a := x.settings().Addrs[0].Info
		x.want("broadcast", a.Broadcast, "192.0.2.255")
		if d := a.Valid.Sub(began); d != 2*time.Minute {
			t.Errorf("the lease is %s long from when it was asked for", d)
		}
		m := s.last
		if m.ServerIdentifier() == nil || !m.RequestedIPAddress().Equal(net.IP{192, 0, 2, 50}) || !m.ClientIPAddr.IsUnspecified() {
			t.Errorf("the request is not one of SELECTING: %s", m.Summary())
		}
		if id := m.Options.Get(dhcpv4.OptionClientIdentifier); !slices.Equal(id, append([]byte{1}, ourMAC...)) {
			t.Errorf("client identifier %x", id)
		}
		if o := m.Options.Get(dhcpv4.OptionFQDN); string(o) != "\x05\x00\x00\x04host\x04corp\x07example\x00" || m.HostName() != "" {
			t.Errorf("FQDN %q, host name %q", o, m.HostName())
		}
		if list := m.Options.Get(dhcpv4.OptionParameterRequestList); slices.Index(list, 121) > slices.Index(list, 3) {
			t.Errorf("classless routes are asked for after routers: %v", list)
		}
		st := x.c.Status()
		if len(st.Leases) != 1 || st.Leases[0].Server != "192.0.2.1" || st.Leases[0].Life != 2*time.Minute || len(st.Trouble) > 0 {
			t.Errorf("status %+v", st)
		}
		x.pass(5 * time.Second)
		var arps []string
		for _, n := range x.sends() {
			if n.frame.proto == 0 {
				m, _ := parseARP(n.frame.data)
				arps = append(arps, fmt.Sprintf("%s>%s", m.from, m.to))
			}
		}
		x.want("ARP", arps, "[0.0.0.0>192.0.2.50 0.0.0.0>192.0.2.50 0.0.0.0>192.0.2.50 192.0.2.50>192.0.2.50 192.0.2.50>192.0.2.50]")
		s.heard = nil
		x.close()
		x.want("at the end", s.heard, "[RELEASE]")
		if !s.last.ClientIPAddr.Equal(net.IP{192, 0, 2, 50}) || s.lastTo != s.addr || !slices.Equal(s.lastMAC, serverMAC) {
			t.Errorf("the release went to %s (%s): %s", s.lastTo, s.lastMAC, s.last.Summary())
		}
	})
}

// TestDHCPHostName: a name without a domain is a host name.
func TestDHCPHostName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer("192.0.2.50")
		x := start(t, newWire(s.peer), Config{Words: Words{DHCP: true}, FQDN: "host"})
		x.pass(time.Second)
		if s.last.HostName() != "host" || s.last.Options.Has(dhcpv4.OptionFQDN) {
			t.Errorf("%s", s.last.Summary())
		}
		x.close()
	})
}

// TestDHCPRenewal watches a lease of two minutes: renewed by its server, rebound when
// that is gone, ended when nobody answers, and had again.
func TestDHCPRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer("192.0.2.50")
		x := start(t, newWire(s.peer), Config{Words: Words{DHCP: true}})
		began := time.Now()
		x.pass(30 * time.Second)
		s.heard = nil
		before := x.settings().Addrs[0].Info.Valid
		x.pass(40 * time.Second) // T1 is after 60 s, a tenth more or less
		x.want("at T1", s.heard, "[REQUEST]")
		if s.lastTo != s.addr || !slices.Equal(s.lastMAC, serverMAC) || !s.last.ClientIPAddr.Equal(net.IP{192, 0, 2, 50}) ||
			s.last.ServerIdentifier() != nil || s.last.RequestedIPAddress() != nil {
			t.Errorf("the renewal went to %s (%s): %s", s.lastTo, s.lastMAC, s.last.Summary())
		}
		if after := x.settings().Addrs[0].Info.Valid; after.Sub(before) < 50*time.Second {
			t.Errorf("the lease was renewed by %s", after.Sub(before))
		}
		x.want("addresses", x.addrs(), "[192.0.2.50/24]")

		// The server goes; another takes over at T2, with other routes and servers.
		s.mute = true
		two := newServer("192.0.2.50")
		two.addr, two.mac = addr("192.0.2.2"), otherMAC
		two.opts = append(two.opts, dhcpv4.OptRouter(net.IP{192, 0, 2, 2}), dhcpv4.OptDNS(net.IP{192, 0, 2, 2}))
		s.heard = nil
		x.wire.mu.Lock()
		x.peers = append(x.peers, func(p packet, raw []byte) [][]byte {
			if p.to == broadcast4 {
				return two.peer(p, raw)
			}
			return nil
		})
		x.wire.mu.Unlock()
		x.pass(2 * time.Minute)
		if n := len(s.heard); n < 3 {
			t.Errorf("%d tries to renew, want some more", n)
		}
		if len(two.heard) == 0 || two.last.ServerIdentifier() != nil {
			t.Fatalf("the other server heard %v", two.heard)
		}
		x.want("routes", x.routes(), "[0.0.0.0/0 via 192.0.2.2 metric 0 mtu 0]")
		x.want("DNS", x.settings().DNS.Servers, "[192.0.2.2:53]")

		// Nobody answers any more.
		two.mute = true
		gone := time.Time{}
		for end := time.Now().Add(4 * time.Minute); time.Now().Before(end) && gone.IsZero(); {
			x.pass(time.Second)
			if len(x.addrs()) == 0 {
				gone = time.Now()
			}
		}
		if gone.IsZero() || len(x.routes()) > 0 || len(x.settings().DNS.Servers) > 0 {
			t.Fatalf("after the end of the lease: %v, %v, %v", x.addrs(), x.routes(), x.settings().DNS)
		}
		if tr := x.c.Status().Trouble; len(tr) != 1 || tr[0] != "the lease of 192.0.2.50 has ended and was not renewed" {
			t.Errorf("trouble %q", tr)
		}
		s.mute = false
		x.pass(70 * time.Second) // the longest pause between two questions, and the probes
		x.want("addresses after the server is back", x.addrs(), "[192.0.2.50/24]")
		t.Logf("watched for %s", time.Since(began))
		x.close()
	})
}

// TestDHCPLoss: lost messages cost some seconds.
func TestDHCPLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer("192.0.2.50")
		s.lose = 2
		x := start(t, newWire(s.peer, func(p packet, _ []byte) [][]byte {
			if len(s.heard) == 3 && s.lose == 0 && s.heard[2] == dhcpv4.MessageTypeDiscover {
				s.lose = 1 // the first request, too
			}
			return nil
		}), Config{Words: Words{DHCP: true}})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := x.wait(ctx); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		x.want("heard", s.heard, "[DISCOVER DISCOVER DISCOVER REQUEST REQUEST]")
		x.close()
	})
}

// TestDHCPSilence: what is asked, how often, and what a person is told of it.
func TestDHCPSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, newWire(), Config{Words: Words{DHCP: true}})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := x.wait(ctx)
		var silent *NoAnswerError
		if !errors.As(err, &silent) {
			t.Fatal(err)
		}
		x.want("error", err, "no answer to dhcp on test0 in 10 s (4 DHCPDISCOVER sent, nothing heard)")
		if !strings.Contains(silent.Hint(), "no DHCP server") {
			t.Errorf("hint %q", silent.Hint())
		}
		x.pass(10 * time.Minute)
		n := x.sends()
		for i := len(n) - 3; i < len(n)-1; i++ {
			if d := n[i+1].at - n[i].at; d < 57*time.Second || d > 71*time.Second {
				t.Errorf("%s between questions after some minutes", d)
			}
		}
		if x.applied != 0 {
			t.Error("something was configured")
		}
		x.close()
	})
}

func TestDHCPRefusals(t *testing.T) {
	// While it is leased: the address goes at once.
	synctest.Test(t, func(t *testing.T) {
		s := newServer("192.0.2.50", "192.0.2.51")
		x := start(t, newWire(s.peer), Config{Words: Words{DHCP: true}})
		x.pass(10 * time.Second)
		s.forget, s.give = true, s.give[1:]
		for end := time.Now().Add(time.Minute); time.Now().Before(end) && len(x.addrs()) > 0; {
			x.pass(100 * time.Millisecond)
		}
		if len(x.addrs()) != 0 {
			t.Fatal("the address stays after a NAK")
		}
		x.want("trouble", x.c.Status().Trouble, "[192.0.2.1 refuses to renew the lease of 192.0.2.50]")
		x.pass(10 * time.Second)
		x.want("addresses", x.addrs(), "[192.0.2.51/24]")
		x.want("trouble", x.c.Status().Trouble, "[]")
		x.close()
	})
	// When it is asked for: it is asked again, and not in a storm.
	synctest.Test(t, func(t *testing.T) {
		s := newServer("192.0.2.50")
		s.nak = true
		x := start(t, newWire(s.peer), Config{Words: Words{DHCP: true}})
		x.pass(10 * time.Second)
		if n := len(s.heard); n < 10 || n > 24 {
			t.Errorf("%d messages in 10 s to who refuses", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := x.wait(ctx)
		var no *NoAnswerError
		if !errors.As(err, &no) || no.Hint() != "192.0.2.1 offered 192.0.2.50 and then refused it." {
			t.Errorf("%v, %+v", err, no)
		}
		if !strings.HasPrefix(err.Error(), "dhcp did not come to an end on test0 in 1 s (") {
			t.Errorf("%v", err)
		}
		s.nak = false
		x.pass(3 * time.Second)
		x.want("addresses", x.addrs(), "[192.0.2.50/24]")
		x.close()
	})
	// A server that offers and then says nothing: another one is looked for.
	synctest.Test(t, func(t *testing.T) {
		bad, good := newServer("192.0.2.50"), newServer("192.0.2.60")
		good.addr = addr("192.0.2.2")
		late := 0
		x := start(t, newWire(func(p packet, raw []byte) [][]byte {
			out := bad.peer(p, raw)
			if bad.last.MessageType() == dhcpv4.MessageTypeRequest {
				return nil
			}
			return out
		}, func(p packet, raw []byte) [][]byte {
			if late++; late < 4 {
				return nil
			}
			return good.peer(p, raw)
		}), Config{Words: Words{DHCP: true}})
		x.pass(20 * time.Second)
		if tr := x.c.Status().Trouble; len(x.addrs()) == 0 && (len(tr) == 0 || !strings.Contains(tr[0], "did not give it")) {
			t.Errorf("trouble %q", tr)
		}
		bad.mute = true
		x.pass(40 * time.Second)
		x.want("addresses", x.addrs(), "[192.0.2.60/24]")
		x.close()
	})
}

// TestDHCPOffers: of several servers the first is taken; the others hear that.
func TestDHCPOffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := newServer("192.0.2.50"), newServer("192.0.2.60")
		two.addr = addr("192.0.2.2")
		x := start(t, newWire(one.peer, two.peer), Config{Words: Words{DHCP: true}})
		x.pass(2 * time.Second)
		x.want("addresses", x.addrs(), "[192.0.2.50/24]")
		x.want("the other heard", two.heard, "[DISCOVER REQUEST]")
		x.want("offers", x.c.Status().Leases[0].Offers, 2)
		x.close()
	})
}

// TestDHCPConflict: an address that somebody has is declined, and another one asked for.
func TestDHCPConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer("192.0.2.50", "192.0.2.51")
		s.taken["192.0.2.50"] = true
		x := start(t, newWire(s.peer), Config{Words: Words{DHCP: true}})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := x.wait(ctx); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		x.want("heard", s.heard, "[DISCOVER REQUEST DECLINE DISCOVER REQUEST]")
		x.want("addresses", x.addrs(), "[192.0.2.51/24]")

		// Later somebody takes it: he is told, once in ten seconds.
		x.pass(10 * time.Second)
		x.sends()
		for range 3 {
			x.say(arp(otherMAC, addr("192.0.2.51"), addr("192.0.2.9")))
			x.pass(time.Second)
		}
		n := x.sends()
		if len(n) != 1 || n[0].frame.proto != 0 {
			t.Errorf("%d frames in defence, want one", len(n))
		}
		x.want("trouble", x.c.Status().Trouble, "[02:00:00:00:00:bb uses 192.0.2.51 too]")
		x.want("addresses", x.addrs(), "[192.0.2.51/24]")
		if got := len(x.passed()); got < 3 {
			t.Errorf("%d frames of ARP reached the stack, want them all", got)
		}
		x.close()
	})
}

// TestDHCPLate: a lease whose T1 is close to its end is renewed before that.
func TestDHCPLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer("192.0.2.50")
		s.opts = append(s.opts, dhcpv4.OptGeneric(dhcpv4.OptionRenewTimeValue, []byte{0, 0, 0, 115}), dhcpv4.OptGeneric(dhcpv4.OptionRebindingTimeValue, []byte{0, 0, 0, 118}))
		x := start(t, newWire(s.peer), Config{Words: Words{DHCP: true}})
		x.pass(time.Second)
		s.heard = nil
		x.pass(time.Hour)
		if len(s.heard) < 29 || slices.Contains(s.heard, dhcpv4.MessageTypeDiscover) {
			t.Errorf("heard %v", s.heard)
		}
		x.close()
	})
}

// TestDHCPInfinite: a lease without an end is not renewed.
func TestDHCPInfinite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer("192.0.2.50")
		s.opts = append(s.opts, dhcpv4.OptIPAddressLeaseTime(infinite*time.Second))
		x := start(t, newWire(s.peer), Config{Words: Words{DHCP: true}})
		x.pass(time.Second)
		s.heard = nil
		x.pass(1000 * time.Hour)
		if len(s.heard) > 0 || len(x.addrs()) != 1 || !x.settings().Addrs[0].Info.Valid.IsZero() {
			t.Errorf("heard %v, %+v", s.heard, x.settings().Addrs)
		}
		x.close()
	})
}

// TestDHCPOverridden: what a person has said stands over what is learned.
func TestDHCPOverridden(t *testing.T) {
	mtu := dhcpv4.Option{Code: dhcpv4.OptionInterfaceMTU, Value: dhcpv4.Uint16(1400)}
	for _, tt := range []struct {
		conf   Config
		mtu    int
		routes string
	}{
		{Config{}, 1400, "[0.0.0.0/0 via 192.0.2.1 metric 0 mtu 0]"},
		{Config{MTU: 1300}, 1300, "[0.0.0.0/0 via 192.0.2.1 metric 0 mtu 0]"},
		{Config{Routed4: true}, 1400, "[]"},
		{Config{Gateways: []netip.Addr{addr("192.0.2.9"), addr("fe80::9")}}, 1400, "[0.0.0.0/0 via 192.0.2.9 metric 0 mtu 0]"},
		{Config{Gateways: []netip.Addr{addr("198.51.100.9")}}, 1400, "[0.0.0.0/0 via 198.51.100.9 onlink metric 0 mtu 0]"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer("192.0.2.50")
			s.opts = append(s.opts, mtu)
			tt.conf.DHCP = true
			x := start(t, newWire(s.peer), tt.conf)
			x.pass(time.Second)
			x.want("MTU", x.settings().MTU, tt.mtu)
			x.want("routes", x.routes(), tt.routes)
			x.close()
		})
	}
}

// TestLeaseOf: what is read out of options, and what is left out.
func TestLeaseOf(t *testing.T) {
	opt := func(code uint8, v ...byte) dhcpv4.Option {
		return dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(code), v)
	}
	base := []dhcpv4.Option{opt(51, 0, 0, 0, 100), opt(54, 192, 0, 2, 1), opt(1, 255, 255, 255, 0)}
	search := (&rfc1035label.Labels{Labels: []string{"a.example", "b.example"}}).ToBytes()
	type got struct {
		addr, routes, dns string
		mtu               int
		t1, t2            time.Duration
	}
	plain := got{addr: "192.0.2.7/24", routes: "[]", dns: "{[] []}", t1: 50 * time.Second, t2: 87500 * time.Millisecond}
	with := func(f func(*got)) got { g := plain; f(&g); return g }
	for _, tt := range []struct {
		name string
		opts []dhcpv4.Option
		want got
	}{
		{"plain", nil, plain},
		{"no mask", []dhcpv4.Option{opt(1)}, plain}, // class C
		{"a mask with holes", []dhcpv4.Option{opt(1, 255, 0, 255, 0)}, plain},
		{"a host mask", []dhcpv4.Option{opt(1, 255, 255, 255, 255), opt(3, 192, 0, 2, 1)}, with(func(g *got) {
			g.addr, g.routes = "192.0.2.7/32", "[0.0.0.0/0 192.0.2.1 onlink]"
		})},
		{"routers", []dhcpv4.Option{opt(3, 192, 0, 2, 1, 192, 0, 2, 2, 0, 0, 0, 0, 127, 0, 0, 1, 192, 0, 2, 7)}, with(func(g *got) {
			g.routes = "[0.0.0.0/0 192.0.2.1 0.0.0.0/0 192.0.2.2]"
		})},
		{"classless routes instead of routers", []dhcpv4.Option{opt(3, 192, 0, 2, 1), opt(121, 0, 192, 0, 2, 9, 16, 10, 1, 192, 0, 2, 8, 32, 198, 51, 100, 1, 0, 0, 0, 0)}, with(func(g *got) {
			g.routes = "[0.0.0.0/0 192.0.2.9 10.1.0.0/16 192.0.2.8 198.51.100.1/32 -]"
		})},
		{"broken classless routes", []dhcpv4.Option{opt(3, 192, 0, 2, 1), opt(121, 33, 192)}, with(func(g *got) { g.routes = "[0.0.0.0/0 192.0.2.1]" })},
		{"name servers", []dhcpv4.Option{opt(6, 192, 0, 2, 53, 0, 0, 0, 0, 192, 0, 2, 53, 1), opt(15, []byte("corp.example.\x00")...)}, with(func(g *got) {
			g.dns = "{[192.0.2.53:53] [corp.example]}"
		})},
		{"several domains in one", []dhcpv4.Option{opt(15, []byte("a.example b.example")...)}, with(func(g *got) { g.dns = "{[] [a.example b.example]}" })},
		{"names that are none", []dhcpv4.Option{opt(15, []byte("a..b $(reboot) -x a/b\n")...)}, plain},
		{"a search list instead of the domain", []dhcpv4.Option{opt(15, []byte("corp.example")...), opt(119, search...)}, with(func(g *got) { g.dns = "{[] [a.example b.example]}" })},
		{"a compressed search list", []dhcpv4.Option{opt(119, []byte("\x01a\x07example\x00\x01b\xc0\x02")...)}, with(func(g *got) { g.dns = "{[] [a.example b.example]}" })},
		{"a search list that points to itself", []dhcpv4.Option{opt(119, 0xc0, 0)}, plain},
		{"MTU", []dhcpv4.Option{opt(26, 5, 120)}, with(func(g *got) { g.mtu = 1400 })},
		{"an MTU of 68", []dhcpv4.Option{opt(26, 0, 68)}, plain},
		{"T1 and T2", []dhcpv4.Option{opt(58, 0, 0, 0, 10), opt(59, 0, 0, 0, 20)}, with(func(g *got) { g.t1, g.t2 = 10*time.Second, 20*time.Second })},
		{"T1 after T2", []dhcpv4.Option{opt(58, 0, 0, 0, 30), opt(59, 0, 0, 0, 20)}, plain},
		{"T1 after the end", []dhcpv4.Option{opt(58, 0, 0, 1, 30)}, plain},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := &dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootReply, HWType: 1, ClientHWAddr: ourMAC, YourIPAddr: net.IP{192, 0, 2, 7}, Options: dhcpv4.Options{}}
			for _, o := range append(slices.Clone(base), tt.opts...) {
				m.Options[o.Code.Code()] = o.Value.ToBytes()
			}
			b := m.ToBytes()
			m, err := parseDHCP(b, ourMAC)
			if err != nil {
				t.Fatal(err)
			}
			l, err := leaseOf(m)
			if err != nil {
				t.Fatal(err)
			}
			if g := (got{l.addr.String(), ways(l.routes), fmt.Sprint(l.dns), l.mtu, l.t1, l.t2}); g != tt.want {
				t.Errorf("\n got %+v\nwant %+v", g, tt.want)
			}
			if _, err := parseDHCP(b, otherMAC); err == nil {
				t.Error("it was taken by another host")
			}
		})
	}
	for name, change := range map[string]func(m *dhcpv4.DHCPv4){
		"no time":        func(m *dhcpv4.DHCPv4) { delete(m.Options, 51) },
		"no time at all": func(m *dhcpv4.DHCPv4) { m.Options[51] = []byte{0, 0, 0, 0} },
		"a short time":   func(m *dhcpv4.DHCPv4) { m.Options[51] = []byte{0, 1} },
		"no address":     func(m *dhcpv4.DHCPv4) { m.YourIPAddr = net.IPv4zero },
		"loopback":       func(m *dhcpv4.DHCPv4) { m.YourIPAddr = net.IP{127, 0, 0, 1} },
		"a group":        func(m *dhcpv4.DHCPv4) { m.YourIPAddr = net.IP{224, 0, 0, 1} },
		"broadcast":      func(m *dhcpv4.DHCPv4) { m.YourIPAddr = net.IPv4bcast },
	} {
		m := &dhcpv4.DHCPv4{YourIPAddr: net.IP{192, 0, 2, 7}, Options: dhcpv4.OptionsFromList(base...)}
		change(m)
		if l, err := leaseOf(m); err == nil {
			t.Errorf("%s: %+v", name, l)
		}
	}
}

func ways(rs []stacks.Route) string {
	var out []string
	for _, r := range rs {
		s := r.Dst.String() + " -"
		if r.Gateway.IsValid() {
			s = r.Dst.String() + " " + r.Gateway.String()
		}
		if r.OnLink {
			s += " onlink"
		}
		out = append(out, s)
	}
	return fmt.Sprint(out)
}

// TestOverload: options go on in the fields file and sname.
func TestOverload(t *testing.T) {
	m := &dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootReply, HWType: 1, ClientHWAddr: ourMAC, YourIPAddr: net.IP{192, 0, 2, 7}, Options: dhcpv4.Options{
		52: {3}, 51: {0, 0, 0, 100},
	}}
	b := m.ToBytes()
	copy(b[108:], "\x06\x04\xc0\x00\x02\x35\xff")
	copy(b[44:], "\x06\x04\xc0\x00\x02\x36\x0f\x09a.example\xff")
	got, err := parseDHCP(b, ourMAC)
	if err != nil {
		t.Fatal(err)
	}
	l, err := leaseOf(got)
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprint(l.dns); s != "{[192.0.2.53:53 192.0.2.54:53] [a.example]}" {
		t.Error(s)
	}
	b[108], b[109] = 6, 255 // cut off
	if _, err := parseDHCP(b, ourMAC); err == nil {
		t.Error("options that are cut off were taken")
	}
}
