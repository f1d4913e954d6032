// SPDX-License-Identifier: Apache-2.0

// What raw sockets keep out: ICMP filters, BPF filters, receive buffers. The
// argument is a version of IP.
#include "rawlab.h"

static int six;
static const char *lo;
static unsigned char in[70000], out[70000];

static int family(void) { return six ? AF_INET6 : AF_INET; }
static int icmp(void) { return six ? IPPROTO_ICMPV6 : IPPROTO_ICMP; }
static void start(const char *name) { begin("rawfilter/%s-%d", name, six ? 6 : 4); }

static int level(void) { return six ? IPPROTO_ICMPV6 : SOL_RAW; }
static int size(void) { return six ? 32 : 4; }

// block fills an ICMP filter that lets through what is listed, up to -1.
static void *block(const int *pass)
{
	static struct icmp6_filter f;
	memset(&f, 0xff, sizeof f);
	for (; *pass >= 0; pass++)
		f.icmp6_filt[*pass / 32] &= ~(1U << *pass % 32);
	return &f;
}

static void icmp_filter(void)
{
	struct addr a = mk(lo, 0);
	int reply[] = { six ? ICMP6_ECHO_REPLY : ICMP_ECHOREPLY, -1 }, none_[] = { -1 };
	unsigned char f[64];
	socklen_t n = sizeof f;
	start("icmp-filter");
	int fd = raw(family(), icmp());
	num("get", getsockopt(fd, level(), ICMP_FILTER, f, &n));
	say("%d bytes, first %d", (int)n, f[0]);
	ok("set", setsockopt(fd, level(), ICMP_FILTER, block(reply), size()));
	n = sizeof f;
	num("get", getsockopt(fd, level(), ICMP_FILTER, f, &n));
	say("%d bytes: %s", (int)n, memcmp(f, block(reply), size()) ? "differs" : "the same");
	num("sendto", put_to(fd, out, echo(out, six, 5, 1, 8), &a));
	get("only the reply", fd, in);
	none("no more", fd);
	start("icmp-filter-all");
	ok("set", setsockopt(fd, level(), ICMP_FILTER, block(none_), size()));
	num("sendto", put_to(fd, out, echo(out, six, 5, 2, 8), &a));
	none("all", fd);
	start("icmp-filter-short");
	ok("2 bytes", setsockopt(fd, level(), ICMP_FILTER, "\0\0", 2));
	n = sizeof f;
	getsockopt(fd, level(), ICMP_FILTER, f, &n);
	say("%02x %02x %02x %02x", f[0], f[1], f[2], f[3]);
	n = 2;
	num("get 2", getsockopt(fd, level(), ICMP_FILTER, f, &n));
	say("%d bytes", (int)n);
	ok("long", setsockopt(fd, level(), ICMP_FILTER, f, sizeof f));
	ok("unknown", setsockopt(fd, level(), 77, f, 4));
	n = sizeof f;
	ok("get unknown", getsockopt(fd, level(), 77, f, &n));
	close(fd);
	start("icmp-filter-others");
	fd = raw(family(), FREE);
	ok("set", setsockopt(fd, level(), ICMP_FILTER, f, size()));
	n = sizeof f;
	ok("get", getsockopt(fd, level(), ICMP_FILTER, f, &n));
	close(fd);
}

static int attach(int fd, struct sock_filter *f, int n)
{
	struct sock_fprog p = { n, f };
	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof p);
}

#define RUN(fd, ...) ({ struct sock_filter prog[] = { __VA_ARGS__ }; attach(fd, prog, LEN(prog)); })

static void bpf(void)
{
	struct addr a = mk(lo, 0);
	int at = six ? 0 : 20, zero = 0, one = 1;
	struct sock_filter keep = BPF_STMT(BPF_RET | BPF_K, 0xffff), got[8];
	socklen_t n;
	start("bpf");
	int fd = raw(family(), FREE), s = raw(family(), FREE);
	// Data that begins with an y.
	ok("attach", RUN(fd, BPF_STMT(BPF_LD | BPF_B | BPF_ABS, at), BPF_JUMP(BPF_JMP | BPF_JEQ, 'y', 0, 1), keep, BPF_STMT(BPF_RET | BPF_K, 0)));
	put_to(s, "no", 2, &a);
	put_to(s, "yes", 3, &a);
	get("kept", fd, in);
	none("no more", fd);
	start("bpf-get");
	n = 0;
	num("how many", getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &n));
	say("%d", (int)n);
	n = 8;
	num("get", getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, got, &n));
	say("%d instructions, the second %x %d %d %d", (int)n, got[1].code, got[1].jt, got[1].jf, got[1].k);
	n = 2;
	num("too little room", getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, got, &n));
	start("bpf-cut");
	ok("attach", RUN(fd, BPF_STMT(BPF_RET | BPF_K, at + 2)));
	put_to(s, "12345", 5, &a);
	long k = recv(fd, in, sizeof in, 0);
	num("recv", k);
	start("bpf-headers");
	// The protocol of the IP header, wherever the data begins.
	ok("attach", RUN(fd, BPF_STMT(BPF_LD | BPF_B | BPF_ABS, SKF_NET_OFF + (six ? 6 : 9)), BPF_JUMP(BPF_JMP | BPF_JEQ, FREE, 0, 1), keep, BPF_STMT(BPF_RET | BPF_K, 0)));
	put_to(s, "by header", 9, &a);
	get("by header", fd, in);
	ok("attach", RUN(fd, BPF_STMT(BPF_LD | BPF_H | BPF_ABS, SKF_AD_OFF + SKF_AD_PROTOCOL), BPF_JUMP(BPF_JMP | BPF_JEQ, six ? 0x86dd : 0x0800, 0, 1), keep, BPF_STMT(BPF_RET | BPF_K, 0)));
	put_to(s, "by type", 7, &a);
	get("by type", fd, in);
	ok("attach", RUN(fd, BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0), BPF_JUMP(BPF_JMP | BPF_JEQ, at + 7, 0, 1), keep, BPF_STMT(BPF_RET | BPF_K, 0)));
	put_to(s, "length", 6, &a);
	put_to(s, "lengths", 7, &a);
	get("by length", fd, in);
	start("bpf-wrong");
	ok("no instructions", attach(fd, got, 0));
	ok("no program", attach(fd, NULL, 1));
	ok("bad program", attach(fd, (struct sock_filter *)8, 1));
	ok("short", setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &keep, sizeof keep));
	ok("no return", RUN(fd, BPF_STMT(BPF_LD | BPF_IMM, 1)));
	ok("too many", attach(fd, got, 5000));
	ok("a jump too far", RUN(fd, BPF_JUMP(BPF_JMP | BPF_JA, 9, 0, 0), keep));
	start("bpf-detach");
	ok("detach", setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &zero, sizeof zero));
	ok("again", setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &zero, sizeof zero));
	put_to(s, "anything", 8, &a);
	get("anything", fd, in);
	start("bpf-lock");
	ok("attach", RUN(fd, BPF_STMT(BPF_RET | BPF_K, 0)));
	ok("lock", setsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &one, sizeof one));
	say("SO_LOCK_FILTER %d", opt(fd, SOL_SOCKET, SO_LOCK_FILTER));
	ok("detach", setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &zero, sizeof zero));
	ok("attach", RUN(fd, keep));
	ok("unlock", setsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &zero, sizeof zero));
	put_to(s, "nothing", 7, &a);
	none("nothing", fd);
	close(fd);
	close(s);
}

static void sizes(void)
{
	struct addr a = mk(lo, 0);
	int n;
	start("queue-length");
	int fd = raw(family(), FREE);
	need("FIONREAD", ioctl(fd, FIONREAD, &n));
	say("FIONREAD %d", n);
	put_to(fd, "12345", 5, &a);
	put_to(fd, "123", 3, &a);
	ready(fd, POLLIN, 1000);
	need("FIONREAD", ioctl(fd, FIONREAD, &n));
	say("FIONREAD %d", n);
	need("TIOCOUTQ", ioctl(fd, TIOCOUTQ, &n));
	say("TIOCOUTQ %d", n);
	close(fd);
	start("full");
	fd = raw(family(), FREE);
	int s = raw(family(), FREE);
	n = 8192;
	need("SO_RCVBUF", setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &n, sizeof n));
	for (int i = 0; i < 1000; i++)
		if (put_to(s, out, 1000, &a) != 1000)
			say("WRONG");
	nap(50);
	int got = 0;
	while (ready(fd, POLLIN, 20) && recv(fd, in, sizeof in, MSG_DONTWAIT) > 0)
		got++;
	say("%s", got == 0 ? "none" : got < 200 ? "some are lost" : "too many");
	put_to(s, "room again", 10, &a);
	get("later", fd, in);
	close(fd);
	close(s);
}

int main(int argc, char **argv)
{
	deadline(50);
	six = argc > 1 && !strcmp(argv[1], "6");
	lo = six ? "::1" : "127.0.0.1";
	icmp_filter();
	bpf();
	sizes();
	return 0;
}
