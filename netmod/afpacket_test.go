// SPDX-License-Identifier: Apache-2.0

// Packet sockets under load. What they do is held against the kernel by
// testdata/targets/packet*.c.

package netmod_test

import (
	"encoding/binary"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/netmod"
)

func init() {
	targets["ring-race"] = ringRace
	targets["ring-gone"] = ringGone
}

// TestRingRace: every packet of two senders comes once, in the order of each, while a
// reader follows and the socket is asked about.
func TestRingRace(t *testing.T) {
	got, _ := newWorld(t, nil).run(t, "ring-race")
	if want := "senders: 4000 packets in order, 0 dropped\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestRingGone: sockets whose rings are mapped, unmapped or never mapped end with
// their last descriptor.
func TestRingGone(t *testing.T) {
	w := newWorld(t, nil)
	got, _ := w.run(t, "ring-gone")
	if strings.Contains(got, "E") || !strings.HasSuffix(got, "done\n") {
		t.Errorf("got %q", got)
	}
	for end := time.Now().Add(10 * time.Second); netmod.Known(w.mod) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d sockets are left", netmod.Known(w.mod))
		}
	}
}

// Geometry of the targets' rings: version 3.
const (
	ringBlock  = 1 << 16
	ringBlocks = 32
)

// openRing makes a packet socket on lo with a ring.
func openRing(w *transcript) int {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0)
	w.must("socket", err)
	w.must("PACKET_VERSION", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3))
	req := unix.TpacketReq3{Block_size: ringBlock, Block_nr: ringBlocks, Frame_size: 2048, Frame_nr: ringBlocks * ringBlock / 2048, Retire_blk_tov: 5}
	w.must("PACKET_RX_RING", unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req))
	return fd
}

func bindRing(fd int) error {
	const ip = unix.ETH_P_IP >> 8 // in network byte order
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ip, Ifindex: 1})
}

func ringRace(w *transcript) {
	const each = 2000
	fd := openRing(w)
	mem, err := unix.Mmap(fd, 0, ringBlock*ringBlocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	w.must("mmap", err)
	w.must("bind", bindRing(fd))
	send := func(port int) {
		udp, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		w.must("socket", err)
		for i := range uint32(each) {
			var p [4]byte
			binary.BigEndian.PutUint32(p[:], i)
			w.must("sendto", unix.Sendto(udp, p[:], 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}))
		}
	}
	go send(4001)
	go send(4002)
	var dropped uint32
	next := map[uint16]uint32{}
	total := 0
	for at, end := 0, time.Now().Add(20*time.Second); total < 2*each && time.Now().Before(end); {
		block := mem[at*ringBlock : (at+1)*ringBlock]
		status := (*uint32)(unsafe.Pointer(&block[8]))
		if atomic.LoadUint32(status) == 0 {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if _, err := unix.Poll(p, 1000); err != nil && err != unix.EINTR {
				w.must("poll", err)
			}
			if st, err := unix.GetsockoptTpacketStatsV3(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
				dropped += st.Drops
			}
			continue
		}
		off := binary.NativeEndian.Uint32(block[16:])
		for range binary.NativeEndian.Uint32(block[12:]) {
			frame := block[off:]
			ip := frame[binary.NativeEndian.Uint16(frame[26:]):]
			if port := binary.BigEndian.Uint16(ip[22:]); ip[9] == unix.IPPROTO_UDP {
				if n := binary.BigEndian.Uint32(ip[28:]); n != next[port] {
					w.say("port %d: packet %d, want %d", port, n, next[port])
				}
				next[port]++
				total++
			}
			off += binary.NativeEndian.Uint32(frame)
		}
		atomic.StoreUint32(status, 0)
		at = (at + 1) % ringBlocks
	}
	w.say("senders: %d packets in order, %d dropped", total, dropped)
}

func ringGone(w *transcript) {
	size := ringBlock * ringBlocks
	for i := range 5 {
		fd := openRing(w)
		switch i {
		case 0: // never mapped
		case 1: // mapped, and never bound
			_, err := unix.Mmap(fd, 0, size, unix.PROT_READ, unix.MAP_SHARED)
			w.result("mmap", err)
		case 2: // in use
			_, err := unix.Mmap(fd, 0, size, unix.PROT_READ, unix.MAP_SHARED)
			w.result("mmap", err)
			w.result("bind", bindRing(fd))
		case 3: // unmapped
			mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ, unix.MAP_SHARED)
			w.result("mmap", err)
			w.result("bind", bindRing(fd))
			w.result("munmap", unix.Munmap(mem))
		case 4: // bound, but never mapped
			w.result("bind", bindRing(fd))
		}
		if i%2 == 0 {
			w.result("close", unix.Close(fd)) // else with the process
		}
	}
	w.say("done")
}
