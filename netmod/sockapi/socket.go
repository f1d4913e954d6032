// SPDX-License-Identifier: Apache-2.0

// Level SOL_SOCKET.

package sockapi

import "golang.org/x/sys/unix"

// capability is the reason of what an ordinary user may not set.
const capability = "takes a capability, as on Linux"

// noHardware is what time stamps lack.
const noHardware = "in software; of what TCP sends there are none: asking for them gives ENOPROTOOPT; SOF_TIMESTAMPING_OPT_CMSG has no effect"

// filtersOf says which sockets have classic filters.
const filtersOf = "of raw sockets"

var solSocket = []Option{
	{Name: "SO_DEBUG", Number: unix.SO_DEBUG, Access: Both, Support: Kept},
	{Name: "SO_REUSEADDR", Number: unix.SO_REUSEADDR, Access: Both, Support: Full},
	{Name: "SO_TYPE", Number: unix.SO_TYPE, Access: Get, On: All, Support: Full},
	{Name: "SO_ERROR", Number: unix.SO_ERROR, Access: Get, On: All, Support: Full},
	{Name: "SO_DONTROUTE", Number: unix.SO_DONTROUTE, Access: Both, Support: Part, Gap: "routes by a gateway are used all the same"},
	{Name: "SO_BROADCAST", Number: unix.SO_BROADCAST, Access: Both, Support: Full},
	{Name: "SO_SNDBUF", Number: unix.SO_SNDBUF, Access: Both, Support: Part, Gap: "defaults and limits are the stack's; what the program has written waits in the placeholder first, whose size is fixed"},
	{Name: "SO_RCVBUF", Number: unix.SO_RCVBUF, Access: Both, Support: Part, Gap: "defaults and limits are the stack's; the placeholder takes some hundred KiB more"},
	{Name: "SO_KEEPALIVE", Number: unix.SO_KEEPALIVE, Access: Both, Support: Full},
	{Name: "SO_OOBINLINE", Number: unix.SO_OOBINLINE, Access: Both, Support: Full},
	{Name: "SO_NO_CHECK", Number: unix.SO_NO_CHECK, Access: Both, Support: Part, Gap: "checksums are sent all the same"},
	{Name: "SO_PRIORITY", Number: unix.SO_PRIORITY, Access: Both, Support: Kept},
	{Name: "SO_LINGER", Number: unix.SO_LINGER, Access: Both, Shape: Linger, Support: Part, Gap: "time 0 resets; with another close(2) does not wait"},
	{Name: "SO_REUSEPORT", Number: unix.SO_REUSEPORT, Access: Both, Support: Full},
	{Name: "SO_PASSCRED", Number: unix.SO_PASSCRED, Access: Both, Support: Full, Gap: "of AF_UNIX; EOPNOTSUPP elsewhere"},
	{Name: "SO_PEERCRED", Number: unix.SO_PEERCRED, Access: Get, Shape: Bytes, Support: Full},
	{Name: "SO_RCVLOWAT", Number: unix.SO_RCVLOWAT, Access: Both, Support: Part, Gap: "poll and epoll do not heed it"},
	{Name: "SO_SNDLOWAT", Number: unix.SO_SNDLOWAT, Access: Get, Support: Full},
	{Name: "SO_RCVTIMEO", Number: unix.SO_RCVTIMEO, Access: Both, Shape: Timeval, Support: Full},
	{Name: "SO_SNDTIMEO", Number: unix.SO_SNDTIMEO, Access: Both, Shape: Timeval, Support: Full},
	{Name: "SO_BINDTODEVICE", Number: unix.SO_BINDTODEVICE, Access: Both, Shape: Text, Support: Full},
	{Name: "SO_ATTACH_FILTER", Number: unix.SO_ATTACH_FILTER, Access: Set, On: Raw, Support: Part, Gap: filtersOf},
	{Name: "SO_DETACH_FILTER", Number: unix.SO_DETACH_FILTER, Access: Set, On: Raw, Support: Part, Gap: filtersOf},
	{Name: "SO_PEERNAME", Number: unix.SO_PEERNAME, Access: Get, Shape: Bytes, Support: Full},
	{Name: "SO_TIMESTAMP", Number: unix.SO_TIMESTAMP, Access: Both, Support: Full},
	{Name: "SO_ACCEPTCONN", Number: unix.SO_ACCEPTCONN, Access: Get, On: All, Support: Full},
	{Name: "SO_PEERSEC", Number: unix.SO_PEERSEC, Access: Get, Support: Full},
	{Name: "SO_SNDBUFFORCE", Number: unix.SO_SNDBUFFORCE, Access: Set, Support: Full, Gap: capability},
	{Name: "SO_RCVBUFFORCE", Number: unix.SO_RCVBUFFORCE, Access: Set, Support: Full, Gap: capability},
	{Name: "SO_PASSSEC", Number: unix.SO_PASSSEC, Access: Both, Support: Full, Gap: "of AF_UNIX; EOPNOTSUPP elsewhere"},
	{Name: "SO_TIMESTAMPNS", Number: unix.SO_TIMESTAMPNS, Access: Both, Support: Full},
	{Name: "SO_MARK", Number: unix.SO_MARK, Access: Both, Support: Part, Gap: "no capability is needed"},
	{Name: "SO_TIMESTAMPING", Number: unix.SO_TIMESTAMPING, Access: Both, Shape: Bytes, On: UDP | Ping | Raw, Support: Part, Gap: noHardware},
	{Name: "SO_PROTOCOL", Number: unix.SO_PROTOCOL, Access: Get, On: All, Support: Full},
	{Name: "SO_DOMAIN", Number: unix.SO_DOMAIN, Access: Get, On: All, Support: Full},
	{Name: "SO_RXQ_OVFL", Number: unix.SO_RXQ_OVFL, Access: Both, Support: Part, Gap: "drops are counted when a datagram is taken, not when it came"},
	{Name: "SO_WIFI_STATUS", Number: unix.SO_WIFI_STATUS, Access: Both, Support: Kept},
	{Name: "SO_PEEK_OFF", Number: unix.SO_PEEK_OFF, Access: Both, On: TCP, Support: Part, Gap: "EOPNOTSUPP on datagram sockets"},
	{Name: "SO_NOFCS", Number: unix.SO_NOFCS, Access: Both, Support: Kept},
	{Name: "SO_LOCK_FILTER", Number: unix.SO_LOCK_FILTER, Access: Both, On: Raw, Support: Part, Gap: filtersOf},
	{Name: "SO_SELECT_ERR_QUEUE", Number: unix.SO_SELECT_ERR_QUEUE, Access: Both, Support: Kept},
	{Name: "SO_BUSY_POLL", Number: unix.SO_BUSY_POLL, Access: Both, Support: Kept},
	{Name: "SO_MAX_PACING_RATE", Number: unix.SO_MAX_PACING_RATE, Access: Both, Support: Part, Gap: "there is no pacing"},
	no("SO_BPF_EXTENSIONS", unix.SO_BPF_EXTENSIONS, "not modelled"),
	{Name: "SO_INCOMING_CPU", Number: unix.SO_INCOMING_CPU, Access: Both, Support: Kept},
	no("SO_ATTACH_BPF", unix.SO_ATTACH_BPF, "not modelled"),
	no("SO_ATTACH_REUSEPORT_CBPF", unix.SO_ATTACH_REUSEPORT_CBPF, "not modelled"),
	no("SO_ATTACH_REUSEPORT_EBPF", unix.SO_ATTACH_REUSEPORT_EBPF, "not modelled"),
	{Name: "SO_CNX_ADVICE", Number: unix.SO_CNX_ADVICE, Access: Set, Support: Kept},
	{Name: "SO_MEMINFO", Number: unix.SO_MEMINFO, Access: Get, Shape: Opaque, Support: Part, Gap: "sizes of the buffers, and what the stack holds"},
	{Name: "SO_INCOMING_NAPI_ID", Number: unix.SO_INCOMING_NAPI_ID, Access: Get, Support: Kept},
	{Name: "SO_COOKIE", Number: unix.SO_COOKIE, Access: Get, Shape: Opaque, On: All, Support: Full},
	{Name: "SO_PEERGROUPS", Number: unix.SO_PEERGROUPS, Access: Get, Support: Full, Gap: "of AF_UNIX; ENODATA elsewhere"},
	{Name: "SO_ZEROCOPY", Number: unix.SO_ZEROCOPY, Access: Both, Support: Refused, Errno: unix.EOPNOTSUPP, Gap: "MSG_ZEROCOPY would have to report by the error queue"},
	no("SO_TXTIME", unix.SO_TXTIME, "not modelled"),
	{Name: "SO_BINDTOIFINDEX", Number: unix.SO_BINDTOIFINDEX, Access: Both, On: Inet &^ Raw, Support: Full},
	{Name: "SO_TIMESTAMP_NEW", Number: unix.SO_TIMESTAMP_NEW, Access: Both, Support: Full},
	{Name: "SO_TIMESTAMPNS_NEW", Number: unix.SO_TIMESTAMPNS_NEW, Access: Both, Support: Full},
	{Name: "SO_TIMESTAMPING_NEW", Number: unix.SO_TIMESTAMPING_NEW, Access: Both, Shape: Bytes, On: UDP | Ping | Raw, Support: Part, Gap: noHardware},
	{Name: "SO_RCVTIMEO_NEW", Number: unix.SO_RCVTIMEO_NEW, Access: Both, Shape: Timeval, Support: Full},
	{Name: "SO_SNDTIMEO_NEW", Number: unix.SO_SNDTIMEO_NEW, Access: Both, Shape: Timeval, Support: Full},
	no("SO_DETACH_REUSEPORT_BPF", unix.SO_DETACH_REUSEPORT_BPF, "not modelled"),
	{Name: "SO_PREFER_BUSY_POLL", Number: unix.SO_PREFER_BUSY_POLL, Access: Both, Support: Full, Gap: capability},
	no("SO_BUSY_POLL_BUDGET", unix.SO_BUSY_POLL_BUDGET, "not modelled"),
	no("SO_NETNS_COOKIE", unix.SO_NETNS_COOKIE, "it would name the host's network"),
	{Name: "SO_BUF_LOCK", Number: unix.SO_BUF_LOCK, Access: Both, Support: Kept},
	{Name: "SO_RESERVE_MEM", Number: unix.SO_RESERVE_MEM, Access: Both, Support: Full, Gap: "EOPNOTSUPP, as without memory control groups"},
	{Name: "SO_TXREHASH", Number: unix.SO_TXREHASH, Access: Both, Support: Kept, Gap: "of TCP"},
	{Name: "SO_RCVMARK", Number: unix.SO_RCVMARK, Access: Both, Support: Kept},
}
