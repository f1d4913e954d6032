// SPDX-License-Identifier: Apache-2.0

// Errors of datagrams over loopback, and placeholders that show them.

package netmod_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/netmod"
)

func init() {
	targets["refused-udp"] = refusedUDP
	targets["storm-of-errors"] = stormOfErrors
	targets["plain-udp"] = plainUDP
	targets["prober"] = prober
}

// nobody is a port on loopback that was free a moment ago.
func nobody(w *transcript) *unix.SockaddrInet4 {
	fd, sa := udp(w)
	unix.Close(fd)
	time.Sleep(50 * time.Millisecond) // the view hears of it a little later
	return sa
}

// refusedUDP is told of the error in each way that there is.
func refusedUDP(w *transcript) {
	sa := nobody(w)
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	w.must("socket", err)
	w.must("connect", unix.Connect(c, sa))
	lost := func() {
		_, err := unix.Write(c, []byte("lost"))
		w.must("write", err)
		w.until("poll", c, unix.POLLERR)
	}
	lost()
	w.soError(c)
	w.soError(c)
	lost()
	_, err = unix.Write(c, []byte("x"))
	w.say("write says no: %v", err != nil)
	lost()
	_, err = unix.Read(c, make([]byte, 1))
	w.say("read says no: %v", err != nil)
	lost()
	_, _, err = unix.Recvfrom(c, make([]byte, 1), unix.MSG_DONTWAIT)
	w.result("recvfrom", err)
	w.must("IP_RECVERR", unix.SetsockoptInt(c, unix.IPPROTO_IP, unix.IP_RECVERR, 1))
	lost()
	b, oob := make([]byte, 10), make([]byte, 100)
	n, oobn, flags, to, err := unix.Recvmsg(c, b, oob, unix.MSG_ERRQUEUE)
	w.say("queue: %q, %d of control, flags %x, %v %v", b[:n], oobn, flags, to.(*unix.SockaddrInet4).Addr, err)
	_, _, _, _, err = unix.Recvmsg(c, b, oob, unix.MSG_ERRQUEUE)
	w.result("empty queue", err)

	// A thread that waits is woken.
	done := make(chan error)
	go func() {
		_, _, err := unix.Recvfrom(c, make([]byte, 1), 0)
		done <- err
	}()
	time.Sleep(50 * time.Millisecond) // that it waits cannot be seen
	_, err = unix.Write(c, []byte("lost"))
	w.must("write", err)
	w.result("woken", <-done)
	unix.Close(c)
}

// TestErrorsOfDatagrams compares with the kernel.
func TestErrorsOfDatagrams(t *testing.T) { compare(t, "refused-udp", nil) }

// prober sends probes to nobody, as traceroute does: several by calls that do not trap,
// and then it reads what became of them.
func prober(w *transcript) {
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP)
	w.must("socket", err)
	w.must("connect", unix.Connect(c, loopback4))
	w.must("IP_RECVERR", unix.SetsockoptInt(c, unix.IPPROTO_IP, unix.IP_RECVERR, 1))
	probe := []byte{0x82, 0x35, 0x82, 0x36, 0, 8, 0, 0} // from 33333 to 33334
	const probes = 8
	for range probes {
		_, err := unix.Write(c, probe)
		w.result("write", err)
		time.Sleep(time.Millisecond) // an answer comes meanwhile
	}
	for i := range probes {
		w.until("poll", c, unix.POLLERR)
		_, _, _, _, err := unix.Recvmsg(c, make([]byte, 100), make([]byte, 100), unix.MSG_ERRQUEUE)
		w.say("entry %d: %v", i, err)
	}
	w.say("then: %s", events(c, 0))
	unix.Close(c)
}

// TestProber: what comes back while probes are sent does not fail those that follow.
// Natively it would, with an errno that traceroute knows.
func TestProber(t *testing.T) {
	w := newWorld(t, nil)
	got, _ := w.run(t, "prober")
	want := strings.Repeat("write: ok\n", 8)
	for i := range 8 {
		want += fmt.Sprintf("poll: IN|OUT|ERR\nentry %d: <nil>\n", i)
	}
	if !strings.HasPrefix(got, want) {
		t.Errorf("%s", got)
	}
}

// stormOfErrors writes to nobody and to an echo at once, from many threads, natively
// and not: what is echoed is whole and comes at most once.
func stormOfErrors(w *transcript) {
	server, sa := udp(w)
	none := nobody(w)
	go func() {
		b := make([]byte, 100)
		for {
			n, from, err := unix.Recvfrom(server, b, 0)
			if err != nil {
				return
			}
			_ = unix.Sendto(server, b[:n], 0, from)
		}
	}()
	var wg sync.WaitGroup
	for range 4 {
		sa, none := *sa, *none // sending writes to them
		wg.Go(func() {
			c, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
			w.must("socket", err)
			defer unix.Close(c)
			w.must("SO_RCVTIMEO", unix.SetsockoptTimeval(c, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 500000}))
			w.must("IP_RECVERR", unix.SetsockoptInt(c, unix.IPPROTO_IP, unix.IP_RECVERR, 1))
			w.must("connect", unix.Connect(c, &sa))
			got := 0
			for i := range 200 {
				msg := []byte{byte(i), byte(i >> 8), 7, 7, 7}
				_ = unix.Sendto(c, []byte("lost"), 0, &none)
				if _, err := unix.Write(c, msg); err != nil {
					continue // an error that was pending
				}
				b := make([]byte, 100)
				for range 3 {
					n, err := unix.Read(c, b)
					if err != nil {
						continue
					}
					if n != len(msg) || b[2] != 7 || int(b[0])|int(b[1])<<8 > i {
						w.say("wrong: %v", b[:n])
					}
					if b[0] == msg[0] && b[1] == msg[1] {
						got++
						break
					}
				}
				for {
					if _, _, _, _, err := unix.Recvmsg(c, b, nil, unix.MSG_ERRQUEUE); err != nil {
						break
					}
				}
			}
			if got < 20 {
				w.say("only %d of 200 came back", got)
			}
		})
	}
	wg.Wait()
	unix.Close(server)
	w.say("over")
}

func TestStormOfErrors(t *testing.T) {
	w := newWorld(t, nil)
	if out, _ := w.run(t, "storm-of-errors"); out != "over\n" {
		t.Errorf("the target says %q\n%s", out, w.log)
	}
	allGone(t, w)
}

// allGone waits until the module knows that the program has closed its sockets.
func allGone(t *testing.T, w *world) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); netmod.Known(w.mod) > 0; time.Sleep(5 * time.Millisecond) { // poll with a deadline
		if time.Now().After(end) {
			t.Fatalf("%d sockets are left", netmod.Known(w.mod))
		}
	}
}

// plainUDP is what works on any placeholder.
func plainUDP(w *transcript) {
	server, sa := udp(w)
	for i := range 20 {
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		w.must("socket", err)
		w.must("connect", unix.Connect(c, sa))
		_, err = unix.Write(c, []byte{byte(i)})
		w.must("write", err)
		b := make([]byte, 2)
		n, from, err := unix.Recvfrom(server, b, 0)
		w.must("recvfrom", err)
		w.must("sendto", unix.Sendto(server, b[:n], 0, from))
		n, err = unix.Read(c, b)
		w.must("read", err)
		if n != 1 || b[0] != byte(i) {
			w.say("wrong: %v", b[:n])
		}
		unix.Close(c)
	}
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	w.must("socket", err)
	w.must("connect", unix.Connect(c, nobody(w)))
	_, err = unix.SendmsgN(c, []byte("lost"), nil, nil, 0)
	w.must("sendmsg", err)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if e, err := unix.GetsockoptInt(c, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || e != 0 {
			w.say("SO_ERROR: %v", unix.ErrnoName(unix.Errno(e)))
			break
		}
	}
	unix.Close(c)
	unix.Close(server)
}

// TestWithoutInotify: where no watch can be had, placeholders show no errors, and
// everything else works.
func TestWithoutInotify(t *testing.T) {
	w := newWorld(t, nil)
	netmod.WithoutInotify(w.mod)
	want := natively(t, "plain-udp")
	if got, _ := w.run(t, "plain-udp"); got != want {
		t.Errorf("natively %q, without inotify %q", want, got)
	}
	allGone(t, w)
}

// TestNamesOfPlaceholders: nobody else can send to a placeholder by its name.
func TestNamesOfPlaceholders(t *testing.T) {
	w := newWorld(t, nil)
	end, stop := netmod.Placeholder(t, w.mod)
	defer stop()
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	if err := unix.Connect(s, end); err != unix.EPERM {
		t.Errorf("a stranger's connect: %v", err)
	}
	if err := unix.Sendto(s, []byte("x"), 0, end); err != unix.EPERM {
		t.Errorf("a stranger's sendto: %v", err)
	}
}
