// SPDX-License-Identifier: Apache-2.0

// What streams and datagram sockets have in common: endpoints that come and go.

package multihome

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// A socket has an endpoint on one network or on several.
type socket struct {
	st                 *Stack
	family, typ, proto int
	who                int // the network that a rule confines its task to

	main atomic.Pointer[end] // names, options and errors are asked of it

	mu      sync.Mutex       // guards what follows
	ends    []*end           // the first is main
	opts    []optionSet      // what was set, for endpoints that are still to come
	device  int              // the network of SO_BINDTODEVICE
	onLoop  bool             // which is the loopback interface
	bound   netip.AddrPort   // what bind(2) has said, with the port that it got
	bindNet int              // the network of bound; anyNet: all of them
	mcast   map[int]outgoing // of IP_MULTICAST_IF and its kin, by level
	ucast   map[int]outgoing // of IP_UNICAST_IF
	sticky  map[int]outgoing // of IPV6_PKTINFO as an option
	watches []*watch
	owner   *uint32 // who made the socket, if it matters
	closed  bool
}

// An end is an endpoint on a network.
type end struct {
	net    *network
	ep     stacks.Socket
	stream stacks.StreamSocket // the same; nil if it is none
	packet stacks.PacketSocket
	deaf   bool // it only sends: the socket is connected to somebody elsewhere
}

// An optionSet is one successful setsockopt, for the endpoints on a network.
type optionSet struct {
	level, name int
	value       []byte // as that network has it
	net         int    // anyNet: for all
}

// A watch is what Watch was asked for.
type watch struct {
	mask  stacks.Events
	f     func(stacks.Events)
	stops map[*end]func()
}

// init fills in a new socket.
func (k *socket) init(s *Stack, who, family, typ, proto int) {
	k.st, k.who, k.family, k.typ, k.proto = s, who, family, typ, proto
	k.device, k.bindNet = anyNet, anyNet
}

// begin makes the first endpoint: on the network that the task is confined to, else on
// the first one that has such sockets.
func (k *socket) begin() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.who != anyNet {
		e, err := k.open(k.who)
		if err != nil {
			return err
		}
		k.use(e)
		return nil
	}
	var first error
	for _, n := range k.st.nets {
		e, err := k.open(n.n)
		if err == nil {
			k.use(e)
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// open makes an endpoint on a network, with the options so far, and has it watched.
// The mutex is held.
func (k *socket) open(net int) (*end, error) {
	n := k.st.nets[net]
	ep, err := n.stack.Socket(k.family, k.typ, k.proto)
	if err != nil {
		return nil, err
	}
	e := &end{net: n, ep: ep}
	e.stream, _ = ep.(stacks.StreamSocket)
	e.packet, _ = ep.(stacks.PacketSocket)
	if (k.typ == unix.SOCK_STREAM) != (e.stream != nil) {
		_ = ep.Close()
		return nil, unix.ESOCKTNOSUPPORT
	}
	if o, ok := ep.(stacks.Owned); ok && k.owner != nil {
		o.SetOwner(*k.owner)
	}
	if k.who != anyNet && k.who != net {
		// For what stays in the view.
		if err := ep.SetOption(unix.SOL_SOCKET, unix.SO_BINDTODEVICE, []byte("lo\x00")); err != nil {
			_ = ep.Close()
			return nil, err
		}
	}
	for _, o := range k.opts {
		if o.net == anyNet || o.net == net {
			_ = ep.SetOption(o.level, o.name, o.value) // another network has taken it
		}
	}
	for _, w := range k.watches {
		w.stops[e] = ep.Watch(w.mask, w.f)
	}
	return e, nil
}

// shut ends an endpoint. The mutex is held.
func (k *socket) shut(e *end) {
	for _, w := range k.watches {
		if stop := w.stops[e]; stop != nil {
			stop()
			delete(w.stops, e)
		}
	}
	_ = e.ep.Close()
}

// use makes endpoints the only ones, the first of them main. The mutex is held.
func (k *socket) use(ends ...*end) {
	old := k.ends
	k.ends = ends
	k.main.Store(ends[0])
	for _, e := range old {
		if !slices.Contains(ends, e) {
			k.shut(e)
		}
	}
}

// on returns the endpoint on a network, or nil. The mutex is held.
func (k *socket) on(net int) *end {
	for _, e := range k.ends {
		if e.net.n == net {
			return e
		}
	}
	return nil
}

// reach returns the endpoint on a network, a new one if there is none yet, bound as the
// socket is; isNew says so, and then it is not among the socket's ends. The mutex is
// held.
func (k *socket) reach(net int) (e *end, isNew bool, err error) {
	if e := k.on(net); e != nil {
		return e, false, nil
	}
	if k.bindNet != anyNet && k.bindNet != net || k.device != anyNet && k.device != net {
		return nil, false, unix.ENETUNREACH
	}
	if e, err = k.open(net); err != nil {
		if e := errnoOf(err); e == unix.EPROTONOSUPPORT || e == unix.ESOCKTNOSUPPORT || e == unix.EAFNOSUPPORT {
			err = unix.ENETUNREACH // that network has no such thing
		}
		return nil, false, err
	}
	if local := k.port(); local.Port() != 0 || k.typ == unix.SOCK_RAW && local.Addr().IsMulticast() {
		err = e.ep.Bind(k.st.inward(net, local))
		if errnoOf(err) == unix.EADDRINUSE && !k.bound.IsValid() {
			err = nil // chosen by a stack, and taken in this one: it chooses another
		}
		if err != nil {
			k.shut(e)
			return nil, false, err
		}
	}
	return e, true, nil
}

// port is what an endpoint on a further network is to be bound to: the wildcard and the
// port that the socket has. The mutex is held.
func (k *socket) port() netip.AddrPort {
	if k.bound.IsValid() {
		return k.bound
	}
	if k.typ == unix.SOCK_RAW {
		return netip.AddrPort{}
	}
	local, _ := k.main.Load().ep.Names()
	any := netip.IPv4Unspecified()
	if k.family == unix.AF_INET6 {
		any = netip.IPv6Unspecified()
	}
	return netip.AddrPortFrom(any, local.Port())
}

// portTries is how often a port is chosen that is free on every network.
const portTries = 16

// Bind names the socket.
func (k *socket) Bind(a netip.AddrPort) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.bind(a)
}

func (k *socket) bind(a netip.AddrPort) error {
	main := k.main.Load()
	local, remote := main.ep.Names()
	raw := k.typ == unix.SOCK_RAW // which may be bound again
	if p, ok := main.ep.(stacks.Peered); raw && ok && p.Peer().IsValid() {
		return main.ep.Bind(k.st.inward(main.net.n, a))
	}
	if !raw && (k.bound.IsValid() || remote.IsValid() || local.Port() != 0) {
		return main.ep.Bind(k.st.inward(main.net.n, a)) // which says why not
	}
	nets, err := k.bindNets(a.Addr())
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		err := k.bindOn(nets, a)
		if err == nil {
			return nil
		}
		if raw && k.bound.IsValid() {
			return err // it stays what it was
		}
		k.reset()
		if errnoOf(err) != unix.EADDRINUSE || a.Port() != 0 || len(nets) == 1 || try == portTries {
			return err
		}
	}
}

// bindOn binds endpoints on networks to one address and port. On an error some may be
// bound. The mutex is held.
func (k *socket) bindOn(nets []int, a netip.AddrPort) error {
	var ends []*end
	want := a
	for i, n := range nets {
		e := k.on(n)
		if e == nil {
			var err error
			if e, err = k.open(n); err != nil {
				if i == 0 {
					return err
				}
				continue // it has no such sockets
			}
		}
		err := e.ep.Bind(k.st.inward(n, want))
		switch {
		case err == nil:
		case i > 0 && errnoOf(err) != unix.EADDRINUSE:
			if k.on(n) == nil {
				k.shut(e)
			}
			continue
		default:
			if k.on(n) == nil {
				k.shut(e)
			}
			for _, x := range ends {
				if k.on(x.net.n) == nil {
					k.shut(x)
				}
			}
			return err
		}
		ends = append(ends, e)
		if i == 0 && want.Port() == 0 {
			local, _ := e.ep.Names()
			want = netip.AddrPortFrom(a.Addr(), local.Port())
		}
	}
	k.use(ends...)
	k.bound, k.bindNet = want, anyNet
	if len(nets) == 1 {
		k.bindNet = nets[0]
	}
	return nil
}

// reset makes the socket one that was never bound. The mutex is held.
func (k *socket) reset() {
	nets := []int{k.main.Load().net.n}
	if k.typ == unix.SOCK_RAW {
		nets = k.everywhere()
	}
	var ends []*end
	for _, n := range nets {
		if e, err := k.open(n); err == nil {
			ends = append(ends, e)
		}
	}
	if len(ends) > 0 {
		k.use(ends...)
	}
	k.bound, k.bindNet = netip.AddrPort{}, anyNet
}

// Names returns the addresses of the main endpoint.
func (k *socket) Names() (local, remote netip.AddrPort) {
	e := k.main.Load()
	local, remote = e.ep.Names()
	return k.st.outward(e.net.n, local), k.st.outward(e.net.n, remote)
}

// Shutdown is for the endpoint that is connected.
func (k *socket) Shutdown(how int) error { return k.main.Load().ep.Shutdown(how) }

// Watch watches all endpoints, and those to come.
func (k *socket) Watch(mask stacks.Events, f func(stacks.Events)) (stop func()) {
	w := &watch{mask: mask, f: f, stops: make(map[*end]func())}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.closed {
		k.watches = append(k.watches, w)
		for _, e := range k.ends {
			w.stops[e] = e.ep.Watch(mask, f)
		}
	}
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, stop := range w.stops {
			stop()
		}
		w.stops = nil
		k.watches = slices.DeleteFunc(k.watches, func(x *watch) bool { return x == w })
	}
}

// Close ends every endpoint.
func (k *socket) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil
	}
	k.closed = true
	var errs []error
	for _, e := range k.ends {
		for _, w := range k.watches {
			if stop := w.stops[e]; stop != nil {
				stop()
				delete(w.stops, e)
			}
		}
		errs = append(errs, e.ep.Close())
	}
	return errors.Join(errs...)
}

// SetOwner says who made the socket.
func (k *socket) SetOwner(uid uint32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.owner = &uid
	for _, e := range k.ends {
		if o, ok := e.ep.(stacks.Owned); ok {
			o.SetOwner(uid)
		}
	}
}

// Unlisted tells whether the network of the socket lists none.
func (k *socket) Unlisted() bool {
	_, listed := k.main.Load().net.stack.(stacks.Lister)
	return !listed
}

// Poll returns what holds of any endpoint; only the main one is asked for room.
func (k *socket) Poll() stacks.Events {
	k.mu.Lock()
	defer k.mu.Unlock()
	ev := k.ends[0].ep.Poll()
	for _, e := range k.ends[1:] {
		if !e.deaf {
			ev |= e.ep.Poll() & (unix.POLLIN | unix.POLLERR | unix.POLLPRI)
		}
	}
	return ev
}

// errnoOf returns the errno in an error, 0 if there is none.
func errnoOf(err error) unix.Errno {
	var e unix.Errno
	errors.As(err, &e)
	return e
}
