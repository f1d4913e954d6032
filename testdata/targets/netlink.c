// SPDX-License-Identifier: Apache-2.0

// Changes of the network by ip(8) and by hand, and what sockets make of them:
// routes that refuse, addresses that come and go, notifications; and the ioctls of
// netdevice(7) on sockets of every family. What is changed is changed back.
#include "lab.h"
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif

static char dev[IF_NAMESIZE]; // the interface that has LAB_SELF4

static void find_dev(void)
{
	struct ifaddrs *all_, *a;
	need("getifaddrs", getifaddrs(&all_));
	for (a = all_; a; a = a->ifa_next)
		if (a->ifa_addr && a->ifa_addr->sa_family == AF_INET &&
		    !strcmp(inet_ntoa(((struct sockaddr_in *)a->ifa_addr)->sin_addr), env("LAB_SELF4")))
			snprintf(dev, sizeof dev, "%s", a->ifa_name);
	freeifaddrs(all_);
}

// out prints a line with the interface as DEV and without user ids.
static void out(char *line)
{
	char *at, *uid = strstr(line, " uid ");
	if (uid)
		strcpy(uid, strchr(uid + 5, ' ') ? strchr(uid + 5, ' ') : "");
	line[strcspn(line, "\n")] = 0;
	for (char *p = line; (at = strstr(p, dev)); p = at + strlen(dev)) {
		printf("%.*sDEV", (int)(at - p), p);
		line = at + strlen(dev);
	}
	say("%s", line);
}

// sh runs a command, in which % is the interface, and prints what it says.
static void sh(const char *cmd)
{
	char full[512], line[512], *o = full;
	for (; *cmd && o < full + sizeof full - 64; cmd++)
		if (*cmd == '%')
			o += sprintf(o, "%s", dev);
		else
			*o++ = *cmd;
	sprintf(o, " 2>&1");
	FILE *f = popen(full, "r");
	while (f && fgets(line, sizeof line, f))
		out(line);
	int status = f ? pclose(f) : -1;
	say("status %d", WEXITSTATUS(status));
}

// reach tells what sockets get from sending to an address.
static void reach(const char *ip)
{
	struct addr to = mk(ip, 9);
	int t = tcp(&to, SOCK_NONBLOCK), u = socket(to.sa.sa_family, SOCK_DGRAM, 0);
	ok("connect TCP", connect(t, &to.sa, to.len));
	ok("sendto", sendto(u, "x", 1, 0, &to.sa, to.len));
	ok("connect UDP", connect(u, &to.sa, to.len));
	close(t);
	close(u);
}

static void refusing(void)
{
	static const struct { const char *type, *prefix, *host; int six; } r[] = {
		{ "blackhole", "198.18.1.0/24", "198.18.1.7", 0 }, { "unreachable", "198.18.2.0/24", "198.18.2.7", 0 },
		{ "prohibit", "198.18.3.0/24", "198.18.3.7", 0 }, { "throw", "198.18.4.0/24", "198.18.4.7", 0 },
		{ "blackhole", "2001:2:0:1::/64", "2001:2:0:1::7", 1 }, { "unreachable", "2001:2:0:2::/64", "2001:2:0:2::7", 1 },
		{ "prohibit", "2001:2:0:3::/64", "2001:2:0:3::7", 1 }, { "throw", "2001:2:0:4::/64", "2001:2:0:4::7", 1 },
	};
	char cmd[200];
	for (int i = 0; i < LEN(r); i++) {
		begin("netlink/%s-%d", r[i].type, r[i].six ? 6 : 4);
		snprintf(cmd, sizeof cmd, "ip -%d route add %s %s", r[i].six ? 6 : 4, r[i].type, r[i].prefix);
		sh(cmd);
		sh(cmd);
		snprintf(cmd, sizeof cmd, "ip -%d route show %s", r[i].six ? 6 : 4, r[i].prefix);
		sh(cmd);
		snprintf(cmd, sizeof cmd, "ip route get %s", r[i].host);
		sh(cmd);
		reach(r[i].host);
		snprintf(cmd, sizeof cmd, "ip -%d route del %s %s", r[i].six ? 6 : 4, r[i].type, r[i].prefix);
		sh(cmd);
		sh(cmd);
	}
	begin("netlink/blackhole-and-a-host-4");
	sh("ip route add blackhole 198.18.5.0/24");
	sh("ip route add 198.18.5.7 dev %");
	sh("ip route get 198.18.5.7 from $LAB_SELF4 | sed s/$LAB_SELF4/SELF/g");
	struct addr to = mk("198.18.5.7", 9);
	int u = socket(AF_INET, SOCK_DGRAM, 0);
	ok("connect UDP", connect(u, &to.sa, to.len));
	names("by the host's route", u);
	close(u);
	reach("198.18.5.8");
	sh("ip route del 198.18.5.7");
	sh("ip route del blackhole 198.18.5.0/24");
}

static void bound(const char *label, const char *ip)
{
	struct addr a = mk(ip, 0);
	int fd = socket(a.sa.sa_family, SOCK_DGRAM, 0);
	ok(label, bind(fd, &a.sa, a.len));
	close(fd);
}

static void addresses(void)
{
	begin("netlink/address-4");
	bound("bind before", "198.18.10.1");
	sh("ip addr add 198.18.10.1/24 dev %");
	sh("ip addr add 198.18.10.1/24 dev %");
	bound("bind", "198.18.10.1");
	sh("ip route show 198.18.10.0/24");
	sh("ip addr del 198.18.10.1/24 dev %");
	sh("ip addr del 198.18.10.1/24 dev %");
	bound("bind after", "198.18.10.1");

	begin("netlink/address-6");
	bound("bind before", "2001:2:0:10::1");
	sh("ip addr add 2001:2:0:10::1/64 dev % nodad");
	sh("ip addr add 2001:2:0:10::1/64 dev % nodad");
	nap(50);
	bound("bind", "2001:2:0:10::1");
	sh("ip -6 route show 2001:2:0:10::/64");
	sh("ip addr del 2001:2:0:10::1/64 dev %");
	sh("ip addr del 2001:2:0:10::1/64 dev %");
	bound("bind after", "2001:2:0:10::1");

	begin("netlink/address-label");
	sh("ip addr add 198.18.11.1/24 brd + label %:lab dev %");
	sh("ip addr show label %:lab | grep -v mtu");
	sh("ip addr del 198.18.11.1/24 dev %");

	begin("netlink/address-peer");
	sh("ip addr add 198.18.12.1 peer 198.18.12.2 dev %");
	sh("ip route show 198.18.12.2");
	sh("ip addr show to 198.18.12.0/24 | grep -v mtu");
	sh("ip addr del 198.18.12.1 peer 198.18.12.2 dev %");

	begin("netlink/address-lifetime");
	sh("ip addr add 198.18.13.1/24 dev % valid_lft 5000 preferred_lft 0");
	sh("ip addr show to 198.18.13.0/24 | grep -v -e mtu -e valid");
	sh("ip addr change 198.18.13.1/24 dev %");
	sh("ip addr show to 198.18.13.0/24 | grep -v mtu");
	sh("ip addr add 198.18.14.1/24 dev % valid_lft 5 preferred_lft 9");
	sh("ip addr del 198.18.13.1/24 dev %");

	begin("netlink/address-secondary");
	sh("ip addr add 198.18.15.1/24 dev %");
	sh("ip addr add 198.18.15.2/24 dev %");
	sh("ip addr show to 198.18.15.0/24 | grep -v mtu");
	sh("ip addr del 198.18.15.1/24 dev %");
	bound("bind the second", "198.18.15.2");
	sh("ip addr del 198.18.15.2/24 dev %");

	begin("netlink/address-noprefixroute");
	sh("ip addr add 198.18.16.1/24 dev % noprefixroute");
	sh("ip route show 198.18.16.0/24");
	sh("ip addr del 198.18.16.1/24 dev %");

	begin("netlink/address-metric");
	sh("ip addr add 198.18.17.1/24 dev % metric 77");
	sh("ip route show 198.18.17.0/24");
	sh("ip addr del 198.18.17.1/24 dev %");
}

static void routes(void)
{
	begin("netlink/route-table");
	sh("ip route add 198.18.20.0/24 dev % table 177");
	sh("ip route show table 177");
	sh("ip route flush table 177");
	sh("ip route show table 177");
	begin("netlink/route-metric");
	sh("ip route add 198.18.21.0/24 dev % metric 9");
	sh("ip route add 198.18.21.0/24 dev % metric 7 src 127.0.0.9");
	sh("ip route add 198.18.21.0/24 dev % metric 7 proto static");
	sh("ip route show 198.18.21.0/24");
	sh("ip route del 198.18.21.0/24");
	sh("ip route show 198.18.21.0/24");
	sh("ip route del 198.18.21.0/24");
	begin("netlink/route-mtu");
	sh("ip route add 198.18.22.0/24 dev % mtu 1300");
	sh("ip route show 198.18.22.0/24");
	struct addr to = mk("198.18.22.7", 9);
	int u = socket(AF_INET, SOCK_DGRAM, 0);
	ok("connect", connect(u, &to.sa, to.len));
	num("IP_MTU", opt(u, IPPROTO_IP, IP_MTU));
	close(u);
	sh("ip route del 198.18.22.0/24");
	begin("netlink/route-onlink");
	sh("ip route add 198.18.23.0/24 via 203.0.113.99 dev % onlink");
	sh("ip route show 198.18.23.0/24");
	sh("ip route del 198.18.23.0/24");
	begin("netlink/route-replace");
	sh("ip route add 198.18.24.0/24 dev %");
	sh("ip route replace 198.18.24.0/24 dev % mtu 1280");
	sh("ip route append 198.18.24.0/24 dev % mtu 1290");
	sh("ip route show 198.18.24.0/24");
	sh("ip route change 198.18.25.0/24 dev %");
	sh("ip route del 198.18.24.0/24");
	sh("ip route del 198.18.24.0/24");
	begin("netlink/route-errors");
	sh("ip route add 198.18.26.0/24 via 203.0.113.99"); // by the default route, which has no gateway
	sh("ip route del 198.18.26.0/24");
	sh("ip route add 198.18.26.0/24 dev nosuch");
	sh("ip route add 198.18.26.1/24 dev %");
	sh("ip route add blackhole 198.18.26.0/24 dev %");
	sh("ip route get 198.18.26.1 from 203.0.113.99");
	sh("ip route get 198.18.26.1 oif nosuch");
	begin("netlink/route-by-hand");
	sh("/usr/sbin/route add -net 198.18.27.0 netmask 255.255.255.0 dev %");
	sh("/usr/sbin/route add -net 198.18.27.0 netmask 255.255.255.0 dev %");
	sh("/usr/sbin/route add -net 198.18.28.0/24 reject");
	sh("ip route show 198.18.27.0/24");
	sh("ip route show 198.18.28.0/24");
	reach("198.18.28.7");
	sh("/usr/sbin/route del -net 198.18.27.0 netmask 255.255.255.0");
	sh("/usr/sbin/route del -net 198.18.28.0/24 reject");
	sh("/usr/sbin/route del -net 198.18.28.0/24 reject");
}

static void links(void)
{
	begin("netlink/link-flags");
	sh("ip link set % promisc on");
	sh("ip link show % | grep -o PROMISC");
	sh("ip link set % promisc off");
	sh("ip link show % | grep -o PROMISC");
	begin("netlink/link-errors");
	sh("ip link set nosuch up");
	sh("ip link set % mtu 10");
	sh("ip link set % name lo");
	sh("ip link add x type nosuch");
	sh("ip link del lo");
	begin("netlink/neighbours");
	sh("ip neigh show dev %");
	sh("ip neigh get 198.18.30.1 dev %");
	sh("ip neigh del 198.18.30.1 dev %");
	sh("ip neigh change 198.18.30.1 lladdr 02:00:00:00:00:01 dev %");
	begin("netlink/rules");
	sh("ip -4 rule list table main");
	sh("ip -6 rule list table local");
	sh("ip rule del from 198.18.30.1 table 177");
}

static void families(void)
{
	static const struct { const char *name; int family, type; } f[] = {
		{ "inet", AF_INET, SOCK_DGRAM }, { "inet-stream", AF_INET, SOCK_STREAM }, { "inet6", AF_INET6, SOCK_DGRAM },
		{ "unix", AF_UNIX, SOCK_STREAM }, { "netlink", AF_NETLINK, SOCK_RAW },
	};
	static const struct { const char *name; unsigned long cmd; } c[] = {
		{ "INDEX", SIOCGIFINDEX }, { "NAME", SIOCGIFNAME }, { "FLAGS", SIOCGIFFLAGS }, { "MTU", SIOCGIFMTU }, { "ADDR", SIOCGIFADDR },
		{ "NETMASK", SIOCGIFNETMASK }, { "BRDADDR", SIOCGIFBRDADDR }, { "DSTADDR", SIOCGIFDSTADDR }, { "HWADDR", SIOCGIFHWADDR },
		{ "METRIC", SIOCGIFMETRIC }, { "TXQLEN", SIOCGIFTXQLEN }, { "MAP", SIOCGIFMAP }, { "PFLAGS", SIOCGIFPFLAGS },
	};
	for (int i = 0; i < LEN(f); i++) {
		begin("netlink/ioctl-%s", f[i].name);
		int fd = need("socket", socket(f[i].family, f[i].type, 0));
		for (int j = 0; j < LEN(c); j++) {
			struct ifreq r;
			memset(&r, 0, sizeof r);
			strcpy(r.ifr_name, "lo");
			if (c[j].cmd == SIOCGIFNAME)
				r.ifr_ifindex = 1;
			int rc = ioctl(fd, c[j].cmd, &r);
			unsigned char *p = (unsigned char *)&r.ifr_addr;
			say("lo %s: %s %s %02x%02x%02x%02x%02x%02x%02x%02x", c[j].name, rc ? errname(errno) : "ok", r.ifr_name,
			    p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]);
			strcpy(r.ifr_name, "nosuch");
			r.ifr_ifindex = 77;
			ok("nosuch", ioctl(fd, c[j].cmd, &r));
		}
		close(fd);
	}
	begin("netlink/if_nametoindex");
	num("lo", if_nametoindex("lo"));
	say("nosuch: %u %s", if_nametoindex("nosuch"), errname(errno));
	char name[IF_NAMESIZE];
	say("1: %s", if_indextoname(1, name));
	say("77: %s %s", if_indextoname(77, name) ? "there" : "none", errname(errno));
}

// hear prints what a netlink socket has.
static void hear(const char *label, int fd)
{
	char buf[8192];
	struct sockaddr_nl from;
	struct iovec v = { buf, sizeof buf };
	char control[128];
	while (ready(fd, POLLIN, 200)) {
		struct msghdr m = { .msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &v, .msg_iovlen = 1,
				    .msg_control = control, .msg_controllen = sizeof control };
		long n = recvmsg(fd, &m, 0);
		if (n < 0) {
			say("%s: %s", label, errname(errno));
			return;
		}
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		int group = c && c->cmsg_level == SOL_NETLINK ? *(int *)CMSG_DATA(c) : -1;
		for (struct nlmsghdr *h = (void *)buf; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n))
			say("%s: type %d flags %#x from %u groups %#x control %d", label, h->nlmsg_type, h->nlmsg_flags, from.nl_pid, from.nl_groups, group);
	}
}

static void notifications(void)
{
	begin("netlink/notified");
	int fd = need("socket", socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)), on = 1, group = RTNLGRP_IPV4_IFADDR;
	struct sockaddr_nl a = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_IPV4_ROUTE };
	ok("bind", bind(fd, (struct sockaddr *)&a, sizeof a));
	ok("join", setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group));
	ok("PKTINFO", setsockopt(fd, SOL_NETLINK, NETLINK_PKTINFO, &on, sizeof on));
	sh("ip addr add 198.18.40.1/32 dev %");
	hear("added", fd);
	sh("ip route add blackhole 198.18.41.0/24");
	hear("route added", fd);
	sh("ip route del blackhole 198.18.41.0/24");
	hear("route deleted", fd);
	sh("ip addr del 198.18.40.1/32 dev %");
	hear("deleted", fd);
	ok("leave", setsockopt(fd, SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, &group, sizeof group));
	close(fd);

	begin("netlink/uevent");
	int u = need("socket", socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT));
	a.nl_groups = 2;
	ok("bind", bind(u, (struct sockaddr *)&a, sizeof a));
	ok("PASSCRED", setsockopt(u, SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
	say("ready: %s", events(ready(u, POLLIN | POLLOUT, 0)));
	char b[16];
	ok("recv", recv(u, b, sizeof b, 0));
	close(u);

	begin("netlink/names");
	int n1 = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), n2 = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_ROUTE);
	struct sockaddr_nl any = { .nl_family = AF_NETLINK }, got;
	socklen_t len = sizeof got;
	ok("bind", bind(n1, (struct sockaddr *)&any, sizeof any));
	ok("getsockname", getsockname(n1, (struct sockaddr *)&got, &len));
	say("its own process: %d, %d bytes", got.nl_pid == (unsigned)getpid(), (int)len);
	any.nl_pid = getpid();
	ok("the same port", bind(n2, (struct sockaddr *)&any, sizeof any));
	any.nl_pid = 0;
	ok("another port", bind(n2, (struct sockaddr *)&any, sizeof any));
	getsockname(n2, (struct sockaddr *)&got, &len);
	say("another one: %d", got.nl_pid != 0 && got.nl_pid != (unsigned)getpid());
	ok("short", bind(n2, (struct sockaddr *)&any, 4));
	ok("connect", connect(n2, (struct sockaddr *)&any, sizeof any));
	ok("listen", listen(n2, 1));
	close(n1);
	close(n2);
}

int main(void)
{
	deadline(50);
	find_dev();
	refusing();
	addresses();
	routes();
	links();
	families();
	notifications();
	return 0;
}
