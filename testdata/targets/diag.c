// SPDX-License-Identifier: Apache-2.0

// What sock_diag(7) says of the program's own TCP sockets: queues in bytes and timers,
// which ss -o shows. The argument is 4 or 6.
#include "lab.h"
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>

static int six;

static const char *ip(const char *name)
{
	char full[64];
	snprintf(full, sizeof full, "LAB_%s%d", name, six ? 6 : 4);
	return env(full);
}

// find asks for the socket with a port that does not listen.
static int find(int port, struct inet_diag_msg *found)
{
	struct {
		struct nlmsghdr h;
		struct inet_diag_req_v2 r;
	} q = { { sizeof q, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0 },
		{ .sdiag_family = six ? AF_INET6 : AF_INET, .sdiag_protocol = IPPROTO_TCP, .idiag_states = -1, .id.idiag_sport = htons(port) } };
	static char buf[32768];
	int fd = need("netlink", socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG)), there = 0;
	need("ask", send(fd, &q, sizeof q, 0));
	for (int done = 0; !done;) {
		long n = need("recv", recv(fd, buf, sizeof buf, 0));
		for (struct nlmsghdr *h = (void *)buf; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
			struct inet_diag_msg *m = NLMSG_DATA(h);
			done = done || h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR;
			if (h->nlmsg_type == SOCK_DIAG_BY_FAMILY && m->id.idiag_sport == htons(port) && m->idiag_state != TCP_LISTEN) {
				*found = *m;
				there = 1;
			}
		}
	}
	close(fd);
	return there;
}

static int port(int fd)
{
	struct addr a = { .len = sizeof a.ss };
	need("getsockname", getsockname(fd, &a.sa, &a.len));
	return port_of(&a);
}

// tell prints it; the timer has from least to most ms to go.
static void tell(const char *label, int at, unsigned least, unsigned most)
{
	static const char *const timers[] = { "no timer", "on", "keepalive", "timewait", "persist" };
	struct inet_diag_msg m;
	if (!find(at, &m)) {
		say("%s: not there", label);
		return;
	}
	say("%s: state %d, received %u, to send %u, %s%s, %d retries", label, m.idiag_state, m.idiag_rqueue, m.idiag_wqueue,
		m.idiag_timer < 5 ? timers[m.idiag_timer] : "?",
		m.idiag_timer == 0 ? "" : m.idiag_expires >= least && m.idiag_expires <= most ? " for the time" : " WRONG", m.idiag_retrans);
	if (m.idiag_timer && (m.idiag_expires < least || m.idiag_expires > most))
		say(" %u ms", m.idiag_expires);
}

static void connections(void)
{
	static char big[3000];
	begin("diag/idle-%d", six ? 6 : 4);
	int fd = dial(ip("PEER"), ECHO), on = 1, idle = 100;
	nap(50);
	tell("idle", port(fd), 0, 0);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
	ok("SO_KEEPALIVE", setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on));
	tell("keepalive", port(fd), 90000, 100000);
	begin("diag/unread-%d", six ? 6 : 4);
	num("send", send(fd, big, 2500, 0));
	int got = 0;
	for (int i = 0; i < 100 && got < 2500; i++, nap(20))
		ioctl(fd, FIONREAD, &got);
	tell("unread", port(fd), 90000, 100000);
	num("recv", recv(fd, big, 700, 0));
	tell("700 less", port(fd), 90000, 100000);
	num("recv", recv(fd, big, sizeof big, 0));
	tell("read", port(fd), 90000, 100000);
	close(fd);

	// Who does not read: the window is shut in the end, and looked at now and then.
	begin("diag/stuck-%d", six ? 6 : 4);
	struct inet_diag_msg m;
	fd = dial(ip("PEER"), STUCK);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	for (int quiet = 0; quiet < 20;)
		if (send(fd, big, sizeof big, 0) > 0) {
			quiet = 0;
		} else {
			quiet++;
			nap(20);
		}
	say("stuck: %s", find(port(fd), &m) && m.idiag_state == 1 && m.idiag_wqueue > 0 && m.idiag_timer == 4 && m.idiag_expires < 120000 ? "persist" : "WRONG");
	struct linger away = { 1, 0 };
	need("SO_LINGER", setsockopt(fd, SOL_SOCKET, SO_LINGER, &away, sizeof away));
	close(fd);

	begin("diag/connecting-%d", six ? 6 : 4);
	struct addr hole = mk(ip("BLACKHOLE"), ECHO);
	fd = tcp(&hole, SOCK_NONBLOCK);
	ok("connect", connect(fd, &hole.sa, hole.len));
	nap(100);
	say("connecting: %s", find(port(fd), &m) && m.idiag_state == 2 && m.idiag_timer == 1 && m.idiag_retrans == 0 && m.idiag_expires <= 1000 ? "on, for a second" : "WRONG");
	nap(1500);
	tell("again", port(fd), 1, 2000);
	close(fd);

	begin("diag/closed-%d", six ? 6 : 4);
	fd = dial(ip("PEER"), ECHO);
	int was = port(fd);
	shutdown(fd, SHUT_WR);
	num("recv", recv(fd, big, sizeof big, 0));
	close(fd);
	nap(100);
	tell("closed", was, 55000, 60000);
}

int main(int argc, char **argv)
{
	deadline(30);
	if (argc != 2)
		return 9;
	six = *argv[1] == '6';
	connections();
	return 0;
}
