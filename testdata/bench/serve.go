// SPDX-License-Identifier: Apache-2.0

// The server that both sides talk to.

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Ports of the server.
const (
	portSink   = 5001 // takes bytes until one is lastByte, answers with their number
	portSource = 5002 // sends until the connection is gone
	portEcho   = 5003 // sends back what it gets
	portOnce   = 5004 // as portEcho, once, then closes
	portUDP    = 5005 // counts datagrams
	portCount  = 5006 // tells their number since it was last asked
	portCC     = 5007 // tells the congestion control of its end
	portPage   = 5008 // serves a page with many objects by HTTP
)

// bulk is the size of the buffers of bulk transfers, bytes.
const bulk = 128 << 10

// lastByte ends what the sink takes, and is not in it before. An end of file would do,
// but for proxies that end both directions when one ends.
const lastByte = 0xff

// serve runs the server on the addresses given until its standard input ends.
func serve(addrs []string) int {
	var datagrams atomic.Uint64
	for _, a := range addrs {
		ip, err := netip.ParseAddr(a)
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench serve:", err)
			return 1
		}
		for port, f := range map[uint16]func(*net.TCPConn){
			portSink:   sink,
			portSource: source,
			portEcho:   func(c *net.TCPConn) { io.Copy(c, c) },
			portOnce:   once,
			portCC:     func(c *net.TCPConn) { io.WriteString(c, congestion(c)) },
			portCount: func(c *net.TCPConn) {
				c.Write(binary.BigEndian.AppendUint64(nil, datagrams.Swap(0)))
			},
		} {
			l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, port)))
			if err != nil {
				fmt.Fprintln(os.Stderr, "bench serve:", err)
				return 1
			}
			go accept(l, f) // until the process ends, as all that follows
		}
		page, err := net.Listen("tcp", netip.AddrPortFrom(ip, portPage).String())
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench serve:", err)
			return 1
		}
		go pages(page)
		u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, portUDP)))
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench serve:", err)
			return 1
		}
		u.SetReadBuffer(4 << 20)
		go func() {
			b := make([]byte, 2048)
			for {
				if _, err := u.Read(b); err == nil {
					datagrams.Add(1)
				}
			}
		}()
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	return 0
}

func accept(l *net.TCPListener, f func(*net.TCPConn)) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			f(c)
		}()
	}
}

// buffers are for bulk and echo.
var buffers = sync.Pool{New: func() any { return new([bulk]byte) }}

func sink(c *net.TCPConn) {
	b := buffers.Get().(*[bulk]byte)
	defer buffers.Put(b)
	var n uint64
	for {
		m, err := c.Read(b[:])
		n += uint64(m)
		if err != nil {
			return
		}
		if m > 0 && b[m-1] == lastByte {
			break
		}
	}
	c.Write(binary.BigEndian.AppendUint64(nil, n))
}

func source(c *net.TCPConn) {
	b := buffers.Get().(*[bulk]byte)
	defer buffers.Put(b)
	for {
		if _, err := c.Write(b[:]); err != nil {
			return
		}
	}
}

func once(c *net.TCPConn) {
	var b [256]byte
	if n, err := c.Read(b[:]); err == nil {
		c.Write(b[:n])
	}
}

// congestion returns the congestion control of this end of a connection.
func congestion(c *net.TCPConn) (name string) {
	rc, err := c.SyscallConn()
	if err != nil {
		return err.Error()
	}
	e := rc.Control(func(fd uintptr) { name, err = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION) })
	if err := errors.Join(e, err); err != nil {
		return err.Error()
	}
	return name
}
