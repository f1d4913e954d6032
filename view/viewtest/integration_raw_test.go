// SPDX-License-Identifier: Apache-2.0

// Raw sockets: transcripts, and the programs that use them.

package viewtest_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"umrun/view/viewtest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func init() {
	capable = append(capable, "raw 4", "raw 6", "rawsend 4", "rawsend 6", "rawfilter 4", "rawfilter 6", "rawerror 4", "rawerror 6", "sockopt raw4", "sockopt raw6", "scope raw")
}

// rawPrograms open raw sockets, as an ordinary user.
var rawPrograms = []client{
	{name: "busybox-ping", needs: []string{"busybox"}, args: words("busybox ping -c2 -W5 10.77.0.1"), want: "/2 packets transmitted, 2 packets received, 0% packet loss/"},
	{name: "busybox-ping6", needs: []string{"busybox"}, args: words("busybox ping -c2 -W5 fd77::1"), want: "/seq=1 ttl=64 .*\n(?s:.*)2 packets received, 0% packet loss/"},
	{name: "fping", needs: []string{"fping"}, args: words("fping -c2 -p100 10.77.0.1 fd77::1"), want: "/10.77.0.1 : \\[1\\], 64 bytes(?s:.*)fd77::1 +: \\[1\\], 64 bytes/"},
	{name: "hping3-syn", needs: []string{"hping3"}, args: words("hping3 -c 2 -i u100000 -S -p 7 10.77.0.1"), want: "/len=\\d+ ip=10.77.0.1 ttl=64 DF id=\\d+ sport=7 flags=SA(?s:.*)/"},
	{name: "hping3-icmp", needs: []string{"hping3"}, args: words("hping3 -c 2 -i u100000 -1 10.77.0.1"), want: "/len=\\d+ ip=10.77.0.1 ttl=64 id=\\d+ icmp_seq=1 /"},
	{name: "nmap-privileged", needs: []string{"nmap"}, args: words("nmap --privileged -n -sn -PE 10.77.0.1"), want: "/Host is up(?s:.*)1 host up/"},
	{name: "nmap-connect", needs: []string{"nmap"}, args: words("nmap --unprivileged -n -Pn -p7,1006 10.77.0.1"), want: "/7/tcp +open +echo\n1006/tcp closed /"},
}

// TestIntegrationRawPrograms runs each in a view of its own.
func TestIntegrationRawPrograms(t *testing.T) {
	w := viewtest.New(t)
	next := tunnel.open(t, w.Peers[0])
	for _, c := range rawPrograms {
		t.Run(c.name, func(t *testing.T) { c.run(t, w.Peers[0], next(t), "") })
	}
}

// rawPaths look at paths with raw sockets, over real routers: what they print is what
// they print natively with CAP_NET_RAW, but for times.
var rawPaths = []struct {
	name, line string
	lines      int // at least
}{
	{"traceroute-icmp", "traceroute -n -I -q 1 -w 2 10.78.3.1", 4},
	{"traceroute-icmp-v6", "traceroute -n -I -q 1 -w 2 fd78:3::1", 4},
	{"traceroute-tcp", "traceroute -n -T -p 7 -q 1 -w 2 10.78.3.1", 4},
	{"traceroute-tcp-near", "traceroute -n -T -p 7 -w 2 10.77.0.1", 2},
	{"traceroute-tcp-three-probes", "traceroute -n -T -p 7 -w 2 10.78.3.1", 4},
	{"traceroute-tcpconn", "traceroute -n -M tcpconn -p 7 -q 1 -w 2 10.78.3.1", 4},
	{"traceroute-tcpconn-v6", "traceroute -n -M tcpconn -p 7 -q 1 -w 2 fd78:3::1", 4},
	{"traceroute-tcp-v6", "traceroute -n -T -p 7 -q 1 -w 2 fd78:3::1", 4},
	{"traceroute-protocol", "traceroute -n -P 253 -q 1 -w 2 10.78.3.1", 4},
	{"traceroute-gone", "traceroute -n -T -q 1 -w 2 10.78.4.1", 3},
	{"mtr", "mtr -n -r -c 1 -G 1 10.78.3.1", 5},
	{"mtr-v6", "mtr -n -r -c 1 -G 1 fd78:3::1", 5},
	{"mtr-udp", "mtr -n -r -c 1 -G 1 -u 10.78.3.1", 5},
	{"mtr-udp-v6", "mtr -n -r -c 1 -G 1 -u fd78:3::1", 5},
	{"mtr-tcp", "mtr -n -r -c 1 -G 1 -T -P 7 10.78.3.1", 5},
	{"mtr-tcp-v6", "mtr -n -r -c 1 -G 1 -T -P 7 fd78:3::1", 5},
}

func TestIntegrationRawPaths(t *testing.T) {
	viewtest.Need(t, "traceroute", "mtr")
	w := viewtest.New(t)
	native := w.Peers[0].Native(t)
	w.Peers[0].Routers(t)
	for _, p := range rawPaths {
		t.Run(p.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			c := native.Command(ctx, strings.Fields(p.line)...).AsUser(w.Home()).Capable(unix.CAP_NET_RAW)
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			defer c.Stop()
			u := w.Umrun(t, w.Peers[0].Client(t).Conf, strings.Fields(p.line)...)
			if err := u.Start(); err != nil {
				t.Fatal(err)
			}
			defer u.Stop()
			want, got := c.Result(), u.Result()
			if n := strings.Count(strings.TrimSpace(want.Stdout), "\n") + 1; n < p.lines {
				t.Fatalf("natively: %v", want)
			}
			if d := cmp.Diff(pathNoise.ReplaceAllString(want.Stdout, "TIME"), pathNoise.ReplaceAllString(got.Stdout, "TIME")); d != "" || want.Status != got.Status {
				t.Errorf("-native +umrun:\n%s\nnatively: %v\nunder umrun: %v", d, want, got)
			}
			if testing.Verbose() {
				t.Log(got.Stdout)
			}
		})
	}
	w.NoStrays(t)
}
