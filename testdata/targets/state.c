// SPDX-License-Identifier: Apache-2.0

// Every call in every state of a socket: names, shutdown, listen, accept, connect,
// poll; backlogs; ioctls and signals of readiness; descriptors in other hands.
//
// Usage: state tcp4|tcp6|udp4|udp6|files
#include "dgram.h"
#include <sys/mman.h>

static const char *lo, *hole, *v;
static int six;

static int sock(int type) { return need("socket", socket(six ? AF_INET6 : AF_INET, type, 0)); }

enum { FRESH, BOUND, LISTENING, CONNECTING, CONNECTED, WRITE_SHUT, READ_SHUT, BOTH_SHUT, PEER_SHUT, PEER_GONE, PEER_RESET, REFUSED, DISSOLVED, STATES };

static const char *const state_names[] = { "fresh", "bound", "listening", "connecting", "connected", "write-shut", "read-shut", "both-shut",
	"peer-shut", "peer-gone", "reset", "refused", "dissolved" };

// stream makes a TCP socket of a state; *far is its peer, if that lives.
static int stream(int state, int *far)
{
	int fd = sock(SOCK_STREAM), ls = -1;
	*far = -1;
	if (state == FRESH)
		return fd;
	if (state == BOUND || state == LISTENING) {
		need("bind", bind_to(fd, lo, 0));
		if (state == LISTENING)
			need("listen", listen(fd, 4));
		return fd;
	}
	if (state == CONNECTING) {
		fcntl(fd, F_SETFL, O_NONBLOCK);
		connect_to(fd, hole, ECHO);
		return fd;
	}
	ls = sock(SOCK_STREAM);
	need("bind", bind_to(ls, lo, 0));
	if (state == REFUSED) {
		connect_to(fd, lo, port_at(ls));
		close(ls);
		return fd;
	}
	need("listen", listen(ls, 4));
	need("connect", connect_to(fd, lo, port_at(ls)));
	*far = need("accept", accept(ls, NULL, NULL));
	close(ls);
	struct sockaddr un = { .sa_family = AF_UNSPEC };
	char b;
	switch (state) {
	case WRITE_SHUT:
		need("shutdown", shutdown(fd, SHUT_WR));
		read(*far, &b, 1);
		break;
	case READ_SHUT:
		need("shutdown", shutdown(fd, SHUT_RD));
		break;
	case BOTH_SHUT:
		need("shutdown", shutdown(fd, SHUT_RDWR));
		read(*far, &b, 1);
		break;
	case PEER_SHUT:
		shutdown(*far, SHUT_WR);
		ready(fd, POLLRDHUP, 2000);
		break;
	case PEER_GONE:
		close(*far);
		*far = -1;
		ready(fd, POLLRDHUP, 2000);
		break;
	case PEER_RESET:
		setsockopt(*far, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger));
		close(*far);
		*far = -1;
		ready(fd, 0, 2000);
		break;
	case DISSOLVED:
		need("dissolve", connect(fd, &un, sizeof un));
		break;
	}
	return fd;
}

static void streams(void)
{
	int far;
	char l[40];
	for (int st = 0; st < STATES; st++) {
		begin("state/%s-names-%s", v, state_names[st]);
		int fd = stream(st, &far);
		if (st != PEER_RESET) // its errors are told once, and by whom first differs
			names("it", fd);
		close(fd);
		close(far);

		begin("state/%s-shutdown-%s", v, state_names[st]);
		for (int how = SHUT_RD; how <= SHUT_RDWR; how++) {
			fd = stream(st, &far);
			snprintf(l, sizeof l, "shutdown %s", how == SHUT_RD ? "RD" : how == SHUT_WR ? "WR" : "RDWR");
			ok(l, shutdown(fd, how));
			ok("again", shutdown(fd, how));
			close(fd);
			close(far);
		}

		begin("state/%s-listen-%s", v, state_names[st]);
		fd = stream(st, &far);
		ok("listen", listen(fd, 1));
		close(fd);
		close(far);
		fd = stream(st, &far);
		fcntl(fd, F_SETFL, O_NONBLOCK);
		ok("accept", accept(fd, NULL, NULL));
		close(fd);
		close(far);

		begin("state/%s-bind-%s", v, state_names[st]);
		fd = stream(st, &far);
		ok("bind", bind_to(fd, lo, 0));
		close(fd);
		close(far);

		begin("state/%s-connect-%s", v, state_names[st]);
		int ls = sock(SOCK_STREAM);
		need("bind", bind_to(ls, lo, 0));
		need("listen", listen(ls, 4));
		fd = stream(st, &far);
		long rc = connect_to(fd, lo, port_at(ls));
		ok("connect", st == PEER_RESET && rc < 0 ? 0 : rc);
		close(fd);
		close(far);
		fd = stream(st, &far);
		struct sockaddr un = { .sa_family = AF_UNSPEC };
		ok("dissolve", connect(fd, &un, sizeof un));
		names("dissolved", fd);
		ok("connect then", connect_to(fd, lo, port_at(ls)));
		close(fd);
		close(far);
		close(ls);

		begin("state/%s-poll-%s", v, state_names[st]);
		fd = stream(st, &far);
		say("%s", events(ready(fd, POLLIN | POLLOUT | POLLRDHUP, 20)));
		num("SIOCINQ", ioctl(fd, FIONREAD, &(int){ 0 }));
		so_error("it", fd);
		close(fd);
		close(far);
	}

	begin("state/%s-backlog", v);
	static const int backlogs[] = { 0, 1, 3, -1 };
	for (int i = 0; i < LEN(backlogs); i++) {
		int ls = sock(SOCK_STREAM), c[24], done = 0;
		need("bind", bind_to(ls, lo, 0));
		ok("listen", listen(ls, backlogs[i]));
		for (int k = 0; k < LEN(c); k++) {
			c[k] = sock(SOCK_STREAM);
			fcntl(c[k], F_SETFL, O_NONBLOCK);
			connect_to(c[k], lo, port_at(ls));
		}
		nap(50);
		for (int k = 0; k < LEN(c); k++)
			done += (ready(c[k], POLLOUT, 0) & POLLOUT) != 0;
		say("backlog %d: %d connected", backlogs[i], done);
		for (int k = 0; k < LEN(c); k++)
			close(c[k]);
		close(ls);
	}

	begin("state/%s-accepted-options", v);
	int ls = sock(SOCK_STREAM);
	on(ls, SOL_SOCKET, SO_KEEPALIVE, 1);
	on(ls, IPPROTO_TCP, TCP_NODELAY, 1);
	on(ls, SOL_SOCKET, SO_RCVTIMEO, 1);
	setsockopt(ls, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 3 }, sizeof(struct linger));
	fcntl(ls, F_SETFL, O_NONBLOCK);
	need("bind", bind_to(ls, lo, 0));
	need("listen", listen(ls, 4));
	int c = sock(SOCK_STREAM);
	need("connect", connect_to(c, lo, port_at(ls)));
	ready(ls, POLLIN, 2000);
	int s = need("accept", accept(ls, NULL, NULL));
	struct linger lg = { 0 };
	socklen_t n = sizeof lg;
	getsockopt(s, SOL_SOCKET, SO_LINGER, &lg, &n);
	say("keepalive %d, nodelay %d, linger %d %d, nonblock %d", opt(s, SOL_SOCKET, SO_KEEPALIVE), opt(s, IPPROTO_TCP, TCP_NODELAY),
		lg.l_onoff, lg.l_linger, !!(fcntl(s, F_GETFL) & O_NONBLOCK));
	close(c);
	close(s);
	close(ls);
}

static void datagrams(void)
{
	char l[40];
	static const char *const how_names[] = { "RD", "WR", "RDWR" };
	for (int connected = 0; connected < 2; connected++)
		for (int how = SHUT_RD; how <= SHUT_RDWR; how++) {
			begin("state/%s-shutdown-%s-%s", v, how_names[how], connected ? "connected" : "unconnected");
			int fd = bound(lo, 0), far = bound(lo, 0);
			if (connected)
				need("connect", connect_to(fd, lo, port_at(far)));
			give(far, "before", lo, port_at(fd));
			ready(fd, POLLIN, 2000);
			ok("shutdown", shutdown(fd, how));
			if (!connected) {
				close(fd);
				close(far);
				continue;
			}
			say("poll: %s", events(ready(fd, POLLIN | POLLOUT | POLLRDHUP, 20)));
			text("what came before", recv(fd, heard, sizeof heard, MSG_DONTWAIT), heard);
			num("then", recv(fd, heard, sizeof heard, MSG_DONTWAIT));
			num("send", send(fd, "x", 1, MSG_NOSIGNAL));
			num("sendto", give(fd, "x", lo, port_at(far)));
			names("shut", fd);
			ok("again", shutdown(fd, how));
			ok("connect anew", connect_to(fd, lo, port_at(far)));
			close(fd);
			close(far);
		}

	begin("state/%s-dissolve-chosen-port", v);
	int fd = bound(lo, 0), one = bound(lo, 0);
	struct sockaddr unspec = { .sa_family = AF_UNSPEC };
	need("connect", connect_to(fd, lo, port_at(one)));
	ok("dissolve", connect(fd, &unspec, sizeof unspec));
	names("a port that the kernel chose", fd);
	close(fd);
	close(one);

	begin("state/%s-self-connected", v);
	fd = bound(lo, 0);
	ok("to itself", connect_to(fd, lo, port_at(fd)));
	num("send", send(fd, "mirror", 6, 0));
	take("its own", fd);
	close(fd);

	begin("state/%s-calls", v);
	fd = bound(lo, six ? 7560 : 7540);
	ok("listen", listen(fd, 1));
	ok("accept", accept(fd, NULL, NULL));
	ok("bind again", bind_to(fd, lo, 0));
	ok("shutdown 3", shutdown(fd, 3));
	names("bound", fd);

	begin("state/%s-dissolve", v);
	struct sockaddr un = { .sa_family = AF_UNSPEC };
	ok("dissolve unconnected", connect(fd, &un, sizeof un));
	names("still bound", fd);
	ok("2 bytes", connect(fd, &un, 2));
	ok("1 byte", connect(fd, &un, 1));
	int far = bound(lo, 0);
	ok("connect", connect_to(fd, lo, port_at(far)));
	ok("dissolve", connect(fd, &un, sizeof un));
	names("dissolved", fd);

	begin("state/%s-queue-outlives-connect", v);
	int other = bound(lo, 0);
	give(other, "other", lo, port_at(fd));
	nap(20);
	ok("connect", connect_to(fd, lo, port_at(far)));
	take("came before", fd);
	close(other);

	begin("state/%s-fionread", v);
	int n = -1;
	ok("none", ioctl(fd, FIONREAD, &n));
	say("%d", n);
	give(far, "four", lo, port_at(fd));
	give(far, "sixsix", lo, port_at(fd));
	nap(30);
	ok("two", ioctl(fd, FIONREAD, &n));
	say("%d", n);
	take("one", fd);
	nap(10);
	ioctl(fd, FIONREAD, &n);
	say("%d", n);
	take("two", fd);
	n = -1;
	ok("SIOCOUTQ", ioctl(fd, TIOCOUTQ, &n));
	say("%d", n);

	begin("state/%s-dup", v);
	int d = dup(fd);
	close(fd);
	give(far, "dup", lo, port_at(d));
	take("by the copy", d);
	fd = fcntl(d, F_DUPFD_CLOEXEC, 50);
	num("options are shared", (on(d, SOL_SOCKET, SO_BROADCAST, 1), opt(fd, SOL_SOCKET, SO_BROADCAST)));
	close(d);

	begin("state/%s-fork", v);
	pid_t kid = fork();
	if (kid == 0) {
		take("child", fd);
		num("child answers", give(fd, "answer", lo, port_at(far)));
		_exit(0);
	}
	give(far, "fork", lo, port_at(fd));
	waitpid(kid, NULL, 0);
	take("parent", far);
	snprintf(l, sizeof l, "alive");
	give(far, l, lo, port_at(fd));
	take("after it", fd);

	begin("state/%s-dup-of-closed", v);
	d = dup(fd);
	ok("dissolve by one", connect(d, &un, sizeof un));
	close(fd);
	names("the other", d);
	close(d);
	close(far);
}

static volatile sig_atomic_t signals_, signal_fd;
static void on_io(int s, siginfo_t *i, void *c)
{
	signals_++;
	signal_fd = i->si_fd;
}

static void files(void)
{
	lo = "127.0.0.1";
	hole = env("LAB_BLACKHOLE4");
	for (int k = 0; k < 2; k++) {
		const char *kind = k ? "udp" : "tcp";
		int far, fd;
		if (k) {
			fd = bound(lo, 0);
			far = bound(lo, 0);
			need("connect", connect_to(fd, lo, port_at(far)));
			need("connect", connect_to(far, lo, port_at(fd)));
		} else
			fd = stream(CONNECTED, &far);

		begin("state/file-%s", kind);
		struct stat st;
		ok("fstat", fstat(fd, &st));
		say("type %o, size %ld, blocks %ld", st.st_mode & S_IFMT, (long)st.st_size, (long)st.st_blocks);
		num("mode", fcntl(fd, F_GETFL) & ~O_LARGEFILE);
		num("lseek", lseek(fd, 0, SEEK_CUR));
		ok("fsync", fsync(fd));
		ok("ftruncate", ftruncate(fd, 0));
		ok("mmap", mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
		ok("isatty", isatty(fd) ? 0 : -1);
		ok("F_GETPIPE_SZ", fcntl(fd, F_GETPIPE_SZ));
		char path[64], link[64] = "";
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		num("readlink", readlink(path, link, 7));
		say("link %s", link);
		ok("open by /proc", open(path, O_RDWR));
		ok("fchmod", fchmod(fd, 0600));

		begin("state/fionbio-%s", kind);
		int v_ = 1;
		ok("FIONBIO 1", ioctl(fd, FIONBIO, &v_));
		num("O_NONBLOCK", !!(fcntl(fd, F_GETFL) & O_NONBLOCK));
		char b[8];
		num("read", read(fd, b, 1));
		v_ = 0;
		ok("FIONBIO 0", ioctl(fd, FIONBIO, &v_));
		ok("FIOCLEX", ioctl(fd, FIOCLEX));
		num("cloexec", fcntl(fd, F_GETFD));

		begin("state/owner-%s", kind);
		num("F_GETOWN", fcntl(fd, F_GETOWN));
		ok("F_SETOWN", fcntl(fd, F_SETOWN, getpid()));
		say("F_GETOWN: %s", fcntl(fd, F_GETOWN) == getpid() ? "own" : "WRONG");
		int who = -1;
		ok("FIOGETOWN", ioctl(fd, 0x8903, &who));
		say("FIOGETOWN: %s", who == getpid() ? "own" : "another");
		who = 0;
		ok("SIOCSPGRP", ioctl(fd, 0x8902, &who));
		ok("SIOCGPGRP", ioctl(fd, 0x8904, &who));
		num("nobody", who);

		begin("state/sigio-%s", kind);
		struct sigaction sa = { .sa_sigaction = on_io, .sa_flags = SA_SIGINFO | SA_RESTART };
		sigaction(SIGIO, &sa, NULL);
		sigaction(SIGRTMIN, &sa, NULL);
		fcntl(fd, F_SETOWN, getpid());
		v_ = 1;
		ok("FIOASYNC", ioctl(fd, FIOASYNC, &v_));
		num("O_ASYNC", !!(fcntl(fd, F_GETFL) & O_ASYNC));
		signals_ = 0;
		num("write", write(far, "abc", 3));
		for (int i = 0; i < 200 && !signals_; i++)
			nap(5);
		say("signalled: %s", signals_ ? "yes" : "no");
		num("read", read(fd, b, 3));
		ok("F_SETSIG", fcntl(fd, F_SETSIG, SIGRTMIN));
		signals_ = 0;
		num("write", write(far, "abc", 3));
		for (int i = 0; i < 200 && !signals_; i++)
			nap(5);
		say("signalled: %s, the descriptor: %s", signals_ ? "yes" : "no", signal_fd == fd ? "right" : "wrong");
		num("read", read(fd, b, 3));
		v_ = 0;
		ok("off", ioctl(fd, FIOASYNC, &v_));
		signals_ = 0;
		num("write", write(far, "abc", 3));
		ready(fd, POLLIN, 2000);
		nap(20);
		num("signals", signals_);
		num("read", read(fd, b, 3));

		begin("state/queues-%s", kind);
		int n = -1;
		num("write", write(far, "abcde", 5));
		ready(fd, POLLIN, 2000);
		ok("SIOCINQ", ioctl(fd, FIONREAD, &n));
		say("%d", n);
		for (int i = 0; i < 200 && (ioctl(far, TIOCOUTQ, &n), n); i++)
			nap(5);
		say("SIOCOUTQ %d", n);
		int mark = -1;
		ok("SIOCATMARK", ioctl(fd, 0x8905, &mark));
		struct timeval tv;
		ok("SIOCGSTAMP", ioctl(fd, 0x8906, &tv));
		ok("SIOCGSTAMPNS", ioctl(fd, 0x8907, &tv));
		ok("unknown of sockets", ioctl(fd, 0x89ff, &tv));
		ok("unknown", ioctl(fd, 0x1234, &tv));
		ok("of terminals", ioctl(fd, 0x5401, path));
		num("read", read(fd, b, 5));

		begin("state/rights-%s", kind);
		int sv[2];
		need("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
		char control[CMSG_SPACE(sizeof(int))] = "";
		struct iovec io = { "f", 1 };
		struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof fd);
		num("send it", sendmsg(sv[0], &m, 0));
		close(fd);
		io.iov_base = b;
		num("receive it", recvmsg(sv[1], &m, MSG_CMSG_CLOEXEC));
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
		num("cloexec", fcntl(fd, F_GETFD));
		num("write", write(fd, "hi", 2));
		num("read", read(far, b, 2));
		num("type", opt(fd, SOL_SOCKET, SO_TYPE));
		close(sv[0]);
		close(sv[1]);

		begin("state/timeouts-%s", kind);
		struct timeval t = { 0, 80000 };
		ok("SO_RCVTIMEO", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
		long long t0 = now_ms();
		num("read", read(fd, b, 1));
		num("recv", recv(fd, b, 1, 0));
		hear("recvfrom", fd, 0);
		struct iovec one = { b, 1 };
		m = (struct msghdr){ .msg_iov = &one, .msg_iovlen = 1 };
		num("recvmsg", recvmsg(fd, &m, 0));
		long long took = now_ms() - t0;
		say("four times 80 ms: %s", took >= 315 && took < 1500 ? "yes" : "no");
		close(fd);
		close(far);
	}
}

int main(int argc, char **argv)
{
	deadline(50);
	if (argc != 2)
		return 9;
	v = argv[1];
	six = strchr(v, '6') != NULL;
	lo = six ? "::1" : "127.0.0.1";
	hole = env(six ? "LAB_BLACKHOLE6" : "LAB_BLACKHOLE4");
	if (!strncmp(v, "tcp", 3))
		streams();
	else if (!strncmp(v, "udp", 3))
		datagrams();
	else if (!strcmp(v, "files"))
		files();
	else
		return 9;
	return 0;
}
