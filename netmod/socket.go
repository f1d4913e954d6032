// SPDX-License-Identifier: Apache-2.0

// What all sockets have in common, and socket(2) itself.

package netmod

import (
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/stacks"
)

// A socket is a socket of the program: a placeholder and what stands behind it.
// Methods that answer a call get the call and a duplicate of the program's
// descriptor; they own neither, but may keep the duplicate by taking it (see
// held).
type socket interface {
	common() *base
	connect(c *intercept.Call, d *held, to netip.AddrPort) intercept.Action
	listen(c *intercept.Call, d intercept.FD, backlog int) intercept.Action
	accept(c *intercept.Call, d *held, a acceptArgs) intercept.Action
	shutdown(c *intercept.Call, d intercept.FD, how int) intercept.Action
	send(c *intercept.Call, d *held, x *transfer) intercept.Action
	recv(c *intercept.Call, d *held, x *transfer) intercept.Action

	// settle moves what the program has written so far to the stack, so that a
	// state change that follows does not overtake it.
	settle()
	// pending returns the bytes that the program wrote and the peer may not
	// have; busy is false when there is nothing to wait for.
	pending() (bytes int, busy bool)
	// destroy releases everything at once.
	destroy()
}

// base is the part that is the same for each kind of socket.
type base struct {
	m                  *Module
	self               socket // what the base is part of
	cookie             uint64 // of the placeholder; written with mu and Module.mu held
	inode              uint64 // of the same
	family, typ, proto int    // as socket(2) was called
	uid                uint32 // of who called it
	job                job

	mu       sync.Mutex // guards what follows and the fields of the kinds
	owner    Owner      // who made or accepted it; only with Config.Owners
	ep       stacks.Socket
	stop     func() // ends the watch on ep
	peer     int    // the module's end; -1 when there is none
	soErr    unix.Errno
	marked   bool          // soErr stands in the placeholder as well
	opts     []optionSet   // what was set, for an endpoint that must be made anew
	by       stacks.Caller // who made it, likewise
	kept     []optionSet   // what was set on the placeholder, for those of accepted connections
	rcvTimeo time.Duration // 0: for ever
	sndTimeo time.Duration
	bound    bool
	gone     bool     // destroyed
	opening  *Opening // that was announced
}

func (b *base) common() *base { return b }

// optionSet is one successful setsockopt.
type optionSet struct {
	level, name int
	value       []byte
}

// held is a duplicate of the program's descriptor that an answer may keep.
type held struct {
	intercept.FD
	taken bool
}

// take keeps the duplicate beyond the handler; the taker closes it.
func (h *held) take() intercept.FD {
	h.taken = true
	return h.FD
}

// register enters the socket, whose placeholder is fd, into the table and begins
// to listen to both of its sides; scanned says that liveness watches the
// placeholder. No turn runs before it is complete.
func (b *base) register(fd int, scanned bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	id, err := identify(fd)
	if err != nil {
		return err
	}
	if scanned { // first: what is in the table and not watched is taken for closed
		if err := b.m.live.watch(fd, id.cookie); err != nil {
			return err
		}
	}
	if err := b.m.enter(b, id); err != nil {
		return err
	}
	b.watch()
	if b.peer < 0 {
		return nil
	}
	return b.m.pump.add(&b.job, b.peer)
}

// drop closes the duplicate if nobody has taken it.
func (h *held) drop() {
	if !h.taken {
		h.Close()
	}
}

// watch starts to be told of events of the endpoint.
func (b *base) watch() {
	b.stop = b.ep.Watch(unix.POLLIN|unix.POLLOUT|unix.POLLERR|unix.POLLHUP|unix.POLLRDHUP|unix.POLLPRI,
		func(stacks.Events) { b.m.pump.schedule(&b.job, stackAny) })
}

// unwatch ends that.
func (b *base) unwatch() {
	if b.stop != nil {
		b.stop()
		b.stop = nil
	}
}

// dropPeer closes the module's end.
func (b *base) dropPeer() {
	if b.peer >= 0 {
		unix.Close(b.peer)
		b.peer = -1
	}
}

// takeError returns the error that SO_ERROR reports, and clears it. d is a
// duplicate of the placeholder: what broke it left an error with the kernel too,
// and if that is gone, a read or write has reported it already.
func (b *base) takeError(d int) unix.Errno {
	kernel, err := unix.GetsockoptInt(d, unix.SOL_SOCKET, unix.SO_ERROR)
	e := b.soErr
	b.soErr = 0
	if e == 0 {
		return endpointError(b.ep)
	}
	if b.marked && (err != nil || kernel == 0) {
		return 0
	}
	b.marked = false
	return e
}

// endpointError asks an endpoint for its pending error.
func endpointError(ep stacks.Socket) unix.Errno {
	var v [4]byte
	if n, err := ep.Option(unix.SOL_SOCKET, unix.SO_ERROR, v[:]); err != nil || n < 4 {
		return 0
	}
	return unix.Errno(native.Uint32(v[:]))
}

// nonblocking reads O_NONBLOCK of the open file description, which the program
// may change at any time.
func nonblocking(fd int) bool {
	fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return err == nil && fl&unix.O_NONBLOCK != 0
}

// sockMax is one more than the largest socket type (linux/net.h: SOCK_MAX).
const sockMax = 11

// handleSocket answers socket(2). The family is in a register and is the kernel's
// int: its low 32 bits.
func (m *Module) handleSocket(c *intercept.Call) intercept.Action {
	family, typ, proto := int(int32(c.Args[0])), int(int32(c.Args[1])), int(int32(c.Args[2]))
	switch family {
	case unix.AF_UNIX:
		return intercept.Continue()
	case unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET:
	default:
		return intercept.Fail(unix.EAFNOSUPPORT)
	}
	if c.Arch != intercept.Native {
		return intercept.Fail(unix.EAFNOSUPPORT) // the calls that would follow have other layouts
	}
	if typ&0xf >= sockMax {
		return intercept.Fail(unix.EINVAL)
	}
	// A task that made a network namespace of its own wants no network (or an
	// empty one); a socket of the view would give it one.
	if ns, err := c.NetNS(); err != nil || ns != m.netns {
		return intercept.Fail(unix.EACCES)
	}
	flags := typ &^ 0xf
	typ &= 0xf
	if flags&^(unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC) != 0 {
		return intercept.Fail(unix.EINVAL)
	}
	by, err := m.caller(c)
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	s, fd, err := m.newSocket(by, family, typ, proto, flags&unix.SOCK_NONBLOCK)
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	m.claim(s, c)
	m.owned(s, c)
	a := intercept.InstallFD(fd, flags&unix.SOCK_CLOEXEC != 0)
	a.OnAbort = s.destroy
	return a
}

// me is whom all programs of a view belong to, unless that is root's.
var me = uint32(os.Getuid())

// owned notes who made a socket that the program does not have yet.
func (m *Module) owned(s socket, c *intercept.Call) {
	if p, ok := s.(*packet); ok {
		if n, ok := p.pkt.(*netlink); ok {
			n.mu.Lock()
			n.maker = c.Task.TGID()
			n.mu.Unlock()
		}
	}
	if me != 0 {
		return // a program that can be supervised is the same user's
	}
	uid, err := c.UID()
	if err != nil {
		return
	}
	b := s.common()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.uid = uid
	b.tellOwner()
}

// tellOwner tells the stack who made the socket. The mutex is held.
func (b *base) tellOwner() {
	if o, ok := b.ep.(stacks.Owned); ok && b.uid != me {
		o.SetOwner(b.uid)
	}
}

// caller tells who makes a socket, as far as the stack wants to know.
func (m *Module) caller(c *intercept.Call) (by stacks.Caller, err error) {
	if m.chooser == nil {
		return by, nil
	}
	uid, exe := m.chooser.Identify()
	if uid {
		if by.UID, err = c.FSUID(); err != nil {
			return by, unix.EACCES
		}
	}
	if exe { // looked up now: the socket may get another endpoint when the task is another
		file, err := c.Exe()
		by.Exe = func() (string, error) { return file, err }
	}
	return by, nil
}

// endpoint makes a socket of the stack for a task.
func (m *Module) endpoint(by stacks.Caller, family, typ, proto int) (stacks.Socket, error) {
	if m.chooser != nil {
		return m.chooser.SocketFor(by, family, typ, proto)
	}
	return m.stack.Socket(family, typ, proto)
}

// newSocket makes a socket and its placeholder.
func (m *Module) newSocket(by stacks.Caller, family, typ, proto, nonblock int) (socket, int, error) {
	if family == unix.AF_NETLINK {
		m.live.reapNetlink()
		ep, err := newNetlink(m, typ, proto)
		if err != nil {
			return nil, -1, err
		}
		return m.newPacket(family, typ, proto, ep, nonblock)
	}
	if family == unix.AF_PACKET {
		ep, err := newAFPacket(m, typ, proto)
		if err != nil {
			return nil, -1, err
		}
		return m.newPacket(family, typ, proto, ep, nonblock)
	}
	ep, err := m.endpoint(by, family, typ, proto)
	if err != nil {
		return nil, -1, err
	}
	switch ep := ep.(type) {
	case stacks.StreamSocket:
		s, fd, err := m.newStream(family, typ, proto, ep, nonblock)
		if err == nil {
			b := s.common()
			b.mu.Lock()
			b.by = by
			b.mu.Unlock()
		}
		return s, fd, err
	case stacks.PacketSocket:
		return m.newPacket(family, typ, proto, ep, nonblock)
	}
	_ = ep.Close()
	return nil, -1, unix.ESOCKTNOSUPPORT
}

// with finds the socket that argument 0 names and lets f answer. What is not a
// socket of the module's goes to foreign.
func (m *Module) with(c *intercept.Call, f func(s socket, d *held) intercept.Action) intercept.Action {
	fd, err := m.dup(c)
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	if m.strangers.knows(c, fd) {
		fd.CloseShort()
		c.About(aboutUnix)
		return intercept.Continue()
	}
	s := m.find(fd)
	if s == nil {
		defer fd.Close()
		return m.foreign(c, fd)
	}
	d := &held{FD: fd}
	defer d.drop()
	return f(s, d)
}
