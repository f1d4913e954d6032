// SPDX-License-Identifier: Apache-2.0

// Package impair makes a link slower, farther and worse than it is, in both
// directions, so that a program can be tried on the network that its users have.
//
//	stack --Write--> out: loss, rate, delay --goroutine--> Link.Write
//	stack <--Read--- in:  loss, rate, delay <--goroutine-- Link.Read
//
// # What is impaired
//
// Packets as they would be on a wire: super-segments are cut before they are lost,
// counted or spread, unless there is only a delay. A packet is lost with the
// probability of [Config].Loss, then waits for its turn at the rate (a token bucket
// that holds a few packets), then travels for the delay. Packets keep their order, but
// with jitter: each then has a delay of its own, and overtakes others, as with tc-netem(8).
// A round trip takes twice the delay.
//
// Before the rate there is a queue of limited length. Outbound, a full one makes Write
// wait, as the queue of a network card does; inbound it drops packets, as a router on
// the other side of a slow line does.
//
// # Life
//
// A link has two goroutines, from New to Close. Close lets what is under way outbound
// arrive first, for at most a second. Every lock is a leaf.
package impair
