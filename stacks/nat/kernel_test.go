// SPDX-License-Identifier: Apache-2.0

// A view with the kernel's stack: the link behind a TUN with vnet_hdr. What this
// program gets is what Linux makes of the link's packets.

package nat_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/nat"
)

// tunHere makes a TUN in the namespace of the calling thread, and configures it
// as the link says.
func tunHere(l *nat.Link) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	ifr, err := unix.NewIfreq("tun0")
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	tun := os.NewFile(uintptr(fd), "tun0")
	lines := []string{"link set lo up", fmt.Sprintf("link set tun0 mtu %d up", l.MTU())}
	for _, a := range l.Config().Addrs {
		flag := ""
		if a.Addr().Is6() {
			flag = "nodad"
		}
		lines = append(lines, fmt.Sprintf("addr add %v dev tun0 %s", a, flag))
	}
	lines = append(lines, "route add default via 10.0.2.2", "route add default via fd00:2::2")
	if err := ip(lines...); err != nil {
		return nil, errors.Join(err, tun.Close())
	}
	return tun, nil
}

// pump moves packets between the TUN and the link until both are closed.
func pump(t *testing.T, tun *os.File, l *nat.Link) {
	var wg sync.WaitGroup
	wg.Add(2)
	go func() {
		defer wg.Done()
		buf := make([]byte, stacks.MaxPacket)
		for {
			n, err := tun.Read(buf)
			if err != nil {
				return
			}
			if _, err := l.Write([][]byte{buf[:n]}); err != nil {
				return
			}
		}
	}()
	go func() {
		defer wg.Done()
		bufs, sizes := make([][]byte, l.BatchSize()), make([]int, l.BatchSize())
		for i := range bufs {
			bufs[i] = make([]byte, stacks.MaxPacket)
		}
		for {
			n, err := l.Read(bufs, sizes)
			if err != nil {
				return
			}
			for i := range n {
				if _, err := tun.Write(bufs[i][:sizes[i]]); err != nil && !errors.Is(err, os.ErrClosed) {
					t.Errorf("the TUN refuses a packet of %d bytes: %v", sizes[i], err)
				}
			}
		}
	}()
	t.Cleanup(func() {
		l.Close()
		tun.Close()
		wg.Wait()
	})
}

// inNewNetns runs f on a thread in a new network namespace. f's sockets belong
// there as long as it makes them itself.
func inNewNetns(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		var err error
		defer func() { done <- err }()
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			f()
		}
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestKernelView(t *testing.T) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("the kernel's stack needs /dev/net/tun to be on the link:", err)
	}
	unix.Close(fd)
	for _, mtu := range []int{0, 1500} {
		t.Run(fmt.Sprintf("MTU %d", mtu), func(t *testing.T) { kernelView(t, mtu) })
	}
}

func kernelView(t *testing.T, mtu int) {
	l := openRaw(t, nat.Options{MTU: mtu, HostLoopback: true})
	echoes := []string{
		serve(t, "198.51.100.2:0", echo), serve(t, "[2001:db8::2]:0", echo),
		viaGateway(serve(t, "127.0.0.1:0", echo)), viaGateway(serve(t, "[::1]:0", echo)),
	}
	reset := serve(t, "198.51.100.2:0", func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 1))
		c.SetLinger(0)
	})
	udp := []string{serveUDP(t, "198.51.100.2:0", same), serveUDP(t, "[2001:db8::2]:0", same)}
	inNewNetns(t, func() {
		tun, err := tunHere(l)
		if err != nil {
			t.Error(err)
			return
		}
		pump(t, tun, l)
		for _, addr := range echoes {
			kernelEcho(t, addr)
		}
		kernelErrors(t)
		kernelReset(t, reset)
		for _, addr := range udp {
			for _, size := range []int{0, 1400, 20000, 65000} {
				kernelUDP(t, addr, size)
			}
		}
	})
	if n := l.Stats().Malformed; n != 0 {
		t.Errorf("%d malformed packets", n)
	}
}

// dialHere makes the socket on this very thread.
func dialHere(network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	return d.Dial(network, addr)
}

func kernelEcho(t *testing.T, addr string) {
	c, err := dialHere("tcp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	const size = 16 << 20
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		io.CopyN(c, rand.NewChaCha8([32]byte{2}), size)
		c.(*net.TCPConn).CloseWrite()
	}()
	want, got := rand.NewChaCha8([32]byte{2}), make([]byte, 64<<10)
	expect := make([]byte, len(got))
	total := 0
	for total < size {
		n, err := c.Read(got)
		want.Read(expect[:n])
		if !bytes.Equal(got[:n], expect[:n]) {
			t.Errorf("%s: the echo differs", addr)
			break
		}
		total += n
		if err != nil {
			t.Errorf("%s: %v after %d bytes", addr, err, total)
			break
		}
	}
	if n, err := c.Read(got); n != 0 || err != io.EOF {
		t.Errorf("%s: %d more bytes, %v", addr, n, err)
	}
	wg.Wait()
}

// kernelErrors: the errno is the host's.
func kernelErrors(t *testing.T) {
	for addr, want := range map[string]unix.Errno{
		"198.51.100.2:1":     unix.ECONNREFUSED,
		"[2001:db8::2]:1":    unix.ECONNREFUSED,
		"10.0.2.2:1":         unix.ECONNREFUSED,
		"10.0.2.3:1":         unix.ECONNREFUSED,
		"203.0.113.1:80":     unix.EHOSTUNREACH,
		"[2001:db8:1::1]:80": unix.EHOSTUNREACH,
		"10.0.2.99:80":       unix.EHOSTUNREACH,
		"100.64.0.1:80":      unix.ENETUNREACH,
		"[2001:db8:2::1]:80": unix.ENETUNREACH,
		"192.0.2.1:80":       unix.EHOSTUNREACH, // prohibited: Linux makes this of code 13
	} {
		c, err := dialHere("tcp", addr)
		if err == nil {
			c.Close()
		}
		if !errors.Is(err, want) {
			t.Errorf("connect %s: %v, want %v", addr, err, want)
		}
	}
	for _, addr := range []string{"198.51.100.2:1", "[2001:db8::2]:1", "10.0.2.2:1", "10.0.2.3:1", "[fd00:2::3]:53"} {
		c, err := dialHere("udp", addr)
		if err != nil {
			t.Error(err)
			continue
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		c.Write([]byte("twelve bytes or more"))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("udp %s: %v", addr, err)
		}
		c.Close()
	}
}

func kernelReset(t *testing.T, addr string) {
	c, err := dialHere("tcp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

func kernelUDP(t *testing.T, addr string, size int) {
	c, err := dialHere("udp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	msg := bytes.Repeat([]byte{3, 1, 4, 1}, size/4)
	c.Write(msg)
	buf := make([]byte, 65536)
	if n, err := c.Read(buf); err != nil || !bytes.Equal(buf[:n], msg) {
		t.Errorf("%s: got %d of %d bytes, %v", addr, n, size, err)
	}
}
