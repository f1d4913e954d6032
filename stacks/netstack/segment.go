// SPDX-License-Identifier: Apache-2.0

// Messages that are many datagrams: UDP_SEGMENT.

package netstack

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// maxSegments is how many datagrams one message may be (linux/udp.h:
// UDP_MAX_SEGMENTS).
const maxSegments = 128

// checkSegment judges a message of n bytes that is to be cut. A segment may not be
// larger than the path takes (net/ipv4/udp.c:udp_send_skb).
func (s *packetSocket) checkSegment(n, segment int, v4 bool, to *tcpip.FullAddress) error {
	limit, hdr := maxUDP6, header.IPv6MinimumSize+header.UDPMinimumSize
	if v4 {
		limit, hdr = maxUDP4, header.IPv4MinimumSize+header.UDPMinimumSize
	}
	if n > limit {
		return unix.EMSGSIZE
	}
	if one := min(n, segment) + hdr; one > s.st.minMTU() || s.st.paths.known() {
		dst, mtu, ok := s.pathMTU(to)
		if ok && s.reports.strategy.Load() < unix.IP_PMTUDISC_PROBE {
			mtu = s.st.paths.of(dst.Addr().Unmap().WithZone(""), mtu)
		}
		if ok && one > mtu {
			return unix.EMSGSIZE
		}
	}
	if n > maxSegments*segment {
		return unix.EINVAL
	}
	return nil
}

// sendSegments sends a message as datagrams. If the first one is sent they all are:
// the send buffer takes a message whole. What a full link drops is lost, as it is
// by a queueing discipline.
func (s *packetSocket) sendSegments(p []byte, segment int, send func([]byte) tcpip.Error) tcpip.Error {
	err := send(p[:segment])
	if noted(err) {
		err = send(p[:segment])
	}
	if err != nil {
		return err
	}
	s.mu.Lock() // nobody else changes the size of the buffer
	defer s.mu.Unlock()
	so := s.endpoint().SocketOptions()
	size := so.GetSendBufferSize()
	so.SetSendBufferSize(size+1<<20, false /* notify */) // above all that a message can count
	defer so.SetSendBufferSize(size, false)
	for p = p[segment:]; len(p) > 0; p = p[min(segment, len(p)):] {
		one := p[:min(segment, len(p))]
		if noted(send(one)) {
			send(one)
		}
	}
	return nil
}
