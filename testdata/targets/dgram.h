// SPDX-License-Identifier: Apache-2.0

// Datagram sockets of the cases: made, bound, spoken to and heard.
#ifndef DGRAM_H
#define DGRAM_H

#include "lab.h"
#include <ifaddrs.h>
#include <net/if.h>

static char heard[70000]; // what take and quiet received

// fresh is a UDP socket that waits for 3 s when it receives.
static UNUSED int fresh(const char *ip)
{
	int fd = need("socket", socket(version(ip) == 6 ? AF_INET6 : AF_INET, SOCK_DGRAM, 0));
	struct timeval tv = { 3, 0 };
	need("SO_RCVTIMEO", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
	return fd;
}

static UNUSED int on(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof value);
}

static UNUSED int bind_to(int fd, const char *ip, int port)
{
	struct addr a = mk(ip, port);
	return bind(fd, &a.sa, a.len);
}

static UNUSED int connect_to(int fd, const char *ip, int port)
{
	struct addr a = mk(ip, port);
	return connect(fd, &a.sa, a.len);
}

// bound is a fresh socket at an address; port 0 lets the kernel choose.
static UNUSED int bound(const char *ip, int port)
{
	int fd = fresh(ip);
	need("bind", bind_to(fd, ip, port));
	return fd;
}

// shared is one with SO_REUSEADDR.
static UNUSED int shared(const char *ip, int port)
{
	int fd = fresh(ip);
	need("SO_REUSEADDR", on(fd, SOL_SOCKET, SO_REUSEADDR, 1));
	need("bind", bind_to(fd, ip, port));
	return fd;
}

static UNUSED int port_at(int fd)
{
	struct addr a;
	a.len = sizeof a.ss;
	need("getsockname", getsockname(fd, &a.sa, &a.len));
	return port_of(&a);
}

static UNUSED long give(int fd, const char *word, const char *ip, int port)
{
	struct addr to = mk(ip, port);
	return sendto(fd, word, strlen(word), 0, &to.sa, to.len);
}

static UNUSED void hear(const char *label, int fd, int flags)
{
	struct addr a;
	a.len = sizeof a.ss;
	long n = recvfrom(fd, heard, sizeof heard, flags, &a.sa, &a.len);
	if (n < 0)
		say("%s: %s", label, errname(errno));
	else
		say("%s: %ld \"%.*s\" from %s", label, n, (int)(n > 30 ? 30 : n), heard, show(&a));
}

// take waits for a datagram, quiet sees that none comes.
static UNUSED void take(const char *label, int fd) { hear(label, fd, 0); }

static UNUSED void quiet(const char *label, int fd)
{
	ready(fd, POLLIN, 60);
	hear(label, fd, MSG_DONTWAIT);
}

// drain takes what is there, and counts it.
static UNUSED int drain(int fd)
{
	struct addr a;
	int n = 0;
	for (a.len = sizeof a.ss; recvfrom(fd, heard, sizeof heard, MSG_DONTWAIT, &a.sa, &a.len) >= 0; a.len = sizeof a.ss)
		n++;
	return n;
}

// index_of is the index of the interface that has an address.
static UNUSED int index_of(const char *ip)
{
	struct ifaddrs *all_, *a;
	int index = 0;
	need("getifaddrs", getifaddrs(&all_));
	for (a = all_; a; a = a->ifa_next) {
		struct addr want = mk(ip, 0);
		if (!a->ifa_addr || a->ifa_addr->sa_family != want.sa.sa_family)
			continue;
		struct sockaddr_in *in = (void *)a->ifa_addr;
		struct sockaddr_in6 *in6 = (void *)a->ifa_addr;
		if (want.sa.sa_family == AF_INET ? in->sin_addr.s_addr == want.in.sin_addr.s_addr
				: !memcmp(&in6->sin6_addr, &want.in6.sin6_addr, 16))
			index = if_nametoindex(a->ifa_name);
	}
	freeifaddrs(all_);
	if (!index)
		say("no interface has %s, cannot go on", ip);
	return index;
}

#endif
