// SPDX-License-Identifier: Apache-2.0

// The options of level SOL_SOCKET, socket(7).

package netstack

import (
	"bytes"
	"encoding/binary"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// bufMax is what SO_SNDBUF and SO_RCVBUF are cut at, bytes: our
// net.core.wmem_max and rmem_max, before the doubling.
const bufMax = 4 << 20

// Least values of the buffer options after the doubling (net/sock.h).
const (
	minSndBuf = 4608
	minRcvBuf = 2304
)

const sock0 = unix.SOL_SOCKET

var solSocket = map[optKey]option{
	{sock0, unix.SO_TYPE}:     constant("SO_TYPE", func(s *sock) int { return s.typ }),
	{sock0, unix.SO_DOMAIN}:   constant("SO_DOMAIN", func(s *sock) int { return s.family }),
	{sock0, unix.SO_PROTOCOL}: constant("SO_PROTOCOL", func(s *sock) int { return s.proto }),
	{sock0, unix.SO_ACCEPTCONN}: {name: "SO_ACCEPTCONN", get: func(s *sock, ep tcpip.Endpoint) ([]byte, error) {
		return boolBytes(s.typ == unix.SOCK_STREAM && tcp.EndpointState(ep.State()) == tcp.StateListen), nil
	}},

	{sock0, unix.SO_REUSEADDR}: flag("SO_REUSEADDR", (*tcpip.SocketOptions).GetReuseAddress, (*tcpip.SocketOptions).SetReuseAddress),
	{sock0, unix.SO_REUSEPORT}: flag("SO_REUSEPORT", (*tcpip.SocketOptions).GetReusePort, (*tcpip.SocketOptions).SetReusePort),
	{sock0, unix.SO_KEEPALIVE}: flag("SO_KEEPALIVE", (*tcpip.SocketOptions).GetKeepAlive, (*tcpip.SocketOptions).SetKeepAlive),
	{sock0, unix.SO_BROADCAST}: flag("SO_BROADCAST", (*tcpip.SocketOptions).GetBroadcast, (*tcpip.SocketOptions).SetBroadcast),

	{sock0, unix.SO_SNDBUF}: {name: "SO_SNDBUF", set: setSndBuf, get: func(s *sock, ep tcpip.Endpoint) ([]byte, error) {
		return bytesOf(s.val(optKey{sock0, unix.SO_SNDBUF}, int(ep.SocketOptions().GetSendBufferSize()))), nil
	}},
	{sock0, unix.SO_RCVBUF}: {name: "SO_RCVBUF", set: setRcvBuf, get: func(s *sock, ep tcpip.Endpoint) ([]byte, error) {
		return bytesOf(s.val(optKey{sock0, unix.SO_RCVBUF}, int(ep.SocketOptions().GetReceiveBufferSize()))), nil
	}},
	{sock0, unix.SO_SNDBUFFORCE}: refused("SO_SNDBUFFORCE", unix.EPERM, false),
	{sock0, unix.SO_RCVBUFFORCE}: refused("SO_RCVBUFFORCE", unix.EPERM, false),
	{sock0, unix.SO_RCVLOWAT}:    kept(sock0, unix.SO_RCVLOWAT, "SO_RCVLOWAT", 1, 0, math.MaxInt32, intOf, "a stream is readable with one byte"),
	{sock0, unix.SO_SNDLOWAT}:    constant("SO_SNDLOWAT", func(*sock) int { return 1 }),

	// The rules that look at it are the program's own, so no capability is needed.
	{sock0, unix.SO_MARK}: {name: "SO_MARK", set: func(_ *sock, ep tcpip.Endpoint, v []byte) error {
		n, err := intOf(v)
		if err == nil {
			ep.SocketOptions().SetMark(uint32(n))
		}
		return err
	}, get: func(_ *sock, ep tcpip.Endpoint) ([]byte, error) {
		return bytesOf(int(ep.SocketOptions().GetMark())), nil
	}},

	{sock0, unix.SO_LINGER}:       {name: "SO_LINGER", set: setLinger, get: getLinger},
	{sock0, unix.SO_BINDTODEVICE}: {name: "SO_BINDTODEVICE", set: setDevice, ask: getDevice},
	{sock0, unix.SO_BINDTOIFINDEX}: {name: "SO_BINDTOIFINDEX", set: func(_ *sock, ep tcpip.Endpoint, v []byte) error {
		n, err := intOf(v)
		if err != nil {
			return err
		}
		return bindToDevice(ep, n)
	}, get: func(_ *sock, ep tcpip.Endpoint) ([]byte, error) {
		return bytesOf(int(ep.SocketOptions().GetBindToDevice())), nil
	}},

	// What takes a capability that the program does not have on its network.
	{sock0, unix.SO_PREFER_BUSY_POLL}: zeroOnly("SO_PREFER_BUSY_POLL", unix.EPERM, true),
	{sock0, unix.SO_DEBUG}:            zeroOnly("SO_DEBUG", unix.EACCES, true),
	{sock0, unix.SO_PRIORITY}: {name: "SO_PRIORITY", set: func(s *sock, _ tcpip.Endpoint, v []byte) error {
		n, err := intOf(v)
		if err != nil {
			return err
		}
		if n < 0 || n > 6 {
			return unix.EPERM
		}
		s.setVal(optKey{sock0, unix.SO_PRIORITY}, n)
		return nil
	}, get: func(s *sock, _ tcpip.Endpoint) ([]byte, error) {
		return bytesOf(s.val(optKey{sock0, unix.SO_PRIORITY}, 0)), nil
	}},

	{sock0, unix.SO_TIMESTAMP}:        stamp("SO_TIMESTAMP", 0, stampOn|stampNS|stampNew, stampOn),
	{sock0, unix.SO_TIMESTAMPNS}:      stamp("SO_TIMESTAMPNS", stampNS, stampNS|stampNew, stampNS),
	{sock0, unix.SO_TIMESTAMP_NEW}:    stamp("SO_TIMESTAMP_NEW", stampNew, stampOn|stampNew, stampOn|stampNew),
	{sock0, unix.SO_TIMESTAMPNS_NEW}:  stamp("SO_TIMESTAMPNS_NEW", stampNS|stampNew, stampNS|stampNew, stampNS|stampNew),
	{sock0, unix.SO_TIMESTAMPING}:     stamping("SO_TIMESTAMPING", false),
	{sock0, unix.SO_TIMESTAMPING_NEW}: stamping("SO_TIMESTAMPING_NEW", true),

	// Kept here, acted upon by netmod, which makes the control messages.
	{sock0, unix.SO_OOBINLINE}:        keptBool(sock0, unix.SO_OOBINLINE, "SO_OOBINLINE", 0, ""),
	{sock0, unix.SO_RXQ_OVFL}:         keptBool(sock0, unix.SO_RXQ_OVFL, "SO_RXQ_OVFL", 0, ""),
	{sock0, unix.SO_SELECT_ERR_QUEUE}: keptBool(sock0, unix.SO_SELECT_ERR_QUEUE, "SO_SELECT_ERR_QUEUE", 0, ""),

	// No effect here, and none to be missed.
	{sock0, unix.SO_DONTROUTE}:    keptBool(sock0, unix.SO_DONTROUTE, "SO_DONTROUTE", 0, "routes are used"),
	{sock0, unix.SO_NO_CHECK}:     keptBool(sock0, unix.SO_NO_CHECK, "SO_NO_CHECK", 0, "checksums are sent all the same"),
	{sock0, unix.SO_INCOMING_CPU}: kept(sock0, unix.SO_INCOMING_CPU, "SO_INCOMING_CPU", -1, math.MinInt32, math.MaxInt32, intOf, ""),
	{sock0, unix.SO_MAX_PACING_RATE}: {name: "SO_MAX_PACING_RATE", set: setPacing, get: func(s *sock, _ tcpip.Endpoint) ([]byte, error) {
		n := s.val(optKey{sock0, unix.SO_MAX_PACING_RATE}, -1)
		return binary.NativeEndian.AppendUint64(nil, uint64(n)), nil
	}, wide: true, gap: "there is no pacing"},
	{sock0, unix.SO_BUSY_POLL}:        kept(sock0, unix.SO_BUSY_POLL, "SO_BUSY_POLL", 0, 0, math.MaxInt32, intOf, ""),
	{sock0, unix.SO_INCOMING_NAPI_ID}: constant("SO_INCOMING_NAPI_ID", func(*sock) int { return 0 }),
	{sock0, unix.SO_NOFCS}:            keptBool(sock0, unix.SO_NOFCS, "SO_NOFCS", 0, ""),
	{sock0, unix.SO_WIFI_STATUS}:      keptBool(sock0, unix.SO_WIFI_STATUS, "SO_WIFI_STATUS", 0, ""),
	{sock0, unix.SO_RCVMARK}:          keptBool(sock0, unix.SO_RCVMARK, "SO_RCVMARK", 0, ""),
	{sock0, unix.SO_TXREHASH}:         streamsOnly(kept(sock0, unix.SO_TXREHASH, "SO_TXREHASH", 1, 0, 1, rehash, "")),
	{sock0, unix.SO_BUF_LOCK}:         kept(sock0, unix.SO_BUF_LOCK, "SO_BUF_LOCK", 0, 0, 3, intOf, ""),
	{sock0, unix.SO_CNX_ADVICE}: {name: "SO_CNX_ADVICE", set: func(_ *sock, _ tcpip.Endpoint, v []byte) error {
		_, err := intOf(v)
		return err
	}},
	{sock0, unix.SO_RESERVE_MEM}: {name: "SO_RESERVE_MEM", set: func(_ *sock, _ tcpip.Endpoint, v []byte) error {
		n, err := intOf(v)
		switch {
		case err != nil:
			return err
		case n < 0:
			return unix.EINVAL
		}
		return unix.EOPNOTSUPP // no memory control group
	}, get: func(*sock, tcpip.Endpoint) ([]byte, error) { return bytesOf(0), nil }},
	{sock0, unix.SO_MEMINFO}: {name: "SO_MEMINFO", get: memInfo},

	// Without a local peer: pid 0, uid and gid -1 (net/core/sock.c).
	{sock0, unix.SO_PEERCRED}: {name: "SO_PEERCRED", get: func(*sock, tcpip.Endpoint) ([]byte, error) {
		return append(append(bytesOf(0), bytesOf(-1)...), bytesOf(-1)...), nil
	}},
	{sock0, unix.SO_COOKIE}: {name: "SO_COOKIE", get: func(s *sock, _ tcpip.Endpoint) ([]byte, error) {
		k := optKey{sock0, unix.SO_COOKIE}
		n := s.val(k, 0)
		if n == 0 {
			n = int(lastCookie.Add(1))
			s.setVal(k, n)
		}
		return binary.NativeEndian.AppendUint64(nil, uint64(n)), nil
	}},
}

// lastCookie numbers sockets for SO_COOKIE, unique in the process.
var lastCookie atomic.Int64

// bufSize returns what Linux makes of the value of a buffer option: it is cut,
// and doubled for the overhead of bookkeeping (net/core/sock.c).
func bufSize(v []byte, least int) (int, error) {
	n, err := intOf(v)
	if err != nil {
		return 0, err
	}
	// A negative value is a large unsigned one.
	if n < 0 || n > bufMax {
		n = bufMax
	}
	return max(2*n, least), nil
}

func setSndBuf(s *sock, ep tcpip.Endpoint, v []byte) error {
	n, err := bufSize(v, minSndBuf)
	if err != nil {
		return err
	}
	ep.SocketOptions().SetSendBufferSize(int64(n), true /* notify */)
	s.setVal(optKey{sock0, unix.SO_SNDBUF}, n)
	return nil
}

func setRcvBuf(s *sock, ep tcpip.Endpoint, v []byte) error {
	n, err := bufSize(v, minRcvBuf)
	if err != nil {
		return err
	}
	ep.SocketOptions().SetReceiveBufferSize(int64(n), true /* notify */)
	s.setVal(optKey{sock0, unix.SO_RCVBUF}, n)
	return nil
}

// setPacing takes an unsigned int, whose largest value means no limit, or a long
// (net/core/sock.c).
func setPacing(s *sock, _ tcpip.Endpoint, v []byte) error {
	n, err := intOf(v)
	if err != nil {
		return err
	}
	if n != -1 {
		n = int(uint32(n))
	}
	if len(v) == 8 {
		n = int(binary.NativeEndian.Uint64(v))
	}
	s.setVal(optKey{sock0, unix.SO_MAX_PACING_RATE}, n)
	return nil
}

// rehash takes 0, 1, and -1 for the system's setting, which is 1.
func rehash(v []byte) (int, error) {
	n, err := intOf(v)
	if n == -1 {
		n = 1
	}
	return n, err
}

// memInfo is SO_MEMINFO: the sizes of the buffers and what is in them, as
// linux/sock_diag.h orders them.
func memInfo(s *sock, ep tcpip.Endpoint) ([]byte, error) {
	const (
		rmemAlloc = iota
		rcvBuf
		wmemAlloc
		sndBuf
		fwdAlloc
		wmemQueued
		optMem
		backlog
		drops
		vars
	)
	var v [vars]int
	v[rcvBuf] = s.val(optKey{sock0, unix.SO_RCVBUF}, int(ep.SocketOptions().GetReceiveBufferSize()))
	v[sndBuf] = s.val(optKey{sock0, unix.SO_SNDBUF}, int(ep.SocketOptions().GetSendBufferSize()))
	v[rmemAlloc], _ = ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption) // 0 where there is no such thing
	v[wmemQueued], _ = ep.GetSockOptInt(tcpip.SendQueueSizeOption)
	v[rmemAlloc], v[wmemQueued] = max(v[rmemAlloc], 0), max(v[wmemQueued], 0)
	var b []byte
	for _, n := range v {
		b = append(b, bytesOf(n)...)
	}
	return b, nil
}

// setLinger takes struct linger: two ints, the second in seconds.
func setLinger(_ *sock, ep tcpip.Endpoint, v []byte) error {
	if len(v) < 8 {
		return unix.EINVAL
	}
	on, sec := binary.NativeEndian.Uint32(v), int32(binary.NativeEndian.Uint32(v[4:]))
	l := ep.SocketOptions().GetLinger()
	if l.Enabled = on != 0; l.Enabled { // else the time stays what it was
		l.Timeout = time.Duration(max(sec, 0)) * time.Second
	}
	ep.SocketOptions().SetLinger(l)
	return nil
}

func getLinger(_ *sock, ep tcpip.Endpoint) ([]byte, error) {
	l := ep.SocketOptions().GetLinger()
	return append(boolBytes(l.Enabled), bytesOf(int(l.Timeout/time.Second))...), nil
}

// setDevice takes an interface name, with or without NUL; an empty one unbinds.
func setDevice(s *sock, ep tcpip.Endpoint, v []byte) error {
	n, err := s.st.device(v)
	if err != nil {
		return err
	}
	return bindToDevice(ep, int(n))
}

// device finds the interface of SO_BINDTODEVICE's value, 0 for none.
func (s *Stack) device(v []byte) (tcpip.NICID, error) {
	name, _, _ := bytes.Cut(v, []byte{0})
	if len(name) > maxName {
		name = name[:maxName]
	}
	if len(name) == 0 {
		return 0, nil
	}
	for _, i := range s.State().Interfaces {
		if i.Name == string(name) {
			return tcpip.NICID(i.Index), nil
		}
	}
	return 0, unix.ENODEV
}

// bindToDevice binds to an interface, 0 to none. An ordinary user may do it once
// (net/core/sock.c:sock_bindtoindex_locked).
func bindToDevice(ep tcpip.Endpoint, index int) error {
	o := ep.SocketOptions()
	switch {
	case o.GetBindToDevice() != 0:
		return unix.EPERM
	case index < 0:
		return unix.EINVAL
	}
	return optErrno(o.SetBindToDevice(int32(index)))
}

// getDevice wants room for the longest name (net/core/sock.c:sock_getbindtodevice).
func getDevice(s *sock, v []byte) ([]byte, error) {
	return s.st.deviceName(int(s.endpoint().SocketOptions().GetBindToDevice()), v)
}

// deviceName is the value of SO_BINDTODEVICE, with v as the room for it.
func (s *Stack) deviceName(id int, v []byte) ([]byte, error) {
	if id != 0 && len(v) < unix.IFNAMSIZ {
		return nil, unix.EINVAL
	}
	for _, i := range s.State().Interfaces {
		if i.Index == id {
			return append([]byte(i.Name), 0), nil
		}
	}
	return nil, nil
}
