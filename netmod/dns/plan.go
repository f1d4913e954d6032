// SPDX-License-Identifier: Apache-2.0

// Who is asked, and where the stub must answer.

package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"umrun/stacks"
)

const port = 53

// remedy ends the sentences that say why names cannot be asked.
const remedy = "names will not resolve; add a DNS line to the configuration, or pass --dns IP"

// Plan decides by the machine's resolv.conf, the DNS settings of the network,
// and override, the value of --dns ("" is "tunnel").
//
//   - "tunnel": the servers of d. If it names none, those of resolv.conf that
//     reachable accepts (WireGuard: the peers' AllowedIPs cover them). A server
//     on a loopback address is this machine's own and never asked, and neither
//     is one with a zone, which means an interface of this machine.
//   - "none": nobody is asked, and nobody is warned.
//   - an address, with or without a port: that server.
//   - https://HOST/PATH: that server by DNS over HTTPS. If HOST is a name, those of
//     "tunnel" are asked for its address, and for nothing else.
//
// The returned Config has Servers, Search and Reason; the caller adds the rest.
//
// listen are the addresses on which the stub must answer, because programs read
// them in resolv.conf: those of the file, also beyond the third, and both
// loopback addresses if it names none (Go asks ::1 too) or only ones with zones:
// musl leaves those out whose interface does not exist, and the host's interfaces
// do not in the view. They have no zones: a scoped address is to be answered
// whatever interface the program names.
//
// warnings are sentences for the start of the view. That no server is left is
// not among them: that is Config.Reason, told when the first name is asked for.
func Plan(r Resolv, d stacks.DNS, reachable func(netip.Addr) bool, override string) (c Config, listen []netip.AddrPort, warnings []string, err error) {
	listen = listenOn(r)
	switch override {
	case "", "tunnel":
		c.Search = d.Search
		c.Servers, c.Reason, warnings = tunnelServers(r, d, reachable, listen)
	case "none":
	default:
		if strings.Contains(override, "://") {
			c, warnings, err = planHTTPS(r, d, reachable, override, listen)
			break
		}
		server, err := parseOverride(override)
		if err != nil {
			return Config{}, nil, nil, err
		}
		c.Search = d.Search
		c.Servers = []netip.AddrPort{server}
		if !reachable(server.Addr()) {
			warnings = append(warnings, fmt.Sprintf("--dns %s: no route of this network leads to it", override))
		}
	}
	return c, listen, warnings, err
}

// planHTTPS is Plan for the URL of a server.
func planHTTPS(r Resolv, d stacks.DNS, reachable func(netip.Addr) bool, override string, listen []netip.AddrPort) (c Config, warnings []string, err error) {
	_, host, err := parseHTTPS(override)
	if err != nil {
		return Config{}, nil, fmt.Errorf("--dns %s: %w", override, err)
	}
	c = Config{HTTPS: override, Search: d.Search}
	switch {
	case !host.IsValid():
		if c.Servers, c.Reason, warnings = tunnelServers(r, d, reachable, listen); c.Reason != "" {
			c.Reason = fmt.Sprintf("--dns %s: nobody can be asked for the address of that name: %s", override, c.Reason)
		}
	case !reachable(host):
		warnings = append(warnings, fmt.Sprintf("--dns %s: no route of this network leads to it", override))
	}
	return c, warnings, nil
}

// tunnelServers picks the servers for --dns tunnel.
func tunnelServers(r Resolv, d stacks.DNS, reachable func(netip.Addr) bool, listen []netip.AddrPort) (servers []netip.AddrPort, reason string, warnings []string) {
	if len(d.Servers) > 0 {
		for _, s := range d.Servers {
			if s.Addr().IsLoopback() && slices.Contains(listen, s) {
				warnings = append(warnings, fmt.Sprintf("name server %s is left out: that is where programs ask", s.Addr()))
				continue
			}
			servers = append(servers, s)
		}
		if len(servers) == 0 {
			reason = "the configuration names no server but this machine's own: " + remedy
		}
		return servers, reason, warnings
	}
	var loop, far []string
	for _, a := range slices.Concat(r.Nameservers, r.Beyond) {
		switch u := a.Unmap(); {
		case u.IsLoopback() || u.IsUnspecified() || u.Zone() != "" || u.IsLinkLocalUnicast():
			loop = append(loop, a.String())
		case !reachable(u):
			far = append(far, a.String())
		default:
			servers = append(servers, netip.AddrPortFrom(u, port))
		}
	}
	if len(servers) > 0 {
		return servers, "", nil
	}
	switch {
	case r.Implied:
		reason = "/etc/resolv.conf names no server and the configuration neither: " + remedy
	case len(far) > 0:
		reason = fmt.Sprintf("the name server of /etc/resolv.conf (%s) cannot be reached through this network: %s",
			strings.Join(append(far, loop...), ", "), remedy)
	default:
		reason = fmt.Sprintf("the name server of /etc/resolv.conf (%s) is this machine's own and is not asked: %s",
			strings.Join(loop, ", "), remedy)
	}
	return nil, reason, nil
}

// listenOn returns the addresses that programs will ask.
func listenOn(r Resolv) []netip.AddrPort {
	addrs := slices.Concat(r.Nameservers, r.Beyond)
	zoned := !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Zone() == "" })
	if r.Implied || zoned {
		addrs = append(addrs, netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback())
	}
	var listen []netip.AddrPort
	for _, a := range addrs {
		if a.IsUnspecified() {
			// connect(2) to 0.0.0.0 or :: reaches the loopback address.
			if a.Is4() {
				a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
			} else {
				a = netip.IPv6Loopback()
			}
		}
		ap := netip.AddrPortFrom(a.Unmap().WithZone(""), port)
		if !slices.Contains(listen, ap) {
			listen = append(listen, ap)
		}
	}
	return listen
}

// parseOverride reads the value of --dns that names a server.
func parseOverride(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a.Unmap(), port), nil
	}
	if ap, err := netip.ParseAddrPort(s); err == nil && ap.Port() != 0 {
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
	}
	return netip.AddrPort{}, fmt.Errorf("--dns %q: neither tunnel nor none nor an IP address nor an https:// URL", s)
}
