// SPDX-License-Identifier: Apache-2.0

// Interfaces that come and go.

package netstack_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/netstack"
	"umrun/stacks/pipe"
)

// TestAttach gives a stack without links one, takes it away, and gives it another.
func TestAttach(t *testing.T) {
	st, err := netstack.New(netstack.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	heard := make(chan struct{}, 100)
	defer st.Notify(func() { heard <- struct{}{} })()
	peer := netip.MustParseAddrPort("10.9.0.2:9")

	var last int
	for _, kind := range []pipe.Config{{}, {Ethernet: true}, {}} {
		near, far := pipe.New(kind)
		defer far.Close()
		index, err := st.Attach(stacks.LinkConfig{Name: "tun0", Link: near})
		if err != nil {
			t.Fatal(err)
		}
		<-heard
		if index <= last {
			t.Errorf("index %d after %d: it is not to be given twice", index, last)
		}
		last = index
		other, unused := pipe.New(kind)
		if _, err := st.Attach(stacks.LinkConfig{Name: "tun0", Link: other}); !errors.Is(err, unix.EEXIST) {
			t.Errorf("the same name again: %v", err)
		}
		unused.Close()
		ifc := st.State().Interfaces[1]
		if ifc.Name != "tun0" || ifc.Index != index || ifc.Up {
			t.Errorf("interface %+v; a new one is down", ifc)
		}
		if err := sends(t, st, peer, netip.AddrPort{}); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("send while it is down: %v", err)
		}
		if err := change(t, st, func(s *stacks.State) {
			s.Interfaces[1].Up = true
			s.Interfaces[1].Addrs = append(s.Interfaces[1].Addrs, netip.MustParsePrefix("10.9.0.1/24"))
			s.Routes = append(s.Routes, stacks.Route{Dst: netip.MustParsePrefix("10.9.0.0/24"), IfIndex: index})
		}); err != nil {
			t.Fatal(err)
		}
		if err := sends(t, st, peer, netip.AddrPort{}); err != nil {
			t.Errorf("send: %v", err)
		}
		if !arrives(far, []byte{10, 9, 0, 2}) {
			t.Error("nothing about 10.9.0.2 came out of the link")
		}
		if err := st.Detach(index); err != nil {
			t.Fatal(err)
		}
		if n := len(st.State().Interfaces); n != 1 || len(st.State().Routes) != 0 {
			t.Errorf("left behind: %+v", st.State())
		}
		if err := sends(t, st, peer, netip.AddrPort{}); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("send when it is gone: %v", err)
		}
		if err := st.Detach(index); !errors.Is(err, unix.ENODEV) {
			t.Errorf("detach twice: %v", err)
		}
	}
}

// arrives waits for a packet that holds b.
func arrives(l stacks.Link, b []byte) bool {
	defer time.AfterFunc(5*time.Second, func() { l.Close() }).Stop()
	bufs, sizes := [][]byte{make([]byte, stacks.MaxPacket)}, []int{0}
	for {
		n, err := l.Read(bufs, sizes)
		if err != nil {
			return false
		}
		for i := range n {
			p := bufs[i][:sizes[i]]
			for len(p) >= len(b) {
				if string(p[:len(b)]) == string(b) {
					return true
				}
				p = p[1:]
			}
		}
	}
}
