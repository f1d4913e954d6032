// SPDX-License-Identifier: Apache-2.0

// Level IPPROTO_IPV6.

package sockapi

import "golang.org/x/sys/unix"

const (
	noExtension = "no extension headers are sent or shown"
	obsolete    = "of RFC 2292, replaced by RFC 3542"
)

var solIPv6 = []Option{
	no("IPV6_ADDRFORM", unix.IPV6_ADDRFORM, "a socket keeps its family"),
	{Name: "IPV6_2292PKTINFO", Number: unix.IPV6_2292PKTINFO, Access: Both, Support: Full},
	no("IPV6_2292HOPOPTS", unix.IPV6_2292HOPOPTS, obsolete),
	no("IPV6_2292DSTOPTS", unix.IPV6_2292DSTOPTS, obsolete),
	no("IPV6_2292RTHDR", unix.IPV6_2292RTHDR, obsolete),
	no("IPV6_2292PKTOPTIONS", unix.IPV6_2292PKTOPTIONS, obsolete),
	{Name: "IPV6_CHECKSUM", Number: unix.IPV6_CHECKSUM, Access: Both, On: Raw6, Support: Full},
	{Name: "IPV6_2292HOPLIMIT", Number: unix.IPV6_2292HOPLIMIT, Access: Both, Support: Full},
	no("IPV6_NEXTHOP", unix.IPV6_NEXTHOP, noExtension),
	no("IPV6_AUTHHDR", unix.IPV6_AUTHHDR, noIPsec),
	no("IPV6_FLOWINFO", 11, "no flow labels"),
	{Name: "IPV6_UNICAST_HOPS", Number: unix.IPV6_UNICAST_HOPS, Access: Both, Support: Full},
	{Name: "IPV6_MULTICAST_IF", Number: unix.IPV6_MULTICAST_IF, Access: Both, Support: Full},
	{Name: "IPV6_MULTICAST_HOPS", Number: unix.IPV6_MULTICAST_HOPS, Access: Both, Support: Full},
	{Name: "IPV6_MULTICAST_LOOP", Number: unix.IPV6_MULTICAST_LOOP, Access: Both, Support: Full},
	{Name: "IPV6_ADD_MEMBERSHIP", Number: unix.IPV6_JOIN_GROUP, Access: Set, Shape: Mreq, Support: Full},
	{Name: "IPV6_DROP_MEMBERSHIP", Number: unix.IPV6_LEAVE_GROUP, Access: Set, Shape: Mreq, Support: Full},
	no("IPV6_ROUTER_ALERT", unix.IPV6_ROUTER_ALERT, "nothing is forwarded"),
	{Name: "IPV6_MTU_DISCOVER", Number: unix.IPV6_MTU_DISCOVER, Access: Both, Support: Full},
	{Name: "IPV6_MTU", Number: unix.IPV6_MTU, Access: Both, Support: Part, Gap: "setting it does not make fragments smaller"},
	{Name: "IPV6_RECVERR", Number: unix.IPV6_RECVERR, Access: Both, Support: Part, Gap: noErrQueue},
	{Name: "IPV6_V6ONLY", Number: unix.IPV6_V6ONLY, Access: Both, Support: Full},
	no("IPV6_JOIN_ANYCAST", unix.IPV6_JOIN_ANYCAST, "no anycast addresses"),
	no("IPV6_LEAVE_ANYCAST", unix.IPV6_LEAVE_ANYCAST, "no anycast addresses"),
	{Name: "IPV6_MULTICAST_ALL", Number: unix.IPV6_MULTICAST_ALL, Access: Both, Support: Full},
	no("IPV6_ROUTER_ALERT_ISOLATE", unix.IPV6_ROUTER_ALERT_ISOLATE, "nothing is forwarded"),
	no("IPV6_RECVERR_RFC4884", unix.IPV6_RECVERR_RFC4884, "reports tell nothing of the extensions to ICMP"),
	no("IPV6_FLOWLABEL_MGR", 32, "no flow labels"),
	no("IPV6_FLOWINFO_SEND", 33, "no flow labels"),
	no("IPV6_IPSEC_POLICY", unix.IPV6_IPSEC_POLICY, noIPsec),
	no("IPV6_XFRM_POLICY", unix.IPV6_XFRM_POLICY, noIPsec),
	{Name: "IPV6_HDRINCL", Number: unix.IPV6_HDRINCL, Access: Both, On: Raw6, Support: Full},
	{Name: "MCAST_JOIN_GROUP", Number: unix.MCAST_JOIN_GROUP, Access: Set, Shape: Mreq, On: UDP6 | Ping6 | Raw6, Support: Part, Gap: "on streams it does nothing"},
	{Name: "MCAST_BLOCK_SOURCE", Number: unix.MCAST_BLOCK_SOURCE, Access: Set, Shape: Opaque, Support: Full},
	{Name: "MCAST_UNBLOCK_SOURCE", Number: unix.MCAST_UNBLOCK_SOURCE, Access: Set, Shape: Opaque, Support: Full},
	{Name: "MCAST_LEAVE_GROUP", Number: unix.MCAST_LEAVE_GROUP, Access: Set, Shape: Mreq, On: UDP6 | Ping6 | Raw6, Support: Part, Gap: "on streams it does nothing"},
	{Name: "MCAST_JOIN_SOURCE_GROUP", Number: unix.MCAST_JOIN_SOURCE_GROUP, Access: Set, Shape: Opaque, Support: Full},
	{Name: "MCAST_LEAVE_SOURCE_GROUP", Number: unix.MCAST_LEAVE_SOURCE_GROUP, Access: Set, Shape: Opaque, Support: Full},
	{Name: "MCAST_MSFILTER", Number: unix.MCAST_MSFILTER, Access: Both, Shape: Opaque, Support: Full},
	{Name: "IPV6_RECVPKTINFO", Number: unix.IPV6_RECVPKTINFO, Access: Both, Support: Full},
	{Name: "IPV6_PKTINFO", Number: unix.IPV6_PKTINFO, Access: Set, Shape: Bytes, Support: Full},
	{Name: "IPV6_RECVHOPLIMIT", Number: unix.IPV6_RECVHOPLIMIT, Access: Both, Support: Full},
	no("IPV6_HOPLIMIT", unix.IPV6_HOPLIMIT, "only as a control message"),
	{Name: "IPV6_RECVHOPOPTS", Number: unix.IPV6_RECVHOPOPTS, Access: Both, Support: Part, Gap: "extension headers are not shown"},
	no("IPV6_HOPOPTS", unix.IPV6_HOPOPTS, noExtension),
	no("IPV6_RTHDRDSTOPTS", unix.IPV6_RTHDRDSTOPTS, noExtension),
	{Name: "IPV6_RECVRTHDR", Number: unix.IPV6_RECVRTHDR, Access: Both, Support: Part, Gap: "extension headers are not shown"},
	no("IPV6_RTHDR", unix.IPV6_RTHDR, noExtension),
	{Name: "IPV6_RECVDSTOPTS", Number: unix.IPV6_RECVDSTOPTS, Access: Both, Support: Part, Gap: "extension headers are not shown"},
	no("IPV6_DSTOPTS", unix.IPV6_DSTOPTS, noExtension),
	{Name: "IPV6_RECVPATHMTU", Number: unix.IPV6_RECVPATHMTU, Access: Both, Support: Part, Gap: "path MTU is not shown"},
	{Name: "IPV6_PATHMTU", Number: unix.IPV6_PATHMTU, Access: Get, Shape: Bytes, Support: Full},
	{Name: "IPV6_DONTFRAG", Number: unix.IPV6_DONTFRAG, Access: Both, Support: Full},
	no("IPV6_USE_MIN_MTU", 63, "Linux has not either"),
	{Name: "IPV6_RECVTCLASS", Number: unix.IPV6_RECVTCLASS, Access: Both, Support: Full},
	{Name: "IPV6_TCLASS", Number: unix.IPV6_TCLASS, Access: Both, Support: Full},
	{Name: "IPV6_AUTOFLOWLABEL", Number: unix.IPV6_AUTOFLOWLABEL, Access: Both, Support: Kept},
	{Name: "IPV6_ADDR_PREFERENCES", Number: unix.IPV6_ADDR_PREFERENCES, Access: Both, Support: Part, Gap: "source addresses are chosen by the route"},
	{Name: "IPV6_MINHOPCOUNT", Number: unix.IPV6_MINHOPCOUNT, Access: Both, Support: Part, Gap: "packets with a lower hop limit are taken"},
	{Name: "IPV6_RECVORIGDSTADDR", Number: unix.IPV6_RECVORIGDSTADDR, Access: Both, Support: Full},
	{Name: "IPV6_TRANSPARENT", Number: unix.IPV6_TRANSPARENT, Access: Both, On: V6 &^ Raw, Support: Full, Gap: capability},
	{Name: "IPV6_UNICAST_IF", Number: unix.IPV6_UNICAST_IF, Access: Both, Support: Part, Gap: "of UDP and ICMP, for datagrams that are sent to an address"},
	no("IPV6_RECVFRAGSIZE", unix.IPV6_RECVFRAGSIZE, "not modelled"),
	{Name: "IPV6_FREEBIND", Number: unix.IPV6_FREEBIND, Access: Both, On: V6, Support: Part, Gap: "what is sent from an address that is not there has no route"},
}
