// SPDX-License-Identifier: Apache-2.0

// The stub against miekg/dns servers on loopback.

package dns

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	mdns "github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a server on UDP and TCP of one loopback port.
func serve(t *testing.T, h mdns.HandlerFunc) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", pc.LocalAddr().String())
	for tries := 0; err != nil && tries < 10; tries++ { // the TCP port was taken
		_ = pc.Close()
		if pc, err = net.ListenPacket("udp", "127.0.0.1:0"); err == nil {
			l, err = net.Listen("tcp", pc.LocalAddr().String())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, srv := range []*mdns.Server{{PacketConn: pc, Handler: h, UDPSize: 65535}, {Listener: l, Handler: h}} {
		up := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(up) }
		done := make(chan error, 1)
		go func() { done <- srv.ActivateAndServe() }()
		<-up
		t.Cleanup(func() {
			if err := srv.Shutdown(); err != nil {
				t.Error(err)
			}
			<-done
		})
	}
	return netip.MustParseAddrPort(pc.LocalAddr().String())
}

// mute is a UDP server that never answers; its TCP port is closed.
func mute(t *testing.T) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	return netip.MustParseAddrPort(pc.LocalAddr().String())
}

func dial(ctx context.Context, network string, a netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, a.String())
}

// zone answers from records in zone file syntax, NXDOMAIN for other names.
func zone(t *testing.T, records ...string) mdns.HandlerFunc {
	t.Helper()
	var rrs []mdns.RR
	for _, r := range records {
		rr, err := mdns.NewRR(r)
		if err != nil {
			t.Fatal(err)
		}
		rrs = append(rrs, rr)
	}
	return func(w mdns.ResponseWriter, r *mdns.Msg) {
		m := new(mdns.Msg)
		m.SetRcode(r, mdns.RcodeNameError)
		for _, rr := range rrs {
			if strings.EqualFold(rr.Header().Name, r.Question[0].Name) {
				m.Rcode = mdns.RcodeSuccess
				if rr.Header().Rrtype == r.Question[0].Qtype {
					m.Answer = append(m.Answer, rr)
				}
			}
		}
		if o := r.IsEdns0(); o != nil {
			m.SetEdns0(1232, o.Do())
		}
		_ = w.WriteMsg(m)
	}
}

func rcode(n int) mdns.HandlerFunc {
	return func(w mdns.ResponseWriter, r *mdns.Msg) {
		_ = w.WriteMsg(new(mdns.Msg).SetRcode(r, n))
	}
}

// ask packs m, has it answered and unpacks the answer.
func ask(t *testing.T, s *Stub, m *mdns.Msg, tcp bool) *mdns.Msg {
	t.Helper()
	raw, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	kept := bytes.Clone(raw)
	got := s.Answer(t.Context(), raw, tcp)
	if !bytes.Equal(raw, kept) {
		t.Error("the query was changed")
	}
	r := new(mdns.Msg)
	if err := r.Unpack(got); err != nil {
		t.Fatalf("answer %x: %v", got, err)
	}
	if r.Id != m.Id {
		t.Errorf("id %d, want %d", r.Id, m.Id)
	}
	return r
}

// summary is an answer in short: its code, flags and records.
func summary(m *mdns.Msg) []string {
	out := []string{mdns.RcodeToString[m.Rcode]}
	if m.Truncated {
		out[0] += " TC"
	}
	for _, rr := range m.Answer {
		f := strings.Fields(rr.String())
		out = append(out, strings.Join(append(f[:1], f[3:]...), " "))
	}
	return out
}

func question(name string, typ uint16) *mdns.Msg {
	return new(mdns.Msg).SetQuestion(name, typ)
}

func TestAnswer(t *testing.T) {
	up := serve(t, zone(t,
		"host.example. A 192.0.2.1",
		"host.example. AAAA 2001:db8::1",
		"odd.example. TYPE65280 \\# 4 01020304",
		"dev. NS ns.dev.",
		"dev.corp.example. A 192.0.2.3",
		"wiki.corp.example. A 192.0.2.2",
		"both.corp.example. A 192.0.2.4",
		"both.lab.example. A 192.0.2.5",
		"deep.lab.example. A 192.0.2.6",
	))
	s := New(Config{
		Servers: []netip.AddrPort{up},
		Search:  []string{"corp.example", "lab.example."},
		Hosts:   map[string][]netip.Addr{"db": {netip.MustParseAddr("10.9.9.9")}, "x.test": {netip.MustParseAddr("fd00::9")}},
		Dial:    dial,
	})
	tests := []struct {
		name string
		q    string
		typ  uint16
		want []string
	}{
		{"A", "host.example.", mdns.TypeA, []string{"NOERROR", "host.example. A 192.0.2.1"}},
		{"case is kept", "hOsT.eXaMpLe.", mdns.TypeAAAA, []string{"NOERROR", "host.example. AAAA 2001:db8::1"}},
		{"no data", "host.example.", mdns.TypeMX, []string{"NOERROR"}},
		{"no such name", "nope.example.", mdns.TypeA, []string{"NXDOMAIN"}},
		{"unknown type", "odd.example.", 65280, []string{"NOERROR", `odd.example. TYPE65280 \# 4 01020304`}},
		{"search", "wiki.", mdns.TypeA, []string{"NOERROR", "wiki. CNAME wiki.corp.example.", "wiki.corp.example. A 192.0.2.2"}},
		{"search, case", "WiKi.", mdns.TypeA, []string{"NOERROR", "WiKi. CNAME WiKi.corp.example.", "wiki.corp.example. A 192.0.2.2"}},
		{"search, no data", "wiki.", mdns.TypeAAAA, []string{"NOERROR", "wiki. CNAME wiki.corp.example."}},
		{"search, first domain wins", "both.", mdns.TypeA, []string{"NOERROR", "both. CNAME both.corp.example.", "both.corp.example. A 192.0.2.4"}},
		{"search, second domain", "deep.", mdns.TypeA, []string{"NOERROR", "deep. CNAME deep.lab.example.", "deep.lab.example. A 192.0.2.6"}},
		{"search, none has it", "gone.", mdns.TypeA, []string{"NXDOMAIN"}},
		{"search, top-level domain without address", "dev.", mdns.TypeA, []string{"NOERROR", "dev. CNAME dev.corp.example.", "dev.corp.example. A 192.0.2.3"}},
		{"search, top-level domain, no address there either", "dev.", mdns.TypeAAAA, []string{"NOERROR"}},
		{"search, not for zones", "wiki.", mdns.TypeNS, []string{"NXDOMAIN"}},
		{"search, not for the root", ".", mdns.TypeA, []string{"NXDOMAIN"}},
		{"search, not with dots", "wiki.eu.", mdns.TypeA, []string{"NXDOMAIN"}},
		{"localhost", "localhost.", mdns.TypeA, []string{"NOERROR", "localhost. A 127.0.0.1"}},
		{"localhost 6", "LOCALHOST.", mdns.TypeAAAA, []string{"NOERROR", "LOCALHOST. AAAA ::1"}},
		{"localhost, other type", "localhost.", mdns.TypeTXT, []string{"NOERROR"}},
		{"below localhost", "app.localhost.", mdns.TypeA, []string{"NOERROR", "app.localhost. A 127.0.0.1"}},
		{"not localhost", "nolocalhost.", mdns.TypeA, []string{"NXDOMAIN"}},
		{"escaped dot is no dot", `a\.localhost.`, mdns.TypeA, []string{"NXDOMAIN"}},
		{"reverse loopback", "1.0.0.127.in-addr.arpa.", mdns.TypePTR, []string{"NOERROR", "1.0.0.127.in-addr.arpa. PTR localhost."}},
		{"reverse 127/8", "53.0.0.127.in-addr.arpa.", mdns.TypePTR, []string{"NOERROR", "53.0.0.127.in-addr.arpa. PTR localhost."}},
		{"reverse loopback 6", mustReverse(t, "::1"), mdns.TypePTR, []string{"NOERROR", mustReverse(t, "::1") + " PTR localhost."}},
		{"reverse, not loopback", mustReverse(t, "192.0.2.1"), mdns.TypePTR, []string{"NXDOMAIN"}},
		{"canary", "use-application-dns.net.", mdns.TypeA, []string{"NXDOMAIN"}},
		{"designated resolvers", "_dns.resolver.arpa.", mdns.TypeSVCB, []string{"NOERROR"}},
		{"static", "db.", mdns.TypeA, []string{"NOERROR", "db. A 10.9.9.9"}},
		{"static, other family", "db.", mdns.TypeAAAA, []string{"NOERROR"}},
		{"static reverse", mustReverse(t, "10.9.9.9"), mdns.TypePTR, []string{"NOERROR", mustReverse(t, "10.9.9.9") + " PTR db."}},
		{"static 6", "X.test.", mdns.TypeAAAA, []string{"NOERROR", "X.test. AAAA fd00::9"}},
	}
	for _, tt := range tests {
		for _, tcp := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				got := ask(t, s, question(tt.q, tt.typ), tcp)
				if d := cmp.Diff(tt.want, summary(got)); d != "" {
					t.Errorf("-want +got\n%s", d)
				}
				if got.Question[0].Name != tt.q || !got.Response || !got.RecursionDesired {
					t.Errorf("header and question: %v", got)
				}
			})
		}
	}
}

func mustReverse(t *testing.T, a string) string {
	t.Helper()
	r, err := mdns.ReverseAddr(a)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What the server sees is what the client sent, but for the id.
func TestForwardedUnchanged(t *testing.T) {
	seen := make(chan *mdns.Msg, 4)
	up := serve(t, func(w mdns.ResponseWriter, r *mdns.Msg) {
		seen <- r.Copy()
		rcode(mdns.RcodeSuccess)(w, r)
	})
	s := New(Config{Servers: []netip.AddrPort{up}, Dial: dial, Search: []string{"corp.example"}})
	m := question("SiGned.", mdns.TypeA)
	m.SetEdns0(4096, true)
	m.CheckingDisabled = true
	m.IsEdns0().Option = []mdns.EDNS0{&mdns.EDNS0_COOKIE{Code: mdns.EDNS0COOKIE, Cookie: "0011223344556677"}}
	for _, tcp := range []bool{false, true} {
		ask(t, s, m, tcp)
		got := <-seen
		got.Id = m.Id
		want, _ := m.Pack()
		have, _ := got.Pack()
		if !bytes.Equal(want, have) {
			t.Errorf("tcp %v: sent\n%v\ngot\n%v", tcp, m, got)
		}
	}
	if len(seen) != 0 {
		t.Error("a query with CD was searched for")
	}
}

// Every query leaves from a port and with an id of its own.
func TestFreshPortAndID(t *testing.T) {
	type mark struct {
		from string
		id   uint16
	}
	var mu sync.Mutex
	seen := make(map[mark]bool)
	ids := make(map[uint16]bool)
	up := serve(t, func(w mdns.ResponseWriter, r *mdns.Msg) {
		mu.Lock()
		seen[mark{w.RemoteAddr().String(), r.Id}] = true
		ids[r.Id] = true
		mu.Unlock()
		rcode(mdns.RcodeSuccess)(w, r)
	})
	s := New(Config{Servers: []netip.AddrPort{up}, Dial: dial})
	m := question("host.example.", mdns.TypeA)
	m.Id = 7
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { ask(t, s, m, false) })
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 50 || len(ids) < 45 {
		t.Errorf("%d ports and ids, %d ids in 50 queries", len(seen), len(ids))
	}
}

// Servers and search domains that are learned later are those that are asked.
func TestSetUpstream(t *testing.T) {
	one := serve(t, zone(t, "host.example. A 192.0.2.1"))
	two := serve(t, zone(t, "host.example. A 192.0.2.2", "wiki.corp.example. A 192.0.2.3"))
	var log bytes.Buffer
	s := New(Config{Dial: dial, Reason: "nothing learned", Log: slog.New(slog.NewTextHandler(&log, nil))})
	for range 2 {
		if r := ask(t, s, question("host.example.", mdns.TypeA), false); r.Rcode != mdns.RcodeServerFailure {
			t.Errorf("without servers: %s", mdns.RcodeToString[r.Rcode])
		}
	}
	if n := strings.Count(log.String(), "nothing learned"); n != 1 {
		t.Errorf("%d warnings, want 1:\n%s", n, &log)
	}
	for _, u := range []struct {
		server netip.AddrPort
		search []string
		name   string
		want   string
	}{
		{one, nil, "host.example.", "192.0.2.1"},
		{two, []string{"not a name.."}, "host.example.", "192.0.2.2"},
		{two, []string{"corp.example"}, "wiki.", "192.0.2.3"},
	} {
		s.SetUpstream([]netip.AddrPort{u.server}, u.search, "")
		r := ask(t, s, question(u.name, mdns.TypeA), false)
		if n := len(r.Answer); n == 0 || !strings.HasSuffix(r.Answer[n-1].String(), u.want) {
			t.Errorf("%s in %v: %v, want %s", u.name, u.search, r.Answer, u.want)
		}
	}
	s.SetUpstream(nil, nil, "gone")
	if r := ask(t, s, question("host.example.", mdns.TypeA), false); r.Rcode != mdns.RcodeServerFailure {
		t.Errorf("after the servers are gone: %s", mdns.RcodeToString[r.Rcode])
	}
	if !strings.Contains(log.String(), "gone") {
		t.Errorf("the new reason is not told:\n%s", &log)
	}
}

func TestServerOrder(t *testing.T) {
	good := serve(t, zone(t, "host.example. A 192.0.2.1"))
	tests := []struct {
		name  string
		first netip.AddrPort
		want  string
	}{
		{"SERVFAIL", serve(t, rcode(mdns.RcodeServerFailure)), "NOERROR"},
		{"REFUSED", serve(t, rcode(mdns.RcodeRefused)), "NOERROR"},
		{"NOTIMP", serve(t, rcode(mdns.RcodeNotImplemented)), "NOERROR"},
		{"NXDOMAIN is an answer", serve(t, rcode(mdns.RcodeNameError)), "NXDOMAIN"},
		{"FORMERR is an answer", serve(t, rcode(mdns.RcodeFormatError)), "FORMERR"},
		{"mute", mute(t), "NOERROR"},
		{"closed", netip.MustParseAddrPort("127.0.0.1:1"), "NOERROR"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := New(Config{Servers: []netip.AddrPort{tt.first, good}, Dial: dial, Timeout: 2 * time.Second})
			for _, tcp := range []bool{false, true} {
				got := ask(t, s, question("host.example.", mdns.TypeA), tcp)
				if summary(got)[0] != tt.want {
					t.Errorf("tcp %v: %v, want %s", tcp, summary(got), tt.want)
				}
			}
		})
	}
}

func TestAllServersFail(t *testing.T) {
	t.Parallel()
	dialErr := errors.New("network is unreachable")
	tests := []struct {
		name    string
		servers []netip.AddrPort
		dial    func(context.Context, string, netip.AddrPort) (net.Conn, error)
		want    string
		atMost  time.Duration
	}{
		{"refusal is passed on", []netip.AddrPort{serve(t, rcode(mdns.RcodeRefused)), mute(t)}, dial, "REFUSED", 2 * time.Second},
		{"no dial", []netip.AddrPort{mute(t), mute(t)}, func(context.Context, string, netip.AddrPort) (net.Conn, error) {
			return nil, dialErr
		}, "SERVFAIL", 500 * time.Millisecond},
		{"mute", []netip.AddrPort{mute(t)}, dial, "SERVFAIL", 2 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var logged strings.Builder
			s := New(Config{Servers: tt.servers, Dial: tt.dial, Timeout: time.Second,
				Log: slog.New(slog.NewTextHandler(&logged, nil))})
			start := time.Now()
			got := ask(t, s, question("host.example.", mdns.TypeA), false)
			if summary(got)[0] != tt.want {
				t.Errorf("%v, want %s", summary(got), tt.want)
			}
			if d := time.Since(start); d > tt.atMost {
				t.Errorf("took %v", d)
			}
			if warned := strings.Contains(logged.String(), "no answer"); warned != (tt.want == "SERVFAIL") {
				t.Errorf("log: %q", logged.String())
			}
		})
	}
}

// A lost packet is sent again.
func TestRetransmit(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	h := zone(t, "host.example. A 192.0.2.1")
	up := serve(t, func(w mdns.ResponseWriter, r *mdns.Msg) {
		if n.Add(1) > 2 {
			h(w, r)
		}
	})
	s := New(Config{Servers: []netip.AddrPort{up}, Dial: dial, Timeout: 2 * time.Second})
	if got := summary(ask(t, s, question("host.example.", mdns.TypeA), false)); got[0] != "NOERROR" {
		t.Errorf("%v after %d queries", got, n.Load())
	}
}

// Wrong ids, wrong questions, queries and noise are no replies.
func TestForgeries(t *testing.T) {
	t.Parallel()
	up := serve(t, func(w mdns.ResponseWriter, r *mdns.Msg) {
		evil, _ := mdns.NewRR("host.example. A 203.0.113.66")
		bad := new(mdns.Msg).SetReply(r)
		bad.Answer = []mdns.RR{evil}
		bad.Id++
		_ = w.WriteMsg(bad)
		bad.Id = r.Id
		bad.Question = []mdns.Question{{Name: "hosx.example.", Qtype: mdns.TypeA, Qclass: mdns.ClassINET}}
		_ = w.WriteMsg(bad)
		bad.Question[0] = r.Question[0]
		bad.Question[0].Qtype = mdns.TypeAAAA
		_ = w.WriteMsg(bad)
		bad.Question = nil
		_ = w.WriteMsg(bad)
		bad.Question = r.Question
		bad.Response = false
		_ = w.WriteMsg(bad)
		_, _ = w.Write([]byte("noise"))
		_, _ = w.Write(nil)
		zone(t, "host.example. A 192.0.2.1")(w, r)
	})
	s := New(Config{Servers: []netip.AddrPort{up}, Dial: dial, Timeout: 2 * time.Second})
	for _, tcp := range []bool{false, true} {
		got := ask(t, s, question("host.example.", mdns.TypeA), tcp)
		if d := cmp.Diff([]string{"NOERROR", "host.example. A 192.0.2.1"}, summary(got)); d != "" {
			t.Errorf("tcp %v: %s", tcp, d)
		}
	}
}

// A server that folds case does not make a 0x20 client suspicious.
func TestFoldedCase(t *testing.T) {
	up := serve(t, func(w mdns.ResponseWriter, r *mdns.Msg) {
		m := new(mdns.Msg).SetReply(r)
		m.Question[0].Name = strings.ToLower(m.Question[0].Name)
		_ = w.WriteMsg(m)
	})
	s := New(Config{Servers: []netip.AddrPort{up}, Dial: dial})
	if got := ask(t, s, question("HoSt.Example.", mdns.TypeA), false); got.Question[0].Name != "HoSt.Example." {
		t.Errorf("question %v", got.Question)
	}
}
