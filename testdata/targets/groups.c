// SPDX-License-Identifier: Apache-2.0

// Multicast alike for IPv4 and IPv6: members, sources, filters, who hears what.
#include "group.h"

// second sends if there is a second source.
static long second(int fd, const char *word, const char *ip, int port)
{
	return fd < 0 ? 0 : give(fd, word, ip, port);
}

// members is what both families do alike: on lo with IPv4, and with IPv6, which has
// no route for groups there, on the interface of the own address. lo is the address
// on the interface dev, far another interface.
static void members(const char *any, const char *g, const char *h, const char *lo, int dev, int far)
{
	int six = version(g) == 6, v = version(g);

	begin("groups/member-%d", v);
	int r = bound(any, 0), s = bound(lo, 0), port = port_at(r);
	ok("join", join(r, g, dev));
	ok("send by it", by(s, six, dev));
	num("send", give(s, "one", g, port));
	take("member", r);
	names("sender", s);

	begin("groups/leave-%d", v);
	ok("leave", leave(r, g, dev));
	num("send", give(s, "two", g, port));
	quiet("left", r);
	ok("leave again", leave(r, g, dev));

	begin("groups/not-joined-%d", v);
	num("send", give(s, "x", h, port));
	quiet("nobody is a member", r);

	begin("groups/loop-off-%d", v);
	ok("join", join(r, g, dev));
	ok("loop off", on(s, level(g), six ? IPV6_MULTICAST_LOOP : IP_MULTICAST_LOOP, 0));
	num("send", give(s, "three", g, port));
	quiet("received", r);
	ok("loop on", on(s, level(g), six ? IPV6_MULTICAST_LOOP : IP_MULTICAST_LOOP, 1));
	num("send", give(s, "four", g, port));
	take("again", r);

	begin("groups/all-of-another-%d", v);
	int other = bound(any, 0);
	num("send to the other's port", give(s, "five", g, port_at(other)));
	take("not a member, but one is", other);
	ok("ALL off", all_groups(other, six, 0));
	num("send", give(s, "six", g, port_at(other)));
	quiet("not its own group", other);
	ok("join the other group", join(other, h, dev));
	num("send", give(s, "seven", g, port_at(other)));
	quiet("not this group", other);
	num("send", give(s, "eight", h, port_at(other)));
	take("its own", other);
	close(other);

	begin("groups/shared-port-%d", v);
	int a = shared(any, 7001), b = shared(any, 7001);
	ok("a joins", join(a, g, dev));
	ok("b joins", join(b, g, dev));
	num("send", give(s, "both", g, 7001));
	take("a", a);
	take("b", b);
	num("unicast", give(s, "one", lo, 7001));
	quiet("a", a);
	take("b", b);
	close(a);
	close(b);

	begin("groups/bound-to-group-%d", v);
	a = fresh(g);
	struct addr at = mk(g, 7002);
	if (six)
		at.in6.sin6_scope_id = dev;
	ok("bind", bind(a, &at.sa, at.len));
	ok("join", join(a, g, dev));
	names("bound", a);
	num("unicast", give(s, "uni", lo, 7002));
	num("group", give(s, "multi", g, 7002));
	take("only the group", a);
	num("other group", give(s, "other", h, 7002));
	quiet("other group", a);
	close(a);

	begin("groups/connected-%d", v);
	a = bound(lo, 0);
	ok("by it", by(a, six, dev));
	at = mk(g, port);
	ok("connect", connect(a, &at.sa, at.len));
	names("connected", a);
	num("send", send(a, "nine", 4, 0));
	take("member", r);
	close(a);

	begin("groups/receiver-connected-%d", v);
	a = bound(any, 0);
	ok("join", join(a, g, dev));
	ok("connect to the sender", connect_to(a, lo, port_at(s)));
	b = bound(lo, 0);
	ok("by it", by(b, six, dev));
	num("from another", give(b, "wrong", g, port_at(a)));
	num("from the peer", give(s, "right", g, port_at(a)));
	quiet("not sent to its own address", a);
	quiet("and no other", a);
	close(a);
	close(b);

	begin("groups/bound-device-%d", v);
	b = bound(lo, 0);
	char name[IF_NAMESIZE];
	if_indextoname(dev, name);
	ok("SO_BINDTODEVICE", setsockopt(b, SOL_SOCKET, SO_BINDTODEVICE, name, strlen(name)));
	num("send", give(b, "twelve", g, port));
	take("by the device", r);
	ok("send by another", by(b, six, far));
	ok("send by the same", by(b, six, dev));
	num("send", give(b, "thirteen", g, port));
	take("by the device", r);
	close(b);

	begin("groups/group-req-%d", v);
	a = bound(any, 0);
	ok("MCAST_JOIN_GROUP", group(a, MCAST_JOIN_GROUP, h, dev));
	num("send", give(s, "thirteen", h, port_at(a)));
	take("member", a);
	ok("again", group(a, MCAST_JOIN_GROUP, h, dev));
	ok("MCAST_LEAVE_GROUP", group(a, MCAST_LEAVE_GROUP, h, dev));
	num("send", give(s, "fourteen", h, port_at(a)));
	quiet("left", a);
	ok("no interface has that index", group(a, MCAST_JOIN_GROUP, h, 9999));
	ok("not multicast", group(a, MCAST_JOIN_GROUP, lo, dev));
	ok("not a member", group(a, MCAST_LEAVE_GROUP, h, dev));
	struct group_req gr = { .gr_interface = dev };
	gr.gr_group.ss_family = six ? AF_INET : AF_INET6;
	ok("wrong family", setsockopt(a, level(g), MCAST_JOIN_GROUP, &gr, sizeof gr));
	ok("short", setsockopt(a, level(g), MCAST_JOIN_GROUP, &gr, 20));
	close(a);

	begin("groups/membership-errors-%d", v);
	a = fresh(any);
	ok("join", join(a, g, dev));
	ok("join twice", join(a, g, dev));
	ok("on another interface", join(a, g, far));
	ok("leave that", leave(a, g, far));
	ok("leave", leave(a, g, dev));
	ok("leave twice", leave(a, g, dev));
	ok("not multicast", join(a, lo, dev));
	ok("no such interface", join(a, g, 9999));
	ok("short", setsockopt(a, level(g), six ? IPV6_JOIN_GROUP : IP_ADD_MEMBERSHIP, heard, 4));
	int t = need("socket", socket(six ? AF_INET6 : AF_INET, SOCK_STREAM, 0));
	ok("on a stream", join(t, g, dev));
	ok("leave on a stream", leave(t, g, dev));
	close(t);
	close(a);

	begin("groups/closed-member-%d", v);
	a = bound(any, 0);
	ok("join", join(a, h, dev));
	b = bound(any, 0);
	num("send", give(s, "fifteen", h, port_at(b)));
	take("while it is a member", b);
	close(a);
	nap(20);
	num("send", give(s, "sixteen", h, port_at(b)));
	quiet("its close left the group", b);
	close(b);

	begin("groups/two-programs-%d", v);
	int p[2];
	need("pipe", pipe(p));
	pid_t kid = fork();
	if (kid == 0) {
		int k = shared(any, 7003);
		need("join", join(k, g, dev));
		put(p[1], "x", 1);
		take("child", k);
		_exit(0);
	}
	char c;
	all(p[0], &c, 1);
	long n = give(s, "seventeen", g, 7003);
	waitpid(kid, NULL, 0);
	num("send", n);

	// With sources: the group's datagrams of one only.
	// Of IPv6 there is no second address to send from.
	const char *from2 = six ? "fd77::99" : "127.0.0.2";
	int s2 = six ? -1 : bound(from2, 0);
	if (!six)
		need("by it", by(s2, six, dev));
	begin("groups/source-join-%d", v);
	a = bound(any, 0);
	ok("MCAST_JOIN_SOURCE_GROUP", source(a, MCAST_JOIN_SOURCE_GROUP, g, lo, dev));
	num("the other", second(s2, "no", g, port_at(a)));
	num("the source", give(s, "yes", g, port_at(a)));
	take("only the source", a);
	quiet("and no other", a);
	ok("a second source", source(a, MCAST_JOIN_SOURCE_GROUP, g, from2, dev));
	num("the other", second(s2, "now", g, port_at(a)));
	hear("both", a, six ? MSG_DONTWAIT : 0);
	ok("the same again", source(a, MCAST_JOIN_SOURCE_GROUP, g, lo, dev));
	ok("leave the first", source(a, MCAST_LEAVE_SOURCE_GROUP, g, lo, dev));
	num("the first", give(s, "gone", g, port_at(a)));
	num("the other", second(s2, "there", g, port_at(a)));
	hear("only the other", a, six ? MSG_DONTWAIT : 0);
	ok("leave the last", source(a, MCAST_LEAVE_SOURCE_GROUP, g, from2, dev));
	ok("none is left", source(a, MCAST_LEAVE_SOURCE_GROUP, g, from2, dev));
	close(a);

	begin("groups/block-source-%d", v);
	a = bound(any, 0);
	ok("not a member", source(a, MCAST_BLOCK_SOURCE, g, lo, dev));
	ok("join", join(a, g, dev));
	ok("block", source(a, MCAST_BLOCK_SOURCE, g, lo, dev));
	num("the blocked", give(s, "no", g, port_at(a)));
	num("another", second(s2, "yes", g, port_at(a)));
	if (six)
		quiet("blocked", a);
	else
		take("the other", a);
	ok("block again", source(a, MCAST_BLOCK_SOURCE, g, lo, dev));
	ok("unblock", source(a, MCAST_UNBLOCK_SOURCE, g, lo, dev));
	num("the first", give(s, "back", g, port_at(a)));
	take("unblocked", a);
	ok("unblock again", source(a, MCAST_UNBLOCK_SOURCE, g, lo, dev));
	ok("a source beside a whole membership", source(a, MCAST_JOIN_SOURCE_GROUP, g, lo, dev));
	ok("leave a source of it", source(a, MCAST_LEAVE_SOURCE_GROUP, g, lo, dev));
	close(a);

	begin("groups/source-errors-%d", v);
	a = bound(any, 0);
	ok("not multicast", source(a, MCAST_JOIN_SOURCE_GROUP, lo, lo, dev));
	ok("no such interface", source(a, MCAST_JOIN_SOURCE_GROUP, g, lo, 9999));
	ok("short", setsockopt(a, level(g), MCAST_JOIN_SOURCE_GROUP, heard, 100));
	ok("a source of a source group is blocked", source(a, MCAST_JOIN_SOURCE_GROUP, g, lo, dev));
	ok("block", source(a, MCAST_BLOCK_SOURCE, g, lo, dev));
	ok("unblock", source(a, MCAST_UNBLOCK_SOURCE, g, lo, dev));
	ok("whole join beside it", join(a, g, dev));
	ok("whole leave", leave(a, g, dev));
	close(a);

	begin("groups/filter-%d", v);
	a = bound(any, 0);
	ok("join", join(a, g, dev));
	char fb[GROUP_FILTER_SIZE(4)] = "";
	struct group_filter *f = (void *)fb;
	at = mk(g, 0);
	f->gf_interface = dev;
	memcpy(&f->gf_group, &at.ss, at.len);
	socklen_t fl = sizeof fb;
	f->gf_numsrc = 4;
	ok("get", getsockopt(a, level(g), MCAST_MSFILTER, f, &fl));
	say("mode %d, %d sources, length %d", f->gf_fmode, f->gf_numsrc, (int)fl - (int)GROUP_FILTER_SIZE(0));
	f->gf_fmode = MCAST_INCLUDE;
	f->gf_numsrc = 1;
	at = mk(lo, 0);
	memcpy(&f->gf_slist[0], &at.ss, at.len);
	ok("set one", setsockopt(a, level(g), MCAST_MSFILTER, f, GROUP_FILTER_SIZE(1)));
	num("another", second(s2, "no", g, port_at(a)));
	num("that one", give(s, "yes", g, port_at(a)));
	take("that one", a);
	f->gf_numsrc = 4;
	f->gf_fmode = 9;
	fl = sizeof fb;
	ok("get", getsockopt(a, level(g), MCAST_MSFILTER, f, &fl));
	struct addr first;
	memcpy(&first.ss, &f->gf_slist[0], sizeof first.in6);
	first.len = six ? sizeof first.in6 : sizeof first.in;
	say("mode %d, %d sources, first %s", f->gf_fmode, f->gf_numsrc, show(&first));
	f->gf_fmode = MCAST_EXCLUDE;
	f->gf_numsrc = 0;
	ok("exclude none", setsockopt(a, level(g), MCAST_MSFILTER, f, GROUP_FILTER_SIZE(0)));
	num("another", six ? give(s, "anyone", g, port_at(a)) : second(s2, "anyone", g, port_at(a)));
	take("anyone", a);
	f->gf_numsrc = 3;
	ok("more than is there", setsockopt(a, level(g), MCAST_MSFILTER, f, GROUP_FILTER_SIZE(1)));
	f->gf_interface = far;
	f->gf_numsrc = 0;
	ok("not a member there", setsockopt(a, level(g), MCAST_MSFILTER, f, GROUP_FILTER_SIZE(0)));
	close(a);
	close(r);
	close(s);
	close(s2);
}

int main(int argc, char **argv)
{
	deadline(40);
	if (argc == 2 && !strcmp(argv[1], "4"))
		members("0.0.0.0", G4, H4, "127.0.0.1", LO, index_of(env("LAB_SELF4")));
	else if (argc == 2 && !strcmp(argv[1], "6"))
		members("::", G6, H6, env("LAB_SELF6"), index_of(env("LAB_SELF6")), LO);
	else
		return 9;
	return 0;
}
