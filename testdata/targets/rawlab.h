// SPDX-License-Identifier: Apache-2.0

// What the programs about raw sockets share: making sockets and ICMP messages,
// and printing packets without what varies.
#ifndef RAWLAB_H
#define RAWLAB_H

#include "lab.h"
#include <linux/filter.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>

#ifndef ICMP_FILTER
#define ICMP_FILTER 1
#endif
#ifndef IPV6_HDRINCL
#define IPV6_HDRINCL 36
#endif

enum { FREE = 253, FREE2 = 254 }; // protocols for experiments, RFC 3692

static UNUSED int raw(int family, int proto)
{
	int fd = need("raw socket", socket(family, SOCK_RAW, proto));
	struct timeval tv = { 2, 0 };
	need("SO_RCVTIMEO", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
	return fd;
}

// raw_to makes a raw socket of the family of an address.
static UNUSED int raw_to(const struct addr *a, int proto) { return raw(a->sa.sa_family, proto); }

static UNUSED uint16_t checksum(const void *p, int n)
{
	const unsigned char *b = p;
	uint32_t s = 0;
	for (int i = 0; i < n; i++)
		s += i & 1 ? b[i] : b[i] << 8;
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return ~s;
}

// echo makes an echo request with n bytes of data; the kernel does the checksum
// of ICMPv6. It returns the length.
static UNUSED int echo(unsigned char *p, int six, int id, int seq, int n)
{
	memset(p, 0, 8);
	p[0] = six ? ICMP6_ECHO_REQUEST : ICMP_ECHO;
	p[4] = id >> 8, p[5] = id, p[6] = seq >> 8, p[7] = seq;
	pattern(p + 8, n, 0);
	uint16_t c = checksum(p, 8 + n);
	if (!six)
		p[2] = c >> 8, p[3] = c;
	return 8 + n;
}

// header4 prints an IPv4 header and returns its length, 0 if it is none.
static UNUSED int header4(const char *label, const unsigned char *p, long n)
{
	if (n < 20 || p[0] >> 4 != 4 || (p[0] & 15) * 4 > n) {
		say("%s: no IPv4 header in %ld bytes", label, n);
		return 0;
	}
	struct addr src = { .len = sizeof src.in, .in = { .sin_family = AF_INET } }, dst = src;
	memcpy(&src.in.sin_addr, p + 12, 4);
	memcpy(&dst.in.sin_addr, p + 16, 4);
	int hl = (p[0] & 15) * 4, frag = p[6] << 8 | p[7];
	say("%s: ihl %d tos %d len %d id %s frag %x ttl %d proto %d check %s", label, hl, p[1], p[2] << 8 | p[3],
		p[4] | p[5] ? "set" : "0", frag, p[8], p[9], checksum(p, hl) ? "bad" : "good");
	say("%s: from %s", label, show(&src));
	say("%s: to %s", label, show(&dst));
	return hl;
}

// get receives and prints a packet: the IPv4 header, then ICMP's type and code or
// the first bytes. It returns the length, and the packet in p (of 70000 bytes).
static UNUSED long get(const char *label, int fd, unsigned char *p)
{
	struct addr from;
	int proto = opt(fd, SOL_SOCKET, SO_PROTOCOL), hl = 0;
	from.len = sizeof from.ss;
	long n = recvfrom(fd, p, 70000, 0, &from.sa, &from.len);
	if (n < 0) {
		say("%s: %s", label, errname(errno));
		return n;
	}
	say("%s: %ld bytes from %s", label, n, show(&from));
	if (opt(fd, SOL_SOCKET, SO_DOMAIN) == AF_INET)
		hl = header4(label, p, n);
	if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6) {
		if (n - hl >= 8)
			say("%s: type %d code %d, id %d seq %d", label, p[hl], p[hl + 1], p[hl + 4] << 8 | p[hl + 5], p[hl + 6] << 8 | p[hl + 7]);
	} else if (proto != IPPROTO_TCP && proto != IPPROTO_UDP) {
		say("%s: data \"%.*s\"", label, (int)(n - hl > 40 ? 40 : n - hl), p + hl);
	}
	return n;
}

// none says whether a socket has nothing to receive after a moment.
static UNUSED void none(const char *label, int fd)
{
	say("%s: %s", label, ready(fd, POLLIN, 50) ? "readable" : "nothing");
}

// flush takes all that is there.
static UNUSED void flush(int fd)
{
	char b[16];
	while (ready(fd, POLLIN, 30))
		if (recv(fd, b, sizeof b, MSG_DONTWAIT) < 0)
			return;
}

static UNUSED long put_to(int fd, const void *p, long n, const struct addr *to)
{
	return sendto(fd, p, n, 0, &to->sa, to->len);
}

static UNUSED int on(int fd, int level, int name, int v)
{
	return setsockopt(fd, level, name, &v, sizeof v);
}

#endif
