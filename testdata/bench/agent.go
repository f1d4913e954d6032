// SPDX-License-Identifier: Apache-2.0

// The agent: the program that is measured, natively and under umrun.

package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A sample is what the agent says of one measurement.
type sample struct {
	Bytes   uint64
	Ops     uint64
	Seconds float64
	P50     float64 // microseconds, of one operation
	P99     float64
	CPU     float64 // seconds, of the agent; the driver adds the supervisor's
	Text    string
	Err     string
}

// agent reads commands from standard input, a line each: KIND ADDRESS
// NANOSECONDS COUNT, and answers each with a sample in JSON. It does what it is
// told in one thread where it can, with plain blocking calls, as most tools of its
// kind do. It has no deadlines of its own: the driver ends it. With an argument, the URL
// of a proxy, its connections go through that.
func agent(args []string) int {
	if len(args) > 0 {
		var err error
		if via, err = parseProxy(args[0]); err != nil {
			fmt.Fprintln(os.Stderr, "bench agent:", err)
			return 1
		}
	}
	in := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		var kind, addr string
		var d time.Duration
		var n int
		if _, err := fmt.Sscan(in.Text(), &kind, &addr, &d, &n); err != nil {
			fmt.Fprintln(os.Stderr, "bench agent:", err)
			return 1
		}
		a, err := netip.ParseAddr(addr)
		var s sample
		if err == nil {
			cpu := cpuSelf()
			s, err = perform(kind, a, d, n)
			s.CPU = cpuSelf() - cpu
		}
		if err != nil {
			s.Err = err.Error()
		}
		if err := out.Encode(s); err != nil {
			return 1
		}
	}
	return 0
}

func perform(kind string, a netip.Addr, d time.Duration, n int) (sample, error) {
	switch kind {
	case "ready":
		return sample{}, nil
	case "cc":
		return pinned(a)
	case "up":
		return up(a, d)
	case "down":
		return down(a, d)
	case "rr":
		return roundTrips(a, d)
	case "crr":
		return connects(a, d, n)
	case "seq":
		return connects(a, 0, n)
	case "crrgo":
		return timed(d, 0, func() error { return dialOnce(a) })
	case "udp":
		return flood(a, d)
	case "many":
		return many(a, n)
	case "calls":
		return calls(n)
	case "unix":
		return messages(n)
	case "sockets":
		return timed(0, n, func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		})
	case "accept":
		return sample{}, blockInAccept()
	}
	return sample{}, fmt.Errorf("no such measurement: %s", kind)
}

// pinned tells the congestion control of both ends.
func pinned(a netip.Addr) (sample, error) {
	c, err := dial(a, portCC)
	if err != nil {
		return sample{}, err
	}
	defer c.Close()
	theirs, err := io.ReadAll(c)
	return sample{Text: congestion(c) + " " + string(theirs)}, err
}

// up sends for d; the clock stops when the server has told how much came.
func up(a netip.Addr, d time.Duration) (sample, error) {
	c, err := dial(a, portSink)
	if err != nil {
		return sample{}, err
	}
	defer c.Close()
	b := make([]byte, bulk)
	var sent uint64
	start := time.Now()
	for time.Since(start) < d {
		n, err := c.Write(b)
		sent += uint64(n)
		if err != nil {
			return sample{}, err
		}
	}
	n, err := c.Write([]byte{lastByte})
	if err != nil {
		return sample{}, err
	}
	sent += uint64(n)
	var answer [8]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return sample{}, err
	}
	took := time.Since(start).Seconds()
	if got := binary.BigEndian.Uint64(answer[:]); got != sent {
		return sample{}, fmt.Errorf("of %d bytes %d arrived", sent, got)
	}
	return sample{Bytes: sent, Ops: 1, Seconds: took}, nil
}

func down(a netip.Addr, d time.Duration) (sample, error) {
	c, err := dial(a, portSource)
	if err != nil {
		return sample{}, err
	}
	defer c.Close()
	b := make([]byte, bulk)
	s := sample{Ops: 1}
	start := time.Now()
	for time.Since(start) < d {
		n, err := c.Read(b)
		s.Bytes += uint64(n)
		if err != nil {
			return sample{}, err
		}
	}
	s.Seconds = time.Since(start).Seconds()
	return s, nil
}

// timed repeats op for d, or n times.
func timed(d time.Duration, n int, op func() error) (sample, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var took []float64
	start := time.Now()
	for before := start; ; {
		if err := op(); err != nil {
			return sample{}, fmt.Errorf("after %d: %w", len(took), err)
		}
		now := time.Now()
		took = append(took, now.Sub(before).Seconds()*1e6)
		before = now
		if n > 0 && len(took) == n || n == 0 && now.Sub(start) >= d {
			break
		}
	}
	s := sample{Ops: uint64(len(took)), Seconds: time.Since(start).Seconds()}
	slices.Sort(took)
	s.P50, s.P99 = took[len(took)/2], took[len(took)*99/100]
	return s, nil
}

func roundTrips(a netip.Addr, d time.Duration) (sample, error) {
	fd, err := connect(a, portEcho)
	if err != nil {
		return sample{}, err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return sample{}, err
	}
	var b [1]byte
	return timed(d, 0, func() error {
		if _, err := unix.Write(fd, b[:]); err != nil {
			return err
		}
		n, err := unix.Read(fd, b[:])
		if err == nil && n != 1 {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
}

// request is what goes to and fro on a short connection.
var request = bytes.Repeat([]byte("request."), 8)

// A phase is a part of a short connection.
type phase int

// The phases, in order.
const (
	inSocket phase = iota
	inConnect
	inAnswer // write and read
	inEnd    // to the end of file, and close
	phases
)

func (p phase) String() string { return [...]string{"socket", "connect", "answer", "end"}[p] }

// connects makes short connections for d, or n of them. The sample's text tells
// how the time was spent.
func connects(a netip.Addr, d time.Duration, n int) (sample, error) {
	var spent [phases]time.Duration
	s, err := timed(d, n, func() error { return connectOnce(a, &spent) })
	for p, t := range spent {
		s.Text += fmt.Sprintf(" %s %.0f", phase(p), t.Seconds()*1e6/float64(max(s.Ops, 1)))
	}
	return s, err
}

// connectOnce is one short connection by blocking calls: the server closes first.
func connectOnce(a netip.Addr, spent *[phases]time.Duration) (err error) {
	last := time.Now()
	done := func(p phase) {
		now := time.Now()
		spent[p] += now.Sub(last)
		last = now
	}
	defer done(inEnd)
	fd, err := unix.Socket(family(a), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	done(inSocket)
	if err := reach(fd, a, portOnce); err != nil {
		return err
	}
	done(inConnect)
	if _, err := unix.Write(fd, request); err != nil {
		return err
	}
	var b [256]byte
	for got := 0; ; {
		n, err := unix.Read(fd, b[got:])
		if err != nil {
			return err
		}
		if n == 0 {
			if !bytes.Equal(b[:got], request) {
				return fmt.Errorf("answer of %d bytes", got)
			}
			return nil
		}
		if got += n; got == len(request) {
			done(inAnswer)
		}
	}
}

// dialOnce is the same by Go's net package, which makes three times the calls.
func dialOnce(a netip.Addr) error {
	c, err := dial(a, portOnce)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write(request); err != nil {
		return err
	}
	var b [256]byte
	n, err := io.ReadFull(c, b[:])
	if !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.Equal(b[:n], request) {
		return fmt.Errorf("answer of %d bytes: %w", n, err)
	}
	return nil
}

// count asks the server for the number of datagrams since last time.
func count(a netip.Addr) (uint64, error) {
	c, err := dial(a, portCount)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var b [8]byte
	_, err = io.ReadFull(c, b[:])
	return binary.BigEndian.Uint64(b[:]), err
}

// flood sends datagrams as fast as it can; what counts is what arrives. Twice
// counted is the time that the last ones are under way, which the count of the
// server goes on for.
func flood(a netip.Addr, d time.Duration) (sample, error) {
	if _, err := count(a); err != nil {
		return sample{}, err
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, portUDP)))
	if err != nil {
		return sample{}, err
	}
	defer c.Close()
	b := make([]byte, 1300)
	start := time.Now()
	for time.Since(start) < d {
		if _, err := c.Write(b); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return sample{}, err
		}
	}
	s := sample{Seconds: time.Since(start).Seconds()}
	if s.Ops, err = count(a); err != nil {
		return s, err
	}
	// What is queued is drained before the next measurement begins.
	for more := uint64(1); more > 0 && err == nil; {
		time.Sleep(20 * time.Millisecond)
		more, err = count(a)
		s.Ops += more
	}
	s.Bytes = s.Ops * uint64(len(b))
	return s, err
}

// many opens n connections, and on all at once sends 64 KiB of random bytes and
// compares the hash of what comes back.
func many(a netip.Addr, n int) (sample, error) {
	const size = 64 << 10
	start := time.Now()
	var wg sync.WaitGroup
	errs := make(chan error, n)
	open := make(chan struct{}) // closed when all are connected
	var connected sync.WaitGroup
	connected.Add(n)
	for i := range n {
		wg.Go(func() {
			errs <- func() error {
				c, err := dial(a, portEcho)
				connected.Done()
				if err != nil {
					return err
				}
				defer c.Close()
				<-open
				want, got := sha256.New(), sha256.New()
				src := io.LimitReader(rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}), size)
				sent := make(chan error, 1)
				go func() { // ends with the copy; its result is waited for below
					_, err := io.Copy(io.MultiWriter(c, want), src)
					sent <- errors.Join(err, c.CloseWrite())
				}()
				m, err := io.Copy(got, c)
				if err := errors.Join(err, <-sent); err != nil {
					return err
				}
				if m != size || !bytes.Equal(want.Sum(nil), got.Sum(nil)) {
					return fmt.Errorf("connection %d: %d bytes came back, or others than were sent", i, m)
				}
				return nil
			}()
		})
	}
	connected.Wait()
	close(open)
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return sample{}, err
		}
	}
	return sample{Bytes: uint64(n * size), Ops: uint64(n), Seconds: time.Since(start).Seconds()}, nil
}

// calls makes n calls that are trapped under umrun and do next to nothing.
func calls(n int) (sample, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return sample{}, err
	}
	defer unix.Close(fd)
	return timed(0, n, func() error {
		_, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		return err
	})
}

// messages sends and receives over an AF_UNIX pair: two calls.
func messages(n int) (sample, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return sample{}, err
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	b := []byte{1}
	return timed(0, n, func() error {
		if _, err := unix.SendmsgN(fds[0], b, nil, nil, 0); err != nil {
			return err
		}
		_, _, _, _, err := unix.Recvmsg(fds[1], b, nil, 0)
		return err
	})
}

// blockInAccept leaves one thread in accept(2) and another listener in an epoll
// set, for good.
func blockInAccept() error {
	l, err := net.Listen("tcp", "127.0.0.1:7001")
	if err != nil {
		return err
	}
	go l.Accept() // until the process ends, as the next
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Port: 7002}), unix.Listen(fd, 8)); err != nil {
		return err
	}
	go unix.Accept(fd)
	return nil
}

// cpuSelf returns the processor time of this process, seconds.
func cpuSelf() float64 {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
}
