// SPDX-License-Identifier: Apache-2.0

// Fuzzing of the filter programs of ss against the kernel's.

package sockdiag

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/netmod/nlmsg/nstest"
)

// kept is a test whose clean-up is left to the end of the process: the sockets of a
// world are there for all runs.
type kept struct{ testing.TB }

func (kept) Cleanup(func()) {}

// newPlainWorld makes a listener, a connection and a datagram socket of each family,
// on ports that the kernel picks: several processes fuzz in one namespace.
func newPlainWorld(t testing.TB) *world {
	t.Helper()
	nstest.Need(t)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w := &world{}
	w.raise(t)
	for family, any := range map[int]unix.Sockaddr{
		unix.AF_INET:  &unix.SockaddrInet4{Addr: loop4},
		unix.AF_INET6: &unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16()},
	} {
		l := w.socket(t, family, unix.SOCK_STREAM)
		check(unix.Bind(l, any))
		check(unix.Listen(l, 5))
		c := w.socket(t, family, unix.SOCK_STREAM)
		check(unix.Connect(c, must[unix.Sockaddr](t)(unix.Getsockname(l))))
		child, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		check(err)
		u := w.socket(t, family, unix.SOCK_DGRAM)
		check(unix.Bind(u, any))
		w.add(t, l, family, unix.IPPROTO_TCP, Listen, 0, 5)
		w.add(t, c, family, unix.IPPROTO_TCP, Established, 0, 0)
		w.add(t, child, family, unix.IPPROTO_TCP, Established, 0, 0)
		w.add(t, u, family, unix.IPPROTO_UDP, Close, 0, 0)
	}
	return w
}

// unmodelled tells whether a program has operations that never hold in a view
// (opAuto), or for which the kernel wants CAP_NET_ADMIN, which this process may have
// and a program in a view has not.
func (p program) unmodelled() bool {
	for len(p) >= opLen {
		if p[0] == opAuto || p[0] == opMark || p[0] == opCgroup {
			return true
		}
		if p.yes() < opLen || p.yes() > len(p) {
			return false
		}
		p = p[p.yes():]
	}
	return false
}

// FuzzBytecode gives a program to the kernel and to us: both refuse it, or both
// choose the same sockets with it.
func FuzzBytecode(f *testing.F) {
	for _, p := range [][]byte{
		op(opNop, 4, 8), op(opJmp, 4, 4),
		slices.Concat(op(opSrcGE, 8, 12), op(opNop, 0, 0), op(opNop, 4, 4)),
		slices.Concat(op(opSrcEq, 8, 12), []byte{0, 0, 0x90, 0x1f}),
		slices.Concat(op(opDstLE, 8, 12), []byte{0, 0, 0, 100}),
		slices.Concat(op(opSrcCond, 16, 20), host(unix.AF_INET, 8, -1, 127, 0, 0, 0)),
		slices.Concat(op(opDstCond, 16, 20), host(unix.AF_INET, 32, 8080, 127, 0, 0, 1)),
		slices.Concat(op(opDstCond, 28, 32), host(unix.AF_INET6, 128, -1, make([]byte, 16)...)),
		slices.Concat(op(opDstCond, 12, 16), host(unix.AF_UNSPEC, 0, 8081)),
		slices.Concat(op(opDev, 8, 12), []byte{1, 0, 0, 0}),
		slices.Concat(op(opSrcGE, 8, 20), []byte{0, 0, 0, 80}, op(opJmp, 4, 8), op(opNop, 4, 4), op(opNop, 4, 4)),
	} {
		for which := range uint8(4) {
			f.Add(which, p)
		}
	}
	var w *world
	f.Fuzz(func(t *testing.T, which uint8, code []byte) {
		if len(code) > 1000 || program(code).unmodelled() {
			return
		}
		if w == nil {
			w = newPlainWorld(kept{t})
		}
		family, proto := [...]int{unix.AF_INET, unix.AF_INET6}[which&1], [...]int{unix.IPPROTO_TCP, unix.IPPROTO_UDP}[which>>1&1]
		req := request(byFamily, unix.NLM_F_DUMP, family, proto, 0, 0xfff, netip.AddrPort{}, netip.AddrPort{}, anyCookie, filterAttr(code)...)
		kernel, port := ask(t, req)
		ours := Answer(nlmsg.Options{}, inet(w.list), req, port)
		want, refused := chosen(t, kernel, w.list)
		got, no := chosen(t, ours, w.list)
		if refused != no || !slices.Equal(want, got) {
			t.Errorf("chosen %v (%v), the kernel %v (%v)", got, no, want, refused)
		}
	})
}

// chosen returns the cookies of a dump that are in the list, sorted, or the error.
func chosen(t *testing.T, datagrams [][]byte, list []Socket) (cookies []uint64, errno unix.Errno) {
	t.Helper()
	for _, d := range datagrams {
		for len(d) >= unix.NLMSG_HDRLEN {
			size := int(binary.NativeEndian.Uint32(d))
			m := d[:size]
			switch binary.NativeEndian.Uint16(m[4:]) {
			case unix.NLMSG_ERROR:
				errno = unix.Errno(-int32(binary.NativeEndian.Uint32(m[16:])))
			case byFamily:
				const cookieAt = unix.NLMSG_HDRLEN + 4 + 40
				c := binary.NativeEndian.Uint64(m[cookieAt:])
				if slices.ContainsFunc(list, func(s Socket) bool { return s.Cookie == c }) {
					cookies = append(cookies, c)
				}
			}
			d = d[min(len(d), nlmsg.Align(size)):]
		}
	}
	slices.Sort(cookies)
	return cookies, errno
}
