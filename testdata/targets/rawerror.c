// SPDX-License-Identifier: Apache-2.0

// What ICMP tells raw sockets. The argument is a version of IP.
#include "rawlab.h"

static int six;
static unsigned char in[70000];

static int family(void) { return six ? AF_INET6 : AF_INET; }
static int icmp(void) { return six ? IPPROTO_ICMPV6 : IPPROTO_ICMP; }
static void start(const char *name) { begin("rawerror/%s-%d", name, six ? 6 : 4); }

// errors: what ICMP says reaches connected sockets by SO_ERROR and the next receive.
static void error(const char *name, const char *ip, int connected, int proto)
{
	struct addr a = mk(ip, 0);
	char b[100];
	start(name);
	int fd = raw(family(), proto), watch = raw(family(), icmp());
	if (connected)
		ok("connect", connect(fd, &a.sa, a.len));
	int n = 8;
	memset(b, 0, sizeof b);
	b[1] = 99, b[3] = 6, b[5] = 8; // UDP from port 99 to 6
	num("sendto", put_to(fd, b, n, &a));
	while (ready(watch, POLLIN, 500)) {
		long k = recv(watch, in, sizeof in, 0);
		int at = six ? 0 : 20, type = in[at];
		if (k > at + 8 && (six ? type < 128 : type == 3 || type == 11)) {
			say("type %d code %d, %ld bytes behind it", type, in[at + 1], k - at - 8);
			break;
		}
	}
	nap(50);
	say("poll: %s", events(ready(fd, POLLIN | POLLOUT, 0) & ~POLLIN));
	so_error("first", fd);
	so_error("second", fd);
	num("sendto", put_to(fd, b, n, &a));
	nap(100);
	if (!connected) { // it hears others too
		close(fd);
		close(watch);
		return;
	}
	struct addr from = { .len = sizeof from.ss };
	num("recvfrom", recvfrom(fd, b, sizeof b, MSG_DONTWAIT, &from.sa, &from.len) < 0 ? -1 : 0);
	num("recvfrom again", recvfrom(fd, b, sizeof b, MSG_DONTWAIT, &from.sa, &from.len) < 0 ? -1 : 0);
	close(fd);
	close(watch);
}

int main(int argc, char **argv)
{
	deadline(50);
	six = argc > 1 && !strcmp(argv[1], "6");
	const char *lo = six ? "::1" : "127.0.0.1", *peer = env(six ? "LAB_PEER6" : "LAB_PEER4");
	const char *unreach = env(six ? "LAB_UNREACH6" : "LAB_UNREACH4"), *prohibit = env(six ? "LAB_PROHIBIT6" : "LAB_PROHIBIT4");
	error("protocol-local", lo, 1, FREE2);
	error("protocol-peer", peer, 1, FREE2);
	error("port-peer", peer, 1, IPPROTO_UDP);
	error("port-unconnected", peer, 0, IPPROTO_UDP);
	error("unreachable", unreach, 1, IPPROTO_UDP);
	error("prohibited", prohibit, 1, IPPROTO_UDP);
	return 0;
}
