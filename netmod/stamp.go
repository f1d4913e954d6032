// SPDX-License-Identifier: Apache-2.0

// Time stamps of datagrams: SO_TIMESTAMP and its kin, SO_TIMESTAMPING, SIOCGSTAMP. Those
// of streams are in arrival.go.

package netmod

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/stacks"
)

// stamps is what a socket wants to know of times, and knows. The stamps are made
// where a datagram enters and leaves the stack: in software, in the words of
// Documentation/networking/timestamping.rst.
type stamps struct {
	flags   uint32 // SO_TIMESTAMPING
	key     uint32 // of the next datagram, SOF_TIMESTAMPING_OPT_ID
	sending uint32 // flags of the datagram that is being sent
	own     bool   // it has a key of its own
	ownKey  uint32
	last    int64 // of the last datagram that was received, for SIOCGSTAMP
	came    bool  // there was one
}

// Control messages and flags that x/sys does not have (asm-generic/socket.h,
// linux/errqueue.h, linux/net_tstamp.h).
const (
	scmTSOptID   = 81
	tstampSND    = 0 // SCM_TSTAMP_SND
	tstampSched  = 1 // SCM_TSTAMP_SCHED
	stampsOnSend = unix.SOF_TIMESTAMPING_TX_HARDWARE | unix.SOF_TIMESTAMPING_TX_SOFTWARE |
		unix.SOF_TIMESTAMPING_TX_SCHED | unix.SOF_TIMESTAMPING_TX_ACK | 1<<18 // TX_COMPLETION
)

// noteStamps acts on an option that the stack has accepted.
func (s *packet) noteStamps(level, name int, v []byte) {
	flags := s.stamps.flags
	if noteStampOption(&s.want, &flags, level, name, v) {
		if flags&unix.SOF_TIMESTAMPING_OPT_ID != 0 && s.stamps.flags&unix.SOF_TIMESTAMPING_OPT_ID == 0 {
			s.stamps.key = 0
		}
		s.stamps.flags = flags
	}
}

// noteStampOption makes want and the flags of SO_TIMESTAMPING what an option says;
// false if it is none of those that ask for stamps.
func noteStampOption(want *ancillary, flags *uint32, level, name int, v []byte) bool {
	if level != unix.SOL_SOCKET || len(v) < 4 {
		return false
	}
	n := native.Uint32(v)
	var kind ancillary
	switch name {
	case unix.SO_TIMESTAMP:
		kind = wantTimestamp
	case unix.SO_TIMESTAMPNS:
		kind = wantTimestamp | wantTimestampNS
	case unix.SO_TIMESTAMP_NEW:
		kind = wantTimestamp | wantTimestampNew
	case unix.SO_TIMESTAMPNS_NEW:
		kind = wantTimestamp | wantTimestampNS | wantTimestampNew
	case unix.SO_TIMESTAMPING, unix.SO_TIMESTAMPING_NEW:
		*flags = n
		*want &^= wantTimestamping | wantTimestampNew
		const both = unix.SOF_TIMESTAMPING_RX_SOFTWARE | unix.SOF_TIMESTAMPING_SOFTWARE
		if n&both == both {
			*want |= wantTimestamping
		}
		if name == unix.SO_TIMESTAMPING_NEW {
			*want |= wantTimestampNew
		}
		return true
	default:
		return false
	}
	if n != 0 {
		*want = *want&^(wantTimestamp|wantTimestampNS|wantTimestampNew) | kind
	} else {
		*want &^= wantTimestamp | wantTimestampNS
	}
	return true
}

// controlOfStamps decodes what asks for stamps of one datagram
// (net/core/sock.c:__sock_cmsg_send).
func (s *packet) controlOfStamps(typ int, v []byte) error {
	if len(v) != 4 {
		return unix.EINVAL
	}
	n := native.Uint32(v)
	if typ == scmTSOptID {
		if s.stamps.flags&unix.SOF_TIMESTAMPING_OPT_ID == 0 {
			return unix.EINVAL
		}
		s.stamps.own, s.stamps.ownKey = true, n
		return nil
	}
	if n&^stampsOnSend != 0 {
		return unix.EINVAL
	}
	s.stamps.sending = s.stamps.sending&^stampsOnSend | n
	return nil
}

// stampSent puts the stamps of a datagram that was sent into the error queue
// (net/core/skbuff.c:__skb_tstamp_tx). The mutex is held.
func (s *packet) stampSent(p []byte, dst netip.AddrPort) {
	t := &s.stamps
	if t.sending&stampsOnSend == 0 {
		return
	}
	r := stacks.Report{Errno: unix.ENOMSG, Origin: unix.SO_EE_ORIGIN_TIMESTAMPING, Msg: noMessage}
	r.Msg.Stamp = time.Now().UnixNano()
	if t.flags&unix.SOF_TIMESTAMPING_OPT_ID != 0 {
		if r.Data = t.ownKey; !t.own {
			r.Data = t.key
			t.key++
		}
	}
	if t.flags&unix.SOF_TIMESTAMPING_OPT_TSONLY == 0 {
		r.Payload = s.asSent(p, dst)
	}
	if t.sending&unix.SOF_TIMESTAMPING_TX_SCHED != 0 {
		r.Info = tstampSched
		s.queueError(r)
	}
	if t.sending&unix.SOF_TIMESTAMPING_TX_SOFTWARE != 0 {
		r.Info = tstampSND
		s.queueError(r)
	}
}

// asSent is the packet that a datagram became, with the headers as far as they are
// known here: programs look for the address, the port and the data.
func (s *packet) asSent(p []byte, dst netip.AddrPort) []byte {
	local, _ := s.ep.Names()
	size := len(p)
	if s.isUDP() {
		size += 8
	}
	var b []byte
	proto := byte(s.proto)
	if s.isUDP() {
		proto = unix.IPPROTO_UDP
	}
	if to := dst.Addr().Unmap(); to.Is4() {
		b = make([]byte, 20, 20+size)
		b[0], b[8], b[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(b[2:], uint16(20+size))
		if from := local.Addr().Unmap(); from.Is4() {
			copy(b[12:], from.AsSlice())
		}
		copy(b[16:], to.AsSlice())
	} else {
		b = make([]byte, 40, 40+size)
		b[0], b[6], b[7] = 0x60, proto, 64
		binary.BigEndian.PutUint16(b[4:], uint16(size))
		if from := local.Addr(); from.Is6() {
			copy(b[8:], from.AsSlice())
		}
		copy(b[24:], to.AsSlice())
	}
	if s.isUDP() {
		b = binary.BigEndian.AppendUint16(b, local.Port())
		b = binary.BigEndian.AppendUint16(b, dst.Port())
		b = binary.BigEndian.AppendUint16(b, uint16(size))
		b = binary.BigEndian.AppendUint16(b, 0) // a device computes the sum
	}
	return append(b, p...)
}

// encode appends the control messages of a stamp, in ns since the epoch
// (net/socket.c:__sock_recv_timestamp).
func (w ancillary) encodeStamp(out []byte, stamp int64) []byte {
	if w&wantStamps == 0 {
		return out
	}
	if stamp == 0 {
		stamp = time.Now().UnixNano()
	}
	tv := make([]byte, 16) // struct timeval or timespec
	native.PutUint64(tv, uint64(stamp/1e9))
	if w&wantTimestamp != 0 {
		typ := unix.SO_TIMESTAMP
		switch w & (wantTimestampNS | wantTimestampNew) {
		case wantTimestampNS:
			typ = unix.SO_TIMESTAMPNS
		case wantTimestampNew:
			typ = unix.SO_TIMESTAMP_NEW
		case wantTimestampNS | wantTimestampNew:
			typ = unix.SO_TIMESTAMPNS_NEW
		}
		native.PutUint64(tv[8:], uint64(stamp%1e9/1e3))
		if w&wantTimestampNS != 0 {
			native.PutUint64(tv[8:], uint64(stamp%1e9))
		}
		out = appendControl(out, unix.SOL_SOCKET, typ, tv)
	}
	if w&wantTimestamping != 0 {
		typ := unix.SO_TIMESTAMPING
		if w&wantTimestampNew != 0 {
			typ = unix.SO_TIMESTAMPING_NEW
		}
		native.PutUint64(tv[8:], uint64(stamp%1e9))
		out = appendControl(out, unix.SOL_SOCKET, typ, append(tv, make([]byte, 32)...)) // two of hardware
	}
	return out
}

// tookStamp notes when a datagram came that the program takes. If SO_TIMESTAMP tells
// it, SIOCGSTAMP does not, and before that is asked for it is not known.
func (s *packet) tookStamp(stamp int64) {
	s.stamps.came = true
	if s.want&(wantTimestamp|wantTimestamping) == 0 && s.want&wantLastStamp != 0 {
		s.stamps.last = stamp
	}
}

// gstamp answers SIOCGSTAMP and SIOCGSTAMPNS: when the last datagram came. The first
// such call turns stamps on (net/core/sock.c:sock_gettstamp).
func (s *packet) gstamp(c *intercept.Call, arg intercept.Addr, ns bool) intercept.Action {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inflight && s.windowEmpty() { // a call that does not trap has taken it
		s.stamps.last = s.head.Stamp
	}
	s.want |= wantLastStamp
	if !s.stamps.came {
		return intercept.Fail(unix.ENOENT)
	}
	if s.stamps.last == 0 {
		s.stamps.last = time.Now().UnixNano()
	}
	v := make([]byte, 16)
	native.PutUint64(v, uint64(s.stamps.last/1e9))
	native.PutUint64(v[8:], uint64(s.stamps.last%1e9))
	if !ns {
		native.PutUint64(v[8:], uint64(s.stamps.last%1e9/1e3))
	}
	return result(c.WriteMem(arg, v))
}
