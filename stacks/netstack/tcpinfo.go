// SPDX-License-Identifier: Apache-2.0

// TCP_INFO.

package netstack

import (
	"bytes"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// Values of struct tcp_info that are constants here (linux/tcp.h, net/tcp.h).
const (
	infoTimestamps = 1 // TCPI_OPT_TIMESTAMPS
	infoSACK       = 2 // TCPI_OPT_SACK
	infoWScale     = 4 // TCPI_OPT_WSCALE

	infoATO        = 40_000 // TCP_ATO_MIN, microseconds
	infoReordering = 3      // net.ipv4.tcp_reordering
)

// tcpInfo fills struct tcp_info with what gVisor knows and what is counted here;
// the rest is 0.
func (s *stream) tcpInfo() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	ep := s.endpoint()
	var g tcpip.TCPInfoOption
	if err := ep.GetSockOpt(&g); err != nil {
		g = tcpip.TCPInfoOption{}
	}
	mss := uint32(s.mss(ep))
	info := unix.TCPInfo{
		State:        uint8(g.State),
		Rto:          uint32(g.RTO.Microseconds()),
		Rtt:          uint32(g.RTT.Microseconds()),
		Rttvar:       uint32(g.RTTVar.Microseconds()),
		Snd_cwnd:     g.SndCwnd,
		Snd_mss:      mss,
		Rcv_mss:      mss,
		Advmss:       mss,
		Snd_ssthresh: g.SndSsthresh,
		Ato:          infoATO,
		Reordering:   infoReordering,
	}
	if info.State == 0 {
		info.State = uint8(tcp.StateClose)
	}
	if _, mtu, ok := s.pathMTU(nil); ok {
		info.Pmtu = uint32(mtu)
	}
	queued, err := ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption)
	if err != nil {
		queued = 0
	}
	info.Rcv_space = uint32(max(0, int(ep.SocketOptions().GetReceiveBufferSize())-queued))
	if tcp.EndpointState(g.State) == tcp.StateEstablished {
		info.Options = infoTimestamps | infoSACK | infoWScale
	}
	if st, ok := ep.Stats().(*tcp.Stats); ok {
		info.Segs_in = uint32(st.SegmentsReceived.Value())
		info.Segs_out = uint32(st.SegmentsSent.Value())
		info.Total_retrans = uint32(st.SendErrors.Retransmits.Value())
		info.Total_rto = uint16(st.SendErrors.Timeouts.Value())
	}
	if q := s.counted; q != nil {
		unacked := max(0, q.bytes.Load())
		info.Bytes_sent = uint64(q.sent.Load())
		info.Bytes_acked = uint64(max(0, q.sent.Load()-unacked))
		info.Bytes_received = uint64(q.taken.Load() + int64(queued))
		since := time.Duration(s.st.now() - q.heard.Load())
		info.Last_data_recv = uint32(since.Milliseconds())
		info.Last_ack_recv = info.Last_data_recv
		info.Last_data_sent = info.Last_data_recv
		q.peek.fill(&info)
	}
	return bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&info)), unsafe.Sizeof(info)))
}

// A peek is what the last segment told that gVisor's option does not.
type peek struct {
	scales   atomic.Uint32 // window scales: the peer's, and 8 bits up our own
	segments atomic.Uint64 // unacknowledged, and 32 bits up those of them that were sacked
	windows  atomic.Uint64 // bytes: the peer's, and 32 bits up our own
	expected atomic.Uint64 // the next sequence number, with bit 32 set once it is known
	rto      atomic.Int64  // ns
}

// store picks it out of what gVisor's probe shows.
func (p *peek) store(s *tcp.TCPEndpointState) {
	p.scales.Store(uint32(s.Sender.SndWndScale) | uint32(s.Receiver.RcvWndScale)<<8)
	p.segments.Store(uint64(max(0, s.Sender.Outstanding)) | uint64(max(0, s.Sender.SackedOut))<<32)
	p.windows.Store(uint64(s.Sender.SndWnd) | uint64(s.Receiver.RcvNxt.Size(s.Receiver.RcvAcc))<<32)
	p.expected.Store(uint64(s.Receiver.RcvNxt) | 1<<32)
	p.rto.Store(int64(s.Sender.RTO))
}

// acceptable tells whether a segment with this sequence number may be one of the
// connection: not far from what is expected next.
func (p *peek) acceptable(seq uint32) bool {
	next := p.expected.Load()
	if next == 0 {
		return true // the first one
	}
	window := int32(min(p.windows.Load()>>32, 1<<30))
	d := int32(seq - uint32(next))
	return -window <= d && d <= window
}

func (p *peek) fill(info *unix.TCPInfo) {
	// tcpi_snd_wscale is the low half of the byte behind tcpi_options, and
	// tcpi_rcv_wscale the other; package unix does not name it.
	scales := p.scales.Load()
	*(*byte)(unsafe.Add(unsafe.Pointer(&info.Options), 1)) = byte(scales&0xf | scales>>8<<4)
	info.Unacked, info.Sacked = uint32(p.segments.Load()), uint32(p.segments.Load()>>32)
	info.Snd_wnd, info.Rcv_wnd = uint32(p.windows.Load()), uint32(p.windows.Load()>>32)
}
