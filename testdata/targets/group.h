// SPDX-License-Identifier: Apache-2.0

// Multicast groups of the cases: joined and left in every way that there is.
#ifndef GROUP_H
#define GROUP_H

#include "dgram.h"

#define G4 "239.7.7.7"
#define H4 "239.7.7.8"
#define K4 "239.7.7.9"
#define G6 "ff12::7:7"
#define H6 "ff12::7:8"

enum { LO = 1 }; // index of the loopback interface

static UNUSED int mreqn(int fd, int what, const char *group, const char *local, int index)
{
	struct ip_mreqn m = { .imr_ifindex = index };
	inet_pton(AF_INET, group, &m.imr_multiaddr);
	inet_pton(AF_INET, local, &m.imr_address);
	return setsockopt(fd, IPPROTO_IP, what, &m, sizeof m);
}

static UNUSED int mreq6(int fd, int what, const char *group, int index)
{
	struct ipv6_mreq m = { .ipv6mr_interface = index };
	inet_pton(AF_INET6, group, &m.ipv6mr_multiaddr);
	return setsockopt(fd, IPPROTO_IPV6, what, &m, sizeof m);
}

static UNUSED int level(const char *ip) { return version(ip) == 6 ? IPPROTO_IPV6 : IPPROTO_IP; }

static UNUSED int group(int fd, int what, const char *ip, int index)
{
	struct group_req g = { .gr_interface = index };
	struct addr a = mk(ip, 0);
	memcpy(&g.gr_group, &a.ss, a.len);
	return setsockopt(fd, level(ip), what, &g, sizeof g);
}

static UNUSED int source(int fd, int what, const char *ip, const char *from, int index)
{
	struct group_source_req g = { .gsr_interface = index };
	struct addr a = mk(ip, 0), b = mk(from, 0);
	memcpy(&g.gsr_group, &a.ss, a.len);
	memcpy(&g.gsr_source, &b.ss, b.len);
	return setsockopt(fd, level(ip), what, &g, sizeof g);
}

static UNUSED int mreqs(int fd, int what, const char *ip, const char *from, const char *local)
{
	struct ip_mreq_source m;
	inet_pton(AF_INET, ip, &m.imr_multiaddr);
	inet_pton(AF_INET, from, &m.imr_sourceaddr);
	inet_pton(AF_INET, local, &m.imr_interface);
	return setsockopt(fd, IPPROTO_IP, what, &m, sizeof m);
}

static UNUSED int join(int fd, const char *ip, int index)
{
	return version(ip) == 6 ? mreq6(fd, IPV6_JOIN_GROUP, ip, index) : mreqn(fd, IP_ADD_MEMBERSHIP, ip, "0.0.0.0", index);
}

static UNUSED int leave(int fd, const char *ip, int index)
{
	return version(ip) == 6 ? mreq6(fd, IPV6_LEAVE_GROUP, ip, index) : mreqn(fd, IP_DROP_MEMBERSHIP, ip, "0.0.0.0", index);
}

// by makes a socket send its multicast by an interface.
static UNUSED int by(int fd, int six, int index)
{
	if (six)
		return on(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, index);
	struct ip_mreqn m = { .imr_ifindex = index };
	return setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &m, sizeof m);
}

static UNUSED int all_groups(int fd, int six, int v)
{
	return six ? on(fd, IPPROTO_IPV6, IPV6_MULTICAST_ALL, v) : on(fd, IPPROTO_IP, IP_MULTICAST_ALL, v);
}

#endif
