// SPDX-License-Identifier: Apache-2.0

// AF_NETLINK sockets: NETLINK_ROUTE and NETLINK_SOCK_DIAG answer about the view,
// nothing else is there.

package netmod

import (
	"encoding/binary"
	"net/netip"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/netmod/rtnetlink"
	"umrun/netmod/sockdiag"
	"umrun/stacks"
)

// A netlink is the kernel's side of a netlink socket, as a stacks.PacketSocket
// without addresses: requests go in by request, replies come out by RecvMsg.
type netlink struct {
	m     *Module
	proto int // NETLINK_ROUTE or NETLINK_SOCK_DIAG

	mu     sync.Mutex // a leaf
	port   uint32     // nl_pid; 0 before bind or the first request
	groups uint64     // multicast groups that it is in: bit n is group n+1
	listed bool       // it has been in a group: NETLINK_LIST_MEMBERSHIPS tells of all
	queue  [][]byte
	opts   map[int][]byte
	notify func(stacks.Events)
}

// netlinkQueue bounds the replies that wait; a dump of a view is far smaller.
const netlinkQueue = 4096

func newNetlink(m *Module, typ, proto int) (*netlink, error) {
	if typ != unix.SOCK_RAW && typ != unix.SOCK_DGRAM {
		return nil, unix.ESOCKTNOSUPPORT
	}
	if proto != unix.NETLINK_ROUTE && proto != unix.NETLINK_SOCK_DIAG {
		return nil, unix.EPROTONOSUPPORT
	}
	return &netlink{m: m, proto: proto, opts: make(map[int][]byte)}, nil
}

// netlinkName encodes struct sockaddr_nl.
func netlinkName(port uint32) []byte {
	sa := make([]byte, unix.SizeofSockaddrNetlink)
	native.PutUint16(sa, unix.AF_NETLINK)
	native.PutUint32(sa[4:], port)
	return sa
}

func (n *netlink) bind(sa []byte, tgid int) error {
	if len(sa) < unix.SizeofSockaddrNetlink || sockaddrFamily(sa) != unix.AF_NETLINK {
		return unix.EINVAL
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	port := native.Uint32(sa[4:])
	if n.port != 0 && port != n.port {
		return unix.EINVAL
	}
	n.port = port
	n.autobind(tgid)
	n.listed = n.listed || native.Uint32(sa[8:]) != 0
	n.groups = n.groups&^0xffffffff | uint64(native.Uint32(sa[8:]))
	return nil
}

// autobind picks the port as netlink_autobind does first: the thread group's id.
func (n *netlink) autobind(tgid int) {
	if n.port == 0 {
		n.port = uint32(tgid)
	}
}

func (n *netlink) connect(sa []byte, tgid int) error {
	if sockaddrFamily(sa) == unix.AF_UNSPEC && len(sa) >= 2 {
		return nil
	}
	if len(sa) < unix.SizeofSockaddrNetlink || sockaddrFamily(sa) != unix.AF_NETLINK {
		return unix.EINVAL
	}
	if native.Uint32(sa[4:]) != 0 {
		return unix.EPERM
	}
	n.mu.Lock()
	n.autobind(tgid)
	n.mu.Unlock()
	return nil
}

func (n *netlink) localName() []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	sa := netlinkName(n.port)
	native.PutUint32(sa[8:], uint32(n.groups))
	return sa
}

// request serves one write of the program.
func (n *netlink) request(p []byte, tgid int) {
	n.mu.Lock()
	n.autobind(tgid)
	port := n.port
	opts := nlmsg.Options{ExtAck: n.on(unix.NETLINK_EXT_ACK), CapAck: n.on(unix.NETLINK_CAP_ACK), Strict: n.on(unix.NETLINK_GET_STRICT_CHK)}
	n.mu.Unlock()
	var replies [][]byte
	if n.proto == unix.NETLINK_SOCK_DIAG {
		replies = sockdiag.Answer(opts, n.m.listSockets, p, port)
	} else {
		n.m.changing.Lock()
		replies = rtnetlink.Options(opts).Serve(n.m.counted(), n.m.setState(), p, port)
		n.m.changing.Unlock()
	}
	n.put(replies...)
}

// put queues datagrams for the program.
func (n *netlink) put(d ...[]byte) {
	n.mu.Lock()
	if len(n.queue)+len(d) <= netlinkQueue {
		n.queue = append(n.queue, d...)
	}
	notify := n.notify
	n.mu.Unlock()
	if notify != nil && len(d) > 0 {
		notify(unix.POLLIN)
	}
}

// counted is the stack's State, with counters if it has them.
func (m *Module) counted() stacks.State {
	s := m.stack.State()
	c, ok := m.stack.(stacks.Counter)
	if !ok {
		return s
	}
	s.Interfaces = slices.Clone(s.Interfaces)
	for i := range s.Interfaces {
		s.Interfaces[i].Counters = c.Counters(s.Interfaces[i].Index)
	}
	return s
}

// announce sends notifications to the sockets that are members of their groups.
func (m *Module) announce(all []rtnetlink.Notification) {
	m.mu.Lock()
	var members []*netlink
	for _, s := range m.sockets {
		if p, ok := s.(*packet); ok && p.family == unix.AF_NETLINK {
			if n, ok := p.pkt.(*netlink); ok && n.proto == unix.NETLINK_ROUTE {
				members = append(members, n)
			}
		}
	}
	m.mu.Unlock()
	for _, n := range members {
		var d [][]byte
		n.mu.Lock()
		groups := n.groups
		n.mu.Unlock()
		for _, x := range all {
			if groups&(1<<(x.Group-1)) != 0 {
				d = append(d, x.Data)
			}
		}
		n.put(d...)
	}
}

// on tells whether a flag of netlink(7) was set; the mutex is held.
func (n *netlink) on(name int) bool {
	v := n.opts[unix.SOL_NETLINK<<16|name]
	return len(v) >= 4 && native.Uint32(v) != 0
}

// SendMsg serves a native write.
func (n *netlink) SendMsg(p []byte, _ stacks.Message) error {
	n.request(p, os.Getpid())
	return nil
}

// RecvMsg takes the next reply.
func (n *netlink) RecvMsg(p []byte, peek bool) (int, int, stacks.Message, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.queue) == 0 {
		return 0, 0, noMessage, unix.EAGAIN
	}
	q := n.queue[0]
	if !peek {
		n.queue = n.queue[1:]
	}
	return copy(p, q), len(q), noMessage, nil
}

// The rest of stacks.Socket.

func (n *netlink) Bind(netip.AddrPort) error             { return unix.EINVAL }
func (n *netlink) Connect(netip.AddrPort) error          { return unix.EINVAL }
func (n *netlink) Shutdown(int) error                    { return unix.EOPNOTSUPP }
func (n *netlink) Names() (local, remote netip.AddrPort) { return }
func (n *netlink) Close() error                          { return nil }
func (n *netlink) Poll() stacks.Events                   { return unix.POLLOUT }
func (n *netlink) Watch(_ stacks.Events, f func(stacks.Events)) (stop func()) {
	n.mu.Lock()
	n.notify = f
	n.mu.Unlock()
	return func() {
		n.mu.Lock()
		n.notify = nil
		n.mu.Unlock()
	}
}

// groupMax is the last group of NETLINK_ROUTE that can be joined: those that the
// mask of sockaddr_nl names, and some more, of which nothing is told here.
const groupMax = 64

// SetOption takes buffer sizes and the options of netlink(7).
func (n *netlink) SetOption(level, name int, v []byte) error {
	switch level {
	case unix.SOL_SOCKET:
		switch name {
		case unix.SO_RCVBUF, unix.SO_SNDBUF, unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE, unix.SO_PASSCRED, unix.SO_REUSEADDR:
		default:
			return unix.ENOPROTOOPT
		}
	case unix.SOL_NETLINK:
		switch name {
		case unix.NETLINK_EXT_ACK, unix.NETLINK_GET_STRICT_CHK, unix.NETLINK_PKTINFO, unix.NETLINK_CAP_ACK,
			unix.NETLINK_NO_ENOBUFS, unix.NETLINK_BROADCAST_ERROR, unix.NETLINK_LISTEN_ALL_NSID:
		case unix.NETLINK_ADD_MEMBERSHIP, unix.NETLINK_DROP_MEMBERSHIP:
			return n.member(name == unix.NETLINK_ADD_MEMBERSHIP, v)
		default:
			return unix.ENOPROTOOPT
		}
	default:
		return unix.ENOPROTOOPT
	}
	n.mu.Lock()
	n.opts[level<<16|name] = append([]byte(nil), v...)
	n.mu.Unlock()
	return nil
}

// member joins or leaves a multicast group.
func (n *netlink) member(join bool, v []byte) error {
	if len(v) < 4 {
		return unix.EINVAL
	}
	g := native.Uint32(v)
	if g == 0 || g > groupMax {
		return unix.EINVAL
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listed = true
	if join {
		n.groups |= 1 << (g - 1)
	} else {
		n.groups &^= 1 << (g - 1)
	}
	return nil
}

// Option tells what SetOption was given, or the defaults.
func (n *netlink) Option(level, name int, v []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if level == unix.SOL_NETLINK {
		switch name {
		case unix.NETLINK_LIST_MEMBERSHIPS:
			if !n.listed {
				return 0, nil
			}
			copy(v, binary.NativeEndian.AppendUint64(nil, n.groups))
			return groupMax / 8, nil
		case unix.NETLINK_EXT_ACK, unix.NETLINK_GET_STRICT_CHK, unix.NETLINK_PKTINFO, unix.NETLINK_CAP_ACK,
			unix.NETLINK_NO_ENOBUFS, unix.NETLINK_BROADCAST_ERROR:
			if len(v) < 4 {
				return 0, unix.EINVAL
			}
			set := 0
			if n.on(name) {
				set = 1
			}
			return copy(v, int32Value(set)), nil
		}
		return 0, unix.ENOPROTOOPT
	}
	if o, ok := n.opts[level<<16|name]; ok {
		return copy(v, o), nil
	}
	if level == unix.SOL_SOCKET {
		switch name {
		case unix.SO_RCVBUF, unix.SO_SNDBUF:
			return copy(v, int32Value(212992)), nil
		case unix.SO_ERROR, unix.SO_REUSEADDR:
			return copy(v, int32Value(0)), nil
		}
	}
	return 0, unix.ENOPROTOOPT
}
