// SPDX-License-Identifier: Apache-2.0

// Browsers and HTTP/3 of the table: quic-go, Chromium and Firefox.

package viewtest_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"umrun/view/viewtest"
)

var browsers = []program{
	{name: "quic-go", version: words("go list -m github.com/quic-go/quic-go"), steps: []step{
		{name: "client", quick: true, did: "client: HTTP/3 by name over IPv4 and IPv6, 20 MiB down and up by SHA-256, 100 requests at once", do: func(x *try) {
			h3Server(x, x.peer)
			h3Client(x, x.view, "v4.lab.test", `HTTP/3\.0 {self4}`)
			h3Client(x, x.view, "[fd77::1]", `HTTP/3\.0 {self6}`)
		}},
		{name: "server", quick: true, did: "server: the same from the peer", do: func(x *try) {
			h3Server(x, x.view)
			// The certificate is for the name, which on the peer is the view's.
			if err := x.p.WriteFile("/etc/hosts", x.fill([]string{"{self4} v4.lab.test\n{self6} www.lab.test\n"})[0]); err != nil {
				x.Fatal(err)
			}
			h3Client(x, x.peer, "v4.lab.test", `HTTP/3\.0 10\.77\.0\.[12]`)
			h3Client(x, x.peer, "www.lab.test", `HTTP/3\.0 fd77::[12]`)
		}},
	}},
	{name: "Chromium", version: words("chromium --version"), steps: []step{
		{name: "pages", did: "client, sandbox on: pages by address and name, both families, fetch, WebSocket, WebRTC, a download of 20 MiB by SHA-256, failures; names asked through the tunnel", do: whole("TestIntegrationBrowser", TestIntegrationBrowser)},
		{name: "http3", did: "client, sandbox on: HTTP/3 to quic-go (`--origin-to-force-quic-on`): pages, fetch, a download of 20 MiB by SHA-256", do: chromiumHTTP3},
	}},
	{name: "Firefox ESR", version: words("firefox-esr --version"), steps: []step{
		{name: "pages", did: "client, sandbox on: pages by address and name, both families, fetch, WebSocket, WebRTC, a download of 20 MiB by SHA-256, failures; names asked through the tunnel", do: firefox},
	}},
}

// h3Server starts goquic on one side, on UDP port 4433.
func h3Server(x *try, side func(...string) *viewtest.Cmd) {
	x.Helper()
	key := x.file("key.pem", string(must(os.ReadFile(filepath.Join(filepath.Dir(x.p.CA()), "key.pem")))))
	x.said(side(viewtest.GoQUIC(x), "serve", ":4433", "{ca}", key, "{big}"), "ready")
}

func h3Client(x *try, side func(...string) *viewtest.Cmd, host, page string) {
	x.Helper()
	ask := func(args ...string) string {
		x.Helper()
		return x.ok(side(append([]string{viewtest.GoQUIC(x)}, args...)...))
	}
	url := "https://" + host + ":4433/"
	x.want(ask("get", "{ca}", url), "/^"+page+"\n$/")
	x.want(ask("sum", "{ca}", url+"big"), "{bigsum}\n")
	x.want(ask("post", "{ca}", url, "{big}"), "{bigsum}\n")
	x.want(ask("many", "{ca}", url, "100"), "100 of 100\n")
}

// spki is how Chromium names the key of a certificate that it shall trust.
func spki(t testing.TB, file string) string {
	t.Helper()
	block, _ := pem.Decode(must(os.ReadFile(file)))
	sum := sha256.Sum256(must(x509.ParseCertificate(block.Bytes)).RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func chromiumHTTP3(x *try) {
	x.w.Patience = 3 * time.Minute
	h3Server(x, x.peer)
	b := launch(x, x.view(driver(x, x.w, "-flag=origin-to-force-quic-on=www.lab.test:4433,v4.lab.test:4433",
		"-flag=ignore-certificate-errors-spki-list="+spki(x, x.p.CA()))...))
	x.want(b.must(x, "open https://www.lab.test:4433/"), `/^HTTP/3\.0 ({self4}|{self6})\n$/`)
	x.want(b.must(x, "fetch /again"), `/^HTTP/3\.0 ({self4}|{self6})\n$/`)
	sumFile(x, b.must(x, "download https://www.lab.test:4433/big"))
	x.want(b.must(x, "open https://v4.lab.test:4433/"), `/^HTTP/3\.0 {self4}\n$/`)
	b.leave(x)
	if x.native == nil {
		nobodyLeft(x, x.w)
	}
}

func firefox(x *try) {
	x.w.Patience = 4 * time.Minute
	viewtest.Need(x, "firefox-esr")
	profile := filepath.Join(x.w.Home(), "firefox")
	b := launch(x, x.view(viewtest.BrowserDriver(x), "-firefox", "-limit=60s", "-profile", profile))
	for _, tc := range []struct {
		do        string
		want, err string // the whole value, or /regular expression/; what the error matches
	}{
		{do: "open http://10.77.0.1/addr", want: "{self4}"},
		{do: "open http://[fd77::1]/addr", want: "{self6}"},
		{do: "open http://v4.lab.test/addr", want: "{self4}"},
		{do: "open http://v6.lab.test/addr", want: "{self6}"},
		{do: "open http://alias.lab.test/addr", want: "/^({self4}|{self6})$/"},
		{do: "open http://closed.lab.test/addr", want: "{self4}"},
		{do: "open http://nobody.lab.test/", err: "dnsNotFound|NS_ERROR_UNKNOWN_HOST"},
		{do: "open http://www.lab.test:1006/", err: "connectionFailure|NS_ERROR_CONNECTION_REFUSED"},
		{do: "open https://www.lab.test/", err: "insecure certificate|SELF_SIGNED_CERT"},
		{do: "open http://www.lab.test/", want: "peer 0"},
		{do: "sandbox", want: `/^(\+[1-9]\d* filters, own user namespace\n?)+$/`},
		{do: "fetch /addr", want: "/^({self4}|{self6})\n$/"},
		{do: "fetch http://10.77.0.1:8081/addr", want: "{self4}\n"},
		{do: "echo ws://www.lab.test:8081/ws", want: fmt.Sprint(1<<16 - 1 + 64<<15)},
		{do: "echo ws://www.lab.test:1006/ws", err: "WebSocket failed"},
		{do: "rtc", want: "/^there and back over .*{self4}/"},
	} {
		a := b.do(x, tc.do)
		if a.Error != "" || tc.err != "" {
			if a.Error == "" || tc.err == "" || !regexp.MustCompile(tc.err).MatchString(a.Error) {
				x.Errorf("%s: want the error %q, got %+v", tc.do, tc.err, a)
			}
			continue
		}
		if !matches(a.Value, x.fill([]string{tc.want})[0]) {
			x.Errorf("%s: want %q, got %+v", tc.do, tc.want, a)
		}
	}
	sumFile(x, b.must(x, "download http://www.lab.test/big.bin"))
	b.leave(x)
	if x.native != nil {
		return
	}
	nobodyLeft(x, x.w)
	asked(x, x.p, x.me, viewtest.NameWeb, viewtest.NameV4, viewtest.NameAlias, "nobody.lab.test")
	served := 0
	for _, l := range strings.Split(x.p.Requests(), "\n") {
		if strings.Contains(l, "Firefox/") && (strings.HasPrefix(l, x.me.IP4.String()+" ") || strings.HasPrefix(l, x.me.IP6.String()+" ")) {
			served++
		}
	}
	if served < 8 {
		x.Errorf("the peer's nginx served %d pages to Firefox; it logged\n%s", served, x.p.Requests())
	}
}
