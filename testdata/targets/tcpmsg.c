// SPDX-License-Identifier: Apache-2.0

// Flags of send and recv on streams, many messages at a time, and files and pipes
// that are sent into one and out of one.
//
// Usage: tcpmsg 4|6
#include "dgram.h"
#include <sys/sendfile.h>

static const char *lo;
static int v, a, b; // the two ends

static void ends(void)
{
	struct addr at = mk(lo, 0);
	int ls = tcp(&at, 0);
	need("bind", bind(ls, &at.sa, at.len));
	need("listen", listen(ls, 1));
	at.len = sizeof at.ss;
	getsockname(ls, &at.sa, &at.len);
	a = tcp(&at, 0);
	need("connect", connect(a, &at.sa, at.len));
	b = need("accept", accept(ls, NULL, NULL));
	on(a, IPPROTO_TCP, TCP_NODELAY, 1);
	close(ls);
	struct timeval tv = { 3, 0 };
	setsockopt(b, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
}

static void over(void)
{
	close(a);
	close(b);
}

// arrived waits until n bytes can be read.
static void arrived(int fd, int n)
{
	int have = 0;
	for (int i = 0; i < 400 && have < n; i++, nap(5))
		ioctl(fd, FIONREAD, &have);
}

static void *more_later(void *word)
{
	nap(80);
	put(a, word, strlen(word));
	return NULL;
}

static void *end_later(void *p)
{
	nap(80);
	shutdown(a, SHUT_WR);
	return p;
}

static void waiting(void)
{
	pthread_t t;
	begin("tcpmsg/waitall-%d", v);
	ends();
	put(a, "abc", 3);
	pthread_create(&t, NULL, more_later, "def");
	text("six", recv(b, heard, 6, MSG_WAITALL), heard);
	pthread_join(t, NULL);
	put(a, "ghi", 3);
	pthread_create(&t, NULL, end_later, NULL);
	text("cut by the end", recv(b, heard, 6, MSG_WAITALL), heard);
	pthread_join(t, NULL);
	num("at the end", recv(b, heard, 6, MSG_WAITALL));
	over();

	begin("tcpmsg/waitall-timeout-%d", v);
	ends();
	struct timeval tv = { 0, 100000 };
	setsockopt(b, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	put(a, "abc", 3);
	text("what there is", recv(b, heard, 6, MSG_WAITALL), heard);
	num("none", recv(b, heard, 6, MSG_WAITALL));
	put(a, "abc", 3);
	arrived(b, 3);
	text("DONTWAIT", recv(b, heard, 6, MSG_WAITALL | MSG_DONTWAIT), heard);
	over();

	begin("tcpmsg/waitall-messages-%d", v);
	ends();
	struct iovec io[2] = { { heard, 2 }, { heard + 2, 4 } };
	struct msghdr m = { .msg_iov = io, .msg_iovlen = 2 };
	put(a, "abc", 3);
	pthread_create(&t, NULL, more_later, "defghi");
	text("recvmsg", recvmsg(b, &m, MSG_WAITALL), heard);
	pthread_join(t, NULL);
	struct addr from;
	from.len = sizeof from.ss;
	put(a, "jkl", 3);
	text("recvfrom", recvfrom(b, heard, 6, MSG_WAITALL, &from.sa, &from.len), heard);
	over();
}

static void flags(void)
{
	unsigned f;
	struct iovec io = { heard, 4 };
	begin("tcpmsg/peek-%d", v);
	ends();
	put(a, "abcdef", 6);
	arrived(b, 6);
	text("peek", recv(b, heard, 4, MSG_PEEK), heard);
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1 };
	text("recvmsg", recvmsg(b, &m, MSG_PEEK), heard);
	f = m.msg_flags;
	say("flags %x", f);
	text("take", recv(b, heard, 10, 0), heard);
	over();

	begin("tcpmsg/trunc-%d", v);
	ends();
	put(a, "abcdefgh", 8);
	arrived(b, 8);
	num("thrown away", recv(b, NULL, 3, MSG_TRUNC));
	memset(heard, '-', 8);
	num("into a buffer", recv(b, heard, 2, MSG_TRUNC));
	say("%.2s", heard);
	text("the rest", recv(b, heard, 10, 0), heard);
	over();

	begin("tcpmsg/receive-flags-%d", v);
	ends();
	static const struct { const char *s; int f; } fl[] = { { "NOSIGNAL", MSG_NOSIGNAL }, { "CONFIRM", MSG_CONFIRM }, { "EOR", MSG_EOR },
		{ "DONTROUTE", MSG_DONTROUTE }, { "CMSG_CLOEXEC", MSG_CMSG_CLOEXEC }, { "WAITFORONE", MSG_WAITFORONE } };
	for (int i = 0; i < LEN(fl); i++) {
		put(a, "x", 1);
		ready(b, POLLIN, 2000);
		m = (struct msghdr){ .msg_iov = &io, .msg_iovlen = 1 };
		num(fl[i].s, recvmsg(b, &m, fl[i].f));
		say("flags %x", (unsigned)m.msg_flags);
	}
	num("ERRQUEUE", recv(b, heard, 1, MSG_ERRQUEUE));
	over();

	begin("tcpmsg/send-flags-%d", v);
	ends();
	static const struct { const char *s; int f; } sf[] = { { "NOSIGNAL", MSG_NOSIGNAL }, { "CONFIRM", MSG_CONFIRM }, { "EOR", MSG_EOR },
		{ "DONTROUTE", MSG_DONTROUTE }, { "DONTWAIT", MSG_DONTWAIT }, { "WAITALL", MSG_WAITALL } };
	for (int i = 0; i < LEN(sf); i++) {
		num(sf[i].s, send(a, "y", 1, sf[i].f));
		num("came", recv(b, heard, 4, 0));
	}
	num("nothing", send(a, "", 0, 0));
	num("no vectors", writev(a, NULL, 0));
	num("none came", recv(b, heard, 4, MSG_DONTWAIT));
	num("room for none", recv(b, heard, 0, MSG_DONTWAIT));
	over();

	begin("tcpmsg/sigpipe-%d", v);
	for (int k = 0; k < 3; k++) {
		pid_t kid = fork();
		if (kid == 0) {
			ends();
			shutdown(a, SHUT_WR);
			signal(SIGPIPE, SIG_DFL);
			long n = k == 0 ? write(a, "x", 1) : k == 1 ? send(a, "x", 1, 0) : send(a, "x", 1, MSG_NOSIGNAL);
			_exit(n < 0 && errno == EPIPE ? 3 : 4);
		}
		int st;
		waitpid(kid, &st, 0);
		say("%s: %s %d", k == 0 ? "write" : k == 1 ? "send" : "NOSIGNAL", WIFSIGNALED(st) ? "signal" : "exit",
			WIFSIGNALED(st) ? WTERMSIG(st) : WEXITSTATUS(st));
	}
}

static void many(void)
{
	begin("tcpmsg/sendmmsg-%d", v);
	ends();
	struct iovec w[2] = { { "abc", 3 }, { "defg", 4 } }, io[2] = { { heard, 3 }, { heard + 3, 10 } };
	struct mmsghdr mm[2];
	memset(mm, 0, sizeof mm);
	for (int i = 0; i < 2; i++)
		mm[i].msg_hdr = (struct msghdr){ .msg_iov = &w[i], .msg_iovlen = 1 };
	num("two", sendmmsg(a, mm, 2, 0));
	say("%u %u", mm[0].msg_len, mm[1].msg_len);

	begin("tcpmsg/recvmmsg-%d", v);
	arrived(b, 7);
	memset(mm, 0, sizeof mm);
	for (int i = 0; i < 2; i++)
		mm[i].msg_hdr = (struct msghdr){ .msg_iov = &io[i], .msg_iovlen = 1 };
	num("two", recvmmsg(b, mm, 2, 0, NULL));
	say("%u %u %.7s", mm[0].msg_len, mm[1].msg_len, heard);
	num("none", recvmmsg(b, mm, 2, MSG_DONTWAIT, NULL));
	over();
}

static void files(void)
{
	begin("tcpmsg/splice-%d", v);
	ends();
	int p[2];
	need("pipe", pipe(p));
	put(p[1], "abcdef", 6);
	num("into the stream", splice(p[0], NULL, a, NULL, 6, 0));
	arrived(b, 6);
	num("out of the stream", splice(b, NULL, p[1], NULL, 100, 0));
	text("in the pipe", read(p[0], heard, 10), heard);
	fcntl(b, F_SETFL, O_NONBLOCK);
	num("none", splice(b, NULL, p[1], NULL, 100, SPLICE_F_NONBLOCK));
	struct iovec io = { "ghi", 3 };
	num("vmsplice", vmsplice(p[1], &io, 1, 0));
	num("with MORE", splice(p[0], NULL, a, NULL, 3, SPLICE_F_MORE));
	put(a, "j", 1);
	arrived(b, 4);
	text("came", recv(b, heard, 10, 0), heard);
	shutdown(a, SHUT_WR);
	ready(b, POLLIN, 2000);
	num("at the end", splice(b, NULL, p[1], NULL, 100, 0));
	num("after shutdown", (put(p[1], "x", 1), splice(p[0], NULL, a, NULL, 1, 0)));
	over();

	begin("tcpmsg/sendfile-%d", v);
	ends();
	FILE *f = tmpfile();
	for (int i = 0; i < 1000; i++)
		fputs("0123456789", f);
	fflush(f);
	off_t off = 9990;
	num("the last ten", sendfile(a, fileno(f), &off, 100));
	say("offset %ld", (long)off);
	text("came", recv(b, heard, 100, 0), heard);
	lseek(fileno(f), 0, SEEK_SET);
	num("all", sendfile(a, fileno(f), NULL, 1 << 20));
	num("position", lseek(fileno(f), 0, SEEK_CUR));
	num("came", recv(b, heard, 10000, MSG_WAITALL));
	num("nothing", sendfile(a, fileno(f), NULL, 0));
	fclose(f);
	over();
}

int main(int argc, char **argv)
{
	deadline(30);
	if (argc != 2)
		return 9;
	v = atoi(argv[1]);
	lo = v == 6 ? "::1" : "127.0.0.1";
	waiting();
	flags();
	many();
	files();
	return 0;
}
