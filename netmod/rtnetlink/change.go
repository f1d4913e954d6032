// SPDX-License-Identifier: Apache-2.0

// Requests that change something, and those that change an interface: RTM_NEWLINK,
// RTM_SETLINK.

package rtnetlink

import (
	"bytes"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/stacks"
)

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
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		f = r.changeNeigh(e)
	case unix.RTM_DELLINK:
		f = r.deleteLink()
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		f = r.changeRule(e)
	default:
		f = nlmsg.Fail(unix.EOPNOTSUPP, "")
	}
	return e.State, f
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
		case unix.IFLA_IFNAME, unix.IFLA_MTU, unix.IFLA_TXQLEN, unix.IFLA_EXT_MASK, unix.IFLA_ADDRESS:
		case unix.IFLA_GROUP, unix.IFLA_LINKMODE:
			if len(bytes.Trim(attrs[typ], "\x00")) > 0 { // the defaults are what there is
				return nlmsg.Fail(unix.EOPNOTSUPP, "")
			}
		case unix.IFLA_NET_NS_PID, unix.IFLA_NET_NS_FD:
			return nlmsg.Fail(unix.EPERM, "")
		default:
			return nlmsg.Fail(unix.EOPNOTSUPP, "")
		}
	}
	if mac := attrs[unix.IFLA_ADDRESS]; mac != nil {
		if len(mac) < len(hwAddr(ifc)) { // validate_linkmsg
			return nlmsg.Fail(unix.EINVAL, "")
		}
		if errno := setMAC(ifc, mac); errno != 0 {
			return nlmsg.Fail(errno, "")
		}
	}
	if mtu := attrs[unix.IFLA_MTU]; mtu != nil {
		if f := e.changeMTU(ifc, int(int32(attrU32(mtu)))); f != nil {
			return f
		}
	}
	if v := attrs[unix.IFLA_TXQLEN]; len(v) >= 4 {
		setTxQueue(ifc, int(int32(attrU32(v))))
	}
	if name != "" && name != ifc.Name {
		if errno := e.rename(ifc, name); errno != 0 {
			return nlmsg.Fail(errno, "")
		}
	}
	flags, mask := attrU32(r.body[8:]), attrU32(r.body[12:])
	if flags != 0 || mask != 0 {
		if mask == 0 {
			mask = ^uint32(0) // rtnl_dev_combine_flags: an old program that sets all
		}
		e.setFlags(ifc, flags, mask)
	}
	return nil
}

// setFlags is __dev_change_flags: of the flags in mask, those that a program may
// change become as in flags.
func (e *editor) setFlags(ifc *stacks.Interface, flags, mask uint32) {
	const flippable = unix.IFF_DEBUG | unix.IFF_NOTRAILERS | unix.IFF_NOARP | unix.IFF_DYNAMIC | unix.IFF_MULTICAST |
		unix.IFF_PORTSEL | unix.IFF_AUTOMEDIA | unix.IFF_PROMISC | unix.IFF_ALLMULTI
	ifc.Flipped ^= (deviceOf(ifc).flags ^ flags) & mask & flippable
	if mask&unix.IFF_UP != 0 {
		e.setUp(ifc, flags&unix.IFF_UP != 0)
	}
}

// setMAC is eth_mac_addr, as a TAP has it: it may be up meanwhile. What follows the six
// bytes is nobody's.
func setMAC(ifc *stacks.Interface, mac []byte) unix.Errno {
	n := len(hwAddr(ifc))
	if n == 0 {
		return unix.EOPNOTSUPP
	}
	mac = mac[:n]
	if bytes.Equal(mac, hwAddr(ifc)) {
		return 0 // whatever it is
	}
	if mac[0]&1 != 0 || len(bytes.Trim(mac, "\x00")) == 0 { // is_valid_ether_addr
		return unix.EADDRNOTAVAIL
	}
	ifc.MAC = bytes.Clone(mac)
	return 0
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
	relabel(ifc, name)
	ifc.Name = name
	return 0
}

// relabel gives the addresses of IPv4 the labels that go with a new name: the first
// has the name itself, the others keep what was behind the colon or get a number
// (net/ipv4/devinet.c:inetdev_changename).
func relabel(ifc *stacks.Interface, name string) {
	named := 0
	for _, p := range ifc.Addrs {
		if !p.Addr().Is4() {
			continue
		}
		label := name
		if named++; named > 1 {
			_, alias, ok := strings.Cut(labelOf(ifc, p), ":")
			if !ok {
				alias = strconv.Itoa(named)
			}
			label = name[:min(len(name), unix.IFNAMSIZ-2-len(alias))] + ":" + alias
		}
		info := ifc.Info[p]
		if info.Label = label; label == name {
			info.Label = ""
		}
		setInfo(ifc, p, info)
	}
}

// attrString is a string up to its zero; absent is "".
func attrString(a []byte) string {
	s, _, _ := bytes.Cut(a, []byte{0})
	return string(s)
}

// deleteLink is rtnl_dellink; an interface without that operation cannot be deleted.
func (r *request) deleteLink() *nlmsg.Failure {
	if len(r.body) < unix.SizeofIfInfomsg {
		return nlmsg.Fail(unix.EINVAL, "")
	}
	index, name := int(int32(attrU32(r.body[4:]))), attrString(r.attrs(unix.SizeofIfInfomsg)[unix.IFLA_IFNAME])
	switch {
	case index > 0 && byIndex(r.state, index) == nil, index <= 0 && name != "" && byName(r.state, name) == nil:
		return nlmsg.Fail(unix.ENODEV, "")
	case index <= 0 && name == "":
		return nlmsg.Fail(unix.EINVAL, "")
	}
	return nlmsg.Fail(unix.EOPNOTSUPP, "")
}
