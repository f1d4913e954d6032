// SPDX-License-Identifier: Apache-2.0

// Options of AF_NETLINK sockets, netlink(7).

package netmod

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"umrun/stacks/bpf"
)

// on tells whether a flag of netlink(7) was set; the mutex is held.
func (n *netlink) on(name int) bool {
	v := n.opts[unix.SOL_NETLINK<<16|name]
	return len(v) >= 4 && native.Uint32(v) != 0
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
		case unix.SO_ATTACH_FILTER, unix.SO_DETACH_FILTER:
			return n.setFilter(name == unix.SO_ATTACH_FILTER, v)
		default:
			return unix.ENOPROTOOPT
		}
	case unix.SOL_NETLINK:
		switch name {
		case unix.NETLINK_EXT_ACK, unix.NETLINK_GET_STRICT_CHK, unix.NETLINK_PKTINFO, unix.NETLINK_CAP_ACK,
			unix.NETLINK_NO_ENOBUFS, unix.NETLINK_BROADCAST_ERROR:
		case unix.NETLINK_LISTEN_ALL_NSID:
			return unix.EPERM // takes a capability over the network's owner
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

// setFilter takes the instructions of a filter, or removes it.
func (n *netlink) setFilter(attach bool, v []byte) error {
	var filter *bpf.Program
	if attach {
		var err error
		if filter, err = bpf.Parse(v); err != nil {
			return err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !attach && n.filter == nil {
		return unix.ENOENT
	}
	n.filter = filter
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
			unix.NETLINK_NO_ENOBUFS, unix.NETLINK_BROADCAST_ERROR, unix.NETLINK_LISTEN_ALL_NSID:
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
		case unix.SO_ERROR, unix.SO_REUSEADDR, unix.SO_PASSCRED:
			return copy(v, int32Value(0)), nil
		}
	}
	return 0, unix.ENOPROTOOPT
}
