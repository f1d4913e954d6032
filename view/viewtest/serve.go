// SPDX-License-Identifier: Apache-2.0

// Small servers behind a peer: goroutines of the test on sockets of the peer's
// namespace.

package viewtest

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/websocket"
)

// Ports of the small servers; they listen on IPv4 and IPv6.
const (
	PortEcho   = 7    // TCP and UDP: sends back what it gets
	PortDigest = 9    // reads to the end, then answers "LENGTH FNV1A64\n"
	PortSource = 19   // reads "N\n", sends N bytes of Pattern, closes
	PortReset  = 1001 // accepts, then resets at once
	PortAbort  = 1002 // sends "hello\n", waits for a byte, resets
	PortStuck  = 1003 // accepts and never reads
	PortGreet  = 1004 // sends "greet\n" and closes
	PortWho    = 1005 // sends the client's address and closes
	PortClosed = 1006 // nobody listens, TCP and UDP
	PortSlow   = 1007 // reads 64 KiB every 20 ms, then answers as PortDigest
	PortOther  = 1010 // UDP: answers from the peer's other address
	PortBurst  = 1011 // UDP: "N" is answered by N numbered datagrams
	PortUrgent = 1012 // sends "ab", an urgent "!" and "cd"; see urgent
	PortWeb    = 8081 // HTTP by Go: /ws echoes WebSocket messages, /addr, /count
)

// servers are the goroutines of one peer; close ends and awaits them.
type servers struct {
	mu     sync.Mutex
	closed bool                   // guarded by mu
	open   map[io.Closer]struct{} // listeners and connections, guarded by mu
	done   sync.WaitGroup
}

func (s *servers) track(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		c.Close()
		return false
	}
	if s.open == nil {
		s.open = make(map[io.Closer]struct{})
	}
	s.open[c] = struct{}{}
	return true
}

func (s *servers) drop(c io.Closer) {
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

func (s *servers) close() {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.closed = true
	for c := range s.open {
		c.Close()
	}
	s.mu.Unlock()
	s.done.Wait()
}

// tcp serves every connection of ln by f in a goroutine of its own.
func (s *servers) tcp(ln net.Listener, f func(*net.TCPConn)) {
	if !s.track(ln) {
		return
	}
	s.done.Go(func() {
		defer s.drop(ln)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if !s.track(c) {
				return
			}
			s.done.Go(func() {
				defer s.drop(c)
				f(c.(*net.TCPConn))
			})
		}
	})
}

// udp answers every datagram of c by f.
func (s *servers) udp(c net.PacketConn, f func(p []byte, from net.Addr)) {
	if !s.track(c) {
		return
	}
	s.done.Go(func() {
		defer s.drop(c)
		buf := make([]byte, 65536)
		for {
			n, from, err := c.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				f(buf[:n], from)
			}
		}
	})
}

// startSmall starts what this file has.
func (p *Peer) startSmall() error {
	s := p.serve
	for port, f := range map[int]func(*net.TCPConn){
		PortEcho:   func(c *net.TCPConn) { io.Copy(c, c) },
		PortDigest: func(c *net.TCPConn) { p.digest(c, c) },
		PortSource: source,
		PortReset:  func(c *net.TCPConn) { c.SetLinger(0) },
		PortAbort: func(c *net.TCPConn) {
			io.WriteString(c, "hello\n")
			io.ReadFull(c, make([]byte, 1))
			c.SetLinger(0)
		},
		PortStuck:  func(c *net.TCPConn) { <-p.w.alive.Done() },
		PortUrgent: urgent,
		PortGreet:  func(c *net.TCPConn) { io.WriteString(c, "greet\n") },
		PortWho:    func(c *net.TCPConn) { fmt.Fprintln(c, c.RemoteAddr().(*net.TCPAddr).IP) },
		PortSlow:   func(c *net.TCPConn) { p.digest(c, slowly{c}) },
	} {
		ln, err := p.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		s.tcp(ln, f)
	}
	// One socket for each address, so that the answer's source is the address
	// that was asked.
	for _, a := range []string{"10.77.0.1", "10.77.0.2", "fd77::1", "fd77::2"} {
		echo, err := p.ListenPacket("udp", net.JoinHostPort(a, strconv.Itoa(PortEcho)))
		if err != nil {
			return err
		}
		s.udp(echo, func(b []byte, from net.Addr) { echo.WriteTo(b, from) })
	}
	for asked, other := range map[string]string{"10.77.0.1": "10.77.0.2", "fd77::1": "fd77::2"} {
		in, err := p.ListenPacket("udp", net.JoinHostPort(asked, strconv.Itoa(PortOther)))
		if err != nil {
			return err
		}
		out, err := p.ListenPacket("udp", net.JoinHostPort(other, strconv.Itoa(PortOther)))
		if err != nil {
			return err
		}
		if s.track(out) {
			s.udp(in, func(b []byte, from net.Addr) { out.WriteTo(b, from) })
		}
		burst, err := p.ListenPacket("udp", net.JoinHostPort(asked, strconv.Itoa(PortBurst)))
		if err != nil {
			return err
		}
		s.udp(burst, func(b []byte, from net.Addr) {
			n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
			for i := range min(n, 1000) {
				burst.WriteTo(binary.BigEndian.AppendUint32(nil, uint32(i)), from)
			}
		})
	}
	return p.startWeb()
}

// startWeb starts the HTTP server that is no nginx.
func (p *Peer) startWeb() error {
	ln, err := p.Listen("tcp", fmt.Sprintf(":%d", PortWeb))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/ws", websocket.Server{Handler: func(c *websocket.Conn) {
		for {
			var m string
			if websocket.Message.Receive(c, &m) != nil || websocket.Message.Send(c, m) != nil {
				return
			}
		}
	}})
	mux.HandleFunc("/addr", func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		w.Header().Set("Access-Control-Allow-Origin", "*")
		fmt.Fprintln(w, host)
	})
	mux.HandleFunc("/count", func(w http.ResponseWriter, r *http.Request) {
		n, h := count(r.Body)
		fmt.Fprintf(w, "%d %016x\n", n, h)
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return p.w.alive }}
	if !p.serve.track(srv) {
		return nil
	}
	p.serve.done.Go(func() { srv.Serve(ln) })
	return nil
}

// digest reads r to its end, tells c what came, and keeps it for Digests.
func (p *Peer) digest(c net.Conn, r io.Reader) {
	n, h := count(r)
	line := fmt.Sprintf("%d %016x\n", n, h)
	p.mu.Lock()
	p.digests = append(p.digests, line)
	p.mu.Unlock()
	io.WriteString(c, line)
}

// Digests returns what PortDigest and PortSlow counted since the last call, one
// line for each connection that ended.
func (p *Peer) Digests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.digests
	p.digests = nil
	return d
}

func count(r io.Reader) (int64, uint64) {
	h := fnv.New64a()
	n, _ := io.Copy(h, r)
	return n, h.Sum64()
}

// source sends as many bytes as it is asked for.
func source(c *net.TCPConn) {
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	io.Copy(c, io.LimitReader(&Pattern{}, n))
}

// slowly reads with pauses.
type slowly struct{ r io.Reader }

func (s slowly) Read(p []byte) (int, error) {
	time.Sleep(20 * time.Millisecond) // the point of it: a reader that is slower than the sender
	return s.r.Read(p[:min(len(p), 64<<10)])
}

// Pattern is an endless stream whose byte i is (31*i + i>>8) mod 256.
type Pattern struct{ off int64 }

func (s *Pattern) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(31*s.off + s.off>>8)
		s.off++
	}
	return len(p), nil
}

// PatternSum is what PortDigest answers to the first n bytes of Pattern.
func PatternSum(n int64) string {
	n, h := count(io.LimitReader(&Pattern{}, n))
	return fmt.Sprintf("%d %016x\n", n, h)
}
