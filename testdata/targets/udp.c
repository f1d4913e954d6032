// SPDX-License-Identifier: Apache-2.0

// Datagrams: connected and not, their sources, order, sizes, the message calls
// and the options that put control messages beside them.
#include "lab.h"

static char buf[70000];

static int sock(const char *ip)
{
	struct addr a = mk(ip, 0);
	return need("socket", socket(a.sa.sa_family, SOCK_DGRAM, 0));
}

static void patient(int fd)
{
	struct timeval tv = { 5, 0 };
	need("SO_RCVTIMEO", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
}

static void from(const char *label, int fd, int flags)
{
	struct addr a;
	a.len = sizeof a.ss;
	long n = recvfrom(fd, buf, sizeof buf, flags, &a.sa, &a.len);
	if (n < 0)
		say("%s: %s", label, errname(errno));
	else
		say("%s: %ld \"%.*s\" from %s", label, n, (int)(n > 20 ? 20 : n), buf, show(&a));
}

static void unconnected(const char *ip, const char *other)
{
	struct addr to = mk(ip, ECHO), too = mk(other, ECHO);
	int fd = sock(ip);
	patient(fd);
	begin("udp/fresh-%d", version(ip));
	names("fresh", fd);
	say("fresh: %s", events(ready(fd, POLLIN | POLLOUT, 0)));
	from("recv of none", fd, MSG_DONTWAIT);
	begin("udp/no-address-%d", version(ip));
	int lost = sock(ip);
	num("send without address", send(lost, "x", 1, 0));
	num("write without address", write(lost, "x", 1));
	close(lost);
	begin("udp/sendto-%d", version(ip));
	num("sendto", sendto(fd, "one", 3, 0, &to.sa, to.len));
	from("answer", fd, 0);
	num("sendto", sendto(fd, "two", 3, 0, &too.sa, too.len));
	from("answer", fd, 0);
	names("used", fd);
	begin("udp/empty-%d", version(ip));
	num("empty", sendto(fd, "", 0, 0, &to.sa, to.len));
	say("empty: %s", events(ready(fd, POLLIN, 5000)));
	from("empty", fd, 0);
	begin("udp/peek-trunc-%d", version(ip));
	num("sendto", sendto(fd, "0123456789", 10, 0, &to.sa, to.len));
	ready(fd, POLLIN, 5000);
	int n = -1;
	ioctl(fd, FIONREAD, &n);
	say("FIONREAD: %d", n);
	from("PEEK", fd, MSG_PEEK);
	text("PEEK 4", recv(fd, buf, 4, MSG_PEEK), buf);
	num("PEEK 4 TRUNC", recv(fd, buf, 4, MSG_PEEK | MSG_TRUNC));
	struct iovec v = { buf, 4 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
	num("recvmsg 4", recvmsg(fd, &m, 0));
	say("flags: %s", m.msg_flags & MSG_TRUNC ? "TRUNC" : "none");
	from("gone", fd, MSG_DONTWAIT);
	begin("udp/read-%d", version(ip));
	num("read after", sendto(fd, "abc", 3, 0, &to.sa, to.len));
	ready(fd, POLLIN, 5000);
	text("read", read(fd, buf, sizeof buf), buf);
	begin("udp/answer-from-elsewhere-%d", version(ip));
	struct addr ask = mk(ip, OTHER);
	num("to one that answers from elsewhere", sendto(fd, "hi", 2, 0, &ask.sa, ask.len));
	from("answer", fd, 0);
	begin("udp/sizes-%d", version(ip));
	static const int sizes[] = { 1, 1000, 1372, 1373, 1500, 4000, 9000, 30000, 65507 };
	for (int i = 0; i < LEN(sizes); i++) {
		if (strchr(ip, ':') && sizes[i] == 65507)
			continue;
		static char mine[70000];
		pattern(mine, sizes[i], i);
		long s = sendto(fd, mine, sizes[i], 0, &to.sa, to.len);
		long r = s < 0 ? -1 : recv(fd, buf, sizeof buf, 0);
		say("size %d: sent %ld, came %ld, %s", sizes[i], s, r, r == sizes[i] && !memcmp(buf, mine, r) ? "right" : errname(errno));
	}
	begin("udp/wrong-sendto-%d", version(ip));
	num("too large", sendto(fd, buf, 65536, 0, &to.sa, to.len));
	num("sendto, length 2", sendto(fd, "x", 1, 0, &to.sa, 2));
	if (to.sa.sa_family == AF_INET) // IPv6 ignores it
		num("OOB", sendto(fd, "x", 1, MSG_OOB, &to.sa, to.len));
	struct addr zero = mk(ip, 0);
	num("port 0", sendto(fd, "x", 1, 0, &zero.sa, zero.len));
	ok("shutdown", shutdown(fd, SHUT_RD));
	close(fd);
}

static void connected(const char *ip, const char *other)
{
	struct addr to = mk(ip, ECHO), too = mk(other, ECHO), un = { .len = 16 };
	int fd = sock(ip);
	patient(fd);
	begin("udp/connected-%d", version(ip));
	ok("connect", connect(fd, &to.sa, to.len));
	names("connected", fd);
	num("write", write(fd, "one", 3));
	from("answer", fd, 0);
	num("send", send(fd, "two", 3, 0));
	text("read", read(fd, buf, sizeof buf), buf);
	begin("udp/connected-empty-%d", version(ip));
	num("empty write", write(fd, "", 0));
	num("empty send", send(fd, "", 0, 0));
	num("empty read", recv(fd, buf, sizeof buf, 0));
	begin("udp/connected-sendto-another-%d", version(ip));
	num("sendto the other", sendto(fd, "three", 5, 0, &too.sa, too.len));
	nap(100);
	from("not from the other", fd, MSG_DONTWAIT);
	begin("udp/connect-again-%d", version(ip));
	ok("connect the other", connect(fd, &too.sa, too.len));
	names("other", fd);
	num("write", write(fd, "four", 4));
	from("answer", fd, 0);
	begin("udp/dissolve-%d", version(ip));
	un.sa.sa_family = AF_UNSPEC;
	ok("dissolve", connect(fd, &un.sa, un.len));
	names("dissolved", fd);
	if (to.sa.sa_family == AF_INET) { // the kernel's IPv6 gets no answer here any more
		num("sendto", sendto(fd, "five", 4, 0, &to.sa, to.len));
		from("answer", fd, 0);
	}
	close(fd);

	begin("udp/refused-%d", version(ip));
	struct addr none = mk(ip, CLOSED);
	fd = sock(ip);
	patient(fd);
	ok("connect to nobody", connect(fd, &none.sa, none.len));
	num("send", send(fd, "x", 1, 0));
	nap(200);
	so_error("nobody", fd);
	so_error("again", fd);
	num("send, then", send(fd, "x", 1, 0));
	nap(200);
	num("recvfrom", recvfrom(fd, buf, 1, MSG_DONTWAIT, NULL, NULL));
	num("sendto, then", sendto(fd, "x", 1, 0, &none.sa, none.len));
	nap(200);
	struct addr a;
	a.len = sizeof a.ss;
	num("recvfrom with address", recvfrom(fd, buf, 1, MSG_DONTWAIT, &a.sa, &a.len));
	close(fd);

	begin("udp/burst-%d", version(ip));
	fd = sock(ip);
	patient(fd);
	struct addr burst = mk(ip, BURST);
	ok("connect", connect(fd, &burst.sa, burst.len));
	num("ask for 50", write(fd, "50", 2));
	int order = 1, got = 0;
	for (; got < 50; got++) {
		uint32_t k;
		if (recv(fd, &k, sizeof k, 0) != sizeof k)
			break;
		order = order && ntohl(k) == (uint32_t)got;
	}
	say("burst: %d, %s", got, order ? "in order" : "OUT OF ORDER");
	close(fd);
}

static void messages(const char *ip)
{
	struct addr to = mk(ip, ECHO);
	int six = to.sa.sa_family == AF_INET6, fd = sock(ip);
	patient(fd);
	begin("udp/sendmsg-%d", version(ip));
	struct iovec v[2] = { { "ab", 2 }, { "cde", 3 } };
	struct msghdr m = { .msg_name = &to.sa, .msg_namelen = to.len, .msg_iov = v, .msg_iovlen = 2 };
	num("sendmsg", sendmsg(fd, &m, 0));
	from("answer", fd, 0);
	begin("udp/mmsg-%d", version(ip));
	struct mmsghdr mm[3];
	memset(mm, 0, sizeof mm);
	for (int i = 0; i < 3; i++)
		mm[i].msg_hdr = m;
	num("sendmmsg", sendmmsg(fd, mm, 3, 0));
	for (int i = 0; i < 3; i++)
		say("length %d: %u", i, mm[i].msg_len);
	nap(300);
	char in[3][8], name[3][64];
	struct iovec iv[3];
	for (int i = 0; i < 3; i++) {
		iv[i] = (struct iovec){ in[i], 8 };
		mm[i].msg_hdr = (struct msghdr){ .msg_name = name[i], .msg_namelen = 64, .msg_iov = &iv[i], .msg_iovlen = 1 };
	}
	struct timespec limit = { 2, 0 };
	num("recvmmsg", recvmmsg(fd, mm, 3, MSG_WAITFORONE, &limit));
	for (int i = 0; i < 3; i++)
		say("%u \"%.*s\", name %d", mm[i].msg_len, (int)mm[i].msg_len, in[i], (int)mm[i].msg_hdr.msg_namelen);
	num("recvmmsg of none", recvmmsg(fd, mm, 3, MSG_DONTWAIT, NULL));
	begin("udp/sendmsg-wrong-%d", version(ip));
	m.msg_iovlen = 0;
	num("no iovec", sendmsg(fd, &m, 0));
	from("answer", fd, 0);
	m.msg_iovlen = 1 << 20;
	num("too many iovecs", sendmsg(fd, &m, 0));
	m.msg_iovlen = 2;
	m.msg_namelen = 3;
	num("short name", sendmsg(fd, &m, 0));
	m.msg_namelen = to.len;
	m.msg_name = NULL;
	num("no name", sendmsg(fd, &m, 0));

	m.msg_name = &to.sa;
	begin("udp/pktinfo-ttl-%d", version(ip));
	ok("PKTINFO", setsockopt(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_RECVPKTINFO : IP_PKTINFO, &(int){ 1 }, sizeof(int)));
	ok("RECVTTL", setsockopt(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_RECVHOPLIMIT : IP_RECVTTL, &(int){ 1 }, sizeof(int)));
	num("sendmsg", sendmsg(fd, &m, 0));
	char control[256];
	struct iovec riv = { buf, sizeof buf };
	struct addr a;
	struct msghdr r = { .msg_name = &a.ss, .msg_namelen = sizeof a.ss, .msg_iov = &riv, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof control };
	num("recvmsg", recvmsg(fd, &r, 0));
	int info = 0, ttl = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&r); c; c = CMSG_NXTHDR(&r, c)) {
		char ip_[64] = "";
		if (!six && c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo *p = (void *)CMSG_DATA(c);
			inet_ntop(AF_INET, &p->ipi_addr, ip_, sizeof ip_);
			info = 1 + (!strcmp(ip_, env("LAB_SELF4")) && p->ipi_ifindex > 0);
		} else if (six && c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
			struct in6_pktinfo *p = (void *)CMSG_DATA(c);
			inet_ntop(AF_INET6, &p->ipi6_addr, ip_, sizeof ip_);
			info = 1 + (!strcmp(ip_, env("LAB_SELF6")) && p->ipi6_ifindex > 0);
		} else if (c->cmsg_type == (six ? IPV6_HOPLIMIT : IP_TTL))
			ttl = *(int *)CMSG_DATA(c);
	}
	say("PKTINFO %s, TTL %d, flags %x", info == 2 ? "right" : info ? "wrong" : "absent", ttl, r.msg_flags);
	begin("udp/ctrunc-%d", version(ip));
	num("sendmsg", sendmsg(fd, &m, 0));
	ready(fd, POLLIN, 5000);
	r.msg_controllen = 4;
	r.msg_flags = 0;
	num("recvmsg, no room for control", recvmsg(fd, &r, 0));
	say("flags: %s", r.msg_flags & MSG_CTRUNC ? "CTRUNC" : "none");
	close(fd);
}

// local talks over the view's own loopback and own address.
static void local(const char *ip, const char *self)
{
	struct addr a = mk(ip, 0), b = mk(self, 0);
	int s = sock(ip), c = sock(ip);
	patient(s);
	patient(c);
	begin("udp/local-%d", version(ip));
	need("bind", bind(s, &a.sa, a.len));
	ok("bind to own", bind(c, &b.sa, b.len));
	a.len = b.len = sizeof a.ss;
	getsockname(s, &a.sa, &a.len);
	getsockname(c, &b.sa, &b.len);
	struct addr to = mk(self, port_of(&a));
	num("sendto", sendto(c, "hi", 2, 0, &to.sa, to.len));
	from("server", s, 0);
	num("back", sendto(s, "ho", 2, 0, &b.sa, b.len));
	from("client", c, 0);
	begin("udp/bind-in-use-%d", version(ip));
	ok("bind again", bind(c, &b.sa, b.len));
	int d = sock(ip);
	ok("bind in use", bind(d, &a.sa, a.len));
	ok("REUSEADDR", setsockopt(d, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)));
	ok("bind in use, REUSEADDR on one", bind(d, &a.sa, a.len));
	close(d);
	begin("udp/reuseport-%d", version(ip));
	int p1 = sock(ip), p2 = sock(ip);
	struct addr shared = mk(ip, 7777);
	setsockopt(p1, SOL_SOCKET, SO_REUSEPORT, &(int){ 1 }, sizeof(int));
	setsockopt(p2, SOL_SOCKET, SO_REUSEPORT, &(int){ 1 }, sizeof(int));
	ok("REUSEPORT one", bind(p1, &shared.sa, shared.len));
	ok("REUSEPORT two", bind(p2, &shared.sa, shared.len));
	begin("udp/rcvtimeo-%d", version(ip));
	struct timeval tv = { 0, 100000 };
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	from("timeout", s, 0);
	begin("udp/broadcast-refused-%d", version(ip));
	ok("broadcast refused", sendto(c, "x", 1, 0, (struct sockaddr *)&(struct sockaddr_in){ .sin_family = AF_INET,
		.sin_port = htons(9), .sin_addr.s_addr = INADDR_BROADCAST }, sizeof(struct sockaddr_in)));
}

int main(int argc, char **argv)
{
	deadline(40);
	if (argc != 3)
		return 9;
	int six = !strcmp(argv[2], "6");
	const char *ip = env(six ? "LAB_PEER6" : "LAB_PEER4"), *other = env(six ? "LAB_OTHER6" : "LAB_OTHER4");
	if (!strcmp(argv[1], "unconnected"))
		unconnected(ip, other);
	else if (!strcmp(argv[1], "connected"))
		connected(ip, other);
	else if (!strcmp(argv[1], "messages"))
		messages(ip);
	else if (!strcmp(argv[1], "local"))
		local(six ? "::" : "0.0.0.0", env(six ? "LAB_SELF6" : "LAB_SELF4"));
	else
		return 9;
	return 0;
}
