// SPDX-License-Identifier: Apache-2.0

// Programs that look at paths, over real routers: what they print in a view is what
// they print over the kernel's stack, but for times.

package viewtest_test

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"umrun/view/viewtest"

	"github.com/google/go-cmp/cmp"
)

// A pathProgram is a command, and how many lines it must print.
type pathProgram struct {
	name, line string
	lines      int
}

var pathPrograms = []pathProgram{
	{"traceroute", "traceroute -n -q 1 -w 2 10.78.3.1", 4},
	{"traceroute-v6", "traceroute -n -q 1 -w 2 fd78:3::1", 4},
	{"traceroute-three-probes", "traceroute -n -w 2 -m 4 10.78.3.1", 4},
	{"traceroute-icmp", "traceroute -n -I -q 1 -w 2 10.78.3.1", 4},
	{"traceroute-port", "traceroute -n -U -p 1006 -q 1 -w 2 10.78.3.1", 4},
	{"traceroute-mtu", "traceroute -n --mtu -q 1 -w 2 10.78.3.1", 4},
	{"traceroute-gone", "traceroute -n -q 1 -w 2 10.78.4.1", 4},
	{"tracepath", "tracepath -n 10.78.3.1", 5},
	{"tracepath-v6", "tracepath -n fd78:3::1", 5},
	{"mtr-icmp-v6", "mtr -n -r -c 1 fd78:3::1", 5},
	{"ping-ttl", "ping -n -c 1 -W 2 -t 2 10.78.3.1", 3},
	{"ping-gone", "ping -n -c 1 -W 2 10.78.4.1", 3},
	{"ping-gone-v6", "ping -n -c 1 -W 2 fd78:4::1", 3},
	{"ping-too-large", "ping -n -c 1 -W 2 -M do -s 1350 10.78.3.1", 3},
	{"ping-large-cut", "ping -n -c 1 -W 2 -s 1350 10.78.3.1", 3},
	{"ping-fragments", "ping -n -c 1 -W 2 -s 3000 10.78.3.1", 3},
	{"ping-fragments-v6", "ping -n -c 1 -W 2 -s 3000 fd77::1", 3},
	{"ping-largest", "ping -n -c 1 -W 2 -s 65507 10.77.0.1", 3},
	{"ping-largest-v6", "ping -n -c 1 -W 2 -s 65527 fd77::1", 3},
	{"ping-device", "ping -n -c 1 -W 2 -I wg0 -s 3000 10.78.3.1", 3},
	{"ping-device-v6", "ping -n -c 1 -W 2 -I wg0 -s 3000 fd77::1", 3},
	{"ping-narrow-v6", "ping -n -c 2 -i 0.3 -W 1 -s 1350 fd78:3::1", 3},
	{"ping-narrow-fragments-v6", "ping -n -c 2 -i 0.3 -W 1 -s 3000 fd78:3::1", 3},
	{"ping-narrow-device-v6", "ping -n -c 2 -i 0.3 -W 1 -I wg0 -s 3000 fd78:3::1", 3},
	{"ping-narrow-whole-v6", "ping -n -c 2 -i 0.3 -W 1 -M do -s 1350 fd78:3::1", 3},
	{"ping-narrow-whole", "ping -n -c 2 -i 0.3 -W 1 -M do -s 1350 10.78.3.1", 3},
}

// Times, own addresses, and what programs say of their start.
var pathNoise = regexp.MustCompile(` *(from \S+ wg0|\d+(\.\d+)? ?ms|time \d+ms|rtt .*|^Start: .*|^HOST: \S+|\d+\.\d+( +\d+\.\d+)+)`)

func TestIntegrationPaths(t *testing.T) {
	w := viewtest.New(t)
	native := w.Peers[0].Native(t)
	w.Peers[0].Routers(t)
	for _, p := range pathPrograms {
		t.Run(p.name, func(t *testing.T) { p.compare(t, w, native) })
	}
	w.NoStrays(t)
}

// compare runs the command on both sides.
func (p pathProgram) compare(t testing.TB, w *viewtest.World, native *viewtest.NS) {
	t.Helper()
	viewtest.Need(t, "setpriv", strings.Fields(p.line)[0])
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	// Of the path nothing is known; mtr goes without its file's capability, as in a view.
	for _, family := range []string{"-4", "-6"} {
		if r := native.Command(ctx, "ip", family, "route", "flush", "cache").Result(); r.Status != 0 {
			t.Fatal(r)
		}
	}
	c := native.Command(ctx, append([]string{"setpriv", "--no-new-privs"}, strings.Fields(p.line)...)...).AsUser(w.Home())
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
		t.Errorf("%s: -native +umrun:\n%s\nnatively: %v\nunder umrun: %v", p.line, d, want, got)
	}
	if testing.Verbose() {
		t.Log(got.Stdout)
	}
}
