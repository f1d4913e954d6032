// SPDX-License-Identifier: Apache-2.0

// A channel of an SSH connection as a descriptor.

package proxy

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// heldTime is how long an SSH server may take to close a channel at the end of a view.
const heldTime = 2 * time.Second

// A bridged is the near end of a pair of AF_UNIX sockets, between whose far end and
// a channel two goroutines move bytes. They end when both directions have, when the
// near end is reset, or when the SSH connection breaks.
type bridged struct {
	*net.UnixConn
	ch      ssh.Channel
	far     *net.UnixConn
	held    atomic.Int64              // bytes between far and ch
	sent    atomic.Pointer[time.Time] // when the end went into ch
	ended   atomic.Bool               // ch has ended, or is given up
	reset   atomic.Bool               // Close throws away what is on its way
	aborted atomic.Bool               // the connection broke
}

// bridge joins a channel and a pair of sockets.
// broke tells that the SSH connection has ended.
func (u *Upstream) bridge(ch ssh.Channel, broke *atomic.Bool) (stacks.UpstreamConn, error) {
	near, far, err := socketPair()
	if err != nil {
		_ = ch.Close()
		return nil, err
	}
	b := &bridged{UnixConn: near, ch: ch, far: far}
	up := make(chan struct{})
	down := func() { // ends by ch's end, or by the near end's closing
		defer far.Close()
		defer b.ended.Store(true)
		_, err := io.Copy(far, ch)
		if err != nil || b.reset.Load() || broke.Load() {
			b.aborted.Store(true)
			_ = ch.Close()
			return
		}
		_ = far.CloseWrite()
		<-up
		_ = ch.Close()
	}
	ok := u.start(func() { // ends by the near end's closing, or by ch's
		defer close(up)
		u.wg.Go(down)
		if _, err := io.Copy(holding{ch, -1, &b.held}, holding{far, 1, &b.held}); err != nil || ch.CloseWrite() != nil {
			// Nobody takes any more what the near end writes: it must learn that.
			b.aborted.Store(true)
			_ = ch.Close()
			_ = far.Close()
			return
		}
		now := time.Now()
		b.sent.Store(&now)
	})
	if !ok {
		_ = ch.Close()
		_ = near.Close()
		_ = far.Close()
		return nil, net.ErrClosed
	}
	return b, nil
}

// holding counts the bytes that are read, or written with the sign -1.
type holding struct {
	io.ReadWriter
	sign int64
	held *atomic.Int64
}

func (h holding) Read(p []byte) (int, error) {
	n, err := h.ReadWriter.Read(p)
	h.held.Add(h.sign * int64(n))
	return n, err
}

func (h holding) Write(p []byte) (int, error) {
	n, err := h.ReadWriter.Write(p)
	h.held.Add(h.sign * int64(n))
	return n, err
}

// Held returns the bytes that the SSH server has not got yet, and one more until it
// has closed the channel: what it still holds itself it gives up when the connection
// ends. It has heldTime for that.
func (b *bridged) Held() int {
	switch since := b.sent.Load(); {
	case b.reset.Load(), b.ended.Load():
		return 0
	case since == nil:
		return int(b.held.Load()) + b.unread() + 1
	case time.Since(*since) < heldTime:
		return 1
	}
	return 0
}

// unread returns the bytes that wait at the far end.
func (b *bridged) unread() (n int) {
	rc, err := b.far.SyscallConn()
	if err != nil {
		return 0
	}
	_ = rc.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCINQ) })
	return n
}

// SetLinger makes Close a reset if sec is 0.
func (b *bridged) SetLinger(sec int) error {
	b.reset.Store(sec == 0)
	return nil
}

// Close closes the near end. What was written still goes out, unless it is a reset.
func (b *bridged) Close() error {
	if b.reset.Load() {
		_ = b.ch.Close()
	}
	return b.UnixConn.Close()
}

// Aborted reports whether the stream ended because the SSH connection did.
func (b *bridged) Aborted() bool { return b.aborted.Load() }

// socketPair returns connected stream sockets that the poller knows.
func socketPair() (near, far *net.UnixConn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ends := make([]*net.UnixConn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "bridge")
		c, e := net.FileConn(f)
		f.Close()
		if e != nil {
			err = e
			continue
		}
		ends[i] = c.(*net.UnixConn)
	}
	if err != nil {
		for _, c := range ends {
			if c != nil {
				c.Close()
			}
		}
		return nil, nil, err
	}
	return ends[0], ends[1], nil
}

var (
	_ stacks.Aborter = (*bridged)(nil)
	_ stacks.Holder  = (*bridged)(nil)
)
