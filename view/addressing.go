// SPDX-License-Identifier: Apache-2.0

// Addressing: what the words of iothconf in a SPEC make of an interface.

package view

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"umrun/stacks"
	"umrun/stacks/netconf"
)

// addressing is the interface of a network whose kind has the trait hasConfig, as its
// keys describe it. A kind embeds it beside what it opens, and so has all of [network]
// but open.
type addressing struct {
	name   string
	ether  bool // packets are Ethernet frames, and a gateway has neighbours
	addrs  []netip.Prefix
	routes []stacks.Route
	mac    net.HardwareAddr // nil: not said
	mtu    int              // bytes; 0: that of the link

	words    netconf.Words // what the network is asked for
	gateways []netip.Addr  // for the routes to be learned, instead of its routers
	fqdn     string
}

// addressing reads the keys of n. Errors are Problems with [ExitConfig].
func (n Network) addressing() (addressing, error) {
	a := addressing{name: n.ifName(), ether: kinds[n.Kind]&hasEther != 0, mtu: n.number("mtu")}
	a.words = netconf.Words{DHCP: n.has("dhcp"), DHCP6: n.has("dhcp6"), SLAAC: n.has("slaac"), RD: n.has("rd"), Auto: n.has("auto")}
	a.fqdn, _ = n.value("fqdn")
	switch {
	case a.fqdn != "" && !a.words.DHCP && !a.words.DHCP6 && !a.words.Auto:
		return a, badConfig("-n %s: fqdn= is told to DHCP servers: add dhcp, dhcp6 or auto", n.Spec)
	case a.mtu != 0 && a.mtu < minMTU6 && a.asksFor(false):
		return a, badConfig("-n %s: mtu=%d: IPv6 needs %d at least", n.Spec, a.mtu, minMTU6)
	}
	for _, v := range n.values("ip") {
		p := netip.MustParsePrefix(v) // was checked when parsed
		if slices.ContainsFunc(a.addrs, func(q netip.Prefix) bool { return q.Addr() == p.Addr() }) {
			return a, badConfig("-n %s: ip=%s: the address is there twice", n.Spec, v)
		}
		if a.mtu != 0 && a.mtu < minMTU6 && p.Addr().Is6() {
			return a, badConfig("-n %s: mtu=%d: IPv6 needs %d at least", n.Spec, a.mtu, minMTU6)
		}
		a.addrs = append(a.addrs, p)
	}
	for _, v := range n.values("gw") {
		if err := a.addGateway(netip.MustParseAddr(v)); err != nil { // was checked when parsed
			return a, badConfig("-n %s: gw=%s: %w", n.Spec, v, err)
		}
	}
	if v, ok := n.value("mac"); ok {
		a.mac, _ = net.ParseMAC(v) // was checked when parsed
	}
	return a, nil
}

// asksFor tells whether addresses of a family are to be learned.
func (a *addressing) asksFor(four bool) bool {
	if four {
		return a.words.DHCP || a.words.Auto
	}
	return a.words.DHCP6 || a.words.SLAAC || a.words.Auto
}

// routed tells whether there is a default route of a family from the beginning.
func (a *addressing) routed(family func(netip.Addr) bool) bool {
	return slices.ContainsFunc(a.routes, func(r stacks.Route) bool { return r.Dst.Bits() == 0 && family(r.Dst.Addr()) })
}

// addGateway adds the route by gw to all that is not on link, or keeps gw for the time
// when there is an address.
//
// As on Linux a gateway must itself be on link (net/ipv4/fib_semantics.c:fib_check_nh).
// There are two cases in which it is so without a network that says it: the link has no
// neighbours, and the own addresses are all single ones, as hosters give them out.
func (a *addressing) addGateway(gw netip.Addr) error {
	family, dst := "IPv4", netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if gw.Is6() {
		family, dst = "IPv6", netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	same := func(x netip.Addr) bool { return x.Is4() == gw.Is4() }
	if a.routed(same) || slices.ContainsFunc(a.gateways, same) {
		return fmt.Errorf("%s has a gateway already", family)
	}
	var nets []netip.Prefix
	single := true
	for _, p := range a.addrs {
		switch {
		case p.Addr() == gw:
			return fmt.Errorf("that is the own address, ip=%s", p)
		case same(p.Addr()):
			nets = append(nets, p.Masked())
			single = single && p.IsSingleIP()
		}
	}
	r := stacks.Route{Dst: dst, Gateway: gw}
	switch {
	case len(nets) > 0 && gw.Is6() && gw.IsLinkLocalUnicast():
	case slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(gw) }):
	case a.asksFor(gw.Is4()):
		a.gateways = append(a.gateways, gw)
		return nil
	case len(nets) == 0:
		return fmt.Errorf("there is no address of %s: add ip=PREFIX", family)
	case !a.ether || single:
		r.OnLink = true
	default:
		return fmt.Errorf("it is not on the network of ip= (%s): check the prefix length", strings.Join(texts(nets), ", "))
	}
	a.routes = append(a.routes, r)
	return nil
}

// link returns the interface over l.
func (a *addressing) link(l stacks.Link) stacks.LinkConfig {
	return stacks.LinkConfig{Name: a.name, Link: l, Addrs: a.addrs, Routes: a.routes, MTU: a.mtu, MAC: a.mac}
}

func (a *addressing) describe() (PlanNetwork, []string) {
	d := PlanNetwork{MTU: a.mtu, Addresses: texts(a.addrs), Routes: planRoutes(a.routes), FQDN: a.fqdn}
	if a.words.Any() {
		d.Configure = strings.Split(a.words.String(), ",")
	}
	if a.mac != nil {
		d.MAC = a.mac.String()
	}
	if len(a.addrs) == 0 && !a.asksFor(true) && !a.asksFor(false) {
		return d, []string{a.name + " has no address until the program gives it one: the keys for it are ip=PREFIX, dhcp, slaac and auto"}
	}
	return d, nil
}

func (a *addressing) dns() stacks.DNS { return stacks.DNS{} }

func (a *addressing) reaches(to netip.Addr) bool {
	to = to.Unmap()
	return !to.IsLoopback() && (slices.ContainsFunc(a.addrs, func(p netip.Prefix) bool { return p.Contains(to) }) ||
		slices.ContainsFunc(a.routes, func(r stacks.Route) bool { return r.Dst.Contains(to) }))
}

// isHost checks the value of ip=: the address of a host with the length of its network.
func isHost(v string) error {
	p, err := netip.ParsePrefix(v)
	switch {
	case err != nil:
		return fmt.Errorf("it is an address with a prefix length, as in 192.0.2.1/24")
	case p.Addr().Is4In6():
		return fmt.Errorf("write it as IPv4: %s", p.Addr().Unmap())
	case p.Addr().IsUnspecified() || p.Addr().IsLoopback() || p.Addr().IsMulticast() || p.Addr() == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("no interface can have that address")
	case p.Bits() == 0:
		return fmt.Errorf("a length of 0 makes everything a neighbour; the way to everything is gw=ADDRESS")
	case p.Addr().BitLen()-p.Bits() > 1 && p.Addr() == p.Masked().Addr(): // RFC 3021, RFC 6164: of two, both are hosts
		return fmt.Errorf("that is the network; write an address in it, as in %s/%d", p.Addr().Next(), p.Bits())
	case p.Addr().Is4() && p.Bits() < 31 && !p.Contains(p.Addr().Next()):
		return fmt.Errorf("that is the broadcast address of the network; write an address in it, as in %s/%d", p.Masked().Addr().Next(), p.Bits())
	}
	return nil
}

// isName checks the value of fqdn=.
func isName(v string) error {
	for label := range strings.SplitSeq(strings.TrimSuffix(v, "."), ".") {
		good := label != "" && len(label) <= 63 && !strings.HasPrefix(label, "-") && !strings.HasSuffix(label, "-")
		for _, c := range label {
			good = good && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-')
		}
		if !good || len(v) > 253 { // RFC 1123 §2.1
			return fmt.Errorf("it is the name of a host, as in laptop.example.org")
		}
	}
	return nil
}

// isGateway checks the value of gw=.
func isGateway(v string) error {
	a, err := netip.ParseAddr(v)
	switch {
	case err != nil:
		return fmt.Errorf("it is an IP address")
	case a.Is4In6():
		return fmt.Errorf("write it as IPv4: %s", a.Unmap())
	case a.Zone() != "":
		return fmt.Errorf("write it without %%%s: it is on this network's interface", a.Zone())
	case a.IsUnspecified() || a.IsLoopback() || a.IsMulticast():
		return fmt.Errorf("no gateway can have that address")
	}
	return nil
}

// isMAC checks the value of mac=.
func isMAC(v string) error {
	m, err := net.ParseMAC(v)
	switch {
	case err != nil || len(m) != 6:
		return fmt.Errorf("it is six bytes, as in 02:00:5e:10:00:01")
	case m[0]&1 != 0:
		return fmt.Errorf("that is the address of a group; the first byte of an interface's is even, as in 02:00:5e:10:00:01")
	case bytes.Equal(m, make(net.HardwareAddr, 6)):
		return fmt.Errorf("it is zero")
	}
	return nil
}
