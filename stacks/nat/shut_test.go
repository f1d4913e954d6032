// SPDX-License-Identifier: Apache-2.0

// Tests of what is heard of a view for whose bytes the host has no room.

package nat_test

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"umrun/stacks"
	"umrun/stacks/nat"
	"umrun/stacks/offload"
)

// TestShutWindow: a program that has bytes on their way for which the host has no room
// any more acknowledges what comes. What was sent to it counts as sent then: the host's
// next bytes follow. Netstack has the same test for its own windows.
func TestShutWindow(t *testing.T) {
	const (
		first, more = 1000, 24
		room        = 2000 // of the view's window
	)
	for name, tc := range map[string]struct {
		src, at string
		ahead   uint32
		data    int
	}{
		"data again":                {nat.Addr4.String(), "198.51.100.2:0", 0, more},
		"acknowledgement behind it": {nat.Addr4.String(), "198.51.100.2:0", more, 0},
		"IPv6":                      {nat.Addr6.String(), "[2001:db8::2]:0", more, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := openRaw(t, nat.Options{})
			over := make(chan struct{})
			defer close(over)
			at := serve(t, tc.at, func(c *net.TCPConn) {
				c.SetReadBuffer(4096)
				c.Write(make([]byte, 2*room))
				<-over // and nothing is read
			})
			to := netip.MustParseAddrPort(at)
			dst, port := to.Addr().String(), to.Port()
			const mine = 40000
			say := func(flags header.TCPFlags, seq, ack uint32, n int) {
				t.Helper()
				h := header.TCP(make([]byte, header.TCPMinimumSize+n))
				h.Encode(&header.TCPFields{SrcPort: mine, DstPort: port, SeqNum: seq, AckNum: ack, Flags: flags, DataOffset: header.TCPMinimumSize, WindowSize: room})
				if _, err := l.Write([][]byte{ipPacket(tc.src, dst, unix.IPPROTO_TCP, 64, h)}); err != nil {
					t.Fatal(err)
				}
			}
			heard := make(chan header.TCP, 1000)
			go func() { // ends with the link
				buf, sizes := make([]byte, stacks.MaxPacket), []int{0}
				for {
					if _, err := l.Read([][]byte{buf}, sizes); err != nil {
						return
					}
					if b := bytes.Clone(buf[offload.HdrLen:sizes[0]]); header.IPVersion(b) == header.IPv4Version {
						heard <- header.IPv4(b).Payload()
					} else {
						heard <- header.IPv6(b).Payload()
					}
				}
			}()
			hear := func() header.TCP {
				t.Helper()
				select {
				case h := <-heard:
					return h
				case <-time.After(10 * time.Second):
					t.Fatal("nothing is heard")
					return nil
				}
			}

			say(header.TCPFlagSyn, first-1, 0, 0)
			ack := hear().SequenceNumber() + 1
			say(header.TCPFlagAck, first, ack, 0)
			next := uint32(first)
			// The window may open again while the host takes what the NAT has.
			shut := time.NewTimer(time.Hour)
			for full := false; !full; {
				select {
				case h := <-heard:
					if w := int(h.WindowSize()); w > 0 && h.AckNumber() == next {
						n := min(w, 60000)
						say(header.TCPFlagAck, next, ack, n)
						next += uint32(n)
					}
					shut.Reset(500 * time.Millisecond)
				case <-shut.C:
					full = true
				}
			}
			say(header.TCPFlagAck, next+tc.ahead, ack+room, tc.data)
			for h := hear(); h.SequenceNumber() != ack+room || len(h.Payload()) == 0; h = hear() {
				if h.Flags()&header.TCPFlagRst != 0 {
					t.Fatal("it was reset")
				}
			}
		})
	}
}
