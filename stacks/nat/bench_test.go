// SPDX-License-Identifier: Apache-2.0

// What the detour costs, compared with the host's loopback.

package nat_test

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
	"umrun/stacks"

	"umrun/stacks/nat"
)

// benchDial dials the host directly, or through a link of the given MTU.
func benchDial(b *testing.B, mtu int) func(addr string) net.Conn {
	if mtu == 0 {
		return func(addr string) net.Conn {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				b.Fatal(err)
			}
			return c
		}
	}
	v := open(b, nat.Options{MTU: mtu})
	b.Cleanup(func() {
		b.ReportMetric(float64(v.link.Retransmits()+v.s.Stats().TCP.Retransmits.Value()), "rtx")
	})
	return func(addr string) net.Conn {
		c := v.mustDial(addr)
		c.SetDeadline(time.Time{})
		return c
	}
}

var paths = []struct {
	name string
	mtu  int
}{{"loopback", 0}, {"nat-65520", 65520}, {"nat-9000", 9000}, {"nat-1500", 1500}}

func BenchmarkUp(b *testing.B) {
	for _, p := range paths {
		b.Run(p.name, func(b *testing.B) {
			done := make(chan struct{}, 1)
			addr := serve(b, "198.51.100.2:0", func(c *net.TCPConn) {
				c.SetDeadline(time.Time{})
				// Not io.Discard: the kernel would be asked for 8 KiB at a time.
				buf := make([]byte, 256<<10)
				for {
					if _, err := c.Read(buf); err != nil {
						break
					}
				}
				done <- struct{}{}
			})
			c := benchDial(b, p.mtu)(addr)
			defer c.Close()
			buf := make([]byte, 64<<10)
			b.SetBytes(int64(len(buf)))
			for b.Loop() {
				if _, err := c.Write(buf); err != nil {
					b.Fatal(err)
				}
			}
			c.(interface{ CloseWrite() error }).CloseWrite()
			<-done
		})
	}
}

func BenchmarkDown(b *testing.B) {
	for _, p := range paths {
		b.Run(p.name, func(b *testing.B) {
			addr := serve(b, "198.51.100.2:0", func(c *net.TCPConn) {
				c.SetDeadline(time.Time{})
				buf := make([]byte, 64<<10)
				for {
					if _, err := c.Write(buf); err != nil {
						return
					}
				}
			})
			c := benchDial(b, p.mtu)(addr)
			defer c.Close()
			buf := make([]byte, 64<<10)
			b.SetBytes(int64(len(buf)))
			for b.Loop() {
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRoundTrip is one byte there and back.
func BenchmarkRoundTrip(b *testing.B) {
	for _, p := range paths[:2] {
		b.Run(p.name, func(b *testing.B) {
			addr := serve(b, "198.51.100.2:0", func(c *net.TCPConn) {
				c.SetDeadline(time.Time{})
				echo(c)
			})
			c := benchDial(b, p.mtu)(addr)
			defer c.Close()
			buf := make([]byte, 1)
			for b.Loop() {
				c.Write(buf)
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkConnect is connect, one byte there and back, close.
func BenchmarkConnect(b *testing.B) {
	for _, p := range paths[:2] {
		b.Run(p.name, func(b *testing.B) {
			addr := serve(b, "198.51.100.2:0", echo)
			dial := benchDial(b, p.mtu)
			buf := make([]byte, 1)
			for b.Loop() {
				c := dial(addr)
				c.Write(buf)
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Fatal(err)
				}
				c.Close()
			}
		})
	}
}

// BenchmarkUDP is one datagram there and back.
func BenchmarkUDP(b *testing.B) {
	addr := serveUDP(b, "198.51.100.2:0", same)
	for _, p := range paths[:2] {
		b.Run(p.name, func(b *testing.B) {
			var c net.Conn
			if p.mtu == 0 {
				c, _ = net.Dial("udp", addr)
			} else {
				u := open(b, nat.Options{MTU: p.mtu}).dialUDP(addr, 0)
				u.SetDeadline(time.Time{})
				c = u
			}
			defer c.Close()
			buf := make([]byte, 1400)
			for b.Loop() {
				c.Write(buf)
				if _, err := c.Read(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkUDPOut is a datagram out of a host socket, in batches as a stack
// writes them.
func BenchmarkUDPOut(b *testing.B) {
	addr := netip.MustParseAddrPort(serveUDP(b, "198.51.100.2:0", func([]byte, netip.AddrPort) []byte { return nil }))
	l := openRaw(b, nat.Options{})
	u := make([]byte, 1408)
	binary.BigEndian.PutUint16(u, 4096)
	binary.BigEndian.PutUint16(u[2:], addr.Port())
	binary.BigEndian.PutUint16(u[4:], uint16(len(u)))
	p := ipPacket("10.0.2.15", addr.Addr().String(), 17, 64, u)
	bufs := make([][]byte, l.BatchSize())
	for i := range bufs {
		bufs[i] = p
	}
	b.SetBytes(1400)
	for n := b.N; n > 0; n -= len(bufs) {
		if _, err := l.Write(bufs[:min(n, len(bufs))]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(l.Stats().Lost), "lost")
}

// BenchmarkUDPIn is a datagram from the host to a reader of the link.
func BenchmarkUDPIn(b *testing.B) {
	l := openRaw(b, nat.Options{})
	first := make(chan netip.AddrPort, 1)
	pc, err := net.ListenPacket("udp", "198.51.100.2:0")
	if err != nil {
		b.Fatal(err)
	}
	c := pc.(*net.UDPConn)
	defer c.Close()
	go func() {
		_, from, _ := c.ReadFromUDPAddrPort(make([]byte, 10))
		first <- from
	}()
	u := []byte{0x10, 0, 0, 0, 0, 9, 0, 0, 'x'}
	binary.BigEndian.PutUint16(u[2:], uint16(c.LocalAddr().(*net.UDPAddr).Port))
	l.Write([][]byte{ipPacket("10.0.2.15", "198.51.100.2", 17, 64, u)})
	to := <-first
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for buf := make([]byte, 1400); ; {
			select {
			case <-stop:
				return
			default:
				c.WriteToUDPAddrPort(buf, to)
			}
		}
	}()
	bufs, sizes := make([][]byte, l.BatchSize()), make([]int, l.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, stacks.MaxPacket)
	}
	b.SetBytes(1400)
	b.ResetTimer()
	for n := 0; n < b.N; {
		m, err := l.Read(bufs, sizes)
		if err != nil {
			b.Fatal(err)
		}
		n += m
	}
	close(stop)
	wg.Wait()
}
