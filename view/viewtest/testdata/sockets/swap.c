// SPDX-License-Identifier: Apache-2.0

// Tries to reach DIR/secret by sockets while another thread puts other files under the number
// of the descriptor, or an address into the message. What is reached hears which way it was:
// the call, and what was under the number meanwhile.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { NUMBER = 100 };
enum { SPAN = 40 }; // ms for each way

static const char *dir;
static struct sockaddr_un stream = { AF_UNIX }, dgram = { AF_UNIX };
static struct iovec text;
static struct mmsghdr message;
static atomic_int decoy, real, over, flips;

static void *swap(void *unused)
{
	while (!over) {
		dup2(decoy, NUMBER);
		dup2(real, NUMBER);
		flips++;
	}
	return unused;
}

// rewrite gives the message an address, and takes it away.
static void *rewrite(void *unused)
{
	volatile struct msghdr *h = &message.msg_hdr;
	while (!over) {
		h->msg_name = &dgram;
		h->msg_namelen = sizeof dgram;
		for (volatile int i = 0; i < 50; i++)
			;
		h->msg_namelen = 0;
		h->msg_name = 0;
		flips++;
	}
	return unused;
}

// readdress does so with the arguments of a call that has them in memory.
static volatile long words[6];

static void *readdress(void *unused)
{
	while (!over) {
		words[4] = (long)&dgram;
		words[5] = sizeof dgram;
		for (volatile int i = 0; i < 50; i++)
			;
		words[4] = words[5] = 0;
		flips++;
	}
	return unused;
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static int need(const char *what, int fd)
{
	if (fd < 0)
		err(1, "%s", what);
	return fd;
}

enum { CONNECT, BIND, SENDTO, SENDMSG, SENDMMSG, CALLS, SOCKETCALL = CALLS };
static const char *calls[] = { "connect", "bind", "sendto", "sendmsg", "sendmmsg", "socketcall" };

// attack makes a call again and again for some time.
static void attack(int call, const char *against, void *(*thread)(void *))
{
	char label[64], path[108];
	pthread_t t;
	long tries = 0;
	int fresh = call == CONNECT || call == BIND;
	text.iov_len = snprintf(label, sizeof label, "%s/%s", calls[call], against);
	text.iov_base = label;
	over = flips = 0;
	if (thread == swap) {
		message.msg_hdr.msg_name = &dgram;
		message.msg_hdr.msg_namelen = sizeof dgram;
		real = need("socket", socket(AF_UNIX, SOCK_DGRAM, 0));
	}
	pthread_create(&t, 0, thread, 0);
	while (!flips)
		sched_yield();
	for (double end = now() + SPAN; now() < end; tries++) {
		int fd = NUMBER, old = -1;
		if (fresh) {
			old = real;
			real = need("socket", socket(AF_UNIX, call == CONNECT ? SOCK_STREAM : SOCK_DGRAM, 0));
		}
		switch (call) {
		case CONNECT:
			connect(fd, (void *)&stream, sizeof stream);
			send(real, label, text.iov_len, MSG_NOSIGNAL); // if it is connected
			send(old, label, text.iov_len, MSG_NOSIGNAL);  // or this still was there
			break;
		case BIND: {
			struct sockaddr_un a = { AF_UNIX };
			snprintf(path, sizeof path, "%s/secret/%s.%s", dir, calls[call], against);
			strcpy(a.sun_path, path);
			bind(fd, (void *)&a, sizeof a);
			break;
		}
		case SENDTO:
			sendto(fd, label, text.iov_len, MSG_DONTWAIT | MSG_NOSIGNAL, (void *)&dgram, sizeof dgram);
			break;
		case SENDMSG:
			sendmsg(fd, &message.msg_hdr, MSG_DONTWAIT | MSG_NOSIGNAL);
			break;
		case SENDMMSG:
			sendmmsg(fd, &message, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
			break;
#ifdef SYS_socketcall
		case SOCKETCALL:
			words[0] = fd;
			words[1] = (long)label;
			words[2] = text.iov_len;
			words[3] = MSG_DONTWAIT | MSG_NOSIGNAL;
			syscall(SYS_socketcall, 11 /* SYS_SENDTO */, words);
#endif
		}
		if (old >= 0)
			close(old);
	}
	over = 1;
	pthread_join(t, 0);
	close(NUMBER);
	if (!tries || !flips)
		errx(1, "%s: %ld tries, %d changes", label, tries, flips);
	printf("%s %ld\n", label, tries);
}

int main(int argc, char **argv)
{
	if (argc != 2)
		errx(2, "usage: swap DIR");
	static const char *names[] = { "udp", "tcp", "netlink", "stream", "seqpacket", "file", "path", "opath" };
	int fds[8], pair[2];
	dir = argv[1];
	snprintf(stream.sun_path, sizeof stream.sun_path, "%s/secret/stream", dir);
	snprintf(dgram.sun_path, sizeof dgram.sun_path, "%s/secret/dgram", dir);
	message.msg_hdr.msg_iov = &text;
	message.msg_hdr.msg_iovlen = 1;
	int family = AF_INET;
	fds[0] = socket(family, SOCK_DGRAM, 0);
	if (fds[0] < 0 && sizeof(long) == 4) // has no others on umrun's own stack
		fds[0] = need("udp", socket(family = AF_UNIX, SOCK_DGRAM, 0));
	fds[1] = need("tcp", socket(family, SOCK_STREAM, 0));
	fds[2] = need("netlink", family == AF_INET ? socket(AF_NETLINK, SOCK_RAW, 0) : dup(fds[0]));
	need("pair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	fds[3] = pair[0];
	need("pair", socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
	fds[4] = pair[0];
	fds[5] = need("/dev/null", open("/dev/null", O_RDWR));
	struct sockaddr_un mine = { AF_UNIX };
	snprintf(mine.sun_path, sizeof mine.sun_path, "%s/open/mine", dir);
	unlink(mine.sun_path);
	need("bind", bind(socket(AF_UNIX, SOCK_DGRAM, 0), (void *)&mine, sizeof mine));
	fds[6] = need("O_PATH", sizeof(long) == 4 ? dup(fds[5]) : open(dir, O_PATH));
	fds[7] = need("O_PATH", sizeof(long) == 4 ? dup(fds[5]) : open(mine.sun_path, O_PATH));
	for (int call = 0; call < CALLS; call++)
		for (int i = 0; i < 8; i++) {
			decoy = fds[i];
			attack(call, names[i], swap);
		}
	// A socket that is connected, and a message with no address or with one.
	int s = need("socket", socket(AF_UNIX, SOCK_DGRAM, 0));
	need("connect", connect(s, (void *)&mine, sizeof mine));
	dup2(s, NUMBER);
	attack(SENDMSG, "address", rewrite);
	dup2(s, NUMBER);
	attack(SENDMMSG, "address", rewrite);
#ifdef SYS_socketcall
	dup2(s, NUMBER);
	attack(SOCKETCALL, "address", readdress);
#endif
	return 0;
}
