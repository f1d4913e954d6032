// SPDX-License-Identifier: Apache-2.0

// Programs of the table that look at the network: dig, ping, ip, ss.

package viewtest_test

var diagnostics = []program{
	{name: "dig", version: words("dig -v"), steps: []step{
		{name: "client", did: "client: A, AAAA, CNAME, TXT over UDP, after truncation over TCP, NXDOMAIN, by a server's address", do: same("dig")},
	}},
	{name: "ping", version: words("ping -V"), steps: []step{
		{name: "client", did: "client: IPv4, IPv6, by name, no answer", do: same("ping")},
	}},
	{name: "ip, ss", version: words("ip -V"), steps: []step{
		{name: "show", did: "links, addresses and routes of the view and none of the host's", do: whole("TestIntegrationInterfaces", TestIntegrationInterfaces)},
		{name: "change", did: "MTU, down and up, addresses, routes, counters, sockets with `ss`; the host's network stays as it is", do: whole("TestIntegrationChanges", TestIntegrationChanges)},
	}},
}

var browsers = []program{}
