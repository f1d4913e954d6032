// SPDX-License-Identifier: Apache-2.0

// Names by getaddrinfo(3), as the C library does it: each argument is looked up
// and its addresses are printed in order of the name, sorted.
#include "lab.h"
#include <netdb.h>

static int by_text(const void *a, const void *b) { return strcmp(a, b); }

int main(int argc, char **argv)
{
	deadline(40);
	for (int i = 1; i < argc; i++) {
		struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG }, *res, *r;
		int e = getaddrinfo(argv[i], "80", &hints, &res);
		if (e) {
			say("%s: %s", argv[i], e == EAI_NONAME ? "EAI_NONAME" : e == EAI_AGAIN ? "EAI_AGAIN" : gai_strerror(e));
			continue;
		}
		char all_[16][64], line[1100] = "";
		int n = 0;
		for (r = res; r && n < 16; r = r->ai_next)
			getnameinfo(r->ai_addr, r->ai_addrlen, all_[n++], 64, NULL, 0, NI_NUMERICHOST);
		qsort(all_, n, 64, by_text);
		for (int k = 0; k < n; k++) {
			strcat(line, " ");
			strcat(line, all_[k]);
		}
		say("%s:%s", argv[i], line);
		freeaddrinfo(res);
	}
	return 0;
}
