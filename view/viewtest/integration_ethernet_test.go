// SPDX-License-Identifier: Apache-2.0

// Programs that care for frames: arping, tcpdump -e, DHCP clients, ip.

package viewtest_test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"umrun/view/viewtest"
)

// TestIntegrationEthernet runs them in a view on a TAP that is a port of a bridge.
func TestIntegrationEthernet(t *testing.T) {
	viewtest.Need(t, "arping", "tcpdump", "busybox", "dnsmasq", "ip", "ping")
	w := viewtest.New(t)
	p := w.Peers[0]
	n := p.Device(t, "tap")
	ip4, ip6 := viewtest.DeviceIP4["tap"], viewtest.DeviceIP6["tap"]
	run := func(spec, script string) string {
		t.Helper()
		r := n.Command(t.Context(), viewtest.Binary(t), "-n", "tap:tap0"+spec, "--", "sh", "-ec", script).AsUser(w.Home()).Result()
		if r.Status != 0 {
			t.Fatal(r)
		}
		return r.Stdout
	}
	want := func(out string, res ...string) {
		t.Helper()
		for _, re := range res {
			if !regexp.MustCompile(re).MatchString(out) {
				t.Errorf("no %s in:\n%s", re, out)
			}
		}
	}
	peerMAC := regexp.MustCompile(`link/ether (\S+)`).FindStringSubmatch(p.MustRun(t, words("ip link show tap")...))[1]
	const mac = "02:00:5e:10:00:01"

	out := run(fmt.Sprintf(",ip=%s/24,ip=%s/64,mac=%s", ip4, ip6, mac), `
ip link show tap0
tcpdump -e -n -l -c4 -i tap0 arp or icmp >$HOME/dump 2>$HOME/ready &
until grep -q listening $HOME/ready; do sleep 0.05; done
arping -c1 -w5 -I tap0 10.77.0.1
ping -q -c1 10.77.0.1
busybox arping -c1 -w5 -I tap0 10.77.0.1
wait
cat $HOME/dump
ip neigh show dev tap0`)
	want(out,
		`link/ether `+mac+` brd ff:ff:ff:ff:ff:ff`,
		`(?i)Unicast reply from 10\.77\.0\.1 \[`+peerMAC+`\]`,
		`(?i)reply from 10\.77\.0\.1 \[`+peerMAC+`\]`,
		mac+` > ff:ff:ff:ff:ff:ff, ethertype ARP \(0x0806\), length 42: Request who-has 10\.77\.0\.1 .*tell `+regexp.QuoteMeta(ip4.String()),
		peerMAC+` > `+mac+`, ethertype ARP \(0x0806\), length \d+: Reply 10\.77\.0\.1 is-at `+peerMAC,
		`10\.77\.0\.1 lladdr `+peerMAC,
	)

	// A narrow link behind the peer: who sends too much is told, and TCP gets through.
	p.Routers(t)
	out = run(fmt.Sprintf(",ip=%s/24,gw=10.77.0.1", ip4), `
ping -n -M do -s 1400 -c1 -W3 10.78.3.1 || true
ping -n -M do -s 1400 -c1 -W3 10.78.3.1 || true
ping -n -s 1400 -c1 -W3 10.78.3.1`)
	want(out, `Frag needed and DF set \(mtu = 1300\)|message too long, mtu=1300`, `1 packets transmitted, 1 received`)

	// The peer asks, too.
	kernel := p.Command(t.Context(), words("arping -f -w10 -I tap "+ip4.String())...)
	if err := kernel.Start(); err != nil {
		t.Fatal(err)
	}
	run(fmt.Sprintf(",ip=%s/24,mac=%s", ip4, mac), "sleep 3")
	kernel.Wait()
	want(kernel.Result().Stdout, `(?i)Unicast reply from `+regexp.QuoteMeta(ip4.String())+` \[`+mac+`\]`)

	// An ordinary DHCP client, which sends and receives frames, and configures the
	// view by ip(8).
	p.MustRun(t, words("ip addr add 10.79.0.1/24 dev tap")...)
	dhcp := p.Cmd(t.Context(), "dnsmasq", "-k", "--conf-file=/dev/null", "--user=root", "--group=root", "--pid-file", "--port=0", "--no-ping",
		"--interface=tap", "--bind-interfaces", "--dhcp-authoritative", "--dhcp-range=10.79.0.100,10.79.0.150,2m",
		"--dhcp-leasefile="+filepath.Join(w.Dir(), "leases"))
	if err := dhcp.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dhcp.Process.Kill(); dhcp.Wait() })
	script := w.File(t, "udhcpc.sh", `#!/bin/sh
if [ "$1" = bound ]; then
	ip addr add "$ip/$mask" dev "$interface"
	ip route add default via "$router" dev "$interface"
fi
`)
	out = run(",mac="+mac, "chmod +x "+script+"; busybox udhcpc -f -q -n -t 10 -T 1 -i tap0 -s "+script+"; ip -4 -br addr show dev tap0; ip route; ping -q -c1 -W5 10.79.0.1")
	want(out, `tap0 +UP +10\.79\.0\.1\d\d/24`, `default via 10\.79\.0\.1 dev tap0`, `1 packets transmitted, 1 received`)
	if strings.Contains(out, "lease failed") {
		t.Error(out)
	}
}
