// SPDX-License-Identifier: Apache-2.0

// Every call that has a path, with every kind of path: names that are there and are
// not, through links, files and loops, too long, empty, at a bad address, and relative
// to a directory, a file and nothing.
#include "posix.h"
#include <linux/openat2.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <utime.h>

struct xattr_args { uint64_t value; uint32_t size, flags; };

static int notify = -1; // an inotify instance
static char buf[2 * PATH_MAX];

static long closing(long fd)
{
	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static long c_openat(int at, const char *p) { return closing(openat(at, p, O_RDONLY)); }
static long c_openat_write(int at, const char *p) { return closing(openat(at, p, O_RDWR)); }
static long c_openat_create(int at, const char *p) { return closing(openat(at, p, O_RDWR | O_CREAT, 0644)); }
static long c_openat_excl(int at, const char *p) { return closing(openat(at, p, O_RDWR | O_CREAT | O_EXCL, 0644)); }
static long c_openat_nofollow(int at, const char *p) { return closing(openat(at, p, O_RDONLY | O_NOFOLLOW)); }
static long c_openat_directory(int at, const char *p) { return closing(openat(at, p, O_RDONLY | O_DIRECTORY)); }
static long c_openat_path(int at, const char *p) { return closing(openat(at, p, O_PATH)); }
static long c_openat_path_nofollow(int at, const char *p) { return closing(openat(at, p, O_PATH | O_NOFOLLOW)); }

static long c_openat2(int at, const char *p)
{
	struct open_how how = { .flags = O_RDONLY };
	return closing(syscall(SYS_openat2, at, p, &how, sizeof how));
}

static long c_newfstatat(int at, const char *p) { struct stat st; return fstatat(at, p, &st, 0); }
static long c_newfstatat_nofollow(int at, const char *p) { struct stat st; return fstatat(at, p, &st, AT_SYMLINK_NOFOLLOW); }
static long c_statx(int at, const char *p) { struct statx st; return statx(at, p, 0, STATX_BASIC_STATS, &st); }
static long c_statx_nofollow(int at, const char *p) { struct statx st; return statx(at, p, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &st); }
static long c_faccessat(int at, const char *p) { return syscall(SYS_faccessat, at, p, R_OK); }
static long c_faccessat2(int at, const char *p) { return syscall(SYS_faccessat2, at, p, R_OK | W_OK, AT_EACCESS); }
static long c_readlinkat(int at, const char *p) { return readlinkat(at, p, buf, sizeof buf); }
static long c_mkdirat(int at, const char *p) { return mkdirat(at, p, 0755); }
static long c_mknodat(int at, const char *p) { return mknodat(at, p, S_IFREG | 0644, 0); }
static long c_mkfifoat(int at, const char *p) { return mknodat(at, p, S_IFIFO | 0644, 0); }
static long c_unlinkat(int at, const char *p) { return unlinkat(at, p, 0); }
static long c_unlinkat_dir(int at, const char *p) { return unlinkat(at, p, AT_REMOVEDIR); }
static long c_symlinkat(int at, const char *p) { return symlinkat("f", at, p); }
static long c_linkat_from(int at, const char *p) { return linkat(at, p, AT_FDCWD, "new2", 0); }
static long c_linkat_follow(int at, const char *p) { return linkat(at, p, AT_FDCWD, "new2", AT_SYMLINK_FOLLOW); }
static long c_linkat_to(int at, const char *p) { return linkat(AT_FDCWD, "g", at, p, 0); }
static long c_renameat_from(int at, const char *p) { return renameat(at, p, AT_FDCWD, "new2"); }
static long c_renameat_to(int at, const char *p) { return renameat(AT_FDCWD, "g", at, p); }
static long c_renameat2_noreplace(int at, const char *p) { return renameat2(AT_FDCWD, "g", at, p, RENAME_NOREPLACE); }
static long c_fchmodat(int at, const char *p) { return syscall(SYS_fchmodat, at, p, 0755); }
static long c_fchmodat2(int at, const char *p) { return syscall(CALL_fchmodat2, at, p, 0755, AT_SYMLINK_NOFOLLOW); }
static long c_fchownat(int at, const char *p) { return fchownat(at, p, geteuid(), getegid(), 0); }
static long c_fchownat_nofollow(int at, const char *p) { return fchownat(at, p, geteuid(), getegid(), AT_SYMLINK_NOFOLLOW); }
static long c_utimensat(int at, const char *p) { return syscall(SYS_utimensat, at, p, NULL, 0); }
static long c_utimensat_nofollow(int at, const char *p) { return syscall(SYS_utimensat, at, p, NULL, AT_SYMLINK_NOFOLLOW); }

static long c_handle(int at, const char *p)
{
	struct { struct file_handle h; char room[MAX_HANDLE_SZ]; } h = { .h.handle_bytes = MAX_HANDLE_SZ };
	int id;
	return name_to_handle_at(at, p, &h.h, &id, 0);
}

static long c_setxattrat(int at, const char *p)
{
	struct xattr_args a = { .value = (uintptr_t)"v", .size = 1 };
	return syscall(CALL_setxattrat, at, p, 0, "user.k", &a, sizeof a);
}

static long c_getxattrat(int at, const char *p)
{
	struct xattr_args a = { .value = (uintptr_t)buf, .size = sizeof buf };
	return syscall(CALL_getxattrat, at, p, 0, "user.none", &a, sizeof a);
}

static long c_listxattrat(int at, const char *p) { return syscall(CALL_listxattrat, at, p, 0, buf, sizeof buf) < 0 ? -1 : 0; }
static long c_removexattrat(int at, const char *p) { return syscall(CALL_removexattrat, at, p, 0, "user.none"); }

static long c_execveat(int at, const char *p) { char *none[] = { NULL }; return syscall(SYS_execveat, at, p, none, none, 0); }

// From here on without a descriptor.
#ifdef SYS_open // what a new architecture lacks
static long c_open(int at, const char *p) { return closing(syscall(SYS_open, p, O_RDONLY)); }
static long c_creat(int at, const char *p) { return closing(syscall(SYS_creat, p, 0644)); }
static long c_stat(int at, const char *p) { struct stat st; return syscall(SYS_stat, p, &st); }
static long c_lstat(int at, const char *p) { struct stat st; return syscall(SYS_lstat, p, &st); }
static long c_access(int at, const char *p) { return syscall(SYS_access, p, X_OK); }
static long c_readlink(int at, const char *p) { return syscall(SYS_readlink, p, buf, sizeof buf); }
static long c_mkdir(int at, const char *p) { return syscall(SYS_mkdir, p, 0755); }
static long c_rmdir(int at, const char *p) { return syscall(SYS_rmdir, p); }
static long c_unlink(int at, const char *p) { return syscall(SYS_unlink, p); }
static long c_mknod(int at, const char *p) { return syscall(SYS_mknod, p, S_IFSOCK | 0644, 0); }
static long c_symlink(int at, const char *p) { return syscall(SYS_symlink, "f", p); }
static long c_link_from(int at, const char *p) { return syscall(SYS_link, p, "new2"); }
static long c_link_to(int at, const char *p) { return syscall(SYS_link, "g", p); }
static long c_rename_from(int at, const char *p) { return syscall(SYS_rename, p, "new2"); }
static long c_rename_to(int at, const char *p) { return syscall(SYS_rename, "g", p); }
static long c_chmod(int at, const char *p) { return syscall(SYS_chmod, p, 0755); }
static long c_chown(int at, const char *p) { return syscall(SYS_chown, p, geteuid(), getegid()); }
static long c_lchown(int at, const char *p) { return syscall(SYS_lchown, p, geteuid(), getegid()); }
static long c_utime(int at, const char *p) { return syscall(SYS_utime, p, NULL); }
static long c_utimes(int at, const char *p) { return syscall(SYS_utimes, p, NULL); }
static long c_futimesat(int at, const char *p) { return syscall(SYS_futimesat, at, p, NULL); }
#endif
static long c_truncate(int at, const char *p) { return truncate(p, 0); }
static long c_statfs(int at, const char *p) { struct statfs s; return statfs(p, &s); }
static long c_execve(int at, const char *p) { char *none[] = { NULL }; return execve(p, none, none); }
static long c_getxattr(int at, const char *p) { return getxattr(p, "user.none", buf, sizeof buf); }
static long c_lgetxattr(int at, const char *p) { return lgetxattr(p, "user.none", buf, sizeof buf); }
static long c_setxattr(int at, const char *p) { return setxattr(p, "user.k", "v", 1, 0); }
static long c_lsetxattr(int at, const char *p) { return lsetxattr(p, "user.k", "v", 1, 0); }
static long c_listxattr(int at, const char *p) { return listxattr(p, buf, sizeof buf) < 0 ? -1 : 0; }
static long c_llistxattr(int at, const char *p) { return llistxattr(p, buf, sizeof buf) < 0 ? -1 : 0; }
static long c_removexattr(int at, const char *p) { return removexattr(p, "user.none"); }
static long c_lremovexattr(int at, const char *p) { return lremovexattr(p, "user.none"); }

static long c_inotify(int at, const char *p)
{
	int wd = inotify_add_watch(notify, p, IN_ATTRIB);
	return wd < 0 ? -1 : inotify_rm_watch(notify, wd);
}

static long c_chdir(int at, const char *p)
{
	int back = need(open(".", O_RDONLY | O_DIRECTORY), "open .");
	long rc = chdir(p);
	int e = errno;
	need(fchdir(back), "fchdir");
	close(back);
	errno = e;
	return rc;
}

// In a process of its own, since there is no way back.
static long c_chroot(int at, const char *p)
{
	pid_t pid = need(fork(), "fork");
	if (!pid)
		_exit(chroot(p) ? errno : 0);
	int status = 0;
	waitpid(pid, &status, 0);
	errno = WEXITSTATUS(status);
	return errno ? -1 : 0;
}

static socklen_t address(struct sockaddr_un *a, const char *p)
{
	a->sun_family = AF_UNIX;
	if (!p || p == (const char *)1 || strlen(p) >= sizeof a->sun_path || !*p)
		return 0;
	strcpy(a->sun_path, p);
	return sizeof *a;
}

static long un(const char *p, int (*f)(int, const struct sockaddr *, socklen_t))
{
	struct sockaddr_un a;
	socklen_t n = address(&a, p);
	if (!n) {
		errno = ENOANO; // no such address can be told
		return -1;
	}
	int fd = need(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0), "socket");
	long rc = f(fd, (struct sockaddr *)&a, n);
	int e = errno;
	close(fd);
	errno = e;
	return rc;
}

static long c_bind(int at, const char *p) { return un(p, bind); }
static long c_connect(int at, const char *p) { return un(p, connect); }

// What a call takes, whether it leaves something behind, ends its process, or changes
// what is the directory's own.
enum { AT = 1, CHANGES = 2, CHILD = 4, OWN = 8 };

#define C(name, how) { #name, c_##name, how }
static const struct { const char *name; long (*call)(int, const char *); int how; } calls[] = {
	C(openat, AT), C(openat_write, AT), C(openat_create, AT | CHANGES), C(openat_excl, AT | CHANGES), C(openat_nofollow, AT),
	C(openat_directory, AT), C(openat_path, AT), C(openat_path_nofollow, AT), C(openat2, AT),
	C(newfstatat, AT), C(newfstatat_nofollow, AT), C(statx, AT), C(statx_nofollow, AT), C(faccessat, AT), C(faccessat2, AT),
	C(readlinkat, AT), C(mkdirat, AT | CHANGES), C(mknodat, AT | CHANGES), C(mkfifoat, AT | CHANGES), C(unlinkat, AT | CHANGES),
	C(unlinkat_dir, AT | CHANGES), C(symlinkat, AT | CHANGES), C(linkat_from, AT | CHANGES), C(linkat_follow, AT | CHANGES),
	C(linkat_to, AT | CHANGES), C(renameat_from, AT | CHANGES), C(renameat_to, AT | CHANGES), C(renameat2_noreplace, AT | CHANGES),
	C(fchmodat, AT | OWN), C(fchmodat2, AT | OWN), C(fchownat, AT | OWN), C(fchownat_nofollow, AT | OWN), C(utimensat, AT | OWN), C(utimensat_nofollow, AT | OWN),
	C(handle, AT), C(setxattrat, AT | OWN), C(getxattrat, AT), C(listxattrat, AT), C(removexattrat, AT), C(execveat, AT | CHILD),
#ifdef SYS_open
	C(open, 0), C(creat, CHANGES), C(stat, 0), C(lstat, 0), C(access, 0), C(readlink, 0), C(mkdir, CHANGES), C(rmdir, CHANGES),
	C(unlink, CHANGES), C(mknod, CHANGES), C(symlink, CHANGES), C(link_from, CHANGES), C(link_to, CHANGES), C(rename_from, CHANGES),
	C(rename_to, CHANGES), C(chmod, OWN), C(chown, OWN), C(lchown, OWN), C(utime, OWN), C(utimes, OWN), C(futimesat, AT | OWN),
#endif
	C(truncate, 0), C(statfs, 0), C(execve, CHILD), C(getxattr, 0), C(lgetxattr, 0), C(setxattr, OWN), C(lsetxattr, OWN), C(listxattr, 0),
	C(llistxattr, 0), C(removexattr, 0), C(lremovexattr, 0), C(inotify, 0), C(chdir, 0), C(chroot, 0), C(bind, CHANGES), C(connect, 0),
};

// fixture makes what the paths lead to, or what a call has taken away of it.
static void fixture(void)
{
	struct stat st;
	if (unlink("new") < 0 && errno == EISDIR)
		rmdir("new");
	if (unlink("new2") < 0 && errno == EISDIR)
		rename("new2", "d");
	unlink("nowhere");
	unlink("d/new");
	if (root) { // who is held back by no mode
		unlink("shut/new"), rmdir("shut/new");
		unlink("locked/new"), rmdir("locked/new");
	}
	if (lstat("d", &st) || !S_ISDIR(st.st_mode))
		unlink("d"), need(mkdir("d", 0755), "mkdir");
	static const char *files[] = { "f", "g", "d/x", "d/y", "shut/f", "locked/f" };
	for (int i = 0; i < LEN(files) - (root ? 0 : 2); i++)
		if (lstat(files[i], &st) || !S_ISREG(st.st_mode) || st.st_size != 1)
			unlink(files[i]), put(files[i], "x");
	chmod("f", 0644);
	static const char *links[][2] = { { "l", "f" }, { "ld", "d" }, { "dangling", "nowhere" }, { "loop", "loop" } };
	for (int i = 0; i < LEN(links); i++)
		if (lstat(links[i][0], &st) || !S_ISLNK(st.st_mode))
			unlink(links[i][0]), need(symlink(links[i][1], links[i][0]), "symlink");
}

// first makes what no call takes away.
static void first(void)
{
	notify = need(inotify_init1(IN_CLOEXEC), "inotify");
	need(mkdir("locked", 0755), "mkdir");
	put("locked/f", "x");
	need(chmod("locked", 0), "chmod");
	need(mkdir("shut", 0755), "mkdir");
	put("shut/f", "x");
	need(chmod("shut", 0555), "chmod");
	need(symlink("f", "c40"), "symlink");
	for (int i = 39; i >= 0; i--) {
		char name[8], to[8];
		snprintf(name, sizeof name, "c%d", i);
		snprintf(to, sizeof to, "c%d", i + 1);
		need(symlink(to, name), "symlink");
	}
}

static void one(int i, int at, const char *path, const char *label)
{
	if (calls[i].how & CHILD) {
		fflush(stdout);
		pid_t pid = need(fork(), "fork");
		if (!pid) {
			is(calls[i].call(at, path), "%s %s", calls[i].name, label);
			_exit(0);
		}
		waitpid(pid, NULL, 0);
		return;
	}
	long rc = is(calls[i].call(at, path), "%s %s", calls[i].name, label);
	if (rc >= 0 && (calls[i].how & CHANGES))
		fixture();
	if (calls[i].call == c_truncate && rc >= 0)
		fixture();
}

static void paths(void)
{
	static char name255[256], name256[257], path4095[PATH_MAX], path4096[PATH_MAX + 1];
	memset(name255, 'n', 255);
	memset(name256, 'n', 256);
	for (int i = 0; i + 2 < PATH_MAX; i += 2)
		memcpy(path4095 + i, "./", 2);
	memcpy(path4095 + PATH_MAX - 2, "f", 2);
	for (int i = 0; i + 2 <= PATH_MAX; i += 2)
		memcpy(path4096 + i, "./", 2);
	memcpy(path4096 + PATH_MAX - 1, "f", 2);
	const struct { const char *path, *label; } all[] = {
		{ "f", NULL }, { "new", NULL }, { "d", NULL }, { "l", NULL }, { "ld", NULL }, { "dangling", NULL }, { "loop", NULL },
		{ "d/x", NULL }, { "ld/x", NULL }, { "missing/x", NULL }, { "f/x", NULL }, { "l/x", NULL }, { "dangling/x", NULL }, { "loop/x", NULL },
		{ "d/../f", NULL }, { "ld/../f", NULL }, { "missing/../f", NULL }, { "f/../f", NULL }, { "./f", NULL }, { ".//d///x", NULL },
		{ "f/", NULL }, { "l/", NULL }, { "d/", NULL }, { "ld/", NULL }, { "new/", NULL }, { "dangling/", NULL }, { "f/.", NULL },
		{ ".", NULL }, { "d/.", NULL }, { "d/..", NULL }, { "ld/.", NULL },
		{ "", "empty" }, { NULL, "null" }, { (const char *)1, "bad address" },
		{ name255, "name of 255" }, { name256, "name of 256" }, { path4095, "path of 4095" }, { path4096, "path of 4096" },
		{ "c1", "40 links" }, { "c0", "41 links" },
		{ "locked/f", NULL }, { "locked/new", NULL }, { "shut/f", NULL }, { "shut/new", NULL },
	};
	first();
	fixture();
	for (int i = 0; i < LEN(calls); i++)
		for (int j = 0; j < LEN(all); j++) {
			one(i, AT_FDCWD, all[j].path, all[j].label ? all[j].label : all[j].path);
			if (j == 34 && (calls[i].how & CHANGES))
				if (unlink(name255) < 0 && errno == EISDIR)
					rmdir(name255);
		}
	for (int i = 0; i < LEN(calls); i++) {
		one(i, AT_FDCWD, within("d/x"), "absolute");
		if (!(calls[i].how & OWN)) // not ours to change
			one(i, AT_FDCWD, "/", "root directory");
		one(i, AT_FDCWD, within("missing/x"), "absolute missing");
	}
}

static void relative(void)
{
	notify = need(inotify_init1(IN_CLOEXEC), "inotify");
	if (root)
		need(mkdir("shut", 0755) | mkdir("locked", 0755), "mkdir");
	fixture();
	const struct { int fd; const char *label; } ats[] = {
		{ need(open("d", O_RDONLY | O_DIRECTORY), "open"), "directory" },
		{ need(open("d", O_PATH | O_DIRECTORY), "open"), "path of a directory" },
		{ need(open("f", O_RDONLY), "open"), "file" },
		{ open("l", O_PATH | O_NOFOLLOW), "path of a link" },
		{ 99, "closed" }, { -1, "negative" },
	};
	const struct { const char *path, *label; } names[] = {
		{ "x", "x" }, { "new", "new" }, { "../f", "../f" }, { "", "empty" }, { within("f"), "absolute" },
	};
	for (int i = 0; i < LEN(calls); i++)
		for (int j = 0; j < LEN(ats) && (calls[i].how & AT); j++)
			for (int k = 0; k < LEN(names); k++) {
				char label[80];
				snprintf(label, sizeof label, "%s of %s", names[k].label, ats[j].label);
				// d itself must stay what the descriptors are of: only names are made.
				one(i, ats[j].fd, names[k].path, label);
				struct stat a, b;
				if (fstat(ats[0].fd, &a) || stat("d", &b) || a.st_ino != b.st_ino)
					is(-1, "the directory was lost, cannot go on"), exit(9);
			}
}

void call_cases(void)
{
	group("call", paths);
	group("callat", relative);
}
