// SPDX-License-Identifier: Apache-2.0

// Made-up routers: prefixes, lifetimes, renumbering, name servers.

package netconf

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

var routerAddr = netip.MustParseAddr("fe80::aa")

// advertFrame is an advertisement of a router.
func advertFrame(from netip.Addr, opts []byte, life uint16) []byte {
	return advertFlags(from, 0, life, opts)
}

func advertFlags(from netip.Addr, flags byte, life uint16, opts []byte) []byte {
	b := []byte{typeRouterAdvert, 0, 0, 0, 64, flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(b[6:], life)
	all := netip.MustParseAddr("ff02::1")
	return icmp6(groupMAC(all), serverMAC, all, from, append(b, opts...))
}

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

// pio is a prefix information option; flags are L 0x80 and A 0x40.
func pio(prefix string, flags byte, valid, preferred uint32) []byte {
	p := netip.MustParsePrefix(prefix)
	b := append([]byte{optPrefix, 4, byte(p.Bits()), flags}, be32(valid)...)
	b = append(append(b, be32(preferred)...), 0, 0, 0, 0)
	return append(b, p.Addr().AsSlice()...)
}

func mtuOption(mtu uint32) []byte { return append([]byte{optMTU, 1, 0, 0}, be32(mtu)...) }

func routeOption(prefix string, pref byte, life uint32) []byte {
	p := netip.MustParsePrefix(prefix)
	b := append([]byte{optRoute, 3, byte(p.Bits()), pref << 3}, be32(life)...)
	return append(b, p.Addr().AsSlice()...)
}

func rdnss(life uint32, servers ...string) []byte {
	b := append([]byte{optRDNSS, byte(1 + 2*len(servers)), 0, 0}, be32(life)...)
	for _, s := range servers {
		b = append(b, addr(s).AsSlice()...)
	}
	return b
}

func dnssl(life uint32, names ...string) []byte {
	b := append([]byte{optDNSSL, 0, 0, 0}, be32(life)...)
	for _, n := range names {
		b = append(b, wireName(n)...)
	}
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	b[1] = byte(len(b) / 8)
	return b
}

// answering is a router that answers solicitations.
func answering(frame func() []byte) peer {
	return func(p packet, _ []byte) [][]byte {
		if p.proto == unix.IPPROTO_ICMPV6 && p.data[0] == typeRouterSolicit {
			return [][]byte{frame()}
		}
		return nil
	}
}

func TestSLAAC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := slices.Concat(pio("2001:db8:1::/64", 0xc0, 3600, 1800), mtuOption(1400), rdnss(600, "2001:db8::53", "fe80::53", "ff02::1"), dnssl(600, "a.example", "b.example"))
		w := newWire(answering(func() []byte { return advertFrame(routerAddr, opts, 1800) }))
		x := start(t, w, Config{Words: Words{SLAAC: true}})
		began := time.Now()
		if err := x.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d != detectTime {
			t.Errorf("an address took %s", d)
		}
		synctest.Wait()
		x.want("addresses", x.addrs(), "[2001:db8:1::ff:fe00:11/64]")
		x.want("routes", x.routes(), "[2001:db8:1::/64 metric 256 mtu 1400 ::/0 via fe80::aa metric 1024 mtu 1400]")
		x.want("DNS", x.settings().DNS, "{[[2001:db8::53]:53 [fe80::53%7]:53] [a.example b.example]}")
		x.want("MTU", x.settings().MTU, 1500) // that of the link is IPv4's too
		info := x.settings().Addrs[0].Info
		if info.Valid.Sub(began) != time.Hour || info.Preferred.Sub(began) != 30*time.Minute || info.Flags != unix.IFA_F_NOPREFIXROUTE|unix.IFA_F_NODAD {
			t.Errorf("%+v", info)
		}
		var names []string
		for _, n := range x.sends() {
			names = append(names, map[byte]string{typeRouterSolicit: "RS", typeNeighborSolicit: "NS"}[n.frame.data[0]]+" "+n.frame.from.String()+" "+n.frame.to.String())
		}
		x.want("sent", names, "[RS fe80::ff:fe00:11 ff02::2 NS :: ff02::1:ff00:11]")
		if got := x.passed(); len(got) != 1 || got[0][etherLen+ip6Len] != typeRouterAdvert {
			t.Errorf("the stack saw %x, want the advertisement", got)
		}

		x.pass(601 * time.Second)
		x.want("DNS after its time", x.settings().DNS, "{[] []}")
		x.pass(1201 * time.Second)
		x.want("routes without the router", x.routes(), "[2001:db8:1::/64 metric 256 mtu 1400]")
		if f := x.settings().Addrs[0].Info.Flags; f&unix.IFA_F_DEPRECATED == 0 {
			t.Error("the address is still preferred")
		}
		x.pass(30 * time.Minute)
		if len(x.addrs())+len(x.routes()) != 0 {
			t.Errorf("after all: %v %v", x.addrs(), x.routes())
		}
		x.close()
	})
}

// TestRD: routes and name servers alone.
func TestRD(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := slices.Concat(pio("2001:db8:1::/64", 0xc0, 3600, 1800), rdnss(infinite, "2001:db8::53"))
		x := start(t, newWire(answering(func() []byte { return advertFrame(routerAddr, opts, 1800) })), Config{Words: Words{RD: true}})
		if err := x.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		x.want("addresses", x.addrs(), "[]")
		x.want("routes", x.routes(), "[2001:db8:1::/64 metric 256 mtu 0 ::/0 via fe80::aa metric 1024 mtu 0]")
		x.want("DNS", x.settings().DNS.Servers, "[[2001:db8::53]:53]")
		x.close()
	})
}

// TestSolicitations: they go on, with more and more time between them, until there is a
// router.
func TestSolicitations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, newWire(), Config{Words: Words{SLAAC: true}})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := x.wait(ctx)
		x.want("error", err, "no answer to slaac on test0 in 10 s (3 router solicitations sent, nothing heard)")
		if h := err.(*NoAnswerError).Hint(); !strings.Contains(h, "no router") {
			t.Errorf("hint %q", h)
		}
		x.pass(5 * time.Hour)
		n := x.sends()
		for i := range len(n) - 1 {
			want := quickSolicit
			if i > 0 {
				want = min(firstSolicit<<(i-1), lastSolicit)
			}
			if d := n[i+1].at - n[i].at; (d - want).Abs() > want/9 {
				t.Errorf("%s between solicitation %d and the next, want about %s", d, i, want)
			}
		}
		x.say(advertFrame(routerAddr, pio("2001:db8:1::/64", 0xc0, infinite, infinite), 1800))
		x.pass(2 * time.Second)
		x.want("addresses", x.addrs(), "[2001:db8:1::ff:fe00:11/64]")
		x.sends()
		x.pass(5 * time.Hour)
		if n := x.sends(); len(n) != 0 {
			t.Errorf("%d frames after a router was found", len(n))
		}
		x.close()
	})
}

// TestRenumbering: a new prefix comes, the old one is deprecated and ends, but not at
// once because somebody says so.
func TestRenumbering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, newWire(), Config{Words: Words{SLAAC: true}})
		x.say(advertFrame(routerAddr, pio("2001:db8:1::/64", 0xc0, 86400, 43200), 1800))
		x.pass(2 * time.Second)
		old, next := "2001:db8:1::ff:fe00:11/64", "2001:db8:2::ff:fe00:11/64"
		x.want("addresses", x.addrs(), "["+old+"]")
		x.say(advertFrame(routerAddr, slices.Concat(pio("2001:db8:1::/64", 0xc0, 0, 0), pio("2001:db8:2::/64", 0xc0, 86400, 43200)), 1800))
		x.pass(2 * time.Second)
		x.want("addresses", x.addrs(), "["+old+" "+next+"]")
		info := x.settings().Addrs[0].Info
		if left := time.Until(info.Valid); info.Flags&unix.IFA_F_DEPRECATED == 0 || left < twoHours-time.Minute || left > twoHours {
			t.Errorf("the old address: %+v, %s left", info, left)
		}
		// That its time is set to two hours again and again would keep it for ever.
		x.pass(time.Hour)
		x.say(advertFrame(routerAddr, pio("2001:db8:1::/64", 0xc0, 600, 0), 1800))
		x.pass(time.Second)
		if left := time.Until(x.settings().Addrs[0].Info.Valid); left < 59*time.Minute || left > time.Hour {
			t.Errorf("%s are left, want an hour", left)
		}
		x.want("routes", x.routes(), "[2001:db8:1::/64 metric 256 mtu 0 2001:db8:2::/64 metric 256 mtu 0 ::/0 via fe80::aa metric 1024 mtu 0]")
		x.pass(61 * time.Minute)
		x.want("addresses", x.addrs(), "["+next+"]")
		x.want("routes", x.routes(), "[2001:db8:2::/64 metric 256 mtu 0]")
		// It can come back.
		x.say(advertFrame(routerAddr, pio("2001:db8:1::/64", 0xc0, 86400, 43200), 0))
		x.pass(2 * time.Second)
		x.want("addresses", x.addrs(), "["+next+" "+old+"]")
		x.close()
	})
}

// TestMissing: of several words the error names those that lack something.
func TestMissing(t *testing.T) {
	ra := func() []byte { return advertFrame(routerAddr, pio("2001:db8:1::/64", 0x80, 3600, 3600), 1800) }
	for _, tt := range []struct {
		words Words
		peers []peer
		want  string
	}{
		{Words{DHCP: true, SLAAC: true}, []peer{newServer("192.0.2.50").peer}, "no answer to slaac on test0 in 10 s ("},
		{Words{DHCP: true, SLAAC: true}, []peer{answering(ra)}, "dhcp,slaac did not come to an end on test0 in 10 s ("},
		{Words{DHCP: true, RD: true}, []peer{answering(ra)}, "no answer to dhcp on test0 in 10 s ("},
		{Words{Auto: true, RD: true}, nil, "no answer to auto,rd on test0 in 10 s ("},
		{Words{Auto: true}, []peer{answering(ra)}, "auto did not come to an end on test0 in 10 s ("},
	} {
		synctest.Test(t, func(t *testing.T) {
			x := start(t, newWire(tt.peers...), Config{Words: tt.words})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := x.wait(ctx); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %s", tt.words, err, tt.want)
			}
			x.close()
		})
	}
}

// TestPrefixes: what makes an address, what makes a route, and what neither.
func TestPrefixes(t *testing.T) {
	a, r := "2001:db8:1::ff:fe00:11/64", "2001:db8:1::/64 metric 256 mtu 0"
	for _, tt := range []struct {
		name          string
		opt           []byte
		addrs, routes string
	}{
		{"on link alone", pio("2001:db8:1::/64", 0x80, 3600, 3600), "[]", "[" + r + "]"},
		{"an address alone", pio("2001:db8:1::/64", 0x40, 3600, 3600), "[" + a + "]", "[]"},
		{"for ever", pio("2001:db8:1::/64", 0xc0, infinite, infinite), "[" + a + "]", "[" + r + "]"},
		{"neither", pio("2001:db8:1::/64", 0, 3600, 3600), "[]", "[]"},
		{"no time", pio("2001:db8:1::/64", 0xc0, 0, 0), "[]", "[]"},
		{"preferred for longer than valid", pio("2001:db8:1::/64", 0xc0, 60, 3600), "[]", "[" + r + "]"},
		{"another length", pio("2001:db8::/56", 0xc0, 3600, 3600), "[]", "[2001:db8::/56 metric 256 mtu 0]"},
		{"link-local", pio("fe80::/64", 0xc0, 3600, 3600), "[]", "[]"},
		{"a group", pio("ff02::/64", 0xc0, 3600, 3600), "[]", "[]"},
		{"everything", pio("::/0", 0xc0, 3600, 3600), "[]", "[]"},
		{"a length of zero", []byte{optPrefix, 0, 1, 2}, "[]", "[]"},
		{"cut off", pio("2001:db8:1::/64", 0xc0, 3600, 3600)[:24], "[]", "[]"},
		{"short", append([]byte{optPrefix, 1}, 64, 0xc0, 0, 0, 0, 1), "[]", "[]"},
		{"a length of 129", func() []byte { b := pio("2001:db8:1::/64", 0xc0, 3600, 3600); b[2] = 129; return b }(), "[]", "[]"},
		{"an option that nobody knows", append([]byte{99, 1, 0, 0, 0, 0, 0, 0}, pio("2001:db8:1::/64", 0x40, 3600, 3600)...), "[" + a + "]", "[]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := start(t, newWire(), Config{Words: Words{SLAAC: true}})
				x.say(advertFrame(routerAddr, tt.opt, 0))
				x.pass(2 * time.Second)
				x.want("addresses", x.addrs(), tt.addrs)
				x.want("routes", x.routes(), tt.routes)
				x.close()
			})
		})
	}
}

// TestForged: advertisements that did not come from a neighbour.
func TestForged(t *testing.T) {
	good := pio("2001:db8:1::/64", 0xc0, 3600, 3600)
	far := advertFrame(routerAddr, good, 1800)
	far[etherLen+7] = 64
	damaged := advertFrame(routerAddr, good, 1800)
	damaged[len(damaged)-1] ^= 1
	code := advertFrame(routerAddr, good, 1800)
	code[etherLen+ip6Len+1] = 1
	sum := binary.BigEndian.Uint16(code[etherLen+ip6Len+2:])
	binary.BigEndian.PutUint16(code[etherLen+ip6Len+2:], sum-1)
	for name, frame := range map[string][]byte{
		"from far away":    far,
		"damaged":          damaged,
		"with a code":      code,
		"of a global host": advertFrame(addr("2001:db8::1"), good, 1800),
		"of ourselves":     advertFrame(LinkLocal(ourMAC), good, 1800),
		"cut off":          far[:etherLen+ip6Len+12],
	} {
		synctest.Test(t, func(t *testing.T) {
			x := start(t, newWire(), Config{Words: Words{SLAAC: true}})
			x.say(frame)
			x.pass(2 * time.Second)
			if len(x.addrs())+len(x.routes()) > 0 {
				t.Errorf("%s: %v %v", name, x.addrs(), x.routes())
			}
			x.close()
		})
	}
}

// TestRouters: several of them, by preference; one that says that it is none any more.
func TestRouters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, newWire(), Config{Words: Words{RD: true}})
		one, two, three := addr("fe80::1"), addr("fe80::2"), addr("fe80::3")
		x.say(advertFrame(one, slices.Concat(routeOption("2001:db8:a::/48", 0, 600), routeOption("2001:db8:b::/48", 2, 600), rdnss(600, "2001:db8::1")), 1800))
		x.say(advertFlags(two, 1<<3, 1800, rdnss(600, "2001:db8::2")))
		x.say(advertFlags(three, 3<<3, 1800, routeOption("2001:db8:a::/48", 1, 600)))
		x.pass(time.Second)
		x.want("routes", x.routes(), "["+strings.Join([]string{
			"::/0 via fe80::2 metric 1024 mtu 0",
			"::/0 via fe80::1 metric 1025 mtu 0",
			"2001:db8:a::/48 via fe80::1 metric 1025 mtu 0",
			"::/0 via fe80::3 metric 1026 mtu 0",
			"2001:db8:a::/48 via fe80::3 metric 1010 mtu 0",
		}, " ")+"]")
		x.want("DNS", x.settings().DNS.Servers, "[[2001:db8::2]:53 [2001:db8::1]:53]")
		x.say(advertFrame(two, rdnss(0, "2001:db8::2"), 0))
		x.say(advertFrame(one, routeOption("2001:db8:a::/48", 0, 0), 1800))
		x.pass(time.Second)
		x.want("routes", x.routes(), "[::/0 via fe80::1 metric 1024 mtu 0 ::/0 via fe80::3 metric 1025 mtu 0 2001:db8:a::/48 via fe80::3 metric 1009 mtu 0]")
		if n := len(x.c.Status().Routers); n != 2 {
			t.Errorf("%d routers are known, want 2", n)
		}
		x.close()
	})
	// Who floods the link with routers and prefixes finds a bound.
	synctest.Test(t, func(t *testing.T) {
		x := start(t, newWire(), Config{Words: Words{SLAAC: true}})
		for i := range 200 {
			a := routerAddr.As16()
			a[14] = byte(i)
			p := netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, byte(i)}), 64).String()
			x.say(advertFrame(netip.AddrFrom16(a), slices.Concat(pio(p, 0xc0, 3600, 3600), rdnss(600, "2001:db8::"+string("0123456789abcdef"[i%16])), routeOption(p, 0, 600)), 1800))
			synctest.Wait()
		}
		x.pass(2 * time.Second)
		if a, r := len(x.addrs()), len(x.routes()); a > maxPrefixes || r > maxPrefixes+maxRouters*(1+maxNames) {
			t.Errorf("%d addresses, %d routes", a, r)
		}
		x.close()
	})
}

// TestDuplicate: an address that somebody has, or takes at the same time, is not used.
func TestDuplicate(t *testing.T) {
	target := addr("2001:db8:1::ff:fe00:11")
	claim := func(typ byte, from string) []byte {
		all := addr("ff02::1")
		msg := append([]byte{typ, 0, 0, 0, 0x20, 0, 0, 0}, target.AsSlice()...)
		return icmp6(groupMAC(all), otherMAC, all, addr(from), msg)
	}
	for name, tt := range map[string]struct {
		frame []byte
		taken bool
	}{
		"who has it":                {claim(typeNeighborAdvert, "2001:db8:1::ff:fe00:11"), true},
		"who takes it":              {claim(typeNeighborSolicit, "::"), true},
		"who looks for a neighbour": {claim(typeNeighborSolicit, "2001:db8:1::9"), false},
		"who is far away": {func() []byte {
			f := claim(typeNeighborAdvert, "2001:db8:1::9")
			f[etherLen+7] = 64
			return f
		}(), false},
		"our own, come back": {duplicateProbe(ourMAC, target), false},
	} {
		synctest.Test(t, func(t *testing.T) {
			x := start(t, newWire(), Config{Words: Words{SLAAC: true}})
			ra := advertFrame(routerAddr, pio("2001:db8:1::/64", 0xc0, 3600, 3600), 1800)
			x.say(ra)
			x.pass(500 * time.Millisecond)
			x.say(tt.frame)
			x.pass(2 * time.Second)
			if got := len(x.addrs()) == 0; got != tt.taken {
				t.Errorf("%s: addresses %v", name, x.addrs())
			}
			if tr := x.c.Status().Trouble; tt.taken != (len(tr) == 1 && tr[0] == target.String()+" is in use by "+otherMAC.String()) {
				t.Errorf("%s: trouble %q", name, tr)
			}
			x.say(ra) // does not make it ours
			x.pass(2 * time.Second)
			if got := len(x.addrs()) == 0; got != tt.taken {
				t.Errorf("%s: addresses %v", name, x.addrs())
			}
			x.close()
		})
	}
}

// TestAuto: what is there is had, what is not is not waited for.
func TestAuto(t *testing.T) {
	ra := func() []byte { return advertFrame(routerAddr, pio("2001:db8:1::/64", 0xc0, 3600, 3600), 1800) }
	for name, tt := range map[string]struct {
		dhcp, routers bool
		addrs         int
		least, most   time.Duration
	}{
		"both":         {true, true, 2, time.Second, 1100 * time.Millisecond},
		"DHCP alone":   {true, false, 1, silenceRouters, silenceRouters + 100*time.Millisecond},
		"SLAAC alone":  {false, true, 1, silenceDHCP, silenceDHCP + 100*time.Millisecond},
		"nobody there": {false, false, 0, 10 * time.Second, 10 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			var peers []peer
			if tt.dhcp {
				peers = append(peers, newServer("192.0.2.50").peer)
			}
			if tt.routers {
				peers = append(peers, answering(ra))
			}
			x := start(t, newWire(peers...), Config{Words: Words{Auto: true}})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			began := time.Now()
			err := x.wait(ctx)
			if d := time.Since(began); d < tt.least || d > tt.most || (err == nil) != (tt.addrs > 0) {
				t.Errorf("%s: %v after %s", name, err, d)
			}
			synctest.Wait()
			if len(x.addrs()) != tt.addrs {
				t.Errorf("%s: addresses %v", name, x.addrs())
			}
			x.close()
		})
	}
}

// TestDomainList: names as they stand in messages, and what is none.
func TestDomainList(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"\x01a\x07example\x00\x01b\x00\x00\x00", "a.example b"},
		{"", ""},
		{"\x00\x00", ""},
		{"\x05ab", ""},
		{"\x01a", ""},
		{"\xc0\x00", ""},
		{"\x03a.b\x00", ""},
		{"\x04a\nb;\x00\x01b\x00", ""},
		{"\x01a\x00\x40" + strings.Repeat("x", 64) + "\x00", "a"},
		{strings.Repeat("\x3f"+strings.Repeat("x", 63), 5) + "\x00", ""},
	} {
		if got := strings.Join(domainList([]byte(tt.in)), " "); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
	}
}
