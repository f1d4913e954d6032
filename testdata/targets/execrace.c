// SPDX-License-Identifier: Apache-2.0
//
// execrace ONE OTHER SECONDS: executes ONE while another thread makes OTHER of the path, again and
// again, and tells how often that went well and which errors there were.

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *paths[2];
static char *volatile path;
static volatile int stop, failed;
static char stack[1 << 16];

static void *flip(void *unused)
{
	for (unsigned i = 0; !stop; i++)
		strcpy(path, paths[i / 64 % 2]);
	return unused;
}

static int child(void *unused)
{
	char *argv[] = {"execrace", NULL}, *envp[] = {NULL};
	(void)unused;
	execve(path, argv, envp);
	failed = errno;
	_exit(127);
}

int main(int argc, char **argv)
{
	static char buf[4096];
	int ok = 0, killed = 0, tries = 0, seen[200] = {0};
	pthread_t t;
	time_t end;

	if (argc != 4)
		return 2;
	paths[0] = argv[1];
	paths[1] = argv[2];
	path = buf;
	strcpy(path, paths[0]);
	pthread_create(&t, NULL, flip, NULL);
	for (end = time(NULL) + atoi(argv[3]); time(NULL) < end; tries++) {
		int status;
		pid_t pid;

		failed = 0;
		pid = clone(child, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
		if (pid < 0 || waitpid(pid, &status, 0) != pid) {
			perror("clone");
			return 1;
		}
		if (failed)
			seen[failed % 200]++;
		else if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
			ok++;
		else
			killed++;
	}
	stop = 1;
	pthread_join(t, NULL);
	printf("tries %s, ok %s", tries > 100 ? "many" : "few", ok ? "some" : "none");
	for (int i = 1; i < 200; i++)
		if (seen[i])
			printf(", %s", strerrorname_np(i));
	printf("\n");
	fprintf(stderr, "tries %d, ok %d, killed %d\n", tries, ok, killed);
	return 0;
}
