// SPDX-License-Identifier: Apache-2.0

// Filters of packet sockets, SO_ATTACH_FILTER of socket(7).
#include "packet.h"
#include <linux/filter.h>

#define STMT BPF_STMT
#define JUMP BPF_JUMP

static long attach(int fd, struct sock_filter *f, int n)
{
	struct sock_fprog prog = { n, f };
	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof prog);
}

static void filters(void)
{
	int own = sink("127.0.0.1", 4000);
	struct sock_filter none[] = { STMT(BPF_RET | BPF_K, 0) };
	struct sock_filter cut[] = { STMT(BPF_RET | BPF_K, 50) };
	struct sock_filter bad[] = { STMT(BPF_LD | BPF_IMM, 0) };
	struct sock_filter outgoing[] = {
		STMT(BPF_LD | BPF_B | BPF_ABS, SKF_AD_OFF + SKF_AD_PKTTYPE), JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING, 0, 1),
		STMT(BPF_RET | BPF_K, 0x40000), STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_filter raw[] = { // ethertype IPv4 and UDP, as libpcap has it for Ethernet
		STMT(BPF_LD | BPF_H | BPF_ABS, 12), JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 3),
		STMT(BPF_LD | BPF_B | BPF_ABS, 23), JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_UDP, 0, 1),
		STMT(BPF_RET | BPF_K, 0x40000), STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_filter cooked[] = { // the same for cooked sockets
		STMT(BPF_LD | BPF_H | BPF_ABS, SKF_AD_OFF + SKF_AD_PROTOCOL), JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 3),
		STMT(BPF_LD | BPF_B | BPF_ABS, 9), JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_UDP, 0, 1),
		STMT(BPF_RET | BPF_K, 0x40000), STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_filter about[] = { // what there is besides the bytes
		STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_HATYPE), JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARPHRD_LOOPBACK, 0, 6),
		STMT(BPF_LD | BPF_B | BPF_ABS, SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT), JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 4),
		STMT(BPF_LD | BPF_B | BPF_ABS, SKF_NET_OFF + 9), JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_UDP, 0, 2),
		STMT(BPF_LD | BPF_H | BPF_ABS, SKF_LL_OFF + 12), JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 1, 0),
		STMT(BPF_RET | BPF_K, 0), STMT(BPF_RET | BPF_K, 0x40000),
	};
	const struct { const char *name; int type; struct sock_filter *f; int n, count; } cases[] = {
#define F(name, type, f, count) { name, type, f, LEN(f), count }
		F("none", SOCK_RAW, none, 1), F("cut", SOCK_RAW, cut, 2), F("outgoing", SOCK_RAW, outgoing, 2), F("raw", SOCK_RAW, raw, 2),
		F("cooked", SOCK_DGRAM, cooked, 2), F("about", SOCK_RAW, about, 2), F("about-cooked", SOCK_DGRAM, about, 2),
		F("raw-on-cooked", SOCK_DGRAM, raw, 1),
	};
	for (int i = 0; i < LEN(cases); i++) {
		begin("packetfilter/%s", cases[i].name);
		int fd = on(cases[i].type, lo, ETH_P_ALL);
		ok("attach", attach(fd, cases[i].f, cases[i].n));
		message("nothing", fd, 10, 0);
		close(tell("127.0.0.1", 4000, "mark-08"));
		for (int k = 0; k < cases[i].count; k++) {
			unsigned char p[400];
			struct sockaddr_ll from;
			socklen_t n = sizeof from;
			long got = ready(fd, POLLIN, 300) & POLLIN ? recvfrom(fd, p, sizeof p, 0, (struct sockaddr *)&from, &n) : 0;
			if (got)
				say("%ld bytes, %s", got, from.sll_pkttype == PACKET_OUTGOING ? "outgoing" : "host");
			else
				say("none");
		}
		stats("statistics", fd);
		close(fd);
	}

	begin("packetfilter/set");
	int fd = on(SOCK_RAW, lo, ETH_P_IP);
	ok("bad", attach(fd, bad, 1));
	ok("empty", attach(fd, none, 0));
	ok("short", setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, none, 8));
	ok("EFAULT", attach(fd, NULL, 1));
	ok("detach", setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &(int){ 0 }, sizeof(int)));
	ok("attach", attach(fd, raw, LEN(raw)));
	struct sock_filter back[16];
	socklen_t n = LEN(raw);
	ok("get", getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, back, &n));
	say("%d instructions, %s", (int)n, memcmp(back, raw, sizeof raw) ? "WRONG" : "the same");
	n = 0;
	ok("get length", getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &n));
	say("%d instructions", (int)n);
	n = 2;
	ok("get too few", getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, back, &n));
	ok("replace", attach(fd, none, 1));
	close(tell("127.0.0.1", 4000, "mark-09"));
	see("replaced", fd, 1, 14);
	ok("detach", setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &(int){ 0 }, sizeof(int)));
	close(tell("127.0.0.1", 4000, "mark-10"));
	see("detached", fd, 1, 14);
	ok("attach", attach(fd, raw, LEN(raw)));
	ok("lock", setsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &(int){ 1 }, sizeof(int)));
	say("locked %d", opt(fd, SOL_SOCKET, SO_LOCK_FILTER));
	ok("attach", attach(fd, none, 1));
	ok("detach", setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &(int){ 0 }, sizeof(int)));
	ok("unlock", setsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &(int){ 0 }, sizeof(int)));
	say("SO_BPF_EXTENSIONS %d", opt(fd, SOL_SOCKET, SO_BPF_EXTENSIONS));
	close(fd), close(own);
}

int main(void)
{
	deadline(55);
	places();
	filters();
	return 0;
}
