// SPDX-License-Identifier: Apache-2.0

// Names of one file: link(2), unlink(2), symlink(2), mknod(2), and what becomes of a
// file whose names go while it is open.
#include "posix.h"
#include <sys/mman.h>

static void hard(void)
{
	put("f", "content");
	mkdir("d", 0755);
	symlink("f", "l");
	symlink("nowhere", "dangling");
	mkfifo("fifo", 0644);
	mknod("sock", S_IFSOCK | 0644, 0);
	is(link("f", "f2"), "a file");
	yes(same("f", "f2"), "which is the same");
	text(look("f"), "and has");
	is(link("f", "f2"), "over a file");
	is(link("f", "d"), "over a directory");
	is(link("f", "dangling"), "over a link to nothing");
	is(link("f", "f"), "over itself");
	is(link("f", "d/f"), "into a directory");
	text(look("d/f"), "three names");
	is(link("d", "d2"), "a directory");
	is(link(".", "d2"), "the working directory");
	is(link("missing", "f3"), "nothing");
	is(link("f", "missing/f"), "into nothing");
	is(link("f", "f/f"), "into a file");
	is(link("l", "l2"), "a link");
	text(look("l2"), "which stays a link");
	is(linkat(AT_FDCWD, "l", AT_FDCWD, "f4", AT_SYMLINK_FOLLOW), "what a link leads to");
	text(look("f4"), "a file with four");
	is(linkat(AT_FDCWD, "dangling", AT_FDCWD, "f5", AT_SYMLINK_FOLLOW), "what a link leads to, nothing");
	is(link("dangling", "dangling2"), "a link to nothing");
	is(link("fifo", "fifo2"), "a fifo");
	is(link("sock", "sock2"), "a socket");
	text(look("fifo2"), "fifo then");
	is(linkat(AT_FDCWD, "f", AT_FDCWD, "f6", 1 << 20), "unknown flag");
	int fd = open("f", O_RDWR), path = open("f", O_PATH), dir = open("d", O_RDONLY);
	char by[40];
	snprintf(by, sizeof by, "/proc/self/fd/%d", path);
	is(linkat(AT_FDCWD, by, AT_FDCWD, "f7", AT_SYMLINK_FOLLOW), "by /proc/self/fd");
	is(linkat(dir, "f", dir, "g", 0), "by descriptors of the directory");
	text(look("d/g"), "all of them");
	is(unlink("f"), "unlink one");
	is(unlink("f2"), "unlink another");
	write(fd, "CON", 3);
	text(give("d/g"), "written by the descriptor");
	static const char *rest[] = { "d/f", "f4", "f7", "d/g" };
	for (int i = 0; i < LEN(rest); i++)
		unlink(rest[i]);
	struct stat st;
	fstat(fd, &st);
	num(st.st_nlink, "links at last");
	snprintf(by, sizeof by, "/proc/self/fd/%d", fd);
	is(linkat(AT_FDCWD, by, AT_FDCWD, "back", AT_SYMLINK_FOLLOW), "link what has no name");
	put("a", "1");
	link("a", "b");
	fd = open("b", O_WRONLY | O_TRUNC);
	write(fd, "22", 2);
	text(give("a"), "written by the other name");
	chmod("b", 0640);
	text(look("a"), "mode by the other name");
	rename("b", "c");
	yes(same("a", "c"), "the same after rename");
	put("b", "3");
	rename("b", "c");
	text(look("a"), "one name after the other was replaced");
	text(give("a"), "whose content stays");
}

static void gone(void)
{
	put("f", "content");
	int fd = open("f", O_RDWR), ro = open("f", O_RDONLY), path = open("f", O_PATH);
	char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), s[16] = "";
	is(unlink("f"), "unlink");
	is(open("f", O_RDONLY), "open");
	num(pread(fd, s, 7, 0), "read");
	text(s, "which is");
	p[0] = 'C';
	pread(ro, s, 7, 0);
	text(s, "by another descriptor after a store");
	is(ftruncate(fd, 3), "ftruncate");
	is(fchmod(fd, 0600), "fchmod");
	is(fsync(fd), "fsync");
	struct stat st;
	fstat(path, &st);
	num(st.st_size, "size by O_PATH");
	char by[40];
	snprintf(by, sizeof by, "/proc/self/fd/%d", path);
	is(open(by, O_RDWR), "by /proc/self/fd");
	put("f", "another");
	yes(st.st_ino != 0 && !stat("f", &st) && st.st_size == 7, "another of that name");
	pread(fd, s, 7, 0);
	is(unlink("f"), "unlink that");
	is(unlink("f"), "and again");
	static const char *kinds[] = { "link", "dangling", "fifo", "sock" };
	symlink("target", "link");
	put("target", "x");
	symlink("nowhere", "dangling");
	mkfifo("fifo", 0644);
	mknod("sock", S_IFSOCK | 0644, 0);
	for (int i = 0; i < LEN(kinds); i++) {
		text(look(kinds[i]), "%s", kinds[i]);
		is(unlink(kinds[i]), "unlink %s", kinds[i]);
		text(look(kinds[i]), "%s then", kinds[i]);
	}
	text(give("target"), "what the link led to");
	is(open("target", O_RDONLY | O_CREAT | O_EXCL, 0644), "O_EXCL of what is there");
	unlink("target");
	is(open("target", O_RDONLY | O_CREAT | O_EXCL, 0644), "O_EXCL of what is gone");
}

static void nodes(void)
{
	static const struct { const char *name; mode_t mode; } kinds[] = {
		{ "regular", S_IFREG }, { "nothing", 0 }, { "fifo", S_IFIFO }, { "socket", S_IFSOCK }, { "directory", S_IFDIR }, { "link", S_IFLNK }, { "unknown", 0170000 },
	};
	put("there", "x");
	for (int i = 0; i < LEN(kinds); i++) {
		is(mknod(kinds[i].name, kinds[i].mode | 0666, 0), "mknod %s", kinds[i].name);
		text(look(kinds[i].name), "%s", kinds[i].name);
		is(mknod("there", kinds[i].mode | 0666, 0), "mknod %s over a file", kinds[i].name);
	}
	is(open("socket", O_RDWR), "open a socket");
	is(open("socket", O_PATH), "O_PATH of a socket");
	is(open("fifo", O_WRONLY | O_NONBLOCK), "open a fifo");
	is(symlink("x", "there"), "symlink over a file");
	is(symlink(null, "l"), "symlink to null");
	is(symlink("x", "missing/l"), "symlink in nothing");
	is(symlink("l1", "l1"), "symlink to itself");
	is(readlink("there", (char[9]){ 0 }, 9), "readlink of a file");
	is(readlink(".", (char[9]){ 0 }, 9), "readlink of a directory");
	is(readlink("l1", bad, 9), "readlink to a bad address");
	is(syscall(SYS_readlinkat, AT_FDCWD, "l1", (char[9]){ 0 }, -1), "readlink into a negative size");
}

void link_cases(void)
{
	group("hard", hard);
	group("unlink", gone);
	group("mknod", nodes);
}
