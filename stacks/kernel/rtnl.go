// SPDX-License-Identifier: Apache-2.0

// rtnetlink(7): requests to the kernel about the namespace.

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"umrun/stacks"
)

var native = binary.NativeEndian

// A rtnl is a netlink socket of the namespace. It is safe for concurrent use.
type rtnl struct {
	mu   sync.Mutex // one request at a time
	conn *netlink.Conn
}

// newRTNL takes over fd, a socket of AF_NETLINK.
func newRTNL(fd int) (*rtnl, error) {
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind a netlink socket: %w", err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("name of a netlink socket: %w", err)
	}
	nl, ok := sa.(*unix.SockaddrNetlink)
	if !ok {
		unix.Close(fd)
		return nil, unix.EPROTO
	}
	return &rtnl{conn: netlink.NewConn(&nlSocket{fd: fd, buf: make([]byte, 64<<10)}, nl.Pid)}, nil
}

func (r *rtnl) close() { _ = r.conn.Close() }

// execute sends a request and returns the replies. Errors wrap a unix.Errno.
func (r *rtnl) execute(typ uint16, flags netlink.HeaderFlags, data []byte) ([]netlink.Message, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request | flags},
		Data:   data,
	})
}

// change sends a request that has no reply but success.
func (r *rtnl) change(typ uint16, flags netlink.HeaderFlags, data []byte) error {
	_, err := r.execute(typ, netlink.Acknowledge|flags, data)
	var oe *netlink.OpError
	if errors.As(err, &oe) {
		var e unix.Errno
		if errors.As(err, &e) {
			return e
		}
	}
	return err
}

// nlSocket is a [netlink.Socket] over a descriptor. Who asks the kernel has its answer
// in the queue when sendmsg(2) returns, so that nothing here waits.
type nlSocket struct {
	fd  int
	buf []byte
}

func (s *nlSocket) Close() error { return unix.Close(s.fd) }

func (s *nlSocket) Send(m netlink.Message) error {
	b, err := m.MarshalBinary()
	if err != nil {
		return err
	}
	return unix.Sendto(s.fd, b, unix.MSG_DONTWAIT, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

func (s *nlSocket) SendMessages(ms []netlink.Message) error {
	for _, m := range ms {
		if err := s.Send(m); err != nil {
			return err
		}
	}
	return nil
}

func (s *nlSocket) Receive() ([]netlink.Message, error) {
	var n int
	for {
		var err error
		if n, _, err = unix.Recvfrom(s.fd, s.buf, unix.MSG_DONTWAIT|unix.MSG_TRUNC); !errors.Is(err, unix.EINTR) {
			if err != nil {
				return nil, err
			}
			break
		}
	}
	if n > len(s.buf) {
		return nil, unix.EMSGSIZE
	}
	var ms []netlink.Message
	for b := s.buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
		size := int(native.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return nil, unix.EBADMSG
		}
		ms = append(ms, netlink.Message{
			Header: netlink.Header{
				Length: uint32(size), Type: netlink.HeaderType(native.Uint16(b[4:])), Flags: netlink.HeaderFlags(native.Uint16(b[6:])),
				Sequence: native.Uint32(b[8:]), PID: native.Uint32(b[12:]),
			},
			Data: slices.Clone(b[unix.SizeofNlMsghdr:size]),
		})
		b = b[min((size+3)&^3, len(b)):]
	}
	return ms, nil
}

func (s *nlSocket) ReceiveIter() iter.Seq2[netlink.Message, error] {
	return func(yield func(netlink.Message, error) bool) {
		ms, err := s.Receive()
		if err != nil {
			yield(netlink.Message{}, err)
			return
		}
		for _, m := range ms {
			if !yield(m, nil) {
				return
			}
		}
	}
}

// attrs encodes attributes behind a header.
func attrs(header []byte, f func(*netlink.AttributeEncoder)) ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	f(ae)
	b, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	return append(header, b...), nil
}

// setLink changes an interface (RTM_NEWLINK): the flags in mask, and mtu, mac and
// txqueue unless they are zero.
func (r *rtnl) setLink(index int, flags, mask uint32, mtu int, mac net.HardwareAddr, txqueue int) error {
	h := make([]byte, unix.SizeofIfInfomsg)
	native.PutUint32(h[4:], uint32(index))
	native.PutUint32(h[8:], flags)
	native.PutUint32(h[12:], mask)
	b, err := attrs(h, func(ae *netlink.AttributeEncoder) {
		if mtu > 0 {
			ae.Uint32(unix.IFLA_MTU, uint32(mtu))
		}
		if len(mac) > 0 {
			ae.Bytes(unix.IFLA_ADDRESS, mac)
		}
		if txqueue > 0 {
			ae.Uint32(unix.IFLA_TXQLEN, uint32(txqueue))
		}
	})
	if err != nil {
		return err
	}
	return r.change(unix.RTM_NEWLINK, 0, b)
}

// family is that of an address.
func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// setAddr adds, or with RTM_DELADDR removes, an address of an interface.
func (r *rtnl) setAddr(typ uint16, index int, p netip.Prefix, info stacks.AddrInfo) error {
	h := make([]byte, unix.SizeofIfAddrmsg)
	h[0], h[1] = family(p.Addr()), uint8(p.Bits())
	if info.Told {
		h[3] = info.Scope
	}
	native.PutUint32(h[4:], uint32(index))
	flags := info.Flags &^ (unix.IFA_F_PERMANENT | unix.IFA_F_TENTATIVE | unix.IFA_F_SECONDARY | unix.IFA_F_DEPRECATED)
	b, err := attrs(h, func(ae *netlink.AttributeEncoder) {
		peer := info.Peer
		if !peer.IsValid() {
			peer = p.Addr()
		}
		ae.Bytes(unix.IFA_LOCAL, p.Addr().AsSlice())
		ae.Bytes(unix.IFA_ADDRESS, peer.AsSlice())
		if typ == unix.RTM_DELADDR {
			return
		}
		if info.Broadcast.Is4() {
			ae.Bytes(unix.IFA_BROADCAST, info.Broadcast.AsSlice())
		}
		if info.Label != "" && p.Addr().Is4() {
			ae.String(unix.IFA_LABEL, info.Label)
		}
		if info.Metric != 0 {
			ae.Uint32(unix.IFA_RT_PRIORITY, uint32(info.Metric))
		}
		ae.Uint32(unix.IFA_FLAGS, flags)
		if life, ok := lifetime(info); ok {
			ae.Bytes(unix.IFA_CACHEINFO, life)
		}
	})
	if err != nil {
		return err
	}
	if typ == unix.RTM_DELADDR {
		return r.change(typ, 0, b)
	}
	return r.change(typ, netlink.Create|netlink.Replace, b)
}

// setRoute adds, or with RTM_DELROUTE removes, a route.
func (r *rtnl) setRoute(typ uint16, rt stacks.Route) error {
	return r.routeRequest(typ, netlink.Create|netlink.Excl, rt, "")
}

// setCongestion has connections along a route use a congestion control.
func (r *rtnl) setCongestion(rt stacks.Route, cc string) error {
	return r.routeRequest(unix.RTM_NEWROUTE, netlink.Replace, rt, cc)
}

// routeRequest is RTM_NEWROUTE or RTM_DELROUTE; cc is empty for the default.
func (r *rtnl) routeRequest(typ uint16, flags netlink.HeaderFlags, rt stacks.Route, cc string) error {
	fam := family(rt.Dst.Addr())
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[1] = fam, uint8(rt.Dst.Bits())
	table := rt.Table
	if table == 0 {
		table = unix.RT_TABLE_MAIN
	}
	h[4] = uint8(unix.RT_TABLE_UNSPEC)
	h[5] = unix.RTPROT_STATIC
	if rt.Proto != 0 {
		h[5] = uint8(rt.Proto)
	}
	h[6] = unix.RT_SCOPE_UNIVERSE
	if fam == unix.AF_INET && !rt.Gateway.IsValid() && (rt.Type == 0 || rt.Type == unix.RTN_UNICAST) {
		h[6] = unix.RT_SCOPE_LINK
	}
	if rt.Type == unix.RTN_LOCAL {
		h[6] = unix.RT_SCOPE_HOST
	}
	h[7] = unix.RTN_UNICAST
	if rt.Type != 0 {
		h[7] = uint8(rt.Type)
	}
	if typ == unix.RTM_DELROUTE {
		h[6] = unix.RT_SCOPE_NOWHERE // whatever it is
	}
	if rt.OnLink {
		native.PutUint32(h[8:], unix.RTNH_F_ONLINK)
	}
	b, err := attrs(h, func(ae *netlink.AttributeEncoder) {
		ae.Uint32(unix.RTA_TABLE, uint32(table))
		if rt.Dst.Bits() > 0 {
			ae.Bytes(unix.RTA_DST, rt.Dst.Addr().AsSlice())
		}
		if rt.Gateway.IsValid() {
			ae.Bytes(unix.RTA_GATEWAY, rt.Gateway.WithZone("").AsSlice())
		}
		if rt.Src.IsValid() {
			ae.Bytes(unix.RTA_PREFSRC, rt.Src.AsSlice())
		}
		if rt.IfIndex != 0 {
			ae.Uint32(unix.RTA_OIF, uint32(rt.IfIndex))
		}
		if rt.Metric != 0 {
			ae.Uint32(unix.RTA_PRIORITY, uint32(rt.Metric))
		}
		if rt.MTU != 0 || cc != "" {
			ae.Nested(unix.RTA_METRICS, func(ae *netlink.AttributeEncoder) error {
				if rt.MTU != 0 {
					ae.Uint32(unix.RTAX_MTU, uint32(rt.MTU))
				}
				if cc != "" {
					ae.String(unix.RTAX_CC_ALGO, cc)
				}
				return nil
			})
		}
	})
	if err != nil {
		return err
	}
	if typ == unix.RTM_DELROUTE {
		return r.change(typ, 0, b)
	}
	return r.change(typ, flags, b)
}

// A portRule sends what goes to a port of an address to a routing table of its own,
// unless it is marked with ownMark.
type portRule struct {
	src, dst netip.Addr // src: the zero Addr for any
	proto    int        // IPPROTO_*
	port     uint16
	table    int
	priority int
}

// addRule adds a rule.
func (r *rtnl) addRule(p portRule) error {
	h := make([]byte, 12) // struct fib_rule_hdr
	h[0], h[1], h[2] = family(p.dst), uint8(p.dst.BitLen()), uint8(p.src.BitLen())
	h[7] = unix.FR_ACT_TO_TBL
	b, err := attrs(h, func(ae *netlink.AttributeEncoder) {
		ae.Bytes(unix.FRA_DST, p.dst.AsSlice())
		if p.src.IsValid() {
			ae.Bytes(unix.FRA_SRC, p.src.AsSlice())
		}
		ae.Uint32(unix.FRA_TABLE, uint32(p.table))
		ae.Uint32(unix.FRA_PRIORITY, uint32(p.priority))
		ae.Uint8(unix.FRA_IP_PROTO, uint8(p.proto))
		ae.Uint32(unix.FRA_FWMARK, 0)
		ae.Uint32(unix.FRA_FWMASK, ownMark)
		ports := make([]byte, 4) // struct fib_rule_port_range
		native.PutUint16(ports, p.port)
		native.PutUint16(ports[2:], p.port)
		ae.Bytes(unix.FRA_DPORT_RANGE, ports)
	})
	if err != nil {
		return err
	}
	return r.change(unix.RTM_NEWRULE, netlink.Create|netlink.Excl, b)
}
