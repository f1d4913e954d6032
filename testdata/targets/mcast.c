// SPDX-License-Identifier: Apache-2.0

// Multicast as only one of ip(7) and ipv6(7) has it.
#include "group.h"

// ip4 is what IPv4 alone has.
static void ip4(void)
{
	const char *self = env("LAB_SELF4");
	begin("mcast/source-mreq");
	int a = bound("0.0.0.0", 0), s = bound("127.0.0.1", 0), s2 = bound("127.0.0.2", 0);
	ok("by lo", by(s, 0, LO));
	ok("by lo", by(s2, 0, LO));
	ok("IP_ADD_SOURCE_MEMBERSHIP", mreqs(a, IP_ADD_SOURCE_MEMBERSHIP, G4, "127.0.0.1", "127.0.0.1"));
	num("another", give(s2, "no", G4, port_at(a)));
	num("the source", give(s, "yes", G4, port_at(a)));
	take("the source", a);
	ok("again", mreqs(a, IP_ADD_SOURCE_MEMBERSHIP, G4, "127.0.0.1", "127.0.0.1"));
	ok("IP_DROP_SOURCE_MEMBERSHIP of another", mreqs(a, IP_DROP_SOURCE_MEMBERSHIP, G4, "127.0.0.2", "127.0.0.1"));
	ok("IP_DROP_SOURCE_MEMBERSHIP", mreqs(a, IP_DROP_SOURCE_MEMBERSHIP, G4, "127.0.0.1", "127.0.0.1"));
	ok("IP_BLOCK_SOURCE of none", mreqs(a, IP_BLOCK_SOURCE, G4, "127.0.0.1", "127.0.0.1"));
	ok("no interface", mreqs(a, IP_ADD_SOURCE_MEMBERSHIP, G4, "127.0.0.1", "10.11.12.13"));
	ok("short", setsockopt(a, IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, heard, 8));

	begin("mcast/block-mreq");
	ok("join", mreqn(a, IP_ADD_MEMBERSHIP, G4, "127.0.0.1", 0));
	ok("IP_BLOCK_SOURCE", mreqs(a, IP_BLOCK_SOURCE, G4, "127.0.0.1", "127.0.0.1"));
	num("blocked", give(s, "no", G4, port_at(a)));
	num("another", give(s2, "yes", G4, port_at(a)));
	take("another", a);
	ok("IP_UNBLOCK_SOURCE", mreqs(a, IP_UNBLOCK_SOURCE, G4, "127.0.0.1", "127.0.0.1"));
	num("unblocked", give(s, "back", G4, port_at(a)));
	take("unblocked", a);
	ok("IP_UNBLOCK_SOURCE again", mreqs(a, IP_UNBLOCK_SOURCE, G4, "127.0.0.1", "127.0.0.1"));

	begin("mcast/msfilter");
	char fb[IP_MSFILTER_SIZE(4)] = "";
	struct ip_msfilter *f = (void *)fb;
	inet_pton(AF_INET, G4, &f->imsf_multiaddr);
	inet_pton(AF_INET, "127.0.0.1", &f->imsf_interface);
	f->imsf_fmode = MCAST_EXCLUDE;
	f->imsf_numsrc = 1;
	inet_pton(AF_INET, "127.0.0.2", &f->imsf_slist[0]);
	ok("exclude one", setsockopt(a, IPPROTO_IP, IP_MSFILTER, f, IP_MSFILTER_SIZE(1)));
	num("excluded", give(s2, "no", G4, port_at(a)));
	num("another", give(s, "yes", G4, port_at(a)));
	take("another", a);
	f->imsf_numsrc = 4;
	f->imsf_fmode = 9;
	socklen_t n = sizeof fb;
	ok("get", getsockopt(a, IPPROTO_IP, IP_MSFILTER, f, &n));
	char ip[32];
	inet_ntop(AF_INET, &f->imsf_slist[0], ip, sizeof ip);
	say("mode %d, %d sources, first %s, length %d", f->imsf_fmode, f->imsf_numsrc, ip, (int)n);
	ok("short", setsockopt(a, IPPROTO_IP, IP_MSFILTER, f, 12));
	f->imsf_fmode = 7;
	ok("no such mode", setsockopt(a, IPPROTO_IP, IP_MSFILTER, f, IP_MSFILTER_SIZE(1)));

	begin("mcast/mreq");
	int b = bound("0.0.0.0", 0);
	struct ip_mreq m;
	inet_pton(AF_INET, H4, &m.imr_multiaddr);
	inet_pton(AF_INET, "127.0.0.1", &m.imr_interface);
	ok("join by an address", setsockopt(b, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof m));
	num("send", give(s, "eighteen", H4, port_at(b)));
	take("member", b);
	ok("leave by the address", setsockopt(b, IPPROTO_IP, IP_DROP_MEMBERSHIP, &m, sizeof m));
	inet_pton(AF_INET, "10.11.12.13", &m.imr_interface);
	ok("nobody's address", setsockopt(b, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof m));
	inet_pton(AF_INET, self, &m.imr_interface);
	ok("join by the own address", setsockopt(b, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof m));
	ok("leave without an address", mreqn(b, IP_DROP_MEMBERSHIP, H4, "0.0.0.0", 0));

	begin("mcast/interfaces-of-a-member");
	int a2 = bound("0.0.0.0", 0), b2 = bound(self, 0);
	ok("join on the own interface", join(a2, K4, index_of(self)));
	num("send", give(b2, "ten", K4, port_at(a2)));
	take("looped back", a2);
	num("on lo, where nobody is a member", give(s, "eleven", K4, port_at(a2)));
	quiet("not there", a2);
	ok("another joins on lo", join(b2, K4, LO));
	num("on lo", give(s, "twelve", K4, port_at(a2)));
	take("a group that was joined elsewhere", a2);
	ok("ALL off", all_groups(a2, 0, 0));
	num("on lo", give(s, "thirteen", K4, port_at(a2)));
	quiet("only its own interface", a2);
	close(a2);
	close(b2);

	begin("mcast/default-interface");
	int d = fresh("0.0.0.0");
	ok("join anywhere", mreqn(b, IP_ADD_MEMBERSHIP, H4, "0.0.0.0", 0));
	num("send anywhere", give(d, "nineteen", H4, port_at(b)));
	take("member", b);
	names("sender", d);

	begin("mcast/if-option");
	struct in_addr in;
	n = sizeof in;
	ok("get, unset", getsockopt(d, IPPROTO_IP, IP_MULTICAST_IF, &in, &n));
	say("%s (%d)", inet_ntoa(in), (int)n);
	inet_pton(AF_INET, "127.0.0.1", &in);
	ok("an address", setsockopt(d, IPPROTO_IP, IP_MULTICAST_IF, &in, sizeof in));
	ok("get", getsockopt(d, IPPROTO_IP, IP_MULTICAST_IF, &in, &n));
	say("%s", inet_ntoa(in));
	num("send", give(d, "twenty", H4, port_at(b)));
	quiet("member elsewhere", b);
	inet_pton(AF_INET, "10.11.12.13", &in);
	ok("nobody's address", setsockopt(d, IPPROTO_IP, IP_MULTICAST_IF, &in, sizeof in));
	struct ip_mreqn mn = { .imr_ifindex = 9999 };
	ok("no such index", setsockopt(d, IPPROTO_IP, IP_MULTICAST_IF, &mn, sizeof mn));
	ok("short", setsockopt(d, IPPROTO_IP, IP_MULTICAST_IF, &in, 3));
	in.s_addr = 0;
	ok("unset", setsockopt(d, IPPROTO_IP, IP_MULTICAST_IF, &in, sizeof in));
	mn.imr_ifindex = LO;
	ok("by index", setsockopt(d, IPPROTO_IP, IP_MULTICAST_IF, &mn, sizeof mn));
	ok("get", getsockopt(d, IPPROTO_IP, IP_MULTICAST_IF, &in, &n));
	say("%s", inet_ntoa(in));

	begin("mcast/many-memberships");
	int k = 0, fd = fresh("0.0.0.0");
	for (; k < 40; k++) {
		char g[32];
		snprintf(g, sizeof g, "239.8.0.%d", k);
		if (join(fd, g, LO) < 0)
			break;
	}
	say("%d, then %s", k, k < 40 ? errname(errno) : "ok");
	close(fd);

	begin("mcast/bind-address-is-source");
	fd = bound(self, 0);
	ok("by lo", by(fd, 0, LO));
	ok("join on lo", join(b, G4, LO));
	num("send", give(fd, "own", G4, port_at(b)));
	quiet("from", b);
	close(fd);

	begin("mcast/interface-of-the-source");
	fd = bound("127.0.0.1", 0);
	num("send", give(fd, "by lo", G4, port_at(b)));
	take("received", b);
	ok("connect", connect_to(fd, G4, port_at(b)));
	num("send", send(fd, "again", 5, 0));
	take("received", b);
	close(fd);

	begin("mcast/local-groups");
	num("all hosts, by lo", give(s, "hosts", "224.0.0.1", port_at(b)));
	take("everyone is a member", b);

	begin("mcast/ttl");
	ok("RECVTTL", on(b, IPPROTO_IP, IP_RECVTTL, 1));
	for (int i = 0; i < 2; i++) {
		char control[64];
		struct iovec v = { heard, sizeof heard };
		struct msghdr mh = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
		num("send", give(s, "ttl", G4, port_at(b)));
		num("recvmsg", recvmsg(b, &mh, 0));
		struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
		say("TTL %d", c ? *(int *)CMSG_DATA(c) : -1);
		ok("MULTICAST_TTL 9", on(s, IPPROTO_IP, IP_MULTICAST_TTL, 9));
	}
	ok("TTL 0 stays in", on(s, IPPROTO_IP, IP_MULTICAST_TTL, 0));
	num("send", give(s, "zero", G4, port_at(b)));
	take("here", b);
	ok("TTL 256", on(s, IPPROTO_IP, IP_MULTICAST_TTL, 256));
	ok("TTL -1", on(s, IPPROTO_IP, IP_MULTICAST_TTL, -1));
	say("TTL is %d", opt(s, IPPROTO_IP, IP_MULTICAST_TTL));
	ok("TTL of one byte", setsockopt(s, IPPROTO_IP, IP_MULTICAST_TTL, "\x05", 1));
	say("TTL is %d", opt(s, IPPROTO_IP, IP_MULTICAST_TTL));

	begin("mcast/stream-options");
	fd = need("socket", socket(AF_INET, SOCK_STREAM, 0));
	ok("MULTICAST_TTL", on(fd, IPPROTO_IP, IP_MULTICAST_TTL, 5));
	ok("MULTICAST_LOOP", on(fd, IPPROTO_IP, IP_MULTICAST_LOOP, 1));
	ok("MULTICAST_IF", setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &mn, sizeof mn));
	ok("MULTICAST_ALL", on(fd, IPPROTO_IP, IP_MULTICAST_ALL, 1));
	close(fd);
	close(a);
	close(b);
	close(d);
	close(s);
	close(s2);
}

// ip6 is what IPv6 alone has.
static void ip6(void)
{
	const char *self = env("LAB_SELF6");
	int net = index_of(self);
	begin("mcast/no-groups-on-lo-6");
	int r = bound("::", 0), s = bound("::1", 0);
	ok("join", join(r, G6, LO));
	ok("by lo", by(s, 1, LO));
	num("send", give(s, "lo", G6, port_at(r)));
	ok("connect", connect_to(s, G6, port_at(r)));
	close(s);

	begin("mcast/scope-of-address");
	s = bound(self, 0);
	ok("join", join(r, G6, net));
	struct addr to = mk(G6, port_at(r));
	to.in6.sin6_scope_id = net;
	num("send with a scope", sendto(s, "one", 3, 0, &to.sa, to.len));
	take("member", r);
	to.in6.sin6_scope_id = 9999;
	num("no such scope", sendto(s, "one", 3, 0, &to.sa, to.len));
	ok("by it", by(s, 1, net));
	to.in6.sin6_scope_id = LO;
	num("another scope than MULTICAST_IF", sendto(s, "two", 3, 0, &to.sa, to.len));
	to.in6.sin6_scope_id = 0;
	num("none", sendto(s, "three", 5, 0, &to.sa, to.len));
	hear("member", r, 0);

	begin("mcast/if-option-6");
	say("MULTICAST_IF is %s", opt(s, IPPROTO_IPV6, IPV6_MULTICAST_IF) == net ? "that one" : "another");
	ok("0", by(s, 1, 0));
	say("MULTICAST_IF is %s", opt(s, IPPROTO_IPV6, IPV6_MULTICAST_IF) == net ? "that one" : "another");
	ok("no such index", by(s, 1, 9999));
	ok("-1", by(s, 1, -1));
	ok("short", setsockopt(s, IPPROTO_IPV6, IPV6_MULTICAST_IF, "x", 1));
	ok("LOOP 2", on(s, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 2));
	ok("ALL 2", on(s, IPPROTO_IPV6, IPV6_MULTICAST_ALL, 2));
	ok("HOPS 256", on(s, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 256));
	ok("HOPS -1", on(s, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, -1));
	say("HOPS is %d", opt(s, IPPROTO_IPV6, IPV6_MULTICAST_HOPS));
	ok("HOPS -2", on(s, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, -2));

	begin("mcast/hops-6");
	ok("RECVHOPLIMIT", on(r, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1));
	ok("by it", by(s, 1, net));
	for (int i = 0; i < 2; i++) {
		char control[64];
		struct iovec v = { heard, sizeof heard };
		struct msghdr mh = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
		num("send", give(s, "hops", G6, port_at(r)));
		num("recvmsg", recvmsg(r, &mh, 0));
		struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
		say("hop limit %d", c ? *(int *)CMSG_DATA(c) : -1);
		ok("MULTICAST_HOPS 9", on(s, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 9));
	}

	begin("mcast/local-groups-6");
	num("all nodes", give(s, "nodes", "ff02::1", port_at(r)));
	take("everyone is a member", r);
	num("interface-local", give(s, "nodes", "ff01::1", port_at(r)));
	take("everyone is a member", r);

	begin("mcast/addmembership-names");
	ok("IPV6_ADD_MEMBERSHIP", mreq6(r, IPV6_ADD_MEMBERSHIP, H6, LO));
	ok("IPV6_DROP_MEMBERSHIP", mreq6(r, IPV6_DROP_MEMBERSHIP, H6, LO));

	begin("mcast/v4-group-on-v6");
	int d = bound("::", 0), t = bound("127.0.0.1", 0);
	ok("by lo", by(t, 0, LO));
	ok("IP_ADD_MEMBERSHIP", mreqn(d, IP_ADD_MEMBERSHIP, G4, "0.0.0.0", LO));
	num("send", give(t, "mapped", G4, port_at(d)));
	take("mapped", d);
	ok("IPV6_JOIN_GROUP of a mapped group", mreq6(d, IPV6_JOIN_GROUP, "::ffff:239.7.7.7", LO));
	ok("IP_DROP_MEMBERSHIP", mreqn(d, IP_DROP_MEMBERSHIP, G4, "0.0.0.0", LO));
	close(r);
	close(s);
	close(d);
	close(t);
}

int main(int argc, char **argv)
{
	deadline(40);
	if (argc == 2 && !strcmp(argv[1], "ip4"))
		ip4();
	else if (argc == 2 && !strcmp(argv[1], "ip6"))
		ip6();
	else
		return 9;
	return 0;
}
