// SPDX-License-Identifier: Apache-2.0

// Receiving, which never waits.

package intercept

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestReceiveGivenUp: a call that was there, and whose thread gives it up before it is
// received, does not leave the receiver waiting for another one.
func TestReceiveGivenUp(t *testing.T) {
	for _, tt := range []struct {
		signal unix.Signal
		status string
	}{{unix.SIGKILL, "status: 9\n"}, {unix.SIGUSR1, "second: EINTR\nstatus: 0\n"}} {
		t.Run(tt.signal.String(), func(t *testing.T) {
			in, release := make(chan bool), make(chan bool)
			r := start(t, Config{Rules: onCall(func(c *Call) Action {
				if c.Args[0] == 1 {
					in <- true
					<-release // what comes meanwhile nobody receives
				}
				return Return(0)
			})}, "given up")
			defer close(release)
			<-in
			if _, err := r.in.WriteString("x"); err != nil {
				t.Fatal(err)
			}
			l := &r.n.l // the receiver's, which waits for release
			poll := func(want bool) {
				t.Helper()
				eventually(t, "change of what is there", func() bool {
					l.poll(uintptr(l.fd))
					return l.there == want
				})
			}
			poll(true)
			r.out.await(t, "pid: ")
			_, pid, _ := strings.Cut(r.out.String(), "pid: ")
			n, err := strconv.Atoi(strings.TrimSpace(pid))
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Kill(n, tt.signal); err != nil {
				t.Fatal(err)
			}
			poll(false)
			received := make(chan error, 1)
			go func() { received <- l.recv(new(notification)) }()
			select {
			case err := <-received:
				if err != unix.ENOENT {
					t.Errorf("received: %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("the receiver waits")
			}
			release <- true
			if ws, out := r.wait(t); ws != 0 || !strings.Contains(out, tt.status) || !strings.Contains(out, "status: 0\n") { // they are told as they end
				t.Errorf("status %#x, output %q", ws, out)
			}
		})
	}
}
