// SPDX-License-Identifier: Apache-2.0

// Level SOL_NETLINK.

package sockapi

import "golang.org/x/sys/unix"

var solNetlink = []Option{
	{Name: "NETLINK_ADD_MEMBERSHIP", Number: unix.NETLINK_ADD_MEMBERSHIP, Access: Set, Support: Part, Gap: "of NETLINK_ROUTE"},
	{Name: "NETLINK_DROP_MEMBERSHIP", Number: unix.NETLINK_DROP_MEMBERSHIP, Access: Set, Support: Part, Gap: "of NETLINK_ROUTE"},
	{Name: "NETLINK_PKTINFO", Number: unix.NETLINK_PKTINFO, Access: Both, Support: Full},
	{Name: "NETLINK_BROADCAST_ERROR", Number: unix.NETLINK_BROADCAST_ERROR, Access: Both, Support: Kept},
	{Name: "NETLINK_NO_ENOBUFS", Number: unix.NETLINK_NO_ENOBUFS, Access: Both, Support: Kept},
	{Name: "NETLINK_LISTEN_ALL_NSID", Number: unix.NETLINK_LISTEN_ALL_NSID, Access: Both, Support: Full, Gap: capability},
	{Name: "NETLINK_LIST_MEMBERSHIPS", Number: unix.NETLINK_LIST_MEMBERSHIPS, Access: Get, Shape: Opaque, Support: Part, Gap: "of NETLINK_ROUTE"},
	{Name: "NETLINK_CAP_ACK", Number: unix.NETLINK_CAP_ACK, Access: Both, Support: Full},
	{Name: "NETLINK_EXT_ACK", Number: unix.NETLINK_EXT_ACK, Access: Both, Support: Full},
	{Name: "NETLINK_GET_STRICT_CHK", Number: unix.NETLINK_GET_STRICT_CHK, Access: Both, Support: Full},
}
