// SPDX-License-Identifier: Apache-2.0

// Time stamps of datagrams and streams. The argument is 4 or 6.
#include "errqueue.h"
#include <linux/net_tstamp.h>
#include <linux/sockios.h>

#define O(x) { #x, x }

static struct msghdr m;
static char data[2000], control[512];

// near tells whether a time is within five seconds of the clock.
static const char *near(long sec, long frac, long unit)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	double d = ts.tv_sec + ts.tv_nsec / 1e9 - sec - (double)frac / unit;
	return d > -1 && d < 5 && frac >= 0 && frac < unit ? "right" : "WRONG time";
}

// receive prints a message and its control messages.
static void receive(const char *label, int fd, int flags)
{
	struct addr name = { .len = sizeof name.ss };
	struct iovec v = { data, sizeof data };
	m = (struct msghdr){ .msg_name = &name.ss, .msg_namelen = name.len, .msg_iov = &v, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof control };
	long n = recvmsg(fd, &m, flags);
	if (n < 0) {
		say("%s: %s", label, errname(errno));
		return;
	}
	const char *tail = n >= 4 ? data + n - 4 : data;
	say("%s: %ld bytes, ending in \"%.*s\", name %d, flags %x", label, n, n >= 4 ? 4 : (int)n, tail, (int)m.msg_namelen, m.msg_flags);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		long t[6] = { 0 };
		size_t len = c->cmsg_len - CMSG_LEN(0);
		memcpy(t, CMSG_DATA(c), len < sizeof t ? len : sizeof t);
		if (c->cmsg_level != SOL_SOCKET) {
			struct sock_extended_err e;
			memcpy(&e, CMSG_DATA(c), sizeof e);
			say(" level %d, type %d: %s, origin %d, type %d, code %d, info %u, data %u", c->cmsg_level, c->cmsg_type,
				errname(e.ee_errno), e.ee_origin, e.ee_type, e.ee_code, e.ee_info, e.ee_data);
			continue;
		}
		long unit = c->cmsg_type == SO_TIMESTAMP_OLD || c->cmsg_type == SO_TIMESTAMP_NEW ? 1000000 : 1000000000;
		say(" type %d, %zu bytes, %s, then %ld %ld %ld %ld", c->cmsg_type, len, near(t[0], t[1], unit), t[2], t[3], t[4], t[5]);
	}
}

static int echo(void) { return joined(udp(), ip("PEER"), ECHO); }

// silence is connected to where no answer comes from.
static int silence(void) { return joined(udp(), ip("BLACKHOLE"), 9); }

static int flag(int fd, int option, int v) { return setsockopt(fd, SOL_SOCKET, option, &v, sizeof v); }

static const struct { const char *name; int option; } kinds[] = {
	O(SO_TIMESTAMP_OLD), O(SO_TIMESTAMPNS_OLD), O(SO_TIMESTAMP_NEW), O(SO_TIMESTAMPNS_NEW),
};

static void all_flags(int fd)
{
	char line[100] = "";
	for (int i = 0; i < LEN(kinds); i++)
		sprintf(line + strlen(line), " %d", opt(fd, SOL_SOCKET, kinds[i].option));
	say("flags:%s", line);
}

static void received(void)
{
	for (int i = 0; i < LEN(kinds); i++) {
		begin("stamps/%s-%s", kinds[i].name, fam);
		int fd = echo();
		all_flags(fd);
		ok("on", flag(fd, kinds[i].option, 7));
		all_flags(fd);
		num("send", send(fd, "ping", 4, 0));
		receive("recvmsg", fd, MSG_PEEK);
		receive("recvmsg", fd, 0);
		ok("another", flag(fd, kinds[(i + 1) % LEN(kinds)].option, 1));
		all_flags(fd);
		ok("off", flag(fd, kinds[i].option, 0));
		all_flags(fd);
		num("send", send(fd, "ping", 4, 0));
		receive("recvmsg", fd, 0);
		close(fd);
	}
	begin("stamps/old-and-timestamping-%s", fam);
	int fd = echo();
	ok("SO_TIMESTAMPNS", flag(fd, SO_TIMESTAMPNS_OLD, 1));
	ok("SO_TIMESTAMPING", flag(fd, SO_TIMESTAMPING_OLD, SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE));
	num("send", send(fd, "ping", 4, 0));
	receive("recvmsg", fd, 0);
	ok("SO_TIMESTAMPING_NEW", flag(fd, SO_TIMESTAMPING_NEW, SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE));
	all_flags(fd);
	num("send", send(fd, "ping", 4, 0));
	receive("recvmsg", fd, 0);
	ok("not reported", flag(fd, SO_TIMESTAMPING_OLD, SOF_TIMESTAMPING_RX_SOFTWARE));
	num("send", send(fd, "ping", 4, 0));
	receive("recvmsg", fd, 0);
	close(fd);

	begin("stamps/of-errors-%s", fam);
	fd = asking();
	ok("SO_TIMESTAMP", flag(fd, SO_TIMESTAMP_OLD, 1));
	post("sendto", fd, "lost", 4, ip("PEER"), CLOSED);
	trouble("poll", fd);
	receive("entry", fd, MSG_ERRQUEUE);
	close(fd);
}

static void ask(const char *label, int fd, int v) { ok(label, flag(fd, SO_TIMESTAMPING_OLD, v)); }

static void sent(void)
{
	const int software = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
	begin("stamps/tx-%s", fam);
	int fd = silence();
	ask("TX_SOFTWARE", fd, software);
	num("sendto", sendto(fd, "ping", 4, 0, NULL, 0));
	trouble("poll", fd);
	receive("stamp", fd, MSG_ERRQUEUE);
	receive("empty", fd, MSG_ERRQUEUE);
	so_error("then", fd);
	close(fd);

	begin("stamps/tx-only-%s", fam);
	fd = silence();
	ask("OPT_TSONLY, OPT_ID", fd, software | SOF_TIMESTAMPING_OPT_TSONLY | SOF_TIMESTAMPING_OPT_ID);
	for (int i = 0; i < 3; i++) {
		struct iovec v = { "ping", 4 };
		struct msghdr o = { .msg_iov = &v, .msg_iovlen = 1 };
		num("sendmsg", sendmsg(fd, &o, 0));
		trouble("poll", fd);
		receive("stamp", fd, MSG_ERRQUEUE);
	}
	ask("again", fd, software | SOF_TIMESTAMPING_OPT_TSONLY | SOF_TIMESTAMPING_OPT_ID);
	struct addr to = mk(ip("BLACKHOLE"), 9);
	num("sendto", sendto(fd, "ping", 4, 0, &to.sa, to.len));
	trouble("poll", fd);
	receive("the key goes on", fd, MSG_ERRQUEUE);
	ask("without", fd, software | SOF_TIMESTAMPING_OPT_TSONLY);
	ask("with", fd, software | SOF_TIMESTAMPING_OPT_TSONLY | SOF_TIMESTAMPING_OPT_ID);
	num("sendto", sendto(fd, "ping", 4, 0, &to.sa, to.len));
	trouble("poll", fd);
	receive("the key is new", fd, MSG_ERRQUEUE);
	close(fd);

	begin("stamps/tx-not-reported-%s", fam);
	fd = silence();
	ask("TX_SOFTWARE", fd, SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_OPT_TSONLY);
	num("sendto", sendto(fd, "ping", 4, 0, &to.sa, to.len));
	trouble("poll", fd);
	receive("stamp", fd, MSG_ERRQUEUE);
	close(fd);

	begin("stamps/tx-message-%s", fam); // asked for with one datagram
	fd = silence();
	ask("SOFTWARE", fd, SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_TSONLY);
	for (int i = 0; i < 5; i++) {
		static const uint32_t flags[] = { 0, SOF_TIMESTAMPING_TX_SOFTWARE, SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_TX_SCHED,
			SOF_TIMESTAMPING_SOFTWARE, 1 << 30 };
		char c[64];
		memset(c, 0, sizeof c);
		struct iovec v = { "ping", 4 };
		struct msghdr o = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = CMSG_SPACE(4) };
		struct cmsghdr *h = CMSG_FIRSTHDR(&o);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SO_TIMESTAMPING_OLD;
		h->cmsg_len = CMSG_LEN(4);
		memcpy(CMSG_DATA(h), &flags[i], 4);
		num("sendmsg", sendmsg(fd, &o, 0));
		nap(50);
		receive("stamp", fd, MSG_ERRQUEUE);
		receive("stamp", fd, MSG_ERRQUEUE);
	}
	close(fd);
}

static void wrong(void)
{
	begin("stamps/wrong-%s", fam);
	int fd = udp();
	static const int flags[] = { 1 << 19, 1 << 16 /* OPT_ID_TCP */, SOF_TIMESTAMPING_OPT_STATS, -1, SOF_TIMESTAMPING_BIND_PHC,
		SOF_TIMESTAMPING_OPT_STATS | SOF_TIMESTAMPING_OPT_TSONLY, 0 };
	for (int i = 0; i < LEN(flags); i++) {
		ok("SO_TIMESTAMPING", flag(fd, SO_TIMESTAMPING_OLD, flags[i]));
		int v[4] = { 9, 9, 9, 9 };
		socklen_t n = sizeof v;
		num("get", getsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING_OLD, v, &n));
		say("%d bytes: %d %d", n, v[0], v[1]);
	}
	close(fd);
}

static void last(void)
{
	begin("stamps/SIOCGSTAMP-%s", fam);
	int fd = echo();
	struct timeval tv;
	struct timespec ts;
	ok("none yet", ioctl(fd, SIOCGSTAMP, &tv));
	num("send", send(fd, "ping", 4, 0));
	num("recv", recv(fd, data, sizeof data, 0));
	ok("SIOCGSTAMP", ioctl(fd, SIOCGSTAMP, &tv));
	say("%s", near(tv.tv_sec, tv.tv_usec, 1000000));
	ok("SIOCGSTAMPNS", ioctl(fd, SIOCGSTAMPNS, &ts));
	say("%s, %s", near(ts.tv_sec, ts.tv_nsec, 1000000000), ts.tv_sec == tv.tv_sec && ts.tv_nsec / 1000 == tv.tv_usec ? "the same" : "DIFFERENT");
	nap(20);
	struct timespec then = ts;
	num("send", send(fd, "ping", 4, 0));
	receive("recvmsg", fd, 0);
	ok("SIOCGSTAMPNS", ioctl(fd, SIOCGSTAMPNS, &ts));
	say("%s, %s", near(ts.tv_sec, ts.tv_nsec, 1000000000), ts.tv_sec == then.tv_sec && ts.tv_nsec == then.tv_nsec ? "THE SAME" : "later");
	ok("old number", ioctl(fd, SIOCGSTAMP_OLD, &tv));
	ok("bad pointer", ioctl(fd, SIOCGSTAMP, (void *)8));
	close(fd);
	fd = dial(ip("PEER"), ECHO);
	ok("TCP", ioctl(fd, SIOCGSTAMP, &tv));
	close(fd);
}

// drops: what found no room is counted with what comes after it.
static void drops(void)
{
	begin("stamps/SO_RXQ_OVFL-%s", fam);
	struct addr a = mk(six ? "::1" : "127.0.0.1", 0);
	int in = udp(), out = udp();
	ok("SO_RXQ_OVFL", flag(in, SO_RXQ_OVFL, 1));
	need("SO_RCVBUF", flag(in, SO_RCVBUF, 4096));
	need("bind", bind(in, &a.sa, a.len));
	getsockname(in, &a.sa, &a.len);
	num("sendto", sendto(out, data, 100, 0, &a.sa, a.len));
	receive("none lost", in, 0);
	for (int i = 0; i < 200; i++)
		need("sendto", sendto(out, data, 1000, 0, &a.sa, a.len));
	nap(100);
	int got = 0;
	while (recv(in, data, sizeof data, MSG_DONTWAIT) > 0 || (nap(20), recv(in, data, sizeof data, MSG_DONTWAIT) > 0))
		got++;
	need("sendto", sendto(out, data, 100, 0, &a.sa, a.len));
	struct iovec v = { data, sizeof data };
	m = (struct msghdr){ .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	num("recvmsg", recvmsg(in, &m, 0));
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	uint32_t lost = 0;
	if (c)
		memcpy(&lost, CMSG_DATA(c), sizeof lost);
	say("a message of type %d, %d bytes; came and lost are %s", c ? c->cmsg_type : 0, c ? (int)(c->cmsg_len - CMSG_LEN(0)) : 0,
		got + lost == 200 && got > 0 && lost > 0 ? "all" : "NOT all");
	close(in);
	close(out);
}

// unread waits until so many bytes can be read.
static void unread(int fd, int want)
{
	int n = 0;
	for (int i = 0; i < 250 && n < want; i++, nap(20))
		ioctl(fd, FIONREAD, &n);
}

// streams: a stamp is that of the last byte that a call returns.
static void streams(void)
{
	struct iovec v = { data, 1 };
	// The kernel begins to stamp a while after the first socket has asked for it.
	int keep = udp();
	need("SO_TIMESTAMP", flag(keep, SO_TIMESTAMP_OLD, 1));
	nap(200);
	for (int i = 0; i < LEN(kinds); i++) {
		begin("stamps/tcp-%s-%s", kinds[i].name, fam);
		int fd = dial(ip("PEER"), ECHO);
		num("send", send(fd, "early", 5, 0));
		unread(fd, 5);
		ok("on", flag(fd, kinds[i].option, 1));
		all_flags(fd);
		num("recv", recv(fd, data, 5, 0)); // of those that were there it may know or not
		num("send", send(fd, "ping", 4, 0));
		unread(fd, 4);
		receive("peek", fd, MSG_PEEK);
		receive("recvmsg", fd, 0);
		num("send", send(fd, "plain", 5, 0));
		num("recv", recv(fd, data, 5, MSG_WAITALL));
		ok("off", flag(fd, kinds[i].option, 0));
		num("send", send(fd, "ping", 4, 0));
		unread(fd, 4);
		receive("recvmsg", fd, 0);
		close(fd);
	}
	begin("stamps/tcp-each-%s", fam);
	int fd = dial(ip("PEER"), ECHO);
	long t[4] = { 0 };
	ok("SO_TIMESTAMPNS", flag(fd, SO_TIMESTAMPNS_OLD, 1));
	for (int i = 0; i < 3; i++) {
		send(fd, "abc" + i, 1, 0);
		unread(fd, i + 1);
		nap(30);
	}
	for (int i = 0; i < 4; i++) { // the second by a call that tells nothing
		if (i == 1) {
			num("read", read(fd, data, 1));
			continue;
		}
		m = (struct msghdr){ .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
		long n = recvmsg(fd, &m, i == 3 ? MSG_DONTWAIT : 0);
		struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
		struct timespec ts = { 0, 0 };
		if (c)
			memcpy(&ts, CMSG_DATA(c), sizeof ts);
		t[i] = ts.tv_sec * 1000L + ts.tv_nsec / 1000000;
		num("recvmsg", n);
	}
	// The kernel puts segments together, and tells of the last one then.
	say("the third byte: %s", t[0] > 0 && t[2] >= t[0] && t[2] - t[0] < 5000 ? "not before the first" : "WRONG");
	close(fd);

	begin("stamps/tcp-timestamping-%s", fam);
	fd = dial(ip("PEER"), ECHO);
	ok("RX_SOFTWARE", flag(fd, SO_TIMESTAMPING_OLD, SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE));
	say("value %d", opt(fd, SOL_SOCKET, SO_TIMESTAMPING_OLD));
	num("send", send(fd, "ping", 4, 0));
	unread(fd, 4);
	receive("recvmsg", fd, 0);
	receive("no errors", fd, MSG_ERRQUEUE);
	ok("SO_TIMESTAMP too", flag(fd, SO_TIMESTAMP_OLD, 1));
	num("send", send(fd, "ping", 4, 0));
	unread(fd, 4);
	receive("recvmsg", fd, 0);
	ok("TX_HARDWARE", flag(fd, SO_TIMESTAMPING_OLD, SOF_TIMESTAMPING_TX_HARDWARE));
	ok("TX_SOFTWARE", flag(fd, SO_TIMESTAMPING_OLD, SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE));
	close(fd);
	struct addr a = mk(ip("PEER"), ECHO);
	fd = tcp(&a, 0);
	ok("OPT_ID without a connection", flag(fd, SO_TIMESTAMPING_OLD, SOF_TIMESTAMPING_OPT_ID | SOF_TIMESTAMPING_RX_SOFTWARE));
	ok("what is no flag", flag(fd, SO_TIMESTAMPING_OLD, 1 << 30));
	close(fd);

	begin("stamps/tcp-accepted-%s", fam);
	struct addr here = mk(six ? "::1" : "127.0.0.1", 0);
	int l = tcp(&here, 0), c = tcp(&here, 0);
	need("bind", bind(l, &here.sa, here.len));
	need("getsockname", getsockname(l, &here.sa, &here.len));
	ok("SO_TIMESTAMPNS", flag(l, SO_TIMESTAMPNS_OLD, 1));
	need("listen", listen(l, 1));
	need("connect", connect(c, &here.sa, here.len));
	int s = need("accept", accept(l, NULL, NULL));
	all_flags(s);
	num("send", send(c, "ping", 4, 0));
	unread(s, 4);
	receive("recvmsg", s, 0);
	close(keep);
	close(l);
	close(c);
	close(s);
}

int main(int argc, char **argv)
{
	deadline(30);
	argument(argc, argv);
	received();
	sent();
	wrong();
	last();
	drops();
	streams();
	return 0;
}
