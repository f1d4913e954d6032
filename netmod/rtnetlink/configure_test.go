// SPDX-License-Identifier: Apache-2.0

// Leases that come, are renewed and go.

package rtnetlink

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"umrun/stacks"
)

func TestConfigure(t *testing.T) {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	now := time.Unix(1000, 0)
	begin := stacks.State{Interfaces: []stacks.Interface{
		{Index: 1, Name: "lo", Loop: true, Up: true, MTU: 65536, Addrs: []netip.Prefix{p("127.0.0.1/8")}},
		{Index: 2, Name: "vde0", Type: stacks.LinkEthernet, Up: true, MTU: 1500, Addrs: []netip.Prefix{p("192.0.2.9/24")}},
	}, Routes: []stacks.Route{{Dst: p("192.0.2.0/24"), Src: a("192.0.2.9"), IfIndex: 2}}}
	lease := func(addr, gw string, until time.Time) stacks.Settings {
		return stacks.Settings{
			Addrs:  []stacks.Address{{Prefix: p(addr), Info: stacks.AddrInfo{Valid: until, Preferred: until, Added: now}}},
			Routes: []stacks.Route{{Dst: p("0.0.0.0/0"), Gateway: a(gw), Src: p(addr).Addr(), Proto: unix.RTPROT_DHCP}},
			MTU:    1400,
			DNS:    stacks.DNS{Search: []string{"corp.example"}},
		}
	}
	one := lease("198.51.100.7/24", "198.51.100.1", now.Add(time.Hour))
	longer := lease("198.51.100.7/24", "198.51.100.1", now.Add(2*time.Hour))
	two := lease("203.0.113.7/24", "203.0.113.1", now.Add(time.Hour))
	same := func(name string, got, want stacks.State) {
		t.Helper()
		opts := []cmp.Option{
			cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty(),
			cmpopts.IgnoreFields(stacks.AddrInfo{}, "Added", "Changed"),
		}
		if d := cmp.Diff(want, got, opts...); d != "" {
			t.Errorf("%s: -want +got:\n%s", name, d)
		}
	}

	want := begin.Clone()
	want.DNS = one.DNS
	ifc := &want.Interfaces[1]
	ifc.MTU = 1400
	ifc.Addrs = append(ifc.Addrs, p("198.51.100.7/24"))
	ifc.Info = map[netip.Prefix]stacks.AddrInfo{p("198.51.100.7/24"): one.Addrs[0].Info}
	connected := stacks.Route{Dst: p("198.51.100.0/24"), Src: a("198.51.100.7"), IfIndex: 2}
	byLease := one.Routes[0]
	byLease.IfIndex = 2
	want.Routes = append(want.Routes, connected, byLease)
	had := Configure(begin, 2, stacks.Settings{}, one)
	same("a lease", had, want)

	again := Configure(had, 2, one, longer)
	info := again.Interfaces[1].Info[p("198.51.100.7/24")]
	if !info.Valid.Equal(now.Add(2*time.Hour)) || len(again.Routes) != 3 {
		t.Errorf("renewed: until %v, routes %v", info.Valid, again.Routes)
	}

	// What the program has removed stays away when the lease is renewed.
	gone := had.Clone()
	e := &editor{gone}
	e.removeAddr(byIndex(gone, 2), 1)
	e.Interfaces[1].MTU = 1300
	after := Configure(e.State, 2, one, longer)
	if n := len(after.Interfaces[1].Addrs); n != 1 || after.Interfaces[1].MTU != 1300 {
		t.Errorf("renewed after its removal: %v, MTU %d", after.Interfaces[1].Addrs, after.Interfaces[1].MTU)
	}

	moved := Configure(had, 2, one, two)
	if got := moved.Interfaces[1].Addrs; len(got) != 2 || got[1] != p("203.0.113.7/24") {
		t.Errorf("another network: addresses %v", got)
	}
	for _, r := range moved.Routes {
		if r.Gateway == a("198.51.100.1") || r.Src == a("198.51.100.7") {
			t.Errorf("another network: the route %+v is left", r)
		}
	}

	expired := stacks.Settings{MTU: 1500}
	same("no lease", Configure(had, 2, one, expired), begin)
	same("no such interface", Configure(begin, 7, stacks.Settings{}, one), begin)
}

// TestConfigureIPv6: what routers advertise is there only where IPv6 is.
func TestConfigureIPv6(t *testing.T) {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	s := stacks.State{Interfaces: []stacks.Interface{{Index: 2, Name: "vde0", Up: true, MTU: 1500, Addrs: []netip.Prefix{p("fe80::7/64")}}}}
	ra := stacks.Settings{
		Addrs: []stacks.Address{{Prefix: p("2001:db8::7/64"), Info: stacks.AddrInfo{Flags: unix.IFA_F_NOPREFIXROUTE}}},
		Routes: []stacks.Route{
			{Dst: p("2001:db8::/64"), Metric: 256, Proto: unix.RTPROT_RA},
			{Dst: p("::/0"), Gateway: a("fe80::1"), Metric: 1024, Proto: unix.RTPROT_RA},
		},
	}
	got := Configure(s, 2, stacks.Settings{}, ra)
	if len(got.Routes) != 2 || got.Interfaces[0].Addrs[0] != p("2001:db8::7/64") {
		t.Errorf("addresses %v, routes %v", got.Interfaces[0].Addrs, got.Routes)
	}
	deprecated := ra
	deprecated.Addrs = []stacks.Address{{Prefix: p("2001:db8::7/64"), Info: stacks.AddrInfo{Flags: unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_DEPRECATED}}}
	got = Configure(got, 2, ra, deprecated)
	if f := got.Interfaces[0].Info[p("2001:db8::7/64")].Flags; f&unix.IFA_F_DEPRECATED == 0 {
		t.Errorf("flags %#x, want deprecated", f)
	}
	if got = Configure(got, 2, deprecated, stacks.Settings{}); len(got.Routes) != 0 || len(got.Interfaces[0].Addrs) != 1 {
		t.Errorf("gone: addresses %v, routes %v", got.Interfaces[0].Addrs, got.Routes)
	}
	static := s.Clone()
	edit := &editor{static}
	edit.addAddr(&static.Interfaces[0], p("2001:db8::9/64"), stacks.AddrInfo{})
	if got = Configure(edit.State, 2, stacks.Settings{}, ra); len(got.Routes) != 2 {
		t.Errorf("beside an address of the same network: routes %v", got.Routes)
	}
	s.Interfaces[0].MTU, s.Interfaces[0].Addrs = 1000, nil
	if got = Configure(s, 2, stacks.Settings{}, ra); len(got.Routes) != 0 || len(got.Interfaces[0].Addrs) != 0 {
		t.Errorf("an MTU of 1000: addresses %v, routes %v", got.Interfaces[0].Addrs, got.Routes)
	}
}
