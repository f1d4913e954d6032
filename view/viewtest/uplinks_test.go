// SPDX-License-Identifier: Apache-2.0

// Uplinks: the ways that a view can get to the peer, one for each pair of stack and
// link that makes sense. Whatever the way, the same servers are behind it.

package viewtest_test

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"umrun/view/viewtest"
)

// An uplink is a stack over a link.
type uplink struct {
	link, stack string

	// open makes what stands at the other end, for the rest of the test, and returns
	// what gives one way after the other.
	open func(t testing.TB, p *viewtest.Peer) func(t testing.TB) way

	// gaps are the clients that cannot work here, by the beginnings of their names, or
	// whole names that end in $, and why: they must fail.
	gaps map[string]string

	few []string // if any: those of quickClients that make test runs here
}

func (u uplink) String() string { return u.link + ", " + u.stack }

// gap returns why a client cannot work, "" if it has to.
func (u uplink) gap(client string) string {
	for prefix, why := range u.gaps {
		if strings.HasPrefix(client+"$", prefix) {
			return why
		}
	}
	return ""
}

// A way is for one command.
type way struct {
	w        *viewtest.World
	ip4, ip6 netip.Addr // who the peer sees
	command  func(t testing.TB, args ...string) *viewtest.Cmd
}

// Addresses of the laboratory's client that is not umrun, see Peer.Native.
var (
	nativeIP4 = netip.MustParseAddr("10.77.0.4")
	nativeIP6 = netip.MustParseAddr("fd77::4")
)

// natively is the kernel's stack without umrun.
var natively = uplink{link: "WireGuard", stack: "native", open: func(t testing.TB, p *viewtest.Peer) func(testing.TB) way {
	n := nativeNS(t, p)
	return func(testing.TB) way {
		return way{p.World(), nativeIP4, nativeIP6, func(t testing.TB, args ...string) *viewtest.Cmd {
			return n.Command(t.Context(), args...).AsUser(p.World().Home())
		}}
	}
}}

// tunnel is what most tests are about.
var tunnel = overWireGuard("netstack")

// overWireGuard gives each view a key of its own.
func overWireGuard(stack string) uplink {
	return uplink{link: "WireGuard", stack: stack, open: func(t testing.TB, p *viewtest.Peer) func(testing.TB) way {
		return func(t testing.TB) way {
			me := p.Client(t)
			return view(p, p.World().Host, me.Conf+",stack="+stack, me.IP4, me.IP6)
		}
	}}
}

// overNAT is a view whose host has the native tunnel.
func overNAT(stack string) uplink {
	return uplink{link: "nat", stack: stack, gaps: map[string]string{
		"go-addrs": "the view's addresses are others than those that the peer sees",
	}, open: func(t testing.TB, p *viewtest.Peer) func(testing.TB) way {
		n := nativeNS(t, p)
		return func(testing.TB) way { return view(p, n, "nat,stack="+stack, nativeIP4, nativeIP6) }
	}}
}

// overDevice is a view on a TAP, a port of a bridge, or on a TUN behind a router.
func overDevice(kind, stack string) uplink {
	var gaps map[string]string
	if kind == "tap" {
		gaps = map[string]string{"go-addrs": linkLocal}
	}
	return uplink{link: kind, stack: stack, gaps: gaps, open: func(t testing.TB, p *viewtest.Peer) func(testing.TB) way {
		n := p.Device(t, kind)
		ip4, ip6 := viewtest.DeviceIP4[kind], viewtest.DeviceIP6[kind]
		spec := fmt.Sprintf("%s:%s0,ip=%s/24,ip=%s/64,gw=%s,gw=%s,dns=%s,stack=%s", kind, kind, ip4, ip6, viewtest.PeerIP4, viewtest.PeerIP6, viewtest.PeerIP4, stack)
		return func(testing.TB) way { return view(p, n, spec, ip4, ip6) }
	}}
}

// linkLocal is why go-addrs prints more on Ethernet.
const linkLocal = "there is a link-local address beside those that are asked for"

// overVDE is a view on a vde_switch, into which vde_plug has plugged a TAP on a bridge
// to the peer.
func overVDE(stack string) uplink {
	return uplink{link: "vde", stack: stack, gaps: map[string]string{"go-addrs": linkLocal}, open: func(t testing.TB, p *viewtest.Peer) func(testing.TB) way {
		viewtest.Need(t, "vde_switch", "vde_plug")
		n := p.Device(t, "vde")
		dir := filepath.Join(p.World().Home(), "vde-"+stack)
		vdeSwitch(t, n, p.World(), dir)
		start(t, n.Command(longLived(t), "vde_plug", "vde://"+dir, "tap://vde0").AsUser(p.World().Home()))
		ip4, ip6 := viewtest.DeviceIP4["vde"], viewtest.DeviceIP6["vde"]
		spec := fmt.Sprintf("vde:%s,ip=%s/24,ip=%s/64,gw=%s,gw=%s,dns=%s,stack=%s", dir, ip4, ip6, viewtest.PeerIP4, viewtest.PeerIP6, viewtest.PeerIP4, stack)
		return func(testing.TB) way { return view(p, n, spec, ip4, ip6) }
	}}
}

// othersToo is why go-addrs prints more where the interfaces are not the view's alone.
const othersToo = "the namespace has other interfaces besides"

// ofHost is the network of the host, which has the native tunnel.
var ofHost = uplink{link: "host", stack: "the host's", gaps: map[string]string{"go-addrs": othersToo}, open: func(t testing.TB, p *viewtest.Peer) func(testing.TB) way {
	n := nativeNS(t, p)
	return func(testing.TB) way { return view(p, n, "host", nativeIP4, nativeIP6) }
}}

// ofNamespace is a namespace that has the native tunnel, which only root may enter.
var ofNamespace = uplink{link: "netns", stack: "the namespace's", gaps: map[string]string{
	"go-addrs": othersToo, "chromium": "Chromium has no sandbox as root, and only root may enter the namespace",
}, open: func(t testing.TB, p *viewtest.Peer) func(testing.TB) way {
	n := nativeNS(t, p)
	// Names are asked as programs of the namespace do, of whom resolv.conf names.
	if err := p.World().Host.WriteFile("/etc/resolv.conf", "nameserver 10.77.0.1\nnameserver fd77::1\nsearch corp.lab.test\n"); err != nil {
		t.Fatal(err)
	}
	return func(testing.TB) way {
		by := view(p, p.World().Host, "netns:"+n.Path(), nativeIP4, nativeIP6)
		as := by.command
		by.command = func(t testing.TB, args ...string) *viewtest.Cmd {
			c := as(t, args...)
			c.SysProcAttr.Credential = nil
			return c
		}
		return by
	}
}}

// uplinks are the columns of the matrix.
func uplinks() []uplink {
	all := []uplink{
		tunnel,
		overWireGuard("kernel"),
		overNAT("netstack"),
		overNAT("kernel"),
		overDevice("tap", "netstack"),
		overDevice("tun", "netstack"),
		few(overVDE("netstack")),
		few(overVDE("kernel")),
		few(overDevice("tap", "kernel")), // two seconds each, for duplicate addresses
		few(overDevice("tun", "kernel")),
		ofHost,
		ofNamespace,
	}
	for _, x := range gateways {
		if x.all {
			all = append(all, few(overProxy(x))) // TestIntegrationProxies does the rest
		}
	}
	return all
}

// few has make test run only what would fail first.
func few(u uplink) uplink {
	u.few = []string{"curl-v6", "curl-name", "wget-big"}
	return u
}

// nativeNS is the namespace that has the native tunnel, which is up.
func nativeNS(t testing.TB, p *viewtest.Peer) *viewtest.NS {
	t.Helper()
	n := p.Native(t)
	// The peer learns where the tunnel's other end is when that speaks.
	n.MustRun(t, words("ping -q -c1 -W5 10.77.0.1")...)
	return n
}

// view is a way by `umrun -n spec` as the ordinary user in a namespace.
func view(p *viewtest.Peer, n *viewtest.NS, spec string, ip4, ip6 netip.Addr) way {
	w := p.World()
	return way{w, ip4, ip6, func(t testing.TB, args ...string) *viewtest.Cmd {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), w.Patience)
		t.Cleanup(cancel)
		return n.Command(ctx, append([]string{viewtest.Binary(t), "-n", spec, "--"}, args...)...).AsUser(w.Home())
	}}
}
