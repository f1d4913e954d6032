// SPDX-License-Identifier: Apache-2.0

// Packet sockets, packet(7), on the loopback interface and on the tunnel's, which
// has no link header.
#include "packet.h"
#include <ifaddrs.h>
#include <linux/if_link.h>

static void sockets(void)
{
	begin("packet/socket");
	int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_RDM, SOCK_SEQPACKET };
	for (int i = 0; i < LEN(types); i++) {
		int fd = socket(AF_PACKET, types[i], htons(ETH_P_ALL));
		say("type %d: %s", types[i], fd < 0 ? errname(errno) : "ok");
		if (fd >= 0) {
			say("SO_DOMAIN %d SO_TYPE %d SO_PROTOCOL %d", opt(fd, SOL_SOCKET, SO_DOMAIN), opt(fd, SOL_SOCKET, SO_TYPE), opt(fd, SOL_SOCKET, SO_PROTOCOL));
			local("getsockname", fd);
			say("flags: %s, %s", fcntl(fd, F_GETFL) & O_NONBLOCK ? "nonblock" : "block", fcntl(fd, F_GETFD) & FD_CLOEXEC ? "cloexec" : "kept");
			close(fd);
		}
	}
	ok("socketpair", socketpair(AF_PACKET, SOCK_RAW, 0, (int[2]){ 0 }));
	int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	say("flags: %s, %s", fcntl(fd, F_GETFL) & O_NONBLOCK ? "nonblock" : "block", fcntl(fd, F_GETFD) & FD_CLOEXEC ? "cloexec" : "kept");
	local("protocol 0", fd);
	say("poll: %s", events(ready(fd, POLLIN | POLLOUT, 0)));

	begin("packet/calls");
	struct sockaddr_ll a = at(lo, ETH_P_IP), b;
	socklen_t n = sizeof b;
	ok("connect", connect(fd, (struct sockaddr *)&a, sizeof a));
	ok("getpeername", getpeername(fd, (struct sockaddr *)&b, &n));
	ok("listen", listen(fd, 1));
	ok("accept", accept(fd, NULL, NULL));
	ok("shutdown", shutdown(fd, SHUT_RDWR));
	char p[100];
	num("recv", recv(fd, p, sizeof p, 0));
	num("recvfrom", recvfrom(fd, p, sizeof p, 0, (struct sockaddr *)&b, &n));
	num("recvfrom OOB", recvfrom(fd, p, sizeof p, MSG_OOB | MSG_TRUNC, NULL, NULL));
	num("recvfrom WAITALL", recvfrom(fd, p, sizeof p, MSG_WAITALL | MSG_TRUNC, NULL, NULL));
	num("recvfrom ERRQUEUE", recvfrom(fd, p, sizeof p, MSG_ERRQUEUE, NULL, NULL));
	so_error("idle", fd);
	close(fd);
}

static void binds(void)
{
	begin("packet/bind");
	int fd = need("socket", socket(AF_PACKET, SOCK_RAW, 0));
	struct sockaddr_ll a = at(lo, ETH_P_IP);
	ok("short", bind(fd, (struct sockaddr *)&a, sizeof a - 1));
	a.sll_family = AF_INET;
	ok("family", bind(fd, (struct sockaddr *)&a, sizeof a));
	a = at(4711, ETH_P_IP);
	ok("no such interface", bind(fd, (struct sockaddr *)&a, sizeof a));
	a = at(-1, ETH_P_IP);
	ok("interface -1", bind(fd, (struct sockaddr *)&a, sizeof a));
	local("as before", fd);
	a = at(lo, 0);
	ok("protocol 0", bind(fd, (struct sockaddr *)&a, sizeof a));
	local("lo", fd);
	a = at(lo, ETH_P_IP);
	a.sll_halen = 8;
	a.sll_pkttype = PACKET_OUTGOING;
	ok("lo", bind(fd, (struct sockaddr *)&a, sizeof a));
	local("lo", fd);
	a = at(dev, ETH_P_ALL);
	ok("again", bind(fd, (struct sockaddr *)&a, sizeof a));
	local("dev", fd);
	a = at(0, ETH_P_IPV6);
	ok("any", bind(fd, (struct sockaddr *)&a, sizeof a));
	local("any", fd);
	a = at(0, 0);
	ok("none", bind(fd, (struct sockaddr *)&a, sizeof a));
	local("none", fd);
	close(fd);
}

// seen is one interface, type of socket and protocol.
static void seen(const char *name, int type, int index, int proto, const char *ip, int port, int count)
{
	begin("packet/see-%s", name);
	int fd = on(type, index, proto);
	int own = index == lo ? sink(ip, port) : -1;
	int udp = tell(ip, port, "mark-00");
	see("packet", fd, count, index == lo && type == SOCK_RAW ? 14 : 0);
	say("then: %s", events(ready(fd, POLLIN | POLLOUT, 0)));
	close(udp);
	close(own);
	close(fd);
}

static void captures(void)
{
	const char *peer4 = env("LAB_PEER4"), *peer6 = env("LAB_PEER6");
	seen("lo-raw-4", SOCK_RAW, lo, ETH_P_ALL, "127.0.0.1", 4000, 2);
	seen("lo-raw-6", SOCK_RAW, lo, ETH_P_ALL, "::1", 4000, 2);
	seen("lo-dgram-4", SOCK_DGRAM, lo, ETH_P_ALL, "127.0.0.1", 4000, 2);
	seen("lo-raw-ip", SOCK_RAW, lo, ETH_P_IP, "127.0.0.1", 4000, 1);
	seen("lo-dgram-ipv6", SOCK_DGRAM, lo, ETH_P_IPV6, "::1", 4000, 1);
	seen("dev-raw-4", SOCK_RAW, dev, ETH_P_ALL, peer4, ECHO, 2);
	seen("dev-raw-6", SOCK_RAW, dev, ETH_P_ALL, peer6, ECHO, 2);
	seen("dev-dgram-4", SOCK_DGRAM, dev, ETH_P_ALL, peer4, ECHO, 2);
	seen("dev-raw-ip", SOCK_RAW, dev, ETH_P_IP, peer4, ECHO, 1);
	seen("dev-dgram-ipv6", SOCK_DGRAM, dev, ETH_P_IPV6, peer6, ECHO, 1);
	seen("any-dgram", SOCK_DGRAM, 0, ETH_P_IP, peer4, ECHO, 1);

	begin("packet/see-nothing");
	int fd = on(SOCK_RAW, lo, ETH_P_ARP), none = on(SOCK_RAW, lo, 0), other = on(SOCK_RAW, dev, ETH_P_ALL);
	int own = sink("127.0.0.1", 4000), udp = tell("127.0.0.1", 4000, "mark-01");
	nap(100);
	see("arp", fd, 1, 14);
	see("protocol 0", none, 1, 14);
	see("the other interface", other, 1, 14);
	struct sockaddr_ll a = at(lo, ETH_P_IP);
	ok("bind", bind(none, (struct sockaddr *)&a, sizeof a));
	close(tell("127.0.0.1", 4000, "mark-02"));
	see("bound later", none, 1, 14);
	close(fd), close(none), close(other), close(own), close(udp);

	begin("packet/ignore-outgoing");
	fd = on(SOCK_DGRAM, lo, ETH_P_ALL);
	ok("set", setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &(int){ 1 }, sizeof(int)));
	say("get: %d", opt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING));
	own = sink("127.0.0.1", 4000), udp = tell("127.0.0.1", 4000, "mark-03");
	see("packet", fd, 2, 0);
	close(fd), close(own), close(udp);
}

static void messages(void)
{
	begin("packet/messages");
	int fd = on(SOCK_RAW, lo, ETH_P_IP), own = sink("127.0.0.1", 4000), udp = -1;
	for (int i = 0; i < 9; i++)
		close(udp), udp = tell("127.0.0.1", 4000, "mark-04");
	message("peek", fd, 4000, MSG_PEEK);
	message("peek short", fd, 20, MSG_PEEK);
	message("whole", fd, 4000, 0);
	message("short", fd, 20, 0);
	message("short, TRUNC", fd, 20, MSG_TRUNC);
	ok("PACKET_AUXDATA", setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &(int){ 1 }, sizeof(int)));
	message("auxdata", fd, 4000, 0);
	message("auxdata, short", fd, 20, 0);
	ok("SO_TIMESTAMP", setsockopt(fd, SOL_SOCKET, SO_TIMESTAMP, &(int){ 1 }, sizeof(int)));
	message("and a stamp", fd, 4000, 0);
	char p[4000];
	static const struct { const char *name; int size, flags; } plain[] = {
		{ "recv", sizeof p, 0 }, { "recv, short", 20, 0 }, { "recv, short, TRUNC", 20, MSG_TRUNC },
	};
	for (int i = 0; i < LEN(plain); i++) {
		ready(fd, POLLIN, 700);
		num(plain[i].name, recv(fd, p, plain[i].size, plain[i].flags));
	}
	say("then: %s", events(ready(fd, POLLIN, 50)));
	num("none left", recv(fd, p, sizeof p, 0));
	close(fd);

	begin("packet/messages-dgram");
	fd = on(SOCK_DGRAM, lo, ETH_P_IP);
	close(tell("127.0.0.1", 4000, "mark-05"));
	ok("PACKET_AUXDATA", setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &(int){ 1 }, sizeof(int)));
	message("auxdata", fd, 4000, 0);
	close(fd), close(own), close(udp);
}

static void statistics(void)
{
	begin("packet/statistics");
	int fd = on(SOCK_DGRAM, lo, ETH_P_IP), own = sink("127.0.0.1", 4000);
	stats("none", fd);
	for (int i = 0; i < 3; i++)
		close(tell("127.0.0.1", 4000, "mark-06"));
	nap(50);
	stats("three", fd);
	stats("reset", fd);
	see("packet", fd, 3, 0);

	begin("packet/overflow");
	ok("SO_RCVBUF", setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){ 4000 }, sizeof(int)));
	say("SO_RCVBUF %d", opt(fd, SOL_SOCKET, SO_RCVBUF));
	struct addr to = mk("127.0.0.1", 4000);
	int udp = need("socket", socket(AF_INET, SOCK_DGRAM, 0));
	for (int i = 0; i < 40; i++)
		need("sendto", sendto(udp, "mark-07 and more", 16, 0, &to.sa, to.len));
	nap(50);
	struct tpacket_stats s;
	socklen_t n = sizeof s;
	num("getsockopt", getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &s, &n));
	say("40 packets: %s, %s", s.tp_packets == 40 ? "all counted" : "WRONG count", s.tp_drops > 0 && s.tp_drops < 40 ? "some dropped" : "WRONG drops");
	close(fd), close(own), close(udp);
}

static void member(const char *label, int fd, int index, int type, int name, int size)
{
	struct packet_mreq m = { .mr_ifindex = index, .mr_type = type, .mr_alen = type == PACKET_MR_MULTICAST ? 6 : 0, .mr_address = { 1, 0, 94, 0, 0, 1 } };
	say("%s %s: %s", name == PACKET_ADD_MEMBERSHIP ? "add" : "drop", label, setsockopt(fd, SOL_PACKET, name, &m, size) < 0 ? errname(errno) : "ok");
}

static void memberships(void)
{
	begin("packet/membership");
	int fd = on(SOCK_RAW, lo, ETH_P_ALL), full = sizeof(struct packet_mreq);
	member("promisc", fd, dev, PACKET_MR_PROMISC, PACKET_ADD_MEMBERSHIP, full);
	member("promisc again", fd, dev, PACKET_MR_PROMISC, PACKET_ADD_MEMBERSHIP, full);
	member("allmulti", fd, lo, PACKET_MR_ALLMULTI, PACKET_ADD_MEMBERSHIP, full);
	member("multicast", fd, lo, PACKET_MR_MULTICAST, PACKET_ADD_MEMBERSHIP, full);
	member("multicast without addresses", fd, dev, PACKET_MR_MULTICAST, PACKET_ADD_MEMBERSHIP, full);
	member("no such interface", fd, 4711, PACKET_MR_PROMISC, PACKET_ADD_MEMBERSHIP, full);
	member("short", fd, lo, PACKET_MR_PROMISC, PACKET_ADD_MEMBERSHIP, full - 1);
	member("type 77", fd, lo, 77, PACKET_ADD_MEMBERSHIP, full);
	member("promisc", fd, dev, PACKET_MR_PROMISC, PACKET_DROP_MEMBERSHIP, full);
	member("promisc", fd, dev, PACKET_MR_PROMISC, PACKET_DROP_MEMBERSHIP, full);
	member("promisc", fd, dev, PACKET_MR_PROMISC, PACKET_DROP_MEMBERSHIP, full);
	member("never added", fd, lo, PACKET_MR_PROMISC, PACKET_DROP_MEMBERSHIP, full);
	member("no such interface", fd, 4711, PACKET_MR_PROMISC, PACKET_DROP_MEMBERSHIP, full);
	close(fd);
}

// checksum of an IPv4 header.
static uint16_t checksum(const unsigned char *p, int n)
{
	uint32_t s = 0;
	for (int i = 0; i < n; i += 2)
		s += p[i] << 8 | p[i + 1];
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return htons(~s);
}

// build makes an IPv4 packet with a marked datagram.
static int build(unsigned char *p, const char *src, const char *dst, int port, const char *mark)
{
	struct iphdr ip = { .version = 4, .ihl = 5, .tot_len = htons(60), .ttl = 64, .protocol = IPPROTO_UDP };
	struct udphdr udp = { .source = htons(4500), .dest = htons(port), .len = htons(40) }; // no checksum
	inet_pton(AF_INET, src, &ip.saddr);
	inet_pton(AF_INET, dst, &ip.daddr);
	ip.check = checksum((unsigned char *)&ip, 20);
	memcpy(p, &ip, 20);
	memcpy(p + 20, &udp, 8);
	memset(p + 28, '.', 32);
	memcpy(p + 28, mark, 7);
	return 60;
}

// counters are those that rtnetlink tells: in and out.
struct counters { long long bytes[2], packets[2]; };

static void count(int index, struct counters *c)
{
	struct ifaddrs *all = NULL;
	char name[IF_NAMESIZE] = "";
	if_indextoname(index, name);
	need("getifaddrs", getifaddrs(&all));
	for (struct ifaddrs *i = all; i; i = i->ifa_next) {
		const struct rtnl_link_stats *s = i->ifa_data;
		if (s && !strcmp(i->ifa_name, name) && i->ifa_addr && i->ifa_addr->sa_family == AF_PACKET)
			*c = (struct counters){ { s->rx_bytes, s->tx_bytes }, { s->rx_packets, s->tx_packets } };
	}
	freeifaddrs(all);
}

static void sends(void)
{
	unsigned char p[3000] = { 0 }, q[70000] = { 0 };
	struct sockaddr_ll a = at(lo, ETH_P_IP);

	begin("packet/send-lo-raw");
	int own = sink("127.0.0.1", 4000), fd = on(SOCK_RAW, lo, ETH_P_ALL), other = on(SOCK_RAW, lo, ETH_P_ALL);
	build(p + 14, "127.0.0.1", "127.0.0.1", 4000, "mark-11");
	p[12] = 8;
	num("send", send(fd, p, 74, 0));
	see("the sender sees", fd, 2, 14);
	see("another sees", other, 2, 14);
	memset(q, 0, 100);
	say("delivered: %s", events(ready(own, POLLIN, 700)));
	text("recv", recv(own, q, sizeof q, MSG_DONTWAIT), (char *)q);
	num("sendto", sendto(fd, p, 74, 0, (struct sockaddr *)&a, sizeof a));
	see("the sender sees", fd, 1, 14);
	num("write", write(fd, p, 74));
	see("the sender sees", fd, 1, 14);
	close(fd), close(other);

	begin("packet/send-lo-dgram");
	fd = on(SOCK_DGRAM, lo, ETH_P_IP);
	num("send", send(fd, p + 14, 60, 0));
	see("the sender sees", fd, 1, 0);
	num("sendto", sendto(fd, p + 14, 60, 0, (struct sockaddr *)&a, sizeof a));
	see("the sender sees", fd, 1, 0);
	close(fd);

	begin("packet/send-dev");
	int from = sink(env("LAB_SELF4"), 4500); // where the answers go
	fd = on(SOCK_RAW, dev, ETH_P_ALL), other = on(SOCK_DGRAM, dev, ETH_P_ALL);
	int six = on(SOCK_DGRAM, dev, ETH_P_IP);
	build(p, env("LAB_SELF4"), env("LAB_PEER4"), ECHO, "mark-12");
	num("send", send(fd, p, 60, 0));
	see("the sender sees the answer", fd, 1, 0);
	see("another sees", other, 2, 0);
	see("IP sees", six, 1, 0);
	a = at(dev, ETH_P_IP);
	num("dgram", sendto(other, p, 60, 0, (struct sockaddr *)&a, sizeof a));
	see("the sender sees the answer", other, 1, 0);
	close(fd), close(other), close(six), close(from);

	begin("packet/send-counters");
	struct counters before, after;
	for (int d = 0; d < 2; d++) {
		const char *name = d ? "lo" : "the link";
		fd = on(d ? SOCK_RAW : SOCK_DGRAM, d ? lo : dev, 0);
		a = at(d ? lo : dev, ETH_P_IP);
		build(p + 14, d ? "127.0.0.1" : env("LAB_SELF4"), d ? "127.0.0.1" : env("LAB_PEER4"), d ? 4000 : CLOSED, "mark-13");
		count(d ? lo : dev, &before);
		for (int i = 0; i < 3; i++)
			need("send", sendto(fd, d ? p : p + 14, d ? 74 : 60, 0, (struct sockaddr *)&a, sizeof a));
		nap(100);
		count(d ? lo : dev, &after);
		say("%s: %lld packets and %lld bytes out", name, after.packets[1] - before.packets[1], after.bytes[1] - before.bytes[1]);
		if (d)
			say("%s: %lld packets and %lld bytes in", name, after.packets[0] - before.packets[0], after.bytes[0] - before.bytes[0]);
		close(fd);
	}

	begin("packet/send-errors");
	int unbound = need("socket", socket(AF_PACKET, SOCK_RAW, 0)), dgram = need("socket", socket(AF_PACKET, SOCK_DGRAM, 0));
	a = at(lo, ETH_P_IP);
	num("short name", sendto(unbound, p, 74, 0, (struct sockaddr *)&a, sizeof a - 1));
	num("family", (a.sll_family = AF_INET, sendto(unbound, p, 74, 0, (struct sockaddr *)&a, sizeof a)));
	a = at(4711, ETH_P_IP);
	num("no such interface", sendto(unbound, p, 74, 0, (struct sockaddr *)&a, sizeof a));
	a = at(0, ETH_P_IP);
	num("no interface", sendto(unbound, p, 74, 0, (struct sockaddr *)&a, sizeof a));
	a = at(lo, ETH_P_IP);
	num("13 bytes", sendto(unbound, p, 13, 0, (struct sockaddr *)&a, sizeof a));
	num("14 bytes", sendto(unbound, p, 14, 0, (struct sockaddr *)&a, sizeof a));
	num("0 bytes, dgram", sendto(dgram, p, 0, 0, (struct sockaddr *)&a, sizeof a));
	num("OOB", sendto(dgram, p, 60, MSG_OOB, (struct sockaddr *)&a, sizeof a));
	a = at(dev, ETH_P_IP);
	num("0 bytes, no header", sendto(unbound, p, 0, 0, (struct sockaddr *)&a, sizeof a));
	num("1420 bytes", sendto(unbound, q, 1420, 0, (struct sockaddr *)&a, sizeof a));
	num("1421 bytes", sendto(unbound, q, 1421, 0, (struct sockaddr *)&a, sizeof a));
	num("1425 bytes", sendto(unbound, q, 1425, 0, (struct sockaddr *)&a, sizeof a));
	a.sll_halen = 6;
	num("halen", sendto(dgram, p, 60, 0, (struct sockaddr *)&a, sizeof a));
	a.sll_halen = 9;
	num("halen 9", sendto(dgram, p, 60, 0, (struct sockaddr *)&a, sizeof a));
	struct iovec iov = { p, 60 };
	struct msghdr h = { .msg_name = &a, .msg_namelen = sizeof a, .msg_iov = &iov, .msg_iovlen = 1 };
	a = at(dev, ETH_P_IP);
	num("sendmsg", sendmsg(dgram, &h, 0));
	so_error("unbound", unbound);
	close(unbound), close(dgram), close(own);
}

static void options(void)
{
	begin("packet/options");
	int fd = need("socket", socket(AF_PACKET, SOCK_RAW, 0));
	static const struct { const char *name; int opt; } all_[] = {
#define O(x) { #x, x }
		O(PACKET_AUXDATA), O(PACKET_ORIGDEV), O(PACKET_VERSION), O(PACKET_RESERVE), O(PACKET_COPY_THRESH), O(PACKET_LOSS),
		O(PACKET_TIMESTAMP), O(PACKET_QDISC_BYPASS), O(PACKET_IGNORE_OUTGOING),
	};
	for (int i = 0; i < LEN(all_); i++) {
		int before = opt(fd, SOL_PACKET, all_[i].opt), v = 1;
		long rc = setsockopt(fd, SOL_PACKET, all_[i].opt, &v, sizeof v);
		say("%s: %d, set %s, then %d", all_[i].name, before, rc < 0 ? errname(errno) : "ok", opt(fd, SOL_PACKET, all_[i].opt));
		v = 0;
		rc = setsockopt(fd, SOL_PACKET, all_[i].opt, &v, 3);
		say("%s: 3 bytes %s", all_[i].name, rc < 0 ? errname(errno) : "ok");
		setsockopt(fd, SOL_PACKET, all_[i].opt, &v, sizeof v);
	}
	for (int v = 0; v < 5; v++) {
		int len = v;
		socklen_t n = sizeof len;
		long rc = getsockopt(fd, SOL_PACKET, PACKET_HDRLEN, &len, &n);
		say("PACKET_HDRLEN %d: %s %d", v, rc < 0 ? errname(errno) : "ok", rc < 0 ? 0 : len);
	}
	ok("PACKET_VERSION 3", setsockopt(fd, SOL_PACKET, PACKET_VERSION, &(int){ 3 }, sizeof(int)));
	ok("PACKET_RESERVE", setsockopt(fd, SOL_PACKET, PACKET_RESERVE, &(unsigned){ 0x80000000u }, sizeof(int)));
	ok("an unknown option", setsockopt(fd, SOL_PACKET, 99, &(int){ 1 }, sizeof(int)));
	say("an unknown option: %d", opt(fd, SOL_PACKET, 99));
	say("level IP: %d", opt(fd, IPPROTO_IP, IP_TTL));
	ok("level IP", setsockopt(fd, IPPROTO_IP, IP_TTL, &(int){ 1 }, sizeof(int)));
	say("SO_RCVBUF %d, SO_SNDBUF %d", opt(fd, SOL_SOCKET, SO_RCVBUF), opt(fd, SOL_SOCKET, SO_SNDBUF));
	ok("SO_RCVBUF", setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){ 100000 }, sizeof(int)));
	say("SO_RCVBUF %d", opt(fd, SOL_SOCKET, SO_RCVBUF));
	ok("SO_RCVBUF", setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){ 1 }, sizeof(int)));
	say("SO_RCVBUF %d", opt(fd, SOL_SOCKET, SO_RCVBUF));
	ok("SO_BROADCAST", setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &(int){ 1 }, sizeof(int)));
	say("SO_BROADCAST %d, SO_REUSEADDR %d", opt(fd, SOL_SOCKET, SO_BROADCAST), opt(fd, SOL_SOCKET, SO_REUSEADDR));
	close(fd);

	begin("packet/devices");
	int indices[] = { lo, dev };
	for (int i = 0; i < 2; i++) {
		struct ifreq r;
		fd = need("socket", socket(AF_PACKET, SOCK_RAW, 0));
		memset(&r, 0, sizeof r);
		r.ifr_ifindex = indices[i];
		ok("SIOCGIFNAME", ioctl(fd, SIOCGIFNAME, &r));
		ok("SIOCGIFHWADDR", ioctl(fd, SIOCGIFHWADDR, &r));
		say("%s hatype %d", ifname(indices[i]), r.ifr_hwaddr.sa_family);
		ok("SIOCGIFINDEX", ioctl(fd, SIOCGIFINDEX, &r));
		say("index %s", ifname(r.ifr_ifindex));
		ok("SIOCGIFMTU", ioctl(fd, SIOCGIFMTU, &r));
		say("MTU %d", r.ifr_mtu);
		ok("SIOCGIFFLAGS", ioctl(fd, SIOCGIFFLAGS, &r));
		say("flags %s %s %s", r.ifr_flags & IFF_UP ? "up" : "down", r.ifr_flags & IFF_NOARP ? "noarp" : "arp", r.ifr_flags & IFF_LOOPBACK ? "loopback" : "");
		close(fd);
	}
}

int main(void)
{
	deadline(55);
	places();
	sockets();
	binds();
	captures();
	messages();
	statistics();
	memberships();
	sends();
	options();
	return 0;
}
