// SPDX-License-Identifier: Apache-2.0

// What raw sockets send: headers that the kernel makes, and headers that the
// program makes (IP_HDRINCL, IPV6_HDRINCL). The argument is a version of IP.
#include "rawlab.h"

static int six;
static const char *lo, *lo2, *self, *peer;
static unsigned char in[70000], out[70000];

static int family(void) { return six ? AF_INET6 : AF_INET; }
static void start(const char *name) { begin("rawsend/%s-%d", name, six ? 6 : 4); }

static void arguments(void)
{
	struct addr a = mk(lo, 0), x;
	start("unconnected");
	int fd = raw(family(), FREE);
	num("no address", sendto(fd, "x", 1, 0, NULL, 0));
	close(fd);
	start("arguments");
	fd = raw(family(), FREE);
	num("short address", sendto(fd, "x", 1, 0, &a.sa, 8));
	x = mk(six ? "127.0.0.1" : "::1", 0);
	num("the other family", put_to(fd, "x", 1, &x));
	x = a;
	x.sa.sa_family = AF_UNSPEC;
	num("no family", put_to(fd, "x", 1, &x));
	x.sa.sa_family = 77;
	num("a strange family", put_to(fd, "x", 1, &x));
	num("oob", sendto(fd, "x", 1, MSG_OOB, &a.sa, a.len));
	x = mk(six ? "::" : "0.0.0.0", 0);
	num("to any", put_to(fd, "x", 1, &x));
	x = mk(lo, FREE);
	num("port is the protocol", put_to(fd, "x", 1, &x));
	x = mk(lo, 99);
	num("another port", put_to(fd, "x", 1, &x));
	x = mk(lo, 999);
	num("a large port", put_to(fd, "x", 1, &x));
	if (six) {
		x = mk("::ffff:127.0.0.1", 0);
		num("mapped", put_to(fd, "x", 1, &x));
	}
	start("no-route");
	x = mk(six ? "2001:db8::77" : "192.0.2.77", 0);
	num("sendto", put_to(fd, "x", 1, &x));
	start("too-long");
	num("65535 bytes", put_to(fd, out, 65535, &a));
	num("65536 bytes", put_to(fd, out, 65536, &a));
	num("65516 bytes", put_to(fd, out, 65516, &a));
	num("65515 bytes", put_to(fd, out, 65515, &a));
	if (!six) {
		start("broadcast");
		x = mk("127.255.255.255", 0);
		num("without leave", put_to(fd, "x", 1, &x));
	}
	close(fd);
}

// settings: options that the header shows.
static void settings(void)
{
	struct addr a = mk(lo, 0);
	start("ttl");
	int fd = raw(family(), FREE), r = raw(family(), FREE);
	if (six) {
		need("RECVHOPLIMIT", on(r, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1));
		need("RECVTCLASS", on(r, IPPROTO_IPV6, IPV6_RECVTCLASS, 1));
		need("RECVPKTINFO", on(r, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1));
		need("2292HOPLIMIT", on(r, IPPROTO_IPV6, IPV6_2292HOPLIMIT, 1));
		need("2292PKTINFO", on(r, IPPROTO_IPV6, IPV6_2292PKTINFO, 1));
	} else {
		need("RECVTTL", on(r, IPPROTO_IP, IP_RECVTTL, 1));
		need("RECVTOS", on(r, IPPROTO_IP, IP_RECVTOS, 1));
		need("PKTINFO", on(r, IPPROTO_IP, IP_PKTINFO, 1));
	}
	static const char *names[] = { "ttl", "tos", "both", "default" };
	for (int i = 0; i < 4; i++) {
		if (i > 0)
			start(names[i]);
		int ttl = i == 0 || i == 2 ? 7 : -1, tos = i == 1 || i == 2 ? 0x28 : 0;
		ok("set ttl", six ? on(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, ttl) : on(fd, IPPROTO_IP, IP_TTL, ttl));
		ok("set tos", six ? on(fd, IPPROTO_IPV6, IPV6_TCLASS, tos) : on(fd, IPPROTO_IP, IP_TOS, tos));
		num("sendto", put_to(fd, "x", 1, &a));
		char c[200];
		struct iovec v = { in, sizeof in };
		struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c };
		num("recvmsg", recvmsg(r, &m, 0));
		if (!six)
			header4("header", in, 21);
		for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
			if (h->cmsg_type == IP_PKTINFO && h->cmsg_level == IPPROTO_IP) {
				struct in_pktinfo *p = (void *)CMSG_DATA(h);
				say("PKTINFO: to loopback %d, local %d", p->ipi_addr.s_addr == htonl(INADDR_LOOPBACK), p->ipi_spec_dst.s_addr == htonl(INADDR_LOOPBACK));
			} else if ((h->cmsg_type == IPV6_PKTINFO || h->cmsg_type == IPV6_2292PKTINFO) && h->cmsg_level == IPPROTO_IPV6) {
				struct in6_pktinfo *p = (void *)CMSG_DATA(h);
				say("control message %d, to loopback %d", h->cmsg_type, IN6_IS_ADDR_LOOPBACK(&p->ipi6_addr));
			} else {
				say("control message %d %d of %d bytes: %d", h->cmsg_level, h->cmsg_type, (int)h->cmsg_len, *CMSG_DATA(h));
			}
		}
		flush(fd);
	}
	close(fd);
	close(r);
}

// with sends with one control message.
static long with(int fd, const struct addr *to, int level, int type, const void *p, int n)
{
	char c[CMSG_SPACE(64)] = { 0 };
	struct iovec v = { "cmsg", 4 };
	struct msghdr m = { .msg_name = (void *)&to->sa, .msg_namelen = to->len, .msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = CMSG_SPACE(n) };
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = level, h->cmsg_type = type, h->cmsg_len = CMSG_LEN(n);
	memcpy(CMSG_DATA(h), p, n);
	return sendmsg(fd, &m, 0);
}

static void controls(void)
{
	struct addr a = mk(lo, 0), src = mk(lo2, 0), no = mk(six ? "2001:db8::1" : "192.0.2.77", 0);
	int fd = raw(family(), FREE), v = 9;
	start("control-ttl");
	if (six)
		need("RECVHOPLIMIT", on(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1));
	num("sendmsg", six ? with(fd, &a, IPPROTO_IPV6, IPV6_HOPLIMIT, &v, 4) : with(fd, &a, IPPROTO_IP, IP_TTL, &v, 4));
	if (six) {
		char c[100];
		struct iovec iv = { in, sizeof in };
		struct msghdr m = { .msg_iov = &iv, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c };
		num("recvmsg", recvmsg(fd, &m, 0));
		struct cmsghdr *h = CMSG_FIRSTHDR(&m);
		say("hop limit %d", h ? *CMSG_DATA(h) : -1);
	} else {
		get("packet", fd, in);
		start("control-tos");
		v = 0x10;
		num("sendmsg", with(fd, &a, IPPROTO_IP, IP_TOS, &v, 4));
		get("packet", fd, in);
	}
	start("control-source");
	if (six) {
		struct in6_pktinfo p = { .ipi6_addr = src.in6.sin6_addr };
		num("own", with(fd, &a, IPPROTO_IPV6, IPV6_PKTINFO, &p, sizeof p));
		get("packet", fd, in);
		p.ipi6_addr = no.in6.sin6_addr;
		num("not own", with(fd, &a, IPPROTO_IPV6, IPV6_PKTINFO, &p, sizeof p));
	} else {
		struct in_pktinfo p = { .ipi_spec_dst = src.in.sin_addr };
		num("own", with(fd, &a, IPPROTO_IP, IP_PKTINFO, &p, sizeof p));
		get("packet", fd, in);
		p.ipi_spec_dst = no.in.sin_addr;
		num("not own", with(fd, &a, IPPROTO_IP, IP_PKTINFO, &p, sizeof p));
	}
	start("control-unknown");
	num("sendmsg", with(fd, &a, six ? IPPROTO_IPV6 : IPPROTO_IP, 99, &v, 4));
	start("bound-source");
	flush(fd);
	int s = raw(family(), FREE);
	ok("bind", bind(s, &src.sa, src.len));
	num("sendto", put_to(s, "bound", 5, &a));
	get("packet", fd, in);
	close(s);
	close(fd);
	start("device");
	fd = raw(family(), FREE);
	ok("lo", setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3));
	ok("nothing", setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "nothing0", 9));
	num("to loopback", put_to(fd, "by lo", 5, &a));
	get("packet", fd, in);
	struct addr p = mk(peer, 0);
	num("to the peer", put_to(fd, "by lo", 5, &p));
	ok("any", setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "", 0));
	num("to the peer", put_to(fd, "by any", 6, &p));
	close(fd);
}

// forms: the calls that send.
static void forms(void)
{
	struct addr a = mk(lo, 0);
	start("forms");
	int fd = raw(family(), FREE);
	ok("connect", connect(fd, &a.sa, a.len));
	num("send", send(fd, "sent", 4, 0));
	get("sent", fd, in);
	num("write", write(fd, "written", 7));
	get("written", fd, in);
	struct iovec v[2] = { { "vec", 3 }, { "tor", 3 } };
	num("writev", writev(fd, v, 2));
	get("writev", fd, in);
	struct msghdr m = { .msg_iov = v, .msg_iovlen = 2 };
	num("sendmsg", sendmsg(fd, &m, 0));
	get("sendmsg", fd, in);
	struct mmsghdr mm[2] = { { .msg_hdr = m }, { .msg_hdr = m } };
	num("sendmmsg", sendmmsg(fd, mm, 2, 0));
	get("sendmmsg", fd, in);
	get("sendmmsg", fd, in);
	struct addr b = mk(lo2, 0);
	num("sendto elsewhere", put_to(fd, "else", 4, &b));
	none("is not from the peer", fd);
	close(fd);
}

// A header that the program makes.
static int ip4(unsigned char *p, const char *src, const char *dst, int proto, const char *data)
{
	struct addr s = mk(src, 0), d = mk(dst, 0);
	int n = strlen(data);
	memset(p, 0, 20);
	p[0] = 0x45, p[8] = 33, p[9] = proto;
	memcpy(p + 12, &s.in.sin_addr, 4);
	memcpy(p + 16, &d.in.sin_addr, 4);
	memcpy(p + 20, data, n);
	return 20 + n;
}

static void own4(void)
{
	struct addr a = mk(lo, 0);
	start("hdrincl");
	int fd = raw(AF_INET, FREE), r = raw(AF_INET, FREE2);
	say("IP_HDRINCL %d", opt(fd, IPPROTO_IP, IP_HDRINCL));
	ok("set", on(fd, IPPROTO_IP, IP_HDRINCL, 5));
	say("IP_HDRINCL %d", opt(fd, IPPROTO_IP, IP_HDRINCL));
	int n = ip4(out, "0.0.0.0", lo, FREE2, "by hand");
	num("sendto", put_to(fd, out, n, &a));
	get("filled in", r, in);
	start("hdrincl-kept");
	out[1] = 0x1c, out[4] = 0x12, out[5] = 0x34, out[6] = 0x40, out[10] = 0xff, out[2] = 9;
	memcpy(out + 12, &(struct in_addr){ htonl(0x7f000005) }, 4);
	num("sendto", put_to(fd, out, n, &a));
	get("kept", r, in);
	say("id %02x%02x", in[4], in[5]);
	start("hdrincl-spoofed");
	n = ip4(out, "198.51.100.7", lo, FREE2, "not mine");
	num("sendto", put_to(fd, out, n, &a));
	get("spoofed", r, in);
	start("hdrincl-elsewhere");
	n = ip4(out, "0.0.0.0", "127.0.0.9", FREE2, "for nine");
	num("sendto", put_to(fd, out, n, &a));
	get("header's address", r, in);
	start("hdrincl-wrong");
	n = ip4(out, "0.0.0.0", lo, FREE2, "wrong");
	num("shorter than a header", put_to(fd, out, 19, &a));
	num("a header alone", put_to(fd, out, 20, &a));
	flush(r);
	out[0] = 0x46;
	num("options beyond the end", put_to(fd, out, 20, &a));
	out[0] = 0x44;
	num("header length 16", put_to(fd, out, n, &a));
	none("header length 16", r);
	out[0] = 0x65;
	num("version 6", put_to(fd, out, n, &a));
	none("version 6", r);
	start("hdrincl-options");
	n = ip4(out, "0.0.0.0", lo, FREE2, "\x01\x01\x01\x01" "payload");
	out[0] = 0x46;
	num("sendto", put_to(fd, out, n, &a));
	get("no operation", r, in);
	start("hdrincl-long");
	memset(out, 0, sizeof out);
	ip4(out, "0.0.0.0", lo, FREE2, "");
	num("65535", put_to(fd, out, 65535, &a));
	long got = recv(r, in, sizeof in, 0);
	num("received", got);
	struct addr p = mk(peer, 0);
	ip4(out, "0.0.0.0", peer, FREE2, "");
	num("1501 bytes by a link", put_to(fd, out, 1501, &p));
	start("hdrincl-ttl-option");
	on(fd, IPPROTO_IP, IP_TTL, 99);
	n = ip4(out, "0.0.0.0", lo, FREE2, "ttl");
	num("sendto", put_to(fd, out, n, &a));
	get("the header's", r, in);
	start("hdrincl-receives");
	num("sendto", put_to(r, "x", 1, &a));
	flush(r);
	int q = raw(AF_INET, FREE);
	num("sendto", put_to(q, "plain", 5, &a));
	get("with hdrincl", fd, in);
	close(q);
	start("hdrincl-fragment");
	n = ip4(out, "127.0.0.1", lo, FREE2, "01234567");
	out[4] = 1, out[6] = 0x20; // more follow
	num("first", put_to(fd, out, n, &a));
	none("half", r);
	n = ip4(out, "127.0.0.1", lo, FREE2, "89");
	out[4] = 1, out[7] = 1;
	num("last", put_to(fd, out, n, &a));
	get("whole", r, in);
	start("hdrincl-off");
	ok("clear", on(fd, IPPROTO_IP, IP_HDRINCL, 0));
	flush(fd);
	num("sendto", put_to(fd, "plain", 5, &a));
	get("plain", fd, in);
	close(fd);

	start("hdrincl-udp");
	fd = raw(AF_INET, IPPROTO_RAW);
	int u = need("socket", socket(AF_INET, SOCK_DGRAM, 0));
	struct addr name = mk(lo, 0);
	need("bind", bind(u, &name.sa, name.len));
	name.len = sizeof name.ss;
	getsockname(u, &name.sa, &name.len);
	n = ip4(out, "127.0.0.1", lo, IPPROTO_UDP, "........forged");
	memset(out + 20, 0, 8);
	out[20] = 0x30, out[21] = 0x39; // 12345
	memcpy(out + 22, &name.in.sin_port, 2);
	out[25] = n - 20;
	num("sendto", put_to(fd, out, n, &name));
	struct addr from = { .len = sizeof from.ss };
	long k = recvfrom(u, in, sizeof in, 0, &from.sa, &from.len);
	say("udp: %ld \"%.*s\" from port %d", k, k > 0 ? (int)k : 0, in, ntohs(from.in.sin_port));
	close(u);
	start("ipproto-raw");
	say("IP_HDRINCL %d", opt(fd, IPPROTO_IP, IP_HDRINCL));
	names("new", fd);
	none("receives", fd);
	ok("clear", on(fd, IPPROTO_IP, IP_HDRINCL, 0));
	num("sendto", put_to(fd, "255", 3, &a));
	get("protocol 255", fd, in);
	ok("connect", connect(fd, &a.sa, a.len));
	ok("set", on(fd, IPPROTO_IP, IP_HDRINCL, 1));
	n = ip4(out, "0.0.0.0", lo, FREE2, "connected");
	num("send", send(fd, out, n, 0));
	get("connected", r, in);
	close(fd);
	close(r);
}

static int ip6(unsigned char *p, const char *src, const char *dst, int proto, const char *data)
{
	struct addr s = mk(src, 0), d = mk(dst, 0);
	int n = strlen(data);
	memset(p, 0, 40);
	p[0] = 0x60, p[5] = n, p[6] = proto, p[7] = 33;
	memcpy(p + 8, &s.in6.sin6_addr, 16);
	memcpy(p + 24, &d.in6.sin6_addr, 16);
	memcpy(p + 40, data, n);
	return 40 + n;
}

static void own6(void)
{
	struct addr a = mk(lo, 0);
	start("hdrincl");
	int fd = raw(AF_INET6, FREE), r = raw(AF_INET6, FREE2);
	say("IPV6_HDRINCL %d, IP_HDRINCL %d", opt(fd, IPPROTO_IPV6, IPV6_HDRINCL), opt(fd, IPPROTO_IP, IP_HDRINCL));
	ok("set", on(fd, IPPROTO_IPV6, IPV6_HDRINCL, 5));
	say("IPV6_HDRINCL %d", opt(fd, IPPROTO_IPV6, IPV6_HDRINCL));
	int n = ip6(out, lo, lo, FREE2, "by hand");
	num("sendto", put_to(fd, out, n, &a));
	get("by hand", r, in);
	start("hdrincl-spoofed");
	n = ip6(out, "2001:db8::7", lo, FREE2, "not mine");
	num("sendto", put_to(fd, out, n, &a));
	get("spoofed", r, in);
	start("hdrincl-wrong");
	num("shorter than a header", put_to(fd, out, 39, &a));
	out[0] = 0x45;
	num("version 4", put_to(fd, out, n, &a));
	none("version 4", r);
	ip6(out, lo, lo, FREE2, "12345678");
	out[5] = 9;
	num("longer than it is", put_to(fd, out, 48, &a));
	none("longer than it is", r);
	out[5] = 3;
	num("shorter than it is", put_to(fd, out, 48, &a));
	get("shorter than it is", r, in);
	start("hdrincl-long");
	struct addr p = mk(peer, 0);
	ip6(out, self, peer, FREE2, "");
	num("1501 bytes by a link", put_to(fd, out, 1501, &p));
	start("hdrincl-off");
	ok("clear", on(fd, IPPROTO_IPV6, IPV6_HDRINCL, 0));
	num("sendto", put_to(fd, "plain", 5, &a));
	get("plain", fd, in);
	close(fd);
	start("ipproto-raw");
	fd = raw(AF_INET6, IPPROTO_RAW);
	say("IPV6_HDRINCL %d", opt(fd, IPPROTO_IPV6, IPV6_HDRINCL));
	n = ip6(out, lo, lo, FREE2, "by hand");
	num("sendto", put_to(fd, out, n, &a));
	get("by hand", r, in);
	ok("clear", on(fd, IPPROTO_IPV6, IPV6_HDRINCL, 0));
	num("sendto", put_to(fd, "255", 3, &a));
	get("protocol 255", fd, in);
	struct addr as = mk(lo, FREE2);
	num("as another protocol", put_to(fd, "254", 3, &as));
	get("as another protocol", r, in);
	close(fd);
	close(r);
}

// sum6 is IPV6_CHECKSUM.
static void sum6(void)
{
	struct addr a = mk(lo, 0);
	start("checksum");
	int fd = raw(AF_INET6, FREE), r = raw(AF_INET6, FREE);
	say("IPV6_CHECKSUM %d", opt(fd, IPPROTO_IPV6, IPV6_CHECKSUM));
	ok("odd", on(fd, IPPROTO_IPV6, IPV6_CHECKSUM, 3));
	ok("short", setsockopt(fd, IPPROTO_IPV6, IPV6_CHECKSUM, "\1", 1));
	ok("2", on(fd, IPPROTO_IPV6, IPV6_CHECKSUM, 2));
	say("IPV6_CHECKSUM %d", opt(fd, IPPROTO_IPV6, IPV6_CHECKSUM));
	num("sendto", put_to(fd, "ab\0\0cdef", 8, &a));
	long n = recv(r, in, sizeof in, 0);
	say("%ld bytes, sum %02x%02x", n, in[2], in[3]);
	start("checksum-odd-length");
	num("sendto", put_to(fd, "ab\0\0cde", 7, &a));
	n = recv(r, in, sizeof in, 0);
	say("%ld bytes, sum %02x%02x", n, in[2], in[3]);
	start("checksum-room");
	num("4 bytes", put_to(fd, "abcd", 4, &a));
	num("3 bytes", put_to(fd, "abc", 3, &a));
	num("2 bytes", put_to(fd, "ab", 2, &a));
	flush(fd);
	flush(r);
	start("checksum-received");
	num("with a wrong one", put_to(r, "wrong sum", 9, &a));
	none("drops", fd);
	get("takes", r, in);
	start("checksum-off");
	ok("off", on(fd, IPPROTO_IPV6, IPV6_CHECKSUM, -7));
	say("IPV6_CHECKSUM %d", opt(fd, IPPROTO_IPV6, IPV6_CHECKSUM));
	num("sendto", put_to(fd, "abcdef", 6, &a));
	get("as it is", r, in);
	close(fd);
	close(r);
	start("checksum-icmp");
	fd = raw(AF_INET6, IPPROTO_ICMPV6);
	say("IPV6_CHECKSUM %d", opt(fd, IPPROTO_IPV6, IPV6_CHECKSUM));
	ok("set", on(fd, IPPROTO_IPV6, IPV6_CHECKSUM, 4));
	ok("as SOL_RAW", on(fd, SOL_RAW, IPV6_CHECKSUM, 2));
	close(fd);
}

int main(int argc, char **argv)
{
	deadline(50);
	six = argc > 1 && !strcmp(argv[1], "6");
	lo = six ? "::1" : "127.0.0.1";
	self = env(six ? "LAB_SELF6" : "LAB_SELF4");
	lo2 = six ? self : "127.0.0.2";
	peer = env(six ? "LAB_PEER6" : "LAB_PEER4");
	arguments();
	settings();
	controls();
	forms();
	if (six) {
		own6();
		sum6();
	} else {
		own4();
	}
	return 0;
}
