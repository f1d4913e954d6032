// SPDX-License-Identifier: Apache-2.0

// When placeholders of datagram sockets are closed.

package netmod

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// closes tells of the last close of placeholders that are AF_UNIX datagram
// sockets: their other end does not hang up.
//
// inotify(7) has an event for it, on any file, and sends it before the file is
// released. So one that was not closed when the queue was read after a connect(2)
// to its name is the one that was connected to: names are free for others only
// after the release.
type closes struct {
	m   *Module
	fd  int   // -1: there is none
	err error // why
	job job

	mu    sync.Mutex // guards what follows; held while the queue is read; before pump.mu
	watch map[int]*packet
	buf   [64 * (unix.SizeofInotifyEvent + 16)]byte
}

// newCloses never fails: if there is no inotify instance to be had, each add says so.
func newCloses(m *Module) *closes {
	c := &closes{m: m, watch: make(map[int]*packet)}
	c.job.turn = func(uint32) bool { c.read(); return false }
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err == nil {
		if err = m.pump.add(&c.job, fd); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		c.err = fmt.Errorf("inotify_init: %w", err)
		fd = -1
	}
	c.fd = fd
	return c
}

// add watches the placeholder fd of s.
func (c *closes) add(s *packet, fd int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return c.err
	}
	wd, err := unix.InotifyAddWatch(c.fd, "/proc/self/fd/"+strconv.Itoa(fd), unix.IN_CLOSE)
	if err != nil {
		return fmt.Errorf("inotify_add_watch: %w", err)
	}
	s.wd = wd
	c.watch[wd] = s
	return nil
}

// remove ends that.
func (c *closes) remove(s *packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watch[s.wd] == s {
		delete(c.watch, s.wd)
		_, _ = unix.InotifyRmWatch(c.fd, uint32(s.wd)) // fails if the kernel has forgotten it
	}
}

// read marks the sockets whose placeholders were closed before the call.
func (c *closes) read() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.fd >= 0 {
		n, err := unix.Read(c.fd, c.buf[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		for b := c.buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			wd := int(int32(binary.NativeEndian.Uint32(b)))
			mask := binary.NativeEndian.Uint32(b[4:])
			b = b[min(unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(b[12:])), len(b)):]
			if mask&unix.IN_Q_OVERFLOW != 0 {
				for _, s := range c.watch {
					if !s.answers() {
						c.closedLocked(s)
					}
				}
			}
			if s := c.watch[wd]; s != nil && mask&unix.IN_CLOSE != 0 {
				c.closedLocked(s)
			}
		}
	}
}

func (c *closes) closedLocked(s *packet) {
	s.closed.Store(true)
	c.m.pump.schedule(&s.job, appHup)
}

// close ends it, after the pump.
func (c *closes) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		unix.Close(c.fd)
	}
	c.fd, c.err = -1, unix.EBADF
}
