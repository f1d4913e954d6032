// SPDX-License-Identifier: Apache-2.0

// The error queue of TCP sockets that are connecting, by which an ordinary user's
// `traceroute -M tcpconn` sees the routers. The argument is 4 or 6.
#include "errqueue.h"

static int maker(int asks, int ttl, int flags)
{
	int fd = need("socket", socket(six ? AF_INET6 : AF_INET, SOCK_STREAM | flags, 0));
	if (asks)
		need("RECVERR", set(fd, IP_RECVERR, IPV6_RECVERR, 1));
	if (ttl)
		need("TTL", set(fd, IP_TTL, IPV6_UNICAST_HOPS, ttl));
	return fd;
}

// segment takes an entry and prints it. What it quotes is a header of TCP, of which
// the destination is the same everywhere.
static void segment(const char *label, int fd, int port)
{
	unsigned char data[200];
	char control[512];
	struct addr name = { .len = sizeof name.ss };
	struct iovec v = { data, sizeof data };
	struct msghdr m = { .msg_name = &name.ss, .msg_namelen = name.len, .msg_iov = &v, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof control };
	long n = recvmsg(fd, &m, MSG_ERRQUEUE);
	if (n < 0) {
		say("%s: %s", label, errname(errno));
		return;
	}
	name.len = m.msg_namelen;
	say("%s: %s to port %s, sent to %s, flags%s%s", label, n >= 20 ? "a header" : "no header",
		n >= 4 && data[2] * 256 + data[3] == port ? "right" : "WRONG", show(&name),
		m.msg_flags & MSG_ERRQUEUE ? " ERRQUEUE" : "", m.msg_flags & ~MSG_ERRQUEUE ? " more" : "");
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		size_t len = c->cmsg_len - CMSG_LEN(0);
		if (c->cmsg_type != (six ? IPV6_RECVERR : IP_RECVERR)) {
			say(" level %d, type %d, %d bytes", c->cmsg_level, c->cmsg_type, (int)len);
			continue;
		}
		struct sock_extended_err e;
		memcpy(&e, CMSG_DATA(c), sizeof e);
		struct addr off = { .len = len - sizeof e };
		memcpy(&off.ss, CMSG_DATA(c) + sizeof e, off.len);
		say(" error %s, origin %d, type %d, code %d, info %u, data %u, offender %s", errname(e.ee_errno), e.ee_origin,
			e.ee_type, e.ee_code, e.ee_info, e.ee_data, off.sa.sa_family == AF_UNSPEC ? "unspecified" : show(&off));
	}
}

// over waits until the attempt has failed.
static void over(const char *label, int fd)
{
	for (int i = 0; i < 250 && !(ready(fd, 0, 0) & POLLHUP); i++)
		nap(20);
	say("%s: %s", label, events(ready(fd, POLLIN | POLLOUT, 0)));
}

static void outcomes(void)
{
	static const struct { const char *name, *to; int ttl; } cases[] = {
		{ "unreachable", "UNREACH", 0 }, { "prohibited", "PROHIBIT", 0 }, { "hop-1", "FAR", 1 }, { "hop-2", "FAR", 2 }, { "gone", "GONE", 0 },
	};
	for (int i = 0; i < LEN(cases); i++) {
		struct addr to = mk(ip(cases[i].to), ECHO);
		begin("tcperr/%s-%s", cases[i].name, fam);
		if (!six && i < 2)
			nap(1100); // an unreachable route sends one error a second
		int fd = maker(1, cases[i].ttl, SOCK_NONBLOCK);
		ok("connect", connect(fd, &to.sa, to.len));
		trouble("poll", fd);
		segment("entry", fd, ECHO);
		segment("empty", fd, ECHO);
		so_error("then", fd);
		so_error("and then", fd);
		close(fd);
	}
	// The same socket again, and an option that empties the queue.
	struct addr far = mk(ip("FAR"), ECHO), near = mk(ip("PEER"), ECHO);
	begin("tcperr/again-%s", fam);
	int fd = maker(1, 1, SOCK_NONBLOCK);
	ok("connect", connect(fd, &far.sa, far.len));
	trouble("poll", fd);
	ok("connect", connect(fd, &far.sa, far.len));
	need("TTL", set(fd, IP_TTL, IPV6_UNICAST_HOPS, 2));
	ok("connect", connect(fd, &far.sa, far.len));
	over("poll", fd);
	segment("first", fd, ECHO);
	so_error("then", fd);
	segment("second", fd, ECHO);
	so_error("then", fd);
	need("TTL", set(fd, IP_TTL, IPV6_UNICAST_HOPS, 1));
	ok("connect", connect(fd, &far.sa, far.len));
	ok("connect", connect(fd, &far.sa, far.len));
	over("poll", fd);
	ok("off", set(fd, IP_RECVERR, IPV6_RECVERR, 0));
	segment("purged", fd, ECHO);
	close(fd);

	begin("tcperr/blocking-%s", fam);
	fd = maker(1, 1, 0);
	ok("connect", connect(fd, &far.sa, far.len));
	segment("entry", fd, ECHO);
	segment("empty", fd, ECHO);
	need("TTL", set(fd, IP_TTL, IPV6_UNICAST_HOPS, 64));
	ok("near", connect(fd, &near.sa, near.len));
	segment("connected", fd, ECHO);
	num("send", send(fd, "x", 1, 0));
	close(fd);

	begin("tcperr/refused-%s", fam); // a reset is no message of ICMP
	near = mk(ip("PEER"), CLOSED);
	fd = maker(1, 0, SOCK_NONBLOCK);
	ok("connect", connect(fd, &near.sa, near.len));
	trouble("poll", fd);
	segment("entry", fd, CLOSED);
	close(fd);

	begin("tcperr/not-asked-%s", fam);
	fd = maker(0, 1, SOCK_NONBLOCK);
	ok("connect", connect(fd, &far.sa, far.len));
	trouble("poll", fd);
	segment("entry", fd, ECHO);
	so_error("then", fd);
	close(fd);
}

int main(int argc, char **argv)
{
	deadline(30);
	argument(argc, argv);
	outcomes();
	return 0;
}
