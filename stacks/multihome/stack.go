// SPDX-License-Identifier: Apache-2.0

// The stack that is made of several.

package multihome

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/route"
)

// A Stack is several networks as one. It owns their stacks.
type Stack struct {
	nets  []*network
	table *route.Table

	numbers atomic.Pointer[numbers]
	numMu   sync.Mutex // one new numbering at a time
	setMu   sync.Mutex // one change at a time
}

// A network is one of the stacks that make a Stack.
type network struct {
	n     int // its place
	stack stacks.Stack
	told  map[netip.Prefix]bool // of its last State: what a program adds is new; guarded by Stack.setMu, once it is made
}

var (
	_ stacks.Stack      = (*Stack)(nil)
	_ stacks.Chooser    = (*Stack)(nil)
	_ stacks.Guide      = (*Stack)(nil)
	_ stacks.Configurer = (*Stack)(nil)
	_ stacks.Counter    = (*Stack)(nil)
	_ stacks.Lister     = (*Stack)(nil)
	_ stacks.Tapper     = (*Stack)(nil)
	_ stacks.Shower     = (*Stack)(nil)
	_ stacks.Notifier   = (*Stack)(nil)
	_ stacks.Lingerer   = (*Stack)(nil)
)

// New makes one stack of several, whose places are the numbers that table knows them
// by; the first is the default. It owns them from then on.
func New(table *route.Table, members ...stacks.Stack) *Stack {
	s := &Stack{table: table}
	for i, m := range members {
		s.nets = append(s.nets, &network{n: i, stack: m})
		s.nets[i].told = prefixes(m.State()) // it may have learnt more than was planned: that moves nothing
	}
	s.numbers.Store(new(numbers))
	s.State() // gives the interfaces their numbers, in order
	return s
}

// Close closes the stacks.
func (s *Stack) Close() error {
	var errs []error
	for _, n := range s.nets {
		errs = append(errs, n.stack.Close())
	}
	return errors.Join(errs...)
}

// Socket makes a socket for nobody in particular.
func (s *Stack) Socket(family, typ, proto int) (stacks.Socket, error) {
	return s.newSocket(anyNet, family, typ, proto)
}

// Identify tells what the rules ask of a task.
func (s *Stack) Identify() (uid, exe bool) { return s.table.AsksUID(), s.table.AsksExe() }

// SocketFor makes a socket for a task.
func (s *Stack) SocketFor(by stacks.Caller, family, typ, proto int) (stacks.Socket, error) {
	who := anyNet
	if s.table.AsksExe() {
		file, err := by.Exe()
		if err != nil {
			return nil, unix.EACCES // one of the rules may be about it
		}
		if n, ok := s.table.Exe(file); ok {
			who = n
		}
	}
	if who == anyNet {
		if n, ok := s.table.UID(by.UID); ok {
			who = n
		}
	}
	return s.newSocket(who, family, typ, proto)
}

// newSocket makes a socket for a task that is confined to the network who, or to
// none.
func (s *Stack) newSocket(who, family, typ, proto int) (stacks.Socket, error) {
	var err error
	if typ == unix.SOCK_STREAM {
		k := new(stream)
		k.init(s, who, family, typ, proto)
		if err = k.begin(); err == nil {
			return k, nil
		}
	} else {
		p := new(packet)
		p.init(s, who, family, typ, proto)
		if err = p.begin(); err == nil {
			return p, nil
		}
	}
	return nil, err
}

// Endpoints lists those of all networks. What stands for one socket on several of them,
// bound to the wildcard, is told once.
func (s *Stack) Endpoints() []stacks.Endpoint {
	var all []stacks.Endpoint
	told := make(map[stacks.Endpoint]int) // how often, by the networks so far
	for _, n := range s.nets {
		l, ok := n.stack.(stacks.Lister)
		if !ok {
			continue
		}
		here := make(map[stacks.Endpoint]int)
		for _, e := range l.Endpoints() {
			if a := e.Local.Addr(); e.Remote.IsValid() || a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() {
				all = append(all, e)
				continue
			}
			k := e
			k.RecvQ, k.SendQ = 0, 0
			if here[k]++; here[k] > told[k] {
				told[k] = here[k]
				all = append(all, e)
			}
		}
	}
	return all
}

// Tap shows what passes the interfaces of all networks.
func (s *Stack) Tap(f func(*stacks.Frame)) (stop func()) {
	var stops []func()
	for _, n := range s.nets {
		t, ok := n.stack.(stacks.Tapper)
		if !ok {
			continue
		}
		stops = append(stops, t.Tap(func(fr *stacks.Frame) {
			own := *fr
			own.IfIndex = s.outer(n.n, fr.IfIndex)
			f(&own)
		}))
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// Shows tells whether the network of an interface shows what passes it.
func (s *Stack) Shows(ifIndex int) bool {
	for _, n := range s.nets {
		if _, ok := n.stack.(stacks.Tapper); !ok {
			continue
		}
		if net, _, ok := s.inner(ifIndex); ifIndex == 0 || ok && net == n.n {
			return true
		}
	}
	return false
}

// Notify tells of changes of any network.
func (s *Stack) Notify(f func()) (stop func()) {
	var stops []func()
	for _, n := range s.nets {
		if t, ok := n.stack.(stacks.Notifier); ok {
			stops = append(stops, t.Notify(f))
		}
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// Undelivered tells what is on its way on all networks.
func (s *Stack) Undelivered() (bytes, waiting int) {
	for _, n := range s.nets {
		if l, ok := n.stack.(stacks.Lingerer); ok {
			b, w := l.Undelivered()
			bytes, waiting = bytes+b, waiting+w
		}
	}
	return bytes, waiting
}

// Inject puts a packet onto an interface.
func (s *Stack) Inject(ifIndex int, proto uint16, p []byte, origin any) error {
	n, inner, ok := s.inner(ifIndex)
	if !ok {
		return unix.ENXIO
	}
	t, ok := s.nets[n].stack.(stacks.Tapper)
	if !ok {
		return unix.EOPNOTSUPP
	}
	return t.Inject(inner, proto, p, origin)
}

// Counters tells what passed an interface.
func (s *Stack) Counters(index int) stacks.Counters {
	if index == loopback {
		var sum stacks.Counters
		for _, n := range s.nets {
			for _, ifc := range n.stack.State().Interfaces {
				if c, ok := n.stack.(stacks.Counter); ok && ifc.Loop {
					x := c.Counters(ifc.Index)
					sum.RxPackets, sum.TxPackets = sum.RxPackets+x.RxPackets, sum.TxPackets+x.TxPackets
					sum.RxBytes, sum.TxBytes = sum.RxBytes+x.RxBytes, sum.TxBytes+x.TxBytes
					sum.RxDropped, sum.TxDropped = sum.RxDropped+x.RxDropped, sum.TxDropped+x.TxDropped
				}
			}
		}
		return sum
	}
	n, inner, ok := s.inner(index)
	if !ok {
		return stacks.Counters{}
	}
	if c, ok := s.nets[n].stack.(stacks.Counter); ok {
		return c.Counters(inner)
	}
	return stacks.Counters{}
}
