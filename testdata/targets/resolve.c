// SPDX-License-Identifier: Apache-2.0

// Names by res_query(3), below getaddrinfo and without nsswitch.conf or a search
// list: each argument's A and AAAA records, or the h_errno of the failure.
#include "lab.h"
#include <arpa/nameser.h>
#include <netdb.h>
#include <resolv.h>

static const char *h_name(int h)
{
	switch (h) {
	case HOST_NOT_FOUND: return "HOST_NOT_FOUND";
	case TRY_AGAIN: return "TRY_AGAIN";
	case NO_RECOVERY: return "NO_RECOVERY";
	case NO_DATA: return "NO_DATA";
	}
	return "unknown";
}

static int ask(const char *name, int type, int family, size_t size)
{
	unsigned char msg[65536];
	int n = res_query(name, ns_c_in, type, msg, sizeof msg);
	if (n < 0) {
		say("%s: %s", name, h_name(h_errno));
		return 1;
	}
	ns_msg m;
	if (ns_initparse(msg, n, &m) < 0) {
		say("%s: no DNS message", name);
		return 1;
	}
	for (int i = 0; i < ns_msg_count(m, ns_s_an); i++) {
		ns_rr rr;
		char text[64];
		if (ns_parserr(&m, ns_s_an, i, &rr) < 0 || (int)ns_rr_type(rr) != type)
			continue;
		if (size && ns_rr_rdlen(rr) == size)
			say("%s: %s", name, inet_ntop(family, ns_rr_rdata(rr), text, sizeof text));
		else
			say("%s: %d bytes", name, ns_rr_rdlen(rr));
	}
	return 0;
}

int main(int argc, char **argv)
{
	deadline(40);
	int bad = 0;
	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "big.", 4)) { // more than UDP carries
			bad |= ask(argv[i], ns_t_txt, 0, 0);
			continue;
		}
		bad |= ask(argv[i], ns_t_a, AF_INET, 4);
		bad |= ask(argv[i], ns_t_aaaa, AF_INET6, 16);
	}
	return bad;
}
