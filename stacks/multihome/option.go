// SPDX-License-Identifier: Apache-2.0

// Options: what is set is set on every endpoint, and what names an interface is for
// that one's network.

package multihome

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

var native = binary.NativeEndian

type optionKey struct{ level, name int }

// What an option that names an interface is about.
type purpose int

const (
	bindsDevice  purpose = iota // the socket is for that interface alone
	sendsGroups                 // where datagrams to groups leave
	sendsHosts                  // where others do
	sendsAll                    // where both do, before what those say
	joins                       // membership of a group: it adds to what there is
	leaves                      // takes away what joins with the same value has added
	asksOfGroups                // sources of a group, set and read
)

// An interfaceOption is an option that names an interface: by name, by an index at an
// offset, or by an address at one, which counts if there is no index.
type interfaceOption struct {
	purpose purpose
	name    bool
	index   int // offset; -1: none
	big     bool
	addr    int // offset; -1: none
}

// interfaceOptions are the options that name interfaces. Offsets are those of struct
// ip_mreqn, in6_pktinfo, ip_mreq_source, ip_msfilter, ipv6_mreq, group_req and group_filter.
var interfaceOptions = map[optionKey]interfaceOption{
	{unix.SOL_SOCKET, unix.SO_BINDTODEVICE}:  {purpose: bindsDevice, name: true, index: -1, addr: -1},
	{unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX}: {purpose: bindsDevice, addr: -1},

	{unix.IPPROTO_IP, unix.IP_UNICAST_IF}:     {purpose: sendsHosts, big: true, addr: -1},
	{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_IF}: {purpose: sendsHosts, big: true, addr: -1},
	{unix.IPPROTO_IPV6, unix.IPV6_PKTINFO}:    {purpose: sendsAll, index: 16, addr: -1},

	{unix.IPPROTO_IP, unix.IP_MULTICAST_IF}:     {purpose: sendsGroups, index: 8, addr: 4},
	{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF}: {purpose: sendsGroups, addr: -1},

	{unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP}:         {purpose: joins, index: 8, addr: 4},
	{unix.IPPROTO_IP, unix.IP_DROP_MEMBERSHIP}:        {purpose: leaves, index: 8, addr: 4},
	{unix.IPPROTO_IP, unix.IP_ADD_SOURCE_MEMBERSHIP}:  {purpose: joins, index: -1, addr: 4},
	{unix.IPPROTO_IP, unix.IP_DROP_SOURCE_MEMBERSHIP}: {purpose: leaves, index: -1, addr: 4},
	{unix.IPPROTO_IP, unix.IP_BLOCK_SOURCE}:           {purpose: joins, index: -1, addr: 4},
	{unix.IPPROTO_IP, unix.IP_UNBLOCK_SOURCE}:         {purpose: leaves, index: -1, addr: 4},
	{unix.IPPROTO_IP, unix.IP_MSFILTER}:               {purpose: asksOfGroups, index: -1, addr: 4},
	{unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP}:         {purpose: joins, index: 16, addr: -1},
	{unix.IPPROTO_IPV6, unix.IPV6_LEAVE_GROUP}:        {purpose: leaves, index: 16, addr: -1},
	{unix.IPPROTO_IPV6, unix.IPV6_JOIN_ANYCAST}:       {purpose: joins, index: 16, addr: -1},
	{unix.IPPROTO_IPV6, unix.IPV6_LEAVE_ANYCAST}:      {purpose: leaves, index: 16, addr: -1},

	{unix.IPPROTO_IP, unix.MCAST_JOIN_GROUP}:           {purpose: joins, addr: -1},
	{unix.IPPROTO_IP, unix.MCAST_LEAVE_GROUP}:          {purpose: leaves, addr: -1},
	{unix.IPPROTO_IP, unix.MCAST_JOIN_SOURCE_GROUP}:    {purpose: joins, addr: -1},
	{unix.IPPROTO_IP, unix.MCAST_LEAVE_SOURCE_GROUP}:   {purpose: leaves, addr: -1},
	{unix.IPPROTO_IP, unix.MCAST_BLOCK_SOURCE}:         {purpose: joins, addr: -1},
	{unix.IPPROTO_IP, unix.MCAST_UNBLOCK_SOURCE}:       {purpose: leaves, addr: -1},
	{unix.IPPROTO_IP, unix.MCAST_MSFILTER}:             {purpose: asksOfGroups, addr: -1},
	{unix.IPPROTO_IPV6, unix.MCAST_JOIN_GROUP}:         {purpose: joins, addr: -1},
	{unix.IPPROTO_IPV6, unix.MCAST_LEAVE_GROUP}:        {purpose: leaves, addr: -1},
	{unix.IPPROTO_IPV6, unix.MCAST_JOIN_SOURCE_GROUP}:  {purpose: joins, addr: -1},
	{unix.IPPROTO_IPV6, unix.MCAST_LEAVE_SOURCE_GROUP}: {purpose: leaves, addr: -1},
	{unix.IPPROTO_IPV6, unix.MCAST_BLOCK_SOURCE}:       {purpose: joins, addr: -1},
	{unix.IPPROTO_IPV6, unix.MCAST_UNBLOCK_SOURCE}:     {purpose: leaves, addr: -1},
	{unix.IPPROTO_IPV6, unix.MCAST_MSFILTER}:           {purpose: asksOfGroups, addr: -1},
}

// leavesOf is the option that an option takes back.
var leavesOf = map[int]int{
	unix.IP_DROP_MEMBERSHIP:        unix.IP_ADD_MEMBERSHIP,
	unix.IP_DROP_SOURCE_MEMBERSHIP: unix.IP_ADD_SOURCE_MEMBERSHIP,
	unix.IP_UNBLOCK_SOURCE:         unix.IP_BLOCK_SOURCE,
	unix.IPV6_LEAVE_GROUP:          unix.IPV6_JOIN_GROUP,
	unix.IPV6_LEAVE_ANYCAST:        unix.IPV6_JOIN_ANYCAST,
	unix.MCAST_LEAVE_GROUP:         unix.MCAST_JOIN_GROUP,
	unix.MCAST_LEAVE_SOURCE_GROUP:  unix.MCAST_JOIN_SOURCE_GROUP,
	unix.MCAST_UNBLOCK_SOURCE:      unix.MCAST_BLOCK_SOURCE,
}

// inward returns the network that a value names, anyNet if none, and the value as that
// network has it. ENODEV if there is no such interface.
func (o *interfaceOption) inward(s *Stack, v []byte) (net int, value []byte, err error) {
	if o.name {
		name, _, _ := bytes.Cut(v, []byte{0})
		name = name[:min(len(name), unix.IFNAMSIZ-1)]
		if len(name) == 0 {
			return anyNet, v, nil
		}
		for _, ifc := range s.State().Interfaces {
			if ifc.Name == string(name) {
				net, inner, _ := s.inner(ifc.Index)
				return net, append([]byte(s.nameOf(net, inner)), 0), nil
			}
		}
		return anyNet, nil, unix.ENODEV
	}
	at := o.addr
	if o.purpose == sendsGroups && at >= 0 && len(v) < 8 {
		at = 0 // struct in_addr alone
	}
	if o.index >= 0 && len(v) >= o.index+4 {
		order := binary.ByteOrder(native)
		if o.big {
			order = binary.BigEndian
		}
		if i := int(int32(order.Uint32(v[o.index:]))); i != 0 {
			net, inner, ok := s.inner(i)
			if !ok {
				inner = noInterface
			}
			value = bytes.Clone(v)
			order.PutUint32(value[o.index:], uint32(inner))
			if !ok {
				return anyNet, value, nil // any network says what is wrong with it
			}
			return net, value, nil
		}
	}
	if at >= 0 && len(v) >= at+4 {
		if a := netip.AddrFrom4([4]byte(v[at:])); !a.IsUnspecified() {
			if n, ok := s.own(a); ok {
				return n, v, nil
			}
		}
	}
	return anyNet, v, nil
}

// nameOf is the name that a network has for an interface of its.
func (s *Stack) nameOf(net, index int) string {
	for _, ifc := range s.nets[net].stack.State().Interfaces {
		if ifc.Index == index {
			return ifc.Name
		}
	}
	return ""
}

// SetOption sets an option on every endpoint, or on the one that it is about.
func (k *socket) SetOption(level, name int, value []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	o, special := interfaceOptions[optionKey{level, name}]
	if !special {
		return k.setAll(level, name, value)
	}
	net, v, err := o.inward(k.st, value)
	if err != nil {
		return err
	}
	if o.purpose == bindsDevice {
		return k.setDevice(net, level, name, v)
	}
	if k.typ == unix.SOCK_STREAM {
		return k.main.Load().ep.SetOption(level, name, v)
	}
	if k.who != anyNet && net != anyNet && net != k.who {
		return unix.ENODEV
	}
	switch {
	case o.purpose == sendsGroups || o.purpose == sendsHosts || o.purpose == sendsAll:
		return k.setOutgoing(o.purpose, net, level, name, v)
	case net == anyNet:
		if net, err = k.choose(netip.AddrPortFrom(groupOf(level, name, v), 0), noMessage); err != nil {
			return err
		}
	}
	e, err := k.also(net)
	if err != nil {
		return err
	}
	if err := e.ep.SetOption(level, name, v); err != nil {
		return err
	}
	k.note(o.purpose, net, level, name, v)
	return nil
}

// setAll sets an option on every endpoint. The main one's errors count. The mutex is
// held.
func (k *socket) setAll(level, name int, v []byte) error {
	if err := k.ends[0].ep.SetOption(level, name, v); err != nil {
		return err
	}
	for _, e := range k.ends[1:] {
		_ = e.ep.SetOption(level, name, v)
	}
	k.opts = slices.DeleteFunc(k.opts, func(o optionSet) bool { return o.level == level && o.name == name })
	k.opts = append(k.opts, optionSet{level, name, bytes.Clone(v), anyNet})
	return nil
}

// setDevice binds the socket to an interface of a network, or to none. The mutex is
// held.
func (k *socket) setDevice(net, level, name int, v []byte) error {
	main := k.main.Load()
	_, remote := main.ep.Names()
	switch {
	case net == anyNet:
		if err := main.ep.SetOption(level, name, v); err != nil {
			return err
		}
		k.device, k.onLoop = anyNet, false
		k.opts = slices.DeleteFunc(k.opts, func(o optionSet) bool {
			_, special := interfaceOptions[optionKey{o.level, o.name}]
			return special && o.level == unix.SOL_SOCKET
		})
		return nil
	case k.device != anyNet && net != k.device:
		return unix.EPERM // once for an ordinary user, net/core/sock.c:sock_bindtoindex_locked
	case k.who != anyNet && net != k.who && !isLoop(net, v):
		return unix.EPERM
	case remote.IsValid() && net != main.net.n, k.bindNet != anyNet && net != k.bindNet:
		return unix.EINVAL
	}
	e, isNew, err := k.reach(net)
	if err != nil {
		return err
	}
	confined := k.who != anyNet && net != k.who // it is bound to lo already
	if !confined {
		err = e.ep.SetOption(level, name, v)
	}
	if err != nil {
		if isNew {
			k.shut(e)
		}
		return err
	}
	k.use(e)
	k.device, k.onLoop = net, isLoop(net, v)
	k.opts = append(k.opts, optionSet{level, name, bytes.Clone(v), net})
	return nil
}

// isLoop tells whether the value of an option that is for a network alone an interface
// names loopback.
func isLoop(net int, v []byte) bool {
	if net != 0 {
		return false
	}
	if name, _, _ := bytes.Cut(v, []byte{0}); string(name) == "lo" {
		return true
	}
	return len(v) == 4 && native.Uint32(v) == loopback
}

// also returns the endpoint on a network, which joins the others if it is new. The
// mutex is held.
func (k *socket) also(net int) (*end, error) {
	e, isNew, err := k.reach(net)
	if err != nil {
		return nil, unix.ENODEV
	}
	if isNew {
		_, remote := k.main.Load().ep.Names()
		e.deaf = remote.IsValid()
		k.ends = append(k.ends, e)
	}
	return e, nil
}

// setOutgoing says where datagrams leave, those to groups, those to hosts, or all. The mutex
// is held.
func (k *socket) setOutgoing(p purpose, net, level, name int, v []byte) error {
	by := &k.mcast
	switch p {
	case sendsHosts:
		by = &k.ucast
	case sendsAll:
		by = &k.sticky
	}
	loop := net == 0 && k.namesLoop(level, name, v)
	if net == anyNet {
		if err := k.setAll(level, name, v); err != nil {
			return err
		}
		delete(*by, level)
		return nil
	}
	if k.device != anyNet && net != k.device {
		return unix.EINVAL
	}
	e, err := k.also(net)
	if err != nil {
		return err
	}
	if err := e.ep.SetOption(level, name, v); err != nil {
		return err
	}
	if *by == nil {
		*by = make(map[int]outgoing)
	}
	(*by)[level] = outgoing{net, loop}
	k.opts = slices.DeleteFunc(k.opts, func(o optionSet) bool { return o.level == level && o.name == name })
	k.opts = append(k.opts, optionSet{level, name, bytes.Clone(v), net})
	return nil
}

// namesLoop tells whether a value that names an interface of the first network, by its
// index or its address, names loopback.
func (k *socket) namesLoop(level, name int, v []byte) bool {
	o := interfaceOptions[optionKey{level, name}]
	order := binary.ByteOrder(native)
	if o.big {
		order = binary.BigEndian
	}
	if len(v) >= o.index+4 {
		if i := order.Uint32(v[o.index:]); i != 0 {
			return i == loopback
		}
	}
	at := o.addr
	if len(v) < 8 {
		at = 0
	}
	return o.addr >= 0 && len(v) >= at+4 && netip.AddrFrom4([4]byte(v[at:])).IsLoopback()
}

// note keeps a membership for endpoints to come. The mutex is held.
func (k *socket) note(p purpose, net, level, name int, v []byte) {
	if p == leaves {
		joined := leavesOf[name]
		k.opts = slices.DeleteFunc(k.opts, func(o optionSet) bool {
			return o.level == level && o.name == joined && o.net == net && bytes.Equal(o.value, v)
		})
		return
	}
	k.opts = append(k.opts, optionSet{level, name, bytes.Clone(v), net})
}

// groupOf is the group that the value of an option is about; the wildcard if it is too
// short.
func groupOf(level, name int, v []byte) netip.Addr {
	switch {
	case name == unix.IPV6_JOIN_GROUP && level == unix.IPPROTO_IPV6, name == unix.IPV6_LEAVE_GROUP && level == unix.IPPROTO_IPV6,
		name == unix.IPV6_JOIN_ANYCAST && level == unix.IPPROTO_IPV6, name == unix.IPV6_LEAVE_ANYCAST && level == unix.IPPROTO_IPV6:
		if len(v) >= 16 {
			return netip.AddrFrom16([16]byte(v))
		}
	case name >= unix.MCAST_JOIN_GROUP && name <= unix.MCAST_MSFILTER:
		const at = 8 // a sockaddr_storage
		if len(v) >= at+24 {
			if native.Uint16(v[at:]) == unix.AF_INET {
				return netip.AddrFrom4([4]byte(v[at+4:]))
			}
			return netip.AddrFrom16([16]byte(v[at+8:]))
		}
	case len(v) >= 4:
		return netip.AddrFrom4([4]byte(v))
	}
	return netip.IPv4Unspecified()
}

// Option reads an option of the endpoint that it is about.
func (k *socket) Option(level, name int, value []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if level == unix.SOL_SOCKET && name == unix.SO_ERROR {
		for _, e := range k.ends {
			n, err := e.ep.Option(level, name, value)
			if err != nil || n < 4 || native.Uint32(value) != 0 || e == k.ends[len(k.ends)-1] {
				return n, err
			}
		}
	}
	o, special := interfaceOptions[optionKey{level, name}]
	if !special {
		return k.ends[0].ep.Option(level, name, value)
	}
	e := k.ends[0]
	out, ok := outgoing{}, false
	switch o.purpose {
	case sendsGroups:
		out, ok = k.mcast[level]
	case sendsHosts:
		out, ok = k.ucast[level]
	case asksOfGroups:
		n, v, err := o.inward(k.st, value)
		if err != nil {
			return 0, err
		}
		if n == anyNet {
			n, _ = k.choose(netip.AddrPortFrom(groupOf(level, name, v), 0), noMessage)
		}
		if x := k.on(n); x != nil {
			e = x
		}
		head := bytes.Clone(value[:min(len(value), 4)])
		copy(value, v)
		size, err := e.ep.Option(level, name, value)
		if o.index == 0 {
			copy(value, head) // the interface, as it was asked for
		}
		return size, err
	}
	if x := k.on(out.net); ok && x != nil {
		e = x
	}
	n, err := e.ep.Option(level, name, value)
	if err != nil {
		return n, err
	}
	return o.outward(k.st, e.net.n, value, n), nil
}

// outward makes a value of a network one of the view, in place; it returns its length.
func (o *interfaceOption) outward(s *Stack, net int, v []byte, n int) int {
	if o.name {
		name, _, _ := bytes.Cut(v[:n], []byte{0})
		for _, ifc := range s.nets[net].stack.State().Interfaces {
			if ifc.Name != string(name) {
				continue
			}
			number := s.outer(net, ifc.Index)
			for _, shown := range s.State().Interfaces {
				if shown.Index == number {
					return copy(v, append([]byte(shown.Name), 0))
				}
			}
		}
		return n
	}
	if o.index != 0 || n < 4 { // IP_MULTICAST_IF is read as an address
		return n
	}
	order := binary.ByteOrder(native)
	if o.big {
		order = binary.BigEndian
	}
	order.PutUint32(v, uint32(s.outer(net, int(int32(order.Uint32(v))))))
	return n
}
