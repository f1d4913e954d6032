// SPDX-License-Identifier: Apache-2.0
//
// Says what all calls of uname(2) that there are tell, also to other personalities and in a UTS
// namespace of its own.
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/syscall.h>
#include <unistd.h>

static void ask(const char *when, long nr, int field, int fields)
{
	char u[512];
	memset(u, '#', sizeof u);
	if (syscall(nr, u)) {
		printf("%s %ld: %s\n", when, nr, strerror(errno));
		return;
	}
	printf("%s %ld:", when, nr);
	for (int i = 0; i < fields; i++)
		printf(" [%.*s]", field, u + i * field);
	printf(" %d\n", u[field * fields] == '#');
}

static void all(const char *when)
{
#ifdef __i386__
	ask(when, 59, 9, 5);
	ask(when, 109, 65, 5);
	ask(when, 122, 65, 6);
#else
	ask(when, SYS_uname, 65, 6);
#endif
}

int main(void)
{
	dup2(1, 2);
	setbuf(stdout, NULL);
	all("plain");
	personality(PER_LINUX32);
	all("linux32");
	personality(PER_LINUX | 0x20000);
	all("2.6");
	personality(PER_LINUX32 | 0x20000);
	all("both");
	personality(PER_LINUX);
	if (syscall(SYS_uname, 8))
		perror("nowhere");
	if (geteuid() && sethostname("changed", 7))
		perror("set");
	if (unshare(CLONE_NEWUSER | CLONE_NEWUTS)) {
		perror("unshare");
		return 1;
	}
	printf("set %d\n", sethostname("own", 3));
	all("own");
	return 0;
}
