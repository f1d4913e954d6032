// SPDX-License-Identifier: Apache-2.0

// A channel of an SSH connection as a descriptor.

package proxy

import (
	"io"
	"net"
	"os"
	"sync/atomic"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// A bridged is the near end of a pair of AF_UNIX sockets, between whose far end and
// a channel two goroutines move bytes. They end when both directions have, when the
// near end is reset, or when the SSH connection breaks.
type bridged struct {
	*net.UnixConn
	ch      ssh.Channel
	reset   atomic.Bool // Close throws away what is on its way
	aborted atomic.Bool // the connection broke
}

// bridge joins a channel and a pair of sockets.
// broke tells that the SSH connection has ended.
func (u *Upstream) bridge(ch ssh.Channel, broke *atomic.Bool) (stacks.UpstreamConn, error) {
	near, far, err := socketPair()
	if err != nil {
		_ = ch.Close()
		return nil, err
	}
	b := &bridged{UnixConn: near, ch: ch}
	up := make(chan struct{})
	down := func() { // ends by ch's end, or by the near end's closing
		defer far.Close()
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
		if _, err := io.Copy(ch, far); err != nil || ch.CloseWrite() != nil {
			// Nobody takes any more what the near end writes: it must learn that.
			b.aborted.Store(true)
			_ = ch.Close()
			_ = far.Close()
		}
	})
	if !ok {
		_ = ch.Close()
		_ = near.Close()
		_ = far.Close()
		return nil, net.ErrClosed
	}
	return b, nil
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

var _ stacks.Aborter = (*bridged)(nil)
