// SPDX-License-Identifier: Apache-2.0

// Programs of the table that serve: nginx, Apache, HAProxy, memcached and
// mosquitto.

package viewtest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"umrun/view/viewtest"
)

var servers = []program{
	{name: "nginx", version: words("nginx -v"), needs: []string{"curl"}, steps: []step{
		{name: "server", did: "server: 20 MiB over IPv4 and IPv6, 20 requests at once; the port is not the host's", do: whole("TestIntegrationServers", TestIntegrationServers)},
		{name: "proxy", quick: true, did: "server, two workers, `reuseport`: HTTP/1.1, HTTP/2 over TLS, upload, reverse proxy to the peer, 300 requests at once, `nginx -s reload` under load; SHA-256", do: nginxServer},
	}},
	{name: "Apache httpd", version: words("/usr/sbin/apache2 -v"), needs: []string{"curl"}, steps: []step{
		{name: "server", did: "server (event MPM): 20 MiB over IPv4 and IPv6 by SHA-256, 300 requests at once, reverse proxy to the peer, `apache2 -k graceful`", do: apacheServer},
	}},
	{name: "HAProxy", version: words("/usr/sbin/haproxy -v"), needs: []string{"curl"}, steps: []step{
		{name: "server", did: "server, two threads: HTTP and TCP (`splice-auto`) to two servers behind the peer and one that is down, health checks, 20 MiB each way, 300 requests at once; SHA-256", do: haproxyServer},
	}},
	{name: "memcached", version: words("memcached --version"), needs: []string{"/usr/bin/python3"}, steps: []step{
		{name: "server", did: "server: 1000 keys and 900 KiB by SHA-256 over TCP from 8 clients at once, UDP", do: func(x *try) {
			x.serve(11211, x.view(words("memcached -l 0.0.0.0,:: -p 11211 -U 11211 -t 2")...))
			x.want(x.ok(x.peer("/usr/bin/python3", x.script("memcache.py"), "{self4}")), "good\n")
			x.want(x.ok(x.peer("/usr/bin/python3", x.script("memcache.py"), "{self6}")), "good\n")
		}},
		{name: "client", did: "client of a server behind the peer: the same", do: func(x *try) {
			// Its own addresses: the peer has two of each family, and a UDP
			// server on a wildcard may answer from the other.
			x.answer(11211, x.peer(words("memcached -l 10.77.0.1,fd77::1 -p 11211 -U 11211 -t 2")...))
			x.want(x.ok(x.view("/usr/bin/python3", x.script("memcache.py"), "10.77.0.1")), "good\n")
			x.want(x.ok(x.view("/usr/bin/python3", x.script("memcache.py"), "fd77::1")), "good\n")
		}},
	}},
	{name: "mosquitto", version: words("dpkg-query -W mosquitto"), needs: []string{"mosquitto_pub"}, steps: []step{
		{name: "broker", did: "server: QoS 2, 500 messages in order, a retained message of 1 MiB by SHA-256, over IPv4 and IPv6", do: func(x *try) {
			x.serve(1883, x.view("mosquitto", "-c", x.file("mosquitto.conf", mosquittoConf)))
			mosquitto(x, x.peer, "{self4}")
			mosquitto(x, x.peer, "{self6}")
		}},
		{name: "clients", did: "client of a broker behind the peer: the same", do: func(x *try) {
			x.answer(1883, x.peer("mosquitto", "-c", x.file("mosquitto.conf", mosquittoConf)))
			mosquitto(x, x.view, "10.77.0.1")
			mosquitto(x, x.view, "fd77::1")
		}},
	}},
}

// script copies a program of testdata to where the ordinary user may read it.
func (x *try) script(name string) string {
	x.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "programs", name))
	if err != nil {
		x.Fatal(err)
	}
	return x.file(name, string(b))
}

// pages asks a server in the view, from the peer: the big file, and one page
// very often at once.
func pages(x *try, port int, args ...string) {
	x.Helper()
	for i, at := range []string{"{self4}", "[{self6}]"} {
		url := fmt.Sprintf("http://%s:%d", at, port)
		got := fmt.Sprintf("%s/got-%d-%d", x.w.Home(), port, i)
		x.ok(x.peer(append(words("curl -fgsS -m30 -o "+got+" "+url+"/big.bin"), args...)...))
		sumFile(x, got)
		x.many(url+"/page", `a page\n`)
	}
}

// many gets a page 300 times, 50 at once. The page is a regular expression.
func (x *try) many(url, page string) {
	x.Helper()
	x.want(x.ok(x.peer(words("curl -fsS -m30 -Z "+url+"?[1-300]")...)), "/^("+page+"){300}$/")
}

// site makes a directory that a server may show.
func site(x *try) string {
	x.Helper()
	x.ok(x.here("sh", "-ec", "mkdir www up run; cp {big} www/big.bin; echo a page >www/page"))
	return x.w.Home() + "/www"
}

func nginxServer(x *try) {
	site(x)
	key := x.file("key.pem", string(must(os.ReadFile(filepath.Join(filepath.Dir(x.p.CA()), "key.pem")))))
	conf := x.file("nginx.conf", `daemon off; worker_processes 2; error_log stderr; pid {home}/run/pid; worker_shutdown_timeout 5s;
events { worker_connections 1024; }
http { access_log {home}/access.log; sendfile on; tcp_nopush on; client_max_body_size 0; default_type text/plain;
client_body_temp_path {home}/run/1; proxy_temp_path {home}/run/2; fastcgi_temp_path {home}/run/3; uwsgi_temp_path {home}/run/4; scgi_temp_path {home}/run/5;
server {
	listen 8080 reuseport; listen [::]:8080 reuseport; listen 8443 ssl http2; listen [::]:8443 ssl http2;
	ssl_certificate {ca}; ssl_certificate_key `+key+`;
	root {home}/www;
	location /up/ { root {home}; dav_methods PUT; }
	location /peer/ { proxy_pass http://www.lab.test/; resolver 10.77.0.1; proxy_http_version 1.1; }
} }
`)
	x.serve(8080, x.view("nginx", "-e", "stderr", "-p", "{home}", "-c", conf))
	pages(x, 8080)
	tls := "curl -fgsS -m30 --http2 --cacert {ca} --resolve www.lab.test:8443:"
	for i, at := range []string{"{self4}", "[{self6}]"} {
		got := fmt.Sprintf("%s/h2-%d", x.w.Home(), i)
		x.want(x.ok(x.peer(append(words(tls+at+" -w %{http_version} -o "+got), "https://www.lab.test:8443/big.bin")...)), "2")
		sumFile(x, got)
	}
	x.ok(x.peer(words("curl -fsS -m30 -T {big} http://{self4}:8080/up/big")...))
	sumFile(x, filepath.Join(x.w.Home(), "up", "big"))
	x.ok(x.peer(words("curl -fsS -m30 -o {home}/proxied http://{self4}:8080/peer/big.bin")...))
	sumFile(x, filepath.Join(x.w.Home(), "proxied"))
	// New workers take the listening sockets over while a slow download goes on.
	slow := x.peer(words("curl -fsS -m30 --limit-rate 8M -o {home}/slow http://{self4}:8080/big.bin")...)
	start(x, slow)
	pid := strings.TrimSpace(string(must(os.ReadFile(filepath.Join(x.w.Home(), "run", "pid")))))
	x.ok(x.here("kill", "-HUP", pid))
	x.many("http://{self4}:8080/page", `a page\n`)
	if r := slow.Result(); r.Status != 0 {
		x.Errorf("the download did not survive the reload: %v", r)
	}
	sumFile(x, filepath.Join(x.w.Home(), "slow"))
	if log := string(must(os.ReadFile(filepath.Join(x.w.Home(), "access.log")))); !strings.HasPrefix(log, "10.77.0.1 ") || !strings.Contains(log, "\nfd77::") {
		x.Errorf("nginx does not know its clients: %.200s", log)
	}
}

func apacheServer(x *try) {
	site(x)
	conf := x.file("apache.conf", `ServerRoot /usr/lib/apache2
ServerName lab
LoadModule mpm_event_module modules/mod_mpm_event.so
LoadModule authz_core_module modules/mod_authz_core.so
LoadModule proxy_module modules/mod_proxy.so
LoadModule proxy_http_module modules/mod_proxy_http.so
Mutex file:{home}/run
DefaultRuntimeDir {home}/run
PidFile {home}/run/pid
ErrorLog {home}/error.log
LogLevel warn
Listen 8080
DocumentRoot {home}/www
EnableSendfile On
ProxyPass /peer/ http://10.77.0.1/
`)
	x.serve(8080, x.view("/usr/sbin/apache2", "-DFOREGROUND", "-f", conf))
	pages(x, 8080)
	x.ok(x.peer(words("curl -fsS -m30 -o {home}/proxied http://{self4}:8080/peer/big.bin")...))
	sumFile(x, filepath.Join(x.w.Home(), "proxied"))
	pid := strings.TrimSpace(string(must(os.ReadFile(filepath.Join(x.w.Home(), "run", "pid")))))
	x.ok(x.here("kill", "-USR1", pid))
	x.many("http://{self4}:8080/page", `a page\n`)
	viewtest.Eventually(x, 10*time.Second, func() error {
		log := string(must(os.ReadFile(filepath.Join(x.w.Home(), "error.log"))))
		if strings.Count(log, "resuming normal operations") != 2 {
			return fmt.Errorf("not restarted: %s", log)
		}
		return nil
	})
	x.many("http://{self4}:8080/page", `a page\n`)
}

func haproxyServer(x *try) {
	conf := x.file("haproxy.cfg", `global
	nbthread 2
	stats socket {home}/haproxy.sock
defaults
	timeout connect 5s
	timeout client 20s
	timeout server 20s
	option redispatch
frontend web
	mode http
	bind :8080
	bind :::8080 v6only
	default_backend nginx
backend nginx
	mode http
	balance roundrobin
	option httpchk GET /addr
	server a 10.77.0.1:80 check inter 200ms
	server b [fd77::2]:80 check inter 200ms
	server down 10.77.0.1:1006 check inter 200ms fall 1
frontend bytes
	mode tcp
	bind :8081
	option splice-auto
	default_backend digest
backend digest
	mode tcp
	option splice-auto
	server d 10.77.0.1:9
`)
	x.serve(8080, x.view("/usr/sbin/haproxy", "-db", "-f", conf))
	for i, at := range []string{"{self4}", "[{self6}]"} {
		got := fmt.Sprintf("%s/got%d", x.w.Home(), i)
		x.ok(x.peer(words("curl -fgsS -m30 -o " + got + " http://" + at + ":8080/big.bin")...))
		sumFile(x, got)
	}
	x.many("http://{self4}:8080/index.html", "<title>lab</title>peer 0\n")
	x.want(x.ok(x.peer("sh", "-c", "socat -t20 - TCP:{self4}:8081 <{big}")), viewtest.PatternSum(viewtest.BigSize))
	viewtest.Eventually(x, 10*time.Second, func() error {
		state := x.ok(x.here("sh", "-c", "echo show stat | socat - UNIX-CONNECT:{home}/haproxy.sock | cut -d, -f2,18 | tr '\\n' ' '"))
		if !strings.Contains(state, "a,UP b,UP down,DOWN ") {
			return fmt.Errorf("the servers are %q", state)
		}
		return nil
	})
	log := x.p.Requests()
	for _, from := range []string{x.me.IP4.String(), x.me.IP6.String()} {
		if n := strings.Count(log, "\n"+from+" "); n < 100 {
			x.Errorf("the server behind the peer had %d requests from %s", n, from)
		}
	}
}

const mosquittoConf = "listener 1883 0.0.0.0\nlistener 1883 ::\nallow_anonymous true\npersistence false\nmessage_size_limit 0\nmax_queued_messages 0\n"

// mosquitto publishes and subscribes from one side.
func mosquitto(x *try, side func(...string) *viewtest.Cmd, broker string) {
	x.Helper()
	var lines strings.Builder
	for i := range 500 {
		fmt.Fprintf(&lines, "message %d\n", i)
	}
	// Both ends in one view; the subscriber says when it is ready (with -d).
	c := in(side("sh", "-ec", `: >{home}/sub; stdbuf -oL mosquitto_sub -d -h `+broker+` -q 2 -t lab/lines -C 500 -W 30 >{home}/sub & sub=$!
while ! grep -q 'received SUBACK' {home}/sub; do sleep 0.05; done
mosquitto_pub -h `+broker+` -q 2 -t lab/lines -l; wait $sub; grep '^message' {home}/sub
head -c 1048576 {big} | mosquitto_pub -h `+broker+` -q 1 -r -t lab/big -s
mosquitto_sub -h `+broker+` -t lab/big -C 1 -N -W 30 | cmp - {home}/million`), lines.String())
	x.ok(x.here("sh", "-c", "head -c 1048576 {big} >{home}/million"))
	x.want(x.ok(c), lines.String())
}
