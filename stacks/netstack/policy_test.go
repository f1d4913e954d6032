// SPDX-License-Identifier: Apache-2.0

// Rules that choose among two links, seen by what comes out of each.

package netstack_test

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/netstack"
	"umrun/stacks/pipe"
)

// A far end of a link counts what comes, and answers nothing.
type farEnd struct {
	*pipe.End
	came chan []byte
}

func newFarEnd(t *testing.T) (near *pipe.End, far *farEnd) {
	near, end := pipe.New(pipe.Config{})
	far = &farEnd{end, make(chan []byte, 1000)} // more than any test sends
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf, size := [][]byte{make([]byte, stacks.MaxPacket)}, make([]int, 1)
		for {
			n, err := end.Read(buf, size)
			if err != nil {
				return
			}
			if n == 1 && buf[0][0]>>4 == 4 { // IPv6 has groups to join
				far.came <- append([]byte(nil), buf[0][:size[0]]...)
			}
		}
	}()
	t.Cleanup(func() {
		end.Close()
		<-done
	})
	return near, far
}

// drain is how many packets came, for a destination.
func (f *farEnd) drain(to netip.Addr) (n int) {
	for {
		select {
		case p := <-f.came:
			if netip.AddrFrom4([4]byte(p[16:20])) == to {
				n++
			}
		case <-time.After(50 * time.Millisecond): // what is not to come
			return n
		}
	}
}

func TestRulesSteer(t *testing.T) {
	aNear, a := newFarEnd(t)
	bNear, b := newFarEnd(t)
	s, err := netstack.New(netstack.Config{Links: []stacks.LinkConfig{
		{Name: "a", Link: aNear, Addrs: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24"), netip.MustParsePrefix("10.1.0.2/24")}, Routes: []stacks.Route{{Dst: netip.MustParsePrefix("0.0.0.0/0")}}},
		{Name: "b", Link: bNear, Addrs: []netip.Prefix{netip.MustParsePrefix("10.2.0.1/24")}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	to := netip.MustParseAddrPort("203.0.113.9:9")
	nowhere := netip.MustParseAddrPort("198.51.100.9:9")
	set := func(f func(st *stacks.State)) {
		t.Helper()
		if err := change(t, s, f); err != nil {
			t.Fatal(err)
		}
	}
	rule := func(r stacks.Rule) stacks.Rule {
		r.Family, r.SuppressLen, r.SuppressGroup = unix.AF_INET, -1, -1
		return r
	}
	set(func(st *stacks.State) {
		st.Routes = append(st.Routes, stacks.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), IfIndex: 3, Table: 100})
		st.Rules = append([]stacks.Rule{
			rule(stacks.Rule{Mark: 7, Mask: 0xff, Action: stacks.RuleToTable, Table: 100}),
			rule(stacks.Rule{Mark: 8, Mask: 0xff, Action: stacks.RuleProhibit}),
			rule(stacks.Rule{Dst: netip.PrefixFrom(nowhere.Addr(), 32), Action: stacks.RuleUnreachable}),
		}, stacks.DefaultRules()...)
	})
	mark := func(s stacks.Socket, v uint32) {
		t.Helper()
		if err := s.SetOption(unix.SOL_SOCKET, unix.SO_MARK, binary.NativeEndian.AppendUint32(nil, v)); err != nil {
			t.Fatal(err)
		}
	}
	for _, kind := range []struct {
		name       string
		typ, proto int
		connected  bool
	}{
		{"sendto", unix.SOCK_DGRAM, 0, false}, {"connected", unix.SOCK_DGRAM, 0, true}, {"tcp", unix.SOCK_STREAM, 0, true}, {"raw", unix.SOCK_RAW, 253, false},
		{"with its header", unix.SOCK_RAW, unix.IPPROTO_RAW, false},
	} {
		for _, c := range []struct {
			mark uint32
			want error
			link *farEnd
		}{{0, nil, a}, {7, nil, b}, {8, unix.EACCES, nil}} {
			u, err := s.Socket(unix.AF_INET, kind.typ, kind.proto)
			if err != nil {
				t.Fatal(err)
			}
			mark(u, c.mark)
			if kind.connected {
				if err = u.Connect(to); errors.Is(err, unix.EINPROGRESS) {
					err = nil
				}
			}
			if err == nil && kind.typ != unix.SOCK_STREAM {
				m := stacks.Message{TTL: -1, TOS: -1}
				if !kind.connected {
					m.Peer = netip.AddrPortFrom(to.Addr(), to.Port())
				}
				body := []byte("x")
				if kind.proto == unix.IPPROTO_RAW {
					ip := to.Addr().As4()
					body = append([]byte{0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 0, 0, 0, 0}, ip[:]...)
				}
				err = u.(stacks.PacketSocket).SendMsg(body, m)
			}
			if !errors.Is(err, c.want) {
				t.Errorf("%s with mark %d: %v, want %v", kind.name, c.mark, err, c.want)
			}
			for name, l := range map[string]*farEnd{"a": a, "b": b} {
				want := 0
				if l == c.link {
					want = 1
				}
				if got := l.drain(to.Addr()); got != want {
					t.Errorf("%s with mark %d: %d packets by %s, want %d", kind.name, c.mark, got, name, want)
				}
			}
			if st, ok := u.(stacks.StreamSocket); ok {
				st.Abort()
			}
			u.Close()
		}
	}

	// A route of another table that is shorter, by the same interface, from another address.
	set(func(st *stacks.State) {
		st.Routes = append(st.Routes,
			stacks.Route{Dst: netip.MustParsePrefix("203.0.113.0/24"), IfIndex: 2, Src: netip.MustParseAddr("10.1.0.1")},
			stacks.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), IfIndex: 2, Src: netip.MustParseAddr("10.1.0.2"), Table: 101})
		st.Rules = append([]stacks.Rule{rule(stacks.Rule{Mark: 9, Mask: 0xff, Action: stacks.RuleToTable, Table: 101})}, st.Rules...)
	})
	for m, want := range map[uint32]string{0: "10.1.0.1", 9: "10.1.0.2"} {
		for _, typ := range []int{unix.SOCK_DGRAM, unix.SOCK_STREAM} {
			u, err := s.Socket(unix.AF_INET, typ, 0)
			if err != nil {
				t.Fatal(err)
			}
			mark(u, m)
			if err := u.Connect(to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
				t.Fatal(err)
			}
			if local, _ := u.Names(); local.Addr().String() != want {
				t.Errorf("type %d with mark %d is sent from %v, want %s", typ, m, local, want)
			}
			u.Close()
		}
	}
	a.drain(to.Addr())

	// A connected socket follows rules that come later.
	u, err := s.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if err := u.Connect(to); err != nil {
		t.Fatal(err)
	}
	mark(u, 7)
	// Its address is a's, and gVisor sends nothing of that by b.
	if err := u.(stacks.PacketSocket).SendMsg([]byte("x"), stacks.Message{TTL: -1, TOS: -1}); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("with another mark: %v", err)
	}
	if a.drain(to.Addr())+b.drain(to.Addr()) != 0 {
		t.Error("a datagram with another mark left")
	}
	mark(u, 0)
	if err := u.(stacks.PacketSocket).SendMsg([]byte("x"), stacks.Message{TTL: -1, TOS: -1}); err != nil || a.drain(to.Addr()) != 1 {
		t.Errorf("with its old mark: %v", err)
	}

	// A handshake under way does not go on where a rule has come to forbid it, nor by
	// another interface.
	syn, err := s.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syn.Close()
	if err := syn.Connect(to); !errors.Is(err, unix.EINPROGRESS) {
		t.Fatal(err)
	}
	if n := a.drain(to.Addr()); n != 1 {
		t.Fatalf("%d segments", n)
	}
	mark(syn, 8)
	deadline := time.Now().Add(1500 * time.Millisecond) // the second SYN goes after one
	for time.Now().Before(deadline) {
		if a.drain(to.Addr())+b.drain(to.Addr()) > 0 {
			t.Fatal("the connection went on")
		}
	}

	// With an interface and without a route a destination is believed to be on the link.
	for _, want := range []error{unix.ENETUNREACH, nil} {
		m := stacks.Message{Peer: nowhere, TTL: -1, TOS: -1}
		if want == nil {
			m.IfIndex = 3
		}
		v, err := s.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.(stacks.PacketSocket).SendMsg([]byte("x"), m); !errors.Is(err, want) {
			t.Errorf("interface %d: %v, want %v", m.IfIndex, err, want)
		}
		v.Close()
	}
	if a, b := a.drain(nowhere.Addr()), b.drain(nowhere.Addr()); a != 0 || b != 1 {
		t.Errorf("%d and %d packets on the link, want 0 and 1", a, b)
	}
	// Nothing of that stays.
	if err := sends(t, s, nowhere, netip.AddrPort{}); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("without an interface: %v", err)
	}

	// What is cut into fragments keeps the interface that its socket has chosen.
	set(func(st *stacks.State) {
		st.Rules = append([]stacks.Rule{rule(stacks.Rule{Dst: netip.PrefixFrom(to.Addr(), 32), Action: stacks.RuleToTable, Table: 100})}, stacks.DefaultRules()...)
	})
	large, err := s.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer large.Close()
	if err := large.SetOption(unix.SOL_SOCKET, unix.SO_BINDTODEVICE, []byte("a\x00")); err != nil {
		t.Fatal(err)
	}
	if err := large.(stacks.PacketSocket).SendMsg(make([]byte, 4000), stacks.Message{Peer: to, TTL: -1, TOS: -1}); err != nil {
		t.Fatal(err)
	}
	if a, b := a.drain(to.Addr()), b.drain(to.Addr()); a < 2 || b != 0 {
		t.Errorf("%d and %d fragments, want some and none", a, b)
	}
}

// TestRulesGateway: a rule leads to another gateway on the same link, which is then the
// one that is asked for.
func TestRulesGateway(t *testing.T) {
	near, far := pipe.New(pipe.Config{Ethernet: true})
	asked := make(chan netip.Addr, 1000) // more than there are
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf, size := [][]byte{make([]byte, stacks.MaxPacket)}, make([]int, 1)
		for {
			n, err := far.Read(buf, size)
			if err != nil {
				return
			}
			if b := buf[0][:size[0]]; n == 1 && len(b) >= 42 && binary.BigEndian.Uint16(b[12:]) == 0x0806 {
				asked <- netip.AddrFrom4([4]byte(b[38:42]))
			}
		}
	}()
	t.Cleanup(func() {
		far.Close()
		<-done
	})
	all := netip.MustParsePrefix("0.0.0.0/0")
	gateway := netip.MustParseAddr
	s, err := netstack.New(netstack.Config{Links: []stacks.LinkConfig{
		{Name: "e", Link: near, Addrs: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24")}, Routes: []stacks.Route{{Dst: all, Gateway: gateway("10.1.0.254")}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := change(t, s, func(st *stacks.State) {
		st.Routes = append(st.Routes, stacks.Route{Dst: all, Gateway: gateway("10.1.0.253"), IfIndex: 2, Table: 100})
		st.Rules = append([]stacks.Rule{{Family: unix.AF_INET, DPort: stacks.Ports{First: 53, Last: 53, Mask: 0xffff},
			Action: stacks.RuleToTable, Table: 100, SuppressLen: -1, SuppressGroup: -1}}, stacks.DefaultRules()...)
	}); err != nil {
		t.Fatal(err)
	}
	for port, want := range map[uint16]string{53: "10.1.0.253", 54: "10.1.0.254"} {
		if err := sends(t, s, netip.AddrPortFrom(netip.MustParseAddr("203.0.113.9"), port), netip.AddrPort{}); err != nil {
			t.Fatal(err)
		}
		await(t, func() bool {
			for {
				select {
				case a := <-asked:
					if a == gateway(want) {
						return true
					}
				default:
					return false
				}
			}
		})
	}
}
