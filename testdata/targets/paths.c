// SPDX-License-Identifier: Apache-2.0

// Datagrams on the way: hops, what is too large for a link, pings that come to
// nothing. The argument is 4 or 6.
#include "errqueue.h"
#include <netinet/ip_icmp.h>

static void hops(void)
{
	for (int ttl = 1; ttl <= 4; ttl++) {
		begin("paths/hop-%d-%s", ttl, fam);
		int fd = asking();
		ok("RECVTTL", set(fd, IP_RECVTTL, IPV6_RECVHOPLIMIT, 1));
		ok("TTL", set(fd, IP_TTL, IPV6_UNICAST_HOPS, ttl));
		post("sendto", fd, "hop", 3, ip("FAR"), CLOSED);
		trouble("poll", fd);
		take("entry", fd);
		close(fd);
	}
	begin("paths/hop-connected-%s", fam); // exceeded TTL is soft
	int fd = joined(udp(), ip("FAR"), CLOSED);
	ok("TTL", set(fd, IP_TTL, IPV6_UNICAST_HOPS, 1));
	num("send", send(fd, "x", 1, 0));
	nap(150);
	say("poll: %s", events(ready(fd, POLLIN | POLLOUT, 0)));
	close(fd);
}

static void ping(void)
{
	static const struct { const char *name, *to; int ttl; } cases[] = {
		{ "unreachable", "UNREACH", 64 }, { "prohibited", "PROHIBIT", 64 }, { "hop", "FAR", 1 }, { "second-hop", "FAR", 2 }, { "gone", "GONE", 64 },
	};
	for (int i = 0; i < LEN(cases); i++) {
		begin("paths/ping-%s-%s", cases[i].name, fam);
		if (!six && i < 2)
			nap(1100); // an unreachable route sends one error a second
		int fd = need("socket", socket(six ? AF_INET6 : AF_INET, SOCK_DGRAM, six ? IPPROTO_ICMPV6 : IPPROTO_ICMP));
		need("RECVERR", set(fd, IP_RECVERR, IPV6_RECVERR, 1));
		need("TTL", set(fd, IP_TTL, IPV6_UNICAST_HOPS, cases[i].ttl));
		char echo[12] = { six ? (char)128 : ICMP_ECHO, 0, 0, 0, 0, 0, 0, 9, 'p', 'i', 'n', 'g' };
		post("sendto", fd, echo, sizeof echo, ip(cases[i].to), 0);
		trouble("poll", fd);
		char in[64];
		struct addr name = { .len = sizeof name.ss };
		struct iovec v = { in, sizeof in };
		char control[256];
		struct msghdr m = { .msg_name = &name.ss, .msg_namelen = name.len, .msg_iov = &v, .msg_iovlen = 1,
			.msg_control = control, .msg_controllen = sizeof control };
		long n = recvmsg(fd, &m, MSG_ERRQUEUE);
		name.len = m.msg_namelen;
		say("entry: %ld, type %d, sequence %d, data %.4s, to %s", n, in[0] & 0xff, in[7], in + 8, show(&name));
		struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&m);
		if (c) {
			struct sock_extended_err e;
			memcpy(&e, CMSG_DATA(c), sizeof e);
			struct addr off = { .len = c->cmsg_len - CMSG_LEN(sizeof e) };
			memcpy(&off.ss, CMSG_DATA(c) + sizeof e, off.len);
			say("error %s, origin %d, type %d, code %d, offender %s", errname(e.ee_errno), e.ee_origin, e.ee_type, e.ee_code, show(&off));
		}
		take("empty", fd);
		close(fd);
	}
	begin("paths/ping-connected-%s", fam);
	int fd = need("socket", socket(six ? AF_INET6 : AF_INET, SOCK_DGRAM, six ? IPPROTO_ICMPV6 : IPPROTO_ICMP));
	joined(fd, ip("PROHIBIT"), 0);
	char echo[8] = { six ? (char)128 : ICMP_ECHO };
	num("send", send(fd, echo, sizeof echo, 0));
	trouble("poll", fd);
	so_error("then", fd);
	close(fd);
}

// path prints IPV6_PATHMTU.
static void path(int fd)
{
	struct ip6_mtuinfo info;
	socklen_t n = sizeof info;
	if (!six)
		return;
	memset(&info, 0xee, sizeof info);
	num("PATHMTU", getsockopt(fd, IPPROTO_IPV6, IPV6_PATHMTU, &info, &n));
	say("%d bytes, family %d, MTU %u", (int)n, info.ip6m_addr.sin6_family, info.ip6m_mtu);
	n = 31;
	num("short", getsockopt(fd, IPPROTO_IPV6, IPV6_PATHMTU, &info, &n));
}

// size: datagrams that are too large for the link, or for one further on.
static void size(void)
{
	static char big[70000];
	static const struct { const char *name; int mode; } modes[] = {
		{ "dont", IP_PMTUDISC_DONT }, { "want", IP_PMTUDISC_WANT }, { "do", IP_PMTUDISC_DO }, { "probe", IP_PMTUDISC_PROBE },
		{ "interface", IP_PMTUDISC_INTERFACE }, { "omit", IP_PMTUDISC_OMIT },
	};
	for (int i = 0; i < LEN(modes); i++) {
		begin("paths/size-%s-%s", modes[i].name, fam);
		int fd = asking();
		ok("MTU_DISCOVER", set(fd, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, modes[i].mode));
		say("MTU_DISCOVER: %d", get(fd, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER));
		say("MTU: %s", errname(-get(fd, IP_MTU, IPV6_MTU)));
		post("fits", fd, big, six ? 1420 - 48 : 1420 - 28, ip("PEER"), ECHO);
		num("echo", recv(fd, big, sizeof big, 0));
		post("does not fit", fd, big, six ? 1420 - 47 : 1420 - 27, ip("PEER"), ECHO);
		if (modes[i].mode == IP_PMTUDISC_DONT || modes[i].mode == IP_PMTUDISC_WANT || modes[i].mode == IP_PMTUDISC_OMIT) {
			num("echo", recv(fd, big, sizeof big, 0));
		} else {
			say("poll: %s", events(ready(fd, POLLOUT, 0)));
			so_error("then", fd);
			take("entry", fd);
		}
		close(fd);
	}
	begin("paths/size-connected-%s", fam);
	int fd = joined(asking(), ip("PEER"), ECHO);
	need("MTU_DISCOVER", set(fd, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, IP_PMTUDISC_DO));
	say("MTU: %d", get(fd, IP_MTU, IPV6_MTU));
	struct iovec v = { big, 2000 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
	num("sendmsg", sendmsg(fd, &m, 0));
	take("entry", fd);
	close(fd);

	begin("paths/path-do-%s", fam); // too large for a link further on
	fd = joined(asking(), ip("FAR"), ECHO);
	need("MTU_DISCOVER", set(fd, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, IP_PMTUDISC_DO));
	say("MTU: %d", get(fd, IP_MTU, IPV6_MTU));
	path(fd);
	v.iov_len = 1350;
	num("sendmsg", sendmsg(fd, &m, 0));
	trouble("poll", fd);
	entry("entry", fd, 0, 512, 0);
	say("MTU: %d", get(fd, IP_MTU, IPV6_MTU));
	path(fd);
	num("sendmsg", sendmsg(fd, &m, 0));
	take("entry", fd);
	v.iov_len = 1300 - (six ? 48 : 28);
	num("sendmsg", sendmsg(fd, &m, 0));
	num("echo", recv(fd, big, sizeof big, 0));
	close(fd);

	begin("paths/path-probe-%s", fam); // does not care
	fd = joined(asking(), ip("FAR"), ECHO);
	need("MTU_DISCOVER", set(fd, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, IP_PMTUDISC_PROBE));
	say("MTU: %d", get(fd, IP_MTU, IPV6_MTU));
	v.iov_len = 1350;
	num("sendmsg", sendmsg(fd, &m, 0));
	trouble("poll", fd);
	entry("entry", fd, 0, 512, 0);
	close(fd);

	begin("paths/path-want-%s", fam); // is cut into pieces
	fd = joined(udp(), ip("FAR"), ECHO);
	say("MTU: %d", get(fd, IP_MTU, IPV6_MTU));
	static const int sizes[] = { 1200, 1350, 3000, 20000 };
	for (int i = 0; i < LEN(sizes); i++) {
		static char back[70000];
		pattern(big, sizes[i], i);
		v.iov_len = sizes[i];
		num("sendmsg", sendmsg(fd, &m, 0));
		long n = recv(fd, back, sizeof back, 0);
		say("echo: %ld, %s", n, n == sizes[i] && !memcmp(big, back, n) ? "right" : errname(errno));
	}
	close(fd);

	begin("paths/path-ping-%s", fam); // the path is known by now
	fd = need("socket", socket(six ? AF_INET6 : AF_INET, SOCK_DGRAM, six ? IPPROTO_ICMPV6 : IPPROTO_ICMP));
	joined(fd, ip("FAR"), 0);
	struct timeval tv = { 5, 0 };
	need("SO_RCVTIMEO", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
	for (int i = 0; i < LEN(sizes); i++) {
		static char back[70000];
		pattern(big, sizes[i], i);
		memset(big, 0, 8);
		big[0] = six ? (char)128 : ICMP_ECHO;
		num("send", send(fd, big, sizes[i], 0));
		long n = recv(fd, back, sizeof back, 0);
		say("reply: %ld, %s", n, n == sizes[i] && !memcmp(big + 8, back + 8, n - 8) ? "right" : errname(errno));
	}
	close(fd);
}

int main(int argc, char **argv)
{
	deadline(40);
	argument(argc, argv);
	hops();
	size();
	ping();
	return 0;
}
