// SPDX-License-Identifier: Apache-2.0

// Datagrams that are put together for a program that asks for it: UDP_GRO.

package netmod

import (
	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/stacks"
)

// groMax is how many datagrams are put together at most (linux/udp.h:
// UDP_GRO_CNT_MAX), and maxUDP what one message may hold, in bytes.
const (
	groMax = 64
	maxUDP = 65507
)

// gather puts what the stack has of one sender into one message at the head of the
// inbox: datagrams of equal size, and one shorter one behind them
// (net/ipv4/udp_offload.c:udp_gro_receive_segment). first and m are the first of
// them, which is in no queue any more. The mutex is held.
func (s *packet) gather(first []byte, m stacks.Message) {
	d := datagram{append(make([]byte, 0, 16*len(first)), first...), m}
	buf := getBuffer()
	defer putBuffer(buf)
	n := 1
	var behind []datagram
	for n < groMax && len(first) > 0 {
		_, size, next, err := s.pkt.RecvMsg(*buf, false)
		if err != nil {
			if e := intercept.Errno(err); e != unix.EAGAIN {
				s.soErr, s.quiet, s.unshown = e, false, true
			}
			break
		}
		p := (*buf)[:min(size, len(*buf))]
		if !sameFlow(m, next) || len(p) > len(first) || len(p) == 0 || len(d.data)+len(p) > maxUDP {
			behind = append(behind, datagram{append([]byte(nil), p...), next})
			break
		}
		d.data = append(d.data, p...)
		n++
		if len(p) < len(first) {
			break
		}
	}
	if n > 1 {
		d.msg.Segment = len(first)
	}
	s.inbox = append(append([]datagram{d}, behind...), s.inbox...)
}

// sameFlow tells whether datagrams differ in nothing that a program is told.
func sameFlow(a, b stacks.Message) bool {
	a.Stamp, b.Stamp = 0, 0
	a.Dropped, b.Dropped = 0, 0
	return a == b
}
