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
const optionMax = 4096

type optionKey struct{ level, name int }

// An optionRule says what the module does with an option of an inet socket
// itself. What has no rule goes to the stack.
type optionRule struct {
	get func(s socket) []byte                  // nil: the stack; the mutex is held
	set func(s socket, d held, v []byte) error // nil: the stack
}

// optionRules is the table of options that concern the placeholder or the module.
var optionRules = map[optionKey]optionRule{
	{unix.SOL_SOCKET, unix.SO_DOMAIN}:     {get: func(s socket) []byte { return int32Value(s.common().family) }, set: noSet},
	{unix.SOL_SOCKET, unix.SO_TYPE}:       {get: func(s socket) []byte { return int32Value(s.common().typ) }, set: noSet},
	{unix.SOL_SOCKET, unix.SO_PROTOCOL}:   {get: getProtocol, set: noSet},
	{unix.SOL_SOCKET, unix.SO_ACCEPTCONN}: {get: getAcceptConn, set: noSet},
	{unix.SOL_SOCKET, unix.SO_ERROR}:      {set: noSet}, // see getOption

	{unix.SOL_SOCKET, unix.SO_RCVTIMEO}:     {get: func(s socket) []byte { return timeval(s.common().rcvTimeo) }, set: setRcvTimeo},
	{unix.SOL_SOCKET, unix.SO_SNDTIMEO}:     {get: func(s socket) []byte { return timeval(s.common().sndTimeo) }, set: setSndTimeo},
	{unix.SOL_SOCKET, unix.SO_RCVTIMEO_NEW}: {get: func(s socket) []byte { return timeval(s.common().rcvTimeo) }, set: setRcvTimeo},
	{unix.SOL_SOCKET, unix.SO_SNDTIMEO_NEW}: {get: func(s socket) []byte { return timeval(s.common().sndTimeo) }, set: setSndTimeo},

	// These live in the placeholder too: it is the one that is read and that
	// signals.
	{unix.SOL_SOCKET, unix.SO_RCVLOWAT}: {set: setNative},
	{unix.SOL_SOCKET, unix.SO_PEEK_OFF}: {set: func(socket, held, []byte) error { return unix.EOPNOTSUPP }},
	{unix.SOL_SOCKET, unix.SO_ZEROCOPY}: {set: func(socket, held, []byte) error { return unix.EOPNOTSUPP }},
	{unix.SOL_SOCKET, unix.SO_PASSCRED}: {get: func(socket) []byte { return int32Value(0) }, set: func(socket, held, []byte) error { return unix.EOPNOTSUPP }},
	{unix.SOL_SOCKET, unix.SO_PEERCRED}: {get: noPeerCred, set: noSet},
	{unix.SOL_SOCKET, unix.SO_PEERSEC}:  {set: noSet},
}

func noSet(socket, held, []byte) error { return unix.ENOPROTOOPT }

func int32Value(v int) []byte {
	b := make([]byte, 4)
	native.PutUint32(b, uint32(v))
	return b
}

func getProtocol(s socket) []byte {
	b := s.common()
	proto := b.proto
	if proto == 0 && b.family != unix.AF_NETLINK {
		proto = unix.IPPROTO_UDP
		if b.typ == unix.SOCK_STREAM {
			proto = unix.IPPROTO_TCP
		}
	}
	return int32Value(proto)
}

func getAcceptConn(s socket) []byte {
	st, ok := s.(*stream)
	if ok && st.state == listening {
		return int32Value(1)
	}
	return int32Value(0)
}

// noPeerCred is what an inet socket has: no pid, nobody (net/core/sock.c).
func noPeerCred(socket) []byte {
	b := make([]byte, 12)
	native.PutUint32(b[4:], ^uint32(0))
	native.PutUint32(b[8:], ^uint32(0))
	return b
}

func timeval(d time.Duration) []byte {
	b := make([]byte, 16)
	native.PutUint64(b, uint64(d/time.Second))
	native.PutUint64(b[8:], uint64(d%time.Second/time.Microsecond))
	return b
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

func setNative(s socket, d held, v []byte) error {
	if len(v) < 4 {
		return unix.EINVAL
	}
	return unix.SetsockoptInt(d.N, unix.SOL_SOCKET, unix.SO_RCVLOWAT, int(int32(native.Uint32(v))))
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
		s.settle()
		b := s.common()
		b.mu.Lock()
		defer b.mu.Unlock()
		if rule, ok := optionRules[optionKey{level, name}]; ok && rule.set != nil {
			return result(rule.set(s, *d, v))
		}
		if err := b.ep.SetOption(level, name, v); err != nil {
			m.log.Debug("option not set", "level", level, "name", name, "errno", err)
			return intercept.Fail(intercept.Errno(err))
		}
		if p, ok := s.(*packet); ok {
			p.want.note(level, name, v)
		} else {
			b.opts = append(b.opts, optionSet{level, name, v})
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
		var l [4]byte
		if err := c.ReadMem(intercept.Addr(c.Args[4]), l[:]); err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		room := int32(native.Uint32(l[:]))
		if room < 0 {
			return intercept.Fail(unix.EINVAL)
		}
		v, err := m.getOption(s, d.N, level, name, int(min(room, optionMax)))
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

func (m *Module) getOption(s socket, d, level, name, room int) ([]byte, error) {
	b := s.common()
	b.mu.Lock()
	defer b.mu.Unlock()
	if level == unix.SOL_SOCKET && name == unix.SO_ERROR {
		return int32Value(int(b.takeError(d))), nil
	}
	if level == unix.SOL_SOCKET && name == unix.SO_RCVLOWAT {
		v, err := unix.GetsockoptInt(d, level, name)
		return int32Value(v), err
	}
	if rule, ok := optionRules[optionKey{level, name}]; ok && rule.get != nil {
		return rule.get(s), nil
	}
	v := make([]byte, room)
	n, err := b.ep.Option(level, name, v)
	if err != nil {
		m.log.Debug("option not known", "level", level, "name", name, "errno", err)
		return nil, err
	}
	return v[:min(n, room)], nil
}
