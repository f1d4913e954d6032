// SPDX-License-Identifier: Apache-2.0

// Several networks in one view: two peers with the same addresses, told apart by what
// they answer, and the host's network.

package viewtest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"umrun/view/viewtest"
)

// twoPeers is a world with two peers, and a client of each.
func twoPeers(t *testing.T) (w *viewtest.World, p [2]*viewtest.Peer, c [2]*viewtest.Client) {
	t.Helper()
	w, p[0], c[0] = lab(t)
	p[1] = w.AddPeer(t)
	p[1].Client(t) // whose addresses c[0] has with the other peer
	c[1] = p[1].Client(t)
	return w, p, c
}

// TestIntegrationSeveral: which peer serves what, by each kind of rule.
func TestIntegrationSeveral(t *testing.T) {
	viewtest.Need(t, "curl", "dig", "nginx", "dnsmasq")
	w, p, c := twoPeers(t)
	const page = "curl -4sS -m10 http://%s/ | grep -o 'peer [0-9]';"
	for _, k := range []struct {
		name, rules, script, want string
	}{
		{"default", "", fmt.Sprintf(page, "10.77.0.1"), "peer 0"},
		{"prefix", "10.77.0.2/32=b", fmt.Sprintf(page, "10.77.0.1") + fmt.Sprintf(page, "10.77.0.2"), "peer 0\npeer 1"},
		{"prefix-v6", "fd77::2=b", "curl -6sS -m10 http://[fd77::1]/ | grep -o 'peer [0-9]'; curl -6sS -m10 http://[fd77::2]/ | grep -o 'peer [0-9]'", "peer 0\npeer 1"},
		{"port", ":80=b", fmt.Sprintf(page, "10.77.0.1") + "curl -4ksS -m10 https://10.77.0.1/ | grep -o 'peer [0-9]'", "peer 1\npeer 0"},
		{"exe", "exe=/usr/*/curl=b exe=sh=a", fmt.Sprintf(page, "10.77.0.1") + "cp $(command -v curl) mycurl; ./mycurl -4sS -m10 http://10.77.0.1/ | grep -o 'peer [0-9]'", "peer 1\npeer 0"},
		{"exe-name", "exe=curl=b", fmt.Sprintf(page, "10.77.0.1"), "peer 1"},
		{"domain", "www.lab.test=b", fmt.Sprintf(page, "10.77.0.1") + fmt.Sprintf(page, "www.lab.test"), "peer 0\npeer 1"},
		{"domain-glob", "*.lab.test=b", fmt.Sprintf(page, "www.lab.test") + "curl -6sS -m10 http://[fd77::1]/ | grep -o 'peer [0-9]'; curl -6sS -m10 http://www.lab.test/ | grep -o 'peer [0-9]'", "peer 1\npeer 0\npeer 1"},
		{"device", "", "curl -4sS -m10 --interface b http://10.77.0.1/ | grep -o 'peer [0-9]'", "peer 1"},
		{"source", "", "curl -4sS -m10 --interface " + c[1].IP4.String() + " http://10.77.0.1/ | grep -o 'peer [0-9]'", "peer 1"},
		{"rule-over-device", "10.77.0.0/24=a", "curl -4s -m10 --interface b http://10.77.0.1/ || echo $?", "7"},
		{"interfaces", "", "ip -o link | cut -d: -f1,2; ip -4 -o addr show dev b | grep -c " + c[1].IP4.String(), "1: lo\n2: a\n3: b\n1"},
		{"routes", "10.77.0.2=b", "ip route get 10.77.0.2 | grep -o 'dev [a-z]*'; ip route get 10.77.0.1 | grep -o 'dev [a-z]*'", "dev b\ndev a"},
	} {
		t.Run(k.name, func(t *testing.T) {
			w.ResetStrays()
			args := []string{"-n", "a=wg:" + c[0].Conf, "-n", "b=wg:" + c[1].Conf}
			for _, r := range words(k.rules) {
				args = append(args, "--route", r)
			}
			r := w.UmrunFlags(t, append(args, "--", "sh", "-c", k.script)...).AsUser(w.Home()).Result()
			if r.Status != 0 || strings.TrimSpace(r.Stdout) != k.want {
				t.Errorf("want %q, got %v", k.want, r)
			}
			w.NoStrays(t)
		})
	}
	t.Run("split-dns", func(t *testing.T) {
		mine, other := wild("split", "mine"), wild("split", "other")
		r := w.UmrunFlags(t, "-n", "a=wg:"+c[0].Conf, "-n", "b=wg:"+c[1].Conf, "--route", mine+"=b", "--",
			"sh", "-c", "dig +short +time=5 "+mine+"; dig +short +time=5 "+other).AsUser(w.Home()).Result()
		if r.Status != 0 || strings.Count(r.Stdout, "\n") != 2 {
			t.Errorf("got %v", r)
		}
		for i, name := range []string{other, mine} {
			if q := p[i].Queries(); !strings.Contains(q, name) {
				t.Errorf("peer %d was not asked for %s", i, name)
			}
			if q := p[1-i].Queries(); strings.Contains(q, name) {
				t.Errorf("peer %d was asked for %s", 1-i, name)
			}
		}
		w.NoStrays(t)
	})
	t.Run("uid", func(t *testing.T) {
		viewtest.Need(t, "setpriv")
		r := w.UmrunFlags(t, "-n", "a=wg:"+c[0].Conf, "-n", "b=wg:"+c[1].Conf, "--route", "uid=61234=b", "--",
			"sh", "-c", fmt.Sprintf(page, "10.77.0.1")+"setpriv --reuid 61234 --clear-groups "+fmt.Sprintf(page, "10.77.0.1")).Result()
		if r.Status != 0 || r.Stdout != "peer 0\npeer 1\n" {
			t.Errorf("got %v", r)
		}
	})
	for _, stacks := range [][2]string{{"netstack", "netstack"}, {"netstack", "kernel"}, {"kernel", "netstack"}, {"kernel", "kernel"}} {
		t.Run(stacks[0]+"-"+stacks[1], func(t *testing.T) {
			// Keys of their own: a peer answers one of them at a time.
			var specs []string
			var mine [2]*viewtest.Client
			for i := range p {
				mine[i] = p[i].Client(t)
				specs = append(specs, "-n", fmt.Sprintf("%c=wg:%s,stack=%s", 'a'+i, mine[i].Conf, stacks[i]))
			}
			run := func(rule string, prog ...string) viewtest.Result {
				args := append(specs[:len(specs):len(specs)], "--route", rule, "--")
				return w.UmrunFlags(t, append(args, prog...)...).AsUser(w.Home()).Result()
			}
			t.Run("names", func(t *testing.T) {
				r := run("*.lab.test=b", "sh", "-c", fmt.Sprintf(page, "10.77.0.1")+fmt.Sprintf(page, "www.lab.test"))
				if r.Status != 0 || r.Stdout != "peer 0\npeer 1\n" {
					t.Errorf("got %v", r)
				}
			})
			t.Run("listener", func(t *testing.T) {
				viewtest.Need(t, "python3")
				const script = `
import socket, subprocess
l = socket.create_server(("", 8099), family=socket.AF_INET6, dualstack_ipv6=True)
print(l.getsockname()[1], subprocess.run(["ss", "-Htln"], capture_output=True, text=True).stdout.count(":8099"), flush=True)
for i in range(3):
    c, a = l.accept()
    c.sendall(("%s to %s\n" % (a[0], c.getsockname()[0])).encode())
    c.close()
`
				u := w.UmrunFlags(t, append(specs[:4:4], "--", "/usr/bin/python3", "-c", script)...).AsUser(w.Home())
				start(t, u)
				viewtest.Eventually(t, 20*time.Second, func() error {
					if u.Output() != "8099 1\n" {
						return fmt.Errorf("it says %q, %q", u.Output(), u.Errors())
					}
					return nil
				})
				for i, dst := range []string{mine[0].IP4.String(), mine[1].IP4.String(), "[" + mine[1].IP6.String() + "]"} {
					from := p[min(i, 1)]
					if r := from.Cmd(t.Context(), "curl", "-sS", "-m10", "telnet://"+dst+":8099").Result(); !strings.Contains(r.Stdout, " to ") {
						t.Errorf("to %s: %v", dst, r)
					}
				}
				if err := u.Wait(); err != nil {
					t.Errorf("%v: %s", err, u.Errors())
				}
				w.NoStrays(t)
			})
			t.Run("one-socket", func(t *testing.T) {
				viewtest.Need(t, "python3")
				const script = `
import socket, select
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(3):
    s.sendto(b"a%d" % i, ("10.77.0.1", 7))
    s.sendto(b"b%d" % i, ("10.77.0.2", 7))
s.settimeout(10)
got = sorted((s.recvfrom(100) for i in range(6)), key=lambda x: x[0])
print(" ".join("%s@%s" % (d.decode(), a[0]) for d, a in got))
s.setsockopt(socket.SOL_IP, 11, 1)
s.sendto(b"x", ("10.77.0.2", 1006))
p = select.poll(); p.register(s, 0)
print(p.poll(10000)[0][1] & select.POLLERR != 0)
try: s.sendto(b"y", ("10.77.0.1", 7))
except ConnectionRefusedError: print("refused")
s.sendto(b"y", ("10.77.0.1", 7)); print(s.recvfrom(10)[0].decode())
`
				r := run("10.77.0.2=b", "/usr/bin/python3", "-c", script)
				const want = "a0@10.77.0.1 a1@10.77.0.1 a2@10.77.0.1 b0@10.77.0.2 b1@10.77.0.2 b2@10.77.0.2\nTrue\nrefused\ny\n"
				if r.Stdout != want {
					t.Errorf("want %q, got %v", want, r)
				}
				w.NoStrays(t)
			})
		})
	}
}
