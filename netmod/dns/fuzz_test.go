// SPDX-License-Identifier: Apache-2.0

// Fuzzing of queries against another reader of messages.

package dns

import (
	"bytes"
	"testing"

	mdns "github.com/miekg/dns"
	"golang.org/x/net/dns/dnsmessage"
)

// FuzzQuery: what another library takes for a query with one question we take too,
// and for the same question; and what we say ourselves is a message to others.
func FuzzQuery(f *testing.F) {
	for _, typ := range []uint16{mdns.TypeA, mdns.TypePTR, mdns.TypeAXFR, mdns.TypeANY} {
		for _, size := range []uint16{0, 512, 4096} {
			m := question("wiki.corp.example.", typ)
			if size > 0 {
				m.SetEdns0(size, typ == mdns.TypePTR)
			}
			b, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b, "why")
			f.Add(b[:len(b)-1], "")
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, text string) {
		q, rcode, ok := parseQuery(bytes.Clone(in))
		var p dnsmessage.Parser
		h, err := p.Start(in)
		if err != nil {
			if ok {
				t.Fatal("taken without a header")
			}
			return
		}
		if h.Response == ok {
			t.Fatalf("response %v, answered %v", h.Response, ok)
		}
		if !ok {
			return
		}
		questions, err := p.AllQuestions()
		whole := err == nil && len(questions) == 1 && h.OpCode == 0 && p.SkipAllAnswers() == nil && p.SkipAllAuthorities() == nil
		plain := !bytes.ContainsFunc(in[headerLen:], func(r rune) bool { return r >= 0xc0 })
		if whole && plain && p.SkipAllAdditionals() == nil && rcode == rcodeSuccess {
			if uint16(questions[0].Type) != q.typ || uint16(questions[0].Class) != q.class {
				t.Fatalf("read %d %d, others %v", q.typ, q.class, questions[0])
			}
			if name := questions[0].Name.String(); len(name) != max(len(q.name)-1, 1) {
				t.Fatalf("name %q, others %q", q.name, name)
			}
		}
		for _, out := range [][]byte{q.failure(rcodeServerFailure, text), q.truncated(rcodeSuccess)} {
			var m mdns.Msg
			if err := m.Unpack(out); err != nil {
				t.Fatalf("%x: %v", out, err)
			}
			if m.Id != h.ID || !m.Response || len(out) > 512 || q.edns != (m.IsEdns0() != nil) {
				t.Fatalf("answer %v (%d bytes)", &m, len(out))
			}
		}
	})
}
