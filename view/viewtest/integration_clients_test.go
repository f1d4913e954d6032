// SPDX-License-Identifier: Apache-2.0

// Clients that people use, unmodified, in a view: as an ordinary user, through
// the tunnel, and not a packet beside it.

package viewtest_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"umrun/view/viewtest"
)

// A client is a command in a view and what it must print.
type client struct {
	name   string
	needs  []string
	args   []string // SELF4, SELF6, CA, KEY, HOME, DIR and BIN:name:linking are replaced
	want   string   // whole stdout, or /regular expression/
	status int
	check  func(t testing.TB, w *viewtest.World)
	stdin  string
}

const sshOpts = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes -o LogLevel=ERROR -i KEY"

var clients = []client{
	{name: "curl-v4", needs: []string{"curl"}, args: words("curl -sS -m20 http://10.77.0.1/addr"), want: "SELF4\n"},
	{name: "curl-v6", needs: []string{"curl"}, args: words("curl -gsS -m20 http://[fd77::1]/addr"), want: "SELF6\n"},
	{name: "curl-name", needs: []string{"curl"}, args: words("curl -4sS -m20 http://www.lab.test/"), want: "<title>lab</title>peer 0\n"},
	{name: "curl-name-v6", needs: []string{"curl"}, args: words("curl -6sS -m20 http://www.lab.test/addr"), want: "SELF6\n"},
	{name: "curl-both-families", needs: []string{"curl"}, args: words("curl -sS -m20 http://www.lab.test/"), want: "<title>lab</title>peer 0\n"},
	{name: "curl-cname", needs: []string{"curl"}, args: words("curl -sS -m20 http://alias.lab.test/"), want: "<title>lab</title>peer 0\n"},
	{name: "curl-only-v4", needs: []string{"curl"}, args: words("curl -sS -m20 http://v4.lab.test/addr"), want: "SELF4\n"},
	{name: "curl-only-v6", needs: []string{"curl"}, args: words("curl -sS -m20 http://v6.lab.test/addr"), want: "SELF6\n"},
	{name: "curl-search-domain", needs: []string{"curl"}, args: words("curl -4sS -m20 http://intra/addr"), want: "SELF4\n"},
	{name: "curl-happy-eyeballs", needs: []string{"curl"}, args: words("curl -sS -m20 http://closed.lab.test/addr"), want: "SELF4\n"},
	{name: "curl-tls", needs: []string{"curl"}, args: words("curl -sS -m20 --cacert CA https://www.lab.test/"), want: "<title>lab</title>peer 0\n"},
	{name: "curl-no-name", needs: []string{"curl"}, args: words("curl -sS -m20 http://nobody.lab.test/"), status: 6},
	{name: "curl-refused", needs: []string{"curl"}, args: words("curl -sS -m20 http://10.77.0.1:1006/"), status: 7},
	{name: "curl-unreachable", needs: []string{"curl"}, args: words("curl -sS -m20 http://10.99.1.1/"), status: 7},
	{name: "curl-silence", needs: []string{"curl"}, args: words("curl -sS --connect-timeout 1 http://10.99.3.1/"), status: 28},
	{name: "curl-many", needs: []string{"curl"}, args: words("curl -sS -m30 -Z http://www.lab.test/addr?[1-30] -4"), want: strings.Repeat("SELF4\n", 30)},
	{name: "curl-big", needs: []string{"curl"}, args: words("curl -sS -m60 http://www.lab.test/big.bin -o HOME/big"), check: sha("big")},
	{name: "curl-big-tls-v6", needs: []string{"curl"}, args: words("curl -6sS -m60 --cacert CA https://www.lab.test/big.bin -o HOME/big6"), check: sha("big6")},
	{name: "curl-upload", needs: []string{"curl"}, args: words("curl -sS -m60 -T HOME/big http://www.lab.test:8081/count"), want: viewtest.PatternSum(viewtest.BigSize)},

	{name: "wget", needs: []string{"wget"}, args: words("wget -q -T20 -t1 -O - http://www.lab.test/"), want: "<title>lab</title>peer 0\n"},
	{name: "wget-v6", needs: []string{"wget"}, args: words("wget -q -T20 -t1 -6 -O - http://www.lab.test/addr"), want: "SELF6\n"},
	{name: "wget-big", needs: []string{"wget"}, args: words("wget -q -T20 -t1 -O HOME/wbig http://10.77.0.1/big.bin"), check: sha("wbig")},

	{name: "busybox-nc", needs: []string{"busybox"}, args: words("busybox nc 10.77.0.1 1005"), want: "SELF4\n"},

	{name: "ssh", needs: []string{"ssh"}, args: words("ssh " + sshOpts + " root@www.lab.test echo $SSH_CONNECTION"), want: "/^SELF[46] /"},
	{name: "ssh-stdin", needs: []string{"ssh"}, args: words("ssh " + sshOpts + " root@10.77.0.1 cat"), stdin: "through the tunnel and back\n", want: "through the tunnel and back\n"},
	{name: "ssh-status", needs: []string{"ssh"}, args: words("ssh -n " + sshOpts + " root@fd77::1 exit 5"), status: 5},
	{name: "scp-down", needs: []string{"scp"}, args: words("scp -q " + sshOpts + " root@10.77.0.1:DIR/peer0/www/big.bin HOME/scp"), check: sha("scp")},
	{name: "scp-up", needs: []string{"scp"}, args: words("scp -q " + sshOpts + " HOME/scp root@[fd77::1]:DIR/peer0/upload/scp"), check: func(t testing.TB, w *viewtest.World) {
		sumFile(t, w.Peers[0].Uploaded("scp"))
	}},
	{name: "git", needs: []string{"git"}, args: words("git clone -q http://www.lab.test/repo.git HOME/repo"), check: func(t testing.TB, w *viewtest.World) {
		if b, err := os.ReadFile(filepath.Join(w.Home(), "repo", "README")); string(b) != viewtest.GitFile {
			t.Errorf("cloned README is %q, %v", b, err)
		}
	}},

	{name: "python-urllib", needs: []string{"/usr/bin/python3"}, args: []string{"/usr/bin/python3", "-c",
		`import urllib.request; print(urllib.request.urlopen("http://v4.lab.test/addr", timeout=20).read().decode(), end="")`}, want: "SELF4\n"},
	{name: "python-asyncio", needs: []string{"/usr/bin/python3"}, args: []string{"/usr/bin/python3", "-c", `
import asyncio
async def one(i):
    r, w = await asyncio.open_connection("10.77.0.1", 7)
    w.write(b"%d\n" % i); await w.drain()
    line = await r.readline()
    w.close(); await w.wait_closed()
    return line == b"%d\n" % i
async def main():
    print(sum(await asyncio.gather(*[one(i) for i in range(50)])))
asyncio.run(asyncio.wait_for(main(), 30))
`}, want: "50\n"},
	{name: "python-socket", needs: []string{"/usr/bin/python3"}, args: []string{"/usr/bin/python3", "-c", `
import socket
s = socket.create_connection(("www.lab.test", 1005), timeout=20)
print(s.makefile().read(), end="")
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(10)
u.sendto(b"hello", ("10.77.0.1", 7)); print(u.recvfrom(100))
try: socket.create_connection(("10.77.0.1", 1006), timeout=10)
except ConnectionRefusedError as e: print("refused")
try: socket.create_connection(("10.99.3.1", 80), timeout=0.3)
except TimeoutError: print("timeout")
`}, want: "/^SELF[46]\n\\(b'hello', \\('10.77.0.1', 7\\)\\)\nrefused\ntimeout\n$/"},
	{name: "python-getaddrinfo", needs: []string{"/usr/bin/python3"}, args: []string{"/usr/bin/python3", "-c", `
import socket
print(sorted({a[4][0] for a in socket.getaddrinfo("www.lab.test", 80)}))
try: socket.getaddrinfo("nobody.lab.test", 80)
except socket.gaierror as e: print(e.errno == socket.EAI_NONAME)
`}, want: "['10.77.0.1', 'fd77::1']\nTrue\n"},

	{name: "node-fetch", needs: []string{"node"}, args: []string{"node", "-e",
		`fetch("http://v4.lab.test/addr").then(r => r.text()).then(t => process.stdout.write(t))`}, want: "SELF4\n"},
	{name: "node-http-v6", needs: []string{"node"}, args: []string{"node", "-e",
		`require("http").get("http://v6.lab.test/addr", r => r.pipe(process.stdout))`}, want: "SELF6\n"},
	{name: "node-dns", needs: []string{"node"}, args: []string{"node", "-e", `
const dns = require("dns");
dns.resolve4("www.lab.test", (e, a) => { console.log(e ? e.code : a.join());
  dns.resolve6("alias.lab.test", (e, a) => { console.log(e ? e.code : a.join());
    dns.resolveTxt("big.lab.test", (e, a) => { console.log(e ? e.code : a.length);
      dns.lookup("nobody.lab.test", e => console.log(e.code)) }) }) })`}, want: "10.77.0.1\nfd77::1\n20\nENOTFOUND\n"},
	{name: "node-refused", needs: []string{"node"}, args: []string{"node", "-e",
		`require("net").connect(1006, "10.77.0.1").on("error", e => console.log(e.code))`}, want: "ECONNREFUSED\n"},

	{name: "go-get", args: words("BIN:gonet:static get http://www.lab.test/"), want: "<title>lab</title>peer 0\n"},
	{name: "go-get-v6", args: words("BIN:gonet:static get http://v6.lab.test/addr"), want: "SELF6\n"},
	{name: "go-many", args: words("BIN:gonet:static many http://10.77.0.1/addr 100"), want: "100 of 100\n"},
	{name: "go-lookup", args: words("BIN:gonet:static lookup www.lab.test"), want: "10.77.0.1 fd77::1\n"},
	{name: "go-udp", args: words("BIN:gonet:static udp [fd77::1]:7 word"), want: "word\n"},
	{name: "go-addrs", args: words("BIN:gonet:static addrs"), want: "/^lo 127.0.0.1/8\nlo ::1/128\n[a-z0-9]+ SELF4/24\n[a-z0-9]+ SELF6/64\n$/"},

	{name: "c-glibc-names", needs: []string{"gcc"}, args: words("BIN:lookup:dynamic www.lab.test v4.lab.test v6.lab.test alias.lab.test nobody.lab.test intra"), want: lookups},
	{name: "c-static-names", needs: []string{"gcc"}, args: words("BIN:lookup:static www.lab.test v4.lab.test v6.lab.test alias.lab.test nobody.lab.test intra"), want: lookups},
	{name: "c-musl-names", needs: []string{"musl-gcc"}, args: words("BIN:lookup:musl www.lab.test v4.lab.test v6.lab.test alias.lab.test nobody.lab.test intra"), want: lookups},
	{name: "c-static", needs: []string{"gcc"}, args: words("BIN:stream:static data 4"), want: "/\nnothing: 19 \"0 cbf29ce484222325\"\n(?s:.*)end: 0\n$/"},
	{name: "c-musl", needs: []string{"musl-gcc"}, args: words("BIN:stream:musl data 6"), want: "/\nnothing: 19 \"0 cbf29ce484222325\"\n(?s:.*)end: 0\n$/"},

	{name: "ping-v4", needs: []string{"ping"}, args: words("ping -n -c3 -i0.2 -W5 10.77.0.1"), want: "/3 packets transmitted, 3 received, 0% packet loss/"},
	{name: "ping-v6", needs: []string{"ping"}, args: words("ping -n -c3 -i0.2 -W5 fd77::1"), want: "/3 packets transmitted, 3 received, 0% packet loss/"},
	{name: "ping-name", needs: []string{"ping"}, args: words("ping -n -c1 -W5 v4.lab.test"), want: "/1 packets transmitted, 1 received/"},
	{name: "ping-silence", needs: []string{"ping"}, args: words("ping -n -c1 -W1 10.99.3.1"), want: "/1 packets transmitted, 0 received/", status: 1},

	{name: "dig", needs: []string{"dig"}, args: words("dig +short +time=5 +tries=1 www.lab.test A"), want: "10.77.0.1\n"},
	{name: "dig-aaaa", needs: []string{"dig"}, args: words("dig +short +time=5 +tries=1 alias.lab.test AAAA"), want: "www.lab.test.\nfd77::1\n"},
	{name: "dig-tcp", needs: []string{"dig"}, args: words("dig +short +tcp +time=5 +tries=1 www.lab.test A"), want: "10.77.0.1\n"},
	{name: "dig-at", needs: []string{"dig"}, args: words("dig +short +time=5 +tries=1 @10.77.0.1 v6.lab.test AAAA"), want: "fd77::1\n"},
	{name: "dig-at-v6", needs: []string{"dig"}, args: words("dig +short +time=5 +tries=1 @fd77::1 v4.lab.test A"), want: "10.77.0.1\n"},
	{name: "dig-truncated", needs: []string{"dig"}, args: words("dig +short +time=5 +tries=1 big.lab.test TXT"), want: "/^(\"[0-9][0-9]x+\"\n)+$/"},
	{name: "dig-nxdomain", needs: []string{"dig"}, args: words("dig +time=5 +tries=1 nobody.lab.test A"), want: "/status: NXDOMAIN/"},

	{name: "iperf3-up", needs: []string{"iperf3"}, args: words("iperf3 -c 10.77.0.1 -t 2 -J"), want: "/\"bits_per_second\"/"},
	{name: "iperf3-down", needs: []string{"iperf3"}, args: words("iperf3 -c fd77::1 -t 2 -R -J"), want: "/\"bits_per_second\"/"},
	{name: "iperf3-udp", needs: []string{"iperf3"}, args: words("iperf3 -c 10.77.0.1 -u -b 10M -t 1 -J"), want: "/\"lost_packets\"/"},
}

const lookups = "www.lab.test: 10.77.0.1 fd77::1\nv4.lab.test: 10.77.0.1\nv6.lab.test: fd77::1\n" +
	"alias.lab.test: 10.77.0.1 fd77::1\nnobody.lab.test: EAI_NONAME\nintra: 10.77.0.1 fd77::1\n"

func words(s string) []string { return strings.Fields(s) }

// TestIntegrationClients runs every client in a view of its own. With
// LAB_NATIVE=1 they run over the kernel's stack instead: what fails there too is
// the laboratory's fault.
func TestIntegrationClients(t *testing.T) {
	w := viewtest.New(t)
	p := w.Peers[0]
	up := tunnel
	if os.Getenv("LAB_NATIVE") != "" {
		up = natively
	}
	id := identity(t, w)
	next := up.open(t, p)
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) { c.run(t, p, next(t), id) })
	}
}

// identity is the ordinary user's copy of the key for the peer's sshd.
func identity(t testing.TB, w *viewtest.World) string {
	t.Helper()
	key, err := os.ReadFile(w.Peers[0].SSHKey())
	if err != nil {
		t.Fatal(err)
	}
	return w.File(t, "id", string(key))
}

// run runs the client by a way to the peer.
func (c client) run(t testing.TB, p *viewtest.Peer, by way, id string) {
	t.Helper()
	viewtest.Need(t, c.needs...)
	w := by.w
	vars := strings.NewReplacer("SELF4", by.ip4.String(), "SELF6", by.ip6.String(), "CA", p.CA(),
		"KEY", id, "HOME", w.Home(), "DIR", w.Dir(),
		"SELF[46]", fmt.Sprintf("(?:%s|%s)", by.ip4, by.ip6))
	args := make([]string, len(c.args))
	for i, a := range c.args {
		if rest, ok := strings.CutPrefix(a, "BIN:"); ok {
			name, how, _ := strings.Cut(rest, ":")
			args[i] = viewtest.Target(t, name, viewtest.Linking(how))
		} else {
			args[i] = vars.Replace(a)
		}
	}
	u := by.command(t, args...)
	u.Env = append(u.Env, labEnv(by.ip4.String(), by.ip6.String())...)
	if c.stdin != "" {
		u.Stdin = strings.NewReader(c.stdin)
	}
	w.ResetStrays()
	r := u.Result()
	if r.Status != c.status || !matches(r.Stdout, vars.Replace(c.want)) {
		t.Errorf("%s: want status %d and %q, got %v", c.name, c.status, vars.Replace(c.want), r)
	}
	if c.check != nil && !t.Failed() {
		c.check(t, w)
	}
	w.NoStrays(t)
}

// matches compares output with what is wanted: "" is anything.
func matches(got, want string) bool {
	if n := len(want); n > 1 && want[0] == '/' && want[n-1] == '/' {
		return regexp.MustCompile(want[1 : n-1]).MatchString(got)
	}
	return want == "" || got == want
}

// sha checks a file in the home directory against the peer's big file.
func sha(name string) func(testing.TB, *viewtest.World) {
	return func(t testing.TB, w *viewtest.World) { sumFile(t, filepath.Join(w.Home(), name)) }
}

func sumFile(t testing.TB, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := sha256.Sum256(b)
	if got := hex.EncodeToString(s[:]); got != viewtest.BigSum() {
		t.Errorf("%s: %d bytes, SHA-256 %s, want %s", path, len(b), got, viewtest.BigSum())
	}
}
