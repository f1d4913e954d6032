// SPDX-License-Identifier: Apache-2.0

// What leads to the host's loopback, and what does not.

package nat

import (
	"net/netip"
	"testing"
)

func TestToHost(t *testing.T) {
	for _, tt := range []struct {
		in, closed, open string // "" is refused
	}{
		{"10.0.2.2", "", "127.0.0.1"},
		{"fd00:2::2", "", "::1"},
		{"10.0.2.3", "", ""},
		{"10.0.2.15", "", ""},
		{"fd00:2::77", "", ""},
		{"127.0.0.1", "", ""},
		{"127.9.9.9", "", ""},
		{"0.0.0.0", "", ""},
		{"0.1.2.3", "", ""},
		{"::", "", ""},
		{"::1", "", ""},
		{"::7f00:1", "", ""},
		{"::ffff:127.0.0.1", "", ""},
		{"::ffff:198.51.100.1", "", ""},
		{"fe80::1", "", ""},
		{"224.0.0.1", "", ""},
		{"ff02::1", "", ""},
		{"255.255.255.255", "", ""},
		{"10.255.0.1", "", "10.255.0.1"}, // on lo, see main_test.go
		{"198.51.100.2", "198.51.100.2", "198.51.100.2"},
		{"2001:db8::2", "2001:db8::2", "2001:db8::2"},
		{"169.254.1.1", "169.254.1.1", "169.254.1.1"},
	} {
		for _, open := range []bool{false, true} {
			want := tt.closed
			if open {
				want = tt.open
			}
			l := &Link{opts: Options{HostLoopback: open}}
			got, ok := l.toHost(netip.MustParseAddr(tt.in))
			if ok != (want != "") || ok && got != netip.MustParseAddr(want) {
				t.Errorf("%s, open %v: got %v %v, want %q", tt.in, open, got, ok, want)
			}
		}
	}
}

func TestToView(t *testing.T) {
	for _, tt := range []struct{ in, closed, open string }{
		{"127.0.0.1", "", "10.0.2.2"},
		{"127.0.0.2", "", ""},
		{"::1", "", "fd00:2::2"},
		{"10.0.2.2", "", ""},
		{"fe80::1%eth0", "fe80::1", "fe80::1"},
		{"198.51.100.2", "198.51.100.2", "198.51.100.2"},
		{"::ffff:198.51.100.2", "198.51.100.2", "198.51.100.2"},
	} {
		for _, open := range []bool{false, true} {
			want := tt.closed
			if open {
				want = tt.open
			}
			l := &Link{opts: Options{HostLoopback: open}}
			got, ok := l.toView(netip.MustParseAddr(tt.in))
			if ok != (want != "") || ok && got != netip.MustParseAddr(want) {
				t.Errorf("%s, open %v: got %v %v, want %q", tt.in, open, got, ok, want)
			}
		}
	}
}
