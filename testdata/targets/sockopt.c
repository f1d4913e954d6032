// SPDX-License-Identifier: Apache-2.0

// The walk: every option of the tables of netmod/sockapi on one kind of socket:
// its default, values, lengths and pointers, right and wrong ones. Of TCP and UDP
// there are sockets in further states.
//
// Usage: sockopt KIND
#include "lab.h"
#include <ctype.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <net/ethernet.h>

// As netmod/sockapi has them.
enum shape { INT, OPAQUE, VARYING, LINGER, TIMEVAL, TEXT, MREQ, BYTES };
enum access { GET = 1, SET = 2 };
enum { TCP4 = 1, TCP6 = 2, UDP4 = 4, UDP6 = 8, PING4 = 16, PING6 = 32, RAW4 = 64, RAW6 = 128, PACKET = 256, NETLINK = 512 };

static const struct row { const char *name; int level, number, access, shape, kinds; } rows[] = {
#include "sockopt.inc"
};

enum state { NEW, CONNECTED, LISTENING };

static const struct kind { const char *name; int bit, family, type, proto; enum state state; } kinds[] = {
	{ "connected4", TCP4, AF_INET, SOCK_STREAM, 0, CONNECTED }, { "connected6", TCP6, AF_INET6, SOCK_STREAM, 0, CONNECTED },
	{ "listening4", TCP4, AF_INET, SOCK_STREAM, 0, LISTENING }, { "listening6", TCP6, AF_INET6, SOCK_STREAM, 0, LISTENING },
	{ "connectedudp4", UDP4, AF_INET, SOCK_DGRAM, 0, CONNECTED }, { "connectedudp6", UDP6, AF_INET6, SOCK_DGRAM, 0, CONNECTED },
	{ "tcp4", TCP4, AF_INET, SOCK_STREAM, 0, NEW }, { "tcp6", TCP6, AF_INET6, SOCK_STREAM, 0, NEW },
	{ "udp4", UDP4, AF_INET, SOCK_DGRAM, 0, NEW }, { "udp6", UDP6, AF_INET6, SOCK_DGRAM, 0, NEW },
	{ "ping4", PING4, AF_INET, SOCK_DGRAM, IPPROTO_ICMP, NEW }, { "ping6", PING6, AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6, NEW },
	{ "raw4", RAW4, AF_INET, SOCK_RAW, IPPROTO_ICMP, NEW }, { "raw6", RAW6, AF_INET6, SOCK_RAW, IPPROTO_ICMPV6, NEW },
	{ "packet", PACKET, AF_PACKET, SOCK_RAW, 0, NEW }, { "netlink", NETLINK, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, NEW },
};

static const struct row *r;
static int fd;
static const int sizes[] = { 0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 20, 24 };
static char *const bad = (char *)8; // no program has memory there

// value writes what getsockopt gave.
static const char *value(const char *v, int n)
{
	static char out[800];
	char *o = out;
	int i;
	if (r->shape == OPAQUE || r->shape == VARYING)
		n = 0;
	if (r->shape == TEXT) {
		snprintf(out, sizeof out, " \"%.*s\"", n, v);
		return out;
	}
	*o = 0;
	if (r->shape == LINGER || r->shape == INT)
		for (; n >= 4; n -= 4, v += 4) {
			memcpy(&i, v, 4);
			o += sprintf(o, " %d", i);
		}
	if (r->shape == TIMEVAL)
		for (; n >= 8; n -= 8, v += 8) {
			long l;
			memcpy(&l, v, 8);
			o += sprintf(o, " %ld", l);
		}
	for (i = 0; i < n && i < 256; i++)
		o += sprintf(o, " %02x", (unsigned char)v[i]);
	return out;
}

// get prints what getsockopt says; room is the length that is claimed.
static void get(const char *label, int room)
{
	char v[512];
	memset(v, 0xee, sizeof v);
	socklen_t n = room;
	if (getsockopt(fd, r->level, r->number, v, &n) < 0)
		say("%s: %s", label, errname(errno));
	else
		say("%s: %d bytes%s", label, (int)n, value(v, n > sizeof v ? sizeof v : n));
}

static void set(const char *label, const void *v, int n)
{
	int rc = setsockopt(fd, r->level, r->number, v, n);
	if (rc < 0)
		say("%s: %s", label, errname(errno));
	else {
		say("%s: ok", label);
		if (r->access & GET && n >= 0)
			get("  then", 256);
	}
}

static void ints(void)
{
	static const int values[] = { 0, 1, -1, 2, 4, 5, 7, 63, 64, 100, 255, 256, 1000, 65535, 65536, 1 << 24, INT32_MAX, INT32_MIN };
	for (int i = 0; i < LEN(values); i++) {
		char label[40];
		sprintf(label, "set %d", values[i]);
		set(label, &values[i], 4);
	}
}

static void structs(void)
{
	static const struct linger l[] = { { 0, 0 }, { 1, 0 }, { 1, 5 }, { -1, 3 }, { 0, 9 }, { 1, INT32_MAX } };
	static const struct timeval t[] = { { 0, 0 }, { 1, 500000 }, { 0, 1 }, { 0, 999999 }, { 0, 1000000 }, { 0, -1 },
		{ -1, 0 }, { -1, 5 }, { 1L << 40, 0 }, { INT64_MAX, 0 } };
	char label[80];
	for (int i = 0; r->shape == LINGER && i < LEN(l); i++) {
		sprintf(label, "set %d %d", l[i].l_onoff, l[i].l_linger);
		set(label, &l[i], sizeof l[i]);
	}
	for (int i = 0; r->shape == TIMEVAL && i < LEN(t); i++) {
		sprintf(label, "set %ld %ld", (long)t[i].tv_sec, (long)t[i].tv_usec);
		set(label, &t[i], sizeof t[i]);
	}
}

static void texts(void)
{
	static const char *const words[] = { "lo", "reno", "nonsense", "averyveryverylongnameindeed" };
	for (int i = 0; i < LEN(words); i++) {
		char label[80];
		sprintf(label, "set \"%s\"", words[i]);
		set(label, words[i], strlen(words[i]));
		sprintf(label, "set \"%s\" with NUL", words[i]);
		set(label, words[i], strlen(words[i]) + 1);
	}
	set("set \"\"", "", 1);
}

// Groups on the loopback interface, which has the same number everywhere.
static void groups(void)
{
	struct ip_mreqn m4 = { { htonl(0xef010203) }, { htonl(INADDR_LOOPBACK) }, 1 };
	struct ipv6_mreq m6 = { { { { 0xff, 1, [15] = 77 } } }, 1 };
	struct group_req g = { .gr_interface = 1 };
	const void *v = &m4;
	int n = sizeof m4;
	if (r->level == IPPROTO_IPV6)
		v = &m6, n = sizeof m6;
	if (!strncmp(strchr(r->name, '.') + 1, "MCAST_", 6)) {
		struct addr a = mk(r->level == IPPROTO_IPV6 ? "ff01::77" : "239.1.2.3", 0);
		memcpy(&g.gr_group, &a.ss, a.len);
		v = &g, n = sizeof g;
	}
	set("set", v, n);
	set("set again", v, n);
	for (int len = 0; len < n; len += 4) {
		char label[40];
		sprintf(label, "set %d bytes", len);
		set(label, v, len);
	}
	char *none = calloc(1, n);
	set("set no group", none, n);
	free(none);
}

static void lengths(void)
{
	char v[256] = { 1 };
	char label[40];
	for (int i = 0; i < LEN(sizes); i++) {
		sprintf(label, "set %d bytes", sizes[i]);
		set(label, v, sizes[i]);
	}
	set("set 256 bytes", v, sizeof v);
}

// make gives fd a new socket of a kind.
static void make(const struct kind *k)
{
	static int other = -1; // what they are connected to
	static struct addr a;
	fd = need("socket", socket(k->family, k->type, k->proto));
	if (k->state == LISTENING)
		need("listen", listen(fd, 1));
	if (k->state != CONNECTED)
		return;
	if (other < 0) {
		a = mk(k->family == AF_INET6 ? "::1" : "127.0.0.1", 4321);
		if (k->type == SOCK_STREAM) {
			other = need("socket", socket(k->family, k->type, 0));
			need("bind", bind(other, &a.sa, a.len));
			need("listen", listen(other, 5));
		}
	}
	need("connect", connect(fd, &a.sa, a.len));
	if (k->type == SOCK_STREAM)
		close(need("accept", accept(other, NULL, NULL)));
}

static void walk(const struct kind *k)
{
	make(k);
	get("get", 256);
	for (int i = 0; i < LEN(sizes); i++) {
		char label[40];
		sprintf(label, "get into %d bytes", sizes[i]);
		get(label, sizes[i]);
	}
	get("get, length -1", -1);
	socklen_t n = 256;
	ok("get, no value", getsockopt(fd, r->level, r->number, bad, &n));
	ok("get, no length", getsockopt(fd, r->level, r->number, &(char[256]){ 0 }, (socklen_t *)bad));
	switch (r->shape) {
	case INT:
	case VARYING:
		ints();
		break;
	case LINGER:
	case TIMEVAL:
		structs();
		break;
	case TEXT:
		texts();
		break;
	case MREQ:
		groups();
		break;
	}
	lengths();
	set("set, length -1", &(int){ 1 }, -1);
	set("set, no value", bad, 256);
	close(fd);
}

int main(int argc, char **argv)
{
	deadline(30);
	if (argc != 2)
		return 9;
	for (const struct kind *k = kinds; k < kinds + LEN(kinds); k++) {
		if (strcmp(k->name, argv[1]))
			continue;
		for (r = rows; r < rows + LEN(rows); r++) {
			if (!(r->kinds & k->bit))
				continue;
			begin("sockopt/%s.%s", k->name, r->name);
			walk(k);
		}
		return 0;
	}
	return 9;
}
