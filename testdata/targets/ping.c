// SPDX-License-Identifier: Apache-2.0

// Ping sockets, icmp(7): SOCK_DGRAM with IPPROTO_ICMP and IPPROTO_ICMPV6.
#include "lab.h"
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>

static void ping(const char *label, const char *ip, int size)
{
	begin("ping/%s", label);
	struct addr to = mk(ip, 0), from;
	int six = to.sa.sa_family == AF_INET6;
	int fd = need("socket", socket(to.sa.sa_family, SOCK_DGRAM, six ? IPPROTO_ICMPV6 : IPPROTO_ICMP));
	struct timeval tv = { 2, 0 };
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	unsigned char out[2000] = { six ? ICMP6_ECHO_REQUEST : ICMP_ECHO }, in[2000];
	out[7] = 42; // sequence
	pattern(out + 8, size, 0);
	say("%s: sent %ld", label, (long)sendto(fd, out, 8 + size, 0, &to.sa, to.len));
	from.len = sizeof from.ss;
	long n = recvfrom(fd, in, sizeof in, 0, &from.sa, &from.len);
	if (n < 0) {
		ok(label, n);
	} else {
		struct addr me;
		me.len = sizeof me.ss;
		getsockname(fd, &me.sa, &me.len);
		say("%s: %ld bytes, type %d, code %d, sequence %d, data %s, id %s, from %s", label, n, in[0], in[1], in[7],
			memcmp(in + 8, out + 8, size) ? "WRONG" : "right",
			port_of(&me) == (in[4] << 8 | in[5]) ? "is the port" : "differs", show(&from));
	}
	close(fd);
}

int main(int argc, char **argv)
{
	deadline(30);
	ping("v4", env("LAB_PEER4"), 56);
	ping("v6", env("LAB_PEER6"), 56);
	ping("empty", env("LAB_PEER4"), 0);
	ping("large", env("LAB_PEER4"), 1300);
	ping("loopback v4", "127.0.0.1", 56);
	ping("loopback v6", "::1", 56);
	ping("own v4", env("LAB_SELF4"), 56);
	ping("silence", env("LAB_BLACKHOLE4"), 8);
	begin("ping/connected");
	int fd = need("socket", socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP));
	struct addr to = mk(env("LAB_PEER4"), 0);
	char reply[8] = { ICMP_ECHOREPLY };
	num("not an echo request", sendto(fd, reply, 8, 0, &to.sa, to.len));
	num("short", sendto(fd, reply, 4, 0, &to.sa, to.len));
	ok("connect", connect(fd, &to.sa, to.len));
	char echo[8] = { ICMP_ECHO };
	num("send", send(fd, echo, 8, 0));
	say("readable: %s", events(ready(fd, POLLIN, 5000)));
	num("recv", recv(fd, echo, 8, 0));
	say("type %d", echo[0]);
	say("SO_TYPE %d, SO_PROTOCOL %d", opt(fd, SOL_SOCKET, SO_TYPE), opt(fd, SOL_SOCKET, SO_PROTOCOL));
	ok("STREAM", socket(AF_INET, SOCK_STREAM, IPPROTO_ICMP));
	ok("v6 on v4", socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMPV6));
	return 0;
}
