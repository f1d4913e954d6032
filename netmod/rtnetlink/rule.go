// SPDX-License-Identifier: Apache-2.0

// Rules of the routing policy: RTM_GETRULE, RTM_NEWRULE, RTM_DELRULE, as
// net/core/fib_rules.c has them.

package rtnetlink

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/stacks"
)

// Attributes of rules that golang.org/x/sys lacks, linux/fib_rules.h.
const (
	fraTunID       = 12
	fraSuppressGrp = 13
	fraSuppressLen = 14
	fraL3MDev      = 19
	fraUIDRange    = 20
	fraProtocol    = 21
	fraIPProto     = 22
	fraSPortRange  = 23
	fraDPortRange  = 24
	fraDSCP        = 25
	fraFlowLabel   = 26
	fraFlowMask    = 27
	fraSPortMask   = 28
	fraDPortMask   = 29
	fraDSCPMask    = 30
	fraMax         = 30
)

// Flags of rules.
const (
	ruleInvert      = 0x2
	ruleUnresolved  = 0x4
	ruleInDetached  = 0x8
	ruleOutDetached = 0x10
)

const ruleHdrLen = 12 // struct fib_rule_hdr

// rules dumps the routing policy.
func (r *request) rules(w *nlmsg.Writer) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		if !r.wants(family) {
			continue
		}
		for _, rule := range r.state.Policy() {
			if rule.Family == family {
				writeRule(w, r.state, rule, unix.RTM_NEWRULE, unix.NLM_F_MULTI)
			}
		}
	}
}

// writeRule is fib_nl_fill_rule.
func writeRule(w *nlmsg.Writer, s stacks.State, r stacks.Rule, typ, msgFlags uint16) {
	flags := uint32(0)
	if r.Not {
		flags |= ruleInvert
	}
	if r.Action == stacks.RuleGoto && !slices.ContainsFunc(s.Policy(), func(o stacks.Rule) bool { return o.Family == r.Family && o.Priority == r.Target }) {
		flags |= ruleUnresolved
	}
	if r.In != "" && byName(s, r.In) == nil {
		flags |= ruleInDetached
	}
	if r.Out != "" && byName(s, r.Out) == nil {
		flags |= ruleOutDetached
	}
	bits := func(p netip.Prefix) uint8 { return uint8(max(0, p.Bits())) }
	w.Begin(typ, msgFlags)
	w.U8(uint8(r.Family), bits(r.Dst), bits(r.Src), 0, shortTable(uint32(r.Table)), 0, 0, uint8(r.Action))
	w.U32(flags)
	w.AttrU32(unix.FRA_TABLE, uint32(r.Table))
	w.AttrU32(fraSuppressLen, uint32(r.SuppressLen))
	w.AttrU8(fraProtocol, r.Origin)
	if r.In != "" {
		w.AttrString(unix.FRA_IIFNAME, r.In)
	}
	if r.Out != "" {
		w.AttrString(unix.FRA_OIFNAME, r.Out)
	}
	if r.Priority != 0 {
		w.AttrU32(unix.FRA_PRIORITY, r.Priority)
	}
	if r.Mark != 0 {
		w.AttrU32(unix.FRA_FWMARK, r.Mark)
	}
	if r.Mark != 0 || r.Mask != 0 {
		w.AttrU32(unix.FRA_FWMASK, r.Mask)
	}
	if r.Target != 0 {
		w.AttrU32(unix.FRA_GOTO, r.Target)
	}
	if r.UIDs.Set {
		w.Attr(fraUIDRange, binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, r.UIDs.First), r.UIDs.Last))
	}
	writePorts(w, r.SPort, fraSPortRange, fraSPortMask)
	writePorts(w, r.DPort, fraDPortRange, fraDPortMask)
	if r.Proto != 0 {
		w.AttrU8(fraIPProto, r.Proto)
	}
	if r.SuppressGroup != -1 {
		w.AttrU32(fraSuppressGrp, uint32(r.SuppressGroup))
	}
	if r.Dst.Bits() > 0 {
		w.AttrAddr(unix.FRA_DST, r.Dst.Addr())
	}
	if r.Src.Bits() > 0 {
		w.AttrAddr(unix.FRA_SRC, r.Src.Addr())
	}
	w.End()
}

func writePorts(w *nlmsg.Writer, p stacks.Ports, attrRange, attrMask uint16) {
	if p == (stacks.Ports{}) {
		return
	}
	w.Attr(attrRange, binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, p.First), p.Last))
	if p.Mask != 0 {
		w.Attr(attrMask, binary.NativeEndian.AppendUint16(nil, p.Mask))
	}
}

// changeRule adds or removes a rule.
func (r *request) changeRule(e *editor) *nlmsg.Failure {
	if len(r.body) < ruleHdrLen {
		return nlmsg.Fail(unix.EINVAL, "Invalid msg length")
	}
	if family := r.family(); family != unix.AF_INET && family != unix.AF_INET6 {
		return nlmsg.Fail(unix.EAFNOSUPPORT, "Rule family not supported")
	}
	rule, attrs, f := r.rule()
	switch {
	case f != nil:
		return f
	case r.typ == unix.RTM_DELRULE:
		return r.removeRule(e, rule, attrs)
	}
	return r.addRule(e, rule, attrs)
}

// fixedSizes are the lengths of attributes of a fixed one (fib_rule_policy).
var fixedSizes = map[uint16]int{
	unix.FRA_PRIORITY: 4, unix.FRA_FWMARK: 4, unix.FRA_FWMASK: 4, unix.FRA_TABLE: 4, unix.FRA_GOTO: 4, unix.FRA_FLOW: 4,
	fraSuppressLen: 4, fraSuppressGrp: 4, fraTunID: 8, fraL3MDev: 1, fraUIDRange: 8, fraProtocol: 1, fraIPProto: 1,
	fraSPortRange: 4, fraDPortRange: 4, fraDSCP: 1, fraFlowLabel: 4, fraFlowMask: 4, fraSPortMask: 2, fraDPortMask: 2, fraDSCPMask: 1,
}

// rule reads a request: fib_nl2rule. What no packet of the view's is looked at for is
// refused.
func (r *request) rule() (rule stacks.Rule, attrs map[uint16][]byte, _ *nlmsg.Failure) {
	attrs = r.attrs(ruleHdrLen)
	for typ, n := range fixedSizes {
		if a, ok := attrs[typ]; ok && len(a) < n {
			return rule, nil, nlmsg.Fail(unix.ERANGE, "Attribute failed policy validation")
		}
	}
	fail := func(text string) (stacks.Rule, map[uint16][]byte, *nlmsg.Failure) {
		return rule, nil, nlmsg.Fail(unix.EINVAL, text)
	}
	family := r.family()
	rule = stacks.Rule{
		Family: family, Priority: attrU32(attrs[unix.FRA_PRIORITY]), Not: attrU32(r.body[8:])&ruleInvert != 0,
		In: attrString(attrs[unix.FRA_IIFNAME]), Out: attrString(attrs[unix.FRA_OIFNAME]), Mark: attrU32(attrs[unix.FRA_FWMARK]),
		Action: int(r.body[7]), Table: int(r.body[4]), SuppressLen: -1, SuppressGroup: -1,
	}
	prefix := func(bits uint8, typ uint16) (p netip.Prefix, ok bool) {
		if bits == 0 {
			return p, true
		}
		a, ok := attrAddr(attrs[typ], family)
		if !ok || !a.IsValid() || int(bits) > a.BitLen() {
			return p, false
		}
		return netip.PrefixFrom(a, int(bits)), true
	}
	var ok bool
	if rule.Src, ok = prefix(r.body[2], unix.FRA_SRC); !ok {
		return fail("Invalid source address")
	}
	if rule.Dst, ok = prefix(r.body[1], unix.FRA_DST); !ok {
		return fail("Invalid dst address")
	}
	for _, name := range []string{rule.In, rule.Out} {
		if len(name) >= unix.IFNAMSIZ {
			return rule, nil, nlmsg.Fail(unix.ERANGE, "Attribute failed policy validation")
		}
	}
	if rule.Mark != 0 {
		rule.Mask = ^uint32(0)
	}
	if a := attrs[unix.FRA_FWMASK]; a != nil {
		rule.Mask = attrU32(a)
	}
	if a := attrs[unix.FRA_TABLE]; a != nil {
		rule.Table = int(attrU32(a))
	}
	if a := attrs[fraSuppressLen]; a != nil {
		rule.SuppressLen = int(int32(attrU32(a)))
	}
	if a := attrs[fraSuppressGrp]; a != nil {
		rule.SuppressGroup = int(int32(attrU32(a)))
	}
	for typ, to := range map[uint16]*uint8{fraProtocol: &rule.Origin, fraIPProto: &rule.Proto} {
		if a := attrs[typ]; a != nil {
			*to = a[0]
		}
	}
	switch target, is := attrs[unix.FRA_GOTO], rule.Action == stacks.RuleGoto; {
	case target != nil && !is:
		return fail("Unexpected goto")
	case target == nil && is:
		return fail("Missing goto target for action goto")
	case is:
		rule.Target = attrU32(target)
	}
	if a := attrs[fraUIDRange]; a != nil {
		rule.UIDs = stacks.Range{Set: true, First: attrU32(a), Last: attrU32(a[4:])}
		if rule.UIDs.First > rule.UIDs.Last || rule.UIDs.Last == ^uint32(0) {
			return fail("Invalid uid range")
		}
	}
	if rule.SPort, ok = ports(attrs[fraSPortRange], attrs[fraSPortMask]); !ok {
		return fail("Invalid sport range")
	}
	if rule.DPort, ok = ports(attrs[fraDPortRange], attrs[fraDPortMask]); !ok {
		return fail("Invalid dport range")
	}
	return rule, attrs, nil
}

// ports reads a range of ports and its mask.
func ports(span, mask []byte) (p stacks.Ports, ok bool) {
	switch {
	case span == nil:
		return p, mask == nil
	default:
		p.First, p.Last = binary.NativeEndian.Uint16(span), binary.NativeEndian.Uint16(span[2:])
	}
	if p.First == 0 || p.Last == 0xffff || p.First > p.Last { // fib_rule_port_range_valid
		return p, false
	}
	if mask != nil {
		p.Mask = binary.NativeEndian.Uint16(mask)
		return p, p.First == p.Last && p.Mask != 0 && p.First&^p.Mask == 0
	}
	if p.First == p.Last {
		p.Mask = 0xffff
	}
	return p, true
}

// addRule is fib_newrule.
func (r *request) addRule(e *editor, rule stacks.Rule, attrs map[uint16][]byte) *nlmsg.Failure {
	four := rule.Family == unix.AF_INET
	policy := e.Policy()
	if attrs[unix.FRA_PRIORITY] == nil {
		rule.Priority = defaultPriority(policy, rule.Family)
	}
	if rule.Action == stacks.RuleGoto && rule.Target <= rule.Priority {
		return nlmsg.Fail(unix.EINVAL, "Backward goto not supported")
	}
	if r.flags&unix.NLM_F_EXCL != 0 && slices.Contains(policy, rule) {
		return nlmsg.Fail(unix.EEXIST, "")
	}
	for typ, what := range map[uint16]string{
		fraTunID: "tunnels", fraL3MDev: "l3mdev", unix.FRA_FLOW: "realms", fraDSCP: "dscp", fraFlowLabel: "flow labels",
	} {
		if a := attrs[typ]; a != nil && slices.ContainsFunc(a, func(b byte) bool { return b != 0 }) {
			return nlmsg.Fail(unix.EOPNOTSUPP, "rules do not look at "+what)
		}
	}
	if r.body[3] != 0 {
		return nlmsg.Fail(unix.EOPNOTSUPP, "rules do not look at tos")
	}
	if attrU32(r.body[8:])&^(ruleInvert|ruleUnresolved|ruleInDetached|ruleOutDetached) != 0 {
		return nlmsg.Fail(unix.EOPNOTSUPP, "unsupported flags")
	}
	if rule.Action == stacks.RuleToTable {
		switch {
		case rule.Table == 0 && !four:
			return nlmsg.Fail(unix.EINVAL, "Invalid table")
		case rule.Table == 0:
			rule.Table = e.emptyTable()
			e.haveTable(unix.AF_INET, rule.Table)
		case !four:
			e.haveTable(unix.AF_INET6, rule.Table)
		}
	}
	e.Rules = slices.Clone(policy)
	at := len(policy)
	for i, o := range policy {
		if o.Family > rule.Family || o.Family == rule.Family && o.Priority > rule.Priority {
			at = i
			break
		}
	}
	e.Rules = slices.Insert(e.Rules, at, rule)
	return nil
}

// defaultPriority is fib_default_rule_pref: that of the second rule, less one.
func defaultPriority(policy []stacks.Rule, family int) uint32 {
	n := 0
	for _, r := range policy {
		if r.Family != family {
			continue
		}
		if n++; n == 2 {
			return max(r.Priority, 1) - 1
		}
	}
	return 0
}

// haveTable notes that a table exists.
func (e *editor) haveTable(family, id int) {
	t := stacks.Table{Family: family, ID: id}
	if id != unix.RT_TABLE_MAIN && id != unix.RT_TABLE_LOCAL && !slices.Contains(e.Tables, t) {
		e.Tables = append(e.Tables, t)
	}
}

// emptyTable is fib_empty_table: the first number that no table of IPv4 has.
func (e *editor) emptyTable() int {
	id := 1
	for slices.Contains(e.Tables, stacks.Table{Family: unix.AF_INET, ID: id}) || id == unix.RT_TABLE_MAIN || id == unix.RT_TABLE_LOCAL {
		id++
	}
	return id
}

// removeRule is fib_delrule: the first rule goes that has what the request says
// (rule_find).
func (r *request) removeRule(e *editor, want stacks.Rule, attrs map[uint16][]byte) *nlmsg.Failure {
	same := func(o stacks.Rule) bool {
		has := func(typ uint16) bool { return attrs[typ] != nil }
		return o.Family == want.Family &&
			(want.Action == 0 || o.Action == want.Action) &&
			(want.Table == 0 || o.Table == want.Table) &&
			(!has(unix.FRA_PRIORITY) || o.Priority == want.Priority) &&
			(want.In == "" || o.In == want.In) &&
			(want.Out == "" || o.Out == want.Out) &&
			(want.Mark == 0 || o.Mark == want.Mark) &&
			(want.Mask == 0 || o.Mask == want.Mask) &&
			(want.SuppressGroup == -1 || o.SuppressGroup == want.SuppressGroup) &&
			(want.SuppressLen == -1 || o.SuppressLen == want.SuppressLen) &&
			(!want.UIDs.Set || o.UIDs == want.UIDs) &&
			(want.Origin == 0 || o.Origin == want.Origin) &&
			(want.Proto == 0 || o.Proto == want.Proto) &&
			(want.SPort == stacks.Ports{} || o.SPort == want.SPort) &&
			(want.DPort == stacks.Ports{} || o.DPort == want.DPort) &&
			(want.Src.Bits() <= 0 || o.Src == want.Src) &&
			(want.Dst.Bits() <= 0 || o.Dst == want.Dst) &&
			r.body[3] == 0 && attrU32(attrs[unix.FRA_FLOW]) == 0 && !has(fraTunID) && !has(fraDSCP) && !has(fraFlowLabel) &&
			(!has(fraL3MDev) || attrs[fraL3MDev][0] == 0)
	}
	policy := e.Policy()
	i := slices.IndexFunc(policy, same)
	if i < 0 {
		return nlmsg.Fail(unix.ENOENT, "")
	}
	e.Rules = slices.Delete(slices.Clone(policy), i, i+1)
	return nil
}
