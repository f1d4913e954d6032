// SPDX-License-Identifier: Apache-2.0

// Socket options: the values of fresh sockets, what setting does to them, and
// wrong lengths, levels and names.
#include "lab.h"
#include <netinet/udp.h>

struct o { const char *s; int level, name, set; };
#define O(l, n, v) { #n, l, n, v }

static const struct o any[] = {
	O(SOL_SOCKET, SO_TYPE, -1), O(SOL_SOCKET, SO_DOMAIN, -1), O(SOL_SOCKET, SO_PROTOCOL, -1),
	O(SOL_SOCKET, SO_ACCEPTCONN, -1), O(SOL_SOCKET, SO_ERROR, -1), O(SOL_SOCKET, SO_REUSEADDR, 1),
	O(SOL_SOCKET, SO_REUSEPORT, 1), O(SOL_SOCKET, SO_KEEPALIVE, 1), O(SOL_SOCKET, SO_BROADCAST, 1),
	O(SOL_SOCKET, SO_DONTROUTE, 1), O(SOL_SOCKET, SO_OOBINLINE, 1), O(SOL_SOCKET, SO_RCVLOWAT, 2),
	O(SOL_SOCKET, SO_TIMESTAMP, 1), O(SOL_SOCKET, SO_PRIORITY, 3), O(SOL_SOCKET, SO_NO_CHECK, -1),
};
static const struct o ip4[] = {
	O(IPPROTO_IP, IP_TTL, 33), O(IPPROTO_IP, IP_TOS, 16), O(IPPROTO_IP, IP_MTU_DISCOVER, 2),
	O(IPPROTO_IP, IP_RECVERR, 1), O(IPPROTO_IP, IP_RECVTOS, 1), O(IPPROTO_IP, IP_PKTINFO, 1),
	O(IPPROTO_IP, IP_RECVTTL, 1), O(IPPROTO_IP, IP_MULTICAST_TTL, 5), O(IPPROTO_IP, IP_MULTICAST_LOOP, 0),
	O(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1), O(IPPROTO_IP, IP_FREEBIND, -1),
};
static const struct o ip6[] = {
	O(IPPROTO_IPV6, IPV6_V6ONLY, 1), O(IPPROTO_IPV6, IPV6_UNICAST_HOPS, 33), O(IPPROTO_IPV6, IPV6_TCLASS, 16),
	O(IPPROTO_IPV6, IPV6_RECVPKTINFO, 1), O(IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1), O(IPPROTO_IPV6, IPV6_RECVTCLASS, 1),
	O(IPPROTO_IPV6, IPV6_MTU_DISCOVER, 2), O(IPPROTO_IPV6, IPV6_RECVERR, 1), O(IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 5),
	O(IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 0),
};
static const struct o tcpo[] = {
	O(IPPROTO_TCP, TCP_NODELAY, 1), O(IPPROTO_TCP, TCP_CORK, 1), O(IPPROTO_TCP, TCP_KEEPIDLE, 77),
	O(IPPROTO_TCP, TCP_KEEPINTVL, 7), O(IPPROTO_TCP, TCP_KEEPCNT, 4), O(IPPROTO_TCP, TCP_SYNCNT, 3),
	O(IPPROTO_TCP, TCP_USER_TIMEOUT, 5000), O(IPPROTO_TCP, TCP_DEFER_ACCEPT, 3), O(IPPROTO_TCP, TCP_LINGER2, 20),
	O(IPPROTO_TCP, TCP_QUICKACK, 1), O(IPPROTO_TCP, TCP_NOTSENT_LOWAT, 16384),
};
static const struct o udpo[] = { O(IPPROTO_UDP, UDP_CORK, -1) };

static void table(int fd, const char *level, const char *kind, const struct o *t, int n)
{
	begin("options/%s-%s", level, kind);
	for (int i = 0; i < n; i++) {
		int v = -99;
		socklen_t len = sizeof v;
		int rc = getsockopt(fd, t[i].level, t[i].name, &v, &len);
		char line[120], *p = line;
		p += sprintf(p, "%s: ", t[i].s);
		p += rc < 0 ? sprintf(p, "%s", errname(errno)) : sprintf(p, "%d (%d)", v, (int)len);
		if (t[i].set >= 0) {
			rc = setsockopt(fd, t[i].level, t[i].name, &t[i].set, sizeof(int));
			p += sprintf(p, ", set %d: %s", t[i].set, rc < 0 ? errname(errno) : "ok");
			p += sprintf(p, ", then %d", opt(fd, t[i].level, t[i].name));
		}
		say("%s", line);
	}
}

static void shapes(int fd, const char *kind)
{
	begin("options/linger-%s", kind);
	struct linger l = { 1, 5 };
	socklen_t n = sizeof l;
	ok("set LINGER", setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l));
	memset(&l, 0, sizeof l);
	ok("get LINGER", getsockopt(fd, SOL_SOCKET, SO_LINGER, &l, &n));
	say("%d %d (%d)", l.l_onoff, l.l_linger, (int)n);
	begin("options/rcvtimeo-%s", kind);
	struct timeval tv = { 1, 500000 };
	ok("set RCVTIMEO", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
	n = sizeof tv;
	ok("get RCVTIMEO", getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, &n));
	say("%ld %ld (%d)", (long)tv.tv_sec, (long)tv.tv_usec, (int)n);
	begin("options/buffers-%s", kind);
	ok("set SNDBUF", setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){ 50000 }, sizeof(int)));
	say("SNDBUF %d", opt(fd, SOL_SOCKET, SO_SNDBUF));
	ok("set RCVBUF", setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){ 50000 }, sizeof(int)));
	say("RCVBUF %d", opt(fd, SOL_SOCKET, SO_RCVBUF));
	begin("options/lengths-%s", kind);
	char c = 9;
	n = 1;
	ok("get TYPE into 1 byte", getsockopt(fd, SOL_SOCKET, SO_TYPE, &c, &n));
	say("%d (%d)", c, (int)n);
	n = 0;
	ok("get TYPE into 0 bytes", getsockopt(fd, SOL_SOCKET, SO_TYPE, &c, &n));
	n = -1;
	ok("get TYPE, length -1", getsockopt(fd, SOL_SOCKET, SO_TYPE, &c, &n));
	long wide = -1;
	n = sizeof wide;
	ok("get TYPE into 8 bytes", getsockopt(fd, SOL_SOCKET, SO_TYPE, &wide, &n));
	say("(%d)", (int)n);
	ok("set REUSEADDR, 1 byte", setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &c, 1));
	begin("options/wrong-%s", kind);
	ok("set TYPE", setsockopt(fd, SOL_SOCKET, SO_TYPE, &(int){ 1 }, sizeof(int)));
	ok("set ERROR", setsockopt(fd, SOL_SOCKET, SO_ERROR, &(int){ 1 }, sizeof(int)));
	n = sizeof wide;
	ok("unknown option", getsockopt(fd, SOL_SOCKET, 9999, &wide, &n));
	ok("set unknown option", setsockopt(fd, SOL_SOCKET, 9999, &wide, 4));
	ok("unknown level", getsockopt(fd, 12345, 1, &wide, &n));
	ok("set unknown level", setsockopt(fd, 12345, 1, &wide, 4));
	ok("closed descriptor", getsockopt(999, SOL_SOCKET, SO_TYPE, &wide, &n));
	begin("options/ttl-range-%s", kind);
	ok("TTL 0", setsockopt(fd, IPPROTO_IP, IP_TTL, &(int){ 0 }, sizeof(int)));
	ok("TTL 256", setsockopt(fd, IPPROTO_IP, IP_TTL, &(int){ 256 }, sizeof(int)));
}

int main(int argc, char **argv)
{
	deadline(20);
	if (argc != 2)
		return 9;
	int six = strstr(argv[1], "6") != NULL, family = six ? AF_INET6 : AF_INET;
	if (!strncmp(argv[1], "tcp", 3)) {
		int fd = need("socket", socket(family, SOCK_STREAM, 0));
		table(fd, "socket", argv[1], any, LEN(any));
		table(fd, "tcp", argv[1], tcpo, LEN(tcpo));
		table(fd, six ? "ipv6" : "ip", argv[1], six ? ip6 : ip4, six ? LEN(ip6) : LEN(ip4));
		shapes(fd, argv[1]);
	} else if (!strncmp(argv[1], "udp", 3)) {
		int fd = need("socket", socket(family, SOCK_DGRAM, 0));
		table(fd, "socket", argv[1], any, LEN(any));
		table(fd, "udp", argv[1], udpo, LEN(udpo));
		table(fd, six ? "ipv6" : "ip", argv[1], six ? ip6 : ip4, six ? LEN(ip6) : LEN(ip4));
		shapes(fd, argv[1]);
		begin("options/tcp-on-%s", argv[1]);
		say("TCP option: %d", opt(fd, IPPROTO_TCP, TCP_NODELAY));
	} else if (!strncmp(argv[1], "connected", 9)) {
		int fd = dial(env(six ? "LAB_PEER6" : "LAB_PEER4"), ECHO);
		begin("options/mtu-%s", argv[1]);
		say("MTU: %d", opt(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_MTU : IP_MTU));
		table(fd, "socket", argv[1], any, LEN(any) - 1);
		table(fd, "tcp", argv[1], tcpo, LEN(tcpo));
		begin("options/info-%s", argv[1]);
		struct tcp_info ti;
		socklen_t n = sizeof ti;
		memset(&ti, 0, sizeof ti);
		ok("TCP_INFO", getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &n));
		say("state %d, mss %s", ti.tcpi_state, ti.tcpi_snd_mss > 500 ? "there" : "absent");
		say("MAXSEG: %s", opt(fd, IPPROTO_TCP, TCP_MAXSEG) > 500 ? "there" : "absent");
		begin("options/congestion-%s", argv[1]);
		char cc[16] = "";
		n = sizeof cc;
		ok("CONGESTION", getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, cc, &n));
		ok("set reno", setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
		ok("set nonsense", setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "nonsense", 8));
	} else if (!strcmp(argv[1], "sockets")) {
		static const int fam[] = { AF_INET, AF_INET6 };
		for (int i = 0; i < 2; i++) {
			begin("options/socket-arguments-%d", fam[i] == AF_INET ? 4 : 6);
			ok("STREAM, UDP", socket(fam[i], SOCK_STREAM, IPPROTO_UDP));
			ok("DGRAM, TCP", socket(fam[i], SOCK_DGRAM, IPPROTO_TCP));
			ok("STREAM, TCP", socket(fam[i], SOCK_STREAM, IPPROTO_TCP));
			ok("DGRAM, UDP", socket(fam[i], SOCK_DGRAM, IPPROTO_UDP));
			ok("SEQPACKET", socket(fam[i], SOCK_SEQPACKET, 0));
			ok("RDM", socket(fam[i], SOCK_RDM, 0));
			ok("type 0", socket(fam[i], 0, 0));
			ok("type 15", socket(fam[i], 15, 0));
			ok("unknown flag", socket(fam[i], SOCK_STREAM | 0x100, 0));
			ok("protocol 255", socket(fam[i], SOCK_STREAM, 255));
			ok("protocol -1", socket(fam[i], SOCK_STREAM, -1));
			ok("protocol 1000", socket(fam[i], SOCK_STREAM, 1000));
			ok("socketpair", socketpair(fam[i], SOCK_STREAM, 0, (int[2]){ 0 }));
		}
		begin("options/socket-flags");
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		num("nonblock", !!(fcntl(fd, F_GETFL) & O_NONBLOCK));
		num("cloexec", fcntl(fd, F_GETFD));
		num("access", fcntl(fd, F_GETFL) & O_ACCMODE);
	} else
		return 9;
	return 0;
}
