// SPDX-License-Identifier: Apache-2.0

// Urgent data: MSG_OOB, the mark, SIGURG, SO_OOBINLINE; between two programs of one
// network, and over the wire.
//
// Usage: urgent 4|6
#include "lab.h"

static const char *self;
static int six;

static void pair(int p[2])
{
	struct addr a = mk(six ? "::1" : "127.0.0.1", 0);
	int l = tcp(&a, 0);
	need("bind", bind(l, &a.sa, a.len));
	need("listen", listen(l, 1));
	need("getsockname", getsockname(l, &a.sa, &a.len));
	p[0] = tcp(&a, 0);
	need("connect", connect(p[0], &a.sa, a.len));
	p[1] = need("accept", accept(l, NULL, NULL));
	close(l);
}

static void end(int p[2])
{
	close(p[0]);
	close(p[1]);
}

static void mark(const char *label, int fd)
{
	int at = -1;
	int rc = ioctl(fd, SIOCATMARK, &at);
	say("%s at mark: %s", label, rc < 0 ? errname(errno) : at ? "yes" : "no");
}

static void take(const char *label, int fd, int flags)
{
	char b[40];
	text(label, recv(fd, b, sizeof b, flags | MSG_DONTWAIT), b);
}

// urgent waits for urgent data.
static void urgent(const char *label, int fd)
{
	say("%s: %s", label, events(ready(fd, POLLPRI, 2000) & POLLPRI));
}

static void case_byte(void)
{
	int p[2];
	begin("urgent/byte-%s", self);
	pair(p);
	take("none there", p[1], MSG_OOB);
	mark("none there", p[1]);
	num("send", send(p[0], "abX", 3, MSG_OOB));
	put(p[0], "cd", 2);
	urgent("poll", p[1]);
	nap(20);
	say("poll: %s", events(ready(p[1], POLLIN | POLLPRI | POLLRDHUP, 0)));
	take("peek", p[1], MSG_OOB | MSG_PEEK);
	mark("before", p[1]);
	take("read", p[1], 0);
	mark("there", p[1]);
	take("urgent", p[1], MSG_OOB);
	take("urgent again", p[1], MSG_OOB);
	say("poll: %s", events(ready(p[1], POLLIN | POLLPRI, 0)));
	take("read", p[1], 0);
	mark("behind", p[1]);
	take("read", p[1], 0);
	end(p);

	begin("urgent/unread-%s", self);
	pair(p);
	put(p[0], "a", 1);
	num("send", send(p[0], "X", 1, MSG_OOB));
	put(p[0], "b", 1);
	urgent("poll", p[1]);
	nap(20);
	take("read", p[1], 0);
	take("read", p[1], 0);
	take("urgent", p[1], MSG_OOB);
	num("send", send(p[0], "Y", 1, MSG_OOB));
	urgent("poll", p[1]);
	take("urgent", p[1], MSG_OOB);
	put(p[0], "end", 3);
	close(p[0]);
	nap(20);
	char b[20];
	text("rest", all(p[1], b, sizeof b), b);
	close(p[1]);

	begin("urgent/messages-%s", self);
	pair(p);
	struct iovec v = { "mnoZ", 4 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
	num("sendmsg", sendmsg(p[0], &m, MSG_OOB));
	urgent("poll", p[1]);
	char c[20];
	struct iovec w = { c, sizeof c };
	struct msghdr r = { .msg_iov = &w, .msg_iovlen = 1 };
	long n = recvmsg(p[1], &r, MSG_OOB);
	text("recvmsg", n, c);
	say("flags: %s", r.msg_flags & MSG_OOB ? "MSG_OOB" : "none");
	take("read", p[1], 0);
	end(p);
}

// The urgent byte and nothing else, and two of them.
static void case_alone(void)
{
	int p[2], n = -1;
	begin("urgent/alone-%s", self);
	pair(p);
	num("send", send(p[0], "X", 1, MSG_OOB));
	urgent("poll", p[1]);
	say("poll: %s", events(ready(p[1], POLLIN | POLLPRI, 0)));
	ok("FIONREAD", ioctl(p[1], FIONREAD, &n));
	num("bytes", n);
	mark("there", p[1]);
	take("read", p[1], 0);
	say("poll: %s", events(ready(p[1], POLLIN | POLLPRI, 0)));
	take("urgent", p[1], MSG_OOB);
	end(p);

	begin("urgent/two-%s", self);
	pair(p);
	num("send", send(p[0], "1", 1, MSG_OOB));
	urgent("poll", p[1]);
	num("send", send(p[0], "2", 1, MSG_OOB));
	nap(50);
	take("urgent", p[1], MSG_OOB);
	take("read", p[1], 0);
	take("read", p[1], 0);
	end(p);
}

static void case_inline(void)
{
	int p[2];
	begin("urgent/inline-%s", self);
	pair(p);
	need("setsockopt", setsockopt(p[1], SOL_SOCKET, SO_OOBINLINE, &(int){ 1 }, sizeof(int)));
	num("send", send(p[0], "abX", 3, MSG_OOB));
	put(p[0], "cd", 2);
	urgent("poll", p[1]);
	nap(20);
	take("urgent", p[1], MSG_OOB);
	mark("before", p[1]);
	take("read", p[1], 0);
	mark("there", p[1]);
	take("read", p[1], 0);
	mark("behind", p[1]);
	end(p);
}

static volatile sig_atomic_t urged;

static void on_urg(int sig)
{
	urged = sig;
}

static void case_signal(void)
{
	int p[2];
	begin("urgent/signal-%s", self);
	pair(p);
	signal(SIGURG, on_urg);
	ok("F_SETOWN", fcntl(p[1], F_SETOWN, getpid()));
	num("F_GETOWN", fcntl(p[1], F_GETOWN) == getpid());
	put(p[0], "a", 1);
	nap(30);
	say("signal: %s", urged ? "SIGURG" : "none");
	num("send", send(p[0], "X", 1, MSG_OOB));
	for (int i = 0; i < 100 && !urged; i++)
		nap(20);
	say("signal: %s", urged == SIGURG ? "SIGURG" : "none");
	take("urgent", p[1], MSG_OOB);
	take("read", p[1], 0);
	end(p);
}

static void case_wrong(void)
{
	int p[2];
	begin("urgent/wrong-%s", self);
	struct addr a = mk(six ? "::1" : "127.0.0.1", 0);
	int fd = tcp(&a, 0);
	take("not connected", fd, MSG_OOB);
	close(fd);
	pair(p);
	close(p[1]);
	nap(20);
	take("closed", p[0], MSG_OOB);
	close(p[0]);
	fd = need("socket", socket(six ? AF_INET6 : AF_INET, SOCK_DGRAM, 0));
	need("bind", bind(fd, &a.sa, a.len));
	need("getsockname", getsockname(fd, &a.sa, &a.len));
	need("connect", connect(fd, &a.sa, a.len));
	num("datagram: sendto", sendto(fd, "x", 1, MSG_OOB, &a.sa, a.len));
	close(fd);
}

// The peer sends "ab", an urgent "!" and "cd"; then it tells what it got.
static void case_wire(void)
{
	char b[100];
	begin("urgent/wire-%s", self);
	int fd = dial(env(six ? "LAB_PEER6" : "LAB_PEER4"), URGENT);
	urgent("poll", fd);
	nap(100);
	take("read", fd, 0);
	mark("there", fd);
	take("urgent", fd, MSG_OOB);
	take("read", fd, 0);
	put(fd, "before ", 7);
	num("send", send(fd, "it?", 3, MSG_OOB));
	put(fd, " after", 6);
	need("shutdown", shutdown(fd, SHUT_WR));
	text("peer", all(fd, b, sizeof b), b);
	close(fd);

	// Behind more data than a segment holds.
	begin("urgent/wire-long-%s", self);
	static char big[20000];
	memset(big, 'x', sizeof big);
	fd = dial(env(six ? "LAB_PEER6" : "LAB_PEER4"), URGENT);
	put(fd, big, sizeof big);
	num("send", send(fd, "?", 1, MSG_OOB));
	put(fd, big, sizeof big);
	need("shutdown", shutdown(fd, SHUT_WR));
	urgent("poll", fd);
	nap(100);
	take("read", fd, 0);
	take("urgent", fd, MSG_OOB);
	text("rest", all(fd, b, sizeof b), b);
	close(fd);
}

int main(int argc, char **argv)
{
	deadline(40);
	if (argc != 2)
		return 9;
	self = argv[1];
	six = *self == '6';
	case_byte();
	case_alone();
	case_inline();
	case_signal();
	case_wrong();
	case_wire();
	return 0;
}
