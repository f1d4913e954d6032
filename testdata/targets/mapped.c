// SPDX-License-Identifier: Apache-2.0

// IPv4 on IPv6 sockets, IPV6_V6ONLY, and scopes of addresses.
#include "dgram.h"

#define MAP "::ffff:127.0.0.1"

static int only(int fd, int value) { return on(fd, IPPROTO_IPV6, IPV6_V6ONLY, value); }

static void datagrams(void)
{
	int four = bound("127.0.0.1", 0), six = bound("::1", 0), dual = bound("::", 0);
	begin("mapped/udp-receive");
	num("over IPv4", give(four, "one", "127.0.0.1", port_at(dual)));
	take("dual", dual);
	num("over IPv6", give(six, "two", "::1", port_at(dual)));
	take("dual", dual);

	begin("mapped/udp-send");
	num("to the mapped address", give(dual, "three", MAP, port_at(four)));
	take("v4", four);
	num("to IPv6", give(dual, "four", "::1", port_at(six)));
	take("v6", six);
	struct addr a = mk("127.0.0.1", port_at(four));
	num("to a sockaddr_in", sendto(dual, "five", 4, 0, &a.sa, a.len));
	take("v4", four);
	names("dual", dual);

	begin("mapped/udp-connect");
	int c = fresh("::");
	ok("connect", connect_to(c, MAP, port_at(four)));
	names("connected", c);
	num("write", write(c, "six", 3));
	take("v4", four);
	num("answer", give(four, "seven", "127.0.0.1", port_at(c)));
	take("answered", c);
	ok("connect to IPv6", connect_to(c, "::1", port_at(six)));
	names("then", c);
	close(c);
	c = fresh("::");
	ok("connect to a sockaddr_in", connect(c, &a.sa, a.len));
	names("connected", c);
	close(c);

	begin("mapped/udp-bound");
	c = bound(MAP, 0);
	names("bound", c);
	num("to IPv4", give(c, "eight", MAP, port_at(four)));
	take("v4", four);
	num("to IPv6", give(c, "nine", "::1", port_at(six)));
	ok("connect to IPv6", connect_to(c, "::1", port_at(six)));
	close(c);
	num("from an IPv6 address to IPv4", give(six, "ten", MAP, port_at(four)));
	ok("connect to IPv4", connect_to(six, MAP, port_at(four)));

	begin("mapped/udp-v6only");
	c = fresh("::");
	num("from the start", opt(c, IPPROTO_IPV6, IPV6_V6ONLY));
	ok("V6ONLY", only(c, 1));
	num("to the mapped address", give(c, "x", MAP, port_at(four)));
	num("to a sockaddr_in", sendto(c, "x", 1, 0, &a.sa, a.len));
	ok("connect", connect_to(c, MAP, port_at(four)));
	ok("connect to a sockaddr_in", connect(c, &a.sa, a.len));
	close(c);
	c = fresh("::");
	ok("V6ONLY", only(c, 1));
	ok("bind", bind_to(c, "::", 0));
	ok("V6ONLY when bound", only(c, 0));
	num("over IPv4", give(four, "eleven", "127.0.0.1", port_at(c)));
	quiet("not for it", c);
	close(c);

	begin("mapped/udp-failed-send-binds");
	c = fresh("::");
	only(c, 1);
	num("to the mapped address", give(c, "x", MAP, port_at(four)));
	names("a port", c);
	close(c);

	begin("mapped/udp-wildcards");
	c = fresh("::");
	ok("connect to ::", connect_to(c, "::", port_at(dual)));
	names("connected", c);
	close(c);
	c = fresh("::");
	ok("connect to ::ffff:0.0.0.0", connect_to(c, "::ffff:0.0.0.0", port_at(dual)));
	names("connected", c);
	close(c);
	num("send to ::", give(four, "x", "0.0.0.0", port_at(dual)));
	take("v4", dual);
	c = fresh("::");
	num("send to ::", give(c, "y", "::", port_at(dual)));
	take("v6", dual);
	num("send to ::ffff:0.0.0.0", give(c, "z", "::ffff:0.0.0.0", port_at(dual)));
	take("mapped", dual);
	ok("::127.0.0.1 is no mapped address", connect_to(c, "::127.0.0.1", 9));
	close(c);

	begin("mapped/udp-peer");
	c = fresh("::");
	char peer[64];
	snprintf(peer, sizeof peer, "::ffff:%s", env("LAB_PEER4"));
	ok("connect", connect_to(c, peer, ECHO));
	names("connected", c);
	num("write", write(c, "far", 3));
	take("echo", c);
	close(c);
	c = fresh("::");
	ok("refused", connect_to(c, peer, CLOSED));
	num("write", write(c, "x", 1));
	nap(150);
	so_error("refused", c);
	close(c);
	close(four);
	close(six);
	close(dual);
}

static int listener(const char *ip, int v6only, int *port)
{
	struct addr a = mk(ip, 0);
	int fd = tcp(&a, 0);
	if (v6only)
		only(fd, 1);
	need("bind", bind(fd, &a.sa, a.len));
	need("listen", listen(fd, 8));
	*port = port_at(fd);
	return fd;
}

static void streams(void)
{
	int p4, p6, pd;
	int l4 = listener("127.0.0.1", 0, &p4), l6 = listener("::", 1, &p6), ld = listener("::", 0, &pd);
	struct addr a;
	begin("mapped/tcp-accept");
	int c = dial("127.0.0.1", pd);
	a.len = sizeof a.ss;
	int s = need("accept", accept(ld, &a.sa, &a.len));
	say("from %s", show(&a));
	names("accepted", s);
	num("V6ONLY of it", opt(s, IPPROTO_IPV6, IPV6_V6ONLY));
	num("DOMAIN of it", opt(s, SOL_SOCKET, SO_DOMAIN));
	close(c);
	close(s);

	begin("mapped/tcp-connect");
	c = tcp(&(struct addr){ .in6 = { .sin6_family = AF_INET6 } }, 0);
	ok("connect", connect_to(c, MAP, p4));
	names("connected", c);
	num("TTL", opt(c, IPPROTO_IP, IP_TTL));
	put(c, "abc", 3);
	s = need("accept", accept(l4, NULL, NULL));
	text("read", read(s, heard, 3), heard);
	close(c);
	close(s);

	begin("mapped/tcp-v6only");
	c = tcp(&(struct addr){ .in6 = { .sin6_family = AF_INET6 } }, 0);
	ok("V6ONLY", only(c, 1));
	ok("connect to the mapped address", connect_to(c, MAP, p4));
	ok("connect to IPv6", connect_to(c, "::1", p6));
	ok("V6ONLY when connected", only(c, 0));
	close(c);
	a = mk("127.0.0.1", p6);
	c = tcp(&a, 0);
	ok("over IPv4", connect(c, &a.sa, a.len));
	close(c);

	begin("mapped/tcp-bound");
	c = tcp(&(struct addr){ .in6 = { .sin6_family = AF_INET6 } }, 0);
	ok("bind to a mapped address", bind_to(c, "::ffff:127.0.0.3", 0));
	ok("connect", connect_to(c, MAP, p4));
	names("connected", c);
	close(c);
	c = tcp(&(struct addr){ .in6 = { .sin6_family = AF_INET6 } }, 0);
	ok("bind to ::1", bind_to(c, "::1", 0));
	ok("connect to the mapped address", connect_to(c, MAP, p4));
	close(c);

	begin("mapped/tcp-sockaddr-in");
	c = tcp(&(struct addr){ .in6 = { .sin6_family = AF_INET6 } }, 0);
	a = mk("127.0.0.1", p4);
	ok("connect", connect(c, &a.sa, a.len));
	close(c);

	begin("mapped/tcp-wildcards");
	c = tcp(&(struct addr){ .in6 = { .sin6_family = AF_INET6 } }, 0);
	ok("connect to ::", connect_to(c, "::", pd));
	names("connected", c);
	close(c);
	c = tcp(&(struct addr){ .in6 = { .sin6_family = AF_INET6 } }, 0);
	ok("connect to ::ffff:0.0.0.0", connect_to(c, "::ffff:0.0.0.0", pd));
	names("connected", c);
	close(c);

	begin("mapped/tcp-listener-at-mapped");
	int pm, lm = listener("::ffff:127.0.0.4", 0, &pm);
	names("listener", lm);
	c = dial("127.0.0.4", pm);
	s = need("accept", accept(lm, NULL, NULL));
	names("accepted", s);
	close(c);
	close(s);
	close(lm);
	close(l4);
	close(l6);
	close(ld);
}

static void scopes(void)
{
	int types[] = { SOCK_DGRAM, SOCK_STREAM };
	for (int i = 0; i < 2; i++) {
		begin("mapped/scope-%s", i ? "tcp" : "udp");
		struct addr a = mk("fe80::1234", 9);
		int c = need("socket", socket(AF_INET6, types[i] | SOCK_NONBLOCK, 0));
		ok("link-local without scope", connect(c, &a.sa, a.len));
		ok("short address", connect(c, &a.sa, 24));
		a.in6.sin6_scope_id = 9999;
		ok("no such interface", connect(c, &a.sa, a.len));
		close(c);
	}
	begin("mapped/scope-of-global");
	struct addr a = mk("::1", 0);
	int r = bound("::", 0), c = fresh("::");
	a.in6.sin6_port = htons(port_at(r));
	a.in6.sin6_scope_id = 1;
	ok("connect", connect(c, &a.sa, a.len));
	a.len = sizeof a.ss;
	getpeername(c, &a.sa, &a.len);
	say("scope %u, flow %u", a.in6.sin6_scope_id, a.in6.sin6_flowinfo);
	a = mk("::1", port_at(r));
	a.in6.sin6_scope_id = 9999;
	num("sendto with any scope", sendto(c, "abc", 3, 0, &a.sa, a.len));
	take("came", r);
	close(c);

	begin("mapped/scope-sendto");
	c = fresh("::");
	a = mk("fe80::1234", 9);
	a.in6.sin6_scope_id = 9999;
	num("no such interface", sendto(c, "x", 1, 0, &a.sa, a.len));
	ok("bound to lo", setsockopt(c, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3));
	a.in6.sin6_scope_id = index_of(env("LAB_SELF6"));
	num("another interface", sendto(c, "x", 1, 0, &a.sa, a.len));
	ok("connect to another", connect(c, &a.sa, a.len));
	close(c);

	begin("mapped/flowinfo");
	c = fresh("::");
	a = mk("::1", port_at(r));
	a.in6.sin6_flowinfo = htonl(0x12345);
	num("a flow label that nobody looks at", sendto(c, "abc", 3, 0, &a.sa, a.len));
	take("came", r);
	close(c);
	close(r);

	begin("mapped/bound-device-decides");
	r = bound("0.0.0.0", 0);
	c = fresh("0.0.0.0");
	ok("receiver on the other interface", setsockopt(r, SOL_SOCKET, SO_BINDTOIFINDEX, &(int){ index_of(env("LAB_SELF4")) }, sizeof(int)));
	num("by lo", give(c, "x", "127.0.0.1", port_at(r)));
	quiet("not heard", r);
	ok("unbound", setsockopt(r, SOL_SOCKET, SO_BINDTOIFINDEX, &(int){ 1 }, sizeof(int)));
	close(r);
	close(c);
}

int main(int argc, char **argv)
{
	deadline(30);
	if (argc != 2)
		return 9;
	if (!strcmp(argv[1], "udp"))
		datagrams();
	else if (!strcmp(argv[1], "tcp"))
		streams();
	else if (!strcmp(argv[1], "scopes"))
		scopes();
	else
		return 9;
	return 0;
}
