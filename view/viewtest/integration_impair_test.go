// SPDX-License-Identifier: Apache-2.0

// A bad network, as programs measure it.

package viewtest_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"umrun/view/viewtest"
)

// TestIntegrationImpaired: ping and curl see the delay, the rate and the losses that
// were asked for.
func TestIntegrationImpaired(t *testing.T) {
	viewtest.Need(t, "curl", "ping")
	w, _, me := lab(t)
	run := func(keys string, args ...string) string {
		t.Helper()
		r := w.UmrunFlags(t, append([]string{"-n", "wg:" + me.Conf + "," + keys, "--"}, args...)...).AsUser(w.Home()).Result()
		if r.Status != 0 && args[0] != "ping" {
			t.Fatal(r)
		}
		return r.Stdout
	}
	number := func(out, re string) float64 {
		t.Helper()
		m := regexp.MustCompile(re).FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("no %s in:\n%s", re, out)
		}
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if rtt := number(run("delay=40ms", "ping", "-n", "-q", "-c3", "-i0.2", "10.77.0.1"), `= ([\d.]+)/`); rtt < 80 || rtt > 500 {
		t.Errorf("a delay of 40 ms each way makes a round trip of %v ms", rtt)
	}
	out := run("loss=30%", "ping", "-n", "-q", "-c200", "-i0.005", "-W1", "fd77::1")
	if lost := number(out, `([\d.]+)% packet loss`); lost < 30 || lost > 72 { // 1 - 0.7²: 51 %
		t.Errorf("of 200 pings %v %% were lost", lost)
	}
	began := time.Now()
	speed, err := strconv.ParseFloat(strings.TrimSpace(run("rate=80mbit,delay=2ms", "curl", "-sS", "-m20", "-o", "/dev/null", "-w", "%{speed_download}", "http://10.77.0.1/big.bin")), 64)
	if err != nil || speed > 10e6 || speed < 1e6 {
		t.Errorf("at 80 Mbit/s curl gets %.0f bytes/s (%v), in %v", speed, err, time.Since(began))
	}
	w.NoStrays(t)
}
