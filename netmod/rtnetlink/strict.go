// SPDX-License-Identifier: Apache-2.0

// Dumps that are asked for under NETLINK_GET_STRICT_CHK: what a request may say.

package rtnetlink

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
)

// A form is what requests for a dump look like.
type form struct {
	length int    // of the header, bytes
	zero   [2]int // of the header, what must be zero: from, to
	also   [2]int // likewise, a second range
	header string // what is said of a header that is too short
	values string // and of one that is not zero
	attrs  map[uint16]int
	most   uint16 // the highest attribute that there is
	attr   string // what is said of another one
}

// forms are those of the kernel's functions named *_valid_dump_*.
var forms = map[uint16]form{
	unix.RTM_GETLINK: {
		length: unix.SizeofIfInfomsg, zero: [2]int{1, 4}, also: [2]int{8, 16}, header: "Invalid header for link dump", values: "Invalid values in header for link dump request",
		attrs: map[uint16]int{unix.IFLA_MASTER: 4, unix.IFLA_LINKINFO: 0, unix.IFLA_EXT_MASK: 4}, most: 69,
		attr: "Unsupported attribute in link dump request",
	},
	unix.RTM_GETADDR: {
		length: unix.SizeofIfAddrmsg, zero: [2]int{1, 4}, header: "Invalid header for address dump request", values: "Invalid values in header for address dump request",
		most: 11, attr: "Unsupported attribute in dump request",
	},
	unix.RTM_GETROUTE: {
		length: unix.SizeofRtMsg, zero: [2]int{1, 4}, also: [2]int{6, 7}, header: "Invalid header for FIB dump request", values: "Invalid values in header for FIB dump request",
		attrs: map[uint16]int{unix.RTA_TABLE: 4, unix.RTA_OIF: 4}, most: 31, attr: "Unsupported attribute in dump request",
	},
	unix.RTM_GETRULE: {
		length: ruleHdrLen, zero: [2]int{1, 12}, header: "Invalid header for fib rule dump request", values: "Invalid values in header for fib rule dump request",
	},
	unix.RTM_GETNEIGH: {
		length: ndmsgLen, zero: [2]int{1, 10}, also: [2]int{11, 12}, header: "Invalid header for neighbor dump request", values: "Invalid values in header for neighbor dump request",
		attrs: map[uint16]int{unix.NDA_IFINDEX: 4, unix.NDA_MASTER: 4}, most: 16, attr: "Unsupported attribute in neighbor dump request",
	},
}

// strict judges a request for a dump. The errno is the kernel's, the words are not in all
// cases: they name the family in some.
func (r *request) strict() *nlmsg.Failure {
	f, ok := forms[r.typ]
	if !ok || !r.opts.Strict {
		return nil
	}
	zero := func(in [2]int) bool { return len(bytes.Trim(r.body[in[0]:in[1]], "\x00")) == 0 }
	switch {
	case len(r.body) < f.length:
		return nlmsg.Fail(unix.EINVAL, f.header)
	case !zero(f.zero) || !zero(f.also):
		return nlmsg.Fail(unix.EINVAL, f.values)
	case r.typ == unix.RTM_GETLINK && attrU32(r.body[4:]) != 0:
		return nlmsg.Fail(unix.EINVAL, "Filter by device index not supported for link dumps")
	case r.typ == unix.RTM_GETROUTE && attrU32(r.body[8:])&^(cloned|rtmPrefix) != 0:
		return nlmsg.Fail(unix.EINVAL, "Invalid flags for FIB dump request")
	case r.typ == unix.RTM_GETNEIGH && r.body[10]&^unix.NTF_PROXY != 0:
		return nlmsg.Fail(unix.EINVAL, "Invalid flags in header for neighbor dump request")
	case r.typ == unix.RTM_GETRULE && len(r.body) > f.length:
		return nlmsg.Fail(unix.EINVAL, "Invalid data after header in fib rule dump request")
	}
	var unknown *nlmsg.Failure
	b := r.body[f.length:]
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			break
		}
		typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		least, known := f.attrs[typ]
		known = known && !(r.typ == unix.RTM_GETLINK && r.family() == unix.AF_INET6) // inet6_valid_dump_ifinfo
		switch {
		case typ > f.most:
			return nlmsg.Fail(unix.EINVAL, "Unknown attribute type")
		case size-unix.SizeofRtAttr < least:
			return nlmsg.Fail(unix.ERANGE, "Attribute failed policy validation")
		case typ == unix.IFLA_LINKINFO && r.typ == unix.RTM_GETLINK && size > unix.SizeofRtAttr && size < 2*unix.SizeofRtAttr:
			return nlmsg.Fail(unix.ERANGE, "Attribute failed policy validation") // no attribute fits into it
		case !known && unknown == nil:
			unknown = nlmsg.Fail(unix.EINVAL, f.attr)
		}
		b = b[min(len(b), nlmsg.Align(size)):]
	}
	if len(b) > 0 {
		return nlmsg.Fail(unix.EINVAL, "bytes leftover after parsing attributes")
	}
	if unknown == nil && r.typ == unix.RTM_GETADDR {
		if index := int(attrU32(r.body[4:])); index != 0 && byIndex(r.state, index) == nil {
			return nlmsg.Fail(unix.ENODEV, "")
		}
	}
	return unknown
}

const rtmPrefix = 0x800 // RTM_F_PREFIX
