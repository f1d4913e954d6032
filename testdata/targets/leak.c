// SPDX-License-Identifier: Apache-2.0

// Ways out of a view. Each attempt prints its name and what came of it; "OUT"
// means that a packet or a descriptor got outside. As `leak CASE` one is tried,
// as `leak all` those that leave the program alive.
//
// LAB_OUTSIDE4 is an address and port that only the host's network reaches,
// where a listener waits; LAB_INHERIT a descriptor that was inherited.
#include "lab.h"
#include <linux/if_packet.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup 425
#endif
#ifndef AF_VSOCK
#define AF_VSOCK 40
#endif
#ifndef AF_ALG
#define AF_ALG 38
#endif

static struct addr outside(void)
{
	char ip[64];
	const char *at = env("LAB_OUTSIDE4"), *colon = strchr(at, ':');
	snprintf(ip, sizeof ip, "%.*s", (int)(colon - at), at);
	return mk(ip, atoi(colon + 1));
}

// reaches tries to connect to the outside by a descriptor and says what came.
static const char *reaches(int fd)
{
	struct addr to = outside();
	struct timeval tv = { 0, 500000 };
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
	if (connect(fd, &to.sa, to.len) == 0)
		return "OUT";
	return "no";
}

static void made(const char *label, long fd)
{
	if (fd < 0)
		ok(label, fd);
	else
		say("%s: made, reaches outside: %s", label, reaches(fd));
}

// packets sends to the host by each interface there may be, and tells how many took it:
// none but the view's.
static void packets(const char *label, int type)
{
	int taken = 0, fd = socket(AF_PACKET, type, 0x300);
	ok(label, fd);
	// UDP from 10.66.66.66 to 198.51.100.2:99.
	unsigned char p[46] = { 0 }, ip[] = { 0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 66, 66, 66, 198, 51, 100, 2, 0, 99, 0, 99, 0, 12, 0, 0 };
	for (int i = 0; i < 64; i++) {
		int header = type == SOCK_RAW && i == 1 ? 14 : 0; // of lo
		struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_protocol = 8, .sll_ifindex = i };
		memset(p, 0, sizeof p);
		if (header)
			p[12] = 8;
		memcpy(p + header, ip, sizeof ip);
		taken += sendto(fd, p, header + 32, 0, (struct sockaddr *)&to, sizeof to) > 0;
	}
	say("%s: taken by %d interfaces", label, taken);
	close(fd);
}

static void families(void)
{
	packets("AF_PACKET", SOCK_RAW);
	packets("AF_PACKET DGRAM", SOCK_DGRAM);
	ok("SOCK_PACKET", socket(AF_INET, SOCK_PACKET, 0x300));
	ok("AF_VSOCK", socket(AF_VSOCK, SOCK_STREAM, 0));
	ok("AF_ALG", socket(AF_ALG, SOCK_SEQPACKET, 0));
	ok("AF_TIPC", socket(30, SOCK_STREAM, 0));
	ok("AF_BLUETOOTH", socket(31, SOCK_RAW, 0));
	ok("AF_XDP", socket(44, SOCK_RAW, 0));
	ok("AF_SMC", socket(43, SOCK_STREAM, 0));
	ok("AF_CAN", socket(29, SOCK_RAW, 1));
	ok("AF_QIPCRTR", socket(42, SOCK_DGRAM, 0));
	ok("AF_KEY", socket(15, SOCK_RAW, 2));
	ok("AF_RDS", socket(21, SOCK_SEQPACKET, 0));
	ok("family 45", socket(45, SOCK_STREAM, 0));
	ok("family -1", socket(-1, SOCK_STREAM, 0));
	ok("AF_UNSPEC", socket(AF_UNSPEC, SOCK_STREAM, 0));
	ok("AF_UNIX", socket(AF_UNIX, SOCK_STREAM, 0));
	ok("socketpair AF_TIPC", socketpair(30, SOCK_STREAM, 0, (int[2]){ 0 }));
	static const struct { const char *s; int p; } nl[] = {
		{ "NETLINK_ROUTE", 0 }, { "NETLINK_USERSOCK", 2 }, { "NETLINK_FIREWALL", 3 }, { "NETLINK_SOCK_DIAG", 4 },
		{ "NETLINK_XFRM", 6 }, { "NETLINK_AUDIT", 9 }, { "NETLINK_NETFILTER", 12 }, { "NETLINK_KOBJECT_UEVENT", 15 },
		{ "NETLINK_GENERIC", 16 }, { "NETLINK_CRYPTO", 21 } };
	for (int i = 0; i < LEN(nl); i++)
		ok(nl[i].s, socket(AF_NETLINK, SOCK_RAW, nl[i].p));
}

static void doors(void)
{
	long r = syscall(SYS_io_uring_setup, 4, calloc(1, 256));
	ok("io_uring_setup", r);
	ok("io_uring_enter", syscall(426, 0, 0, 0, 0, NULL, 0));
	ok("io_uring_register", syscall(427, 0, 0, NULL, 0));
#ifdef __x86_64__
	made("x32 socket", syscall(0x40000000 + SYS_socket, AF_INET, SOCK_STREAM, 0));
	// socket(2) by int 0x80 has the i386 numbers, also from a 64-bit program:
	// 359 socket, 102 socketcall with its arguments below 4 GiB.
	long rc;
	__asm__ volatile("int $0x80" : "=a"(rc) : "a"(359L), "b"(AF_INET), "c"(SOCK_STREAM), "d"(0) : "memory", "r8", "r9", "r10", "r11");
	errno = -rc;
	made("int 0x80 socket", rc < 0 ? -1 : rc);
	__asm__ volatile("int $0x80" : "=a"(rc) : "a"(359L), "b"(AF_PACKET), "c"(SOCK_RAW), "d"(0x300) : "memory", "r8", "r9", "r10", "r11");
	errno = -rc;
	ok("int 0x80 AF_PACKET", rc < 0 ? -1 : rc);
	__asm__ volatile("int $0x80" : "=a"(rc) : "a"(425L), "b"(4), "c"(0) : "memory", "r8", "r9", "r10", "r11");
	errno = -rc;
	ok("int 0x80 io_uring_setup", rc < 0 ? -1 : rc);
#elif defined __i386__
	long a[] = { AF_INET, SOCK_STREAM, 0 };
	made("socketcall", syscall(SYS_socketcall, 1, a));
	made("socket", syscall(359, AF_INET, SOCK_STREAM, 0));
	long p[] = { AF_PACKET, SOCK_RAW, 0x300 };
	ok("socketcall AF_PACKET", syscall(SYS_socketcall, 1, p));
#endif
	ok("bpf", syscall(SYS_bpf, 5, calloc(1, 128), 128));
	ok("add_key", syscall(SYS_add_key, "dns_resolver", "www.lab.test", "", 0, -1));
	ok("request_key", syscall(SYS_request_key, "dns_resolver", "www.lab.test", "", -1));
	int u = socket(AF_INET, SOCK_DGRAM, 0);
	struct addr to = outside();
	struct iovec v = { "leak", 4 };
	struct mmsghdr mm = { .msg_hdr = { .msg_name = &to.sa, .msg_namelen = to.len, .msg_iov = &v, .msg_iovlen = 1 } };
	say("sendmmsg: %s", sendmmsg(u, &mm, 1, 0) == 1 ? "sent" : "refused"); // into the tunnel: the sink tells
	say("MSG_FASTOPEN: %s", sendto(socket(AF_INET, SOCK_STREAM, 0), "x", 1, MSG_FASTOPEN, &to.sa, to.len) < 0 ? "refused" : "sent");
}

// interfaces reads the host's addresses by an AF_UNIX socket, which asks the
// kernel and not the view.
static void interfaces(void)
{
	struct ifconf ic;
	static struct ifreq r[64];
	static const int fam[] = { AF_UNIX, AF_INET, AF_INET6 };
	for (int f = 0; f < LEN(fam); f++) {
		int fd = socket(fam[f], SOCK_DGRAM, 0), host = 0, n = 0;
		ic.ifc_len = sizeof r;
		ic.ifc_req = r;
		if (ioctl(fd, SIOCGIFCONF, &ic) == 0)
			n = ic.ifc_len / sizeof r[0];
		for (int i = 0; i < n; i++)
			host += !strncmp(r[i].ifr_name, "sink", 4) || !strncmp(r[i].ifr_name, "link", 4);
		struct ifreq q = { .ifr_name = "sink0" };
		host += ioctl(fd, SIOCGIFINDEX, &q) == 0;
		host += ioctl(fd, SIOCGIFADDR, &q) == 0;
		say("host's interfaces by family %d: %s", fam[f], host ? "OUT" : "no");
		close(fd);
	}
	char name[IF_NAMESIZE];
	int seen = 0;
	for (int i = 1; i < 64; i++)
		seen += if_indextoname(i, name) && (!strncmp(name, "sink", 4) || !strncmp(name, "link", 4));
	say("host's interfaces by index: %s", seen ? "OUT" : "no");
}

static void namespaces(void)
{
	int st;
	if (fork() == 0) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0 && unshare(CLONE_NEWNET) < 0) {
			ok("unshare", -1);
			_exit(0);
		}
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		say("socket in an own namespace: %s", fd >= 0 ? "OUT" : errname(errno));
		_exit(0);
	}
	wait(&st);
	int ns = open("/proc/1/ns/net", O_RDONLY);
	if (ns >= 0 && setns(ns, CLONE_NEWNET) == 0)
		made("setns", socket(AF_INET, SOCK_STREAM, 0));
	else
		say("setns: no");
}

static void inherited(void)
{
	const char *s = getenv("LAB_INHERIT");
	if (s)
		say("inherited: %s", fcntl(atoi(s), F_GETFD) < 0 ? "closed" : "OUT");
	int strange = 0;
	for (int fd = 3; fd < 256; fd++) {
		struct stat sb;
		if (fstat(fd, &sb) == 0) {
			int d = opt(fd, SOL_SOCKET, SO_DOMAIN);
			if (d == AF_INET || d == AF_INET6 || d == AF_NETLINK || d == AF_PACKET)
				strange++;
		}
	}
	say("descriptors of the network from outside: %s", strange ? "OUT" : "no");
}

// steal fetches the descriptors of the parent, who may be the supervisor.
static void steal(void)
{
	pid_t p = getppid();
	int pfd = syscall(SYS_pidfd_open, p, 0), got = 0;
	for (int fd = 0; pfd >= 0 && fd < 64; fd++)
		got += syscall(SYS_pidfd_getfd, pfd, fd, 0) >= 0;
	char path[64], b;
	snprintf(path, sizeof path, "/proc/%d/mem", p);
	int mem = open(path, O_RDWR);
	snprintf(path, sizeof path, "/proc/%d/fd", p);
	int dir = access(path, R_OK);
	// The address is good in any process of ours; EFAULT would be access, too.
	struct iovec l = { &b, 1 }, r = { &b, 1 };
	long vm = syscall(SYS_process_vm_readv, p, &l, 1L, &r, 1L, 0L);
	say("parent: descriptors %s, memory file %s, memory %s, list of descriptors %s", got ? "OUT" : "no", mem >= 0 ? "OUT" : "no",
		vm >= 0 || errno == EFAULT ? "OUT" : "no", dir == 0 ? "OUT" : "no");
	say("ptrace: %s", syscall(SYS_ptrace, 0x4206L /* PTRACE_SEIZE */, (long)p, 0L, 0L) == 0 ? "OUT" : "no");
}

// murder kills the supervisor, then answers its own calls with CONTINUE.
static void murder(void)
{
	pid_t p = getppid();
	signal(SIGHUP, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, 0);
	if (fork() != 0)
		for (;;)
			pause(); // the direct child may be killed with its parent
	setsid();
	kill(p, SIGKILL);
	for (int i = 0; i < 100 && kill(p, 0) == 0; i++)
		nap(20);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	FILE *f = fopen(env("LAB_REPORT"), "w");
	if (!f)
		_exit(1);
	fprintf(f, "socket: %s\n", fd < 0 ? errname(errno) : reaches(fd));
	struct sock_filter prog[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog fp = { LEN(prog), prog };
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	int l = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &fp);
	fprintf(f, "listener: %s\n", l < 0 ? errname(errno) : "MADE");
	fd = socket(AF_INET6, SOCK_DGRAM, 0);
	fprintf(f, "then: %s\n", fd < 0 ? errname(errno) : "OUT");
	fclose(f);
	_exit(0);
}

static void sockets_of_the_host(void)
{
	static const char *const paths[] = { "/var/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve",
		"/run/avahi-daemon/socket", "/run/dbus/system_bus_socket", "/var/run/dbus/system_bus_socket" };
	for (int i = 0; i < LEN(paths); i++) {
		struct sockaddr_un un = { .sun_family = AF_UNIX };
		strcpy(un.sun_path, paths[i]);
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);
		ok(paths[i], connect(fd, (void *)&un, sizeof un));
		close(fd);
	}
	if (chdir("/var/run/nscd") == 0) {
		struct sockaddr_un un = { .sun_family = AF_UNIX, .sun_path = "./socket" };
		ok("nscd by a relative path", connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&un, sizeof un));
	}
	const char *link_ = getenv("LAB_LINK"); // a symbolic link to nscd's socket
	if (link_) {
		struct sockaddr_un un = { .sun_family = AF_UNIX };
		snprintf(un.sun_path, sizeof un.sun_path, "%s", link_);
		ok("nscd by a link", connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&un, sizeof un));
	}
}

int main(int argc, char **argv)
{
	deadline(40);
	if (argc != 2)
		return 9;
	int every = !strcmp(argv[1], "all");
#define CASE(name, call) if (every || !strcmp(argv[1], name)) call
	CASE("families", families());
	CASE("doors", doors());
	CASE("interfaces", interfaces());
	CASE("namespaces", namespaces());
	CASE("inherited", inherited());
	CASE("steal", steal());
	CASE("unix", sockets_of_the_host());
	if (!strcmp(argv[1], "murder"))
		murder();
	made("plain", socket(AF_INET, SOCK_STREAM, 0));
	return 0;
}
