// SPDX-License-Identifier: Apache-2.0

// Ping sockets as sockets: binding, which is the identifier, flags, control messages,
// states. All on lo.
//
// Usage: pingsock 4|6
#include "dgram.h"
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>

static const char *lo;
static int v, six;

static int pinger(void)
{
	int fd = need("socket", socket(six ? AF_INET6 : AF_INET, SOCK_DGRAM, six ? IPPROTO_ICMPV6 : IPPROTO_ICMP));
	struct timeval tv = { 3, 0 };
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	return fd;
}

static long ask(int fd, int seq, int flags)
{
	unsigned char p[12] = { six ? ICMP6_ECHO_REQUEST : ICMP_ECHO, [7] = seq, 'd', 'a', 't', 'a' };
	struct addr to = mk(lo, 0);
	return sendto(fd, p, sizeof p, flags, &to.sa, to.len);
}

static void reply(const char *label, int fd, int flags)
{
	struct addr a;
	unsigned char p[64] = { 0 };
	a.len = sizeof a.ss;
	long n = recvfrom(fd, p, sizeof p, flags, &a.sa, &a.len);
	if (n < 0)
		say("%s: %s", label, errname(errno));
	else
		say("%s: %ld, type %d, sequence %d, from %s", label, n, p[0], p[7], show(&a));
}

int main(int argc, char **argv)
{
	deadline(30);
	if (argc != 2)
		return 9;
	v = atoi(argv[1]);
	six = v == 6;
	lo = six ? "::1" : "127.0.0.1";

	begin("pingsock/bind-%d", v);
	int fd = pinger(), g = pinger();
	names("fresh", fd);
	ok("bind", bind_to(fd, lo, 777));
	names("bound", fd);
	ok("again", bind_to(fd, lo, 778));
	ok("in use", bind_to(g, lo, 777));
	ok("REUSEADDR", on(g, SOL_SOCKET, SO_REUSEADDR, 1));
	ok("another's address", bind_to(g, six ? "fd77::1" : "10.77.0.1", 779));
	close(g);
	nap(20);
	num("ask", ask(fd, 1, 0));
	reply("answer", fd, 0);

	begin("pingsock/peek-trunc-%d", v);
	unsigned char b[64];
	num("ask", ask(fd, 2, 0));
	reply("peek", fd, MSG_PEEK);
	num("cut", recv(fd, b, 4, 0));
	num("ask", ask(fd, 3, 0));
	struct iovec io = { b, 4 };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1 };
	num("TRUNC", recvmsg(fd, &m, MSG_TRUNC));
	say("flags %x", m.msg_flags);
	reply("none", fd, MSG_DONTWAIT);

	begin("pingsock/flags-%d", v);
	num("OOB", ask(fd, 4, MSG_OOB));
	num("receive OOB", recv(fd, b, 4, MSG_OOB | MSG_DONTWAIT));
	num("NOSIGNAL", ask(fd, 5, MSG_NOSIGNAL));
	reply("answer", fd, MSG_NOSIGNAL);
	num("DONTWAIT", ask(fd, 6, MSG_DONTWAIT));
	reply("answer", fd, 0);

	begin("pingsock/short-%d", v);
	struct addr to = mk(lo, 0);
	num("7 bytes", sendto(fd, b, 7, 0, &to.sa, to.len));
	num("nothing", sendto(fd, b, 0, 0, &to.sa, to.len));
	memset(b, 0, sizeof b);
	b[0] = six ? ICMP6_ECHO_REPLY : ICMP_ECHOREPLY;
	num("a reply", sendto(fd, b, 8, 0, &to.sa, to.len));
	b[0] = six ? ICMP6_ECHO_REQUEST : ICMP_ECHO;
	b[1] = 1;
	num("a code", sendto(fd, b, 8, 0, &to.sa, to.len));

	begin("pingsock/control-%d", v);
	int level = six ? IPPROTO_IPV6 : IPPROTO_IP;
	ok("TTL", on(fd, level, six ? IPV6_RECVHOPLIMIT : IP_RECVTTL, 1));
	ok("TOS", on(fd, level, six ? IPV6_RECVTCLASS : IP_RECVTOS, 1));
	ok("PKTINFO", on(fd, level, six ? IPV6_RECVPKTINFO : IP_PKTINFO, 1));
	num("ask", ask(fd, 7, 0));
	char control[256];
	io.iov_len = sizeof b;
	m = (struct msghdr){ .msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	num("answer", recvmsg(fd, &m, 0));
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
		say("level %d, type %d, %d bytes, first %d", c->cmsg_level, c->cmsg_type, (int)(c->cmsg_len - CMSG_LEN(0)), *CMSG_DATA(c));

	begin("pingsock/many-%d", v);
	for (int i = 0; i < 3; i++)
		ask(fd, 10 + i, 0);
	nap(30);
	struct iovec ios[3] = { { b, 20 }, { b + 20, 20 }, { b + 40, 20 } };
	struct mmsghdr mm[3];
	memset(mm, 0, sizeof mm);
	for (int i = 0; i < 3; i++)
		mm[i].msg_hdr = (struct msghdr){ .msg_iov = &ios[i], .msg_iovlen = 1 };
	num("recvmmsg", recvmmsg(fd, mm, 3, 0, NULL));
	say("sequences %d %d %d", b[7], b[27], b[47]);

	begin("pingsock/connected-%d", v);
	ok("connect", connect_to(fd, lo, 0));
	names("connected", fd);
	num("send", send(fd, (char[8]){ six ? ICMP6_ECHO_REQUEST : ICMP_ECHO }, 8, 0));
	reply("answer", fd, 0);
	num("to an address", ask(fd, 13, 0));
	reply("answer", fd, 0);
	struct sockaddr un = { .sa_family = AF_UNSPEC };
	ok("dissolve", connect(fd, &un, sizeof un));
	names("dissolved", fd);

	begin("pingsock/calls-%d", v);
	ok("listen", listen(fd, 1));
	ok("accept", accept(fd, NULL, NULL));
	ok("shutdown", shutdown(fd, SHUT_WR));
	ok("another family", connect(fd, &(struct sockaddr){ .sa_family = six ? AF_INET : AF_INET6 }, 16));
	struct addr wrong = six ? mk("127.0.0.1", 0) : mk("::1", 0);
	b[0] = six ? ICMP6_ECHO_REQUEST : ICMP_ECHO;
	b[1] = 0;
	num("sendto another family", sendto(fd, b, 8, 0, &wrong.sa, wrong.len));
	int n = -1;
	ok("FIONREAD", ioctl(fd, FIONREAD, &n));
	say("%d", n);

	begin("pingsock/identifiers-%d", v);
	int p = pinger(), q = pinger();
	num("one asks", ask(p, 1, 0));
	num("two asks", ask(q, 2, 0));
	reply("one", p, 0);
	reply("two", q, 0);
	say("the same identifier: %s", port_at(p) == port_at(q) ? "yes" : "no");
	close(p);
	close(q);
	return close(fd);
}
