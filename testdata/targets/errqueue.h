// SPDX-License-Identifier: Apache-2.0

// Sockets that ask for errors, and entries of the error queue in words. The program's
// argument is 4 or 6.
#ifndef ERRQUEUE_H
#define ERRQUEUE_H

#include "lab.h"
#include <linux/errqueue.h>

static int six;
static const char *fam;

// argument takes it.
static void argument(int argc, char **argv)
{
	if (argc != 2)
		exit(9);
	fam = argv[1];
	six = *fam == '6';
}

static const char *ip(const char *name)
{
	char full[64];
	snprintf(full, sizeof full, "LAB_%s%s", name, fam);
	return env(full);
}

static UNUSED int udp(void)
{
	int fd = need("socket", socket(six ? AF_INET6 : AF_INET, SOCK_DGRAM, 0));
	struct timeval tv = { 5, 0 };
	need("SO_RCVTIMEO", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
	return fd;
}

static int set(int fd, int name4, int name6, int v)
{
	return setsockopt(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? name6 : name4, &v, sizeof v);
}

static UNUSED int get(int fd, int name4, int name6)
{
	return opt(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? name6 : name4);
}

static UNUSED int asking(void)
{
	int fd = udp();
	need("RECVERR", set(fd, IP_RECVERR, IPV6_RECVERR, 1));
	return fd;
}

static UNUSED int joined(int fd, const char *to, int port)
{
	struct addr a = mk(to, port);
	need("connect", connect(fd, &a.sa, a.len));
	return fd;
}

static UNUSED void post(const char *label, int fd, const void *p, size_t n, const char *to, int port)
{
	struct addr a = mk(to, port);
	num(label, sendto(fd, p, n, 0, &a.sa, a.len));
}

// trouble waits until poll shows an error.
static UNUSED void trouble(const char *label, int fd)
{
	int ev = 0;
	for (int i = 0; i < 250 && !(ev & POLLERR); i++)
		if (!((ev = ready(fd, POLLOUT, 0)) & POLLERR))
			nap(20);
	say("%s: %s", label, events(ready(fd, POLLIN | POLLOUT, 0)));
}

// entry takes one entry from the error queue and prints all of it.
static UNUSED void entry(const char *label, int fd, size_t room, size_t space, int flags)
{
	static char data[3000], control[512];
	struct addr name = { .len = sizeof name.ss };
	struct iovec v = { data, room };
	struct msghdr m = { .msg_name = &name.ss, .msg_namelen = name.len, .msg_iov = &v, .msg_iovlen = 1,
		.msg_control = space ? control : NULL, .msg_controllen = space };
	memset(data, 0, sizeof data);
	long n = recvmsg(fd, &m, MSG_ERRQUEUE | flags);
	if (n < 0) {
		say("%s: %s", label, errname(errno));
		return;
	}
	name.len = m.msg_namelen;
	say("%s: %ld \"%.*s\" to %s, flags%s%s%s%s", label, n, (int)(n > 20 ? 20 : n), data, m.msg_namelen ? show(&name) : "nobody",
		m.msg_flags & MSG_ERRQUEUE ? " ERRQUEUE" : "", m.msg_flags & MSG_TRUNC ? " TRUNC" : "",
		m.msg_flags & MSG_CTRUNC ? " CTRUNC" : "", m.msg_flags & ~(MSG_ERRQUEUE | MSG_TRUNC | MSG_CTRUNC) ? " more" : "");
	for (struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		size_t len = c->cmsg_len - CMSG_LEN(0);
		if (c->cmsg_level == (six ? IPPROTO_IPV6 : IPPROTO_IP) && c->cmsg_type == (six ? IPV6_RECVERR : IP_RECVERR) &&
			len >= sizeof(struct sock_extended_err)) {
			struct sock_extended_err e;
			memcpy(&e, CMSG_DATA(c), sizeof e);
			struct addr off = { .len = len - sizeof e };
			memcpy(&off.ss, CMSG_DATA(c) + sizeof e, off.len);
			say(" error %s, origin %d, type %d, code %d, pad %d, info %u, data %u, offender %s", errname(e.ee_errno), e.ee_origin,
				e.ee_type, e.ee_code, e.ee_pad, e.ee_info, e.ee_data,
				off.sa.sa_family == AF_UNSPEC ? "unspecified" : show(&off));
		} else if (c->cmsg_type == (six ? IPV6_HOPLIMIT : IP_TTL)) {
			say(" TTL %d", *(int *)CMSG_DATA(c));
		} else {
			say(" level %d, type %d, %d bytes", c->cmsg_level, c->cmsg_type, (int)len);
		}
	}
}

static UNUSED void take(const char *label, int fd) { entry(label, fd, 3000, 512, 0); }

#endif
