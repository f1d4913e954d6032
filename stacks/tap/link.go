// SPDX-License-Identifier: Apache-2.0

// A device as a link: batches of packets by read(2) and write(2).

package tap

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/offload"
)

// batchSize is how many packets Read takes at most. What is behind them waits in the
// queue of the device, 1000 packets in a TAP's, 500 in a TUN's.
const batchSize = 64

// A Link is a device. It is safe for concurrent use, but that Read is called by one
// goroutine at a time.
type Link struct {
	name string
	typ  stacks.LinkType
	mtu  int
	up   bool
	file *os.File
	raw  syscall.RawConn

	done atomic.Bool // closed

	// Of Read.
	super []byte           // a datagram of datagrams, without header
	split offload.Splitter // cuts it
}

var (
	_ stacks.Link     = (*Link)(nil)
	_ stacks.Offloads = (*Link)(nil)
)

// newLink makes the link; on an error fd stays the caller's.
func newLink(fd, mtu int) (*Link, error) {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr); err != nil {
		return nil, fmt.Errorf("TUNGETIFF: %w", err)
	}
	flags := ifr.Uint16()
	const need = unix.IFF_NO_PI | unix.IFF_VNET_HDR
	if flags&need != need {
		return nil, fmt.Errorf("flags %#x of the device: %w", flags, unix.EINVAL)
	}
	if err := tuned(fd); err != nil {
		return nil, err
	}
	l := &Link{name: ifr.Name(), mtu: mtu, up: true}
	if flags&unix.IFF_TAP != 0 {
		l.typ = stacks.LinkEthernet
	}
	l.file = os.NewFile(uintptr(fd), l.name)
	if l.raw, err = l.file.SyscallConn(); err != nil {
		return nil, err
	}
	return l, nil
}

// Name is the name of the device, as it was when it was opened.
func (l *Link) Name() string { return l.name }

// Up tells whether the device was up when it was opened. One that is down takes no
// packets and gives none.
func (l *Link) Up() bool { return l.up }

// Type returns the type: Ethernet of a TAP, IP of a TUN.
func (l *Link) Type() stacks.LinkType { return l.typ }

// MTU is that of the device when it was opened, bytes.
func (l *Link) MTU() int { return l.mtu }

// BatchSize returns the most packets that one Read fills.
func (l *Link) BatchSize() int { return batchSize }

// Offloads reports that each packet has a virtio_net_hdr.
func (l *Link) Offloads() bool { return true }

// Read waits for a packet and takes those that are there.
func (l *Link) Read(bufs [][]byte, sizes []int) (n int, err error) {
	if n := l.cut(bufs, sizes); n > 0 {
		return n, nil
	}
	var failed error
	waited := false
	take := func(fd uintptr) bool {
		for n < len(bufs) && !l.split.More() {
			size, err := unix.Read(int(fd), bufs[n])
			switch {
			case err == unix.EINTR:
				continue
			case err == unix.EAGAIN && n == 0:
				waited = true
				return false
			case err == unix.EAGAIN:
				return true
			case err != nil:
				failed = err
				return true
			}
			if super(bufs[n][:size]) {
				n += l.open(bufs[n][:size], bufs[n:], sizes[n:])
			} else {
				sizes[n] = size
				n++
			}
			if waited && n > 0 {
				// One that was waited for comes alone more often than not: to ask
				// for another would be a call in vain.
				return true
			}
		}
		return true
	}
	for n == 0 && failed == nil && err == nil {
		err = l.raw.Read(take)
	}
	return n, l.failure(err, failed)
}

// super tells whether a packet is a datagram of many.
func super(b []byte) bool {
	var h offload.Hdr
	return h.Decode(b) == nil && h.GSOType == offload.GSOUDPL4
}

// open begins to cut such a one into bufs. b may be the first of them.
func (l *Link) open(b []byte, bufs [][]byte, sizes []int) int {
	var h offload.Hdr
	if h.Decode(b) != nil {
		return 0
	}
	l.super = append(l.super[:0], b[offload.HdrLen:]...)
	reset := l.split.Reset
	if l.typ == stacks.LinkEthernet {
		reset = l.split.ResetFrame
	}
	if reset(h, l.super) != nil {
		return 0 // nothing that a kernel sends
	}
	return l.cut(bufs, sizes)
}

// cut goes on with what open has left.
func (l *Link) cut(bufs [][]byte, sizes []int) (n int) {
	for ; n < len(bufs) && l.split.More(); n++ {
		offload.Hdr{Flags: offload.DataValid}.Encode(bufs[n]) // it is summed by the Splitter
		size, err := l.split.Next(bufs[n][offload.HdrLen:])
		if err != nil {
			l.split = offload.Splitter{} // the reader broke the contract
			break
		}
		sizes[n] = offload.HdrLen + size
	}
	return n
}

// Write gives packets to the device, which takes them at once or, if it is down or
// does not like them, not at all. The error is of those that it did not take. There is
// no TryWrite: the kernel does much of the receiver's work in the call, which is better
// done beside the stack's.
func (l *Link) Write(bufs [][]byte) (int, error) {
	n := 0
	var lost error
	err := l.raw.Write(func(fd uintptr) bool {
		for n < len(bufs) {
			_, err := unix.Write(int(fd), bufs[n])
			switch {
			case err == unix.EINTR:
				continue
			case err == unix.EAGAIN:
				return false
			case err != nil:
				lost = err
			}
			n++
		}
		return true
	})
	return n, l.failure(err, lost)
}

// Close detaches from the device. One that was made by [Open] goes with it.
func (l *Link) Close() error {
	if l.done.Swap(true) {
		return nil
	}
	return l.file.Close()
}

// failure is the error of a call: of the file, or of the device.
func (l *Link) failure(file, device error) error {
	if l.done.Load() && file != nil {
		return net.ErrClosed
	}
	return errors.Join(file, device)
}
