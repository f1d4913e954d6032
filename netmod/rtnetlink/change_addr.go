// SPDX-License-Identifier: Apache-2.0

// Addresses that are added, changed and removed: RTM_NEWADDR, RTM_DELADDR, and the
// end of their lives.

package rtnetlink

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/stacks"
)

const (
	noPrefixRoute = unix.IFA_F_NOPREFIXROUTE

	// Flags of addresses that have a meaning here, or none but to be told, and those
	// that are refused: what they ask for is not done.
	keptFlags    = noPrefixRoute | unix.IFA_F_NODAD
	refusedFlags = unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_MCAUTOJOIN | unix.IFA_F_OPTIMISTIC
)

// An addrRequest is what RTM_NEWADDR and RTM_DELADDR say.
type addrRequest struct {
	family int
	bits   int
	local  netip.Addr
	addr   netip.Addr // IFA_ADDRESS, as it came
	label  string
	attrs  map[uint16][]byte
	ifc    *stacks.Interface
}

// changeAddr adds or removes an address: inet_rtm_newaddr, inet6_rtm_newaddr and
// their opposites.
func (r *request) changeAddr(e *editor) *nlmsg.Failure {
	if len(r.body) < unix.SizeofIfAddrmsg {
		return nlmsg.Fail(unix.EINVAL, "")
	}
	q := addrRequest{family: r.family(), bits: int(r.body[1]), attrs: r.attrs(unix.SizeofIfAddrmsg)}
	var ok1, ok2 bool
	q.local, ok1 = attrAddr(q.attrs[unix.IFA_LOCAL], q.family)
	q.addr, ok2 = attrAddr(q.attrs[unix.IFA_ADDRESS], q.family)
	q.label = attrString(q.attrs[unix.IFA_LABEL])
	switch {
	case q.family != unix.AF_INET && q.family != unix.AF_INET6:
		return nlmsg.Fail(unix.EOPNOTSUPP, "")
	case !ok1 || !ok2 || len(q.label) >= unix.IFNAMSIZ:
		return nlmsg.Fail(unix.EINVAL, "")
	case q.family == unix.AF_INET6 && !q.local.IsValid():
		q.local = q.addr
	}
	q.ifc = byIndex(e.State, int(int32(attrU32(r.body[4:]))))
	if r.typ == unix.RTM_DELADDR {
		return q.remove(e)
	}
	return q.add(e, r)
}

// remove is inet_rtm_deladdr and inet6_addr_del.
func (q *addrRequest) remove(e *editor) *nlmsg.Failure {
	six := q.family == unix.AF_INET6
	switch {
	case six && !q.local.IsValid():
		return nlmsg.Fail(unix.EINVAL, "")
	case six && q.bits > 128:
		return nlmsg.Fail(unix.EINVAL, "ipv6: Invalid prefix length")
	case q.ifc == nil && six:
		return nlmsg.Fail(unix.ENODEV, "ipv6: Unable to find the interface")
	case q.ifc == nil:
		return nlmsg.Fail(unix.ENODEV, "ipv4: Device not found")
	}
	for n, p := range q.ifc.Addrs {
		if familyOf(p.Addr()) != q.family || q.local.IsValid() && p.Addr() != q.local {
			continue
		}
		if six && p.Bits() != q.bits || !six && (q.label != "" && q.label != labelOf(q.ifc, p) ||
			q.addr.IsValid() && (p.Bits() != q.bits || !q.ifc.Network(p).Contains(q.addr))) {
			continue
		}
		e.removeAddr(q.ifc, n)
		return nil
	}
	if six {
		return nlmsg.Fail(unix.EADDRNOTAVAIL, "ipv6: address not found")
	}
	return nlmsg.Fail(unix.EADDRNOTAVAIL, "ipv4: Address not found")
}

// add is inet_rtm_newaddr and inet6_rtm_newaddr.
func (q *addrRequest) add(e *editor, r *request) *nlmsg.Failure {
	six := q.family == unix.AF_INET6
	now := time.Now()
	info := stacks.AddrInfo{
		Told: true, Scope: r.body[3], Label: q.label, Metric: int(attrU32(q.attrs[unix.IFA_RT_PRIORITY])), Added: now,
	}
	if v := q.attrs[ifaProto]; len(v) == 1 {
		info.Proto = v[0]
	}
	flags := uint32(r.body[2])
	if v := q.attrs[unix.IFA_FLAGS]; v != nil {
		flags = attrU32(v)
	}
	info.Flags = flags & keptFlags
	if !six {
		info.Flags &= noPrefixRoute
	}
	switch {
	case !six && q.bits > 32:
		return nlmsg.Fail(unix.EINVAL, "ipv4: Invalid prefix length")
	case !six && !q.local.IsValid():
		return nlmsg.Fail(unix.EINVAL, "ipv4: Local address is not supplied")
	case !q.local.IsValid():
		return nlmsg.Fail(unix.EINVAL, "")
	case six && q.ifc == nil:
		return nlmsg.Fail(unix.ENODEV, "ipv6: Unable to find the interface")
	case q.ifc == nil:
		return nlmsg.Fail(unix.ENODEV, "ipv4: Device not found")
	case flags&refusedFlags != 0:
		return nlmsg.Fail(unix.EOPNOTSUPP, "of an address's flags only noprefixroute and nodad are supported")
	}
	if f := q.lifetime(&info, now); f != nil {
		return f
	}
	if q.addr.IsValid() && q.addr != q.local {
		info.Peer = q.addr
	}
	if info.Label == q.ifc.Name {
		info.Label = ""
	}
	if !six {
		if brd, ok := attrAddr(q.attrs[unix.IFA_BROADCAST], q.family); ok {
			info.Broadcast = brd
		}
	}
	return q.addInfo(e, r.flags, info)
}

// addInfo adds an address of which all is known.
func (q *addrRequest) addInfo(e *editor, flags uint16, info stacks.AddrInfo) *nlmsg.Failure {
	six := q.family == unix.AF_INET6
	switch {
	case q.bits < 0 || six && q.bits > 128:
		return nlmsg.Fail(unix.EINVAL, "ipv6: Invalid prefix length")
	case q.ifc == nil:
		return nlmsg.Fail(unix.ENODEV, "ipv6: Unable to find the interface")
	case six && q.local.IsMulticast():
		return nlmsg.Fail(unix.EADDRNOTAVAIL, "ipv6: Cannot assign multicast address without \"IFA_F_MCAUTOJOIN\" flag")
	case six && (q.local.IsUnspecified() || q.local.IsLoopback() && !q.ifc.Loop || q.local.Is4In6()):
		return nlmsg.Fail(unix.EADDRNOTAVAIL, "ipv6: Invalid address")
	case six && q.ifc.MTU < minMTU6:
		return nlmsg.Fail(unix.ENOBUFS, "ipv6: IPv6 is disabled on this device")
	case !six && q.local.IsUnspecified():
		return nil // as the kernel: taken, and nothing comes of it
	}
	return q.enter(e, flags, info)
}

// lifetime reads struct ifa_cacheinfo.
func (q *addrRequest) lifetime(info *stacks.AddrInfo, now time.Time) *nlmsg.Failure {
	ci := q.attrs[unix.IFA_CACHEINFO]
	if len(ci) < 8 {
		return nil
	}
	const infinity = ^uint32(0)
	preferred, valid := binary.NativeEndian.Uint32(ci), binary.NativeEndian.Uint32(ci[4:])
	if valid == 0 || preferred > valid {
		if q.family == unix.AF_INET6 {
			return nlmsg.Fail(unix.EINVAL, "ipv6: address lifetime invalid")
		}
		return nlmsg.Fail(unix.EINVAL, "ipv4: address lifetime invalid")
	}
	if valid != infinity {
		info.Valid = now.Add(time.Duration(valid) * time.Second)
	}
	switch preferred {
	case infinity:
	case 0:
		info.Flags |= unix.IFA_F_DEPRECATED
	default:
		info.Preferred = now.Add(time.Duration(preferred) * time.Second)
	}
	return nil
}

// enter adds the address, or changes the one that is there.
func (q *addrRequest) enter(e *editor, flags uint16, info stacks.AddrInfo) *nlmsg.Failure {
	six := q.family == unix.AF_INET6
	p := netip.PrefixFrom(q.local, q.bits)
	subnet := p.Masked()
	if info.Peer.Is4() {
		subnet = netip.PrefixFrom(info.Peer, q.bits).Masked()
	}
	for _, o := range q.ifc.Addrs {
		switch {
		case o.Addr() != q.local || !six && o.Bits() != q.bits:
			continue
		case !six && q.ifc.Network(o) != subnet:
			return nlmsg.Fail(unix.EOPNOTSUPP, "an address has one peer")
		case flags&unix.NLM_F_EXCL != 0 || flags&unix.NLM_F_REPLACE == 0:
			if six {
				return nlmsg.Fail(unix.EEXIST, "ipv6: address already assigned")
			}
			return nlmsg.Fail(unix.EEXIST, "ipv4: Address already assigned")
		}
		if old := q.ifc.Info[o].Peer; six && info.Peer.IsValid() && info.Peer != old {
			return nlmsg.Fail(unix.EOPNOTSUPP, "the peer of an address cannot be changed")
		}
		e.changeAddrInfo(q.ifc, o, info)
		return nil
	}
	if !six {
		for _, o := range q.ifc.Addrs {
			if q.ifc.Network(o) == subnet && addrScope(q.ifc, o) != info.Scope {
				return nlmsg.Fail(unix.EINVAL, "ipv4: Invalid scope value")
			}
		}
	}
	e.addAddr(q.ifc, p, info)
	return nil
}

// changeAddrInfo changes an address that is there: of IPv4 its times, protocol and
// metric, of IPv6 its flags too (inet6_addr_modify).
func (e *editor) changeAddrInfo(ifc *stacks.Interface, p netip.Prefix, next stacks.AddrInfo) {
	info := ifc.Info[p]
	six := p.Addr().Is6()
	if !info.Told {
		info.Told, info.Scope = true, scopeOf(p.Addr())
	}
	moved := info.Metric != next.Metric || six && info.Flags&noPrefixRoute != next.Flags&noPrefixRoute
	if moved {
		e.disconnect(ifc, p)
	}
	info.Valid, info.Preferred, info.Proto, info.Metric, info.Changed = next.Valid, next.Preferred, next.Proto, next.Metric, next.Added
	if six {
		info.Flags = next.Flags
	} else {
		info.Flags = info.Flags&^unix.IFA_F_DEPRECATED | next.Flags&unix.IFA_F_DEPRECATED
	}
	setInfo(ifc, p, info)
	if moved {
		e.connect(ifc, p)
	}
}

func setInfo(ifc *stacks.Interface, p netip.Prefix, info stacks.AddrInfo) {
	if ifc.Info == nil {
		ifc.Info = make(map[netip.Prefix]stacks.AddrInfo)
	}
	ifc.Info[p] = info
}

// disconnect removes the routes that connect has made for one address.
func (e *editor) disconnect(ifc *stacks.Interface, p netip.Prefix) {
	info, network := ifc.Info[p], ifc.Network(p)
	e.Routes = slices.DeleteFunc(e.Routes, func(r stacks.Route) bool {
		return r.IfIndex == ifc.Index && connected(r) && (r.Dst == network || info.Peer.Is6() && r.Dst == netip.PrefixFrom(info.Peer, 128))
	})
}

// Expire returns the State at a time: without the addresses whose lives are over,
// and with those deprecated that are not preferred any more. next is when it has to
// be asked again; zero: not at all. changed: it is not s.
func Expire(s stacks.State, now time.Time) (_ stacks.State, next time.Time, changed bool) {
	e := edit(s)
	later := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	for i := range e.Interfaces {
		ifc := &e.Interfaces[i]
		for n := 0; n < len(ifc.Addrs); n++ {
			p := ifc.Addrs[n]
			info, ok := ifc.Info[p]
			if !ok {
				continue
			}
			if !info.Valid.IsZero() {
				if !info.Valid.After(now) {
					e.removeAddr(ifc, n)
					changed = true
					n = -1 // secondary ones have gone with it
					continue
				}
				later(info.Valid)
			}
			switch {
			case info.Preferred.IsZero() || info.Flags&unix.IFA_F_DEPRECATED != 0:
			case !info.Preferred.After(now):
				info.Flags |= unix.IFA_F_DEPRECATED
				ifc.Info[p] = info
				changed = true
			default:
				later(info.Preferred)
			}
		}
	}
	return e.State, next, changed
}
