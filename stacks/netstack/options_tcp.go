// SPDX-License-Identifier: Apache-2.0

// The options of level IPPROTO_TCP, tcp(7).

package netstack

import (
	"bytes"
	"math"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

const ltcp = unix.IPPROTO_TCP

// Bounds of include/net/tcp.h.
const (
	maxKeepTime = 32767 // seconds
	maxKeepCnt  = 127
	maxSynCnt   = 127
	minMSS      = 88
	maxMSS      = 32767
	caNameMax   = 16
	tcpIsMPTCP  = 43 // TCP_IS_MPTCP of linux/tcp.h
)

var solTCP = map[optKey]option{
	{ltcp, unix.TCP_NODELAY}: flag("TCP_NODELAY",
		func(o *tcpip.SocketOptions) bool { return !o.GetDelayOption() },
		func(o *tcpip.SocketOptions, v bool) { o.SetDelayOption(!v) }),
	{ltcp, unix.TCP_CORK}:     keptBool(ltcp, unix.TCP_CORK, "TCP_CORK", 0, ""), // see stream.SetOption
	{ltcp, unix.TCP_QUICKACK}: keptBool(ltcp, unix.TCP_QUICKACK, "TCP_QUICKACK", 1, ""),

	{ltcp, unix.TCP_KEEPIDLE}: duration("TCP_KEEPIDLE", time.Second, 1, maxKeepTime,
		func(ep tcpip.Endpoint, d time.Duration) tcpip.Error {
			o := tcpip.KeepaliveIdleOption(d)
			return ep.SetSockOpt(&o)
		},
		func(ep tcpip.Endpoint) (time.Duration, tcpip.Error) {
			var o tcpip.KeepaliveIdleOption
			err := ep.GetSockOpt(&o)
			return time.Duration(o), err
		}),
	{ltcp, unix.TCP_KEEPINTVL}: duration("TCP_KEEPINTVL", time.Second, 1, maxKeepTime,
		func(ep tcpip.Endpoint, d time.Duration) tcpip.Error {
			o := tcpip.KeepaliveIntervalOption(d)
			return ep.SetSockOpt(&o)
		},
		func(ep tcpip.Endpoint) (time.Duration, tcpip.Error) {
			var o tcpip.KeepaliveIntervalOption
			err := ep.GetSockOpt(&o)
			return time.Duration(o), err
		}),
	{ltcp, unix.TCP_KEEPCNT}: gvInt("TCP_KEEPCNT", tcpip.KeepaliveCountOption, intOf, within(1, maxKeepCnt)),
	{ltcp, unix.TCP_USER_TIMEOUT}: duration("TCP_USER_TIMEOUT", time.Millisecond, 0, math.MaxInt32,
		func(ep tcpip.Endpoint, d time.Duration) tcpip.Error {
			o := tcpip.TCPUserTimeoutOption(d)
			return ep.SetSockOpt(&o)
		},
		func(ep tcpip.Endpoint) (time.Duration, tcpip.Error) {
			var o tcpip.TCPUserTimeoutOption
			err := ep.GetSockOpt(&o)
			return time.Duration(o), err
		}),
	{ltcp, unix.TCP_SYNCNT}: gvInt("TCP_SYNCNT", tcpip.TCPSynCountOption, intOf, within(1, maxSynCnt)),
	{ltcp, unix.TCP_LINGER2}: {name: "TCP_LINGER2", set: func(_ *sock, ep tcpip.Endpoint, v []byte) error {
		n, err := intOf(v)
		if err != nil {
			return err
		}
		o := tcpip.TCPLingerTimeoutOption(time.Duration(n) * time.Second)
		return optErrno(ep.SetSockOpt(&o))
	}, get: func(_ *sock, ep tcpip.Endpoint) ([]byte, error) {
		var o tcpip.TCPLingerTimeoutOption
		err := ep.GetSockOpt(&o)
		if o < 0 {
			return bytesOf(-1), optErrno(err)
		}
		return bytesOf(int(time.Duration(o) / time.Second)), optErrno(err)
	}},
	{ltcp, unix.TCP_DEFER_ACCEPT}: {name: "TCP_DEFER_ACCEPT", set: func(s *sock, ep tcpip.Endpoint, v []byte) error {
		n, err := intOf(v)
		if err != nil {
			return err
		}
		n = deferTime(n)
		s.setVal(optKey{ltcp, unix.TCP_DEFER_ACCEPT}, n)
		o := tcpip.TCPDeferAcceptOption(time.Duration(n) * time.Second)
		return optErrno(ep.SetSockOpt(&o))
	}, get: func(s *sock, _ tcpip.Endpoint) ([]byte, error) {
		return bytesOf(s.val(optKey{ltcp, unix.TCP_DEFER_ACCEPT}, 0)), nil
	}},
	{ltcp, unix.TCP_WINDOW_CLAMP}: {name: "TCP_WINDOW_CLAMP", set: setWindowClamp, get: func(s *sock, _ tcpip.Endpoint) ([]byte, error) {
		return bytesOf(s.val(optKey{ltcp, unix.TCP_WINDOW_CLAMP}, 0)), nil
	}},
	{ltcp, unix.TCP_MAXSEG}: {name: "TCP_MAXSEG", set: func(s *sock, ep tcpip.Endpoint, v []byte) error {
		n, err := intOf(v)
		switch {
		case err != nil:
			return err
		case n == 0:
			return nil
		case n < minMSS || n > maxMSS:
			return unix.EINVAL
		case !unconnected(ep) && tcp.EndpointState(ep.State()) != tcp.StateListen:
			return nil // the connection has its own
		}
		s.setVal(optKey{ltcp, unix.TCP_MAXSEG}, n)
		return optErrno(ep.SetSockOptInt(tcpip.MaxSegOption, n))
	}, get: func(s *sock, ep tcpip.Endpoint) ([]byte, error) { return bytesOf(s.mss(ep)), nil }},

	{ltcp, unix.TCP_CONGESTION}: {name: "TCP_CONGESTION", set: func(_ *sock, ep tcpip.Endpoint, v []byte) error {
		if len(v) == 0 {
			return unix.EINVAL
		}
		name, _, _ := bytes.Cut(v, []byte{0})
		if len(name) == 0 {
			return unix.ENOENT // gVisor takes it for the default
		}
		o := tcpip.CongestionControlOption(name[:min(len(name), caNameMax-1)])
		return optErrno(ep.SetSockOpt(&o))
	}, get: func(_ *sock, ep tcpip.Endpoint) ([]byte, error) {
		var o tcpip.CongestionControlOption
		if err := ep.GetSockOpt(&o); err != nil {
			return nil, errno(err)
		}
		v := make([]byte, caNameMax)
		copy(v, o)
		return v, nil
	}},
	{ltcp, unix.TCP_INFO}: {name: "TCP_INFO"}, // see stream.Option
	{ltcp, unix.TCP_TIMESTAMP}: {name: "TCP_TIMESTAMP", set: refused("TCP_TIMESTAMP", unix.EPERM, false).set,
		get: func(s *sock, _ tcpip.Endpoint) ([]byte, error) {
			return bytesOf(int(uint32(time.Now().UnixMilli()))), nil
		}},

	{ltcp, unix.TCP_NOTSENT_LOWAT}:        kept(ltcp, unix.TCP_NOTSENT_LOWAT, "TCP_NOTSENT_LOWAT", 0, math.MinInt32, math.MaxInt32, intOf, ""),
	{ltcp, unix.TCP_THIN_LINEAR_TIMEOUTS}: kept(ltcp, unix.TCP_THIN_LINEAR_TIMEOUTS, "TCP_THIN_LINEAR_TIMEOUTS", 0, 0, 1, intOf, ""),
	{ltcp, unix.TCP_THIN_DUPACK}: {name: "TCP_THIN_DUPACK", set: func(_ *sock, _ tcpip.Endpoint, v []byte) error {
		n, err := intOf(v)
		if err == nil && n != 0 && n != 1 {
			err = unix.EINVAL
		}
		return err // Linux forgets it
	}, get: func(*sock, tcpip.Endpoint) ([]byte, error) { return bytesOf(0), nil }},
	{ltcp, tcpIsMPTCP}: constant("TCP_IS_MPTCP", func(*sock) int { return 0 }),
	// Reno and cubic tell nothing.
	{ltcp, unix.TCP_CC_INFO}: {name: "TCP_CC_INFO", get: func(*sock, tcpip.Endpoint) ([]byte, error) { return nil, nil }},

	// Programs ask whether they may and go on without.
	{ltcp, unix.TCP_ULP}: {name: "TCP_ULP", set: func(_ *sock, _ tcpip.Endpoint, v []byte) error {
		if len(v) == 0 {
			return unix.EINVAL
		}
		return unix.ENOENT // no such protocol is loaded
	}, get: func(*sock, tcpip.Endpoint) ([]byte, error) { return nil, nil }},
	{ltcp, unix.TCP_REPAIR}:        refused("TCP_REPAIR", unix.EPERM, true),
	{ltcp, unix.TCP_REPAIR_QUEUE}:  repairOnly("TCP_REPAIR_QUEUE", unix.EPERM),
	{ltcp, unix.TCP_QUEUE_SEQ}:     queueSeq,
	{ltcp, unix.TCP_REPAIR_WINDOW}: repairOnly("TCP_REPAIR_WINDOW", unix.EPERM),
}

// queueSeq is refused for other reasons where there is a connection.
var queueSeq = func() option {
	o := repairOnly("TCP_QUEUE_SEQ", unix.EINVAL)
	o.set = func(_ *sock, ep tcpip.Endpoint, v []byte) error {
		if len(v) >= 4 && !unconnected(ep) {
			return unix.EPERM
		}
		return unix.EINVAL
	}
	return o
}()

// unconnected tells whether Linux has the endpoint in TCP_CLOSE.
func unconnected(ep tcpip.Endpoint) bool {
	switch tcp.EndpointState(ep.State()) {
	case tcp.StateInitial, tcp.StateBound, tcp.StateClose, tcp.StateError:
		return true
	}
	return false
}

// repairOnly is an option of connections in repair, which takes a capability.
func repairOnly(name string, e unix.Errno) option {
	o := refused(name, e, false)
	o.get = func(*sock, tcpip.Endpoint) ([]byte, error) { return nil, unix.EINVAL }
	return o
}

// duration is an option that counts units of time between min and max.
func duration(name string, unit time.Duration, min, max int,
	set func(tcpip.Endpoint, time.Duration) tcpip.Error,
	get func(tcpip.Endpoint) (time.Duration, tcpip.Error)) option {
	return option{
		name: name,
		set: func(_ *sock, ep tcpip.Endpoint, v []byte) error {
			n, err := intOf(v)
			if err != nil {
				return err
			}
			if n < min || n > max {
				return unix.EINVAL
			}
			return optErrno(set(ep, time.Duration(n)*unit))
		},
		get: func(_ *sock, ep tcpip.Endpoint) ([]byte, error) {
			d, err := get(ep)
			return bytesOf(int(d / unit)), optErrno(err)
		},
	}
}

// setWindowClamp bounds the receive buffer, and so the window that it is for: gVisor
// has a field of that name that it does not read. 0 lifts the bound, while there is
// no connection.
func setWindowClamp(s *sock, ep tcpip.Endpoint, v []byte) error {
	const least = minRcvBuf / 2 // tcp_set_window_clamp
	n, err := intOf(v)
	if err != nil {
		return err
	}
	if n == 0 {
		if !unconnected(ep) {
			return unix.EINVAL
		}
	} else {
		n = max(n, least)
		if o := ep.SocketOptions(); int64(n) < o.GetReceiveBufferSize() {
			o.SetReceiveBufferSize(int64(n), true /* notify */)
		}
	}
	s.setVal(optKey{ltcp, unix.TCP_WINDOW_CLAMP}, n)
	return nil
}

// deferTime rounds TCP_DEFER_ACCEPT up to the time of whole retransmissions of
// the SYN-ACK: 1, 3, 7... seconds (net/ipv4/tcp.c:secs_to_retrans).
func deferTime(sec int) int {
	if sec <= 0 {
		return 0
	}
	const maxRTO = 120
	period, timeout := 1, 1
	for n := 1; sec > period && n < 255; n++ {
		timeout = min(2*timeout, maxRTO)
		period += timeout
	}
	return period
}

// mss returns what TCP_MAXSEG reports: the user's value before the connection,
// then what fits a packet beside the headers and the timestamp option.
func (s *sock) mss(ep tcpip.Endpoint) int {
	user := s.val(optKey{ltcp, unix.TCP_MAXSEG}, 0)
	_, mtu, ok := s.pathMTU(nil)
	if !ok {
		if user != 0 {
			return user
		}
		return header.TCPDefaultMSS
	}
	hdr := header.IPv6MinimumSize
	if f, err := ep.GetRemoteAddress(); err == nil && f.Addr.Len() == header.IPv4AddressSize {
		hdr = header.IPv4MinimumSize
	}
	const timestamps = 12
	// Half of the first window bounds it (net/tcp.h:tcp_bound_to_half_wnd).
	const most = 1 << 15
	mss := mtu - hdr - header.TCPMinimumSize
	if user != 0 {
		mss = min(mss, user)
	}
	return min(mss-timestamps, most)
}

// Option is getsockopt(2); SO_ERROR and TCP_INFO are the stream's own.
func (s *stream) Option(level, name int, value []byte) (int, error) {
	if level == unix.SOL_SOCKET && name == unix.SO_ERROR {
		if err := s.down(); err != nil {
			return 0, err
		}
		return copy(value, bytesOf(int(s.takeError()))), nil
	}
	if level == ltcp && name == unix.TCP_INFO {
		if err := s.down(); err != nil {
			return 0, err
		}
		return copy(value, s.tcpInfo()), nil
	}
	return s.sock.Option(level, name, value)
}

// Option is getsockopt(2); SO_ERROR is the pending error.
func (s *packetSocket) Option(level, name int, value []byte) (int, error) {
	if level == unix.SOL_SOCKET && name == unix.SO_ERROR {
		if err := s.down(); err != nil {
			return 0, err
		}
		return copy(value, bytesOf(int(s.takePending()))), nil
	}
	return s.sock.Option(level, name, value)
}
