// SPDX-License-Identifier: Apache-2.0

// Level IPPROTO_IP.

package sockapi

import "golang.org/x/sys/unix"

const (
	noErrQueue  = "of TCP while it connects; an established connection does not hear of soft errors"
	noIPOptions = "no IP options are sent or shown"
	noIPsec     = "no IPsec"
)

var solIP = []Option{
	{Name: "IP_TOS", Number: unix.IP_TOS, Access: Both, Support: Full},
	{Name: "IP_TTL", Number: unix.IP_TTL, Access: Both, Support: Full},
	{Name: "IP_HDRINCL", Number: unix.IP_HDRINCL, Access: Both, On: Raw4, Support: Full},
	{Name: "IP_OPTIONS", Number: unix.IP_OPTIONS, Access: Both, Shape: Bytes, Support: Refused, Errno: unix.ENOPROTOOPT, Gap: noIPOptions + "; an empty list is taken"},
	no("IP_ROUTER_ALERT", unix.IP_ROUTER_ALERT, "nothing is forwarded"),
	{Name: "IP_RECVOPTS", Number: unix.IP_RECVOPTS, Access: Both, Support: Part, Gap: noIPOptions},
	{Name: "IP_RETOPTS", Number: unix.IP_RETOPTS, Access: Both, Support: Part, Gap: noIPOptions},
	{Name: "IP_PKTINFO", Number: unix.IP_PKTINFO, Access: Both, Support: Full},
	no("IP_PKTOPTIONS", unix.IP_PKTOPTIONS, "not modelled"),
	{Name: "IP_MTU_DISCOVER", Number: unix.IP_MTU_DISCOVER, Access: Both, Support: Full},
	{Name: "IP_RECVERR", Number: unix.IP_RECVERR, Access: Both, Support: Part, Gap: noErrQueue},
	{Name: "IP_RECVTTL", Number: unix.IP_RECVTTL, Access: Both, Support: Full},
	{Name: "IP_RECVTOS", Number: unix.IP_RECVTOS, Access: Both, Support: Full},
	{Name: "IP_MTU", Number: unix.IP_MTU, Access: Get, Support: Full},
	{Name: "IP_FREEBIND", Number: unix.IP_FREEBIND, Access: Both, Support: Full},
	{Name: "IP_IPSEC_POLICY", Number: 16, Access: Set, Support: Full, Gap: capability},
	{Name: "IP_XFRM_POLICY", Number: unix.IP_XFRM_POLICY, Access: Set, Support: Full, Gap: capability},
	{Name: "IP_PASSSEC", Number: unix.IP_PASSSEC, Access: Both, Support: Kept},
	{Name: "IP_TRANSPARENT", Number: unix.IP_TRANSPARENT, Access: Both, On: Inet &^ Raw, Support: Full, Gap: capability},
	{Name: "IP_RECVORIGDSTADDR", Number: unix.IP_RECVORIGDSTADDR, Access: Both, Support: Full},
	{Name: "IP_MINTTL", Number: unix.IP_MINTTL, Access: Both, Support: Part, Gap: "packets with a lower TTL are taken"},
	{Name: "IP_NODEFRAG", Number: unix.IP_NODEFRAG, Access: Both, On: Raw4, Support: Kept},
	no("IP_CHECKSUM", unix.IP_CHECKSUM, "not modelled"),
	{Name: "IP_BIND_ADDRESS_NO_PORT", Number: unix.IP_BIND_ADDRESS_NO_PORT, Access: Both, Support: Part, Gap: "bind takes a port at once"},
	no("IP_RECVFRAGSIZE", unix.IP_RECVFRAGSIZE, "not modelled"),
	no("IP_RECVERR_RFC4884", unix.IP_RECVERR_RFC4884, "reports tell nothing of the extensions to ICMP"),
	{Name: "IP_MULTICAST_IF", Number: unix.IP_MULTICAST_IF, Access: Both, Shape: Bytes, Support: Full},
	{Name: "IP_MULTICAST_TTL", Number: unix.IP_MULTICAST_TTL, Access: Both, Support: Full},
	{Name: "IP_MULTICAST_LOOP", Number: unix.IP_MULTICAST_LOOP, Access: Both, Support: Full},
	{Name: "IP_ADD_MEMBERSHIP", Number: unix.IP_ADD_MEMBERSHIP, Access: Set, Shape: Mreq, Support: Full},
	{Name: "IP_DROP_MEMBERSHIP", Number: unix.IP_DROP_MEMBERSHIP, Access: Set, Shape: Mreq, Support: Full},
	{Name: "IP_UNBLOCK_SOURCE", Number: unix.IP_UNBLOCK_SOURCE, Access: Set, Shape: Opaque, Support: Full},
	{Name: "IP_BLOCK_SOURCE", Number: unix.IP_BLOCK_SOURCE, Access: Set, Shape: Opaque, Support: Full},
	{Name: "IP_ADD_SOURCE_MEMBERSHIP", Number: unix.IP_ADD_SOURCE_MEMBERSHIP, Access: Set, Shape: Opaque, Support: Full},
	{Name: "IP_DROP_SOURCE_MEMBERSHIP", Number: unix.IP_DROP_SOURCE_MEMBERSHIP, Access: Set, Shape: Opaque, Support: Full},
	{Name: "IP_MSFILTER", Number: unix.IP_MSFILTER, Access: Both, Shape: Opaque, Support: Full},
	{Name: "MCAST_JOIN_GROUP", Number: unix.MCAST_JOIN_GROUP, Access: Set, Shape: Mreq, On: UDP | Ping | Raw4, Support: Part, Gap: "on streams it does nothing"},
	{Name: "MCAST_BLOCK_SOURCE", Number: unix.MCAST_BLOCK_SOURCE, Access: Set, Shape: Opaque, Support: Full},
	{Name: "MCAST_UNBLOCK_SOURCE", Number: unix.MCAST_UNBLOCK_SOURCE, Access: Set, Shape: Opaque, Support: Full},
	{Name: "MCAST_LEAVE_GROUP", Number: unix.MCAST_LEAVE_GROUP, Access: Set, Shape: Mreq, On: UDP | Ping | Raw4, Support: Part, Gap: "on streams it does nothing"},
	{Name: "MCAST_JOIN_SOURCE_GROUP", Number: unix.MCAST_JOIN_SOURCE_GROUP, Access: Set, Shape: Opaque, Support: Full},
	{Name: "MCAST_LEAVE_SOURCE_GROUP", Number: unix.MCAST_LEAVE_SOURCE_GROUP, Access: Set, Shape: Opaque, Support: Full},
	{Name: "MCAST_MSFILTER", Number: unix.MCAST_MSFILTER, Access: Both, Shape: Opaque, Support: Full},
	{Name: "IP_MULTICAST_ALL", Number: unix.IP_MULTICAST_ALL, Access: Both, Support: Full},
	{Name: "IP_UNICAST_IF", Number: unix.IP_UNICAST_IF, Access: Both, Support: Part, Gap: "of UDP and ICMP, for datagrams that are sent to an address"},
	no("IP_LOCAL_PORT_RANGE", unix.IP_LOCAL_PORT_RANGE, "not modelled"),
	{Name: "IP_PROTOCOL", Number: unix.IP_PROTOCOL, Access: Get, Shape: Varying, Support: Full},
}
