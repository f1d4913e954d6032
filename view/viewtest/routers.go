// SPDX-License-Identifier: Apache-2.0

// Routers behind a peer: a path with hops, a narrow link and a host at its end.

package viewtest

import (
	"errors"
	"net/netip"
	"testing"
)

// Addresses on the path behind a peer's routers:
//
//	peer 10.78.1.1 -- 10.78.1.2 first 10.78.2.1 -- 10.78.2.2 second (and far)
//	                            MTU 1500         MTU NarrowMTU
var (
	FirstIP4 = netip.MustParseAddr("10.78.1.2")
	FirstIP6 = netip.MustParseAddr("fd78:1::2")
	FarIP4   = netip.MustParseAddr("10.78.3.1") // of the second router
	FarIP6   = netip.MustParseAddr("fd78:3::1")
	GoneIP4  = netip.MustParseAddr("10.78.4.1") // unreachable, says the second router
	GoneIP6  = netip.MustParseAddr("fd78:4::1")
)

// NarrowMTU is the MTU of the link between the routers, in bytes.
const NarrowMTU = 1300

// Routers puts two routers behind the peer, unless they are there, and returns the
// second one, which has the far addresses.
func (p *Peer) Routers(t testing.TB) *NS {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.routers) == 2 {
		return p.routers[1]
	}
	for _, name := range []string{"first", "second"} {
		n, err := newNS(name)
		if err != nil {
			t.Fatal(err)
		}
		p.routers = append(p.routers, n)
		if err := errors.Join(n.quiet(), n.Sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")); err != nil {
			t.Fatal(err)
		}
	}
	first, second := p.routers[0], p.routers[1]
	if err := errors.Join(
		p.ip("link add hop1 type veth peer name hop0 netns "+first.Path(),
			"addr add 10.78.1.1/24 dev hop1", "addr add fd78:1::1/64 dev hop1 nodad", "link set hop1 up"),
		first.ip("addr add 10.78.1.2/24 dev hop0", "addr add fd78:1::2/64 dev hop0 nodad", "link set hop0 up",
			"link add hop2 mtu 1300 type veth peer name hop1 mtu 1300 netns "+second.Path(),
			"addr add 10.78.2.1/24 dev hop2", "addr add fd78:2::1/64 dev hop2 nodad", "link set hop2 up"),
		second.ip("addr add 10.78.2.2/24 dev hop1", "addr add fd78:2::2/64 dev hop1 nodad", "link set hop1 up",
			"addr add 10.78.3.1/32 dev lo", "addr add fd78:3::1/128 dev lo nodad",
			"route add default via 10.78.2.1", "-6 route add default via fd78:2::1",
			"route add unreachable 10.78.4.0/24", "-6 route add unreachable fd78:4::/64"),
		first.ip("route add default via 10.78.1.1", "-6 route add default via fd78:1::1",
			"route add 10.78.0.0/16 via 10.78.2.2", "-6 route add fd78::/16 via fd78:2::2"),
		p.ip("route add 10.78.0.0/16 via 10.78.1.2", "-6 route add fd78::/16 via fd78:1::2"),
	); err != nil {
		t.Fatalf("routers: %v", err)
	}
	for _, a := range []netip.Addr{FarIP4, FarIP6} {
		c, err := second.ListenPacket("udp", netip.AddrPortFrom(a, PortEcho).String())
		if err != nil {
			t.Fatal(err)
		}
		p.far = append(p.far, c)
		second.done.Go(func() { // ends with the connection
			b := make([]byte, 65536)
			for {
				n, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = c.WriteTo(b[:n], from)
			}
		})
	}
	return second
}
