// SPDX-License-Identifier: Apache-2.0

// Split DNS: who is asked for what, and what is learned of the answers.

package dns

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

// newSplit makes a split of two networks: the second one has *.corp.example and 10/8.
func newSplit(t *testing.T, first, second []string) (s *Split, asked func() []string, learned func() []string) {
	t.Helper()
	var mu sync.Mutex
	var log, lessons []string
	stub := func(who string, search []string, records []string) *Stub {
		h := zone(t, records...)
		server := serve(t, func(w mdns.ResponseWriter, m *mdns.Msg) {
			mu.Lock()
			log = append(log, who+" "+m.Question[0].Name)
			mu.Unlock()
			h(w, m)
		})
		return New(Config{Servers: []netip.AddrPort{server}, Search: search, Dial: dial})
	}
	s = &Split{
		Networks: []Resolver{stub("a", nil, first), stub("b", []string{"corp.example"}, second)},
		Name: func(name string) (int, bool) {
			return 1, name == "corp.example" || strings.HasSuffix(name, ".corp.example")
		},
		Addr: func(a netip.Addr) int {
			if netip.MustParsePrefix("10.0.0.0/8").Contains(a) {
				return 1
			}
			return 0
		},
		Searchers: []int{1},
		Learn: func(names []string, addr netip.Addr, ttl time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			lessons = append(lessons, fmt.Sprintf("%s %s %v", addr, strings.Join(names, ","), ttl))
		},
	}
	take := func(l *[]string) func() []string {
		return func() []string {
			mu.Lock()
			defer mu.Unlock()
			out := *l
			*l = nil
			slices.Sort(out)
			return out
		}
	}
	return s, take(&log), take(&lessons)
}

func TestSplit(t *testing.T) {
	s, asked, learned := newSplit(t, []string{
		"www.example. 60 A 192.0.2.1",
		"web. 60 A 192.0.2.2",
		"alias.example. 60 CNAME deep.corp.example.",
		"1.2.0.192.in-addr.arpa. PTR www.example.",
	}, []string{
		"wiki.corp.example. 30 A 10.0.0.7",
		"wiki.corp.example. 30 AAAA fd00::7",
		"www.corp.example. 30 CNAME cdn.example.",
		"svc.corp.example. 20 HTTPS 1 . ipv4hint=10.0.0.8,10.0.0.9 ipv6hint=fd00::8",
		"7.0.0.10.in-addr.arpa. PTR wiki.corp.example.",
	})
	for _, c := range []struct {
		name    string
		typ     uint16
		asked   string
		learned string
	}{
		{"www.example.", mdns.TypeA, "a www.example.", "192.0.2.1 www.example,www.example 1m0s"},
		{"WIKI.corp.example.", mdns.TypeA, "b WIKI.corp.example.", "10.0.0.7 wiki.corp.example,wiki.corp.example 30s"},
		{"wiki.corp.example.", mdns.TypeAAAA, "b wiki.corp.example.", "fd00::7 wiki.corp.example,wiki.corp.example 30s"},
		{"svc.corp.example.", mdns.TypeHTTPS, "b svc.corp.example.",
			"10.0.0.8 svc.corp.example,svc.corp.example 20s|10.0.0.9 svc.corp.example,svc.corp.example 20s|fd00::8 svc.corp.example,svc.corp.example 20s"},
		{"7.0.0.10.in-addr.arpa.", mdns.TypePTR, "b 7.0.0.10.in-addr.arpa.", ""},
		{"1.2.0.192.in-addr.arpa.", mdns.TypePTR, "a 1.2.0.192.in-addr.arpa.", ""},
		{"nowhere.corp.example.", mdns.TypeA, "b nowhere.corp.example.", ""},
		// A dotless name: the first network, then the search domains of the second.
		{"web.", mdns.TypeA, "a web.", "192.0.2.2 web,web 1m0s"},
		{"wiki.", mdns.TypeA, "a wiki.|b wiki.|b wiki.corp.example.", "10.0.0.7 wiki,wiki.corp.example,wiki.corp.example 30s"},
		{"localhost.", mdns.TypeA, "", "127.0.0.1 localhost,localhost 10s"},
	} {
		m := new(mdns.Msg)
		m.SetQuestion(c.name, c.typ)
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		reply := s.Answer(t.Context(), b, false)
		var got mdns.Msg
		if err := got.Unpack(reply); err != nil || got.Id != m.Id {
			t.Errorf("%s: %v", c.name, err)
		}
		if a := strings.Join(asked(), "|"); a != c.asked {
			t.Errorf("%s: asked %q, want %q", c.name, a, c.asked)
		}
		if l := strings.Join(learned(), "|"); l != c.learned {
			t.Errorf("%s: learned %q, want %q", c.name, l, c.learned)
		}
	}
	if s.Answer(context.Background(), []byte("short"), false) != nil {
		t.Error("what is no query is answered")
	}
}

// TestLearnAliases: every name of a chain counts, and records that are broken end nothing
// else.
func TestLearnAliases(t *testing.T) {
	var got []string
	s := &Split{Learn: func(names []string, a netip.Addr, _ time.Duration) {
		got = append(got, a.String()+" "+strings.Join(names, ","))
	}}
	m := new(mdns.Msg)
	m.SetQuestion("www.corp.example.", mdns.TypeA)
	for _, r := range []string{"www.corp.example. 60 CNAME x.cdn.example.", "x.cdn.example. 60 CNAME Y.cdn.example.", "y.cdn.example. 60 A 192.0.2.9"} {
		rr, err := mdns.NewRR(r)
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	m.Answer = slices.Insert(m.Answer, 0, mdns.RR(&mdns.RFC3597{Hdr: mdns.RR_Header{Name: "www.corp.example.", Rrtype: mdns.TypeA, Class: 1}, Rdata: "0102"}))
	extra, err := mdns.NewRR("mail.corp.example. 60 AAAA 2001:db8::9")
	if err != nil {
		t.Fatal(err)
	}
	m.Extra = append(m.Extra, extra)
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	Addresses("www.corp.example", b, s.Learn)
	want := []string{
		"192.0.2.9 www.corp.example,x.cdn.example,y.cdn.example,y.cdn.example",
		"2001:db8::9 www.corp.example,x.cdn.example,y.cdn.example,mail.corp.example",
	}
	if !slices.Equal(got, want) {
		t.Errorf("learned %q, want %q", got, want)
	}
}

// FuzzLearn: no reply, however broken, ends the process or the loop.
func FuzzLearn(f *testing.F) {
	m := new(mdns.Msg)
	m.SetQuestion("www.corp.example.", mdns.TypeA)
	for _, r := range []string{"www.corp.example. 60 CNAME x.example.", "x.example. 60 A 192.0.2.9", "x.example. 60 HTTPS 1 . ipv4hint=10.0.0.8"} {
		rr, _ := mdns.NewRR(r)
		m.Answer = append(m.Answer, rr)
	}
	b, _ := m.Pack()
	f.Add(b)
	f.Fuzz(func(t *testing.T, reply []byte) {
		n := 0
		s := &Split{Learn: func(names []string, a netip.Addr, ttl time.Duration) {
			if n++; len(names) == 0 || !a.IsValid() || ttl < 0 || n > len(reply) {
				t.Errorf("learned %v of %v", a, names)
			}
		}}
		Addresses("x", reply, s.Learn)
	})
}
