// SPDX-License-Identifier: Apache-2.0

// Neighbours: RTM_GETNEIGH, RTM_NEWNEIGH, RTM_DELNEIGH, as net/core/neighbour.c has
// them.

package rtnetlink

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/stacks"
)

const (
	ndmsgLen = 12 // struct ndmsg

	ndaProtocol = 12 // NDA_PROTOCOL

	nudValid = unix.NUD_PERMANENT | unix.NUD_NOARP | unix.NUD_REACHABLE | unix.NUD_PROBE | unix.NUD_STALE | unix.NUD_DELAY

	ticks = 100 // USER_HZ, of times that are told
)

// neighbours dumps the tables.
func (r *request) neighbours(w *nlmsg.Writer) *nlmsg.Failure {
	h := r.fixed(ndmsgLen)
	attrs := r.attrs(ndmsgLen)
	if h[10] == unix.NTF_PROXY {
		return nil // there are none
	}
	index := attrU32(attrs[unix.NDA_IFINDEX])
	flags := uint16(unix.NLM_F_MULTI)
	if index != 0 || attrU32(attrs[unix.NDA_MASTER]) != 0 {
		flags |= unix.NLM_F_DUMP_FILTERED
	}
	if attrU32(attrs[unix.NDA_MASTER]) != 0 {
		return nil
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		for _, n := range r.state.Neighbours {
			if familyOf(n.Addr) == family && r.wants(family) && (index == 0 || int(index) == n.IfIndex) {
				writeNeighbour(w, r.state, n, unix.RTM_NEWNEIGH, flags)
			}
		}
	}
	return nil
}

// writeNeighbour is neigh_fill_info.
func writeNeighbour(w *nlmsg.Writer, s stacks.State, n stacks.Neighbour, typ, flags uint16) {
	w.Begin(typ, flags)
	w.U8(uint8(familyOf(n.Addr)), 0, 0, 0)
	w.U32(uint32(n.IfIndex))
	w.U16(uint16(n.State))
	w.U8(n.Flags, kindOf(s, n))
	w.AttrAddr(unix.NDA_DST, n.Addr)
	if n.State&nudValid != 0 {
		w.Attr(unix.NDA_LLADDR, n.MAC)
	}
	w.AttrU32(unix.NDA_PROBES, 0)
	age := uint32(0)
	if !n.Updated.IsZero() {
		age = uint32(max(0, time.Since(n.Updated)) * ticks / time.Second)
	}
	// Confirmed, used, updated, and how many hold it.
	info := binary.NativeEndian.AppendUint32(nil, age)
	info = binary.NativeEndian.AppendUint32(info, age)
	info = binary.NativeEndian.AppendUint32(info, age)
	w.Attr(unix.NDA_CACHEINFO, binary.NativeEndian.AppendUint32(info, 0))
	if n.Proto != 0 {
		w.AttrU8(ndaProtocol, n.Proto)
	}
	w.End()
}

// kindOf is the RTN_* of a neighbour's address (arp_constructor, ndisc_constructor).
func kindOf(s stacks.State, n stacks.Neighbour) uint8 {
	switch {
	case n.Addr.IsMulticast():
		return unix.RTN_MULTICAST
	case n.Addr.Is6():
		if ifc := byIndex(s, n.IfIndex); ifc != nil && ifc.Loop {
			return unix.RTN_LOCAL
		}
		return unix.RTN_UNICAST
	case n.Addr.IsUnspecified():
		return unix.RTN_BROADCAST
	case own(s, n.Addr):
		return unix.RTN_LOCAL
	}
	return unix.RTN_UNICAST
}

// findNeighbour is neigh_lookup; -1: there is none.
func findNeighbour(all []stacks.Neighbour, index int, a netip.Addr) int {
	return slices.IndexFunc(all, func(n stacks.Neighbour) bool { return n.IfIndex == index && n.Addr == a })
}

// oneNeigh answers a request for a neighbour.
func (r *request) oneNeigh(w *nlmsg.Writer) *nlmsg.Failure {
	if len(r.body) < ndmsgLen {
		return nlmsg.Fail(unix.EINVAL, "Invalid header for neighbor get request")
	}
	dst, ok := attrAddr(r.attrs(ndmsgLen)[unix.NDA_DST], r.family())
	if !ok || !dst.IsValid() {
		return nlmsg.Fail(unix.EINVAL, "Network address not specified")
	}
	index := int(attrU32(r.body[4:]))
	if byIndex(r.state, index) == nil {
		return nlmsg.Fail(unix.ENODEV, "Unknown device ifindex")
	}
	i := findNeighbour(r.state.Neighbours, index, dst)
	if i < 0 {
		return nlmsg.Fail(unix.ENOENT, "Neighbour entry not found")
	}
	writeNeighbour(w, r.state, r.state.Neighbours[i], unix.RTM_NEWNEIGH, 0)
	return nil
}

// changeNeigh is neigh_add and neigh_delete.
func (r *request) changeNeigh(e *editor) *nlmsg.Failure {
	if len(r.body) < ndmsgLen {
		return nlmsg.Fail(unix.EINVAL, "")
	}
	attrs := r.attrs(ndmsgLen)
	index := int(int32(attrU32(r.body[4:])))
	ifc := byIndex(e.State, index)
	add := r.typ == unix.RTM_NEWNEIGH
	lladdr, told := attrs[unix.NDA_LLADDR]
	dst, ok := attrAddr(attrs[unix.NDA_DST], r.family())
	switch family := r.family(); {
	case attrs[unix.NDA_DST] == nil:
		return nlmsg.Fail(unix.EINVAL, "Network address not specified")
	case index != 0 && ifc == nil:
		return nlmsg.Fail(unix.ENODEV, "")
	case add && ifc != nil && told && len(lladdr) < len(hwAddr(ifc)):
		return nlmsg.Fail(unix.EINVAL, "Invalid link address")
	case family != unix.AF_INET && family != unix.AF_INET6:
		return nlmsg.Fail(unix.EAFNOSUPPORT, "")
	case !ok || !dst.IsValid():
		return nlmsg.Fail(unix.EINVAL, "Invalid network address")
	case r.body[10]&unix.NTF_PROXY != 0 && add:
		return nlmsg.Fail(unix.EOPNOTSUPP, "proxies are not supported")
	case r.body[10]&unix.NTF_PROXY != 0:
		return nlmsg.Fail(unix.ENOENT, "")
	case ifc == nil && add:
		return nlmsg.Fail(unix.EINVAL, "Device not specified")
	case ifc == nil:
		return nlmsg.Fail(unix.EINVAL, "")
	case !add:
		return e.removeNeighbour(index, dst)
	}
	n := stacks.Neighbour{
		IfIndex: index, Addr: dst, State: int(binary.NativeEndian.Uint16(r.body[8:])), Flags: r.body[10] & unix.NTF_ROUTER, Updated: time.Now(),
	}
	if told {
		n.MAC = net.HardwareAddr(bytes.Clone(lladdr[:len(hwAddr(ifc))]))
	}
	if p := attrs[ndaProtocol]; len(p) > 0 {
		n.Proto = p[0]
	}
	return e.addNeighbour(ifc, n, r.flags)
}

// addNeighbour is the rest of neigh_add, and __neigh_update. flags are those of the
// request.
func (e *editor) addNeighbour(ifc *stacks.Interface, n stacks.Neighbour, flags uint16) *nlmsg.Failure {
	at := findNeighbour(e.Neighbours, n.IfIndex, n.Addr)
	switch {
	case at < 0 && flags&unix.NLM_F_CREATE == 0:
		return nlmsg.Fail(unix.ENOENT, "")
	case at >= 0 && flags&unix.NLM_F_EXCL != 0:
		return nlmsg.Fail(unix.EEXIST, "")
	}
	if n.Addr.Is4() && (ifc.Loop || len(hwAddr(ifc)) == 0) { // arp_constructor: one for all
		n.Addr = netip.IPv4Unspecified()
		at = findNeighbour(e.Neighbours, n.IfIndex, n.Addr)
	}
	if n.State&nudValid == 0 {
		n.MAC = nil
	}
	old := stacks.Neighbour{}
	if at >= 0 {
		old = e.Neighbours[at]
	}
	switch {
	case n.State&nudValid == 0 || n.MAC != nil || len(hwAddr(ifc)) == 0:
	case old.State&nudValid == 0:
		return nlmsg.Fail(unix.EINVAL, "No link layer address given")
	default:
		n.MAC = old.MAC
	}
	if at >= 0 && flags&unix.NLM_F_REPLACE == 0 && old.State&nudValid != 0 && !bytes.Equal(old.MAC, n.MAC) {
		return nil // NEIGH_UPDATE_F_OVERRIDE is not set
	}
	if ifc.Type == stacks.LinkEthernet && !ifc.Loop && n.State&unix.NUD_PERMANENT == 0 {
		return nlmsg.Fail(unix.EOPNOTSUPP, "what is not permanent can only be learnt")
	}
	if n.Proto == 0 {
		n.Proto = old.Proto
	}
	if at >= 0 {
		e.Neighbours[at] = n
	} else {
		e.Neighbours = append(e.Neighbours, n)
	}
	return nil
}

// removeNeighbour is the rest of neigh_delete. What was learnt stays, as NUD_NONE.
func (e *editor) removeNeighbour(index int, a netip.Addr) *nlmsg.Failure {
	i := findNeighbour(e.Neighbours, index, a)
	if i < 0 {
		return nlmsg.Fail(unix.ENOENT, "")
	}
	e.Neighbours[i].State = unix.NUD_NONE
	return nil
}

// neighbourNews tells how neighbours have changed: what is called with the type of
// message and the entry. asked says that a program has asked for it.
func neighbourNews(old, next []stacks.Neighbour, asked bool, tell func(typ uint16, n stacks.Neighbour)) {
	for _, o := range old {
		if o.State == unix.NUD_NONE {
			continue
		}
		i := findNeighbour(next, o.IfIndex, o.Addr)
		if i >= 0 && next[i].State != unix.NUD_NONE {
			continue
		}
		if asked && o.State&nudValid != 0 { // neigh_delete
			o.State = unix.NUD_FAILED
			tell(unix.RTM_NEWNEIGH, o)
		}
		tell(unix.RTM_DELNEIGH, o)
	}
	for _, n := range next {
		i := findNeighbour(old, n.IfIndex, n.Addr)
		switch {
		case n.State == unix.NUD_NONE:
		case i < 0 && n.State == unix.NUD_INCOMPLETE: // nobody has answered yet
		case i < 0 || old[i].State != n.State || old[i].Flags != n.Flags || !bytes.Equal(old[i].MAC, n.MAC):
			tell(unix.RTM_NEWNEIGH, n)
		}
	}
}
