// SPDX-License-Identifier: Apache-2.0

// open(2) and its kin: what each combination of flags does to a file that is there, one
// that is not, a directory and a link; modes and umasks; O_APPEND, O_TMPFILE, O_PATH,
// and what openat2(2) may be told.
#include "posix.h"
#include <linux/openat2.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

static void combinations(void)
{
	static const struct { int flags; const char *name; } flags[] = {
		{ O_CREAT, "CREAT" }, { O_EXCL, "EXCL" }, { O_TRUNC, "TRUNC" }, { O_DIRECTORY, "DIRECTORY" }, { O_NOFOLLOW, "NOFOLLOW" }, { O_PATH, "PATH" },
	};
	static const char *modes[] = { "RDONLY", "WRONLY", "RDWR" };
	static const char *names[] = { "file", "new", "directory", "link", "dirlink", "dangling" };
	mkdir("directory", 0755);
	symlink("file", "link");
	symlink("directory", "dirlink");
	symlink("nowhere", "dangling");
	for (int set = 0; set < 1 << LEN(flags); set++) {
		char label[80] = "";
		int f = 0;
		for (int i = 0; i < LEN(flags); i++)
			if (set & 1 << i)
				f |= flags[i].flags, strcat(strcat(label, "+"), flags[i].name);
		if ((f & O_EXCL) && !(f & O_CREAT))
			continue; // undefined
		for (int mode = 0; mode < 3; mode++)
			for (int n = 0; n < LEN(names); n++) {
				if ((f & O_PATH) && mode)
					continue;
				struct stat st;
				if (stat("file", &st) || !st.st_size) {
					unlink("file");
					put("file", "12345");
				}
				int fd = open(names[n], f | mode, 0640);
				const char *what = strerrorname_np(errno);
				if (fd >= 0) {
					fstat(fd, &st);
					what = S_ISDIR(st.st_mode) ? "directory" : S_ISLNK(st.st_mode) ? "link" : st.st_size ? "file" : "empty file";
					close(fd);
				}
				text(what, "%s%s %s", modes[mode], label, names[n]);
				unlink("new");
				unlink("nowhere");
			}
	}
}

static void modes(void)
{
	static const int umasks[] = { 0, 022, 077, 0777 }, modes[] = { 0, 0400, 0644, 0777, 01666, 02755, 04755, 06777 };
	for (int u = 0; u < LEN(umasks); u++)
		for (int m = 0; m < LEN(modes); m++) {
			umask(umasks[u]);
			close(open("f", O_CREAT | O_WRONLY, modes[m]));
			text(look("f"), "open %o umask %o", modes[m], umasks[u]);
			unlink("f");
			mkdir("d", modes[m]);
			text(look("d"), "mkdir %o umask %o", modes[m], umasks[u]);
			rmdir("d");
			mknod("f", S_IFREG | modes[m], 0);
			text(look("f"), "mknod %o umask %o", modes[m], umasks[u]);
			unlink("f");
			mkfifo("f", modes[m]);
			text(look("f"), "mkfifo %o umask %o", modes[m], umasks[u]);
			unlink("f");
		}
	umask(0);
	symlink("x", "l");
	text(look("l"), "link umask 0");
	umask(077);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_un a = { AF_UNIX, "sock" };
	is(bind(fd, (struct sockaddr *)&a, sizeof a), "bind umask 77");
	text(look("sock"), "socket umask 77");
	umask(022);
	put("kept", "x");
	chmod("kept", 0604);
	close(open("kept", O_CREAT | O_RDWR | O_TRUNC, 0777));
	text(look("kept"), "mode kept by O_CREAT");
	fd = open("shut", O_CREAT | O_RDWR, 0);
	is(write(fd, "x", 1), "write to a new file of mode 0");
	is(open("shut", O_RDWR), "open it again");
}

static const char *flagsof(int fd)
{
	static char s[100];
	int f = fcntl(fd, F_GETFL);
	if (f < 0)
		return NULL;
	snprintf(s, sizeof s, "%s%s%s%s%s%s%s%s%s", (f & O_ACCMODE) == O_RDWR ? "RDWR" : (f & O_ACCMODE) ? "WRONLY" : "RDONLY", f & O_APPEND ? " APPEND" : "",
		 f & O_NONBLOCK ? " NONBLOCK" : "", f & O_DIRECTORY ? " DIRECTORY" : "", f & O_NOFOLLOW ? " NOFOLLOW" : "", (f & O_SYNC) == O_SYNC ? " SYNC" : "",
		 f & O_NOATIME ? " NOATIME" : "", f & O_PATH ? " PATH" : "", fcntl(fd, F_GETFD) & FD_CLOEXEC ? " CLOEXEC" : "");
	return s;
}

static void told(void)
{
	put("f", "x");
	mkdir("d", 0755);
	static const struct { const char *path; int flags; const char *name; } cases[] = {
		{ "f", O_RDONLY, "RDONLY" }, { "f", O_WRONLY, "WRONLY" }, { "f", O_RDWR, "RDWR" }, { "f", O_RDWR | O_APPEND, "APPEND" },
		{ "f", O_RDONLY | O_NONBLOCK, "NONBLOCK" }, { "f", O_RDONLY | O_CLOEXEC, "CLOEXEC" }, { "f", O_RDWR | O_CREAT | O_TRUNC, "CREAT|TRUNC" },
		{ "f", O_RDONLY | O_NOFOLLOW, "NOFOLLOW" }, { "f", O_RDWR | O_SYNC, "SYNC" }, { "f", O_RDONLY | O_NOATIME, "NOATIME" },
		{ "d", O_RDONLY, "a directory" }, { "d", O_RDONLY | O_DIRECTORY, "DIRECTORY" }, { "f", O_PATH, "PATH" },
		{ "d", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, "PATH|DIRECTORY|NOFOLLOW|CLOEXEC" }, { "f", O_ACCMODE, "mode 3" },
		{ "f", O_RDONLY | 0x80000000, "unknown flag" }, { "f", O_PATH | O_RDWR | O_APPEND, "PATH|RDWR|APPEND" },
	};
	for (int i = 0; i < LEN(cases); i++) {
		int fd = open(cases[i].path, cases[i].flags, 0644);
		text(fd < 0 ? NULL : flagsof(fd), "F_GETFL of %s", cases[i].name);
		close(fd);
	}
	int a = open("f", O_RDONLY), b = open("f", O_RDONLY);
	yes(b == a + 1, "the lowest descriptor");
	close(a);
	yes(open("d", O_RDONLY) == a, "the lowest again");
	for (int i = 3; i < 40; i++)
		close(i);
	num(open("f", O_RDONLY), "number after close");
}

static void append(void)
{
	put("f", "one");
	int a = open("f", O_WRONLY | O_APPEND), b = open("f", O_WRONLY | O_APPEND), w = open("f", O_RDWR);
	write(a, "A", 1);
	write(b, "B", 1);
	lseek(a, 0, SEEK_SET);
	write(a, "A", 1);
	text(give("f"), "two that append");
	write(w, "x", 1);
	text(give("f"), "one at its own position");
	num(lseek(a, 0, SEEK_CUR), "position after appending");
	is(pwrite(a, "P", 1, 0), "pwrite to O_APPEND");
	text(give("f"), "pwrite appends");
	is(fcntl(w, F_SETFL, O_APPEND), "F_SETFL");
	write(w, "W", 1);
	text(give("f"), "O_APPEND by F_SETFL");
	is(open("f", O_WRONLY | O_TRUNC), "truncate");
	write(a, "after", 5);
	text(give("f"), "append after truncate");
	is(unlink("f"), "unlink while open");
	is(write(a, "more", 4), "write to what is unlinked");
	char s[8] = "";
	num(pread(w, s, 7, 0), "read what is unlinked");
	text(s, "what is there");
	struct stat st;
	fstat(w, &st);
	num(st.st_nlink, "links of what is unlinked");
}

static void unnamed(void)
{
	mkdir("d", 0755);
	put("f", "x");
	int fd = is(open("d", O_TMPFILE | O_RDWR, 0640), "O_TMPFILE");
	if (fd >= 0) {
		struct stat st;
		fstat(fd, &st);
		num(st.st_nlink, "its links");
		text(st.st_mode == (S_IFREG | 0640) ? "file 640" : "other", "its mode");
		is(write(fd, "made", 4), "write");
		char link[40];
		snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
		is(linkat(AT_FDCWD, link, AT_FDCWD, "d/named", AT_SYMLINK_FOLLOW), "link by /proc/self/fd");
		text(look("d/named"), "what it became");
		text(give("d/named"), "its content");
		fd = open("d", O_TMPFILE | O_RDWR, 0644);
		long rc = linkat(fd, "", AT_FDCWD, "d/again", AT_EMPTY_PATH);
		if (rc < 0 && !root && errno == ENOENT)
			rc = 0; // kernels before 6.10 want CAP_DAC_READ_SEARCH
		is(rc, "link by AT_EMPTY_PATH");
		fd = open("d", O_TMPFILE | O_EXCL | O_RDWR, 0644);
		snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
		is(linkat(AT_FDCWD, link, AT_FDCWD, "d/never", AT_SYMLINK_FOLLOW), "link what is O_EXCL");
	}
	is(open("d", O_TMPFILE | O_RDONLY, 0600), "O_TMPFILE|O_RDONLY");
	is(open("f", O_TMPFILE | O_RDWR, 0600), "O_TMPFILE in a file");
	is(open("missing", O_TMPFILE | O_RDWR, 0600), "O_TMPFILE in nothing");
	is(open("d", O_TMPFILE | O_RDWR | O_CREAT, 0600), "O_TMPFILE|O_CREAT");
}

static void opath(void)
{
	put("f", "content");
	mkdir("d", 0755);
	put("d/x", "of d");
	symlink("f", "l");
	mkfifo("fifo", 0644);
	chmod("f", 0);
	int fd = is(open("f", O_PATH), "O_PATH of what cannot be read");
	chmod("f", 0644);
	char s[8];
	is(read(fd, s, 1), "read");
	is(write(fd, s, 1), "write");
	is(ftruncate(fd, 0), "ftruncate");
	is(fchmod(fd, 0600), "fchmod");
	is(fchown(fd, -1, -1), "fchown");
	is(ioctl(fd, FIONREAD, s), "ioctl");
	is((long)mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0), "mmap");
	is(flock(fd, LOCK_SH), "flock");
	is(fsync(fd), "fsync");
	is(lseek(fd, 0, SEEK_SET), "lseek");
	struct stat st;
	is(fstat(fd, &st), "fstat");
	is(fcntl(fd, F_GETFL), "F_GETFL");
	is(fcntl(fd, F_SETFL, O_APPEND), "F_SETFL");
	is(dup(fd), "dup");
	is(fchdir(fd), "fchdir to a file");
	char by[40];
	snprintf(by, sizeof by, "/proc/self/fd/%d", fd);
	text(give(by), "open anew by /proc/self/fd");
	is(chmod(by, 0600), "chmod by /proc/self/fd");
	text(look("f"), "which changes");
	is(open(by, O_RDONLY | O_NOFOLLOW), "by /proc/self/fd with O_NOFOLLOW");
	is(rename("f", "elsewhere"), "rename");
	text(give(by), "by /proc/self/fd after rename");
	rename("elsewhere", "f");
	int link = is(open("l", O_PATH | O_NOFOLLOW), "O_PATH of a link");
	char to[16] = "";
	num(readlinkat(link, "", to, sizeof to), "readlinkat of nothing");
	text(to, "which is");
	snprintf(by, sizeof by, "/proc/self/fd/%d", link);
	is(open(by, O_RDONLY), "a link by /proc/self/fd");
	int dir = open("d", O_PATH);
	is(openat(dir, "x", O_RDONLY), "openat below O_PATH");
	is(syscall(SYS_getdents64, dir, s, 8), "getdents of O_PATH");
	int here = open(".", O_RDONLY);
	is(fchdir(dir), "fchdir");
	text(give("x"), "read there");
	fchdir(here);
	int f = is(open("fifo", O_PATH), "O_PATH of a fifo");
	struct pollfd p = { f, POLLIN, 0 };
	num(poll(&p, 1, 0), "poll of O_PATH");
	yes(p.revents == POLLNVAL, "which is POLLNVAL");
	is(open("fifo", O_WRONLY | O_NONBLOCK), "fifo without a reader");
	int r = is(open("fifo", O_RDONLY | O_NONBLOCK), "fifo to read");
	int w = is(open("fifo", O_WRONLY | O_NONBLOCK), "fifo with a reader");
	is(write(w, "through", 7), "write to a fifo");
	memset(s, 0, sizeof s);
	num(read(r, s, 7), "read of a fifo");
	text(s, "what is read of a fifo");
}

// halves opens both ends of a fifo, each of which waits for the other.
static void halves(void)
{
	mkfifo("fifo", 0644);
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		int w = open("fifo", O_WRONLY);
		write(w, "hello", 5);
		_exit(0);
	}
	int r = is(open("fifo", O_RDONLY), "wait for a writer");
	char s[8] = "";
	num(read(r, s, sizeof s), "read");
	waitpid(pid, NULL, 0);
	num(read(r, s, sizeof s), "end of file");
	is(open("fifo", O_RDWR), "both ends at once");
}

static long how(int at, const char *p, uint64_t flags, uint64_t mode, uint64_t resolve)
{
	struct open_how h = { flags, mode, resolve };
	long fd;
	int tries = 0;
	do // with ".." it says EAGAIN while somebody on the machine mounts or renames: openat2(2)
		fd = syscall(SYS_openat2, at, p, &h, sizeof h);
	while (fd < 0 && errno == EAGAIN && !(resolve & RESOLVE_CACHED) && tries++ < 1000);
	if (fd >= 0)
		close(fd);
	return fd;
}

static void resolving(void)
{
	mkdir("d", 0755);
	mkdir("d/sub", 0755);
	put("d/f", "x");
	put("f", "x");
	symlink("f", "d/l");
	symlink("../f", "d/up");
	symlink("/etc", "d/abs");
	symlink("sub", "d/dirlink");
	int d = open("d", O_RDONLY | O_DIRECTORY);
	char magic[40];
	snprintf(magic, sizeof magic, "/proc/self/fd/%d/f", d);
	static const char *names[] = { "f", "l", "up", "abs", "dirlink/../f", "../f", "sub/../f", "/etc", "sub/../../f", ".." };
	static const struct { int r; const char *name; } resolve[] = {
		{ RESOLVE_BENEATH, "BENEATH" }, { RESOLVE_IN_ROOT, "IN_ROOT" }, { RESOLVE_NO_SYMLINKS, "NO_SYMLINKS" },
		{ RESOLVE_NO_MAGICLINKS, "NO_MAGICLINKS" }, { RESOLVE_NO_XDEV, "NO_XDEV" }, { RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS, "BENEATH|NO_SYMLINKS" },
	};
	for (int i = 0; i < LEN(resolve); i++)
		for (int j = 0; j < LEN(names); j++) {
			if (resolve[i].r == RESOLVE_NO_XDEV && strstr("/etc abs", names[j]))
				continue; // where the mount is, is not the file system's
			is(how(d, names[j], O_RDONLY, 0, resolve[i].r), "%s %s", resolve[i].name, names[j]);
		}
	is(how(AT_FDCWD, magic, O_RDONLY, 0, 0), "magic link");
	is(how(AT_FDCWD, magic, O_RDONLY, 0, RESOLVE_NO_MAGICLINKS), "magic link NO_MAGICLINKS");
	is(how(AT_FDCWD, magic, O_RDONLY, 0, RESOLVE_NO_SYMLINKS), "magic link NO_SYMLINKS");
	is(how(d, "f", O_RDONLY, 0, RESOLVE_BENEATH | RESOLVE_IN_ROOT), "BENEATH and IN_ROOT");
	is(how(d, "f", O_RDONLY, 0, 1 << 20), "unknown RESOLVE");
	is(how(d, "f", O_RDONLY, 0644, 0), "a mode without O_CREAT");
	is(how(d, "f", 1ULL << 40, 0, 0), "unknown flag");
	is(how(d, "made", O_WRONLY | O_CREAT | O_EXCL, 0600, RESOLVE_BENEATH), "create BENEATH");
	text(look("d/made"), "which is");
	is(how(d, "bad", O_WRONLY | O_CREAT, 010000, 0), "mode out of range");
	is(how(d, "/made", O_WRONLY | O_CREAT, 0600, RESOLVE_IN_ROOT), "create IN_ROOT");
	struct { struct open_how h; uint64_t more; } big = { { .flags = O_RDONLY }, 0 };
	is(syscall(SYS_openat2, d, "f", &big, sizeof big), "larger and zero");
	big.more = 1;
	is(syscall(SYS_openat2, d, "f", &big, sizeof big), "larger and not");
	is(syscall(SYS_openat2, d, "f", &big, 8), "smaller");
	is(syscall(SYS_openat2, d, "f", NULL, sizeof big.h), "null");
	is(syscall(SYS_openat2, d, "f", &big, 5000), "larger than a page");
}

void open_cases(void)
{
	group("open", combinations);
	group("mode", modes);
	group("flags", told);
	group("append", append);
	group("tmpfile", unnamed);
	group("opath", opath);
	group("fifo", halves);
	group("openat2", resolving);
}
