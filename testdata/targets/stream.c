// SPDX-License-Identifier: Apache-2.0

// TCP data: ends, resets, both directions at once, flags of recv and send.
#include "lab.h"
#include <sys/sendfile.h>

static char buf[1 << 20];

// digest sends n bytes of the pattern and prints what the peer counted.
static void digest(const char *label, const char *ip, int port, size_t n, size_t chunk)
{
	int fd = dial(ip, port);
	for (size_t off = 0; off < n; off += chunk) {
		size_t k = n - off < chunk ? n - off : chunk;
		pattern(buf, k, off);
		if (put(fd, buf, k) < 0) {
			ok(label, -1);
			return;
		}
	}
	shutdown(fd, SHUT_WR);
	char b[64];
	text(label, all(fd, b, sizeof b), b);
	close(fd);
}

static void source(const char *label, const char *ip, long n)
{
	int fd = dial(ip, SOURCE);
	dprintf(fd, "%ld\n", n);
	uint64_t h = FNV0, want = FNV0;
	long got = 0, r;
	static char mine[sizeof buf];
	while ((r = read(fd, buf, sizeof buf)) > 0) {
		pattern(mine, r, got);
		h = sum(h, buf, r);
		want = sum(want, mine, r);
		got += r;
	}
	say("%s: %ld bytes, %s, last read %ld", label, got, h == want ? "right" : "WRONG", r);
	close(fd);
}

static void ends(const char *ip)
{
	begin("stream/end-of-peer-%d", version(ip));
	char b[64];
	int fd = dial(ip, GREET);
	say("greet: %s", events(ready(fd, POLLRDHUP, 10000)));
	say("with data left: %s", events(ready(fd, POLLIN | POLLOUT | POLLRDHUP, 1000)));
	text("read", read(fd, b, sizeof b), b);
	text("end", read(fd, b, sizeof b), b);
	text("end again", recv(fd, b, sizeof b, 0), b);
	say("at the end: %s", events(ready(fd, POLLIN | POLLOUT | POLLRDHUP, 1000)));
	ok("shutdown RD", shutdown(fd, SHUT_RD));
	close(fd);

	begin("stream/shutdown-wr-%d", version(ip));
	fd = dial(ip, ECHO);
	ok("shutdown WR", shutdown(fd, SHUT_WR));
	num("write after it", write(fd, "x", 1));
	num("send after it", send(fd, "x", 1, MSG_NOSIGNAL));
	num("end", read(fd, b, 1));
	say("both closed: %s", events(ready(fd, POLLIN | POLLOUT | POLLRDHUP, 1000)));
	close(fd);

	begin("stream/shutdown-rdwr-%d", version(ip));
	fd = dial(ip, ECHO);
	ok("shutdown RDWR", shutdown(fd, SHUT_RDWR));
	num("read after it", read(fd, b, 1));
	num("write after it", write(fd, "x", 1));
	say("both shut: %s", events(ready(fd, POLLIN | POLLOUT | POLLRDHUP, 1000)));
	ok("shutdown 9", shutdown(fd, 9));
	close(fd);
	begin("stream/shutdown-unconnected-%d", version(ip));
	struct addr a = mk(ip, 1);
	fd = tcp(&a, 0);
	ok("shutdown unconnected", shutdown(fd, SHUT_RDWR));
	close(fd);
}

// aborted waits until the peer's RST is there, with hello read or not.
static int aborted(const char *ip, int drain)
{
	char b[16];
	int fd = dial(ip, ABORT);
	if (drain)
		text("hello", all(fd, b, 6), b);
	else
		ready(fd, POLLIN, 10000);
	num("write", write(fd, "x", 1));
	struct pollfd p = { fd, 0, 0 }; // ERR and HUP are always asked for
	poll(&p, 1, 10000);
	say("reset: %s", events(ready(fd, POLLIN | POLLOUT | POLLRDHUP, 1000)));
	return fd;
}

static void resets(const char *ip)
{
	char b[16];
	begin("stream/reset-read-%d", version(ip));
	int fd = aborted(ip, 1);
	num("read", read(fd, b, sizeof b));
	num("read again", read(fd, b, sizeof b));
	num("write", write(fd, "x", 1));
	so_error("later", fd);
	close(fd);

	begin("stream/reset-so-error-%d", version(ip));
	fd = aborted(ip, 1);
	so_error("first", fd);
	so_error("second", fd);
	num("read", read(fd, b, sizeof b));
	num("write", write(fd, "x", 1));
	names("reset", fd);
	close(fd);

	begin("stream/reset-write-%d", version(ip));
	fd = aborted(ip, 1);
	num("write first", write(fd, "x", 1));
	num("write second", write(fd, "x", 1));
	num("read", read(fd, b, sizeof b));
	close(fd);

	begin("stream/reset-with-data-%d", version(ip));
	fd = aborted(ip, 0);
	num("read of what came before", read(fd, b, sizeof b));
	num("read again", read(fd, b, sizeof b));
	close(fd);

	begin("stream/reset-while-reading-%d", version(ip));
	fd = dial(ip, ABORT);
	all(fd, b, 6);
	pid_t kid = fork();
	if (kid == 0) {
		nap(100);
		need("write", write(fd, "x", 1));
		_exit(0);
	}
	num("read", read(fd, b, 1));
	waitpid(kid, NULL, 0);
	close(fd);
}

static void flags(const char *ip)
{
	char b[64];
	int n;
	int fd = dial(ip, ECHO);
	begin("stream/empty-%d", version(ip));
	num("DONTWAIT", recv(fd, b, 1, MSG_DONTWAIT));
	num("read of 0", read(fd, b, 0));
	num("write of 0", write(fd, b, 0));
	begin("stream/peek-trunc-%d", version(ip));
	num("send", send(fd, "0123456789", 10, MSG_NOSIGNAL));
	for (long long end = now_ms() + 10000; ioctl(fd, FIONREAD, &n) == 0 && n < 10 && now_ms() < end;)
		nap(5);
	say("FIONREAD: %d", n);
	text("PEEK", recv(fd, b, 4, MSG_PEEK), b);
	text("PEEK", recv(fd, b, 20, MSG_PEEK), b);
	text("recv", recv(fd, b, 4, 0), b);
	num("TRUNC", recv(fd, NULL, 2, MSG_TRUNC));
	begin("stream/vectors-waitall-%d", version(ip));
	struct iovec v[3] = { { b, 1 }, { b + 1, 2 }, { b + 3, 20 } };
	text("readv", readv(fd, v, 3), b);
	struct iovec w[2] = { { "ab", 2 }, { "cdef", 4 } };
	num("writev", writev(fd, w, 2));
	struct msghdr m = { .msg_iov = v, .msg_iovlen = 2 };
	num("WAITALL", recvmsg(fd, &m, MSG_WAITALL));
	begin("stream/addresses-ignored-%d", version(ip));
	struct addr a;
	a.len = sizeof a.ss;
	num("recvfrom", recvfrom(fd, b, 3, MSG_WAITALL | MSG_PEEK, &a.sa, &a.len));
	say("recvfrom's address: length %d", (int)a.len);
	a = mk("10.77.0.2", 99);
	num("sendto with an address", sendto(fd, "xyz", 3, 0, &a.sa, a.len));
	num("the rest", all(fd, b, 6));
	text("the rest", 6, b);
	begin("stream/outq-%d", version(ip));
	n = -1;
	for (long long end = now_ms() + 10000; ioctl(fd, TIOCOUTQ, &n) == 0 && n > 0 && now_ms() < end;)
		nap(5);
	say("SIOCOUTQ: %d", n);
	begin("stream/is-a-socket-%d", version(ip));
	num("lseek", lseek(fd, 0, SEEK_SET));
	struct stat st;
	need("fstat", fstat(fd, &st));
	say("socket mode: %s", S_ISSOCK(st.st_mode) ? "yes" : "no");
	num("recv, bad descriptor", recv(-1, b, 1, 0));
	begin("stream/rcvtimeo-%d", version(ip));
	struct timeval tv = { 0, 100000 };
	ok("SO_RCVTIMEO", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
	num("read that times out", read(fd, b, 1));
	num("recvmsg that times out", recvmsg(fd, &m, 0));
	close(fd);

	begin("stream/sendfile-%d", version(ip));
	fd = dial(ip, DIGEST);
	FILE *f = tmpfile();
	for (int i = 0; i < 16; i++) {
		pattern(buf, 65536, i * 65536);
		fwrite(buf, 1, 65536, f);
	}
	fflush(f);
	off_t off = 0;
	while (off < 1 << 20)
		need("sendfile", sendfile(fd, fileno(f), &off, (1 << 20) - off));
	shutdown(fd, SHUT_WR);
	text("sendfile", all(fd, b, sizeof b), b);
	close(fd);
}

// stuck fills a connection whose peer never reads, until it would block.
static void stuck(const char *ip)
{
	struct addr to = mk(ip, STUCK);
	int fd = tcp(&to, 0);
	need("connect", connect(fd, &to.sa, to.len));
	fcntl(fd, F_SETFL, O_NONBLOCK);
	long total = 0, r;
	long long end = now_ms() + 1500;
	while (now_ms() < end)
		if ((r = write(fd, buf, 65536)) > 0)
			total += r;
		else
			ready(fd, POLLOUT, 100);
	say("took something: %s, without end: %s", total > 0 ? "yes" : "no", total > 64 << 20 ? "yes" : "no");
	begin("stream/full-%d", version(ip));
	num("write when full", write(fd, buf, 65536));
	say("writable when full: %s", events(ready(fd, POLLOUT, 0)));
	// Nobody will ever take the rest: it is not to be waited for.
	ok("no lingering", setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger)));
	close(fd);
}

// duplex sends and receives at once through the echo server.
static void duplex(const char *ip, long n)
{
	int fd = dial(ip, ECHO);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	long sent = 0, got = 0;
	int good = 1;
	static char out[65536], in[65536], mine[65536];
	while (got < n) {
		int ev = ready(fd, POLLIN | (sent < n ? POLLOUT : 0), 10000);
		if (!ev)
			break;
		if (ev & POLLOUT) {
			long k = n - sent < LEN(out) ? n - sent : LEN(out);
			pattern(out, k, sent);
			long r = write(fd, out, k);
			if (r > 0)
				sent += r;
			if (sent == n)
				shutdown(fd, SHUT_WR);
		}
		if (ev & POLLIN) {
			long r = read(fd, in, sizeof in);
			if (r <= 0)
				break;
			pattern(mine, r, got);
			good = good && !memcmp(in, mine, r);
			got += r;
		}
	}
	say("duplex: %ld of %ld, %s", got, n, good ? "right" : "WRONG");
	ready(fd, POLLIN, 10000);
	num("end", read(fd, in, 1));
	close(fd);
}

int main(int argc, char **argv)
{
	deadline(50);
	if (argc != 3)
		return 9;
	const char *ip = env(!strcmp(argv[2], "6") ? "LAB_PEER6" : "LAB_PEER4");
	if (!strcmp(argv[1], "ends"))
		ends(ip);
	else if (!strcmp(argv[1], "resets"))
		resets(ip);
	else if (!strcmp(argv[1], "flags"))
		flags(ip);
	else if (!strcmp(argv[1], "stuck"))
		stuck(ip);
	else if (!strcmp(argv[1], "data")) {
		begin("stream/digest-%d", version(ip));
		digest("nothing", ip, DIGEST, 0, 1);
		digest("one byte", ip, DIGEST, 1, 1);
		digest("bytes", ip, DIGEST, 2000, 1);
		digest("odd", ip, DIGEST, 1000003, 1234);
		begin("stream/large-%d", version(ip));
		digest("large", ip, DIGEST, 8 << 20, sizeof buf);
		begin("stream/slow-reader-%d", version(ip));
		digest("slow reader", ip, SLOW, 4 << 20, sizeof buf);
		begin("stream/source-%d", version(ip));
		source("source 1", ip, 1);
		source("source large", ip, 8 << 20);
		begin("stream/duplex-%d", version(ip));
		duplex(ip, 4 << 20);
	} else
		return 9;
	return 0;
}
