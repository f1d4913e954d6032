// SPDX-License-Identifier: Apache-2.0

// The same changes asked of the kernel and of us, one after the other, with a look
// at everything after each.

package rtnetlink

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/netmod/nlmsg/nstest"
	"umrun/stacks"
)

// elsewhere moves the test to a network namespace of its own, in which there are lo
// and tun0, both down.
func elsewhere(t *testing.T) {
	t.Helper()
	nstest.Need(t)
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip(8) is not installed")
	}
	runtime.LockOSThread() // for good: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skip("no network namespace can be made here: " + err.Error())
	}
	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no TUN device can be made here: " + err.Error())
	}
	t.Cleanup(func() { tun.Close() })
	req, err := unix.NewIfreq("tun0")
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(int(tun.Fd()), unix.TUNSETIFF, req); err != nil {
		t.Skip("no TUN device can be made here: " + err.Error())
	}
	for file, value := range map[string]string{"tun0/addr_gen_mode": "1", "default/addr_gen_mode": "1", "tun0/accept_dad": "0", "all/accept_dad": "0", "tun0/router_solicitations": "0"} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+file, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// Requests of ip(8), in short.

const (
	add      = unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_EXCL
	replace  = unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	modify   = unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_REPLACE
	appended = unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_APPEND
	prepend  = unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_CREATE
	plain    = unix.NLM_F_REQUEST | unix.NLM_F_ACK
)

func addrReq(typ, flags uint16, index int, prefix string) []byte {
	p := netip.MustParsePrefix(prefix)
	fixed := append([]byte{byte(familyOf(p.Addr())), byte(p.Bits()), 0, scopeOf(p.Addr())}, u32(uint32(index))...)
	return message(typ, flags, 1, fixed, attribute(unix.IFA_LOCAL, p.Addr().AsSlice()), attribute(unix.IFA_ADDRESS, p.Addr().AsSlice()))
}

// An extra is what else is said of an address.
type extra struct {
	peer, label, brd string
	scope            uint8
	flags            uint32
	metric           uint32
	proto            uint8
	preferred, valid uint32 // seconds; both 0: not said
	lifetime         bool   // said all the same
}

func addrWith(typ, flags uint16, index int, prefix string, x extra) []byte {
	p := netip.MustParsePrefix(prefix)
	family := familyOf(p.Addr())
	addr := p.Addr()
	if x.peer != "" {
		addr = netip.MustParseAddr(x.peer)
	}
	parts := [][]byte{{byte(family), byte(p.Bits()), byte(x.flags), x.scope}, u32(uint32(index)),
		attribute(unix.IFA_LOCAL, p.Addr().AsSlice()), attribute(unix.IFA_ADDRESS, addr.AsSlice())}
	if x.label != "" {
		parts = append(parts, attribute(unix.IFA_LABEL, append([]byte(x.label), 0)))
	}
	if x.brd != "" {
		parts = append(parts, attribute(unix.IFA_BROADCAST, netip.MustParseAddr(x.brd).AsSlice()))
	}
	if x.flags != 0 {
		parts = append(parts, attribute(unix.IFA_FLAGS, u32(x.flags)))
	}
	if x.metric != 0 {
		parts = append(parts, attribute(unix.IFA_RT_PRIORITY, u32(x.metric)))
	}
	if x.proto != 0 {
		parts = append(parts, attribute(ifaProto, []byte{x.proto}))
	}
	if x.lifetime || x.valid != 0 {
		parts = append(parts, attribute(unix.IFA_CACHEINFO, slices.Concat(u32(x.preferred), u32(x.valid), u32(0), u32(0))))
	}
	return message(typ, flags, 1, parts...)
}

// A hop is how a route goes on.
type hop struct {
	via, src    string
	oif         int
	metric      uint32
	table, kind uint8 // main and unicast if 0
	mtu         uint32
	flags       uint32
	scope       uint8 // as ip(8) has it if 0
}

func routeReq(typ, flags uint16, dst string, h hop) []byte {
	p := netip.MustParsePrefix(dst)
	if h.table == 0 {
		h.table = unix.RT_TABLE_MAIN
	}
	if h.kind == 0 {
		h.kind = unix.RTN_UNICAST
	}
	scope := uint8(unix.RT_SCOPE_UNIVERSE)
	proto := uint8(unix.RTPROT_BOOT)
	switch {
	case typ == unix.RTM_DELROUTE:
		scope, proto, h.kind = unix.RT_SCOPE_NOWHERE, 0, 0
	case h.via == "" && p.Addr().Is4():
		scope = unix.RT_SCOPE_LINK
	}
	if h.kind != unix.RTN_UNICAST && h.kind != 0 {
		scope = unix.RT_SCOPE_UNIVERSE
	}
	if h.scope != 0 {
		scope = h.scope
	}
	parts := [][]byte{{byte(familyOf(p.Addr())), byte(p.Bits()), 0, 0, h.table, proto, scope, h.kind}, u32(h.flags)}
	if p.Bits() > 0 {
		parts = append(parts, attribute(unix.RTA_DST, p.Addr().AsSlice()))
	}
	for typ, a := range map[uint16]string{unix.RTA_GATEWAY: h.via, unix.RTA_PREFSRC: h.src} {
		if a != "" {
			parts = append(parts, attribute(typ, netip.MustParseAddr(a).AsSlice()))
		}
	}
	if h.oif != 0 {
		parts = append(parts, attribute(unix.RTA_OIF, u32(uint32(h.oif))))
	}
	if h.mtu != 0 {
		parts = append(parts, attribute(unix.RTA_METRICS, attribute(unix.RTAX_MTU, u32(h.mtu))))
	}
	if h.metric != 0 {
		parts = append(parts, attribute(unix.RTA_PRIORITY, u32(h.metric)))
	}
	return message(typ, flags, 1, parts...)
}

func linkReq(index int, flags, change uint32, attrs ...[]byte) []byte {
	parts := [][]byte{{unix.AF_UNSPEC, 0, 0, 0}, u32(uint32(index)), u32(flags), u32(change)}
	return message(unix.RTM_NEWLINK, plain, 1, append(parts, attrs...)...)
}

func up(index int) []byte   { return linkReq(index, unix.IFF_UP, unix.IFF_UP) }
func down(index int) []byte { return linkReq(index, 0, unix.IFF_UP) }
func mtu(index, v int) []byte {
	return linkReq(index, 0, 0, attribute(unix.IFLA_MTU, u32(uint32(v))))
}

func TestKernelChanges(t *testing.T) {
	const lo, tun = 1, 2
	const newA, delA, newR, delR = unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.RTM_NEWROUTE, unix.RTM_DELROUTE
	steps := []struct {
		name string
		req  []byte
	}{
		{"lo up", up(lo)},
		{"up", up(tun)},
		{"mtu", mtu(tun, 1420)},
		{"address", addrReq(newA, add, tun, "10.1.0.2/24")},
		{"again", addrReq(newA, add, tun, "10.1.0.2/24")},
		{"again, not exclusive", addrReq(newA, plain, tun, "10.1.0.2/24")},
		{"replaced", addrReq(newA, replace, tun, "10.1.0.2/24")},
		{"secondary", addrReq(newA, add, tun, "10.1.0.3/24")},
		{"single", addrReq(newA, add, tun, "10.1.0.9/32")},
		{"other subnet", addrReq(newA, add, tun, "10.5.0.2/24")},
		{"another secondary", addrReq(newA, add, tun, "10.1.0.4/24")},
		{"no such interface", addrReq(newA, add, 77, "10.1.0.2/24")},
		{"long prefix", func() []byte { r := addrReq(newA, add, tun, "10.1.0.2/24"); r[17] = 33; return r }()},
		{"not there", addrReq(delA, plain, tun, "10.9.0.2/24")},
		{"not that prefix", addrReq(delA, plain, tun, "10.1.0.2/16")},
		{"not that interface", addrReq(delA, plain, 77, "10.1.0.2/24")},
		{"IPv6", addrReq(newA, add, tun, "fd01::2/64")},
		{"IPv6 again", addrReq(newA, add, tun, "fd01::2/64")},
		{"IPv6 with another prefix", addrReq(newA, add, tun, "fd01::2/48")},
		{"IPv6 second", addrReq(newA, add, tun, "fd01::3/64")},
		{"IPv6 link-local", addrReq(newA, add, tun, "fe80::5/64")},
		{"IPv6 not there", addrReq(delA, plain, tun, "fd01::9/64")},
		{"IPv6 multicast", addrReq(newA, add, tun, "ff02::9/64")},

		{"label", addrWith(newA, add, tun, "10.11.0.1/24", extra{label: "tun0:1"})},
		{"label again", addrWith(newA, replace, tun, "10.11.0.1/24", extra{label: "tun0:2"})},
		{"delete by another label", addrWith(delA, plain, tun, "10.11.0.1/24", extra{label: "tun0:2"})},
		{"delete by label", addrWith(delA, plain, tun, "10.11.0.1/24", extra{label: "tun0:1"})},
		{"broadcast", addrWith(newA, add, tun, "10.11.0.1/24", extra{brd: "10.11.0.255"})},
		{"odd broadcast", addrWith(newA, add, tun, "10.12.0.1/24", extra{brd: "10.12.0.7"})},
		{"scope", addrWith(newA, add, tun, "10.13.0.1/24", extra{scope: unix.RT_SCOPE_LINK})},
		{"another scope in the subnet", addrWith(newA, add, tun, "10.13.0.2/24", extra{})},
		{"same scope in the subnet", addrWith(newA, add, tun, "10.13.0.3/24", extra{scope: unix.RT_SCOPE_LINK})},
		{"peer", addrWith(newA, add, tun, "10.14.0.1/32", extra{peer: "10.14.0.2"})},
		{"peer again", addrWith(newA, add, tun, "10.14.0.1/32", extra{peer: "10.14.0.2"})},
		{"peer with a network", addrWith(newA, add, tun, "10.15.0.1/24", extra{peer: "10.16.0.2"})},
		{"beside the peer", addrWith(newA, add, tun, "10.16.0.9/24", extra{})},
		{"delete by the wrong peer", addrWith(delA, plain, tun, "10.14.0.1/32", extra{peer: "10.14.0.3"})},
		{"no prefix route", addrWith(newA, add, tun, "10.17.0.1/24", extra{flags: noPrefixRoute})},
		{"metric of an address", addrWith(newA, add, tun, "10.18.0.1/24", extra{metric: 50})},
		{"another metric", addrWith(newA, replace, tun, "10.18.0.1/24", extra{metric: 60})},
		{"protocol", addrWith(newA, add, tun, "10.19.0.1/24", extra{proto: 9})},
		{"promiscuous", linkReq(tun, unix.IFF_PROMISC, unix.IFF_PROMISC)},
		{"no multicast", linkReq(tun, 0, unix.IFF_MULTICAST)},
		{"ARP", linkReq(tun, unix.IFF_ALLMULTI, unix.IFF_NOARP|unix.IFF_ALLMULTI)},
		{"as it was", linkReq(tun, unix.IFF_NOARP|unix.IFF_MULTICAST, unix.IFF_PROMISC|unix.IFF_NOARP|unix.IFF_ALLMULTI|unix.IFF_MULTICAST)},
		{"queue length", linkReq(tun, 0, 0, attribute(unix.IFLA_TXQLEN, u32(77)))},
		{"neighbour, not there", message(unix.RTM_DELNEIGH, plain, 1, []byte{unix.AF_INET, 0, 0, 0}, u32(tun), make([]byte, 4), attribute(unix.NDA_DST, []byte{10, 1, 0, 77}))},
		{"neighbour, changed", message(unix.RTM_NEWNEIGH, modify, 1, []byte{unix.AF_INET6, 0, 0, 0}, u32(tun), make([]byte, 4), attribute(unix.NDA_DST, make([]byte, 16)))},
		{"neighbour of no interface", message(unix.RTM_NEWNEIGH, add, 1, []byte{unix.AF_INET, 0, 0, 0}, u32(77), make([]byte, 4), attribute(unix.NDA_DST, []byte{10, 1, 0, 77}))},
		{"neighbour without address", message(unix.RTM_NEWNEIGH, add, 1, []byte{unix.AF_INET, 0, 0, 0}, u32(tun), make([]byte, 4))},
		{"neighbour of another family", message(unix.RTM_NEWNEIGH, add, 1, []byte{unix.AF_PACKET, 0, 0, 0}, u32(tun), make([]byte, 4), attribute(unix.NDA_DST, []byte{10, 1, 0, 77}))},
		{"neighbour with a short address", message(unix.RTM_NEWNEIGH, add, 1, []byte{unix.AF_INET6, 0, 0, 0}, u32(tun), make([]byte, 4), attribute(unix.NDA_DST, []byte{10, 1, 0, 77}))},
		{"delete no link", message(unix.RTM_DELLINK, plain, 1, []byte{0, 0, 0, 0}, u32(77), u32(0), u32(0))},
		{"delete which link", message(unix.RTM_DELLINK, plain, 1, []byte{0, 0, 0, 0}, u32(0), u32(0), u32(0))},
		{"delete lo", message(unix.RTM_DELLINK, plain, 1, []byte{0, 0, 0, 0}, u32(lo), u32(0), u32(0))},
		{"lifetime", addrWith(newA, add, tun, "10.20.0.1/24", extra{valid: 3000, preferred: 2000})},
		{"deprecated", addrWith(newA, replace, tun, "10.20.0.1/24", extra{valid: 3000})},
		{"for ever", addrWith(newA, replace, tun, "10.20.0.1/24", extra{})},
		{"lifetime backwards", addrWith(newA, add, tun, "10.21.0.1/24", extra{valid: 3, preferred: 4})},
		{"no lifetime", addrWith(newA, add, tun, "10.21.0.1/24", extra{lifetime: true})},
		{"nodad", addrWith(newA, add, tun, "10.22.0.1/24", extra{flags: unix.IFA_F_NODAD})},
		{"IPv6 lifetime", addrWith(newA, add, tun, "fd20::1/64", extra{valid: 3000, preferred: 2000})},
		{"IPv6 deprecated", addrWith(newA, replace, tun, "fd20::1/64", extra{valid: 3000})},
		{"IPv6 for ever", addrWith(newA, replace, tun, "fd20::1/64", extra{})},
		{"IPv6 lifetime backwards", addrWith(newA, add, tun, "fd21::1/64", extra{valid: 3, preferred: 4})},
		{"IPv6 nodad", addrWith(newA, add, tun, "fd22::1/64", extra{flags: unix.IFA_F_NODAD})},
		{"IPv6 no prefix route", addrWith(newA, add, tun, "fd23::1/64", extra{flags: noPrefixRoute})},
		{"IPv6 prefix route", addrWith(newA, replace, tun, "fd23::1/64", extra{})},
		{"IPv6 no prefix route again", addrWith(newA, replace, tun, "fd23::1/64", extra{flags: noPrefixRoute})},
		{"IPv6 metric", addrWith(newA, add, tun, "fd24::1/64", extra{metric: 50})},
		{"IPv6 another metric", addrWith(newA, replace, tun, "fd24::1/64", extra{metric: 60})},
		{"IPv6 peer", addrWith(newA, add, tun, "fd25::1/128", extra{peer: "fd25::2"})},
		{"IPv6 peer with a network", addrWith(newA, add, tun, "fd26::1/64", extra{peer: "fd27::2"})},
		{"IPv6 protocol", addrWith(newA, add, tun, "fd28::1/64", extra{proto: 9})},
		{"delete peer", addrWith(delA, plain, tun, "10.14.0.1/32", extra{peer: "10.14.0.2"})},
		{"delete peer with a network", addrWith(delA, plain, tun, "10.15.0.1/24", extra{peer: "10.16.0.2"})},
		{"delete metric", addrWith(delA, plain, tun, "10.18.0.1/24", extra{})},
		{"delete no prefix route", addrWith(delA, plain, tun, "10.17.0.1/24", extra{})},
		{"IPv6 delete metric", addrWith(delA, plain, tun, "fd24::1/64", extra{})},
		{"IPv6 delete peer", addrWith(delA, plain, tun, "fd25::1/128", extra{peer: "fd25::2"})},
		{"IPv6 delete peer with a network", addrWith(delA, plain, tun, "fd26::1/64", extra{})},

		{"route", routeReq(newR, add, "10.2.0.0/16", hop{via: "10.1.0.1"})},
		{"route again", routeReq(newR, add, "10.2.0.0/16", hop{via: "10.1.0.1"})},
		{"route by another hop", routeReq(newR, add, "10.2.0.0/16", hop{via: "10.1.0.77"})},
		{"append", routeReq(newR, appended, "10.2.0.0/16", hop{via: "10.1.0.77"})},
		{"append again", routeReq(newR, appended, "10.2.0.0/16", hop{via: "10.1.0.77"})},
		{"prepend", routeReq(newR, prepend, "10.2.0.0/16", hop{via: "10.1.0.78"})},
		{"replace", routeReq(newR, replace, "10.2.0.0/16", hop{via: "10.1.0.8"})},
		{"replace by what is there", routeReq(newR, replace, "10.2.0.0/16", hop{via: "10.1.0.77"})},
		{"replace by itself", routeReq(newR, replace, "10.2.0.0/16", hop{via: "10.1.0.8"})},
		{"metric", routeReq(newR, add, "10.2.0.0/16", hop{oif: tun, metric: 5})},
		{"default", routeReq(newR, add, "0.0.0.0/0", hop{via: "10.1.0.1"})},
		{"preferred source", routeReq(newR, add, "10.6.0.0/16", hop{via: "10.1.0.1", src: "10.5.0.2"})},
		{"source not ours", routeReq(newR, add, "10.3.0.0/16", hop{oif: tun, src: "1.2.3.4"})},
		{"gateway beyond", routeReq(newR, add, "10.3.0.0/16", hop{via: "99.1.1.1"})},
		{"gateway is ours", routeReq(newR, add, "10.31.0.0/16", hop{via: "10.1.0.2"})},
		{"no next hop", routeReq(newR, add, "10.3.0.0/16", hop{})},
		{"no such interface", routeReq(newR, add, "10.3.0.0/16", hop{oif: 77})},
		{"host bits", routeReq(newR, add, "10.3.0.1/16", hop{oif: tun})},
		{"change what is not there", routeReq(newR, modify, "10.66.0.0/16", hop{oif: tun})},
		{"delete what is not there", routeReq(delR, plain, "10.77.0.0/16", hop{})},
		{"delete by another hop", routeReq(delR, plain, "10.2.0.0/16", hop{via: "1.1.1.1"})},
		{"delete by metric", routeReq(delR, plain, "10.2.0.0/16", hop{metric: 5})},
		{"delete the first", routeReq(delR, plain, "10.2.0.0/16", hop{})},
		{"delete in another table", routeReq(delR, plain, "10.2.0.0/16", hop{table: 100})},
		{"blackhole", routeReq(newR, add, "10.91.0.0/16", hop{kind: unix.RTN_BLACKHOLE})},
		{"blackhole again", routeReq(newR, add, "10.91.0.0/16", hop{kind: unix.RTN_BLACKHOLE})},
		{"unreachable appended", routeReq(newR, appended, "10.91.0.0/16", hop{kind: unix.RTN_UNREACHABLE})},
		{"unreachable instead", routeReq(newR, replace, "10.91.0.0/16", hop{kind: unix.RTN_UNREACHABLE, metric: 9})},
		{"prohibit", routeReq(newR, add, "10.92.0.1/32", hop{kind: unix.RTN_PROHIBIT, metric: 7})},
		{"throw", routeReq(newR, add, "10.93.0.0/16", hop{kind: unix.RTN_THROW})},
		{"blackhole by a device", routeReq(newR, add, "10.94.0.0/16", hop{kind: unix.RTN_BLACKHOLE, oif: tun})},
		{"NAT", routeReq(newR, add, "10.94.0.0/16", hop{kind: unix.RTN_NAT})},
		{"no such type", routeReq(newR, add, "10.94.0.0/16", hop{kind: 77})},
		{"delete prohibit", routeReq(delR, plain, "10.92.0.1/32", hop{})},
		{"IPv6 blackhole", routeReq(newR, add, "fd91::/64", hop{kind: unix.RTN_BLACKHOLE})},
		{"IPv6 blackhole again", routeReq(newR, add, "fd91::/64", hop{kind: unix.RTN_BLACKHOLE})},
		{"IPv6 unreachable beside", routeReq(newR, add, "fd91::/64", hop{kind: unix.RTN_UNREACHABLE, metric: 5})},
		{"IPv6 prohibit", routeReq(newR, add, "fd92::/64", hop{kind: unix.RTN_PROHIBIT, oif: tun})},
		{"IPv6 throw", routeReq(newR, add, "fd93::/64", hop{kind: unix.RTN_THROW})},
		{"IPv6 delete prohibit", routeReq(delR, plain, "fd92::/64", hop{})},
		{"IPv6 blackhole default", routeReq(newR, add, "::/0", hop{kind: unix.RTN_BLACKHOLE, metric: 4000})},
		{"another table", routeReq(newR, add, "10.95.0.0/16", hop{oif: tun, table: 100})},
		{"another table again", routeReq(newR, add, "10.95.0.0/16", hop{oif: tun, table: 100})},
		{"another table, via", routeReq(newR, add, "10.96.0.0/16", hop{via: "10.95.0.1", table: 100})},
		{"main by another table", routeReq(newR, add, "10.97.0.0/16", hop{via: "10.95.0.1"})},
		{"another table, default", routeReq(newR, add, "0.0.0.0/0", hop{via: "10.1.0.1", table: 100})},
		{"delete from another table", routeReq(delR, plain, "10.96.0.0/16", hop{table: 100})},
		{"IPv6 another table", routeReq(newR, add, "fd95::/64", hop{oif: tun, table: 100})},
		{"host route", routeReq(newR, add, "10.98.0.1/32", hop{oif: tun})},
		{"IPv6 host route", routeReq(newR, add, "fd98::1/128", hop{oif: tun})},
		{"MTU of a route", routeReq(newR, add, "10.99.0.0/16", hop{oif: tun, mtu: 1300})},
		{"MTU of a route again", routeReq(newR, add, "10.99.0.0/16", hop{oif: tun, mtu: 1300})},
		{"other MTU of a route", routeReq(newR, prepend, "10.99.0.0/16", hop{oif: tun, mtu: 1200})},
		{"IPv6 MTU of a route", routeReq(newR, add, "fd99::/64", hop{oif: tun, mtu: 1300})},
		{"on link", routeReq(newR, add, "10.100.0.0/16", hop{via: "99.1.1.1", oif: tun, flags: unix.RTNH_F_ONLINK})},
		{"on link, no interface", routeReq(newR, add, "10.101.0.0/16", hop{via: "99.1.1.1", flags: unix.RTNH_F_ONLINK})},
		{"IPv6 dead", routeReq(newR, add, "fd31::/64", hop{oif: tun, flags: unix.RTNH_F_DEAD})},
		{"IPv6 delete in no table", routeReq(delR, plain, "fd31::/64", hop{table: 77})},
		{"dead", routeReq(newR, add, "10.101.0.0/16", hop{oif: tun, flags: unix.RTNH_F_DEAD})},
		{"host scope, gateway", routeReq(newR, add, "10.103.0.0/16", hop{via: "10.1.0.1", scope: unix.RT_SCOPE_HOST})},
		{"link scope, gateway", routeReq(newR, add, "10.103.0.0/16", hop{via: "10.1.0.1", scope: unix.RT_SCOPE_LINK})},
		{"no scope", routeReq(newR, add, "10.103.0.0/16", hop{oif: tun, scope: unix.RT_SCOPE_NOWHERE})},
		{"twin of a connected route", routeReq(newR, appended, "10.1.0.0/24", hop{oif: tun})},

		{"IPv6 route", routeReq(newR, add, "fd02::/64", hop{via: "fd01::1"})},
		{"IPv6 route again", routeReq(newR, add, "fd02::/64", hop{via: "fd01::1"})},
		{"IPv6 host bits", routeReq(newR, add, "fd07::1/64", hop{oif: tun})},
		{"IPv6 gateway beyond", routeReq(newR, add, "fd03::/64", hop{via: "fd99::1"})},
		{"IPv6 link-local gateway", routeReq(newR, add, "fd04::/64", hop{via: "fe80::1", oif: tun})},
		{"IPv6 link-local gateway, no interface", routeReq(newR, add, "fd05::/64", hop{via: "fe80::1"})},
		{"IPv6 default", routeReq(newR, add, "::/0", hop{oif: tun})},
		{"IPv6 delete", routeReq(delR, plain, "fd02::/64", hop{})},
		{"IPv6 delete again", routeReq(delR, plain, "fd02::/64", hop{})},

		{"delete an address with routes", addrReq(delA, plain, tun, "10.5.0.2/24")},
		{"IPv6 delete one of two", addrReq(delA, plain, tun, "fd01::2/64")},
		{"IPv6 delete the other", addrReq(delA, plain, tun, "fd01::3/64")},
		{"IPv6 once more", addrReq(newA, add, tun, "fd01::2/64")},
		{"mtu too small", mtu(tun, 60)},
		{"mtu too large", mtu(tun, 70000)},
		{"mtu of no interface", mtu(77, 1400)},
		{"mtu without IPv6", mtu(tun, 1200)},
		{"mtu with IPv6 again", mtu(tun, 1400)},
		{"down", down(tun)},
		{"route while down", routeReq(newR, add, "10.4.0.0/16", hop{oif: tun})},
		{"address while down", addrReq(newA, add, tun, "10.8.0.2/24")},
		{"up again", up(tun)},
		{"delete a primary address", addrReq(delA, plain, tun, "10.1.0.2/24")},
		{"last routes", routeReq(newR, add, "10.2.0.0/16", hop{oif: tun})},
		{"delete", addrReq(delA, plain, tun, "10.8.0.2/24")},
		{"delete the last address", addrReq(delA, plain, tun, "10.1.0.9/32")},
		{"rename", linkReq(tun, 0, 0, attribute(unix.IFLA_IFNAME, []byte("wg0\x00")))},
		{"rename to a taken name", linkReq(tun, 0, 0, attribute(unix.IFLA_IFNAME, []byte("lo\x00")))},
		{"lo: address", addrReq(newA, add, lo, "10.20.0.1/24")},
		{"lo down", down(lo)},
		{"lo up again", up(lo)},
		{"lo: mtu", mtu(lo, 1500)},
		{"lo: delete", addrReq(delA, plain, lo, "127.0.0.1/8")},
	}
	elsewhere(t)
	k := newKernelSocket(t, Options{ExtAck: true})
	s := stacks.State{Interfaces: []stacks.Interface{
		{Index: 1, Name: "lo", Loop: true, MTU: 65536}, {Index: 2, Name: "tun0", MTU: 1500},
	}}
	// The kernel gives lo its addresses when it goes up; a stack has them.
	first := true
	for _, step := range steps {
		want := errnoIn(k.answer(t, step.req))
		got := errnoIn(Options{ExtAck: true}.Serve(s, func(next stacks.State, _ Origin) error { s = next; return nil }, step.req, k.port))
		if fmt.Sprint(want) != fmt.Sprint(got) {
			t.Errorf("%s: kernel %v, ours %v", step.name, want, got)
		}
		if first {
			s.Interfaces[0].Addrs = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"), loopback6}
			first = false
		}
		for what, typ := range map[string]uint16{"links": unix.RTM_GETLINK, "addresses": unix.RTM_GETADDR, "routes": unix.RTM_GETROUTE} {
			req := message(typ, requestD, 9, make([]byte, 4))
			kernel, ours := seen(t, k.answer(t, req)), seen(t, Answer(s, req, k.port))
			// IPv6 does some of it from a work queue.
			for end := time.Now().Add(5 * time.Second); !slices.Equal(kernel, ours) && time.Now().Before(end); time.Sleep(time.Millisecond) {
				kernel = seen(t, k.answer(t, req))
			}
			if d := cmp.Diff(kernel, ours); d != "" {
				t.Errorf("%s: %s: -kernel +ours\n%s", step.name, what, d)
			}
		}
		if t.Failed() {
			return // what follows would only repeat it
		}
	}
}

// errnoIn is what an acknowledgement says.
func errnoIn(datagrams [][]byte) error {
	if len(datagrams) != 1 || binary.NativeEndian.Uint16(datagrams[0][4:]) != unix.NLMSG_ERROR {
		return fmt.Errorf("no acknowledgement: %x", datagrams)
	}
	d := datagrams[0]
	e := -int32(binary.NativeEndian.Uint32(d[16:]))
	if e == 0 {
		return nil
	}
	if binary.NativeEndian.Uint16(d[6:])&unix.NLM_F_ACK_TLVS != 0 {
		n := 20 + int(binary.NativeEndian.Uint32(d[20:])) // the request
		return fmt.Errorf("%w: %s", unix.Errno(e), attrString(nlmsg.Attrs(d, nlmsg.Align(n))[1]))
	}
	return unix.Errno(e)
}

// seen is a dump without what comes from elsewhere: queues, carriers, protocols of
// IPv6 that are told nowhere else. Links and addresses are in their order; routes,
// whose order is that of a trie, by what they are.
func seen(t *testing.T, datagrams [][]byte) (out []string) {
	t.Helper()
	multicast := fmt.Sprintf("%x", multicast6.Addr().AsSlice())
	for _, m := range norm(decode(t, datagrams)) {
		switch m.Type {
		case unix.RTM_NEWLINK:
			out = append(out, fmt.Sprint("link ", m.Fixed[:8], m.Fixed[8:24], " ", m.Attrs[unix.IFLA_IFNAME], m.Attrs[unix.IFLA_MTU]))
		case unix.RTM_NEWADDR:
			out = append(out, fmt.Sprint("addr ", m.Fixed, m.Attrs[unix.IFA_ADDRESS], " local ", m.Attrs[unix.IFA_LOCAL], " brd ", m.Attrs[unix.IFA_BROADCAST],
				" ", m.Attrs[unix.IFA_LABEL], " flags ", m.Attrs[unix.IFA_FLAGS], " metric ", m.Attrs[unix.IFA_RT_PRIORITY], " life ", m.Attrs[unix.IFA_CACHEINFO]))
		case unix.RTM_NEWROUTE:
			if m.Attrs[unix.RTA_DST] == multicast {
				continue // the kernel has it with or without addresses
			}
			out = append(out, fmt.Sprint("route ", m.Fixed, m.Attrs[unix.RTA_DST], " via ", m.Attrs[unix.RTA_GATEWAY], " ", m.Attrs[unix.RTA_OIF], m.Attrs[unix.RTA_PRIORITY], " src ", m.Attrs[unix.RTA_PREFSRC], " table ", m.Attrs[unix.RTA_TABLE], " metrics ", m.Attrs[unix.RTA_METRICS]))
		}
	}
	if len(out) > 0 && strings.HasPrefix(out[0], "route") {
		slices.Sort(out)
	}
	return out
}
