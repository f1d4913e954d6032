// SPDX-License-Identifier: Apache-2.0

// Modes, sizes and extended attributes.
#include "posix.h"
#include <sys/mman.h>
#include <sys/xattr.h>

static void modes(void)
{
	put("f", "x");
	mkdir("d", 0755);
	symlink("f", "l");
	symlink("nowhere", "dangling");
	static const int all[] = { 0, 0111, 0222, 0444, 0777, 01777, 02777, 04777, 07777, 0640 };
	for (int i = 0; i < LEN(all); i++) {
		is(chmod("f", all[i]), "chmod %o", all[i]);
		text(look("f"), "file after %o", all[i]);
		is(chmod("d", all[i] | 0700), "chmod a directory %o for %o", all[i] | 0700, all[i]);
		text(look("d"), "directory after %o for %o", all[i] | 0700, all[i]);
	}
	is(chmod("l", 0600), "chmod by a link");
	text(look("f"), "file after that");
	text(look("l"), "link after that");
	is(chmod("dangling", 0600), "chmod by a link to nothing");
	is(fchmodat(AT_FDCWD, "f", 0604, 0), "fchmodat");
	is(syscall(CALL_fchmodat2, AT_FDCWD, "l", 0640, AT_SYMLINK_NOFOLLOW), "fchmodat2 of a link");
	is(syscall(CALL_fchmodat2, AT_FDCWD, "f", 0640, AT_SYMLINK_NOFOLLOW), "fchmodat2 of a file");
	is(syscall(CALL_fchmodat2, AT_FDCWD, "f", 0640, 1 << 20), "fchmodat2 with an unknown flag");
	int fd = open("f", O_RDONLY), path = open("f", O_PATH);
	is(fchmod(fd, 0660), "fchmod");
	text(look("f"), "file after fchmod");
	is(syscall(CALL_fchmodat2, path, "", 0606, AT_EMPTY_PATH), "fchmodat2 of O_PATH");
	text(look("f"), "file after fchmodat2");
	is(chmod("f", 0177777), "bits that are no mode");
	text(look("f"), "file after those");
	chmod("f", 0200);
	char c;
	is(read(fd, &c, 1), "read by a descriptor, after the mode is gone");
	is(open("f", O_RDONLY), "open what may only be written");
	chmod("f", 0400);
	is(open("f", O_WRONLY), "open what may only be read");
	is(truncate("f", 0), "truncate what may only be read");
	is(unlink("f"), "unlink what may only be read");
	put("s", "x");
	chmod("s", 06755);
	fd = open("s", O_WRONLY);
	write(fd, "y", 1);
	text(look("s"), "set-id bits after a write");
	chmod("s", 06755);
	truncate("s", 0);
	text(look("s"), "set-id bits after truncate");
	mkdir("g", 0755);
	chmod("g", 02755);
	mkdir("g/sub", 0755);
	text(look("g/sub"), "directory in a set-gid one");
	put("g/f", "x");
	text(look("g/f"), "file in a set-gid one");
	mkdir("t", 01777);
	chmod("t", 01777);
	put("t/f", "x");
	is(unlink("t/f"), "unlink one's own in a sticky directory");
}

static void sizes(void)
{
	struct stat st;
	char s[16] = "";
	put("f", "0123456789");
	is(truncate("f", 4), "truncate");
	text(give("f"), "what is left");
	is(truncate("f", 8), "longer");
	int fd = open("f", O_RDWR);
	num(read(fd, s, sizeof s), "read it");
	yes(!memcmp(s, "0123\0\0\0\0", 8), "zeros");
	is(ftruncate(fd, 2), "ftruncate");
	num(lseek(fd, 0, SEEK_CUR), "position stays");
	is(write(fd, "z", 1), "write beyond the end");
	stat("f", &st);
	num(st.st_size, "size with a hole");
	is(truncate("f", 1L << 33), "to 8 GiB");
	stat("f", &st);
	num(st.st_size, "size then");
	yes(st.st_blocks < 1000, "and no blocks");
	is(truncate("f", 0), "to nothing");
	is(truncate("f", -1), "negative");
	is(ftruncate(fd, -1), "ftruncate negative");
	is(ftruncate(open("f", O_RDONLY), 0), "ftruncate of what is open to read");
	mkdir("d", 0755);
	is(truncate("d", 0), "a directory");
	mkfifo("fifo", 0644);
	is(truncate("fifo", 0), "a fifo");
	symlink("f", "l");
	is(truncate("l", 5), "by a link");
	stat("f", &st);
	num(st.st_size, "size of what it leads to");
	is(posix_fallocate(fd, 0, 100) ? -1 : 0, "posix_fallocate");
	stat("f", &st);
	num(st.st_size, "size after that");
	is(lseek(fd, 5, SEEK_SET), "lseek");
	is(lseek(fd, -1, SEEK_SET), "lseek before the start");
	num(lseek(fd, 0, SEEK_END), "lseek to the end");
	num(lseek(fd, 1000, SEEK_HOLE), "SEEK_HOLE beyond the end");
	is(open("d", O_RDONLY | O_TRUNC), "O_TRUNC of a directory");
	is(read(open("d", O_RDONLY), s, 1), "read a directory");
	is(write(open("d", O_RDONLY), s, 1), "write a directory");
	is(pwrite(fd, "far", 3, 100000), "pwrite far away");
	stat("f", &st);
	num(st.st_size, "size after pwrite");
	num(pread(fd, s, 3, 100000), "pread");
	is(pread(fd, s, 3, -1), "pread before the start");
}

static void list(const char *path, const char *label)
{
	char names[256];
	char *all[20];
	int k = 0;
	ssize_t n = listxattr(path, names, sizeof names);
	for (char *p = names; n > 0 && p < names + n; p += strlen(p) + 1)
		if (!strncmp(p, "user.", 5) && k < LEN(all)) // and not those of security modules
			all[k++] = p;
	text(n < 0 ? NULL : sorted(all, k), "%s", label);
}

static void attributes(void)
{
	static char big[1 << 20];
	char v[100] = "";
	put("f", "x");
	mkdir("d", 0755);
	symlink("f", "l");
	mkfifo("fifo", 0644);
	is(setxattr("f", "user.one", "1", 1, 0), "set");
	is(setxattr("f", "user.two", "22", 2, XATTR_CREATE), "create");
	is(setxattr("f", "user.two", "22", 2, XATTR_CREATE), "create again");
	is(setxattr("f", "user.two", "two", 3, XATTR_REPLACE), "replace");
	is(setxattr("f", "user.none", "x", 1, XATTR_REPLACE), "replace what is not there");
	is(setxattr("f", "user.none", "x", 1, 8), "unknown flag");
	num(getxattr("f", "user.two", v, sizeof v), "get");
	text(v, "which is");
	num(getxattr("f", "user.two", NULL, 0), "ask for its size");
	is(getxattr("f", "user.two", v, 1), "get into one byte");
	is(getxattr("f", "user.none", v, sizeof v), "get what is not there");
	is(getxattr("f", "user.", v, sizeof v), "get an empty name");
	is(getxattr("f", "nonsense.x", v, sizeof v), "get in no namespace");
	is(getxattr("f", "", v, sizeof v), "get no name");
	is(getxattr("f", NULL, v, sizeof v), "get null");
	is(setxattr("f", "nonsense.x", "x", 1, 0), "set in no namespace");
	is(setxattr("f", "user.empty", "", 0, 0), "set nothing");
	num(getxattr("f", "user.empty", v, sizeof v), "get nothing");
	char name[300] = "user.";
	memset(name + 5, 'n', 250);
	is(setxattr("f", name, "x", 1, 0), "a name of 255");
	name[255] = 'n', name[256] = 0;
	is(setxattr("f", name, "x", 1, 0), "a name of 256");
	name[255] = 0;
	is(removexattr("f", name), "remove it");
	is(setxattr("f", "user.big", big, sizeof big, 0), "a value of a MiB");
	list("f", "list");
	is(listxattr("f", v, 3), "list into three bytes");
	yes(listxattr("f", NULL, 0) >= 27, "ask for the size of the list");
	is(removexattr("f", "user.one"), "remove");
	is(removexattr("f", "user.one"), "remove again");
	list("f", "list then");
	is(setxattr("l", "user.by", "link", 4, 0), "set by a link");
	is(lsetxattr("l", "user.of", "link", 4, 0), "set of a link");
	is(lgetxattr("l", "user.by", v, sizeof v), "get of a link");
	is(lremovexattr("l", "user.by"), "remove of a link");
	list("f", "list of what it leads to");
	is(setxattr("d", "user.dir", "x", 1, 0), "of a directory");
	is(setxattr("fifo", "user.fifo", "x", 1, 0), "of a fifo");
	is(setxattr("f", "trusted.x", "x", 1, 0), "trusted");
	int fd = open("f", O_RDONLY), path = open("f", O_PATH);
	is(fsetxattr(fd, "user.fd", "x", 1, 0), "by a descriptor");
	is(fgetxattr(fd, "user.fd", v, sizeof v), "get by a descriptor");
	is(fgetxattr(path, "user.fd", v, sizeof v), "get by O_PATH");
	is(fremovexattr(fd, "user.fd"), "remove by a descriptor");
	char by[40];
	snprintf(by, sizeof by, "/proc/self/fd/%d", path);
	is(setxattr(by, "user.magic", "x", 1, 0), "by /proc/self/fd");
	num(getxattr("f", "user.magic", v, sizeof v), "which it has");
	link("f", "hard");
	list("hard", "list of another name");
	rename("f", "g");
	list("g", "list after rename");
	is(fremovexattr(fd, "user.empty"), "by a descriptor after rename");
	list("hard", "list after that");
	chmod("g", 0400);
	is(setxattr("g", "user.ro", "x", 1, 0), "of a file of mode 400");
	chmod("g", 0200);
	is(getxattr("g", "user.two", v, sizeof v), "get of a file of mode 200");
	chmod("g", 0644);
}

void attr_cases(void)
{
	group("chmod", modes);
	group("truncate", sizes);
	group("xattr", attributes);
}
