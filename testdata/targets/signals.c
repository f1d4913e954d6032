// SPDX-License-Identifier: Apache-2.0

// Signals that meet blocking calls: EINTR without SA_RESTART, none with it, a
// storm of timers, stop and continue.
#include "lab.h"

static volatile sig_atomic_t ticks;
static volatile long long at;

static void tick(int s)
{
	ticks++;
	if (!at)
		at = now_ms();
}

static void handle(int sig, int flags)
{
	struct sigaction sa = { .sa_handler = tick, .sa_flags = flags };
	sigaction(sig, &sa, NULL);
}

static void after(int ms, int every)
{
	struct itimerval it = { { 0, every * 1000 }, { ms / 1000, ms % 1000 * 1000 } };
	ticks = 0;
	at = 0;
	setitimer(ITIMER_REAL, &it, NULL);
}

// promptly says whether the handler ran within 200 ms of its time: the promise
// is 20 ms, the rest is for a loaded machine.
static void promptly(const char *label, long long t0, int due)
{
	long long late = at - t0 - due;
	say("%s: handler %s", label, at == 0 ? "never ran" : late < 200 ? "in time" : "LATE");
}

// guard kills the program if a call does not come back: SIGALRM is in use.
static void guard(int seconds)
{
	if (fork() == 0) {
		pid_t parent = getppid();
		for (int i = 0; i < seconds * 10; i++) {
			nap(100);
			if (getppid() != parent)
				_exit(0);
		}
		kill(parent, SIGKILL);
		_exit(0);
	}
}

static void *later(void *arg)
{
	// Blocked here, so that the main thread gets them.
	sigset_t all_;
	sigfillset(&all_);
	pthread_sigmask(SIG_BLOCK, &all_, NULL);
	nap(250);
	void (*f)(void) = arg;
	f();
	return NULL;
}

static struct addr serve;
static int peer_fd;
static void connect_to_serve(void) { dial("127.0.0.1", port_of(&serve)); }
static void write_to_peer(void) { put(peer_fd, "x", 1); }
static struct addr udp_at;
static void send_to_udp(void)
{
	int u = socket(AF_INET, SOCK_DGRAM, 0);
	sendto(u, "u", 1, 0, &udp_at.sa, udp_at.len);
}

// MEET runs one call that a signal at 100 ms meets and that could end at 250.
#define MEET(label, before, call) do { \
		pthread_t th; \
		void (*act)(void) = (before); \
		if (act) \
			pthread_create(&th, NULL, later, (void *)act); \
		begin("signals/%s-%s", flags & SA_RESTART ? "restart" : "eintr", label); \
		long long t0 = now_ms(); \
		after(100, 0); \
		long rc = (call); \
		int e = errno; \
		if (act) \
			pthread_join(th, NULL); \
		errno = e; \
		ok(label, rc); \
		promptly(label, t0, 100); \
	} while (0)

static void interrupted(int flags)
{
	handle(SIGALRM, flags);
	serve = mk("127.0.0.1", 0);
	int ls = tcp(&serve, 0);
	need("bind", bind(ls, &serve.sa, serve.len));
	need("listen", listen(ls, 16));
	serve.len = sizeof serve.ss;
	getsockname(ls, &serve.sa, &serve.len);
	MEET("accept", connect_to_serve, accept(ls, NULL, NULL));
	if (!(flags & SA_RESTART))
		ok("the client that came later", accept(ls, NULL, NULL));
	int c = tcp(&serve, 0);
	need("connect", connect(c, &serve.sa, serve.len));
	peer_fd = need("accept", accept(ls, NULL, NULL));
	char b[8];
	MEET("read", write_to_peer, read(c, b, 1));
	if (!(flags & SA_RESTART))
		num("the byte that came later", read(c, b, 1));
	MEET("recv", write_to_peer, recv(c, b, 1, 0));
	if (!(flags & SA_RESTART))
		num("the byte that came later", recv(c, b, 1, 0));
	udp_at = mk("127.0.0.1", 0);
	int u = socket(AF_INET, SOCK_DGRAM, 0);
	need("bind", bind(u, &udp_at.sa, udp_at.len));
	udp_at.len = sizeof udp_at.ss;
	getsockname(u, &udp_at.sa, &udp_at.len);
	struct addr from;
	from.len = sizeof from.ss;
	MEET("recvfrom", send_to_udp, recvfrom(u, b, 8, 0, &from.sa, &from.len));
	if (!(flags & SA_RESTART))
		num("the datagram that came later", recvfrom(u, b, 8, 0, NULL, NULL));
	struct pollfd p = { u, POLLIN, 0 };
	MEET("poll", NULL, poll(&p, 1, 300));
	struct timeval tv = { 0, 300000 };
	setsockopt(u, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	MEET("recvfrom with SO_RCVTIMEO", NULL, recvfrom(u, b, 8, 0, &from.sa, &from.len));
	struct addr hole = mk(env("LAB_BLACKHOLE4"), ECHO);
	int h = tcp(&hole, 0);
	tv = (struct timeval){ 0, 400000 };
	setsockopt(h, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
	MEET("connect", NULL, connect(h, &hole.sa, hole.len));
	say("after it: %s", events(ready(h, POLLIN | POLLOUT, 50)));
	close(h);
}

// storm has a timer of 1 kHz meet calls that wait and calls that do not.
static void storm(const char *ip)
{
	begin("signals/storm-connect");
	handle(SIGALRM, SA_RESTART);
	after(1, 1);
	long good = 0;
	for (int i = 0; i < 50; i++) {
		int fd = dial(ip, ECHO);
		char b[4];
		good += put(fd, "ping", 4) == 0 && all(fd, b, 4) == 4 && !memcmp(b, "ping", 4);
		close(fd);
	}
	say("connections in the storm: %ld", good);
	begin("signals/storm-receive");
	struct addr a = mk("127.0.0.1", 0);
	int u = socket(AF_INET, SOCK_DGRAM, 0);
	need("bind", bind(u, &a.sa, a.len));
	struct timeval tv = { 1, 0 };
	setsockopt(u, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	after(1, 1);
	char b;
	long long t0 = now_ms();
	// SO_RCVTIMEO makes the call fail with EINTR in spite of SA_RESTART, signal(7).
	while (now_ms() - t0 < 1000)
		recvfrom(u, &b, 1, 0, NULL, NULL);
	say("ticks while waiting: %s", ticks >= 500 ? "500 or more" : "LOST");
	after(0, 0);
}

static void stopped(const char *ip)
{
	begin("signals/stop-read");
	int fd = dial(ip, ECHO);
	pid_t kid = fork();
	if (kid == 0) {
		char b[4];
		put(fd, "stop", 4);
		nap(300); // stopped here, and continued
		_exit(all(fd, b, 4) == 4 && !memcmp(b, "stop", 4) ? 0 : 1);
	}
	nap(100);
	int st;
	kill(kid, SIGSTOP);
	waitpid(kid, &st, WUNTRACED);
	say("stopped: %s", WIFSTOPPED(st) ? "yes" : "no");
	nap(100);
	kill(kid, SIGCONT);
	waitpid(kid, &st, 0);
	say("child: %d", WEXITSTATUS(st));
	begin("signals/stop-accept");
	struct addr a = mk("127.0.0.1", 0);
	int ls = tcp(&a, 0);
	need("bind", bind(ls, &a.sa, a.len));
	need("listen", listen(ls, 4));
	a.len = sizeof a.ss;
	getsockname(ls, &a.sa, &a.len);
	if ((kid = fork()) == 0)
		_exit(accept(ls, NULL, NULL) >= 0 ? 0 : errno == EINTR ? 2 : 1);
	nap(100);
	kill(kid, SIGSTOP);
	waitpid(kid, &st, WUNTRACED);
	say("stopped in accept: %s", WIFSTOPPED(st) ? "yes" : "no");
	kill(kid, SIGCONT);
	nap(100);
	dial("127.0.0.1", port_of(&a));
	waitpid(kid, &st, 0);
	say("child: %d", WEXITSTATUS(st));
	begin("signals/term-accept");
	if ((kid = fork()) == 0) {
		accept(ls, NULL, NULL);
		_exit(1);
	}
	nap(100);
	kill(kid, SIGTERM);
	waitpid(kid, &st, 0);
	say("terminated in accept: signal %d", WIFSIGNALED(st) ? WTERMSIG(st) : -1);
	begin("signals/kill-connect");
	if ((kid = fork()) == 0) {
		struct addr h = mk(env("LAB_BLACKHOLE4"), ECHO);
		connect(tcp(&h, 0), &h.sa, h.len);
		_exit(1);
	}
	nap(100);
	kill(kid, SIGKILL);
	waitpid(kid, &st, 0);
	say("killed in connect: signal %d", WIFSIGNALED(st) ? WTERMSIG(st) : -1);
	begin("signals/ignored");
	handle(SIGUSR1, 0);
	signal(SIGWINCH, SIG_DFL);
	if ((kid = fork()) == 0)
		_exit(accept(ls, NULL, NULL) >= 0 ? 0 : errno == EINTR ? 2 : 1);
	nap(100);
	kill(kid, SIGWINCH); // ignored by default: nothing happens
	nap(100);
	dial("127.0.0.1", port_of(&a));
	waitpid(kid, &st, 0);
	say("an ignored signal: %d", WEXITSTATUS(st));
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	guard(40);
	const char *ip = env("LAB_PEER4");
	if (argc != 2)
		return 9;
	if (!strcmp(argv[1], "eintr"))
		interrupted(0);
	else if (!strcmp(argv[1], "restart"))
		interrupted(SA_RESTART);
	else if (!strcmp(argv[1], "storm"))
		storm(ip);
	else if (!strcmp(argv[1], "stop"))
		stopped(ip);
	else
		return 9;
	return 0;
}
