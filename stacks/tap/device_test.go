// SPDX-License-Identifier: Apache-2.0

// Which devices are opened, and what is said of the others.

package tap_test

import (
	"errors"
	"net"
	"strings"
	"testing"

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
