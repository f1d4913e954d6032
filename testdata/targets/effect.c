// SPDX-License-Identifier: Apache-2.0

// What options do: their effect on a connection, not their value.
//
// Usage: effect 4|6
#include "lab.h"
#include <net/if.h>

static const char *self;
static int six;

// pair makes a connection within this network; opt, if not 0, is set on the listener.
static void pair_with(int p[2], int level, int opt, int value)
{
	struct addr a = mk(six ? "::1" : "127.0.0.1", 0);
	int l = tcp(&a, 0);
	if (opt)
		need("setsockopt", setsockopt(l, level, opt, &value, sizeof value));
	need("bind", bind(l, &a.sa, a.len));
	need("listen", listen(l, 1));
	need("getsockname", getsockname(l, &a.sa, &a.len));
	p[0] = tcp(&a, 0);
	need("connect", connect(p[0], &a.sa, a.len));
	p[1] = need("accept", accept(l, NULL, NULL));
	close(l);
}

static void pair(int p[2]) { pair_with(p, 0, 0, 0); }

static void end(int p[2])
{
	close(p[0]);
	close(p[1]);
}

static void set(int fd, int level, int opt, int v)
{
	need("setsockopt", setsockopt(fd, level, opt, &v, sizeof v));
}

// held tells what is there of data that was sent at a time and is held back. On a
// busy machine the 200 ms for that may be over before anybody looks.
static void held(const char *label, int fd, long long sent)
{
	int ev = ready(fd, POLLIN, 80);
	say("%s: %s", label, events(now_ms() - sent < 180 ? ev : 0));
}

static void case_cork(void)
{
	int p[2];
	char b[100];
	begin("effect/cork-%s", self);
	pair(p);
	set(p[0], IPPROTO_TCP, TCP_CORK, 1);
	long long t = now_ms();
	put(p[0], "head", 4);
	put(p[0], "tail", 4);
	held("corked", p[1], t);
	set(p[0], IPPROTO_TCP, TCP_CORK, 0);
	say("uncorked: %s", events(ready(p[1], POLLIN, 1000)));
	nap(50);
	text("read", read(p[1], b, sizeof b), b);
	set(p[0], IPPROTO_TCP, TCP_CORK, 1);
	t = now_ms();
	put(p[0], "late", 4);
	held("corked", p[1], t);
	say("in a second: %s", events(ready(p[1], POLLIN, 1000))); // 200 ms, tcp(7)
	text("read", read(p[1], b, sizeof b), b);
	end(p);

	begin("effect/cork-close-%s", self);
	pair(p);
	set(p[0], IPPROTO_TCP, TCP_CORK, 1);
	put(p[0], "last", 4);
	close(p[0]);
	say("closed: %s", events(ready(p[1], POLLIN, 1000)));
	text("read", read(p[1], b, sizeof b), b);
	num("read", read(p[1], b, sizeof b));
	close(p[1]);
}

static void case_more(void)
{
	int p[2];
	char b[100];
	begin("effect/more-%s", self);
	pair(p);
	long long t = now_ms();
	num("send", send(p[0], "head", 4, MSG_MORE));
	held("more", p[1], t);
	num("send", send(p[0], "tail", 4, 0));
	say("no more: %s", events(ready(p[1], POLLIN, 1000)));
	nap(50);
	text("read", read(p[1], b, sizeof b), b);
	struct iovec v = { "msg", 3 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
	t = now_ms();
	num("sendmsg", sendmsg(p[0], &m, MSG_MORE));
	held("more", p[1], t);
	put(p[0], "rest", 4);
	nap(100);
	text("read", read(p[1], b, sizeof b), b);
	t = now_ms();
	num("send", send(p[0], "late", 4, MSG_MORE));
	held("more", p[1], t);
	say("in a second: %s", events(ready(p[1], POLLIN, 1000)));
	text("read", read(p[1], b, sizeof b), b);
	num("send", send(p[0], "last", 4, MSG_MORE));
	need("shutdown", shutdown(p[0], SHUT_WR));
	say("shut: %s", events(ready(p[1], POLLIN, 1000)));
	text("read", all(p[1], b, sizeof b), b);
	end(p);
}

static void case_linger(void)
{
	int p[2];
	char b[10];
	begin("effect/linger-%s", self);
	pair(p);
	struct linger l = { 1, 0 };
	need("setsockopt", setsockopt(p[0], SOL_SOCKET, SO_LINGER, &l, sizeof l));
	close(p[0]);
	say("reset: %s", events(ready(p[1], POLLIN | POLLRDHUP, 2000)));
	num("read", read(p[1], b, sizeof b));
	close(p[1]);
	pair(p);
	l.l_linger = 5;
	need("setsockopt", setsockopt(p[0], SOL_SOCKET, SO_LINGER, &l, sizeof l));
	put(p[0], "x", 1);
	long long t = now_ms();
	close(p[0]);
	say("close in time: %s", now_ms() - t < 2000 ? "yes" : "no");
	num("read", read(p[1], b, sizeof b));
	num("read", read(p[1], b, sizeof b));
	close(p[1]);
}

static void case_defer(void)
{
	begin("effect/defer-accept-%s", self);
	struct addr a = mk(six ? "::1" : "127.0.0.1", 0);
	char b[10];
	int l = tcp(&a, 0);
	set(l, IPPROTO_TCP, TCP_DEFER_ACCEPT, 10);
	need("bind", bind(l, &a.sa, a.len));
	need("listen", listen(l, 1));
	need("getsockname", getsockname(l, &a.sa, &a.len));
	int c = tcp(&a, 0);
	ok("connect", connect(c, &a.sa, a.len));
	say("silent: %s", events(ready(l, POLLIN, 100)));
	put(c, "hello", 5);
	say("data: %s", events(ready(l, POLLIN, 2000)));
	int s = need("accept", accept(l, NULL, NULL));
	text("read", read(s, b, sizeof b), b);
	close(c);
	close(s);
	close(l);
}

static void case_lowat(void)
{
	int p[2];
	char b[10];
	begin("effect/rcvlowat-%s", self);
	pair(p);
	set(p[1], SOL_SOCKET, SO_RCVLOWAT, 4);
	put(p[0], "ab", 2);
	struct timeval tv = { 0, 300000 };
	setsockopt(p[1], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	long long t = now_ms();
	text("two bytes", recv(p[1], b, sizeof b, 0), b);
	say("waited: %s", now_ms() - t > 200 ? "yes" : "no");
	put(p[0], "cdef", 4);
	t = now_ms();
	text("four bytes", recv(p[1], b, sizeof b, 0), b);
	say("waited: %s", now_ms() - t > 200 ? "yes" : "no");
	end(p);
}

static void case_peekoff(void)
{
	int p[2];
	char b[10];
	begin("effect/peek-off-%s", self);
	pair(p);
	put(p[0], "abcdef", 6);
	ready(p[1], POLLIN, 1000);
	set(p[1], SOL_SOCKET, SO_PEEK_OFF, 0);
	text("peek", recv(p[1], b, 2, MSG_PEEK), b);
	num("offset", opt(p[1], SOL_SOCKET, SO_PEEK_OFF));
	text("peek", recv(p[1], b, 2, MSG_PEEK), b);
	text("read", recv(p[1], b, 1, 0), b);
	num("offset", opt(p[1], SOL_SOCKET, SO_PEEK_OFF));
	text("peek", recv(p[1], b, 9, MSG_PEEK | MSG_DONTWAIT), b);
	text("peek behind the end", recv(p[1], b, 9, MSG_PEEK | MSG_DONTWAIT), b);
	text("read", recv(p[1], b, 9, 0), b);
	num("offset", opt(p[1], SOL_SOCKET, SO_PEEK_OFF));
	end(p);
}

// TCP_USER_TIMEOUT ends a connection whose peer takes nothing.
static void case_user_timeout(void)
{
	begin("effect/user-timeout-%s", self);
	static char big[1 << 16];
	int fd = dial(env(six ? "LAB_PEER6" : "LAB_PEER4"), STUCK);
	set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 1500);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	long long t = now_ms();
	while (now_ms() - t < 500)
		if (write(fd, big, sizeof big) < 0)
			nap(10);
	t = now_ms();
	int ev = ready(fd, 0, 15000);
	say("ends: %s", events(ev & (POLLERR | POLLHUP)));
	say("in time: %s", now_ms() - t < 12000 ? "yes" : "no");
	so_error("then", fd);
	close(fd);
}

static void case_info(void)
{
	begin("effect/info-%s", self);
	int fd = dial(env(six ? "LAB_PEER6" : "LAB_PEER4"), ECHO);
	char b[100];
	struct tcp_info i;
	socklen_t n = sizeof i;
	put(fd, "hello", 5);
	all(fd, b, 5);
	nap(50);
	memset(&i, 0xee, sizeof i);
	ok("get", getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &n));
	say("state %d, ca_state %d, retransmits %d, probes %d, backoff %d", i.tcpi_state, i.tcpi_ca_state, i.tcpi_retransmits, i.tcpi_probes, i.tcpi_backoff);
	say("options: timestamps %d, SACK %d, window scale %d", i.tcpi_options & 1, !!(i.tcpi_options & 2), !!(i.tcpi_options & 4));
	say("window scales: %s", i.tcpi_snd_wscale > 0 && i.tcpi_snd_wscale < 15 && i.tcpi_rcv_wscale > 0 && i.tcpi_rcv_wscale < 15 ? "there" : "absent");
	say("rto: %s", i.tcpi_rto >= 200000 && i.tcpi_rto < 2000000 ? "plausible" : "not plausible");
	say("ato: %s", i.tcpi_ato <= 200000 ? "plausible" : "not plausible");
	say("mss: snd %s, rcv %s, adv %s", i.tcpi_snd_mss > 500 && i.tcpi_snd_mss < 1420 ? "there" : "absent",
		i.tcpi_rcv_mss > 0 && i.tcpi_rcv_mss < 1420 ? "there" : "absent", i.tcpi_advmss > 500 && i.tcpi_advmss < 1420 ? "there" : "absent");
	say("pmtu: %d", i.tcpi_pmtu);
	say("unacked %d, sacked %d, lost %d, retrans %d", i.tcpi_unacked, i.tcpi_sacked, i.tcpi_lost, i.tcpi_retrans);
	say("last sent and heard: %s", i.tcpi_last_data_sent < 5000 && i.tcpi_last_data_recv < 5000 && i.tcpi_last_ack_recv < 5000 ? "just now" : "long ago");
	say("rtt: %s", i.tcpi_rtt > 0 && i.tcpi_rtt < 1000000 && i.tcpi_rttvar < 1000000 ? "plausible" : "not plausible");
	say("cwnd: %s", i.tcpi_snd_cwnd >= 2 && i.tcpi_snd_cwnd < 10000 ? "plausible" : "not plausible");
	say("ssthresh: %s", i.tcpi_snd_ssthresh > 0 ? "there" : "absent");
	say("reordering: %d", i.tcpi_reordering);
	say("rcv_space: %s", i.tcpi_rcv_space > 0 ? "there" : "absent");
	close(fd);
}

static void case_maxseg(void)
{
	begin("effect/maxseg-%s", self);
	struct addr a = mk(env(six ? "LAB_PEER6" : "LAB_PEER4"), ECHO);
	int fd = tcp(&a, 0);
	set(fd, IPPROTO_TCP, TCP_MAXSEG, 700);
	num("before", opt(fd, IPPROTO_TCP, TCP_MAXSEG));
	need("connect", connect(fd, &a.sa, a.len));
	num("after", opt(fd, IPPROTO_TCP, TCP_MAXSEG));
	close(fd);
}

// IP_UNICAST_IF and IPV6_UNICAST_IF.
static void case_unicast_if(void)
{
	char b[10];
	begin("effect/unicast-if-%s", self);
	struct addr peer = mk(env(six ? "LAB_PEER6" : "LAB_PEER4"), ECHO), here = mk(six ? "::1" : "127.0.0.1", 0);
	int level = six ? IPPROTO_IPV6 : IPPROTO_IP, name = six ? 76 : 50;
	int fd = need("socket", socket(peer.sa.sa_family, SOCK_DGRAM, 0));
	need("bind", bind(fd, &here.sa, here.len));
	need("getsockname", getsockname(fd, &here.sa, &here.len));
	set(fd, level, name, htonl(1));
	num("value", ntohl(opt(fd, level, name)));
	num("to ourselves", sendto(fd, "self", 4, 0, &here.sa, here.len));
	text("read", ready(fd, POLLIN, 2000) ? recv(fd, b, sizeof b, 0) : -1, b);
	close(fd);
	fd = need("socket", socket(peer.sa.sa_family, SOCK_DGRAM, 0));
	set(fd, level, name, htonl(if_nametoindex("wg0")));
	num("to the peer", sendto(fd, "peer", 4, 0, &peer.sa, peer.len));
	text("read", ready(fd, POLLIN, 2000) ? recv(fd, b, sizeof b, 0) : -1, b);
	set(fd, level, name, 0);
	num("to the peer", sendto(fd, "peer", 4, 0, &peer.sa, peer.len));
	text("read", ready(fd, POLLIN, 2000) ? recv(fd, b, sizeof b, 0) : -1, b);
	set(fd, level, name, htonl(1));
	num("by the wrong one", sendto(fd, "lost", 4, 0, &peer.sa, peer.len) < 0 ? 0 : ready(fd, POLLIN, 300));
	close(fd);
}

// IPV6_PKTINFO as an option: ping -I DEVICE.
static void case_sticky(void)
{
	static const struct { const char *name; int type, proto; } kinds[] = {
		{ "udp", SOCK_DGRAM, 0 }, { "ping", SOCK_DGRAM, IPPROTO_ICMPV6 },
	};
	char b[16];
	struct in6_pktinfo v;
	socklen_t n;
	for (int i = 0; six && i < LEN(kinds); i++) {
		begin("effect/sticky-%s", kinds[i].name);
		struct addr peer = mk(env("LAB_PEER6"), ECHO);
		char echo[10] = { (char)128, 0, 0, 0, 0, 0, 0, 1, 'h', 'i' };
		for (int to = 0; to < 4; to++) {
			const char *names[] = { "none", "the interface", "the wrong one", "one that is not there" };
			int index[] = { 0, if_nametoindex("wg0"), 1, 99 };
			int fd = need("socket", socket(AF_INET6, kinds[i].type, kinds[i].proto));
			memset(&v, 0, sizeof v);
			v.ipi6_ifindex = index[to];
			say("%s", names[to]);
			ok(" set", setsockopt(fd, IPPROTO_IPV6, IPV6_PKTINFO, &v, sizeof v));
			n = sizeof v;
			ok(" get", getsockopt(fd, IPPROTO_IPV6, IPV6_PKTINFO, &v, &n));
			num(" sendto", sendto(fd, echo, sizeof echo, 0, &peer.sa, peer.len));
			num(" echo", ready(fd, POLLIN, to < 2 ? 2000 : 200) ? recv(fd, b, sizeof b, 0) : 0);
			if (ok(" connect", connect(fd, &peer.sa, peer.len)) == 0) {
				num(" send", send(fd, echo, sizeof echo, 0));
				num(" echo", ready(fd, POLLIN, 2000) ? recv(fd, b, sizeof b, 0) : 0);
			}
			close(fd);
		}
		int fd = need("socket", socket(AF_INET6, kinds[i].type, kinds[i].proto)), dev = if_nametoindex("wg0");
		set(fd, SOL_SOCKET, SO_BINDTOIFINDEX, dev);
		for (int index = 0; index < 3; index++) {
			memset(&v, 0, sizeof v);
			v.ipi6_ifindex = index < 2 ? index : dev;
			ok("bound to the device", setsockopt(fd, IPPROTO_IPV6, IPV6_PKTINFO, &v, sizeof v));
		}
		inet_pton(AF_INET6, "2001:db8::1", &v.ipi6_addr); // of nobody
		ok("with an address", setsockopt(fd, IPPROTO_IPV6, IPV6_PKTINFO, &v, sizeof v));
		num("sendto", sendto(fd, echo, sizeof echo, 0, &peer.sa, peer.len));
		num("echo", ready(fd, POLLIN, 2000) ? recv(fd, b, sizeof b, 0) : 0);
		ok("short", setsockopt(fd, IPPROTO_IPV6, IPV6_PKTINFO, &v, sizeof v - 1));
		close(fd);
	}
}

static void case_accepted(void)
{
	int p[2];
	begin("effect/inherited-%s", self);
	pair_with(p, IPPROTO_TCP, TCP_NODELAY, 1);
	num("TCP_NODELAY", opt(p[1], IPPROTO_TCP, TCP_NODELAY));
	end(p);
	pair_with(p, SOL_SOCKET, SO_KEEPALIVE, 1);
	num("SO_KEEPALIVE", opt(p[1], SOL_SOCKET, SO_KEEPALIVE));
	num("SO_ACCEPTCONN", opt(p[1], SOL_SOCKET, SO_ACCEPTCONN));
	end(p);
	pair_with(p, SOL_SOCKET, SO_OOBINLINE, 1);
	num("SO_OOBINLINE", opt(p[1], SOL_SOCKET, SO_OOBINLINE));
	end(p);
	pair_with(p, SOL_SOCKET, SO_RCVLOWAT, 3);
	num("SO_RCVLOWAT", opt(p[1], SOL_SOCKET, SO_RCVLOWAT));
	end(p);
	pair_with(p, IPPROTO_TCP, TCP_USER_TIMEOUT, 5000);
	num("TCP_USER_TIMEOUT", opt(p[1], IPPROTO_TCP, TCP_USER_TIMEOUT));
	end(p);
}

int main(int argc, char **argv)
{
	deadline(50);
	if (argc != 2)
		return 9;
	self = argv[1];
	six = *self == '6';
	case_cork();
	case_more();
	case_linger();
	case_defer();
	case_lowat();
	case_peekoff();
	case_info();
	case_maxseg();
	case_unicast_if();
	case_sticky();
	case_accepted();
	case_user_timeout();
	return 0;
}
