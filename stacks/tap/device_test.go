// SPDX-License-Identifier: Apache-2.0

// Which devices are opened, and what is said of the others.

package tap_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/tap"
)

func TestExisting(t *testing.T) {
	need(t)
	ip(t, "tuntap add dev have mode tap", "link set have mtu 1300", "tuntap add dev many mode tap multi_queue", "link set many up")
	l, err := tap.Open(tap.Options{Name: "have", Type: stacks.LinkEthernet, MTU: 9000})
	if err != nil {
		t.Fatal(err)
	}
	if l.MTU() != 1300 || l.Up() || l.Name() != "have" || l.Type() != stacks.LinkEthernet {
		t.Errorf("MTU %d, up %t, name %s", l.MTU(), l.Up(), l.Name())
	}
	if _, err := tap.Open(tap.Options{Name: "have", Type: stacks.LinkEthernet}); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a second time: %v", err)
	}
	l.Close()
	if _, err := net.InterfaceByName("have"); err != nil {
		t.Error("a device of somebody else's is gone")
	}
	if l, err = tap.Open(tap.Options{Name: "many", Type: stacks.LinkEthernet}); err != nil {
		t.Fatalf("with several queues: %v", err)
	}
	if !l.Up() {
		t.Error("the device is not up")
	}
	l.Close()
}

// TestAtOnce: what is sent by a device that was there is not lost, from the moment it is
// attached to. The kernel sends by it when a worker has seen the carrier come, which waits
// for whoever changes another device.
func TestAtOnce(t *testing.T) {
	need(t)
	if before(t, 6, 8) {
		t.Skip("Linux before 6.8 cannot be asked to see to the carrier at once")
	}
	others := exec.Command("sh", "-c", "while ip link add other type veth peer name another && ip link del other; do :; done")
	if err := others.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = others.Process.Kill(), others.Wait() })
	const rounds = 40
	lost := 0
	for range rounds { // one that had its carrier a moment ago would still send
		ip(t, "tuntap add dev again mode tun", "addr add 10.8.0.1/24 dev again", "link set again up")
		if !arrives(t, "again", "10.8.0.2:9") {
			lost++
		}
		ip(t, "link del again")
	}
	if lost > 0 {
		t.Errorf("%d of %d datagrams are lost", lost, rounds)
	}
}

// before reports whether the kernel is older than a release.
func before(t *testing.T, major, minor int) bool {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var is [2]int
	release := unix.ByteSliceToString(u.Release[:])
	if _, err := fmt.Sscanf(release, "%d.%d", &is[0], &is[1]); err != nil {
		t.Fatalf("release %q: %v", release, err)
	}
	return slices.Compare(is[:], []int{major, minor}) < 0
}

// arrives reports whether a datagram comes by a TUN device that is opened just before.
func arrives(t *testing.T, device, to string) bool {
	l, err := tap.Open(tap.Options{Name: device, Type: stacks.LinkIP})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("udp4", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("at once")); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(200*time.Millisecond, func() { l.Close() }).Stop()
	bufs, sizes := [][]byte{make([]byte, stacks.MaxPacket)}, make([]int, 1)
	for {
		n, err := l.Read(bufs, sizes)
		if err != nil {
			return false
		}
		if n > 0 && bytes.HasSuffix(bufs[0][:sizes[0]], []byte("at once")) {
			return true
		}
	}
}

func TestRefused(t *testing.T) {
	need(t)
	ip(t, "tuntap add dev atap mode tap", "tuntap add dev atun mode tun", "link add abridge type bridge")
	for _, tt := range []struct {
		name string
		typ  stacks.LinkType
		err  error
		text string
	}{
		{"", stacks.LinkIP, unix.EINVAL, "no name of a device"},
		{"sixteen-bytes-xx", stacks.LinkIP, unix.EINVAL, "no name of a device"},
		{"a/b", stacks.LinkIP, unix.EINVAL, "no name of a device"},
		{"tap%d", stacks.LinkEthernet, unix.EINVAL, "no name of a device"},
		{"atap", stacks.LinkIP, unix.EINVAL, "atap is a TAP device, no TUN"},
		{"atun", stacks.LinkEthernet, unix.EINVAL, "atun is a TUN device, no TAP"},
		{"abridge", stacks.LinkEthernet, unix.EINVAL, "abridge is no TAP device"},
		{"lo", stacks.LinkIP, unix.EINVAL, "lo is no TUN device"},
	} {
		_, err := tap.Open(tap.Options{Name: tt.name, Type: tt.typ})
		var r *tap.Refusal
		if !errors.As(err, &r) || !errors.Is(err, tt.err) || !strings.Contains(r.What, tt.text) {
			t.Errorf("%q: %v, want %q", tt.name, err, tt.text)
		}
	}
}
