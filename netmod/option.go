// SPDX-License-Identifier: Apache-2.0

// setsockopt(2) and getsockopt(2): what the module answers itself, what the stack does.

package netmod

import (
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// optionMax is the largest option value that is copied; the kernel's own limits
// are below it for every option that a stack models.
const optionMax = 16 << 10

type optionKey struct{ level, name int }

// An optionRule says what the module does with an option of an inet socket
// itself. What has no rule goes to the stack.
type optionRule struct {
	get func(s socket, d int) ([]byte, error)  // nil: the stack; the mutex is held
	set func(s socket, d held, v []byte) error // nil: the stack

	child bool // an accepted connection has its listener's (net/core/sock.c:sk_clone_lock)
}

// optionRules is the table of options that concern the placeholder or the module.
var optionRules = map[optionKey]optionRule{
	{unix.SOL_SOCKET, unix.SO_DOMAIN}:     {get: number(func(b *base) int { return b.family }), set: noSet},
	{unix.SOL_SOCKET, unix.SO_TYPE}:       {get: number(func(b *base) int { return b.typ }), set: noSet},
	{unix.SOL_SOCKET, unix.SO_PROTOCOL}:   {get: getProtocol, set: noSet},
	{unix.SOL_SOCKET, unix.SO_ACCEPTCONN}: {get: getAcceptConn, set: noSet},
	{unix.SOL_SOCKET, unix.SO_ERROR}:      {set: noSet}, // see getOption
	{unix.SOL_SOCKET, unix.SO_PEERNAME}:   {get: getPeerName, set: noSet},

	// These live in the placeholder too: it is the one that is read and that
	// signals. Their values are as its kernel rounds them.
	{unix.SOL_SOCKET, unix.SO_RCVTIMEO}:     {get: getTimeo(unix.SO_RCVTIMEO), set: setRcvTimeo, child: true},
	{unix.SOL_SOCKET, unix.SO_SNDTIMEO}:     {get: getTimeo(unix.SO_SNDTIMEO), set: setSndTimeo, child: true},
	{unix.SOL_SOCKET, unix.SO_RCVTIMEO_NEW}: {get: getTimeo(unix.SO_RCVTIMEO), set: setRcvTimeo, child: true},
	{unix.SOL_SOCKET, unix.SO_SNDTIMEO_NEW}: {get: getTimeo(unix.SO_SNDTIMEO), set: setSndTimeo, child: true},
	{unix.SOL_SOCKET, unix.SO_RCVLOWAT}:     {get: getNative(unix.SO_RCVLOWAT), set: setRcvLowat, child: true},
	{unix.SOL_SOCKET, unix.SO_PEEK_OFF}:     {get: onStreams(getNative(unix.SO_PEEK_OFF)), set: setPeekOff, child: true},
	{unix.SOL_SOCKET, unix.SO_OOBINLINE}:    {get: getNative(unix.SO_OOBINLINE), set: setNative(unix.SO_OOBINLINE), child: true},

	// Of AF_UNIX, and not of TCP and UDP.
	{unix.SOL_SOCKET, unix.SO_ZEROCOPY}:   {get: func(socket, int) ([]byte, error) { return int32Value(0), nil }, set: noSupport},
	{unix.SOL_SOCKET, unix.SO_PASSCRED}:   {get: noGet(unix.EOPNOTSUPP), set: noSupport},
	{unix.SOL_SOCKET, unix.SO_PASSSEC}:    {get: noGet(unix.EOPNOTSUPP), set: noSupport},
	{unix.SOL_SOCKET, unix.SO_PEERCRED}:   {get: noPeerCred, set: noSet},
	{unix.SOL_SOCKET, unix.SO_PEERGROUPS}: {get: noGet(unix.ENODATA), set: noSet},
	{unix.SOL_SOCKET, unix.SO_PEERSEC}:    {get: noGet(unix.ENOPROTOOPT), set: noSet},
}

// ownCreds tells whether an option is SO_PASSCRED of a socket that has credentials.
func (b *base) ownCreds(level, name int) bool {
	return b.family == unix.AF_NETLINK && level == unix.SOL_SOCKET && name == unix.SO_PASSCRED
}

func noSupport(socket, held, []byte) error { return unix.EOPNOTSUPP }

func noGet(e unix.Errno) func(socket, int) ([]byte, error) {
	return func(socket, int) ([]byte, error) { return nil, e }
}

func number(f func(*base) int) func(socket, int) ([]byte, error) {
	return func(s socket, _ int) ([]byte, error) { return int32Value(f(s.common())), nil }
}

func noSet(socket, held, []byte) error { return unix.ENOPROTOOPT }

func int32Value(v int) []byte {
	b := make([]byte, 4)
	native.PutUint32(b, uint32(v))
	return b
}

func getProtocol(s socket, _ int) ([]byte, error) {
	b := s.common()
	proto := b.proto
	if b.family == unix.AF_PACKET {
		return int32Value(0), nil // sk_protocol is not set
	}
	if proto == 0 && b.family != unix.AF_NETLINK {
		proto = unix.IPPROTO_UDP
		if b.typ == unix.SOCK_STREAM {
			proto = unix.IPPROTO_TCP
		}
	}
	return int32Value(proto), nil
}

func getAcceptConn(s socket, _ int) ([]byte, error) {
	st, ok := s.(*stream)
	if ok && st.state == listening {
		return int32Value(1), nil
	}
	return int32Value(0), nil
}

// noPeerCred is what an inet socket has: no pid, nobody (net/core/sock.c).
func noPeerCred(socket, int) ([]byte, error) {
	b := make([]byte, 12)
	native.PutUint32(b[4:], ^uint32(0))
	native.PutUint32(b[8:], ^uint32(0))
	return b, nil
}

// getTimeo reads a struct timeval of the placeholder.
func getTimeo(name int) func(socket, int) ([]byte, error) {
	return func(_ socket, d int) ([]byte, error) {
		tv, err := unix.GetsockoptTimeval(d, unix.SOL_SOCKET, name)
		if err != nil {
			return nil, err
		}
		b := make([]byte, 16)
		native.PutUint64(b, uint64(tv.Sec))
		native.PutUint64(b[8:], uint64(tv.Usec))
		return b, nil
	}
}

// setTimeo stores a struct timeval and applies it to the placeholder as well,
// whose native reads and writes it bounds.
func setTimeo(t *time.Duration, name int, d held, v []byte) error {
	if len(v) < 16 {
		return unix.EINVAL
	}
	tv := unix.Timeval{Sec: int64(native.Uint64(v)), Usec: int64(native.Uint64(v[8:]))}
	if tv.Usec < 0 || tv.Usec >= 1e6 {
		return unix.EDOM
	}
	if err := unix.SetsockoptTimeval(d.N, unix.SOL_SOCKET, name, &tv); err != nil {
		return err
	}
	*t = 0
	if tv.Sec >= 0 && tv.Sec < int64(1<<62/time.Second) {
		*t = time.Duration(tv.Sec)*time.Second + time.Duration(tv.Usec)*time.Microsecond
	}
	return nil
}

func setRcvTimeo(s socket, d held, v []byte) error {
	return setTimeo(&s.common().rcvTimeo, unix.SO_RCVTIMEO, d, v)
}

func setSndTimeo(s socket, d held, v []byte) error {
	return setTimeo(&s.common().sndTimeo, unix.SO_SNDTIMEO, d, v)
}

// setNative and getNative are for an int of the placeholder.
func setNative(name int) func(socket, held, []byte) error {
	return func(_ socket, d held, v []byte) error {
		return unix.SetsockoptInt(d.N, unix.SOL_SOCKET, name, int(int32(native.Uint32(v))))
	}
}

func getNative(name int) func(socket, int) ([]byte, error) {
	return func(_ socket, d int) ([]byte, error) {
		v, err := unix.GetsockoptInt(d, unix.SOL_SOCKET, name)
		return int32Value(v), err
	}
}

// rcvLowatMax bounds SO_RCVLOWAT of a stream, bytes: Linux takes half of the largest
// receive buffer, the last number of net.ipv4.tcp_rmem.
const rcvLowatMax = 8 << 20

func setRcvLowat(s socket, d held, v []byte) error {
	n := int32(native.Uint32(v))
	if _, ok := s.(*stream); ok && (n < 0 || n > rcvLowatMax) {
		n = rcvLowatMax
	}
	return unix.SetsockoptInt(d.N, unix.SOL_SOCKET, unix.SO_RCVLOWAT, int(n))
}

// keep notes what was set last, in the order of setting: some programs set one
// option before every call. The list is shared with those of accepted connections
// and is not changed.
func keep(list []optionSet, o optionSet) []optionSet {
	out := make([]optionSet, 0, len(list)+1)
	for _, old := range list {
		if old.level != o.level || old.name != o.name {
			out = append(out, old)
		}
	}
	return append(out, o)
}

// inherit sets on the placeholder of an accepted connection, fd, what was set on
// its listener's.
func (s *stream) inherit(fd int, opts []optionSet) error {
	for _, o := range opts {
		if err := optionRules[optionKey{o.level, o.name}].set(s, held{FD: intercept.FD{N: fd}}, o.value); err != nil {
			return err
		}
	}
	s.kept = opts
	return nil
}

// onStreams is for what only the placeholder of a stream can do: a datagram need
// not be in it.
func onStreams(get func(socket, int) ([]byte, error)) func(socket, int) ([]byte, error) {
	return func(s socket, d int) ([]byte, error) {
		if _, ok := s.(*stream); !ok {
			return nil, unix.EOPNOTSUPP
		}
		return get(s, d)
	}
}

func setPeekOff(s socket, d held, v []byte) error {
	if _, ok := s.(*stream); !ok {
		return unix.EOPNOTSUPP
	}
	return setNative(unix.SO_PEEK_OFF)(s, d, v)
}

// getPeerName is getpeername(2) as an option.
func getPeerName(s socket, _ int) ([]byte, error) {
	return remoteName(s)
}

// handleSetsockopt answers setsockopt(2).
func (m *Module) handleSetsockopt(c *intercept.Call) intercept.Action {
	return m.with(c, func(s socket, d *held) intercept.Action {
		level, name, n := int(int32(c.Args[1])), int(int32(c.Args[2])), int32(c.Args[4])
		if n < 0 {
			return intercept.Fail(unix.EINVAL)
		}
		v := make([]byte, min(n, optionMax))
		if len(v) > 0 {
			if err := c.ReadMem(intercept.Addr(c.Args[3]), v); err != nil {
				return intercept.Fail(intercept.Errno(err))
			}
		}
		if level == unix.SOL_SOCKET && name != unix.SO_BINDTODEVICE && n < 4 {
			return intercept.Fail(unix.EINVAL) // sk_setsockopt reads an int before it looks
		}
		if level == unix.SOL_SOCKET && name == unix.SO_ATTACH_FILTER {
			var err error
			if v, err = readFilter(c, v); err != nil {
				return intercept.Fail(intercept.Errno(err))
			}
		}
		s.settle()
		b := s.common()
		b.mu.Lock()
		defer b.mu.Unlock()
		if a, ok := b.ep.(*afpacket); ok && level == unix.SOL_PACKET && name == unix.PACKET_RX_RING {
			return result(a.setRing(c, s.(*packet), d.FD, v))
		}
		if rule, ok := optionRules[optionKey{level, name}]; ok && rule.set != nil && !b.ownCreds(level, name) {
			err := rule.set(s, *d, v)
			if err == nil && rule.child {
				b.kept = keep(b.kept, optionSet{level, name, v})
			}
			return result(err)
		}
		if err := b.ep.SetOption(level, name, v); err != nil {
			m.log.Debug("option not set", "level", level, "name", name, "errno", err)
			return intercept.Fail(intercept.Errno(err))
		}
		if p, ok := s.(*packet); ok {
			p.want.note(level, name, v)
			p.noteCork(level, name, v)
			p.noteErrors(d.N, level, name, v)
			p.noteStamps(level, name, v)
		} else {
			b.opts = keep(b.opts, optionSet{level, name, v})
			if st, ok := s.(*stream); ok {
				st.noteErrors(level, name, v)
				st.noteStamps(d.N, level, name, v)
			}
		}
		return intercept.Return(0)
	})
}

// handleGetsockopt answers getsockopt(2).
func (m *Module) handleGetsockopt(c *intercept.Call) intercept.Action {
	return m.with(c, func(s socket, d *held) intercept.Action {
		level, name := int(int32(c.Args[1])), int(int32(c.Args[2]))
		if level == unix.SOL_SOCKET && name == unix.SO_COOKIE {
			return intercept.Continue() // the placeholder's is as good
		}
		if b := s.common(); b.typ == unix.SOCK_RAW && b.family == unix.AF_INET6 && level == unix.IPPROTO_IP {
			return intercept.Fail(unix.ENOPROTOOPT) // net/ipv6/ipv6_sockglue.c:ipv6_getsockopt
		}
		var l [4]byte
		if err := c.ReadMem(intercept.Addr(c.Args[4]), l[:]); err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		room := int32(native.Uint32(l[:]))
		if room < 0 {
			if level != unix.IPPROTO_IPV6 || s.common().family != unix.AF_INET6 || asksByValue(level, name) {
				return intercept.Fail(unix.EINVAL)
			}
			room = optionMax // do_ipv6_getsockopt compares it as unsigned
		}
		if level == unix.SOL_SOCKET && name == unix.SO_GET_FILTER {
			return m.getFilter(c, s, int(room))
		}
		v := make([]byte, min(room, optionMax))
		if asksByValue(level, name) && len(v) > 0 {
			if err := c.ReadMem(intercept.Addr(c.Args[3]), v); err != nil {
				return intercept.Fail(intercept.Errno(err))
			}
		}
		v, err := m.getOption(s, d.N, level, name, v)
		if err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		v = v[:min(len(v), int(room))]
		if len(v) > 0 {
			if err := c.WriteMem(intercept.Addr(c.Args[3]), v); err != nil {
				return intercept.Fail(intercept.Errno(err))
			}
		}
		native.PutUint32(l[:], uint32(len(v)))
		return result(c.WriteMem(intercept.Addr(c.Args[4]), l[:]))
	})
}

// asksByValue tells whether the program's buffer says what it asks for.
func asksByValue(level, name int) bool {
	return level == unix.IPPROTO_IP && (name == unix.IP_MSFILTER || name == unix.MCAST_MSFILTER) ||
		level == unix.IPPROTO_IPV6 && name == unix.MCAST_MSFILTER ||
		level == unix.SOL_PACKET && name == unix.PACKET_HDRLEN
}

// getOption returns the value of an option, in v where there is none of the
// module's own.
func (m *Module) getOption(s socket, d, level, name int, v []byte) ([]byte, error) {
	b := s.common()
	b.mu.Lock()
	defer b.mu.Unlock()
	if level == unix.SOL_SOCKET && name == unix.SO_ERROR {
		if p, ok := s.(*packet); ok {
			return int32Value(int(p.takeError(d))), nil
		}
		return int32Value(int(b.takeError(d))), nil
	}
	if rule, ok := optionRules[optionKey{level, name}]; ok && rule.get != nil && !s.common().ownCreds(level, name) {
		room := len(v)
		v, err := rule.get(s, d)
		if name == unix.SO_PEERNAME && err == nil && room > len(v) {
			err = unix.EINVAL // sk_getsockopt
		}
		return v, err
	}
	n, err := b.ep.Option(level, name, v)
	if err != nil {
		m.log.Debug("option not known", "level", level, "name", name, "errno", err)
		return nil, err
	}
	return v[:min(n, len(v))], nil
}
