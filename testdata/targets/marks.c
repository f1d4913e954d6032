// SPDX-License-Identifier: Apache-2.0

// SO_MARK, of sockets and of single datagrams: rules that look at marks say what
// becomes of a datagram. What is changed is changed back.
#include "dgram.h"

struct kind {
	const char *name;
	int family, type, proto;
};

static int mark_of(int fd) { return opt(fd, SOL_SOCKET, SO_MARK); }

static void option(int fd, int mark)
{
	ok(" SO_MARK", setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark));
}

// post sends a datagram with so many bytes of a mark.
static void post(const char *label, int fd, const struct addr *to, unsigned mark, int size)
{
	char control[64] = "", echo[8] = { to->sa.sa_family == AF_INET6 ? (char)128 : 8 };
	struct iovec v = { echo, sizeof echo };
	struct msghdr m = { .msg_name = (void *)&to->sa, .msg_namelen = to->len, .msg_iov = &v, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = CMSG_SPACE(size) };
	struct cmsghdr *c = (struct cmsghdr *)control;
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SO_MARK;
	c->cmsg_len = CMSG_LEN(size);
	memcpy(CMSG_DATA(c), &mark, sizeof mark);
	num(label, sendmsg(fd, &m, 0));
}

static void marked(struct kind k)
{
	char cmd[200];
	int six = k.family == AF_INET6;
	struct addr to = mk(env(six ? "LAB_PEER6" : "LAB_PEER4"), k.type == SOCK_RAW ? 0 : ECHO), none = to;
	none.len = 0;
	begin("marks/%s", k.name);
	snprintf(cmd, sizeof cmd, "ip -%d rule add fwmark 7 prohibit pref 100; ip -%d rule add fwmark 0x30/0xf0 unreachable pref 101", six ? 6 : 4, six ? 6 : 4);
	num("rules", system(cmd));
	int fd = need("socket", socket(k.family, k.type, k.proto));
	post("7", fd, &to, 7, 4);
	post("8", fd, &to, 8, 4);
	post("0x39", fd, &to, 0x39, 4);
	post("of two bytes", fd, &to, 7, 2);
	post("of eight bytes", fd, &to, 7, 8);
	option(fd, 7);
	say(" mark %d", mark_of(fd));
	post("another than the socket's", fd, &to, 8, 4);
	post("0 instead of the socket's", fd, &to, 0, 4);
	post("the socket's", fd, &to, 7, 4);
	option(fd, 0);
	if (k.type != SOCK_RAW) {
		ok("connect", connect(fd, &to.sa, to.len));
		post("connected, 7", fd, &none, 7, 4);
		post("connected, 8", fd, &none, 8, 4);
		say(" mark %d", mark_of(fd));
	}
	close(fd);
	snprintf(cmd, sizeof cmd, "ip -%d rule del pref 100; ip -%d rule del pref 101", six ? 6 : 4, six ? 6 : 4);
	num("rules", system(cmd));
}

int main(void)
{
	static const struct kind kinds[] = {
		{ "udp-4", AF_INET, SOCK_DGRAM, 0 }, { "udp-6", AF_INET6, SOCK_DGRAM, 0 },
		{ "ping-4", AF_INET, SOCK_DGRAM, IPPROTO_ICMP }, { "ping-6", AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6 },
		{ "raw-4", AF_INET, SOCK_RAW, 253 }, { "raw-6", AF_INET6, SOCK_RAW, 253 },
	};
	deadline(30);
	for (int i = 0; i < LEN(kinds); i++)
		marked(kinds[i]);
	return 0;
}
