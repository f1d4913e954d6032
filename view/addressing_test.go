// SPDX-License-Identifier: Apache-2.0

// Tests of the keys that describe an interface.

package view

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"umrun/stacks"
)

// addressingOf is the interface that a SPEC describes.
func addressingOf(t *testing.T, spec string) addressing {
	t.Helper()
	n, err := ParseNetwork(spec)
	if err != nil {
		t.Fatal(err)
	}
	a, err := n.addressing()
	if err != nil {
		t.Fatalf("%s: %v", spec, err)
	}
	return a
}

func TestAddressing(t *testing.T) {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	route := func(gw string) stacks.Route {
		r := stacks.Route{Dst: p("0.0.0.0/0"), Gateway: a(gw)}
		if r.Gateway.Is6() {
			r.Dst = p("::/0")
		}
		return r
	}
	onLink := func(gw string) stacks.Route {
		r := route(gw)
		r.OnLink = true
		return r
	}
	tests := []struct {
		spec string
		want stacks.LinkConfig
	}{
		{"tap:t0,ip=192.0.2.7/24", stacks.LinkConfig{Name: "tap0", Addrs: []netip.Prefix{p("192.0.2.7/24")}}},
		{"lan=vde:/run/sw,ip=192.0.2.7/24,gw=192.0.2.1,ip=2001:db8::7/64,gw=fe80::1,mac=02:00:00:00:00:07,mtu=1400", stacks.LinkConfig{
			Name: "lan", Addrs: []netip.Prefix{p("192.0.2.7/24"), p("2001:db8::7/64")}, Routes: []stacks.Route{route("192.0.2.1"), route("fe80::1")},
			MAC: net.HardwareAddr{2, 0, 0, 0, 0, 7}, MTU: 1400,
		}},
		{"tap:t0,ip=198.51.100.7/32,gw=192.0.2.1", stacks.LinkConfig{Name: "tap0", Addrs: []netip.Prefix{p("198.51.100.7/32")}, Routes: []stacks.Route{onLink("192.0.2.1")}}},
		{"tun:t0,ip=198.51.100.7/24,gw=192.0.2.1", stacks.LinkConfig{Name: "tun0", Addrs: []netip.Prefix{p("198.51.100.7/24")}, Routes: []stacks.Route{onLink("192.0.2.1")}}},
		{"tun:t0,ip=198.51.100.6/31", stacks.LinkConfig{Name: "tun0", Addrs: []netip.Prefix{p("198.51.100.6/31")}}},
	}
	for _, tt := range tests {
		t.Run(tt.spec, func(t *testing.T) {
			got := addressingOf(t, tt.spec)
			if d := cmp.Diff(tt.want, got.link(nil), cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestAddressingErrors(t *testing.T) {
	tests := []struct{ spec, want string }{
		{"tap:t0,ip=192.0.2.7", "an address with a prefix length, as in 192.0.2.1/24"},
		{"tap:t0,ip=192.0.2.0/24", "that is the network; write an address in it, as in 192.0.2.1/24"},
		{"tap:t0,ip=2001:db8::/64", "that is the network; write an address in it, as in 2001:db8::1/64"},
		{"tap:t0,ip=192.0.2.255/24", "that is the broadcast address of the network; write an address in it, as in 192.0.2.1/24"},
		{"tap:t0,ip=127.0.0.2/8", "no interface can have that address"},
		{"tap:t0,ip=224.0.0.2/8", "no interface can have that address"},
		{"tap:t0,ip=::ffff:192.0.2.7/120", "write it as IPv4: 192.0.2.7"},
		{"tap:t0,ip=192.0.2.7/0", "the way to everything is gw=ADDRESS"},
		{"tap:t0,ip=192.0.2.7/24,ip=192.0.2.7/16", "the address is there twice"},
		{"tap:t0,ip=2001:db8::1/64,mtu=1000", "mtu=1000: IPv6 needs 1280 at least"},
		{"tap:t0,gw=192.0.2.1", "there is no address of IPv4: add ip=PREFIX"},
		{"tap:t0,ip=192.0.2.7/24,gw=fe80::1", "there is no address of IPv6: add ip=PREFIX"},
		{"tap:t0,ip=192.0.2.7/24,gw=192.0.2.7", "that is the own address, ip=192.0.2.7/24"},
		{"tap:t0,ip=192.0.2.7/24,gw=198.51.100.1", "it is not on the network of ip= (192.0.2.0/24): check the prefix length"},
		{"tap:t0,ip=192.0.2.7/24,gw=192.0.2.1,gw=192.0.2.2", "IPv4 has a gateway already"},
		{"tap:t0,gw=fe80::1%eth0", "write it without %eth0"},
		{"tap:t0,gw=0.0.0.0", "no gateway can have that address"},
		{"tap:t0,gw=router", "it is an IP address"},
		{"tap:t0,fqdn=host.example", "fqdn= is told to DHCP servers: add dhcp, dhcp6 or auto"},
		{"tap:t0,slaac,fqdn=host.example", "fqdn= is told to DHCP servers"},
		{"tap:t0,dhcp,fqdn=-x", "it is the name of a host, as in laptop.example.org"},
		{"tap:t0,dhcp,fqdn=a..b", "it is the name of a host"},
		{"tap:t0,auto,mtu=1000", "mtu=1000: IPv6 needs 1280 at least"},
		{"tap:t0,dhcp,gw=fe80::1", "there is no address of IPv6: add ip=PREFIX"},
		{"tap:t0,rd,gw=2001:db8::1", "there is no address of IPv6: add ip=PREFIX"},
		{"tap:t0,dhcp,gw=192.0.2.1,gw=192.0.2.2", "IPv4 has a gateway already"},
		{"tap:t0,mac=one", "it is six bytes, as in 02:00:5e:10:00:01"},
		{"tap:t0,mac=02:00:00:00:00:00:00:01", "it is six bytes"},
		{"tap:t0,mac=03:00:00:00:00:01", "that is the address of a group"},
		{"tap:t0,mac=00:00:00:00:00:00", "it is zero"},
	}
	for _, tt := range tests {
		t.Run(tt.spec, func(t *testing.T) {
			n, err := ParseNetwork(tt.spec)
			if err == nil {
				_, err = n.addressing()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want %q in it", err, tt.want)
			}
			if got := ExitCode(err); got != ExitConfig {
				t.Errorf("exit status %d, want %d", got, ExitConfig)
			}
		})
	}
}

// TestAddressingReaches: what is on link and what a gateway leads to can be reached.
func TestAddressingReaches(t *testing.T) {
	for _, tt := range []struct {
		spec, to string
		want     bool
	}{
		{"tap:t0,ip=192.0.2.7/24", "192.0.2.53", true},
		{"tap:t0,ip=192.0.2.7/24", "::ffff:192.0.2.53", true},
		{"tap:t0,ip=192.0.2.7/24", "198.51.100.53", false},
		{"tap:t0,ip=192.0.2.7/24,gw=192.0.2.1", "198.51.100.53", true},
		{"tap:t0,ip=192.0.2.7/24,gw=192.0.2.1", "2001:db8::53", false},
		{"tap:t0,ip=192.0.2.7/24,gw=192.0.2.1", "127.0.0.53", false},
	} {
		a := addressingOf(t, tt.spec)
		if got := a.reaches(netip.MustParseAddr(tt.to)); got != tt.want {
			t.Errorf("%s reaches %s: %t, want %t", tt.spec, tt.to, got, tt.want)
		}
	}
}

// TestAddressingPlan: what is planned is told, and that there is no address, too.
func TestAddressingPlan(t *testing.T) {
	for _, tt := range []struct {
		spec string
		want PlanNetwork
		warn string
	}{
		{"tap:t0,ip=192.0.2.7/24,gw=192.0.2.1,mac=02:00:00:00:00:07", PlanNetwork{
			MAC: "02:00:00:00:00:07", Addresses: []string{"192.0.2.7/24"}, Routes: []PlanRoute{{Dst: "0.0.0.0/0", Via: "192.0.2.1"}},
		}, ""},
		{"tap:t0,auto,dhcp,fqdn=host.example.", PlanNetwork{
			Addresses: []string{}, Routes: []PlanRoute{}, Configure: []string{"auto", "dhcp"}, FQDN: "host.example.",
		}, ""},
		{"tap:t0,rd", PlanNetwork{Addresses: []string{}, Routes: []PlanRoute{}, Configure: []string{"rd"}},
			"tap0 has no address until the program gives it one: the keys for it are ip=PREFIX, dhcp, slaac and auto"},
		{"lan=tap:t0", PlanNetwork{Addresses: []string{}, Routes: []PlanRoute{}}, "lan has no address until the program gives it one: the keys for it are ip=PREFIX, dhcp, slaac and auto"},
	} {
		a := addressingOf(t, tt.spec)
		got, warnings := a.describe()
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: -want +got:\n%s", tt.spec, d)
		}
		if w := strings.Join(warnings, "\n"); w != tt.warn {
			t.Errorf("%s: warns %q, want %q", tt.spec, w, tt.warn)
		}
		if d := a.dns(); len(d.Servers) > 0 || len(d.Search) > 0 {
			t.Errorf("%s: names are asked of %v without a key that says so", tt.spec, d)
		}
	}
}

// TestAddressingLearned: which gateways stand in the place of routers that are learned,
// and which are there from the beginning.
func TestAddressingLearned(t *testing.T) {
	for _, tt := range []struct {
		spec             string
		gateways         string
		routed4, routed6 bool
	}{
		{"tap:t0,auto", "[]", false, false},
		{"tap:t0,auto,gw=192.0.2.1,gw=fe80::1", "[192.0.2.1 fe80::1]", false, false},
		{"tap:t0,auto,ip=192.0.2.7/24,gw=192.0.2.1", "[]", true, false},
		{"tap:t0,auto,ip=192.0.2.7/24,gw=198.51.100.1", "[198.51.100.1]", false, false},
		{"tap:t0,rd,ip=2001:db8::7/64,gw=fe80::1", "[]", false, true},
	} {
		a := addressingOf(t, tt.spec)
		if got := fmt.Sprint(a.gateways); got != tt.gateways || a.routed(netip.Addr.Is4) != tt.routed4 || a.routed(netip.Addr.Is6) != tt.routed6 {
			t.Errorf("%s: gateways %s, routes %v", tt.spec, got, a.routes)
		}
	}
}
