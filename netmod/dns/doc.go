// SPDX-License-Identifier: Apache-2.0

// Package dns is the resolver that a program in a view talks to: a forwarding
// stub that answers on the addresses which /etc/resolv.conf names and asks the
// servers of the view's network, through that network's own stack.
//
// # How a query travels
//
// [Stub.Answer] takes one message as it came from the program and returns the
// message to send back. In between:
//
//  1. What is no query is dropped (a response, less than a header); what is
//     malformed gets FORMERR, another opcode than QUERY gets NOTIMP.
//  2. Local names are answered here: the static names of [Config.Hosts],
//     localhost and everything below it (RFC 6761 §6.3), the reverse names of
//     loopback addresses, resolver.arpa (no data: RFC 9462 §6.4 asks forwarders
//     not to pass it on) and use-application-dns.net (NXDOMAIN: the canary by
//     which Firefox learns that names here are a matter of the network, so that
//     it does not by-pass it with DNS over HTTPS).
//     With [Config.Names] so are all names: addresses that stand for them.
//  3. Everything else is forwarded byte for byte, but for the message id: any
//     type and class, EDNS options, DNSSEC bits and the case of letters stay what
//     they were. Each attempt dials anew (a fresh source port) and has a random
//     id; a reply counts only if id and question are those that were sent. The
//     next server is asked at once after SERVFAIL, NOTIMP, REFUSED or a network
//     error, and in addition after a share of the time without any answer; the
//     first good reply wins. A query that came over TCP is asked over TCP.
//  4. A dotless name that does not exist as asked is tried below each of
//     [Config.Search]; see "Search domains".
//  5. What does not fit the size that the client advertised (512 bytes without
//     EDNS) is cut to an empty answer with TC set, and the client comes by TCP.
//
// # Several networks
//
// A [Split] stands in front of the stubs of several networks: each is asked for the
// names that are its own (the domain rules of --route, its search domains, the reverse
// names of its addresses), the first one for all others, and dotless names that it
// does not know in the search domains of the others. What a network is asked it is
// asked through its own stack, and if it does not answer nobody else is asked. The
// Split tells of every address in an answer before the program sees it, so that domain
// rules hold for the connections that follow.
//
// # DNS over HTTPS
//
// With [Config.HTTPS] a query is a POST to that URL (RFC 8484), over TLS through the
// view's stack, and the connection is kept for the next one. The host's address is the
// URL's own or comes from the network's servers, never from this machine's resolver.
// The certificate must be valid for the host; redirects are not followed.
//
// # Search domains
//
// A program expands names by the search list of its own resolv.conf, which
// knows nothing of the tunnel's domains. So the stub tries those, and says what
// it did:
//
//	wiki.               CNAME  wiki.corp.example.
//	wiki.corp.example.  A      10.0.0.7
//
// The first domain in which the name exists wins, also without data of the type
// asked for, so that A and AAAA agree. Where the dotless name does exist but has
// no data (a top-level domain such as "dev"), only an answer with records
// replaces the empty one. Queries of zone and DNSSEC types, and those with the
// CD bit (the client validates, and a made-up CNAME would be bogus to it), are
// never expanded. A search answer loses its AD bit.
//
// # Servers that change
//
// Where servers and search domains are learned (DHCP, router advertisements) they come,
// change and go while the stub runs: [Stub.SetUpstream]. A query is answered by those
// that were known when it arrived.
//
// # Time
//
// A query is answered within [Config.Timeout], by SERVFAIL if nothing better is
// there: the default of 4.5 s is just below the 5 s after which glibc asks again
// (resolv.conf(5), options timeout), so that programs get an answer and not a
// silence.
//
// # Goroutines
//
// A [Stub] has no goroutines of its own: Answer starts one for each attempt and waits
// for all of them before it returns. With DNS over HTTPS net/http keeps connections,
// which [Stub.Close] ends. A [Server], which answers where programs have the kernel's
// sockets, has one for each socket, connection and query; its Close waits for them.
package dns
