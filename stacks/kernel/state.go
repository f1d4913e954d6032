// SPDX-License-Identifier: Apache-2.0

// What the namespace is configured to, as package stacks tells it.

package kernel

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// ARPHRD numbers of linux/if_arp.h.
const (
	arphrdEther    = 1
	arphrdLoopback = 772
)

// forever is a lifetime without end (linux/if_addr.h: struct ifa_cacheinfo).
const forever = ^uint32(0)

// State asks the kernel. What it does not tell, because it has just failed, is missing.
func (s *Stack) State() stacks.State {
	st, err := s.nl.state()
	if err != nil {
		s.log.Error("state of the namespace", "err", err)
	}
	if dns := s.dns.Load(); dns != nil {
		st.DNS = *dns
	}
	return st
}

// state is [Stack.State] without name servers.
func (r *rtnl) state() (st stacks.State, err error) {
	if st.Interfaces, err = r.interfaces(); err != nil {
		return st, fmt.Errorf("interfaces: %w", err)
	}
	if err = r.addresses(st.Interfaces); err != nil {
		return st, fmt.Errorf("addresses: %w", err)
	}
	if st.Routes, err = r.routes(); err != nil {
		return st, fmt.Errorf("routes: %w", err)
	}
	return st, nil
}

// dump asks for everything of a kind, and gives each message with its attributes to f.
func (r *rtnl) dump(typ uint16, header []byte, want netlink.HeaderType, f func(head []byte, ad *netlink.AttributeDecoder)) error {
	ms, err := r.execute(typ, netlink.Dump, header)
	if err != nil {
		return err
	}
	for _, m := range ms {
		if m.Header.Type != want || len(m.Data) < len(header) {
			continue
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[len(header):])
		if err != nil {
			return err
		}
		f(m.Data[:len(header)], ad)
		if err := ad.Err(); err != nil {
			return err
		}
	}
	return nil
}

// interfaces lists the interfaces.
func (r *rtnl) interfaces() (all []stacks.Interface, err error) {
	err = r.dump(unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg), unix.RTM_NEWLINK, func(h []byte, ad *netlink.AttributeDecoder) {
		hw := native.Uint16(h[2:])
		flags := native.Uint32(h[8:])
		ifc := stacks.Interface{
			Index: int(native.Uint32(h[4:])),
			Loop:  hw == arphrdLoopback,
			Up:    flags&unix.IFF_UP != 0,
		}
		if hw == arphrdEther {
			ifc.Type = stacks.LinkEthernet
		}
		for ad.Next() {
			switch ad.Type() {
			case unix.IFLA_IFNAME:
				ifc.Name = ad.String()
			case unix.IFLA_MTU:
				ifc.MTU = int(ad.Uint32())
			case unix.IFLA_TXQLEN:
				ifc.TxQueue = int(ad.Uint32())
			case unix.IFLA_ADDRESS:
				if hw == arphrdEther {
					ifc.MAC = net.HardwareAddr(ad.Bytes())
				}
			}
		}
		all = append(all, ifc)
	})
	return all, err
}

// addresses adds the addresses to the interfaces.
func (r *rtnl) addresses(ifcs []stacks.Interface) error {
	return r.dump(unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg), unix.RTM_NEWADDR, func(h []byte, ad *netlink.AttributeDecoder) {
		var ifc *stacks.Interface
		for i := range ifcs {
			if ifcs[i].Index == int(native.Uint32(h[4:])) {
				ifc = &ifcs[i]
			}
		}
		var local, addr netip.Addr
		info := stacks.AddrInfo{Flags: uint32(h[2])}
		now := time.Now()
		for ad.Next() {
			switch ad.Type() {
			case unix.IFA_LOCAL:
				local, _ = netip.AddrFromSlice(ad.Bytes())
			case unix.IFA_ADDRESS:
				addr, _ = netip.AddrFromSlice(ad.Bytes())
			case unix.IFA_BROADCAST:
				info.Broadcast, _ = netip.AddrFromSlice(ad.Bytes())
			case unix.IFA_LABEL:
				info.Label = ad.String()
			case unix.IFA_FLAGS:
				info.Flags = ad.Uint32()
			case unix.IFA_RT_PRIORITY:
				info.Metric = int(ad.Uint32())
			case unix.IFA_CACHEINFO:
				if b := ad.Bytes(); len(b) >= 8 {
					info.Preferred, info.Valid = until(now, native.Uint32(b)), until(now, native.Uint32(b[4:]))
				}
			}
		}
		if !local.IsValid() {
			local = addr
		}
		if ifc == nil || !local.IsValid() {
			return
		}
		if addr != local {
			info.Peer = addr
		}
		if info.Label == ifc.Name {
			info.Label = ""
		}
		p := netip.PrefixFrom(local, int(h[1]))
		ifc.Addrs = append(ifc.Addrs, p)
		info.Flags &^= unix.IFA_F_PERMANENT
		if info != (stacks.AddrInfo{}) {
			if ifc.Info == nil {
				ifc.Info = make(map[netip.Prefix]stacks.AddrInfo)
			}
			ifc.Info[p] = info
		}
	})
}

// until is when a lifetime of some seconds ends.
func until(now time.Time, seconds uint32) time.Time {
	if seconds == forever {
		return time.Time{}
	}
	return now.Add(time.Duration(seconds) * time.Second)
}

// lifetime encodes struct ifa_cacheinfo; ok is false if there is no end.
func lifetime(info stacks.AddrInfo) (b []byte, ok bool) {
	if info.Preferred.IsZero() && info.Valid.IsZero() {
		return nil, false
	}
	b = make([]byte, 16)
	for i, t := range []time.Time{info.Preferred, info.Valid} {
		seconds := forever
		if !t.IsZero() {
			seconds = uint32(min(max(time.Until(t).Seconds(), 0), float64(forever-1)))
		}
		native.PutUint32(b[4*i:], seconds)
	}
	return b, true
}

// routes lists the routes but those of the table local, which are the addresses once
// more, and of the tables that belong to the stack itself.
func (r *rtnl) routes() (all []stacks.Route, err error) {
	err = r.dump(unix.RTM_GETROUTE, make([]byte, unix.SizeofRtMsg), unix.RTM_NEWROUTE, func(h []byte, ad *netlink.AttributeDecoder) {
		rt := stacks.Route{Table: int(h[4]), Proto: int(h[5]), Scope: int(h[6]), Type: int(h[7])}
		var dst netip.Addr
		switch h[0] {
		case unix.AF_INET:
			dst = netip.IPv4Unspecified()
		case unix.AF_INET6:
			dst = netip.IPv6Unspecified()
		default:
			return
		}
		flags := native.Uint32(h[8:])
		rt.OnLink = flags&unix.RTNH_F_ONLINK != 0
		for ad.Next() {
			switch ad.Type() {
			case unix.RTA_TABLE:
				rt.Table = int(ad.Uint32())
			case unix.RTA_DST:
				dst, _ = netip.AddrFromSlice(ad.Bytes())
			case unix.RTA_GATEWAY:
				rt.Gateway, _ = netip.AddrFromSlice(ad.Bytes())
			case unix.RTA_PREFSRC:
				rt.Src, _ = netip.AddrFromSlice(ad.Bytes())
			case unix.RTA_OIF:
				rt.IfIndex = int(ad.Uint32())
			case unix.RTA_PRIORITY:
				rt.Metric = int(ad.Uint32())
			case unix.RTA_METRICS:
				ad.Nested(func(ad *netlink.AttributeDecoder) error {
					for ad.Next() {
						if ad.Type() == unix.RTAX_MTU {
							rt.MTU = int(ad.Uint32())
						}
					}
					return nil
				})
			}
		}
		if flags&unix.RTM_F_CLONED != 0 || rt.Table == unix.RT_TABLE_LOCAL {
			return
		}
		switch rt.Type {
		case unix.RTN_UNICAST, unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT, unix.RTN_THROW:
		default:
			return
		}
		if rt.Refuses() != 0 {
			rt.IfIndex = 0 // IPv6 says lo
		}
		rt.Dst = netip.PrefixFrom(dst, int(h[1]))
		all = append(all, rt)
	})
	return all, err
}
