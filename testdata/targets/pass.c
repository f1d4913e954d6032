// SPDX-License-Identifier: Apache-2.0

// Sockets in other hands: dup, fork, exec, SCM_RIGHTS, threads, close.
#include "lab.h"
#include <sys/prctl.h>

static const char *self_path;

// echo says one word and hears it again.
static void echo(const char *label, int fd, const char *word)
{
	char b[32] = "";
	int n = strlen(word);
	if (put(fd, word, n) < 0 || all(fd, b, n) != n)
		ok(label, -1);
	else
		say("%s: %s", label, b);
}

static void reap(void)
{
	int st = 0;
	while (wait(&st) > 0)
		say("child: %s %d", WIFEXITED(st) ? "exit" : "signal", WIFEXITED(st) ? WEXITSTATUS(st) : WTERMSIG(st));
}

static void dups(const char *ip)
{
	begin("pass/dup-%d", version(ip));
	int fd = dial(ip, ECHO), d = dup(fd), e = dup2(fd, 77), f = fcntl(fd, F_DUPFD_CLOEXEC, 100);
	echo("dup", d, "one");
	echo("dup2", e, "two");
	num("F_DUPFD_CLOEXEC is", f);
	close(fd);
	close(e);
	echo("after close of the first", f, "three");
	names("dup", f);
	so_error("dup", f);
	ok("option on a dup", setsockopt(d, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int)));
	num("and on the other", opt(f, IPPROTO_TCP, TCP_NODELAY));
	shutdown(d, SHUT_WR);
	char b;
	num("end", read(f, &b, 1));
	close(d);
	close(f);

	begin("pass/dup-unconnected-%d", version(ip));
	struct addr to = mk(ip, ECHO);
	fd = tcp(&to, 0);
	d = dup(fd);
	ok("connect by the dup", connect(d, &to.sa, to.len));
	echo("by the first", fd, "four");
	close(d);
	echo("dup closed", fd, "five");
	close(fd);

	begin("pass/number-reused-%d", version(ip));
	fd = socket(AF_INET, SOCK_STREAM, 0);
	int g = fd;
	close(fd);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	say("a reused number: %s, type %d", g == fd ? "same" : "other", opt(fd, SOL_SOCKET, SO_TYPE));
	close(fd);
}

static void forks(const char *ip)
{
	begin("pass/fork");
	int fd = dial(ip, ECHO);
	if (fork() == 0) {
		echo("child", fd, "one");
		names("child", fd);
		_exit(3);
	}
	reap();
	echo("parent", fd, "two");
	begin("pass/connected-by-child");
	struct addr to = mk(ip, ECHO);
	int un = tcp(&to, 0);
	if (fork() == 0)
		_exit(connect(un, &to.sa, to.len) == 0 ? 4 : 5);
	reap();
	echo("connected by the child", un, "three");
	begin("pass/exec");
	if (fork() == 0) {
		char num_[16];
		snprintf(num_, sizeof num_, "%d", fd);
		execl(self_path, self_path, "execed", num_, (char *)NULL);
		_exit(6);
	}
	reap();
	echo("after exec in the child", fd, "five");
	begin("pass/vfork");
	int v = vfork();
	if (v == 0) {
		int s = socket(AF_INET, SOCK_STREAM, 0);
		_exit(s >= 0 && connect(s, &to.sa, to.len) == 0 && write(s, "x", 1) == 1 ? 7 : 8);
	}
	reap();
	begin("pass/cloexec");
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (fork() == 0) {
		char num_[16];
		snprintf(num_, sizeof num_, "%d", fd);
		execl(self_path, self_path, "execed", num_, (char *)NULL);
	}
	reap();
	close(fd);
	close(un);
}

static void rights(const char *ip)
{
	begin("pass/rights-%d", version(ip));
	int sv[2], fd = dial(ip, ECHO);
	need("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
	num("send it", send_fd(sv[0], fd));
	int got = recv_fd(sv[1]);
	echo("received", got, "one");
	names("received", got);
	close(fd);
	echo("sender closed", got, "two");
	close(got);
	begin("pass/rights-of-the-dead-%d", version(ip));
	if (fork() == 0) {
		int mine = dial(ip, ECHO);
		send_fd(sv[0], mine);
		_exit(0);
	}
	got = recv_fd(sv[1]);
	reap();
	echo("of a child that is gone", got, "three");
	close(got);
	begin("pass/rights-listener-%d", version(ip));
	struct addr a = mk("127.0.0.1", 0);
	int ls = tcp(&a, 0);
	need("bind", bind(ls, &a.sa, a.len));
	need("listen", listen(ls, 4));
	if (fork() == 0) {
		int l = recv_fd(sv[1]), s = accept(l, NULL, NULL);
		put(s, "hi", 2);
		_exit(s >= 0 ? 9 : 10);
	}
	send_fd(sv[0], ls);
	a.len = sizeof a.ss;
	getsockname(ls, &a.sa, &a.len);
	close(ls);
	int c = tcp(&a, 0);
	need("connect", connect(c, &a.sa, a.len));
	char b[4];
	text("a passed listener", read(c, b, 4), b);
	close(c);
	reap();
	begin("pass/rights-datagram-%d", version(ip));
	int u = socket(AF_INET, SOCK_DGRAM, 0);
	struct addr to = mk(ip, ECHO);
	send_fd(sv[0], u);
	close(u);
	u = recv_fd(sv[1]);
	num("a passed datagram socket", sendto(u, "abc", 3, 0, &to.sa, to.len));
	ready(u, POLLIN, 5000);
	text("answer", recv(u, b, 4, 0), b);
}

static int shared;
static void *thread(void *ip)
{
	prctl(PR_SET_NAME, "other");
	shared = dial(ip, ECHO);
	return NULL;
}

static void *closer(void *p)
{
	nap(100);
	shutdown(*(int *)p, SHUT_RDWR);
	return NULL;
}

static void threads(const char *ip)
{
	begin("pass/thread-gone");
	pthread_t t;
	pthread_create(&t, NULL, thread, (void *)ip);
	pthread_join(t, NULL);
	echo("of a thread that is gone", shared, "one");
	begin("pass/shut-by-thread");
	pthread_create(&t, NULL, closer, &shared);
	char b;
	num("read, shut down by a thread", read(shared, &b, 1));
	pthread_join(t, NULL);
	close(shared);
	begin("pass/listener-shut-by-thread");
	struct addr a = mk("127.0.0.1", 0);
	int ls = tcp(&a, 0);
	need("bind", bind(ls, &a.sa, a.len));
	need("listen", listen(ls, 4));
	pthread_create(&t, NULL, closer, &ls);
	ok("accept, shut down by a thread", accept(ls, NULL, NULL));
	pthread_join(t, NULL);
	close(ls);
}

int main(int argc, char **argv)
{
	deadline(30);
	self_path = argv[0];
	if (argc == 3 && !strcmp(argv[1], "execed")) {
		int fd = atoi(argv[2]);
		if (fcntl(fd, F_GETFD) < 0) {
			ok("closed by exec", -1);
			return 12;
		}
		echo("execed", fd, "four");
		names("execed", fd);
		return 11;
	}
	if (argc != 3)
		return 9;
	const char *ip = env(!strcmp(argv[2], "6") ? "LAB_PEER6" : "LAB_PEER4");
	if (!strcmp(argv[1], "dup"))
		dups(ip);
	else if (!strcmp(argv[1], "fork"))
		forks(ip);
	else if (!strcmp(argv[1], "rights"))
		rights(ip);
	else if (!strcmp(argv[1], "threads"))
		threads(ip);
	else
		return 9;
	return 0;
}
