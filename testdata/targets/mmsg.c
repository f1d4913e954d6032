// SPDX-License-Identifier: Apache-2.0

// recvmmsg(2) that ends before all messages are there: a socket that is shut, errors in
// the middle, bad memory.
//
// Usage: mmsg 4|6
#include "dgram.h"
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>

#define MANY 1030

static const char *lo;
static int v, s, r, port, other; // a sender and its port, a receiver that is connected to it, and its port

static struct mmsghdr mm[MANY];
static struct iovec iov[MANY];
static char data[8][16];
static struct addr name[8];

static void prepare(void)
{
	memset(mm, 0, sizeof mm);
	memset(data, '-', sizeof data);
	for (int i = 0; i < MANY; i++) {
		iov[i] = (struct iovec){ data[i % 8], 16 };
		mm[i].msg_hdr = (struct msghdr){ .msg_name = &name[i % 8].ss, .msg_namelen = sizeof name[0].ss, .msg_iov = &iov[i], .msg_iovlen = 1 };
		mm[i].msg_len = 77;
	}
}

static void show_all(int n)
{
	for (int i = 0; i < n; i++)
		say("%u \"%.4s\" flags %x, name of %d", mm[i].msg_len, data[i], mm[i].msg_hdr.msg_flags, (int)mm[i].msg_hdr.msg_namelen);
}

// pair makes s and r.
static void pair(void)
{
	struct timeval tv = { 3, 0 };
	if (s)
		close(s);
	if (r)
		close(r);
	s = bound(lo, 0);
	r = bound(lo, 0);
	port = port_at(s);
	other = port_at(r);
	need("connect", connect_to(r, lo, port));
	setsockopt(r, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
}

static void sent(const char *word)
{
	give(s, word, lo, other);
	nap(20);
}

static void *shut_later(void *how)
{
	nap(100);
	shutdown(r, (long)how);
	return NULL;
}

static void after(void)
{
	struct pollfd p = { r, POLLIN, 0 };
	int e = -1;
	socklen_t n = sizeof e;
	poll(&p, 1, 0);
	say("poll %x", p.revents);
	getsockopt(r, SOL_SOCKET, SO_ERROR, &e, &n);
	say("SO_ERROR %s", e ? errname(e) : "none");
}

static void shut(void)
{
	struct timespec ts = { 1, 0 };
	pthread_t th;
	begin("mmsg/shut-%d", v);
	pair();
	sent("one");
	num("shutdown", shutdown(r, SHUT_RD));
	prepare();
	num("what was there, and nothing", recvmmsg(r, mm, 3, 0, NULL));
	show_all(3);
	prepare();
	num("nothing", recvmmsg(r, mm, 2, 0, NULL));
	show_all(2);
	num("WAITFORONE", recvmmsg(r, mm, 2, MSG_WAITFORONE, NULL));
	num("DONTWAIT", recvmmsg(r, mm, 2, MSG_DONTWAIT, NULL));
	num("in time", recvmmsg(r, mm, 2, 0, &ts));
	num("recvmsg", recvmsg(r, &mm[0].msg_hdr, 0));
	fcntl(r, F_SETFL, O_NONBLOCK);
	num("O_NONBLOCK", recvmmsg(r, mm, 2, 0, NULL));
	fcntl(r, F_SETFL, 0);
	after();

	begin("mmsg/shut-meanwhile-%d", v);
	pair();
	pthread_create(&th, NULL, shut_later, (void *)SHUT_RD);
	prepare();
	num("nothing", recvmmsg(r, mm, 3, 0, NULL));
	show_all(3);
	pthread_join(th, NULL);
	after();
	pair();
	sent("one");
	pthread_create(&th, NULL, shut_later, (void *)SHUT_RDWR);
	prepare();
	num("one", recvmmsg(r, mm, 3, 0, NULL));
	show_all(3);
	pthread_join(th, NULL);
	after();
	pair();
	pthread_create(&th, NULL, shut_later, (void *)SHUT_RD);
	num("WAITFORONE", recvmmsg(r, mm, 3, MSG_WAITFORONE, NULL));
	pthread_join(th, NULL);
	pair();
	pthread_create(&th, NULL, shut_later, (void *)SHUT_RD);
	num("recvmsg", recvmsg(r, &mm[0].msg_hdr, 0));
	pthread_join(th, NULL);
}

// refuse has what r sends refused.
static void refuse(void)
{
	close(s);
	s = 0;
	nap(100);
}

static void *fail_later(void *unused)
{
	nap(100);
	send(r, "refused", 7, 0);
	return unused;
}

static void errors(void)
{
	pthread_t th;
	begin("mmsg/error-before-%d", v);
	pair();
	sent("one");
	refuse();
	num("send", send(r, "refused", 7, 0));
	nap(50);
	prepare();
	num("recvmmsg", recvmmsg(r, mm, 2, MSG_DONTWAIT, NULL));
	num("again", recvmmsg(r, mm, 2, MSG_DONTWAIT, NULL));
	show_all(1);
	after();

	begin("mmsg/error-meanwhile-%d", v);
	pair();
	sent("one");
	refuse();
	pthread_create(&th, NULL, fail_later, NULL);
	prepare();
	num("one", recvmmsg(r, mm, 3, 0, NULL));
	pthread_join(th, NULL);
	show_all(2);
	num("the error", recvmmsg(r, mm, 3, MSG_DONTWAIT, NULL));
	num("none", recvmmsg(r, mm, 3, MSG_DONTWAIT, NULL));
	pthread_create(&th, NULL, fail_later, NULL);
	num("at once", recvmmsg(r, mm, 3, 0, NULL));
	pthread_join(th, NULL);
	after();
	pair();
	sent("one");
	refuse();
	pthread_create(&th, NULL, fail_later, NULL);
	num("one", recvmmsg(r, mm, 3, 0, NULL));
	pthread_join(th, NULL);
	after();
	after();
}

static void memory(void)
{
	char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(page + 4096, 4096);
	for (int i = 0; i < 5; i++) {
		begin("mmsg/bad-%d-%d", i, v);
		pair();
		sent("one");
		sent("two");
		sent("tri");
		prepare();
		struct mmsghdr *at = mm;
		switch (i) {
		case 0:
			iov[1].iov_base = (void *)8;
			break;
		case 1: // the header of the second is not there
			at = (void *)(page + 4096 - sizeof *mm);
			*at = mm[0];
			break;
		case 2:
			mm[1].msg_hdr.msg_name = (void *)8;
			break;
		case 3:
			mm[1].msg_hdr.msg_iovlen = 2000;
			break;
		case 4:
			mm[1].msg_hdr.msg_iov = (void *)8;
			break;
		}
		num("one", recvmmsg(r, at, 3, MSG_DONTWAIT, NULL));
		struct pollfd p = { r, POLLIN, 0 };
		poll(&p, 1, 0);
		say("poll %x", p.revents);
		prepare();
		num("the error", recvmmsg(r, mm, 3, MSG_DONTWAIT, NULL));
		num("the rest", recvmmsg(r, mm, 3, MSG_DONTWAIT, NULL));
		show_all(2);
	}
	begin("mmsg/bad-time-%d", v);
	pair();
	sent("one");
	prepare();
	num("no timespec", recvmmsg(r, mm, 3, MSG_DONTWAIT, (void *)8));
	struct timespec *ts = (void *)page;
	*ts = (struct timespec){ 1, 0 };
	mprotect(page, 4096, PROT_READ);
	num("one that is not written", recvmmsg(r, mm, 3, MSG_DONTWAIT, ts));
	num("what is left", recvmmsg(r, mm, 3, MSG_DONTWAIT, NULL));
	*mm = (struct mmsghdr){ .msg_hdr = { .msg_iov = iov, .msg_iovlen = 1 } };
	num("of none, no time", recvmmsg(r, mm, 0, 0, ts));
	munmap(page, 4096);
}

static void *feed(void *unused)
{
	for (int i = 0; i < MANY; i++) {
		give(s, "x", lo, other);
		if (i % 50 == 49)
			nap(20);
	}
	return unused;
}

int main(int argc, char **argv)
{
	pthread_t th;
	deadline(60);
	if (argc != 2)
		return 9;
	v = atoi(argv[1]);
	lo = v == 6 ? "::1" : "127.0.0.1";
	shut();
	errors();
	memory();
	begin("mmsg/many-%d", v);
	pair();
	prepare();
	pthread_create(&th, NULL, feed, NULL);
	num("all", recvmmsg(r, mm, MANY, 0, NULL));
	pthread_join(th, NULL);
	return 0;
}
