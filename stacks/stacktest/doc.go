// SPDX-License-Identifier: Apache-2.0

// Package stacktest holds the conformance cases of package stacks. Each case
// runs against the kernel first ([Kernel], real sockets on the loopback
// interface) and then against every userspace stack: what Linux does is what the
// contract means.
//
// A test of a stack makes a [Pair], two stacks that reach each other, and calls
// [Run]. Cases only use what the contract offers, never look at time but to give
// up, and find their own ports, so that they can run beside each other.
package stacktest
