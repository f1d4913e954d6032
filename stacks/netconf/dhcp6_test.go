// SPDX-License-Identifier: Apache-2.0

// DHCPv6 against a made-up server.

package netconf

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/insomniacslk/dhcp/rfc1035label"
	"golang.org/x/sys/unix"
)

// A dhcp6Server answers as it is set. Its fields change only while the client rests.
type dhcp6Server struct {
	duid             dhcpv6.DUID
	give             []string
	preferred, valid time.Duration
	t1, t2           time.Duration
	preference       uint8
	rapid            bool // it commits at once
	mute             bool
	lose             int
	code             iana.StatusCode // of what it gives; of renewals if onlyRenewal is set
	onlyRenewal      bool
	opts             []dhcpv6.Option
	heard            []dhcpv6.MessageType
	last             *dhcpv6.Message
	taken            map[string]bool
}

func newServer6(give ...string) *dhcp6Server {
	return &dhcp6Server{
		duid: &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: serverMAC}, give: give,
		preferred: 100 * time.Second, valid: 200 * time.Second, t1: 50 * time.Second, t2: 80 * time.Second, taken: map[string]bool{},
		opts: []dhcpv6.Option{
			dhcpv6.OptDNS(addr("2001:db8::53").AsSlice(), addr("ff02::1").AsSlice()),
			dhcpv6.OptDomainSearchList(&rfc1035label.Labels{Labels: []string{"a.example", "not a name"}}),
		},
	}
}

func (s *dhcp6Server) peer(p packet, _ []byte) [][]byte {
	if p.proto == unix.IPPROTO_ICMPV6 && p.data[0] == typeNeighborSolicit {
		if a, _ := parseNeighbour(p.data); s.taken[a.String()] {
			msg := append([]byte{typeNeighborAdvert, 0, 0, 0, 0x20, 0, 0, 0}, a.AsSlice()...)
			return [][]byte{icmp6(ourMAC, otherMAC, LinkLocal(ourMAC), a, msg)}
		}
		return nil
	}
	if p.proto != unix.IPPROTO_UDP || p.toPort != server6 {
		return nil
	}
	m, err := dhcpv6.MessageFromBytes(p.data)
	if err != nil {
		panic(err)
	}
	s.heard, s.last = append(s.heard, m.MessageType), m
	if s.lose > 0 {
		s.lose--
		return nil
	}
	if id := m.Options.ServerID(); s.mute || id != nil && !id.Equal(s.duid) {
		return nil
	}
	r := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeReply, TransactionID: m.TransactionID}
	r.AddOption(dhcpv6.OptClientID(m.Options.ClientID()))
	r.AddOption(dhcpv6.OptServerID(s.duid))
	code := s.code
	switch m.MessageType {
	case dhcpv6.MessageTypeSolicit:
		if s.rapid && rapid(m) {
			r.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit})
		} else {
			r.MessageType = dhcpv6.MessageTypeAdvertise
		}
		if s.preference > 0 {
			r.AddOption(dhcpv6.OptPreference(s.preference))
		}
	case dhcpv6.MessageTypeDecline:
		s.give = s.give[1:]
		return [][]byte{s.frame(r)}
	case dhcpv6.MessageTypeRelease:
		return nil
	case dhcpv6.MessageTypeInformationRequest:
		for _, o := range s.opts {
			r.AddOption(o)
		}
		return [][]byte{s.frame(r)}
	}
	if s.onlyRenewal && m.MessageType != dhcpv6.MessageTypeRenew && m.MessageType != dhcpv6.MessageTypeRebind {
		code = iana.StatusSuccess
	}
	ia := &dhcpv6.OptIANA{IaId: m.Options.OneIANA().IaId, T1: s.t1, T2: s.t2}
	if code != iana.StatusSuccess {
		ia.Options.Add(&dhcpv6.OptStatusCode{StatusCode: code})
	} else {
		ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: addr(s.give[0]).AsSlice(), PreferredLifetime: s.preferred, ValidLifetime: s.valid})
	}
	r.AddOption(ia)
	for _, o := range s.opts {
		r.AddOption(o)
	}
	return [][]byte{s.frame(r)}
}

func (s *dhcp6Server) frame(m *dhcpv6.Message) []byte {
	return udp6(ourMAC, serverMAC, LinkLocal(ourMAC), addr("fe80::aa"), client6, server6, m.ToBytes())
}

func TestDHCP6(t *testing.T) {
	for _, rapid := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer6("2001:db8::50")
			s.rapid = rapid
			x := start(t, newWire(s.peer), Config{Words: Words{DHCP6: true}, FQDN: "host.corp.example"})
			began := time.Now()
			if err := x.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(began); d > 2200*time.Millisecond {
				t.Errorf("a lease took %s", d)
			}
			synctest.Wait()
			if want := "[SOLICIT REQUEST]"; !rapid {
				x.want("heard", s.heard, want)
			} else {
				x.want("heard", s.heard, "[SOLICIT]")
			}
			x.want("addresses", x.addrs(), "[2001:db8::50/128]")
			x.want("routes", x.routes(), "[]")
			x.want("DNS", x.settings().DNS, "{[[2001:db8::53]:53] [a.example]}")
			info := x.settings().Addrs[0].Info
			if info.Valid.Sub(info.Preferred) != 100*time.Second || info.Flags != unix.IFA_F_NOPREFIXROUTE|unix.IFA_F_NODAD {
				t.Errorf("%+v", info)
			}
			if o, ok := s.last.GetOneOption(dhcpv6.OptionFQDN).(*dhcpv6.OptFQDN); !ok || o.Flags != 1 || o.DomainName.Labels[0] != "host.corp.example" {
				t.Errorf("FQDN %v", o)
			}
			s.heard = nil
			x.close()
			x.want("at the end", s.heard, "[RELEASE]")
			if a := s.last.Options.OneIANA().Options.OneAddress(); a == nil || a.IPv6Addr.String() != "2001:db8::50" {
				t.Errorf("the release is of %v", a)
			}
		})
	}
}

// TestDHCP6Renewal: renewed by its server, rebound by any, deprecated, ended, had again.
func TestDHCP6Renewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer6("2001:db8::50")
		x := start(t, newWire(s.peer), Config{Words: Words{DHCP6: true}})
		x.pass(10 * time.Second)
		s.heard = nil
		before := x.settings().Addrs[0].Info.Valid
		x.pass(45 * time.Second)
		x.want("at T1", s.heard, "[RENEW]")
		if !x.settings().Addrs[0].Info.Valid.After(before) {
			t.Error("the lease was not renewed")
		}
		s.mute = true
		two := newServer6("2001:db8::50")
		two.duid = &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: otherMAC}
		two.opts = []dhcpv6.Option{dhcpv6.OptDNS(addr("2001:db8::99").AsSlice())}
		x.wire.mu.Lock()
		x.peers = append(x.peers, two.peer)
		x.wire.mu.Unlock()
		x.pass(90 * time.Second)
		if n := len(two.heard); n == 0 || two.heard[n-1] != dhcpv6.MessageTypeRenew && !slices.Contains(two.heard, dhcpv6.MessageTypeRebind) {
			t.Errorf("the other server heard %v", two.heard)
		}
		x.want("DNS", x.settings().DNS.Servers, "[[2001:db8::99]:53]")
		two.mute = true
		var deprecated, gone bool
		for end := time.Now().Add(10 * time.Minute); time.Now().Before(end) && !gone; {
			x.pass(time.Second)
			as := x.settings().Addrs
			gone = len(as) == 0
			deprecated = deprecated || !gone && as[0].Info.Flags&unix.IFA_F_DEPRECATED != 0
		}
		if !gone || !deprecated || len(x.settings().DNS.Servers) > 0 {
			t.Errorf("gone %t, deprecated before %t, DNS %v", gone, deprecated, x.settings().DNS)
		}
		x.want("trouble", x.c.Status().Trouble, "[the lease of 2001:db8::50 has ended and was not renewed]")
		s.mute = false
		x.pass(5 * time.Minute)
		x.want("addresses after the server is back", x.addrs(), "[2001:db8::50/128]")
		x.close()
	})
}

func TestDHCP6Refusals(t *testing.T) {
	for _, code := range []iana.StatusCode{iana.StatusNoBinding, iana.StatusNotOnLink, iana.StatusNoAddrsAvail} {
		synctest.Test(t, func(t *testing.T) { // of a renewal: the address goes
			s := newServer6("2001:db8::50")
			x := start(t, newWire(s.peer), Config{Words: Words{DHCP6: true}})
			x.pass(10 * time.Second)
			s.code, s.onlyRenewal, s.give = code, true, []string{"2001:db8::51"}
			for end := time.Now().Add(time.Minute); time.Now().Before(end) && len(x.addrs()) > 0; {
				x.pass(100 * time.Millisecond)
			}
			if len(x.addrs()) > 0 {
				t.Fatalf("%s: the address stays", code)
			}
			x.pass(5 * time.Second)
			x.want("addresses", x.addrs(), "[2001:db8::51/128]")
			x.close()
		})
	}
	synctest.Test(t, func(t *testing.T) { // a passing failure: the address stays
		s := newServer6("2001:db8::50")
		x := start(t, newWire(s.peer), Config{Words: Words{DHCP6: true}})
		x.pass(10 * time.Second)
		s.code, s.onlyRenewal = iana.StatusUnspecFail, true
		x.pass(time.Minute)
		x.want("addresses", x.addrs(), "[2001:db8::50/128]")
		s.code = iana.StatusSuccess
		x.pass(3 * time.Minute)
		x.want("addresses", x.addrs(), "[2001:db8::50/128]")
		x.close()
	})
	synctest.Test(t, func(t *testing.T) { // no address at all
		s := newServer6("2001:db8::50")
		s.code = iana.StatusNoAddrsAvail
		x := start(t, newWire(s.peer), Config{Words: Words{DHCP6: true}})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		err := x.wait(ctx)
		var no *NoAnswerError
		if !errors.As(err, &no) || !strings.Contains(no.Hint(), "NoAddrsAvail") || !strings.Contains(err.Error(), "DHCPv6 ADVERTISE heard") {
			t.Errorf("%v: %+v", err, no)
		}
		if n := len(s.heard); n > 8 {
			t.Errorf("%d messages in 20 s", n)
		}
		x.close()
	})
	synctest.Test(t, func(t *testing.T) { // an offer that is not kept
		s := newServer6("2001:db8::50")
		s.code = iana.StatusNoBinding
		good := s.peer
		x := start(t, newWire(func(p packet, raw []byte) [][]byte {
			if p.proto == unix.IPPROTO_UDP && p.data[0] == byte(dhcpv6.MessageTypeSolicit) {
				s.code = iana.StatusSuccess
				defer func() { s.code = iana.StatusNoBinding }()
			}
			return good(p, raw)
		}), Config{Words: Words{DHCP6: true}})
		x.pass(20 * time.Second)
		if n := len(s.heard); n > 20 || n < 6 || len(x.addrs()) > 0 {
			t.Errorf("%d messages in 20 s to who refuses, addresses %v", n, x.addrs())
		}
		x.close()
	})
}

// TestDHCP6Loss: lost messages are repeated.
func TestDHCP6Loss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer6("2001:db8::50")
		s.lose = 1
		x := start(t, newWire(s.peer), Config{Words: Words{DHCP6: true}})
		x.pass(6 * time.Second)
		x.want("heard", s.heard, "[SOLICIT SOLICIT REQUEST]")
		x.want("addresses", x.addrs(), "[2001:db8::50/128]")
		x.close()
	})
}

// TestDHCP6Offers: the highest preference is taken, 255 at once.
func TestDHCP6Offers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := newServer6("2001:db8::50"), newServer6("2001:db8::60")
		two.duid, two.preference = &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: otherMAC}, 7
		x := start(t, newWire(one.peer, two.peer), Config{Words: Words{DHCP6: true}})
		x.pass(5 * time.Second)
		x.want("addresses", x.addrs(), "[2001:db8::60/128]")
		x.close()
	})
	synctest.Test(t, func(t *testing.T) {
		s := newServer6("2001:db8::50")
		s.preference = 255
		x := start(t, newWire(s.peer), Config{Words: Words{DHCP6: true}})
		began := time.Now()
		if err := x.wait(t.Context()); err != nil || time.Since(began) > detectTime {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		x.close()
	})
}

// TestDHCP6Duplicate: an address that somebody has is declined.
func TestDHCP6Duplicate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer6("2001:db8::50", "2001:db8::51")
		s.taken["2001:db8::50"] = true
		x := start(t, newWire(s.peer), Config{Words: Words{DHCP6: true}})
		x.pass(10 * time.Second)
		x.want("heard", s.heard, "[SOLICIT REQUEST DECLINE SOLICIT REQUEST]")
		x.want("addresses", x.addrs(), "[2001:db8::51/128]")
		x.close()
	})
}

// TestAdvised: with auto DHCPv6 does what routers say.
func TestAdvised(t *testing.T) {
	for name, tt := range map[string]struct {
		flags              byte
		heard, addrs, dns  string
		prefix             []byte
		after, stillSilent string
	}{
		"nothing":     {0, "[]", "[2001:db8:1::ff:fe00:11/64]", "[]", pio("2001:db8:1::/64", 0xc0, 3600, 3600), "", ""},
		"information": {0x40, "[INFORMATION-REQUEST]", "[2001:db8:1::ff:fe00:11/64]", "[[2001:db8::53]:53]", pio("2001:db8:1::/64", 0xc0, 3600, 3600), "", ""},
		"addresses":   {0x80, "[SOLICIT REQUEST]", "[2001:db8::50/128]", "[[2001:db8::53]:53]", pio("2001:db8:1::/64", 0x80, 3600, 3600), "", ""},
		"both":        {0xc0, "[SOLICIT REQUEST]", "[2001:db8::50/128 2001:db8:1::ff:fe00:11/64]", "[[2001:db8::53]:53]", pio("2001:db8:1::/64", 0xc0, 3600, 3600), "", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer6("2001:db8::50")
			x := start(t, newWire(s.peer, answering(func() []byte { return advertFlags(routerAddr, tt.flags, 1800, tt.prefix) })), Config{Words: Words{Auto: true}})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := x.wait(ctx); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			synctest.Wait()
			x.want(name+": heard", s.heard, tt.heard)
			x.want(name+": addresses", x.addrs(), tt.addrs)
			x.want(name+": DNS", x.settings().DNS.Servers, tt.dns)
			x.close()
		})
	}
	// What routers say changes.
	synctest.Test(t, func(t *testing.T) {
		s := newServer6("2001:db8::50")
		s.opts = append(s.opts, dhcpv6.OptInformationRefreshTime(time.Hour))
		x := start(t, newWire(s.peer), Config{Words: Words{Auto: true}})
		say := func(flags byte) {
			x.say(advertFlags(routerAddr, flags, 1800, pio("2001:db8:1::/64", 0xc0, infinite, infinite)))
			x.pass(5 * time.Second)
		}
		say(0)
		x.want("heard", s.heard, "[]")
		say(0x40)
		x.want("heard", s.heard, "[INFORMATION-REQUEST]")
		say(0x40)
		x.pass(90 * time.Minute)
		x.want("heard", s.heard, "[INFORMATION-REQUEST INFORMATION-REQUEST]")
		say(0x80)
		x.want("heard", s.heard, "[INFORMATION-REQUEST INFORMATION-REQUEST SOLICIT REQUEST]")
		x.want("addresses", x.addrs(), "[2001:db8::50/128 2001:db8:1::ff:fe00:11/64]")
		x.close()
	})
}

// TestDHCP6Infinite: a lease without an end is not renewed.
func TestDHCP6Infinite(t *testing.T) {
	for _, times := range [][2]time.Duration{{0, 0}, {infinite * time.Second, infinite * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer6("2001:db8::50")
			s.preferred, s.valid, s.t1, s.t2 = infinite*time.Second, infinite*time.Second, times[0], times[1]
			x := start(t, newWire(s.peer), Config{Words: Words{DHCP6: true}})
			x.pass(5 * time.Second)
			s.heard = nil
			x.pass(1000 * time.Hour)
			if len(s.heard) > 0 || len(x.addrs()) != 1 {
				t.Errorf("heard %v, addresses %v", s.heard, x.addrs())
			}
			x.close()
		})
	}
}

// TestLeaseOf6: what is read out of an answer, and what is thrown away.
func TestLeaseOf6(t *testing.T) {
	id := [4]byte{1, 2, 3, 4}
	now := time.Unix(1000, 0)
	build := func(t1, t2, preferred, valid time.Duration, a string) *dhcpv6.Message {
		m := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeReply}
		ia := &dhcpv6.OptIANA{IaId: id, T1: t1, T2: t2}
		ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: netip.MustParseAddr(a).AsSlice(), PreferredLifetime: preferred, ValidLifetime: valid})
		m.AddOption(ia)
		return m
	}
	const s, good = time.Second, "2001:db8::1"
	for _, tt := range []struct {
		name           string
		m              *dhcpv6.Message
		why            string
		t1, t2, lastly time.Duration
	}{
		{"as it says", build(10*s, 20*s, 30*s, 40*s, good), "", 10 * s, 20 * s, 40 * s},
		{"left to the client", build(0, 0, 100*s, 200*s, good), "", 50 * s, 80 * s, 200 * s},
		{"never preferred", build(0, 0, 0, 200*s, good), "", 100 * s, 160 * s, 200 * s},
		{"T1 after T2", build(30*s, 20*s, 30*s, 40*s, good), "T1 is later than T2", 0, 0, 0},
		{"times after the end", build(300*s, 400*s, 30*s, 40*s, good), "", 20 * s, 35 * s, 40 * s},
		{"no life", build(0, 0, 0, 0, good), "there is no address in the answer", 0, 0, 0},
		{"preferred for longer than valid", build(0, 0, 50*s, 40*s, good), "there is no address in the answer", 0, 0, 0},
		{"link-local", build(0, 0, 30*s, 40*s, "fe80::1"), "there is no address in the answer", 0, 0, 0},
		{"a group", build(0, 0, 30*s, 40*s, "ff02::1"), "there is no address in the answer", 0, 0, 0},
		{"mapped", build(0, 0, 30*s, 40*s, "::ffff:192.0.2.1"), "there is no address in the answer", 0, 0, 0},
		{"empty", &dhcpv6.Message{}, "there is no address in the answer", 0, 0, 0},
	} {
		l, why := leaseOf6(tt.m, id, now)
		if why != tt.why {
			t.Errorf("%s: %q, want %q", tt.name, why, tt.why)
		} else if why == "" && (l.t1.Sub(now) != tt.t1 || l.t2.Sub(now) != tt.t2 || l.until.Sub(now) != tt.lastly) {
			t.Errorf("%s: T1 %s, T2 %s, valid %s", tt.name, l.t1.Sub(now), l.t2.Sub(now), l.until.Sub(now))
		}
		if l, why := leaseOf6(tt.m, [4]byte{9}, now); why == "" {
			t.Errorf("%s: another's address was taken: %v", tt.name, l.addr)
		}
	}
}
