// SPDX-License-Identifier: Apache-2.0

// What ICMP tells raw sockets. The argument is a version of IP.
#include "rawlab.h"
#include <linux/errqueue.h>

static int six;
static unsigned char in[70000];

static int family(void) { return six ? AF_INET6 : AF_INET; }
static int icmp(void) { return six ? IPPROTO_ICMPV6 : IPPROTO_ICMP; }
static void start(const char *name) { begin("rawerror/%s-%d", name, six ? 6 : 4); }

// heard waits for an ICMP error, shortly if there should be none.
static void heard(int watch, int expected)
{
	while (ready(watch, POLLIN, expected ? 3000 : 200)) {
		long k = recv(watch, in, sizeof in, 0);
		int at = six ? 0 : 20, type = in[at];
		if (k > at + 8 && (six ? type < 128 : type == 3 || type == 11)) {
			say("type %d code %d, %ld bytes behind it", type, in[at + 1], k - at - 8);
			break;
		}
	}
	nap(50);
}

// error: what ICMP says reaches connected sockets by SO_ERROR and the next receive.
static void error(const char *name, const char *ip, int connected, int proto, int expected)
{
	struct addr a = mk(ip, 0);
	char b[100];
	start(name);
	int fd = raw(family(), proto), watch = raw(family(), icmp());
	if (connected)
		ok("connect", connect(fd, &a.sa, a.len));
	if (six && proto == IPPROTO_UDP) // else the peer drops it
		ok("checksum", on(fd, IPPROTO_IPV6, IPV6_CHECKSUM, 6));
	memset(b, 0, sizeof b);
	b[1] = 99, b[3] = 6, b[5] = 8; // UDP from port 99 to 6
	num("sendto", put_to(fd, b, 8, &a));
	heard(watch, expected);
	say("poll: %s", events(ready(fd, POLLIN | POLLOUT, 0) & ~POLLIN));
	so_error("first", fd);
	so_error("second", fd);
	if (connected) { // others hear more than their own
		num("sendto", put_to(fd, b, 8, &a));
		heard(watch, expected);
		struct addr from = { .len = sizeof from.ss };
		num("recvfrom", recvfrom(fd, b, sizeof b, MSG_DONTWAIT, &from.sa, &from.len) < 0 ? -1 : 0);
		num("recvfrom again", recvfrom(fd, b, sizeof b, MSG_DONTWAIT, &from.sa, &from.len) < 0 ? -1 : 0);
	}
	close(fd);
	close(watch);
}

// refused: a protocol that nobody has is answered by the machine itself.
static void refused(const char *ip)
{
	struct addr a = mk(ip, six ? FREE2 : 0);
	unsigned char b[60] = { 0 };
	int n = 4;
	start("protocol-refused");
	int fd = raw(family(), IPPROTO_RAW), watch = raw(family(), icmp());
	if (six) {
		struct icmp6_filter f;
		ICMP6_FILTER_SETBLOCKALL(&f);
		ICMP6_FILTER_SETPASS(ICMP6_PARAM_PROB, &f);
		ok("filter", setsockopt(watch, IPPROTO_ICMPV6, ICMP6_FILTER, &f, sizeof f));
		ok("no header", on(fd, IPPROTO_IPV6, IPV6_HDRINCL, 0));
	} else {
		b[0] = 0x45, b[8] = 9, b[9] = FREE2;
		memcpy(b + 16, &a.in.sin_addr, 4);
		n += 20;
	}
	num("sendto", put_to(fd, b, n, &a));
	get("message", watch, in);
	if (six)
		say("pointer %d", in[7]);
	none("no more", watch);
	close(fd);
	close(watch);
}

// entry prints the first entry of the error queue.
static void entry(const char *label, int fd)
{
	char c[300], b[3000];
	struct addr name;
	struct iovec v = { b, sizeof b };
	struct msghdr m = { .msg_name = &name.ss, .msg_namelen = sizeof name.ss, .msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c };
	long n = recvmsg(fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT);
	if (n < 0) {
		ok(label, n);
		return;
	}
	name.len = m.msg_namelen;
	say("%s: %ld bytes, flags %x, about %s", label, n, m.msg_flags, name.len ? show(&name) : "nobody");
	if (n >= 8)
		say("%s: begins %02x %02x %02x %02x", label, b[0] & 0xff, b[1] & 0xff, b[2] & 0xff, b[3] & 0xff);
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
		if (h->cmsg_type != (six ? IPV6_RECVERR : IP_RECVERR))
			continue;
		struct sock_extended_err *e = (void *)CMSG_DATA(h);
		struct addr o = { .len = six ? sizeof o.in6 : sizeof o.in };
		memcpy(&o.ss, SO_EE_OFFENDER(e), o.len);
		say("%s: %s origin %d type %d code %d info %u data %u", label, errname(e->ee_errno), e->ee_origin, e->ee_type, e->ee_code, e->ee_info, e->ee_data);
		say("%s: offender %s", label, o.sa.sa_family ? show(&o) : "none");
	}
}

static void recverr(const char *name, const char *ip, int whole)
{
	struct addr a = mk(ip, 0), s = mk(env(six ? "LAB_SELF6" : "LAB_SELF4"), 0);
	unsigned char b[60] = { 0 };
	int n = 0;
	start(name);
	int fd = raw(family(), IPPROTO_UDP);
	ok("RECVERR", on(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_RECVERR : IP_RECVERR, 1));
	if (six && !whole)
		ok("checksum", on(fd, IPPROTO_IPV6, IPV6_CHECKSUM, 6));
	if (whole) {
		ok("HDRINCL", on(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_HDRINCL : IP_HDRINCL, 1));
		if (six) {
			b[0] = 0x60, b[5] = 8, b[6] = IPPROTO_UDP, b[7] = 9;
			memcpy(b + 8, &s.in6.sin6_addr, 16);
			memcpy(b + 24, &a.in6.sin6_addr, 16);
			n = 40;
		} else {
			b[0] = 0x45, b[8] = 9, b[9] = IPPROTO_UDP;
			memcpy(b + 16, &a.in.sin_addr, 4);
			n = 20;
		}
	}
	b[n + 1] = 99, b[n + 3] = 6, b[n + 5] = 8;
	entry("before", fd);
	num("sendto", put_to(fd, b, n + 8, &a));
	for (int i = 0; i < 150 && !(ready(fd, 0, 20) & POLLERR); i++)
		;
	say("poll: %s", events(ready(fd, 0, 0)));
	entry("first", fd);
	entry("second", fd);
	so_error("then", fd);
	close(fd);
}

static void too_big(const char *ip)
{
	struct addr a = mk(ip, 0);
	static char b[4000];
	start("too-big");
	int fd = raw(family(), FREE);
	ok("RECVERR", on(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_RECVERR : IP_RECVERR, 1));
	ok("DO", on(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER, IP_PMTUDISC_DO));
	num("sendto", put_to(fd, b, sizeof b, &a));
	entry("too big", fd);
	so_error("then", fd);
	close(fd);
}

int main(int argc, char **argv)
{
	deadline(50);
	six = argc > 1 && !strcmp(argv[1], "6");
	const char *lo = six ? "::1" : "127.0.0.1", *peer = env(six ? "LAB_PEER6" : "LAB_PEER4");
	const char *unreach = env(six ? "LAB_UNREACH6" : "LAB_UNREACH4"), *prohibit = env(six ? "LAB_PROHIBIT6" : "LAB_PROHIBIT4");
	refused(lo);
	error("protocol-local", lo, 1, FREE2, 0);
	error("protocol-peer", peer, 1, FREE2, 1);
	error("port-peer", peer, 1, IPPROTO_UDP, 1);
	error("port-unconnected", peer, 0, IPPROTO_UDP, 1);
	error("unreachable", unreach, 1, IPPROTO_UDP, 0);
	error("prohibited", prohibit, 1, IPPROTO_UDP, 1);
	recverr("recverr", peer, 0);
	recverr("recverr-hdrincl", prohibit, 1);
	recverr("recverr-prohibited", prohibit, 0);
	too_big(peer);
	return 0;
}
