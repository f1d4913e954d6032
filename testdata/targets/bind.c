// SPDX-License-Identifier: Apache-2.0

// Binding rules: who may share a port with whom, which socket of several gets a
// datagram, and the addresses that bind(2) takes.
#include "dgram.h"

static int sock(const char *ip, int type)
{
	return need("socket", socket(version(ip) == 6 ? AF_INET6 : AF_INET, type, 0));
}

static const char *word(int type) { return type == SOCK_STREAM ? "tcp" : "udp"; }

enum { NONE, REUSE = 1, PORT = 2, ONLY = 4 };

static int made(const char *ip, int type, int how)
{
	int fd = sock(ip, type);
	if (how & REUSE)
		on(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (how & PORT)
		on(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (how & ONLY)
		on(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	return fd;
}

// pair binds two sockets to one port, in this order and in the other.
static void pair(int type, const char *a, int how_a, const char *b, int how_b)
{
	for (int turn = 0; turn < 2; turn++) {
		const char *one = turn ? b : a, *two = turn ? a : b;
		int x = made(one, type, turn ? how_b : how_a), y = made(two, type, turn ? how_a : how_b);
		int first = bind_to(x, one, 7100), second = first < 0 ? -1 : bind_to(y, two, 7100);
		say("%s, %s: %s", one, two, first < 0 ? "the first failed" : second < 0 ? errname(errno) : "both");
		close(x);
		close(y);
	}
}

static void conflicts(int type)
{
	const char *k = word(type);
	static const char *const any4 = "0.0.0.0", *const any6 = "::", *const lo4 = "127.0.0.1", *const lo6 = "::1",
		*const two4 = "127.0.0.2", *const map4 = "::ffff:127.0.0.1";
	static const struct { const char *s; int a, b; } hows[] = {
		{ "plain", NONE, NONE }, { "reuseaddr", REUSE, REUSE }, { "reuseaddr-of-one", REUSE, NONE },
		{ "reuseport", PORT, PORT }, { "reuseport-of-one", PORT, NONE }, { "mixed", REUSE, PORT }, { "both", REUSE | PORT, PORT },
	};
	for (int i = 0; i < LEN(hows); i++) {
		int a = hows[i].a, b = hows[i].b;
		begin("bind/%s-%s", k, hows[i].s);
		pair(type, any4, a, any4, b);
		pair(type, lo4, a, lo4, b);
		pair(type, any4, a, lo4, b);
		pair(type, lo4, a, two4, b);
		begin("bind/%s6-%s", k, hows[i].s);
		pair(type, any6, a, any6, b);
		pair(type, lo6, a, lo6, b);
		pair(type, any6, a, lo6, b);
		begin("bind/%s46-%s", k, hows[i].s);
		pair(type, any6, a, any4, b);
		pair(type, any6, a, lo4, b);
		pair(type, lo6, a, any4, b);
		pair(type, map4, a, lo4, b);
		pair(type, map4, a, any4, b);
		pair(type, map4, a, any6, b);
		pair(type, map4, a, lo6, b);
		begin("bind/%s46-v6only-%s", k, hows[i].s);
		pair(type, any6, a | ONLY, any4, b);
		pair(type, any6, a | ONLY, lo4, b);
		pair(type, any6, a | ONLY, map4, b);
		pair(type, any6, a | ONLY, any6, b);
		pair(type, any6, a | ONLY, any6, b | ONLY);
	}
}

static void addresses(int type)
{
	const char *k = word(type);
	begin("bind/%s-addresses", k);
	static const char *const of[] = { "127.0.0.1", "127.9.8.7", "10.77.0.1", "10.77.0.0", "239.1.2.3", "255.255.255.255", "0.0.0.1",
		"::1", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "::ffff:10.77.0.1", "fd77::1", "fe80::1", "ff02::1", "ff0e::1" };
	for (int i = 0; i < LEN(of); i++) {
		int fd = sock(of[i], type);
		ok(of[i], bind_to(fd, of[i], 0));
		close(fd);
	}
	int fd = sock("127.0.0.1", type);
	ok("the own", bind_to(fd, env("LAB_SELF4"), 0));
	names("bound", fd);
	ok("again", bind_to(fd, env("LAB_SELF4"), 0));
	close(fd);
	fd = sock("::", type);
	ok("the own of v6", bind_to(fd, env("LAB_SELF6"), 0));
	names("bound", fd);
	close(fd);

	begin("bind/%s-freebind", k);
	fd = sock("127.0.0.1", type);
	ok("FREEBIND", on(fd, IPPROTO_IP, IP_FREEBIND, 1));
	ok("somebody else's address", bind_to(fd, "10.11.12.13", 7200));
	names("bound", fd);
	close(fd);
	fd = sock("::1", type);
	ok("FREEBIND", on(fd, IPPROTO_IPV6, 78 /* IPV6_FREEBIND */, 1));
	ok("somebody else's address", bind_to(fd, "fd99::1", 7200));
	close(fd);

	begin("bind/%s-sockaddr", k);
	struct addr a = mk("127.0.0.1", 7201);
	fd = sock("127.0.0.1", type);
	ok("one byte short", bind(fd, &a.sa, a.len - 1));
	ok("long", bind(fd, &a.sa, sizeof a.ss));
	names("bound", fd);
	close(fd);
	fd = sock("127.0.0.1", type);
	a.sa.sa_family = AF_UNSPEC;
	ok("AF_UNSPEC", bind(fd, &a.sa, a.len));
	a.in.sin_addr.s_addr = 0;
	ok("AF_UNSPEC, any", bind(fd, &a.sa, a.len));
	close(fd);
	fd = sock("::", type);
	a = mk("127.0.0.1", 7202);
	ok("v4 on v6", bind(fd, &a.sa, a.len));
	a = mk("::1", 7202);
	ok("24 bytes", bind(fd, &a.sa, 24));
	close(fd);
	fd = sock("::", type);
	ok("23 bytes", bind(fd, &a.sa, 23));
	a.sa.sa_family = AF_UNSPEC;
	ok("AF_UNSPEC on v6", bind(fd, &a.sa, a.len));
	a = mk("::1", 7203);
	a.in6.sin6_scope_id = 77;
	ok("a scope that means nothing", bind(fd, &a.sa, a.len));
	names("bound", fd);
	close(fd);
	fd = sock("::", type);
	a = mk("fe80::1", 7204);
	ok("link-local without scope", bind(fd, &a.sa, a.len));
	a.in6.sin6_scope_id = 1;
	ok("link-local of lo", bind(fd, &a.sa, a.len));
	a.in6.sin6_scope_id = 77;
	ok("link-local of none", bind(fd, &a.sa, a.len));
	ok("V6ONLY", on(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1));
	ok("mapped on V6ONLY", bind_to(fd, "::ffff:127.0.0.1", 7205));
	close(fd);

	begin("bind/%s-ephemeral", k);
	int p[20], ports[20], low = 65535, twice = 0;
	for (int i = 0; i < 20; i++) {
		p[i] = sock("127.0.0.1", type);
		need("bind", bind_to(p[i], "0.0.0.0", 0));
		ports[i] = port_at(p[i]);
		if (ports[i] < low)
			low = ports[i];
		for (int j = 0; j < i; j++)
			twice += ports[i] == ports[j];
	}
	for (int i = 0; i < 20; i++)
		close(p[i]);
	say("the lowest: %s, twice: %d", low >= 16000 ? "ephemeral" : "low", twice);
	fd = sock("127.0.0.1", type);
	ok("a port that was free again", bind_to(fd, "127.0.0.1", ports[0]));
	close(fd);

	begin("bind/%s-device", k);
	fd = sock("127.0.0.1", type);
	ok("lo", setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3));
	ok("bind", bind_to(fd, "127.0.0.1", 7206));
	int g = sock("127.0.0.1", type);
	ok("without a device", bind_to(g, "127.0.0.1", 7206));
	ok("none such", setsockopt(g, SOL_SOCKET, SO_BINDTODEVICE, "nothere", 8));
	char name[32];
	socklen_t n = sizeof name;
	ok("get", getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, &n));
	say("%d %s", (int)n, n ? name : "");
	ok("change", setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "", 0));
	ok("by index", on(g, SOL_SOCKET, SO_BINDTOIFINDEX, 1));
	n = 4;
	ok("no room", getsockopt(g, SOL_SOCKET, SO_BINDTODEVICE, name, &n));
	close(fd);
	close(g);

	begin("bind/%s-low-port", k);
	fd = sock("127.0.0.1", type);
	ok("1023", bind_to(fd, "127.0.0.1", 1023));
	close(fd);
	fd = sock("127.0.0.1", type);
	ok("1024", bind_to(fd, "127.0.0.1", 1024));
	close(fd);
}

// duet lets two sockets listen on one port, in this order and in the other.
static void duet(const char *a, int how_a, const char *b, int how_b)
{
	for (int turn = 0; turn < 2; turn++) {
		const char *one = turn ? b : a, *two = turn ? a : b, *failed = NULL;
		int x = made(one, SOCK_STREAM, turn ? how_b : how_a), y = made(two, SOCK_STREAM, turn ? how_a : how_b);
		if (bind_to(x, one, 7310) < 0)
			failed = "bind one";
		else if (bind_to(y, two, 7310) < 0)
			failed = "bind two";
		else if (listen(x, 1) < 0)
			failed = "listen one";
		else if (listen(y, 1) < 0)
			failed = "listen two";
		say("%s, %s: %s", one, two, failed ? failed : "both listen");
		close(x);
		close(y);
	}
}

// beside has the pairs that daemons make: a listener for each family, or one for
// each address.
static void beside(const char *how, int h)
{
	const char *own4 = env("LAB_SELF4"), *own6 = env("LAB_SELF6");
	begin("bind/listen-beside-%s", how);
	duet("0.0.0.0", h, "::", h | ONLY);
	duet("0.0.0.0", h, "::", h);
	duet("0.0.0.0", h, "::1", h);
	duet("0.0.0.0", h, "::ffff:127.0.0.1", h);
	duet("0.0.0.0", h, "127.0.0.1", h);
	duet("127.0.0.1", h, "::", h | ONLY);
	duet("127.0.0.1", h, "::", h);
	duet("127.0.0.1", h, "::1", h);
	duet("::", h | ONLY, "::1", h);
	duet("::", h, "::", h | ONLY);
	// The addresses differ between the two sides, so they are not said.
	int x = made(own4, SOCK_STREAM, h), y = made(own6, SOCK_STREAM, h), z = made("127.0.0.1", SOCK_STREAM, h);
	ok("own4", bind_to(x, own4, 7311) < 0 ? -1 : listen(x, 1));
	ok("own6", bind_to(y, own6, 7311) < 0 ? -1 : listen(y, 1));
	ok("lo", bind_to(z, "127.0.0.1", 7311) < 0 ? -1 : listen(z, 1));
	close(x);
	close(y);
	close(z);
}

// streams is what concerns listeners.
static void streams(void)
{
	beside("plain", NONE);
	beside("reuseaddr", REUSE);
	beside("reuseport", PORT);

	begin("bind/listen-shared");
	int a = made("127.0.0.1", SOCK_STREAM, REUSE), b = made("127.0.0.1", SOCK_STREAM, REUSE);
	ok("a", bind_to(a, "127.0.0.1", 7300));
	ok("b", bind_to(b, "127.0.0.1", 7300));
	ok("a listens", listen(a, 1));
	ok("b listens", listen(b, 1));
	int c = made("127.0.0.1", SOCK_STREAM, REUSE);
	ok("c, where one listens", bind_to(c, "127.0.0.1", 7300));
	close(a);
	ok("b listens", listen(b, 1));
	close(b);
	close(c);

	begin("bind/listen-reuseport");
	int l[4], got[4] = { 0 };
	for (int i = 0; i < 4; i++) {
		l[i] = made("127.0.0.1", SOCK_STREAM, PORT);
		need("bind", bind_to(l[i], "127.0.0.1", 7301));
		need("listen", listen(l[i], 64));
	}
	for (int i = 0; i < 60; i++) {
		int fd = dial("127.0.0.1", 7301);
		close(fd);
	}
	nap(20);
	int sum_ = 0, served = 0;
	for (int i = 0; i < 4; i++) {
		fcntl(l[i], F_SETFL, O_NONBLOCK);
		int s;
		while ((s = accept(l[i], NULL, NULL)) >= 0) {
			got[i]++;
			close(s);
		}
		sum_ += got[i];
		served += got[i] > 0;
		close(l[i]);
	}
	say("connections %d, listeners that got some %d", sum_, served);

	begin("bind/listener-of-an-address-first");
	a = made("127.0.0.1", SOCK_STREAM, REUSE | PORT);
	b = made("127.0.0.1", SOCK_STREAM, REUSE | PORT);
	need("bind", bind_to(a, "0.0.0.0", 7302));
	need("bind", bind_to(b, "127.0.0.1", 7302));
	need("listen", listen(a, 4));
	need("listen", listen(b, 4));
	c = dial("127.0.0.1", 7302);
	say("any: %s, the address: %s", events(ready(a, POLLIN, 50)), events(ready(b, POLLIN, 500)));
	close(c);
	c = dial("127.0.0.2", 7302);
	say("any: %s", events(ready(a, POLLIN, 500)));
	close(a);
	close(b);
	close(c);

	begin("bind/loopback-source");
	a = made("127.0.0.1", SOCK_STREAM, NONE);
	ok("bind", bind_to(a, "127.0.0.1", 0));
	ok("to the peer", connect_to(a, env("LAB_PEER4"), ECHO));
	close(a);
	a = bound("127.0.0.1", 0);
	num("a datagram to the peer", give(a, "x", env("LAB_PEER4"), ECHO));
	close(a);

	begin("bind/outgoing-shared-port");
	a = made("127.0.0.1", SOCK_STREAM, NONE);
	need("bind", bind_to(a, "127.0.0.1", 7303));
	need("listen", listen(a, 8));
	b = made("127.0.0.1", SOCK_STREAM, REUSE);
	c = made("127.0.0.1", SOCK_STREAM, REUSE);
	ok("one", bind_to(b, "127.0.0.1", 7304));
	ok("two", bind_to(c, "127.0.0.1", 7304));
	ok("one connects", connect_to(b, "127.0.0.1", 7303));
	ok("two connects to the same", connect_to(c, "127.0.0.1", 7303));
	close(a);
	close(b);
	close(c);

	begin("bind/no-port");
	a = made("127.0.0.1", SOCK_STREAM, NONE);
	ok("NO_PORT", on(a, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1));
	ok("bind", bind_to(a, "127.0.0.2", 0));
	say("port %d", port_at(a));
	b = made("127.0.0.1", SOCK_STREAM, NONE);
	need("bind", bind_to(b, "127.0.0.1", 7305));
	need("listen", listen(b, 8));
	ok("connect", connect_to(a, "127.0.0.1", 7305));
	names("connected", a);
	close(a);
	close(b);

	begin("bind/in-use-while-connected");
	a = made("127.0.0.1", SOCK_STREAM, NONE);
	need("bind", bind_to(a, "127.0.0.1", 7306));
	need("listen", listen(a, 8));
	b = dial("127.0.0.1", 7306);
	c = need("accept", accept(a, NULL, NULL));
	close(a);
	a = made("127.0.0.1", SOCK_STREAM, NONE);
	ok("while a connection is there", bind_to(a, "127.0.0.1", 7306));
	close(a);
	a = made("127.0.0.1", SOCK_STREAM, REUSE);
	ok("with REUSEADDR", bind_to(a, "127.0.0.1", 7306));
	ok("listen", listen(a, 1));
	close(a);
	close(c);
	close(b);
}

// datagrams is which socket gets what.
static void datagrams(void)
{
	int s = bound("127.0.0.1", 0);
	begin("bind/address-first");
	int any = shared("0.0.0.0", 7400), lo = shared("127.0.0.1", 7400);
	num("to the address", give(s, "one", "127.0.0.1", 7400));
	take("of the address", lo);
	num("to another", give(s, "two", "127.0.0.2", 7400));
	take("of any", any);
	quiet("not of the address", lo);
	close(lo);
	nap(20);
	num("to the address", give(s, "three", "127.0.0.1", 7400));
	take("of any, when the other is gone", any);

	begin("bind/connected-first");
	int con = shared("0.0.0.0", 7400);
	ok("connect", connect_to(con, "127.0.0.1", port_at(s)));
	num("from the peer", give(s, "four", "127.0.0.1", 7400));
	take("the connected one's", con);
	int s2 = bound("127.0.0.1", 0);
	num("from another", give(s2, "five", "127.0.0.1", 7400));
	take("of any", any);
	quiet("not the connected one's", con);
	close(any);
	nap(20);
	num("from another", give(s2, "six", "127.0.0.1", 7400));
	quiet("nobody's", con);
	close(con);

	begin("bind/last-of-the-same");
	int a = shared("0.0.0.0", 7401), b = shared("0.0.0.0", 7401);
	num("send", give(s, "seven", "127.0.0.1", 7401));
	take("the last", b);
	close(b);
	nap(20);
	num("send", give(s, "eight", "127.0.0.1", 7401));
	take("the first again", a);
	close(a);

	begin("bind/reuseport-spread");
	int fd[4], src[40], got[4] = { 0 };
	for (int i = 0; i < 4; i++) {
		fd[i] = fresh("127.0.0.1");
		on(fd[i], SOL_SOCKET, SO_REUSEPORT, 1);
		need("bind", bind_to(fd[i], "127.0.0.1", 7402));
	}
	for (int i = 0; i < 40; i++) {
		src[i] = bound("127.0.0.1", 0);
		give(src[i], "x", "127.0.0.1", 7402);
	}
	nap(50);
	int all_ = 0, some = 0;
	for (int i = 0; i < 4; i++) {
		got[i] = drain(fd[i]);
		all_ += got[i];
		some += got[i] > 0;
	}
	say("datagrams %d, sockets that got some %d", all_, some);

	begin("bind/reuseport-sticks");
	for (int k = 0; k < 20; k++)
		give(src[0], "x", "127.0.0.1", 7402);
	nap(50);
	some = 0;
	for (int i = 0; i < 4; i++) {
		some += drain(fd[i]) > 0;
	}
	say("one source, sockets %d", some);

	begin("bind/reuseport-one-closes");
	for (int i = 1; i < 4; i++)
		close(fd[i]);
	nap(20);
	for (int i = 0; i < 40; i++)
		give(src[i], "x", "127.0.0.1", 7402);
	nap(50);
	say("the last one gets %d", drain(fd[0]));
	for (int i = 0; i < 40; i++)
		close(src[i]);
	close(fd[0]);

	begin("bind/v4-and-dual");
	int four = shared("0.0.0.0", 7403), six = shared("::", 7403);
	num("over v4", give(s, "nine", "127.0.0.1", 7403));
	quiet("the dual one", six);
	quiet("the v4 one", four);
	close(four);
	nap(20);
	num("over v4", give(s, "ten", "127.0.0.1", 7403));
	take("the dual one alone", six);
	close(six);

	begin("bind/unbound-after-dissolve");
	a = fresh("127.0.0.1");
	struct addr un = { .len = 16 };
	un.sa.sa_family = AF_UNSPEC;
	ok("connect", connect_to(a, "127.0.0.1", 9));
	names("connected", a);
	ok("dissolve", connect(a, &un.sa, un.len));
	names("dissolved", a);
	ok("bind", bind_to(a, "127.0.0.1", 7404));
	ok("connect", connect_to(a, "127.0.0.1", 9));
	ok("dissolve", connect(a, &un.sa, un.len));
	names("a bound one", a);
	close(a);

	begin("bind/connect-chooses-source");
	a = fresh("127.0.0.1");
	ok("to lo", connect_to(a, "127.0.0.1", 9));
	names("lo", a);
	ok("to the own address", connect_to(a, env("LAB_SELF4"), 9));
	names("own", a);
	ok("to the peer", connect_to(a, env("LAB_PEER4"), 9));
	names("peer", a);
	close(a);
	a = bound("127.0.0.1", 0);
	ok("to the peer from lo", connect_to(a, env("LAB_PEER4"), 9));
	names("from lo", a);
	close(a);
	close(s);
	close(s2);
}

int main(int argc, char **argv)
{
	deadline(30);
	if (argc != 2)
		return 9;
	if (!strcmp(argv[1], "tcp")) {
		conflicts(SOCK_STREAM);
		addresses(SOCK_STREAM);
		streams();
	} else if (!strcmp(argv[1], "udp")) {
		conflicts(SOCK_DGRAM);
		addresses(SOCK_DGRAM);
		datagrams();
	} else
		return 9;
	return 0;
}
