// SPDX-License-Identifier: Apache-2.0

// Programs that write and end at once, and crowds: `exit N` writes N bytes and
// exits, `shut N` and `close N` say so first, `kill N` dies by a signal instead, `crowd N` has N connections open at
// the same time, `series N` one after the other.
#include "lab.h"
#include <sys/epoll.h>
#include <sys/resource.h>

static char buf[1 << 20];

static void write_and_go(const char *ip, int port, long n, int how)
{
	int fd = dial(ip, port);
	for (long off = 0; off < n; off += sizeof buf) {
		long k = n - off < (long)sizeof buf ? n - off : (long)sizeof buf;
		pattern(buf, k, off);
		need("write", put(fd, buf, k));
	}
	say("wrote %ld", n);
	if (how == 'k')
		kill(getpid(), SIGKILL);
	if (how == 'c')
		close(fd);
	if (how == 's')
		shutdown(fd, SHUT_WR);
	_exit(0);
}

struct conn { int fd; long sent, got; uint64_t sum; };

// crowd opens n connections at once, sends some KiB through each and compares
// what the echo gives back, by hash.
static void crowd(const char *ip, int n, long each)
{
	struct rlimit rl;
	getrlimit(RLIMIT_NOFILE, &rl);
	rl.rlim_cur = rl.rlim_max;
	setrlimit(RLIMIT_NOFILE, &rl);
	struct addr to = mk(ip, ECHO);
	struct conn *cs = calloc(n, sizeof *cs);
	int ep = need("epoll_create1", epoll_create1(0)), open_ = 0, good = 0, bad = 0;
	for (int i = 0; i < n; i++) {
		cs[i].fd = need("socket", socket(to.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0));
		cs[i].sum = FNV0;
		struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u32 = i };
		need("epoll_ctl", epoll_ctl(ep, EPOLL_CTL_ADD, cs[i].fd, &ev));
		if (connect(cs[i].fd, &to.sa, to.len) < 0 && errno != EINPROGRESS)
			need("connect", -1);
		open_++;
	}
	static char mine[65536], in[65536];
	uint64_t want = FNV0;
	for (long off = 0; off < each; off += sizeof mine) {
		long k = each - off < (long)sizeof mine ? each - off : (long)sizeof mine;
		pattern(mine, k, off);
		want = sum(want, mine, k);
	}
	while (open_ > 0) {
		struct epoll_event evs[64];
		int k = epoll_wait(ep, evs, 64, 20000);
		if (k <= 0)
			break;
		for (int j = 0; j < k; j++) {
			struct conn *c = &cs[evs[j].data.u32];
			if (c->fd < 0)
				continue;
			for (long r; c->sent < each; c->sent += r) {
				long m = each - c->sent < (long)sizeof mine ? each - c->sent : (long)sizeof mine;
				pattern(mine, m, c->sent);
				if ((r = write(c->fd, mine, m)) <= 0)
					break;
				if (c->sent + r == each)
					shutdown(c->fd, SHUT_WR);
			}
			long r;
			while ((r = read(c->fd, in, sizeof in)) > 0) {
				c->sum = sum(c->sum, in, r);
				c->got += r;
			}
			if (r == 0 || (errno != EAGAIN && errno != ENOTCONN)) {
				if (r == 0 && c->got == each && c->sum == want)
					good++;
				else
					bad++;
				close(c->fd);
				c->fd = -1;
				open_--;
			}
		}
	}
	say("crowd: %d right, %d wrong, %d without end", good, bad, open_);
}

static void series(const char *ip, int n)
{
	int good = 0, most = 0;
	for (int i = 0; i < n; i++) {
		struct addr to = mk(ip, GREET);
		int fd = socket(to.sa.sa_family, SOCK_STREAM, 0);
		char b[8];
		if (fd < 0 || connect(fd, &to.sa, to.len) < 0) {
			say("number %d: %s", i, errname(errno));
			exit(9);
		}
		good += all(fd, b, 8) == 6 && !memcmp(b, "greet\n", 6);
		if (fd > most)
			most = fd;
		close(fd);
	}
	say("series: %d of %d, highest descriptor below 10: %s", good, n, most < 10 ? "yes" : "no");
	char b;
	while (getenv("LAB_WAIT") && read(0, &b, 1) > 0) // so that umrun can be looked at
		;
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 9;
	deadline(110);
	const char *ip = env("LAB_PEER4");
	long n = atol(argv[2]);
	if (!strcmp(argv[1], "exit"))
		write_and_go(ip, DIGEST, n, 'e');
	else if (!strcmp(argv[1], "close"))
		write_and_go(ip, DIGEST, n, 'c');
	else if (!strcmp(argv[1], "shut"))
		write_and_go(ip, DIGEST, n, 's');
	else if (!strcmp(argv[1], "kill"))
		write_and_go(ip, DIGEST, n, 'k');
	else if (!strcmp(argv[1], "slow"))
		write_and_go(ip, SLOW, n, 'e');
	else if (!strcmp(argv[1], "stuck"))
		write_and_go(ip, STUCK, n, 'e');
	else if (!strcmp(argv[1], "crowd"))
		crowd(ip, n, 20000);
	else if (!strcmp(argv[1], "series"))
		series(ip, n);
	else
		return 9;
	return 0;
}
