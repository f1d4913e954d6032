// SPDX-License-Identifier: Apache-2.0

// DNS over HTTPS: --dns https://..., asked through the tunnel.

package viewtest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"umrun/view/viewtest"
)

// webNames is a DNS over HTTPS server behind a peer, for www.lab.test and 10.77.0.1. It
// answers 192.0.2.99 to everything.
func webNames(t *testing.T, w *viewtest.World, p *viewtest.Peer) (port int, roots string, asked *atomic.Int32) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"www.lab.test"}, IPAddresses: []net.IP{viewtest.PeerIP4.AsSlice(), viewtest.PeerIP6.AsSlice()},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	roots = w.File(t, "roots.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	l, err := p.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	asked = new(atomic.Int32)
	s := &http.Server{
		ErrorLog:  log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			var m mdns.Msg
			if err != nil || m.Unpack(b) != nil {
				http.Error(rw, "no", http.StatusBadRequest)
				return
			}
			asked.Add(1)
			a := new(mdns.Msg).SetReply(&m)
			if rr, err := mdns.NewRR(m.Question[0].Name + " 60 A 192.0.2.99"); err == nil && m.Question[0].Qtype == mdns.TypeA {
				a.Answer = []mdns.RR{rr}
			}
			b, _ = a.Pack()
			rw.Header().Set("Content-Type", "application/dns-message")
			_, _ = rw.Write(b)
		}),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.ServeTLS(l, "", "")
	}()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
	return l.Addr().(*net.TCPAddr).Port, roots, asked
}

// TestIntegrationDoH asks by address and by name, and with a certificate of nobody's.
func TestIntegrationDoH(t *testing.T) {
	viewtest.Need(t, "dig", "dnsmasq")
	w, p, me := lab(t)
	port, roots, asked := webNames(t, w, p)
	for _, c := range []struct {
		name, url, roots, want string
	}{
		{"address", fmt.Sprintf("https://10.77.0.1:%d/dns-query", port), roots, "192.0.2.99"},
		{"address-v6", fmt.Sprintf("https://[fd77::1]:%d/dns-query", port), roots, "192.0.2.99"},
		{"name", fmt.Sprintf("https://www.lab.test:%d/dns-query", port), roots, "192.0.2.99"},
		{"untrusted", fmt.Sprintf("https://10.77.0.1:%d/dns-query", port), os.DevNull, "SERVFAIL"},
		{"absent", "https://10.77.0.1:1006/dns-query", roots, "SERVFAIL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.ResetStrays()
			const own = "query[A] www.lab.test"
			before, looked := asked.Load(), strings.Count(p.Queries(), own)
			name := wild("doh", c.name)
			u := w.UmrunFlags(t, "-n", me.Conf, "--dns", c.url, "--", "dig", "+time=8", "+tries=1", name, "A").AsUser(w.Home())
			u.Env = append(u.Env, "SSL_CERT_FILE="+c.roots, "SSL_CERT_DIR="+os.DevNull)
			r := u.Result()
			if r.Status != 0 || !strings.Contains(r.Stdout, c.want) {
				t.Errorf("want %s, got %v", c.want, r)
			}
			if n := asked.Load() - before; (n == 1) != (c.want == "192.0.2.99") {
				t.Errorf("the server was asked %d times", n)
			}
			q := p.Queries()
			if n := strings.Count(q, own) - looked; strings.Contains(q, name) || (n > 0) != (c.name == "name") {
				t.Errorf("the peer's own server was asked %d times for the other's address, and for %s: %v", n, name, strings.Contains(q, name))
			}
			w.NoStrays(t)
		})
	}
}
