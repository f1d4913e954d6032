// SPDX-License-Identifier: Apache-2.0

// Kinds of sockets, calls, flags, control messages and ioctls.

package sockapi

import "golang.org/x/sys/unix"

// A Table is a list of entries with a title.
type Table struct {
	Title   string
	About   string // a sentence under the title, may be empty
	Entries []Entry
}

// Tables returns the tables of everything but options.
func Tables() []Table {
	return []Table{
		{"Kinds of sockets", "What is refused fails at socket(2).", kinds},
		{"Calls", "On sockets of the view; AF_UNIX is the kernel's.", calls},
		{"Flags", "Of send and receive calls; one that is not here is ignored, as on Linux.", flags},
		{"Control messages", "Of sendmsg(2) and recvmsg(2).", controls},
		{"ioctls", "", ioctls},
	}
}

var kinds = []Entry{
	{Name: "AF_INET and AF_INET6, SOCK_STREAM, TCP", Support: Full},
	{Name: "AF_INET and AF_INET6, SOCK_DGRAM, UDP", Support: Full},
	{Name: "AF_INET, SOCK_DGRAM, IPPROTO_ICMP", Support: Full},
	{Name: "AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6", Support: Full},
	{Name: "AF_INET and AF_INET6, SOCK_RAW", Support: Full, Gap: "no privileges are needed"},
	{Name: "AF_INET and AF_INET6, IPPROTO_MPTCP", Support: Refused, Errno: unix.EPROTONOSUPPORT, Gap: "not modelled: programs use TCP"},
	{Name: "AF_INET and AF_INET6, IPPROTO_SCTP", Support: Refused, Errno: unix.EPROTONOSUPPORT, Gap: "not modelled"},
	{Name: "AF_INET and AF_INET6, SOCK_SEQPACKET", Support: Refused, Errno: unix.ESOCKTNOSUPPORT, Gap: "SCTP is not modelled"},
	{Name: "AF_INET and AF_INET6, SOCK_DCCP", Support: Refused, Errno: unix.ESOCKTNOSUPPORT, Gap: "DCCP is not modelled; Linux has dropped it"},
	{Name: "AF_INET and AF_INET6, IPPROTO_UDPLITE", Support: Refused, Errno: unix.EPROTONOSUPPORT, Gap: "not modelled"},
	{Name: "AF_NETLINK, NETLINK_ROUTE", Support: Part, Gap: "see limits.md"},
	{Name: "AF_NETLINK, NETLINK_SOCK_DIAG", Support: Part, Gap: "TCP, UDP, raw, packet and netlink sockets; SOCK_DESTROY ends those of TCP, UDP and raw that a program holds"},
	{Name: "AF_NETLINK, NETLINK_KOBJECT_UEVENT", Support: Part, Gap: "silent, as in a network namespace of an ordinary user"},
	{Name: "AF_NETLINK, other protocols", Support: Refused, Errno: unix.EPROTONOSUPPORT, Gap: "they speak of the host's kernel"},
	{Name: "AF_UNIX", Support: Full, Gap: "the kernel's; connect(2) is judged. With mounts of the engine `trap`, paths are the view's"},
	{Name: "AF_PACKET, SOCK_RAW and SOCK_DGRAM", Support: Part, Gap: "on the view's interfaces; see limits.md"},
	{Name: "AF_PACKET, SOCK_PACKET", Support: Refused, Errno: unix.ESOCKTNOSUPPORT, Gap: "obsolete"},
	{Name: "AF_VSOCK, AF_ALG, AF_CAN, AF_BLUETOOTH, AF_XDP and every other family", Support: Refused, Errno: unix.EAFNOSUPPORT, Gap: "they act outside of the view"},
}

var calls = []Entry{
	{Name: "socket", Support: Full},
	{Name: "socketpair", Support: Full, Gap: "EOPNOTSUPP but for AF_UNIX, as on Linux"},
	{Name: "bind", Support: Full},
	{Name: "connect", Support: Part, Gap: "one that fails behind poll(2): see limits.md"},
	{Name: "listen", Support: Full},
	{Name: "accept, accept4", Support: Full},
	{Name: "getsockname, getpeername", Support: Full},
	{Name: "getsockopt, setsockopt", Support: Full, Gap: "by option, see above"},
	{Name: "shutdown", Support: Part, Gap: "a listener shows other poll events"},
	{Name: "read, readv, write, writev, close, dup, fcntl, poll, select, epoll", Support: Part, Gap: "the placeholder's: the errnos of AF_UNIX where there is no connection, see limits.md"},
	{Name: "send, recv, sendto, recvfrom", Support: Part, Gap: "without an address as write and read"},
	{Name: "sendmsg, recvmsg, sendmmsg", Support: Full},
	{Name: "recvmmsg", Support: Full},
	{Name: "sendfile, splice, tee", Support: Full, Gap: "the placeholder's"},
	{Name: "io_uring_setup", Support: Refused, Errno: unix.ENOSYS, Gap: "it acts where no filter looks"},
}

var flags = []Entry{
	{Name: "MSG_OOB", Support: Part, Gap: "over NAT the byte is an ordinary one, in its place; the receiver learns of it when it comes, not before"},
	{Name: "MSG_PEEK", Support: Full},
	{Name: "MSG_DONTROUTE", Support: Part, Gap: "routes by a gateway are used all the same"},
	{Name: "MSG_CTRUNC", Support: Full},
	{Name: "MSG_TRUNC", Support: Full},
	{Name: "MSG_DONTWAIT", Support: Full},
	{Name: "MSG_EOR", Support: Kept},
	{Name: "MSG_WAITALL", Support: Full},
	{Name: "MSG_CONFIRM", Support: Kept},
	{Name: "MSG_ERRQUEUE", Support: Part, Gap: noErrQueue},
	{Name: "MSG_NOSIGNAL", Support: Full},
	{Name: "MSG_MORE", Support: Part, Gap: "SPLICE_F_MORE does not hold datagrams back"},
	{Name: "MSG_WAITFORONE", Support: Full},
	{Name: "MSG_CMSG_CLOEXEC", Support: Full},
	{Name: "MSG_ZEROCOPY", Support: Kept, Gap: "ignored, as without SO_ZEROCOPY, which is refused"},
	{Name: "MSG_FASTOPEN", Support: Refused, Errno: unix.EOPNOTSUPP, Gap: noFastOpen},
}

var controls = []Entry{
	{Name: "IP_PKTINFO, IPV6_PKTINFO", Support: Full},
	{Name: "IP_TTL, IPV6_HOPLIMIT", Support: Full},
	{Name: "IP_TOS, IPV6_TCLASS", Support: Full},
	{Name: "IP_ORIGDSTADDR", Support: Part, Gap: "received only"},
	{Name: "SO_TIMESTAMP, SO_TIMESTAMPNS", Support: Full},
	{Name: "PACKET_AUXDATA", Support: Full},
	{Name: "SO_MARK", Support: Full, Gap: "no capability is needed; EPERM where a kernel stack is one of several networks"},
	{Name: "SO_TIMESTAMPING, SCM_TS_OPT_ID", Support: Part, Gap: noHardware},
	{Name: "IP_RECVERR, IPV6_RECVERR", Support: Part, Gap: noErrQueue},
	{Name: "UDP_SEGMENT, UDP_GRO", Support: Full},
	{Name: "SCM_RIGHTS, SCM_CREDENTIALS", Support: Full, Gap: "of AF_UNIX"},
}

var ioctls = []Entry{
	{Name: "FIONREAD (SIOCINQ)", Support: Part, Gap: "of the placeholder: the memory in use, not the bytes, where they are few"},
	{Name: "TIOCOUTQ (SIOCOUTQ), SIOCOUTQNSD", Support: Full, Gap: "what is not acknowledged, for both"},
	{Name: "FIONBIO, FIOASYNC, FIOCLEX, FIONCLEX", Support: Full},
	{Name: "FIOSETOWN, SIOCSPGRP, FIOGETOWN, SIOCGPGRP", Support: Full},
	{Name: "SIOCATMARK", Support: Full},
	{Name: "SIOCGSTAMP, SIOCGSTAMPNS", Support: Full},
	{Name: "SIOCGIFCONF, SIOCGIFNAME, SIOCGIFINDEX, SIOCGIFFLAGS, SIOCGIFADDR, SIOCGIFNETMASK, SIOCGIFMTU and other SIOCGIF*", Support: Full},
	{Name: "SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFBRDADDR, SIOCSIFDSTADDR, SIOCDIFADDR", Support: Full},
	{Name: "SIOCSIFFLAGS, SIOCSIFMTU, SIOCSIFNAME, SIOCSIFTXQLEN, SIOCSIFHWADDR", Support: Full},
	{Name: "other SIOCSIF*, SIOCADDMULTI, SIOCSARP", Support: Refused, Errno: unix.EPERM, Gap: "not modelled"},
	{Name: "SIOCADDRT, SIOCDELRT", Support: Part, Gap: "MSS, window and IRTT give EOPNOTSUPP"},
	{Name: "SIOCETHTOOL", Support: Part, Gap: "driver, link, link settings, time stamps, message level, as of a TUN device; else EOPNOTSUPP"},
}
