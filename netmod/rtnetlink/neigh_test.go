// SPDX-License-Identifier: Apache-2.0

// Neighbours, asked of the kernel and of us, with and without link addresses.

package rtnetlink

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// neighReq is a request about a neighbour; lladdr "-" is none.
func neighReq(typ, flags uint16, index int, addr, lladdr string, state uint16, ntf uint8, attrs ...[]byte) []byte {
	a := netip.MustParseAddr(addr)
	parts := [][]byte{{byte(familyOf(a)), 0, 0, 0}, u32(uint32(index)), {byte(state), byte(state >> 8), ntf, 0}, attribute(unix.NDA_DST, a.AsSlice())}
	if lladdr != "-" {
		mac, err := net.ParseMAC(lladdr)
		if err != nil {
			mac = net.HardwareAddr(lladdr)
		}
		parts = append(parts, attribute(unix.NDA_LLADDR, mac))
	}
	return message(typ, flags, 1, append(parts, attrs...)...)
}

func TestKernelNeighbours(t *testing.T) {
	elsewhere(t)
	for line := range strings.Lines(`ip link set lo up
		ip link add name eth1 index 3 address 02:00:00:00:00:01 type veth peer name eth2 index 4 address 02:00:00:00:00:02
		ip address add 10.7.0.2/24 dev tun0
		ip address add 192.0.2.5/24 dev eth1
		ip link set tun0 up
		ip link set eth1 up
		ip link set eth2 up`) {
		if out, err := exec.Command(strings.Fields(line)[0], strings.Fields(line)[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%s: %v: %s", line, err, out)
		}
	}
	s := twin()
	s.Interfaces, s.Routes = slices.Clone(s.Interfaces[:4]), nil
	const lo, tun, eth = 1, 2, 3
	const mac, other = "02:00:00:00:00:77", "02:00:00:00:00:78"
	const newN, delN = unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH
	const permanent = unix.NUD_PERMANENT
	k := newKernelSocket(t, Options{ExtAck: true})
	for _, step := range []struct {
		name string
		req  []byte
	}{
		{"Ethernet", neighReq(newN, add, eth, "192.0.2.9", mac, permanent, 0)},
		{"again", neighReq(newN, add, eth, "192.0.2.9", mac, permanent, 0)},
		{"again, not exclusive", neighReq(newN, prepend, eth, "192.0.2.9", other, permanent, 0)},
		{"replaced", neighReq(newN, replace, eth, "192.0.2.9", other, permanent, 0)},
		{"changed", neighReq(newN, modify, eth, "192.0.2.9", mac, permanent, unix.NTF_ROUTER)},
		{"changed without address", neighReq(newN, modify, eth, "192.0.2.9", "-", permanent, 0)},
		{"of nowhere", neighReq(newN, add, eth, "203.0.113.9", mac, permanent, 0)},
		{"change what is not there", neighReq(newN, modify, eth, "192.0.2.10", mac, permanent, 0)},
		{"without link address", neighReq(newN, add, eth, "192.0.2.11", "-", permanent, 0)},
		{"with a short one", neighReq(newN, add, eth, "192.0.2.11", "abc", permanent, 0)},
		{"with a long one", neighReq(newN, add, eth, "192.0.2.12", "abcdefgh", permanent, 0)},
		{"own address", neighReq(newN, add, eth, "192.0.2.5", mac, permanent, 0)},
		{"IPv6", neighReq(newN, add, eth, "fd00::9", mac, permanent, unix.NTF_ROUTER)},
		{"protocol", neighReq(newN, add, eth, "fd00::10", mac, permanent, 0, attribute(ndaProtocol, []byte{9}))},
		{"no interface", neighReq(newN, add, 0, "192.0.2.9", mac, permanent, 0)},
		{"wrong interface", neighReq(newN, add, 77, "192.0.2.9", mac, permanent, 0)},
		{"delete on no interface", neighReq(delN, plain, 0, "192.0.2.9", "-", 0, 0)},
		{"delete", neighReq(delN, plain, eth, "192.0.2.9", "-", 0, 0)},
		{"delete again", neighReq(delN, plain, eth, "192.0.2.9", "-", 0, 0)},
		{"delete a proxy", neighReq(delN, plain, eth, "fd00::9", "-", 0, unix.NTF_PROXY)},
		{"TUN", neighReq(newN, add, tun, "10.7.0.9", "-", permanent, 0)},
		{"another", neighReq(newN, add, tun, "10.7.0.10", mac, permanent, 0)},
		{"replace", neighReq(newN, replace, tun, "10.7.0.10", mac, unix.NUD_STALE, 0)},
		{"delete what was asked for", neighReq(delN, plain, tun, "10.7.0.9", "-", 0, 0)},
		{"delete what there is", neighReq(delN, plain, tun, "0.0.0.0", "-", 0, 0)},
		{"IPv6 on a TUN", neighReq(newN, add, tun, "fd07::9", "-", permanent, 0)},
		{"IPv6 on a TUN, with address", neighReq(newN, add, tun, "fd07::10", mac, unix.NUD_REACHABLE, 0)},
		{"IPv6 on a TUN, failed", neighReq(newN, add, tun, "fd07::11", "-", unix.NUD_FAILED, 0)},
		{"IPv6 on a TUN, deleted", neighReq(delN, plain, tun, "fd07::10", "-", 0, 0)},
		{"lo", neighReq(newN, add, lo, "127.0.0.9", mac, permanent, 0)},
		{"TUN down", down(tun)},
		{"TUN while down", neighReq(newN, add, tun, "10.7.0.9", "-", permanent, 0)},
		{"TUN up", up(tun)},
		{"Ethernet down", down(eth)},
	} {
		want := errnoIn(k.answer(t, step.req))
		got := errnoIn(Options{ExtAck: true}.Serve(s, func(next stacks.State, _ Origin) error {
			next.Neighbours = slices.DeleteFunc(next.Neighbours, func(n stacks.Neighbour) bool { return n.State == unix.NUD_NONE })
			s = next
			return nil
		}, step.req, k.port))
		if fmt.Sprint(want) != fmt.Sprint(got) {
			t.Errorf("%s: kernel %v, ours %v", step.name, want, got)
		}
		for what, req := range map[string][]byte{
			"all": message(unix.RTM_GETNEIGH, requestD, 9, make([]byte, 12)), "of IPv6": message(unix.RTM_GETNEIGH, requestD, 9, append([]byte{unix.AF_INET6}, make([]byte, 11)...)),
			"of one": message(unix.RTM_GETNEIGH, requestD, 9, make([]byte, 12), attribute(unix.NDA_IFINDEX, u32(eth))),
			"one":    neighReq(unix.RTM_GETNEIGH, request1, eth, "fd00::9", "-", 0, 0),
		} {
			kernel, ours := seenNeighbours(t, k.answer(t, req)), seenNeighbours(t, Answer(s, req, k.port))
			if d := cmp.Diff(kernel, ours); d != "" {
				t.Errorf("%s: %s: -kernel +ours\n%s", step.name, what, d)
			}
		}
		if t.Failed() {
			return // what follows would only repeat it
		}
	}
}

// seenNeighbours is a dump without what the kernel makes for itself.
func seenNeighbours(t *testing.T, datagrams [][]byte) (out []string) {
	t.Helper()
	for _, m := range decode(t, datagrams) {
		if m.Type == unix.RTM_NEWNEIGH {
			if state := m.Fixed[16:18]; state == "40" || state == "00" { // NUD_NOARP: groups; NUD_NONE: of a request that failed
				continue
			}
			out = append(out, fmt.Sprint(m.Flags, " ", m.Fixed, m.Attrs[unix.NDA_DST], " lladdr ", m.Attrs[unix.NDA_LLADDR], " by ", m.Attrs[ndaProtocol]))
		}
	}
	slices.Sort(out)
	return out
}
