// SPDX-License-Identifier: Apache-2.0

// Overlays on a multicast group of the host's network: vxvde:// and vxlan://.

package vde

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// A vx is a plug in an overlay: each frame goes, behind a header of VXLAN (RFC 7348
// §5), to the host that has been heard of its destination, else to the group.
//
// vxlan:// has one socket, at the port of all, and so there is one plug on a host.
// vxvde:// sends from a port of its own, to which others answer: any number of plugs on
// a host find each other.
type vx struct {
	vxConfig
	multi *sock // member of the group
	uni   *sock // sends, and receives what is for us alone; multi for vxlan
	own   uint16
	mtu   int
	head  [vxLen]byte

	mu    sync.RWMutex
	hosts map[macKey]vxHost // +checklocks:mu

	selfMu sync.Mutex
	probe  *sock      // says from where uni sends to the group; nil for vxlan
	self   netip.Addr // what it said; +checklocks:selfMu
	looked time.Time  // when; +checklocks:selfMu

	// Readers of the two sockets hand over to Read.
	ready   chan *vxRead // capacity 0: a reader goes on when Read has taken its frames
	done    chan struct{}
	batches sync.Pool
	once    sync.Once
	wg      sync.WaitGroup // readers
}

type vxHost struct {
	at   netip.AddrPort
	seen time.Time
}

// A vxRead is what a reader has.
type vxRead struct {
	frames [][]byte
	taken  chan struct{} // capacity 1: Read does not wait
}

// vxLen is the size of the header, vxFlag says that it has a number.
const (
	vxLen  = 8
	vxFlag = 0x08
)

// maxHosts bounds what is remembered of who is where.
const maxHosts = 4096

func openVX(ctx context.Context, u *URL, o Options) (_ stacks.Link, err error) {
	c, err := parseVX(u)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	v := &vx{
		vxConfig: c, mtu: o.MTU,
		hosts: map[macKey]vxHost{},
		ready: make(chan *vxRead), done: make(chan struct{}),
	}
	v.batches.New = func() any { return new(batch) }
	v.head[0] = vxFlag
	binary.BigEndian.PutUint32(v.head[4:], uint32(c.vni)<<8)
	if err := v.sockets(ctx); err != nil {
		v.closeSockets()
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	v.wg.Go(func() { v.receive(v.multi) })
	if v.uni != v.multi {
		v.wg.Go(func() { v.receive(v.uni) })
	}
	return v, nil
}

func (v *vx) closeSockets() {
	if v.multi != nil {
		v.multi.close()
	}
	if v.uni != nil && v.uni != v.multi {
		v.uni.close()
	}
	if v.probe != nil {
		v.probe.close()
	}
}

// receive is the reader of one socket.
func (v *vx) receive(s *sock) {
	b := new(batch)
	var heads [batchSize][vxLen]byte
	var bufs [batchSize][]byte
	for i := range bufs {
		bufs[i] = make([]byte, etherLen+tagLen+v.mtu)
	}
	r := &vxRead{taken: make(chan struct{}, 1)}
	for {
		for i := range bufs {
			b.set(i, heads[i][:], bufs[i])
			b.name(i, int(unsafe.Sizeof(b.names[i])))
		}
		got, err := s.recv(b, batchSize)
		if err == net.ErrClosed {
			return
		}
		r.frames = r.frames[:0]
		now := time.Now()
		for i := range got {
			h := &b.hdrs[i]
			if h.n < vxLen || h.Flags&unix.MSG_TRUNC != 0 || heads[i] != v.head {
				continue
			}
			if f := bufs[i][:h.n-vxLen]; v.heard(b.addr(i), f, s == v.multi, now) {
				r.frames = append(r.frames, f)
			}
		}
		if len(r.frames) == 0 {
			continue
		}
		select {
		case v.ready <- r:
		case <-v.done:
			return
		}
		select {
		case <-r.taken:
		case <-v.done:
			return
		}
	}
}

// addr returns whom message i came from.
func (b *batch) addr(i int) netip.AddrPort {
	sa := &b.names[i]
	switch sa.Family {
	case unix.AF_INET:
		s4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(s4.Addr), ntohs(s4.Port))
	case unix.AF_INET6:
		a := netip.AddrFrom16(sa.Addr)
		if sa.Scope_id != 0 {
			a = a.WithZone(strconv.Itoa(int(sa.Scope_id)))
		}
		return netip.AddrPortFrom(a, ntohs(sa.Port))
	}
	return netip.AddrPort{}
}

// setAddr makes message i go to a.
func (b *batch) setAddr(i int, a netip.AddrPort) {
	sa := &b.names[i]
	if a.Addr().Is4() {
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(sa)) = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: ntohs(a.Port()), Addr: a.Addr().As4()}
		b.name(i, unix.SizeofSockaddrInet4)
		return
	}
	*sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: ntohs(a.Port()), Addr: a.Addr().As16(), Scope_id: zoneID(a.Addr())}
	b.name(i, unix.SizeofSockaddrInet6)
}

// ntohs turns a number in the network's order round.
func ntohs(n uint16) uint16 {
	var b [2]byte
	native.PutUint16(b[:], n)
	return binary.BigEndian.Uint16(b[:])
}

// heard learns from a datagram, and tells whether there is a frame of somebody else's
// in it. One without a frame is the farewell of its sender.
func (v *vx) heard(from netip.AddrPort, f []byte, multi bool, now time.Time) bool {
	if multi && from.Port() == v.own && v.isSelf(from.Addr(), now) {
		return false
	}
	if v.lan { // everybody listens at the port of all
		from = netip.AddrPortFrom(from.Addr(), v.group.Port())
	}
	if len(f) < etherLen {
		if len(f) == 0 {
			v.forget(from)
		}
		return false
	}
	src := srcOf(f)
	if src.group() {
		return true
	}
	v.mu.RLock()
	h, ok := v.hosts[src]
	v.mu.RUnlock()
	if ok && h.at == from && now.Sub(h.seen) < time.Second {
		return true
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !ok && len(v.hosts) >= maxHosts {
		for k := range v.hosts { // some: what is lost is learnt again
			if delete(v.hosts, k); len(v.hosts) < maxHosts*15/16 {
				break
			}
		}
	}
	v.hosts[src] = vxHost{from, now}
	return true
}

// forget drops what is known of who is at a host.
func (v *vx) forget(at netip.AddrPort) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for k, h := range v.hosts {
		if h.at == at {
			delete(v.hosts, k)
		}
	}
}

// isSelf tells whether a is the address that we send to the group from: with our port,
// it is our own frame.
func (v *vx) isSelf(a netip.Addr, now time.Time) bool {
	a = a.WithZone("")
	v.selfMu.Lock()
	defer v.selfMu.Unlock()
	if a == v.self {
		return true
	}
	if now.Sub(v.looked) < time.Second {
		return false
	}
	v.looked = now
	v.probe.control(func(fd int) error {
		// A route lookup, in the network namespace of the socket.
		if err := unix.Connect(fd, sockaddrOf(v.group)); err != nil {
			return err
		}
		sa, err := unix.Getsockname(fd)
		switch x := sa.(type) {
		case *unix.SockaddrInet4:
			v.self = netip.AddrFrom4(x.Addr)
		case *unix.SockaddrInet6:
			v.self = netip.AddrFrom16(x.Addr)
		}
		return err
	})
	return a == v.self
}

// where returns to whom a frame goes.
func (v *vx) where(dst macKey, now time.Time) netip.AddrPort {
	if !dst.group() {
		v.mu.RLock()
		h, ok := v.hosts[dst]
		v.mu.RUnlock()
		if ok && now.Sub(h.seen) < v.expire {
			return h.at
		}
	}
	return v.group
}

func (*vx) Type() stacks.LinkType { return stacks.LinkEthernet }
func (v *vx) MTU() int            { return v.mtu }
func (*vx) BatchSize() int        { return batchSize }

// Read implements [stacks.Link].
func (v *vx) Read(bufs [][]byte, sizes []int) (int, error) {
	for {
		select {
		case <-v.done:
			return 0, net.ErrClosed
		case r := <-v.ready:
			n := 0
			for _, f := range r.frames {
				if n < len(bufs) && len(f) <= len(bufs[n]) {
					sizes[n] = copy(bufs[n], f)
					n++
				}
			}
			r.taken <- struct{}{}
			if n > 0 {
				return n, nil
			}
		}
	}
}

// Write implements [stacks.Link].
func (v *vx) Write(bufs [][]byte) (int, error) {
	b := v.batches.Get().(*batch)
	defer v.batches.Put(b)
	now := time.Now()
	for at := 0; at < len(bufs); {
		n := 0
		for ; at < len(bufs) && n < batchSize; at++ {
			if f := bufs[at]; len(f) >= etherLen {
				b.set(n, v.head[:], f)
				b.setAddr(n, v.where(dstOf(f), now))
				n++
			}
		}
		for sent := 0; sent < n; {
			k, err := v.uni.send(b, sent, n)
			if err == net.ErrClosed {
				return at, err
			}
			if sent = k; err != nil {
				sent++ // an unreachable host, or a word about an earlier frame
			}
		}
	}
	return len(bufs), nil
}

// Close implements [stacks.Link]. The others are told.
func (v *vx) Close() error {
	v.once.Do(func() {
		close(v.done)
		if !v.lan {
			b := new(batch)
			b.set(0, v.head[:], nil)
			b.setAddr(0, v.group)
			v.uni.trySend(b, 0, 1)
		}
		v.closeSockets()
		v.wg.Wait()
	})
	return nil
}
