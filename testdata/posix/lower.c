// SPDX-License-Identifier: Apache-2.0

// A tree that was there before: posix -make DIR makes it, and the cases change it. On a
// tree that copies on write everything here is the host's at first.
#include "posix.h"
#include <dirent.h>
#include <sys/inotify.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

enum { TREES = 9 };

void lower_make(const char *at)
{
	umask(022);
	need(chdir(at), "chdir");
	need(mkdir("before", 0755), "mkdir");
	need(chdir("before"), "chdir");
	for (int i = 0; i < TREES; i++) {
		char name[8];
		snprintf(name, sizeof name, "t%d", i);
		mkdir(name, 0755);
		need(chdir(name), "chdir");
		put("f", "0123456789");
		put("g", "another");
		put("script", "#!/bin/sh\necho old\n");
		chmod("script", 0755);
		link("f", "hard");
		symlink("f", "l");
		symlink("d", "ld");
		mkfifo("fifo", 0644);
		mkdir("d", 0755);
		mkdir("d/e", 0755);
		put("d/x", "x of d");
		put("d/y", "y of d");
		put("d/e/z", "z of e");
		mkdir("empty", 0755);
		put("ro", "read-only");
		chmod("ro", 0444);
		mkdir("shut", 0555);
		setxattr("f", "user.old", "value", 5, 0);
		utimensat(AT_FDCWD, "f", (struct timespec[2]){ { 100, 5 }, { 200, 6 } }, 0);
		utimensat(AT_FDCWD, "d", (struct timespec[2]){ { 300, 5 }, { 400, 6 } }, 0);
		need(chdir(".."), "chdir");
	}
}

static int turn; // of the groups

// tree goes to the group's own.
static void tree(void)
{
	char name[PATH_MAX];
	snprintf(name, sizeof name, "%s/before/t%d", base, turn);
	need(chdir(name), "chdir to what was there");
}

static const char *names(const char *path)
{
	char *all[100];
	int n = 0;
	DIR *d = opendir(path);
	if (!d)
		return NULL;
	for (struct dirent *e; n < LEN(all) && (e = readdir(d));)
		if (e->d_name[0] != '.')
			all[n++] = strdup(e->d_name);
	closedir(d);
	return sorted(all, n);
}

static void reading(void)
{
	tree();
	text(names("."), "names");
	text(names("d"), "names below");
	static const char *all[] = { "f", "hard", "l", "ld", "fifo", "d", "d/e", "d/e/z", "ro", "shut", "script", "empty" };
	for (int i = 0; i < LEN(all); i++)
		text(look(all[i]), "%s", all[i]);
	text(give("f"), "content");
	text(give("ld/e/../x"), "content by a link");
	yes(same("f", "hard"), "hard links are one file");
	struct stat st;
	stat("f", &st);
	num(st.st_mtim.tv_sec, "mtime");
	num(st.st_mtim.tv_nsec, "its nanoseconds");
	yes(st.st_uid == geteuid() && st.st_gid == getegid(), "owner");
	char v[10] = "";
	num(getxattr("f", "user.old", v, sizeof v), "xattr");
	is(open("ro", O_WRONLY), "write what is read-only");
	is(open("shut/new", O_CREAT | O_WRONLY, 0644), "create where one may not");
	DIR *d = opendir(".");
	int right = 1;
	for (struct dirent *e; (e = readdir(d));) {
		lstat(e->d_name, &st);
		right &= strcmp(e->d_name, "..") == 0 || (st.st_ino == e->d_ino && (e->d_type == DT_UNKNOWN || IFTODT(st.st_mode) == e->d_type));
	}
	yes(right, "inodes and types of the listing");
}

static void writing(void)
{
	tree();
	struct stat a, b;
	stat("f", &a);
	int fd = open("f", O_RDWR), ro = open("g", O_RDONLY);
	is(fd, "open to write");
	is(pwrite(fd, "WW", 2, 2), "write");
	text(give("f"), "the file");
	fstat(fd, &b);
	yes(a.st_ino == b.st_ino && a.st_dev == b.st_dev, "the same file still");
	num(b.st_size, "size");
	num(b.st_nlink, "links");
	text(look("f"), "look");
	num(getxattr("f", "user.old", NULL, 0), "xattr");
	int app = open("g", O_WRONLY | O_APPEND);
	write(app, "+", 1);
	text(give("g"), "append");
	char s[20] = "";
	pread(ro, s, 19, 0);
	text(s, "by a descriptor that was open to read");
	fstat(ro, &a), fstat(app, &b);
	yes(a.st_ino == b.st_ino && a.st_dev == b.st_dev, "both are one file");
	is(open("d/x", O_WRONLY | O_TRUNC), "O_TRUNC");
	text(give("d/x"), "which leaves");
	is(truncate("d/y", 3), "truncate");
	text(give("d/y"), "which leaves so much");
	is(open("d/e/z", O_RDWR | O_CREAT | O_EXCL, 0644), "O_EXCL");
	put("d/new", "made");
	put("d/e/new", "made");
	text(names("d"), "names with a new one");
	text(names("d/e"), "names with another");
	stat("ro", &a);
	is(rename("g", "ro"), "replace what is read-only");
	text(look("ro"), "which is then");
	put("script", "#!/bin/sh\necho new\n");
	FILE *p = popen("./script; sed -i s/0/zero/ f && cat f; echo end >>f; tail -c 4 f", "r");
	char out[100] = "";
	out[fread(out, 1, sizeof out - 1, p)] = 0;
	num(pclose(p), "what tools do");
	text(out, "and leave");
}

static void attributes(void)
{
	tree();
	struct stat a, b;
	stat("f", &a);
	is(chmod("f", 0600), "chmod");
	text(look("f"), "file");
	stat("f", &b);
	yes(a.st_ino == b.st_ino && a.st_dev == b.st_dev, "the same still");
	num(b.st_mtim.tv_sec, "mtime stays");
	text(give("f"), "content stays");
	is(chown("g", geteuid(), getegid()), "chown");
	is(utimensat(AT_FDCWD, "g", (struct timespec[2]){ { 1, 0 }, { 2, 0 } }, 0), "utimensat");
	stat("g", &b);
	num(b.st_mtim.tv_sec, "mtime");
	is(lchown("l", geteuid(), getegid()), "lchown");
	is(utimensat(AT_FDCWD, "l", (struct timespec[2]){ { 1, 0 }, { 2, 0 } }, AT_SYMLINK_NOFOLLOW), "utimensat of a link");
	text(linked("l"), "the link");
	is(setxattr("d/x", "user.new", "v", 1, 0), "setxattr");
	num(getxattr("d/x", "user.new", NULL, 0), "which it has");
	is(removexattr("f", "user.old"), "removexattr");
	is(getxattr("f", "user.old", NULL, 0), "which it lacks");
	stat("d", &a);
	is(chmod("d", 0750), "chmod of a directory");
	stat("d", &b);
	text(look("d"), "directory");
	yes(a.st_ino == b.st_ino && a.st_dev == b.st_dev, "the same directory still");
	num(b.st_mtim.tv_sec, "its mtime stays");
	text(names("d"), "its names stay");
	is(chmod("fifo", 0600), "chmod of a fifo");
	text(look("fifo"), "fifo");
	int fd = open("ro", O_RDONLY);
	is(fchmod(fd, 0640), "fchmod of what is open to read");
	text(look("ro"), "what the name has");
	fstat(fd, &b);
	num(b.st_mode & 0777, "what the descriptor has");
	is(fsetxattr(fd, "user.fd", "v", 1, 0), "fsetxattr of what is open to read");
	num(getxattr("ro", "user.fd", NULL, 0), "which the name has");
	is(futimens(fd, (struct timespec[2]){ { 5, 0 }, { 6, 0 } }), "futimens of what is open to read");
	stat("ro", &b);
	num(b.st_mtim.tv_sec, "which the name shows");
}

static void links(void)
{
	tree();
	is(link("g", "g2"), "link");
	yes(same("g", "g2"), "one file");
	text(look("g"), "two names");
	put("g2", "by g2");
	text(give("g"), "written by the other name");
	put("f", "by f");
	text(give("hard"), "written by the other old name");
	yes(same("f", "hard"), "which is one file still");
	text(look("hard"), "with two names");
	is(unlink("hard"), "unlink one");
	text(look("f"), "the other");
	is(link("l", "l2"), "link of a link");
	is(linkat(AT_FDCWD, "d/x", AT_FDCWD, "d/e/x", 0), "link below");
	is(link("d/y", "y"), "link up");
	is(unlink("d/y"), "unlink the old");
	text(give("y"), "the new");
	is(link("fifo", "fifo2"), "link of a fifo");
	text(look("fifo"), "which has");
}

static void removing(void)
{
	tree();
	is(unlink("f"), "unlink");
	text(look("f"), "f");
	is(open("f", O_RDONLY), "open what is gone");
	text(look("hard"), "its other name");
	is(unlink("fifo"), "unlink a fifo");
	is(unlink("l"), "unlink a link");
	is(rmdir("empty"), "rmdir");
	is(rmdir("d"), "rmdir of what is not empty");
	text(names("."), "names");
	is(unlink("f"), "unlink again");
	is(mkdir("f", 0755), "mkdir of that name");
	text(look("f"), "which is");
	text(names("f"), "its names");
	put("empty", "a file");
	text(give("empty"), "a file where a directory was");
	text(names("."), "names after that");
	is(unlink("d/x") | unlink("d/y") | unlink("d/e/z") | rmdir("d/e"), "empty a directory");
	text(names("d"), "which has");
	is(rmdir("d"), "rmdir of it");
	text(look("d"), "d");
	is(mkdir("d", 0755), "mkdir of it");
	text(names("d"), "which is empty");
	text(look("d/e"), "and nothing of the old shows");
	put("d/x", "new x");
	text(names("d"), "new names");
	mkdir("d/e", 0755);
	text(names("d/e"), "nor below");
	is(rmdir("shut"), "rmdir of what may not be written");
	is(symlink("d", "shut"), "a link there");
	text(names("shut"), "which leads to");
	int fd = open("g", O_RDWR);
	unlink("g");
	is(write(fd, "still", 5), "write to what is unlinked");
	struct stat st;
	fstat(fd, &st);
	num(st.st_nlink, "its links");
	is(open("g", O_CREAT | O_EXCL | O_WRONLY, 0600), "O_EXCL of what is gone");
	text(look("g"), "which is then");
	is(open("g", O_CREAT | O_EXCL | O_WRONLY, 0600), "O_EXCL again");
	is(system("rm -rf d script ro"), "rm -rf");
	text(names("."), "names at last");
}

static void renaming(void)
{
	tree();
	struct stat a, b;
	stat("f", &a);
	is(rename("f", "f2"), "a file");
	stat("f2", &b);
	yes(a.st_ino == b.st_ino && a.st_dev == b.st_dev, "which is the same");
	text(look("f"), "the old name");
	text(give("f2"), "the new");
	is(rename("g", "script"), "over a file");
	text(give("script"), "which is then");
	is(rename("l", "d/l"), "a link to a directory");
	text(linked("d/l"), "which leads to");
	is(rename("d/x", "x"), "up");
	is(rename("x", "d/e/x"), "down");
	text(names("d"), "names of one");
	text(names("d/e"), "names of the other");
	put("new", "new");
	is(rename("new", "d/y"), "a new one over an old one");
	text(give("d/y"), "which is the new");
	is(rename("d/y", "ro"), "and over another");
	text(names("."), "names");
	is(renameat2(AT_FDCWD, "f2", AT_FDCWD, "ro", RENAME_NOREPLACE), "NOREPLACE");
	is(renameat2(AT_FDCWD, "f2", AT_FDCWD, "ro", RENAME_EXCHANGE), "EXCHANGE");
	text(give("ro"), "what one is");
	text(give("f2"), "what the other is");
	is(rename("f2", "empty"), "a file over a directory");
	is(rename("empty", "f2"), "a directory over a file");
	is(rename("fifo", "fifo2"), "a fifo");
	text(look("fifo2"), "which is one");
}

static void directories(void)
{
	tree();
	is(rename("empty", "d"), "an empty directory over a full one");
	is(rename("d/e", "e2"), "a directory");
	text(look("d/e"), "the old name");
	text(names("e2"), "the new");
	text(give("e2/z"), "what is in it");
	is(rename("e2", "empty"), "over an empty one");
	text(names("empty"), "which has");
	mkdir("fresh", 0755);
	put("fresh/f", "x");
	is(rename("fresh", "d/fresh"), "a new one into an old one");
	is(rename("d", "d2"), "one with new and old in it");
	text(names("d2"), "which has both");
	is(system("mv d2 d3 2>/dev/null && mv d3/x d3/x2 && test -f d3/x2"), "mv");
	text(names("."), "names");
	is(mkdir("d", 0755), "a new one of the old name");
	text(names("d"), "which is empty");
	is(renameat2(AT_FDCWD, "d", AT_FDCWD, "d3", RENAME_EXCHANGE), "EXCHANGE of new and old");
	text(names("d3"), "the one");
}

static void watching(void)
{
	tree();
	int in = inotify_init1(IN_NONBLOCK);
	inotify_add_watch(in, "d", IN_MODIFY | IN_CREATE | IN_DELETE | IN_CLOSE_WRITE | IN_MOVE | IN_ATTRIB);
	put("d/x", "changed");
	chmod("d/y", 0600);
	unlink("d/y");
	put("d/n", "new");
	char buf[4096] __attribute__((aligned(8))), out[400] = "";
	for (ssize_t n; (n = read(in, buf, sizeof buf)) > 0;)
		for (ssize_t o = 0; o < n;) {
			struct inotify_event *e = (void *)(buf + o);
			snprintf(out + strlen(out), sizeof out - strlen(out), "%x %s, ", e->mask, e->len ? e->name : "");
			o += sizeof *e + e->len;
		}
	text(out, "events of the directory");
	int fd = open("f", O_RDONLY), l = open("g", O_RDONLY);
	char *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	int w = open("f", O_RDWR);
	pwrite(w, "MM", 2, 0);
	text((char[]){ p[0], p[1], 0 }, "a mapping made before, after a write");
	char *q = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, w, 0);
	q[2] = 'S';
	text(give("f"), "a store to a mapping made after");
	is(flock(l, LOCK_EX), "flock before");
	int other = open("g", O_RDWR);
	is(flock(other, LOCK_EX | LOCK_NB), "flock by one who writes");
	struct flock k = { .l_type = F_RDLCK };
	is(fcntl(l, F_OFD_SETLK, &k), "lock before");
	k = (struct flock){ .l_type = F_WRLCK };
	is(fcntl(other, F_OFD_SETLK, &k), "lock by one who writes");
	text(linked("/proc/self/cwd"), "cwd");
	char by[40];
	snprintf(by, sizeof by, "/proc/self/fd/%d", w);
	text(linked(by), "name of what is written");
	snprintf(by, sizeof by, "/proc/self/fd/%d", fd);
	text(linked(by), "name of what is read");
	int d = open("d", O_RDONLY | O_DIRECTORY);
	snprintf(by, sizeof by, "/proc/self/fd/%d", d);
	text(linked(by), "name of a directory");
	chdir("d/e");
	put("../../f", "by ..");
	text(where(), "getcwd");
	text(give("../../f"), "what is read by ..");
	text(give("../x"), "the file above");
	is(openat(d, "e/z", O_RDWR), "openat to write");
	is(openat(d, "made", O_CREAT | O_WRONLY, 0644), "openat to create");
	chdir("../..");
	text(names("d"), "names by the path");
	num(syscall(SYS_unlinkat, d, "made", 0), "unlinkat");
	DIR *list = fdopendir(d);
	int n = 0;
	for (struct dirent *e; (e = readdir(list));)
		n += e->d_name[0] != '.';
	num(n, "names by a descriptor from before");
}

// numbered reports whether a directory's listing has the numbers that its files have.
static int numbered(const char *path)
{
	DIR *d = opendir(path);
	int right = d != NULL;
	struct stat st;
	for (struct dirent *e; d && (e = readdir(d));)
		right &= !strcmp(e->d_name, "..") || (!fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) && st.st_ino == e->d_ino);
	if (d)
		closedir(d);
	return right;
}

// What a file is told from others by: editors and those that go through trees look whether it
// is still the same.
static void identity(void)
{
	tree();
	struct stat top, a, b, open_;
	stat(".", &top);
	stat("g", &a);
	int fd = open("g", O_WRONLY | O_CREAT, 0644);
	fstat(fd, &open_);
	stat("g", &b);
	yes(a.st_ino == open_.st_ino && a.st_dev == open_.st_dev, "what is opened to be written is what was looked at");
	yes(a.st_ino == b.st_ino && a.st_dev == b.st_dev, "and by its name");
	struct statx x;
	statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &x);
	yes(x.stx_ino == a.st_ino && makedev(x.stx_dev_major, x.stx_dev_minor) == a.st_dev, "and by statx");
	is(rename("g", "d/g"), "elsewhere");
	stat("d/g", &b);
	yes(a.st_ino == b.st_ino && a.st_dev == b.st_dev, "it is the same");
	stat("script", &a);
	is(chmod("script", 0700), "chmod");
	stat("script", &b);
	yes(a.st_ino == b.st_ino && a.st_dev == b.st_dev, "which leaves the same");
	is(link("d/x", "x"), "one more name");
	yes(same("d/x", "x"), "of the same");
	lstat("ld", &a);
	is(lchown("ld", geteuid(), getegid()), "lchown");
	lstat("ld", &b);
	yes(a.st_ino == b.st_ino && a.st_dev == b.st_dev, "the link is the same");
	stat("d/e", &a);
	int e = open("d/e", O_RDONLY | O_DIRECTORY);
	put("d/e/new", "new");
	stat("d/e", &b);
	yes(a.st_ino == b.st_ino && a.st_dev == b.st_dev, "a directory that has got a name is the same");
	fstat(e, &b);
	yes(a.st_ino == b.st_ino && a.st_dev == b.st_dev, "and for who has it open");
	chdir("d/e");
	stat(".", &b);
	yes(a.st_ino == b.st_ino && a.st_dev == b.st_dev, "and from within");
	chdir("../..");
	stat(".", &b);
	yes(top.st_ino == b.st_ino && top.st_dev == b.st_dev, "and the one above");
	mkdir("made", 0755);
	mkdir("made/below", 0755);
	put("made/below/file", "new");
	symlink("f", "made/link");
	int made = open("made/below/file", O_RDONLY);
	stat("made/below/file", &a);
	fstat(made, &b);
	yes(a.st_ino == b.st_ino && a.st_dev == b.st_dev, "a new file");
	int one = 1;
	static const char *all[] = { "f", "l", "fifo", "d", "d/e", "d/e/z", "d/e/new", "d/g", "script", "made", "made/below", "made/below/file", "made/link" };
	for (int i = 0; i < LEN(all); i++)
		one &= !lstat(all[i], &b) && b.st_dev == top.st_dev;
	yes(one, "all on one device");
	yes(numbered("."), "numbers of the listing");
	yes(numbered("d"), "numbers of a listing with moved ones");
	yes(numbered("made") && numbered("made/below"), "numbers of new ones");
	FILE *p = popen("find . -xdev -name file; rm -rf --one-file-system d made; ls d made 2>&1 | wc -l", "r");
	char out[100] = "";
	out[fread(out, 1, sizeof out - 1, p)] = 0;
	pclose(p);
	text(out, "find -xdev, rm --one-file-system");
}

void lower_cases(void)
{
	char before[PATH_MAX];
	snprintf(before, sizeof before, "%s/before", base);
	if (access(before, F_OK))
		lower_make(base);
	static const struct { const char *name; void (*run)(void); } all[] = {
		{ "old", reading }, { "written", writing }, { "changed", attributes }, { "tied", links }, { "removed", removing },
		{ "renamed", renaming }, { "moved", directories }, { "seen", watching }, { "kept", identity },
	};
	for (turn = 0; turn < LEN(all); turn++)
		group(all[turn].name, all[turn].run);
}
