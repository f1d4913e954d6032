// SPDX-License-Identifier: Apache-2.0

// Languages of the table. Each has a program in testdata/programs with the same
// verbs, written with what the language brings:
//
//	fetch URL            the SHA-256 of the page
//	post URL FILE        the answer to a POST of the file
//	udp HOST PORT TEXT   the answer to a datagram
//	serve PORT FILE      an HTTP server on both families: /big is the file, a POST
//	                     is answered with its SHA-256, all else with the client's
//	                     address; and a UDP server that answers in capitals

package viewtest_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"umrun/view/viewtest"
)

var languages = []program{
	{name: "Go", steps: []step{
		{name: "client", did: "client: HTTP, its own resolver, UDP, 100 requests at once", do: same("go")},
		{name: "server", did: "server: HTTP over both families", do: whole("TestIntegrationGoServer", TestIntegrationGoServer)},
	}, version: words("go version")},
	{name: "Python", version: words("/usr/bin/python3 --version"), needs: []string{"curl"}, steps: []step{
		{name: "library", did: "client: urllib, asyncio (50 connections), socket, getaddrinfo", do: same("python")},
		speaker{prog: words("/usr/bin/python3 {home}/lab.py"), source: "lab.py", tls: "SSL_CERT_FILE={ca}"}.client(),
		speaker{prog: words("/usr/bin/python3 {home}/lab.py"), source: "lab.py"}.server("ThreadingHTTPServer, sendfile"),
	}},
	{name: "Node.js", version: words("node --version"), needs: []string{"curl"}, steps: []step{
		{name: "library", did: "client: fetch, http, c-ares", do: same("node")},
		speaker{prog: words("node {home}/lab.js"), source: "lab.js", tls: "NODE_EXTRA_CA_CERTS={ca}"}.client(),
		speaker{prog: words("node {home}/lab.js"), source: "lab.js"}.server("a cluster that passes connections to its workers"),
	}},
	{name: "Java", version: words("java -version"), needs: []string{"curl", "javac"}, steps: []step{
		speaker{prog: words("java -cp {home} Lab"), source: "Lab.java", build: words("javac -d {home} {home}/Lab.java")}.client(),
		speaker{prog: words("java -cp {home} Lab"), source: "Lab.java", build: words("javac -d {home} {home}/Lab.java")}.server("HttpServer with 8 threads, DatagramChannel and Selector"),
	}},
	{name: "Ruby", version: words("ruby --version"), needs: []string{"curl"}, steps: []step{
		speaker{prog: words("ruby {home}/lab.rb"), source: "lab.rb", tls: "SSL_CERT_FILE={ca}"}.client(),
		speaker{prog: words("ruby {home}/lab.rb"), source: "lab.rb"}.server("WEBrick"),
	}},
	{name: "PHP", version: words("php --version"), needs: []string{"curl"}, steps: []step{
		speaker{prog: words("php -d openssl.cafile={ca} {home}/lab.php"), source: "lab.php", tls: "LAB=1"}.client(),
		speaker{prog: words("php -d post_max_size=0 -d memory_limit=-1 -S [::]:8080 {home}/lab.php"), source: "lab.php", own: true}.server("`php -S` with 4 workers"),
	}},
	{name: "Rust", version: words("/usr/bin/rustc --version"), needs: []string{"curl", "gcc"}, steps: []step{
		rust.client(),
		rust.server("a thread a connection"),
	}},
}

// rust is a static binary.
var rust = speaker{prog: words("{home}/lab"), source: "lab.rs", fnv: true,
	build: words("/usr/bin/rustc -O -C target-feature=+crt-static -o {home}/lab {home}/lab.rs")}

// A speaker is a program with the verbs.
type speaker struct {
	prog   []string
	source string
	build  []string
	tls    string // a setting that makes it trust the peer's certificate; without, TLS is not tried
	own    bool   // the command serves by itself, and HTTP alone
	fnv    bool   // sums are those of viewtest.PatternSum
}

func (s speaker) make(x *try) {
	x.Helper()
	x.script(s.source)
	if s.build != nil {
		x.ok(x.here(s.build...))
	}
}

// sum is how the program prints the sum of the big file.
func (s speaker) sum() string {
	if s.fnv {
		return viewtest.PatternSum(viewtest.BigSize)
	}
	return viewtest.BigSum() + "\n"
}

func (s speaker) client() step {
	did := "client: 20 MiB by name over IPv4 and IPv6 by checksum, 20 MiB up, UDP, a refused connection"
	if s.tls != "" {
		did = strings.Replace(did, "IPv6", "IPv6 and TLS", 1)
	}
	return step{name: "client", did: did, do: func(x *try) {
		s.make(x)
		run := func(args ...string) *viewtest.Cmd {
			return in(x.view(append(s.prog, args...)...), "", x.fill([]string{s.tls})...)
		}
		for _, name := range []string{"v4", "v6", "www"} {
			x.want(x.ok(run("fetch", "http://"+name+".lab.test/big.bin")), s.sum())
		}
		if s.tls != "" {
			x.want(x.ok(run("fetch", "https://www.lab.test/big.bin")), s.sum())
		}
		x.want(x.ok(run("post", "http://v4.lab.test:8081/count", "{big}")), viewtest.PatternSum(viewtest.BigSize))
		x.want(x.ok(run("udp", "www.lab.test", "7", "a datagram")), "a datagram\n")
		r := run("fetch", "http://10.77.0.1:1006/").Result()
		if r.Status == 0 || !matches(r.Stderr, `/(?i)refused|ConnectException/`) {
			x.Errorf("want a refusal, got %v", r)
		}
	}}
}

func (s speaker) server(with string) step {
	did := "server (" + with + "): 20 MiB down and up over IPv4 and IPv6 by checksum, 300 requests at once, the client's address; UDP"
	if s.own {
		did = strings.TrimSuffix(did, "; UDP")
	}
	return step{name: "server", did: did, do: func(x *try) {
		s.make(x)
		c := s.prog
		if !s.own {
			c = append(c, "serve", "8080", "{big}")
		}
		x.serve(8080, in(x.view(c...), "", "PHP_CLI_SERVER_WORKERS=4", "LAB_FILE="+filepath.Join(x.w.Dir(), "peer0", "www", "big.bin")))
		for i, at := range []string{"{self4}", "[{self6}]"} {
			url := "http://" + at + ":8080"
			got := fmt.Sprintf("%s/got%d", x.w.Home(), i)
			x.ok(x.peer(words("curl -fgsS -m30 -o " + got + " " + url + "/big")...))
			sumFile(x, got)
			x.want(x.ok(x.peer(words("curl -fgsS -m30 -H Expect: --data-binary @{big} "+url+"/sum")...)), s.sum())
			x.many(url+"/addr", []string{"10.77.0.1\n", `fd77:(:|0:0:0:0:0:0:)[12]\n`}[i])
			if s.own {
				continue
			}
			conn, err := x.p.DialContext(x.Context(), "udp", hostport([]fmt.Stringer{x.me.IP4, x.me.IP6}[i], 8080))
			if err != nil {
				x.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprint(conn, "a datagram")
			conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			b := make([]byte, 100)
			n, err := conn.Read(b)
			if err != nil || string(b[:n]) != "A DATAGRAM" {
				x.Errorf("the answer over UDP is %q, %v", b[:n], err)
			}
		}
	}}
}
