// SPDX-License-Identifier: Apache-2.0

// Requests that change addresses and interfaces: RTM_NEWADDR, RTM_DELADDR,
// RTM_NEWLINK, RTM_SETLINK.

package rtnetlink

import (
	"bytes"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/stacks"
)

const noPrefixRoute = 0x200 // IFA_F_NOPREFIXROUTE

// change answers a request to change something: what the State then is.
func (r *request) change() (stacks.State, *nlmsg.Failure) {
	e := edit(r.state)
	var f *nlmsg.Failure
	switch r.typ {
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		f = r.changeAddr(e)
	case unix.RTM_NEWLINK, unix.RTM_SETLINK:
		f = r.changeLink(e)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		f = r.changeRoute(e)
	default:
		f = nlmsg.Fail(unix.EOPNOTSUPP, "")
	}
	return e.State, f
}

// changeAddr adds or removes an address: inet_rtm_newaddr, inet6_rtm_newaddr and
// their opposites.
func (r *request) changeAddr(e *editor) *nlmsg.Failure {
	if len(r.body) < unix.SizeofIfAddrmsg {
		return nlmsg.Fail(unix.EINVAL, "")
	}
	family, bits := r.family(), int(r.body[1])
	attrs := r.attrs(unix.SizeofIfAddrmsg)
	local, ok1 := attrAddr(attrs[unix.IFA_LOCAL], family)
	addr, ok2 := attrAddr(attrs[unix.IFA_ADDRESS], family)
	ipv := "ipv4"
	switch {
	case family != unix.AF_INET && family != unix.AF_INET6:
		return nlmsg.Fail(unix.EOPNOTSUPP, "")
	case !ok1 || !ok2:
		return nlmsg.Fail(unix.EINVAL, "")
	case family == unix.AF_INET6:
		ipv = "ipv6"
		if !local.IsValid() {
			local = addr
		}
	}
	ifc := byIndex(e.State, int(int32(attrU32(r.body[4:]))))
	if r.typ == unix.RTM_DELADDR {
		if ifc == nil {
			return nlmsg.Fail(unix.ENODEV, ipv+": Device not found")
		}
		for n, p := range ifc.Addrs {
			if familyOf(p.Addr()) == family && (!local.IsValid() || p.Addr() == local) &&
				(family == unix.AF_INET && !addr.IsValid() || p.Bits() == bits) {
				e.removeAddr(ifc, n)
				return nil
			}
		}
		if family == unix.AF_INET6 {
			return nlmsg.Fail(unix.EADDRNOTAVAIL, "ipv6: address not found")
		}
		return nlmsg.Fail(unix.EADDRNOTAVAIL, "ipv4: Address not found")
	}
	switch {
	case !local.IsValid() || bits > local.BitLen():
		return nlmsg.Fail(unix.EINVAL, "")
	case ifc == nil:
		return nlmsg.Fail(unix.ENODEV, ipv+": Unable to find device")
	case addr.IsValid() && addr != local:
		return nlmsg.Fail(unix.EOPNOTSUPP, "peer addresses are not supported")
	case family == unix.AF_INET6 && (local.IsMulticast() || local.IsUnspecified() || local.IsLoopback() && !ifc.Loop || local.Is4In6()):
		return nlmsg.Fail(unix.EADDRNOTAVAIL, "ipv6: Invalid address")
	case family == unix.AF_INET6 && ifc.MTU < minMTU6:
		return nlmsg.Fail(unix.ENODEV, "")
	}
	if family == unix.AF_INET && local.IsUnspecified() {
		return nil // as the kernel: taken, and nothing comes of it
	}
	p := netip.PrefixFrom(local, bits)
	for _, q := range ifc.Addrs {
		if q.Addr() != local || family == unix.AF_INET && q.Bits() != bits {
			continue
		}
		if r.flags&unix.NLM_F_EXCL != 0 || r.flags&unix.NLM_F_REPLACE == 0 {
			if family == unix.AF_INET6 {
				return nlmsg.Fail(unix.EEXIST, "ipv6: address already assigned")
			}
			return nlmsg.Fail(unix.EEXIST, "ipv4: Address already assigned")
		}
		return nil // labels, scopes and times of life are not kept
	}
	e.addAddr(ifc, p, attrU32(attrs[unix.IFA_FLAGS])&noPrefixRoute == 0)
	return nil
}

// changeLink changes an interface: do_setlink. What a program sets that has no
// meaning here and that it cannot see either is taken and forgotten.
func (r *request) changeLink(e *editor) *nlmsg.Failure {
	if len(r.body) < unix.SizeofIfInfomsg {
		return nlmsg.Fail(unix.EINVAL, "")
	}
	attrs := r.attrs(unix.SizeofIfInfomsg)
	index := int(int32(attrU32(r.body[4:])))
	name := attrString(attrs[unix.IFLA_IFNAME])
	var ifc *stacks.Interface
	if index != 0 {
		ifc = byIndex(e.State, index)
	} else {
		ifc = byName(e.State, name)
	}
	create := r.typ == unix.RTM_NEWLINK && r.flags&unix.NLM_F_CREATE != 0
	switch {
	case ifc == nil && create:
		return nlmsg.Fail(unix.EOPNOTSUPP, "Unknown device type")
	case ifc == nil && index == 0 && name == "" && r.typ == unix.RTM_SETLINK:
		return nlmsg.Fail(unix.EINVAL, "")
	case ifc == nil:
		return nlmsg.Fail(unix.ENODEV, "")
	case create && r.flags&unix.NLM_F_EXCL != 0:
		return nlmsg.Fail(unix.EEXIST, "")
	}
	for typ := range attrs {
		switch typ {
		case unix.IFLA_IFNAME, unix.IFLA_MTU, unix.IFLA_TXQLEN, unix.IFLA_GROUP, unix.IFLA_EXT_MASK, unix.IFLA_OPERSTATE, unix.IFLA_LINKMODE:
		case unix.IFLA_NET_NS_PID, unix.IFLA_NET_NS_FD:
			return nlmsg.Fail(unix.EPERM, "")
		default:
			return nlmsg.Fail(unix.EOPNOTSUPP, "")
		}
	}
	if mtu := attrs[unix.IFLA_MTU]; mtu != nil {
		if f := e.changeMTU(ifc, int(int32(attrU32(mtu)))); f != nil {
			return f
		}
	}
	if name != "" && name != ifc.Name {
		if errno := e.rename(ifc, name); errno != 0 {
			return nlmsg.Fail(errno, "")
		}
	}
	flags, mask := attrU32(r.body[8:]), attrU32(r.body[12:])
	if mask == 0 {
		mask = ^uint32(0) // rtnl_dev_combine_flags: an old program that sets all
	}
	if flags != 0 || attrU32(r.body[12:]) != 0 {
		if mask&unix.IFF_UP != 0 {
			e.setUp(ifc, flags&unix.IFF_UP != 0)
		}
	}
	return nil
}

// changeMTU is dev_validate_mtu; the stack knows what the link can carry.
func (e *editor) changeMTU(ifc *stacks.Interface, mtu int) *nlmsg.Failure {
	d := deviceOf(ifc)
	switch {
	case mtu < 0 || mtu < int(d.minMTU):
		return nlmsg.Fail(unix.EINVAL, "mtu less than device minimum")
	case d.maxMTU > 0 && mtu > int(d.maxMTU):
		return nlmsg.Fail(unix.EINVAL, "mtu greater than device maximum")
	}
	e.setMTU(ifc, mtu)
	return nil
}

// rename is dev_change_name, without its patterns (eth%d).
func (e *editor) rename(ifc *stacks.Interface, name string) unix.Errno {
	switch {
	case name == "" || len(name) >= unix.IFNAMSIZ || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n\v\f\r%"):
		return unix.EINVAL
	case byName(e.State, name) != nil:
		return unix.EEXIST
	}
	ifc.Name = name
	return 0
}

// attrString is a string up to its zero; absent is "".
func attrString(a []byte) string {
	s, _, _ := bytes.Cut(a, []byte{0})
	return string(s)
}
