// SPDX-License-Identifier: Apache-2.0

// Flags of send and recv on datagrams, empty ones, cut ones, corked ones, many at a
// time, and files that are sent into sockets.
//
// Usage: msg 4|6
#include "dgram.h"
#include <netinet/udp.h>
#include <sys/sendfile.h>

static const char *lo;
static int v, s, r, port; // a sender, a receiver, and where it is

static long got(int fd, int flags, size_t room, unsigned *out)
{
	struct iovec io = { heard, room };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1 };
	long n = recvmsg(fd, &m, flags);
	*out = m.msg_flags;
	return n;
}

static long sent(const char *word, int flags)
{
	struct addr to = mk(lo, port);
	return sendto(s, word, strlen(word), flags, &to.sa, to.len);
}

static void receiving(void)
{
	unsigned f;
	begin("msg/peek-%d", v);
	num("send", sent("one", 0));
	hear("peek", r, MSG_PEEK);
	hear("peek again", r, MSG_PEEK);
	text("recv and peek", recv(r, heard, sizeof heard, MSG_PEEK), heard);
	take("take", r);
	hear("gone", r, MSG_DONTWAIT);

	begin("msg/trunc-%d", v);
	sent("0123456789", 0);
	num("cut", got(r, 0, 4, &f));
	say("flags %x", f);
	sent("0123456789", 0);
	num("whole length", got(r, MSG_TRUNC, 4, &f));
	say("flags %x", f);
	sent("0123456789", 0);
	num("looked at", got(r, MSG_TRUNC | MSG_PEEK, 0, &f));
	say("flags %x", f);
	num("exact", got(r, MSG_TRUNC, 10, &f));
	say("flags %x", f);
	sent("0123456789", 0);
	num("recv, 4 bytes", recv(r, heard, 4, 0));
	sent("0123456789", 0);
	num("recv, no room", recv(r, heard, 0, 0));
	sent("0123456789", 0);
	num("recv, no buffer, TRUNC", recv(r, NULL, 0, MSG_TRUNC));
	hear("all are gone", r, MSG_DONTWAIT);

	begin("msg/waitall-%d", v);
	sent("abc", 0);
	num("a datagram", recv(r, heard, 100, MSG_WAITALL));
	sent("abc", 0);
	sent("def", 0);
	num("one of two", got(r, MSG_WAITALL, 100, &f));
	say("flags %x", f);
	take("the other", r);

	begin("msg/dontwait-%d", v);
	num("recv", recv(r, heard, 10, MSG_DONTWAIT));
	num("recvmsg", got(r, MSG_DONTWAIT, 10, &f));
	hear("recvfrom", r, MSG_DONTWAIT);
	num("peek", recv(r, heard, 10, MSG_DONTWAIT | MSG_PEEK));
	fcntl(r, F_SETFL, O_NONBLOCK);
	num("O_NONBLOCK", recv(r, heard, 10, 0));
	hear("O_NONBLOCK recvfrom", r, 0);
	fcntl(r, F_SETFL, 0);

	begin("msg/cloexec-%d", v);
	sent("abc", 0);
	num("CMSG_CLOEXEC", got(r, MSG_CMSG_CLOEXEC, 10, &f));
	say("flags %x", f);

	begin("msg/receive-flags-%d", v);
	static const struct { const char *s; int f; } flags[] = { { "NOSIGNAL", MSG_NOSIGNAL }, { "CONFIRM", MSG_CONFIRM }, { "MORE", MSG_MORE },
		{ "EOR", MSG_EOR }, { "DONTROUTE", MSG_DONTROUTE }, { "WAITFORONE", MSG_WAITFORONE }, { "SYN", MSG_SYN } };
	for (int i = 0; i < LEN(flags); i++) {
		sent("abc", 0);
		hear(flags[i].s, r, flags[i].f);
	}

	begin("msg/names-%d", v);
	struct addr a;
	static const int lens[] = { 0, 2, 4, 16, 28, 128 };
	for (int i = 0; i < LEN(lens); i++) {
		sent("abc", 0);
		memset(&a, 0x55, sizeof a);
		a.len = lens[i];
		long n = recvfrom(r, heard, 10, 0, &a.sa, &a.len);
		say("room %d: %ld, length %d, family %x, then %x", lens[i], n, (int)a.len, a.sa.sa_family, ((unsigned char *)&a.ss)[lens[i] < 128 ? lens[i] : 127]);
	}
	sent("abc", 0);
	a.len = -1;
	num("room -1", recvfrom(r, heard, 10, MSG_DONTWAIT, &a.sa, &a.len));
	sent("abc", 0);
	a.len = 7;
	ready(r, POLLIN, 2000); // under umrun there is one at a time for recv without an address
	num("no address", recvfrom(r, heard, 10, MSG_DONTWAIT, NULL, &a.len));
	say("length %d", (int)a.len);
	drain(r);

	begin("msg/vectors-%d", v);
	char b[3][4];
	memset(b, '-', sizeof b);
	struct iovec io[3] = { { b[0], 2 }, { b[1], 0 }, { b[2], 4 } };
	sent("abcdef", 0);
	num("readv", readv(r, io, 3));
	say("%.2s %.4s", b[0], b[2]);
	struct iovec w[3] = { { "xy", 2 }, { NULL, 0 }, { "z", 1 } };
	struct addr to = mk(lo, port);
	struct msghdr m = { .msg_name = &to.sa, .msg_namelen = to.len, .msg_iov = w, .msg_iovlen = 3 };
	num("sendmsg of three", sendmsg(s, &m, 0));
	take("in one", r);
	m.msg_iovlen = 1025;
	num("too many", sendmsg(s, &m, 0));
	sent("abc", 0);
	m = (struct msghdr){ .msg_iovlen = 0 };
	num("recvmsg into nothing", recvmsg(r, &m, 0));
	say("flags %x", m.msg_flags);
	num("preadv", preadv(r, io, 3, 0));
	num("pread", pread(r, heard, 1, 0));
}

static void sending(void)
{
	begin("msg/send-flags-%d", v);
	static const struct { const char *s; int f; } flags[] = { { "NOSIGNAL", MSG_NOSIGNAL }, { "CONFIRM", MSG_CONFIRM }, { "EOR", MSG_EOR },
		{ "DONTROUTE", MSG_DONTROUTE }, { "DONTWAIT", MSG_DONTWAIT }, { "WAITALL", MSG_WAITALL }, { "PEEK", MSG_PEEK }, { "SYN", MSG_SYN } };
	for (int i = 0; i < LEN(flags); i++) {
		num(flags[i].s, sent("abc", flags[i].f));
		take("came", r);
	}

	begin("msg/more-%d", v);
	num("MORE", sent("abc", MSG_MORE));
	num("MORE", sent("def", MSG_MORE));
	quiet("nothing yet", r);
	num("the last", sent("ghi", 0));
	take("one", r);
	hear("and no more", r, MSG_DONTWAIT);

	begin("msg/more-empty-%d", v);
	num("MORE", sent("abc", MSG_MORE));
	num("nothing more", sent("", 0));
	take("one", r);

	begin("msg/cork-%d", v);
	ok("UDP_CORK", on(s, IPPROTO_UDP, UDP_CORK, 1));
	num("send", sent("abc", 0));
	num("send", sent("def", 0));
	quiet("nothing yet", r);
	ok("off", on(s, IPPROTO_UDP, UDP_CORK, 0));
	take("one", r);
	num("send", sent("ghi", 0));
	take("not corked", r);

	begin("msg/more-connected-%d", v);
	int c = fresh(lo);
	ok("connect", connect_to(c, lo, port));
	num("MORE", send(c, "abc", 3, MSG_MORE));
	num("write", write(c, "def", 3));
	take("one", r);
	ok("UDP_CORK", on(c, IPPROTO_UDP, UDP_CORK, 1));
	num("write", write(c, "ghi", 3));
	num("write", write(c, "jkl", 3));
	ok("off", on(c, IPPROTO_UDP, UDP_CORK, 0));
	take("one", r);

	begin("msg/more-to-another-%d", v);
	int r2 = bound(lo, 0);
	num("MORE", sent("abc", MSG_MORE));
	num("to another", give(s, "def", lo, port_at(r2)));
	take("the first one's", r);
	hear("not the other's", r2, MSG_DONTWAIT);

	begin("msg/more-forgotten-%d", v);
	int t = fresh(lo);
	struct addr to = mk(lo, port);
	num("MORE", sendto(t, "abc", 3, MSG_MORE, &to.sa, to.len));
	close(t);
	quiet("lost with the socket", r);

	begin("msg/more-too-long-%d", v);
	static char big[40000];
	num("MORE", sendto(s, big, sizeof big, MSG_MORE, &to.sa, to.len));
	num("more than fits", sendto(s, big, sizeof big, 0, &to.sa, to.len));
	quiet("nothing came", r);
	num("and then", sent("abc", 0));
	take("as ever", r);

	begin("msg/empty-%d", v);
	num("sendto", sent("", 0));
	say("readable: %s", events(ready(r, POLLIN, 2000)));
	int n = -1;
	ioctl(r, FIONREAD, &n);
	say("FIONREAD %d", n);
	hear("peek", r, MSG_PEEK);
	take("take", r);
	num("send", send(c, "", 0, 0));
	take("take", r);
	num("write", write(c, "", 0));
	take("take", r);
	num("writev", writev(c, NULL, 0));
	hear("writev sends none", r, MSG_DONTWAIT);
	struct msghdr m = { .msg_iovlen = 0 };
	num("sendmsg of nothing", sendmsg(c, &m, 0));
	take("take", r);
	sent("", 0);
	sent("abc", 0);
	num("read", read(r, heard, 10));
	num("read", read(r, heard, 10));

	begin("msg/oob-%d", v);
	if (v == 4) // IPv6 takes it
		num("send OOB", sent("x", MSG_OOB));
	sent("abc", 0);
	hear("receive OOB", r, MSG_OOB);
	drain(r);
	close(c);
	close(r2);
}

static struct mmsghdr mm[8];
static struct iovec iov[8];
static char data[8][16];
static struct addr name[8];

static void prepare(int room)
{
	memset(mm, 0, sizeof mm);
	memset(data, '-', sizeof data);
	for (int i = 0; i < 8; i++) {
		iov[i] = (struct iovec){ data[i], room };
		mm[i].msg_hdr = (struct msghdr){ .msg_name = &name[i].ss, .msg_namelen = sizeof name[i].ss, .msg_iov = &iov[i], .msg_iovlen = 1 };
	}
}

static void show_all(int n)
{
	for (int i = 0; i < n; i++) {
		name[i].len = mm[i].msg_hdr.msg_namelen;
		say("%u \"%.*s\" flags %x from %s", mm[i].msg_len, (int)mm[i].msg_len, data[i], mm[i].msg_hdr.msg_flags, show(&name[i]));
	}
}

static void *later(void *ms)
{
	nap((long)ms);
	sent("late", 0);
	return NULL;
}

static void many(void)
{
	struct timeval tv = { 0, 300000 };
	begin("msg/recvmmsg-%d", v);
	for (int i = 0; i < 3; i++)
		sent("0123456789" + 7 + i, 0);
	nap(20);
	prepare(16);
	num("three of three", recvmmsg(r, mm, 3, 0, NULL));
	show_all(3);

	begin("msg/recvmmsg-waitforone-%d", v);
	sent("one", 0);
	sent("two", 0);
	nap(20);
	prepare(16);
	num("what there is", recvmmsg(r, mm, 8, MSG_WAITFORONE, NULL));
	show_all(2);
	pthread_t th;
	pthread_create(&th, NULL, later, (void *)100L);
	prepare(16);
	num("the first is waited for", recvmmsg(r, mm, 8, MSG_WAITFORONE, NULL));
	pthread_join(th, NULL);

	begin("msg/recvmmsg-waits-for-all-%d", v);
	sent("one", 0);
	nap(20);
	pthread_create(&th, NULL, later, (void *)100L);
	prepare(16);
	num("two", recvmmsg(r, mm, 2, 0, NULL));
	show_all(2);
	pthread_join(th, NULL);

	begin("msg/recvmmsg-rcvtimeo-%d", v);
	setsockopt(r, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	sent("one", 0);
	prepare(16);
	long long t0 = now_ms();
	num("one of two", recvmmsg(r, mm, 2, 0, NULL));
	say("waited: %s", now_ms() - t0 >= 290 ? "yes" : "no");
	t0 = now_ms();
	num("none", recvmmsg(r, mm, 2, 0, NULL));
	say("waited: %s", now_ms() - t0 >= 290 ? "yes" : "no");

	begin("msg/recvmmsg-timeout-%d", v);
	// It is looked at after each datagram, recvmmsg(2), BUGS.
	struct timespec ts = { 0, 50000000 };
	sent("one", 0);
	nap(20);
	pthread_create(&th, NULL, later, (void *)100L);
	prepare(16);
	num("two", recvmmsg(r, mm, 3, 0, &ts));
	say("left: %ld", (long)ts.tv_nsec);
	pthread_join(th, NULL);
	ts = (struct timespec){ 5, 0 };
	sent("one", 0);
	sent("two", 0);
	nap(20);
	prepare(16);
	num("in time", recvmmsg(r, mm, 2, 0, &ts));
	say("left: %s", ts.tv_sec == 4 && ts.tv_nsec > 900000000 ? "what was" : "WRONG");
	ts = (struct timespec){ 0, -1 };
	num("bad time", recvmmsg(r, mm, 2, 0, &ts));
	ts = (struct timespec){ 0, 0 };
	sent("one", 0);
	sent("two", 0);
	nap(20);
	num("no time", recvmmsg(r, mm, 3, 0, &ts));
	drain(r);

	begin("msg/recvmmsg-flags-%d", v);
	num("DONTWAIT", recvmmsg(r, mm, 2, MSG_DONTWAIT, NULL));
	num("none asked for", recvmmsg(r, mm, 0, MSG_DONTWAIT, NULL));
	sent("0123456789", 0);
	sent("b", 0);
	nap(20);
	prepare(4);
	num("peek", recvmmsg(r, mm, 2, MSG_PEEK, NULL));
	show_all(2);
	prepare(4);
	num("cut", recvmmsg(r, mm, 2, 0, NULL));
	show_all(2);
	sent("0123456789", 0);
	prepare(4);
	num("TRUNC", recvmmsg(r, mm, 1, MSG_TRUNC, NULL));
	say("%u", mm[0].msg_len);

	begin("msg/sendmmsg-%d", v);
	struct addr to = mk(lo, port);
	struct iovec w[3] = { { "one", 3 }, { "four", 4 }, { "", 0 } };
	memset(mm, 0, sizeof mm);
	for (int i = 0; i < 3; i++)
		mm[i].msg_hdr = (struct msghdr){ .msg_name = &to.sa, .msg_namelen = to.len, .msg_iov = &w[i], .msg_iovlen = 1 };
	num("three", sendmmsg(s, mm, 3, 0));
	say("%u %u %u", mm[0].msg_len, mm[1].msg_len, mm[2].msg_len);
	take("one", r);
	take("two", r);
	take("three", r);
	num("none", sendmmsg(s, mm, 0, 0));
	mm[1].msg_hdr.msg_namelen = 3;
	num("the second is wrong", sendmmsg(s, mm, 3, 0));
	take("the first", r);
	num("the first is wrong", sendmmsg(s, mm + 1, 2, 0));
	mm[1].msg_hdr.msg_namelen = to.len;
	num("MORE", sendmmsg(s, mm, 2, MSG_MORE));
	num("the end", sent("!", 0));
	take("one", r);
	tv = (struct timeval){ 3, 0 };
	setsockopt(r, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
}

static void files(void)
{
	begin("msg/sendfile-%d", v);
	int c = fresh(lo), p[2];
	ok("connect", connect_to(c, lo, port));
	FILE *f = tmpfile();
	for (int i = 0; i < 600; i++)
		fputs("0123456789", f);
	fflush(f);
	off_t off = 100;
	num("500 bytes", sendfile(c, fileno(f), &off, 500));
	say("offset %ld", (long)off);
	num("came", recv(r, heard, sizeof heard, 0));
	num("a page and more", sendfile(c, fileno(f), NULL, 5000));
	ready(r, POLLIN, 60);
	num("came", recv(r, heard, sizeof heard, MSG_DONTWAIT));
	num("nothing", sendfile(c, fileno(f), NULL, 0));
	hear("nothing came", r, MSG_DONTWAIT);
	off = 6000;
	num("at the end", sendfile(c, fileno(f), &off, 10));

	begin("msg/splice-in-%d", v);
	need("pipe", pipe(p));
	num("write", write(p[1], "abcdef", 6));
	num("splice", splice(p[0], NULL, c, NULL, 4, 0));
	take("came", r);
	num("the rest", splice(p[0], NULL, c, NULL, 10, SPLICE_F_NONBLOCK));
	take("came", r);
	num("none", splice(p[0], NULL, c, NULL, 10, SPLICE_F_NONBLOCK));
	num("with MORE", (write(p[1], "gh", 2), splice(p[0], NULL, c, NULL, 2, SPLICE_F_MORE)));
	num("the end", write(c, "i", 1));
	take("came", r);

	begin("msg/splice-out-%d", v);
	drain(r);
	sent("abc", 0);
	ready(r, POLLIN, 2000);
	num("splice", splice(r, NULL, p[1], NULL, 100, 0));
	text("in the pipe", read(p[0], heard, 10), heard);
	fcntl(r, F_SETFL, O_NONBLOCK);
	num("none", splice(r, NULL, p[1], NULL, 100, SPLICE_F_NONBLOCK));
	num("sendfile from a socket", sendfile(p[1], r, NULL, 10));
	fcntl(r, F_SETFL, 0);
	close(c);
	close(p[0]);
	close(p[1]);
}

int main(int argc, char **argv)
{
	deadline(40);
	if (argc != 2)
		return 9;
	v = atoi(argv[1]);
	lo = v == 6 ? "::1" : "127.0.0.1";
	s = bound(lo, 0);
	r = bound(lo, 0);
	port = port_at(r);
	receiving();
	sending();
	many();
	files();
	return 0;
}
