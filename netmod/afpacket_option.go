// SPDX-License-Identifier: Apache-2.0

// Options of packet sockets.

package netmod

import (
	"math"

	"golang.org/x/sys/unix"

	"umrun/netmod/tpacket"
	"umrun/stacks/bpf"
)

// Bounds of SO_RCVBUF and SO_SNDBUF, bytes, as the kernel has them: a value is
// doubled, and not above net.core.rmem_max before that.
const (
	bufferDefault = 212992
	rcvbufLeast   = 2304
	sndbufLeast   = 4608
)

// bpfExtensions is SKF_AD_MAX, what SO_BPF_EXTENSIONS tells.
const bpfExtensions = 64

// flag tells whether an option of SOL_PACKET is on; the mutex is held.
func (a *afpacket) flag(name int) bool { return a.opts[optionKey{unix.SOL_PACKET, name}] != 0 }

// buffer is SO_RCVBUF or SO_SNDBUF; the mutex is held.
func (a *afpacket) buffer(name int) int32 {
	if v, ok := a.opts[optionKey{unix.SOL_SOCKET, name}]; ok {
		return v
	}
	return bufferDefault
}

// SetOption serves setsockopt(2) but for PACKET_RX_RING, which needs the call.
func (a *afpacket) SetOption(level, name int, v []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch level {
	case unix.SOL_PACKET:
		return a.setPacket(name, v)
	case unix.SOL_SOCKET:
		return a.setSocket(name, v)
	}
	return unix.ENOPROTOOPT
}

func (a *afpacket) setPacket(name int, v []byte) error {
	switch name {
	case unix.PACKET_ADD_MEMBERSHIP, unix.PACKET_DROP_MEMBERSHIP:
		return a.member(name == unix.PACKET_ADD_MEMBERSHIP, v)
	case unix.PACKET_AUXDATA, unix.PACKET_ORIGDEV, unix.PACKET_VERSION, unix.PACKET_RESERVE, unix.PACKET_COPY_THRESH,
		unix.PACKET_LOSS, unix.PACKET_TIMESTAMP, unix.PACKET_QDISC_BYPASS, unix.PACKET_IGNORE_OUTGOING:
	default:
		return unix.ENOPROTOOPT
	}
	exact := name != unix.PACKET_AUXDATA && name != unix.PACKET_ORIGDEV
	if len(v) < 4 || exact && len(v) != 4 {
		return unix.EINVAL
	}
	n := int32(native.Uint32(v))
	switch name {
	case unix.PACKET_VERSION:
		if n < tpacket.V1 || n > tpacket.V3 {
			return unix.EINVAL
		}
	case unix.PACKET_RESERVE:
		if n < 0 {
			return unix.EINVAL
		}
	case unix.PACKET_AUXDATA, unix.PACKET_ORIGDEV, unix.PACKET_QDISC_BYPASS, unix.PACKET_LOSS:
		n = truth(n)
	case unix.PACKET_IGNORE_OUTGOING:
		if n < 0 || n > 1 {
			return unix.EINVAL
		}
	}
	if a.ring != nil && (name == unix.PACKET_VERSION || name == unix.PACKET_RESERVE || name == unix.PACKET_LOSS) {
		return unix.EBUSY
	}
	a.opts[optionKey{unix.SOL_PACKET, name}] = n
	return nil
}

// The size of struct packet_mreq, and where its address of 8 bytes begins; that may be
// longer.
const (
	sizeofMreq  = 16
	mreqAddress = 8
)

// member joins or leaves what PACKET_MR_PROMISC and its like mean. An interface of
// the view hears all that there is already, so that nothing changes.
func (a *afpacket) member(join bool, v []byte) error {
	if len(v) < sizeofMreq || len(v) < mreqAddress+int(native.Uint16(v[6:])) {
		return unix.EINVAL
	}
	if !join {
		return nil // packet_mc_drop: what was never joined is no error
	}
	ifc, ok := a.interfaceOf(int(int32(native.Uint32(v))))
	if !ok {
		return unix.ENODEV
	}
	alen := 0
	if _, header := linkOf(&ifc); header > 0 {
		alen = etherAddr
	}
	n := int(native.Uint16(v[6:]))
	switch native.Uint16(v[4:]) {
	case unix.PACKET_MR_MULTICAST, unix.PACKET_MR_UNICAST:
		if n != alen {
			return unix.EINVAL
		}
	}
	if n > alen {
		return unix.EINVAL
	}
	return nil
}

// truth is !!n.
func truth(n int32) int32 {
	if n != 0 {
		return 1
	}
	return 0
}

func (a *afpacket) setSocket(name int, v []byte) error {
	if name == unix.SO_ATTACH_FILTER { // the instructions, see readFilter
		p, err := bpf.Parse(v)
		switch {
		case err != nil:
			return err
		case a.locked:
			return unix.EPERM
		}
		a.filter = p
		return nil
	}
	if len(v) < 4 {
		return unix.EINVAL
	}
	n := int32(native.Uint32(v))
	switch name {
	case unix.SO_DETACH_FILTER:
		switch {
		case a.locked:
			return unix.EPERM
		case a.filter == nil:
			return unix.ENOENT
		}
		a.filter = nil
		return nil
	case unix.SO_LOCK_FILTER:
		if a.locked && n == 0 {
			return unix.EPERM
		}
		a.locked = n != 0
		return nil
	case unix.SO_RCVBUF, unix.SO_SNDBUF, unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE:
		least := int32(rcvbufLeast)
		if name == unix.SO_SNDBUF || name == unix.SO_SNDBUFFORCE {
			least = sndbufLeast
		}
		switch name {
		case unix.SO_RCVBUFFORCE:
			name = unix.SO_RCVBUF
		case unix.SO_SNDBUFFORCE:
			name = unix.SO_SNDBUF
		default:
			n = min(uint32ToInt(n), bufferDefault)
		}
		n = max(min(max(n, 0), math.MaxInt32/2)*2, least)
	case unix.SO_REUSEADDR, unix.SO_BROADCAST, unix.SO_DONTROUTE, unix.SO_TIMESTAMP, unix.SO_TIMESTAMPNS,
		unix.SO_TIMESTAMP_NEW, unix.SO_TIMESTAMPNS_NEW:
		n = truth(n)
	case unix.SO_PRIORITY, unix.SO_MARK, unix.SO_BUSY_POLL:
	default:
		return unix.ENOPROTOOPT
	}
	a.opts[optionKey{unix.SOL_SOCKET, name}] = n
	return nil
}

// uint32ToInt reads a buffer size as the kernel does: a negative one is a large one.
func uint32ToInt(n int32) int32 {
	if n < 0 {
		return math.MaxInt32
	}
	return n
}

// Option serves getsockopt(2). Of SO_GET_FILTER it returns the instructions.
func (a *afpacket) Option(level, name int, v []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := optionKey{level, name}
	if level == unix.SOL_PACKET {
		switch name {
		case unix.PACKET_STATISTICS:
			return copy(v, a.statistics()), nil
		case unix.PACKET_HDRLEN:
			if len(v) < 4 {
				return 0, unix.EINVAL
			}
			n, err := tpacket.HeaderLen(int(int32(native.Uint32(v)))) // the version, see asksByValue
			return copy(v, int32Value(n)), err
		case unix.PACKET_AUXDATA, unix.PACKET_ORIGDEV, unix.PACKET_VERSION, unix.PACKET_RESERVE, unix.PACKET_COPY_THRESH,
			unix.PACKET_LOSS, unix.PACKET_TIMESTAMP, unix.PACKET_QDISC_BYPASS, unix.PACKET_IGNORE_OUTGOING:
			return copy(v, int32Value(int(a.opts[key]))), nil
		}
		return 0, unix.ENOPROTOOPT
	}
	if level != unix.SOL_SOCKET {
		return 0, unix.ENOPROTOOPT
	}
	switch name {
	case unix.SO_GET_FILTER:
		if a.filter == nil {
			return 0, nil
		}
		return copy(v, a.filter.Bytes()), nil
	case unix.SO_LOCK_FILTER:
		n := 0
		if a.locked {
			n = 1
		}
		return copy(v, int32Value(n)), nil
	case unix.SO_BPF_EXTENSIONS:
		return copy(v, int32Value(bpfExtensions)), nil
	case unix.SO_RCVBUF, unix.SO_SNDBUF:
		return copy(v, int32Value(int(a.buffer(name)))), nil
	case unix.SO_ERROR, unix.SO_REUSEADDR, unix.SO_BROADCAST, unix.SO_DONTROUTE, unix.SO_TIMESTAMP, unix.SO_TIMESTAMPNS,
		unix.SO_TIMESTAMP_NEW, unix.SO_TIMESTAMPNS_NEW, unix.SO_PRIORITY, unix.SO_MARK, unix.SO_BUSY_POLL:
		return copy(v, int32Value(int(a.opts[key]))), nil
	}
	return 0, unix.ENOPROTOOPT
}

// statistics is PACKET_STATISTICS, which starts anew with each call; packets are
// those that were dropped too.
func (a *afpacket) statistics() []byte {
	b := native.AppendUint32(nil, a.seen)
	b = native.AppendUint32(b, a.dropped)
	a.seen, a.dropped = 0, 0
	if a.opts[optionKey{unix.SOL_PACKET, unix.PACKET_VERSION}] == tpacket.V3 {
		freezes := uint32(0)
		if a.ring != nil {
			freezes = a.ring.Freezes()
		}
		b = native.AppendUint32(b, freezes)
	}
	return b
}
