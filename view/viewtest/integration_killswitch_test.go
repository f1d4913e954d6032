// SPDX-License-Identifier: Apache-2.0

// The kill switch, end to end: a network that dies keeps what is its. What would leave
// by the host's network instead ends in the sink and is counted.

package viewtest_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
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
    u = None
    if sys.argv[3] == "udp":
        u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        u.connect((dst4, 7)); u.settimeout(1)
        for i in range(10): # beside the stream some are lost
            u.send(b"x")
            try: u.recv(10); break
            except TimeoutError: pass
        else: sys.exit("no answer")
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
    if not u: raise OSError(errno.ENETUNREACH, "it carries no datagrams")
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
	g := p[1].Gate(t)
	for _, k := range []struct {
		name  string
		spec  string
		first bool // it is the default network, and no rule is needed
		rules string
		alive bool // it serves the peer until it dies
		noUDP bool
		root  bool
		open  func(t *testing.T) (spec string, die func()) // instead of spec and die
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
		{name: "tap-deleted-alive", alive: true, rules: rules, open: func(t *testing.T) (string, func()) { return dyingTAP(t, p[1]) }},
		{name: "vde-switch-killed", alive: true, rules: rules, open: func(t *testing.T) (string, func()) { return dyingVDE(t, p[1]) }},
		{name: "vde-switch-killed-kernel", alive: true, rules: rules, open: func(t *testing.T) (string, func()) {
			spec, die := dyingVDE(t, p[1])
			return spec + ",stack=kernel", die
		}},
		{name: "netns-down", alive: true, root: true, rules: rules, open: func(t *testing.T) (string, func()) {
			n := nativeNS(t, p[1])
			return "netns:" + n.Path(), func() { n.MustRun(t, "ip", "link", "set", "wg0", "down") }
		}},
		{name: "socks5-killed", alive: true, rules: rules, open: dyingProxy(w, g, "dante")},
		{name: "http-killed", alive: true, noUDP: true, rules: rules, open: dyingProxy(w, g, "tinyproxy")},
		{name: "ssh-killed", alive: true, noUDP: true, rules: rules, open: dyingProxy(w, g, "sshd")},
	} {
		t.Run(k.name, func(t *testing.T) {
			if k.open != nil {
				k.spec, k.die = k.open(t)
			}
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
			carries := "udp"
			if k.noUDP {
				carries = "streams"
			}
			u := w.UmrunFlags(t, append(nets, "--no-wait", "-q", "--", "/usr/bin/python3", "-c", mourner, "10.77.0.1,fd77::1", state, carries)...)
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

// dyingTAP is a device of the ordinary user's on a bridge to the peer, and what deletes it.
func dyingTAP(t *testing.T, p *viewtest.Peer) (spec string, die func()) {
	host := p.World().Host
	for _, l := range []string{
		"ip link add kbr type bridge", "ip link add kup type veth peer name kup netns " + p.Path(),
		fmt.Sprintf("ip tuntap add dev ktap mode tap user %d", viewtest.UID),
		"ip link set kup master kbr", "ip link set ktap master kbr", "ip link set kbr up", "ip link set kup up", "ip link set ktap up",
	} {
		host.MustRun(t, words(l)...)
	}
	for _, l := range []string{
		"ip link set kup up", "ip addr add 10.77.0.1/32 dev kup", "ip addr add fd77::1/128 dev kup nodad",
		"ip route add 10.77.0.98 dev kup src 10.77.0.1", "ip -6 route add fd77::98 dev kup src fd77::1",
	} {
		p.MustRun(t, words(l)...)
	}
	t.Cleanup(func() { // with the peer's end
		host.MustRun(t, words("ip link del kup")...)
		host.MustRun(t, words("ip link del kbr")...)
	})
	return "tap:ktap,ip=10.77.0.98/24,ip=fd77::98/64,gw=10.77.0.1", func() { host.MustRun(t, words("ip link del ktap")...) }
}

// dyingVDE is a plug of a vde_switch with the peer on it, and what kills the switch.
func dyingVDE(t *testing.T, p *viewtest.Peer) (spec string, die func()) {
	viewtest.Need(t, "vde_switch", "vde_plug")
	n := p.Device(t, "vde")
	dir := filepath.Join(p.World().Home(), "sw-"+filepath.Base(t.Name()))
	sw := vdeSwitch(t, n, p.World(), dir)
	plug := start(t, n.Command(longLived(t), "vde_plug", "vde://"+dir, "tap://vde0").AsUser(p.World().Home()))
	t.Cleanup(plug.Stop)
	spec = fmt.Sprintf("vde:%s,ip=%s/24,ip=%s/64,gw=10.77.0.1", dir, viewtest.DeviceIP4["vde"], viewtest.DeviceIP6["vde"])
	return spec, sw.Stop
}

// dyingProxy is a proxy of the gate's, and what ends it.
func dyingProxy(w *viewtest.World, g *viewtest.Gate, name string) func(t *testing.T) (spec string, die func()) {
	return func(t *testing.T) (string, func()) {
		for _, x := range gateways {
			if x.name == name {
				g.Start(t, x.port)
				return x.spec(t, g, w), func() { g.Stop(x.port) }
			}
		}
		t.Fatalf("there is no proxy %s", name)
		return "", nil
	}
}

// TestIntegrationKillSwitchNAT: when the host's own way to the peer ends, what is for nat
// does not go to the other network, which records what it is given.
func TestIntegrationKillSwitchNAT(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3")
	w, p, _ := lab(t)
	n := nativeNS(t, p)
	for _, k := range []struct {
		name  string
		rules bool
		want  bool // something for the peer is seen at the other network
	}{{"ruled", true, false}, {"control", false, true}} {
		t.Run(k.name, func(t *testing.T) {
			n.MustRun(t, words("ip link set wg0 up")...)
			for _, v := range []string{"-4", "-6"} { // which go with the link
				n.MustRun(t, words("ip "+v+" route replace default dev wg0")...)
			}
			seen := filepath.Join(w.Home(), k.name+".pcapng")
			args := []string{viewtest.Binary(t), "-n", "n=switch://" + filepath.Join(w.Home(), k.name) + ",ip=10.77.9.1/16,ip=fd77::9:1/64,pcap=" + seen, "-n", "k=nat", "-q"}
			state := "dead"
			if k.rules {
				args, state = append(args, "--route", "10.77.0.0/24=k", "--route", "fd77::/64=k"), "alive"
			}
			u := n.Command(t.Context(), append(args, "--", "/usr/bin/python3", "-c", mourner, "10.77.0.1,fd77::1", state, "udp")...).AsUser(w.Home())
			in, err := u.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			start(t, u)
			awaitOutput(t, u, "up\n")
			n.MustRun(t, words("ip link set wg0 down")...)
			fmt.Fprintln(in)
			in.Close()
			u.Wait()
			if out := u.Output(); strings.Contains(out, "OUT") || !strings.HasSuffix(out, "done\n") {
				t.Errorf("it says %q, %q", out, u.Errors())
			}
			b, err := os.ReadFile(seen)
			if err != nil {
				t.Fatal(err)
			}
			// Also in a question of ARP or NDP.
			v4, v6 := bytes.Contains(b, viewtest.PeerIP4.AsSlice()), bytes.Contains(b, viewtest.PeerIP6.AsSlice())
			if v4 != k.want || v6 != k.want {
				t.Errorf("packets for the peer at the other network: IPv4 %v, IPv6 %v", v4, v6)
			}
		})
	}
}
