// SPDX-License-Identifier: Apache-2.0

// Tests of names that are read out of answers.

package view

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// TestNaming: names are read out of answers, and of those that are cut off as far as they go.
func TestNaming(t *testing.T) {
	header := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("WWW.example.org."), Class: dnsmessage.ClassINET}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{Response: true},
		Questions: []dnsmessage.Question{{Name: header.Name, Type: dnsmessage.TypeA, Class: header.Class}},
		Answers: []dnsmessage.Resource{
			{Header: header, Body: &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("host.example.org.")}},
			{Header: header, Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}},
			{Header: header, Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 2}}},
		},
	}
	reply, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var n naming
	done := make(chan struct{})
	go func() {
		defer close(done)
		for size := range len(reply) {
			n.learn(reply[:size])
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("an answer that is cut off is read for ever")
	}
	for addr, want := range map[string]string{"::ffff:192.0.2.1": "www.example.org", "192.0.2.2": ""} {
		if got := n.name(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s has the name %q, want %q", addr, got, want)
		}
	}
}
