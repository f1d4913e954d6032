// SPDX-License-Identifier: Apache-2.0

// Rules of the routing policy: which tables a packet is looked up in, and in what
// order.

package stacks

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// Actions of rules, FR_ACT_* of linux/fib_rules.h.
const (
	RuleToTable     = 1
	RuleGoto        = 2
	RuleNop         = 3
	RuleBlackhole   = 6
	RuleUnreachable = 7
	RuleProhibit    = 8
)

// A Rule is an entry of the routing policy, ip-rule(8): what it says of a packet
// holds if all its selectors match, and whose zero value matches all. Rules of a family are
// looked at by Priority, and as they were added.
type Rule struct {
	Family   int    // AF_INET or AF_INET6
	Priority uint32 // the lower, the earlier
	Not      bool   // it holds if a selector does not match

	// The selectors. A packet whose source is still to be chosen has none, which is
	// 0.0.0.0 in IPv4 and in no prefix in IPv6.
	Src, Dst     netip.Prefix // zero: any
	In, Out      string       // interfaces; what the view itself sends has come in by lo. Out is what the socket is bound to
	Mark, Mask   uint32       // of SO_MARK: the bits in Mask are as in Mark
	UIDs         Range        // of who made the socket
	Proto        uint8        // IPPROTO_*
	SPort, DPort Ports

	Action int    // Rule*
	Table  int    // of RuleToTable
	Target uint32 // of RuleGoto: the priority to go on at, if there is such a rule

	// What is found in Table counts only if its prefix is longer than SuppressLen, and
	// its interface not of the group SuppressGroup; negative: always. All interfaces are
	// of group 0.
	SuppressLen, SuppressGroup int

	Origin uint8 // who made the rule, RTPROT_*; only told
}

// A Range is a range of user ids; Set is false for all of them.
type Range struct {
	Set         bool
	First, Last uint32
}

// Ports is a range of ports, or with a Mask the ports that are First in its bits. The
// zero Ports is all of them.
type Ports struct {
	First, Last uint16
	Mask        uint16
}

func (p Ports) match(port uint16) bool {
	switch {
	case p == Ports{}:
		return true
	case p.First == p.Last:
		return (p.First^port)&p.Mask == 0
	}
	return p.First <= port && port <= p.Last
}

// A Flow is what rules look at of packets that the view itself sends.
type Flow struct {
	Dst          netip.Addr // without a zone, and no IPv4-mapped address
	Src          netip.Addr // the zero Addr while it is not chosen
	In, Out      string     // the loopback interface; what the socket is bound to or ""
	Mark, UID    uint32
	Proto        uint8
	SPort, DPort uint16
}

func (r *Rule) holds(f *Flow) bool { return r.match(f) != r.Not }

func (r *Rule) match(f *Flow) bool {
	src := f.Src
	if !src.IsValid() && r.Family == unix.AF_INET {
		src = netip.IPv4Unspecified()
	}
	return (!r.Dst.IsValid() || r.Dst.Contains(f.Dst)) &&
		(!r.Src.IsValid() || src.IsValid() && r.Src.Contains(src)) &&
		(r.In == "" || r.In == f.In) &&
		(r.Out == "" || r.Out == f.Out) &&
		(r.Mark^f.Mark)&r.Mask == 0 &&
		(!r.UIDs.Set || r.UIDs.First <= f.UID && f.UID <= r.UIDs.Last) &&
		(r.Proto == 0 || r.Proto == f.Proto) &&
		r.SPort.match(f.SPort) && r.DPort.match(f.DPort)
}

// DefaultRules are those that a network begins with, in the order of a dump.
func DefaultRules() []Rule {
	to := func(family, table int, priority uint32) Rule {
		return Rule{Family: family, Priority: priority, Action: RuleToTable, Table: table,
			SuppressLen: -1, SuppressGroup: -1, Origin: unix.RTPROT_KERNEL}
	}
	return []Rule{
		to(unix.AF_INET, unix.RT_TABLE_LOCAL, 0), to(unix.AF_INET, unix.RT_TABLE_MAIN, 32766), to(unix.AF_INET, unix.RT_TABLE_DEFAULT, 32767),
		to(unix.AF_INET6, unix.RT_TABLE_LOCAL, 0), to(unix.AF_INET6, unix.RT_TABLE_MAIN, 32766),
	}
}

// Policy returns the rules of s.
func (s *State) Policy() []Rule {
	if s.Rules == nil {
		return DefaultRules()
	}
	return s.Rules
}

// A Found is what a table says of a flow.
type Found[R any] struct {
	Route R
	Bits  int        // the length of its prefix
	Errno unix.Errno // 0, or what packets fail with; EAGAIN: the table has nothing to say
}

// Steer goes through rules, as fib_rules_lookup of Linux does (net/core/fib_rules.c),
// until a table that it asks look for has something to say. ENETUNREACH if none has.
func Steer[R any](rules []Rule, f *Flow, look func(table int) Found[R]) (route R, _ unix.Errno) {
	family := unix.AF_INET6
	if f.Dst.Is4() {
		family = unix.AF_INET
	}
	after := uint32(0) // of a jump: rules of lower priorities do not count
	for i := range rules {
		r := &rules[i]
		if r.Family != family || r.Priority < after || !r.holds(f) {
			continue
		}
		switch r.Action {
		case RuleGoto:
			if hasPriority(rules, family, r.Target) {
				after = r.Target
			}
			continue
		case RuleNop:
			continue
		case RuleUnreachable:
			return route, unix.ENETUNREACH
		case RuleProhibit:
			return route, unix.EACCES
		case RuleToTable:
		default:
			return route, unix.EINVAL
		}
		found := look(r.Table)
		suppressed := found.Errno == 0 && (found.Bits <= r.SuppressLen || r.SuppressGroup == 0)
		if found.Errno != unix.EAGAIN && !suppressed {
			return found.Route, found.Errno
		}
	}
	return route, unix.ENETUNREACH
}

func hasPriority(rules []Rule, family int, priority uint32) bool {
	for i := range rules {
		if rules[i].Family == family && rules[i].Priority == priority {
			return true
		}
	}
	return false
}
