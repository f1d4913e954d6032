// SPDX-License-Identifier: Apache-2.0

// Readiness around connect: MODE (epoll-lt, epoll-et, poll, select) x OUTCOME
// (accepted, refused, reset, timeout, unreachable, pending), the descriptor
// registered before connect where the mode can.
#include "lab.h"
#include <sys/epoll.h>

enum mode { LT, ET, POLL, SELECT };

static enum mode mode;
static int ep = -1;

// look returns the events that the mode reports within timeout ms.
static int look(int fd, int timeout)
{
	if (mode == POLL)
		return ready(fd, POLLIN | POLLOUT | POLLRDHUP, timeout);
	if (mode == SELECT) {
		fd_set r, w, x;
		FD_ZERO(&r);
		FD_ZERO(&w);
		FD_ZERO(&x);
		FD_SET(fd, &r);
		FD_SET(fd, &w);
		FD_SET(fd, &x);
		struct timeval tv = { timeout / 1000, timeout % 1000 * 1000 };
		if (select(fd + 1, &r, &w, &x, &tv) <= 0)
			return 0;
		return (FD_ISSET(fd, &r) ? POLLIN : 0) | (FD_ISSET(fd, &w) ? POLLOUT : 0) | (FD_ISSET(fd, &x) ? POLLPRI : 0);
	}
	struct epoll_event ev = { 0 };
	return epoll_wait(ep, &ev, 1, timeout) > 0 ? (int)ev.events : 0;
}

int main(int argc, char **argv)
{
	deadline(30);
	if (argc != 4)
		return 9;
	mode = !strcmp(argv[1], "epoll-lt") ? LT : !strcmp(argv[1], "epoll-et") ? ET : !strcmp(argv[1], "poll") ? POLL : SELECT;
	const char *what = argv[2];
	int six = !strcmp(argv[3], "6");
	const char *ip = env(six ? "LAB_PEER6" : "LAB_PEER4");
	int port = ECHO;
	if (!strcmp(what, "refused"))
		port = CLOSED;
	if (!strcmp(what, "reset"))
		port = RESET;
	if (!strcmp(what, "unreachable"))
		ip = env(six ? "LAB_UNREACH6" : "LAB_UNREACH4");
	if (!strcmp(what, "timeout") || !strcmp(what, "pending"))
		ip = env(six ? "LAB_BLACKHOLE6" : "LAB_BLACKHOLE4");

	struct addr to = mk(ip, port);
	int fd = tcp(&to, SOCK_NONBLOCK);
	if (!strcmp(what, "timeout"))
		ok("TCP_SYNCNT", setsockopt(fd, IPPROTO_TCP, TCP_SYNCNT, &(int){ 1 }, sizeof(int)));
	if (mode == LT || mode == ET) {
		ep = need("epoll_create1", epoll_create1(0));
		struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | (mode == ET ? EPOLLET : 0) };
		need("epoll_ctl", epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
	}
	say("before connect: %s", events(look(fd, 0)));
	say("before connect, again: %s", events(look(fd, 0)));
	ok("connect", connect(fd, &to.sa, to.len));
	if (!strcmp(what, "pending")) {
		say("pending: %s", events(look(fd, 300)));
		ok("connect again", connect(fd, &to.sa, to.len));
		so_error("pending", fd);
		names("pending", fd);
		char b[1];
		num("read", read(fd, b, 1));
		num("write", write(fd, "x", 1));
		say("still pending: %s", events(look(fd, 50)));
		return close(fd);
	}
	// A failure is looked at when it is complete: the kernel sets the error, the
	// state and the shutdown one after the other, and a reset may arrive before or
	// after the connection is seen.
	if (strcmp(what, "accepted")) {
		struct pollfd p = { fd, POLLRDHUP, 0 };
		while (poll(&p, 1, 12000) > 0 && !(p.revents & POLLRDHUP))
			;
		// The kernel wakes twice, with the socket locked; this takes the lock.
		struct tcp_info info;
		getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &(socklen_t){ sizeof info });
	}
	int ev = look(fd, 12000);
	say("result: %s", events(ev));
	say("again: %s", events(look(fd, 50)));
	so_error("first", fd);
	so_error("second", fd);
	names("after", fd);
	char b[8] = "";
	if (!strcmp(what, "accepted")) {
		num("write", write(fd, "ping", 4));
		int seen = 0; // OUT may come alone first
		for (long long end = now_ms() + 10000; !(seen & POLLIN) && now_ms() < end;)
			seen = look(fd, 1000);
		say("readable: %s", events(seen));
		num("read", read(fd, b, sizeof b));
		say("after read: %s", events(look(fd, 50)));
		num("read of nothing", read(fd, b, sizeof b));
		ok("connect again", connect(fd, &to.sa, to.len));
		ok("shutdown", shutdown(fd, SHUT_WR));
		ready(fd, POLLRDHUP, 10000);
		num("read at the end", read(fd, b, sizeof b));
		say("at the end: %s", events(ready(fd, POLLIN | POLLOUT | POLLRDHUP, 1000)));
		num("write at the end", write(fd, "x", 1));
	} else {
		num("read", read(fd, b, sizeof b));
		num("read again", read(fd, b, sizeof b));
		num("write", write(fd, "x", 1));
		if (strcmp(what, "unreachable")) // natively another ICMP error may or may not be there
			say("afterwards: %s", events(look(fd, 50)));
	}
	return close(fd);
}
