// SPDX-License-Identifier: Apache-2.0

// Name servers: who is asked, by the configuration, by resolv.conf and by --dns,
// and what a program is told when there is nobody to ask.

package viewtest_test

import (
	"strings"
	"testing"
	"time"

	"umrun/view/viewtest"
)

// TestIntegrationNameServers tries one configuration after the other with dig,
// which tells the response code, and getent, which goes through the C library.
func TestIntegrationNameServers(t *testing.T) {
	viewtest.Need(t, "dig", "getent")
	w, p, _ := lab(t)
	local := trap(t, w)
	const (
		dnsLine = "DNS = 10.77.0.1, fd77::1, corp.lab.test\n"
		dig     = "dig +noall +comments +answer +time=8 +tries=1 NAME A; getent ahostsv4 NAME; echo getent $?"
		found   = "status: NOERROR"
		failed  = "status: SERVFAIL"
	)
	for _, c := range []struct {
		name    string
		resolv  string // resolv.conf
		dns     string // the lines of the configuration instead of dnsLine
		allowed string // AllowedIPs; all if empty
		flags   string
		script  string // dig if empty
		want    string // what dig says
		warns   string // in the one warning; none if empty
		asks    bool   // the peer's server is asked
		most    time.Duration
	}{
		{name: "resolv.conf", resolv: "nameserver 10.77.0.1", want: found, asks: true},
		{name: "resolv.conf-v6", resolv: "nameserver fd77::1", want: found, asks: true},
		{name: "resolv.conf-second", resolv: "nameserver 127.0.0.53\nnameserver 10.77.0.1", want: found, asks: true},
		{name: "resolv.conf-search", resolv: "nameserver 10.77.0.1\nsearch corp.lab.test", script: "getent ahostsv4 intra; echo getent $?", want: "10.77.0.1"},
		{name: "loopback", resolv: "nameserver 127.0.0.53\noptions edns0 trust-ad", want: failed, warns: "127.0.0.53) is this machine's own"},
		{name: "loopback-v6", resolv: "nameserver ::1", want: failed, warns: "::1) is this machine's own"},
		{name: "empty", resolv: "", want: failed, warns: "names no server"},
		{name: "not-covered", resolv: "nameserver 198.51.100.1", allowed: "10.77.0.0/24", want: failed, warns: "198.51.100.1) cannot be reached"},
		{name: "flag", resolv: "nameserver 127.0.0.53", flags: "--dns 10.77.0.1", want: found, asks: true},
		{name: "flag-v6", resolv: "nameserver 127.0.0.53", flags: "--dns fd77::1", want: found, asks: true},
		{name: "flag-port", resolv: "nameserver 127.0.0.53", flags: "--dns [fd77::1]:53", want: found, asks: true},
		{name: "flag-over-line", resolv: "nameserver 127.0.0.53", dns: "DNS = 10.99.3.1\n", flags: "--dns 10.77.0.1", want: found, asks: true},
		{name: "none", resolv: "nameserver 10.77.0.1", dns: dnsLine, flags: "--dns none", want: failed},
		{name: "tunnel", resolv: "nameserver 127.0.0.53", dns: dnsLine, flags: "--dns tunnel", want: found, asks: true},
		{name: "first-unreachable", resolv: "nameserver 127.0.0.53", dns: "DNS = 10.99.1.1, 10.77.0.1\n", want: found, asks: true},
		{name: "first-silent", resolv: "nameserver 127.0.0.53", dns: "DNS = 10.99.3.1, fd77::1\n", want: found, asks: true},
		{name: "silent", resolv: "nameserver 127.0.0.53", dns: "DNS = 10.99.3.1\n", script: strings.Split(dig, ";")[0], want: failed, warns: "no answer from the name servers", most: 6 * time.Second},
		{name: "search-line", resolv: "nameserver 127.0.0.53", dns: dnsLine, script: "dig +noall +answer intra A", want: "CNAME\tintra.corp.lab.test."},
		{name: "search-line-both", resolv: "nameserver 127.0.0.53", dns: dnsLine, script: "dig +noall +answer intra AAAA", want: "fd77::1"},
		{name: "search-line-nobody", resolv: "nameserver 127.0.0.53", dns: dnsLine, script: "dig +noall +comments nobody A", want: "status: NXDOMAIN"},
		{name: "search-lines", resolv: "nameserver 127.0.0.53", dns: "DNS = 10.77.0.1\nDNS = other.lab.test, corp.lab.test\n", script: "dig +noall +answer intra A", want: "CNAME\tintra.corp.lab.test."},
		{name: "localhost", resolv: "nameserver 127.0.0.53", dns: dnsLine, script: "dig +short localhost A", want: "127.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := w.Host.WriteFile("/etc/resolv.conf", c.resolv+"\n"); err != nil {
				t.Fatal(err)
			}
			me := p.Client(t) // a key of its own, see TestIntegrationDoors
			text := strings.Replace(me.Text, dnsLine, c.dns, 1)
			if c.allowed != "" {
				text = strings.Replace(text, "0.0.0.0/0, ::/0", c.allowed, 1)
			}
			script, most := c.script, c.most
			if script == "" {
				script = dig
			}
			if most == 0 {
				most = 4 * time.Second // less than the patience of any resolver
			}
			name := wild("dig", c.name)
			args := append(words(c.flags), "-n", w.File(t, "wg.conf", text), "--", "sh", "-c", strings.ReplaceAll(script, "NAME", name))
			w.ResetStrays()
			r := w.UmrunFlags(t, args...).AsUser(w.Home()).Result()
			if !strings.Contains(r.Stdout, c.want) || r.Took > most {
				t.Errorf("want %q within %v, got %v", c.want, most, r)
			}
			status := "getent 0"
			if c.want == failed {
				status = "getent 2"
			}
			if strings.Contains(script, "getent") && !strings.Contains(r.Stdout, status) {
				t.Errorf("want %q, got %v", status, r)
			}
			switch n := strings.Count(r.Stderr, "umrun:"); {
			case c.warns == "" && n > 0:
				t.Errorf("want no warning, got %v", r)
			case c.warns != "" && (n != 1 || !strings.Contains(r.Stderr, c.warns)):
				t.Errorf("want one warning with %q, got %v", c.warns, r)
			case c.warns != "" && c.dns == "" && !strings.Contains(r.Stderr, "--dns IP"):
				t.Errorf("the warning names no remedy: %v", r)
			}
			if c.asks {
				tunneled(t, p, me, name)
			} else if strings.Contains(p.Queries(), name) {
				t.Errorf("%s was asked for at the peer", name)
			}
			w.NoStrays(t)
		})
	}
	if n := local.Load(); n > 0 {
		t.Errorf("the host's own resolver was asked %d times", n)
	}
}
