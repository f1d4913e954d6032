// SPDX-License-Identifier: Apache-2.0

// Requests: which sockets they are about, and what is said of each.

package sockdiag

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/stacks"
)

// Layouts and numbers of linux/inet_diag.h and linux/sock_diag.h.
const (
	byFamily = 20 // SOCK_DIAG_BY_FAMILY
	destroy  = 21 // SOCK_DESTROY

	reqLen  = 56               // struct inet_diag_req_v2
	idAt    = 8                // its struct inet_diag_sockid
	maxPF   = 46               // AF_MAX
	filter  = 1                // INET_DIAG_REQ_BYTECODE
	rawDiag = unix.IPPROTO_RAW // all raw sockets; their protocol is told as local port

	attrInfo     = 2  // INET_DIAG_INFO
	attrCong     = 4  // INET_DIAG_CONG
	attrMemory   = 7  // INET_DIAG_SKMEMINFO
	attrShutdown = 8  // INET_DIAG_SHUTDOWN
	attrV6Only   = 11 // INET_DIAG_SKV6ONLY

	rcvShutdown  = 1
	sendShutdown = 2
)

// States of a TCP socket, netinet/tcp.h. A datagram socket is in Established
// with a peer and in Close without.
const (
	Established = 1
	SynSent     = 2
	SynRecv     = 3
	FinWait1    = 4
	FinWait2    = 5
	TimeWait    = 6
	Close       = 7
	CloseWait   = 8
	LastAck     = 9
	Listen      = 10
	Closing     = 11
)

// maxDumps bounds what one request can make us build: when that many bytes were
// answered, further dumps of the same request get EBUSY.
const maxDumps = 64 << 10

// A Socket is one socket as ss shows it.
type Socket struct {
	stacks.Endpoint
	Cookie  uint64 // SO_COOKIE; 0 when it has none
	Inode   uint32 // of the file that programs hold; 0 when nobody does
	UID     uint32
	IfIndex int  // SO_BINDTODEVICE
	V6Only  bool // IPV6_V6ONLY

	Info       []byte // struct tcp_info, may be nil
	Congestion string // TCP_CONGESTION, may be empty

	RcvBuf, SndBuf int // bytes, SO_RCVBUF and SO_SNDBUF
}

// Sources tell of the sockets of each family, when an answer needs them.
type Sources struct {
	Inet    func() []Socket
	Netlink func() []Netlink
	Packet  func() []Packet

	// Destroy ends the socket with a cookie (SOCK_DESTROY); ENOENT if there is none.
	Destroy func(cookie uint64) unix.Errno
}

// Answer returns the datagrams, in order, that a NETLINK_SOCK_DIAG socket with the
// address port receives for what it sent in one sendmsg(2); see [nlmsg.Serve].
func Answer(o nlmsg.Options, from Sources, req []byte, port uint32) [][]byte {
	return nlmsg.Serve(o, req, port, func(m nlmsg.Message, w *nlmsg.Writer) (bool, *nlmsg.Failure) {
		dumped, errno := serve(from, m, w)
		if errno != 0 {
			return false, nlmsg.Fail(errno, "")
		}
		return dumped, nil
	})
}

// serve is sock_diag_rcv_msg and inet_diag_handler_cmd.
func serve(from Sources, m nlmsg.Message, w *nlmsg.Writer) (dumped bool, _ unix.Errno) {
	if m.Type != byFamily && m.Type != destroy || len(m.Body) < 2 || m.Body[0] >= maxPF {
		return false, unix.EINVAL
	}
	family := int(m.Body[0])
	inet := family == unix.AF_INET || family == unix.AF_INET6
	switch {
	case !inet && family != unix.AF_NETLINK && family != unix.AF_PACKET:
		return false, unix.ENOENT
	case m.Type == destroy && !inet:
		return false, unix.EOPNOTSUPP
	case family == unix.AF_NETLINK && len(m.Body) < netlinkReqLen:
		return false, unix.EINVAL
	case family == unix.AF_PACKET && (len(m.Body) < packetReqLen || m.Body[1] != 0):
		return false, unix.EINVAL
	case !inet && !m.Dump():
		return false, unix.EOPNOTSUPP
	case inet && len(m.Body) < reqLen:
		return false, unix.EINVAL
	case m.Dump() && w.Size() > maxDumps:
		return false, unix.EBUSY
	case family == unix.AF_NETLINK:
		dumpNetlink(m.Body, from.Netlink(), w)
		return true, 0
	case family == unix.AF_PACKET:
		dumpPackets(m.Body, from.Packet(), w)
		return true, 0
	}
	q := newQuery(m.Body)
	if m.Type == destroy {
		found, errno := q.find(from.Inet())
		switch {
		case errno != 0:
			return false, errno
		case found.Cookie == 0 || from.Destroy == nil:
			return false, unix.EOPNOTSUPP // nobody holds it
		}
		return false, from.Destroy(found.Cookie)
	}
	if !m.Dump() {
		return false, q.one(from.Inet(), w)
	}
	var code program
	if c, ok := nlmsg.Attrs(m.Body, reqLen)[filter]; ok {
		if code = program(c); !code.valid() {
			return false, unix.EINVAL
		}
	}
	switch q.proto {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, rawDiag:
	default:
		w.DoneWith(nlmsg.Fail(unix.ENOENT, "")) // the dump has begun before the module is missed
		return true, 0
	}
	q.all(from.Inet(), code, w)
	w.Done()
	return true, 0
}

// A query is struct inet_diag_req_v2.
type query struct {
	family, proto int
	ext           uint8 // attributes that are wanted, a bit for each less one
	states        uint32
	src, dst      netip.AddrPort
	ifIndex       int
	cookie        uint64
}

func newQuery(b []byte) query {
	id := b[idAt:reqLen]
	q := query{family: int(b[0]), proto: int(b[1]), ext: b[2], states: binary.NativeEndian.Uint32(b[4:]),
		ifIndex: int(binary.NativeEndian.Uint32(id[36:])), cookie: binary.NativeEndian.Uint64(id[40:])}
	addr := func(b []byte) netip.Addr {
		if q.family == unix.AF_INET {
			return netip.AddrFrom4([4]byte(b[:4]))
		}
		return netip.AddrFrom16([16]byte(b[:16])).Unmap()
	}
	q.src = netip.AddrPortFrom(addr(id[4:]), binary.BigEndian.Uint16(id))
	q.dst = netip.AddrPortFrom(addr(id[20:]), binary.BigEndian.Uint16(id[2:]))
	return q
}

// all writes the sockets that a dump asks for, listeners first.
func (q *query) all(list []Socket, code program, w *nlmsg.Writer) {
	for _, listeners := range []bool{true, false} {
		for i := range list {
			s := &list[i]
			if (s.State == Listen) != listeners || s.Proto != q.proto || s.Family != q.family ||
				q.states&(1<<s.State) == 0 ||
				q.src.Port() != 0 && q.src.Port() != s.Local.Port() ||
				q.dst.Port() != 0 && q.dst.Port() != s.Remote.Port() || !code.accepts(s) {
				continue
			}
			s.write(w, q.ext, unix.NLM_F_MULTI)
		}
	}
}

// one writes the socket that packets between two addresses would reach:
// inet_diag_dump_one_icsk and udp_dump_one. The latter has source and
// destination the other way round.
func (q *query) one(list []Socket, w *nlmsg.Writer) unix.Errno {
	asked := *q
	switch q.proto {
	case unix.IPPROTO_TCP:
	case unix.IPPROTO_UDP:
		asked.src, asked.dst = q.dst, q.src
	default:
		return unix.ENOENT
	}
	found, errno := asked.find(list)
	if errno != 0 {
		return errno
	}
	found.write(w, q.ext, 0)
	return 0
}

// find is the socket that packets from src to dst of the query would come from.
func (q *query) find(list []Socket) (*Socket, unix.Errno) {
	var found *Socket
	best := 0
	for i := range list {
		s := &list[i]
		if s.Proto != q.proto || q.ifIndex != 0 && s.IfIndex != 0 && q.ifIndex != s.IfIndex {
			continue
		}
		if score := s.score(q.src, q.dst); score > best {
			best, found = score, s
		}
	}
	if found == nil {
		return nil, unix.ENOENT
	}
	if q.cookie != ^uint64(0) && q.cookie != found.Cookie {
		if q.proto == unix.IPPROTO_UDP {
			return nil, unix.ESTALE
		}
		return nil, unix.ENOENT
	}
	return found, 0
}

// score says how well the socket fits: 0 not at all, more for a peer than for a
// local address than for the wildcard.
func (s *Socket) score(local, remote netip.AddrPort) int {
	own, peer := unmap(s.Local), unmap(s.Remote)
	if own.Port() != local.Port() {
		return 0
	}
	score := 1
	switch {
	case own.Addr() == local.Addr():
		score++
	case !own.Addr().IsUnspecified(), own.Addr().Is6() != local.Addr().Is6() && (own.Addr().Is4() || s.V6Only):
		return 0
	}
	switch {
	case !peer.IsValid() && (s.State == Listen || s.Proto != unix.IPPROTO_TCP):
	case peer == remote:
		score += 2
	default:
		return 0
	}
	return score
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// write writes struct inet_diag_msg and the attributes that ext asks for.
func (s *Socket) write(w *nlmsg.Writer, ext uint8, flags uint16) {
	w.Begin(byFamily, flags)
	w.U8(uint8(s.Family), uint8(s.State), uint8(s.Timer.Kind), uint8(min(s.Timer.Retries, 255)))
	w.Bytes(binary.BigEndian.AppendUint16(nil, s.Local.Port()))
	w.Bytes(binary.BigEndian.AppendUint16(nil, s.Remote.Port()))
	address(w, s.Local.Addr(), s.Family)
	address(w, s.Remote.Addr(), s.Family)
	w.U32(uint32(s.IfIndex))
	w.U64(s.Cookie)
	w.U32(uint32(s.Timer.Expires.Milliseconds()))
	w.U32(uint32(s.RecvQ))
	w.U32(uint32(s.SendQ))
	w.U32(s.UID)
	w.U32(s.Inode)
	w.AttrU8(attrShutdown, s.shutdown())
	if s.Family == unix.AF_INET6 && (s.State == Listen || s.State == Close) {
		var only uint8
		if s.V6Only {
			only = 1
		}
		w.AttrU8(attrV6Only, only)
	}
	if wants(ext, attrMemory) {
		w.Attr(attrMemory, memory(s.RecvQ, s.RcvBuf, s.SendQ, s.SndBuf))
	}
	if wants(ext, attrInfo) && s.Info != nil {
		w.Attr(attrInfo, s.Info)
	}
	if wants(ext, attrCong) && s.Congestion != "" {
		w.AttrString(attrCong, s.Congestion)
	}
	w.End()
}

// memory is the array that SK_MEMINFO_* of linux/sock_diag.h index: what is received,
// the bound of that, what is sent, its bound, and five numbers that are the kernel's.
func memory(recvQ, rcvBuf, sendQ, sndBuf int) []byte {
	var b []byte
	for _, v := range [9]int{recvQ, rcvBuf, sendQ, sndBuf, 0, sendQ} {
		b = binary.NativeEndian.AppendUint32(b, uint32(v))
	}
	return b
}

func wants(ext uint8, attr int) bool { return ext&(1<<(attr-1)) != 0 }

// address writes four words; the zero Addr and what is short leave the rest 0.
func address(w *nlmsg.Writer, a netip.Addr, family int) {
	var b [16]byte
	switch {
	case a.Is6() && family == unix.AF_INET6:
		b = a.As16()
	case a.Is4() && family == unix.AF_INET6 && !a.IsUnspecified():
		b = a.As16() // IPv4-mapped
	case a.Is4() || a.Is4In6():
		v4 := a.Unmap().As4()
		copy(b[:], v4[:])
	}
	w.Bytes(b[:])
}

// shutdown is sk_shutdown, as it follows from the state.
func (s *Socket) shutdown() uint8 {
	if s.Proto != unix.IPPROTO_TCP {
		return 0
	}
	switch s.State {
	case CloseWait:
		return rcvShutdown
	case FinWait1, FinWait2:
		return sendShutdown
	case TimeWait, LastAck, Closing:
		return rcvShutdown | sendShutdown
	}
	return 0
}
