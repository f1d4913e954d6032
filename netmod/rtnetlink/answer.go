// SPDX-License-Identifier: Apache-2.0

// Requests: taking them apart, and which function answers which.

package rtnetlink

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/stacks"
)

// maxDump bounds what one request can make us build: when that much was
// answered, further dumps of the same request get EBUSY, as from a kernel whose
// first dump still runs.
const maxDump = 64 << 10 // bytes

const (
	kindGet = 2      // of type & 3: new, del, get, set
	rtmMax  = 0x7f   // types above are unknown even to recent kernels
	afAny   = 0      // AF_UNSPEC
	afBr    = 7      // AF_BRIDGE
	dumpBit = 0x300  // NLM_F_DUMP; either bit of it means a dump
	cloned  = 0x0200 // RTM_F_CLONED

	fullTable = 0x1000 // RTM_F_LOOKUP_TABLE: tell the table
	fibMatch  = 0x2000 // RTM_F_FIB_MATCH: tell the route, not the resolved path
)

// Options are the socket options of netlink(7) that change answers.
type Options nlmsg.Options

// Answer is Options{}.Answer: the answer to a socket without options.
func Answer(s stacks.State, req []byte, portID uint32) [][]byte {
	return Options{}.Answer(s, req, portID)
}

// Answer is Serve on a network that cannot be changed.
func (o Options) Answer(s stacks.State, req []byte, portID uint32) [][]byte {
	return o.Serve(s, nil, req, portID)
}

// Serve returns the datagrams, in order, that a NETLINK_ROUTE socket with the
// address portID receives for what it sent in one sendmsg(2). None is a valid
// answer, see [nlmsg.Serve]. req is only read.
//
// set, if not nil, is told what a request makes of the State; its error, a
// unix.Errno, is what the request fails with. Without it every change gets EPERM.
func (o Options) Serve(s stacks.State, set Setter, req []byte, portID uint32) [][]byte {
	return o.ServeGuided(s, nil, set, req, portID)
}

// A Guide returns the State with the routes that count for a flow, where that is not
// for the tables alone to say.
type Guide func(stacks.Flow) stacks.State

// ServeGuided is Serve where guide, if not nil, says which routes lead where.
func (o Options) ServeGuided(s stacks.State, guide Guide, set Setter, req []byte, portID uint32) [][]byte {
	return nlmsg.Serve(nlmsg.Options(o), req, portID, func(m nlmsg.Message, w *nlmsg.Writer) (bool, *nlmsg.Failure) {
		r := request{state: s, guide: guide, set: set, typ: m.Type, flags: m.Flags, body: m.Body, opts: o,
			origin: Origin{Type: m.Type, Port: portID, Seq: m.Seq, Echo: m.Flags&unix.NLM_F_ECHO != 0}}
		dumped, f := r.serve(w)
		s = r.state
		return dumped, f
	})
}

// A request is one message.
type request struct {
	state stacks.State
	guide Guide  // may be nil
	set   Setter // may be nil
	body  []byte // without its header
	typ   uint16
	flags uint16
	opts  Options

	origin Origin
}

// A Setter is told the State that is to be, and who asked for it. Neighbours that are
// to be forgotten are NUD_NONE.
type Setter func(next stacks.State, by Origin) error

// An Origin is the request that changes something; the zero value is none: an ioctl,
// or the end of an address's life.
type Origin struct {
	Type uint16 // RTM_*
	Port uint32 // of the socket
	Seq  uint32
	Echo bool // NLM_F_ECHO: the socket is told itself what comes of it
}

// serve answers r. dumped: the answer is a dump, which is never acknowledged
// beside its NLMSG_DONE.
func (r *request) serve(w *nlmsg.Writer) (dumped bool, _ *nlmsg.Failure) {
	switch {
	case r.typ > rtmMax:
		return false, nlmsg.Fail(unix.EOPNOTSUPP, "")
	case len(r.body) == 0:
		return false, nil // no family: ignored, as in the kernel
	case r.typ&3 != kindGet && r.set == nil:
		return false, nlmsg.Fail(unix.EPERM, "")
	case r.typ&3 != kindGet:
		next, f := r.change()
		if f != nil {
			return false, f
		}
		if err := r.set(next, r.origin); err != nil {
			return false, nlmsg.Fail(errnoOf(err), "")
		}
		r.state = next
		return false, nil
	case r.flags&dumpBit == 0:
		return false, r.single(w)
	}
	if w.Size() > maxDump {
		return false, nlmsg.Fail(unix.EBUSY, "")
	}
	switch f := r.dump(w); {
	case f == errNoDump:
		return false, f
	case f != nil:
		w.DoneWith(f) // the dump has begun before it fails
	default:
		w.Done()
	}
	return true, nil
}

// errnoOf is the errno that a stack's error holds.
func errnoOf(err error) unix.Errno {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EIO
}

// single answers a request for one object.
func (r *request) single(w *nlmsg.Writer) *nlmsg.Failure {
	switch {
	case r.typ == unix.RTM_GETLINK:
		return r.oneLink(w)
	case r.typ == unix.RTM_GETADDR && r.family() == unix.AF_INET6:
		return r.oneAddr(w)
	case r.typ == unix.RTM_GETROUTE && r.family() != afAny:
		return r.oneRoute(w)
	case r.typ == unix.RTM_GETNEIGH:
		return r.oneNeigh(w)
	}
	return nlmsg.Fail(unix.EOPNOTSUPP, "")
}

// dump answers a request for all objects.
func (r *request) dump(w *nlmsg.Writer) *nlmsg.Failure {
	if f := r.strict(); f != nil {
		return f
	}
	switch r.typ {
	case unix.RTM_GETLINK:
		r.links(w)
	case unix.RTM_GETADDR:
		r.addrs(w)
	case unix.RTM_GETROUTE:
		return r.routes(w)
	case unix.RTM_GETRULE:
		r.rules(w)
	case unix.RTM_GETNEIGH:
		return r.neighbours(w)
	case unix.RTM_GETNEXTHOP: // there are none
	default:
		return errNoDump
	}
	return nil
}

// errNoDump fails requests for all objects of a kind that cannot be dumped.
var errNoDump = nlmsg.Fail(unix.EOPNOTSUPP, "")

// family is the address family that the request is about.
func (r *request) family() int { return int(r.body[0]) }

// wants reports whether a dump covers family f. A family that has no such
// objects means all of them (rtnetlink_rcv_msg falls back to PF_UNSPEC).
func (r *request) wants(f int) bool {
	got := r.family()
	return got == f || got != unix.AF_INET && got != unix.AF_INET6
}

// fixed returns the fixed part of the body, of n bytes; what a short request
// leaves out is zero (glibc and Go send the family alone).
func (r *request) fixed(n int) []byte {
	b := make([]byte, n)
	copy(b, r.body)
	return b
}

// attrs returns the attributes behind a fixed part of n bytes.
func (r *request) attrs(n int) map[uint16][]byte { return nlmsg.Attrs(r.body, n) }

// attrU32 reads a number; absent or short is 0.
func attrU32(a []byte) uint32 {
	if len(a) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(a)
}

// attrAddr reads an address of the family; absent is the zero Addr.
func attrAddr(a []byte, family int) (_ netip.Addr, ok bool) {
	want := 4
	if family == unix.AF_INET6 {
		want = 16
	}
	if a == nil {
		return netip.Addr{}, true
	}
	if len(a) != want {
		return netip.Addr{}, false
	}
	return netip.AddrFromSlice(a)
}

// byIndex returns the interface with an index, or nil.
func byIndex(s stacks.State, index int) *stacks.Interface {
	for i := range s.Interfaces {
		if s.Interfaces[i].Index == index {
			return &s.Interfaces[i]
		}
	}
	return nil
}

// byName returns the interface with a name, or nil.
func byName(s stacks.State, name string) *stacks.Interface {
	for i := range s.Interfaces {
		if s.Interfaces[i].Name == name {
			return &s.Interfaces[i]
		}
	}
	return nil
}
