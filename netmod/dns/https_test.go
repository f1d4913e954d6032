// SPDX-License-Identifier: Apache-2.0

// DNS over HTTPS against a server of net/http on loopback.

package dns

import (
	"bytes"
	"context"
	"crypto/x509"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

// webServer is a server that answers 192.0.2.7 to everything, and counts.
type webServer struct {
	*httptest.Server
	asked   atomic.Int32
	version atomic.Value // of HTTP, of the last request
	spoil   func(http.ResponseWriter, *mdns.Msg) bool
}

func newWebServer(t *testing.T) *webServer {
	t.Helper()
	w := &webServer{}
	w.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.asked.Add(1)
		w.version.Store(r.Proto)
		b, err := io.ReadAll(r.Body)
		var m mdns.Msg
		if err != nil || m.Unpack(b) != nil || r.Method != http.MethodPost || r.URL.Path != "/dns-query" ||
			r.Header.Get("Content-Type") != dnsMessage || m.Id != 0 || r.UserAgent() != "" {
			http.Error(rw, "no", http.StatusBadRequest)
			return
		}
		a := new(mdns.Msg).SetReply(&m)
		rr, _ := mdns.NewRR(m.Question[0].Name + " 60 A 192.0.2.7")
		if m.Question[0].Qtype == mdns.TypeA {
			a.Answer = []mdns.RR{rr}
		}
		rw.Header().Set("Content-Type", dnsMessage)
		if w.spoil != nil && w.spoil(rw, a) {
			return
		}
		b, _ = a.Pack()
		_, _ = rw.Write(b)
	}))
	w.EnableHTTP2 = true
	w.Config.ErrorLog = log.New(io.Discard, "", 0)
	w.StartTLS()
	t.Cleanup(w.Close)
	return w
}

func (w *webServer) roots() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(w.Certificate())
	return p
}

func TestHTTPS(t *testing.T) {
	w := newWebServer(t)
	addr := netip.MustParseAddrPort(strings.TrimPrefix(w.URL, "https://"))
	names := serve(t, zone(t, "example.com. A 127.0.0.1", "away.example. A 127.0.0.9")) // the certificate is for example.com
	port := strings.TrimPrefix(w.URL, "https://127.0.0.1")
	for _, c := range []struct {
		name, url string
		servers   []netip.AddrPort
		roots     *x509.CertPool
		spoil     func(http.ResponseWriter, *mdns.Msg) bool
		fails     bool
	}{
		{name: "by address", url: w.URL + "/dns-query", roots: w.roots()},
		{name: "template", url: w.URL + "/dns-query{?dns}", roots: w.roots()},
		{name: "by name", url: "https://example.com" + port + "/dns-query", roots: w.roots(), servers: []netip.AddrPort{names}},
		{name: "by a name that is not known", url: "https://nowhere.example" + port + "/dns-query", roots: w.roots(), servers: []netip.AddrPort{names}, fails: true},
		{name: "by a name, and nobody to ask", url: "https://example.com" + port + "/dns-query", roots: w.roots(), fails: true},
		{name: "certificate of nobody", url: w.URL + "/dns-query", roots: x509.NewCertPool(), fails: true},
		{name: "certificate of another name", url: "https://away.example" + port + "/dns-query", roots: w.roots(), servers: []netip.AddrPort{names}, fails: true},
		{name: "another path", url: w.URL + "/other", roots: w.roots(), fails: true},
		{name: "redirect", url: w.URL + "/dns-query", roots: w.roots(), fails: true, spoil: func(rw http.ResponseWriter, _ *mdns.Msg) bool {
			rw.Header().Set("Location", "https://192.0.2.1/dns-query")
			rw.WriteHeader(http.StatusFound)
			return true
		}},
		{name: "a page", url: w.URL + "/dns-query", roots: w.roots(), fails: true, spoil: func(rw http.ResponseWriter, _ *mdns.Msg) bool {
			rw.Header().Set("Content-Type", "text/html")
			_, _ = rw.Write([]byte("<html>"))
			return true
		}},
		{name: "another question", url: w.URL + "/dns-query", roots: w.roots(), fails: true, spoil: func(_ http.ResponseWriter, m *mdns.Msg) bool {
			m.Question[0].Name = "other.example."
			return false
		}},
		{name: "too much", url: w.URL + "/dns-query", roots: w.roots(), fails: true, spoil: func(rw http.ResponseWriter, _ *mdns.Msg) bool {
			_, _ = rw.Write(make([]byte, 1<<20))
			return true
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.spoil = c.spoil
			var told bytes.Buffer
			var udp atomic.Int32
			s := New(Config{HTTPS: c.url, Servers: c.servers, Roots: c.roots, Timeout: 2 * time.Second, Reason: "no servers",
				Log: slog.New(slog.NewTextHandler(&told, nil)),
				Dial: func(ctx context.Context, network string, a netip.AddrPort) (net.Conn, error) {
					if network == "udp" {
						udp.Add(1)
					}
					if a.Addr() == netip.MustParseAddr("127.0.0.9") {
						a = addr
					}
					return dial(ctx, network, a)
				}})
			defer s.Close()
			asked := w.asked.Load()
			for range 2 {
				m := ask(t, s, question("WWW.example.org.", mdns.TypeA), false)
				if c.fails {
					if m.Rcode != mdns.RcodeServerFailure {
						t.Errorf("answered %v", summary(m))
					}
					continue
				}
				if len(m.Answer) != 1 || m.Answer[0].(*mdns.A).A.String() != "192.0.2.7" || m.Question[0].Name != "WWW.example.org." {
					t.Errorf("answered %v\n%s", summary(m), told.String())
				}
			}
			if c.fails {
				if !strings.Contains(told.String(), "level=WARN") {
					t.Error("nobody was warned")
				}
				return
			}
			if n := w.asked.Load() - asked; n != 2 || w.version.Load() != "HTTP/2.0" {
				t.Errorf("asked %d times, %v", n, w.version.Load())
			}
			if len(c.servers) == 0 && udp.Load() > 0 {
				t.Error("somebody else was asked")
			}
			if n := udp.Load(); len(c.servers) > 0 && n != 2 {
				t.Errorf("the server's name was asked for %d times, want once for each family: the connection is kept", n)
			}
		})
	}
}

// TestHTTPSAgain: a connection that the server has closed is replaced.
func TestHTTPSAgain(t *testing.T) {
	w := newWebServer(t)
	s := New(Config{HTTPS: w.URL + "/dns-query", Roots: w.roots(), Dial: dial, Timeout: 3 * time.Second})
	defer s.Close()
	for range 3 {
		if m := ask(t, s, question("www.example.org.", mdns.TypeA), true); len(m.Answer) != 1 {
			t.Errorf("answered %v", summary(m))
		}
		w.CloseClientConnections()
	}
}
