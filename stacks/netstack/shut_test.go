// SPDX-License-Identifier: Apache-2.0

// Tests of what is heard behind a shut window.

package netstack_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"umrun/stacks"
	"umrun/stacks/pipe"
)

// TestShutWindow: a peer that has bytes on their way for which a window has no room any
// more acknowledges what it was sent. The kernel hears that (stacks/kernel TestBulk has
// such peers); gVisor does not.
func TestShutWindow(t *testing.T) {
	const first, more = 1000, 24
	for name, last := range map[string]struct {
		ahead uint32
		data  int
	}{"data again": {0, more}, "acknowledgement behind it": {more, 0}} {
		t.Run(name, func(t *testing.T) {
			near, far := pipe.New(pipe.Config{MTU: 1500})
			defer far.Close()
			st := newStack(t, near, a4)
			sock, err := st.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			if err != nil {
				t.Fatal(err)
			}
			l := sock.(stacks.StreamSocket)
			if err := errors.Join(l.SetOption(unix.SOL_SOCKET, unix.SO_RCVBUF, binary.NativeEndian.AppendUint32(nil, 4096)), l.Listen(1)); err != nil {
				t.Fatal(err)
			}
			local, _ := l.Names()
			heard := make(chan header.TCP, 1000) // more than there are
			go func() {                          // ends with the link
				bufs, sizes := [][]byte{make([]byte, 1600)}, make([]int, 1)
				for {
					n, err := far.Read(bufs, sizes)
					if err != nil {
						return
					}
					for range n {
						if ip := header.IPv4(bufs[0][:sizes[0]]); header.IPVersion(ip) == header.IPv4Version && ip.Protocol() == uint8(header.TCPProtocolNumber) {
							heard <- bytes.Clone(ip.Payload())
						}
					}
				}
			}()
			say := func(flags header.TCPFlags, seq, ack uint32, n int) {
				t.Helper()
				src, dst := tcpip.AddrFrom4(b4.Addr().As4()), tcpip.AddrFrom4(a4.Addr().As4())
				b := make([]byte, header.IPv4MinimumSize+header.TCPMinimumSize+n)
				ip := header.IPv4(b)
				ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(b)), TTL: 64, Protocol: uint8(header.TCPProtocolNumber), SrcAddr: src, DstAddr: dst})
				ip.SetChecksum(^ip.CalculateChecksum())
				h := header.TCP(ip.Payload())
				h.Encode(&header.TCPFields{SrcPort: 99, DstPort: local.Port(), SeqNum: seq, AckNum: ack, Flags: flags, DataOffset: header.TCPMinimumSize, WindowSize: 60000})
				h.SetChecksum(^h.CalculateChecksum(checksum.Checksum(h.Payload(), header.PseudoHeaderChecksum(header.TCPProtocolNumber, src, dst, uint16(len(h))))))
				if _, err := far.Write([][]byte{b}); err != nil {
					t.Fatal(err)
				}
			}
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
			var s stacks.StreamSocket
			await(t, func() bool { s, err = l.Accept(); return err == nil })
			defer s.Close()
			const sent = 2000
			if n, err := s.Send(bytes.NewReader(make([]byte, sent))); n != sent {
				t.Fatal(n, err)
			}
			// Nothing is read at their end until the window is shut.
			next := uint32(first)
			for {
				h := hear()
				if h.AckNumber() != next {
					continue
				}
				room := int(h.WindowSize())
				if room == 0 {
					break
				}
				n := min(room, 1000)
				say(header.TCPFlagAck, next, ack, n)
				next += uint32(n)
			}
			if n, _ := s.(stacks.Unacked).Unacked(); n != sent {
				t.Fatalf("%d bytes are on their way", n)
			}
			say(header.TCPFlagAck, next+last.ahead, ack+sent, last.data)
			await(t, func() bool { n, _ := s.(stacks.Unacked).Unacked(); return n == 0 })
		})
	}
}
