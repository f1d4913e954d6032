// SPDX-License-Identifier: Apache-2.0

// Two messages to the socket that it is connected to, and two of which the second has an
// address: DIR/open and DIR/secret.
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv)
{
	struct sockaddr_un open = { AF_UNIX }, secret = { AF_UNIX };
	struct iovec v = { "x", 1 };
	struct mmsghdr m[2] = { { { .msg_iov = &v, .msg_iovlen = 1 } }, { { .msg_iov = &v, .msg_iovlen = 1 } } };
	int s = socket(AF_UNIX, SOCK_DGRAM, 0);
	snprintf(open.sun_path, sizeof open.sun_path, "%s/open/sock", argv[1]);
	snprintf(secret.sun_path, sizeof secret.sun_path, "%s/secret/sock", argv[1]);
	printf("connect %d\n", connect(s, (void *)&open, sizeof open));
	printf("sent %d\n", sendmmsg(s, m, 2, 0));
	m[1].msg_hdr.msg_name = &secret;
	m[1].msg_hdr.msg_namelen = sizeof secret;
	errno = 0;
	int n = sendmmsg(s, m, 2, 0);
	printf("sent %d %s\n", n, strerrorname_np(errno));
	return 0;
}
