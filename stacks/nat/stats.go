// SPDX-License-Identifier: Apache-2.0

// Counters of a link.

package nat

import "sync/atomic"

type counters struct {
	tcpOpened, tcpRefused, tcpReset atomic.Uint64
	tcpActive                       atomic.Int64
	tcpOut, tcpIn                   atomic.Uint64
	udpOut, udpIn                   atomic.Uint64
	echoOut, echoIn                 atomic.Uint64
	mappings                        atomic.Int64
	evicted                         atomic.Uint64
	dns                             atomic.Uint64
	icmpErrors                      atomic.Uint64
	malformed, ignored, lost        atomic.Uint64
}

// Stats are the counters of a link since Open. "Out" is towards the host.
type Stats struct {
	TCPOpened  uint64 // connections that were established
	TCPRefused uint64 // connections that the host could not make
	TCPReset   uint64 // established connections that ended in a reset
	TCPActive  int64  // connections now
	TCPOut     uint64 // bytes
	TCPIn      uint64
	UDPOut     uint64 // datagrams
	UDPIn      uint64
	EchoOut    uint64 // ICMP echo requests, and replies
	EchoIn     uint64
	Mappings   int64  // UDP ports and echo identifiers with a host socket now
	Evicted    uint64 // mappings given up for want of room
	DNS        uint64 // queries relayed by UDP
	ICMPErrors uint64 // ICMP errors sent to the view
	Malformed  uint64 // packets of the view that were no packets
	Ignored    uint64 // packets that this network does not carry, groups above all
	Lost       uint64 // datagrams that a full socket of the host did not take
	Overflow   uint64 // packets to the view that found the queue full, or closed
}

// Stats returns the counters as they are now, each on its own.
func (l *Link) Stats() Stats {
	s := &l.stats
	return Stats{
		TCPOpened: s.tcpOpened.Load(), TCPRefused: s.tcpRefused.Load(), TCPReset: s.tcpReset.Load(),
		TCPActive: s.tcpActive.Load(), TCPOut: s.tcpOut.Load(), TCPIn: s.tcpIn.Load(),
		UDPOut: s.udpOut.Load(), UDPIn: s.udpIn.Load(),
		EchoOut: s.echoOut.Load(), EchoIn: s.echoIn.Load(),
		Mappings: s.mappings.Load(), Evicted: s.evicted.Load(), DNS: s.dns.Load(),
		ICMPErrors: s.icmpErrors.Load(), Malformed: s.malformed.Load(),
		Ignored: s.ignored.Load(), Lost: s.lost.Load(), Overflow: l.out.drops(),
	}
}
