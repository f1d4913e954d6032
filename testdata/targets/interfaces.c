// SPDX-License-Identifier: Apache-2.0

// The interfaces and addresses that the C library tells of: getifaddrs(3),
// if_nameindex(3) and the ioctls of netdevice(7).
#include "lab.h"
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>

int main(void)
{
	deadline(20);
	struct ifaddrs *all_, *a;
	if (getifaddrs(&all_)) {
		say("getifaddrs: %s", errname(errno));
		return 1;
	}
	for (a = all_; a; a = a->ifa_next) {
		char host[NI_MAXHOST];
		int family = a->ifa_addr ? a->ifa_addr->sa_family : AF_UNSPEC;
		if (family != AF_INET && family != AF_INET6)
			continue;
		if (getnameinfo(a->ifa_addr, family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6),
				host, sizeof host, NULL, 0, NI_NUMERICHOST))
			continue;
		say("getifaddrs %s %s %s", a->ifa_name, host, a->ifa_flags & IFF_UP ? "up" : "down");
	}
	freeifaddrs(all_);
	struct if_nameindex *names = if_nameindex(), *n;
	for (n = names; n && n->if_index; n++)
		say("if_nameindex %s", n->if_name);
	if_freenameindex(names);

	struct ifreq reqs[64];
	struct ifconf conf = { .ifc_len = sizeof reqs, .ifc_req = reqs };
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	if (ioctl(s, SIOCGIFCONF, &conf) == 0)
		for (int i = 0; i < conf.ifc_len / (int)sizeof reqs[0]; i++)
			say("SIOCGIFCONF %s %s", reqs[i].ifr_name, inet_ntoa(((struct sockaddr_in *)&reqs[i].ifr_addr)->sin_addr));
	return 0;
}
