// SPDX-License-Identifier: Apache-2.0

// What a wg-quick file says, and what a stack takes from it.

package wg

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"umrun/stacks"
)

// DefaultMTU is the inner MTU in bytes where the file has none: 1500 less 80 for
// the outer IPv6 and UDP headers and WireGuard's own, as wg-quick(8) takes it.
const DefaultMTU = 1420

// minMTU6 is the smallest MTU that IPv6 works with, RFC 8200 §5.
const minMTU6 = 1280

// A Config is what a wg-quick file says that matters without a kernel interface.
type Config struct {
	Name       string // of the file, for messages
	PrivateKey Secret
	Addresses  []netip.Prefix // address and prefix length, in the file's order
	DNS        []netip.Addr
	Search     []string // search domains, without leading or trailing dots
	MTU        int      // bytes of the inner packet; 0 is [DefaultMTU]
	ListenPort uint16   // of the outer UDP sockets; 0 any
	Peers      []Peer
}

// A Peer is a [Peer] section.
type Peer struct {
	PublicKey    PublicKey
	PresharedKey Secret         // zero: none
	AllowedIPs   []netip.Prefix // masked
	Endpoint     Endpoint       // zero: the peer finds us
	Keepalive    time.Duration  // PersistentKeepalive in whole seconds; 0 off
}

// An Endpoint is where a peer listens: an address, or a name that is resolved
// outside of the tunnel when the link opens. The zero value is none.
type Endpoint struct {
	Host string // name or address, IPv6 without brackets
	Port uint16
}

// IsZero reports whether there is no endpoint.
func (e Endpoint) IsZero() bool { return e.Host == "" }

// String returns host:port, with brackets round an IPv6 address.
func (e Endpoint) String() string {
	return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port)))
}

// addr returns the endpoint if it is written as an address.
func (e Endpoint) addr() (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(e.Host)
	return netip.AddrPortFrom(a.Unmap(), e.Port), err == nil
}

// A ConfigError is a mistake in a configuration, with the place to mend.
type ConfigError struct {
	File string
	Line int // from 1; 0 where the whole file is meant
	Msg  string
}

// Error returns "FILE:LINE: MSG", without the line if there is none.
func (e *ConfigError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Msg)
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg)
}

// A Warning is something in a configuration that works otherwise than its author
// may think. It has the shape of a [ConfigError] and stops nothing.
type Warning ConfigError

// String returns "FILE:LINE: MSG".
func (w Warning) String() string { return (*ConfigError)(&w).Error() }

// Interface describes the link's interface to a stack.
func (c *Config) Interface(index int, name string) stacks.Interface {
	return stacks.Interface{
		Index: index,
		Name:  name,
		Type:  stacks.LinkIP,
		Up:    true,
		MTU:   c.mtu(),
		Addrs: slices.Clone(c.Addresses),
	}
}

// Routes returns a route on link for each prefix of AllowedIPs, the longest
// first and each once: cryptokey routing picks the peer. 0.0.0.0/0 and ::/0 are
// the default routes.
func (c *Config) Routes(ifIndex int) []stacks.Route {
	var rs []stacks.Route
	seen := make(map[netip.Prefix]bool)
	for _, p := range c.Peers {
		for _, dst := range p.AllowedIPs {
			if !seen[dst] {
				seen[dst] = true
				rs = append(rs, stacks.Route{Dst: dst, IfIndex: ifIndex})
			}
		}
	}
	slices.SortStableFunc(rs, func(a, b stacks.Route) int { return b.Dst.Bits() - a.Dst.Bits() })
	return rs
}

// Resolvers returns the name servers and search domains of the file.
func (c *Config) Resolvers() stacks.DNS {
	d := stacks.DNS{Search: slices.Clone(c.Search)}
	for _, a := range c.DNS {
		d.Servers = append(d.Servers, netip.AddrPortFrom(a, 53))
	}
	return d
}

// check looks at what a Config that was not read from a file can have wrong to
// the harm of this package.
func (c *Config) check() error {
	mtu := c.mtu()
	switch {
	case c.PrivateKey.IsZero():
		return errors.New("no private key")
	case mtu < minMTU || mtu > maxMTU:
		return fmt.Errorf("MTU %d is not between %d and %d", mtu, minMTU, maxMTU)
	}
	for _, a := range c.Addresses {
		if a.Addr().Is6() && mtu < minMTU6 {
			return fmt.Errorf("MTU %d is less than the %d that IPv6 needs for %s", mtu, minMTU6, a)
		}
	}
	return nil
}

func (c *Config) mtu() int {
	if c.MTU == 0 {
		return DefaultMTU
	}
	return c.MTU
}
