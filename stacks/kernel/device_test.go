// SPDX-License-Identifier: Apache-2.0

// What moves packets between a device and its link.

package kernel_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"umrun/stacks"
	"umrun/stacks/pipe"
	"umrun/stacks/stacknet"
)

// TestLost: a packet that the link does not take is lost, and the next one is not.
func TestLost(t *testing.T) {
	p := newPair(t, pipe.Config{MTU: 1420}, asNetstack)
	st := p.A.(stacks.Configurer)
	next := p.A.State().Clone()
	at := slices.IndexFunc(next.Interfaces, func(i stacks.Interface) bool { return i.Name == "net0" })
	next.Interfaces[at].MTU = 9000 // more than the link has, as a program may set it
	if err := st.SetState(next); err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(p.B4, 7)
	l, err := stacknet.ListenPacket(p.B, to)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := stacknet.Dial(t.Context(), p.A, "udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, size := range []int{5000, 1} {
		if _, err := c.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // so that they are not lost together
	}
	_ = l.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, _, err := l.ReadFrom(make([]byte, 6000)); err != nil || n != 1 {
		t.Errorf("got %d bytes, %v, want the second datagram", n, err)
	}
}
