// SPDX-License-Identifier: Apache-2.0

// What who waits for a stream sees when it is told.

package netstack_test

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/pipe"
)

// TestFINAtOnce: who is told that something has happened to a stream sees the peer's FIN at once, as
// nothing more is told: also while the stack still handles the segment.
func TestFINAtOnce(t *testing.T) {
	const want = unix.POLLIN | unix.POLLRDHUP
	c, s := connectPair(t, pipe.Config{}, nil)
	defer c.Close()
	defer s.Close()
	seen := make(chan stacks.Events, 100)
	stop := c.Watch(unix.POLLIN|unix.POLLRDHUP|unix.POLLHUP, func(stacks.Events) {
		now := make(chan stacks.Events)
		go func() { now <- c.Poll() }()
		select {
		case seen <- <-now:
		default:
		}
	})
	defer stop()
	if err := s.Shutdown(unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-seen:
		if got&want != want {
			t.Errorf("first %#x, want %#x", got, want)
		}
	case <-time.After(5 * time.Second):
		t.Error("nothing is told, or cannot be looked at")
	}
}
