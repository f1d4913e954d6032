// SPDX-License-Identifier: Apache-2.0

// Messages of DHCP: what the client says, and what it reads out of answers.

package netconf

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"

	"umrun/stacks"
)

// asked4 are the options that a server is asked for. Classless routes stand before
// routers, RFC 3442.
var asked4 = []dhcpv4.OptionCode{
	dhcpv4.OptionSubnetMask, dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer,
	dhcpv4.OptionDomainName, dhcpv4.OptionDNSDomainSearchList, dhcpv4.OptionInterfaceMTU, dhcpv4.OptionBroadcastAddress,
	dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue,
}

// maxDHCP is the longest message that the client takes, which every link carries
// (RFC 2132 §9.10).
const maxDHCP = 576

// leastMTU is the least MTU that is taken from a server: what every host must take anyway
// (RFC 1122 §3.3.3).
const leastMTU = 576

// A lease4 is what a server of DHCP has said.
type lease4 struct {
	addr      netip.Prefix
	broadcast netip.Addr
	server    netip.Addr       // its identifier
	mac       net.HardwareAddr // by which it is reached
	routes    []stacks.Route   // Dst and Gateway; OnLink
	dns       stacks.DNS
	mtu       int           // 0: not said
	life      time.Duration // 0: for ever
	t1, t2    time.Duration
}

// message builds a message of the client. Options that every message has are added.
func (d *dhcp4) message(typ dhcpv4.MessageType, opts ...dhcpv4.Option) *dhcpv4.DHCPv4 {
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: 1, ClientHWAddr: d.c.conf.MAC, Options: dhcpv4.Options{},
		ClientIPAddr: net.IPv4zero, YourIPAddr: net.IPv4zero, ServerIPAddr: net.IPv4zero, GatewayIPAddr: net.IPv4zero,
	}
	binary.BigEndian.PutUint32(m.TransactionID[:], d.xid)
	m.UpdateOption(dhcpv4.OptMessageType(typ))
	// RFC 2132 §9.14: the type of the hardware and its address, as most clients say.
	m.UpdateOption(dhcpv4.OptClientIdentifier(append([]byte{1}, d.c.conf.MAC...)))
	for _, o := range opts {
		m.UpdateOption(o)
	}
	return m
}

// wishes are the options of a message that asks for a lease.
func (d *dhcp4) wishes() []dhcpv4.Option {
	opts := []dhcpv4.Option{dhcpv4.OptParameterRequestList(asked4...), dhcpv4.OptMaxMessageSize(maxDHCP)}
	name := strings.TrimSuffix(d.c.conf.FQDN, ".")
	switch {
	case name == "":
	case strings.Contains(name, "."):
		// RFC 4702 §3.1: the server is to enter the name (S), which is in the form of
		// DNS (E). A client that says this does not say option 12 too.
		value := append([]byte{0x05, 0, 0}, wireName(name)...)
		opts = append(opts, dhcpv4.OptGeneric(dhcpv4.OptionFQDN, value))
	default:
		opts = append(opts, dhcpv4.OptHostName(name))
	}
	return opts
}

// wireName is a name as messages of DNS have it.
func wireName(name string) []byte {
	return (&rfc1035label.Labels{Labels: []string{name}}).ToBytes()
}

var errNoLease = errors.New("no lease in it")

// parseDHCP reads a message from a server to the client with mac.
func parseDHCP(b []byte, mac net.HardwareAddr) (*dhcpv4.DHCPv4, error) {
	m, err := dhcpv4.FromBytes(b)
	if err != nil {
		return nil, err
	}
	if m.OpCode != dhcpv4.OpcodeBootReply || !slices.Equal(m.ClientHWAddr, mac) {
		return nil, errors.New("for another host")
	}
	// Options may go on in fields that have no other use, RFC 2132 §9.3. Their order is
	// that of RFC 3396: file, then sname.
	if o := m.Options.Get(dhcpv4.OptionOptionOverload); len(o) == 1 {
		more := dhcpv4.Options{}
		if o[0]&1 != 0 && more.FromBytes(b[108:236]) != nil || o[0]&2 != 0 && more.FromBytes(b[44:108]) != nil {
			return nil, errors.New("its options are cut off")
		}
		for code, v := range more {
			m.Options[code] = append(m.Options[code], v...)
		}
	}
	return m, nil
}

// leaseOf reads what an offer or an acknowledgement gives. What is wrong in one option
// costs that option alone, but for the address and its time.
func leaseOf(m *dhcpv4.DHCPv4) (lease4, error) {
	var l lease4
	a, ok := host4(m.YourIPAddr)
	if !ok {
		return l, errNoLease
	}
	bits, masked := 0, false
	if mask := m.Options.Get(dhcpv4.OptionSubnetMask); len(mask) == 4 {
		var size int
		if bits, size = net.IPMask(mask).Size(); size == 32 && bits > 0 {
			masked = true
		}
	}
	if !masked {
		bits = classOf(a) // RFC 1122 §3.3.6 leaves nothing else
	}
	l.addr = netip.PrefixFrom(a, bits)
	if v := m.Options.Get(dhcpv4.OptionIPAddressLeaseTime); len(v) != 4 {
		return l, errNoLease
	} else if s := binary.BigEndian.Uint32(v); s == 0 {
		return l, errNoLease
	} else if s != infinite {
		l.life = time.Duration(s) * time.Second
	}
	l.times(m)
	if v, ok := host4(m.Options.Get(dhcpv4.OptionServerIdentifier)); ok {
		l.server = v
	}
	l.broadcast = broadcastOf(l.addr)
	if v := m.Options.Get(dhcpv4.OptionBroadcastAddress); len(v) == 4 {
		l.broadcast = netip.AddrFrom4([4]byte(v))
	}
	if v := m.Options.Get(dhcpv4.OptionInterfaceMTU); len(v) == 2 {
		if l.mtu = int(binary.BigEndian.Uint16(v)); l.mtu < leastMTU {
			l.mtu = 0
		}
	}
	l.ways(m)
	for _, v := range addrs4(m.Options.Get(dhcpv4.OptionDomainNameServer)) {
		l.dns.Servers = append(l.dns.Servers, netip.AddrPortFrom(v, 53))
	}
	l.dns.Search = searchOf(m)
	return l, nil
}

// times reads T1 and T2; what is not said, or makes no sense, is as RFC 2131 §4.4.5.
func (l *lease4) times(m *dhcpv4.DHCPv4) {
	if l.life == 0 {
		return
	}
	said := func(code dhcpv4.OptionCode, otherwise time.Duration) time.Duration {
		if v := m.Options.Get(code); len(v) == 4 {
			if d := time.Duration(binary.BigEndian.Uint32(v)) * time.Second; d > 0 && d < l.life {
				return d
			}
		}
		return otherwise
	}
	l.t1 = said(dhcpv4.OptionRenewTimeValue, l.life/2)
	l.t2 = said(dhcpv4.OptionRebindingTimeValue, l.life/8*7)
	if l.t1 >= l.t2 {
		l.t1, l.t2 = l.life/2, l.life/8*7
	}
}

// ways reads the routes: classless ones, or else the routers (RFC 3442: never both).
func (l *lease4) ways(m *dhcpv4.DHCPv4) {
	route := func(dst netip.Prefix, gw netip.Addr) {
		// One way to each destination, but for routers that stand in for each other.
		if gw == l.addr.Addr() || slices.ContainsFunc(l.routes, func(r stacks.Route) bool {
			return r.Dst == dst && (dst.Bits() > 0 || r.Gateway == gw)
		}) {
			return
		}
		l.routes = append(l.routes, stacks.Route{Dst: dst, Gateway: gw, OnLink: gw.IsValid() && !l.addr.Contains(gw)})
	}
	if v := m.Options.Get(dhcpv4.OptionClasslessStaticRoute); len(v) > 0 {
		var rs dhcpv4.Routes
		if rs.FromBytes(v) == nil {
			for _, r := range rs {
				ones, _ := r.Dest.Mask.Size()
				dst := netip.PrefixFrom(netip.AddrFrom4([4]byte(r.Dest.IP.To4())), ones).Masked()
				gw := netip.AddrFrom4([4]byte(r.Router.To4()))
				if gw.IsUnspecified() {
					gw = netip.Addr{} // on link
				} else if _, ok := host4(r.Router); !ok {
					continue
				}
				if dst.Addr().IsMulticast() || dst.Addr().IsLoopback() {
					continue
				}
				route(dst, gw)
			}
			return
		}
	}
	for _, gw := range addrs4(m.Options.Get(dhcpv4.OptionRouter)) {
		route(netip.PrefixFrom(netip.IPv4Unspecified(), 0), gw)
	}
}

// searchOf reads the search list (RFC 3397), or else the domain. Servers write several
// domains into the latter, with spaces.
func searchOf(m *dhcpv4.DHCPv4) []string {
	var names []string
	if v := m.Options.Get(dhcpv4.OptionDNSDomainSearchList); len(v) > 0 {
		if l, err := rfc1035label.FromBytes(v); err == nil {
			names = l.Labels
		}
	}
	if len(names) == 0 {
		names = strings.Fields(strings.TrimRight(string(m.Options.Get(dhcpv4.OptionDomainName)), "\x00"))
	}
	return domains(names)
}

// domains leaves out what is no domain, and dots at the end.
func domains(names []string) []string {
	var out []string
	for _, n := range names {
		if n = strings.TrimSuffix(n, "."); isDomain(n) {
			out = append(out, n)
		}
	}
	return out
}

// addrs4 reads a list of addresses of hosts.
func addrs4(b []byte) []netip.Addr {
	var out []netip.Addr
	for ; len(b) >= 4; b = b[4:] {
		if a, ok := host4(b[:4]); ok && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// host4 is an address that a host on the network can have.
func host4(b []byte) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(b)
	a = a.Unmap()
	return a, ok && a.Is4() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a.As4()[0] < 240
}

// classOf is the length of the network of a, by its class.
func classOf(a netip.Addr) int {
	switch b := a.As4()[0]; {
	case b < 128:
		return 8
	case b < 192:
		return 16
	}
	return 24
}

// broadcastOf is the last address of a network, or none if it has no room for one.
func broadcastOf(p netip.Prefix) netip.Addr {
	if p.Bits() > 30 {
		return netip.Addr{}
	}
	b := p.Addr().As4()
	n := binary.BigEndian.Uint32(b[:]) | ^uint32(0)>>p.Bits()
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}
