// SPDX-License-Identifier: Apache-2.0

// The table of stand-ins.

package proxy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// TestStandIns: every number of every part has its own address in both ranges, and
// back.
func TestStandIns(t *testing.T) {
	for _, parts := range []int{1, 3, MaxParts} {
		seen := make(map[netip.Addr]bool)
		for part, n := range NewNames(parts) {
			for i := 0; i < n.max; i += 1 + i%13 {
				for j, a := range n.addrs(i) {
					if got, ok := n.index(a); !ok || got != i {
						t.Fatalf("%d: %v is %d, %v", i, a, got, ok)
					}
					if !n.Ranges()[j].Contains(a) || !StandIns4.Contains(a) && !StandIns6.Contains(a) || seen[a] {
						t.Fatalf("%d of part %d: %v", i, part, a)
					}
					seen[a] = true
				}
			}
		}
		if most := 512 * perOctet / parts; NewNames(parts)[0].max > most || NewNames(parts)[0].max <= most/2 {
			t.Errorf("%d parts have %d stand-ins each", parts, NewNames(parts)[0].max)
		}
	}
	n := NewNames(1)[0]
	for _, s := range []string{"198.18.0.0", "198.18.0.255", "198.19.255.255", "fd00:198:18::", "fd00:198:18::c612:0", "fd00:198:18::7f00:1", "198.20.0.1"} {
		if i, ok := n.index(netip.MustParseAddr(s)); ok {
			t.Errorf("%s is the stand-in %d", s, i)
		}
	}
}

// TestParts: an address is of one table, and all know what it stands for.
func TestParts(t *testing.T) {
	all := NewNames(3)
	for i, n := range all {
		name := fmt.Sprintf("far-%d.example", i)
		for j, a := range n.Addrs(name) {
			for k, o := range all {
				if got, ok := o.Name(a); got != name || !ok || o.Ranges()[j].Contains(a) != (i == k) {
					t.Errorf("%v of table %d to %d: %q, %v", a, i, k, got, ok)
				}
			}
		}
	}
}

// TestNames: a name keeps its addresses while there is room, and what was not used
// for longest goes first.
func TestNames(t *testing.T) {
	n := NewNames(1)[0]
	n.max = 100
	first := n.Addrs("host-0.example")
	for i := range 1000 {
		name := fmt.Sprintf("host-%d.example", i)
		addrs := n.Addrs(name)
		for _, a := range addrs {
			if got, ok := n.Name(a); got != name || !ok {
				t.Fatalf("%v stands for %q, %v, want %q", a, got, ok, name)
			}
		}
		if got := n.Addrs(name); got[0] != addrs[0] || got[1] != addrs[1] {
			t.Fatalf("%s had %v, has %v", name, addrs, got)
		}
		// The first one is connected to from time to time, and stays.
		if got, _ := n.Name(first[i%2]); got != "host-0.example" {
			t.Fatalf("after %d names %v stands for %q", i, first[i%2], got)
		}
	}
	if len(n.byName) != n.max || len(n.byIndex) != n.max || n.used.Len() != n.max {
		t.Errorf("%d names, %d numbers, %d used, of %d", len(n.byName), len(n.byIndex), n.used.Len(), n.max)
	}
	if name, ok := n.Name(netip.MustParseAddr("192.0.2.1")); ok || name != "" {
		t.Errorf("192.0.2.1 stands for %q", name)
	}
	if name, ok := n.Name(netip.MustParseAddr("198.18.200.1")); !ok || name != "" {
		t.Errorf("198.18.200.1: %q, %v", name, ok)
	}
}

func TestHostName(t *testing.T) {
	for _, s := range []string{"a", "a.example", "xn--bcher-kva.example", "bücher.example", "_sip._tcp.a", "3com.example", "1.2.3.4.x", strings.Repeat("a.", 126) + "a"} {
		if !hostName(s) {
			t.Errorf("%q is no name", s)
		}
	}
	for _, s := range []string{"", ".", "a.", ".a", "a..b", "a b", "a/b", "A", `a\.b`, "a:1", "a@b", "a\r\nb", "192.0.2.1", "1", strings.Repeat("a", 64), strings.Repeat("a.", 127) + "a"} {
		if hostName(s) {
			t.Errorf("%q is a name", s)
		}
	}
}
