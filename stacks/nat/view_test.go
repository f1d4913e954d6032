// SPDX-License-Identifier: Apache-2.0

// The view of the tests: a plain gVisor stack at the near end of the link.

package nat_test

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"umrun/stacks"
	"umrun/stacks/nat"
	"umrun/stacks/offload"
)

// A view is a stack configured as the link says.
type view struct {
	t    testing.TB
	link *nat.Link
	s    *stack.Stack
	wg   sync.WaitGroup
	out  chan []byte
	done chan struct{}

	nd stack.NetworkDispatcher
}

// open makes a link and a view on it, for the length of the test.
func open(t testing.TB, o nat.Options) *view {
	t.Helper()
	l, err := nat.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	v := &view{t: t, link: l, out: make(chan []byte, 512), done: make(chan struct{})}
	v.s = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
		HandleLocal:        true,
	})
	rec := tcpip.TCPRecovery(0)
	cc := tcpip.CongestionControlOption("reno")
	v.s.SetTransportProtocolOption(tcp.ProtocolNumber, &rec)
	v.s.SetTransportProtocolOption(tcp.ProtocolNumber, &cc)
	if e := v.s.CreateNIC(1, v); e != nil {
		t.Fatal(e)
	}
	cfg := l.Config()
	for _, p := range cfg.Addrs {
		proto := ipv4.ProtocolNumber
		if p.Addr().Is6() {
			proto = ipv6.ProtocolNumber
		}
		if e := v.s.AddProtocolAddress(1, tcpip.ProtocolAddress{
			Protocol: proto,
			AddressWithPrefix: tcpip.AddressWithPrefix{
				Address: tcpip.AddrFromSlice(p.Addr().AsSlice()), PrefixLen: p.Bits(),
			},
		}, stack.AddressProperties{}); e != nil {
			t.Fatal(e)
		}
	}
	for _, r := range cfg.Routes {
		sub := tcpip.AddressWithPrefix{
			Address: tcpip.AddrFromSlice(r.Dst.Addr().AsSlice()), PrefixLen: r.Dst.Bits(),
		}.Subnet()
		v.s.AddRoute(tcpip.Route{Destination: sub, NIC: 1})
	}
	v.wg.Add(2)
	go v.reader()
	go v.writer()
	t.Cleanup(func() { v.close() })
	return v
}

func (v *view) close() {
	if err := v.link.Close(); err != nil {
		v.t.Error(err)
	}
	v.s.Close()
	close(v.done)
	v.wg.Wait()
	v.s.Wait()
}

func (v *view) reader() {
	defer v.wg.Done()
	bufs := make([][]byte, v.link.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, stacks.MaxPacket)
	}
	sizes := make([]int, len(bufs))
	for {
		n, err := v.link.Read(bufs, sizes)
		if err != nil {
			return
		}
		for i := range n {
			b := bufs[i][offload.HdrLen:sizes[i]]
			pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
			proto := ipv4.ProtocolNumber
			if b[0]>>4 == 6 {
				proto = ipv6.ProtocolNumber
			}
			v.nd.DeliverNetworkPacket(proto, pkt)
			pkt.DecRef()
		}
	}
}

func (v *view) writer() {
	defer v.wg.Done()
	for {
		var bufs [][]byte
		select {
		case b := <-v.out:
			bufs = append(bufs, b)
		case <-v.done:
			return
		}
		for n := min(len(v.out), v.link.BatchSize()-1); n > 0; n-- {
			bufs = append(bufs, <-v.out)
		}
		v.link.Write(bufs)
	}
}

// The link endpoint.

func (v *view) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for _, pkt := range pkts.AsSlice() {
		b := make([]byte, offload.HdrLen, offload.HdrLen+pkt.Size())
		if g := pkt.GSOOptions; g.Type != stack.GSONone && g.NeedsCsum {
			h := offload.Hdr{Flags: offload.NeedsCsum, CsumStart: g.L3HdrLen, CsumOffset: g.CsumOffset}
			if int(g.MSS) > 0 && pkt.Data().Size() > int(g.MSS) {
				h.GSOType, h.GSOSize, h.HdrLen = offload.GSOTCPv4, g.MSS, uint16(pkt.HeaderSize())
				if g.Type == stack.GSOTCPv6 {
					h.GSOType = offload.GSOTCPv6
				}
			}
			h.Encode(b)
		}
		for _, s := range pkt.AsSlices() {
			b = append(b, s...)
		}
		select {
		case v.out <- b:
		case <-v.done:
		}
	}
	return pkts.Len(), nil
}

func (v *view) SupportedGSO() stack.SupportedGSO        { return stack.HostGSOSupported }
func (v *view) GSOMaxSize() uint32                      { return 65535 }
func (v *view) MTU() uint32                             { return uint32(v.link.MTU()) }
func (v *view) SetMTU(uint32)                           {}
func (v *view) MaxHeaderLength() uint16                 { return 0 }
func (v *view) LinkAddress() tcpip.LinkAddress          { return "" }
func (v *view) SetLinkAddress(tcpip.LinkAddress)        {}
func (v *view) AddHeader(*stack.PacketBuffer)           {}
func (v *view) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (v *view) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (v *view) Wait()                                   {}
func (v *view) Close()                                  {}
func (v *view) SetOnCloseAction(func())                 {}
func (v *view) Attach(d stack.NetworkDispatcher)        { v.nd = d }
func (v *view) IsAttached() bool                        { return v.nd != nil }
func (v *view) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

// Dialling.

func full(a string) (tcpip.FullAddress, tcpip.NetworkProtocolNumber) {
	ap := netip.MustParseAddrPort(a)
	proto := ipv4.ProtocolNumber
	if ap.Addr().Is6() {
		proto = ipv6.ProtocolNumber
	}
	return tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFromSlice(ap.Addr().AsSlice()), Port: ap.Port()}, proto
}

func (v *view) dial(addr string) (*gonet.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return v.dialContext(ctx, addr)
}

func (v *view) dialContext(ctx context.Context, addr string) (*gonet.TCPConn, error) {
	fa, proto := full(addr)
	return gonet.DialContextTCP(ctx, v.s, fa, proto)
}

func (v *view) mustDial(addr string) *gonet.TCPConn {
	v.t.Helper()
	c, err := v.dial(addr)
	if err != nil {
		v.t.Fatalf("dial %s: %v", addr, err)
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// dialUDP connects if addr is not empty.
func (v *view) dialUDP(addr string, proto tcpip.NetworkProtocolNumber) udpConn {
	v.t.Helper()
	var to *tcpip.FullAddress
	if addr != "" {
		var fa tcpip.FullAddress
		fa, proto = full(addr)
		to = &fa
	}
	c, err := gonet.DialUDP(v.s, nil, to, proto)
	if err != nil {
		v.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	v.t.Cleanup(func() { c.Close() })
	return udpConn{c}
}

type udpConn struct{ *gonet.UDPConn }

// abort resets the view's end of c.
func (v *view) abort(c *gonet.TCPConn) {
	port := uint16(c.LocalAddr().(*net.TCPAddr).Port)
	for _, e := range v.s.RegisteredEndpoints() {
		ep, ok := e.(tcpip.Endpoint)
		if !ok {
			continue
		}
		if a, err := ep.GetLocalAddress(); err == nil && a.Port == port {
			ep.Abort()
		}
	}
}
