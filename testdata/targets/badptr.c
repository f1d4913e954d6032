// SPDX-License-Identifier: Apache-2.0

// Bad pointers in every call that takes one: the program gets its errno, and
// lives.
#include "lab.h"
#include <net/if.h>
#include <sys/mman.h>

static char *hole, *ro, *edge; // unmapped; read-only; the last byte before a hole

static void each(const char *kind, void *bad)
{
	char l[80];
	struct addr a = mk(env("LAB_PEER4"), ECHO);
	int t = need("socket", socket(AF_INET, SOCK_STREAM, 0)), u = need("socket", socket(AF_INET, SOCK_DGRAM, 0));
	int s = dial(env("LAB_PEER4"), ECHO);
	struct addr lo = mk("127.0.0.1", 0);
	int ls = need("socket", socket(AF_INET, SOCK_STREAM, 0));
	need("bind", bind(ls, &lo.sa, lo.len));
	need("listen", listen(ls, 4));
	lo.len = sizeof lo.ss;
	getsockname(ls, &lo.sa, &lo.len);
	socklen_t n = 16;
	struct msghdr m;
	struct iovec v = { "x", 1 };
#define TRY(name, call) snprintf(l, sizeof l, "%s: %s", kind, name), ok(l, call)
	begin("badptr/send-%s", kind);
	TRY("connect", syscall(SYS_connect, t, bad, 16));
	TRY("bind", syscall(SYS_bind, t, bad, 16));
	TRY("sendto address", syscall(SYS_sendto, u, "x", 1, 0, bad, 16));
	TRY("sendto data", syscall(SYS_sendto, u, bad, 100, 0, &a.sa, a.len));
	TRY("sendmsg", syscall(SYS_sendmsg, u, bad, 0));
	memset(&m, 0, sizeof m);
	m.msg_name = bad, m.msg_namelen = 16, m.msg_iov = &v, m.msg_iovlen = 1;
	TRY("sendmsg name", sendmsg(u, &m, 0));
	m.msg_name = &a.sa, m.msg_iov = bad;
	TRY("sendmsg iovec", sendmsg(u, &m, 0));
	struct iovec bv = { bad, 100 };
	m.msg_iov = &bv;
	TRY("sendmsg data", sendmsg(u, &m, 0));
	m.msg_iov = &v, m.msg_control = bad, m.msg_controllen = 32;
	TRY("sendmsg control", sendmsg(u, &m, 0));
	TRY("sendmmsg", syscall(SYS_sendmmsg, u, bad, 1, 0));
	begin("badptr/options-%s", kind);
	TRY("setsockopt", syscall(SYS_setsockopt, t, SOL_SOCKET, SO_REUSEADDR, bad, 4));
	TRY("setsockopt TCP", syscall(SYS_setsockopt, t, IPPROTO_TCP, TCP_NODELAY, bad, 4));
	TRY("getsockopt length", syscall(SYS_getsockopt, t, SOL_SOCKET, SO_TYPE, &n, bad));
	TRY("getsockopt value", syscall(SYS_getsockopt, t, SOL_SOCKET, SO_TYPE, bad, &n));
	begin("badptr/names-%s", kind);
	TRY("getsockname", syscall(SYS_getsockname, s, bad, &n));
	TRY("getsockname length", syscall(SYS_getsockname, s, &a.ss, bad));
	TRY("getpeername", syscall(SYS_getpeername, s, bad, &n));
	TRY("getpeername length", syscall(SYS_getpeername, s, &a.ss, bad));
	begin("badptr/ioctl-%s", kind);
	TRY("ioctl FIONREAD", ioctl(s, FIONREAD, bad));
	TRY("ioctl SIOCGIFCONF", ioctl(u, SIOCGIFCONF, bad));
	TRY("ioctl SIOCGIFADDR", ioctl(u, SIOCGIFADDR, bad));
	TRY("read", read(s, bad, 0) < 0 ? -1 : 0);
	begin("badptr/receive-%s", kind);
	// Something to accept and to receive.
	int c = tcp(&lo, 0);
	need("connect", connect(c, &lo.sa, lo.len));
	TRY("accept", syscall(SYS_accept, ls, bad, &n));
	int c2 = tcp(&lo, 0);
	need("connect", connect(c2, &lo.sa, lo.len));
	TRY("accept length", syscall(SYS_accept4, ls, &a.ss, bad, 0));
	a = mk(env("LAB_PEER4"), ECHO);
	sendto(u, "one", 3, 0, &a.sa, a.len);
	ready(u, POLLIN, 5000);
	n = 16;
	TRY("recvfrom address", syscall(SYS_recvfrom, u, l + 79, 1, MSG_DONTWAIT, bad, &n));
	sendto(u, "two", 3, 0, &a.sa, a.len);
	ready(u, POLLIN, 5000);
	TRY("recvfrom data", syscall(SYS_recvfrom, u, bad, 100, MSG_DONTWAIT, &a.ss, &n));
	a = mk(env("LAB_PEER4"), ECHO);
	sendto(u, "three", 5, 0, &a.sa, a.len);
	ready(u, POLLIN, 5000);
	TRY("recvmsg", syscall(SYS_recvmsg, u, bad, MSG_DONTWAIT));
	TRY("recvmmsg", syscall(SYS_recvmmsg, u, bad, 1, MSG_DONTWAIT, NULL));
	num("recv what is left", recv(u, l, 79, MSG_DONTWAIT) > 0);
	close(t), close(u), close(s), close(ls), close(c), close(c2);
}

// edges: an address that ends with its mapping is good, one that goes beyond
// is not.
static void edges(void)
{
	struct addr a = mk(env("LAB_PEER4"), ECHO);
	char *end = edge + 4096;
	int u = socket(AF_INET, SOCK_DGRAM, 0);
	memcpy(end - 16, &a.in, 16);
	begin("badptr/edges");
	ok("address at the end", connect(u, (void *)(end - 16), 16));
	ok("address over the end", connect(u, (void *)(end - 8), 16));
	num("data at the end", sendto(u, end - 10, 10, 0, NULL, 0));
	num("data over the end", sendto(u, end - 10, 11, 0, NULL, 0));
	socklen_t n = 16;
	ok("name into the end", getsockname(u, (void *)(end - 16), &n));
	n = 16;
	ok("name over the end", getsockname(u, (void *)(end - 15), &n));
	n = 8;
	ok("cut name into the end", getsockname(u, (void *)(end - 8), &n));
	say("length %d", (int)n);
	n = 16;
	ok("name into read-only", getsockname(u, (void *)ro, &n));
	ok("address from read-only", connect(u, (void *)ro, 16));
}

int main(int argc, char **argv)
{
	deadline(30);
	hole = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	edge = hole;
	munmap(hole + 4096, 4096);
	hole += 4096;
	ro = hole + 4096;
	struct addr a = mk(env("LAB_PEER4"), ECHO);
	memcpy(ro, &a.in, 16);
	mprotect(ro, 4096, PROT_READ);
	each("null", NULL);
	each("one", (void *)1);
	each("hole", hole);
	each("kernel", (void *)0xffffffff81000000UL);
	edges();
	say("alive");
	return 0;
}
