// SPDX-License-Identifier: Apache-2.0

// Networks that configure the view: dnsmasq as a server of DHCP and DHCPv6, as a router
// that advertises, and as a name server.

package viewtest_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"umrun/view/viewtest"
)

// Arguments of dnsmasq.
const (
	range4    = "--dhcp-range=10.66.0.50,10.66.0.59,255.255.255.0,2m"
	stateless = "--dhcp-range=fd66::,ra-stateless,10m"
	stateful  = "--dhcp-range=fd66::100,fd66::10f,64,10m"
	raOnly    = "--dhcp-range=fd66::,ra-only,10m"
)

// show tells the configuration as the program sees it.
const show = "ip -o addr show dev tap0; ip route; ip -6 route; dig +short www.lan.test; dig +short www"

// TestIntegrationLease: each way in which a network can tell, on each stack.
func TestIntegrationLease(t *testing.T) {
	viewtest.Need(t, "root", "tun", "ip", "dnsmasq", "dig")
	w := viewtest.New(t)
	lan := w.LAN(t)
	tests := []struct {
		name, words string
		serve       []string
		want        []string // regular expressions of what is there
		not         []string // and of what is not
		log         []string // what the server says
	}{
		{"dhcp", "dhcp,fqdn=box.lan.test", []string{range4, "--dhcp-option=26,1400", "--dhcp-option=option:domain-search,lan.test,other.test", "--dhcp-option=121,10.99.0.0/16,10.66.0.2,0.0.0.0/0,10.66.0.1"},
			[]string{`inet 10\.66\.0\.5\d/24 brd 10\.66\.0\.255 scope global dynamic`, `default via 10\.66\.0\.1 dev tap0 proto dhcp`, `10\.99\.0\.0/16 via 10\.66\.0\.2 dev tap0 proto dhcp`, `(?m)^www\.lan\.test\.\n10\.66\.0\.1$`},
			[]string{`fd66:`}, []string{`client provides name: box.lan.test`, `DHCPRELEASE\(lan0\) 10\.66\.0\.5\d`}},
		{"slaac", "slaac", []string{raOnly, "--enable-ra", "--ra-param=lan0,mtu:1400,10,1800", "--dhcp-option=option6:domain-search,lan.test"},
			[]string{`inet6 fd66::\S+/64 scope global .*dynamic noprefixroute`, `default via fe80::\S+ dev tap0 proto ra metric 1024 mtu 1400`, `fd66::/64 dev tap0 proto ra metric 256 mtu 1400`, `(?m)^www\.lan\.test\.\n10\.66\.0\.1$`},
			[]string{`inet `}, nil},
		{"rd", "rd,ip=fd66::77/64", []string{raOnly, "--enable-ra"},
			[]string{`inet6 fd66::77/64`, `default via fe80::\S+ dev tap0 proto ra`, `(?m)^10\.66\.0\.1$`}, []string{`dynamic`}, nil},
		{"dhcp6", "dhcp6", []string{stateful},
			[]string{`inet6 fd66::10\w/128 scope global .*dynamic`, `fe80::/64 dev tap0`}, []string{`default`, `fd66::/64`}, []string{`DHCPRELEASE\(lan0\) 00:03:00:01`}},
		{"auto-stateless", "auto", []string{range4, stateless, "--enable-ra"},
			[]string{`inet 10\.66\.0\.5\d/24`, `inet6 fd66::\S+/64 scope global .*dynamic`, `default via 10\.66\.0\.1`, `default via fe80::`, `(?m)^10\.66\.0\.1$`},
			[]string{`/128`}, []string{`DHCPINFORMATION-REQUEST\(lan0\)`}},
		{"auto-stateful", "auto", []string{range4, stateful, "--enable-ra"},
			[]string{`inet 10\.66\.0\.5\d/24`, `inet6 fd66::10\w/128`, `default via fe80::`, `fd66::/64 dev tap0 proto ra`}, nil, []string{`DHCPREPLY\(lan0\) fd66::10`}},
		{"override", "auto,dns=10.66.0.1,domain=lan.test,gw=10.66.0.7,mtu=1300", []string{range4, raOnly, "--enable-ra", "--dhcp-option=6,10.66.0.99", "--dhcp-option=26,1400"},
			[]string{`default via 10\.66\.0\.7 dev tap0`, `(?m)^10\.66\.0\.1$`}, []string{`default via 10\.66\.0\.1`}, nil},
	}
	for _, stack := range []string{"netstack", "kernel"} {
		for _, tt := range tests {
			if stack == "kernel" && tt.name != "dhcp" && tt.name != "auto-stateful" {
				continue // these show that the stacks are told the same
			}
			t.Run(stack+"/"+tt.name, func(t *testing.T) {
				lan.Silence()
				lan.Forget()
				lan.Serve(t, tt.serve...)
				r := lan.Umrun(t.Context(), t, "-n", "tap:tap0,stack="+stack+","+tt.words, "--", "sh", "-c", show).Result()
				if r.Status != 0 {
					t.Fatalf("%v\n%s", r, lan.Log())
				}
				for _, x := range tt.want {
					if !regexp.MustCompile(x).MatchString(r.Stdout) {
						t.Errorf("there is no %s\n%v\n%s", x, r, lan.Log())
					}
				}
				for _, x := range tt.not {
					if m := regexp.MustCompile(x).FindString(r.Stdout); m != "" {
						t.Errorf("there is %s\n%v", m, r)
					}
				}
				for _, x := range tt.log {
					viewtest.Eventually(t, 5*time.Second, func() error {
						if !regexp.MustCompile(x).MatchString(lan.Log()) {
							return fmt.Errorf("the server does not say %s\n%s", x, lan.Log())
						}
						return nil
					})
				}
			})
		}
	}
	w.NoStrays(t)
}

// TestIntegrationLeaseBeside: what a second network is told is for what it gets by rules
// and keys, and moves nothing: a server could else take what is another network's.
func TestIntegrationLeaseBeside(t *testing.T) {
	viewtest.Need(t, "root", "tun", "ip", "dnsmasq", "dig", "bash")
	w := viewtest.New(t)
	lan := w.LAN(t)
	lan.Serve(t, range4, raOnly, "--enable-ra", "--dhcp-option=option:domain-search,lan.test", "--dhcp-option=121,0.0.0.0/1,10.66.0.1,128.0.0.0/1,10.66.0.1")
	const asks = "ip -o -4 addr show dev lan; ping -q -c1 -W2 10.66.0.1; ping -q -c1 -W2 fd66::1; dig +short www.lan.test; dig +short other.test; exec 3<>/dev/tcp/198.51.100.1/80"
	flows := filepath.Join(w.Home(), "flows") // whose names are read on the way, and decide nothing
	r := lan.Umrun(t.Context(), t, "--flows", flows, "-n", "none", "-n", "lan=tap:tap0,auto,domain=lan.test", "--route", "10.66.0.0/16=lan", "--route", "fd66::/16=lan", "--", "bash", "-c", asks).Result()
	for _, x := range []string{`(?s) 0% packet loss.* 0% packet loss`, `(?m)^10\.66\.0\.1$`, `inet 10\.66\.0\.5\d/24`} {
		if !regexp.MustCompile(x).MatchString(r.Stdout) {
			t.Errorf("there is no %s", x)
		}
	}
	if !strings.Contains(r.Stderr, "Network is unreachable") || strings.Contains(lan.Log(), "other.test") || t.Failed() {
		t.Errorf("%v\n%s", r, lan.Log())
	}
	// Without rules nothing goes there, whatever the server says.
	lan.Serve(t, range4, "--dhcp-option=option:domain-search,lan.test", "--dhcp-option=121,0.0.0.0/1,10.66.0.1,128.0.0.0/1,10.66.0.1")
	r = lan.Umrun(t.Context(), t, "-n", "none", "-n", "lan=tap:tap0,dhcp", "--", "bash", "-c", asks).Result()
	if strings.Count(r.Stderr, "Network is unreachable") < 3 || strings.Contains(lan.Log(), "query[") {
		t.Errorf("%v\n%s", r, lan.Log())
	}
	w.NoStrays(t)
}

// TestIntegrationLeaseCheck: what umrun check tells, and what --dry-run says is asked.
func TestIntegrationLeaseCheck(t *testing.T) {
	viewtest.Need(t, "root", "tun", "ip", "dnsmasq")
	w := viewtest.New(t)
	lan := w.LAN(t)
	lan.Serve(t, range4, stateless, "--enable-ra", "--address=/#/10.66.0.1")
	r := lan.Umrun(t.Context(), t, "check", "tap:tap0,auto,stack=kernel").Result()
	if !strings.Contains(r.Stdout, "name server 10.66.0.1:53 answered") {
		t.Errorf("%v", r)
	}
	// Of several each is what it would be alone.
	r = lan.Umrun(t.Context(), t, "check", "none", "tap:tap0,auto").Result()
	if !strings.Contains(r.Stdout, "tap: name server 10.66.0.1:53 answered") {
		t.Errorf("%v", r)
	}
	r = lan.Umrun(t.Context(), t, "check", "tap:tap0,auto").Result()
	for _, x := range []string{
		`lease .*10\.66\.0\.5\d/24 from 10\.66\.0\.1 by DHCP, for 2m0s, renewed in (5\ds|1m0s)`,
		`router .*fe80::\S+, for \d+m\d+s, says that name servers come by DHCPv6`,
		`address .*fd66::\S+/64 by SLAAC`,
		`dns .*name server 10\.66\.0\.1:53 answered`,
		`dns .*name server \[fd66::1\]:53 answered`,
	} {
		if !regexp.MustCompile(x).MatchString(r.Stdout) {
			t.Errorf("there is no %s", x)
		}
	}
	if r.Status != 0 || t.Failed() {
		t.Errorf("%v\n%s", r, lan.Log())
	}
	r = lan.Umrun(t.Context(), t, "--dry-run", "-n", "tap:tap0,auto,fqdn=box.lan.test", "--", "true").Result()
	if r.Status != 0 || !regexp.MustCompile(`"configure": \[\s*"auto"\s*\],\s*"fqdn": "box.lan.test"`).MatchString(r.Stdout) {
		t.Errorf("%v", r)
	}
	w.NoStrays(t)
}

// TestIntegrationNoLease: without an answer there is no address, and nothing leads out.
func TestIntegrationNoLease(t *testing.T) {
	viewtest.Need(t, "root", "tun", "ip", "bash")
	w := viewtest.New(t)
	lan := w.LAN(t)
	for _, stack := range []string{"netstack", "kernel"} {
		spec := "tap:tap0,auto,stack=" + stack
		r := lan.Umrun(t.Context(), t, "--wait", "1s", "-n", spec, "--", "echo", "it runs").Result()
		if r.Status != 120 || r.Stdout != "" || !regexp.MustCompile(`^umrun: no answer to auto on tap0 in (1 s|\d+ ms) \(\d DHCPDISCOVER, \d router solicitations? sent, nothing heard\)
  There may be neither a DHCP server nor a router on this network, or it does not hear this port\.
  try: an address of its own: ip=PREFIX    or: --no-wait
$`).MatchString(r.Stderr) {
			t.Errorf("%v", r)
		}
		r = lan.Umrun(t.Context(), t, "-q", "--no-wait", "-n", spec, "--", "bash", "-c",
			"for a in 10.66.0.1 198.51.100.1 fd66::1; do exec 3<>/dev/tcp/$a/80; done; getent hosts www.lan.test; ip -o -4 addr show dev tap0").Result()
		if n := strings.Count(r.Stderr, "bash: connect: Network is unreachable"); n != 3 || r.Stdout != "" {
			t.Errorf("%v", r)
		}
	}
	w.NoStrays(t)
}

// A shell is a program that does one thing after the other.
type shell struct {
	*viewtest.Cmd
	in io.Writer
	n  int
}

func newShell(t *testing.T, c *viewtest.Cmd) *shell {
	t.Helper()
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		c.Wait()
	})
	return &shell{Cmd: c, in: in}
}

// do returns what a command prints.
func (s *shell) do(t *testing.T, line string) string {
	t.Helper()
	s.n++
	end := fmt.Sprintf("== %d\n", s.n)
	before := len(s.Output())
	if _, err := fmt.Fprintf(s.in, "%s 2>&1; echo '== %d'\n", line, s.n); err != nil {
		t.Fatalf("%v: %s%s", err, s.Output(), s.Errors())
	}
	var out string
	viewtest.Eventually(t, 20*time.Second, func() error {
		out = s.Output()[before:]
		if !strings.HasSuffix(out, end) {
			return fmt.Errorf("%s does not end: %q %s", line, out, s.Errors())
		}
		return nil
	})
	return strings.TrimSuffix(out, end)
}

// becomes waits until a command prints something.
func (s *shell) becomes(t *testing.T, d time.Duration, line, want string) string {
	t.Helper()
	var out string
	viewtest.Eventually(t, d, func() error {
		if out = s.do(t, line); !regexp.MustCompile(want).MatchString(out) {
			return fmt.Errorf("%s: there is no %s in\n%s", line, want, out)
		}
		return nil
	})
	return out
}

// TestIntegrationRenewal: leases that are renewed, refused and given anew, a network that
// is renumbered, and name servers that change, under a program that runs.
func TestIntegrationRenewal(t *testing.T) {
	viewtest.Need(t, "root", "tun", "ip", "dnsmasq", "dig")
	for _, stack := range []string{"netstack", "kernel"} {
		t.Run(stack, func(t *testing.T) { renewal(t, stack) })
	}
}

func renewal(t *testing.T, stack string) {
	w := viewtest.New(t)
	lan := w.LAN(t)
	// dnsmasq makes T1 a second less than this T2.
	often := []string{"--dhcp-option=option:T2,3", "--enable-ra", "--ra-param=lan0,1,1800", "--dhcp-authoritative"}
	first := append([]string{range4, "--dhcp-range=::,constructor:lan0,ra-only,10m"}, often...)
	lan.Serve(t, first...)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	p := newShell(t, lan.Umrun(ctx, t, "-n", "tap:tap0,auto,stack="+stack, "--", "sh"))
	mon := p.do(t, "ip -o monitor address route >mon.$$ & echo mon.$$")
	defer func() {
		if t.Failed() {
			t.Logf("%s\n%s\n%s", p.do(t, "cat "+mon), p.Errors(), lan.Log())
		}
	}()
	old := regexp.MustCompile(`10\.66\.0\.5\d`).FindString(p.do(t, "ip -4 -o addr show dev tap0"))
	if old == "" {
		t.Fatal("there is no address")
	}

	// T1: the same address, and its life begins anew.
	viewtest.Eventually(t, 10*time.Second, func() error {
		if n := strings.Count(lan.Log(), "DHCPACK(lan0) "+old); n < 3 {
			return fmt.Errorf("%d acknowledgements", n)
		}
		return nil
	})
	p.becomes(t, 5*time.Second, "ip -4 -o addr show dev tap0", old+`/24.*valid_lft 1(1[5-9]|20)sec`)
	if got := p.do(t, "dig +short www.lan.test"); got != "10.66.0.1\n" {
		t.Errorf("www.lan.test: %q", got)
	}
	if out := p.do(t, "cat "+mon); strings.Contains(out, "Deleted") {
		t.Errorf("something went at a renewal:\n%s", out)
	}

	// The server has forgotten the lease, has another range, other names, another prefix.
	lan.Silence()
	lan.Forget()
	lan.IP(t, "addr add fd67::1/64 dev lan0 nodad", "addr del fd66::1/64 dev lan0")
	lan.Serve(t, append([]string{"--dhcp-range=10.66.0.90,10.66.0.99,255.255.255.0,2m", "--dhcp-range=::,constructor:lan0,ra-only,10m", "--dhcp-option=option:domain-search,new.test",
		"--host-record=late.new.test,10.66.0.42"}, often...)...)
	p.becomes(t, 15*time.Second, "ip -4 -o addr show dev tap0", `inet 10\.66\.0\.9\d/24`)
	if !strings.Contains(lan.Log(), "DHCPNAK(lan0) "+old) {
		t.Errorf("the server did not say no:\n%s", lan.Log())
	}
	viewtest.Eventually(t, 5*time.Second, func() error {
		if out := p.do(t, "cat "+mon); !regexp.MustCompile(`Deleted .*inet `+regexp.QuoteMeta(old)+`/24`).MatchString(out) ||
			!regexp.MustCompile(`Deleted default via 10\.66\.0\.1 .*src `+regexp.QuoteMeta(old)).MatchString(out) {
			return fmt.Errorf("the program is not told that the address goes:\n%s", out)
		}
		return nil
	})
	p.becomes(t, 5*time.Second, "getent ahostsv4 late | head -1", `10\.66\.0\.42`)
	p.becomes(t, 20*time.Second, "ip -6 -o addr show dev tap0", `inet6 fd67::`)
	if out := p.do(t, "ip -4 -o addr show dev tap0"); strings.Contains(out, old) {
		t.Errorf("the old address is still there:\n%s", out)
	}
	// Down and up: what was learned comes back.
	p.do(t, "ip link set tap0 down; ip link set tap0 up")
	p.becomes(t, 5*time.Second, "ip route", `default via 10\.66\.0\.1 `)
	p.becomes(t, 5*time.Second, "ip -6 route", `default via fe80::`)
	p.becomes(t, 5*time.Second, "ip -6 -o addr show dev tap0", `inet6 fd67::`)
	p.do(t, "kill %1; rm "+mon)
	if out := p.do(t, "ping -q -c1 -W2 fd67::1"); !strings.Contains(out, " 0% packet loss") {
		t.Errorf("%s", out)
	}
	w.NoStrays(t)
}

// TestIntegrationTwoMinutes watches the shortest lease that dnsmasq gives over its
// renewal, then takes the server away and sees it end: connections fail, nothing leaks.
func TestIntegrationTwoMinutes(t *testing.T) {
	if os.Getenv("UMRUN_TEST_LEASE") != "1" {
		t.Skip("takes four minutes; make lease runs it")
	}
	viewtest.Need(t, "root", "tun", "ip", "dnsmasq", "bash")
	w := viewtest.New(t)
	lan := w.LAN(t)
	lan.Serve(t, range4)
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	p := newShell(t, lan.Umrun(ctx, t, "-n", "tap:tap0,dhcp", "--", "bash"))
	left := func() int {
		var n int
		out := p.do(t, "ip -4 -o addr show dev tap0")
		if m := regexp.MustCompile(`valid_lft (\d+)sec`).FindStringSubmatch(out); m != nil {
			fmt.Sscan(m[1], &n)
		}
		return n
	}
	began := time.Now()
	least := 120
	viewtest.Eventually(t, 80*time.Second, func() error {
		n := left()
		if n == 0 {
			t.Fatalf("the address went after %s", time.Since(began))
		}
		if n > least+30 {
			return nil
		}
		least = min(least, n)
		return fmt.Errorf("%d s are left, and %d were before", n, least)
	})
	t.Logf("renewed after %s, with %d s left", time.Since(began).Round(time.Second), least)
	if least > 70 || least < 50 {
		t.Errorf("renewed with %d s left, want about 60", least)
	}
	if n := strings.Count(lan.Log(), "DHCPACK(lan0)"); n != 2 {
		t.Errorf("%d acknowledgements\n%s", n, lan.Log())
	}
	lan.Silence()
	gone := time.Now()
	viewtest.Eventually(t, 130*time.Second, func() error {
		if n := left(); n > 0 {
			return fmt.Errorf("%d s are left", n)
		}
		return nil
	})
	t.Logf("it ended %s after the server", time.Since(gone).Round(time.Second))
	if out := p.do(t, "(exec 3<>/dev/tcp/10.66.0.1/80)"); !strings.Contains(out, "Network is unreachable") {
		t.Errorf("connect: %s", out)
	}
	if out := p.do(t, "ip route"); out != "" {
		t.Errorf("routes: %s", out)
	}
	lan.Serve(t, range4)
	p.becomes(t, 90*time.Second, "ip -4 -o addr show dev tap0", `inet 10\.66\.0\.5`)
	w.NoStrays(t)
}
