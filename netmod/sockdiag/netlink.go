// SPDX-License-Identifier: Apache-2.0

// Netlink sockets: net/netlink/diag.c.

package sockdiag

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
)

// Layouts and numbers of linux/netlink_diag.h.
const (
	netlinkReqLen   = 20  // struct netlink_diag_req
	netlinkAll      = 255 // NDIAG_PROTO_ALL
	netlinkMaxLinks = 32  // MAX_LINKS

	showMemory = 1 // NDIAG_SHOW_MEMINFO
	showGroups = 2 // NDIAG_SHOW_GROUPS
	showFlags  = 8 // NDIAG_SHOW_FLAGS

	netlinkMemory = 0 // NETLINK_DIAG_MEMINFO
	netlinkGroups = 1 // NETLINK_DIAG_GROUPS
	netlinkFlags  = 4 // NETLINK_DIAG_FLAGS
)

// A Netlink is one netlink socket.
type Netlink struct {
	Type     int // SOCK_RAW or SOCK_DGRAM
	Protocol int // NETLINK_*
	Port     uint32
	Groups   uint64 // bit n is group n+1
	Cookie   uint64
	Inode    uint32

	RecvQ, RcvBuf, SndBuf int // bytes
}

// dumpNetlink answers struct netlink_diag_req.
func dumpNetlink(req []byte, list []Netlink, w *nlmsg.Writer) {
	proto, show := int(req[1]), binary.NativeEndian.Uint32(req[8:])
	if proto != netlinkAll && proto >= netlinkMaxLinks {
		w.DoneWith(nlmsg.Fail(unix.ENOENT, ""))
		return
	}
	for _, s := range list {
		if proto != netlinkAll && proto != s.Protocol {
			continue
		}
		w.Begin(byFamily, unix.NLM_F_MULTI)
		w.U8(unix.AF_NETLINK, uint8(s.Type), uint8(s.Protocol), Close)
		w.U32(s.Port)
		w.U32(0) // the peer's port and group: the kernel
		w.U32(0)
		w.U32(s.Inode)
		w.U64(s.Cookie)
		if show&showGroups != 0 && s.Groups != 0 {
			w.Attr(netlinkGroups, binary.NativeEndian.AppendUint64(nil, s.Groups))
		}
		if show&showMemory != 0 {
			w.Attr(netlinkMemory, memory(s.RecvQ, s.RcvBuf, 0, s.SndBuf))
		}
		if show&showFlags != 0 {
			w.AttrU32(netlinkFlags, 0)
		}
		w.End()
	}
	w.Done()
}
