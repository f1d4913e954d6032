// SPDX-License-Identifier: Apache-2.0

// Servers: bind, listen, accept, and what clients of the same network see.
#include "lab.h"

static int server(const char *ip, int port, int backlog, struct addr *at)
{
	struct addr a = mk(ip, port);
	int fd = tcp(&a, 0);
	need("bind", bind(fd, &a.sa, a.len));
	need("listen", listen(fd, backlog));
	at->len = sizeof at->ss;
	need("getsockname", getsockname(fd, &at->sa, &at->len));
	return fd;
}

// client connects to a server of this network; ip replaces the any address.
static int client(const char *ip, const struct addr *at, int flags)
{
	struct addr to = mk(ip, port_of(at));
	int fd = tcp(&to, flags);
	if (connect(fd, &to.sa, to.len) < 0 && errno != EINPROGRESS) {
		ok("client", -1);
		close(fd);
		return -1;
	}
	return fd;
}

static void accepting(const char *bindip, const char *ip)
{
	struct addr at, from;
	char b[16];
	const char *where = !strcmp(ip, "127.0.0.1") || !strcmp(ip, "::1") ? "loopback" : "own";
	begin("listen/accept-%s-%d", where, version(ip));
	int ls = server(bindip, 0, 5, &at);
	names("listener", ls);
	say("idle: %s", events(ready(ls, POLLIN | POLLOUT, 0)));
	say("ACCEPTCONN %d", opt(ls, SOL_SOCKET, SO_ACCEPTCONN));
	int c = client(ip, &at, 0);
	say("client waits: %s", events(ready(ls, POLLIN | POLLOUT, 5000)));
	from.len = sizeof from.ss;
	int s = need("accept", accept(ls, &from.sa, &from.len));
	say("accept's address: %s", show(&from));
	names("accepted", s);
	names("client", c);
	struct addr cl;
	cl.len = sizeof cl.ss;
	getsockname(c, &cl.sa, &cl.len);
	say("the same port: %s", port_of(&cl) == port_of(&from) ? "yes" : "no");
	say("ACCEPTCONN of accepted %d", opt(s, SOL_SOCKET, SO_ACCEPTCONN));
	say("accepted: %s", events(ready(s, POLLIN | POLLOUT | POLLRDHUP, 0)));
	num("accepted's flags", fcntl(s, F_GETFL) & O_NONBLOCK);
	num("accepted's cloexec", fcntl(s, F_GETFD));
	begin("listen/accepted-data-%s-%d", where, version(ip));
	put(c, "hello", 5);
	text("read", all(s, b, 5), b);
	put(s, "there", 5);
	text("read", all(c, b, 5), b);
	shutdown(c, SHUT_WR);
	num("end", read(s, b, 1));
	put(s, "late", 4);
	close(s);
	text("after end", all(c, b, sizeof b), b);
	close(c);

	begin("listen/accept4-flags-%s-%d", where, version(ip));
	fcntl(ls, F_SETFL, O_NONBLOCK);
	ok("accept of none", accept(ls, NULL, NULL));
	c = client(ip, &at, 0);
	ready(ls, POLLIN, 5000);
	from.len = 4; // shorter than the address: cut, and the true length told
	s = need("accept4", accept4(ls, &from.sa, &from.len, SOCK_NONBLOCK | SOCK_CLOEXEC));
	say("short address: length %d", (int)from.len);
	num("nonblock", !!(fcntl(s, F_GETFL) & O_NONBLOCK));
	num("cloexec", fcntl(s, F_GETFD));
	ok("accept4, bad flag", accept4(ls, NULL, NULL, 1));
	num("read", read(s, b, 1));
	close(s);
	num("client's end", read(c, b, 1));
	close(c);

	begin("listen/closed-before-accept-%s-%d", where, version(ip));
	c = client(ip, &at, 0);
	put(c, "bye", 3);
	close(c);
	ready(ls, POLLIN, 5000);
	s = need("accept", accept(ls, NULL, NULL));
	text("read", all(s, b, sizeof b), b);
	close(s);

	begin("listen/reset-before-accept-%s-%d", where, version(ip));
	c = client(ip, &at, 0);
	setsockopt(c, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger));
	close(c);
	nap(100);
	say("listener: %s", events(ready(ls, POLLIN, 5000)));
	s = accept(ls, NULL, NULL);
	ok("accept", s);
	num("read", read(s, b, 1));
	close(s);

	begin("listen/listener-closed-%s-%d", where, version(ip));
	c = client(ip, &at, 0);
	ready(ls, POLLIN, 5000);
	close(ls);
	struct pollfd p = { c, POLLRDHUP, 0 };
	poll(&p, 1, 5000);
	num("waiting client reads", read(c, b, 1));
	close(c);
	client(ip, &at, 0);
}

// wrong takes two ports from port on; one of them stays in TIME_WAIT.
static void wrong(const char *ip, int port)
{
	struct addr at, a = mk(ip, 0);
	int ls = server(ip, port, 5, &at), fd = tcp(&a, 0);
	begin("listen/wrong-bind-%d", version(ip));
	ok("accept, not listening", accept(fd, NULL, NULL));
	struct addr same = mk(ip, port);
	ok("bind in use", bind(fd, &same.sa, same.len));
	ok("bind short", bind(fd, &a.sa, 4));
	struct addr other = a;
	other.sa.sa_family = AF_UNIX;
	ok("bind family", bind(fd, &other.sa, a.len));
	begin("listen/wrong-listen-%d", version(ip));
	ok("listen without bind", listen(fd, 5));
	at.len = sizeof at.ss;
	getsockname(fd, &at.sa, &at.len);
	say("got a port: %s", port_of(&at) ? "yes" : "no");
	ok("listen again", listen(fd, 10));
	ok("bind after listen", bind(fd, &a.sa, a.len));
	ok("connect a listener", connect(fd, &same.sa, same.len));
	char b[1];
	num("read a listener", read(fd, b, 1));
	num("send on a listener", send(fd, b, 1, MSG_NOSIGNAL));
	begin("listen/wrong-kind-%d", version(ip));
	ok("accept on a pipe", accept(0, NULL, NULL));
	ok("listen on a datagram socket", listen(socket(AF_INET, SOCK_DGRAM, 0), 1));
	ok("accept on a datagram socket", accept(socket(AF_INET, SOCK_DGRAM, 0), NULL, NULL));
	begin("listen/shutdown-%d", version(ip));
	ok("shutdown a listener", shutdown(ls, SHUT_RDWR));
	say("shut listener: %s", events(ready(ls, POLLIN | POLLOUT | POLLRDHUP, 0)));
	ok("accept after shutdown", accept(ls, NULL, NULL));
	close(ls);

	begin("listen/time-wait-%d", version(ip));
	ls = server(ip, port + 1, 5, &at);
	int c = client(!strcmp(ip, "0.0.0.0") ? "127.0.0.1" : "::1", &at, 0);
	int s = need("accept", accept(ls, NULL, NULL));
	close(ls);
	close(s); // the server closes first: TIME_WAIT is its
	num("client's end", read(c, b, 1));
	close(c);
	nap(50);
	a = mk(ip, port + 1);
	fd = tcp(&a, 0);
	ok("bind in TIME_WAIT", bind(fd, &a.sa, a.len));
	ok("SO_REUSEADDR", setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)));
	ok("bind with SO_REUSEADDR", bind(fd, &a.sa, a.len));
	ok("listen", listen(fd, 5));
	close(fd);
}

static void dual(void)
{
	begin("listen/dual");
	struct addr at, from;
	int ls = server("::", 0, 5, &at);
	int c = client("127.0.0.1", &at, 0);
	from.len = sizeof from.ss;
	int s = need("accept", accept(ls, &from.sa, &from.len));
	say("v4 client of a v6 listener: %s", show(&from));
	names("accepted", s);
	names("client", c);
	close(s);
	close(c);
	struct addr four = mk("0.0.0.0", port_of(&at));
	int fd = tcp(&four, 0);
	ok("v4 beside it", bind(fd, &four.sa, four.len));
	close(fd);
	close(ls);
	begin("listen/v6only");
	struct addr six = mk("::", 6002);
	fd = tcp(&six, 0);
	ok("V6ONLY", setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){ 1 }, sizeof(int)));
	need("bind", bind(fd, &six.sa, six.len));
	need("listen", listen(fd, 5));
	four = mk("0.0.0.0", 6002);
	int g = tcp(&four, 0);
	ok("v4 beside V6ONLY", bind(g, &four.sa, four.len));
	at = six;
	client("127.0.0.1", &at, 0);
	close(g);
	close(fd);
}

// forked has four processes accept from one listener.
static void forked(void)
{
	begin("listen/forked");
	struct addr at;
	int ls = server("127.0.0.1", 0, 128, &at), pipes[2], count = 0;
	need("pipe", pipe(pipes));
	for (int i = 0; i < 4; i++)
		if (fork() == 0) {
			for (;;) {
				int s = accept(ls, NULL, NULL);
				if (s < 0)
					_exit(1);
				char b;
				if (read(s, &b, 1) != 1)
					_exit(2);
				if (b == 'q')
					_exit(0);
				put(s, &b, 1);
				put(pipes[1], &b, 1);
				close(s);
			}
		}
	for (int i = 0; i < 100; i++) {
		int c = client("127.0.0.1", &at, 0);
		char b = 'x';
		put(c, &b, 1);
		count += all(c, &b, 1) == 1;
		close(c);
	}
	say("answered: %d", count);
	for (int i = 0; i < 4; i++) {
		int c = client("127.0.0.1", &at, 0);
		put(c, "q", 1);
	}
	int st, good = 0;
	while (wait(&st) > 0)
		good += st == 0;
	say("workers ended: %d", good);
	char b[200];
	num("accepted by workers", read(pipes[0], b, sizeof b));
}

int main(int argc, char **argv)
{
	deadline(30);
	if (argc != 2)
		return 9;
	int p[2];
	need("pipe", pipe(p));
	dup2(p[0], 0); // descriptor 0 is a pipe
	if (!strcmp(argv[1], "accept4")) {
		accepting("127.0.0.1", "127.0.0.1");
		accepting("0.0.0.0", env("LAB_SELF4"));
	} else if (!strcmp(argv[1], "accept6")) {
		accepting("::1", "::1");
		accepting("::", env("LAB_SELF6"));
	} else if (!strcmp(argv[1], "wrong4"))
		wrong("0.0.0.0", 6000);
	else if (!strcmp(argv[1], "wrong6"))
		wrong("::", 6100);
	else if (!strcmp(argv[1], "dual"))
		dual();
	else if (!strcmp(argv[1], "forked"))
		forked();
	else
		return 9;
	return 0;
}
