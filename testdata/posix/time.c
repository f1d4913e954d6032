// SPDX-License-Identifier: Apache-2.0

// Time stamps: which of a file and its directory each call moves, and what utimensat(2)
// sets.
#include "posix.h"
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <time.h>
#include <utime.h>

// MOVES prints which stamps of a path op moves.
#define MOVES(path, label, op) do { \
	struct stat before_, after_; \
	lstat(path, &before_); \
	tick(); \
	op; \
	long rc_ = lstat(path, &after_); \
	text(rc_ ? NULL : moved(&before_, &after_), "%s of %s", label, path); \
} while (0)

static void moves(void)
{
	char s[8];
	mkdir("d", 0755);
	mkdir("e", 0755);
	put("f", "x");
	put("d/f", "x");
	symlink("f", "l");
	int fd = open("f", O_RDWR);
	MOVES("f", "stat", struct stat st; stat("f", &st));
	MOVES("f", "open", close(open("f", O_RDWR)));
	MOVES("f", "write", write(fd, "y", 1));
	MOVES("f", "empty write", write(fd, "", 0));
	MOVES("f", "truncate", truncate("f", 100));
	MOVES("f", "truncate to its size", truncate("f", 100));
	MOVES("f", "ftruncate to its size", ftruncate(fd, 100));
	MOVES("f", "O_TRUNC", close(open("f", O_WRONLY | O_TRUNC)));
	MOVES("f", "chmod", chmod("f", 0600));
	MOVES("f", "chmod by a link", chmod("l", 0644));
	MOVES("l", "chmod by it", chmod("l", 0644));
	MOVES("f", "chown", chown("f", geteuid(), -1));
	MOVES("f", "setxattr", setxattr("f", "user.k", "v", 1, 0));
	MOVES("f", "removexattr", removexattr("f", "user.k"));
	MOVES("f", "link", link("f", "hard"));
	MOVES("f", "unlink of another name", unlink("hard"));
	MOVES(".", "link of a name in it", link("f", "hard"));
	MOVES(".", "unlink of a name in it", unlink("hard"));
	MOVES("f", "rename", (rename("f", "g"), rename("g", "f")));
	MOVES(".", "rename in it", (rename("f", "g"), rename("g", "f")));
	MOVES("d", "create in it", put("d/new", "x"));
	MOVES("d", "write to a file in it", put("d/new", "y"));
	MOVES("d", "failed create in it", open("d/new", O_CREAT | O_EXCL, 0644));
	MOVES("d", "mkdir in it", mkdir("d/sub", 0755));
	MOVES("d", "rmdir in it", rmdir("d/sub"));
	MOVES("d", "symlink in it", symlink("x", "d/l"));
	MOVES("d", "mkfifo in it", mkfifo("d/fifo", 0644));
	MOVES("d", "rename out of it", rename("d/new", "e/new"));
	MOVES("d", "rename into it", rename("e/new", "d/new"));
	MOVES("d", "rename over in it", rename("f", "d/new"));
	put("f", "x");
	MOVES("d", "chmod in it", chmod("d/f", 0600));
	MOVES("d", "chmod", chmod("d", 0700));
	MOVES("d", "unlink in it", unlink("d/new"));
	MOVES("d", "failed unlink in it", unlink("d/new"));
	MOVES("d", "rename", rename("d", "e/d"); rename("e/d", "d"));
	fd = open("f", O_RDWR);
	MOVES("f", "unlink while open, and not", unlink("f"); put("f", "x"));
	put("f", "x");
	fd = open("f", O_RDWR);
	char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	truncate("f", 4096);
	MOVES("f", "store to a mapping", *p = 'z'; msync(p, 4096, MS_SYNC));
	MOVES("f", "fsync", fsync(fd));
	utimensat(AT_FDCWD, "f", (struct timespec[2]){ { 1, 0 }, { 2, 0 } }, 0);
	fd = open("f", O_RDONLY);
	MOVES("f", "first read", pread(fd, s, 1, 0));
	utimensat(AT_FDCWD, "f", (struct timespec[2]){ { 1, 0 }, { 2, 0 } }, 0);
	fd = open("f", O_RDONLY | O_NOATIME);
	MOVES("f", "read with O_NOATIME", pread(fd, s, 1, 0));
	utimensat(AT_FDCWD, "l", (struct timespec[2]){ { 1, 0 }, { 2, 0 } }, AT_SYMLINK_NOFOLLOW);
	MOVES("l", "readlink", readlink("l", s, sizeof s));
}

static const char *stamp(struct timespec t)
{
	static char turn[4][40];
	static int i;
	char *s = turn[i++ % 4];
	snprintf(s, sizeof turn[0], "%ld.%09ld", (long)t.tv_sec, t.tv_nsec);
	return t.tv_sec > 1500000000 && t.tv_sec < 3000000000L ? "now" : s;
}

static void told(const char *path, const char *label)
{
	struct stat st;
	char s[100];
	if (!lstat(path, &st))
		snprintf(s, sizeof s, "%s %s", stamp(st.st_atim), stamp(st.st_mtim));
	else
		snprintf(s, sizeof s, "%s", strerrorname_np(errno));
	text(s, "times after %s", label);
}

#define PAIR(a, an, m, mn) ((struct timespec[2]){ { a, an }, { m, mn } })

static void sets(void)
{
	put("f", "x");
	mkdir("d", 0755);
	symlink("f", "l");
	symlink("nowhere", "dangling");
	static const struct { const char *path, *label; struct timespec t[2]; int flags; } cases[] = {
		{ "f", "both", { { 100, 5 }, { 200, 6 } }, 0 },
		{ "f", "OMIT both", { { 0, UTIME_OMIT }, { 0, UTIME_OMIT } }, 0 },
		{ "f", "OMIT atime", { { 0, UTIME_OMIT }, { 300, 0 } }, 0 },
		{ "f", "OMIT mtime", { { 400, 999999999 }, { 0, UTIME_OMIT } }, 0 },
		{ "f", "NOW atime", { { 0, UTIME_NOW }, { 500, 0 } }, 0 },
		{ "f", "NOW mtime", { { 600, 0 }, { 0, UTIME_NOW } }, 0 },
		{ "f", "NOW and OMIT", { { 0, UTIME_OMIT }, { 0, UTIME_NOW } }, 0 },
		{ "f", "a second too many", { { 1, 1000000000 }, { 1, 0 } }, 0 },
		{ "f", "before 1970", { { -1, 0 }, { -100, 5 } }, 0 },
		{ "f", "after 2038", { { 4000000000L, 1 }, { 4294967296L, 2 } }, 0 },
		{ "d", "a directory", { { 10, 0 }, { 20, 0 } }, 0 },
		{ "l", "by a link", { { 30, 0 }, { 40, 0 } }, 0 },
		{ "l", "of a link", { { 50, 0 }, { 60, 7 } }, AT_SYMLINK_NOFOLLOW },
		{ "dangling", "by a link to nothing", { { 50, 0 }, { 60, 7 } }, 0 },
		{ "dangling", "of a link to nothing", { { 50, 0 }, { 60, 7 } }, AT_SYMLINK_NOFOLLOW },
		{ "missing", "nothing", { { 0, UTIME_OMIT }, { 0, UTIME_OMIT } }, 0 },
		{ "f", "unknown flag", { { 1, 0 }, { 2, 0 } }, 1 << 20 },
	};
	for (int i = 0; i < LEN(cases); i++) {
		is(utimensat(AT_FDCWD, cases[i].path, cases[i].t, cases[i].flags), "utimensat %s", cases[i].label);
		told(cases[i].path, cases[i].label);
	}
	told("f", "all, of the file");
	int fd = open("f", O_RDONLY), path = open("f", O_PATH);
	is(futimens(fd, PAIR(70, 0, 80, 0)), "futimens");
	told("f", "futimens");
	is(syscall(SYS_utimensat, fd, NULL, PAIR(71, 0, 81, 0), 0), "utimensat of null");
	is(syscall(SYS_utimensat, path, NULL, PAIR(72, 0, 82, 0), 0), "utimensat of null, O_PATH");
	is(syscall(SYS_utimensat, path, "", PAIR(73, 0, 83, 0), AT_EMPTY_PATH), "AT_EMPTY_PATH of O_PATH");
	told("f", "AT_EMPTY_PATH");
	is(syscall(SYS_utimensat, AT_FDCWD, "f", bad, 0), "bad address");
#ifdef SYS_utime
	is(syscall(SYS_utime, "f", &(struct utimbuf){ 90, 91 }), "utime");
	told("f", "utime");
	is(syscall(SYS_utimes, "f", (struct timeval[2]){ { 92, 5 }, { 93, 6 } }), "utimes");
	told("f", "utimes");
	is(syscall(SYS_utimes, "f", (struct timeval[2]){ { 92, 1000000 }, { 93, 6 } }), "utimes, a second too many");
	is(syscall(SYS_futimesat, AT_FDCWD, "f", (struct timeval[2]){ { 94, 5 }, { 95, 6 } }), "futimesat");
	told("f", "futimesat");
#endif
	is(utimensat(AT_FDCWD, "f", NULL, 0), "touch");
	told("f", "touch");
	chmod("f", 0);
	is(utimensat(AT_FDCWD, "f", PAIR(96, 0, 97, 0), 0), "of one's own, without a mode");
	is(utimensat(AT_FDCWD, "f", NULL, 0), "touch of one's own, without a mode");
	struct stat a, b;
	stat("f", &a);
	tick();
	utimensat(AT_FDCWD, "f", PAIR(98, 0, 99, 0), 0);
	stat("f", &b);
	text(moved(&a, &b), "what utimensat moves");
	stat("f", &a);
	tick();
	utimensat(AT_FDCWD, "f", PAIR(0, UTIME_OMIT, 0, UTIME_OMIT), 0);
	stat("f", &b);
	text(moved(&a, &b), "what it moves with OMIT both");
	link("f", "hard");
	utimensat(AT_FDCWD, "hard", PAIR(11, 0, 12, 0), 0);
	told("f", "utimensat of another name");
	rename("f", "g");
	told("g", "rename");
}

void time_cases(void)
{
	group("stamp", moves);
	group("utime", sets);
}
