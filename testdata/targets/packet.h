// SPDX-License-Identifier: Apache-2.0

// What the programs about packet sockets have in common: packets of our own, known
// by a mark in them, and how they are printed.
#ifndef PACKET_H
#define PACKET_H

#include "lab.h"
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/ip.h>
#include <netinet/udp.h>

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

static int lo, dev;

// find returns the index of the interface that has the own address.
static UNUSED int find(void)
{
	struct ifreq reqs[32];
	struct ifconf conf = { .ifc_len = sizeof reqs, .ifc_req = reqs };
	int s = need("socket", socket(AF_INET, SOCK_DGRAM, 0));
	need("SIOCGIFCONF", ioctl(s, SIOCGIFCONF, &conf));
	int found = -1;
	for (int i = 0; i < conf.ifc_len / (int)sizeof reqs[0]; i++)
		if (!strcmp(inet_ntoa(((struct sockaddr_in *)&reqs[i].ifr_addr)->sin_addr), env("LAB_SELF4")))
			found = if_nametoindex(reqs[i].ifr_name);
	close(s);
	errno = ENODEV;
	return need("the tunnel's interface", found);
}

static UNUSED const char *ifname(int index)
{
	return index == lo ? "lo" : index == dev ? "dev" : index == 0 ? "none" : "other";
}

static UNUSED struct sockaddr_ll at(int index, int proto)
{
	struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_protocol = htons(proto), .sll_ifindex = index };
	return a;
}

// open makes a packet socket that sees one interface.
static UNUSED int on(int type, int index, int proto)
{
	struct sockaddr_ll a = at(index, proto);
	int fd = need("socket", socket(AF_PACKET, type | SOCK_NONBLOCK, 0));
	need("bind", bind(fd, (struct sockaddr *)&a, sizeof a));
	return fd;
}

static UNUSED const char *link_name(const struct sockaddr_ll *a)
{
	static char out[160];
	static const char *types[] = { "host", "broadcast", "multicast", "otherhost", "outgoing", "loopback" };
	snprintf(out, sizeof out, "family %d proto %04x on %s hatype %d %s halen %d addr %02x%02x%02x%02x%02x%02x%02x%02x", a->sll_family,
		ntohs(a->sll_protocol), ifname(a->sll_ifindex), a->sll_hatype, a->sll_pkttype < 6 ? types[a->sll_pkttype] : "?",
		a->sll_halen, a->sll_addr[0], a->sll_addr[1], a->sll_addr[2], a->sll_addr[3], a->sll_addr[4], a->sll_addr[5], a->sll_addr[6], a->sll_addr[7]);
	return out;
}

static UNUSED void local(const char *label, int fd)
{
	struct sockaddr_ll a;
	socklen_t n = sizeof a;
	memset(&a, 0, sizeof a);
	long rc = getsockname(fd, (struct sockaddr *)&a, &n);
	if (rc < 0)
		ok(label, rc);
	else
		say("%s: len %d %s", label, (int)n, link_name(&a));
}

// marked finds the text in a packet that our own datagrams carry.
static UNUSED const char *marked(const unsigned char *p, long n)
{
	for (long i = 0; i + 5 < n; i++)
		if (!memcmp(p + i, "mark-", 5))
			return (const char *)p + i;
	return NULL;
}

// frame says what a packet is: where the network header begins, and what is in it.
static UNUSED const char *frame(const unsigned char *p, long n, int header)
{
	static char out[200];
	const char *m = marked(p, n);
	const unsigned char *ip = p + header;
	const unsigned char *udp = ip + (ip[0] >> 4 == 4 ? 20 : 40);
	char eth[64] = "";
	if (header)
		snprintf(eth, sizeof eth, "eth %02x%02x > %02x%02x %02x%02x ", p[6], p[11], p[0], p[5], p[12], p[13]);
	snprintf(out, sizeof out, "%ld bytes %sip %d proto %d sport %s dport %d \"%.*s\"", n, eth, ip[0] >> 4,
		ip[0] >> 4 == 4 ? ip[9] : ip[6], (udp[0] << 8 | udp[1]) >= 10000 ? "EPH" : "low",
		(udp[2] << 8 | udp[3]) >= 10000 ? 10000 : udp[2] << 8 | udp[3], m ? 7 : 0, m ? m : "");
	return out;
}

// next receives the next packet of our own, or returns -1 when none comes.
static UNUSED long next(int fd, unsigned char *p, size_t size, struct sockaddr_ll *from)
{
	while (ready(fd, POLLIN, 700) & POLLIN) {
		socklen_t n = sizeof *from;
		memset(from, 0, sizeof *from);
		long got = recvfrom(fd, p, size, MSG_TRUNC, (struct sockaddr *)from, &n);
		if (got < 0)
			return got;
		if (marked(p, got < (long)size ? got : (long)size)) {
			if (n != sizeof *from)
				say("WRONG length of the name: %d", (int)n);
			return got;
		}
	}
	errno = ETIME;
	return -1;
}

// see prints as many packets as there are to come.
static UNUSED void see(const char *label, int fd, int count, int header)
{
	unsigned char p[4000];
	struct sockaddr_ll from;
	for (int i = 0; i < count; i++) {
		long n = next(fd, p, sizeof p, &from);
		if (n < 0)
			ok(label, n);
		else
			say("%s: %s; %s", label, frame(p, n, header), link_name(&from));
	}
}

// tell sends a marked datagram and returns its socket.
static UNUSED int tell(const char *ip, int port, const char *mark)
{
	struct addr to = mk(ip, port);
	int fd = need("socket", socket(to.sa.sa_family, SOCK_DGRAM, 0));
	char p[32];
	memset(p, '.', sizeof p);
	memcpy(p, mark, strlen(mark));
	num("sendto", sendto(fd, p, sizeof p, 0, &to.sa, to.len));
	return fd;
}

// sink is a socket that datagrams to the own host go to.
static UNUSED int sink(const char *ip, int port)
{
	struct addr a = mk(ip, port);
	int fd = need("socket", socket(a.sa.sa_family, SOCK_DGRAM, 0));
	need("bind", bind(fd, &a.sa, a.len));
	return fd;
}

static UNUSED void stats(const char *label, int fd)
{
	struct tpacket_stats_v3 s = { 77, 77, 77 };
	socklen_t n = sizeof s;
	long rc = getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &s, &n);
	if (rc < 0)
		ok(label, rc);
	else
		say("%s: %d bytes, %u packets, %u drops", label, (int)n, s.tp_packets, s.tp_drops);
}

// message receives one packet by recvmsg(2) and prints all that came with it.
static UNUSED void message(const char *label, int fd, size_t size, int flags)
{
	unsigned char p[4000];
	char control[256];
	struct sockaddr_ll from;
	memset(&from, 0, sizeof from);
	struct iovec iov = { p, size };
	struct msghdr h = { .msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	if (!(ready(fd, POLLIN, 700) & POLLIN)) {
		say("%s: nothing to read", label);
		return;
	}
	long n = num(label, recvmsg(fd, &h, flags));
	if (n < 0)
		return;
	say("%s: flags %s%s%s name %d %s", label, h.msg_flags & MSG_TRUNC ? "trunc " : "", h.msg_flags & MSG_CTRUNC ? "ctrunc " : "",
		h.msg_flags & MSG_ERRQUEUE ? "errqueue " : "", h.msg_namelen, link_name(&from));
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); c; c = CMSG_NXTHDR(&h, c)) {
		struct tpacket_auxdata x;
		if (c->cmsg_level == SOL_PACKET && c->cmsg_type == PACKET_AUXDATA) {
			memcpy(&x, CMSG_DATA(c), sizeof x);
			say("%s: auxdata of %d, %s, len %u snaplen %u mac %d net %d vlan %d %d", label, (int)(c->cmsg_len - CMSG_LEN(0)),
				x.tp_status & TP_STATUS_USER ? "user" : "?", x.tp_len, x.tp_snaplen, x.tp_mac, x.tp_net, x.tp_vlan_tci, x.tp_vlan_tpid);
		} else {
			say("%s: control level %d type %d len %d", label, c->cmsg_level, c->cmsg_type, (int)c->cmsg_len);
		}
	}
}

// places finds the two interfaces.
static UNUSED void places(void)
{
	lo = if_nametoindex("lo");
	dev = find();
}

#endif
