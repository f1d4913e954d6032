// SPDX-License-Identifier: Apache-2.0

// The outer side: wireguard-go's UDP sockets, with shorter GSO messages and with
// handshakes counted.

package wg

import (
	"encoding/binary"
	"net/netip"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

// maxGSO bounds the bytes that go to the kernel as one UDP_SEGMENT message. The
// limit that matters is not that of a UDP datagram (65507), which wireguard-go
// uses, but the interface's gso_max_size of 65536 *with* UDP, IP and Ethernet
// headers: a message beyond it is accepted, segmented in software, and reaches
// the receiver as single datagrams that it cannot take in at once. 46 datagrams of
// 1424 bytes (MTU 1420, timestamps and room for SACK) hit just that, at half the
// throughput; 45 are fine.
const maxGSO = 64000

// maxTracked bounds the endpoints whose handshakes are counted.
const maxTracked = 1024

// A bind wraps conn.StdNetBind. It caps GSO messages at [maxGSO], counts
// handshakes by endpoint, and tells the watcher when a session may have begun.
//
// For a wrapper the device opens no netlink socket to watch routes. That socket
// is there to forget source addresses which the host has lost; with UDP_GRO (v5.0,
// read back since v5.12) StdNetBind does not learn any, so nothing is missed, and
// the host's routing picks the source of each datagram.
type bind struct {
	conn.Bind
	poke func()    // called, never blocking, when a session may have begun
	sent func(int) // likewise, with each number of data packets sent

	mu     sync.Mutex
	counts map[netip.AddrPort]*count // +checklocks:mu
}

// A count is what happened between us and an endpoint.
type count struct {
	sent    int   // handshake initiations
	replies int   // handshake responses, whether they fit or not
	since   int   // initiations since the last response
	err     error // of the last initiation
}

func newBind(poke func(), sent func(int)) *bind {
	return &bind{Bind: conn.NewStdNetBind(), poke: poke, sent: sent, counts: make(map[netip.AddrPort]*count)}
}

// Open opens the sockets and wraps their receivers.
func (b *bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	fns, port, err := b.Bind.Open(port)
	for i, receive := range fns {
		fns[i] = func(packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
			n, err := receive(packets, sizes, eps)
			for j, size := range sizes[:n] {
				if size < device.MessageKeepaliveSize {
					continue
				}
				switch messageType(packets[j]) {
				case device.MessageResponseType:
					if size == device.MessageResponseSize {
						b.received(eps[j])
						b.poke()
					}
				case device.MessageTransportType:
					if j == 0 { // the responder's session begins with data
						b.poke()
					}
				}
			}
			return n, err
		}
	}
	return fns, port, err
}

// Send sends messages to one endpoint, as conn.Bind says.
func (b *bind) Send(bufs [][]byte, ep conn.Endpoint) error {
	data := 0
	for i, m := range bufs {
		if len(m) > device.MessageKeepaliveSize && messageType(m) == device.MessageTransportType {
			data++
		}
		// Messages are appended to the first one's spare capacity, so that is
		// where the length of the whole can be bounded.
		if cap(m) > maxGSO && len(m) <= maxGSO {
			bufs[i] = m[:len(m):maxGSO]
		}
	}
	err := b.Bind.Send(bufs, ep)
	if data > 0 {
		b.sent(data)
	}
	if len(bufs) == 1 && len(bufs[0]) == device.MessageInitiationSize &&
		messageType(bufs[0]) == device.MessageInitiationType {
		b.initiated(ep, err)
	}
	return err
}

func messageType(p []byte) uint32 { return binary.LittleEndian.Uint32(p) }

// addrPort returns where ep is, unmapped.
func addrPort(ep conn.Endpoint) netip.AddrPort {
	std, ok := ep.(*conn.StdNetEndpoint)
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(std.Addr().Unmap(), std.Port())
}

func (b *bind) initiated(ep conn.Endpoint, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := addrPort(ep)
	c := b.counts[at]
	if c == nil {
		if len(b.counts) >= maxTracked {
			return
		}
		c = new(count)
		b.counts[at] = c
	}
	c.sent++
	c.since++
	c.err = err
}

// received counts a response, if it comes from where an initiation went.
func (b *bind) received(ep conn.Endpoint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.counts[addrPort(ep)]; c != nil {
		c.replies++
		c.since = 0
	}
}

// count returns what happened between us and an endpoint.
func (b *bind) count(at netip.AddrPort) count {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.counts[at]; c != nil {
		return *c
	}
	return count{}
}
