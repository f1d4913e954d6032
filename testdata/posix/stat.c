// SPDX-License-Identifier: Apache-2.0

// What is told of files: stat(2) and its kin, statx(2), access(2), statfs(2),
// readlink(2) and /proc/self, without what varies.
#include "posix.h"
#include <linux/stat.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

static void fields(void)
{
	put("f", "12345");
	mkdir("d", 0750);
	mkdir("d/e", 0755);
	symlink("f", "l");
	mkfifo("fifo", 0600);
	link("f", "hard");
	static const char *names[] = { "f", "d", "l", "fifo", "hard", "d/e", ".", "d/e/.." };
	for (int i = 0; i < LEN(names); i++) {
		struct stat a, b;
		struct statx x;
		text(look(names[i]), "lstat %s", names[i]);
		lstat(names[i], &a);
		fstatat(AT_FDCWD, names[i], &b, AT_SYMLINK_NOFOLLOW);
		yes(a.st_ino == b.st_ino && a.st_dev == b.st_dev && a.st_mode == b.st_mode, "fstatat agrees on %s", names[i]);
		statx(AT_FDCWD, names[i], AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &x);
		yes(x.stx_ino == a.st_ino && x.stx_mode == a.st_mode && x.stx_nlink == a.st_nlink && x.stx_uid == a.st_uid && x.stx_size == (uint64_t)a.st_size &&
			    makedev(x.stx_dev_major, x.stx_dev_minor) == a.st_dev && x.stx_mtime.tv_nsec == a.st_mtim.tv_nsec, "statx agrees on %s", names[i]);
		yes((x.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS, "statx knows all of %s", names[i]);
		yes(a.st_uid == geteuid() && a.st_gid == getegid(), "owner of %s", names[i]);
		if (!S_ISDIR(a.st_mode))
			num(a.st_size, "size of %s", names[i]);
		int fd = open(names[i], O_PATH | O_NOFOLLOW);
		fstat(fd, &b);
		yes(a.st_ino == b.st_ino && a.st_dev == b.st_dev && a.st_ctim.tv_nsec == b.st_ctim.tv_nsec, "fstat agrees on %s", names[i]);
		yes(fstatat(fd, "", &b, AT_EMPTY_PATH) == 0 && a.st_ino == b.st_ino, "AT_EMPTY_PATH agrees on %s", names[i]);
		close(fd);
	}
	yes(same("f", "hard"), "hard links are one file");
	yes(!same("f", "fifo"), "and others not");
	struct stat d, f;
	stat("d", &d), stat("f", &f);
	yes(d.st_dev == f.st_dev, "one device");
	int fd = open("f", O_RDWR);
	unlink("f");
	fstat(fd, &f);
	num(f.st_nlink, "links after one is gone");
	write(fd, "123456789", 9);
	stat("hard", &f);
	num(f.st_size, "size by the other name");
	struct stat st;
	is(syscall(SYS_newfstatat, AT_FDCWD, "f", &st, 0x4000000), "unknown flag of fstatat");
	is(syscall(SYS_newfstatat, AT_FDCWD, "hard", bad, 0), "bad address of fstatat");
	is(syscall(SYS_newfstatat, AT_FDCWD, "", &st, AT_EMPTY_PATH), "AT_FDCWD with AT_EMPTY_PATH");
	is(syscall(SYS_newfstatat, fd, NULL, &st, 0), "null without AT_EMPTY_PATH");
	is(syscall(SYS_newfstatat, 99, "", &st, AT_EMPTY_PATH), "AT_EMPTY_PATH of a closed one");
	is(syscall(SYS_newfstatat, fd, "d", &st, AT_EMPTY_PATH), "AT_EMPTY_PATH with a path, of a file");
	struct statx x;
	is(syscall(SYS_statx, AT_FDCWD, "hard", 0x4000000, STATX_ALL, &x), "unknown flag of statx");
	is(syscall(SYS_statx, AT_FDCWD, "hard", AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC, STATX_ALL, &x), "both syncs");
	is(syscall(SYS_statx, AT_FDCWD, "hard", AT_STATX_FORCE_SYNC, STATX_ALL, &x), "force sync");
	is(syscall(SYS_statx, AT_FDCWD, "hard", 0, 0x80000000, &x), "the reserved mask");
	is(syscall(SYS_statx, AT_FDCWD, "hard", 0, STATX_ALL, bad), "bad address of statx");
	is(syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_ALL, &x), "statx of a descriptor");
	is(syscall(SYS_statx, fd, "", 0, STATX_ALL, &x), "statx of nothing");
	is(syscall(SYS_statx, fd, NULL, AT_EMPTY_PATH, STATX_ALL, &x), "statx of null");
	is(syscall(SYS_newfstatat, fd, NULL, &st, AT_EMPTY_PATH), "fstatat of null");
	mkdir("n", 0755);
	for (int i = 0; i < 3; i++) {
		char name[16];
		snprintf(name, sizeof name, "n/%d", i);
		mkdir(name, 0755);
	}
	text(look("n"), "a directory with three");
	rmdir("n/1");
	text(look("n"), "and with two");
	put("n/f", "x");
	text(look("n"), "files are no links of it");
}

static void accesses(void)
{
	static const int modes[] = { 0, 0100, 0200, 0400, 0444, 0111, 0644, 0755, 0077 };
	static const struct { int m; const char *name; } asks[] = { { F_OK, "F" }, { R_OK, "R" }, { W_OK, "W" }, { X_OK, "X" }, { R_OK | W_OK | X_OK, "RWX" } };
	put("f", "x");
	mkdir("d", 0755);
	symlink("f", "l");
	symlink("nowhere", "dangling");
	for (int i = 0; i < LEN(modes); i++)
		for (int j = 0; j < LEN(asks); j++) {
			chmod("f", modes[i]);
			chmod("d", modes[i]);
			is(access("f", asks[j].m), "%s of a file %03o", asks[j].name, modes[i]);
			is(access("d", asks[j].m), "%s of a directory %03o", asks[j].name, modes[i]);
			is(syscall(CALL_faccessat2, AT_FDCWD, "f", asks[j].m, AT_EACCESS), "effective %s of a file %03o", asks[j].name, modes[i]);
		}
	chmod("f", 0644);
	is(access("l", W_OK), "through a link");
	is(access("dangling", F_OK), "through a link to nothing");
	is(syscall(CALL_faccessat2, AT_FDCWD, "dangling", F_OK, AT_SYMLINK_NOFOLLOW), "the link itself");
	is(access("f", 8), "unknown mode");
	is(syscall(CALL_faccessat2, AT_FDCWD, "f", F_OK, 1 << 20), "unknown flag");
	int fd = open("f", O_PATH);
	is(syscall(CALL_faccessat2, fd, "", R_OK, AT_EMPTY_PATH), "of a descriptor");
	is(syscall(CALL_faccessat2, fd, "", R_OK, 0), "of nothing");
}

static void filesystem(void)
{
	struct statfs a, b;
	put("f", "x");
	mkdir("d", 0755);
	symlink("f", "l");
	is(statfs(".", &a), "statfs");
	yes(a.f_blocks > 0 && a.f_bsize > 0 && a.f_bfree <= a.f_blocks && a.f_bavail <= a.f_bfree, "makes sense");
	num(a.f_namelen, "longest name");
	static const char *names[] = { "f", "d", "l" };
	for (int i = 0; i < LEN(names); i++) {
		is(statfs(names[i], &b), "statfs of %s", names[i]);
		yes(a.f_type == b.f_type && a.f_blocks == b.f_blocks && !memcmp(&a.f_fsid, &b.f_fsid, sizeof a.f_fsid), "one file system with %s", names[i]);
	}
	int fd = open("d", O_RDONLY);
	is(fstatfs(fd, &b), "fstatfs");
	yes(a.f_type == b.f_type && a.f_blocks == b.f_blocks, "agrees");
	is(fstatfs(open("f", O_PATH), &b), "fstatfs of O_PATH");
	is(statfs("f", bad), "bad address");
	num(pathconf(".", _PC_NAME_MAX), "pathconf of names");
	num(pathconf(".", _PC_PATH_MAX), "pathconf of paths");
	num(pathconf("f", _PC_NO_TRUNC), "pathconf of truncation");
	is(syncfs(fd), "syncfs");
	is(fsync(fd), "fsync of a directory");
}

// mapped is the name of what is at p in /proc/self/maps.
static const char *mapped(const void *p)
{
	static char line[PATH_MAX + 100];
	FILE *maps = fopen("/proc/self/maps", "r");
	while (maps && fgets(line, sizeof line, maps)) {
		unsigned long from, to;
		if (sscanf(line, "%lx-%lx", &from, &to) == 2 && from <= (unsigned long)p && (unsigned long)p < to) {
			fclose(maps);
			line[strcspn(line, "\n")] = 0;
			char *name = strchr(line, '/');
			return name ? name : "no name";
		}
	}
	return "not there";
}

static void proc(void)
{
	put("f", "content");
	mkdir("d", 0755);
	symlink("f", "l");
	mkfifo("fifo", 0644);
	static const char *names[] = { "f", "d", "l", ".", "fifo", "d/../f" };
	char by[60];
	for (int i = 0; i < LEN(names); i++) {
		int fd = open(names[i], O_RDONLY | O_NONBLOCK);
		snprintf(by, sizeof by, "/proc/self/fd/%d", fd);
		text(linked(by), "fd of %s", names[i]);
		struct stat a, b;
		fstat(fd, &a);
		yes(!stat(by, &b) && a.st_ino == b.st_ino && a.st_dev == b.st_dev, "stat by fd of %s", names[i]);
		close(fd);
	}
	int fd = open("f", O_RDWR);
	snprintf(by, sizeof by, "/proc/self/fd/%d", fd);
	text(give(by), "read by fd");
	snprintf(by, sizeof by, "/dev/fd/%d", fd);
	text(give(by), "read by /dev/fd");
	snprintf(by, sizeof by, "/proc/thread-self/fd/%d", fd);
	text(give(by), "read by /proc/thread-self");
	snprintf(by, sizeof by, "/proc/%d/fd/%d", getpid(), fd);
	text(give(by), "read by /proc/PID");
	rename("f", "g");
	text(linked(by), "fd after rename");
	unlink("g");
	text(linked(by), "fd after unlink");
	text(give(by), "read by fd after unlink");
	is(truncate(by, 3), "truncate by fd");
	text(give(by), "which leaves");
	int dir = open("d", O_RDONLY | O_DIRECTORY);
	put("d/x", "of d");
	snprintf(by, sizeof by, "/proc/self/fd/%d/x", dir);
	text(give(by), "below the fd of a directory");
	snprintf(by, sizeof by, "/proc/self/fd/%d/../d/x", dir);
	text(give(by), "above the fd of a directory");
	text(give("/proc/self/cwd/d/x"), "below /proc/self/cwd");
	snprintf(by, sizeof by, "/proc/%d/cwd/d/x", getpid());
	text(give(by), "below /proc/PID/cwd");
	char root[PATH_MAX + 40];
	snprintf(root, sizeof root, "/proc/self/root%s", within("d/x"));
	text(give(root), "below /proc/self/root");
	text(linked("/proc/self/root"), "/proc/self/root");
	snprintf(by, sizeof by, "/proc/self/fd/%d/new", dir);
	is(open(by, O_CREAT | O_WRONLY, 0644), "create below a fd");
	text(look("d/new"), "which is");
	fd = open("d/x", O_RDWR);
	void *p = mmap(NULL, 1, PROT_READ, MAP_PRIVATE, fd, 0);
	text(mapped(p), "name in maps");
	close(fd);
	text(mapped(p), "name in maps after close");
	unlink("d/x");
	text(mapped(p), "name in maps after unlink");
	text(linked("/proc/self/fd/99"), "fd that is closed");
	text(give("/proc/self/fd/99"), "read by that");
	is(open("/proc/self/fd/x", O_RDONLY), "fd by no number");
	snprintf(by, sizeof by, "/proc/self/fdinfo/%d", dir);
	yes(access(by, F_OK) == 0, "fdinfo");
}

void stat_cases(void)
{
	group("stat", fields);
	group("access", accesses);
	group("statfs", filesystem);
	group("proc", proc);
}
