// SPDX-License-Identifier: Apache-2.0

// What programs do with the device, on the kernel's and on ours.

package tun

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/intercept/intercepttest"
	"umrun/netmod/nlmsg/nstest"
	"umrun/stacks"
	"umrun/stacks/offload"
)

func TestMain(m *testing.M) { os.Exit(nstest.Run(m)) }

// aNetwork is a Network that reads its links, as a stack does, and forgets nothing.
type aNetwork struct {
	mu    sync.Mutex
	st    stacks.State
	next  int
	links map[int]stacks.Link
	read  map[int]chan struct{} // closed when the reader of a link has ended
	in    chan []byte           // what programs have written, with its virtio_net_hdr
}

func newNetwork() *aNetwork {
	return &aNetwork{
		st:    stacks.State{Interfaces: []stacks.Interface{{Index: 1, Name: "lo", Loop: true, Up: true}}},
		next:  2,
		links: make(map[int]stacks.Link),
		read:  make(map[int]chan struct{}),
		in:    make(chan []byte, 100),
	}
}

func (n *aNetwork) State() stacks.State {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.st.Clone()
}

func (n *aNetwork) Attach(l stacks.LinkConfig) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	index := n.next
	n.next++
	ifc := stacks.Interface{Index: index, Name: l.Name, Type: l.Link.Type(), MTU: l.MTU}
	if ifc.Type == stacks.LinkEthernet {
		ifc.MAC = []byte{2, 0, 0, 0, 0, 7}
	}
	n.st.Interfaces = append(n.st.Interfaces, ifc)
	n.links[index] = l.Link
	done := make(chan struct{})
	n.read[index] = done
	go func() {
		defer close(done)
		bufs, sizes := make([][]byte, l.Link.BatchSize()), make([]int, l.Link.BatchSize())
		for i := range bufs {
			bufs[i] = make([]byte, stacks.MaxPacket)
		}
		for {
			k, err := l.Link.Read(bufs, sizes)
			if err != nil {
				return
			}
			for i := range k {
				n.in <- bytes.Clone(bufs[i][:sizes[i]])
			}
		}
	}()
	return index, nil
}

func (n *aNetwork) Detach(index int) error {
	n.mu.Lock()
	l, done := n.links[index], n.read[index]
	delete(n.links, index)
	n.st.Interfaces = slices.DeleteFunc(n.st.Interfaces, func(i stacks.Interface) bool { return i.Index == index })
	n.mu.Unlock()
	if l == nil {
		return unix.ENODEV
	}
	l.Close()
	<-done
	return nil
}

// has waits until there is an interface of a name, or none.
func (n *aNetwork) has(t *testing.T, name string, want bool) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		_, got := named(n.State(), name)
		if got == want {
			return
		}
		if time.Since(began) > 5*time.Second {
			t.Fatalf("interface %s is there: %t, want %t", name, got, want)
		}
	}
}

// link is the link of the interface that was attached last.
func (n *aNetwork) link() stacks.Link {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.links[n.next-1]
}

// A clone is what opens the device.
type clone interface {
	open(t *testing.T) int // non-blocking
	ioctl(fd int, cmd uint32, arg any) (out []byte, errno unix.Errno)
}

// kernelClone is the kernel's.
type kernelClone struct{}

func (kernelClone) open(t *testing.T) int {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("no TUN device can be made here: " + err.Error())
	}
	return fd
}

func (kernelClone) ioctl(fd int, cmd uint32, arg any) ([]byte, unix.Errno) {
	switch arg := arg.(type) {
	case []byte:
		b := bytes.Clone(arg)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(&b[0])))
		return b, errno
	default:
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(arg.(int)))
		return nil, errno
	}
}

// ourClone is the module's.
type ourClone struct {
	m *Module
	p *intercepttest.Process
}

func (c ourClone) open(t *testing.T) int {
	fd, err := c.m.Open(unix.O_RDWR | unix.O_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func (c ourClone) ioctl(fd int, cmd uint32, arg any) ([]byte, unix.Errno) {
	c.p.Open(fd, fd)
	defer c.p.Close(fd)
	var r intercepttest.Result
	var out []byte
	h := intercept.HandlerFunc(c.m.handleIoctl)
	switch arg := arg.(type) {
	case []byte:
		at := c.p.Map(arg)
		r = c.p.Call(h, unix.SYS_IOCTL, fd, cmd, at).Result()
		out = c.p.Mem(at, len(arg))
	default:
		r = c.p.Call(h, unix.SYS_IOCTL, fd, cmd, arg).Result()
	}
	return out, r.Errno
}

// ours makes a module on a network.
func ours(t *testing.T) (ourClone, *aNetwork) {
	n := newNetwork()
	m := New(n, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if len(n.State().Interfaces) != 1 {
			t.Errorf("left behind: %v", n.State().Interfaces)
		}
	})
	return ourClone{m, intercepttest.New(t)}, n
}

// both runs a test on the kernel's device and on ours.
func both(t *testing.T, f func(t *testing.T, c clone)) {
	t.Run("kernel", func(t *testing.T) {
		nstest.Need(t)
		f(t, kernelClone{})
	})
	t.Run("umrun", func(t *testing.T) {
		c, _ := ours(t)
		f(t, c)
	})
}

func ifreq(name string, flags uint16) []byte {
	b := make([]byte, ifreqLen)
	copy(b, name)
	binary.NativeEndian.PutUint16(b[ifreqFlags:], flags)
	return b
}

func number(v int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(v)) }

// TestIoctls: which succeed, and what the others fail with.
func TestIoctls(t *testing.T) {
	const tunFlags, tapFlags = unix.IFF_TUN | unix.IFF_NO_PI, unix.IFF_TAP
	both(t, func(t *testing.T, c clone) {
		a, b := c.open(t), c.open(t)
		defer unix.Close(a)
		defer unix.Close(b)
		for _, s := range []struct {
			name string
			fd   int
			cmd  uint32
			arg  any
			want unix.Errno
		}{
			{"get before set", a, unix.TUNGETIFF, ifreq("", 0), unix.EBADFD},
			{"persist before set", a, unix.TUNSETPERSIST, 1, unix.EBADFD},
			{"no such before set", a, 0x400454e9, 0, unix.EBADFD},
			{"what is no TUN", a, unix.TUNSETIFF, ifreq("lo", tunFlags), unix.EINVAL},
			{"no name", a, unix.TUNSETIFF, ifreq("a/b", tunFlags), unix.EINVAL},
			{"another pattern", a, unix.TUNSETIFF, ifreq("a%sb", tunFlags), unix.EINVAL},
			{"no type", a, unix.TUNSETIFF, ifreq("", unix.IFF_NO_PI), unix.EINVAL},
			{"set", a, unix.TUNSETIFF, ifreq("vpn%d", tunFlags), 0},
			{"set again", a, unix.TUNSETIFF, ifreq("other", tunFlags), unix.EEXIST},
			{"in use", b, unix.TUNSETIFF, ifreq("vpn0", tunFlags), unix.EBUSY},
			{"in use, as another type", b, unix.TUNSETIFF, ifreq("vpn0", tapFlags), unix.EINVAL},
			{"in use, with more queues", b, unix.TUNSETIFF, ifreq("vpn0", tunFlags|unix.IFF_MULTI_QUEUE), unix.EINVAL},
			{"set another", b, unix.TUNSETIFF, ifreq("", tapFlags), 0},
			{"owner", a, unix.TUNSETOWNER, 1000, 0},
			{"group", a, unix.TUNSETGROUP, 1000, 0},
			{"no checksums", a, unix.TUNSETNOCSUM, 1, 0},
			{"offload nothing", a, unix.TUNSETOFFLOAD, 0, 0},
			{"offload", a, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6, 0},
			{"offload what there is not", a, unix.TUNSETOFFLOAD, 0x1000, unix.EINVAL},
			{"send buffer", a, unix.TUNGETSNDBUF, number(0), 0},
			{"no send buffer", a, unix.TUNSETSNDBUF, number(0), unix.EINVAL},
			{"header too short", a, unix.TUNSETVNETHDRSZ, number(9), unix.EINVAL},
			{"header", a, unix.TUNSETVNETHDRSZ, number(12), 0},
			{"little endian", a, unix.TUNSETVNETLE, number(1), 0},
			{"big endian", a, unix.TUNSETVNETBE, number(1), unix.EINVAL},
			{"type of the link", a, unix.TUNSETLINK, unix.ARPHRD_NONE, 0},
			{"filter of a TUN", a, unix.TUNSETTXFILTER, make([]byte, 20), unix.EINVAL},
			{"index too late", a, unix.TUNSETIFINDEX, number(77), unix.EPERM},
			{"queue", a, unix.TUNSETQUEUE, ifreq("", unix.IFF_ATTACH_QUEUE), unix.EINVAL},
			{"carrier", a, unix.TUNSETCARRIER, number(1), 0},
			{"no such", a, 0x400454e9, 0, unix.EINVAL},
		} {
			if _, errno := c.ioctl(s.fd, s.cmd, s.arg); errno != s.want {
				t.Errorf("%s: %v, want %v", s.name, unix.ErrnoName(errno), unix.ErrnoName(s.want))
			}
		}
		for _, s := range []struct {
			fd    int
			name  string
			flags uint16
		}{
			{a, "vpn0", tunFlags},
			{b, "tap0", tapFlags | iffNoFilter},
		} {
			out, errno := c.ioctl(s.fd, unix.TUNGETIFF, ifreq("garbage", 0))
			if name, flags := cString(out[:unix.IFNAMSIZ]), binary.NativeEndian.Uint16(out[ifreqFlags:]); errno != 0 || name != s.name || flags != s.flags {
				t.Errorf("TUNGETIFF: %s %#x %v, want %s %#x", name, flags, unix.ErrnoName(errno), s.name, s.flags)
			}
		}
		out, errno := c.ioctl(a, unix.TUNGETVNETHDRSZ, number(0))
		if errno != 0 || binary.NativeEndian.Uint32(out) != 12 {
			t.Errorf("header: %v %v", out, unix.ErrnoName(errno))
		}
		out, errno = c.ioctl(b, unix.SIOCGIFHWADDR, ifreq("", 0))
		if errno != 0 || binary.NativeEndian.Uint16(out[ifreqAddr:]) != unix.ARPHRD_ETHER || bytes.Equal(out[ifreqAddr+2:ifreqAddr+8], make([]byte, 6)) {
			t.Errorf("SIOCGIFHWADDR: %x %v", out, unix.ErrnoName(errno))
		}
		if _, err := unix.Read(a, make([]byte, 2000)); err != unix.EAGAIN {
			t.Errorf("read of an empty queue: %v", err)
		}
		if _, err := unix.Seek(a, 0, 0); err != unix.ESPIPE {
			t.Errorf("seek: %v", err)
		}
	})
}

// TestPersist: a device goes with its file unless it is to stay.
func TestPersist(t *testing.T) {
	there := func(t *testing.T, c clone, name string, want bool) {
		t.Helper()
		if o, ok := c.(ourClone); ok {
			o.m.net.(*aNetwork).has(t, name, want)
			return
		}
		if _, err := net.InterfaceByName(name); (err == nil) != want {
			t.Errorf("%s is there: %t", name, err == nil)
		}
	}
	const flags = unix.IFF_TUN | unix.IFF_NO_PI
	both(t, func(t *testing.T, c clone) {
		set := func(fd int, flags uint16, want unix.Errno) {
			t.Helper()
			if _, errno := c.ioctl(fd, unix.TUNSETIFF, ifreq("stays", flags)); errno != want {
				t.Fatalf("TUNSETIFF: %v, want %v", unix.ErrnoName(errno), unix.ErrnoName(want))
			}
		}
		fd := c.open(t)
		set(fd, flags, 0)
		again, err := unix.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		there(t, c, "stays", true)
		if _, errno := c.ioctl(again, unix.TUNSETPERSIST, 1); errno != 0 {
			t.Fatal(errno)
		}
		unix.Close(again)
		time.Sleep(20 * time.Millisecond) // the end is noticed, and nothing happens
		there(t, c, "stays", true)

		fd = c.open(t)
		set(fd, unix.IFF_TAP, unix.EINVAL)
		set(fd, flags|iffTunExcl, unix.EBUSY)
		set(fd, flags|unix.IFF_VNET_HDR, 0)
		out, _ := c.ioctl(fd, unix.TUNGETIFF, ifreq("", 0))
		if got, want := binary.NativeEndian.Uint16(out[ifreqFlags:]), uint16(flags|unix.IFF_VNET_HDR|iffPersist); got != want {
			t.Errorf("flags %#x, want %#x", got, want)
		}
		if _, errno := c.ioctl(fd, unix.TUNSETPERSIST, 0); errno != 0 {
			t.Fatal(errno)
		}
		unix.Close(fd)
		there(t, c, "stays", false)
	})
}

// datagram is a UDP packet of IPv4 with n bytes, without its checksum.
func datagram(n int) []byte {
	p := make([]byte, 28+n)
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	binary.BigEndian.PutUint16(p[20:], 1000)
	binary.BigEndian.PutUint16(p[22:], 2000)
	binary.BigEndian.PutUint16(p[24:], uint16(8+n))
	return p
}

// segments is a super-segment of TCP over IPv4 that is to be cut after size bytes.
func segments(n int, size uint16) (offload.Hdr, []byte) {
	p := make([]byte, 40+n)
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	p[32] = 5 << 4
	return offload.Hdr{Flags: offload.NeedsCsum, GSOType: offload.GSOTCPv4, GSOSize: size, HdrLen: 40, CsumStart: 20, CsumOffset: 16}, p
}

// TestFraming: what is in front of packets, in both directions.
func TestFraming(t *testing.T) {
	pi := []byte{0, 0, 8, 0}
	zero := make([]byte, offload.HdrLen)
	for _, tc := range []struct {
		name  string
		flags uint16
		front []byte
	}{
		{"plain", unix.IFF_TUN | unix.IFF_NO_PI, nil},
		{"information", unix.IFF_TUN, pi},
		{"header", unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR, zero},
		{"both", unix.IFF_TUN | unix.IFF_VNET_HDR, slices.Concat(pi, zero)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, n := ours(t)
			fd := c.open(t)
			defer unix.Close(fd)
			if _, errno := c.ioctl(fd, unix.TUNSETIFF, ifreq("", tc.flags)); errno != 0 {
				t.Fatal(errno)
			}
			packet := datagram(100)
			for _, bad := range [][]byte{{}, {1}, slices.Concat(tc.front, []byte{0x15, 1, 2, 3})} {
				if _, err := unix.Write(fd, bad); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := unix.Write(fd, slices.Concat(tc.front, packet)); err != nil {
				t.Fatal(err)
			}
			if got, want := <-n.in, slices.Concat(zero, packet); !bytes.Equal(got, want) {
				t.Errorf("the network got %x, want %x", got, want)
			}
			if _, err := n.link().Write([][]byte{slices.Concat(zero, packet)}); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 3000)
			k, err := unix.Read(fd, b)
			if want := slices.Concat(tc.front, packet); err != nil || !bytes.Equal(b[:k], want) {
				t.Errorf("the program read %x %v, want %x", b[:k], err, want)
			}
			h, super := segments(2500, 1000)
			whole := make([]byte, offload.HdrLen)
			h.Encode(whole)
			whole = append(whole, super...)
			if _, err := n.link().Write([][]byte{whole}); err != nil {
				t.Fatal(err)
			}
			for i, want := range []int{1000, 1000, 500} {
				k, err := unix.Read(fd, b)
				if err != nil || k != len(tc.front)+40+want || !offload.Verify(b[len(tc.front):k]) {
					t.Errorf("piece %d: %d bytes %v, want %d with good checksums", i, k, err, len(tc.front)+40+want)
				}
			}
			if tc.flags&unix.IFF_VNET_HDR == 0 {
				return
			}
			// One that takes them gets them.
			if _, errno := c.ioctl(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4); errno != 0 {
				t.Fatal(errno)
			}
			if _, err := n.link().Write([][]byte{whole}); err != nil {
				t.Fatal(err)
			}
			k, err = unix.Read(fd, b)
			if want := slices.Concat(tc.front[:len(tc.front)-offload.HdrLen], whole); err != nil || !bytes.Equal(b[:k], want) {
				t.Errorf("the program read %d bytes %v, want %d", k, err, len(want))
			}
			if _, err := unix.Write(fd, slices.Concat(tc.front[:len(tc.front)-offload.HdrLen], whole)); err != nil {
				t.Fatal(err)
			}
			if got := <-n.in; !bytes.Equal(got, whole) {
				t.Errorf("the network got %d bytes, want %d", len(got), len(whole))
			}
		})
	}
}

// TestFull: a program that does not read makes the stack wait, and nothing is lost.
func TestFull(t *testing.T) {
	c, n := ours(t)
	fd := c.open(t)
	defer unix.Close(fd)
	if _, errno := c.ioctl(fd, unix.TUNSETIFF, ifreq("", unix.IFF_TUN|unix.IFF_NO_PI)); errno != 0 {
		t.Fatal(errno)
	}
	const packets = 2000
	done := make(chan error, 1)
	go func() {
		for i := range packets {
			p := datagram(1000)
			binary.BigEndian.PutUint16(p[4:], uint16(i))
			if _, err := n.link().Write([][]byte{slices.Concat(make([]byte, offload.HdrLen), p)}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	select {
	case err := <-done:
		t.Fatalf("all was taken, though nobody reads: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	b := make([]byte, 2000)
	for i := 0; i < packets; {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if k, err := unix.Poll(poll, 5000); k == 0 && err == nil {
			t.Fatalf("nothing more after %d packets", i)
		}
		if _, err := unix.Read(fd, b); err != nil {
			continue
		}
		if got := int(binary.BigEndian.Uint16(b[4:])); got != i {
			t.Fatalf("packet %d after %d", got, i-1)
		}
		i++
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
