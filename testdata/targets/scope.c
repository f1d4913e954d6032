// SPDX-License-Identifier: Apache-2.0

// Addresses of IPv6 that say nothing without an interface: what bind, connect and
// sendto make of them without one, with one, and with another one.
#include "dgram.h"
#include <net/if.h>

static int wg;

struct kind {
	const char *name;
	int type, proto;
};

static struct sockaddr_in6 to(const char *ip, int port, int scope)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_scope_id = scope };
	inet_pton(AF_INET6, ip, &a.sin6_addr);
	return a;
}

static int sock(struct kind k)
{
	return need("socket", socket(AF_INET6, k.type | SOCK_NONBLOCK, k.proto));
}

static void named(int fd)
{
	struct sockaddr_in6 a;
	socklen_t n = sizeof a;
	if (getsockname(fd, (void *)&a, &n) == 0)
		say("  its scope: %s", a.sin6_scope_id == 0 ? "0" : (int)a.sin6_scope_id == wg ? "wg" : "another");
}

enum { PLAIN, DEVICE, MULTICAST_IF, LO };

static void each(struct kind k, const char *ip, int scope, int how)
{
	static const char *const hows[] = { "", ", bound to the device", ", multicast interface", ", bound to lo" };
	struct sockaddr_in6 a = to(ip, k.type == SOCK_STREAM ? CLOSED : k.type == SOCK_RAW ? 0 : DIGEST, scope), b = to(ip, k.type == SOCK_RAW ? 0 : 7200, scope);
	const char *s = scope == 0 ? "" : scope == wg ? "%wg" : "%another";
	say("%s%s%s", strcmp(ip, env("LAB_SELF6")) ? ip : "self", s, hows[how]);
	for (int i = 0; i < 3; i++) {
		int fd = sock(k), lo = if_nametoindex("lo");
		if (how == DEVICE)
			ok(" SO_BINDTOIFINDEX", setsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &wg, sizeof wg));
		else if (how == LO)
			ok(" SO_BINDTOIFINDEX", setsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &lo, sizeof lo));
		else if (how == MULTICAST_IF)
			ok(" IPV6_MULTICAST_IF", setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, &wg, sizeof wg));
		if (i == 0) {
			if (ok(" bind", bind(fd, (void *)&b, sizeof b)) == 0)
				named(fd);
		} else if (i == 1) {
			ok(" connect", connect(fd, (void *)&a, sizeof a)); // its name is another where there is no link-local one
		} else if (k.type != SOCK_STREAM) {
			char echo[8] = { (char)128 };
			num(" sendto", sendto(fd, echo, sizeof echo, 0, (void *)&a, sizeof a));
		}
		close(fd);
	}
}

int main(int argc, char **argv)
{
	static const struct kind kinds[] = {
		{ "tcp", SOCK_STREAM, 0 }, { "udp", SOCK_DGRAM, 0 }, { "ping", SOCK_DGRAM, IPPROTO_ICMPV6 }, { "raw", SOCK_RAW, 253 },
	};
	deadline(30);
	wg = if_nametoindex("wg0");
	for (int i = 0; i < LEN(kinds); i++) {
		if (argc < 2 || strcmp(argv[1], kinds[i].name))
			continue;
		begin("scope/%s-link-local", kinds[i].name);
		each(kinds[i], "fe80::1234", 0, PLAIN);
		each(kinds[i], "fe80::1234", 99, PLAIN);
		each(kinds[i], "fe80::1234", wg, PLAIN);
		each(kinds[i], "fe80::1234", 0, DEVICE);
		each(kinds[i], "fe80::1234", wg, DEVICE);
		each(kinds[i], "fe80::1234", wg, LO);
		each(kinds[i], "fe80::1234", 0, MULTICAST_IF);
		begin("scope/%s-group-of-the-link", kinds[i].name);
		each(kinds[i], "ff02::1234", 0, PLAIN);
		each(kinds[i], "ff02::1234", 99, PLAIN);
		each(kinds[i], "ff02::1234", wg, PLAIN);
		each(kinds[i], "ff02::1234", 0, DEVICE);
		each(kinds[i], "ff02::1234", wg, LO);
		each(kinds[i], "ff02::1234", 0, MULTICAST_IF);
		begin("scope/%s-group-of-the-interface", kinds[i].name);
		each(kinds[i], "ff01::1234", 0, PLAIN);
		each(kinds[i], "ff01::1234", wg, PLAIN);
		begin("scope/%s-wider-group", kinds[i].name);
		each(kinds[i], "ff05::1234", 0, PLAIN);
		each(kinds[i], "ff05::1234", wg, PLAIN);
		each(kinds[i], "ff05::1234", 0, MULTICAST_IF);
		begin("scope/%s-no-need", kinds[i].name);
		each(kinds[i], env("LAB_PEER6"), 0, PLAIN);
		if (kinds[i].proto != IPPROTO_ICMPV6) { // where bind looks at the interface all the same
			each(kinds[i], env("LAB_PEER6"), wg, PLAIN);
			each(kinds[i], env("LAB_PEER6"), 99, PLAIN);
			each(kinds[i], env("LAB_SELF6"), 99, PLAIN);
			each(kinds[i], "::1", wg, PLAIN);
			each(kinds[i], "::", wg, PLAIN);
		}
		each(kinds[i], env("LAB_PEER6"), 0, DEVICE);
		each(kinds[i], env("LAB_PEER6"), 0, LO);
		each(kinds[i], env("LAB_SELF6"), 0, PLAIN);
		each(kinds[i], "::1", 0, PLAIN);
		each(kinds[i], "::", 0, PLAIN);
	}
	return 0;
}
