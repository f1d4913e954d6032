// SPDX-License-Identifier: Apache-2.0

// Listeners at their end, held against the kernel.

package netmod_test

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestListenTranscripts(t *testing.T) {
	for name, differ := range map[string]known{
		"listener-closed": nil,
	} {
		t.Run(name, func(t *testing.T) { compare(t, name, differ) })
	}
}

func init() {
	targets["listener-closed"] = listenerClosed
}

// listenerClosed closes listeners with connections that wait to be accepted: when
// the first of them is reset, nobody else is accepted any more.
func listenerClosed(w *transcript) {
	outcomes := make(map[string]int)
	for range 30 {
		l, sa := listener(w)
		var fds []int
		dial := func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			w.must("socket", err)
			fds = append(fds, fd)
			return unix.Connect(fd, sa)
		}
		for range 12 {
			w.must("connect", dial())
		}
		events(l, 5000)
		unix.Close(l)
		p := []unix.PollFd{{Fd: int32(fds[0]), Events: unix.POLLRDHUP}}
		_, err := unix.Poll(p, 5000)
		w.must("poll", err)
		outcome := "ok"
		if err := dial(); err != nil {
			outcome = err.Error()
		}
		outcomes[outcome]++
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	w.say("%v", outcomes)
}
