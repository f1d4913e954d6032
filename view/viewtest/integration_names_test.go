// SPDX-License-Identifier: Apache-2.0

// Names: whatever asks for one, and whatever resolv.conf says, the question goes
// through the tunnel and the answer is what it would be without umrun.

package viewtest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"umrun/view/viewtest"

	"github.com/google/go-cmp/cmp"
)

// A prober asks for a name in its own way. NAME in its command is replaced by a
// name that nobody else asks for, so that the log of the server tells who asked.
type prober struct {
	name string
	args []string // as a client's
}

const nodeProbe = `
const dns = require("dns");
const say = (what, f) => new Promise(ok => f((e, a) => {
  console.log(what, e ? e.code : Array.isArray(a) ? (a.length > 3 ? a.length : a.map(x => x.address || x).sort().join()) : a); ok() }));
(async () => {
  await say("resolve4", f => dns.resolve4("NAME", f));
  await say("resolve6", f => dns.resolve6("NAME", f));
  await say("txt", f => dns.resolveTxt("big.lab.test", f));
  await say("nobody", f => dns.resolve4("nobody.lab.test", f));
  await say("no data", f => dns.resolve4("v6.lab.test", f));
  await say("lookup", f => dns.lookup("NAME", { all: true }, f));
  await say("lookup nobody", f => dns.lookup("nobody.lab.test", f));
})()`

const pythonProbe = `
import socket
print(sorted({a[4][0] for a in socket.getaddrinfo("NAME", 80)}))
print(socket.gethostbyname("NAME"))
for n in ("nobody.lab.test", "nobody"):
    try: socket.getaddrinfo(n, 80)
    except socket.gaierror as e: print(n, e.errno)
`

var probers = []prober{
	{"glibc", words("BIN:lookup:dynamic NAME alias.lab.test v4.lab.test v6.lab.test nobody.lab.test intra")},
	{"glibc-static", words("BIN:lookup:static NAME nobody.lab.test")},
	{"musl", words("BIN:lookup:musl NAME alias.lab.test v4.lab.test v6.lab.test nobody.lab.test intra")},
	{"res-query", words("BIN:resolve:dynamic NAME big.lab.test v4.lab.test nobody.lab.test")},
	{"res-query-musl", words("BIN:resolve:musl NAME v4.lab.test nobody.lab.test")},
	{"go", words("BIN:gonet:static lookup NAME")},
	{"go-tcp", words("BIN:gonet:static tcp NAME")},
	{"go-txt", words("BIN:gonet:static txt big.lab.test")},
	{"go-nobody", words("BIN:gonet:static lookup nobody.lab.test")},
	{"node", []string{"node", "-e", nodeProbe}},
	{"python", []string{"/usr/bin/python3", "-c", pythonProbe}},
	{"dig", words("dig +short +time=5 +tries=1 NAME A")},
	{"dig-tcp", words("dig +tcp +short +time=5 +tries=1 NAME AAAA")},
	{"dig-txt", words("dig +noall +comments +time=5 +tries=1 big.lab.test TXT")},
	{"dig-nobody", words("dig +noall +comments +time=5 +tries=1 nobody.lab.test A")},
	{"busybox", words("busybox nslookup NAME")},
	{"busybox-nobody", words("busybox nslookup nobody.lab.test")},
	{"getent-hosts", words("getent hosts NAME")},
	{"getent-ahosts", words("getent ahosts NAME")},
	{"getent-ahostsv4", words("getent ahostsv4 NAME")},
	{"getent-nobody", words("getent hosts nobody.lab.test")},
	{"curl", words("curl -sS -m10 http://NAME/")},
	{"curl-nobody", words("curl -s -m10 http://nobody.lab.test/")},
}

// script writes a shell script that runs every prober, with names below label.
func script(t *testing.T, w *viewtest.World, label string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("probe() { n=$1; shift; o=$(\"$@\"); s=$?; echo \"== $n $s\"; [ -z \"$o\" ] || echo \"$o\"; }\n")
	for _, p := range probers {
		fmt.Fprintf(&b, "probe %s", p.name)
		for _, a := range p.args {
			if rest, ok := strings.CutPrefix(a, "BIN:"); ok {
				name, how, _ := strings.Cut(rest, ":")
				a = viewtest.Target(t, name, viewtest.Linking(how))
			}
			a = strings.ReplaceAll(a, "NAME", wild(p.name, label))
			fmt.Fprintf(&b, " '%s'", strings.ReplaceAll(a, "'", `'\''`))
		}
		b.WriteString("\n")
	}
	return w.File(t, "probe.sh", b.String())
}

func wild(prober, label string) string { return prober + "." + label + "." + viewtest.NameWild }

// server is what tells of the server asked, or of chance, in the output of tools.
var server = regexp.MustCompile(`(?m)^Server:.*\nAddress:.*\n|, id: [0-9]+|; COOKIE: .*\n|; EDE: .*\n`)

// split takes the output of a script apart: by prober, with the exit status.
func split(out string) map[string]string {
	m := make(map[string]string)
	for _, part := range strings.Split(server.ReplaceAllString(out, ""), "== ")[1:] {
		name, rest, _ := strings.Cut(part, " ")
		if name == "busybox" { // asks for both types at once
			lines := strings.Split(rest, "\n")
			slices.Sort(lines)
			rest = strings.Join(lines, "\n")
		}
		m[name] = rest
	}
	return m
}

// A trap listens at the addresses at which a machine runs a resolver of its own,
// and counts who comes.
func trap(t *testing.T, w *viewtest.World) *atomic.Int32 {
	t.Helper()
	n := new(atomic.Int32)
	for _, a := range []string{"127.0.0.1:53", "127.0.0.53:53", "[::1]:53"} {
		ln, err := w.Host.Listen("tcp", a)
		if err != nil {
			t.Fatal(err)
		}
		count(t, ln, n)
		c, err := w.Host.ListenPacket("udp", a)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { // ends with its socket
			defer close(done)
			for {
				if _, _, err := c.ReadFrom(make([]byte, 512)); err != nil {
					return
				}
				n.Add(1)
			}
		}()
		t.Cleanup(func() {
			c.Close()
			<-done
		})
	}
	return n
}

// unscoped is what tools say that resolve the server's address themselves, for
// which the interface has to exist. The host's do not in a view.
var unscoped = map[string]string{
	"dig": "1", "dig-tcp": "1", "dig-txt": "1", "dig-nobody": "1", // parse of /etc/resolv.conf failed
	"busybox": "1", "busybox-nobody": "1", // bad address
}

// resolvConfs are what /etc/resolv.conf may hold. None of the servers would
// answer: those on the host count who asks, the others are in the sink.
var resolvConfs = []struct {
	name, text string
	differs    map[string]string // from the native run, by prober
}{
	{name: "ipv4", text: "nameserver 198.51.100.1\n"},
	{name: "ipv6", text: "nameserver 2001:db8:ffff::1\n"},
	{name: "scoped", text: "nameserver fe80::1%sink0\n", differs: unscoped},
	{name: "scoped-and-other", text: "nameserver 192.0.2.99\nnameserver fe80::1%2\n"},
	{name: "systemd", text: "nameserver 127.0.0.53\noptions edns0 trust-ad\n"},
	{name: "tunnel", text: "nameserver 10.77.0.1\n"},
	{name: "three", text: "nameserver 198.51.100.1\nnameserver 2001:db8:ffff::1\nnameserver 192.0.2.99\nnameserver 192.0.2.98\n"},
	{name: "search", text: "search other.lab.test corp.lab.test\nnameserver 198.51.100.1\noptions ndots:1 timeout:2 attempts:2\n"},
	{name: "empty", text: ""},
	{name: "missing", text: ""},
}

// TestIntegrationNames runs every prober under every resolv.conf and holds it
// against the same prober over the kernel's tunnel.
func TestIntegrationNames(t *testing.T) {
	viewtest.Need(t, "gcc", "musl-gcc", "dnsmasq", "node", "/usr/bin/python3", "dig", "busybox", "curl", "getent")
	w, p, me := lab(t)
	local := trap(t, w)
	native := p.Native(t).Command(t.Context(), "sh", script(t, w, "native")).AsUser(w.Home()).Result()
	want := split(strings.ReplaceAll(native.Stdout, ".native.", "."))
	// The oracle is worth something only if it found what there is.
	for prober, text := range map[string]string{
		"glibc": "intra: 10.77.0.1 fd77::1", "musl": "nobody.lab.test: EAI_NONAME", "res-query": "big.lab.test: 201 bytes", "go-txt": "20\n",
		"node": "lookup 10.77.0.1,fd77::1", "python": "nobody -2", "dig-txt": "ANSWER: 20", "busybox": "Address: fd77::1",
		"getent-nobody": "2\n", "curl": "<title>lab</title>", "curl-nobody": "6\n",
	} {
		if !strings.Contains(want[prober], text) {
			t.Fatalf("%s does not work natively: %v", prober, native)
		}
	}
	for _, c := range resolvConfs {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "missing" {
				hideResolvConf(t, w)
			} else if err := w.Host.WriteFile("/etc/resolv.conf", c.text); err != nil {
				t.Fatal(err)
			}
			w.ResetStrays()
			r := w.Umrun(t, me.Conf, "sh", script(t, w, c.name)).Result()
			got := split(strings.ReplaceAll(r.Stdout, "."+c.name+".", "."))
			for _, b := range probers {
				if other, ok := c.differs[b.name]; ok {
					if got := strings.TrimSpace(got[b.name]); got != other {
						t.Errorf("%s: got %q, want %q as listed", b.name, got, other)
					}
					continue
				}
				if d := cmp.Diff(want[b.name], got[b.name]); d != "" {
					t.Errorf("%s (-native +view):\n%s\n-- stderr\n%s", b.name, d, r.Stderr)
				} else if strings.Contains(strings.Join(b.args, " "), "NAME") {
					tunneled(t, p, me, wild(b.name, c.name))
				}
			}
			if strings.Contains(r.Stderr, "umrun:") {
				t.Errorf("it is not worth a word: %s", r.Stderr)
			}
			w.NoStrays(t)
		})
	}
	if n := local.Load(); n > 0 {
		t.Errorf("the host's own resolver was asked %d times", n)
	}
}

// tunneled fails the test unless the peer's server was asked for the name, of
// any type, through the tunnel.
func tunneled(t *testing.T, p *viewtest.Peer, c *viewtest.Client, name string) {
	t.Helper()
	for _, from := range []string{c.IP4.String(), c.IP6.String()} {
		if strings.Contains(p.Queries(), "] "+name+" from "+from+"\n") {
			return
		}
	}
	t.Errorf("%s was not asked for through the tunnel", name)
}

// hideResolvConf makes a host without /etc/resolv.conf. There is no way back.
func hideResolvConf(t *testing.T, w *viewtest.World) {
	t.Helper()
	etc := filepath.Join(w.Dir(), "etc")
	w.Host.MustRun(t, "sh", "-c", "cp -a /etc "+etc+" && rm "+etc+"/resolv.conf && mount --bind "+etc+" /etc")
	w.Host.Do(func() {
		if _, err := os.Lstat("/etc/resolv.conf"); !os.IsNotExist(err) {
			t.Errorf("resolv.conf is still there: %v", err)
		}
	})
}
