// SPDX-License-Identifier: Apache-2.0

// What a view records: packets and flows, as others read them.

package viewtest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"umrun/view/viewtest"
)

// TestIntegrationObserve records a page and a ping, and lets tcpdump read it.
func TestIntegrationObserve(t *testing.T) {
	for _, stack := range []string{"netstack", "kernel"} {
		t.Run(stack, func(t *testing.T) { observe(t, stack) })
	}
}

func observe(t *testing.T, stack string) {
	viewtest.Need(t, "curl", "ping", "tcpdump")
	w, _, me := lab(t)
	all, own, flows := filepath.Join(w.Home(), "all.pcapng"), filepath.Join(w.Home(), "own.pcapng"), filepath.Join(w.Home(), "flows")
	r := w.UmrunFlags(t, "-n", "office=wg:"+me.Conf+",stack="+stack+",pcap="+own, "--pcap", all, "--flows", flows, "--", "sh", "-ec", `
curl -4sS -m20 http://www.lab.test/big.bin -o /dev/null
curl -4sS -m20 http://10.77.0.1:1006/ || true
ping -q -n -c2 -i0.2 fd77::1`).AsUser(w.Home()).Result()
	if r.Status != 0 {
		t.Fatal(r)
	}
	for _, file := range []string{all, own} {
		out := w.HostCmd(t.Context(), "tcpdump", "-nr", file).Result().Stdout
		for _, re := range []string{
			`IP ` + me.IP4.String() + `\.\d+ > 10\.77\.0\.1\.80: Flags \[S\]`,
			`IP 10\.77\.0\.1\.1006 > \S+: Flags \[R\.\]`,
			`IP6 ` + me.IP6.String() + ` > fd77::1: ICMP6, echo request`,
			`\.53: \d+\+ A\? www\.lab\.test\.`,
		} {
			if !regexp.MustCompile(re).MatchString(out) {
				t.Errorf("%s has no %s:\n%.2000s", file, re, out)
			}
		}
		b, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(b), "office: curl, process ") {
			t.Errorf("%s does not name curl: %v", file, err)
		}
	}
	text, err := os.ReadFile(flows)
	if err != nil {
		t.Fatal(err)
	}
	ends := map[string]map[string]any{}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if l["event"] == "close" {
			ends[fmt.Sprintf("%v %v", l["proto"], l["remote"])] = l
		}
	}
	big := ends["tcp 10.77.0.1:80"]
	if n, _ := big["rx_bytes"].(float64); n < viewtest.BigSize || n > viewtest.BigSize*11/10 || big["program"] != "curl" || big["name"] != "www.lab.test" || big["end"] != "fin" || big["network"] != "office" {
		t.Errorf("the flow of the page is %v", big)
	}
	if rtt, _ := big["rtt_ms"].(float64); rtt <= 0 || rtt > 1000 {
		t.Errorf("the round trip is %v ms", big["rtt_ms"])
	}
	if f := ends["tcp 10.77.0.1:1006"]; f["end"] != "refused" {
		t.Errorf("the flow that is refused is %v", f)
	}
	who := any("ping")
	if stack == "kernel" {
		who = nil // sock_diag(7) does not know such sockets
	}
	if f := ends["icmpv6 fd77::1"]; f["program"] != who || f["tx_packets"] != 2.0 || f["rx_packets"] != 2.0 {
		t.Errorf("the flow of the ping is %v", f)
	}
	w.NoStrays(t)
}
