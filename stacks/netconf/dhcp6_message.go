// SPDX-License-Identifier: Apache-2.0

// Messages of DHCPv6: what the client says, and what it reads out of answers.

package netconf

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/insomniacslk/dhcp/rfc1035label"
)

// A lease6 is what a server of DHCPv6 has given.
type lease6 struct {
	addr             netip.Addr
	server           dhcpv6.DUID
	from             netip.Addr // of the server, or of a relay
	got              time.Time
	t1, t2           time.Time // zero: never
	preferred, until time.Time // zero: for ever
	info             info6
}

// info6 is what a server tells everybody.
type info6 struct {
	servers []netip.Addr
	search  []string
}

// message builds the message of the exchange.
func (d *dhcp6) message(now time.Time) *dhcpv6.Message {
	m := &dhcpv6.Message{MessageType: d.typ}
	m.TransactionID = dhcpv6.TransactionID{byte(d.xid >> 16), byte(d.xid >> 8), byte(d.xid)}
	m.AddOption(dhcpv6.OptClientID(d.duid))
	elapsed := min(now.Sub(d.began)/(10*time.Millisecond), 0xffff) // hundredths, RFC 8415 §21.9
	m.AddOption(dhcpv6.OptElapsedTime(elapsed * 10 * time.Millisecond))
	asks := []dhcpv6.OptionCode{dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionDomainSearchList}
	ia := &dhcpv6.OptIANA{IaId: d.iaid}
	with := func(a netip.Addr) {
		ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: a.AsSlice()})
	}
	switch d.typ {
	case dhcpv6.MessageTypeSolicit:
		m.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit})
		m.AddOption(ia)
		asks = append(asks, dhcpv6.OptionSolMaxRT)
	case dhcpv6.MessageTypeRequest:
		m.AddOption(dhcpv6.OptServerID(d.best.lease.server))
		with(d.best.lease.addr)
		m.AddOption(ia)
		asks = append(asks, dhcpv6.OptionSolMaxRT)
	case dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeDecline, dhcpv6.MessageTypeRelease:
		m.AddOption(dhcpv6.OptServerID(d.lease.server))
		fallthrough
	case dhcpv6.MessageTypeRebind:
		with(d.lease.addr)
		m.AddOption(ia)
		asks = append(asks, dhcpv6.OptionSolMaxRT)
	case dhcpv6.MessageTypeInformationRequest:
		asks = append(asks, dhcpv6.OptionInformationRefreshTime, dhcpv6.OptionInfMaxRT)
	}
	if d.typ == dhcpv6.MessageTypeDecline || d.typ == dhcpv6.MessageTypeRelease {
		return m
	}
	m.AddOption(dhcpv6.OptRequestedOption(asks...))
	if name := strings.TrimSuffix(d.c.conf.FQDN, "."); name != "" && d.typ != dhcpv6.MessageTypeInformationRequest {
		// RFC 4704 §4.1: the server is to enter the name (S).
		m.AddOption(&dhcpv6.OptFQDN{Flags: 1, DomainName: &rfc1035label.Labels{Labels: []string{name}}})
	}
	return m
}

// parse reads an answer to the exchange, RFC 8415 §16.3 and §16.10.
func (d *dhcp6) parse(b []byte) (*dhcpv6.Message, bool) {
	if len(b) < 4 || b[0] != byte(dhcpv6.MessageTypeAdvertise) && b[0] != byte(dhcpv6.MessageTypeReply) ||
		binary.BigEndian.Uint32(b)&0xffffff != d.xid&0xffffff {
		return nil, false
	}
	m, err := dhcpv6.MessageFromBytes(b)
	if err != nil {
		return nil, false
	}
	client, server := m.Options.ClientID(), m.Options.ServerID()
	if client == nil || server == nil || !bytes.Equal(client.ToBytes(), d.duid.ToBytes()) {
		return nil, false
	}
	if d.phase == renewing6 && !bytes.Equal(server.ToBytes(), d.lease.server.ToBytes()) {
		return nil, false
	}
	return m, true
}

// limits takes what a server says of the longest wait between two tries, RFC 8415
// §21.24 and §21.25.
func (d *dhcp6) limits(m *dhcpv6.Message) {
	read := func(code dhcpv6.OptionCode, to *time.Duration) {
		if o := m.GetOneOption(code); o != nil {
			if v := o.ToBytes(); len(v) == 4 {
				if s := binary.BigEndian.Uint32(v); s >= 60 && s <= 86400 {
					*to = time.Duration(s) * time.Second
				}
			}
		}
	}
	read(dhcpv6.OptionSolMaxRT, &d.solMax)
	read(dhcpv6.OptionInfMaxRT, &d.infMax)
}

func rapid(m *dhcpv6.Message) bool { return m.GetOneOption(dhcpv6.OptionRapidCommit) != nil }

// ianaOf is the part of m that is about the client's address.
func ianaOf(m *dhcpv6.Message, iaid [4]byte) *dhcpv6.OptIANA {
	for _, ia := range m.Options.IANA() {
		if ia.IaId == iaid {
			return ia
		}
	}
	return nil
}

// status is what went wrong, if anything: of the message, or of the address.
func status(m *dhcpv6.Message, iaid [4]byte) iana.StatusCode {
	if s := m.Options.Status(); s != nil && s.StatusCode != iana.StatusSuccess {
		return s.StatusCode
	}
	if ia := ianaOf(m, iaid); ia != nil {
		if s := ia.Options.Status(); s != nil {
			return s.StatusCode
		}
	}
	return iana.StatusSuccess
}

// leaseOf6 reads what an Advertise or a Reply gives; why is not empty if it is nothing.
func leaseOf6(m *dhcpv6.Message, iaid [4]byte, now time.Time) (l lease6, why string) {
	if s := status(m, iaid); s != iana.StatusSuccess {
		return l, s.String()
	}
	ia := ianaOf(m, iaid)
	if ia == nil {
		return l, "there is no address in the answer"
	}
	if ia.T1 > ia.T2 && ia.T2 > 0 {
		return l, "T1 is later than T2" // RFC 8415 §21.4: to be thrown away
	}
	var preferred, valid time.Duration
	for _, o := range ia.Options.Addresses() {
		a, ok := netip.AddrFromSlice(o.IPv6Addr)
		if s := o.Options.Status(); !ok || !host6(a) || o.ValidLifetime == 0 || o.PreferredLifetime > o.ValidLifetime ||
			s != nil && s.StatusCode != iana.StatusSuccess {
			continue
		}
		l.addr, preferred, valid = a, o.PreferredLifetime, o.ValidLifetime
		break
	}
	if !l.addr.IsValid() {
		return l, "there is no address in the answer"
	}
	l.server, l.got, l.info = m.Options.ServerID(), now, infoOf(m)
	at := func(d time.Duration) time.Time {
		if d >= infinite*time.Second {
			return time.Time{}
		}
		return now.Add(d)
	}
	l.preferred, l.until = at(preferred), at(valid)
	t1, t2 := ia.T1, ia.T2
	base := preferred
	if base == 0 {
		base = valid
	}
	if t1 == 0 { // left to the client, RFC 8415 §14.2
		t1 = base / 2
	}
	if t2 == 0 || t2 < t1 {
		t2 = max(base/5*4, t1)
	}
	if base >= infinite*time.Second && ia.T1 == 0 {
		t1, t2 = infinite*time.Second, infinite*time.Second
	}
	if valid < infinite*time.Second {
		t1, t2 = min(t1, valid/2), min(t2, valid/8*7)
	}
	l.t1, l.t2 = at(max(t1, minRenewal)), at(max(t2, minRenewal))
	return l, ""
}

func infoOf(m *dhcpv6.Message) info6 {
	var i info6
	for _, ip := range m.Options.DNS() {
		if a, ok := netip.AddrFromSlice(ip); ok && nameServer6(a) && !slices.Contains(i.servers, a) {
			i.servers = append(i.servers, a)
		}
	}
	if l := m.Options.DomainSearchList(); l != nil {
		i.search = domains(l.Labels)
	}
	return i
}

// host6 is an address that a host can be given.
func host6(a netip.Addr) bool {
	return a.Is6() && !a.Is4In6() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast()
}

// nameServer6 is an address that a name server can have.
func nameServer6(a netip.Addr) bool { return host6(a) || a.IsLinkLocalUnicast() && a.Is6() }
