// SPDX-License-Identifier: Apache-2.0

// The private stack's network device: it ends in the queue to the view.

package nat

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"umrun/stacks/netstack/tcpseg"
	"umrun/stacks/offload"
)

// A device is the stack.LinkEndpoint of the private stack. It owns no goroutine:
// packets come in on the goroutine that is in [Link.Write], and leave through the
// queue.
type device struct {
	mtu      uint32
	out      *queue
	shut     tcpseg.ShutWindows
	dispatch atomic.Pointer[stack.NetworkDispatcher]
}

// gsoMax leaves room for the headers within the 65535 bytes of an IP packet.
const gsoMax = 65535

func (d *device) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }
func (d *device) GSOMaxSize() uint32               { return gsoMax }
func (d *device) MTU() uint32                      { return d.mtu }
func (*device) SetMTU(uint32)                      {}
func (*device) MaxHeaderLength() uint16            { return 0 }
func (*device) LinkAddress() tcpip.LinkAddress     { return "" }
func (*device) SetLinkAddress(tcpip.LinkAddress)   {}
func (*device) AddHeader(*stack.PacketBuffer)      {}
func (*device) ParseHeader(*stack.PacketBuffer) bool {
	return true
}
func (*device) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (*device) Wait()                                   {}
func (*device) Close()                                  {}
func (*device) SetOnCloseAction(func())                 {}

// Capabilities promises checksums that [Link.Write] has seen to already.
func (*device) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

func (d *device) Attach(nd stack.NetworkDispatcher) {
	if nd == nil {
		d.dispatch.Store(nil)
		return
	}
	d.dispatch.Store(&nd)
}

func (d *device) IsAttached() bool { return d.dispatch.Load() != nil }

// WritePackets queues what the private stack sends. A segment with data waits
// for room: it comes from a relay or from one of the stack's processors, and TCP
// slows down. Control segments may come from within [Link.Write] and never wait.
func (d *device) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	n := 0
	for _, pkt := range pkts.AsSlice() {
		d.shut.Leaving(pkt)
		data := pkt.Data().Size() > 0
		if d.out.put(packet{pkt: pkt.IncRef()}, data) {
			n++
		}
	}
	return n, nil
}

// encode writes pkt with its virtio_net_hdr to b and returns the length, or 0 if
// b is too short.
func encode(pkt *stack.PacketBuffer, b []byte) int {
	size := offload.HdrLen + pkt.Size()
	if size > len(b) {
		return 0
	}
	var h offload.Hdr
	gso := &pkt.GSOOptions
	network := len(pkt.NetworkHeader().Slice())
	if gso.Type != stack.GSONone && gso.NeedsCsum {
		h.Flags = offload.NeedsCsum
		h.CsumStart = uint16(network)
		h.CsumOffset = gso.CsumOffset
		// A control segment carries the connection's GSO options too, but there is
		// nothing to cut.
		if gso.MSS != 0 && pkt.Data().Size() > int(gso.MSS) {
			h.GSOType = offload.GSOTCPv4
			if gso.Type == stack.GSOTCPv6 {
				h.GSOType = offload.GSOTCPv6
			}
			h.GSOSize = gso.MSS
			h.HdrLen = uint16(pkt.HeaderSize())
		}
	}
	h.Encode(b)
	n := offload.HdrLen
	for _, s := range pkt.AsSlices() {
		n += copy(b[n:], s)
	}
	return n
}

// deliver hands an IP packet to the private stack; b is copied.
func (d *device) deliver(proto tcpip.NetworkProtocolNumber, b []byte) {
	nd := d.dispatch.Load()
	if nd == nil {
		return
	}
	pkt := newPacket(b)
	(*nd).DeliverNetworkPacket(proto, pkt)
	pkt.DecRef()
}

// sumOK verifies a transport checksum over a pseudo header.
func sumOK(proto uint8, src, dst, segment []byte) bool {
	sum := header.PseudoHeaderChecksum(tcpip.TransportProtocolNumber(proto),
		tcpip.AddrFromSlice(src), tcpip.AddrFromSlice(dst), uint16(len(segment)))
	return checksum.Checksum(segment, sum) == 0xffff
}
