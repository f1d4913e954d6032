// SPDX-License-Identifier: Apache-2.0

// Package tcpseg knows TCP segments on their way between a link and gVisor's stack, and
// has gVisor hear what it throws away; the view's stack and the NAT's use it.
//
// It holds no packet and has no goroutine.
package tcpseg
