// SPDX-License-Identifier: Apache-2.0

// Sleeps that are shorter than the runtime's.

package intercept

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A napper sleeps for less than a millisecond, which is as fine as the runtime's
// timers are: it reads a timerfd_create(2) descriptor. nanosleep(2) would keep the
// processor (GOMAXPROCS) of the runtime, which may be the only one.
type napper struct {
	timer *os.File
}

func newNapper() (napper, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return napper{}, fmt.Errorf("timerfd_create: %w", err)
	}
	return napper{os.NewFile(uintptr(fd), "timer")}, nil
}

// sleep waits for d, at least 1 ns, or until close.
func (n napper) sleep(d time.Duration) {
	conn, err := n.timer.SyscallConn()
	if err != nil {
		return
	}
	err = conn.Control(func(fd uintptr) {
		_ = unix.TimerfdSettime(int(fd), 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(max(d, 1)))}, nil)
	})
	if err != nil {
		return // closed
	}
	var expirations [8]byte
	_, _ = n.timer.Read(expirations[:])
}

// close ends a sleep.
func (n napper) close() { n.timer.Close() }
