// SPDX-License-Identifier: Apache-2.0

// ip(8) changes the view as it changes a network namespace, and those who listen
// are told.

package netmod_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"umrun/netmod/rtnetlink"
	"umrun/stacks"
)

func init() {
	targets["ip"] = ipTarget
	targets["expiring"] = expiring
	targets["groups"] = groups
	targets["writes"] = writes
	targets["told"] = told
}

// groups joins and leaves multicast groups, and asks which.
func groups(w *transcript) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	w.must("socket", err)
	list := func(when string) {
		sa, err := unix.Getsockname(fd)
		w.must("getsockname", err)
		b := make([]byte, 64)
		n := uint32(len(b))
		_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_NETLINK, unix.NETLINK_LIST_MEMBERSHIPS,
			uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
		w.say("%s: %#x, list of %d bytes (%d): %x", when, sa.(*unix.SockaddrNetlink).Groups, n, e, b[:8])
	}
	list("at first")
	w.result("bind", unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 | 1<<4}))
	list("bound")
	for _, g := range []int{unix.RTNLGRP_IPV4_ROUTE, 33, 0, 1000, -1} {
		w.say("group %d", g)
		w.result("join", unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g))
		list("then")
	}
	w.result("leave", unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_DROP_MEMBERSHIP, 1))
	w.result("leave again", unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_DROP_MEMBERSHIP, 1))
	list("left")
	for _, name := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK, unix.NETLINK_PKTINFO, unix.NETLINK_NO_ENOBUFS, unix.NETLINK_GET_STRICT_CHK} {
		v, err := unix.GetsockoptInt(fd, unix.SOL_NETLINK, name)
		w.say("option %d: %d %v", name, v, err)
		w.result("set", unix.SetsockoptInt(fd, unix.SOL_NETLINK, name, 7))
		v, err = unix.GetsockoptInt(fd, unix.SOL_NETLINK, name)
		w.say("option %d: %d %v", name, v, err)
	}
}

// writes asks by write(2), which no umrun sees the caller of.
func writes(w *transcript) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	w.must("socket", err)
	req := make([]byte, unix.NLMSG_HDRLEN+unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(req, uint32(len(req)))
	binary.NativeEndian.PutUint16(req[4:], unix.RTM_GETLINK)
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(req[20:], 1)
	_, err = unix.Write(fd, req)
	w.result("write", err)
	b := make([]byte, 4096)
	_, err = unix.Read(fd, b)
	w.result("read", err)
	sa, err := unix.Getsockname(fd)
	w.must("getsockname", err)
	w.say("own port: %t, told as the port: %t", sa.(*unix.SockaddrNetlink).Pid == uint32(os.Getpid()), binary.NativeEndian.Uint32(b[12:]) == uint32(os.Getpid()))
}

func TestNetlinkWrites(t *testing.T) { compare(t, "writes", nil) }

func TestGroups(t *testing.T) { compare(t, "groups", nil) }

// told waits until it is told of an address that somebody else has added.
func told(w *transcript) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	w.must("socket", err)
	w.must("bind", unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_IFADDR}))
	w.must("timeout", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	b := make([]byte, 4096)
	n, err := unix.Read(fd, b)
	w.must("read", err)
	w.say("message %d, has the address: %t", binary.NativeEndian.Uint16(b[4:]), bytes.Contains(b[:n], []byte{10, 60, 0, 1}))
}

// TestChange: what is changed from outside of the program is told to it.
func TestChange(t *testing.T) {
	w := newWorld(t, nil)
	p := netip.MustParsePrefix("10.60.0.1/32")
	one := stacks.Settings{Addrs: []stacks.Address{{Prefix: p}}}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // it is not known when the program listens
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for old, next := (stacks.Settings{}), one; ; old, next = next, old {
			if err := w.mod.Change(w.stack, func(s stacks.State) stacks.State { return rtnetlink.Configure(s, 1, old, next) }); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	got, _ := w.run(t, "told")
	close(done)
	wg.Wait()
	if !strings.Contains(got, "message 20, has the address: true") && !strings.Contains(got, "message 21, has the address: true") {
		t.Errorf("the program says:\n%s", got)
	}
}

// ipChanges are commands on the loopback interface, which is the one that a
// namespace and a stack without links both have.
const ipChanges = `ip addr add 10.0.0.1/24 dev lo
ip addr add 10.0.0.1/24 dev lo
ip addr add 10.0.0.2/24 dev lo
ip addr add fd00::1/64 dev lo nodad
ip addr add fd00::1/64 dev lo nodad
ip addr del 10.7.0.1/24 dev lo
ip addr add 10.0.0.9/24 dev nosuch
ip route add 10.3.0.0/16 dev lo
ip route add 10.3.0.0/16 dev lo
ip route add 10.4.0.0/16 via 10.3.0.1 metric 7
ip route add 10.5.0.0/16 via 99.9.9.9
ip route replace 10.3.0.0/16 dev lo src 10.0.0.1
ip route del 10.77.0.0/16
ip -6 route add fd09::/64 dev lo
ip route add blackhole 10.91.0.0/16
ip route add unreachable 10.92.0.0/16 metric 5
ip route add prohibit 10.93.0.0/16
ip route add throw 10.94.0.0/16
ip route add blackhole 10.95.0.0/16 dev lo
ip -6 route add blackhole fd91::/64
ip -6 route add prohibit fd92::/64 metric 7
ip route get 10.91.0.1
ip route get 10.92.0.1
ip route get 10.93.0.1
ip route get 10.94.0.1
ip -6 route get fd91::1
ip -6 route get fd92::1
ip -6 route
ip route add 10.96.0.0/16 dev lo table 100 proto static
ip route add 10.96.0.0/16 dev lo table 1234
ip route show table 100
ip route show table 1234
ip route show table all
ip route show table 77
ip route add 10.97.0.0/16 dev lo mtu 1200
ip route add 10.98.0.0/16 dev lo scope link proto 77 metric 9
ip route show proto 77
ip route show type blackhole
ip route show 10.96.0.0/12
ip route get 10.97.0.1
ip route get 10.97.0.1 oif lo
ip route get 10.97.0.1 from 10.0.0.1
ip route get 10.97.0.1 mark 7
ip route get 10.97.0.1 from 99.9.9.9
ip route get 10.97.0.1 oif nosuch
ip route get fibmatch 10.97.0.1
ip route del 10.98.0.0/16 proto 77
ip route del prohibit 10.93.0.0/16
ip route del throw 10.94.0.0/16
ip route flush table 100
ip route show table 100
ip -j route show 10.97.0.0/16
ip route
ip addr show lo
ip addr add 10.40.0.1/24 brd + label lo:1 dev lo
ip addr add 10.41.0.1 peer 10.41.0.2 dev lo
ip addr add 10.42.0.1/24 scope link dev lo valid_lft 5000 preferred_lft 4000
ip addr add fd42::1/64 dev lo nodad valid_lft 5000 preferred_lft 0
ip addr add fd43::1/64 dev lo noprefixroute nodad
ip addr add fd44::1 peer fd44::2 dev lo nodad
ip addr change 10.42.0.1/24 dev lo
ip addr replace 10.43.0.1/24 dev lo metric 7
ip addr change 10.43.0.1/24 dev lo preferred_lft 9 valid_lft 5
ip addr show label lo:1
ip addr show to 10.41.0.0/16
ip -6 addr show deprecated
ip -6 addr show permanent
ip -j addr show to 10.40.0.0/16
ip addr show scope link
ip route show table all
ip addr del 10.41.0.1 peer 10.41.0.2 dev lo
ip addr del 10.42.0.1/24 dev lo
ip addr del fd44::1 peer fd44::2 dev lo
ip addr flush dev lo deprecated
ip link set lo mtu 1400
ip link set lo down
ip addr show lo
ip route
ip link set lo up
ip addr show lo
ip link del lo
ip link set lo name office
busybox ifconfig office 127.0.0.7 netmask 255.255.0.0
busybox ifconfig office mtu 1300
busybox ifconfig office:1 10.70.0.1 netmask 255.255.255.0
busybox ifconfig office:1
ip addr show label office:1
busybox ifconfig office:1 down
ip addr show label office:1
ifconfig office:7 10.71.0.1 netmask 255.255.255.0 broadcast 10.71.0.255
ifconfig office:7 netmask 255.255.0.0
ip addr show label office:7
ifconfig office:7 down
ifconfig office:9 down
ifconfig office txqueuelen 77
ip link show office
ip link set office txqueuelen 88
ip link show office
ifconfig office inet6 add fd70::1/64
ifconfig office inet6 del fd70::1/64
ifconfig office inet6 del fd70::1/64
ip -6 addr show to fd70::/16
route add -net 10.72.0.0 netmask 255.255.0.0 dev office
route add -net 10.72.0.0 netmask 255.255.0.0 dev office
route add -host 10.73.0.1 gw 10.72.0.1 metric 4
route add -net 10.74.0.0/16 reject
route add -net 10.75.0.0/16 gw 99.9.9.9
route add -net 10.75.0.0/16 dev nosuch
route add -net 10.76.0.0/16 dev office metric 9
route add default gw 10.72.0.1
ip route
route del default
route del -net 10.74.0.0/16 reject
route del -host 10.73.0.1
route del -host 10.73.0.1
route -A inet6 add fd72::/64 dev office
route -A inet6 add fd72::/64 dev office
ip -6 route
route -A inet6 del fd72::/64 dev office
route -A inet6 del fd72::/64 dev office
ip -6 route
ethtool -i office
ip addr flush dev office scope global
ip addr show office
ip rule
ip neigh`

var addsIPv6 = regexp.MustCompile(`(?:ip addr|ifconfig \w+ inet6) add (fd[0-9a-f:]+)`)

func ipTarget(w *transcript) {
	for line := range strings.Lines(ipChanges) {
		f := strings.Fields(line)
		out, err := exec.Command(f[0], f[1:]...).CombinedOutput()
		w.say("$ %s%s%v", line, queues.ReplaceAllString(string(out), "qdisc"), err)
		if six := addsIPv6.FindStringSubmatch(line); err == nil && six != nil { // Linux has more to do, from a work queue
			w.await(line, func() bool {
				out, _ := exec.Command("ip", "-6", "route", "show", "table", "local").Output()
				return strings.Contains(string(out), "local "+six[1]+" ")
			})
		}
	}
	w.monitor()
}

// queues are told of the loopback interface by the kernel's own names.
var queues = regexp.MustCompile(`qdisc \w+`)

// monitor makes changes under the eyes of ip monitor.
func (w *transcript) monitor() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ip", "-o", "monitor", "link", "address", "route")
	out, err := cmd.StdoutPipe()
	w.must("pipe", err)
	w.must("ip monitor", cmd.Start())
	lines := make(chan string, 100) // more than there are
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	// It says nothing when it is ready; something is changed until it is seen.
	for n := 0; ; n++ {
		w.must("ip link", exec.Command("ip", "link", "set", "office", "mtu", []string{"1401", "1402"}[n%2]).Run())
		select {
		case <-lines:
		case <-time.After(100 * time.Millisecond):
			continue
		}
		break
	}
	w.must("ip addr", exec.Command("ip", "addr", "add", "10.8.0.1/32", "dev", "office").Run())
	w.must("ip addr", exec.Command("ip", "route", "add", "10.9.0.0/16", "dev", "office").Run())
	w.must("ip addr", exec.Command("ip", "route", "del", "10.9.0.0/16", "dev", "office").Run())
	w.must("ip addr", exec.Command("ip", "addr", "del", "10.8.0.1/32", "dev", "office").Run())
	for l := range lines {
		if strings.Contains(l, "10.8.0.1") || strings.Contains(l, "10.9.0.0") {
			w.say("%s", l)
		}
		if strings.Contains(l, "Deleted local 10.8.0.1") {
			break
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// expiring sees addresses end their lives: one by itself, one with the first of its
// network.
func expiring(w *transcript) {
	for line := range strings.Lines(`ip addr add 10.50.0.1/24 dev lo valid_lft 1 preferred_lft 1
		ip addr add 10.50.0.2/24 dev lo
		ip addr add 10.51.0.1/24 dev lo valid_lft 100 preferred_lft 1
		ip addr add fd50::1/64 dev lo valid_lft 1 preferred_lft 1
		ip addr add fd51::1/64 dev lo valid_lft 100 preferred_lft 1`) {
		f := strings.Fields(line)
		out, err := exec.Command(f[0], f[1:]...).CombinedOutput()
		w.say("$ %s: %s%v", line, out, err)
	}
	// Linux leaves a route of IPv6 for a while when its address has ended.
	w.await("end of life", func() bool {
		out, err := exec.Command("ip", "addr", "show", "dev", "lo").Output()
		w.must("ip", err)
		return !strings.Contains(string(out), "10.50.0") && !strings.Contains(string(out), "fd50::") && strings.Count(string(out), "deprecated") == 2
	})
	for _, args := range []string{"-o addr show dev lo", "route", "-6 route show fd51::/64"} {
		out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
		w.say("ip %s: %s%v", args, lifetime.ReplaceAllString(string(out), "valid_lft N"), err)
	}
}

// lifetime is what is left, when it is less than for ever.
var lifetime = regexp.MustCompile(`valid_lft \d+sec`)

func TestExpiry(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip is not installed")
	}
	t.Parallel()
	compareChanges(t, "expiring")
}

func TestChanges(t *testing.T) {
	for _, tool := range []string{"ip", "busybox", "ifconfig", "route", "ethtool"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	compareChanges(t, "ip")
}

// compareChanges runs a target in a network namespace of its own, with lo up, and
// under umrun.
func compareChanges(t *testing.T, target string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", "ip link set lo up && exec /proc/$PPID/exe")
	cmd.Env = append(os.Environ(), targetEnv+"="+target, "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	}
	want, err := cmd.CombinedOutput()
	if err != nil && len(want) > 0 && !bytes.Contains(want, []byte("Operation not permitted")) {
		t.Fatalf("natively: %v: %s", err, want)
	}
	if err != nil {
		t.Skipf("no network namespace can be made here: %v: %s", err, want)
	}
	w := newWorld(t, nil)
	got, _ := w.run(t, target)
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
		t.Errorf("transcript differs from the kernel's (-kernel +umrun):\n%s\n%s", d, w.log)
	}
}
