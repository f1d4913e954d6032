// SPDX-License-Identifier: Apache-2.0

// The ioctls of AF_INET and AF_INET6 sockets that have structures of their own:
// routes, and addresses of IPv6.

package rtnetlink

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/stacks"
)

// Sizes of structures on 64-bit machines: struct rtentry (net/route.h), struct
// in6_rtmsg (linux/ipv6_route.h), struct in6_ifreq (linux/ipv6.h).
const (
	RtentryLen  = 120
	In6RtmsgLen = 80
	In6IfreqLen = 24
)

// RtentryDevice is where a struct rtentry has the pointer to the name of the device.
const RtentryDevice = 88

// Flags of struct rtentry and in6_rtmsg.
const (
	rtfGateway = 0x2
	rtfHost    = 0x4
	rtfMSS     = 0x40
	rtfWindow  = 0x80
	rtfIRTT    = 0x100
	rtfReject  = 0x200
)

// RouteIoctl serves SIOCADDRT and SIOCDELRT of AF_INET sockets on a struct rtentry
// with the name of its device, empty if it has none:
// net/ipv4/fib_frontend.c:ip_rt_ioctl.
func RouteIoctl(s stacks.State, set Setter, del bool, rt []byte, device string) unix.Errno {
	if set == nil {
		return unix.EPERM
	}
	if len(rt) < RtentryLen {
		return unix.EFAULT
	}
	sockaddr := func(at int) (family uint16, a netip.Addr) {
		return binary.NativeEndian.Uint16(rt[at:]), netip.AddrFrom4([4]byte(rt[at+4 : at+8]))
	}
	flags := binary.NativeEndian.Uint16(rt[56:])
	family, dst := sockaddr(8)
	if family != unix.AF_INET {
		return unix.EAFNOSUPPORT
	}
	length := 32
	if flags&rtfHost == 0 {
		family, mask := sockaddr(40)
		if family != unix.AF_INET && (family != 0 || !mask.IsUnspecified()) {
			return unix.EAFNOSUPPORT
		}
		m := binary.BigEndian.Uint32(mask.AsSlice())
		length = bits.LeadingZeros32(^m)
		if m<<length != 0 || netip.PrefixFrom(dst, length).Masked().Addr() != dst {
			return unix.EINVAL
		}
	}
	w := wanted{dst: netip.PrefixFrom(dst, length), table: unix.RT_TABLE_MAIN, proto: unix.RTPROT_BOOT, scope: unix.RT_SCOPE_NOWHERE}
	if metric := int16(binary.NativeEndian.Uint16(rt[80:])); metric != 0 {
		w.metric = uint32(metric) - 1
	}
	e := edit(s)
	switch family, gateway := sockaddr(24); {
	case flags&rtfReject != 0:
		w.typ, w.scope = unix.RTN_UNREACHABLE, unix.RT_SCOPE_HOST
	default:
		w.typ = unix.RTN_UNICAST
		if device != "" {
			ifr := make([]byte, IfreqLen)
			copy(ifr[:unix.IFNAMSIZ-1], device)
			ifc, alias := named(s, ifr)
			if ifc == nil {
				return unix.ENODEV
			}
			w.oif = ifc.Index
			if alias {
				n := labelled(ifc, ifr)
				if n < 0 {
					return unix.ENODEV
				}
				w.src = ifc.Addrs[n].Addr()
			}
		}
		if family == unix.AF_INET && !gateway.IsUnspecified() {
			w.gateway = gateway
			if flags&rtfGateway != 0 && !own(s, gateway) {
				w.scope = unix.RT_SCOPE_UNIVERSE
			}
		}
		if del {
			break
		}
		if flags&rtfGateway != 0 && !w.gateway.IsValid() {
			return unix.EINVAL
		}
		if w.scope == unix.RT_SCOPE_NOWHERE {
			w.scope = unix.RT_SCOPE_LINK
		}
	}
	if del {
		w.proto = 0
		if f := e.removeRoute(w); f != nil {
			return f.Errno
		}
		return apply(e, set)
	}
	if flags&(rtfMSS|rtfWindow|rtfIRTT) != 0 {
		return unix.EOPNOTSUPP
	}
	if w.scope == unix.RT_SCOPE_LINK && w.gateway.IsValid() {
		return unix.ENETUNREACH
	}
	if f := e.addRoute(w, unix.NLM_F_CREATE); f != nil {
		return f.Errno
	}
	return apply(e, set)
}

// apply tells the outcome.
func apply(e *editor, set Setter) unix.Errno {
	if err := set(e.State, Origin{}); err != nil {
		return errnoOf(err)
	}
	return 0
}

// Route6Ioctl serves SIOCADDRT and SIOCDELRT of AF_INET6 sockets on a struct
// in6_rtmsg: net/ipv6/route.c:ipv6_route_ioctl.
func Route6Ioctl(s stacks.State, set Setter, del bool, rt []byte) unix.Errno {
	if set == nil {
		return unix.EPERM
	}
	if len(rt) < In6RtmsgLen {
		return unix.EFAULT
	}
	flags := binary.NativeEndian.Uint32(rt[72:])
	length, srcLen := int(binary.NativeEndian.Uint16(rt[52:])), binary.NativeEndian.Uint16(rt[54:])
	if length > 128 || srcLen != 0 {
		return unix.EINVAL
	}
	w := wanted{
		dst:   netip.PrefixFrom(netip.AddrFrom16([16]byte(rt[:16])), length).Masked(),
		table: unix.RT_TABLE_MAIN, typ: unix.RTN_UNICAST, proto: unix.RTPROT_BOOT,
		metric: binary.NativeEndian.Uint32(rt[56:]), oif: int(int32(binary.NativeEndian.Uint32(rt[76:]))),
	}
	if flags&rtfGateway != 0 {
		w.gateway = netip.AddrFrom16([16]byte(rt[32:48]))
	}
	if flags&rtfReject != 0 {
		w.typ, w.gateway, w.oif = unix.RTN_UNREACHABLE, netip.Addr{}, 0
	}
	e := edit(s)
	f := (*nlmsg.Failure)(nil)
	if del {
		w.proto, w.typ = 0, 0
		if w.metric == 0 {
			w.metric = metricUser
		}
		f = e.removeRoute(w)
	} else {
		f = e.addRoute(w, unix.NLM_F_CREATE)
	}
	if f != nil {
		return f.Errno
	}
	return apply(e, set)
}

// Addr6Ioctl serves SIOCSIFADDR and SIOCDIFADDR of AF_INET6 sockets on a struct
// in6_ifreq: net/ipv6/addrconf.c:addrconf_add_ifaddr and addrconf_del_ifaddr.
func Addr6Ioctl(s stacks.State, set Setter, del bool, ifr []byte) unix.Errno {
	if set == nil {
		return unix.EPERM
	}
	if len(ifr) < In6IfreqLen {
		return unix.EFAULT
	}
	e := edit(s)
	q := addrRequest{
		family: unix.AF_INET6, local: netip.AddrFrom16([16]byte(ifr[:16])), bits: int(binary.NativeEndian.Uint32(ifr[16:])),
		ifc: byIndex(e.State, int(int32(binary.NativeEndian.Uint32(ifr[20:])))),
	}
	var f *nlmsg.Failure
	if del {
		f = q.remove(e)
	} else {
		f = q.addInfo(e, 0, stacks.AddrInfo{Told: true, Added: time.Now()})
	}
	if f != nil {
		return f.Errno
	}
	return apply(e, set)
}
