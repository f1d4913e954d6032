// SPDX-License-Identifier: Apache-2.0

// Messages that are many datagrams: UDP_SEGMENT and UDP_GRO. The argument is 4 or 6.
#include "lab.h"
#include <netinet/udp.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

static int six;
static const char *fam;
static char out[70000], in[70000];

static int echo(void)
{
	struct addr to = mk(env(six ? "LAB_PEER6" : "LAB_PEER4"), ECHO);
	int fd = need("socket", socket(to.sa.sa_family, SOCK_DGRAM, 0));
	struct timeval tv = { 2, 0 };
	need("SO_RCVTIMEO", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
	need("connect", connect(fd, &to.sa, to.len));
	return fd;
}

static int segment(int fd, int n) { return setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &n, sizeof n); }

// cut sends n bytes with a control message of its own.
static void cut(const char *label, int fd, size_t n, int type, const void *v, size_t len)
{
	char control[64];
	memset(control, 0, sizeof control);
	struct iovec iov = { out, n };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(len) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = IPPROTO_UDP;
	c->cmsg_type = type;
	c->cmsg_len = CMSG_LEN(len);
	memcpy(CMSG_DATA(c), v, len);
	num(label, sendmsg(fd, &m, 0));
}

static void by(const char *label, int fd, size_t n, uint16_t size) { cut(label, fd, n, UDP_SEGMENT, &size, sizeof size); }

// back receives until want bytes are there, in order, and prints the sizes.
static void back(int fd, size_t want)
{
	char sizes[400] = "";
	size_t got = 0;
	while (got < want) {
		ssize_t n = recv(fd, in + got, sizeof in - got, 0);
		if (n < 0) {
			say("after %zu bytes: %s", got, errname(errno));
			return;
		}
		size_t used = strlen(sizes);
		snprintf(sizes + used, sizeof sizes - used, " %zd", n);
		got += n;
	}
	say("back:%s, %s", sizes, memcmp(in, out, want) ? "WRONG" : "right");
}

static void option(void)
{
	begin("segment/option-%s", fam);
	int fd = echo();
	say("default: %d", opt(fd, IPPROTO_UDP, UDP_SEGMENT));
	ok("1000", segment(fd, 1000));
	say("set: %d", opt(fd, IPPROTO_UDP, UDP_SEGMENT));
	num("send", send(fd, out, 2500, 0));
	back(fd, 2500);
	num("write", write(fd, out, 999));
	back(fd, 999);
	struct addr to = mk(env(six ? "LAB_PEER6" : "LAB_PEER4"), ECHO);
	num("sendto", sendto(fd, out, 2000, 0, &to.sa, to.len));
	back(fd, 2000);
	by("500 for this one", fd, 1200, 500);
	back(fd, 1200);
	by("none for this one", fd, 1200, 0);
	back(fd, 1200);
	ok("off", segment(fd, 0));
	num("send", send(fd, out, 1200, 0));
	back(fd, 1200);
	ok("-1", segment(fd, -1));
	ok("65535", segment(fd, 65535));
	ok("65536", segment(fd, 65536));
	ok("short", setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, out, 2));
	close(fd);
	fd = dial(env(six ? "LAB_PEER6" : "LAB_PEER4"), ECHO);
	ok("on TCP", segment(fd, 1000));
	close(fd);
}

static void message(void)
{
	begin("segment/message-%s", fam);
	int fd = echo(), hdr = six ? 48 : 28;
	by("one", fd, 700, 700);
	back(fd, 700);
	by("less than one", fd, 300, 700);
	back(fd, 300);
	by("two", fd, 1400, 700);
	back(fd, 1400);
	by("and a bit", fd, 1401, 700);
	back(fd, 1401);
	by("as large as the path", fd, 3 * (1420 - hdr), 1420 - hdr);
	back(fd, 3 * (1420 - hdr));
	by("larger", fd, 3000, 1420 - hdr + 1);
	by("larger, but short", fd, 1000, 1420 - hdr + 1);
	back(fd, 1000);
	by("much larger, but one", fd, 2000, 3000);
	by("128", fd, 128, 1);
	for (int i = 0, n = 0; i < 128; i++)
		if (recv(fd, in, 1, 0) != 1 || (++n == 128 && !(num("all are back", n), 0)))
			break;
	by("129", fd, 129, 1);
	by("most", fd, 65000, 1300);
	size_t got = 0;
	for (ssize_t n; got < 65000 && (n = recv(fd, in + got, sizeof in - got, 0)) > 0;)
		got += n;
	say("back: %zu, %s", got, memcmp(in, out, 65000) ? "WRONG" : "right");
	by("too much", fd, 65536, 1300);
	by("empty", fd, 0, 100);
	num("empty", recv(fd, in, sizeof in, 0));
	cut("four bytes", fd, 1000, UDP_SEGMENT, "\x64\0\0", 4);
	cut("one byte", fd, 1000, UDP_SEGMENT, "\x64", 1);
	cut("another type", fd, 1000, UDP_GRO, "\x64", 2);
	close(fd);
}

// put receives all of many datagrams into few messages.
static void put_together(void)
{
	begin("segment/gro-%s", fam);
	int fd = echo();
	say("default: %d", opt(fd, IPPROTO_UDP, UDP_GRO));
	ok("GRO", setsockopt(fd, IPPROTO_UDP, UDP_GRO, &(int){ 5 }, sizeof(int)));
	say("set: %d", opt(fd, IPPROTO_UDP, UDP_GRO));
	by("send", fd, 10500, 1000);
	size_t got = 0;
	int wrong = 0;
	while (got < 10500) {
		char control[128];
		struct iovec iov = { in + got, sizeof in - got };
		struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
		ssize_t n = recvmsg(fd, &m, 0);
		if (n <= 0)
			break;
		int size = 0;
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
			if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO && c->cmsg_len == CMSG_LEN(sizeof(int)))
				size = *(int *)CMSG_DATA(c);
		// How many come together is up to time; their size is not.
		wrong |= size ? size != 1000 || n <= size : n != 1000 && n != 500;
		wrong |= m.msg_flags != 0;
		got += n;
	}
	say("back: %zu, %s, %s", got, memcmp(in, out, 10500) ? "WRONG" : "right", wrong ? "WRONG sizes" : "right sizes");
	ok("off", setsockopt(fd, IPPROTO_UDP, UDP_GRO, &(int){ 0 }, sizeof(int)));
	say("off: %d", opt(fd, IPPROTO_UDP, UDP_GRO));
	by("send", fd, 3000, 1000);
	back(fd, 3000);
	close(fd);
}

int main(int argc, char **argv)
{
	deadline(30);
	if (argc != 2)
		return 9;
	fam = argv[1];
	six = *fam == '6';
	pattern(out, sizeof out, 0);
	option();
	message();
	put_together();
	return 0;
}
