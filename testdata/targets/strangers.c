// SPDX-License-Identifier: Apache-2.0

// AF_UNIX sockets that are called again and again, and a network socket that comes
// under their number by every way there is: who takes the one for the other loses the
// sender's address, or sends nothing.
#include "dgram.h"
#include <sched.h>

static const char *ip;

// again makes calls on an AF_UNIX socket until whoever watches is sure to know it.
static void again(int fd)
{
	char b[4];
	struct iovec v = { b, sizeof b };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
	for (int i = 0; i < 20; i++)
		if (recvmsg(fd, &m, MSG_DONTWAIT) != -1 || errno != EAGAIN)
			ok("an AF_UNIX socket", -1);
}

// known is such a socket; its other end is in *other.
static int known(int *other)
{
	int sv[2];
	need("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
	*other = sv[1];
	again(sv[0]);
	return sv[0];
}

// answered is a datagram socket that has an answer of the peer's to tell of.
static int answered(void)
{
	int fd = fresh(ip);
	need("send", give(fd, "word", ip, ECHO));
	if (!(ready(fd, POLLIN, 5000) & POLLIN))
		say("no answer");
	return fd;
}

// tell says what recvmsg tells of the next datagram, and sends one by sendmsg.
static void tell(const char *label, int fd)
{
	struct addr a, to = mk(ip, ECHO);
	char b[16] = "";
	struct iovec v = { b, sizeof b };
	struct msghdr m = { .msg_name = &a.sa, .msg_namelen = sizeof a.ss, .msg_iov = &v, .msg_iovlen = 1 };
	long n = recvmsg(fd, &m, 0);
	a.len = m.msg_namelen;
	text(label, n, b);
	if (n >= 0)
		say("%s from %s", label, show(&a));
	m = (struct msghdr){ .msg_name = &to.sa, .msg_namelen = to.len, .msg_iov = &v, .msg_iovlen = 1 };
	v.iov_len = 4;
	num("sendmsg", sendmsg(fd, &m, 0));
	say("then %s", events(ready(fd, POLLIN, 5000)));
}

static void reap(void)
{
	int st = 0;
	while (wait(&st) > 0)
		say("child: %d", WIFEXITED(st) ? WEXITSTATUS(st) : -1);
}

static int one, two; // descriptors that threads and children share

static void *replace(void *p)
{
	(void)p;
	dup2(two, one);
	return NULL;
}

static void *replace_own(void *p)
{
	need("unshare", unshare(CLONE_FILES));
	again(one);
	dup2(two, one);
	tell("in its own table", one);
	return p;
}

static int replace_shared(void *p)
{
	replace(p);
	return 0;
}

static void numbers(void)
{
	int other, fd = known(&other), udp = answered();
	begin("strangers/dup2-%d", version(ip));
	dup2(udp, fd);
	tell("over it", fd);
	int back[2];
	need("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, back));
	begin("strangers/dup2-back-%d", version(ip));
	dup2(back[0], fd);
	again(fd);
	dup2(udp, fd);
	tell("over another", fd);
	close(fd);
	close(udp);

	begin("strangers/number-reused-%d", version(ip));
	fd = known(&other);
	close(fd);
	udp = answered();
	say("the number: %s", udp == fd ? "same" : "other");
	tell("under its number", udp);

	begin("strangers/both-ways-%d", version(ip));
	for (int i = 0; i < 3; i++) {
		fd = known(&other);
		int d = answered(), keep = dup(fd);
		dup2(d, fd);
		tell("now", fd);
		dup2(keep, fd);
		again(fd);
		dup2(d, fd);
		tell("again", fd);
		close(keep);
		close(d);
		close(fd);
	}
	close(udp);
}

static void processes(void)
{
	int other, fd = known(&other), udp = answered();
	begin("strangers/fork-%d", version(ip));
	if (fork() == 0) {
		again(fd);
		dup2(udp, fd);
		tell("in the child", fd);
		_exit(3);
	}
	reap();
	again(fd);
	begin("strangers/fork-of-the-other-%d", version(ip));
	dup2(udp, fd);
	if (fork() == 0) {
		tell("in the child", fd);
		_exit(4);
	}
	reap();
	close(fd);
	close(udp);

	begin("strangers/rights-%d", version(ip));
	int via[2];
	need("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, via));
	if (fork() == 0) { // a process that has AF_UNIX sockets only, for all that was seen
		close(via[0]);
		fd = known(&other);
		again(via[1]);
		need("write", write(via[1], "r", 1));
		close(fd);
		int got = need("take a descriptor", recv_fd(via[1]));
		say("the number: %s", got == fd ? "same" : "other");
		tell("passed", got);
		_exit(5);
	}
	close(via[1]);
	char b;
	need("read", read(via[0], &b, 1)); // now it is known
	udp = answered();
	need("pass a descriptor", send_fd(via[0], udp));
	close(udp);
	reap();
	close(via[0]);

	begin("strangers/shared-table-%d", version(ip));
	static char stack[64 << 10] __attribute__((aligned(16)));
	one = known(&other);
	two = answered();
	need("clone", clone(replace_shared, stack + sizeof stack, CLONE_FILES | CLONE_VM | SIGCHLD, NULL));
	reap();
	tell("by a process that shares the table", one);
	close(one);
	close(two);
}

static void threads(void)
{
	pthread_t t;
	int other;
	one = known(&other);
	two = answered();
	begin("strangers/thread-%d", version(ip));
	pthread_create(&t, NULL, replace, NULL);
	pthread_join(t, NULL);
	tell("by another thread", one);
	close(one);
	one = known(&other);
	begin("strangers/own-table-%d", version(ip));
	pthread_create(&t, NULL, replace_own, NULL);
	pthread_join(t, NULL);
	again(one);
	say("the leader's is what it was");
	dup2(two, one);
	tell("and then", one);
}

int main(int argc, char **argv)
{
	deadline(30);
	if (argc != 2)
		return 9;
	ip = env(!strcmp(argv[1], "6") ? "LAB_PEER6" : "LAB_PEER4");
	numbers();
	processes();
	threads();
	return 0;
}
