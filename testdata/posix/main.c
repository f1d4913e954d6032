// SPDX-License-Identifier: Apache-2.0

// posix DIR OUT: how a file system, and whoever stands before it, answers every call
// that has a path. Both directories exist; DIR is on a mount of its own, belongs to
// the user, and is empty but for what posix -make DIR has made.
#include "posix.h"
#include <grp.h>
#include <time.h>

const char *base, *outside;
int root;
void *volatile bad = (void *)1, *volatile null;

static const char *now = "?"; // the group
static char here[PATH_MAX];   // its directory

static void line(const char *name, va_list ap, const char *result)
{
	printf("%s/", now);
	vprintf(name, ap);
	printf(": %s\n", result);
	fflush(stdout);
}

#define LINE(result) do { va_list ap; va_start(ap, name); line(name, ap, result); va_end(ap); } while (0)

long is(long rc, const char *name, ...)
{
	int e = errno;
	LINE(rc < 0 ? strerrorname_np(e) : "ok");
	errno = e;
	return rc;
}

long num(long rc, const char *name, ...)
{
	int e = errno;
	char s[24];
	snprintf(s, sizeof s, "%ld", rc);
	LINE(rc < 0 ? strerrorname_np(e) : s);
	errno = e;
	return rc;
}

void yes(int truth, const char *name, ...)
{
	LINE(truth ? "yes" : "no");
}

// replace writes s with every from as to, where a name ends.
static void replace(char *out, size_t n, const char *s, const char *from, const char *to)
{
	size_t len = strlen(from);
	char *end = out + n - 1;
	while (*s && out < end) {
		if (!strncmp(s, from, len) && !strchr("abcdefghijklmnopqrstuvwxyz0123456789", s[len] ? s[len] : '/')) {
			for (const char *t = to; *t && out < end;)
				*out++ = *t++;
			s += len;
		} else {
			*out++ = *s++;
		}
	}
	*out = 0;
}

void text(const char *s, const char *name, ...)
{
	int e = errno;
	static char a[2 * PATH_MAX], b[2 * PATH_MAX];
	if (s) {
		replace(a, sizeof a, s, base, "DIR");
		replace(b, sizeof b, a, outside, "OUT");
		for (char *p = b; *p; p++)
			if (*p == '\n')
				*p = '|';
	}
	LINE(s ? b : strerrorname_np(e));
}

long need(long rc, const char *what)
{
	if (rc < 0) {
		is(rc, "%s, cannot go on", what);
		exit(9);
	}
	return rc;
}

void put(const char *path, const char *content)
{
	int fd = need(open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644), path);
	need(write(fd, content, strlen(content)), "write");
	close(fd);
}

const char *give(const char *path)
{
	static char buf[256];
	int fd = open(path, O_RDONLY);
	if (fd < 0)
		return NULL;
	ssize_t n = read(fd, buf, sizeof buf - 1);
	int e = errno;
	close(fd);
	errno = e;
	if (n < 0)
		return NULL;
	buf[n] = 0;
	return buf;
}

const char *look(const char *path)
{
	static char turn[4][80];
	static int i;
	char *s = turn[i++ % LEN(turn)];
	struct stat st;
	if (lstat(path, &st) < 0)
		return strerrorname_np(errno);
	const char *kind = S_ISREG(st.st_mode) ? "file" : S_ISDIR(st.st_mode) ? "directory" : S_ISLNK(st.st_mode) ? "link" :
			   S_ISFIFO(st.st_mode) ? "fifo" : S_ISSOCK(st.st_mode) ? "socket" : S_ISCHR(st.st_mode) ? "character" : "block";
	snprintf(s, sizeof turn[0], "%s %o %d links", kind, st.st_mode & 07777, (int)st.st_nlink);
	return s;
}

int same(const char *a, const char *b)
{
	struct stat x, y;
	return !lstat(a, &x) && !lstat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int byname(const void *a, const void *b)
{
	return strcmp(*(char **)a, *(char **)b);
}

const char *sorted(char **all, int n)
{
	static char out[4000];
	qsort(all, n, sizeof *all, byname);
	*out = 0;
	for (int i = 0; i < n; i++)
		strcat(strcat(out, i ? " " : ""), all[i]);
	return out;
}

void tick(void)
{
	struct timespec a, b;
	clock_gettime(CLOCK_REALTIME_COARSE, &a);
	do {
		usleep(500);
		clock_gettime(CLOCK_REALTIME_COARSE, &b);
	} while (a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec);
}

static int differ(struct timespec a, struct timespec b)
{
	return a.tv_sec != b.tv_sec || a.tv_nsec != b.tv_nsec;
}

const char *moved(const struct stat *a, const struct stat *b)
{
	static char s[8];
	snprintf(s, sizeof s, "%s%s%s", differ(a->st_atim, b->st_atim) ? "a" : "", differ(a->st_mtim, b->st_mtim) ? "m" : "",
		 differ(a->st_ctim, b->st_ctim) ? "c" : "");
	return *s ? s : "none";
}

const char *where(void)
{
	static char cwd[PATH_MAX];
	return syscall(SYS_getcwd, cwd, sizeof cwd) < 0 ? NULL : cwd;
}

const char *linked(const char *path)
{
	static char s[PATH_MAX];
	ssize_t n = readlink(path, s, sizeof s - 1);
	if (n < 0)
		return NULL;
	s[n] = 0;
	return s;
}

int child(void (*f)(void))
{
	fflush(stdout);
	pid_t pid = need(fork(), "fork");
	if (!pid) {
		alarm(20);
		f();
		exit(0);
	}
	int status = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

const char *within(const char *name)
{
	static char turn[4][2 * PATH_MAX];
	static int i;
	char *s = turn[i++ % LEN(turn)];
	snprintf(s, sizeof turn[0], "%s/%s", here, name);
	return s;
}

int as(uid_t uid, gid_t gid, void (*f)(void))
{
	fflush(stdout);
	pid_t pid = need(fork(), "fork");
	if (!pid) {
		need(setgroups(0, NULL), "setgroups");
		need(setresgid(gid, gid, gid), "setresgid");
		need(setresuid(uid, uid, uid), "setresuid");
		f();
		exit(0);
	}
	int status = 0;
	waitpid(pid, &status, 0);
	return status;
}

void group(const char *name, void (*cases)(void))
{
	const char *only = getenv("LAB_GROUP");
	if (only && strcmp(only, name))
		return;
	const char *without = getenv("LAB_WITHOUT"); // names, each behind a space
	char word[64];
	snprintf(word, sizeof word, " %s ", name);
	if (without && strstr(without, word))
		return;
	now = name;
	snprintf(here, sizeof here, "%s/%s", base, name);
	umask(022);
	need(mkdir(here, 0755), "mkdir");
	need(chdir(here), "chdir");
	struct timespec from, to;
	clock_gettime(CLOCK_MONOTONIC, &from);
	int status = child(cases);
	clock_gettime(CLOCK_MONOTONIC, &to);
	if (getenv("LAB_TIMES"))
		fprintf(stderr, "%8.1f ms %s\n", (to.tv_sec - from.tv_sec) * 1e3 + (to.tv_nsec - from.tv_nsec) / 1e6, name);
	if (status)
		printf("%s/ended: %s %d\n", now, WIFSIGNALED(status) ? "signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	fflush(stdout);
}

int main(int argc, char **argv)
{
	exec_child(argc, argv);
	if (argc == 3 && !strcmp(argv[1], "-make")) {
		lower_make(argv[2]);
		return 0;
	}
	if (argc != 3) {
		fprintf(stderr, "usage: posix [-make] DIR [OUT]\n");
		return 2;
	}
	base = argv[1];
	outside = argv[2];
	root = geteuid() == 0;
	alarm(60);
	signal(SIGPIPE, SIG_IGN);
	call_cases();
	open_cases();
	resolve_cases();
	stat_cases();
	attr_cases();
	owner_cases();
	time_cases();
	dir_cases();
	link_cases();
	rename_cases();
	exec_cases();
	data_cases();
	socket_cases();
	event_cases();
	process_cases();
	race_cases();
	chroot_cases();
	lower_cases();
	across_cases();
	return 0;
}
