// SPDX-License-Identifier: Apache-2.0

// Proxies as networks, against those that people run: dante, microsocks, ssh -D,
// tinyproxy, sshd and tor.

package viewtest_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"umrun/view/viewtest"
)

// A gateway is a proxy on a gate and how a view gets to it.
type gateway struct {
	name string
	port int
	spec func(t testing.TB, g *viewtest.Gate, w *viewtest.World) string
	all  bool            // do everything here; else what differs from proxy to proxy
	can  map[string]bool // "udp"; "refused": it tells who refuses; "half": one direction ends before the other
}

func at(kind string, port int) string { return fmt.Sprintf("%s://%v:%d", kind, viewtest.GateIP4, port) }

// auth writes the file for the proxies that want a password.
func auth(t testing.TB, w *viewtest.World) string {
	return ",auth=" + w.File(t, "auth", viewtest.GateUser+"\n"+viewtest.GatePassword+"\n")
}

// sshHome makes the ordinary user known to the gate's sshd, and that to him.
func sshHome(t testing.TB, g *viewtest.Gate, w *viewtest.World) {
	t.Helper()
	dir := filepath.Join(w.Home(), ".ssh")
	key, err := os.ReadFile(g.SSHKey())
	if err != nil {
		t.Fatal(err)
	}
	id := w.File(t, "gate-id", string(key))
	for name, text := range map[string]string{
		"known_hosts": fmt.Sprintf("gate %s\n", g.HostKey(t)),
		"config":      fmt.Sprintf("Host gate\n\tHostName %v\n\tUser root\n\tHostKeyAlias gate\n\tIdentityFile %s\n", viewtest.GateIP4, id),
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

var gateways = []gateway{
	{name: "dante", port: viewtest.PortDante, all: true, can: map[string]bool{"udp": true, "refused": true, "half": true},
		spec: func(testing.TB, *viewtest.Gate, *viewtest.World) string { return at("socks5", viewtest.PortDante) }},
	{name: "dante-password-v6", port: viewtest.PortDanteAuth, can: map[string]bool{"udp": true, "refused": true, "half": true},
		spec: func(t testing.TB, _ *viewtest.Gate, w *viewtest.World) string {
			return fmt.Sprintf("socks5://[%v]:%d", viewtest.GateIP6, viewtest.PortDanteAuth) + auth(t, w)
		}},
	{name: "microsocks", port: viewtest.PortMicro, can: map[string]bool{"refused": true},
		spec: func(t testing.TB, _ *viewtest.Gate, w *viewtest.World) string {
			return at("socks5", viewtest.PortMicro) + auth(t, w)
		}},
	{name: "ssh-D", port: viewtest.PortSSHSocks, can: map[string]bool{"half": true},
		spec: func(testing.TB, *viewtest.Gate, *viewtest.World) string { return at("socks5", viewtest.PortSSHSocks) }},
	{name: "tinyproxy", port: viewtest.PortTiny, all: true,
		spec: func(testing.TB, *viewtest.Gate, *viewtest.World) string { return at("http", viewtest.PortTiny) }},
	{name: "tinyproxy-password", port: viewtest.PortTinyAuth,
		spec: func(t testing.TB, _ *viewtest.Gate, w *viewtest.World) string {
			return at("http", viewtest.PortTinyAuth) + auth(t, w)
		}},
	{name: "sshd", port: viewtest.PortGateSSH, all: true, can: map[string]bool{"refused": true, "half": true},
		spec: func(t testing.TB, g *viewtest.Gate, w *viewtest.World) string {
			sshHome(t, g, w)
			return "ssh:gate"
		}},
}

// TestIntegrationProxies: what a program meets behind each proxy. Nothing but the
// proxy is spoken to, and no name is asked for.
func TestIntegrationProxies(t *testing.T) {
	viewtest.Need(t, "curl", "/usr/bin/python3", "dig")
	w := viewtest.New(t)
	p := w.Peers[0]
	g := p.Gate(t)
	for _, x := range gateways {
		t.Run(x.name, func(t *testing.T) {
			g.Start(t, x.port)
			spec := x.spec(t, g, w)
			by := view(p, w.Host, spec, viewtest.BeyondIP4, viewtest.BeyondIP6)
			for _, c := range x.clients() {
				if !x.all && !slices.Contains(everywhere, c.name) {
					continue
				}
				t.Run(c.name, func(t *testing.T) { c.run(t, p, by, "") })
			}
			t.Run("check", func(t *testing.T) {
				w.ResetStrays()
				r := w.HostCmd(t.Context(), viewtest.Binary(t), "check", spec).AsUser(w.Home()).Result()
				udp := map[bool]string{true: "ok    udp", false: "note  udp"}[x.can["udp"]]
				if r.Status != 0 || !strings.Contains(r.Stdout, "ok    proxy") || !strings.Contains(r.Stdout, udp) || strings.Contains(r.Stdout+r.Stderr, viewtest.GatePassword) {
					t.Errorf("got %v", r)
				}
				w.NoStrays(t)
			})
		})
	}
	if names := p.Queries(); !strings.Contains(names, viewtest.BeyondIP4.String()) {
		t.Errorf("the gate asked for no name:\n%s", names)
	}
}

// everywhere are the clients that run behind every proxy.
var everywhere = []string{"address", "address-v6", "name", "silence", "big", "errors", "digest"}

// errnos tells what connect, UDP, ICMP and raw sockets give.
const errnos = `
import errno, socket, sys
def name(f):
    try: return f()
    except TimeoutError: return "timeout"
    except OSError as e: return errno.errorcode.get(e.errno, str(e))
def tcp(host, port, family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_STREAM); s.settimeout(20)
    s.connect((host, port)); return "connected"
def udp(host, family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(5); s.connect((host, 7))
    s.send(b"hello")
    return s.recvfrom(100)[0].decode()
def ping(host):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP); s.settimeout(5); s.connect((host, 0))
    s.send(b"\x08\0\0\0\0\0\0\1"); s.recvfrom(100); return "answered"
print("open", name(lambda: tcp("10.77.0.1", 7)))
print("refused", name(lambda: tcp("10.77.0.1", 1006)))
print("unreachable", name(lambda: tcp("10.99.1.1", 80)))
print("stand-in", name(lambda: tcp("198.19.7.7", 80)))
print("udp", name(lambda: udp("10.77.0.1")))
print("udp6", name(lambda: udp("fd77::1", socket.AF_INET6)))
print("udp name", name(lambda: udp("www.lab.test")))
print("ping", name(lambda: ping("10.77.0.1")))
`

// clients are what runs behind a proxy, and what it must print there.
func (x gateway) clients() []client {
	refused, udp, udp6 := "EHOSTUNREACH", "ENETUNREACH", "EACCES"
	if x.can["refused"] {
		refused = "ECONNREFUSED"
	}
	if x.can["udp"] {
		udp, udp6 = "hello", "hello"
	}
	c := []client{
		{name: "address", args: words("curl -sS -m20 http://10.77.0.1/addr"), want: "SELF4\n"},
		{name: "address-v6", args: words("curl -gsS -m20 http://[fd77::1]/addr"), want: "SELF6\n"},
		{name: "name", args: words("curl -4sS -m20 http://v4.lab.test/addr"), want: "SELF4\n"},
		{name: "name-of-the-other-family", args: words("curl -6sS -m20 http://v4.lab.test/addr"), want: "SELF4\n"},
		{name: "search-domain", args: words("curl -sS -m20 http://intra/"), want: "<title>lab</title>peer 0\n"},
		{name: "tls", args: words("curl -sS -m20 --cacert CA https://www.lab.test/"), want: "<title>lab</title>peer 0\n"},
		{name: "no-name", args: words("curl -sS -m20 http://nobody.lab.test/"), status: 7},
		{name: "silence", args: words("curl -sS --connect-timeout 1 http://10.99.3.1/"), status: 28},
		{name: "big", args: words("curl -sS -m60 http://www.lab.test/big.bin -o HOME/big-" + x.name), check: sha("big-" + x.name)},
		{name: "upload", args: words("curl -sS -m60 -T HOME/big-" + x.name + " http://www.lab.test:8081/count"), want: viewtest.PatternSum(viewtest.BigSize)},
		{name: "many", args: words("curl -4sS -m30 -Z http://v4.lab.test/addr?[1-30]"), want: strings.Repeat("SELF4\n", 30)},
		{name: "errors", args: []string{"/usr/bin/python3", "-c", errnos},
			want: fmt.Sprintf("open connected\nrefused %s\nunreachable EHOSTUNREACH\nstand-in EHOSTUNREACH\nudp %s\nudp6 %s\nudp name %[2]s\nping ENETUNREACH\n", refused, udp, udp6)},
		{name: "reverse", args: []string{"/usr/bin/python3", "-c", "import socket; print(socket.gethostbyaddr(socket.gethostbyname('www.lab.test'))[0])"}, want: "www.lab.test\n"},
		{name: "https-record", args: words("dig +time=5 +tries=1 www.lab.test HTTPS"), want: "/status: NOERROR(?s:.*)ANSWER: 0/"},
		{name: "mx-record", args: words("dig +time=5 +tries=1 www.lab.test MX"), want: "/status: NOTIMP/"},
	}
	if x.can["half"] {
		c = append(c, client{name: "digest", args: words("BIN:stream:static data 4"), needs: []string{"gcc"}, want: "/\nnothing: 19 \"0 cbf29ce484222325\"\n(?s:.*)end: 0\n$/"})
	}
	return c
}

// TestIntegrationProxyHTTP3: QUIC, by quic-go, through an association of dante's.
func TestIntegrationProxyHTTP3(t *testing.T) {
	w := viewtest.New(t)
	p := w.Peers[0]
	g := p.Gate(t)
	g.Start(t, viewtest.PortDante)
	quic := viewtest.GoQUIC(t)
	big := filepath.Join(w.Home(), "big.bin")
	f, err := os.Create(big)
	if err == nil {
		_, err = io.Copy(f, io.LimitReader(&viewtest.Pattern{}, viewtest.BigSize))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	s := start(t, p.Command(longLived(t), quic, "serve", ":4433", p.CA(), filepath.Join(filepath.Dir(p.CA()), "key.pem"), big))
	awaitOutput(t, s, "ready\n")
	by := view(p, w.Host, at("socks5", viewtest.PortDante), viewtest.BeyondIP4, viewtest.BeyondIP6)
	sum := viewtest.BigSum() + "\n"
	for _, tc := range []struct {
		host string
		do   []string
		want string
	}{
		{"v4.lab.test", words("get URL"), "HTTP/3.0 " + viewtest.BeyondIP4.String() + "\n"},
		{"v6.lab.test", words("get URL"), "HTTP/3.0 " + viewtest.BeyondIP6.String() + "\n"},
		{"v4.lab.test", words("sum URLbig"), sum},
		{"v4.lab.test", []string{"post", "URL", big}, sum},
		{"v4.lab.test", words("many URL 100"), "100 of 100\n"},
	} {
		args := []string{quic, tc.do[0], p.CA(), strings.Replace(tc.do[1], "URL", "https://"+tc.host+":4433/", 1)}
		if r := by.command(t, append(args, tc.do[2:]...)...).Result(); r.Status != 0 || r.Stdout != tc.want {
			t.Errorf("%s %v: want %q, got %v", tc.host, tc.do, tc.want, r)
		}
	}
	w.NoStrays(t)
}

// TestIntegrationProxyNames: a server that is named is asked through the proxy, over
// TCP: for what has no stand-in with dns=, and for all with --dns.
func TestIntegrationProxyNames(t *testing.T) {
	viewtest.Need(t, "dig")
	w := viewtest.New(t)
	p := w.Peers[0]
	g := p.Gate(t)
	g.Start(t, viewtest.PortMicro)
	spec := at("socks5", viewtest.PortMicro) + auth(t, w)
	for _, tt := range []struct {
		name  string
		flags []string
		args  string
		want  string
	}{
		{"dns=", []string{"-n", spec + ",dns=10.77.0.1"}, "dig +short +time=5 +tries=1 www.lab.test A big.lab.test TXT", "/^198\\.18\\.0\\.1\n(\"[0-9][0-9]x+\"\n){20}$/"},
		{"--dns", []string{"-n", spec, "--dns", "10.77.0.1"}, "dig +short +time=5 +tries=1 www.lab.test A nobody.lab.test A", "10.77.0.1\n"},
		{"--dns v6", []string{"-n", spec, "--dns", "fd77::1"}, "curl -6sS -m20 http://www.lab.test/addr", viewtest.BeyondIP6.String() + "\n"},
		{"--dns none", []string{"-n", spec, "--dns", "none"}, "dig +time=2 +tries=1 www.lab.test A", "/status: SERVFAIL/"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.ResetStrays()
			args := append(append([]string{viewtest.Binary(t)}, tt.flags...), "--")
			r := w.HostCmd(t.Context(), append(args, words(tt.args)...)...).AsUser(w.Home()).Result()
			if r.Status != 0 || !matches(r.Stdout, tt.want) {
				t.Errorf("want %q, got %v", tt.want, r)
			}
			w.NoStrays(t)
		})
	}
}

// TestIntegrationProxyDelivery: what a program wrote is delivered when it ends at
// once, although a relay has acknowledged it before; over nat too.
func TestIntegrationProxyDelivery(t *testing.T) {
	viewtest.Need(t, "gcc")
	w := viewtest.New(t)
	p := w.Peers[0]
	g := p.Gate(t)
	bin := viewtest.Target(t, "delivery", viewtest.Dynamic)
	ways := map[string]way{"nat": overNAT("netstack").open(t, p)(t)}
	for _, x := range gateways {
		if x.can["half"] && x.port != viewtest.PortDanteAuth {
			g.Start(t, x.port)
			ways[x.name] = view(p, w.Host, x.spec(t, g, w), viewtest.BeyondIP4, viewtest.BeyondIP6)
		}
	}
	for name, by := range ways {
		for _, tc := range []struct {
			how  string
			size int64
		}{{"exit", 200_000}, {"exit", 8 << 20}, {"close", 3 << 20}, {"slow", 6 << 20}} {
			t.Run(fmt.Sprintf("%s/%s-%d", name, tc.how, tc.size), func(t *testing.T) {
				for range 2 {
					p.Digests()
					u := by.command(t, bin, tc.how, fmt.Sprint(tc.size))
					u.Env = append(u.Env, labEnv(by.ip4.String(), by.ip6.String())...)
					r := u.Result()
					var got []string
					viewtest.Eventually(t, 10*time.Second, func() error {
						if got = append(got, p.Digests()...); len(got) == 0 {
							return fmt.Errorf("the peer saw no end of the connection; %v", r)
						}
						return nil
					})
					if want := viewtest.PatternSum(tc.size); r.Status != 0 || got[0] != want {
						t.Errorf("the peer counted %q, want %q; %v", got[0], want, r)
					}
					if tc.how == "slow" {
						break
					}
				}
			})
		}
	}
}

// TestIntegrationProxyDown: while the proxy is away what connects fails as in an
// unreachable network, what was connected is reset, nothing goes another way, and
// all works again when it is back.
func TestIntegrationProxyDown(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3")
	w := viewtest.New(t)
	p := w.Peers[0]
	g := p.Gate(t)
	const prog = `
import errno, socket, sys
def go():
    try:
        s = socket.create_connection(("www.lab.test", 7), timeout=20); s.sendall(b"x"); s.recv(1); return s
    except OSError as e: print(errno.errorcode.get(e.errno, str(e)), flush=True)
s = go(); print("up", flush=True); sys.stdin.readline()
try: print("read", s.recv(1), flush=True)
except OSError as e: print("read", errno.errorcode.get(e.errno, str(e)), flush=True)
go(); go()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(5)
try:
    u.connect(("10.77.0.1", 7)); u.send(b"x"); print(u.recvfrom(1), flush=True)
except OSError as e: print("udp", errno.errorcode.get(e.errno, str(e)), flush=True)
print("down", flush=True); sys.stdin.readline()
for i in range(100):
    if go(): break
    import time; time.sleep(0.1)
print("again", flush=True)
`
	for _, x := range gateways {
		if x.name != "dante" && x.name != "tinyproxy" && x.name != "sshd" {
			continue
		}
		t.Run(x.name, func(t *testing.T) {
			g.Start(t, x.port)
			w.ResetStrays()
			c := w.HostCmd(t.Context(), viewtest.Binary(t), "-n", x.spec(t, g, w), "--", "/usr/bin/python3", "-c", prog).AsUser(w.Home())
			in, err := c.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			start(t, c)
			awaitOutput(t, c, "up\n")
			g.Stop(x.port)
			fmt.Fprintln(in)
			awaitOutput(t, c, "down\n")
			g.Start(t, x.port)
			fmt.Fprintln(in)
			awaitOutput(t, c, "again\n")
			r := c.Result()
			udp := "udp ENETUNREACH"
			_, rest, _ := strings.Cut(r.Stdout, "up\n")
			before, _, _ := strings.Cut(rest, "down\n")
			read, after, _ := strings.Cut(before, "\n")
			if read != "read ECONNRESET" && !(x.port != viewtest.PortGateSSH && read == "read b''") || after != "ENETUNREACH\nENETUNREACH\n"+udp+"\n" {
				t.Errorf("got %v", r)
			}
			if !strings.Contains(r.Stderr, "the proxy cannot be used") || !strings.Contains(r.Stderr, "can be used again") {
				t.Errorf("the log does not say it: %v", r)
			}
			w.NoStrays(t)
		})
	}
}

// TestIntegrationProxyProblems: what is told of a proxy that cannot be used.
func TestIntegrationProxyProblems(t *testing.T) {
	w := viewtest.New(t)
	p := w.Peers[0]
	g := p.Gate(t)
	for _, port := range []int{viewtest.PortDanteAuth, viewtest.PortTinyAuth, viewtest.PortGateSSH} {
		g.Start(t, port)
	}
	wrong := ",auth=" + w.File(t, "auth", viewtest.GateUser+"\nsardine\n")
	ssh := fmt.Sprintf("ssh:root@%v", viewtest.GateIP4)
	for _, tt := range []struct {
		name, spec string
		status     int
		want       []string
	}{
		{"nobody", at("socks5", 9), 120, []string{"does not answer", "try: umrun check socks5://192.0.2.65:9", "--no-wait"}},
		{"socks-no-password", at("socks5", viewtest.PortDanteAuth), 120, []string{"wants a user name and a password", "auth=FILE"}},
		{"socks-wrong-password", at("socks5", viewtest.PortDanteAuth) + wrong, 120, []string{"refuses the user name or the password"}},
		{"http-no-password", at("http", viewtest.PortTinyAuth), 120, []string{"wants a user name and a password", "auth=FILE"}},
		{"http-wrong-password", at("http", viewtest.PortTinyAuth) + wrong, 120, []string{"refuses the user name or the password"}},
		{"socks-is-ssh", at("socks5", viewtest.PortGateSSH), 120, []string{"does not speak the protocol"}},
		{"http-is-ssh", at("http", viewtest.PortGateSSH), 120, []string{"does not speak the protocol"}},
		{"unknown-host-key", ssh, 120, []string{"has a host key that is not known", "SHA256:", "`ssh root@192.0.2.65`"}},
		{"name", "socks5://no.such.name:1080", 120, []string{"has a name without an address", "outside of the view"}},
		{"password-in-argv", "socks5://lab:sardine@192.0.2.65:1080", 122, []string{"auth=FILE"}},
		{"no-auth-file", at("socks5", viewtest.PortDanteAuth) + ",auth=/nonexistent", 122, []string{"/nonexistent", "no such file"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := w.HostCmd(t.Context(), viewtest.Binary(t), "--wait", "1s", "-n", tt.spec, "--", "true").AsUser(w.Home()).Result()
			if r.Status != tt.status || strings.Contains(r.Stderr, "sardine") {
				t.Errorf("want status %d, got %v", tt.status, r)
			}
			for _, s := range tt.want {
				if !strings.Contains(r.Stderr, s) {
					t.Errorf("want %q, got %v", s, r)
				}
			}
		})
	}
	if b, err := os.ReadFile(filepath.Join(w.Home(), ".ssh", "known_hosts")); err == nil {
		t.Errorf("a host key was written down: %q", b)
	}
}

// TestIntegrationTor: tor without a network takes names as they are, .onion too, and
// no answer of its leads elsewhere.
func TestIntegrationTor(t *testing.T) {
	viewtest.Need(t, "tor", "/usr/bin/python3")
	w := viewtest.New(t)
	g := w.Peers[0].Gate(t)
	g.Start(t, viewtest.PortTor)
	const prog = `
import errno, socket
for host in ("duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion", "www.lab.test", "notvalid.onion"):
    try: socket.create_connection((socket.gethostbyname(host), 80), timeout=30); print("connected")
    except OSError as e: print(errno.errorcode.get(e.errno, str(e)))
try: socket.create_connection(("10.77.0.1", 80), timeout=30); print("connected")
except OSError as e: print(errno.errorcode.get(e.errno, str(e)))
`
	for _, spec := range []string{at("socks5", viewtest.PortTor), fmt.Sprintf("socks5://apart@%v:%d", viewtest.GateIP4, viewtest.PortTor)} {
		w.ResetStrays()
		r := w.HostCmd(t.Context(), viewtest.Binary(t), "-n", spec, "--", "/usr/bin/python3", "-c", prog).AsUser(w.Home()).Result()
		if r.Status != 0 || strings.Count(r.Stdout, "\n") != 4 || strings.Contains(r.Stdout, "connected") || strings.Contains(r.Stdout, "ENETUNREACH") {
			t.Errorf("got %v", r)
		}
		w.NoStrays(t)
	}
}

// overProxy is a column of the matrix.
func overProxy(x gateway) uplink {
	udp := "the proxy carries no datagrams"
	gaps := map[string]string{
		"curl-name-v6": "the proxy chooses the family", "wget-v6": "the proxy chooses the family",
		"curl-no-name": standIns, "python-getaddrinfo": standIns, "node-dns": standIns, "go-lookup": standIns,
		"c-glibc-names": standIns, "c-static-names": standIns, "c-musl-names": standIns,
		"dig$": standIns, "dig-aaaa": standIns, "dig-tcp": standIns, "dig-nxdomain": standIns, "ping-v": noICMP, "ping-name": noICMP,
		"go-addrs": "the view's addresses are others than those that the peer sees",
	}
	if !x.can["udp"] {
		for _, name := range []string{"python-socket", "go-udp", "iperf3-udp", "dig-at"} {
			gaps[name] = udp
		}
	}
	if !x.can["refused"] {
		gaps["node-refused"] = "the proxy does not say why it cannot connect"
	}
	if !x.can["half"] {
		gaps["c-static$"], gaps["c-musl$"] = "the proxy ends a connection of which one half ends", "the proxy ends a connection of which one half ends"
	}
	return uplink{link: x.name, stack: "netstack", gaps: gaps, open: func(t testing.TB, p *viewtest.Peer) func(testing.TB) way {
		g := p.Gate(t)
		g.Start(t, x.port)
		spec := x.spec(t, g, p.World()) + ",dns=10.77.0.1"
		return func(testing.TB) way { return view(p, p.World().Host, spec, viewtest.BeyondIP4, viewtest.BeyondIP6) }
	}}
}

const (
	standIns = "names have addresses that stand for them"
	noICMP   = "a proxy carries no ICMP"
)
