// SPDX-License-Identifier: Apache-2.0

// Neighbours: there are none, since the links of a view have no link-layer addresses.

package rtnetlink

import (
	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
)

const ndmsgLen = 12 // struct ndmsg

// oneNeigh answers a request for a neighbour.
func (r *request) oneNeigh() *nlmsg.Failure {
	if len(r.body) < ndmsgLen {
		return nlmsg.Fail(unix.EINVAL, "Invalid header for neighbor get request")
	}
	dst, ok := attrAddr(r.attrs(ndmsgLen)[unix.NDA_DST], r.family())
	if !ok || !dst.IsValid() {
		return nlmsg.Fail(unix.EINVAL, "Network address not specified")
	}
	if index := int(attrU32(r.body[4:])); byIndex(r.state, index) == nil {
		return nlmsg.Fail(unix.ENODEV, "Unknown device ifindex")
	}
	return nlmsg.Fail(unix.ENOENT, "Neighbour entry not found")
}

// changeNeigh is neigh_add and neigh_delete: what is wrong is told as there, and
// what would make an entry is refused.
func (r *request) changeNeigh() *nlmsg.Failure {
	if len(r.body) < ndmsgLen {
		return nlmsg.Fail(unix.EINVAL, "")
	}
	dst, ok := attrAddr(r.attrs(ndmsgLen)[unix.NDA_DST], r.family())
	switch family := r.family(); {
	case r.attrs(ndmsgLen)[unix.NDA_DST] == nil:
		return nlmsg.Fail(unix.EINVAL, "Network address not specified")
	case attrU32(r.body[4:]) != 0 && byIndex(r.state, int(int32(attrU32(r.body[4:])))) == nil:
		return nlmsg.Fail(unix.ENODEV, "")
	case family != unix.AF_INET && family != unix.AF_INET6:
		return nlmsg.Fail(unix.EAFNOSUPPORT, "")
	case !ok || !dst.IsValid():
		return nlmsg.Fail(unix.EINVAL, "Invalid network address")
	case r.typ == unix.RTM_DELNEIGH, r.flags&unix.NLM_F_CREATE == 0:
		return nlmsg.Fail(unix.ENOENT, "")
	}
	return nlmsg.Fail(unix.EOPNOTSUPP, "the interface has no neighbours")
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
