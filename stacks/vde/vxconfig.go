// SPDX-License-Identifier: Apache-2.0

// What the URL of an overlay says, and the sockets that it leads to.

package vde

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A vxConfig is what the URL says.
type vxConfig struct {
	lan    bool // vxlan://
	group  netip.AddrPort
	vni    int
	ttl    int
	rcvbuf int
	expire time.Duration
	ifname string
	bind   string
}

func checkVX(u *URL) error {
	_, err := parseVX(u)
	return err
}

// parseVX reads the options, with vdeplug's defaults. Groups of users are looked up
// when the network is opened.
func parseVX(u *URL) (c vxConfig, err error) {
	c.lan = u.Scheme == "vxlan"
	port, vniMax := 14789, 1<<24-1
	if c.lan {
		port = 4789
	}
	var errs []error
	num := func(name string, def, lo, hi int) int {
		n, err := u.number(name, def, lo, hi)
		errs = append(errs, err)
		return n
	}
	port = num("port", port, 1, 65535)
	c.ttl = num("ttl", 1, 0, 255)
	c.expire = time.Duration(num("expiretime", 128, 1, 1<<31-1)) * time.Second
	num("hashsize", 1024, 1, 1<<30) // no effect: there are no slots here, see maxHosts
	c.ifname, _ = u.opt("if")
	c.bind, _ = u.opt("bind")
	if v, ok := u.opt("rcvbuf"); ok {
		n, err := binarySize(v)
		errs = append(errs, err)
		c.rcvbuf = n
	}
	_, v4 := u.opt("v4")
	_, v6 := u.opt("v6")
	addr := u.Arg
	if addr == "" {
		if addr = "239.0.0.1"; v6 && !v4 {
			addr = "ff05:56de::1"
		}
	}
	a, err := netip.ParseAddr(strings.Trim(addr, "[]"))
	switch {
	case err != nil:
		errs = append(errs, fmt.Errorf("%q is no address of a group", addr))
	case !a.IsMulticast():
		errs = append(errs, fmt.Errorf("%s is no multicast address: they are 224.0.0.0/4 and ff00::/8", a))
	case v4 != v6 && v4 != a.Is4():
		errs = append(errs, fmt.Errorf("%s is not of the family asked for", a))
	}
	c.group = netip.AddrPortFrom(a, uint16(port))
	c.vni = 1
	grp, hasGrp := u.opt("grp")
	vni, hasVNI := u.opt("vni")
	if hasGrp {
		id, err := groupID(grp)
		errs = append(errs, err)
		c.vni = id & vniMax
		if err == nil && a.IsValid() {
			c.group = netip.AddrPortFrom(withGroup(a, id), uint16(port))
		}
	}
	if hasVNI {
		id, err := groupID(vni)
		if err == nil && id > vniMax {
			err = fmt.Errorf("vni=%s: it is a number from 0 to %d", vni, vniMax)
		}
		errs = append(errs, err)
		c.vni = id
	}
	return c, errors.Join(errs...)
}

// withGroup puts a group's number into the last three bytes of an address.
func withGroup(a netip.Addr, id int) netip.Addr {
	b := a.AsSlice()
	n := len(b)
	b[n-3], b[n-2], b[n-1] = byte(id>>16), byte(id>>8), byte(id)
	a, _ = netip.AddrFromSlice(b)
	return a
}

// binarySize reads a number of bytes with k, M or G, powers of 1024.
func binarySize(v string) (int, error) {
	shift := map[byte]int{'k': 10, 'K': 10, 'm': 20, 'M': 20, 'g': 30, 'G': 30}
	num, s := v, 0
	if n := len(v) - 1; n > 0 && shift[v[n]] > 0 {
		num, s = v[:n], shift[v[n]]
	}
	n, err := strconv.ParseUint(num, 0, 31)
	if err != nil || n<<s > 1<<31-1 {
		return 0, fmt.Errorf("%q is no size", v)
	}
	return int(n << s), nil
}

// sockets makes the sockets.
func (v *vx) sockets(ctx context.Context) (err error) {
	index := 0
	if v.ifname != "" {
		i, err := net.InterfaceByName(v.ifname)
		if err != nil {
			return fmt.Errorf("if=%s: %w", v.ifname, unix.ENODEV)
		}
		index = i.Index
	}
	g := v.group.Addr()
	if v.multi, err = socket(family(g), unix.SOCK_DGRAM, "VDE overlay"); err != nil {
		return err
	}
	at := v.group // what is for others at the port does not come here
	if v.lan {
		at = netip.AddrPortFrom(unspecified(g), v.group.Port())
	}
	err = v.multi.control(func(fd int) error {
		if !v.lan {
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}
		if err := unix.Bind(fd, sockaddrOf(at)); err != nil {
			return fmt.Errorf("bind %s: %w", at, err)
		}
		if err := join(fd, g, index); err != nil {
			return fmt.Errorf("join %s: %w", g, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	v.uni = v.multi
	if !v.lan {
		if v.uni, err = socket(family(g), unix.SOCK_DGRAM, "VDE overlay"); err != nil {
			return err
		}
		from := netip.AddrPortFrom(unspecified(g), 0)
		if v.bind != "" {
			as, err := net.DefaultResolver.LookupNetIP(ctx, "ip", v.bind)
			if err != nil {
				return fmt.Errorf("bind=%s: %w", v.bind, err)
			}
			from = netip.AddrPortFrom(as[0].Unmap(), 0)
		}
		err = v.uni.control(func(fd int) error {
			if err := unix.Bind(fd, sockaddrOf(from)); err != nil {
				return fmt.Errorf("bind %s: %w", from, err)
			}
			sa, err := unix.Getsockname(fd)
			switch a := sa.(type) {
			case *unix.SockaddrInet4:
				v.own = uint16(a.Port)
			case *unix.SockaddrInet6:
				v.own = uint16(a.Port)
			}
			return err
		})
		if err != nil {
			return err
		}
		if v.probe, err = socket(family(g), unix.SOCK_DGRAM, "VDE overlay"); err != nil {
			return err
		}
		err = v.probe.control(func(fd int) error {
			if err := unix.Bind(fd, sockaddrOf(from)); err != nil {
				return fmt.Errorf("bind %s: %w", from, err)
			}
			return v.sending(fd, g.Is4(), index)
		})
		if err != nil {
			return err
		}
	}
	return v.uni.control(func(fd int) error { return v.sending(fd, g.Is4(), index) })
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// join makes fd a member of a group on an interface; 0 is the one of the route.
func join(fd int, g netip.Addr, index int) error {
	if g.Is4() {
		return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: g.As4(), Ifindex: int32(index)})
	}
	return unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_ADD_MEMBERSHIP, &unix.IPv6Mreq{Multiaddr: g.As16(), Interface: uint32(index)})
}

// sending sets how datagrams leave.
func (v *vx) sending(fd int, is4 bool, index int) error {
	loop := 1 // other plugs of this host hear us
	if v.lan {
		loop = 0
	}
	var errs []error
	set := func(level, name, value int) { errs = append(errs, unix.SetsockoptInt(fd, level, name, value)) }
	if is4 {
		set(unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, v.ttl)
		set(unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, loop)
		if !v.lan && v.ttl > 0 {
			set(unix.IPPROTO_IP, unix.IP_TTL, v.ttl)
		}
		if index > 0 {
			errs = append(errs, unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(index)}))
		}
	} else {
		set(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, v.ttl)
		set(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, loop)
		if index > 0 {
			set(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, index)
		}
	}
	if v.rcvbuf > 0 {
		set(unix.SOL_SOCKET, unix.SO_RCVBUF, v.rcvbuf)
	}
	return errors.Join(errs...)
}
