// SPDX-License-Identifier: Apache-2.0

// Raw sockets, raw(7): their names, and what they receive. The argument is a
// version of IP: all is done on loopback, and with the peer where it says so.
#include "rawlab.h"

static int six;
static const char *lo, *lo2, *self, *peer;
static unsigned char in[70000], out[70000];

static int family(void) { return six ? AF_INET6 : AF_INET; }
static int icmp(void) { return six ? IPPROTO_ICMPV6 : IPPROTO_ICMP; }

// start is begin with the version in the name.
static void start(const char *name) { begin("raw/%s-%d", name, six ? 6 : 4); }

static void kinds(void)
{
	static const int protos[] = { 0, 1, 2, 6, 17, 58, 132, 200, 253, 255, 256, 262, 263, 300, -1 };
	start("kinds");
	for (int i = 0; i < LEN(protos); i++) {
		char label[32];
		snprintf(label, sizeof label, "protocol %d", protos[i]);
		close(ok(label, socket(family(), SOCK_RAW, protos[i])));
	}
	int fd = raw(family(), FREE);
	say("type %d, protocol %d, domain %d", opt(fd, SOL_SOCKET, SO_TYPE), opt(fd, SOL_SOCKET, SO_PROTOCOL), opt(fd, SOL_SOCKET, SO_DOMAIN));
	ok("listen", listen(fd, 1));
	ok("accept", accept(fd, NULL, NULL));
	say("new: %s", events(ready(fd, POLLIN | POLLOUT, 0)));
	close(fd);
}

// what_bound shows what a socket receives that was bound or connected.
static void what(const char *label, int fd)
{
	int s = raw(family(), FREE);
	struct addr a = mk(lo, 0), b = mk(lo2, 0);
	flush(fd);
	put_to(s, "to lo", 5, &a);
	say("%s, to loopback: %s", label, ready(fd, POLLIN, 100) ? "received" : "not received");
	flush(fd);
	put_to(s, "to 2", 4, &b);
	say("%s, to another: %s", label, ready(fd, POLLIN, 100) ? "received" : "not received");
	flush(fd);
	close(s);
}

static void binding(void)
{
	struct addr a = mk(lo, 4242), b = mk(lo2, 0), no = mk(six ? "2001:db8::1" : "192.0.2.77", 0), any = mk(six ? "::" : "0.0.0.0", 0);
	start("names-new");
	int fd = raw(family(), FREE);
	names("new", fd);
	what("new", fd);
	start("names-bound");
	ok("bind", bind(fd, &a.sa, a.len));
	names("bound", fd);
	what("bound", fd);
	start("names-bound-again");
	ok("bind", bind(fd, &b.sa, b.len));
	names("bound again", fd);
	what("bound again", fd);
	ok("bind any", bind(fd, &any.sa, any.len));
	names("any", fd);
	what("any", fd);
	start("bind-two");
	int fd2 = raw(family(), FREE);
	ok("bind", bind(fd, &a.sa, a.len));
	ok("the same", bind(fd2, &a.sa, a.len));
	close(fd2);
	start("bind-foreign");
	ok("not ours", bind(fd, &no.sa, no.len));
	struct addr group = mk(six ? "ff02::1" : "224.0.0.1", 0);
	if (!six) {
		ok("multicast", bind(fd, &group.sa, group.len));
		names("multicast", fd);
		group = mk("255.255.255.255", 0);
		ok("broadcast", bind(fd, &group.sa, group.len));
		names("broadcast", fd);
	}
	start("bind-wrong");
	ok("short", bind(fd, &a.sa, 8));
	ok("long", bind(fd, &a.sa, sizeof a.ss));
	struct addr other = mk(six ? "127.0.0.1" : "::1", 0);
	other.sa.sa_family = six ? AF_INET : AF_INET6;
	ok("the other family", bind(fd, &other.sa, other.len));
	other = a;
	other.sa.sa_family = AF_UNSPEC;
	ok("no family", bind(fd, &other.sa, other.len));
	if (six) {
		struct addr m = mk("::ffff:127.0.0.1", 0);
		ok("mapped", bind(fd, &m.sa, m.len));
		m = mk("fe80::1", 0);
		ok("link-local without scope", bind(fd, &m.sa, m.len));
	}
	close(fd);
}

static void connecting(void)
{
	struct addr a = mk(lo, 0), b = mk(lo2, 0), p = mk(lo, 77), unspec = a;
	unspec.sa.sa_family = AF_UNSPEC;
	start("names-connected");
	int fd = raw(family(), FREE);
	ok("connect", connect(fd, &a.sa, a.len));
	names("without a port", fd);
	ok("connect", connect(fd, &p.sa, p.len));
	names("with a port", fd);
	what("connected", fd);
	start("connected-bind");
	ok("bind", bind(fd, &a.sa, a.len));
	start("disconnected");
	ok("dissolve", connect(fd, &unspec.sa, unspec.len));
	names("dissolved", fd);
	what("dissolved", fd);
	num("sendto", put_to(fd, "x", 1, &a));
	names("after a send", fd);
	what("after a send", fd);
	ok("connect again", connect(fd, &p.sa, p.len));
	names("again", fd);
	what("again", fd);
	close(fd);
	start("bound-then-connected");
	fd = raw(family(), FREE);
	ok("bind", bind(fd, &b.sa, b.len));
	ok("connect", connect(fd, &a.sa, a.len));
	names("connected", fd);
	ok("dissolve", connect(fd, &unspec.sa, unspec.len));
	names("dissolved", fd);
	close(fd);
	start("connect-wrong");
	fd = raw(family(), FREE);
	ok("short", connect(fd, &a.sa, 8));
	struct addr other = mk(six ? "127.0.0.1" : "::1", 0);
	ok("the other family", connect(fd, &other.sa, other.len));
	if (!six) {
		other = mk("255.255.255.255", 0);
		ok("broadcast", connect(fd, &other.sa, other.len));
	}
	ok("dissolve", connect(fd, &unspec.sa, unspec.len));
	names("after all", fd);
	close(fd);
	start("connected-source");
	fd = raw(family(), FREE);
	ok("connect", connect(fd, &a.sa, a.len));
	int s = raw(family(), FREE);
	ok("bind", bind(s, &b.sa, b.len));
	num("sendto from another", put_to(s, "stranger", 8, &a));
	none("from another", fd);
	ok("bind", bind(s, &a.sa, a.len));
	num("sendto from the peer", put_to(s, "peer", 4, &a));
	get("from the peer", fd, in);
	close(s);
	close(fd);
}

// copies: every socket that fits has one, and the sender too.
static void copies(void)
{
	struct addr a = mk(lo, 0);
	start("copies");
	int fd[3] = { raw(family(), FREE), raw(family(), FREE), raw(family(), FREE2) };
	num("sendto", put_to(fd[0], "hello", 5, &a));
	get("sender", fd[0], in);
	get("the other", fd[1], in);
	none("another protocol", fd[2]);
	none("sender, again", fd[0]);
	start("empty");
	num("sendto", put_to(fd[0], "", 0, &a));
	say("readable: %s", events(ready(fd[0], POLLIN, 1000)));
	get("empty", fd[0], in);
	flush(fd[1]);
	start("families");
	int other = raw(six ? AF_INET : AF_INET6, FREE);
	num("sendto", put_to(fd[0], "hello", 5, &a));
	none("the other version", other);
	close(other);
	start("closed");
	close(fd[1]);
	flush(fd[0]);
	num("sendto", put_to(fd[0], "hello", 5, &a));
	get("what is left", fd[0], in);
	close(fd[0]);
	close(fd[2]);
}

// transports: copies of what other sockets get.
static void transports(void)
{
	struct addr a = mk(lo, 0), name;
	start("udp-copy");
	int r = raw(family(), IPPROTO_UDP), u = need("socket", socket(family(), SOCK_DGRAM, 0));
	ok("bind", bind(u, &a.sa, a.len));
	name.len = sizeof name.ss;
	getsockname(u, &name.sa, &name.len);
	num("sendto", put_to(u, "datagram", 8, &name));
	long n = get("raw", r, in);
	int hl = six ? 0 : 20;
	if (n >= hl + 8)
		say("ports %s, length %d, data %.8s", !memcmp(in + hl, in + hl + 2, 2) ? "alike" : "differ", in[hl + 4] << 8 | in[hl + 5], in + hl + 8);
	num("udp", recv(u, in, sizeof in, 0));
	close(u);
	close(r);
	start("tcp-copy");
	r = raw(family(), IPPROTO_TCP);
	struct addr closed = mk(lo, 9);
	int t = tcp(&closed, 0);
	ok("connect", connect(t, &closed.sa, closed.len));
	for (int i = 0; i < 2; i++) {
		n = recv(r, in, sizeof in, 0);
		if (n >= hl + 20)
			say("flags %x, from port %s", in[hl + 13], (in[hl] << 8 | in[hl + 1]) == 9 ? "9" : "EPH");
		else
			num("recv", n);
	}
	none("no more", r);
	close(t);
	close(r);
}

static void echoes(const char *name, const char *ip, int size)
{
	struct addr to = mk(ip, 0);
	start(name);
	int fd = raw(family(), icmp());
	if (six) { // no neighbour discovery
		struct icmp6_filter f;
		ICMP6_FILTER_SETBLOCKALL(&f);
		ICMP6_FILTER_SETPASS(ICMP6_ECHO_REQUEST, &f);
		ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &f);
		ok("filter", setsockopt(fd, IPPROTO_ICMPV6, ICMP6_FILTER, &f, sizeof f));
	}
	num("sendto", put_to(fd, out, echo(out, six, 77, 1, size), &to));
	for (int i = 0; i < 2; i++) {
		long n = get("message", fd, in);
		if (n < 0)
			break;
		int type = in[six ? 0 : 20];
		say("data %s", n >= size + (six ? 8 : 28) && memcmp(out + 8, in + (six ? 8 : 28), size) == 0 ? "right" : "differs");
		if (type == (six ? ICMP6_ECHO_REPLY : ICMP_ECHOREPLY))
			break;
	}
	none("no more", fd);
	close(fd);
}

// forms: the calls that receive, and their flags.
static void forms(void)
{
	struct addr a = mk(lo, 0), from;
	start("peek");
	int fd = raw(family(), FREE);
	put_to(fd, "first", 5, &a);
	put_to(fd, "second", 6, &a);
	say("readable: %s", events(ready(fd, POLLIN, 1000)));
	int hl = six ? 0 : 20;
	from.len = sizeof from.ss;
	num("peek", recvfrom(fd, in, sizeof in, MSG_PEEK, &from.sa, &from.len));
	num("peek", recv(fd, in, sizeof in, MSG_PEEK));
	say("%.5s from %s", in + hl, show(&from));
	start("cut");
	num("recvfrom", recvfrom(fd, in, 3, MSG_TRUNC, &from.sa, &from.len));
	struct iovec v = { in, hl + 2 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
	num("recvmsg", recvmsg(fd, &m, 0));
	say("flags %x, name %d, control %d", m.msg_flags, (int)m.msg_namelen, (int)m.msg_controllen);
	num("empty", recv(fd, in, sizeof in, MSG_DONTWAIT));
	num("oob", recv(fd, in, sizeof in, MSG_OOB | MSG_DONTWAIT));
	start("read");
	put_to(fd, "read it", 7, &a);
	num("read", read(fd, in, sizeof in));
	say("%.7s", in + hl);
	start("recvmmsg");
	for (int i = 0; i < 3; i++)
		put_to(fd, "abc", i, &a);
	nap(50);
	static char bufs[4][100];
	struct iovec vs[4];
	struct mmsghdr mm[4] = { 0 };
	for (int i = 0; i < 4; i++) {
		vs[i] = (struct iovec){ bufs[i], sizeof bufs[i] };
		mm[i].msg_hdr.msg_iov = &vs[i];
		mm[i].msg_hdr.msg_iovlen = 1;
	}
	num("recvmmsg", recvmmsg(fd, mm, 4, MSG_WAITFORONE, NULL));
	for (int i = 0; i < 3; i++)
		say("%d bytes", mm[i].msg_len);
	start("timeout");
	struct timeval tv = { 0, 100000 };
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	num("recv", recv(fd, in, sizeof in, 0));
	from.len = sizeof from.ss;
	num("recvfrom", recvfrom(fd, in, sizeof in, 0, &from.sa, &from.len));
	close(fd);
	start("nonblocking");
	fd = need("socket", socket(family(), SOCK_RAW | SOCK_NONBLOCK, FREE));
	num("recv", recv(fd, in, sizeof in, 0));
	num("recvfrom", recvfrom(fd, in, sizeof in, 0, &from.sa, &from.len));
	close(fd);
	start("name-room");
	fd = raw(family(), FREE);
	put_to(fd, "x", 1, &a);
	from.len = 4;
	num("recvfrom", recvfrom(fd, in, sizeof in, 0, &from.sa, &from.len));
	say("the name has %d", (int)from.len);
	close(fd);
}

static void shut(void)
{
	struct addr a = mk(lo, 1);
	start("shutdown-unconnected");
	int fd = raw(family(), FREE);
	ok("shutdown", shutdown(fd, SHUT_WR));
	close(fd);
	start("shutdown-read");
	fd = raw(family(), FREE);
	ok("connect", connect(fd, &a.sa, a.len));
	ok("shutdown", shutdown(fd, SHUT_RD));
	num("recv", recv(fd, in, sizeof in, 0));
	num("send", send(fd, "x", 1, 0));
	close(fd);
	start("shutdown-write");
	fd = raw(family(), FREE);
	ok("connect", connect(fd, &a.sa, a.len));
	ok("shutdown", shutdown(fd, SHUT_WR));
	num("sendto", put_to(fd, "x", 1, &a));
	num("send", send(fd, "x", 1, MSG_NOSIGNAL));
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
	kinds();
	binding();
	connecting();
	copies();
	transports();
	echoes("echo-loopback", lo, 56);
	echoes("echo-self", self, 56);
	echoes("echo-peer", peer, 56);
	echoes("echo-empty", peer, 0);
	echoes("echo-large", peer, 4000);
	forms();
	shut();
	return 0;
}
