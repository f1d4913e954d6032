// SPDX-License-Identifier: Apache-2.0

// Control messages of datagrams both ways: TTL, TOS with its ECN bits, traffic class,
// packet information, original destination; and the options that set the same.
//
// Usage: cmsg 4|6|mapped
#include "dgram.h"

#define IPV6_RECVORIGDSTADDR_ 74 // linux/in6.h, which <netinet/in.h> excludes

static int six, s, r, port, self_index;
static const char *lo, *v;

// heard_with prints a datagram with every control message, in their order.
static void heard_with(const char *label, int fd)
{
	char control[512], line[600], *p = line;
	struct iovec io = { heard, sizeof heard };
	struct addr a;
	struct msghdr m = { .msg_name = &a.ss, .msg_namelen = sizeof a.ss, .msg_iov = &io, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof control };
	long n = recvmsg(fd, &m, 0);
	if (n < 0) {
		say("%s: %s", label, errname(errno));
		return;
	}
	p += sprintf(p, "%s: %ld flags %x", label, n, m.msg_flags);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		char ip[64] = "", ip2[64] = "";
		void *d = CMSG_DATA(c);
		int k = c->cmsg_level * 1000 + c->cmsg_type, len = c->cmsg_len - CMSG_LEN(0);
		if (k == IP_PKTINFO) {
			struct in_pktinfo *i = d;
			inet_ntop(AF_INET, &i->ipi_addr, ip, sizeof ip);
			inet_ntop(AF_INET, &i->ipi_spec_dst, ip2, sizeof ip2);
			p += sprintf(p, ", PKTINFO %s at %s by %s", strcmp(ip, env("LAB_SELF4")) ? ip : "SELF",
				strcmp(ip2, env("LAB_SELF4")) ? ip2 : "SELF", i->ipi_ifindex == 1 ? "lo" : i->ipi_ifindex == self_index ? "it" : "WRONG");
		} else if (k == IPPROTO_IPV6 * 1000 + IPV6_PKTINFO) {
			struct in6_pktinfo *i = d;
			inet_ntop(AF_INET6, &i->ipi6_addr, ip, sizeof ip);
			p += sprintf(p, ", PKTINFO6 %s by %s", strcmp(ip, env("LAB_SELF6")) ? ip : "SELF",
				i->ipi6_ifindex == 1 ? "lo" : (int)i->ipi6_ifindex == self_index ? "it" : "WRONG");
		} else if (k == IP_ORIGDSTADDR || k == IPPROTO_IPV6 * 1000 + IPV6_RECVORIGDSTADDR_) {
			struct addr o;
			memcpy(&o.ss, d, len);
			o.len = len;
			p += sprintf(p, ", ORIGDST %s", show(&o));
		} else if (len == 1)
			p += sprintf(p, ", %d/%d byte %d", c->cmsg_level, c->cmsg_type, *(unsigned char *)d);
		else if (len == 4)
			p += sprintf(p, ", %d/%d int %d", c->cmsg_level, c->cmsg_type, *(int *)d);
		else
			p += sprintf(p, ", %d/%d of %d", c->cmsg_level, c->cmsg_type, len);
	}
	say("%s", line);
}

// with sends a datagram with one control message.
static long with(int level, int type, const void *data, int len)
{
	char control[256];
	memset(control, 0, sizeof control);
	struct iovec io = { "abc", 3 };
	struct addr to = mk(lo, port);
	struct msghdr m = { .msg_name = &to.sa, .msg_namelen = to.len, .msg_iov = &io, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = CMSG_SPACE(len) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = level;
	c->cmsg_type = type;
	c->cmsg_len = CMSG_LEN(len);
	memcpy(CMSG_DATA(c), data, len);
	return sendmsg(s, &m, 0);
}

static long with_int(int level, int type, int value) { return with(level, type, &value, sizeof value); }

static void plain(void)
{
	num("send", give(s, "abc", lo, port));
	heard_with("came", r);
}

static const struct { const char *s; int level, name; } wishes[] = {
	{ "TTL", IPPROTO_IP, IP_RECVTTL }, { "TOS", IPPROTO_IP, IP_RECVTOS }, { "PKTINFO", IPPROTO_IP, IP_PKTINFO },
	{ "ORIGDST", IPPROTO_IP, IP_RECVORIGDSTADDR }, { "HOPLIMIT", IPPROTO_IPV6, IPV6_RECVHOPLIMIT },
	{ "TCLASS", IPPROTO_IPV6, IPV6_RECVTCLASS }, { "PKTINFO6", IPPROTO_IPV6, IPV6_RECVPKTINFO },
	{ "ORIGDST6", IPPROTO_IPV6, IPV6_RECVORIGDSTADDR_ },
};

static void wish(int value)
{
	for (int i = 0; i < LEN(wishes); i++)
		if (six || wishes[i].level == IPPROTO_IP)
			on(r, wishes[i].level, wishes[i].name, value);
}

static void receiving(void)
{
	for (int i = 0; i < LEN(wishes); i++) {
		if (!six && wishes[i].level != IPPROTO_IP)
			continue;
		begin("cmsg/receive-%s-%s", wishes[i].s, v);
		ok("on", on(r, wishes[i].level, wishes[i].name, 1));
		plain();
		ok("off", on(r, wishes[i].level, wishes[i].name, 0));
		plain();
	}
	begin("cmsg/receive-all-%s", v);
	wish(1);
	plain();

	begin("cmsg/receive-cut-%s", v);
	static const int rooms[] = { 0, 8, 16, 20, 24, 40, 64 };
	for (int i = 0; i < LEN(rooms); i++) {
		char control[128];
		struct iovec io = { heard, sizeof heard };
		struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = rooms[i] };
		give(s, "abc", lo, port);
		long n = recvmsg(r, &m, 0);
		say("room %d: %ld, flags %x, control %d", rooms[i], n, m.msg_flags, (int)m.msg_controllen);
	}

	begin("cmsg/receive-recvmmsg-%s", v);
	char control[2][256];
	struct iovec io[2] = { { heard, 10 }, { heard + 10, 10 } };
	struct mmsghdr mm[2];
	memset(mm, 0, sizeof mm);
	for (int i = 0; i < 2; i++)
		mm[i].msg_hdr = (struct msghdr){ .msg_iov = &io[i], .msg_iovlen = 1, .msg_control = control[i], .msg_controllen = 256 };
	give(s, "abc", lo, port);
	give(s, "def", lo, port);
	num("two", recvmmsg(r, mm, 2, 0, NULL));
	say("control: %d %d", (int)mm[0].msg_hdr.msg_controllen, (int)mm[1].msg_hdr.msg_controllen);
}

static void sending(void)
{
	int v4 = strcmp(v, "6"); // what is sent is IPv4
	int level = six && !v4 ? IPPROTO_IPV6 : IPPROTO_IP;
	int ttl = level == IPPROTO_IP ? IP_TTL : IPV6_HOPLIMIT, tos = level == IPPROTO_IP ? IP_TOS : IPV6_TCLASS;
	int ttl_opt = level == IPPROTO_IP ? IP_TTL : IPV6_UNICAST_HOPS;
	static const int ttls[] = { 1, 7, 255, 0, 256, -1, -2 }, classes[] = { 0, 1, 2, 3, 16, 184, 255, 256, -2 };

	begin("cmsg/send-ttl-%s", v);
	for (int i = 0; i < LEN(ttls); i++) {
		char l[32];
		sprintf(l, "TTL %d", ttls[i]);
		if (num(l, with_int(level, ttl, ttls[i])) > 0)
			heard_with("came", r);
	}

	begin("cmsg/send-tos-%s", v);
	for (int i = 0; i < LEN(classes); i++) {
		char l[32];
		sprintf(l, "TOS %d", classes[i]);
		if (num(l, with_int(level, tos, classes[i])) > 0)
			heard_with("came", r);
	}
	if (level == IPPROTO_IP) {
		num("of one byte", with(level, IP_TOS, "\x2e", 1));
		heard_with("came", r);
	}

	begin("cmsg/socket-ttl-%s", v);
	ok("TTL 33", on(s, level, ttl_opt, 33));
	plain();
	num("7 for one", with_int(level, ttl, 7));
	heard_with("came", r);
	plain();
	ok("TTL back", on(s, level, ttl_opt, -1));
	plain();

	begin("cmsg/socket-tos-%s", v);
	ok("TOS 46", on(s, level, tos, 46));
	plain();
	num("1 for one", with_int(level, tos, 1));
	heard_with("came", r);
	plain();
	ok("ECT", on(s, level, tos, 2));
	plain();
	ok("TOS 0", on(s, level, tos, 0));
	plain();

	begin("cmsg/connected-%s", v);
	int c = s;
	s = fresh(lo);
	ok("connect", connect_to(s, lo, port));
	ok("TOS 8", on(s, level, tos, 8));
	ok("TTL 44", on(s, level, ttl_opt, 44));
	num("write", write(s, "abc", 3));
	heard_with("came", r);
	num("with a TTL", with_int(level, ttl, 9));
	heard_with("came", r);
	close(s);
	s = c;

	begin("cmsg/errors-%s", v);
	num("short TTL", with(level, ttl, "x", 1));
	num("unknown of the level", with_int(level, 99, 1));
	num("unknown of SOL_SOCKET", with_int(SOL_SOCKET, 99, 1));
	num("another level", with_int(12345, 1, 1));
	hear("came", r, MSG_DONTWAIT);
	drain(r);
	struct iovec io = { "abc", 3 };
	struct addr to = mk(lo, port);
	char control[64] = "";
	struct msghdr m = { .msg_name = &to.sa, .msg_namelen = to.len, .msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = 64 };
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = level;
	h->cmsg_type = ttl;
	h->cmsg_len = 3;
	num("a length below the header's", sendmsg(s, &m, 0));
	h->cmsg_len = 100;
	num("a length beyond the room", sendmsg(s, &m, 0));
	m.msg_controllen = 8;
	num("less than a header", sendmsg(s, &m, 0));
	heard_with("came", r);
	int rc = with(six ? IPPROTO_IP : IPPROTO_IPV6, six ? IP_TTL : IPV6_HOPLIMIT, &(int){ 5 }, 4);
	num("of the other family", rc);
	if (rc > 0)
		heard_with("came", r);
}

static void sources(void)
{
	int v4 = strcmp(v, "6");
	begin("cmsg/send-pktinfo-%s", v);
	struct in_pktinfo i4 = { 0 };
	struct in6_pktinfo i6 = { 0 };
	int t = s;
	s = fresh(six ? "::" : "0.0.0.0");
	const char *self = env(v4 ? "LAB_SELF4" : "LAB_SELF6"), *peer = env(v4 ? "LAB_PEER4" : "LAB_PEER6");
	if (v4) {
		inet_pton(AF_INET, "127.0.0.9", &i4.ipi_spec_dst);
		num("from 127.0.0.9", with(IPPROTO_IP, IP_PKTINFO, &i4, sizeof i4));
		take("came", r);
		i4.ipi_ifindex = 1;
		num("by lo too", with(IPPROTO_IP, IP_PKTINFO, &i4, sizeof i4));
		take("came", r);
		inet_pton(AF_INET, peer, &i4.ipi_spec_dst);
		i4.ipi_ifindex = 0;
		num("from an address of another", with(IPPROTO_IP, IP_PKTINFO, &i4, sizeof i4));
		i4 = (struct in_pktinfo){ .ipi_ifindex = 9999 };
		num("by no interface", with(IPPROTO_IP, IP_PKTINFO, &i4, sizeof i4));
		i4 = (struct in_pktinfo){ 0 };
		inet_pton(AF_INET, self, &i4.ipi_spec_dst);
		num("from the own address", with(IPPROTO_IP, IP_PKTINFO, &i4, sizeof i4));
		take("came", r);
		num("short", with(IPPROTO_IP, IP_PKTINFO, &i4, 8));
	} else {
		inet_pton(AF_INET6, self, &i6.ipi6_addr);
		num("from the own address", with(IPPROTO_IPV6, IPV6_PKTINFO, &i6, sizeof i6));
		take("came", r);
		i6.ipi6_ifindex = self_index;
		num("to lo by its interface", with(IPPROTO_IPV6, IPV6_PKTINFO, &i6, sizeof i6));
		drain(r);
		inet_pton(AF_INET6, peer, &i6.ipi6_addr);
		i6.ipi6_ifindex = 0;
		num("from an address of another", with(IPPROTO_IPV6, IPV6_PKTINFO, &i6, sizeof i6));
		i6 = (struct in6_pktinfo){ .ipi6_ifindex = 9999 };
		num("by no interface", with(IPPROTO_IPV6, IPV6_PKTINFO, &i6, sizeof i6));
		num("short", with(IPPROTO_IPV6, IPV6_PKTINFO, &i6, 8));
	}
	close(s);
	s = t;

	begin("cmsg/answer-from-where-it-was-asked-%s", v);
	int any = bound(six ? "::" : "0.0.0.0", 0), ask = fresh(lo);
	on(any, IPPROTO_IP, IP_PKTINFO, 1);
	if (six)
		on(any, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
	const char *at = !strcmp(v, "4") ? "127.0.0.5" : !strcmp(v, "6") ? self : "::ffff:127.0.0.5";
	num("ask", give(ask, "hello", at, port_at(any)));
	char control[128];
	struct iovec io = { heard, sizeof heard };
	struct addr a;
	struct msghdr m = { .msg_name = &a.ss, .msg_namelen = sizeof a.ss, .msg_iov = &io, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof control };
	num("asked", recvmsg(any, &m, 0));
	io.iov_len = 5;
	num("answer with the same control messages", sendmsg(any, &m, 0));
	take("answered", ask);
	close(any);
	close(ask);

	if (strcmp(v, "4"))
		return;
	begin("cmsg/pktinfo-of-groups");
	r = bound("0.0.0.0", 0);
	s = bound("127.0.0.1", 0);
	wish(1);
	struct ip_mreqn mr = { .imr_ifindex = 1 };
	inet_pton(AF_INET, "239.7.7.1", &mr.imr_multiaddr);
	ok("join", setsockopt(r, IPPROTO_IP, IP_ADD_MEMBERSHIP, &mr, sizeof mr));
	num("to the group", give(s, "abc", "239.7.7.1", port_at(r)));
	heard_with("came", r);
	ok("SO_BROADCAST", on(s, SOL_SOCKET, SO_BROADCAST, 1));
	num("to all of lo", give(s, "abc", "127.255.255.255", port_at(r)));
	heard_with("came", r);
	num("to another address of lo", give(s, "abc", "127.0.0.77", port_at(r)));
	heard_with("came", r);
	num("to the own address", give(fresh("0.0.0.0"), "abc", env("LAB_SELF4"), port_at(r)));
	heard_with("came", r);
}

// streams is what TCP does with the same options.
static void streams(void)
{
	begin("cmsg/stream-%s", v);
	struct addr a = mk(lo, 0);
	int ls = tcp(&a, 0);
	need("bind", bind(ls, &a.sa, a.len));
	need("listen", listen(ls, 1));
	a.len = sizeof a.ss;
	getsockname(ls, &a.sa, &a.len);
	int c = tcp(&a, 0);
	need("connect", connect(c, &a.sa, a.len));
	int t = need("accept", accept(ls, NULL, NULL)), level = strcmp(v, "6") ? IPPROTO_IP : IPPROTO_IPV6;
	ok("TOS with ECN bits", on(c, level, level == IPPROTO_IP ? IP_TOS : IPV6_TCLASS, 0xbb));
	num("without them", opt(c, level, level == IPPROTO_IP ? IP_TOS : IPV6_TCLASS));
	ok("RECVTTL", on(t, level, level == IPPROTO_IP ? IP_RECVTTL : IPV6_RECVHOPLIMIT, 1));
	put(c, "abc", 3);
	struct addr from;
	char control[128];
	struct iovec io = { heard, sizeof heard };
	memset(&from, 0x55, sizeof from);
	struct msghdr m = { .msg_name = &from.ss, .msg_namelen = sizeof from.ss, .msg_iov = &io, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof control };
	num("recvmsg", recvmsg(t, &m, 0));
	say("name %d, control %d, flags %x", (int)m.msg_namelen, (int)m.msg_controllen, m.msg_flags);
	close(ls);
	close(c);
	close(t);
}

int main(int argc, char **argv)
{
	deadline(30);
	if (argc != 2)
		return 9;
	v = argv[1];
	six = strcmp(v, "4");
	lo = !strcmp(v, "4") ? "127.0.0.1" : !strcmp(v, "6") ? "::1" : "::ffff:127.0.0.1";
	self_index = index_of(env(!strcmp(v, "6") ? "LAB_SELF6" : "LAB_SELF4"));
	s = bound(lo, 0);
	r = bound(six ? "::" : "0.0.0.0", 0);
	port = port_at(r);
	receiving();
	sending();
	sources();
	streams();
	return 0;
}
