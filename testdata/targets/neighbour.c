// SPDX-License-Identifier: Apache-2.0

// A process that has things, and one that tries to take them by each way that Linux has for
// one process to use another of its user.
//
//	neighbour serve DIR       a victim: it is in DIR, holds a file and a socket, and says who it is
//	neighbour try PID ADDR    what each way into PID says; ADDR is where its secret is
//	neighbour child DIR       the same of a child of its own, that is a victim

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#define PIDFD_GET_MNT_NAMESPACE _IO(0xFF, 3)
#define PIDFD_GET_NET_NAMESPACE _IO(0xFF, 4)

static char secret[4096] __attribute__((aligned(4096))) = "a secret";

enum { FILE_FD = 40, SOCKET_FD = 41 };

static void say(const char *what, long r)
{
	printf("%s: %s\n", what, r < 0 ? strerrorname_np(errno) : "ok");
	fflush(stdout);
}

static void got_signal(int sig) { (void)!write(1, "signalled\n", 10); }

// serve does not return.
static void serve(const char *dir, int ready)
{
	signal(SIGUSR1, got_signal);
	if (chdir(dir) < 0)
		perror(dir);
	int f = open("held", O_RDWR | O_CREAT, 0600), s = socket(AF_UNIX, SOCK_STREAM, 0);
	if (f < 0 || s < 0)
		perror("held");
	dup2(f, FILE_FD);
	dup2(s, SOCKET_FD);
	close(f);
	close(s);
	dprintf(ready, "%d %p\n", getpid(), (void *)secret);
	for (;;)
		pause();
}

static int kind(const char *call, pid_t pid, const char *file, int flags)
{
	char path[300], link[300];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
	struct stat st;
	if (!strcmp(call, "readlink"))
		return readlink(path, link, sizeof link);
	if (!strcmp(call, "stat"))
		return stat(path, &st);
	int fd = open(path, flags);
	if (fd >= 0 && !strcmp(call, "read") && read(fd, link, 1) < 0)
		return -1;
	return fd;
}

static void looks(pid_t pid)
{
	static const struct { const char *call, *file; int flags; } of[] = {
		{ "open", "mem", O_RDWR }, { "open", "task/%d/mem", O_RDONLY },
		{ "open", "fd/40", O_RDWR }, { "readlink", "fd/40", 0 }, { "stat", "fd/40", 0 }, { "read", "fdinfo/40", O_RDONLY },
		{ "open", "cwd", O_RDONLY }, { "open", "cwd/held", O_RDWR }, { "stat", "cwd", 0 }, { "readlink", "cwd", 0 },
		{ "open", "root", O_PATH }, { "open", "root/etc/passwd", O_RDONLY }, { "readlink", "root", 0 },
		{ "open", "exe", O_RDONLY }, { "readlink", "exe", 0 },
		{ "open", "ns/net", O_RDONLY }, { "readlink", "ns/mnt", 0 }, { "read", "io", O_RDONLY }, { "read", "syscall", O_RDONLY },
		// What only reads memory, and of which CAP_PERFMON is enough (Linux 6.13).
		{ "read", "environ", O_RDONLY }, { "read", "maps", O_RDONLY }, { "read", "auxv", O_RDONLY },
		// What is everybody's to see.
		{ "read", "stat", O_RDONLY }, { "read", "status", O_RDONLY }, { "read", "cmdline", O_RDONLY }, { "read", "mountinfo", O_RDONLY },
		{ "read", "net/unix", O_RDONLY }, { "open", "task", O_RDONLY }, { "open", "fd", O_RDONLY },
	};
	for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
		char file[100], what[200];
		snprintf(file, sizeof file, of[i].file, pid);
		snprintf(what, sizeof what, "%s %s", of[i].call, of[i].file);
		say(what, kind(of[i].call, pid, file, of[i].flags));
	}
	char path[64];
	snprintf(path, sizeof path, "/proc/%d", pid);
	int dir = open(path, O_PATH | O_DIRECTORY);
	say("openat mem", openat(dir, "mem", O_RDWR));
	say("openat fd/40", openat(dir, "fd/40", O_RDWR));
	int mem = openat(dir, "mem", O_PATH);
	snprintf(path, sizeof path, "/proc/self/fd/%d", mem);
	say("open mem by O_PATH", open(path, O_RDONLY));
	say("own fdinfo", open("/proc/self/fdinfo/1", O_RDONLY));
	say("own maps", open("/proc/thread-self/maps", O_RDONLY));
}

static void try(pid_t pid, uintptr_t addr)
{
	char buf[16] = "";
	struct iovec mine = { buf, 8 }, its = { (void *)addr, 8 };
	int p = syscall(SYS_pidfd_open, pid, 0);
	say("pidfd_open", p);
	say("pidfd_getfd", syscall(SYS_pidfd_getfd, p, SOCKET_FD, 0));
	say("process_vm_readv", process_vm_readv(pid, &mine, 1, &its, 1, 0));
	say("process_vm_writev", process_vm_writev(pid, &mine, 1, &its, 1, 0));
	say("kcmp", syscall(SYS_kcmp, getpid(), pid, KCMP_FILES, 0, 0));
	void *head;
	size_t len;
	say("get_robust_list", syscall(SYS_get_robust_list, pid, &head, &len));
	say("its network namespace", ioctl(p, PIDFD_GET_NET_NAMESPACE, 0));
	say("its mount namespace", ioctl(p, PIDFD_GET_MNT_NAMESPACE, 0));
	looks(pid);
	long r = ptrace(PTRACE_SEIZE, pid, 0, 0);
	say("PTRACE_SEIZE", r);
	if (r == 0) {
		ptrace(PTRACE_INTERRUPT, pid, 0, 0);
		waitpid(pid, NULL, __WALL);
		ptrace(PTRACE_DETACH, pid, 0, 0);
	}
	r = ptrace(PTRACE_ATTACH, pid, 0, 0);
	say("PTRACE_ATTACH", r);
	if (r == 0) {
		waitpid(pid, NULL, __WALL);
		ptrace(PTRACE_DETACH, pid, 0, 0);
	}
	say("kill", kill(pid, SIGUSR1));
	say("pidfd_send_signal", syscall(SYS_pidfd_send_signal, p, SIGUSR1, NULL, 0));
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(argv[2], 1);
	if (argc == 4 && !strcmp(argv[1], "try")) {
		try(atoi(argv[2]), strtoul(argv[3], NULL, 16));
		return 0;
	}
	if (argc == 3 && !strcmp(argv[1], "child")) {
		int ready[2];
		if (pipe(ready) < 0)
			return 1;
		pid_t pid = fork();
		if (pid == 0)
			serve(argv[2], ready[1]);
		char line[100] = "";
		if (read(ready[0], line, sizeof line - 1) <= 0)
			return 1;
		try(pid, (uintptr_t)secret);
		kill(pid, SIGKILL);
		return 0;
	}
	fprintf(stderr, "usage: neighbour serve DIR | try PID ADDR | child DIR\n");
	return 2;
}
