// SPDX-License-Identifier: Apache-2.0

// Interfaces, addresses, routes.

package procnet

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// writeDev is net/core/net-procfs.c:dev_seq_show.
func writeDev(b *bytes.Buffer, s *Source) {
	b.WriteString("Inter-|   Receive                                                |  Transmit\n" +
		" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n")
	for _, i := range s.State.Interfaces {
		var c stacks.Counters
		if s.Counters != nil {
			c = s.Counters(i.Index)
		}
		fmt.Fprintf(b, "%6s: %7d %7d %4d %4d %4d %5d %10d %9d %8d %7d %4d %4d %4d %5d %7d %10d\n", i.Name,
			c.RxBytes, c.RxPackets, 0, c.RxDropped, 0, 0, 0, 0, c.TxBytes, c.TxPackets, 0, c.TxDropped, 0, 0, 0, 0)
	}
}

// Flags of routes, linux/route.h and linux/ipv6_route.h.
const (
	rtfUp        = 0x1
	rtfGateway   = 0x2
	rtfHost      = 0x4
	rtfReject    = 0x200
	rtfAnycast   = 0x00100000
	rtfNoNextHop = 0x00200000
	rtfLocal     = 0x80000000
)

// word is an IPv4 address as the kernel prints its 32 bits with %08X.
func word(a netip.Addr) uint32 {
	if !a.Is4() {
		return 0
	}
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}

// mask is that of a prefix of IPv4, in the same form.
func mask(bits int) uint32 {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], ^uint32(0)<<(32-bits))
	return binary.NativeEndian.Uint32(b[:])
}

func name(st *stacks.State, index int) string {
	for _, i := range st.Interfaces {
		if i.Index == index {
			return i.Name
		}
	}
	return ""
}

// writeRoute is net/ipv4/fib_trie.c:fib_route_seq_show: the table main.
func writeRoute(b *bytes.Buffer, s *Source) {
	const width = 127
	start := b.Len()
	b.WriteString("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT")
	pad(b, start, width)
	var rs []stacks.Route
	for _, r := range s.State.Routes {
		if r.Main() && r.Dst.Addr().Is4() {
			rs = append(rs, r)
		}
	}
	slices.SortStableFunc(rs, func(a, c stacks.Route) int { // as they are in the trie
		return cmp.Or(a.Dst.Addr().Compare(c.Dst.Addr()), cmp.Compare(c.Dst.Bits(), a.Dst.Bits()), cmp.Compare(a.Metric, c.Metric))
	})
	for _, r := range rs {
		flags, dev := rtfUp, name(&s.State, r.IfIndex)
		if r.Gateway.IsValid() {
			flags |= rtfGateway
		}
		if r.Dst.IsSingleIP() {
			flags |= rtfHost
		}
		if r.Type == unix.RTN_UNREACHABLE || r.Type == unix.RTN_PROHIBIT {
			flags = rtfReject // fib_flag_trans: of the others the flags stay
			if r.Dst.IsSingleIP() {
				flags |= rtfHost
			}
			flags |= rtfUp
		}
		mtu := 0
		if dev == "" {
			dev = "*"
		}
		start := b.Len()
		fmt.Fprintf(b, "%s\t%08X\t%08X\t%04X\t%d\t%d\t%d\t%08X\t%d\t%d\t%d", dev, word(r.Dst.Addr()), word(r.Gateway), flags,
			0, 0, r.Metric, mask(r.Dst.Bits()), mtu, 0, 0)
		pad(b, start, width)
	}
}

// long is an IPv6 address as %pi6 prints it.
func long(a netip.Addr) string {
	if !a.IsValid() {
		a = netip.IPv6Unspecified()
	}
	raw := a.As16()
	return hex.EncodeToString(raw[:])
}

// scope is what addrconf calls the scope of an address (include/net/ipv6.h,
// IPV6_ADDR_*).
func scope(a netip.Addr) int {
	switch {
	case a.IsLoopback():
		return 0x10
	case a.IsLinkLocalUnicast():
		return 0x20
	case a.As16()[0] == 0xfe && a.As16()[1]&0xc0 == 0xc0:
		return 0x40
	}
	return 0
}

// ifaPermanent is IFA_F_PERMANENT.
const ifaPermanent = 0x80

// writeIfInet6 is net/ipv6/addrconf.c:if6_seq_show.
func writeIfInet6(b *bytes.Buffer, s *Source) {
	for _, i := range s.State.Interfaces {
		for _, p := range i.Addrs {
			if !p.Addr().Is6() {
				continue
			}
			info := i.Info[p]
			flags := info.Flags
			if info.Valid.IsZero() {
				flags |= ifaPermanent
			}
			fmt.Fprintf(b, "%s %02x %02x %02x %02x %8s\n", long(p.Addr()), i.Index, p.Bits(), scope(p.Addr()), uint8(flags), i.Name)
		}
	}
}

// writeRoute6 is net/ipv6/route.c:rt6_info_route. The kernel shows every table; its
// own routes to addresses of this machine are among them.
func writeRoute6(b *bytes.Buffer, s *Source) {
	const null = "00000000000000000000000000000000"
	line := func(dst netip.Prefix, gateway netip.Addr, metric, flags uint32, dev string) {
		gw := null
		if gateway.IsValid() {
			gw = long(gateway)
		}
		fmt.Fprintf(b, "%s %02x %s 00 %s %08x %08x %08x %08x %8s\n", long(dst.Addr()), dst.Bits(), null, gw, metric, 1, 0, flags, dev)
	}
	for _, r := range s.State.Routes {
		if !r.Dst.Addr().Is6() {
			continue
		}
		flags, dev, metric := uint32(rtfUp), name(&s.State, r.IfIndex), r.Metric
		if r.Gateway.IsValid() {
			flags |= rtfGateway
		}
		if r.Refuses() != 0 {
			flags |= rtfReject
			if dev == "" {
				dev = "lo"
			}
		}
		if metric == 0 {
			metric = 1024 // IP6_RT_PRIO_USER
			if !r.Gateway.IsValid() && r.Proto == 0 && r.Refuses() == 0 && r.Dst.Bits() > 0 {
				metric = 256 // IP6_RT_PRIO_ADDRCONF
			}
		}
		line(r.Dst, r.Gateway, uint32(metric), flags, dev)
	}
	for _, i := range s.State.Interfaces {
		if !i.Up {
			continue
		}
		for _, p := range i.Addrs {
			if p.Addr().Is6() {
				line(netip.PrefixFrom(p.Addr(), 128), netip.Addr{}, 0, rtfUp|rtfNoNextHop|rtfLocal, i.Name)
			}
		}
		if !i.Loop {
			line(netip.MustParsePrefix("ff00::/8"), netip.Addr{}, 256, rtfUp, i.Name)
		}
	}
	// The null entry of an empty tree, net/ipv6/route.c:ip6_null_entry_template.
	line(netip.MustParsePrefix("::/0"), netip.Addr{}, 0xffffffff, rtfReject|rtfNoNextHop, "lo")
}

// Flags of ARP entries, linux/if_arp.h.
const (
	atfCom  = 0x2 // the address is known
	atfPerm = 0x4
)

// writeARP is net/ipv4/arp.c:arp_seq_show.
func writeARP(b *bytes.Buffer, s *Source) {
	b.WriteString("IP address       HW type     Flags       HW address            Mask     Device\n")
	learnt := s.State.Neighbours
	if s.Neighbours != nil {
		learnt = append(slices.Clone(learnt), s.Neighbours()...)
	}
	for _, n := range learnt {
		at := slices.IndexFunc(s.State.Interfaces, func(i stacks.Interface) bool { return i.Index == n.IfIndex })
		if !n.Addr.Is4() || n.State&unix.NUD_NOARP != 0 || at < 0 {
			continue
		}
		const valid = unix.NUD_PERMANENT | unix.NUD_REACHABLE | unix.NUD_PROBE | unix.NUD_STALE | unix.NUD_DELAY
		flags := 0
		switch {
		case n.State&unix.NUD_PERMANENT != 0:
			flags = atfPerm | atfCom
		case n.State&valid != 0:
			flags = atfCom
		}
		i := &s.State.Interfaces[at]
		mac := n.MAC.String()
		if mac == "" && addrLen(i) > 0 {
			mac = "00:00:00:00:00:00"
		}
		fmt.Fprintf(b, "%-16s 0x%-10x0x%-10x%-17s     *        %s\n", n.Addr, hardwareType(i), flags, mac, i.Name)
	}
}
