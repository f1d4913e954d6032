// SPDX-License-Identifier: Apache-2.0

// What a stack says on an Ethernet wire, beside what the kernel says there: the test
// has the other end of the wire, a TAP's file or a pipe.

package tap_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/netstack"
	"umrun/stacks/pipe"
	"umrun/stacks/stacktest"
	"umrun/stacks/tap"
)

// A subject is a stack at an end of a wire.
type subject struct {
	stack stacks.Stack
	wire  stacks.Link // the other end
	mac   net.HardwareAddr
	head  int // bytes in front of each frame
	add   func(addr string)
	index func() int // of the interface

	mu     sync.Mutex
	frames []heard
}

// A heard is a frame of the subject's.
type heard struct {
	at    time.Duration
	frame []byte
}

const (
	ownAddr4 = "10.9.0.1"
	ownAddr6 = "fd09::1"
	wireMAC  = "02:00:00:00:00:01"
	peerMAC  = "02:00:00:00:00:0b"
)

// onKernel is the kernel on a TAP.
func onKernel(t *testing.T, addrs ...string) *subject {
	t.Helper()
	mu.Lock()
	count++
	dev := fmt.Sprintf("wire%d", count)
	mu.Unlock()
	l, err := tap.Open(tap.Options{Name: dev, Type: stacks.LinkEthernet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &subject{stack: stacktest.Kernel{}, wire: l, head: 10, add: func(a string) { ip(t, "addr add "+a+" dev "+dev) }}
	ip(t, "link set lo up", "link set "+dev+" down", "link set "+dev+" address "+wireMAC)
	ip(t, "link set "+dev+" up")
	s.index = func() int {
		ifc, err := net.InterfaceByName(dev)
		if err != nil {
			t.Fatal(err)
		}
		return ifc.Index
	}
	s.begin(t, addrs)
	return s
}

// onNetstack is ours on a pipe.
func onNetstack(t *testing.T, addrs ...string) *subject {
	t.Helper()
	a, b := pipe.New(pipe.Config{Ethernet: true})
	t.Cleanup(func() { b.Close() })
	mac, _ := net.ParseMAC(wireMAC)
	st, err := netstack.New(netstack.Config{Links: []stacks.LinkConfig{{Name: "wire", Link: a, MAC: mac}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	s := &subject{stack: st, wire: b, index: func() int { return 2 }, add: func(a string) {
		next := st.State().Clone()
		p := netip.MustParsePrefix(a)
		next.Interfaces[1].Addrs = append(next.Interfaces[1].Addrs, p)
		next.Routes = append(next.Routes, stacks.Route{Dst: p.Masked(), IfIndex: 2})
		if err := st.SetState(next); err != nil {
			t.Fatal(err)
		}
	}}
	s.begin(t, addrs)
	return s
}

// begin listens to the wire and adds addresses.
func (s *subject) begin(t *testing.T, addrs []string) {
	s.mac, _ = net.ParseMAC(wireMAC)
	began := time.Now()
	go func() {
		bufs, sizes := make([][]byte, 64), make([]int, 64)
		for i := range bufs {
			bufs[i] = make([]byte, stacks.MaxPacket)
		}
		for {
			n, err := s.wire.Read(bufs, sizes)
			if err != nil {
				return
			}
			s.mu.Lock()
			for i := range n {
				s.frames = append(s.frames, heard{time.Since(began), bytes.Clone(bufs[i][s.head:sizes[i]])})
			}
			s.mu.Unlock()
		}
	}()
	for _, a := range addrs {
		s.add(a)
	}
}

// say puts a frame on the wire.
func (s *subject) say(t *testing.T, frame []byte) {
	t.Helper()
	if _, err := s.wire.Write([][]byte{append(make([]byte, s.head), frame...)}); err != nil {
		t.Fatal(err)
	}
}

// hear returns the frames so far that match, and forgets all.
func (s *subject) hear(match func([]byte) bool) (out []heard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.frames {
		if match(h.frame) {
			out = append(out, h)
		}
	}
	s.frames = nil
	return out
}

func etherType(f []byte) uint16 { return binary.BigEndian.Uint16(f[12:]) }

func isARP(f []byte) bool { return etherType(f) == unix.ETH_P_ARP }

// isNDP matches neighbour solicitations (135) and advertisements (136).
func isNDP(f []byte) bool {
	return etherType(f) == unix.ETH_P_IPV6 && len(f) >= 14+40+24 && f[20] == unix.IPPROTO_ICMPV6 && (f[54] == 135 || f[54] == 136)
}

// about tells which NDP messages are about an address.
func about(a string) func([]byte) bool {
	want := netip.MustParseAddr(a).AsSlice()
	return func(f []byte) bool { return isNDP(f) && bytes.Equal(f[62:78], want) }
}

// shown writes a frame for comparison: without what differs from run to run.
func shown(f []byte) string {
	f = bytes.Clone(f)
	if isNDP(f) {
		f[56], f[57] = 0, 0 // checksum, with the nonce
		for opts := f[78:]; len(opts) >= 8 && opts[1] > 0; opts = opts[8*int(opts[1]):] {
			if opts[0] == 14 { // Nonce, RFC 3971
				clear(opts[2:8])
			}
		}
		f[14], f[15], f[16], f[17] = 0x60, 0, 0, 0 // flow label
	}
	return fmt.Sprintf("%x", f)
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}

// scripts say what happens on the wire; what they return must be the same of both.
var scripts = map[string]func(t *testing.T, make func(t *testing.T, addrs ...string) *subject) []string{
	"ARP asks three times": func(t *testing.T, make func(t *testing.T, addrs ...string) *subject) []string {
		s := make(t, ownAddr4+"/24")
		return unanswered(t, s, unix.AF_INET, "10.9.0.66:9", isARP)
	},
	"NDP asks three times": func(t *testing.T, make func(t *testing.T, addrs ...string) *subject) []string {
		s := make(t, ownAddr6+"/64")
		ready(t, s, ownAddr6)
		return unanswered(t, s, unix.AF_INET6, "[fd09::66]:9", about("fd09::66"))
	},
	"ARP answers": func(t *testing.T, make func(t *testing.T, addrs ...string) *subject) []string {
		s := make(t, ownAddr4+"/24")
		var out []string
		for _, ask := range [][]byte{
			arp("ff:ff:ff:ff:ff:ff", peerMAC, 1, "10.9.0.5", ownAddr4),
			arp(wireMAC, peerMAC, 1, "10.9.0.5", ownAddr4),
			arp("ff:ff:ff:ff:ff:ff", peerMAC, 1, "0.0.0.0", ownAddr4), // a probe, RFC 5227
			arp("ff:ff:ff:ff:ff:ff", peerMAC, 1, "192.0.2.7", ownAddr4),
			arp("ff:ff:ff:ff:ff:ff", peerMAC, 1, "10.9.0.5", "10.9.0.66"), // none
			arp("02:00:00:00:00:77", peerMAC, 1, "10.9.0.5", ownAddr4),    // to somebody else
		} {
			s.hear(isARP)
			s.say(t, ask)
			s.say(t, arp("ff:ff:ff:ff:ff:ff", peerMAC, 1, "10.9.0.6", ownAddr4)) // has an answer
			var got []heard
			until(t, "an answer", func() bool {
				got = append(got, s.hear(isARP)...)
				return slices.ContainsFunc(got, func(h heard) bool { return bytes.HasSuffix(h.frame, []byte{10, 9, 0, 6}) && h.frame[21] == 2 })
			})
			line := ""
			for _, h := range got {
				line += " " + shown(h.frame)
			}
			out = append(out, line)
		}
		return out
	},
	"IGMP tells of groups": func(t *testing.T, make func(t *testing.T, addrs ...string) *subject) []string {
		s := make(t, ownAddr4+"/24")
		u := socket(t, s, unix.AF_INET)
		group, own := netip.MustParseAddr("239.1.2.3").AsSlice(), netip.MustParseAddr(ownAddr4).AsSlice()
		return reports(t, s, u, unix.SOL_IP, unix.IP_ADD_MEMBERSHIP, unix.IP_DROP_MEMBERSHIP, slices.Concat(group, own), group)
	},
	"MLD tells of groups": func(t *testing.T, make func(t *testing.T, addrs ...string) *subject) []string {
		s := make(t, ownAddr6+"/64")
		ready(t, s, ownAddr6)
		u := socket(t, s, unix.AF_INET6)
		group := netip.MustParseAddr("ff15::1234").AsSlice()
		return reports(t, s, u, unix.SOL_IPV6, unix.IPV6_JOIN_GROUP, unix.IPV6_LEAVE_GROUP, binary.NativeEndian.AppendUint32(group, uint32(s.index())), group)
	},
	"an address is looked for": func(t *testing.T, make func(t *testing.T, addrs ...string) *subject) []string {
		s := make(t, ownAddr6+"/64")
		var got []heard
		until(t, "a question", func() bool { got = append(got, s.hear(about(ownAddr6))...); return len(got) > 0 })
		return []string{shown(got[0].frame)}
	},
	"an address is somebody else's": func(t *testing.T, make func(t *testing.T, addrs ...string) *subject) []string {
		s := make(t, ownAddr6+"/64")
		until(t, "a question", func() bool { return len(s.hear(about(ownAddr6))) > 0 })
		s.say(t, advert(ownAddr6, "ff02::1", 0x20))
		end := time.Now().Add(2200 * time.Millisecond)
		until(t, "the end of the detection", func() bool { return time.Now().After(end) })
		return []string{bindErr(t, s, ownAddr6)}
	},
	"an address is one's own": func(t *testing.T, make func(t *testing.T, addrs ...string) *subject) []string {
		s := make(t, ownAddr6+"/64")
		first := bindErr(t, s, ownAddr6)
		ready(t, s, ownAddr6)
		s.hear(isNDP)
		s.say(t, solicit(ownAddr6, "fd09::5"))
		var got []heard
		until(t, "an answer", func() bool { got = append(got, s.hear(about(ownAddr6))...); return len(got) > 0 })
		return []string{first, shown(got[0].frame)}
	},
}

func socket(t *testing.T, s *subject, family int) stacks.Socket {
	t.Helper()
	u, err := s.stack.Socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

// reports joins and leaves a group: where the first report of each went, and what it
// says.
func reports(t *testing.T, s *subject, u stacks.Socket, level, join, leave int, mreq, group []byte) (out []string) {
	t.Helper()
	// RFC 3376 §4.2.12: to exclude mode, to include mode, of no sources.
	for i, typ := range []byte{4, 3} {
		s.hear(isARP)
		if err := u.SetOption(level, []int{join, leave}[i], mreq); err != nil {
			t.Fatal(err)
		}
		record := slices.Concat([]byte{typ, 0, 0, 0}, group)
		var got []heard
		until(t, "a report", func() bool {
			got = append(got, s.hear(func(f []byte) bool { return len(f) >= 54 && bytes.Contains(f[34:], record) })...)
			return len(got) > 0
		})
		f := got[0].frame
		out = append(out, fmt.Sprintf("to %x: %x", f[:6], f[bytes.LastIndex(f, record):]))
	}
	return out
}

// unanswered connects to nobody, by TCP and UDP: what was asked, when, and with which
// errors it ended.
func unanswered(t *testing.T, s *subject, family int, to string, match func([]byte) bool) []string {
	t.Helper()
	addr := netip.MustParseAddrPort(to)
	c, err := s.stack.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.hear(match)
	began := time.Now()
	if err := c.Connect(addr); !errors.Is(err, unix.EINPROGRESS) {
		t.Fatal(err)
	}
	var asked []heard
	until(t, "the end of connect", func() bool { asked = append(asked, s.hear(match)...); return c.Poll()&unix.POLLERR != 0 })
	took := time.Since(began)
	out := []string{fmt.Sprintf("connect: %v after %d s", c.Connect(addr), seconds(took))}
	for _, h := range asked {
		if h.at-asked[0].at > 2500*time.Millisecond {
			break // TCP tries again at the moment at which it learns that it is in vain
		}
		out = append(out, fmt.Sprintf("after %d s: %s", seconds(h.at-asked[0].at), shown(h.frame)))
	}
	return out
}

// seconds are whole ones: a machine at work is late, and timers a tick early.
func seconds(d time.Duration) int { return int(d.Seconds() + 0.05) }

// ready waits until the subject can use an address.
func ready(t *testing.T, s *subject, addr string) {
	t.Helper()
	until(t, "a usable address", func() bool { return bindErr(t, s, addr) == "<nil>" })
}

func bindErr(t *testing.T, s *subject, addr string) string {
	t.Helper()
	u, err := s.stack.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	return fmt.Sprint(u.Bind(netip.AddrPortFrom(netip.MustParseAddr(addr), 0)))
}

func mustMAC(s string) net.HardwareAddr {
	m, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

// arp is a frame of ARP from somebody with peerMAC.
func arp(dst, src string, op byte, sender, target string) []byte {
	ip := func(s string) []byte { return netip.MustParseAddr(s).AsSlice() }
	return slices.Concat(mustMAC(dst), mustMAC(src), []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, op}, mustMAC(src), ip(sender), make([]byte, 6), ip(target))
}

// ndp is a frame of NDP.
func ndp(src, dst string, typ, flags byte, target string, option byte) []byte {
	s, d := netip.MustParseAddr(src).AsSlice(), netip.MustParseAddr(dst).AsSlice()
	body := slices.Concat([]byte{typ, 0, 0, 0, flags, 0, 0, 0}, netip.MustParseAddr(target).AsSlice(), []byte{option, 1}, mustMAC(peerMAC))
	sum := uint32(len(body)) + unix.IPPROTO_ICMPV6
	for _, b := range [][]byte{s, d, body} {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(b[i])<<8 | uint32(b[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(body[2:], ^uint16(sum))
	mac := []byte{0x33, 0x33, d[12], d[13], d[14], d[15]}
	if d[0] != 0xff {
		mac = mustMAC(wireMAC)
	}
	return slices.Concat(mac, mustMAC(peerMAC), []byte{0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(body)), unix.IPPROTO_ICMPV6, 255}, s, d, body)
}

// solicit asks who has an address.
func solicit(target, from string) []byte {
	a := netip.MustParseAddr(target).As16()
	group := fmt.Sprintf("ff02::1:ff%02x:%02x%02x", a[13], a[14], a[15])
	return ndp(from, group, 135, 0, target, 1)
}

// advert says that somebody with peerMAC has an address.
func advert(target, to string, flags byte) []byte { return ndp(target, to, 136, flags, target, 2) }

// TestWire runs each script on the kernel, in a namespace of its own since addresses
// are the same, and on ours.
func TestWire(t *testing.T) {
	need(t)
	for name, script := range scripts {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			var want, got []string
			var wg sync.WaitGroup
			wg.Go(func() {
				runtime.LockOSThread() // for good: the thread ends with the goroutine
				if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
					t.Error(err)
					return
				}
				want = script(t, onKernel)
			})
			got = script(t, onNetstack)
			wg.Wait()
			if !slices.Equal(got, want) {
				t.Errorf("netstack:\n  %s\nkernel:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
			}
		})
	}
}
