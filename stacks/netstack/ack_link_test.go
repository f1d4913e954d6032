// SPDX-License-Identifier: Apache-2.0

// Tests of delayed acknowledgements between two stacks.

package netstack_test

import (
	"bytes"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"umrun/stacks"
	"umrun/stacks/pipe"
)

// TestAcksOnTheWire counts the segments of round trips: each way one, and nothing
// beside them. A byte that is not answered is acknowledged soon.
func TestAcksOnTheWire(t *testing.T) {
	var data, alone atomic.Int64
	tap := func(l stacks.Link) stacks.Link {
		return &tapLink{Link: l, f: func(p []byte) [][]byte {
			if ip := header.IPv4(p); header.IPVersion(p) == header.IPv4Version && ip.Protocol() == 6 {
				if tcp := header.TCP(ip.Payload()); len(tcp.Payload()) > 0 {
					data.Add(1)
				} else if tcp.Flags() == header.TCPFlagAck {
					alone.Add(1)
				}
			}
			return [][]byte{p}
		}}
	}
	client, server := connectPair(t, pipe.Config{}, func(a, b stacks.Link) (stacks.Link, stacks.Link) { return tap(a), tap(b) })
	const rounds = 200
	say := func(from, to *blocker) {
		t.Helper()
		if err := from.sendAll([]byte("x")); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := to.recvSome(&b, 1); err != nil || b.String() != "x" {
			t.Fatal(b.String(), err)
		}
	}
	for range rounds {
		say(client, server)
		say(server, client)
	}
	if n := data.Load(); n != 2*rounds {
		t.Errorf("%d segments with data in %d round trips", n, rounds)
	}
	if n := alone.Load(); n > rounds/4 { // a slow machine lets some expire
		t.Errorf("%d segments with nothing but an acknowledgement in %d round trips", n, rounds)
	}

	start := time.Now()
	say(client, server)
	await(t, func() bool {
		n, _ := client.StreamSocket.(stacks.Unacked).Unacked()
		return n == 0
	})
	if d := time.Since(start); d > 500*time.Millisecond { // RFC 9293, 3.8.6.3
		t.Errorf("a byte was acknowledged after %v", d)
	}
}
