// SPDX-License-Identifier: Apache-2.0

// The programs that the tests supervise, one per name in argv[1].
// What they see goes to standard output, one line each.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#define SYS_pidfd_open 434
#endif

// The calls that the tests intercept: ones that no library makes.
#define CALL SYS_getpgid        // getpgid(pid): whatever the test says
#define OTHER SYS_getsid        // getsid(pid): likewise
#define WAIT SYS_accept         // parked

static void say(const char *what, long r)
{
	if (r < 0)
		printf("%s: %s\n", what, strerrorname_np(errno));
	else
		printf("%s: %ld\n", what, r);
	fflush(stdout);
}

static volatile sig_atomic_t ticks;
static void tick(int sig) { ticks++; }

static void handle(int sig, int flags)
{
	struct sigaction sa = { .sa_handler = tick, .sa_flags = flags };
	sigaction(sig, &sa, NULL);
}

static int listener(void)
{
	int s = socket(AF_UNIX, SOCK_STREAM, 0);
	bind(s, &(struct sockaddr){ .sa_family = AF_UNIX }, sizeof(sa_family_t));
	listen(s, 5);
	return s;
}

static void *call_in_thread(void *arg)
{
	for (int i = 0; i < 100; i++)
		if (syscall(CALL, i) != 1000 + i)
			return "bad";
	return NULL;
}

static long rests;                      // see rush

// Calls until one returns 0, and is sent back what it sends. Each 200th is another one.
static void *rush(void *arg)
{
	for (long i = (long)arg << 32 | 1;; i++) {
		long r = syscall(CALL, i);
		if (r == 0 && rests)
			pause();
		if (r <= 0)
			return r == 0 ? NULL : strerrorname_np(errno);
		if (r != i % 1000 + 1)
			return "bad";
		if (i % 200 == 0 && (r = syscall(OTHER, i)) != i % 1000 + 1)
			return r < 0 ? strerrorname_np(errno) : "bad other";
	}
}

static void *install_in_thread(void *arg)
{
	for (int i = 0; i < 200; i++) {
		int fd = syscall(CALL, i);
		if (fd < 3 || fcntl(fd, F_GETFD) != FD_CLOEXEC || close(fd) != 0)
			return "bad";
	}
	return NULL;
}

static void *own_table(void *arg)
{
	int fd = *(int *)arg;
	unshare(CLONE_FILES);
	int other = open("/dev/null", O_RDONLY);
	dup2(other, fd);
	say("thread", syscall(CALL, fd));
	return NULL;
}

static void *wait_in_thread(void *arg)
{
	printf("ready\n");
	fflush(stdout);
	say("thread", syscall(WAIT, *(int *)arg, NULL, NULL));
	return NULL;
}

static void after(long usec, int restart)
{
	handle(SIGALRM, restart ? SA_RESTART : 0);
	struct itimerval it = { .it_value = { .tv_usec = usec } };
	setitimer(ITIMER_REAL, &it, NULL);
}

static double now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

#ifdef __x86_64__
static long int80(long nr, long a, long b, long c)
{
	long r;
	asm volatile("int $0x80" : "=a"(r) : "a"(nr), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
	return (int)r;
}
#endif

static long ask(long nr, long a, long b, long c, long d)
{
	long r = syscall(nr, a, b, c, d);
	return r;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "call")) {                 // call N [arg]
		say("call", syscall(CALL, argc > 2 ? strtoul(argv[2], NULL, 0) : 0));
	} else if (!strcmp(what, "calls")) {         // calls N: many, and their cost
		long n = atol(argv[2]);
		double t = now();
		for (long i = 0; i < n; i++)
			syscall(CALL, 0);
		fprintf(stderr, "%.0f\n", (now() - t) / n * 1e9);
	} else if (!strcmp(what, "exit")) {
		return atoi(argv[2]);
	} else if (!strcmp(what, "kill")) {
		signal(atoi(argv[2]), SIG_DFL);
		raise(atoi(argv[2]));
	} else if (!strcmp(what, "threads") || !strcmp(what, "storms")) {
		int storm = what[0] == 's';          // signals all the time
		if (storm) {
			handle(SIGALRM, SA_RESTART);
			struct itimerval it = { { 0, 1000 }, { 0, 1000 } };
			setitimer(ITIMER_REAL, &it, NULL);
		}
		pthread_t t[8];
		for (int i = 0; i < 8; i++)
			pthread_create(&t[i], NULL, storm ? install_in_thread : call_in_thread, NULL);
		sigset_t set;                        // the signals are the threads'
		sigemptyset(&set);
		sigaddset(&set, SIGALRM);
		pthread_sigmask(SIG_BLOCK, &set, NULL);
		int bad = 0;
		for (int i = 0; i < 8; i++) {
			void *r;
			pthread_join(t[i], &r);
			bad += r != NULL;
		}
		say("bad", bad);
	} else if (!strcmp(what, "rush")) {          // of so many threads, which rest in the end
		pthread_t t[64];
		int n = atoi(argv[2]);
		rests = argc > 3;
		for (long i = 0; i < n; i++)
			pthread_create(&t[i], NULL, rush, (void *)i);
		for (int i = 0; i < n; i++) {
			void *r;
			pthread_join(t[i], &r);
			printf("%s\n", r ? (char *)r : "over");
		}
	} else if (!strcmp(what, "fork")) {
		for (int i = 0; i < 50; i++)
			if (fork() == 0)
				_exit(syscall(CALL, i) != 1000 + i);
		int bad = 0, st;
		while (wait(&st) > 0)
			bad += st != 0;
		say("bad", bad);
	} else if (!strcmp(what, "vfork")) {
		pid_t p = vfork();
		if (p == 0) {
			syscall(CALL, 7);
			execl("/proc/self/exe", argv[0], "call", "8", (char *)NULL);
			_exit(127);
		}
		int st;
		waitpid(p, &st, 0);
		say("status", st);
	} else if (!strcmp(what, "given up")) {      // a call and, when stdin says so, another
		handle(SIGUSR1, 0);
		char c;
		if (fork() == 0)
			_exit(syscall(CALL, 1));
		read(0, &c, 1);
		pid_t p = fork();
		if (p == 0) {
			say("second", syscall(CALL, 2));
			_exit(0);
		}
		say("pid", p);
		int st;
		while (wait(&st) > 0)
			say("status", st);
	} else if (!strcmp(what, "exec")) {
		execl("/proc/self/exe", argv[0], "call", "9", (char *)NULL);
	} else if (!strcmp(what, "daemon")) {        // daemon MSEC: the child outlives us
		if (fork() == 0) {
			setsid();
			if (fork() == 0) {
				usleep(atoi(argv[2]) * 1000);
				say("daemon", syscall(CALL, 5));
			}
			_exit(0);
		}
	} else if (!strcmp(what, "memory")) {        // strings and buffers, good and bad
		char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		munmap(page + 4096, 4096);
		strcpy(page + 4096 - 6, "hello");
		say("string", ask(CALL, 1, (long)(page + 4096 - 6), 0, 0));
		memset(page + 4000, 'x', 96);
		say("unterminated", ask(CALL, 1, (long)(page + 4090), 0, 0));
		say("too long", ask(CALL, 1, (long)(page + 4000), 0, 0));
		say("null", ask(CALL, 1, 0, 0, 0));
		say("kernel", ask(CALL, 1, (long)-4096UL, 0, 0));
		say("write", ask(CALL, 2, (long)page, 0, 0));
		printf("%.5s\n", page);
		mprotect(page, 4096, PROT_READ);
		say("write read-only", ask(CALL, 2, (long)page, 0, 0));
	} else if (!strcmp(what, "fds")) {           // which file is this?
		int p[2];
		pipe(p);
		int s = socket(AF_UNIX, SOCK_STREAM, 0);
		int d = dup(s);
		say("socket", syscall(CALL, s));
		say("dup", syscall(CALL, d));
		say("pipe", syscall(CALL, p[0]));
		say("closed", syscall(CALL, 99));
		say("negative", syscall(CALL, -1));
		pthread_t t;
		pthread_create(&t, NULL, own_table, &s);
		pthread_join(t, NULL);
		say("leader", syscall(CALL, s));
	} else if (!strcmp(what, "install")) {       // install [LIMIT]
		if (argc > 2) {
			int n = atoi(argv[2]);
			struct rlimit rl = { n, n };
			setrlimit(RLIMIT_NOFILE, &rl);
			while (dup(0) >= 0)
				;
		}
		int fd = syscall(CALL, 0);
		say("install", fd);
		if (fd >= 0) {
			struct stat st;
			say("fstat", fstat(fd, &st));
			say("cloexec", fcntl(fd, F_GETFD));
			write(fd, "x", 1);
		}
	} else if (!strcmp(what, "installs")) {      // installs N
		for (int i = 0; i < atoi(argv[2]); i++) {
			int fd = syscall(CALL, 0);
			if (fd < 3) {
				say("install", fd);
				return 1;
			}
			close(fd);
		}
		say("installs", atoi(argv[2]));
	} else if (!strcmp(what, "eintr")) {         // eintr RESTART: a signal while waiting
		int s = listener();
		after(50000, atoi(argv[2]));
		double t = now();
		long r = syscall(WAIT, s, NULL, NULL);
		say("wait", r);
		say("ticks", ticks);
		say("late", now() - t > 0.5);
	} else if (!strcmp(what, "delay")) {         // how long until the handler runs, ms
		int s = listener();
		double worst = 0;
		for (int i = 0; i < 5; i++) {
			// Repeated: the first may come before the call. What is left tells when it came.
			const double every = 0.5;
			struct itimerval it = { { 0, every * 1e6 }, { 0, 5000 + 31000 * i } };
			handle(SIGALRM, 0);
			setitimer(ITIMER_REAL, &it, NULL);
			syscall(WAIT, s, NULL, NULL);
			getitimer(ITIMER_REAL, &it);
			double d = every - it.it_value.tv_usec / 1e6;
			if (d > worst)
				worst = d;
		}
		say("worst", worst * 1000);
	} else if (!strcmp(what, "storm")) {         // storm SECONDS: a 1 kHz timer while waiting
		int s = listener();
		handle(SIGALRM, SA_RESTART);
		struct itimerval it = { { 0, 1000 }, { 0, 1000 } };
		setitimer(ITIMER_REAL, &it, NULL);
		handle(SIGVTALRM, 0);
		timer_t tm;
		struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGVTALRM };
		timer_create(CLOCK_MONOTONIC, &ev, &tm);
		// Repeated: when both signals wait, SIGALRM comes first and restarts.
		struct itimerspec end = { { 0, 7300000 }, { atoi(argv[2]), 0 } };
		timer_settime(tm, 0, &end, NULL);
		double t = now();
		long r = syscall(WAIT, s, NULL, NULL);
		say("wait", r);
		say("ticks", ticks / (now() - t)); // in a second
	} else if (!strcmp(what, "ignored")) {       // signals that do nothing
		int s = listener();
		signal(SIGUSR1, SIG_IGN);
		sigset_t set;
		sigemptyset(&set);
		sigaddset(&set, SIGUSR2);
		sigprocmask(SIG_BLOCK, &set, NULL);
		printf("ready\n");
		fflush(stdout);
		say("wait", syscall(WAIT, s, NULL, NULL));
		say("ticks", ticks);
	} else if (!strcmp(what, "wait")) {          // only wait
		int s = listener();
		printf("ready\n");
		fflush(stdout);
		say("wait", syscall(WAIT, s, NULL, NULL));
	} else if (!strcmp(what, "otherthread")) {   // another thread takes the signals
		handle(SIGUSR1, SA_RESTART);
		int s = listener();
		pthread_t t;
		pthread_create(&t, NULL, wait_in_thread, &s);
		usleep(50000);
		for (int i = 0; i < 20; i++) {
			pid_t p;
			if (!strcmp(argv[2], "kill"))
				kill(getpid(), SIGUSR1);
			else if ((p = vfork()) == 0) {
				kill(getppid(), SIGUSR1);
				poll(NULL, 0, 15);
				_exit(0);
			} else
				waitpid(p, NULL, 0);
			usleep(5000);
		}
		say("ticks", ticks);
	} else if (!strcmp(what, "sibling")) {       // exec while another thread waits
		int s = listener();
		pthread_t t;
		pthread_create(&t, NULL, wait_in_thread, &s);
		usleep(50000);
		execl("/proc/self/exe", argv[0], "call", "6", (char *)NULL);
	} else if (!strcmp(what, "doors")) {         // ways around
		struct sock_filter allow = { 0x06, 0, 0, SECCOMP_RET_ALLOW };
		struct sock_fprog prog = { 1, &allow };
		long big = 1L << 32;
		say("listener", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &prog));
		say("listener, high bits", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER | big, SECCOMP_FILTER_FLAG_NEW_LISTENER | big, &prog));
		say("listener, more flags", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_LOG, &prog));
		say("plain filter", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog));
		say("io_uring_setup", syscall(425, 1, NULL));
		say("io_uring_enter", syscall(426, 0, 0, 0, 0));
		say("io_uring_register", syscall(427, 0, 0, 0, 0));
		say("add_key", syscall(SYS_add_key, "user", "x", "y", 1, -3));
		say("request_key", syscall(SYS_request_key, "dns_resolver", "x", "y", -3));
		say("keyctl", syscall(SYS_keyctl, 0, -3, 0));
		int terminal = posix_openpt(O_RDWR | O_NOCTTY), waiting = 0;
		grantpt(terminal);
		unlockpt(terminal);
		int line = open(ptsname(terminal), O_RDWR | O_NOCTTY);
		say("TIOCSTI", syscall(SYS_ioctl, line, big | TIOCSTI, "\n"));
		say("TIOCLINUX", syscall(SYS_ioctl, line, big | TIOCLINUX, "\x06"));
		ioctl(line, FIONREAD, &waiting);
		say("typed", waiting);
		say("undumpable", prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
		say("dumpable", prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
		say("bad dumpable", prctl(PR_SET_DUMPABLE, 7, 0, 0, 0));
#ifdef __x86_64__
		say("x32", syscall(0x40000000 | SYS_getpid));
		errno = -int80(354, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, 0);
		say("i386 listener", -1);
		errno = -int80(425, 1, 0, 0);
		say("i386 io_uring_setup", -1);
		say("i386 prctl", int80(172, PR_SET_DUMPABLE, 0, 0));
		errno = -int80(54, line, TIOCSTI, 0);
		say("i386 TIOCSTI", -1);
		errno = -int80(54, line, TIOCLINUX, 0);
		say("i386 TIOCLINUX", -1);
		say("i386 call", int80(132, 3, 0, 0));
		errno = -int80(102, 1, 0, 0);
		say("i386 socketcall", -1);
#endif
	} else if (!strcmp(what, "orphaned")) {      // after the supervisor's death
		prctl(PR_SET_PDEATHSIG, 0);
		printf("ready\n");
		fflush(stdout);
		char c;
		read(0, &c, 1);
		struct sock_filter notif = { 0x06, 0, 0, SECCOMP_RET_USER_NOTIF };
		struct sock_fprog prog = { 1, &notif };
		say("call", syscall(CALL, 1));
		say("listener", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &prog));
		say("call", syscall(CALL, 1));
	} else if (!strcmp(what, "steal")) {         // take a descriptor of the supervisor, or of ARG
		pid_t of = argc > 2 ? atoi(argv[2]) : getppid();
		int p = syscall(SYS_pidfd_open, of, 0);
		int n = 0;
		for (int fd = 0; fd < 64; fd++)
			n += syscall(SYS_pidfd_getfd, p, fd, 0) >= 0;
		say("taken", n);
		say("getfd", syscall(SYS_pidfd_getfd, p, 0, 0));
		char mem[64];
		sprintf(mem, "/proc/%d/mem", of);
		say("mem", open(mem, O_RDWR));
		say("uid", getuid());
		say("call", syscall(CALL, 1));
	} else if (!strcmp(what, "traceme")) {       // by us, by a child of ours, and then by an orphan
		pid_t pid = fork();
		if (!pid) {
			ptrace(PTRACE_TRACEME, 0, 0, 0);
			raise(SIGSTOP);
			_exit(3);
		}
		int st = 0;
		waitpid(pid, &st, 0);
		say("stopped", WIFSTOPPED(st));
		say("goes on", ptrace(PTRACE_CONT, pid, 0, 0));
		waitpid(pid, &st, 0);
		say("status", WEXITSTATUS(st));
		handle(SIGUSR1, 0);
		if (argc > 2) {
			pid_t parent = getpid();
			if (fork())
				return 0;
			while (getppid() == parent)
				usleep(1000);
		}
		say("traceme", ptrace(PTRACE_TRACEME, 0, 0, 0));
		raise(SIGUSR1);
		say("ticks", ticks);
		execl("/proc/self/exe", "target", "call", NULL);
	} else if (!strcmp(what, "limits")) {
		struct rlimit rl;
		getrlimit(RLIMIT_NOFILE, &rl);
		say("nofile", rl.rlim_cur);
		for (int fd = 3; fd < 1024; fd++)
			if (fcntl(fd, F_GETFD) >= 0)
				say("open", fd);
		sigset_t set;
		sigprocmask(0, NULL, &set);
		for (int i = 1; i < 32; i++)
			if (sigismember(&set, i))
				say("blocked", i);
		say("marker", getenv("UMRUN_CHILD") != NULL);
	} else {
		fprintf(stderr, "unknown target %s\n", what);
		return 2;
	}
	return 0;
}
