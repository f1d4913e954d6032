// SPDX-License-Identifier: Apache-2.0

// DHCPv4 for the guests of a Server, RFC 2131.

package nat

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"umrun/stacks/offload"
)

const (
	dhcpServer, dhcpClient = 67, 68

	// offerTime is for how long an offered address is kept for who did not take it yet.
	offerTime = 2 * time.Minute
	// declinedTime is for how long an address is left alone that a guest found in use.
	declinedTime = 10 * time.Minute
)

// The pool: from the view's own address to the end of the network.
var (
	poolFirst = Addr4
	poolLast  = netip.MustParseAddr("10.0.2.254")
)

// A binding is an address of the pool that belongs to a guest, also when its lease has
// run out, until somebody else needs it.
type binding struct {
	mac   mac
	name  string
	until time.Time
}

// leaseTable holds the bindings. A guest keeps its address for as long as the server
// lives; it is known by its MAC.
type leaseTable struct {
	opts Options
	near *neighbours

	mu    sync.Mutex
	byMAC map[mac]addr     // +checklocks:mu
	bound map[addr]binding // +checklocks:mu
	bad   map[addr]time.Time
}

func (t *leaseTable) init(o Options, near *neighbours) {
	t.opts, t.near = o, near
	t.byMAC, t.bound, t.bad = make(map[mac]addr), make(map[addr]binding), make(map[addr]time.Time)
}

func inPool(a addr) bool { return a.Is4() && !a.Less(poolFirst) && !poolLast.Less(a) }

// freeLocked reports whether m may have a, which is in the pool.
//
// +checklocks:t.mu
func (t *leaseTable) freeLocked(a addr, m mac, now time.Time) bool {
	if t.bad[a].After(now) || t.near.other(a, m, t.opts.Lease) {
		return false
	}
	b, taken := t.bound[a]
	return !taken || b.mac == m
}

// offer picks an address for m: its own, the one it asks for, the first that nobody
// had, or the one whose lease ran out first. The zero Addr means that there is none.
func (t *leaseTable) offer(m mac, want addr) addr {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	pick := func() addr {
		if a, ok := t.byMAC[m]; ok && t.freeLocked(a, m, now) {
			return a
		}
		if inPool(want) && t.freeLocked(want, m, now) {
			return want
		}
		var old addr
		for a := poolFirst; inPool(a); a = a.Next() {
			if t.freeLocked(a, m, now) {
				return a
			}
			if b := t.bound[a]; !t.bad[a].After(now) && b.until.Before(now) && (!old.IsValid() || b.until.Before(t.bound[old].until)) &&
				!t.near.other(a, b.mac, t.opts.Lease) {
				old = a
			}
		}
		return old
	}
	a := pick()
	if a.IsValid() {
		t.bindLocked(a, m, t.bound[a].name, now.Add(offerTime))
	}
	return a
}

// +checklocks:t.mu
func (t *leaseTable) bindLocked(a addr, m mac, name string, until time.Time) {
	if b, ok := t.bound[a]; ok && b.mac != m {
		delete(t.byMAC, b.mac)
	}
	if old, ok := t.byMAC[m]; ok && old != a {
		delete(t.bound, old)
	}
	if b := t.bound[a]; b.mac == m && b.until.After(until) {
		until = b.until
	}
	t.byMAC[m], t.bound[a] = a, binding{m, name, until}
}

// lease gives a to m, or refuses.
func (t *leaseTable) lease(a addr, m mac, name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if !inPool(a) || !t.freeLocked(a, m, now) {
		return false
	}
	t.bindLocked(a, m, name, now.Add(t.opts.Lease))
	return true
}

// release ends the lease of a. The binding stays.
func (t *leaseTable) release(a addr, m mac) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if b := t.bound[a]; b.mac == m {
		b.until = time.Now()
		t.bound[a] = b
	}
}

// decline notes that somebody else has a.
func (t *leaseTable) decline(a addr, m mac) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if b, ok := t.bound[a]; ok && b.mac == m {
		delete(t.bound, a)
		delete(t.byMAC, m)
		t.bad[a] = time.Now().Add(declinedTime)
	}
}

func (t *leaseTable) list() []Lease {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Lease
	for a, b := range t.bound {
		if b.until.After(time.Now()) {
			out = append(out, Lease{MAC: slices.Clone(b.mac[:]), Addr: a, Name: b.name, Until: b.until})
		}
	}
	slices.SortFunc(out, func(a, b Lease) int { return a.Addr.Compare(b.Addr) })
	return out
}

// dhcp handles a packet to the DHCP server; false means that it is none.
func (s *Server) dhcp(p []byte) bool {
	ip := header.IPv4(p)
	hlen, total := int(ip.HeaderLength()), int(ip.TotalLength())
	if ip.Protocol() != protoUDP || ip.More() || ip.FragmentOffset() != 0 || hlen < header.IPv4MinimumSize || total > len(p) || total < hlen+udpHdr {
		return false
	}
	seg := header.UDP(p[hlen:total])
	dst := addr4(p[16:20])
	if seg.DestinationPort() != dhcpServer || dst != broadcast4 && dst != subnetCast4 && dst != Gateway4 {
		return false
	}
	if n := int(seg.Length()); n < udpHdr || n > len(seg) {
		s.nat.stats.malformed.Add(1)
		return true
	}
	q, err := dhcpv4.FromBytes(seg[udpHdr:seg.Length()])
	if err != nil || q.OpCode != dhcpv4.OpcodeBootRequest || len(q.ClientHWAddr) != len(ourMAC) ||
		!q.GatewayIPAddr.IsUnspecified() { // there are no relays here
		s.nat.stats.malformed.Add(1)
		return true
	}
	r, err := s.answerDHCP(q)
	if err != nil {
		s.nat.log.Debug("DHCP", "err", err)
		return true
	}
	if r != nil {
		s.sendDHCP(q, r)
	}
	return true
}

// answerDHCP makes the answer to q, nil if there is none; RFC 2131 §4.3.
func (s *Server) answerDHCP(q *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, error) {
	m := mac(q.ClientHWAddr)
	want, _ := netip.AddrFromSlice(q.RequestedIPAddress().To4())
	have, _ := netip.AddrFromSlice(q.ClientIPAddr.To4())
	us := net.IP(Gateway4.AsSlice())
	id := q.ServerIdentifier()
	if id != nil && !id.IsUnspecified() && !id.Equal(us) {
		return nil, nil // it means another server
	}
	switch q.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		a := s.leases.offer(m, want)
		if !a.IsValid() {
			s.nat.warn("no address is left for another guest", "pool", poolFirst.String()+"-"+poolLast.String())
			return nil, nil
		}
		return s.replyDHCP(q, dhcpv4.MessageTypeOffer, a)
	case dhcpv4.MessageTypeRequest:
		a := want
		if !a.IsValid() || a.IsUnspecified() {
			a = have // RENEWING, REBINDING
		}
		if s.leases.lease(a, m, q.HostName()) {
			return s.replyDHCP(q, dhcpv4.MessageTypeAck, a)
		}
		return dhcpv4.NewReplyFromRequest(q, dhcpv4.WithMessageType(dhcpv4.MessageTypeNak),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(us)), dhcpv4.WithClientIP(net.IPv4zero))
	case dhcpv4.MessageTypeInform:
		return s.replyDHCP(q, dhcpv4.MessageTypeAck, addr{})
	case dhcpv4.MessageTypeRelease:
		s.leases.release(have, m)
	case dhcpv4.MessageTypeDecline:
		s.leases.decline(want, m)
	}
	return nil, nil
}

// replyDHCP makes an OFFER or ACK with all that a guest wants to know; without an
// address it answers INFORM.
func (s *Server) replyDHCP(q *dhcpv4.DHCPv4, t dhcpv4.MessageType, a addr) (*dhcpv4.DHCPv4, error) {
	us := net.IP(Gateway4.AsSlice())
	var mtu [2]byte
	binary.BigEndian.PutUint16(mtu[:], uint16(s.nat.opts.MTU))
	c := s.nat.Config()
	with := []dhcpv4.Modifier{
		dhcpv4.WithMessageType(t),
		dhcpv4.WithServerIP(us),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(us)),
		dhcpv4.WithNetmask(net.CIDRMask(Net4.Bits(), 32)),
		dhcpv4.WithRouter(us),
		dhcpv4.WithOption(dhcpv4.OptBroadcastAddress(subnetCast4.AsSlice())),
		dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, mtu[:]),
	}
	if a.IsValid() {
		life := s.leases.opts.Lease
		with = append(with, dhcpv4.WithYourIP(a.AsSlice()),
			dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(life)),
			dhcpv4.WithOption(dhcpv4.OptRenewTimeValue(life/2)),
			dhcpv4.WithOption(dhcpv4.OptRebindingTimeValue(life*7/8)))
	}
	if len(c.DNS.Servers) > 0 {
		with = append(with, dhcpv4.WithDNS(DNS4.AsSlice()))
	}
	if names := c.DNS.Search; len(names) > 0 {
		with = append(with, dhcpv4.WithOption(dhcpv4.OptDomainName(names[0])))
		if l, err := rfc1035label.FromBytes(labels(names)); err == nil {
			with = append(with, dhcpv4.WithOption(dhcpv4.OptDomainSearch(l)))
		}
	}
	return dhcpv4.NewReplyFromRequest(q, with...)
}

// sendDHCP sends r, the answer to q, where RFC 2131 §4.1 says.
func (s *Server) sendDHCP(q, r *dhcpv4.DHCPv4) {
	to, hw := broadcast4, broadcastMAC
	have, _ := netip.AddrFromSlice(q.ClientIPAddr.To4())
	switch {
	case r.MessageType() == dhcpv4.MessageTypeNak:
	case !have.IsUnspecified():
		to, hw = have, mac(q.ClientHWAddr)
	case !q.IsBroadcast():
		a, _ := netip.AddrFromSlice(r.YourIPAddr.To4())
		to, hw = a, mac(q.ClientHWAddr)
	}
	b := r.ToBytes()
	raw, seg := newRaw(Gateway4, to, protoUDP, udpHdr+len(b))
	if raw == nil {
		return
	}
	putUDP(seg, dhcpServer, dhcpClient, len(b))
	copy(seg[udpHdr:], b)
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, tcpip.AddrFrom4(Gateway4.As4()), tcpip.AddrFrom4(to.As4()), uint16(len(seg)))
	header.UDP(seg).SetChecksum(^checksum.Checksum(seg, sum))
	s.reply(hw, unix.ETH_P_IP, raw[offload.HdrLen:])
}
