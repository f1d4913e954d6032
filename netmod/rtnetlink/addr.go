// SPDX-License-Identifier: Apache-2.0

// Addresses: RTM_GETADDR.

package rtnetlink

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/stacks"
)

const (
	ifaProto = 11 // IFA_PROTO: who added the address
	protoLo  = 1  // IFAPROT_KERNEL_LO
	protoLL  = 3  // IFAPROT_KERNEL_LL

	scopeSite = 200 // RT_SCOPE_SITE
)

// familyOf is the family of an address as the kernel counts them.
func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// scopeOf is the scope that the kernel (IPv6) or ip(8) (IPv4) gives an address.
func scopeOf(a netip.Addr) uint8 {
	switch {
	case a.IsLoopback():
		return unix.RT_SCOPE_HOST
	case a.Is6() && a.IsLinkLocalUnicast():
		return unix.RT_SCOPE_LINK
	case a.Is6() && netip.MustParsePrefix("fec0::/10").Contains(a):
		return scopeSite
	}
	return unix.RT_SCOPE_UNIVERSE
}

// addrs dumps all addresses, first those of IPv4.
func (r *request) addrs(w *nlmsg.Writer) {
	only, flags := 0, uint16(unix.NLM_F_MULTI)
	if r.opts.Strict {
		only = int(attrU32(r.fixed(unix.SizeofIfAddrmsg)[4:]))
	}
	if only != 0 {
		flags |= unix.NLM_F_DUMP_FILTERED
		w.Filtered = unix.NLM_F_DUMP_FILTERED
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		if !r.wants(family) {
			continue
		}
		for i := range r.state.Interfaces {
			ifc := &r.state.Interfaces[i]
			if only != 0 && ifc.Index != only {
				continue
			}
			for n, p := range ifc.Addrs {
				if familyOf(p.Addr()) == family {
					address(w, unix.RTM_NEWADDR, ifc, n, flags)
				}
			}
		}
	}
}

// oneAddr answers a request for an IPv6 address.
func (r *request) oneAddr(w *nlmsg.Writer) *nlmsg.Failure {
	if len(r.body) < unix.SizeofIfAddrmsg {
		return nlmsg.Fail(unix.EINVAL, "Invalid header for get address request")
	}
	index := int(attrU32(r.body[4:]))
	attrs := r.attrs(unix.SizeofIfAddrmsg)
	want := attrs[unix.IFA_LOCAL]
	if want == nil {
		want = attrs[unix.IFA_ADDRESS]
	}
	addr, ok := attrAddr(want, unix.AF_INET6)
	if want == nil || !ok {
		return nlmsg.Fail(unix.EINVAL, "")
	}
	for i := range r.state.Interfaces {
		ifc := &r.state.Interfaces[i]
		for n, p := range ifc.Addrs {
			if p.Addr() == addr && (index == 0 || index == ifc.Index) {
				address(w, unix.RTM_NEWADDR, ifc, n, 0)
				return nil
			}
		}
	}
	return nlmsg.Fail(unix.EADDRNOTAVAIL, "")
}

// address writes the n-th address of an interface, in a message of type typ:
// inet_fill_ifaddr and inet6_fill_ifaddr.
func address(w *nlmsg.Writer, typ uint16, ifc *stacks.Interface, n int, flags uint16) {
	p := ifc.Addrs[n]
	a, info := p.Addr(), ifc.Info[p]
	ifaFlags := info.Flags
	if info.Valid.IsZero() {
		ifaFlags |= unix.IFA_F_PERMANENT
	}
	if a.Is4() && secondary(ifc, n) {
		ifaFlags |= unix.IFA_F_SECONDARY
	}
	w.Begin(typ, flags)
	w.U8(uint8(familyOf(a)), uint8(p.Bits()), uint8(ifaFlags), addrScope(ifc, p))
	w.U32(uint32(ifc.Index))
	if info.Peer.IsValid() {
		w.AttrAddr(unix.IFA_ADDRESS, info.Peer)
	} else {
		w.AttrAddr(unix.IFA_ADDRESS, a)
	}
	if a.Is4() || info.Peer.IsValid() {
		w.AttrAddr(unix.IFA_LOCAL, a)
	}
	if info.Broadcast.IsValid() {
		w.AttrAddr(unix.IFA_BROADCAST, info.Broadcast)
	}
	if a.Is4() {
		w.AttrString(unix.IFA_LABEL, labelOf(ifc, p))
	}
	if info.Metric != 0 {
		w.AttrU32(unix.IFA_RT_PRIORITY, uint32(info.Metric))
	}
	w.AttrU32(unix.IFA_FLAGS, ifaFlags)
	switch {
	case info.Proto != 0:
		w.AttrU8(ifaProto, info.Proto)
	case info.Told:
	case a.Is6() && a.IsLoopback():
		w.AttrU8(ifaProto, protoLo)
	case a.Is6() && a.IsLinkLocalUnicast():
		w.AttrU8(ifaProto, protoLL)
	}
	cacheInfo(w, info)
	w.End()
}

// cacheInfo writes struct ifa_cacheinfo: seconds that are left, and when the address
// was added and changed, in hundredths of a second since the machine has started.
func cacheInfo(w *nlmsg.Writer, info stacks.AddrInfo) {
	var up unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &up) // cannot fail
	now := time.Now()
	left := func(t time.Time) uint32 {
		if t.IsZero() {
			return ^uint32(0)
		}
		return uint32((max(0, t.Sub(now)) + time.Second - 1) / time.Second)
	}
	since := func(t time.Time) uint32 {
		if t.IsZero() {
			return 0
		}
		return uint32((time.Duration(up.Nano()) - now.Sub(t)) / (10 * time.Millisecond))
	}
	preferred := left(info.Preferred)
	if info.Flags&unix.IFA_F_DEPRECATED != 0 {
		preferred = 0
	}
	w.U16(unix.SizeofRtAttr + 16)
	w.U16(unix.IFA_CACHEINFO)
	w.U32(preferred)
	w.U32(left(info.Valid))
	w.U32(since(info.Added))
	w.U32(since(info.Changed))
}

// addrScope is the scope of an address of ifc.
func addrScope(ifc *stacks.Interface, p netip.Prefix) uint8 {
	if info := ifc.Info[p]; info.Told && p.Addr().Is4() {
		return info.Scope
	}
	return scopeOf(p.Addr())
}

// labelOf is the label of an IPv4 address of ifc.
func labelOf(ifc *stacks.Interface, p netip.Prefix) string {
	if label := ifc.Info[p].Label; label != "" {
		return label
	}
	return ifc.Name
}

// primary is the first address in the subnet of the n-th one, with a prefix of
// the same length: the one that the kernel prefers as a source.
func primary(ifc *stacks.Interface, n int) netip.Addr {
	subnet := ifc.Network(ifc.Addrs[n])
	for _, p := range ifc.Addrs[:n] {
		if ifc.Network(p) == subnet {
			return p.Addr()
		}
	}
	return ifc.Addrs[n].Addr()
}

// secondary reports whether the n-th address is not the primary one.
func secondary(ifc *stacks.Interface, n int) bool { return primary(ifc, n) != ifc.Addrs[n].Addr() }
