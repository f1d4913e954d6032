// SPDX-License-Identifier: Apache-2.0

// AF_UNIX sockets by path, descriptors that are handed on, and file handles.
#include "posix.h"
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

static socklen_t at(struct sockaddr_un *a, const char *path)
{
	memset(a, 0, sizeof *a);
	a->sun_family = AF_UNIX;
	memcpy(a->sun_path, path, strlen(path) < sizeof a->sun_path ? strlen(path) + 1 : sizeof a->sun_path);
	return offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1;
}

static int make(int type) { return need(socket(AF_UNIX, type | SOCK_CLOEXEC, 0), "socket"); }

static int bound(const char *path, int type)
{
	struct sockaddr_un a;
	socklen_t n = at(&a, path);
	int fd = make(type);
	return bind(fd, (struct sockaddr *)&a, n) ? -1 : fd;
}

static int joined(const char *path, int type)
{
	struct sockaddr_un a;
	socklen_t n = at(&a, path);
	int fd = make(type | SOCK_NONBLOCK);
	return connect(fd, (struct sockaddr *)&a, n) ? -1 : fd;
}

static const char *name(int fd, int (*f)(int, struct sockaddr *, socklen_t *))
{
	static char s[200];
	struct sockaddr_un a = { 0 };
	socklen_t n = sizeof a;
	if (f(fd, (struct sockaddr *)&a, &n))
		return NULL;
	snprintf(s, sizeof s, "%.*s", (int)sizeof a.sun_path, n > 2 ? a.sun_path : "none");
	return s;
}

static void streams(void)
{
	mkdir("d", 0755);
	put("f", "x");
	int s = is(bound("sock", SOCK_STREAM), "bind");
	text(name(s, getsockname), "its name");
	text(look("sock"), "what it is");
	is(joined("sock", SOCK_STREAM), "connect before listen");
	is(listen(s, 5), "listen");
	int c = is(joined("sock", SOCK_STREAM), "connect");
	text(name(c, getpeername), "its peer's name");
	text(name(c, getsockname), "its own name");
	int a = is(accept(s, NULL, NULL), "accept");
	struct ucred cred;
	socklen_t n = sizeof cred;
	is(getsockopt(a, SOL_SOCKET, SO_PEERCRED, &cred, &n), "SO_PEERCRED");
	yes(cred.pid == getpid() && cred.uid == geteuid() && cred.gid == getegid(), "which is this process");
	char b[8] = "";
	write(c, "hello", 5);
	num(read(a, b, 8), "read");
	text(b, "which is");
	is(bound("sock", SOCK_STREAM), "bind again");
	is(bound("f", SOCK_STREAM), "bind over a file");
	is(bound("d", SOCK_STREAM), "bind over a directory");
	is(bound("missing/sock", SOCK_STREAM), "bind in nothing");
	is(bound("f/sock", SOCK_STREAM), "bind in a file");
	is(bound("d/../sock", SOCK_STREAM), "bind by another way");
	symlink("nowhere", "dangling");
	is(bound("dangling", SOCK_STREAM), "bind over a link to nothing");
	symlink("sock", "l");
	is(joined("l", SOCK_STREAM), "connect by a link");
	is(joined("d/../sock", SOCK_STREAM), "connect by another way");
	is(joined("f", SOCK_STREAM), "connect to a file");
	is(joined("d", SOCK_STREAM), "connect to a directory");
	is(joined("missing", SOCK_STREAM), "connect to nothing");
	is(joined("dangling", SOCK_STREAM), "connect to a link to nothing");
	is(joined("sock/", SOCK_STREAM), "connect with a slash");
	is(joined("f/x", SOCK_STREAM), "connect below a file");
	is(joined("sock", SOCK_DGRAM), "connect a datagram socket to a stream");
	chmod("sock", 0400);
	is(joined("sock", SOCK_STREAM), "connect without the mode");
	chmod("sock", 0777);
	is(rename("sock", "moved"), "rename");
	is(joined("sock", SOCK_STREAM), "connect by the old name");
	is(joined("moved", SOCK_STREAM), "connect by the new name");
	is(link("moved", "hard"), "link");
	is(joined("hard", SOCK_STREAM), "connect by another name");
	is(unlink("moved"), "unlink");
	is(joined("moved", SOCK_STREAM), "connect to what is gone");
	is(joined("hard", SOCK_STREAM), "connect by what is left");
	close(s);
	is(joined("hard", SOCK_STREAM), "connect to what is closed");
	is(bound("hard", SOCK_STREAM), "bind where that was");
	if (strlen(within("abs")) < 100) {
		s = is(bound(within("abs"), SOCK_STREAM), "bind an absolute path");
		listen(s, 5);
		text(name(s, getsockname), "its absolute name");
		is(joined("abs", SOCK_STREAM), "connect by a relative one");
		is(joined(within("abs"), SOCK_STREAM), "connect by an absolute one");
	}
	chdir("d");
	s = is(bound("../up", SOCK_STREAM), "bind above");
	listen(s, 5);
	is(joined("../up", SOCK_STREAM), "connect above");
	chdir("..");
	is(joined("up", SOCK_STREAM), "connect from there");
	char longest[109];
	memset(longest, 0, sizeof longest);
	memset(longest, 'n', 108);
	struct sockaddr_un u;
	at(&u, "x");
	memcpy(u.sun_path, longest, 108);
	s = make(SOCK_STREAM);
	is(bind(s, (struct sockaddr *)&u, sizeof u), "bind a name of 108");
	text(look(longest), "what that is");
	mkdir("closed", 0555);
	is(bound("closed/sock", SOCK_STREAM), "bind where one may not write");
	// Many sockets, each with its own name and its own peer.
	int ok = 1;
	for (int i = 0; i < 20; i++) {
		char path[16], got = 0;
		snprintf(path, sizeof path, "d/s%d", i);
		s = bound(path, SOCK_SEQPACKET);
		listen(s, 1);
		c = joined(path, SOCK_SEQPACKET);
		a = accept(s, NULL, NULL);
		write(c, &(char){ i }, 1);
		ok &= read(a, &got, 1) == 1 && got == i;
	}
	yes(ok, "twenty of them");
}

static void datagrams(void)
{
	int s = is(bound("sock", SOCK_DGRAM), "bind"), c = make(SOCK_DGRAM);
	struct sockaddr_un a;
	socklen_t n = at(&a, "sock");
	is(sendto(c, "one", 3, 0, (struct sockaddr *)&a, n), "sendto");
	char b[8] = "";
	struct sockaddr_un from;
	socklen_t fn = sizeof from;
	num(recvfrom(s, b, 8, 0, (struct sockaddr *)&from, &fn), "recvfrom");
	num(fn, "length of the sender's name");
	is(connect(c, (struct sockaddr *)&a, n), "connect");
	is(send(c, "two", 3, 0), "send");
	int named = is(bound("other", SOCK_DGRAM), "bind another");
	struct iovec v = { "three", 5 };
	struct msghdr m = { .msg_name = &a, .msg_namelen = n, .msg_iov = &v, .msg_iovlen = 1 };
	is(sendmsg(named, &m, 0), "sendmsg");
	recv(s, b, 8, 0);
	fn = sizeof from;
	memset(&from, 0, sizeof from);
	num(recvfrom(s, b, 8, 0, (struct sockaddr *)&from, &fn), "recvfrom a name");
	text(from.sun_path, "the sender's name");
	is(sendto(s, "back", 4, 0, (struct sockaddr *)&from, fn), "sendto it");
	n = at(&a, "missing");
	is(sendto(c, "x", 1, 0, (struct sockaddr *)&a, n), "sendto nothing");
	close(s);
	n = at(&a, "sock");
	is(sendto(named, "x", 1, 0, (struct sockaddr *)&a, n), "sendto what is closed");
	is(send(c, "x", 1, 0), "send to what is closed");
	unlink("sock");
	is(sendto(named, "x", 1, 0, (struct sockaddr *)&a, n), "sendto what is gone");
}

// handed is what another process does with descriptors that it is given.
static void handed(void)
{
	int p[2];
	mkdir("d", 0755);
	put("d/f", "of d");
	socketpair(AF_UNIX, SOCK_STREAM, 0, p);
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		char space[CMSG_SPACE(2 * sizeof(int))], b;
		struct iovec v = { &b, 1 };
		struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space };
		int fd[2];
		chdir("/");
		need(recvmsg(p[1], &m, 0), "recvmsg");
		memcpy(fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
		char s[8] = "";
		num(read(fd[0], s, 8), "read a file that was handed on");
		int f = openat(fd[1], "f", O_RDONLY);
		is(f, "openat of a directory that was handed on");
		is(fchdir(fd[1]), "fchdir to it");
		text(where(), "where that is");
		text(give("f"), "read there");
		is(unlinkat(fd[1], "f", 0), "unlinkat there");
		fflush(stdout);
		_exit(0);
	}
	int fd[2] = { open("d/f", O_RDONLY), open("d", O_RDONLY | O_DIRECTORY) };
	char space[CMSG_SPACE(sizeof fd)] = "";
	struct iovec v = { "x", 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(c), fd, sizeof fd);
	need(sendmsg(p[0], &m, 0), "sendmsg");
	waitpid(pid, NULL, 0);
	text(look("d/f"), "which is");
	int pidfd = syscall(SYS_pidfd_open, getpid(), 0), got = syscall(SYS_pidfd_getfd, pidfd, fd[1], 0);
	is(openat(got, "new", O_CREAT | O_WRONLY, 0644), "openat of what pidfd_getfd gave");
}

static void handles(void)
{
	struct { struct file_handle h; char room[MAX_HANDLE_SZ]; } a = { .h.handle_bytes = MAX_HANDLE_SZ }, b = a, c = a;
	int id, other;
	put("f", "x");
	link("f", "hard");
	put("g", "x");
	symlink("f", "l");
	long rc = name_to_handle_at(AT_FDCWD, "f", &a.h, &id, 0);
	if (rc < 0 && errno == EOPNOTSUPP) {
		is(rc, "no handles");
		return;
	}
	is(rc, "a handle");
	is(name_to_handle_at(AT_FDCWD, "hard", &b.h, &other, 0), "another name's");
	yes(a.h.handle_bytes == b.h.handle_bytes && !memcmp(a.h.f_handle, b.h.f_handle, a.h.handle_bytes) && id == other, "which is the same");
	is(name_to_handle_at(AT_FDCWD, "g", &c.h, &other, 0), "another file's");
	yes(a.h.handle_bytes != c.h.handle_bytes || !!memcmp(a.h.f_handle, c.h.f_handle, a.h.handle_bytes), "which is not");
	is(name_to_handle_at(AT_FDCWD, "l", &b.h, &other, AT_SYMLINK_FOLLOW), "by a link");
	yes(!memcmp(a.h.f_handle, b.h.f_handle, a.h.handle_bytes), "which is the file's");
	b.h.handle_bytes = 0;
	is(name_to_handle_at(AT_FDCWD, "f", &b.h, &other, 0), "into no room");
	yes(b.h.handle_bytes == a.h.handle_bytes, "which tells the size");
	b.h.handle_bytes = 1000;
	is(name_to_handle_at(AT_FDCWD, "f", &b.h, &other, 0), "into too much room");
	b.h.handle_bytes = MAX_HANDLE_SZ;
	is(name_to_handle_at(open("f", O_PATH), "", &b.h, &other, AT_EMPTY_PATH), "of a descriptor");
	is(name_to_handle_at(AT_FDCWD, "f", &b.h, &other, 1 << 30), "unknown flag");
	is(open_by_handle_at(open(".", O_RDONLY), &a.h, O_RDONLY), "open by it");
}

void socket_cases(void)
{
	group("socket", streams);
	group("datagram", datagrams);
	group("rights", handed);
	group("handle", handles);
}
