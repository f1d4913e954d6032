// SPDX-License-Identifier: Apache-2.0

// What an address of the view stands for on the host, and which are closed.

package nat

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

type (
	addr     = netip.Addr
	netProto = tcpip.NetworkProtocolNumber
)

// addr4 and addr6 read an address of an IP header.
func addr4(b []byte) addr { return netip.AddrFrom4([4]byte(b)) }
func addr6(b []byte) addr { return netip.AddrFrom16([16]byte(b)) }

// fromTCPIP converts an address of the private stack.
func fromTCPIP(a tcpip.Address) addr {
	got, _ := netip.AddrFromSlice(a.AsSlice())
	return got
}

func subnet(p netip.Prefix) tcpip.Subnet {
	return tcpip.AddressWithPrefix{
		Address:   tcpip.AddrFromSlice(p.Addr().AsSlice()),
		PrefixLen: p.Bits(),
	}.Subnet()
}

// fromView reports whether a packet with this source may have come from the
// view. Anything of its networks will do, but not what stands for somebody else.
func (l *Link) fromView(src addr) bool {
	return (Net4.Contains(src) || Net6.Contains(src)) && !ours(src)
}

// ours reports whether a is an address at which the NAT itself answers.
func ours(a addr) bool {
	return a == Gateway4 || a == Gateway6 || isDNS(a)
}

func isDNS(a addr) bool { return a == DNS4 || a == DNS6 }

// gateway returns the gateway's address of a's family.
func gateway(a addr) addr {
	if a.Is4() {
		return Gateway4
	}
	return Gateway6
}

var (
	broadcast4  = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	thisHost    = netip.MustParsePrefix("0.0.0.0/8") // RFC 1122 §3.2.1.3: connects to loopback on Linux
	compatible  = netip.MustParsePrefix("::/96")     // RFC 4291 §2.5.5.1, :: and ::1
	mapped      = netip.MustParsePrefix("::ffff:0:0/96")
	subnetCast4 = netip.MustParseAddr("10.0.2.255")
)

// toUnicast reports whether dst is a unicast address; the rest is dropped
// silently, this network has no groups.
func toUnicast(dst addr) bool {
	return !dst.IsMulticast() && dst != broadcast4 && dst != subnetCast4
}

// toHost translates a destination of the view into the one to use on the host.
// false means that it is closed or nobody's: the host's loopback must not be
// reached by any name when it is closed, and a scoped address has no meaning on
// the host without its zone.
func (l *Link) toHost(dst addr) (addr, bool) {
	switch {
	case dst == Gateway4 && l.opts.HostLoopback:
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), true
	case dst == Gateway6 && l.opts.HostLoopback:
		return netip.IPv6Loopback(), true
	case Net4.Contains(dst), Net6.Contains(dst):
		return addr{}, false
	case dst.IsLoopback(), dst.IsUnspecified(), thisHost.Contains(dst),
		compatible.Contains(dst), dst.Is4In6(), mapped.Contains(dst):
		return addr{}, false
	case dst.Is6() && dst.IsLinkLocalUnicast():
		return addr{}, false
	case !toUnicast(dst):
		return addr{}, false
	case !l.opts.HostLoopback && l.guard.contains(dst):
		return addr{}, false
	}
	return dst, true
}

// toView translates the source of a datagram that the host received; false
// means that the view must not see it.
func (l *Link) toView(src addr) (addr, bool) {
	src = src.Unmap().WithZone("")
	if src.IsLoopback() {
		if !l.opts.HostLoopback {
			return addr{}, false
		}
		if src == netip.IPv6Loopback() || src == netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
			return gateway(src), true
		}
		return addr{}, false
	}
	// A source within the view's own network is some other network's, with the
	// same numbers: answers to it could not come back.
	if Net4.Contains(src) || Net6.Contains(src) || !src.IsValid() || src.IsUnspecified() {
		return addr{}, false
	}
	return src, true
}

// loopback knows the prefixes of the host's loopback interfaces: whatever is
// assigned to them, 127.0.0.0/8 or not, answers only on the host.
type loopback struct {
	mu    sync.Mutex
	until time.Time      // +checklocks:mu
	nets  []netip.Prefix // +checklocks:mu
}

// loopbackFresh is how long the list is used without looking again.
const loopbackFresh = 2 * time.Second

// contains reports whether a belongs to a loopback interface. Where the list
// cannot be read, the last one counts.
func (g *loopback) contains(a addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := time.Now(); now.After(g.until) {
		if nets, err := loopbackNets(); err == nil {
			g.nets, g.until = nets, now.Add(loopbackFresh)
		}
	}
	for _, n := range g.nets {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

func loopbackNets() ([]netip.Prefix, error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var nets []netip.Prefix
	for _, i := range ifs {
		if i.Flags&net.FlagLoopback == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			ipn, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, ok := netip.AddrFromSlice(ipn.IP)
			if !ok {
				continue
			}
			ones, bits := ipn.Mask.Size()
			ip = ip.Unmap()
			if bits == 128 && ip.Is4() {
				ones -= 96
			}
			nets = append(nets, netip.PrefixFrom(ip, ones).Masked())
		}
	}
	return nets, nil
}
