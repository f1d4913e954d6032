// SPDX-License-Identifier: Apache-2.0

// The kill switch: what is for one network never leaves by another, whatever becomes of
// the first.

package multihome_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/multihome"
)

// A sink counts what arrives at the far end of a network, by destination.
type sink struct {
	mu   sync.Mutex
	seen map[netip.Addr]int
}

func newSink(t *testing.T, s side) *sink {
	k := &sink{seen: make(map[netip.Addr]int)}
	t.Cleanup(s.far.Tap(func(f *stacks.Frame) {
		var dst netip.Addr
		switch {
		case f.Outgoing:
			return
		case f.Proto == unix.ETH_P_IP:
			dst = netip.AddrFrom4([4]byte(f.Data[16:]))
		case f.Proto == unix.ETH_P_IPV6:
			dst = netip.AddrFrom16([16]byte(f.Data[24:]))
		}
		k.mu.Lock()
		k.seen[dst]++
		k.mu.Unlock()
	}))
	return k
}

func (k *sink) count(a netip.Addr) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.seen[a]
}

func TestKillSwitch(t *testing.T) {
	deaths := map[string]func(w *world){
		"the link is closed":   func(w *world) { w.b.link.Close() },
		"the stack is closed":  func(w *world) { w.b.near.Close() },
		"the peer goes silent": func(w *world) { w.b.far.Close() },
		"its routes are gone": func(w *world) {
			st := w.b.near.State().Clone()
			st.Routes = nil
			if err := w.b.near.SetState(st); err != nil {
				panic(err)
			}
		},
		"its addresses are gone": func(w *world) {
			st := w.b.near.State().Clone()
			st.Routes, st.Interfaces[1].Addrs = nil, nil
			if err := w.b.near.SetState(st); err != nil {
				panic(err)
			}
		},
		"a program takes all away": func(w *world) {
			st := w.st.State().Clone()
			st.Routes = slices.DeleteFunc(st.Routes, func(r stacks.Route) bool { return r.IfIndex == 3 })
			st.Interfaces[2].Up, st.Interfaces[2].Addrs = false, nil
			if err := w.st.SetState(st); err != nil {
				panic(err)
			}
		},
		"its interface is down": func(w *world) {
			st := w.b.near.State().Clone()
			st.Interfaces[1].Up = false
			if err := w.b.near.SetState(st); err != nil {
				panic(err)
			}
		},
	}
	for name, die := range deaths {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "203.0.113.0/24=b", ":2000=b", "uid=7=b", "*.corp.example=b", "2001:db8::/32=b")
			w.serve(t, 1000)
			leaks := newSink(t, w.a)
			// All that is for b: by its own prefix, by a rule about the address, the port,
			// a name, the family.
			named := addr("198.51.100.99")
			w.table.Learn([]string{"wiki.corp.example"}, named, time.Minute)
			for4, for6 := []netip.AddrPort{
				to("10.2.0.2", 1000), to("10.2.0.77", 1000), to("203.0.113.9", 1000), to("192.0.2.55", 2000),
				netip.AddrPortFrom(named, 1000), to("10.2.0.255", 1000),
			}, []netip.AddrPort{to("fd02::2", 1000), to("2001:db8::7", 1000)}

			// In the middle of transfers.
			stream := tcp(t, w.st, unix.AF_INET)
			if err := connect(t, stream, to("10.2.0.2", 1000)); err != nil {
				t.Fatal(err)
			}
			dgram := udp(t, w.st, unix.AF_INET)
			if err := dgram.Connect(to("10.2.0.2", 1000)); err != nil {
				t.Fatal(err)
			}
			both := udp(t, w.st, unix.AF_INET)
			send(t, both, "x", to("10.1.0.2", 1000))
			send(t, both, "x", to("10.2.0.2", 1000))
			bound := udp(t, w.st, unix.AF_INET)
			if err := bound.Bind(to("10.2.0.1", 0)); err != nil {
				t.Fatal(err)
			}
			task := func(typ int) stacks.Socket {
				s, err := w.st.SocketFor(stacks.Caller{UID: 7}, unix.AF_INET, typ, 0)
				if err != nil {
					return nil // of a stack that is closed
				}
				t.Cleanup(func() { s.Close() })
				return s
			}
			confined := task(unix.SOCK_DGRAM).(stacks.PacketSocket)
			leaks.mu.Lock()
			clear(leaks.seen)
			leaks.mu.Unlock()

			die(w)
			for range 3 {
				_, _ = stream.Send(bytes.NewReader(make([]byte, 10000)))
				_ = dgram.SendMsg([]byte("x"), stacks.Message{TTL: -1, TOS: -1})
				for _, dst := range for4 {
					for _, s := range []stacks.PacketSocket{both, bound, dgram, confined} {
						_ = s.SetOption(unix.SOL_SOCKET, unix.SO_BROADCAST, []byte{1, 0, 0, 0})
						_ = s.SendMsg([]byte("x"), stacks.Message{Peer: dst, TTL: -1, TOS: -1})
					}
				}
				if s := task(unix.SOCK_STREAM); s != nil {
					if err := s.Connect(to(everywhere, 1000)); err == nil {
						t.Error("a task that is for b has connected")
					}
				}
				for _, dst := range append(for4, for6...) {
					for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_RAW} {
						proto := 0
						if typ == unix.SOCK_RAW {
							proto = 254
						}
						s, err := w.st.Socket(familyOf(dst.Addr()), typ, proto)
						if err != nil {
							continue
						}
						switch s := s.(type) {
						case stacks.StreamSocket:
							if err := s.Connect(dst); err == nil {
								t.Errorf("connected to %s", dst)
							}
						case stacks.PacketSocket:
							_ = s.SendMsg([]byte("x"), stacks.Message{Peer: dst, TTL: -1, TOS: -1})
							_ = s.Connect(dst)
							_ = s.SendMsg([]byte("x"), stacks.Message{TTL: -1, TOS: -1})
						}
						s.Close()
					}
				}
				// A program that names the other network's interface does not get past a rule.
				s := udp(t, w.st, unix.AF_INET)
				err := s.SendMsg([]byte("x"), stacks.Message{Peer: to("203.0.113.9", 1000), IfIndex: 2, TTL: -1, TOS: -1})
				if !errors.Is(err, unix.ENETUNREACH) {
					t.Errorf("past a rule: %v", err)
				}
				time.Sleep(hush / 3)
			}
			for _, dst := range append(for4, for6...) {
				if n := leaks.count(dst.Addr()); n > 0 {
					t.Errorf("%d packets to %s have left by the other network", n, dst)
				}
			}
			if n := leaks.count(addr(everywhere)); n > 0 {
				t.Errorf("%d packets of a task that is for b have left by the other network", n)
			}
			// The sink does see what is for it.
			probe := udp(t, w.st, unix.AF_INET)
			await(t, "a packet at the sink", func() bool {
				send(t, probe, "x", to(everywhere, 1000))
				return leaks.count(addr(everywhere)) > 0
			})
			// And the other network goes on.
			s := tcp(t, w.st, unix.AF_INET)
			if err := connect(t, s, to("10.1.0.2", 1000)); err != nil {
				t.Errorf("the other network: %v", err)
			}
		})
	}
}

// TestNothingLearntMoves: what a network is told at run time draws nothing to it.
func TestNothingLearntMoves(t *testing.T) {
	w := newWorld(t)
	w.serve(t, 1000)
	st := w.b.near.State().Clone()
	for _, p := range []string{"0.0.0.0/1", "128.0.0.0/1", everywhere + "/32", "::/1", "10.1.0.0/25"} {
		st.Routes = append(st.Routes, stacks.Route{Dst: prefix(p), IfIndex: 2})
	}
	// Nor does an address that it is given, which may be taken away again.
	st.Interfaces[1].Addrs = append(st.Interfaces[1].Addrs, prefix("10.1.0.2/32"), prefix(everywhere+"/32"))
	if err := w.b.near.SetState(st); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		for _, dst := range []string{everywhere, "10.1.0.2", "2001:db8::7"} {
			s := udp(t, w.st, familyOf(addr(dst)))
			send(t, s, "x", to(dst, 1000))
			if got, _ := recv(t, s); got != "a:x" {
				t.Errorf("%s: %q", dst, got)
			}
		}
	}
	check()
	// Nor does what it has learnt before the view was made of it.
	w.st = multihome.New(w.table, w.a.near, w.b.near)
	check()
	var v [4]byte
	binary.NativeEndian.PutUint32(v[:], 3)
	s := udp(t, w.st, unix.AF_INET6)
	if err := s.SetOption(unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, v[:]); err != nil {
		t.Fatal(err)
	}
	send(t, s, "x", to("2001:db8::7", 1000)) // a program that asks for it gets it
	if got, _ := recv(t, s); got != "b:x" {
		t.Errorf("by its interface: %q", got)
	}
}
