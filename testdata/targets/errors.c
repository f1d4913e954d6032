// SPDX-License-Identifier: Apache-2.0

// What becomes of datagrams that do not arrive: pending errors, readiness, the
// error queue. The argument is 4 or 6.
#include "errqueue.h"
#include <sys/epoll.h>

// connected: without IP_RECVERR, hard errors are told once, to whoever asks first.
static void connected(void)
{
	static char buf[64];
	struct addr from = { .len = sizeof from.ss };
	begin("errors/connected-poll-%s", fam);
	int fd = joined(udp(), ip("PEER"), CLOSED);
	num("send", send(fd, "x", 1, 0));
	trouble("poll", fd);
	trouble("poll again", fd);
	so_error("then", fd);
	say("poll: %s", events(ready(fd, POLLIN | POLLOUT, 0)));
	so_error("again", fd);
	close(fd);

	begin("errors/connected-recvfrom-%s", fam);
	fd = joined(udp(), ip("PEER"), CLOSED);
	num("send", send(fd, "x", 1, 0));
	num("recvfrom", recvfrom(fd, buf, sizeof buf, 0, &from.sa, &from.len)); // waits
	num("recvfrom", recvfrom(fd, buf, sizeof buf, MSG_DONTWAIT, &from.sa, &from.len));
	so_error("then", fd);
	close(fd);

	begin("errors/connected-recv-%s", fam);
	fd = joined(udp(), ip("PEER"), CLOSED);
	num("send", send(fd, "x", 1, 0));
	num("recv", recv(fd, buf, sizeof buf, 0)); // waits
	num("recv", recv(fd, buf, sizeof buf, MSG_DONTWAIT));
	so_error("then", fd);
	say("poll: %s", events(ready(fd, POLLIN | POLLOUT, 0)));
	num("send", send(fd, "x", 1, 0));
	num("read", read(fd, buf, sizeof buf)); // waits
	close(fd);

	begin("errors/connected-send-%s", fam);
	fd = joined(udp(), ip("PEER"), CLOSED);
	struct addr to = mk(ip("PEER"), CLOSED);
	num("sendto", sendto(fd, "x", 1, 0, &to.sa, to.len));
	trouble("poll", fd);
	num("sendto", sendto(fd, "x", 1, 0, &to.sa, to.len));
	say("poll: %s", events(ready(fd, POLLIN | POLLOUT, 0)));
	num("sendto", sendto(fd, "x", 1, 0, &to.sa, to.len));
	trouble("poll", fd);
	close(fd);

	begin("errors/connected-dup-%s", fam);
	fd = joined(udp(), ip("PEER"), CLOSED);
	int other = dup(fd);
	num("send", send(fd, "x", 1, 0));
	trouble("poll", other);
	if (fork() == 0) {
		so_error("child", other);
		_exit(0);
	}
	wait(NULL);
	say("poll: %s", events(ready(fd, POLLIN | POLLOUT, 0)));
	close(other);
	close(fd);

	begin("errors/connected-epoll-et-%s", fam);
	fd = joined(udp(), ip("PEER"), CLOSED);
	int ep = epoll_create1(0);
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
	for (int i = 0; i < 2; i++) {
		num("send", send(fd, "x", 1, 0));
		int n = epoll_wait(ep, &ev, 1, 5000);
		say("epoll: %d, %s", n, n > 0 ? events(ev.events) : "none");
		say("epoll again: %d", epoll_wait(ep, &ev, 1, 50));
		so_error("then", fd);
	}
	close(ep);
	close(fd);

	begin("errors/connected-select-%s", fam);
	fd = joined(udp(), ip("PEER"), CLOSED);
	num("send", send(fd, "x", 1, 0));
	fd_set in;
	FD_ZERO(&in);
	FD_SET(fd, &in);
	struct timeval tv = { 5, 0 };
	num("select", select(fd + 1, &in, NULL, NULL, &tv));
	so_error("then", fd);
	close(fd);

	begin("errors/connected-soft-%s", fam); // soft errors are not told
	fd = joined(udp(), ip("UNREACH"), 9);
	num("send", send(fd, "x", 1, 0));
	nap(150);
	say("poll: %s", events(ready(fd, POLLIN | POLLOUT, 0)));
	close(fd);

	begin("errors/connected-prohibited-%s", fam);
	fd = joined(udp(), ip("PROHIBIT"), 9);
	num("send", send(fd, "x", 1, 0));
	trouble("poll", fd);
	so_error("then", fd);
	close(fd);

	begin("errors/unconnected-deaf-%s", fam);
	fd = udp();
	post("sendto", fd, "x", 1, ip("PEER"), CLOSED);
	nap(150);
	say("poll: %s", events(ready(fd, POLLIN | POLLOUT, 0)));
	take("queue", fd);
	close(fd);
}

static void queue(void)
{
	static char buf[64];
	begin("errors/queue-refused-%s", fam);
	int fd = asking();
	say("RECVERR: %d", get(fd, IP_RECVERR, IPV6_RECVERR));
	take("fresh", fd);
	post("sendto", fd, "hello", 5, ip("PEER"), CLOSED);
	trouble("poll", fd);
	take("entry", fd);
	say("poll: %s", events(ready(fd, POLLIN | POLLOUT, 0)));
	so_error("then", fd);
	take("empty", fd);
	close(fd);

	begin("errors/queue-unreachable-%s", fam);
	fd = asking();
	post("sendto", fd, "far", 3, ip("UNREACH"), 5);
	trouble("poll", fd);
	take("entry", fd);
	close(fd);

	begin("errors/queue-prohibited-%s", fam);
	fd = asking();
	post("sendto", fd, "no", 2, ip("PROHIBIT"), 5);
	trouble("poll", fd);
	take("entry", fd);
	close(fd);

	begin("errors/queue-gone-%s", fam); // from a router further on
	fd = asking();
	post("sendto", fd, "no", 2, ip("GONE"), 5);
	trouble("poll", fd);
	take("entry", fd);
	close(fd);

	begin("errors/queue-so-error-%s", fam); // SO_ERROR leaves the queue
	fd = asking();
	post("sendto", fd, "x", 1, ip("PEER"), CLOSED);
	trouble("poll", fd);
	so_error("first", fd);
	so_error("second", fd);
	say("poll: %s", events(ready(fd, POLLIN | POLLOUT, 0)));
	take("entry", fd);
	say("poll: %s", events(ready(fd, POLLIN | POLLOUT, 0)));
	close(fd);

	begin("errors/queue-two-%s", fam); // the second one is pending when the first was taken
	fd = asking();
	post("sendto", fd, "one", 3, ip("PEER"), CLOSED);
	trouble("poll", fd);
	so_error("first", fd);
	post("sendto", fd, "two", 3, ip("PROHIBIT"), 9);
	nap(150);
	so_error("second", fd);
	take("entry", fd);
	say("poll: %s", events(ready(fd, POLLIN | POLLOUT, 0)));
	so_error("pending", fd);
	take("entry", fd);
	say("poll: %s", events(ready(fd, POLLIN | POLLOUT, 0)));
	so_error("none", fd);
	close(fd);

	begin("errors/queue-sendto-%s", fam); // the error is told by the next send, which is not done
	fd = asking();
	post("sendto", fd, "one", 3, ip("PEER"), CLOSED);
	trouble("poll", fd);
	post("sendto", fd, "two", 3, ip("PEER"), CLOSED);
	nap(150);
	take("entry", fd);
	take("empty", fd);
	post("sendto", fd, "three", 5, ip("PEER"), CLOSED);
	trouble("poll", fd);
	take("entry", fd);
	close(fd);

	begin("errors/queue-recvfrom-%s", fam);
	fd = asking();
	struct addr from = { .len = sizeof from.ss };
	post("sendto", fd, "one", 3, ip("PEER"), CLOSED);
	num("recvfrom", recvfrom(fd, buf, sizeof buf, 0, &from.sa, &from.len)); // waits
	say("poll: %s", events(ready(fd, POLLIN | POLLOUT, 0)));
	num("recvfrom", recvfrom(fd, buf, sizeof buf, MSG_DONTWAIT, &from.sa, &from.len));
	take("entry", fd);
	close(fd);

	begin("errors/queue-room-%s", fam);
	fd = asking();
	for (int i = 0; i < 4; i++) {
		post("sendto", fd, "0123456789", 10, ip("PEER"), CLOSED);
		nap(100);
		so_error("then", fd);
	}
	entry("4 bytes", fd, 4, 512, 0);
	entry("4 bytes, TRUNC", fd, 4, 512, MSG_TRUNC);
	entry("no control", fd, 100, 0, 0);
	entry("PEEK takes it", fd, 100, 512, MSG_PEEK);
	take("empty", fd);
	close(fd);

	begin("errors/queue-recvfrom-flag-%s", fam);
	fd = asking();
	post("sendto", fd, "hello", 5, ip("PEER"), CLOSED);
	trouble("poll", fd);
	from.len = sizeof from.ss;
	num("recvfrom", recvfrom(fd, buf, sizeof buf, MSG_ERRQUEUE, &from.sa, &from.len));
	say("to %s", show(&from));
	num("recv of none", recv(fd, buf, sizeof buf, MSG_ERRQUEUE));
	close(fd);

	begin("errors/queue-recvmmsg-%s", fam);
	fd = asking();
	for (int i = 0; i < 2; i++) {
		post("sendto", fd, "hello", 5, ip("PEER"), CLOSED);
		nap(100);
		so_error("then", fd);
	}
	struct iovec v[3] = { { buf, 20 }, { buf + 20, 20 }, { buf + 40, 20 } };
	struct mmsghdr mm[3];
	memset(mm, 0, sizeof mm);
	for (int i = 0; i < 3; i++)
		mm[i].msg_hdr = (struct msghdr){ .msg_iov = &v[i], .msg_iovlen = 1 };
	num("recvmmsg", recvmmsg(fd, mm, 3, MSG_ERRQUEUE, NULL));
	say("%u %u", mm[0].msg_len, mm[1].msg_len);
	num("recvmmsg of none", recvmmsg(fd, mm, 3, MSG_ERRQUEUE, NULL));
	close(fd);

	begin("errors/queue-connected-%s", fam);
	fd = joined(asking(), ip("PEER"), CLOSED);
	num("send", send(fd, "native", 6, 0));
	trouble("poll", fd);
	take("entry", fd);
	num("send", send(fd, "native", 6, 0));
	trouble("poll", fd);
	take("entry", fd);
	close(fd);

	begin("errors/queue-off-%s", fam); // turning it off empties it
	fd = asking();
	post("sendto", fd, "x", 1, ip("PEER"), CLOSED);
	trouble("poll", fd);
	ok("off", set(fd, IP_RECVERR, IPV6_RECVERR, 0));
	so_error("then", fd);
	say("poll: %s", events(ready(fd, POLLIN | POLLOUT, 0)));
	take("queue", fd);
	close(fd);

	begin("errors/queue-pri-%s", fam);
	fd = asking();
	ok("SO_SELECT_ERR_QUEUE", setsockopt(fd, SOL_SOCKET, SO_SELECT_ERR_QUEUE, &(int){ 1 }, sizeof(int)));
	post("sendto", fd, "x", 1, ip("PEER"), CLOSED);
	trouble("wait", fd);
	say("poll: %s", events(ready(fd, POLLIN | POLLPRI, 0)));
	take("entry", fd);
	say("poll: %s", events(ready(fd, POLLIN | POLLPRI, 0)));
	close(fd);

	begin("errors/queue-data-%s", fam); // data is read beside it
	fd = asking();
	post("sendto", fd, "x", 1, ip("PEER"), CLOSED);
	trouble("poll", fd);
	so_error("then", fd);
	post("sendto", fd, "data", 4, ip("PEER"), ECHO);
	nap(200);
	say("poll: %s", events(ready(fd, POLLIN | POLLOUT, 0)));
	from.len = sizeof from.ss;
	text("recvfrom", recvfrom(fd, buf, sizeof buf, MSG_DONTWAIT, &from.sa, &from.len), buf);
	take("entry", fd);
	say("poll: %s", events(ready(fd, POLLIN | POLLOUT, 0)));
	close(fd);
}

static void tcps(void)
{
	begin("errors/tcp-%s", fam);
	int fd = dial(ip("PEER"), ECHO);
	ok("RECVERR", set(fd, IP_RECVERR, IPV6_RECVERR, 1));
	take("queue", fd);
	entry("queue, DONTWAIT", fd, 10, 10, MSG_DONTWAIT);
	char b[4];
	num("recv", recv(fd, b, sizeof b, MSG_ERRQUEUE));
	close(fd);
}

int main(int argc, char **argv)
{
	deadline(40);
	argument(argc, argv);
	connected();
	queue();
	tcps();
	return 0;
}
