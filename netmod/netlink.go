// SPDX-License-Identifier: Apache-2.0

// AF_NETLINK sockets: NETLINK_ROUTE and NETLINK_SOCK_DIAG answer about the view.
// NETLINK_KOBJECT_UEVENT is silent, as in a network namespace of an ordinary user:
// events of devices are the host's, and programs that listen for them (libudev,
// libusb) want a socket before they look at what is there. Nothing else is there.

package netmod

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/netmod/rtnetlink"
	"umrun/netmod/sockdiag"
	"umrun/stacks"
	"umrun/stacks/bpf"
)

// A netlink is the kernel's side of a netlink socket, as a stacks.PacketSocket
// without addresses: requests go in by request, replies come out by RecvMsg.
type netlink struct {
	m     *Module
	proto int // NETLINK_*

	mu     sync.Mutex // a leaf
	port   uint32     // nl_pid; 0 before bind or the first request
	maker  int        // the thread group that made the socket; it is taken for who writes without a trap
	groups uint64     // multicast groups that it is in: bit n is group n+1
	echoed bool       // it was told what it asked for, as a group is
	listed bool       // it has been in a group: NETLINK_LIST_MEMBERSHIPS tells of all
	queue  []groupDatagram
	opts   map[int][]byte
	filter *bpf.Program // SO_ATTACH_FILTER
	notify func(stacks.Events)
}

// A groupDatagram is what waits for the program.
type groupDatagram struct {
	data  []byte
	group int // the multicast group that it was sent to, 0: to the socket
}

// netlinkQueue bounds the replies that wait; a dump of a view is far smaller.
const netlinkQueue = 4096

func newNetlink(m *Module, typ, proto int) (*netlink, error) {
	if typ != unix.SOCK_RAW && typ != unix.SOCK_DGRAM {
		return nil, unix.ESOCKTNOSUPPORT
	}
	switch proto {
	case unix.NETLINK_ROUTE, unix.NETLINK_SOCK_DIAG, unix.NETLINK_KOBJECT_UEVENT:
	default:
		return nil, unix.EPROTONOSUPPORT
	}
	return &netlink{m: m, proto: proto, opts: make(map[int][]byte)}, nil
}

// netlinkName encodes struct sockaddr_nl. A group is told as a mask, which has room
// for the first 32.
func netlinkName(port uint32, group int) []byte {
	sa := make([]byte, unix.SizeofSockaddrNetlink)
	native.PutUint16(sa, unix.AF_NETLINK)
	native.PutUint32(sa[4:], port)
	if group > 0 && group <= 32 {
		native.PutUint32(sa[8:], 1<<(group-1))
	}
	return sa
}

// constSource tells whether all datagrams come from the same name: those that a
// multicast group is sent come from it.
func (n *netlink) constSource() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.groups == 0 && !n.echoed
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
	if n.port == 0 && port != 0 {
		if !n.take(port) {
			return unix.EADDRINUSE
		}
		n.port = port
	}
	n.autobind(tgid)
	n.listed = n.listed || native.Uint32(sa[8:]) != 0
	n.groups = n.groups&^0xffffffff | uint64(native.Uint32(sa[8:]))
	return nil
}

// autobind picks the port as netlink_autobind does: the thread group's id, or when
// another socket has that, some number from below -4096. The mutex is held.
func (n *netlink) autobind(tgid int) {
	for port := uint32(tgid); n.port == 0; port = uint32(-4097 - rand.Int32N(1<<30)) {
		if n.take(port) {
			n.port = port
		}
	}
}

// take takes a port; false: another socket of the protocol has it. One that is
// closed, and whose hang-up was not served yet, has none. The mutex is held, and that
// of the socket; the holder's may be waited for, since who holds a port waits for
// none.
func (n *netlink) take(port uint32) bool {
	holder := n.m.ports.take(n, port)
	if holder == nil {
		return true
	}
	if s := n.m.netlinkSocket(holder); s != nil {
		s.reapHungUp()
	}
	return n.m.ports.take(n, port) == nil
}

// netlinkSocket is the socket whose kernel's side n is.
func (m *Module) netlinkSocket(n *netlink) *packet {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sockets {
		if p, ok := s.(*packet); ok && p.family == unix.AF_NETLINK && p.pkt == stacks.PacketSocket(n) {
			return p
		}
	}
	return nil
}

// A netlinkPort is a port of a protocol.
type netlinkPort struct {
	proto int
	port  uint32
}

// netlinkPorts are the ports that are taken. Its mutex is a leaf, also below
// netlink.mu.
type netlinkPorts struct {
	mu    sync.Mutex
	taken map[netlinkPort]*netlink
}

// take takes a port for n, or tells who has it.
func (p *netlinkPorts) take(n *netlink, port uint32) (holder *netlink) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := netlinkPort{n.proto, port}
	if holder, ok := p.taken[k]; ok {
		return holder
	}
	if p.taken == nil {
		p.taken = make(map[netlinkPort]*netlink)
	}
	p.taken[k] = n
	return nil
}

func (p *netlinkPorts) release(proto int, port uint32) {
	p.mu.Lock()
	delete(p.taken, netlinkPort{proto, port})
	p.mu.Unlock()
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
	sa := netlinkName(n.port, 0)
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
	switch n.proto {
	case unix.NETLINK_SOCK_DIAG:
		replies = sockdiag.Answer(opts, sockdiag.Sources{Inet: n.m.listSockets, Netlink: n.m.listNetlink, Packet: n.m.listPackets, Destroy: n.m.abort}, p, port)
	case unix.NETLINK_ROUTE:
		n.m.changing.Lock()
		replies = rtnetlink.Options(opts).ServeGuided(n.m.counted(), n.m.guide(), n.m.setState(), p, port)
		n.m.changing.Unlock()
	case unix.NETLINK_KOBJECT_UEVENT:
		replies = nlmsg.Serve(opts, p, port, func(nlmsg.Message, *nlmsg.Writer) (bool, *nlmsg.Failure) {
			return false, nlmsg.Fail(unix.EPERM, "")
		})
	}
	d := make([]groupDatagram, len(replies))
	for i, r := range replies {
		d[i].data = r
	}
	n.enqueue(d)
}

// enqueue queues datagrams for the program, as far as its filter lets them pass.
func (n *netlink) enqueue(d []groupDatagram) {
	n.mu.Lock()
	if n.filter != nil {
		d = slices.DeleteFunc(d, func(x groupDatagram) bool { return n.filter.Run(&bpf.Packet{Data: x.data}) == 0 })
	}
	if len(n.queue)+len(d) <= netlinkQueue {
		n.queue = append(n.queue, d...)
	}
	notify := n.notify
	n.mu.Unlock()
	if notify != nil && len(d) > 0 {
		notify(unix.POLLIN)
	}
}

// guide says which routes lead where, if the stack does not leave that to its tables.
func (m *Module) guide() rtnetlink.Guide {
	if g, ok := m.stack.(stacks.Guide); ok {
		return g.StateTo
	}
	return nil
}

// counted is [Module.state], with counters if the stack has them.
func (m *Module) counted() stacks.State {
	s := m.state()
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

// announce sends notifications to the sockets that are members of their groups, and
// to the one that asked for the change and for an echo.
func (m *Module) announce(all []rtnetlink.Notification, by rtnetlink.Origin) {
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
		var d []groupDatagram
		n.mu.Lock()
		echo := by.Echo && by.Port != 0 && by.Port == n.port
		n.echoed = n.echoed || echo
		for _, x := range all {
			if n.groups&(1<<(x.Group-1)) != 0 || echo && x.Own {
				d = append(d, groupDatagram{x.Data, x.Group})
			}
		}
		n.mu.Unlock()
		n.enqueue(d)
	}
}

// SendMsg serves a native write.
func (n *netlink) SendMsg(p []byte, _ stacks.Message) error {
	n.mu.Lock()
	by := n.maker
	n.mu.Unlock()
	n.request(p, by)
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
	m := noMessage
	m.IfIndex = q.group // there are no interfaces here
	return copy(p, q.data), len(q.data), m, nil
}

// Close gives the port back.
func (n *netlink) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.port != 0 {
		n.m.ports.release(n.proto, n.port)
		n.port = 0
	}
	return nil
}

// The rest of stacks.Socket.

func (n *netlink) Bind(netip.AddrPort) error             { return unix.EINVAL }
func (n *netlink) Connect(netip.AddrPort) error          { return unix.EINVAL }
func (n *netlink) Shutdown(int) error                    { return unix.EOPNOTSUPP }
func (n *netlink) Names() (local, remote netip.AddrPort) { return }
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
