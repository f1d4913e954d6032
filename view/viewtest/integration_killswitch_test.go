// SPDX-License-Identifier: Apache-2.0

// The kill switch, end to end: a network that dies keeps what is its. What would leave
// by the host's network instead ends in the sink and is counted.

package viewtest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"umrun/view/viewtest"
)

// mourner is a program that uses a network until it is told that this has died, and
// tells what happens then: nothing may get through, nor hang.
const mourner = `
import socket, sys, threading, errno
dst4, dst6 = sys.argv[1].split(",")
def outcome(f):
    try:
        f()
        return "OUT"
    except TimeoutError:
        return "timeout"
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e.errno))
stream = None
if sys.argv[2] == "alive":
    stream = socket.create_connection((dst4, 19), timeout=20)
    stream.sendall(b"100000000\n")
    got = 0
    while got < 1000000:
        got += len(stream.recv(65536))
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    u.connect((dst4, 7)); u.settimeout(10)
    u.send(b"x"); u.recv(10)
print("up", flush=True)
sys.stdin.readline()
def rest():
    # what was on its way may come, no more than windows and queues hold
    stream.settimeout(0.7)
    n = 0
    while n < 90000000:
        d = stream.recv(1 << 20)
        if not d: raise OSError(errno.ECONNRESET, "ended")
        n += len(d)
def again():
    u.settimeout(0.5)
    for i in range(3): u.send(b"y")
    u.recv(10)
def tcp(family, dst):
    s = socket.socket(family, socket.SOCK_STREAM); s.settimeout(0.7); s.connect((dst, 7))
def udp(family, dst):
    s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(0.5)
    for i in range(3): s.sendto(b"x", (dst, 7))
    s.recv(10)
def ping(family, dst):
    v6 = family == socket.AF_INET6
    s = socket.socket(family, socket.SOCK_DGRAM, 58 if v6 else 1); s.settimeout(0.5)
    s.sendto(bytes([128 if v6 else 8]) + bytes(15), (dst, 0)); s.recv(100)
def raw(family, dst):
    s = socket.socket(family, socket.SOCK_RAW, 253); s.settimeout(0.5)
    s.sendto(b"x" * 20, (dst, 0)); s.recv(100)
def attempt(name, f, *args):
    print(name, outcome(lambda: f(*args)), flush=True)
todo = [("rest", rest), ("again", again)] if stream else []
for v, family, dst in ((4, socket.AF_INET, dst4), (6, socket.AF_INET6, dst6)):
    todo += [(f.__name__ + str(v), f, family, dst) for f in (tcp, udp, ping, raw)]
all = [threading.Thread(target=attempt, args=x) for x in todo]
for t in all: t.start()
for t in all: t.join()
print("done", flush=True)
`

// TestIntegrationKillSwitch has networks die, or not be there at all, beside the host's network.
func TestIntegrationKillSwitch(t *testing.T) {
	viewtest.Need(t, "python3")
	w, p, c := twoPeers(t)
	link := func(p *viewtest.Peer, how string) {
		p.MustRun(t, "ip", "link", "set", "link0", how)
	}
	// Addresses that mean something to the host too: its default route leads to the sink.
	const rules = "10.77.0.0/24=k fd77::/64=k 203.0.113.0/24=k"
	for _, k := range []struct {
		name  string
		spec  string
		first bool // it is the default network, and no rule is needed
		rules string
		alive bool // it serves the peer until it dies
		root  bool
		die   func()
		live  func() // undoes that
	}{
		{name: "wireguard-silent", spec: "wg:" + c[1].Conf, alive: true, rules: rules,
			die: func() { link(p[1], "down") }, live: func() { link(p[1], "up") }},
		{name: "wireguard-silent-first", spec: "wg:" + c[1].Conf, alive: true, first: true,
			die: func() { link(p[1], "down") }, live: func() { link(p[1], "up") }},
		{name: "wireguard-silent-kernel", spec: "wg:" + c[1].Conf + ",stack=kernel", alive: true, rules: rules,
			die: func() { link(p[1], "down") }, live: func() { link(p[1], "up") }},
		{name: "wireguard-revoked", spec: "wg:" + c[1].Conf, alive: true, rules: rules,
			die: func() {
				p[1].MustRun(t, "sh", "-c", "for k in $(wg show wg0 peers); do wg set wg0 peer $k remove; done")
			}},
		{name: "wireguard-never-up", spec: "wg:" + w.File(t, "dead.conf", strings.Replace(c[0].Text, p[0].Endpoint, strings.Replace(p[0].Endpoint, "51820", "51829", 1), 1)), rules: rules},
		{name: "none", spec: "none", rules: rules},
		{name: "none-first", spec: "none", first: true},
		{name: "socks5-dead", spec: "socks5://127.0.0.1:1", rules: rules},
		{name: "http-dead", spec: "http://127.0.0.1:1", rules: rules},
		{name: "tap-deleted", spec: "tap:umrun-k,ip=10.77.0.99/24,ip=fd77::99/64,gw=10.77.0.1", rules: rules, root: true,
			die: func() { w.Host.MustRun(t, "ip", "link", "del", "umrun-k") }},
		{name: "tun-deleted-first", spec: "tun:umrun-k,ip=10.77.0.99/24,ip=fd77::99/64", first: true, root: true,
			die: func() { w.Host.MustRun(t, "ip", "link", "del", "umrun-k") }},
	} {
		t.Run(k.name, func(t *testing.T) {
			w.ResetStrays()
			nets := []string{"-n", "n=nat", "-n", "k=" + k.spec}
			if k.first {
				nets = []string{"-n", "k=" + k.spec, "-n", "n=nat"}
			}
			for _, r := range words(k.rules) {
				nets = append(nets, "--route", r)
			}
			state := "dead"
			if k.alive {
				state = "alive"
			}
			u := w.UmrunFlags(t, append(nets, "--no-wait", "-q", "--", "/usr/bin/python3", "-c", mourner, "10.77.0.1,fd77::1", state)...)
			if !k.root {
				u.AsUser(w.Home())
			}
			in, err := u.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			start(t, u)
			viewtest.Eventually(t, 40*time.Second, func() error {
				if !strings.HasPrefix(u.Output(), "up\n") {
					return fmt.Errorf("it says %q, %q", u.Output(), u.Errors())
				}
				return nil
			})
			if k.die != nil {
				k.die()
			}
			fmt.Fprintln(in)
			in.Close()
			u.Wait()
			if k.live != nil {
				k.live()
			}
			tried := 8
			if k.alive {
				tried = 10
			}
			if out := u.Output(); strings.Contains(out, "OUT") || !strings.HasSuffix(out, "done\n") || strings.Count(out, "\n") != tried+2 {
				t.Errorf("it says %q, %q", out, u.Errors())
			}
			w.NoStrays(t)
		})
	}
	// The sink is one: the same, sent to the host's network, is seen.
	t.Run("control", func(t *testing.T) {
		w.ResetStrays()
		u := w.UmrunFlags(t, "-n", "n=nat", "-n", "k=none", "-q", "--", "/usr/bin/python3", "-c", mourner, "10.77.0.1,fd77::1", "dead").AsUser(w.Home())
		u.Stdin = strings.NewReader("\n")
		r := u.Result()
		if n, _ := w.Strays(); n == 0 || r.Status != 0 {
			t.Errorf("%d packets were seen of %v", n, r)
		}
	})
}
