// SPDX-License-Identifier: Apache-2.0

// Watchers of links: every frame that should not be there is counted.

package viewtest

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A watcher counts the frames that arrive on one interface and that allowed
// does not know. It runs one goroutine, which close ends.
type watcher struct {
	where   string
	f       *os.File // AF_PACKET socket, non-blocking
	allowed func(frame) bool
	done    sync.WaitGroup

	mu    sync.Mutex
	n     int      // guarded by mu
	first []string // descriptions of the first frames, guarded by mu
}

// watch starts to count what the interface receives.
func (n *NS) watch(ifname string, allowed func(frame) bool) (*watcher, error) {
	w := &watcher{where: n.Name + "/" + ifname, allowed: allowed}
	var err error
	n.Do(func() { w.f, err = packetSocket(ifname) })
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", w.where, err)
	}
	w.done.Add(1)
	go w.run()
	return w, nil
}

func packetSocket(ifname string) (*os.File, error) {
	// packet(7): the protocol is in network byte order. 0 at first, so that
	// nothing arrives before the bind.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	idx, err := ifindex(ifname)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300 /* ETH_P_ALL */, Ifindex: idx}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "packet"), nil
}

// ifindex asks with a socket of the calling thread's namespace; package net
// would do the same but may cache.
func ifindex(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, fmt.Errorf("interface %s: %w", name, err)
	}
	return int(ifr.Uint32()), nil
}

func (w *watcher) run() {
	defer w.done.Done()
	buf := make([]byte, 65536)
	for {
		n, err := w.f.Read(buf)
		if err != nil {
			return // closed
		}
		f := parse(buf[:n])
		if f.housekeeping() || (w.allowed != nil && w.allowed(f)) {
			continue
		}
		w.mu.Lock()
		w.n++
		if len(w.first) < 10 {
			w.first = append(w.first, f.String())
		}
		w.mu.Unlock()
	}
}

// strays returns how many frames were seen and what the first ones were.
func (w *watcher) strays() (int, string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n, strings.Join(w.first, "\n")
}

func (w *watcher) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n, w.first = 0, nil
}

func (w *watcher) close() {
	w.f.Close()
	w.done.Wait()
}

// A frame is what a watcher needs to know of an Ethernet frame.
type frame struct {
	etype    uint16
	proto    byte // of IP, after no extension header but hop-by-hop
	icmp     byte // type of ICMP or ICMPv6
	src, dst netip.AddrPort
	size     int
}

func parse(b []byte) frame {
	f := frame{size: len(b)}
	if len(b) < 14 {
		return f
	}
	f.etype = binary.BigEndian.Uint16(b[12:])
	b = b[14:]
	var src, dst netip.Addr
	switch {
	case f.etype == unix.ETH_P_IP && len(b) >= 20:
		f.proto = b[9]
		src, dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		b = b[min(len(b), int(b[0]&15)*4):]
	case f.etype == unix.ETH_P_IPV6 && len(b) >= 40:
		f.proto = b[6]
		src, dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		b = b[40:]
		if f.proto == unix.IPPROTO_HOPOPTS && len(b) >= 8 {
			f.proto = b[0]
			b = b[min(len(b), 8+int(b[1])*8):]
		}
	}
	var sp, dp uint16
	switch f.proto {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		if len(b) >= 4 {
			sp, dp = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		}
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		if len(b) >= 1 {
			f.icmp = b[0]
		}
	}
	f.src, f.dst = netip.AddrPortFrom(src, sp), netip.AddrPortFrom(dst, dp)
	return f
}

// housekeeping reports what every interface says of itself, without a program
// asking for it: ARP, neighbour and router discovery, MLD and IGMP.
func (f frame) housekeeping() bool {
	switch f.etype {
	case unix.ETH_P_ARP:
		return true
	case unix.ETH_P_IP:
		return f.proto == unix.IPPROTO_IGMP
	case unix.ETH_P_IPV6:
		return f.proto == unix.IPPROTO_ICMPV6 &&
			(f.icmp >= 130 && f.icmp <= 136 || f.icmp == 143) // RFC 2710, 4861, 3810
	}
	return false
}

// unreachable reports whether a kernel says that it could not deliver a packet:
// what the peer hears when it sends to a tunnel that has just ended.
func (f frame) unreachable() bool {
	return f.proto == unix.IPPROTO_ICMP && f.icmp == 3 || f.proto == unix.IPPROTO_ICMPV6 && f.icmp == 1
}

func (f frame) String() string {
	name := map[byte]string{unix.IPPROTO_TCP: "TCP", unix.IPPROTO_UDP: "UDP", unix.IPPROTO_ICMP: fmt.Sprintf("ICMP type %d", f.icmp),
		unix.IPPROTO_ICMPV6: fmt.Sprintf("ICMPv6 type %d", f.icmp)}[f.proto]
	if name == "" {
		name = fmt.Sprintf("protocol %d", f.proto)
	}
	return fmt.Sprintf("ethertype %#04x %s %v > %v, %d bytes", f.etype, name, f.src, f.dst, f.size)
}
