// SPDX-License-Identifier: Apache-2.0

// Programs of the table that look at the network: dig, ping, traceroute, mtr,
// tcpdump, nmap, ip, ss.

package viewtest_test

import (
	"context"
	"regexp"
	"strings"

	"umrun/view/viewtest"
)

var diagnostics = []program{
	{name: "dig", version: words("dig -v"), steps: []step{
		{name: "client", did: "client: A, AAAA, CNAME, TXT over UDP, after truncation over TCP, NXDOMAIN, by a server's address", do: same("dig")},
	}},
	{name: "ping", version: words("ping -V"), steps: []step{
		{name: "client", did: "client: IPv4, IPv6, by name, no answer", do: same("ping")},
	}},
	{name: "traceroute", version: words("traceroute --version"), steps: []step{
		{name: "paths", did: "client: over three hops with UDP and ICMP, IPv4 and IPv6, `--mtu`, a target that is gone; line by line what it prints natively", do: paths("traceroute")},
		{name: "tcp", did: "client: over three hops with TCP (`-T`), which natively needs root", do: tracerouteTCP},
	}},
	{name: "tracepath", version: words("tracepath -V"), steps: []step{
		{name: "paths", did: "client: over three hops, IPv4 and IPv6, path MTU; line by line what it prints natively", do: paths("tracepath")},
	}},
	{name: "mtr", version: words("mtr --version"), steps: []step{
		{name: "paths", did: "client: IPv6; line by line what it prints natively", do: paths("mtr")},
		{name: "raw", did: "client: over three hops with ICMP, UDP and TCP, IPv4 and IPv6, which natively needs root; no probe lost", do: mtr},
	}},
	{name: "tcpdump", version: words("tcpdump --version"), needs: []string{"curl"}, steps: []step{
		{name: "capture", did: "a capture of the view's interface with a filter while curl loads a page: handshake, request, answer, and nothing that the filter keeps out", do: tcpdump},
	}},
	{name: "nmap", version: words("nmap --version"), steps: []step{
		{name: "connect", did: "client: connect scan of open and closed ports over IPv4 and IPv6, `-sV` names nginx and OpenSSH", do: nmapConnect},
		{name: "raw", did: "client, `--privileged`: SYN scan, UDP scan, ping scan with ICMP", do: nmapRaw,
			gaps: "an ordinary user's nmap wants to be told `--privileged`: it looks at its user id"},
	}},
	{name: "ip, ss", version: words("ip -V"), steps: []step{
		{name: "show", did: "links, addresses and routes of the view and none of the host's", gaps: "[limits.md](limits.md), Interfaces", do: whole("TestIntegrationInterfaces", TestIntegrationInterfaces)},
		{name: "change", did: "MTU, down and up, addresses, routes, counters, sockets with `ss`; the host's network stays as it is", gaps: "[limits.md](limits.md), Interfaces", do: whole("TestIntegrationChanges", TestIntegrationChanges)},
	}},
}

// capable is view for a program that natively needs root.
func (x *try) capable(args ...string) *viewtest.Cmd {
	x.Helper()
	if x.native == nil {
		return x.view(args...)
	}
	ctx, cancel := context.WithTimeout(x.Context(), x.w.Patience)
	x.Cleanup(cancel)
	return x.native.Command(ctx, x.fill(args)...)
}

// paths compares the commands of TestIntegrationPaths whose names begin so.
func paths(prefix string) func(x *try) {
	return func(x *try) {
		native := x.p.Native(x)
		x.p.Routers(x)
		ran := 0
		for _, p := range pathPrograms {
			if p.name == prefix || strings.HasPrefix(p.name, prefix+"-") {
				ran++
				p.compare(x, x.w, native)
			}
		}
		if ran == 0 {
			x.Fatalf("no command is called %s", prefix)
		}
	}
}

// hops4 and hops6 are the way to the far router.
const (
	hops4 = `(?m)^ *1\W+10\.77\.0\.[12]\b.*\n *2\W+10\.78\.1\.2\b.*\n *3\W+10\.78\.3\.1\b.*\n`
	hops6 = `(?m)^ *1\W+fd77::[12]\b.*\n *2\W+fd78:1::2\b.*\n *3\W+fd78:3::1\b.*\n`
)

func tracerouteTCP(x *try) {
	x.p.Routers(x)
	x.want(x.ok(x.capable(words("traceroute -n -T -p 80 -q 1 -w 2 10.78.3.1")...)), "/"+hops4+"/")
	x.want(x.ok(x.capable(words("traceroute -n -T -p 80 -q 1 -w 2 fd78:3::1")...)), "/"+hops6+"/")
}

func mtr(x *try) {
	x.p.Routers(x)
	for _, how := range []string{"", "--udp", "--tcp -P 80"} {
		for to, hops := range map[string]string{"10.78.3.1": hops4, "fd78:3::1": hops6} {
			out := x.ok(x.capable(words("mtr -n -r -c 1 -G 1 " + how + " " + to)...))
			x.want(out, "/"+hops+"/")
			if n := strings.Count(out, " 0.0% "); n != 3 {
				x.Errorf("mtr %s %s: %d of 3 hops without loss: %s", how, to, n, out)
			}
		}
	}
}

func tcpdump(x *try) {
	out := x.ok(x.capable("sh", "-ec", `
dev=$(ip -o route get 10.77.0.1 | sed 's/.* dev \([^ ]*\) .*/\1/')
tcpdump -Z root --immediate-mode -n -U -i "$dev" -w {home}/cap 'tcp port 80' 2>{home}/says & pid=$!
while ! grep -q listening {home}/says; do kill -0 $pid; sleep 0.05; done
ping -q -c1 10.77.0.1 >/dev/null
curl -sS -m20 http://10.77.0.1/addr
curl -gsS -m20 http://[fd77::1]/addr
sleep 0.5; kill -INT $pid; wait $pid; cat {home}/says >&2
tcpdump -Z root -n -t -A -r {home}/cap`))
	self4, self6 := regexp.QuoteMeta(x.me.IP4.String()), x.me.IP6.String()
	for _, re := range []string{
		`^` + self4 + `\n` + self6 + `\n`,
		`IP ` + self4 + `\.\d+ > 10\.77\.0\.1\.80: Flags \[S\], seq \d+, win \d+, options \[mss `,
		`IP 10\.77\.0\.1\.80 > ` + self4 + `\.\d+: Flags \[S\.\]`,
		`IP6 ` + self6 + `\.\d+ > fd77::1\.80: Flags \[S\]`,
		`GET /addr HTTP/1\.1`, `HTTP/1\.1 200 OK`, `Flags \[F\.\]`,
	} {
		x.want(out, "/"+re+"/")
	}
	if m := regexp.MustCompile(`ICMP|\.53: `).FindString(out); m != "" {
		x.Errorf("the filter let %q through: %s", m, out)
	}
}

func nmapConnect(x *try) {
	for _, at := range []string{"10.77.0.1", "-6 fd77::1"} {
		out := x.ok(x.view(words("nmap -n -Pn -sT -p 80,443,1004-1006 " + at)...))
		x.want(out, `/80/tcp +open +http\n443/tcp +open +https\n1004/tcp +open .*\n1005/tcp +open .*\n1006/tcp +closed /`)
	}
	x.want(x.ok(x.view(words("nmap -n -Pn -sT -sV -p 22,80 www.lab.test")...)), `/22/tcp open +ssh +OpenSSH (?s:.*)80/tcp open +http +nginx /`)
}

func nmapRaw(x *try) {
	x.want(x.ok(x.capable(words("nmap --privileged -n -Pn -sS -p 80,1004-1006 10.77.0.1")...)), `/80/tcp +open (?s:.*)1006/tcp +closed /`)
	x.want(x.ok(x.capable(words("nmap --privileged -n -Pn -sU -p 7,53,1006 10.77.0.1")...)), `/7/udp +open (?s:.*)53/udp +open +domain\n1006/udp +closed /`)
	x.want(x.ok(x.capable(words("nmap --privileged -n -sn -PE 10.77.0.1")...)), `/Host is up(?s:.*)1 host up/`)
}
