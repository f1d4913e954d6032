// SPDX-License-Identifier: Apache-2.0

// The tests run in a network namespace of their own, whose kernel is the peer:
//
//	netstack 10.7.N.2, fd07:N::2 --[Link]-- tapN or tunN 10.7.N.1, fd07:N::1 kernel

package tap_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"umrun/netmod/nlmsg/nstest"
)

func TestMain(m *testing.M) { os.Exit(nstest.Run(m)) }

// need skips a test where devices cannot be made.
func need(t testing.TB) {
	t.Helper()
	nstest.Need(t)
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no TUN device can be made here: " + err.Error())
	}
	f.Close()
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0); err != nil {
		t.Fatal(err)
	}
}

// ip runs commands of ip(8).
func ip(t testing.TB, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", line, err, out)
		}
	}
}
