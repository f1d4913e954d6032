// SPDX-License-Identifier: Apache-2.0

// Names that are resolved elsewhere.

package dns

import (
	"net/netip"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"
)

// oneName stands 198.18.0.7 and fd00::7 for one name and has 198.18.0.0/24 in all.
type oneName string

var standIns = addrs("198.18.0.7", "fd00::7")

func (n oneName) Addrs(name string) []netip.Addr {
	if name == string(n) {
		return standIns
	}
	return nil
}

func (n oneName) Name(a netip.Addr) (string, bool) {
	if a == standIns[0] || a == standIns[1] {
		return string(n), true
	}
	return "", netip.MustParsePrefix("198.18.0.0/24").Contains(a)
}

// TestNames: addresses come from Names, records that could lead past it do not
// exist, and nobody is asked for the rest unless there is a server, over TCP.
func TestNames(t *testing.T) {
	alone := New(Config{Names: oneName("far.example")})
	server := serve(t, func(w mdns.ResponseWriter, m *mdns.Msg) {
		r := new(mdns.Msg)
		r.SetReply(m)
		rr, err := mdns.NewRR(m.Question[0].Name + ` 60 IN TXT "` + w.RemoteAddr().Network() + `"`)
		if err != nil {
			t.Error(err)
		}
		r.Answer = append(r.Answer, rr)
		w.WriteMsg(r)
	})
	served := New(Config{Names: oneName("far.example"), Servers: []netip.AddrPort{server}, Stream: true, Dial: dial})
	for _, tt := range []struct {
		stub  *Stub
		name  string
		typ   uint16
		rcode int
		want  string
	}{
		{alone, "far.example.", mdns.TypeA, mdns.RcodeSuccess, "198.18.0.7"},
		{alone, "FAR.example.", mdns.TypeA, mdns.RcodeSuccess, "198.18.0.7"},
		{alone, "far.example.", mdns.TypeAAAA, mdns.RcodeSuccess, "fd00::7"},
		{alone, "far.example.", mdns.TypeANY, mdns.RcodeSuccess, "198.18.0.7 fd00::7"},
		{served, "far.example.", mdns.TypeA, mdns.RcodeSuccess, "198.18.0.7"},
		{alone, "no_host!.example.", mdns.TypeA, mdns.RcodeNameError, ""},
		{alone, "far.example.", mdns.TypeHTTPS, mdns.RcodeSuccess, ""},
		{served, "far.example.", mdns.TypeHTTPS, mdns.RcodeSuccess, ""},
		{served, "_x.far.example.", mdns.TypeSVCB, mdns.RcodeSuccess, ""},
		{alone, "7.0.18.198.in-addr.arpa.", mdns.TypePTR, mdns.RcodeSuccess, "far.example."},
		{alone, mustReverse(t, "fd00::7"), mdns.TypePTR, mdns.RcodeSuccess, "far.example."},
		{alone, "8.0.18.198.in-addr.arpa.", mdns.TypePTR, mdns.RcodeNameError, ""},
		{alone, "1.2.0.192.in-addr.arpa.", mdns.TypePTR, mdns.RcodeNotImplemented, ""},
		{alone, "far.example.", mdns.TypeMX, mdns.RcodeNotImplemented, ""},
		{served, "far.example.", mdns.TypeTXT, mdns.RcodeSuccess, `"tcp"`},
		{alone, "localhost.", mdns.TypeA, mdns.RcodeSuccess, "127.0.0.1"},
	} {
		r := ask(t, tt.stub, question(tt.name, tt.typ), false)
		var got []string
		for _, rr := range r.Answer {
			got = append(got, strings.TrimPrefix(rr.String(), rr.Header().String()))
		}
		if text := strings.Join(got, " "); r.Rcode != tt.rcode || text != tt.want {
			t.Errorf("%s %s: %s %q, want %s %q", tt.name, mdns.TypeToString[tt.typ], mdns.RcodeToString[r.Rcode], text, mdns.RcodeToString[tt.rcode], tt.want)
		}
	}
}

func TestParseReverse(t *testing.T) {
	for _, a := range addrs("192.0.2.1", "0.0.0.0", "2001:db8::ff:1", "::") {
		if got, ok := parseReverse(reverseName(a)); !ok || got != a {
			t.Errorf("%s: got %v, %v", a, got, ok)
		}
	}
	for _, n := range []string{"", "in-addr.arpa", "1.2.3.in-addr.arpa", "01.2.3.4.in-addr.arpa", "1.2.3.256.in-addr.arpa", "1.ip6.arpa", strings.Repeat("gg", 32)[1:] + ".ip6.arpa"} {
		if a, ok := parseReverse(n); ok {
			t.Errorf("%q is read as %v", n, a)
		}
	}
}
