// SPDX-License-Identifier: Apache-2.0

// Fuzzing of calls: names and options, held against the kernel, and calls in any
// order, which the module must live through.

package netmod_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/intercept/intercepttest"
)

// FuzzName binds or connects a UDP socket to any sockaddr, and then asks for its
// names with any room for them. What is understood is understood alike, and what a
// socket is bound to reads back the same.
func FuzzName(f *testing.F) {
	k, w := newKernel(f), newWorld(f, nil)
	h, m := w.handlers(), newTwins(f)
	to4, to6 := loopbackName(unix.AF_INET, 4711), loopbackName(unix.AF_INET6, 4711)
	for mode := range uint8(8) {
		f.Add(mode, to4, int32(len(to4)), int32(16))
		f.Add(mode, to6, int32(len(to6)), int32(28))
		f.Add(mode, to6, int32(24), int32(3))
		f.Add(mode, append([]byte{0, 0}, to4[2:]...), int32(16), int32(-1))
		f.Add(mode, make([]byte, 16), int32(16), int32(0))
		f.Add(mode, []byte{1}, int32(1), int32(128))
		f.Add(mode, to4, int32(129), int32(16))
	}
	f.Fuzz(func(t *testing.T, mode uint8, sa []byte, length, room int32) {
		if len(sa) > 200 {
			return
		}
		family, nr := unix.AF_INET, unix.SYS_BIND
		if mode&1 != 0 {
			family = unix.AF_INET6
		}
		if mode&2 != 0 {
			nr = unix.SYS_CONNECT
		}
		p := intercepttest.New(t)
		m.reset(p)
		fds := [2]int{k.socket(t, family, unix.SOCK_DGRAM), h.socket(t, p, family, unix.SOCK_DGRAM)}
		defer unix.Close(fds[0])
		at := m.put(sa)
		_, errno := syscallErrno(uintptr(nr), uintptr(fds[0]), at.addr(), uintptr(uint32(length)))
		got := h.call(t, p, nr, fds[1], at.fake, uint32(length))
		if !agree(sa, errno, got.Errno) {
			t.Fatalf("%v, the kernel %v", got.Errno, errno)
		}
		if errno != 0 || got.Errno != 0 {
			return
		}
		for _, nr := range []int{unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME} {
			out := m.put(bytes.Repeat([]byte{0xa5}, 130))
			size := m.put(binary.NativeEndian.AppendUint32(nil, uint32(min(room, 130))))
			_, errno := syscallErrno(uintptr(nr), uintptr(fds[0]), out.addr(), size.addr())
			got := h.call(t, p, nr, fds[1], out.fake, size.fake)
			if got.Errno != errno {
				t.Fatalf("%v, the kernel %v", got.Errno, errno)
			}
			for _, x := range []place{out, size} {
				ours, theirs, _ := m.same(x)
				if nr == unix.SYS_GETSOCKNAME && x.addr() == out.addr() {
					if mode&2 != 0 { // a port and an address that were picked
						clear(ours[2:])
						clear(theirs[2:])
					} else if sa[2] == 0 && sa[3] == 0 {
						copy(ours[2:4], theirs[2:4])
					}
				}
				if !bytes.Equal(ours, theirs) {
					t.Fatalf("call %d:\n%.40x, the kernel\n%.40x", nr, ours, theirs)
				}
			}
		}
	})
}

// levels are those of the options that are tried.
var levels = []int{unix.SOL_SOCKET, unix.IPPROTO_IP, unix.IPPROTO_IPV6, unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.SOL_NETLINK}

// FuzzOption sets any option to any value and reads it back: nothing is stored
// beyond the room that there is for it, what an option tells can be told to it,
// and it then tells the same.
func FuzzOption(f *testing.F) {
	w := newWorld(f, nil)
	h := w.handlers()
	for _, o := range [][2]uint8{{0, unix.SO_RCVTIMEO}, {0, unix.SO_LINGER}, {0, unix.SO_REUSEADDR}, {0, unix.SO_ERROR}, {0, unix.SO_BINDTODEVICE}, {0, unix.SO_ATTACH_FILTER},
		{1, unix.IP_TTL}, {1, unix.IP_MULTICAST_IF}, {1, unix.IP_ADD_MEMBERSHIP}, {2, unix.IPV6_V6ONLY}, {2, unix.IPV6_ADD_MEMBERSHIP},
		{3, unix.TCP_NODELAY}, {3, unix.TCP_INFO}, {3, unix.TCP_CONGESTION}, {4, unix.UDP_SEGMENT}, {5, unix.NETLINK_ADD_MEMBERSHIP}} {
		for kind := range uint8(5) {
			f.Add(kind, o[0], int32(o[1]), []byte{1, 0, 0, 0}, int32(4), int32(4))
			f.Add(kind, o[0], int32(o[1]), []byte{127, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, int32(20), int32(300))
			f.Add(kind, o[0], int32(o[1]), []byte("lo\x00"), int32(300), int32(-1))
			f.Add(kind, o[0], int32(o[1]), []byte{}, int32(-5), int32(1))
		}
	}
	f.Fuzz(func(t *testing.T, kind, level uint8, name int32, value []byte, length, room int32) {
		if len(value) > 4096 {
			return
		}
		p := intercepttest.New(t)
		var s [2]int
		for i := range s { // what the first tells is told to the second
			switch kind % 5 {
			case 4:
				s[i] = h.socket(t, p, unix.AF_NETLINK, unix.SOCK_RAW)
			default:
				s[i] = h.socket(t, p, [...]int{unix.AF_INET, unix.AF_INET6}[kind&1], [...]int{unix.SOCK_STREAM, unix.SOCK_DGRAM}[kind>>1&1])
			}
		}
		at := levels[int(level)%len(levels)]
		set := h.call(t, p, unix.SYS_SETSOCKOPT, s[0], at, name, p.Map(value), length)
		if length < 0 && set.Errno != unix.EINVAL {
			t.Errorf("a length of %d gives %v", length, set)
		}
		get := func(fd int) ([]byte, bool) {
			t.Helper()
			if at == unix.SOL_SOCKET && name == unix.SO_GET_FILTER {
				return nil, false // counts instructions, not bytes
			}
			if at == unix.IPPROTO_IPV6 && room < 0 {
				return nil, false // do_ipv6_getsockopt takes it for a large one
			}
			const guard = 64
			n := min(max(room, 0), 5000)
			mem := bytes.Repeat([]byte{0xa5}, int(n)+guard)
			buf, size := p.Map(mem), p.Map(binary.NativeEndian.AppendUint32(nil, uint32(min(room, n))))
			r := h.call(t, p, unix.SYS_GETSOCKOPT, fd, at, name, buf, size)
			stored := int(int32(binary.NativeEndian.Uint32(p.Mem(size, 4))))
			if r.Kind == intercept.ReplyContinue {
				return nil, false
			}
			if r.Errno != 0 {
				stored = 0
			} else if stored < 0 || stored > int(n) && at != unix.SOL_NETLINK { // NETLINK_LIST_MEMBERSHIPS tells what it needs
				t.Fatalf("%d bytes in %d: kind %d, level %d, option %d", stored, n, kind%5, at, name)
			}
			after := p.Mem(buf, len(mem))
			if !bytes.Equal(after[min(stored, int(n)):], mem[min(stored, int(n)):]) {
				t.Fatalf("more than %d bytes are stored: %x", stored, after)
			}
			return after[:min(stored, int(n))], r.Errno == 0
		}
		told, ok := get(s[0])
		if !ok || set.Errno != 0 || room < 0 {
			return
		}
		if r := h.call(t, p, unix.SYS_SETSOCKOPT, s[1], at, name, p.Map(told), len(told)); r.Errno != 0 {
			return // some tell another thing than they are told
		}
		if again, ok := get(s[1]); !ok || len(again) != len(told) {
			t.Errorf("told %x, which reads %x (%v)", told, again, ok)
		}
	})
}

// FuzzCalls makes calls in any order with any registers, natively and by the
// 32-bit entry: each is answered or can be taken back, and no handler panics.
//
// The program is a list of calls: which, the socket, and how its other five
// registers are made.
func FuzzCalls(f *testing.F) {
	w := newWorld(f, nil)
	var rules []intercept.Rule
	for _, r := range w.mod.Rules() {
		if r.Handler != nil && (len(rules) == 0 || rules[len(rules)-1].NR != r.NR || rules[len(rules)-1].Arch != r.Arch) {
			rules = append(rules, r)
		}
	}
	mem := append(loopbackName(unix.AF_INET, 4712), bytes.Repeat([]byte{0, 1, 2, 16}, 100)...)
	for i := range rules {
		f.Add([]byte{byte(i), 0, 4, 1, 2, 3, 0, byte(i), 1, 4, 4, 5, 1, 4}, mem)
		f.Add([]byte{byte(i), 4, 6, 7, 7, 0, 0, byte(i), 2, 4, 16, 17, 18, 19}, mem)
	}
	f.Fuzz(func(t *testing.T, program, mem []byte) {
		if len(program) > 7*30 || len(mem) > 1<<12 {
			return
		}
		p := intercepttest.New(t)
		p.MaxFD = 40
		h := w.handlers()
		socks := []int{
			h.socket(t, p, unix.AF_INET, unix.SOCK_STREAM), h.socket(t, p, unix.AF_INET6, unix.SOCK_STREAM),
			h.socket(t, p, unix.AF_INET, unix.SOCK_DGRAM), h.socket(t, p, unix.AF_INET6, unix.SOCK_DGRAM),
			h.socket(t, p, unix.AF_NETLINK, unix.SOCK_RAW),
		}
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		p.Open(39, pair[0])
		unix.Close(pair[0])
		unix.Close(pair[1])
		socks = append(socks, 39, 38, -1)
		rw, ro := p.Map(mem), p.MapReadOnly(mem)
		var calls []*intercepttest.Call
		for ; len(program) >= 7; program = program[7:] {
			r := rules[int(program[0])%len(rules)]
			args := []any{socks[int(program[1])%len(socks)]}
			if r.NR == unix.SYS_SOCKET || r.NR == unix.SYS_SOCKETPAIR {
				args[0] = int(program[1])
			}
			for _, b := range program[2:7] {
				switch b % 8 {
				case 0, 1, 2, 3:
					args = append(args, int(b/8)*int(b%8))
				case 4:
					args = append(args, rw+intercept.Addr(int(b/8)*4))
				case 5:
					args = append(args, ro+intercept.Addr(int(b/8)*4))
				case 6:
					args = append(args, 0x8900+int(b))
				case 7:
					args = append(args, [...]uint64{0, ^uint64(0), 1 << 31, 1 << 63}[b/8%4])
				}
			}
			p.Arch = r.Arch
			calls = append(calls, p.Call(r.Handler, r.NR, args...))
		}
		for _, c := range calls {
			if !c.Answered() {
				c.Interrupt()
			}
			c.Result()
		}
	})
}
