// SPDX-License-Identifier: Apache-2.0

// Directories: making, removing and listing them, with names that come and go meanwhile.
#include "posix.h"
#include <dirent.h>

static void makes(void)
{
	put("f", "x");
	symlink("missing", "dangling");
	is(mkdir("d", 0755), "mkdir");
	is(mkdir("d", 0755), "again");
	is(mkdir("f", 0755), "over a file");
	is(mkdir("dangling", 0755), "over a link to nothing");
	is(mkdir("missing/d", 0755), "in nothing");
	is(mkdir("f/d", 0755), "in a file");
	is(mkdir(".", 0755), ".");
	is(mkdir("..", 0755), "..");
	is(mkdir("d/..", 0755), "d/..");
	is(mkdir("/", 0755), "/");
	put("d/f", "x");
	is(rmdir("d"), "rmdir of what is not empty");
	is(rmdir("f"), "rmdir of a file");
	is(rmdir("dangling"), "rmdir of a link");
	is(rmdir("missing"), "rmdir of nothing");
	is(rmdir("d/."), "rmdir of .");
	is(rmdir("d/.."), "rmdir of ..");
	is(unlink("d"), "unlink of a directory");
	is(unlinkat(AT_FDCWD, "f", AT_REMOVEDIR), "AT_REMOVEDIR of a file");
	is(unlinkat(AT_FDCWD, "d", 1 << 20), "unlinkat with an unknown flag");
	unlink("d/f");
	int fd = open("d", O_RDONLY | O_DIRECTORY);
	is(unlinkat(AT_FDCWD, "d", AT_REMOVEDIR), "AT_REMOVEDIR");
	text(look("d"), "which is gone");
	is(mkdirat(fd, "x", 0755), "mkdirat of what is gone");
	is(openat(fd, "x", O_CREAT | O_RDWR, 0644), "openat of what is gone");
	struct stat st;
	is(fstat(fd, &st), "fstat of what is gone");
	num(st.st_nlink, "links of what is gone");
	is(fstatat(fd, ".", &st, 0), "fstatat of . of what is gone");
	is(fstatat(fd, "..", &st, 0), "fstatat of .. of what is gone");
	char buf[1000];
	num(syscall(SYS_getdents64, fd, buf, sizeof buf), "getdents of what is gone");
	is(mkdir("d", 0755), "another of that name");
	put("d/new", "x");
	is(openat(fd, "new", O_RDONLY), "which the old one is not");
	mkdir("p", 0755);
	mkdir("p/q", 0755);
	mkdir("p/q/r", 0755);
	text(look("p/q"), "a directory with one");
	is(rmdir("p/q/r"), "remove it");
	text(look("p/q"), "and without");
}

// names are those of a directory, sorted, with a letter for the type that each is told to be.
static const char *names(DIR *d)
{
	char *all[100];
	int n = 0;
	for (struct dirent *e; n < LEN(all) && (e = readdir(d));) {
		struct stat st;
		int known = fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0;
		static const char letter[] = "?pc?d?b?-?l?s";
		int t = e->d_type == DT_UNKNOWN && known ? IFTODT(st.st_mode) : e->d_type;
		asprintf(&all[n++], "%s%s%c%s", e->d_name, "=", t < LEN(letter) ? letter[t] : '?',
			 known && strcmp(e->d_name, "..") && st.st_ino != e->d_ino ? "!" : "");
	}
	return sorted(all, n);
}

static const char *listing(const char *path)
{
	DIR *d = opendir(path);
	if (!d)
		return NULL;
	const char *s = names(d);
	closedir(d);
	return s;
}

static void lists(void)
{
	mkdir("d", 0755);
	text(listing("d"), "empty");
	put("d/file", "x");
	mkdir("d/dir", 0755);
	symlink("file", "d/link");
	symlink("nowhere", "d/dangling");
	mkfifo("d/fifo", 0644);
	mknod("d/socket", S_IFSOCK | 0644, 0);
	put("d/.hidden", "x");
	put("d/\xc3\xa9\xff", "x");
	text(listing("d"), "all kinds");
	text(listing("d/file"), "a file");
	text(listing("d/dangling"), "a link to nothing");
	symlink("d", "l");
	text(listing("l"), "through a link");
	rename("d/file", "d/other");
	unlink("d/fifo");
	text(listing("d"), "after rename and unlink");
	DIR *d = opendir("d");
	put("d/late", "x");
	rewinddir(d);
	text(names(d), "after rewinddir");
	int fd = dirfd(d);
	put("d/later", "x");
	lseek(fd, 0, SEEK_SET);
	int again = openat(fd, ".", O_RDONLY | O_DIRECTORY);
	DIR *e = fdopendir(again);
	text(names(e), "by openat of .");
	is(syscall(SYS_getdents64, again, &(char){ 0 }, 1), "getdents into a byte");
	lseek(again, 0, SEEK_SET);
	is(syscall(SYS_getdents64, again, &(char){ 0 }, 1), "getdents into a byte, at the start");
	is(syscall(SYS_getdents64, again, bad, 1000), "getdents to a bad address");
	is(syscall(SYS_getdents64, open("d/other", O_RDONLY), (char[1000]){ 0 }, 1000), "getdents of a file");
	is(syscall(SYS_getdents64, 99, (char[1000]){ 0 }, 1000), "getdents of a closed one");
#ifdef SYS_getdents
	lseek(again, 0, SEEK_SET);
	yes(syscall(SYS_getdents, again, (char[4000]){ 0 }, 4000) > 0, "getdents of old");
#endif
	int copy = dup(again);
	lseek(again, 0, SEEK_SET);
	char buf[4000];
	yes(syscall(SYS_getdents64, again, buf, sizeof buf) > 0, "getdents by one");
	num(syscall(SYS_getdents64, copy, buf, sizeof buf), "and by its copy");
	fflush(stdout);
	lseek(again, 0, SEEK_SET);
	pid_t pid = fork();
	if (!pid)
		_exit(syscall(SYS_getdents64, again, buf, sizeof buf) > 0 ? 0 : 1);
	int status;
	waitpid(pid, &status, 0);
	num(WEXITSTATUS(status), "a child that lists");
	num(syscall(SYS_getdents64, again, buf, sizeof buf), "what is left for its parent");
}

enum { MANY = 1500 };

static void many(void)
{
	static char seen[MANY];
	static long at[MANY + 2];
	static char name[MANY + 2][256];
	mkdir("d", 0755);
	int fd = open("d", O_RDONLY | O_DIRECTORY);
	for (int i = 0; i < MANY; i++) {
		char s[16];
		snprintf(s, sizeof s, "n%d", i);
		if (i % 3)
			need(symlinkat("x", fd, s), "symlink");
		else
			close(need(openat(fd, s, O_CREAT | O_WRONLY, 0644), "open"));
	}
	DIR *d = opendir("d");
	int n = 0, twice = 0, alien = 0;
	for (struct dirent *e; (e = readdir(d)) && n < MANY + 2; n++) {
		snprintf(name[n], sizeof name[n], "%s", e->d_name);
		at[n] = telldir(d);
		int i;
		if (sscanf(e->d_name, "n%d", &i) == 1 && i < MANY)
			twice += seen[i]++;
		else if (e->d_name[0] != '.')
			alien++;
	}
	num(n, "names");
	num(twice, "twice");
	num(alien, "that were not made");
	int right = 1;
	for (int i = 0; i < n - 1; i += 97) {
		seekdir(d, at[i]);
		struct dirent *e = readdir(d);
		right &= e && !strcmp(e->d_name, name[i + 1]);
	}
	yes(right, "seekdir goes where telldir was");
	seekdir(d, at[n - 1]);
	yes(!readdir(d), "seekdir to the end");
	rewinddir(d);
	int again = 0;
	while (readdir(d))
		again++;
	num(again, "names after rewinddir");
	char small[300];
	int by = open("d", O_RDONLY | O_DIRECTORY), sum = 0;
	for (long got; (got = syscall(SYS_getdents64, by, small, sizeof small)) > 0;)
		for (long o = 0; o < got; o += *(unsigned short *)(small + o + 16))
			sum++;
	num(sum, "names in small portions");
	// Removal while reading: each is met once, and none is left.
	rewinddir(d);
	int removed = 0;
	for (struct dirent *e; (e = readdir(d));)
		if (e->d_name[0] != '.')
			removed += unlinkat(fd, e->d_name, 0) == 0;
	num(removed, "removed while reading");
	text(listing("d"), "what is left");
	closedir(d);
	// What is there all the time is met once while others come and go.
	for (int i = 0; i < 200; i++) {
		char s[16];
		snprintf(s, sizeof s, "d/k%d", i);
		put(s, "");
	}
	d = opendir("d");
	int kept = 0, step = 0;
	for (struct dirent *e; (e = readdir(d)); step++) {
		char s[24];
		kept += e->d_name[0] == 'k';
		snprintf(s, sizeof s, "d/t%d", step);
		if (step < 500)
			put(s, "");
		if (step % 2) {
			snprintf(s, sizeof s, "d/t%d", step / 2);
			unlink(s);
		}
	}
	num(kept, "that stay while others come and go");
}

void dir_cases(void)
{
	group("mkdir", makes);
	group("readdir", lists);
	group("many", many);
}
