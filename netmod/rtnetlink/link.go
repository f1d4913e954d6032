// SPDX-License-Identifier: Apache-2.0

// Interfaces: RTM_GETLINK.

package rtnetlink

import (
	"bytes"
	"encoding/binary"
	"net"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/stacks"
)

const (
	statsLen   = 24 * 4 // struct rtnl_link_stats: the same in 32 bits each
	stats64Len = 25 * 8 // struct rtnl_link_stats64

	operUnknown = 0 // RFC 2863, linux/if.h
	operDown    = 2
	operUp      = 6

	iflaMinMTU = 50 // newer than the list in x/sys
	iflaMaxMTU = 51

	iflaAllMulti = 61
)

// A device is what the kernel says about interfaces of a kind.
type device struct {
	hwType uint16 // ARPHRD_*
	flags  uint32 // IFF_*, while it is up
	qdisc  string
	txqlen uint32
	oper   uint8 // while it is up
	minMTU uint32
	maxMTU uint32
	bcast  net.HardwareAddr
}

// deviceOf returns the kind of i: the kernel's loopback, a TUN, or an Ethernet
// device.
func deviceOf(i *stacks.Interface) device {
	const up = unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOWER_UP
	var d device
	switch {
	case i.Loop:
		d = device{hwType: unix.ARPHRD_LOOPBACK, flags: up | unix.IFF_LOOPBACK, qdisc: "noqueue",
			txqlen: 1000, oper: operUnknown, bcast: make(net.HardwareAddr, 6)}
	case i.Type == stacks.LinkEthernet:
		d = device{hwType: unix.ARPHRD_ETHER, flags: up | unix.IFF_BROADCAST | unix.IFF_MULTICAST, qdisc: "noqueue",
			txqlen: 1000, oper: operUp, minMTU: 68, maxMTU: 65535, bcast: bytes.Repeat([]byte{0xff}, 6)}
	default:
		d = device{hwType: unix.ARPHRD_NONE, flags: up | unix.IFF_POINTOPOINT | unix.IFF_MULTICAST | unix.IFF_NOARP, qdisc: "pfifo_fast",
			txqlen: 500, oper: operUnknown, minMTU: 68, maxMTU: 65535}
	}
	d.flags ^= i.Flipped
	if i.TxQueue != 0 {
		d.txqlen = uint32(max(0, i.TxQueue))
	}
	if !i.Up {
		d.flags &^= up
		d.oper = operDown
		d.qdisc = "noop"
	}
	return d
}

// hwAddr is the link-layer address; nil where there is none.
func hwAddr(i *stacks.Interface) net.HardwareAddr {
	if i.Loop && i.MAC == nil {
		return make(net.HardwareAddr, 6)
	}
	return i.MAC
}

// links dumps all interfaces.
func (r *request) links(w *nlmsg.Writer) {
	if r.family() == afBr {
		return // no bridges
	}
	attrs := r.attrs(unix.SizeofIfInfomsg)
	if attrU32(attrs[unix.IFLA_MASTER]) != 0 || attrs[unix.IFLA_LINKINFO] != nil {
		return // asks for ports of a device, or for one kind of them (ip link show type ...)
	}
	for i := range r.state.Interfaces {
		r.link(w, &r.state.Interfaces[i], unix.NLM_F_MULTI)
	}
}

// oneLink answers a request by index or by name.
func (r *request) oneLink(w *nlmsg.Writer) *nlmsg.Failure {
	if len(r.body) < unix.SizeofIfInfomsg {
		return nlmsg.Fail(unix.EINVAL, "Invalid header for get link")
	}
	index := int(int32(attrU32(r.body[4:])))
	attrs := r.attrs(unix.SizeofIfInfomsg)
	name := attrs[unix.IFLA_IFNAME]
	if len(bytes.TrimRight(name, "\x00")) >= unix.IFNAMSIZ {
		return nlmsg.Fail(unix.ERANGE, "")
	}
	if name == nil {
		name = attrs[unix.IFLA_ALT_IFNAME]
	}
	var i *stacks.Interface
	switch {
	case index > 0:
		i = byIndex(r.state, index)
	case index < 0:
		return nlmsg.Fail(unix.EINVAL, "ifindex can't be negative")
	case name != nil:
		name, _, _ = bytes.Cut(name, []byte{0})
		i = byName(r.state, string(name))
	default:
		return nlmsg.Fail(unix.EINVAL, "")
	}
	if i == nil {
		return nlmsg.Fail(unix.ENODEV, "")
	}
	// The reply describes the device; the family matters in dumps only.
	one := *r
	one.body = append([]byte{afAny}, r.body[1:]...)
	one.link(w, i, 0)
	return nil
}

// link writes one interface.
func (r *request) link(w *nlmsg.Writer, i *stacks.Interface, flags uint16) {
	r.linkMessage(w, unix.RTM_NEWLINK, i, flags)
}

// linkMessage writes one interface as it is, or was.
func (r *request) linkMessage(w *nlmsg.Writer, typ uint16, i *stacks.Interface, flags uint16) {
	d := deviceOf(i)
	inet6 := r.family() == unix.AF_INET6 // inet6_dump_ifinfo says less

	w.Begin(typ, flags)
	if inet6 {
		w.U8(unix.AF_INET6, 0)
	} else {
		w.U8(unix.AF_UNSPEC, 0)
	}
	w.U16(d.hwType)
	w.U32(uint32(i.Index))
	w.U32(d.flags)
	w.U32(0) // change mask

	w.AttrString(unix.IFLA_IFNAME, i.Name)
	if mac := hwAddr(i); inet6 && len(mac) > 0 {
		w.Attr(unix.IFLA_ADDRESS, mac)
	}
	if !inet6 {
		w.AttrU32(unix.IFLA_TXQLEN, d.txqlen)
	}
	w.AttrU8(unix.IFLA_OPERSTATE, d.oper)
	w.AttrU32(unix.IFLA_MTU, uint32(i.MTU))
	if !inet6 {
		linkDetails(w, i, d)
	}
	w.End()
}

// linkDetails writes what the general dump says beyond the IPv6 one.
func linkDetails(w *nlmsg.Writer, i *stacks.Interface, d device) {
	w.AttrU8(unix.IFLA_LINKMODE, 0)
	w.AttrU32(iflaMinMTU, d.minMTU)
	w.AttrU32(iflaMaxMTU, d.maxMTU)
	w.AttrU32(unix.IFLA_GROUP, 0)
	promiscuous, allMulti := uint32(0), uint32(0)
	if d.flags&unix.IFF_PROMISC != 0 {
		promiscuous = 1
	}
	if d.flags&unix.IFF_ALLMULTI != 0 {
		allMulti = 1
	}
	w.AttrU32(unix.IFLA_PROMISCUITY, promiscuous)
	w.AttrU32(iflaAllMulti, allMulti)
	w.AttrU32(unix.IFLA_NUM_TX_QUEUES, 1)
	w.AttrU32(unix.IFLA_NUM_RX_QUEUES, 1)
	var carrier uint8
	if i.Up {
		carrier = 1
	}
	w.AttrU8(unix.IFLA_CARRIER, carrier)
	w.AttrU8(unix.IFLA_PROTO_DOWN, 0)
	if mac := hwAddr(i); len(mac) > 0 {
		w.Attr(unix.IFLA_ADDRESS, mac)
		w.Attr(unix.IFLA_BROADCAST, d.bcast)
	}
	w.Attr(unix.IFLA_STATS64, stats(&i.Counters, stats64Len, binary.NativeEndian.AppendUint64))
	w.Attr(unix.IFLA_STATS, stats(&i.Counters, statsLen, func(b []byte, v uint64) []byte {
		return binary.NativeEndian.AppendUint32(b, uint32(v))
	}))
	w.AttrString(unix.IFLA_QDISC, d.qdisc)
	w.AttrZero(unix.IFLA_MAP, 32)
	if d.hwType == unix.ARPHRD_NONE {
		w.Attr(unix.IFLA_LINKINFO, tunInfo())
	}
}

// tunInfo is what a TUN device without owner says of itself, IFLA_LINKINFO:
// drivers/net/tun.c:tun_fill_info.
func tunInfo() []byte {
	const (
		tunType       = 3 // IFLA_TUN_TYPE
		tunPI         = 4 // IFLA_TUN_PI
		tunVnetHdr    = 5 // IFLA_TUN_VNET_HDR
		tunPersist    = 6 // IFLA_TUN_PERSIST
		tunMultiQueue = 7 // IFLA_TUN_MULTI_QUEUE
	)
	data := nlmsg.AppendAttr(nil, tunType, []byte{unix.IFF_TUN})
	for _, typ := range []uint16{tunPI, tunVnetHdr, tunPersist, tunMultiQueue} {
		data = nlmsg.AppendAttr(data, typ, []byte{0})
	}
	info := nlmsg.AppendAttr(nil, unix.IFLA_INFO_KIND, []byte("tun\x00"))
	return nlmsg.AppendAttr(info, unix.IFLA_INFO_DATA, data)
}

// stats is struct rtnl_link_stats64 or its older form, of n bytes.
func stats(c *stacks.Counters, n int, add func([]byte, uint64) []byte) []byte {
	b := make([]byte, 0, n)
	// Packets, bytes, errors, dropped, each received and sent.
	for _, v := range []uint64{c.RxPackets, c.TxPackets, c.RxBytes, c.TxBytes, 0, 0, c.RxDropped, c.TxDropped} {
		b = add(b, v)
	}
	return b[:n]
}
