// SPDX-License-Identifier: Apache-2.0

// Rules of the routing policy: those that the kernel starts with, and no others.

package rtnetlink

import (
	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
)

// rules dumps the routing policy of a machine where nobody changed it.
func (r *request) rules(w *nlmsg.Writer) {
	const (
		fraSuppress = 14 // FRA_SUPPRESS_PREFIXLEN
		fraProtocol = 21
		toTable     = 1 // FR_ACT_TO_TBL
	)
	for _, rule := range []struct {
		family   int
		table    uint8
		priority uint32
	}{
		{unix.AF_INET, unix.RT_TABLE_LOCAL, 0},
		{unix.AF_INET, unix.RT_TABLE_MAIN, 32766},
		{unix.AF_INET, unix.RT_TABLE_DEFAULT, 32767},
		{unix.AF_INET6, unix.RT_TABLE_LOCAL, 0},
		{unix.AF_INET6, unix.RT_TABLE_MAIN, 32766},
	} {
		if !r.wants(rule.family) {
			continue
		}
		w.Begin(unix.RTM_NEWRULE, unix.NLM_F_MULTI)
		w.U8(uint8(rule.family), 0, 0, 0, rule.table, 0, 0, toTable)
		w.U32(0)
		w.AttrU32(unix.FRA_TABLE, uint32(rule.table))
		w.AttrU32(fraSuppress, ^uint32(0))
		w.AttrU8(fraProtocol, unix.RTPROT_KERNEL)
		if rule.priority != 0 {
			w.AttrU32(unix.FRA_PRIORITY, rule.priority)
		}
		w.End()
	}
}

// changeRule refuses: what a rule says would not be done. One that is to be deleted
// and is none of the kernel's own is not there.
func (r *request) changeRule() *nlmsg.Failure {
	if len(r.body) < unix.SizeofRtMsg { // struct fib_rule_hdr is as long
		return nlmsg.Fail(unix.EINVAL, "Invalid msg length")
	}
	attrs := r.attrs(unix.SizeofRtMsg)
	selects := r.body[1] != 0 || r.body[2] != 0 // a destination or a source
	for _, typ := range []uint16{unix.FRA_FWMARK, unix.FRA_IIFNAME, unix.FRA_OIFNAME} {
		selects = selects || attrs[typ] != nil
	}
	if r.typ == unix.RTM_DELRULE && selects {
		return nlmsg.Fail(unix.ENOENT, "")
	}
	return nlmsg.Fail(unix.EOPNOTSUPP, "rules are not supported")
}
