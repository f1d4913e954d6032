// SPDX-License-Identifier: Apache-2.0

// connect(2) as blocking programs use it, and with arguments that are wrong.
#include "lab.h"

static void attempt(const char *label, const char *ip, int port, int type)
{
	begin("connect/outcome-%s", label);
	struct addr to = mk(ip, port);
	int fd = need("socket", socket(to.sa.sa_family, type, 0));
	char l[80];
	snprintf(l, sizeof l, "%s: connect", label);
	ok(l, connect(fd, &to.sa, to.len));
	so_error(label, fd);
	names(label, fd);
	close(fd);
}

static void arguments(const char *ip, int type)
{
	const char *kind = type == SOCK_STREAM ? "tcp" : "udp";
	struct addr to = mk(ip, ECHO), other;
	int fd = need("socket", socket(to.sa.sa_family, type, 0));
	begin("connect/lengths-%s%d", kind, version(ip));
	ok("length 0", connect(fd, &to.sa, 0));
	ok("length 2", connect(fd, &to.sa, 2));
	ok("length of family and port", connect(fd, &to.sa, 4));
	// An AF_INET6 address without its scope, 24 bytes, is long enough.
	ok("length one short", connect(fd, &to.sa, to.sa.sa_family == AF_INET6 ? 23 : to.len - 1));
	ok("length -1", connect(fd, &to.sa, -1));
	ok("length 129", connect(fd, &to.sa, 129));
	begin("connect/families-%s%d", kind, version(ip));
	other = to;
	other.sa.sa_family = AF_UNIX;
	ok("family AF_UNIX", connect(fd, &other.sa, to.len));
	other = to.sa.sa_family == AF_INET ? mk("::1", ECHO) : mk("127.0.0.1", ECHO);
	ok("the other family", connect(fd, &other.sa, other.len));
	other = to;
	other.sa.sa_family = AF_UNSPEC;
	ok("AF_UNSPEC unconnected", connect(fd, &other.sa, other.len));
	begin("connect/again-%s%d", kind, version(ip));
	ok("long address", connect(fd, &to.sa, sizeof to.ss));
	ok("connected twice", connect(fd, &to.sa, to.len));
	names("connected", fd);
	begin("connect/dissolve-%s%d", kind, version(ip));
	ok("AF_UNSPEC connected", connect(fd, &other.sa, other.len));
	names("dissolved", fd);
	ok("connected anew", connect(fd, &to.sa, to.len));
	names("anew", fd);
	begin("connect/not-a-socket-%s%d", kind, version(ip));
	close(fd);
	ok("closed descriptor", connect(fd, &to.sa, to.len));
	int p[2];
	need("pipe", pipe(p));
	ok("a pipe", connect(p[0], &to.sa, to.len));
	ok("descriptor -1", connect(-1, &to.sa, to.len));
}

int main(int argc, char **argv)
{
	deadline(30);
	const char *peer4 = env("LAB_PEER4"), *peer6 = env("LAB_PEER6");
	if (argc == 2 && !strcmp(argv[1], "outcomes")) {
		attempt("accepted v4", peer4, ECHO, SOCK_STREAM);
		attempt("accepted v6", peer6, ECHO, SOCK_STREAM);
		attempt("refused v4", peer4, CLOSED, SOCK_STREAM);
		attempt("refused v6", peer6, CLOSED, SOCK_STREAM);
		attempt("unreachable v4", env("LAB_UNREACH4"), ECHO, SOCK_STREAM);
		attempt("unreachable v6", env("LAB_UNREACH6"), ECHO, SOCK_STREAM);
		attempt("prohibited v4", env("LAB_PROHIBIT4"), ECHO, SOCK_STREAM);
		attempt("mapped", "::ffff:10.77.0.1", ECHO, SOCK_STREAM);
		attempt("own address v4", env("LAB_SELF4"), CLOSED, SOCK_STREAM);
		attempt("own address v6", env("LAB_SELF6"), CLOSED, SOCK_STREAM);
		attempt("loopback v4", "127.0.0.1", CLOSED, SOCK_STREAM);
		attempt("loopback v6", "::1", CLOSED, SOCK_STREAM);
		attempt("any v4", "0.0.0.0", CLOSED, SOCK_STREAM);
		attempt("any v6", "::", CLOSED, SOCK_STREAM);
		attempt("broadcast", "255.255.255.255", ECHO, SOCK_STREAM);
		attempt("multicast v4", "224.0.0.251", ECHO, SOCK_STREAM);
		attempt("port 0", peer4, 0, SOCK_STREAM);
		attempt("udp v4", peer4, ECHO, SOCK_DGRAM);
		attempt("udp v6", peer6, ECHO, SOCK_DGRAM);
		attempt("udp mapped", "::ffff:10.77.0.1", ECHO, SOCK_DGRAM);
		attempt("udp any v4", "0.0.0.0", CLOSED, SOCK_DGRAM);
		attempt("udp broadcast", "255.255.255.255", ECHO, SOCK_DGRAM);
		attempt("udp port 0", peer4, 0, SOCK_DGRAM);
	} else if (argc == 3 && !strcmp(argv[1], "arguments")) {
		arguments(!strcmp(argv[2], "tcp6") || !strcmp(argv[2], "udp6") ? peer6 : peer4,
			argv[2][0] == 't' ? SOCK_STREAM : SOCK_DGRAM);
	} else if (argc == 2 && !strcmp(argv[1], "sndtimeo")) {
		struct addr to = mk(env("LAB_BLACKHOLE4"), ECHO);
		int fd = tcp(&to, 0);
		struct timeval tv = { 0, 300000 };
		begin("connect/sndtimeo");
		ok("SO_SNDTIMEO", setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv));
		long long t0 = now_ms();
		ok("connect", connect(fd, &to.sa, to.len));
		say("about 300 ms: %s", now_ms() - t0 >= 290 && now_ms() - t0 < 3000 ? "yes" : "no");
		say("pending: %s", events(ready(fd, POLLIN | POLLOUT, 50)));
		so_error("pending", fd);
	} else if (argc == 2 && !strcmp(argv[1], "syncnt")) {
		struct addr to = mk(env("LAB_BLACKHOLE4"), ECHO);
		int fd = tcp(&to, 0);
		begin("connect/syncnt");
		ok("TCP_SYNCNT", setsockopt(fd, IPPROTO_TCP, TCP_SYNCNT, &(int){ 1 }, sizeof(int)));
		ok("connect", connect(fd, &to.sa, to.len));
		so_error("timed out", fd);
	} else if (argc == 2 && !strcmp(argv[1], "bound")) {
		struct addr to = mk(peer4, ECHO), from = mk(env("LAB_SELF4"), 5555);
		begin("connect/from-a-bound-port");
		int fd = tcp(&to, 0);
		ok("bind", bind(fd, &from.sa, from.len));
		ok("connect", connect(fd, &to.sa, to.len));
		names("bound", fd);
		char b[4];
		ok("write", put(fd, "abcd", 4));
		num("read", all(fd, b, 4));
		begin("connect/bind-addresses");
		struct addr not_ours = mk("10.77.0.1", 5556);
		int g = tcp(&to, 0);
		ok("bind to an address of another", bind(g, &not_ours.sa, not_ours.len));
		struct addr lo = mk("127.0.0.1", 0);
		ok("bind to loopback", bind(g, &lo.sa, lo.len));
		ok("bind twice", bind(g, &lo.sa, lo.len));
	} else
		return 9;
	return 0;
}
