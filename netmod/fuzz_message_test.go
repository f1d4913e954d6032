// SPDX-License-Identifier: Apache-2.0

// Fuzzing of messages in the target's memory: addresses, vectors, control messages.
// The kernel is sent the same and must say the same.

package netmod_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/intercept/intercepttest"
)

// decoding are the errors by which a call says that it does not understand its
// arguments. Others depend on routes and devices.
var decoding = []unix.Errno{unix.EFAULT, unix.EINVAL, unix.EMSGSIZE, unix.ENOBUFS, unix.EAFNOSUPPORT, unix.EDESTADDRREQ, unix.EOPNOTSUPP}

// agree compares errors, 0 for none. The two may have different routes, so that one
// sends to sa what the other cannot; a mistake that is found behind the routes is
// found by one only. That an address lacks its scope is such a mistake.
func agree(sa []byte, kernel, ours unix.Errno) bool {
	routes := func(e unix.Errno) bool { return e != 0 && !slices.Contains(decoding, e) }
	if len(sa) >= 24 && binary.NativeEndian.Uint16(sa) == unix.AF_INET6 {
		if a := netip.AddrFrom16([16]byte(sa[8:])); (a.IsMulticast() || a.IsLinkLocalUnicast()) && kernel == unix.EINVAL {
			return true
		}
	}
	return kernel == ours || routes(kernel) || kernel == 0 && routes(ours)
}

// Ports of the two sides; the addresses are those of the loopback.
const (
	senderPort   = 4001
	receiverPort = 4002
)

func loopbackName(family int, port uint16) []byte {
	sa := make([]byte, unix.SizeofSockaddrInet6)
	binary.NativeEndian.PutUint16(sa, uint16(family))
	binary.BigEndian.PutUint16(sa[2:], port)
	if family == unix.AF_INET {
		copy(sa[4:], []byte{127, 0, 0, 1})
		return sa[:unix.SizeofSockaddrInet4]
	}
	sa[23] = 1
	return sa
}

// A lane is a sender and a receiver, in the kernel and in the module.
type lane struct {
	family           int
	sender, receiver [2]int // numbers in the kernel and in the fake process
}

// lanes makes the sockets: a lane for each family, and each again with a connected
// sender.
type lanes struct {
	*twins
	h     handlers
	p     *intercepttest.Process // holds the sockets for as long as the test
	lanes []lane
}

func newLanes(f *testing.F) *lanes {
	k, w := newKernel(f), newWorld(f, nil)
	l := &lanes{twins: newTwins(f), h: w.handlers(), p: intercepttest.New(f)}
	for i, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_INET, unix.AF_INET6} {
		made := func(port uint16) (fds [2]int) {
			fds[0], fds[1] = k.socket(f, family, unix.SOCK_DGRAM), l.h.socket(f, l.p, family, unix.SOCK_DGRAM)
			f.Cleanup(func() { unix.Close(fds[0]) })
			l.both(f, fds, unix.SYS_BIND, loopbackName(family, port))
			return fds
		}
		step := uint16(10 * (i / 2))
		n := lane{family: family, sender: made(senderPort + step), receiver: made(receiverPort + step)}
		if i >= 2 {
			l.both(f, n.sender, unix.SYS_CONNECT, loopbackName(family, receiverPort+step))
		}
		l.lanes = append(l.lanes, n)
	}
	return l
}

// both makes a call with an address on both sides, which succeeds.
func (l *lanes) both(f *testing.F, fds [2]int, nr int, sa []byte) {
	f.Helper()
	l.reset(l.p)
	at := l.put(sa)
	if _, errno := syscallErrno(uintptr(nr), uintptr(fds[0]), at.addr(), uintptr(len(sa))); errno != 0 {
		f.Fatal(errno)
	}
	if r := l.h.call(f, l.p, nr, fds[1], at.fake, len(sa)); r.Errno != 0 {
		f.Fatal(r)
	}
}

// begin prepares one run in a process of its own, whose memory goes with it.
func (l *lanes) begin(t *testing.T, which uint8) lane {
	n := l.lanes[int(which)%len(l.lanes)]
	p := intercepttest.New(t)
	for _, fd := range []int{n.sender[1], n.receiver[1]} {
		host, _ := l.p.FD(fd)
		p.Open(fd, host)
	}
	l.reset(p)
	l.empty(t, n)
	return n
}

// empty drops what a run before has left, or another lane has sent.
func (l *lanes) empty(t *testing.T, n lane) {
	for {
		if _, _, err := unix.Recvfrom(n.receiver[0], make([]byte, 1), unix.MSG_DONTWAIT); err != nil {
			break
		}
	}
	for {
		if _, ok := l.receive(t, n, false); !ok {
			break
		}
	}
}

// vector makes an array of struct iovec out of pairs of bytes: where, and how long.
func (m *twins) vector(program []byte, data place) place {
	var fake, kernel []byte
	for ; len(program) >= 2; program = program[2:] {
		at := [...]place{data, data, data, null, wild}[program[0]%5]
		if program[0]%5 == 1 { // one behind the other, or across the end
			off := min(int(program[0]), len(data.kernel)-1)
			at = place{data.fake + intercept.Addr(off), data.kernel[off:]}
		}
		n := uint64(program[1])
		if big := []uint64{1 << 12, 1 << 15, 65507, 65508, 65535, 65536, 1<<31 - 1, 1 << 63, ^uint64(0)}; n >= 240 && int(n-240) < len(big) {
			n = big[n-240]
		}
		fake = binary.NativeEndian.AppendUint64(binary.NativeEndian.AppendUint64(fake, uint64(at.fake)), n)
		kernel = binary.NativeEndian.AppendUint64(binary.NativeEndian.AppendUint64(kernel, uint64(at.addr())), n)
	}
	return m.putBoth(fake, kernel)
}

// entries is how many of the vector's entries are told: those that are there, or
// more than any vector may have. (The kernel judges each before it reads the next.)
func entries(count uint16, vector []byte) uint64 {
	if n := len(vector) / 2; int(count) > n && count <= 1024 {
		return uint64(n)
	}
	return uint64(count)
}

// header makes a struct msghdr; of struct mmsghdr the length follows.
func (m *twins) header(name place, nameLen int32, iov place, iovLen uint64, control place, controlLen uint64) place {
	build := func(name, iov, control uint64) []byte {
		b := make([]byte, 64)
		binary.NativeEndian.PutUint64(b[0:], name)
		binary.NativeEndian.PutUint32(b[8:], uint32(nameLen))
		binary.NativeEndian.PutUint64(b[16:], iov)
		binary.NativeEndian.PutUint64(b[24:], iovLen)
		binary.NativeEndian.PutUint64(b[32:], control)
		binary.NativeEndian.PutUint64(b[40:], controlLen)
		return b
	}
	return m.putBoth(build(uint64(name.fake), uint64(iov.fake), uint64(control.fake)),
		build(uint64(name.addr()), uint64(iov.addr()), uint64(control.addr())))
}

// cmsg encodes a control message.
func cmsg(level, typ int, data ...byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(data)))
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(len(data))))
	binary.NativeEndian.PutUint32(b[8:], uint32(level))
	binary.NativeEndian.PutUint32(b[12:], uint32(typ))
	copy(b[unix.CmsgLen(0):], data)
	return b
}

// payload is what is sent: any piece of it tells where it was taken from.
var payload = func() []byte {
	b := make([]byte, slotSize-4096)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8)*31
	}
	return b
}()

// FuzzSend hands sendto, sendmsg and sendmmsg to the kernel and to the module: both
// fail alike, or both deliver the same datagram.
func FuzzSend(f *testing.F) {
	l := newLanes(f)
	to4, to6 := loopbackName(unix.AF_INET, receiverPort), loopbackName(unix.AF_INET6, receiverPort)
	pktinfo := cmsg(unix.IPPROTO_IP, unix.IP_PKTINFO, 1, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0)
	pktinfo6 := cmsg(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, append(loopbackName(unix.AF_INET6, 0)[8:24], 1, 0, 0, 0)...)
	for call := range uint8(3) {
		f.Add(call, uint8(0), to4, int32(len(to4)), []byte{0, 5, 1, 7}, uint16(2), []byte{}, uint32(0), uint32(0))
		f.Add(call, uint8(1), to6, int32(len(to6)), []byte{0, 200}, uint16(1), []byte{}, uint32(0), uint32(0))
		f.Add(call, uint8(2), []byte{}, int32(0), []byte{0, 1, 3, 0}, uint16(2), []byte{}, uint32(0), uint32(unix.MSG_DONTWAIT))
		f.Add(call, uint8(3), to6, int32(24), []byte{}, uint16(0), pktinfo6, uint32(len(pktinfo6)), uint32(0))
		f.Add(call, uint8(0), to4, int32(200), []byte{0, 242}, uint16(1), pktinfo, uint32(len(pktinfo)), uint32(0))
		f.Add(call, uint8(0), to4, int32(-1), []byte{2, 242, 0, 247}, uint16(2000), pktinfo, uint32(10), uint32(unix.MSG_OOB))
	}
	for _, c := range [][]byte{
		cmsg(unix.IPPROTO_IP, unix.IP_TTL, 9, 0, 0, 0), cmsg(unix.IPPROTO_IP, unix.IP_TOS, 8), cmsg(unix.IPPROTO_IP, unix.IP_TOS, 8, 0, 0, 0),
		cmsg(unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT, 9, 0, 0, 0), cmsg(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 8, 0, 0, 0),
		cmsg(unix.SOL_SOCKET, unix.SCM_RIGHTS), cmsg(unix.IPPROTO_TCP, 1, 1, 0, 0, 0), cmsg(unix.IPPROTO_UDP, 1, 1), pktinfo[:20],
	} {
		f.Add(uint8(1), uint8(0), to4, int32(len(to4)), []byte{0, 9}, uint16(1), c, uint32(len(c)), uint32(0))
		f.Add(uint8(1), uint8(1), to6, int32(len(to6)), []byte{0, 9}, uint16(1), c, uint32(len(c)), uint32(0))
	}
	f.Fuzz(func(t *testing.T, call, which uint8, name []byte, nameLen int32, vector []byte, count uint16, control []byte, controlLen, flags uint32) {
		if len(name) > 200 || len(vector) > 60 || len(control) > 4000 {
			return
		}
		if unmodelled(name, control) {
			return
		}
		n := l.begin(t, which)
		flags &= unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL | unix.MSG_OOB | unix.MSG_CONFIRM
		at, data := l.put(name), l.put(payload)
		nr, args := unix.SYS_SENDMSG, []any{n.sender[1]}
		nargs := []uintptr{uintptr(n.sender[0])}
		add := func(p place) { args, nargs = append(args, p.fake), append(nargs, p.addr()) }
		word := func(v uint64) { args, nargs = append(args, v), append(nargs, uintptr(v)) }
		switch iov := l.vector(vector, data); call % 3 {
		case 0:
			nr = unix.SYS_SENDTO
			add(data)
			word(uint64(controlLen))
			word(uint64(flags))
			if len(name) == 0 || nameLen == 0 {
				return // does not trap
			}
			add(at)
			word(uint64(uint32(nameLen)))
		case 1:
			add(l.header(at, nameLen, iov, entries(count, vector), l.put(control), uint64(controlLen)))
			word(uint64(flags))
		case 2:
			nr = unix.SYS_SENDMMSG
			add(l.header(at, nameLen, iov, entries(count, vector), l.put(control), uint64(controlLen)))
			word(1)
			word(uint64(flags))
		}
		want, errno := syscallErrno(uintptr(nr), nargs...)
		got := l.h.call(t, l.p0(), nr, args...)
		if !agree(name, errno, got.Errno) || errno == 0 && got.Errno == 0 && got.Val != int64(want) {
			t.Fatalf("%d %v, the kernel %d %v", got.Val, got.Errno, want, errno)
		}
		l.compareDelivered(t, n)
	})
}

// unmodelled tells whether there is a control message that the kernel takes and the
// module does not: it is not modelled, or it wants privileges, which a test may have.
func unmodelled(name, control []byte) bool {
	for len(control) >= unix.SizeofCmsghdr {
		n := binary.NativeEndian.Uint64(control)
		if n < unix.SizeofCmsghdr || n > uint64(len(control)) {
			return false
		}
		level, typ := binary.NativeEndian.Uint32(control[8:]), binary.NativeEndian.Uint32(control[12:])
		switch level {
		case unix.SOL_SOCKET:
			switch typ {
			case unix.SO_MARK, unix.SO_PRIORITY, unix.SO_TIMESTAMPING, unix.SO_TIMESTAMPING_NEW, unix.SCM_TXTIME:
				return true
			}
		case unix.IPPROTO_UDP:
			if typ == unix.UDP_SEGMENT {
				return true
			}
		case unix.IPPROTO_IP:
			if typ == unix.IP_RETOPTS || typ == unix.IP_PROTOCOL {
				return true
			}
			// Sources other than the one address of loopback: the kernel has all of 127.0.0.0/8.
			if typ == unix.IP_PKTINFO && n == uint64(unix.CmsgLen(12)) {
				if src := [4]byte(control[unix.CmsgLen(4):]); src != [4]byte{} && src != [4]byte{127, 0, 0, 1} {
					return true
				}
				// By an interface that is named, the kernel reaches what it has no route to.
				if index := binary.NativeEndian.Uint32(control[unix.CmsgLen(0):]); index != 0 && len(name) >= 8 && name[4] != 127 {
					return true
				}
			}
		case unix.IPPROTO_IPV6:
			switch typ {
			case unix.IPV6_HOPLIMIT, unix.IPV6_TCLASS:
			case unix.IPV6_PKTINFO: // the kernel looks at once whether the address is its own
				if n >= uint64(unix.CmsgLen(16)) && netip.AddrFrom16([16]byte(control[unix.CmsgLen(0):])) != netip.IPv6Loopback() {
					return true
				}
			default:
				return true
			}
		}
		control = control[min(unix.CmsgSpace(int(n)-unix.CmsgLen(0)), len(control)):]
	}
	return false
}

// p0 is the process of this run.
func (m *twins) p0() *intercepttest.Process { return m.p }

// compareDelivered receives on both sides what has arrived.
func (l *lanes) compareDelivered(t *testing.T, n lane) {
	t.Helper()
	for {
		kbuf := make([]byte, 1<<16)
		size, _, err := unix.Recvfrom(n.receiver[0], kbuf, unix.MSG_DONTWAIT)
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got, ok := l.receive(t, n, true)
		if !ok || !bytes.Equal(got, kbuf[:size]) {
			t.Fatalf("delivered %d bytes %.60x, the kernel %d bytes %.60x", len(got), got, size, kbuf[:size])
		}
	}
	if got, ok := l.receive(t, n, false); ok {
		t.Fatalf("delivered %d bytes %.60x, the kernel nothing", len(got), got)
	}
}

// receive takes a datagram from the module's receiver; wait says that one comes.
func (l *lanes) receive(t *testing.T, n lane, wait bool) ([]byte, bool) {
	t.Helper()
	host, _ := l.p0().FD(n.receiver[1])
	if wait {
		fds := []unix.PollFd{{Fd: int32(host), Events: unix.POLLIN}}
		if ready, err := unix.Poll(fds, 2000); err != nil && err != unix.EINTR || ready == 0 && err == nil {
			return nil, false
		}
	}
	buf := l.p0().Map(make([]byte, 1<<16))
	length := l.p0().Map(binary.NativeEndian.AppendUint32(nil, 16))
	r := l.h.call(t, l.p0(), unix.SYS_RECVFROM, n.receiver[1], buf, 1<<16, unix.MSG_DONTWAIT, l.p0().Map(make([]byte, 16)), length)
	if r.Errno != 0 {
		return nil, false
	}
	return l.p0().Mem(buf, int(r.Val)), true
}

// receiveOptions are the control messages that a receiver can ask for and that are
// the same on both sides.
var receiveOptions = map[int][][2]int{
	unix.AF_INET: {{unix.IPPROTO_IP, unix.IP_PKTINFO}, {unix.IPPROTO_IP, unix.IP_RECVTTL}, {unix.IPPROTO_IP, unix.IP_RECVTOS},
		{unix.IPPROTO_IP, unix.IP_RECVORIGDSTADDR}},
	unix.AF_INET6: {{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO}, {unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT}, {unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS}},
}

// FuzzReceive lets the kernel and the module receive the same datagram with
// recvfrom, recvmsg and recvmmsg: results and memory are the same after it.
func FuzzReceive(f *testing.F) {
	l := newLanes(f)
	for call := range uint8(3) {
		for which := range uint8(4) {
			f.Add(call, which, uint8(15), uint8(40), int32(28), []byte{0, 20, 1, 60}, uint16(2), uint16(200), uint32(0))
			f.Add(call, which, uint8(1), uint8(0), int32(0), []byte{0, 20}, uint16(1), uint16(20), uint32(unix.MSG_PEEK))
			f.Add(call, which, uint8(3), uint8(100), int32(-1), []byte{0, 20, 2, 9}, uint16(2), uint16(30), uint32(unix.MSG_TRUNC))
			f.Add(call, which, uint8(15), uint8(100), int32(5), []byte{4, 20}, uint16(1), uint16(47), uint32(unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC))
		}
	}
	f.Fuzz(func(t *testing.T, call, which, options, size uint8, nameLen int32, vector []byte, count, controlLen uint16, flags uint32) {
		if len(vector) > 60 {
			return
		}
		n := l.begin(t, which)
		flags &= unix.MSG_DONTWAIT | unix.MSG_PEEK | unix.MSG_TRUNC | unix.MSG_WAITALL | unix.MSG_CMSG_CLOEXEC | unix.MSG_NOSIGNAL
		for i, o := range receiveOptions[n.family] {
			on := binary.NativeEndian.AppendUint32(nil, uint32(options>>i&1))
			if err := unix.SetsockoptInt(n.receiver[0], o[0], o[1], int(options>>i&1)); err != nil {
				t.Fatal(err)
			}
			if r := l.h.call(t, l.p0(), unix.SYS_SETSOCKOPT, n.receiver[1], o[0], o[1], l.p0().Map(on), 4); r.Errno != 0 {
				t.Fatal(o, r)
			}
		}
		l.send(t, n, payload[:size])

		filled := func(k int) []byte { return bytes.Repeat([]byte{0xa5}, k) }
		at, data, control := l.put(filled(130)), l.put(filled(2000)), l.put(filled(max(int(controlLen), 1)))
		if nameLen > 130 {
			nameLen = 130
		}
		iov := l.vector(vector, data)
		nr, args := unix.SYS_RECVMSG, []any{n.receiver[1]}
		nargs := []uintptr{uintptr(n.receiver[0])}
		add := func(p place) { args, nargs = append(args, p.fake), append(nargs, p.addr()) }
		word := func(v uint64) { args, nargs = append(args, v), append(nargs, uintptr(v)) }
		var tail place // what says how much was stored, behind the pointers
		tailAt := 0
		switch call % 3 {
		case 0:
			nr = unix.SYS_RECVFROM
			tail = l.put(binary.NativeEndian.AppendUint32(nil, uint32(nameLen)))
			add(data)
			word(uint64(min(controlLen, 2000)))
			word(uint64(flags))
			add(at)
			add(tail)
		case 1:
			tail, tailAt = l.header(at, nameLen, iov, entries(count, vector), control, uint64(controlLen)), 40
			add(tail)
			word(uint64(flags))
		case 2:
			nr = unix.SYS_RECVMMSG
			tail, tailAt = l.header(at, nameLen, iov, entries(count, vector), control, uint64(controlLen)), 40
			add(tail)
			word(1)
			word(uint64(flags))
			word(0)
		}
		want, errno := syscallErrno(uintptr(nr), nargs...)
		got := l.h.call(t, l.p0(), nr, args...)
		if errno != got.Errno || errno == 0 && got.Val != int64(want) {
			t.Fatalf("%d %v, the kernel %d %v", got.Val, got.Errno, want, errno)
		}
		if errno == 0 {
			for what, p := range map[string]place{"name": at, "data": data, "control": control} {
				ours, theirs, ok := l.same(p)
				if what == "control" && !ok { // it is not stored in one piece
					ok = bytes.Equal(unpad(ours), unpad(theirs))
				}
				if !ok {
					t.Errorf("%s differs:\n%.80x, the kernel\n%.80x", what, ours, theirs)
				}
			}
			if ours, theirs, _ := l.same(tail); !bytes.Equal(ours[tailAt:], theirs[tailAt:]) || call%3 != 0 && !bytes.Equal(ours[8:12], theirs[8:12]) {
				t.Errorf("header differs:\n%x, the kernel\n%x", ours, theirs)
			}
		}
	})
}

// unpad clears the bytes between control messages, which the kernel leaves alone.
func unpad(b []byte) []byte {
	for rest := b; len(rest) >= unix.SizeofCmsghdr; {
		n := binary.NativeEndian.Uint64(rest)
		if n < unix.SizeofCmsghdr || n > uint64(len(rest)) {
			break
		}
		next := min(unix.CmsgSpace(int(n)-unix.CmsgLen(0)), len(rest))
		clear(rest[n:next])
		rest = rest[next:]
	}
	return b
}

// send sends a datagram on both sides and waits until it is there.
func (l *lanes) send(t *testing.T, n lane, b []byte) {
	t.Helper()
	step := uint16(0)
	if n.sender == l.lanes[2].sender || n.sender == l.lanes[3].sender {
		step = 10
	}
	sa := loopbackName(n.family, receiverPort+step)
	at, data := l.put(sa), l.put(append([]byte{0}, b...))
	data = place{data.fake + 1, data.kernel[1:]}
	to := &unix.SockaddrInet6{Port: int(receiverPort + step), Addr: netip.IPv6Loopback().As16()}
	var err error
	if n.family == unix.AF_INET {
		err = unix.Sendto(n.sender[0], b, 0, &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte{127, 0, 0, 1}})
	} else {
		err = unix.Sendto(n.sender[0], b, 0, to)
	}
	if err != nil {
		t.Fatal(err)
	}
	if r := l.h.call(t, l.p0(), unix.SYS_SENDTO, n.sender[1], data.fake, len(b), 0, at.fake, len(sa)); r.Errno != 0 {
		t.Fatal(r)
	}
	host, _ := l.p0().FD(n.receiver[1])
	fds := []unix.PollFd{{Fd: int32(host), Events: unix.POLLIN}}
	for {
		ready, err := unix.Poll(fds, 2000)
		if err == unix.EINTR {
			continue
		}
		if err != nil || ready == 0 {
			t.Fatal(fmt.Sprint("the datagram does not arrive: ", err))
		}
		return
	}
}
