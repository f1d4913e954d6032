// SPDX-License-Identifier: Apache-2.0

// Notifications: what multicast groups are told of a change.

package rtnetlink

import (
	"bytes"
	"net/netip"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/stacks"
)

// A Notification is one message to a multicast group.
type Notification struct {
	Group int // RTNLGRP_*
	Data  []byte
	Own   bool // it tells what the Origin asked for, not what follows from that
}

// Changes returns what the groups of rtnetlink(7) are told when a configuration
// turns from old into next: RTNLGRP_LINK and NEIGH, and for both families IFADDR, RULE and ROUTE.
// Interfaces come first, then addresses, then the routes that follow from them, and the
// interfaces that are gone last. What
// by asked for bears its port and sequence number, as in the kernel: interfaces,
// addresses of IPv4, and the routes of a request for routes.
func Changes(old, next stacks.State, by Origin) []Notification {
	var out []Notification
	tell := func(group int, write func(w *nlmsg.Writer)) {
		var w nlmsg.Writer
		own := by.tells(group)
		if own {
			w = *nlmsg.NewWriter(by.Seq, by.Port)
		}
		write(&w)
		for _, d := range w.Datagrams() {
			out = append(out, Notification{group, d, own})
		}
	}
	group := func(family, four, six int) int {
		if family == unix.AF_INET {
			return four
		}
		return six
	}
	for i := range next.Interfaces {
		n := &next.Interfaces[i]
		o := byIndex(old, n.Index)
		if o == nil || o.Name != n.Name || o.MTU != n.MTU || o.Up != n.Up || !bytes.Equal(o.MAC, n.MAC) || o.TxQueue != n.TxQueue || o.Flipped != n.Flipped {
			r := request{state: next, body: []byte{unix.AF_UNSPEC}}
			tell(unix.RTNLGRP_LINK, func(w *nlmsg.Writer) { r.link(w, n, 0) })
		}
	}
	addrs := func(in, notIn stacks.State, typ uint16) {
		for i := range in.Interfaces {
			ifc := &in.Interfaces[i]
			have := make(map[netip.Prefix]stacks.AddrInfo)
			if o := byIndex(notIn, ifc.Index); o != nil {
				for _, p := range o.Addrs {
					have[p] = o.Info[p]
				}
			}
			for n, p := range ifc.Addrs {
				info, there := have[p]
				if !there || typ == unix.RTM_NEWADDR && info != ifc.Info[p] {
					g := group(familyOf(p.Addr()), unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
					tell(g, func(w *nlmsg.Writer) { address(w, typ, ifc, n, 0) })
				}
			}
		}
	}
	addrs(old, next, unix.RTM_DELADDR)
	addrs(next, old, unix.RTM_NEWADDR)
	before, after := entries(old), entries(next)
	routes := func(in, notIn []entry, typ, flags uint16) {
		have := make(map[entry]bool, len(notIn))
		for _, x := range notIn {
			have[x] = true
		}
		for _, x := range in {
			if !have[x] {
				g := group(familyOf(x.dst.Addr()), unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
				tell(g, func(w *nlmsg.Writer) { x.write(w, typ, flags) })
			}
		}
	}
	neighbourNews(old.Neighbours, next.Neighbours, by.Type == unix.RTM_DELNEIGH, func(typ uint16, n stacks.Neighbour) {
		tell(unix.RTNLGRP_NEIGH, func(w *nlmsg.Writer) { writeNeighbour(w, next, n, typ, 0) })
	})
	rules := func(in, notIn stacks.State, typ uint16) {
		have := make(map[stacks.Rule]int)
		for _, rule := range notIn.Policy() {
			have[rule]++
		}
		for _, rule := range in.Policy() {
			if have[rule]--; have[rule] < 0 {
				tell(group(rule.Family, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE), func(w *nlmsg.Writer) { writeRule(w, next, rule, typ, 0) })
			}
		}
	}
	rules(old, next, unix.RTM_DELRULE)
	rules(next, old, unix.RTM_NEWRULE)
	routes(before, after, unix.RTM_DELROUTE, 0)
	routes(after, before, unix.RTM_NEWROUTE, unix.NLM_F_EXCL|unix.NLM_F_CREATE)
	for i := range old.Interfaces {
		if o := &old.Interfaces[i]; byIndex(next, o.Index) == nil {
			r := request{state: old, body: []byte{unix.AF_UNSPEC}}
			tell(unix.RTNLGRP_LINK, func(w *nlmsg.Writer) { r.linkMessage(w, unix.RTM_DELLINK, o, 0) })
		}
	}
	return out
}

// tells reports whether what a group is told is what o asked for.
func (o Origin) tells(group int) bool {
	switch group {
	case unix.RTNLGRP_LINK:
		return o.Type == unix.RTM_NEWLINK || o.Type == unix.RTM_SETLINK || o.Type == unix.RTM_DELLINK
	case unix.RTNLGRP_IPV4_IFADDR:
		return o.Type == unix.RTM_NEWADDR || o.Type == unix.RTM_DELADDR
	case unix.RTNLGRP_NEIGH:
		return o.Type == unix.RTM_NEWNEIGH || o.Type == unix.RTM_DELNEIGH
	case unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE:
		return o.Type == unix.RTM_NEWRULE || o.Type == unix.RTM_DELRULE
	case unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE:
		return o.Type == unix.RTM_NEWROUTE || o.Type == unix.RTM_DELROUTE
	}
	return false
}
