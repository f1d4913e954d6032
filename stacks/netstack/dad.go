// SPDX-License-Identifier: Apache-2.0

// Duplicate address detection, and telling of states that nobody has set.

package netstack

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"umrun/stacks"
)

var _ stacks.Notifier = (*Stack)(nil)

// dadConfig is net.ipv6.conf.*.dad_transmits and RFC 4861's RETRANS_TIMER. Linux waits
// for up to a second before it asks; a stack that starts alone need not.
var dadConfig = stack.DADConfigurations{DupAddrDetectTransmits: 1, RetransmitTimer: time.Second}

// dadFlags are what becomes known of an address; SetState cannot set them.
const dadFlags = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED

// A dadKey names an address of an interface.
type dadKey struct {
	nic  tcpip.NICID
	addr netip.Addr
}

// detections are the addresses that cannot be used yet, or for ever. Its mutex is a leaf.
type detections struct {
	some  atomic.Bool // flags is not empty
	mu    sync.Mutex
	flags map[dadKey]uint32 // IFA_F_*
}

// set notes the flags of an address and tells whether they are others.
func (d *detections) set(k dadKey, flags uint32) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.flags[k] == flags {
		return false
	}
	if flags == 0 {
		delete(d.flags, k)
	} else {
		if d.flags == nil {
			d.flags = make(map[dadKey]uint32)
		}
		d.flags[k] = flags
	}
	d.some.Store(len(d.flags) > 0)
	return true
}

// of returns the flags of an address.
func (d *detections) of(k dadKey) uint32 {
	if !d.some.Load() {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.flags[k]
}

// told returns st with what is known of its addresses.
func (d *detections) told(st stacks.State) stacks.State {
	if !d.some.Load() {
		return st
	}
	st.Interfaces = slices.Clone(st.Interfaces)
	for i := range st.Interfaces {
		ifc := &st.Interfaces[i]
		cloned := false
		for _, p := range ifc.Addrs {
			flags := d.of(dadKey{tcpip.NICID(ifc.Index), p.Addr()})
			if flags == 0 {
				continue
			}
			if !cloned {
				ifc.Info, cloned = maps.Clone(ifc.Info), true
				if ifc.Info == nil {
					ifc.Info = make(map[netip.Prefix]stacks.AddrInfo)
				}
			}
			info := ifc.Info[p]
			info.Flags |= flags
			ifc.Info[p] = info
		}
	}
	return st
}

// untold takes out of ifc what told has put there.
func untold(ifc *stacks.Interface) {
	for p, info := range ifc.Info {
		info.Flags &^= dadFlags
		ifc.Info[p] = info
	}
}

// A detection hears from gVisor of an address. It is called with locks of gVisor's held.
type detection struct {
	st  *Stack
	key dadKey
}

// OnChanged implements stack.AddressDispatcher.
func (d *detection) OnChanged(_ stack.AddressLifetimes, state stack.AddressAssignmentState) {
	flags := uint32(0)
	if state == stack.AddressTentative {
		flags = unix.IFA_F_TENTATIVE
	}
	d.set(flags)
}

// OnRemoved implements stack.AddressDispatcher. An address that somebody else has stays
// an address of the interface, as one that cannot be used.
func (d *detection) OnRemoved(why stack.AddressRemovalReason) {
	flags := uint32(0)
	if why == stack.AddressRemovalDADFailed {
		flags = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED
		d.st.log.Warn("somebody else on the link has the address", "addr", d.key.addr)
	}
	d.set(flags)
}

func (d *detection) set(flags uint32) {
	if d.st.dad.set(d.key, flags) {
		d.st.notices.notify()
	}
}

// detects says whether an address of an interface is looked for on the link first.
func (s *Stack) detects(id tcpip.NICID, a netip.Addr, flags uint32) bool {
	return a.Is6() && flags&unix.IFA_F_NODAD == 0 && s.hardware(id) == unix.ARPHRD_ETHER
}

// detect has gVisor do so, or not, with addresses that are added from here on.
func (s *Stack) detect(id tcpip.NICID, on bool) {
	ep, err := s.gv.GetNetworkEndpoint(id, header.IPv6ProtocolNumber)
	if err != nil {
		return
	}
	if d, ok := ep.(stack.DuplicateAddressDetector); ok {
		c := stack.DADConfigurations{}
		if on {
			c = dadConfig
		}
		d.SetDADConfigurations(c)
	}
}

// notices are those who hear of changes. Its mutex is a leaf.
type notices struct {
	mu   sync.Mutex
	next int
	all  map[int]func()
}

// notify calls all of them.
func (n *notices) notify() {
	n.mu.Lock()
	all := slices.Collect(maps.Values(n.all))
	n.mu.Unlock()
	for _, f := range all {
		f()
	}
}

// Notify implements [stacks.Notifier].
func (s *Stack) Notify(f func()) (stop func()) {
	n := &s.notices
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all == nil {
		n.all = make(map[int]func())
	}
	id := n.next
	n.next++
	n.all[id] = f
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.all, id)
	}
}
