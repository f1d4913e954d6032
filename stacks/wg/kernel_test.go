// SPDX-License-Identifier: Apache-2.0

// A link against Debian's wireguard-go with a kernel TUN, in a network namespace
// that the test makes by running itself again:
//
//	namespace of the test
//	+-------------------------------------------------------------+
//	| Link 10.77.0.1 == UDP 127.0.0.1 == wireguard-go -- wgtN     |
//	| (no kernel address)                 10.77.0.2, fd77::2      |
//	|                                     and the kernel's TCP/IP |
//	+-------------------------------------------------------------+

package wg_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"umrun/stacks/offload"
	"umrun/stacks/wg"
	"umrun/stacks/wg/wgtest"
)

// inner tells the test binary that it is in the namespace.
const inner = "UMRUN_WG_TEST_INNER"

// inNamespace runs the calling test again in a network namespace of its own, and
// reports true there.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inner) == t.Name() {
		run(t, "ip", "link", "set", "lo", "up")
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("not root: a kernel TUN needs /dev/net/tun and CAP_NET_ADMIN")
	}
	for _, tool := range []string{"ip", "wg", "wireguard-go"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	if f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0); err != nil {
		t.Skipf("no TUN devices here: %v", err)
	} else {
		f.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")
	cmd.Env = append(os.Environ(), inner+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in the namespace: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in the namespace nothing was tested:\n%s", out)
	}
	return false
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// startWireGuardGo makes wgtN with c's keys and addresses, and waits until it can
// be talked to.
func startWireGuardGo(t *testing.T, c *wg.Config) (device string) {
	t.Helper()
	device = fmt.Sprintf("wgt%d", os.Getpid())
	cmd := exec.Command("wireguard-go", "-f", device)
	cmd.Env = append(os.Environ(), "LOG_LEVEL=error")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	for end := time.Now().Add(deadline); ; {
		if _, err := os.Stat("/var/run/wireguard/" + device + ".sock"); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("wireguard-go does not start:\n%s", log.String())
		}
		time.Sleep(5 * time.Millisecond) // poll with a deadline
	}
	// wg(8) knows none of wg-quick's keys.
	plain := *c
	plain.Addresses, plain.MTU = nil, 0
	conf := filepath.Join(t.TempDir(), "wg.conf")
	if err := os.WriteFile(conf, []byte(wgtest.Format(&plain)), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "wg", "setconf", device, conf)
	run(t, "ip", "link", "set", device, "up", "mtu", "1420")
	for _, a := range c.Addresses {
		run(t, "ip", "addr", "add", a.String(), "dev", device, "nodad")
	}
	return device
}

// kernelPair opens a link to a wireguard-go with a kernel TUN.
func kernelPair(t *testing.T, psk bool) (*wg.Link, *reader, string) {
	t.Helper()
	ca, cb := wgtest.Pair()
	cb.ListenPort = 51820 // nobody else is in this namespace
	cb.Addresses = append(cb.Addresses, netip.MustParsePrefix("fd77::2/64"))
	if psk {
		ca.Peers[0].PresharedKey = wg.NewPresharedKey()
		cb.Peers[0].PresharedKey = ca.Peers[0].PresharedKey
	}
	device := startWireGuardGo(t, cb)
	ca.Peers[0].Endpoint = wgtest.Endpoint(cb.ListenPort)
	l := open(t, ca)
	waitUp(t, l)
	return l, read(l), device
}

func TestIntegrationPing(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	l, r, _ := kernelPair(t, true)
	for _, to := range []struct{ src, dst netip.Addr }{
		{addrA, addrB}, {netip.MustParseAddr("fd77::1"), netip.MustParseAddr("fd77::2")},
	} {
		payload := bytes.Repeat([]byte("ping"), 300)
		h, p := ping(t, l, r, wgtest.Echo(to.src, to.dst, payload))
		if h.Flags != offload.DataValid || !bytes.HasSuffix(p, payload) {
			t.Errorf("%+v, % x", h, p)
		}
	}
}

// ping sends an echo request until there is a reply, as ping(8) does: the kernel
// puts the route to a new IPv6 address in place some time after the address.
func ping(t *testing.T, l *wg.Link, r *reader, request []byte) (offload.Hdr, []byte) {
	t.Helper()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	end := time.After(deadline)
	for {
		write(t, l, offload.Hdr{}, request)
	replies:
		for {
			select {
			case b := <-r.packets:
				var h offload.Hdr
				if err := h.Decode(b); err != nil {
					t.Fatal(err)
				}
				p := b[offload.HdrLen:]
				if p[0]>>4 == 4 && p[9] == 1 && p[20] == 0 || p[0]>>4 == 6 && p[6] == 58 && p[40] == 129 {
					return h, p
				} // else neighbour discovery and the like
			case <-again.C:
				break replies
			case <-end:
				t.Fatal("no reply")
			}
		}
	}
}

// A miniTCP is a client that loses nothing and controls nothing: enough to let
// the kernel check super-segments.
type miniTCP struct {
	t        *testing.T
	l        *wg.Link
	r        *reader
	port     uint16
	seq, ack uint32
}

// send sends a segment with the state's numbers; data may be a super-segment.
func (c *miniTCP) send(flags byte, data []byte) {
	c.t.Helper()
	const mss = 1360
	h, p := wgtest.TCP(addrA, addrB, c.seq, data, mss)
	tcp := p[20:]
	binary.BigEndian.PutUint16(tcp[2:], c.port)
	binary.BigEndian.PutUint32(tcp[8:], c.ack)
	tcp[13] = flags
	binary.BigEndian.PutUint16(tcp[14:], 0xffff)
	copy(tcp[20:32], bytes.Repeat([]byte{1}, 12)) // NOPs: the kernel would check timestamps
	if flags&0x02 != 0 {
		copy(tcp[20:], []byte{2, 4, mss >> 8, mss & 0xff, 3, 3, 6}) // MSS; window scale
	}
	if h.GSOType == offload.GSONone {
		// Let the link complete the checksum.
		h = offload.Hdr{Flags: offload.NeedsCsum, CsumStart: 20, CsumOffset: 16}
	}
	tcp[16], tcp[17] = 0, 0
	pseudo := wgtest.Sum(p[12:20], uint32(6+len(tcp)))
	binary.BigEndian.PutUint16(tcp[16:], pseudo)
	write(c.t, c.l, h, p)
	c.seq += uint32(len(data))
	if flags&0x03 != 0 { // SYN and FIN take a number
		c.seq++
	}
}

// recv returns the next segment of the connection.
func (c *miniTCP) recv() (flags byte, ack uint32, data []byte) {
	c.t.Helper()
	for {
		_, p := c.r.next(c.t)
		if p[0]>>4 != 4 || p[9] != 6 {
			continue
		}
		seq, data := wgtest.Segment(p)
		tcp := p[20:]
		if flags = tcp[13]; flags&0x02 != 0 {
			c.ack = seq + 1
		} else if seq == c.ack {
			c.ack += uint32(len(data))
			if flags&0x01 != 0 {
				c.ack++
			}
		} else {
			data = nil // again, or a hole
		}
		if flags&0x04 != 0 {
			c.t.Fatal("reset")
		}
		return flags, binary.BigEndian.Uint32(tcp[8:]), data
	}
}

// TestIntegrationTCP exchanges bulk data with the kernel's TCP: our super-segments
// must be good once cut, and its segments must come coalesced.
func TestIntegrationTCP(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	l, r, _ := kernelPair(t, false)
	ln, err := net.Listen("tcp4", addrB.String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	const up, down = 1 << 20, 4 << 20
	sent := bytes.Repeat([]byte("0123456789abcdef"), up/16)
	answer := bytes.Repeat([]byte("fedcba9876543210"), down/16)
	done := make(chan error, 1)
	go func() { // ends with the connection, which has a deadline
		done <- func() error {
			conn, err := ln.Accept()
			if err != nil {
				return err
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(deadline))
			got := make([]byte, up)
			if _, err := io.ReadFull(conn, got); err != nil {
				return err
			}
			if !bytes.Equal(got, sent) {
				return errors.New("the kernel got something else")
			}
			_, err = conn.Write(answer)
			return err
		}()
	}()
	c := &miniTCP{t: t, l: l, r: r, port: ln.Addr().(*net.TCPAddr).AddrPort().Port(), seq: 0xffff0000}
	c.send(0x02, nil)
	c.recv()
	c.send(0x10, nil)
	const chunk = 50000 // less than the kernel's first window
	for rest := sent; len(rest) > 0; {
		n := min(chunk, len(rest))
		c.send(0x18, rest[:n])
		rest = rest[n:]
		for ack := c.seq - 1; ack != c.seq; {
			_, ack, _ = c.recv()
		}
	}
	var got []byte
	packets := 0
	for len(got) < down {
		_, _, data := c.recv()
		if len(data) > 0 {
			packets++
			got = append(got, data...)
			c.send(0x10, nil)
		}
	}
	if !bytes.Equal(got, answer) {
		t.Error("we got something else")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	t.Logf("%d bytes came in %d packets, %d each", down, packets, down/packets)
	if average := down / packets; average < 3000 {
		t.Errorf("%d bytes a packet: not coalesced", average)
	}
	if s := l.Stats(); s.BadIn+s.BadOut != 0 {
		t.Errorf("bad packets: %+v", s)
	}
}

// TestIntegrationNoRoute: where the host cannot even send, the error says so.
func TestIntegrationNoRoute(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	ca, _ := wgtest.Pair()
	ca.Peers[0].Endpoint = wg.Endpoint{Host: "198.51.100.7", Port: 51820} // no route in here
	na := noAnswer(t, open(t, ca))
	if !errors.Is(na, syscall.ENETUNREACH) || !strings.Contains(na.Error(), "198.51.100.7:51820") {
		t.Errorf("%v", na)
	}
	if !strings.Contains(na.Hint(), "no route") {
		t.Errorf("hint %q", na.Hint())
	}
}
