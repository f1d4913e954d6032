// SPDX-License-Identifier: Apache-2.0

// Broadcast: who may send it, who hears it, sockets bound to it.
#include "dgram.h"

int main(void)
{
	deadline(30);
	const char *lo = "127.255.255.255", *net = "10.77.0.255", *every = "255.255.255.255";
	begin("broadcast/refused");
	int r = bound("0.0.0.0", 0), s = fresh("0.0.0.0"), port = port_at(r);
	num("lo's", give(s, "x", lo, port));
	num("the net's", give(s, "x", net, port));
	num("all", give(s, "x", every, port));
	ok("connect lo's", connect_to(s, lo, port));
	ok("connect the net's", connect_to(s, net, port));
	ok("connect all", connect_to(s, every, port));

	begin("broadcast/lo");
	ok("SO_BROADCAST", on(s, SOL_SOCKET, SO_BROADCAST, 1));
	num("send", give(s, "one", lo, port));
	take("bound to any", r);

	begin("broadcast/net");
	num("send", give(s, "two", net, port));
	take("bound to any", r);

	begin("broadcast/all");
	num("send", give(s, "three", every, port));
	take("bound to any", r);

	begin("broadcast/to-all-sockets");
	int a = shared("0.0.0.0", 7010), b = shared("0.0.0.0", 7010), c = shared("127.0.0.1", 7010), d = shared(lo, 7010);
	num("send", give(s, "four", lo, 7010));
	take("one", a);
	take("two", b);
	quiet("bound to an address", c);
	take("bound to the broadcast", d);
	num("unicast", give(s, "five", "127.0.0.1", 7010));
	take("the address's own", c);
	quiet("bound to the broadcast", d);
	names("bound to the broadcast", d);

	begin("broadcast/connected");
	ok("connect", connect_to(s, lo, port));
	names("connected", s);
	num("send", send(s, "six", 3, 0));
	take("received", r);
	ok("SO_BROADCAST off", on(s, SOL_SOCKET, SO_BROADCAST, 0));
	num("send", send(s, "seven", 5, 0));
	close(a);
	close(b);
	close(c);
	close(d);
	close(s);

	begin("broadcast/from-bound-address");
	close(r);
	r = bound("0.0.0.0", 0);
	port = port_at(r);
	s = bound(env("LAB_SELF4"), 0);
	ok("SO_BROADCAST", on(s, SOL_SOCKET, SO_BROADCAST, 1));
	num("send", give(s, "eight", net, port));
	take("received", r);
	close(s);

	begin("broadcast/bind");
	a = fresh("0.0.0.0");
	ok("bind to the net's", bind_to(a, net, 7011));
	names("bound", a);
	b = fresh("0.0.0.0");
	ok("bind to all", bind_to(b, every, 7011));
	names("bound", b);
	s = fresh("0.0.0.0");
	ok("SO_BROADCAST", on(s, SOL_SOCKET, SO_BROADCAST, 1));
	num("send to the net's", give(s, "nine", net, 7011));
	take("bound to the net's", a);
	num("send from a broadcast address", give(a, "x", "127.0.0.1", port));
	int t = need("socket", socket(AF_INET, SOCK_STREAM, 0));
	ok("a stream there", bind_to(t, net, 7012));
	ok("listen", listen(t, 1));
	close(a);
	close(b);
	close(s);
	close(t);
	close(r);
	return 0;
}
