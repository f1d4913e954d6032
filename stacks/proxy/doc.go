// SPDX-License-Identifier: Apache-2.0

// Package proxy carries a view's connections through a proxy of the outside world:
// SOCKS5, HTTP CONNECT, or the channels of an SSH connection. It knows connections
// and datagrams and no packets; package nat ends those of the view's stack and hands
// over what is in them.
//
//	program -- stack -- link (nat) -- Upstream -- proxy -- destination
//	   \                                 |
//	    names -- stub (dns) -------- Names
//
// # Names
//
// The proxy resolves them. The view's DNS stub asks [Names] for addresses that
// stand for a name, and a connection to one of these goes to the proxy by that name:
// no query leaves, and what only the proxy can resolve (.onion, names inside of a
// company) works. Addresses that a program has by other means go as such. What has
// a meaning on this machine only (loopback, link-local addresses, groups) is refused.
//
// The name of the proxy itself is resolved by the host's resolver, outside of the
// view: see host. Nothing else leaves but what goes to the proxy's address; with
// UDP, to the one that the proxy names.
//
// # Errors
//
// What the proxy says of a destination is a refusal: the errno of connect(2) for
// the same event (see replies, statusErrno, channelError). What is wrong with the
// proxy is an [UnusableError], and to a program an unreachable network: never
// the error that the proxy's own address gave, which would say something of the
// destination. There is no other way to go, so nothing goes another way.
//
// # Streams
//
// SOCKS5 and HTTP: a stream is the TCP connection to the proxy once the dialogue is
// over. Of the dialogue the last byte is read, and no byte behind it, so that the
// descriptor can be handed over. SSH: a stream is a channel, bridged to an AF_UNIX
// socket (see bridged).
//
// # Datagrams
//
// SOCKS5 only: an association stands for a UDP port of the view. One that has sent
// to a name is for that name alone, since the answers come from addresses which
// only the proxy can relate to it. Fragments are refused. Elsewhere there are no
// datagrams, and nothing but TCP and UDP anywhere.
//
// # Secrets
//
// A password is a [Secret], which prints as stars. It is sent to a SOCKS5 proxy only
// if that wants one, and to an HTTP proxy with every request; both see it in clear.
// SSH host keys are checked against known_hosts, and nothing is ever added there.
//
// # Goroutines and locks
//
// [Upstream.Close] waits for those that were started by Upstream.start: one that
// makes and keeps the SSH connection, the two of each bridged stream, and one for
// each channel that is being opened. An association has one, for which its Close
// waits. Lock order: sshTunnel.mu, then Upstream.mu; all others are leaves, and none
// is held while anything is waited for.
package proxy
