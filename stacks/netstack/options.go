// SPDX-License-Identifier: Apache-2.0

// Socket options: the calls, and the shapes that table entries have.

package netstack

import (
	"encoding/binary"
	"math"
	"slices"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
)

// An optKey is what setsockopt(2) calls level and optname.
type optKey struct{ level, name int }

// An option is one row of a table (options_*.go).
type option struct {
	name string

	// set applies a value to an endpoint of s; nil: ENOPROTOOPT. It runs with
	// s.mu held.
	set func(s *sock, ep tcpip.Endpoint, v []byte) error

	// get returns the value; nil: ENOPROTOOPT. It runs with s.mu held.
	get func(s *sock, ep tcpip.Endpoint) ([]byte, error)

	// ask is get for an option whose buffer says what is asked for.
	ask func(s *sock, v []byte) ([]byte, error)

	// bytes says that the value is no int.
	bytes bool

	// wide says that the value is a long, or an int where there is room for no more
	// (sk_getsockopt).
	wide bool

	// gap says what a program may miss of the effect that the option has on
	// Linux; it is logged once. Empty: nothing.
	gap string
}

// options returns the row of a key for this kind of socket.
func (s *sock) option(k optKey) (option, bool) {
	if k.level == ip6 && s.family != unix.AF_INET6 {
		return option{}, false
	}
	if s.raw != nil {
		return find(k, s.rawTables(k))
	}
	tables := []map[optKey]option{solSocket, solIP, groupOptions}
	if s.family == unix.AF_INET6 {
		tables = append(tables, solIPv6)
	}
	switch s.proto {
	case unix.IPPROTO_TCP:
		tables = append(tables, solTCP)
	case unix.IPPROTO_UDP:
		tables = append(tables, solUDP)
	}
	return find(k, tables)
}

func find(k optKey, tables []map[optKey]option) (option, bool) {
	for _, t := range tables {
		if o, ok := t[k]; ok {
			return o, true
		}
	}
	return option{}, false
}

// SetOption is setsockopt(2).
func (s *sock) SetOption(level, name int, value []byte) error {
	if err := s.down(); err != nil {
		return err
	}
	k := optKey{level, name}
	o, ok := s.option(k)
	if !ok || o.set == nil {
		if ok && len(value) < 4 && wantsWord(level) {
			return unix.EINVAL
		}
		return unix.ENOPROTOOPT
	}
	if s.typ == unix.SOCK_STREAM {
		if err := notOnStreams[k]; err != 0 {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := o.set(s, s.endpoint(), value); err != nil {
		return err
	}
	if _, ok := groupOptions[k]; !ok {
		s.opts.add(k, value)
	}
	if o.gap != "" {
		s.st.tellOnce(o.name, "socket option without full effect", "option", o.name, "gap", o.gap)
	}
	return nil
}

// Option is getsockopt(2).
func (s *sock) Option(level, name int, value []byte) (int, error) {
	if err := s.down(); err != nil {
		return 0, err
	}
	o, ok := s.option(optKey{level, name})
	if ok && o.ask != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		v, err := o.ask(s, value)
		return copy(value, v), err
	}
	if !ok || o.get == nil {
		if !s.knownLevel(level) {
			return 0, unix.EOPNOTSUPP // see knownLevel
		}
		return 0, unix.ENOPROTOOPT
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := o.get(s, s.endpoint())
	if err != nil {
		return 0, err
	}
	if n := len(value); level == ip4 && !o.bytes && len(v) == 4 && 0 < n && n < 4 {
		// Values of one byte fit into one (do_ip_getsockopt).
		if w := binary.NativeEndian.Uint32(v); w < 256 {
			v = []byte{byte(w)}
		}
	}
	if o.wide && len(value) < len(v) {
		v = bytesOf(int(min(binary.NativeEndian.Uint64(v), math.MaxUint32)))
	}
	return copy(value, v), nil
}

// wantsWord tells whether setsockopt(2) looks for the int of a value before it
// looks at the option (sk_setsockopt, do_tcp_setsockopt, udp_lib_setsockopt).
func wantsWord(level int) bool {
	return level == unix.SOL_SOCKET || level == unix.IPPROTO_TCP || level == unix.IPPROTO_UDP
}

// knownLevel tells whether getsockopt(2) has options of a level. It makes no
// difference to AF_INET6: do_ipv6_getsockopt answers ENOPROTOOPT for both,
// do_ip_getsockopt does not.
func (s *sock) knownLevel(level int) bool {
	switch {
	case level == unix.SOL_SOCKET, level == unix.IPPROTO_IP, s.family == unix.AF_INET6:
		return true
	case s.raw != nil:
		return level == unix.SOL_RAW
	}
	return level == s.proto && s.proto != unix.IPPROTO_ICMP && s.proto != unix.IPPROTO_ICMPV6
}

// An optionLog remembers which options were set, in order, for the endpoints
// that come later: after a failed connect, and of accepted connections.
type optionLog struct {
	entries []loggedOption
}

type loggedOption struct {
	key   optKey
	value []byte
}

func (l *optionLog) add(k optKey, v []byte) {
	l.entries = slices.DeleteFunc(l.entries, func(e loggedOption) bool { return e.key == k })
	l.entries = append(l.entries, loggedOption{k, slices.Clone(v)})
}

func (l *optionLog) clone() optionLog { return optionLog{slices.Clone(l.entries)} }

// replay sets the options on a new endpoint. Errors are those that the program
// did not get either: the values were valid.
func (l *optionLog) replay(s *sock, ep tcpip.Endpoint) {
	for _, e := range l.entries {
		if o, ok := s.option(e.key); ok && o.set != nil {
			o.set(s, ep, e.value)
		}
	}
}

// optionVals keeps the values that gVisor has no place for. It is copied as a
// whole and never changed in place.
type optionVals map[optKey]int

func (s *sock) val(k optKey, def int) int {
	if v, ok := s.vals[k]; ok {
		return v
	}
	return def
}

func (s *sock) setVal(k optKey, v int) {
	n := make(optionVals, len(s.vals)+1)
	for k, v := range s.vals {
		n[k] = v
	}
	n[k] = v
	s.vals = n
}

// intOf decodes the int of a SOL_SOCKET or TCP option.
func intOf(v []byte) (int, error) {
	if len(v) < 4 {
		return 0, unix.EINVAL
	}
	return int(int32(binary.NativeEndian.Uint32(v))), nil
}

// ipInt decodes the value of an IP option: an int, or one byte (ip(7)).
func ipInt(v []byte) (int, error) {
	switch {
	case len(v) >= 4:
		return intOf(v)
	case len(v) >= 1:
		return int(v[0]), nil
	}
	return 0, unix.EINVAL
}

// ipIntOrNone is ipInt for the options that take nothing for 0
// (net/ipv4/ip_sockglue.c:do_ip_setsockopt).
func ipIntOrNone(v []byte) (int, error) {
	if len(v) == 0 {
		return 0, nil
	}
	return ipInt(v)
}

func bytesOf(v int) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(int32(v))) }

func boolBytes(b bool) []byte {
	if b {
		return bytesOf(1)
	}
	return bytesOf(0)
}

// constant is an option that can only be read.
func constant(name string, f func(*sock) int) option {
	return option{name: name, get: func(s *sock, _ tcpip.Endpoint) ([]byte, error) { return bytesOf(f(s)), nil }}
}

// refused is an option that cannot be set, and reads as 0 if readable.
func refused(name string, e unix.Errno, readable bool) option {
	o := option{name: name, set: func(_ *sock, _ tcpip.Endpoint, v []byte) error {
		if len(v) < 4 {
			return unix.EINVAL
		}
		return e
	}}
	if readable {
		o.get = func(*sock, tcpip.Endpoint) ([]byte, error) { return bytesOf(0), nil }
	}
	return o
}

// zeroOnly is an option that can be set to 0 only.
func zeroOnly(name string, e unix.Errno, readable bool) option {
	o := refused(name, e, readable)
	o.set = func(_ *sock, _ tcpip.Endpoint, v []byte) error {
		if n, err := intOf(v); err != nil || n == 0 {
			return err
		}
		return e
	}
	return o
}

// flag is a boolean that gVisor has.
func flag(name string, get func(*tcpip.SocketOptions) bool, set func(*tcpip.SocketOptions, bool)) option {
	return option{
		name: name,
		set: func(_ *sock, ep tcpip.Endpoint, v []byte) error {
			n, err := intOf(v)
			if err == nil {
				set(ep.SocketOptions(), n != 0)
			}
			return err
		},
		get: func(_ *sock, ep tcpip.Endpoint) ([]byte, error) { return boolBytes(get(ep.SocketOptions())), nil },
	}
}

// kept is an int that only we keep: netmod acts on it, or nothing has to. min
// and max are inclusive.
func kept(level, nr int, name string, def, min, max int, decode func([]byte) (int, error), gap string) option {
	k := optKey{level, nr}
	return option{
		name: name, gap: gap,
		set: func(s *sock, _ tcpip.Endpoint, v []byte) error {
			n, err := decode(v)
			if err != nil {
				return err
			}
			if n < min || n > max {
				return unix.EINVAL
			}
			s.setVal(k, n)
			return nil
		},
		get: func(s *sock, _ tcpip.Endpoint) ([]byte, error) { return bytesOf(s.val(k, def)), nil },
	}
}

// keptBool is kept for a boolean: any non-zero int is 1.
func keptBool(level, nr int, name string, def int, gap string) option {
	decode := intOf
	if level == unix.IPPROTO_IP {
		decode = ipIntOrNone
	}
	return kept(level, nr, name, def, 0, 1, truth(decode), gap)
}

// intOrNone is intOf for the options of IPv6 that take a short value for 0.
func intOrNone(v []byte) (int, error) {
	if len(v) < 4 {
		return 0, nil
	}
	return intOf(v)
}

// truth makes 1 of every other int than 0.
func truth(decode func([]byte) (int, error)) func([]byte) (int, error) {
	return func(v []byte) (int, error) {
		n, err := decode(v)
		if n != 0 {
			n = 1
		}
		return n, err
	}
}

// gvInt is an int that gVisor has. check returns the value for gVisor.
func gvInt(name string, o tcpip.SockOptInt, decode func([]byte) (int, error), check func(int) (int, error)) option {
	return option{
		name: name,
		set: func(_ *sock, ep tcpip.Endpoint, v []byte) error {
			n, err := decode(v)
			if err != nil {
				return err
			}
			if n, err = check(n); err != nil {
				return err
			}
			return optErrno(ep.SetSockOptInt(o, n))
		},
		get: func(_ *sock, ep tcpip.Endpoint) ([]byte, error) {
			n, err := ep.GetSockOptInt(o)
			return bytesOf(n), optErrno(err)
		},
	}
}

func optErrno(err tcpip.Error) error {
	if err == nil {
		return nil
	}
	return errno(err)
}

// streamsOnly is an option of TCP at level SOL_SOCKET.
func streamsOnly(o option) option {
	set, get := o.set, o.get
	o.set = func(s *sock, ep tcpip.Endpoint, v []byte) error {
		if s.typ != unix.SOCK_STREAM {
			return unix.EOPNOTSUPP
		}
		return set(s, ep, v)
	}
	o.get = func(s *sock, ep tcpip.Endpoint) ([]byte, error) {
		if s.typ != unix.SOCK_STREAM {
			return nil, unix.EOPNOTSUPP
		}
		return get(s, ep)
	}
	return o
}

// within returns a check for gvInt.
func within(min, max int) func(int) (int, error) {
	return func(n int) (int, error) {
		if n < min || n > max {
			return 0, unix.EINVAL
		}
		return n, nil
	}
}
