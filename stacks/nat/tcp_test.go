// SPDX-License-Identifier: Apache-2.0

// TCP through the link.

package nat_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks/nat"
)

// serve runs handle for every connection to a listener on addr of the host.
func serve(t testing.TB, addr string, handle func(*net.TCPConn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(20 * time.Second))
			wg.Add(1)
			go func() {
				defer wg.Done()
				defer c.Close()
				handle(c.(*net.TCPConn))
			}()
		}
	}()
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().String()
}

func echo(c *net.TCPConn) {
	io.Copy(c, c)
	c.CloseWrite()
}

// viaGateway replaces the host's loopback in addr by the gateway.
func viaGateway(addr string) string {
	addr = strings.Replace(addr, "127.0.0.1", nat.Gateway4.String(), 1)
	return strings.Replace(addr, "[::1]", "["+nat.Gateway6.String()+"]", 1)
}

func TestTCPEcho(t *testing.T) {
	v := open(t, nat.Options{HostLoopback: true})
	for _, at := range []string{"198.51.100.2:0", "[2001:db8::2]:0", "127.0.0.1:0", "[::1]:0"} {
		t.Run(at, func(t *testing.T) {
			addr := viaGateway(serve(t, at, echo))
			c := v.mustDial(addr)
			defer c.Close()
			const size = 8 << 20
			sent := make(chan [32]byte, 1)
			go func() {
				h := sha256.New()
				r := rand.NewChaCha8([32]byte{1})
				io.CopyN(io.MultiWriter(c, h), r, size)
				c.CloseWrite()
				sent <- [32]byte(h.Sum(nil))
			}()
			h := sha256.New()
			n, err := io.Copy(h, c)
			if err != nil || n != size {
				t.Fatalf("got %d bytes, %v", n, err)
			}
			if [32]byte(h.Sum(nil)) != <-sent {
				t.Error("the echo differs")
			}
		})
	}
}

// TestTCPUrgent: urgent data of the host comes as ordinary data, in its place.
func TestTCPUrgent(t *testing.T) {
	v := open(t, nat.Options{})
	addr := serve(t, "198.51.100.2:0", func(c *net.TCPConn) {
		rc, err := c.SyscallConn()
		if err != nil {
			return
		}
		for _, m := range []struct {
			text  string
			flags int
		}{{"ab", 0}, {"!", unix.MSG_OOB}, {"cd", 0}} {
			rc.Write(func(fd uintptr) bool { return unix.Send(int(fd), []byte(m.text), m.flags) != unix.EAGAIN })
		}
	})
	c := v.mustDial(addr)
	defer c.Close()
	if b, err := io.ReadAll(c); err != nil || string(b) != "ab!cd" {
		t.Errorf("got %q, %v", b, err)
	}
}

// TestTCPRefused: the errno of the host's connect is the program's.
// TestTCPSamePort connects from ports whose last connection has just ended, by the
// host.
func TestTCPSamePort(t *testing.T) {
	v := open(t, nat.Options{HostLoopback: true})
	if err := v.s.SetPortRange(40000, 40009); err != nil {
		t.Fatal(err)
	}
	addr := viaGateway(serve(t, "127.0.0.1:0", func(c *net.TCPConn) { io.WriteString(c, "bye") }))
	for i := range 100 {
		start := time.Now()
		c := v.mustDial(addr)
		if took := time.Since(start); took > 900*time.Millisecond {
			t.Errorf("connect %d took %v: its SYN was lost", i, took)
		}
		if b, err := io.ReadAll(c); string(b) != "bye" || err != nil {
			t.Errorf("read: %q, %v", b, err)
		}
		c.Close()
	}
}

func TestTCPRefused(t *testing.T) {
	closed := func(at string) string {
		ln, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		return ln.Addr().String()
	}
	lo4 := serve(t, "127.0.0.1:0", echo)
	lo6 := serve(t, "[::1]:0", echo)
	lo10 := serve(t, "10.255.0.1:0", echo)
	_, port, _ := net.SplitHostPort(lo4)
	_, port6, _ := net.SplitHostPort(lo6)
	for _, tt := range []struct {
		name, addr, want string
		open             bool
	}{
		{name: "refused", addr: closed("198.51.100.2:0"), want: "refused"},
		{name: "refused v6", addr: closed("[2001:db8::2]:0"), want: "refused"},
		{name: "refused by the open gateway", addr: viaGateway(closed("127.0.0.1:0")), want: "refused", open: true},
		{name: "unreachable", addr: "203.0.113.1:80", want: "no route to host"},
		{name: "unreachable v6", addr: "[2001:db8:1::1]:80", want: "network is unreachable"},
		{name: "prohibited", addr: "192.0.2.1:80", want: "no route to host"},
		{name: "no network", addr: "100.64.0.1:80", want: "network is unreachable"},
		{name: "no network v6", addr: "[2001:db8:2::1]:80", want: "network is unreachable"},
		{name: "gateway closed", addr: viaGateway(lo4), want: "refused"},
		{name: "gateway closed v6", addr: viaGateway(lo6), want: "refused"},
		{name: "address of lo", addr: lo10, want: "no route to host"},
		{name: "0.0.0.1", addr: "0.0.0.1:" + port, want: "no route to host"},
		{name: "v4 compatible", addr: "[::127.0.0.1]:" + port, want: "network is unreachable"},
		{name: "::2", addr: "[::2]:" + port6, want: "network is unreachable"},
		{name: "neighbour in the view's net", addr: "10.0.2.77:" + port, want: "no route to host"},
		{name: "dns relay, other port", addr: "10.0.2.3:80", want: "refused"},
		{name: "dns relay without servers", addr: "10.0.2.3:53", want: "refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := open(t, nat.Options{HostLoopback: tt.open})
			c, err := v.dial(tt.addr)
			if err == nil {
				c.Close()
				t.Fatal("connected")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, want %q", err, tt.want)
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("no answer at all")
			}
		})
	}
}

func TestTCPHalfClose(t *testing.T) {
	v := open(t, nat.Options{})
	t.Run("view first", func(t *testing.T) {
		addr := serve(t, "198.51.100.2:0", func(c *net.TCPConn) {
			b, err := io.ReadAll(c)
			fmt.Fprintf(c, "%s,%v", b, err)
		})
		c := v.mustDial(addr)
		defer c.Close()
		io.WriteString(c, "hello")
		c.CloseWrite()
		if b, err := io.ReadAll(c); err != nil || string(b) != "hello,<nil>" {
			t.Errorf("got %q, %v", b, err)
		}
	})
	t.Run("host first", func(t *testing.T) {
		got := make(chan string, 1)
		addr := serve(t, "198.51.100.2:0", func(c *net.TCPConn) {
			io.WriteString(c, "hello")
			c.CloseWrite()
			b, err := io.ReadAll(c)
			got <- fmt.Sprintf("%s,%v", b, err)
		})
		c := v.mustDial(addr)
		defer c.Close()
		if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
			t.Errorf("got %q, %v", b, err)
		}
		io.WriteString(c, "later")
		c.CloseWrite()
		if s := <-got; s != "later,<nil>" {
			t.Errorf("the host got %q", s)
		}
	})
	eventually(t, "flows end", func() bool { return v.link.Stats().TCPActive == 0 })
	if n := v.link.Stats().TCPReset; n != 0 {
		t.Errorf("%d flows were reset", n)
	}
}

// TestTCPReset: a reset is never turned into a clean end.
func TestTCPReset(t *testing.T) {
	v := open(t, nat.Options{})
	for _, tt := range []struct {
		name   string
		before func(c *net.TCPConn) // on the host, before its reset
	}{
		{"at once", func(*net.TCPConn) {}},
		{"after data", func(c *net.TCPConn) { io.ReadFull(c, make([]byte, 4)) }},
		{"after FIN", func(c *net.TCPConn) { c.CloseWrite(); io.ReadFull(c, make([]byte, 4)) }},
	} {
		t.Run("by the host "+tt.name, func(t *testing.T) {
			addr := serve(t, "198.51.100.2:0", func(c *net.TCPConn) {
				tt.before(c)
				c.SetLinger(0)
			})
			c, err := v.dial(addr)
			if err != nil && strings.Contains(err.Error(), "reset") {
				return // before gonet looked
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, "data")
			eventually(t, "the reset", func() bool {
				_, err := c.Write([]byte("x"))
				return err != nil
			})
			eventually(t, "flow ends", func() bool { return v.link.Stats().TCPActive == 0 })
		})
	}
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("by the view, half closed %v", after), func(t *testing.T) {
			got := make(chan error, 1)
			addr := serve(t, "198.51.100.2:0", func(c *net.TCPConn) {
				_, err := io.Copy(io.Discard, c)
				if err == nil { // the FIN came first
					for err == nil {
						time.Sleep(time.Millisecond)
						_, err = c.Write([]byte("x"))
					}
				}
				got <- err
			})
			c := v.mustDial(addr)
			io.WriteString(c, "data")
			if after {
				c.CloseWrite()
				io.ReadFull(c, make([]byte, 1))
			}
			v.abort(c)
			if err := <-got; !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
				t.Errorf("the host got %v", err)
			}
		})
	}
	eventually(t, "flows end", func() bool { return v.link.Stats().TCPActive == 0 })
}

// TestTCPBackPressure: what the host does not read, the view cannot send.
func TestTCPBackPressure(t *testing.T) {
	v := open(t, nat.Options{})
	release := make(chan struct{})
	total := make(chan int64, 1)
	addr := serve(t, "198.51.100.2:0", func(c *net.TCPConn) {
		<-release
		n, _ := io.Copy(io.Discard, c)
		total <- n
	})
	c := v.mustDial(addr)
	defer c.Close()
	buf := make([]byte, 64<<10)
	var sent int64
	for {
		c.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		n, err := c.Write(buf)
		sent += int64(n)
		if err != nil {
			break
		}
		if sent > 256<<20 {
			t.Fatal("no back-pressure")
		}
	}
	close(release)
	c.CloseWrite()
	if n := <-total; n != sent {
		t.Errorf("sent %d, arrived %d", sent, n)
	}
}

func TestTCPManyFlows(t *testing.T) {
	v := open(t, nat.Options{})
	addr := serve(t, "198.51.100.2:0", echo)
	const n = 1000
	var wg sync.WaitGroup
	errs := make(chan error, n)
	for i := range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c, err := v.dial(addr)
			if err != nil {
				errs <- err
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			msg := fmt.Sprintf("flow %d", i)
			io.WriteString(c, msg)
			b := make([]byte, len(msg))
			if _, err := io.ReadFull(c, b); err != nil || string(b) != msg {
				errs <- fmt.Errorf("got %q, %w", b, err)
			}
		}()
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
		break
	}
	eventually(t, "flows end", func() bool { return v.link.Stats().TCPActive == 0 })
	if s := v.link.Stats(); s.TCPOpened != n {
		t.Errorf("opened %d flows", s.TCPOpened)
	}
}

// TestClose ends flows in every state, without leaks of goroutines (TestMain)
// or descriptors.
func TestClose(t *testing.T) {
	fds := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	before := fds()
	t.Run("in use", func(t *testing.T) {
		release := make(chan struct{})
		got := make(chan error, 2)
		addr := serve(t, "198.51.100.2:0", func(c *net.TCPConn) {
			_, err := io.Copy(io.Discard, c)
			got <- err
		})
		v := open(t, nat.Options{})
		a := v.mustDial(addr)
		defer a.Close()
		u := v.dialUDP("198.51.100.2:9", 0)
		u.Write([]byte("x"))
		ctx, cancel := context.WithCancel(context.Background())
		go func() { defer close(release); v.dialContext(ctx, "198.51.100.77:80") }() // nobody there
		eventually(t, "the mapping", func() bool { return v.link.Stats().Mappings == 1 })
		if err := v.link.Close(); err != nil {
			t.Error(err)
		}
		if err := <-got; !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("the host got %v, want a reset", err)
		}
		if _, err := v.link.Write([][]byte{make([]byte, 64)}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write: %v", err)
		}
		if _, err := v.link.Read([][]byte{make([]byte, 64)}, []int{0}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read: %v", err)
		}
		a.Close()
		cancel()
		<-release
	})
	eventually(t, "descriptors are closed", func() bool { return fds() <= before })
}

// TestTCPChurn ends connections in every way that two sides can think of, at
// once, and looks for what is left over.
func TestTCPChurn(t *testing.T) {
	v := open(t, nat.Options{})
	end := func(r *rand.Rand, c interface {
		io.ReadWriteCloser
		CloseWrite() error
	}, reset func()) {
		buf := make([]byte, 1+r.IntN(200<<10))
		for range r.IntN(3) {
			if r.IntN(2) == 0 {
				c.Write(buf)
			} else {
				c.Read(buf)
			}
		}
		switch r.IntN(4) {
		case 0:
			reset()
		case 1:
			c.CloseWrite()
			io.Copy(io.Discard, c)
		case 2:
			c.CloseWrite()
		}
	}
	addr := serve(t, "198.51.100.2:0", func(c *net.TCPConn) {
		c.SetDeadline(time.Now().Add(300 * time.Millisecond))
		end(rand.New(rand.NewPCG(rand.Uint64(), 1)), c, func() { c.SetLinger(0) })
	})
	var wg sync.WaitGroup
	for range 16 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(rand.Uint64(), 2))
			for range 20 {
				c, err := v.dial(addr)
				if err != nil {
					if !strings.Contains(err.Error(), "reset") {
						t.Error(err)
					}
					continue
				}
				c.SetDeadline(time.Now().Add(300 * time.Millisecond))
				end(r, c, func() { v.abort(c) })
				c.Close()
			}
		}()
	}
	wg.Wait()
	eventually(t, "flows end", func() bool { return v.link.Stats().TCPActive == 0 })
	if n := v.link.Stats().Overflow; n != 0 {
		t.Errorf("%d packets to the view were dropped", n)
	}
}
