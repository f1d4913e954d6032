// SPDX-License-Identifier: Apache-2.0

// What every target program has: a deadline, cases and results by name, and
// addresses whose variable parts are left out, so that a transcript is the same
// on every network that is laid out alike.
//
// A program runs many cases, one after the other, and each starts with begin:
// what is printed from there on, up to the next begin, is its transcript. Under
// umrun it must be the kernel's, line for line (view/viewtest/transcript_test.go).
//
// The environment says where things are: LAB_SELF4, LAB_SELF6 (own addresses),
// LAB_PEER4, LAB_PEER6, LAB_OTHER4, LAB_OTHER6, LAB_UNREACH4, LAB_UNREACH6,
// LAB_PROHIBIT4, LAB_BLACKHOLE4, LAB_BLACKHOLE6.
#ifndef LAB_H
#define LAB_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// Ports of the peer's small servers, as viewtest has them.
enum { ECHO = 7, DIGEST = 9, SOURCE = 19, RESET = 1001, ABORT = 1002, STUCK = 1003, GREET = 1004,
       WHO = 1005, CLOSED = 1006, SLOW = 1007, OTHER = 1010, BURST = 1011, URGENT = 1012 };

#define LEN(a) ((int)(sizeof(a) / sizeof((a)[0])))
#define UNUSED __attribute__((unused))

// errname is the constant's name of an errno.
static UNUSED const char *errname(int e)
{
	static const struct { int e; const char *s; } names[] = {
#define E(x) { x, #x }
		E(EPERM), E(ENOENT), E(EINTR), E(EIO), E(EBADF), E(EAGAIN), E(ENOMEM), E(EACCES), E(EFAULT), E(EBUSY),
		E(EEXIST), E(ENODEV), E(ENOTDIR), E(EINVAL), E(EMFILE), E(ENOTTY), E(ESPIPE), E(EPIPE), E(EDOM), E(ENOSYS),
		E(ENOTSOCK), E(EDESTADDRREQ), E(EMSGSIZE), E(EPROTOTYPE), E(ENOPROTOOPT), E(EPROTONOSUPPORT),
		E(ESOCKTNOSUPPORT), E(EOPNOTSUPP), E(EPFNOSUPPORT), E(EAFNOSUPPORT), E(EADDRINUSE), E(EADDRNOTAVAIL),
		E(ENETDOWN), E(ENETUNREACH), E(ECONNABORTED), E(ECONNRESET), E(ENOBUFS), E(EISCONN), E(ENOTCONN),
		E(ETIMEDOUT), E(ECONNREFUSED), E(EHOSTDOWN), E(EHOSTUNREACH), E(EALREADY), E(EINPROGRESS), E(ESRCH),
		E(ECHILD), E(ENXIO), E(ERANGE), E(EPROTO), E(ENOTUNIQ), E(ETOOMANYREFS), E(ELOOP), E(ENAMETOOLONG), E(ETIME), E(ENODATA),
#undef E
	};
	static char other[32];
	for (int i = 0; i < LEN(names); i++)
		if (names[i].e == e)
			return names[i].s;
	snprintf(other, sizeof other, "errno %d", e);
	return other;
}

static UNUSED void say(const char *fmt, ...)
{
	int keep = errno;
	va_list ap;
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
	errno = keep;
}

// ok prints a label with "ok" or the errno's name; num prints the number. Both
// return rc and keep errno.
static UNUSED long ok(const char *label, long rc)
{
	say("%s: %s", label, rc < 0 ? errname(errno) : "ok");
	return rc;
}

static UNUSED long num(const char *label, long rc)
{
	if (rc < 0)
		say("%s: %s", label, errname(errno));
	else
		say("%s: %ld", label, rc);
	return rc;
}

// need ends the program when something fails that is not under test.
static UNUSED long need(const char *label, long rc)
{
	if (rc < 0) {
		say("%s: %s, cannot go on", label, errname(errno));
		exit(9);
	}
	return rc;
}

// begin starts a case. Its name is PROGRAM/WHAT, as "udp/refused-4", and no
// other case has it: letters, digits and -._ in WHAT; a space becomes a -.
static UNUSED void begin(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static UNUSED void begin(const char *fmt, ...)
{
	char name[120];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(name, sizeof name, fmt, ap);
	va_end(ap);
	for (char *p = name; *p; p++)
		if (*p == ' ')
			*p = '-';
	printf("== %s\n", name);
	fflush(stdout);
}

// deadline ends the program after so many seconds; SIGPIPE is ignored.
static UNUSED void deadline(int seconds)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	alarm(seconds);
}

static UNUSED const char *env(const char *name)
{
	const char *v = getenv(name);
	if (!v) {
		fprintf(stderr, "%s is not set\n", name);
		exit(9);
	}
	return v;
}

// An address of either family.
struct addr {
	socklen_t len;
	union { struct sockaddr sa; struct sockaddr_in in; struct sockaddr_in6 in6; struct sockaddr_storage ss; };
};

static UNUSED struct addr mk(const char *ip, int port)
{
	struct addr a;
	memset(&a, 0, sizeof a);
	if (strchr(ip, ':')) {
		a.len = sizeof a.in6;
		a.in6.sin6_family = AF_INET6;
		a.in6.sin6_port = htons(port);
		if (inet_pton(AF_INET6, ip, &a.in6.sin6_addr) != 1)
			exit(9);
	} else {
		a.len = sizeof a.in;
		a.in.sin_family = AF_INET;
		a.in.sin_port = htons(port);
		if (inet_pton(AF_INET, ip, &a.in.sin_addr) != 1)
			exit(9);
	}
	return a;
}

// version is 4 or 6, for names of cases.
static UNUSED int version(const char *ip) { return strchr(ip, ':') ? 6 : 4; }

static UNUSED int port_of(const struct addr *a)
{
	return ntohs(a->sa.sa_family == AF_INET6 ? a->in6.sin6_port : a->in.sin_port);
}

// show writes an address: the own one is SELF, a port from 10000 on is EPH.
static UNUSED const char *show(const struct addr *a)
{
	static char out[4][160];
	static int turn;
	char *o = out[turn++ % 4], ip[64] = "?", port[16];
	const char *who = ip, *self4 = getenv("LAB_SELF4"), *self6 = getenv("LAB_SELF6");
	static char mapped[80];
	switch (a->len ? a->sa.sa_family : -1) {
	case AF_INET:
		inet_ntop(AF_INET, &a->in.sin_addr, ip, sizeof ip);
		break;
	case AF_INET6:
		inet_ntop(AF_INET6, &a->in6.sin6_addr, ip, sizeof ip);
		break;
	default:
		snprintf(o, 160, "family %d len %d", a->len ? a->sa.sa_family : -1, (int)a->len);
		return o;
	}
	if ((self4 && !strcmp(ip, self4)) || (self6 && !strcmp(ip, self6)))
		who = "SELF";
	if (self4 && !strncmp(ip, "::ffff:", 7) && !strcmp(ip + 7, self4)) {
		snprintf(mapped, sizeof mapped, "::ffff:SELF");
		who = mapped;
	}
	if (port_of(a) >= 10000)
		snprintf(port, sizeof port, "EPH");
	else
		snprintf(port, sizeof port, "%d", port_of(a));
	snprintf(o, 160, "%s port %s len %d", who, port, (int)a->len);
	return o;
}

static UNUSED void names(const char *label, int fd)
{
	struct addr a;
	a.len = sizeof a.ss;
	if (getsockname(fd, &a.sa, &a.len) < 0)
		say("%s getsockname: %s", label, errname(errno));
	else
		say("%s getsockname: %s", label, show(&a));
	a.len = sizeof a.ss;
	if (getpeername(fd, &a.sa, &a.len) < 0)
		say("%s getpeername: %s", label, errname(errno));
	else
		say("%s getpeername: %s", label, show(&a));
}

static UNUSED int opt(int fd, int level, int name)
{
	int v = 0;
	socklen_t n = sizeof v;
	return getsockopt(fd, level, name, &v, &n) < 0 ? -errno : v;
}

static UNUSED void so_error(const char *label, int fd)
{
	int e = opt(fd, SOL_SOCKET, SO_ERROR);
	say("%s SO_ERROR: %s", label, e == 0 ? "0" : e < 0 ? "call failed" : errname(e));
}

static UNUSED int tcp(const struct addr *to, int flags)
{
	return need("socket", socket(to->sa.sa_family, SOCK_STREAM | flags, 0));
}

// dial is a blocking connection that has to work.
static UNUSED int dial(const char *ip, int port)
{
	struct addr to = mk(ip, port);
	int fd = tcp(&to, 0);
	need("connect", connect(fd, &to.sa, to.len));
	return fd;
}

// events writes poll bits by name; epoll's are the same numbers.
static UNUSED const char *events(int ev)
{
	static const struct { int bit; const char *s; } bits[] = {
		{ POLLIN, "IN" }, { POLLPRI, "PRI" }, { POLLOUT, "OUT" }, { POLLERR, "ERR" }, { POLLHUP, "HUP" },
		{ POLLNVAL, "NVAL" }, { POLLRDHUP, "RDHUP" },
	};
	static char out[4][96];
	static int turn;
	char *o = out[turn++ % 4];
	o[0] = 0;
	for (int i = 0; i < LEN(bits); i++)
		if (ev & bits[i].bit) {
			if (o[0])
				strcat(o, "|");
			strcat(o, bits[i].s);
		}
	return o[0] ? o : "none";
}

// ready polls one descriptor and returns what holds, 0 at the timeout in ms.
static UNUSED int ready(int fd, int want, int timeout)
{
	struct pollfd p = { fd, want, 0 };
	int n;
	do
		n = poll(&p, 1, timeout);
	while (n < 0 && errno == EINTR);
	return n > 0 ? p.revents : 0;
}

static UNUSED long long now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

static UNUSED void nap(int ms) { usleep(ms * 1000); }

// sum is FNV-1a, as the peer's PortDigest computes it.
#define FNV0 14695981039346656037ULL
static UNUSED uint64_t sum(uint64_t h, const void *p, size_t n)
{
	const unsigned char *b = p;
	while (n--)
		h = (h ^ *b++) * 1099511628211ULL;
	return h;
}

// pattern fills p with the bytes of viewtest.Pattern from off on.
static UNUSED void pattern(void *p, size_t n, uint64_t off)
{
	unsigned char *b = p;
	for (size_t i = 0; i < n; i++, off++)
		b[i] = 31 * off + (off >> 8);
}

// all reads to the end of file, or n bytes; -1 with errno at an error.
static UNUSED long all(int fd, void *p, size_t n)
{
	size_t got = 0;
	while (got < n) {
		ssize_t r = read(fd, (char *)p + got, n - got);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -1;
		if (r == 0)
			break;
		got += r;
	}
	return got;
}

static UNUSED int put(int fd, const void *p, size_t n)
{
	while (n > 0) {
		ssize_t r = write(fd, p, n);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -1;
		p = (const char *)p + r;
		n -= r;
	}
	return 0;
}

// send_fd passes a descriptor over an AF_UNIX socket, with a byte; recv_fd takes one.
static UNUSED int send_fd(int via, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = "";
	struct iovec v = { "f", 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
	return sendmsg(via, &m, 0);
}

static UNUSED int recv_fd(int via)
{
	char control[CMSG_SPACE(sizeof(int))], b;
	struct iovec v = { &b, 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	if (recvmsg(via, &m, 0) != 1)
		return -1;
	int fd;
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
	return fd;
}

// text prints what was read as a line.
static UNUSED void text(const char *label, long n, const char *p)
{
	if (n < 0)
		say("%s: %s", label, errname(errno));
	else
		say("%s: %ld \"%.*s\"", label, n, (int)strcspn(p, "\n") < n ? (int)strcspn(p, "\n") : (int)n, p);
}

#endif
