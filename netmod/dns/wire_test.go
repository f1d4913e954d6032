// SPDX-License-Identifier: Apache-2.0

// Sizes of answers, messages that are malformed, and fuzzing.

package dns

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

func TestSizes(t *testing.T) {
	var records []string
	for i := range 200 {
		records = append(records, "big.example. A 192.0.2."+string(rune('0'+i%10))+" ; "+string(rune('a'+i%26)))
	}
	records = append(records, "big.corp.example. TXT "+strings.Repeat(strings.Repeat("x", 200)+" ", 4))
	h := zone(t, records...)
	up := serve(t, func(w mdns.ResponseWriter, r *mdns.Msg) {
		// An honest server: truncates by what the query allows.
		h(truncating{w, r}, r)
	})
	rude := serve(t, h) // sends 3 KB whatever the client said
	ask1 := func(server netip.AddrPort, name string, typ uint16, edns uint16, tcp bool) *mdns.Msg {
		s := New(Config{Servers: []netip.AddrPort{server}, Dial: dial, Search: []string{"corp.example"}})
		m := question(name, typ)
		if edns > 0 {
			m.SetEdns0(edns, true)
		}
		return ask(t, s, m, tcp)
	}
	tests := []struct {
		name   string
		server netip.AddrPort
		q      string
		typ    uint16
		edns   uint16
		tcp    bool
		tc     bool
		n      int
	}{
		{"TC is passed on", up, "big.example.", mdns.TypeA, 0, false, true, -1},
		{"whole by TCP", up, "big.example.", mdns.TypeA, 0, true, false, 200},
		{"large EDNS", up, "big.example.", mdns.TypeA, 4096, false, false, 200},
		{"rude server, no EDNS", rude, "big.example.", mdns.TypeA, 0, false, true, 0},
		{"rude server, EDNS", rude, "big.example.", mdns.TypeA, 1232, false, true, 0},
		{"search, TC", up, "big.", mdns.TypeTXT, 0, false, true, 0},
		{"search, whole by TCP", up, "big.", mdns.TypeTXT, 0, true, false, 2},
		{"search, fits", up, "big.", mdns.TypeTXT, 1232, false, false, 2},
		{"search, only the CNAME does not fit", up, "big.", mdns.TypeTXT, 860, false, true, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ask1(tt.server, tt.q, tt.typ, tt.edns, tt.tcp)
			if got.Truncated != tt.tc || tt.n >= 0 && len(got.Answer) != tt.n || got.Rcode != 0 {
				t.Errorf("TC %v, %d answers, rcode %d", got.Truncated, len(got.Answer), got.Rcode)
			}
			if (got.IsEdns0() != nil) != (tt.edns > 0) {
				t.Errorf("OPT: %v", got.IsEdns0())
			}
		})
	}
}

// truncating fits messages to the query's size over UDP.
type truncating struct {
	mdns.ResponseWriter
	q *mdns.Msg
}

func (w truncating) WriteMsg(m *mdns.Msg) error {
	if w.RemoteAddr().Network() == "udp" {
		size := mdns.MinMsgSize
		if o := w.q.IsEdns0(); o != nil {
			size = int(o.UDPSize())
		}
		m.Truncate(size)
		m.Compress = true
	}
	return w.ResponseWriter.WriteMsg(m)
}

func TestNoServers(t *testing.T) {
	var logged strings.Builder
	s := New(Config{Reason: "nobody to ask: pass --dns IP", Log: slog.New(slog.NewTextHandler(&logged, nil))})
	m := question("host.example.", mdns.TypeA)
	m.SetEdns0(1232, false)
	for range 3 {
		got := ask(t, s, m, false)
		if got.Rcode != mdns.RcodeServerFailure {
			t.Errorf("rcode %d", got.Rcode)
		}
		ede, ok := got.IsEdns0().Option[0].(*mdns.EDNS0_EDE)
		if !ok || ede.ExtraText != "nobody to ask: pass --dns IP" {
			t.Errorf("extended error %v", got.IsEdns0())
		}
	}
	if n := strings.Count(logged.String(), "pass --dns IP"); n != 1 {
		t.Errorf("%d warnings: %s", n, logged.String())
	}
	if got := ask(t, s, question("localhost.", mdns.TypeA), false); len(got.Answer) != 1 {
		t.Errorf("localhost: %v", got)
	}
}

func TestMalformed(t *testing.T) {
	s := New(Config{})
	good, _ := question("host.example.", mdns.TypeA).Pack()
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	tests := []struct {
		name string
		in   []byte
		want int // rcode, -1: no answer
	}{
		{"empty", nil, -1},
		{"short header", good[:11], -1},
		{"a response", edit(func(b []byte) []byte { b[2] |= 0x80; return b }), -1},
		{"opcode NOTIFY", edit(func(b []byte) []byte { b[2] |= 4 << 3; return b }), mdns.RcodeNotImplemented},
		{"header only", good[:12], mdns.RcodeFormatError},
		{"no question", edit(func(b []byte) []byte { b[5] = 0; return b }), mdns.RcodeFormatError},
		{"two questions", edit(func(b []byte) []byte { b[5] = 2; return b }), mdns.RcodeFormatError},
		{"cut in the name", good[:16], mdns.RcodeFormatError},
		{"cut in the type", good[:len(good)-3], mdns.RcodeFormatError},
		{"pointer in the question", edit(func(b []byte) []byte { b[12] = 0xc0; b[13] = 12; return b }), mdns.RcodeFormatError},
		{"label type 01", edit(func(b []byte) []byte { b[12] = 0x41; return b }), mdns.RcodeFormatError},
		{"name of 256 bytes", append(append(bytes.Clone(good[:12]), bytes.Repeat([]byte{1, 'a'}, 128)...), 0, 0, 1, 0, 1), mdns.RcodeFormatError},
		{"missing OPT", edit(func(b []byte) []byte { b[11] = 1; return b }), mdns.RcodeFormatError},
		{"two OPT", edit(func(b []byte) []byte {
			b[11] = 2
			opt := []byte{0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0}
			return append(append(b, opt...), opt...)
		}), mdns.RcodeFormatError},
		{"rdata beyond the end", edit(func(b []byte) []byte {
			b[11] = 1
			return append(b, 0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 9)
		}), mdns.RcodeFormatError},
		{"AXFR", edit(func(b []byte) []byte { b[len(b)-3] = 252; return b }), mdns.RcodeNotImplemented},
		{"no servers", good, mdns.RcodeServerFailure},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := s.Answer(t.Context(), tt.in, false)
			if tt.want == -1 {
				if got != nil {
					t.Errorf("answered %x", got)
				}
				return
			}
			var m mdns.Msg
			if err := m.Unpack(got); err != nil {
				t.Fatalf("%x: %v", got, err)
			}
			if m.Rcode != tt.want || !m.Response || !bytes.Equal(got[:2], good[:2]) {
				t.Errorf("got %v", &m)
			}
		})
	}
}

func FuzzAnswer(f *testing.F) {
	good, _ := question("wiki.", mdns.TypeA).SetEdns0(1232, true).Pack()
	f.Add(good, good)
	f.Fuzz(func(t *testing.T, in, reply []byte) {
		s := New(Config{
			Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")},
			Search:  []string{"corp.example"},
			Timeout: 20 * time.Millisecond,
			Dial: func(context.Context, string, netip.AddrPort) (net.Conn, error) {
				return &echo{reply: reply}, nil
			},
		})
		got := s.Answer(t.Context(), in, false)
		if got == nil {
			return
		}
		if len(got) < headerLen || got[2]&0x80 == 0 || !bytes.Equal(got[:2], in[:2]) {
			t.Errorf("%x answered by %x", in, got)
		}
	})
}

// echo answers every query by its own question and whatever reply holds.
type echo struct {
	net.Conn
	reply, pending []byte
}

func (e *echo) Write(p []byte) (int, error) {
	q, _, _ := parseQuery(p)
	e.pending = append(bytes.Clone(p[:q.end]), e.reply...)
	e.pending[2] |= 0x80
	if len(e.reply) > 8 {
		copy(e.pending[3:12], e.reply[:9])
		e.pending[4], e.pending[5] = 0, 1
	}
	return len(p), nil
}

func (e *echo) Read(p []byte) (int, error) {
	if e.pending == nil {
		return 0, net.ErrClosed
	}
	n := copy(p, e.pending)
	e.pending = nil
	return n, nil
}
func (e *echo) Close() error                { return nil }
func (e *echo) SetDeadline(time.Time) error { return nil }
func (e *echo) RemoteAddr() net.Addr        { return &net.UDPAddr{} }
