// SPDX-License-Identifier: Apache-2.0

// resolv.conf files, and what follows from them.

package dns

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"umrun/stacks"
)

var cmpAddr = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

func addrs(s ...string) (out []netip.Addr) {
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func ports(s ...string) (out []netip.AddrPort) {
	for _, a := range s {
		out = append(out, netip.MustParseAddrPort(a))
	}
	return out
}

func TestParseResolvConf(t *testing.T) {
	implied := Resolv{Implied: true, Nameservers: addrs("127.0.0.1")}
	tests := []struct {
		name, in string
		want     Resolv
	}{
		{"empty", "", implied},
		{"comments", "# nameserver 192.0.2.1\n; nameserver 192.0.2.2\n", implied},
		{"one", "nameserver 192.0.2.1\n", Resolv{Nameservers: addrs("192.0.2.1")}},
		{"no newline at the end", "nameserver 192.0.2.1", Resolv{Nameservers: addrs("192.0.2.1")}},
		{"tabs and a comment behind", "nameserver\t 192.0.2.1 # first\nnameserver 192.0.2.2;x\n", Resolv{Nameservers: addrs("192.0.2.1", "192.0.2.2")}},
		{"indented lines do not count", " nameserver 192.0.2.1\n", implied},
		{"keyword must end", "nameserverx 192.0.2.1\nnameservers 192.0.2.1\nnameserver\n", implied},
		{"CRLF", "nameserver 192.0.2.1\r\n", Resolv{Nameservers: addrs("192.0.2.1")}},
		{"four", "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n",
			Resolv{Nameservers: addrs("192.0.2.1", "192.0.2.2", "192.0.2.3"), Beyond: addrs("192.0.2.4")}},
		{"names and nonsense", "nameserver dns.example\nnameserver 1.2.3.4.5\nnameserver 256.1.1.1\nnameserver ::g\nnameserver 09.1.1.1\n", implied},
		{"inet_aton forms", "nameserver 127.1\nnameserver 0x7f.0.0.065\nnameserver 3221225985\n", Resolv{Nameservers: addrs("127.0.0.1", "127.0.0.53", "192.0.2.1")}},
		{"IPv6", "nameserver 2001:db8::53\n", Resolv{Nameservers: addrs("2001:db8::53")}},
		{"scoped", "nameserver fe80::1%eth0\nnameserver fe80::2%3\n", Resolv{Nameservers: addrs("fe80::1%eth0", "fe80::2%3")}},
		{"systemd-resolved", "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n", Resolv{Nameservers: addrs("127.0.0.53"), Options: []string{"edns0", "trust-ad"}}},
		{"search replaces domain", "domain a.example\nsearch b.example c.example.\n", Resolv{Implied: true, Nameservers: addrs("127.0.0.1"), Search: []string{"b.example", "c.example"}}},
		{"domain replaces search", "search b.example c.example\ndomain a.example extra\n", Resolv{Implied: true, Nameservers: addrs("127.0.0.1"), Search: []string{"a.example"}}},
		{"options add up", "options ndots:2\noptions timeout:1 rotate\n", Resolv{Implied: true, Nameservers: addrs("127.0.0.1"), Options: []string{"ndots:2", "timeout:1", "rotate"}}},
		{"binary", "\x00\xff\nnameserver 192.0.2.1\n", Resolv{Nameservers: addrs("192.0.2.1")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ParseResolvConf(strings.NewReader(tt.in))
			if d := cmp.Diff(tt.want, got, cmpAddr); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

func TestPlan(t *testing.T) {
	corp := stacks.DNS{Servers: ports("10.0.0.53:53"), Search: []string{"corp.example"}}
	office := func(a netip.Addr) bool { return netip.MustParsePrefix("10.0.0.0/8").Contains(a) }
	all := func(netip.Addr) bool { return true }
	tests := []struct {
		name      string
		resolv    string
		dns       stacks.DNS
		reachable func(netip.Addr) bool
		override  string
		servers   []netip.AddrPort
		search    []string
		reason    string // substring
		listen    []netip.AddrPort
		warnings  int
		err       string
	}{
		{name: "DNS= wins", resolv: "nameserver 192.0.2.1", dns: corp, reachable: office,
			servers: ports("10.0.0.53:53"), search: corp.Search, listen: ports("192.0.2.1:53")},
		{name: "tunnel is the default", resolv: "nameserver 127.0.0.53", dns: corp, reachable: office, override: "tunnel",
			servers: ports("10.0.0.53:53"), search: corp.Search, listen: ports("127.0.0.53:53")},
		{name: "empty file", dns: corp, reachable: office,
			servers: ports("10.0.0.53:53"), search: corp.Search, listen: ports("127.0.0.1:53", "[::1]:53")},
		{name: "scoped", resolv: "nameserver fe80::1%eth0", dns: corp, reachable: office,
			servers: ports("10.0.0.53:53"), search: corp.Search, listen: ports("[fe80::1]:53", "127.0.0.1:53", "[::1]:53")},
		{name: "scoped and other", resolv: "nameserver fe80::1%eth0\nnameserver 192.0.2.1", dns: corp, reachable: office,
			servers: ports("10.0.0.53:53"), search: corp.Search, listen: ports("[fe80::1]:53", "192.0.2.1:53")},
		{name: "mapped, doubled and unspecified", resolv: "nameserver ::ffff:192.0.2.1\nnameserver 192.0.2.1\nnameserver 0.0.0.0\nnameserver ::", dns: corp, reachable: office,
			servers: ports("10.0.0.53:53"), search: corp.Search, listen: ports("192.0.2.1:53", "127.0.0.1:53", "[::1]:53")},
		{name: "resolv.conf through the tunnel", resolv: "nameserver 10.1.1.1\nnameserver 192.0.2.1", reachable: office,
			servers: ports("10.1.1.1:53"), listen: ports("10.1.1.1:53", "192.0.2.1:53")},
		{name: "search without servers", resolv: "nameserver 10.1.1.1", dns: stacks.DNS{Search: corp.Search}, reachable: office,
			servers: ports("10.1.1.1:53"), search: corp.Search, listen: ports("10.1.1.1:53")},
		{name: "loopback server", resolv: "nameserver 127.0.0.53", reachable: all,
			reason: "(127.0.0.53) is this machine's own", listen: ports("127.0.0.53:53")},
		{name: "nothing anywhere", reachable: all,
			reason: "names no server", listen: ports("127.0.0.1:53", "[::1]:53")},
		{name: "scoped server is not asked", resolv: "nameserver fe80::1%eth0", reachable: all,
			reason: "(fe80::1%eth0) is this machine's own", listen: ports("[fe80::1]:53", "127.0.0.1:53", "[::1]:53")},
		{name: "not covered", resolv: "nameserver 192.0.2.1", reachable: office,
			reason: "(192.0.2.1) cannot be reached", listen: ports("192.0.2.1:53")},
		{name: "configured loop", resolv: "nameserver 127.0.0.1", dns: stacks.DNS{Servers: ports("127.0.0.1:53")}, reachable: all,
			reason: "this machine's own", listen: ports("127.0.0.1:53"), warnings: 1},
		{name: "none", resolv: "nameserver 192.0.2.1", dns: corp, reachable: all, override: "none", listen: ports("192.0.2.1:53")},
		{name: "IP", resolv: "nameserver 127.0.0.53", dns: corp, reachable: office, override: "10.2.2.2",
			servers: ports("10.2.2.2:53"), search: corp.Search, listen: ports("127.0.0.53:53")},
		{name: "IP with port", resolv: "nameserver 127.0.0.53", reachable: all, override: "[2001:db8::1]:5353",
			servers: ports("[2001:db8::1]:5353"), listen: ports("127.0.0.53:53")},
		{name: "IP without route", resolv: "nameserver 127.0.0.53", reachable: office, override: "192.0.2.9",
			servers: ports("192.0.2.9:53"), listen: ports("127.0.0.53:53"), warnings: 1},
		{name: "DoH by name", resolv: "nameserver 10.1.1.1", dns: corp, reachable: office, override: "https://dns.example/dns-query",
			servers: ports("10.0.0.53:53"), search: corp.Search, listen: ports("10.1.1.1:53")},
		{name: "DoH by name, nobody knows it", resolv: "nameserver 192.0.2.1", reachable: office, override: "https://dns.example/dns-query",
			reason: "--dns https://dns.example/dns-query: nobody can be asked", listen: ports("192.0.2.1:53")},
		{name: "DoH by address", resolv: "nameserver 192.0.2.1", reachable: all, override: "https://[2001:db8::1]:8443/dns-query{?dns}", listen: ports("192.0.2.1:53")},
		{name: "DoH without route", resolv: "nameserver 192.0.2.1", reachable: office, override: "https://192.0.2.9/", listen: ports("192.0.2.1:53"), warnings: 1},
		{name: "DoH with a password", reachable: all, override: "https://me:pw@dns.example/", err: "passwords"},
		{name: "not DoH", reachable: all, override: "http://dns.example/", err: "https://HOST"},
		{name: "DoH on port 0", reachable: all, override: "https://dns.example:0/", err: "no port"},
		{name: "nonsense", reachable: all, override: "dns.example", err: `--dns "dns.example": neither`},
		{name: "port 0", reachable: all, override: "192.0.2.1:0", err: "neither"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, listen, warnings, err := Plan(ParseResolvConf(strings.NewReader(tt.resolv)), tt.dns, tt.reachable, tt.override)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.servers, c.Servers, cmpAddr); d != "" {
				t.Errorf("servers: %s", d)
			}
			if d := cmp.Diff(tt.search, c.Search); d != "" {
				t.Errorf("search: %s", d)
			}
			if d := cmp.Diff(tt.listen, listen, cmpAddr); d != "" {
				t.Errorf("listen: %s", d)
			}
			if len(warnings) != tt.warnings {
				t.Errorf("warnings %q", warnings)
			}
			if !strings.Contains(c.Reason, tt.reason) || (c.Reason == "") != (tt.reason == "") {
				t.Errorf("reason %q, want %q", c.Reason, tt.reason)
			}
			if c.Reason != "" && !strings.Contains(c.Reason, "--dns IP") {
				t.Errorf("reason without remedy: %q", c.Reason)
			}
		})
	}
}
