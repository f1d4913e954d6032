// SPDX-License-Identifier: Apache-2.0

// ss(8) shows the view's sockets as it shows the kernel's.

package netmod_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { targets["ss"] = ssTarget }

// users is what differs from run to run in the column of ss -p.
var users = regexp.MustCompile(`"[^"]*",pid=\d+,fd`)

// await polls until ok, and ends the target when that takes too long.
func (w *transcript) await(what string, ok func() bool) {
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.say("%s: timed out", what)
			os.Exit(1)
		}
	}
}

// ssTarget makes sockets and has ss look at them. Ports are said by name, since the
// kernel picks them.
func ssTarget(w *transcript) {
	ports := []string{}
	name := func(fd int) {
		sa, err := unix.Getsockname(fd)
		w.must("getsockname", err)
		var port int
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			port = sa.Port
		case *unix.SockaddrInet6:
			port = sa.Port
		}
		ports = append(ports, fmt.Sprintf(":%d", port), fmt.Sprintf(":P%d", len(ports)/2))
	}
	socket := func(family, typ int) int {
		fd, err := unix.Socket(family, typ, 0)
		w.must("socket", err)
		return fd
	}
	loop := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	l := socket(unix.AF_INET, unix.SOCK_STREAM)
	w.must("bind", unix.Bind(l, loop))
	w.must("listen", unix.Listen(l, 5))
	name(l)
	l6 := socket(unix.AF_INET6, unix.SOCK_STREAM)
	w.must("listen", unix.Listen(l6, 7))
	name(l6)
	to, err := unix.Getsockname(l)
	w.must("getsockname", err)
	dial := func() int {
		fd := socket(unix.AF_INET, unix.SOCK_STREAM)
		w.must("connect", unix.Connect(fd, to))
		name(fd)
		return fd
	}
	dial()
	_, _, err = unix.Accept(l)
	w.must("accept", err)
	half := dial()
	child, _, err := unix.Accept(l)
	w.must("accept", err)
	w.must("shutdown", unix.Shutdown(half, unix.SHUT_WR))
	_, err = unix.Read(child, make([]byte, 1)) // an unread FIN counts in Recv-Q
	w.must("read", err)
	dial() // waits to be accepted
	bound := socket(unix.AF_INET, unix.SOCK_STREAM)
	w.must("bind", unix.Bind(bound, loop))
	name(bound)
	u := socket(unix.AF_INET, unix.SOCK_DGRAM)
	w.must("bind", unix.Bind(u, loop))
	name(u)
	uc := socket(unix.AF_INET, unix.SOCK_DGRAM)
	to, err = unix.Getsockname(u)
	w.must("getsockname", err)
	w.must("connect", unix.Connect(uc, to))
	name(uc)
	u6 := socket(unix.AF_INET6, unix.SOCK_DGRAM)
	w.must("bind", unix.Bind(u6, &unix.SockaddrInet6{}))
	name(u6)
	socket(unix.AF_INET, unix.SOCK_DGRAM) // not bound: not shown

	raw := func(family, proto int) int {
		fd, err := unix.Socket(family, unix.SOCK_RAW, proto)
		w.must("raw socket", err)
		return fd
	}
	raw(unix.AF_INET, 253)
	raw(unix.AF_INET6, 254)
	w.must("connect", unix.Connect(raw(unix.AF_INET, 254), &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	for _, typ := range []int{unix.SOCK_RAW, unix.SOCK_DGRAM} {
		fd, err := unix.Socket(unix.AF_PACKET, typ, 0)
		w.must("packet socket", err)
		w.must("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0708, Ifindex: 1}))
	}
	ports = append(ports, "[2055]:lo", "[:P-ethertype]:lo")
	nl, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	w.must("netlink socket", err)
	w.must("bind", unix.Bind(nl, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: 77777777}))
	ports = append(ports, ":253", ":P-raw", ":254", ":P-other", ":77777777", ":P-netlink")

	// The peer's FIN takes its time to arrive.
	var states []byte
	w.await("half closed", func() bool {
		states, err = exec.Command("ss", "-Htan", "dport", ports[0]).Output()
		w.must("ss", err)
		return strings.Contains(string(states), "FIN-WAIT-2")
	})
	names := strings.NewReplacer(ports...)
	for _, args := range []string{"-Htlnp", "-Htlnp6", "-Huanp", "-Htanp", "-Htn state close-wait", "-Htan dst 127.0.0.0/8", "-Htan sport " + ports[0], "-Htane4 dport = " + ports[0],
		"-Hwanp", "-Hwan6", "-Hnaf netlink", "-Hn0a", "-Huanm"} {
		out, err := exec.Command("ss", strings.Fields(args)...).Output()
		w.must("ss "+args, err)
		var lines []string
		for line := range strings.Lines(string(out)) {
			if !strings.Contains(names.Replace(line), ":P") {
				continue // other sockets of this machine
			}
			f := strings.Fields(names.Replace(line))
			f[len(f)-1] = users.ReplaceAllString(f[len(f)-1], "fd")
			f = slices.DeleteFunc(f, func(s string) bool { // of ss -e
				return strings.HasPrefix(s, "ino:") || strings.HasPrefix(s, "sk:") || strings.HasPrefix(s, "cgroup:")
			})
			lines = append(lines, strings.Join(f, " "))
		}
		slices.Sort(lines) // the kernel's order is that of its hash tables
		w.say("ss %s:\n%s", names.Replace(args), strings.Join(lines, "\n"))
	}
}

func TestSS(t *testing.T) {
	if _, err := exec.LookPath("ss"); err != nil {
		t.Skip("ss(8) is not installed")
	}
	compareChanges(t, "ss") // in a namespace without the sockets of others
}
