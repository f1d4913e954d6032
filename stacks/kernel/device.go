// SPDX-License-Identifier: Apache-2.0

// Interfaces: a TUN or TAP device for each link, and what moves packets between both.

package kernel

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// A device is an interface and its link.
type device struct {
	conf   stacks.LinkConfig
	link   stacks.Link // nil: not the stack's to close
	log    *slog.Logger
	file   *os.File // of the TUN device, non-blocking; nil if the link serves a duplicate itself
	queue  int      // a duplicate, to ask whether something waits; -1 when closed
	header bool     // a virtio_net_hdr precedes each packet

	serving bool           // the link's methods are in use
	wg      sync.WaitGroup // up and down
	refused atomic.Uint64  // packets that the kernel did not take
}

// attach makes an interface for l, with its addresses and routes.
func (s *Stack) attach(l stacks.LinkConfig) (err error) {
	_, serves := l.Link.(stacks.TUNServer)
	header := serves
	if o, ok := l.Link.(stacks.Offloads); ok && o.Offloads() {
		header = true
	}
	flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if l.Link.Type() == stacks.LinkEthernet {
		flags = unix.IFF_TAP | unix.IFF_NO_PI
	}
	if header {
		flags |= unix.IFF_VNET_HDR
	}
	fd, err := s.h.tun(l.Name, flags)
	if err != nil {
		return &UnavailableError{What: "a TUN device", Err: err, Mend: mendTUN(errno(err))}
	}
	d := &device{conf: l, link: l.Link, log: s.log, header: header, queue: -1}
	s.links = append(s.links, d)
	d.file = os.NewFile(uintptr(fd), "tun") // it is non-blocking already
	if header && !serves {
		if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6); err != nil {
			return fmt.Errorf("TUNSETOFFLOAD: %w", err)
		}
	}
	if d.queue, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return fmt.Errorf("duplicate a TUN device: %w", err)
	}
	return s.configure(d)
}

// configure gives the interface what its link asks for, and brings it up.
func (s *Stack) configure(d *device) error {
	l := d.conf
	ifcs, err := s.nl.interfaces()
	if err != nil {
		return err
	}
	index := 0
	for _, ifc := range ifcs {
		if ifc.Name == l.Name {
			index = ifc.Index
		}
	}
	if index == 0 {
		return unix.ENODEV
	}
	if l.Link.Type() == stacks.LinkEthernet {
		for name, value := range map[string]string{"accept_dad": "1", "addr_gen_mode": "0"} {
			if err := s.h.write(sysctl("ipv6/conf/"+l.Name+"/"+name), value); err != nil {
				s.log.Debug("setting of an interface", "name", name, "err", err)
			}
		}
	}
	mtu := l.MTU
	if mtu == 0 {
		mtu = l.Link.MTU()
	}
	if err := s.nl.setLink(index, unix.IFF_UP, unix.IFF_UP, mtu, l.MAC, 0); err != nil {
		return fmt.Errorf("MTU %d: %w", mtu, err)
	}
	for _, p := range l.Addrs {
		if err := s.nl.setAddr(unix.RTM_NEWADDR, index, p, stacks.AddrInfo{}); err != nil {
			return fmt.Errorf("address %s: %w", p, err)
		}
	}
	if l.Link.Type() == stacks.LinkIP || slices.ContainsFunc(l.Routes, func(rt stacks.Route) bool { return rt.Src.Is6() }) {
		if err := s.ready(index); err != nil {
			return err
		}
	}
	for _, gateways := range []bool{false, true} {
		for _, rt := range l.Routes {
			if rt.Gateway.IsValid() != gateways {
				continue
			}
			rt.IfIndex = index
			if rt.Refuses() != 0 {
				rt.IfIndex = 0
			}
			if err := s.nl.setRoute(unix.RTM_NEWROUTE, rt); err != nil && !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("route to %s: %w", rt.Dst, err)
			}
		}
	}
	return nil
}

// Times of ready: the kernel does it in the background, at once where it does not look
// for duplicates.
const (
	readyTick = time.Millisecond
	readyTime = 3 * time.Second
)

// ready waits until every address of an interface can be used.
func (s *Stack) ready(index int) error {
	for end := time.Now().Add(readyTime); ; time.Sleep(readyTick) {
		ifcs := []stacks.Interface{{Index: index}}
		if err := s.nl.addresses(ifcs); err != nil {
			return err
		}
		waiting := slices.IndexFunc(ifcs[0].Addrs, func(p netip.Prefix) bool { return ifcs[0].Info[p].Flags&unix.IFA_F_TENTATIVE != 0 })
		if waiting < 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("address %s: %w", ifcs[0].Addrs[waiting], unix.EADDRNOTAVAIL)
		}
	}
}

// serve begins to move packets.
func (d *device) serve() error {
	d.serving = true
	if t, ok := d.conf.Link.(stacks.TUNServer); ok {
		fd, err := unix.FcntlInt(uintptr(d.queue), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := t.ServeTUN(fd); err != nil {
			return err
		}
		d.file.Close()
		d.file = nil
		return nil
	}
	raw, err := d.file.SyscallConn()
	if err != nil {
		return err
	}
	if p, ok := d.link.(stacks.Pusher); ok {
		p.Push(d.put)
	}
	d.wg.Go(func() { d.up(raw) })
	d.wg.Go(d.down)
	return nil
}

// Sizes of what is moved at once. A packet may be a super-segment of 64 KiB, and what
// is read should still be in the cache when it is written.
const (
	roomUp  = 4 * stacks.MaxPacket
	manyUp  = 128
	allDown = 512 << 10 // bytes of all buffers for what comes from the link, at least one packet
)

// up moves what the namespace sends. Packets are read until there is none, or no room,
// and go to the link together.
func (d *device) up(raw syscall.RawConn) {
	room := make([]byte, roomUp)
	bufs := make([][]byte, 0, manyUp)
	for {
		bufs = bufs[:0]
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			rest := room
			for len(rest) >= stacks.MaxPacket && len(bufs) < cap(bufs) {
				n, err := unix.Read(int(fd), rest[:stacks.MaxPacket])
				if errors.Is(err, unix.EINTR) {
					continue
				}
				if err != nil {
					if !errors.Is(err, unix.EAGAIN) {
						failed = err
						return true
					}
					break
				}
				bufs = append(bufs, rest[:n:n])
				rest = rest[n:]
			}
			return len(bufs) > 0
		})
		if err != nil || failed != nil && len(bufs) == 0 {
			if failed != nil {
				d.log.Error("read a TUN device", "link", d.conf.Name, "err", failed)
			}
			return // closed
		}
		if _, err := d.link.Write(bufs); errors.Is(err, net.ErrClosed) {
			return
		} else if err != nil { // a TAP device that is down, a packet too long for the link
			d.log.Debug("packets lost", "link", d.conf.Name, "err", err)
		}
	}
}

// down moves what the link receives.
func (d *device) down() {
	size := d.link.MTU() + 64
	if d.header {
		size = stacks.MaxPacket
	}
	n := min(max(allDown/size, 1), d.link.BatchSize())
	bufs, sizes := make([][]byte, n), make([]int, n)
	for i := range bufs {
		bufs[i] = make([]byte, size)
	}
	for {
		n, err := d.link.Read(bufs, sizes)
		for i := range n {
			d.put(bufs[i][:sizes[i]])
		}
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				d.log.Error("read a link", "link", d.conf.Name, "err", err)
			}
			return
		}
	}
}

// put gives a packet to the namespace. What the kernel refuses is not a packet (EINVAL),
// or the interface is down (EIO): both are lost, as on any medium.
func (d *device) put(packet []byte) {
	if _, err := d.file.Write(packet); err != nil && d.refused.Add(1) == 1 {
		d.log.Debug("the kernel does not take a packet", "link", d.conf.Name, "err", err)
	}
}

// waits tells whether packets of the namespace wait to be read.
func (d *device) waits() bool {
	if d.queue < 0 {
		return false
	}
	p := []unix.PollFd{{Fd: int32(d.queue), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&unix.POLLIN != 0
}

// close ends the device, and the link if it is the stack's.
func (d *device) close() (err error) {
	if d.file != nil {
		d.file.Close() // ends up
	}
	if d.link != nil {
		err = d.link.Close() // ends down
	}
	d.wg.Wait()
	if d.queue >= 0 {
		unix.Close(d.queue)
		d.queue = -1
	}
	return err
}
