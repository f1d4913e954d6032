// SPDX-License-Identifier: Apache-2.0

// The name server: one name, UDP only.

package demo

import (
	"net"

	"golang.org/x/net/dns/dnsmessage"
)

// serveNames answers queries until c is closed.
func serveNames(c net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if reply, err := answer(buf[:n]); err == nil {
			_, _ = c.WriteTo(reply, from) // who gets none asks again
		}
	}
}

// answer knows [PageName]. Every other name does not exist.
func answer(query []byte) ([]byte, error) {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	m := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: h.ID, Response: true, Authoritative: true,
			RecursionDesired: h.RecursionDesired, RecursionAvailable: true,
		},
		Questions: []dnsmessage.Question{q},
	}
	rh := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}
	switch {
	case q.Name.String() != PageName+".":
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{Header: rh, Body: &dnsmessage.AResource{A: Peer4.As4()}}}
	case q.Type == dnsmessage.TypeAAAA:
		m.Answers = []dnsmessage.Resource{{Header: rh, Body: &dnsmessage.AAAAResource{AAAA: Peer6.As16()}}}
	}
	return m.Pack()
}
