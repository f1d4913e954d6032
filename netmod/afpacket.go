// SPDX-License-Identifier: Apache-2.0

// AF_PACKET sockets, packet(7): what passes the view's own interfaces.

package netmod

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/netmod/tpacket"
	"umrun/stacks"
	"umrun/stacks/bpf"
)

// An afpacket is the kernel's side of a packet socket, as a stacks.PacketSocket
// without addresses of its own: it listens to a tap of the stack and puts packets
// onto its interfaces. Nothing of it reaches the host.
//
// Frames of an Ethernet link have its header. Other interfaces have none, as those of
// WireGuard, but for lo, which has one of 14 bytes that are zero but for the EtherType.
type afpacket struct {
	m   *Module
	tap stacks.Tapper
	typ int // SOCK_RAW or SOCK_DGRAM

	mu      sync.Mutex // guards what follows; a leaf, taken by the tap too
	proto   uint16     // host byte order; 0: nothing is received
	ifIndex int        // 0: all
	stop    func()     // ends the tap; nil: there is none
	closed  bool
	filter  *bpf.Program
	locked  bool // SO_LOCK_FILTER
	opts    map[optionKey]int32
	queue   []caught
	size    int    // of queue, as SO_RCVBUF counts
	seen    uint32 // since the last PACKET_STATISTICS
	dropped uint32
	ring    *ring
	notify  func(stacks.Events)
}

// A caught is a packet in the queue.
type caught struct {
	data []byte
	msg  stacks.Message
}

// A linkInfo is what is told with a packet: its address, and PACKET_AUXDATA.
type linkInfo struct {
	name   [unix.SizeofSockaddrLinklayer]byte
	size   int // of the whole packet, bytes
	kept   int // of it, by the filter
	header int // of the link, bytes
	status uint32
}

// Sizes of Ethernet, which lo has, too; bytes.
const (
	etherHeader = 14 // ETH_HLEN
	etherAddr   = 6  // ETH_ALEN
	vlanHeader  = 4  // VLAN_HLEN
)

// afpacketFlags are the flags that packet_recvmsg takes.
const afpacketFlags = unix.MSG_PEEK | unix.MSG_DONTWAIT | unix.MSG_TRUNC | unix.MSG_ERRQUEUE

// skbOverhead is what SO_RCVBUF counts for a packet besides its bytes.
const skbOverhead = 512

// newAFPacket makes a packet socket, packet(7). proto is in network byte order.
// EAFNOSUPPORT on a stack that cannot show its packets.
func newAFPacket(m *Module, typ, proto int) (*afpacket, error) {
	tap, ok := m.stack.(stacks.Tapper)
	if s, some := m.stack.(stacks.Shower); !ok || some && !s.Shows(0) {
		return nil, unix.EAFNOSUPPORT
	}
	if typ != unix.SOCK_RAW && typ != unix.SOCK_DGRAM {
		return nil, unix.ESOCKTNOSUPPORT
	}
	a := &afpacket{m: m, tap: tap, typ: typ, proto: swap16(uint16(proto)), opts: make(map[optionKey]int32)}
	a.listen()
	return a, nil
}

func swap16(v uint16) uint16 { return v<<8 | v>>8 }

// listen starts the tap once there is a protocol. The mutex is not held: the tap may
// call at once.
func (a *afpacket) listen() {
	a.mu.Lock()
	need := a.proto != 0 && a.stop == nil && !a.closed
	if need {
		a.stop = func() {}
	}
	a.mu.Unlock()
	if !need {
		return
	}
	stop := a.tap.Tap(a.saw)
	a.mu.Lock()
	a.stop = stop
	gone := a.closed
	a.mu.Unlock()
	if gone {
		stop()
	}
}

// interfaceOf finds an interface of the view.
func (a *afpacket) interfaceOf(index int) (stacks.Interface, bool) {
	for _, ifc := range a.m.stack.State().Interfaces {
		if ifc.Index == index {
			return ifc, true
		}
	}
	return stacks.Interface{}, false
}

// bind is bind(2) (af_packet.c:packet_bind). Protocol 0 keeps the one there is.
func (a *afpacket) bind(sa []byte) error {
	if len(sa) < unix.SizeofSockaddrLinklayer || sockaddrFamily(sa) != unix.AF_PACKET {
		return unix.EINVAL
	}
	index := int(int32(native.Uint32(sa[4:])))
	_, ok := a.interfaceOf(index)
	if s, some := a.m.stack.(stacks.Shower); index != 0 && (!ok || some && !s.Shows(index)) {
		return unix.ENODEV
	}
	a.mu.Lock()
	if proto := binary.BigEndian.Uint16(sa[2:]); proto != 0 {
		a.proto = proto
	}
	a.ifIndex = index
	a.mu.Unlock()
	a.listen()
	return nil
}

// localName is getsockname(2): only as much of the link address as there is.
func (a *afpacket) localName() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	sa := make([]byte, unix.SizeofSockaddrLinklayer)
	native.PutUint16(sa, unix.AF_PACKET)
	binary.BigEndian.PutUint16(sa[2:], a.proto)
	native.PutUint32(sa[4:], uint32(a.ifIndex))
	if ifc, ok := a.interfaceOf(a.ifIndex); ok {
		hwType, _ := linkOf(&ifc)
		describeLink(sa, hwType, ifc.MAC)
	}
	return sa[:12+int(sa[11])]
}

// linkOf returns the ARPHRD_* of an interface and the length of its header.
func linkOf(ifc *stacks.Interface) (hwType uint16, header int) {
	switch {
	case ifc.Loop:
		return unix.ARPHRD_LOOPBACK, etherHeader
	case ifc.Type == stacks.LinkEthernet:
		return unix.ARPHRD_ETHER, etherHeader
	}
	return unix.ARPHRD_NONE, 0
}

// describeLink fills in the type of an interface and a link address, which may be nil.
func describeLink(sa []byte, hwType uint16, addr []byte) {
	native.PutUint16(sa[8:], hwType)
	if hwType != unix.ARPHRD_NONE {
		sa[11] = etherAddr
		copy(sa[12:12+etherAddr], addr)
	}
}

// saw is the tap: it may run with any lock of the stack held.
func (a *afpacket) saw(f *stacks.Frame) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.closed, a.proto == 0, f.Origin == a,
		a.ifIndex != 0 && a.ifIndex != f.IfIndex,
		a.proto != unix.ETH_P_ALL && (f.Outgoing || a.proto != f.Proto),
		f.Outgoing && a.flag(unix.PACKET_IGNORE_OUTGOING):
		return
	}
	info := &linkInfo{}
	native.PutUint16(info.name[:], unix.AF_PACKET)
	binary.BigEndian.PutUint16(info.name[2:], f.Proto)
	native.PutUint32(info.name[4:], uint32(f.IfIndex))
	head := f.Header
	switch {
	case f.Loop:
		head = make([]byte, etherHeader)
		binary.BigEndian.PutUint16(head[etherHeader-2:], f.Proto)
		describeLink(info.name[:], unix.ARPHRD_LOOPBACK, nil)
	case len(head) == etherHeader:
		describeLink(info.name[:], unix.ARPHRD_ETHER, head[etherAddr:2*etherAddr]) // eth_header_parse: the source
	default:
		describeLink(info.name[:], unix.ARPHRD_NONE, nil)
	}
	info.name[10] = f.Type
	if f.Outgoing {
		info.name[10] = unix.PACKET_OUTGOING
	}
	data, whole := f.Data, f.Data
	if len(head) > 0 {
		whole = append(head[:len(head):len(head)], f.Data...)
		if a.typ == unix.SOCK_RAW {
			data, info.header = whole, len(head)
		}
	}
	info.size = len(data)
	switch {
	case f.Unsummed:
		info.status |= tpacket.StatusCsumNotReady
	case f.Summed && !f.Outgoing:
		info.status |= tpacket.StatusCsumValid
	}
	if f.GSOTCP {
		info.status |= tpacket.StatusGSOTCP
	}
	if a.filter != nil {
		n := a.filter.Run(&bpf.Packet{Data: data, Net: f.Data, Link: whole, Proto: f.Proto,
			Type: info.name[10], IfIndex: f.IfIndex, HAType: native.Uint16(info.name[8:])})
		if n == 0 {
			return
		}
		data = data[:min(uint64(n), uint64(len(data)))]
	}
	info.kept = len(data)
	a.seen++
	if a.ring != nil {
		a.intoRing(data, info, f.Stamp)
		return
	}
	if a.size >= int(a.buffer(unix.SO_RCVBUF)) {
		a.dropped++
		return
	}
	a.size += len(data) + skbOverhead
	m := noMessage
	m.Stamp, m.Link = f.Stamp, info
	a.queue = append(a.queue, caught{append([]byte(nil), data...), m})
	if a.notify != nil {
		a.notify(unix.POLLIN)
	}
}

// intoRing puts a packet into the ring; the mutex is held.
func (a *afpacket) intoRing(data []byte, info *linkInfo, stamp int64) {
	status := info.status
	if a.ring.Version != tpacket.V3 && a.dropped > 0 {
		status |= tpacket.StatusLosing
	}
	ok, wake := a.ring.Add(&tpacket.Packet{Data: data, Len: info.size, Link: info.header, Cooked: a.typ == unix.SOCK_DGRAM,
		Name: info.name[:], Stamp: stamp, Status: status})
	if !ok {
		a.dropped++
	}
	if wake {
		a.ring.wake = true
		if a.notify != nil {
			a.notify(unix.POLLIN)
		}
	}
	a.ring.schedule(a)
}

// RecvMsg takes the next packet.
func (a *afpacket) RecvMsg(p []byte, peek bool) (int, int, stacks.Message, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.queue) == 0 {
		return 0, 0, noMessage, unix.EAGAIN
	}
	q := a.queue[0]
	if !peek {
		a.queue = a.queue[1:]
		a.size -= len(q.data) + skbOverhead
	}
	return copy(p, q.data), len(q.data), q.msg, nil
}

// SendMsg sends what the program has written natively to where the socket is bound.
func (a *afpacket) SendMsg(p []byte, _ stacks.Message) error { return a.send(p, nil) }

// sendFrame sends one trapped packet; a packet socket has neither a peer nor control
// messages of its own. The socket's mutex is held.
func (s *packet) sendFrame(c *intercept.Call, a *afpacket, x *transfer) (int, error) {
	if x.size > datagramMax {
		return 0, unix.EMSGSIZE
	}
	buf := getBuffer()
	defer putBuffer(buf)
	n, err := x.gather(c, *buf)
	if err != nil {
		return 0, err
	}
	if s.gone {
		return 0, unix.EBADF
	}
	s.settleLocked()
	return n, a.send((*buf)[:n], x.to)
}

// send sends a packet (af_packet.c:packet_snd). sa is the program's struct
// sockaddr_ll, empty for none.
func (a *afpacket) send(p, sa []byte) error {
	a.mu.Lock()
	index, proto := a.ifIndex, a.proto
	a.mu.Unlock()
	if len(sa) > 0 {
		if len(sa) < unix.SizeofSockaddrLinklayer || len(sa) < 12+int(sa[11]) {
			return unix.EINVAL
		}
		proto, index = binary.BigEndian.Uint16(sa[2:]), int(int32(native.Uint32(sa[4:])))
	}
	ifc, ok := a.interfaceOf(index)
	if !ok {
		return unix.ENXIO
	}
	if !ifc.Up {
		return unix.ENETDOWN
	}
	_, header := linkOf(&ifc)
	if a.typ == unix.SOCK_DGRAM {
		header = 0
	}
	extra := 0 // packet_extra_vlan_len_allowed
	if header > 0 && len(p) >= header && binary.BigEndian.Uint16(p[header-2:]) == unix.ETH_P_8021Q {
		extra = vlanHeader
	}
	switch {
	case len(p) > ifc.MTU+header+vlanHeader:
		return unix.EMSGSIZE
	case a.typ == unix.SOCK_RAW && (len(p) < header || len(p) == 0):
		return unix.EINVAL
	case len(p) > ifc.MTU+header+extra:
		return unix.EMSGSIZE
	}
	if header > 0 {
		// eth_type_trans reads the type where the packet comes back in.
		proto = binary.BigEndian.Uint16(p[header-2:])
		if ifc.Loop {
			p = p[header:]
		}
	} else if ifc.Type == stacks.LinkEthernet { // net/ethernet/eth.c:eth_header
		if len(sa) == 0 {
			return unix.EINVAL // to nobody
		}
		frame := append(append(make([]byte, 0, etherHeader+len(p)), sa[12:12+etherAddr]...), ifc.MAC...)
		p = append(binary.BigEndian.AppendUint16(frame, proto), p...)
	} else if a.typ == unix.SOCK_RAW && (proto == 0 || proto == unix.ETH_P_ALL) && len(p) > 0 {
		proto = ipProto(p) // packet_parse_headers, for devices without a link header
	}
	return a.tap.Inject(index, proto, p, a)
}

// ipProto is the EtherType that the version of an IP packet says.
func ipProto(p []byte) uint16 {
	switch p[0] >> 4 {
	case 4:
		return unix.ETH_P_IP
	case 6:
		return unix.ETH_P_IPV6
	}
	return 0
}

// auxdata encodes struct tpacket_auxdata.
func (l *linkInfo) auxdata() []byte {
	b := make([]byte, 20)
	native.PutUint32(b[0:], tpacket.StatusUser|l.status)
	native.PutUint32(b[4:], uint32(l.size))
	native.PutUint32(b[8:], uint32(l.kept))
	native.PutUint16(b[14:], uint16(l.header))
	return b
}

// Close ends the socket.
func (a *afpacket) Close() error {
	a.mu.Lock()
	stop := a.stop
	a.closed, a.queue, a.stop = true, nil, nil
	if a.ring != nil {
		a.m.forgetRing(a.ring)
		a.ring.free()
		a.ring = nil
	}
	a.mu.Unlock()
	if stop != nil {
		stop()
	}
	return nil
}

// Watch has f told of packets.
func (a *afpacket) Watch(_ stacks.Events, f func(stacks.Events)) (stop func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.notify = f
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.notify = nil
	}
}

// The rest of stacks.Socket.

func (a *afpacket) Bind(netip.AddrPort) error             { return unix.EINVAL }
func (a *afpacket) Connect(netip.AddrPort) error          { return unix.EOPNOTSUPP }
func (a *afpacket) Shutdown(int) error                    { return unix.EOPNOTSUPP }
func (a *afpacket) Names() (local, remote netip.AddrPort) { return }
func (a *afpacket) Poll() stacks.Events                   { return unix.POLLOUT }

// expired hands over a block of the ring that was open for long enough.
func (a *afpacket) expired(r *ring) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ring != r {
		return
	}
	r.timed = false
	if r.Expire(time.Now()) {
		r.wake = true
		if a.notify != nil {
			a.notify(unix.POLLIN)
		}
	}
	r.schedule(a)
}
