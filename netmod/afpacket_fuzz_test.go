// SPDX-License-Identifier: Apache-2.0

// Fuzzing of packet sockets, held against the kernel on a lo of its own.

package netmod_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/intercept/intercepttest"
)

// linkName encodes a struct sockaddr_ll.
func linkName(index int, proto uint16) []byte {
	b := binary.NativeEndian.AppendUint16(nil, unix.AF_PACKET)
	b = binary.BigEndian.AppendUint16(b, proto)
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	return append(b, make([]byte, 12)...)
}

// FuzzPacketName binds a packet socket to any sockaddr, sends to any, and asks for
// its name.
func FuzzPacketName(f *testing.F) {
	k, w := newKernel(f), newWorld(f, nil)
	h, m := w.handlers(), newTwins(f)
	for mode := range uint8(2) {
		f.Add(mode, linkName(1, unix.ETH_P_IP), int32(20), linkName(1, unix.ETH_P_IP), int32(20), make([]byte, 60))
		f.Add(mode, linkName(0, unix.ETH_P_ALL), int32(20), linkName(0, 0), int32(19), make([]byte, 13))
		f.Add(mode, linkName(77, 0), int32(12), linkName(77, 0), int32(20), make([]byte, 14))
		f.Add(mode, append(linkName(1, 0), 1, 2, 3, 4, 5), int32(25), append(linkName(1, 0), 1), int32(21), make([]byte, 65551))
		f.Add(mode, linkName(-1, 1), int32(-1), linkName(-1, 1), int32(129), []byte{1})
	}
	f.Fuzz(func(t *testing.T, mode uint8, local []byte, n int32, to []byte, toLen int32, data []byte) {
		if len(local) > 200 || len(to) > 200 || len(data) > 1<<16-1 || int(n) > len(local) || int(toLen) > len(to) {
			return
		}
		typ := [...]int{unix.SOCK_RAW, unix.SOCK_DGRAM}[mode&1]
		p := intercepttest.New(t)
		m.reset(p)
		fds := [2]int{k.socket(t, unix.AF_PACKET, typ), h.socket(t, p, unix.AF_PACKET, typ)}
		defer unix.Close(fds[0])
		at := m.put(local)
		_, errno := syscallErrno(unix.SYS_BIND, uintptr(fds[0]), at.addr(), uintptr(uint32(n)))
		if got := h.call(t, p, unix.SYS_BIND, fds[1], at.fake, uint32(n)); got.Errno != errno {
			t.Fatalf("bind: %v, the kernel %v", got.Errno, errno)
		}
		out, size := m.put(bytes.Repeat([]byte{0xa5}, 40)), m.put([]byte{40, 0, 0, 0})
		_, errno = syscallErrno(unix.SYS_GETSOCKNAME, uintptr(fds[0]), out.addr(), size.addr())
		got := h.call(t, p, unix.SYS_GETSOCKNAME, fds[1], out.fake, size.fake)
		if ours, theirs, same := m.same(out); got.Errno != errno || !same {
			t.Fatalf("getsockname: %v %.20x, the kernel %v %.20x", got.Errno, ours, errno, theirs)
		}
		if len(to) == 0 || toLen == 0 || len(data) == 0 {
			return // without an address it does not trap
		}
		body, name := m.put(data), m.put(to)
		r, errno := syscallErrno(unix.SYS_SENDTO, uintptr(fds[0]), body.addr(), uintptr(len(data)), 0, name.addr(), uintptr(uint32(toLen)))
		got = h.call(t, p, unix.SYS_SENDTO, fds[1], body.fake, len(data), 0, name.fake, uint32(toLen))
		if got.Errno != errno || errno == 0 && got.Val != int64(r) {
			t.Fatalf("sendto: %v %d, the kernel %v %d", got.Errno, got.Val, errno, r)
		}
	})
}

// FuzzPacketOption sets options of packet sockets, rings included, and reads them back.
func FuzzPacketOption(f *testing.F) {
	k, w := newKernel(f), newWorld(f, nil)
	h, m := w.handlers(), newTwins(f)
	options := []int{unix.PACKET_ADD_MEMBERSHIP, unix.PACKET_DROP_MEMBERSHIP, unix.PACKET_RX_RING, unix.PACKET_STATISTICS, unix.PACKET_COPY_THRESH,
		unix.PACKET_AUXDATA, unix.PACKET_ORIGDEV, unix.PACKET_VERSION, unix.PACKET_HDRLEN, unix.PACKET_RESERVE, unix.PACKET_LOSS,
		unix.PACKET_TIMESTAMP, unix.PACKET_QDISC_BYPASS, unix.PACKET_IGNORE_OUTGOING, 99}
	words := func(w ...uint32) (b []byte) {
		for _, v := range w {
			b = binary.NativeEndian.AppendUint32(b, v)
		}
		return b
	}
	for i := range options {
		f.Add(uint8(i), int32(unix.TPACKET_V3), int32(0), words(8192, 2, 2048, 8, 60, 0, 0), int32(28), int32(12))
		f.Add(uint8(i), int32(unix.TPACKET_V2), int32(16), words(8192, 2, 2048, 8), int32(16), int32(8))
		f.Add(uint8(i), int32(unix.TPACKET_V1), int32(-1), words(1, 0x00060001, 0, 0), int32(16), int32(4))
		f.Add(uint8(i), int32(5), int32(0), words(1), int32(4), int32(3))
		f.Add(uint8(i), int32(0), int32(0), words(0), int32(-1), int32(-1))
	}
	f.Fuzz(func(t *testing.T, which uint8, version, reserve int32, value []byte, length, room int32) {
		if len(value) == 0 || len(value) > 4096 || int(length) > len(value) || room > 4000 {
			return
		}
		name := options[int(which)%len(options)]
		if name == unix.PACKET_RX_RING && len(value) >= 8 {
			if size := uint64(binary.NativeEndian.Uint32(value)) * uint64(binary.NativeEndian.Uint32(value[4:])); size > 1<<22 {
				return // the kernel has no bound
			}
		}
		p := intercepttest.New(t)
		m.reset(p)
		fds := [2]int{k.socket(t, unix.AF_PACKET, unix.SOCK_RAW), h.socket(t, p, unix.AF_PACKET, unix.SOCK_RAW)}
		defer unix.Close(fds[0])
		set := func(name int, v []byte, n int32) {
			t.Helper()
			at := m.put(v)
			_, errno := syscallErrno(unix.SYS_SETSOCKOPT, uintptr(fds[0]), unix.SOL_PACKET, uintptr(name), at.addr(), uintptr(uint32(n)))
			if got := h.call(t, p, unix.SYS_SETSOCKOPT, fds[1], unix.SOL_PACKET, name, at.fake, uint32(n)); got.Errno != errno {
				t.Fatalf("set option %d to %x, length %d: %v, the kernel %v", name, v, n, got.Errno, errno)
			}
		}
		set(unix.PACKET_VERSION, words(uint32(version)), 4)
		set(unix.PACKET_RESERVE, words(uint32(reserve)), 4)
		set(name, value, length)
		if name == unix.PACKET_RX_RING {
			set(unix.PACKET_RX_RING, make([]byte, 28), 28)
			return
		}
		out, size := m.put(bytes.Repeat(value[:1], 4096)), m.put(words(uint32(room)))
		_, errno := syscallErrno(unix.SYS_GETSOCKOPT, uintptr(fds[0]), unix.SOL_PACKET, uintptr(name), out.addr(), size.addr())
		got := h.call(t, p, unix.SYS_GETSOCKOPT, fds[1], unix.SOL_PACKET, name, out.fake, size.fake)
		if got.Kind == intercept.ReplyContinue {
			t.Fatal("left to the kernel")
		}
		ours, theirs, same := m.same(out)
		if got.Errno != errno || !same {
			t.Fatalf("get option %d into %d: %v %.20x, the kernel %v %.20x", name, room, got.Errno, ours, errno, theirs)
		}
		if ours, theirs, same := m.same(size); !same {
			t.Fatalf("get option %d: length %x, the kernel %x", name, ours, theirs)
		}
	})
}
