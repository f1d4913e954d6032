// SPDX-License-Identifier: Apache-2.0

// What is in files: shared by mappings, moved by splice(2) and its kin, and locked.
#include "posix.h"
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

static void mappings(void)
{
	put("f", "0123456789");
	link("f", "hard");
	int a = open("f", O_RDWR), b = open("hard", O_RDWR);
	char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, a, 0), *q = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, b, 0);
	char *priv = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, a, 0);
	yes(p != MAP_FAILED && q != MAP_FAILED && priv != MAP_FAILED, "mapped");
	p[0] = 'A';
	text((char[]){ q[0], 0 }, "seen in another mapping");
	text(give("f"), "seen by read");
	pwrite(b, "B", 1, 1);
	text((char[]){ p[1], 0 }, "a write seen in a mapping");
	priv[2] = 'P';
	text(give("f"), "a private store is not");
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		int c = open("f", O_RDWR);
		char *r = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, c, 0);
		r[3] = 'C';
		_exit(r[0] == 'A' ? 0 : 1);
	}
	int status;
	waitpid(pid, &status, 0);
	num(WEXITSTATUS(status), "what another process sees");
	text((char[]){ p[3], 0 }, "what it stores");
	is(msync(p, 4096, MS_SYNC), "msync");
	close(a);
	p[4] = 'D';
	text(give("f"), "stored after close");
	unlink("f");
	p[5] = 'E';
	text(give("hard"), "stored after unlink");
	rename("hard", "g");
	q[6] = 'F';
	text(give("g"), "stored after rename");
	int ro = open("g", O_RDONLY), wo = open("g", O_WRONLY);
	is((long)mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, ro, 0), "shared and writable, of what is open to read");
	is((long)mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE, ro, 0), "private and writable, of what is open to read");
	is((long)mmap(NULL, 1, PROT_READ, MAP_SHARED, wo, 0), "of what is open to write");
	is((long)mmap(NULL, 1, PROT_READ, MAP_SHARED, open(".", O_RDONLY), 0), "of a directory");
	yes(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, ro, 0) != MAP_FAILED, "to execute");
	put("g", "another");
	text((char[]){ q[0], 0 }, "after O_TRUNC and a write");
	fflush(stdout);
	pid = fork();
	if (!pid) {
		truncate("g", 0);
		_exit(q[0]);
	}
	waitpid(pid, &status, 0);
	num(WIFSIGNALED(status) ? WTERMSIG(status) : 0, "signal of what is no longer there");
}

static void moves(void)
{
	char s[64] = "";
	put("from", "0123456789");
	int in = open("from", O_RDONLY), out = open("to", O_RDWR | O_CREAT, 0644), p[2];
	pipe(p);
	num(splice(in, NULL, p[1], NULL, 5, 0), "splice into a pipe");
	num(splice(p[0], NULL, out, NULL, 5, 0), "splice out of a pipe");
	text(give("to"), "what came");
	num(sendfile(out, in, NULL, 3), "sendfile");
	text(give("to"), "what came then");
	num(sendfile(p[1], in, &(off_t){ 2 }, 4), "sendfile to a pipe");
	read(p[0], s, 4);
	text(s, "what came there");
	num(copy_file_range(in, &(off_t){ 0 }, out, &(off_t){ 0 }, 4, 0), "copy_file_range");
	text(give("to"), "what it copied");
	num(copy_file_range(in, &(off_t){ 100 }, out, NULL, 4, 0), "copy_file_range beyond the end");
	is(copy_file_range(in, &(off_t){ 0 }, in, &(off_t){ 2 }, 4, 0), "copy_file_range to what is open to read");
	is(copy_file_range(out, &(off_t){ 0 }, out, &(off_t){ 1 }, 4, 0), "copy_file_range over itself");
	is(copy_file_range(in, NULL, open(".", O_RDONLY), NULL, 4, 0), "copy_file_range to a directory");
	struct iovec v[2] = { { "one", 3 }, { "two", 3 } };
	num(pwritev(out, v, 2, 0), "pwritev");
	struct iovec r[2] = { { s, 2 }, { s + 2, 4 } };
	num(preadv(out, r, 2, 0), "preadv");
	text((s[6] = 0, s), "which is");
	vmsplice(p[1], v, 2, 0);
	num(splice(p[0], NULL, out, &(off_t){ 1 }, 6, SPLICE_F_MOVE), "splice at an offset");
	text(give("to"), "which leaves");
	is(readahead(in, 0, 10), "readahead");
	errno = posix_fadvise(in, 0, 0, POSIX_FADV_DONTNEED);
	is(errno ? -1 : 0, "posix_fadvise");
	is(sync_file_range(out, 0, 0, SYNC_FILE_RANGE_WRITE), "sync_file_range");
	is(fdatasync(out), "fdatasync");
	is(fallocate(out, FALLOC_FL_KEEP_SIZE, 0, 10000), "fallocate");
	is(fallocate(out, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2), "punch a hole");
	pread(out, s, 4, 0);
	yes(!s[0] && !s[1] && s[2], "which is zero");
	struct rlimit small = { 5, RLIM_INFINITY };
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &small);
	int l = open("limited", O_RDWR | O_CREAT, 0644);
	num(write(l, "0123456789", 10), "write up to a limit");
	is(write(l, "0", 1), "write beyond it");
	is(ftruncate(l, 100), "ftruncate beyond it");
	is(truncate("limited", 100), "truncate beyond it");
	is(truncate("limited", 3), "truncate below it");
	small.rlim_cur = 20;
	setrlimit(RLIMIT_NOFILE, &small);
	int n = 0;
	for (int fd; (fd = open("from", O_RDONLY)) >= 0; n = fd)
		;
	is(-1, "open beyond the limit");
	num(n, "the last descriptor");
	close(n);
	is(openat(AT_FDCWD, "from", O_RDONLY), "and again after close");
}

static struct flock lock(int type, off_t start, off_t len)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };
}

// asks is a child that tries locks which its parent may have.
static const char *locked_name;

static void asks(void)
{
	int fd = open("f", O_RDWR);
	struct flock l = lock(F_WRLCK, 0, 10);
	is(fcntl(fd, F_SETLK, &l), "%s, all to write", locked_name);
	l = lock(F_RDLCK, 0, 10);
	is(fcntl(fd, F_SETLK, &l), "%s, all to read", locked_name);
	l = lock(F_WRLCK, 50, 10);
	is(fcntl(fd, F_SETLK, &l), "%s, others to write", locked_name);
	l = lock(F_WRLCK, 0, 10);
	is(fcntl(fd, F_GETLK, &l), "%s, F_GETLK", locked_name);
	text(l.l_type == F_UNLCK ? "none" : l.l_pid == getppid() ? "the parent's" : l.l_pid == -1 ? "a file's" : "somebody's", "%s, whose it is", locked_name);
	is(flock(fd, LOCK_EX | LOCK_NB), "%s, flock", locked_name);
	is(flock(fd, LOCK_SH | LOCK_NB), "%s, flock shared", locked_name);
}

static void locks(void)
{
	put("f", "0123456789");
	link("f", "hard");
	int fd = open("hard", O_RDWR), other = open("f", O_RDWR);
	locked_name = "nothing locked";
	child(asks);
	struct flock l = lock(F_WRLCK, 0, 10);
	is(fcntl(fd, F_SETLK, &l), "F_SETLK");
	l = lock(F_WRLCK, 0, 5);
	is(fcntl(other, F_SETLK, &l), "F_SETLK of one's own");
	locked_name = "locked to write";
	child(asks);
	l = lock(F_RDLCK, 0, 10);
	fcntl(fd, F_SETLK, &l);
	locked_name = "locked to read";
	child(asks);
	close(other);
	locked_name = "another descriptor closed";
	child(asks);
	other = open("f", O_RDWR);
	l = lock(F_WRLCK, 0, 10);
	is(fcntl(fd, F_OFD_SETLK, &l), "F_OFD_SETLK");
	is(fcntl(other, F_OFD_SETLK, &l), "F_OFD_SETLK by another");
	locked_name = "locked by a description";
	child(asks);
	l = lock(F_UNLCK, 0, 0);
	fcntl(fd, F_OFD_SETLK, &l);
	is(flock(fd, LOCK_EX), "flock");
	is(flock(other, LOCK_SH | LOCK_NB), "flock by another");
	locked_name = "flocked";
	child(asks);
	is(flock(fd, LOCK_SH), "flock to shared");
	is(flock(other, LOCK_SH | LOCK_NB), "flock shared by another");
	close(fd);
	is(flock(other, LOCK_EX | LOCK_NB), "flock after close");
	is(lockf(other, F_TLOCK, 5), "lockf");
	l = lock(F_WRLCK, 0, 10);
	is(fcntl(open("f", O_RDONLY), F_SETLK, &l), "lock to write, of what is open to read");
	is(flock(open(".", O_RDONLY), LOCK_EX), "flock of a directory");
	// A lock that is waited for.
	int p[2];
	pipe(p);
	l = lock(F_WRLCK, 0, 0);
	fcntl(other, F_SETLK, &l);
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		int mine = open("f", O_RDWR);
		struct flock w = lock(F_WRLCK, 0, 0);
		write(p[1], "x", 1);
		_exit(fcntl(mine, F_SETLKW, &w) ? errno : 0);
	}
	char c;
	int status;
	read(p[0], &c, 1);
	usleep(20000);
	num(waitpid(pid, &status, WNOHANG), "one that waits");
	l = lock(F_UNLCK, 0, 0);
	fcntl(other, F_SETLK, &l);
	waitpid(pid, &status, 0);
	num(WEXITSTATUS(status), "one that has waited");
	is(fcntl(other, F_SETLEASE, F_RDLCK), "a lease while others write");
	int only = open("lease", O_RDONLY | O_CREAT, 0644);
	is(fcntl(only, F_SETLEASE, F_RDLCK), "a lease");
	num(fcntl(only, F_GETLEASE), "which is told");
}

void data_cases(void)
{
	group("mmap", mappings);
	group("move", moves);
	group("lock", locks);
}
