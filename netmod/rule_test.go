// SPDX-License-Identifier: Apache-2.0

// Rules of the routing policy: what ip(8) says of them, who is told, and where
// sockets then get to.

package netmod_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	targets["rules"] = rules
	targets["rules-users"] = ruleUsers
	targets["rules-told"] = rulesTold
	targets["neighbours"] = neighbours
}

// ruleChanges are commands, and attempts to send: "try DST" and what a socket has of
// its own: src, dev, mark, proto, port.
const ruleChanges = `ip rule
ip -6 rule
ip addr add 10.0.0.1/24 dev lo
ip addr add 10.0.1.1/24 dev lo
ip addr add fd00::1/64 dev lo nodad
ip route add 10.10.0.0/16 dev lo
ip rule add from 10.0.1.0/24 table 100
ip rule add to 10.20.0.0/16 lookup 100
ip rule
ip -j rule show
ip route get 10.20.0.1
ip route add 10.20.0.0/16 dev lo src 10.0.1.1 table 100
ip route get 10.20.0.1
try 10.20.0.1
try 10.0.0.255
ip rule add to 10.30.0.0/16 prohibit
ip rule add to 10.31.0.0/16 unreachable
ip rule add to 10.32.0.0/16 blackhole pref 77
try 10.30.0.1
try 10.31.0.1
try 10.32.0.1
try 10.30.0.1 dev lo
try 10.222.0.1 dev lo
try 10.222.0.1
try fd99::1 dev lo
try 10.10.0.1
ip rule add fwmark 7 to 10.10.0.0/16 prohibit pref 60
try 10.10.0.1
try 10.10.0.1 mark 7
try 10.10.0.1 mark 9
ip rule add fwmark 0x10/0xf0 to 10.10.0.0/16 unreachable pref 61
try 10.10.0.1 mark 0x17
try 10.10.0.1 mark 0x27
ip rule add to 10.10.0.0/16 ipproto udp dport 53 prohibit pref 62
try 10.10.0.1 udp 53
try 10.10.0.1 udp 54
try 10.10.0.1 tcp 53
ip rule add to 10.10.0.0/16 dport 1000-2000 unreachable pref 63
try 10.10.0.1 tcp 1000
try 10.10.0.1 udp 2000
try 10.10.0.1 udp 2001
ip rule add to 10.10.0.0/16 sport 4444 prohibit pref 64
try 10.10.0.1 bind 10.0.0.1:4444
try 10.10.0.1 bind 10.0.0.1:4445
ip rule add from 10.0.0.0/24 to 10.10.0.0/16 prohibit pref 65
try 10.10.0.1
try 10.10.0.1 bind 10.0.0.1:0
try 10.10.0.1 bind 10.0.1.1:0
ip rule del pref 65
ip rule add uidrange 0-0 to 10.10.0.0/16 prohibit pref 66
try 10.10.0.1
ip rule del pref 66
ip rule add uidrange 77-99 to 10.10.0.0/16 prohibit pref 66
try 10.10.0.1
ip rule add iif lo to 10.10.0.0/16 dport 99 prohibit pref 67
try 10.10.0.1 udp 99
ip rule add oif lo to 10.10.0.0/16 dport 98 prohibit pref 68
try 10.10.0.1 udp 98
ip rule add oif nosuch pref 69
ip rule show pref 69
ip rule add not from all fwmark 0x51820 lookup 51820
ip rule add table main suppress_prefixlength 0
ip rule
ip route add default dev lo table 51820
try 10.99.0.1
try 10.99.0.1 mark 0x51820
try 10.10.0.1
ip route get 10.99.0.1
ip route get 10.99.0.1 mark 0x51820
ip route get 10.10.0.1 ipproto udp dport 53
ip route get 10.10.0.1 uid 80
ip route get 127.0.0.1
ip route get fibmatch 10.99.0.1
ip rule del pref 58
ip rule del pref 59
ip rule add pref 100 goto 200
ip rule show pref 100
ip rule add pref 150 to 10.10.0.0/16 prohibit
ip rule add pref 200 to 10.40.0.0/16 prohibit
ip rule show pref 100
try 10.10.0.1
try 10.40.0.1
ip rule del pref 200
ip rule show pref 100
try 10.10.0.1
ip rule add pref 99 goto 50
ip rule add pref 98 nop
ip rule add pref 98 nop
ip rule del pref 12345
ip rule del from 10.0.1.0/24 table 100
ip rule del to 10.30.0.0/16 prohibit
try 10.30.0.1
ip rule del fwmark 7
ip rule del ipproto udp dport 53
ip rule add to 10.50.0.0/16 table 0
ip rule add to 10.50.0.0/16 table 70000 protocol 99
ip rule list protocol 99
ip rule list table 100
ip rule add to 10.50.0.0/16 dport 0
ip rule add to 10.50.0.0/16 dport 20-10
ip rule add uidrange 9-3 table 9
ip -6 rule add to fd10::/64 prohibit
ip -6 rule add to fd11::/64 unreachable
ip -6 rule add to fd12::/64 blackhole
ip -6 rule add from fd00::/64 to fd13::/64 table 100
ip -6 rule
ip -6 route show table 100
ip -6 route add fd10::/60 dev lo
ip -6 route add fd13::/64 dev lo table 100
try fd10::1
try fd11::1
try fd12::1
try fd13::1
try fd13::1 bind [fd00::1]:0
try fd10:0:0:1::1
ip -6 route get fd10::1
ip -6 route get fd11::1
ip -6 route get fd12::1
ip -6 route get fd13::1
ip -6 route get fd13::1 from fd00::1
ip -6 rule del to fd10::/64
ip -6 rule flush
ip -6 rule
ip rule flush
ip rule
ip rule del pref 32766
ip rule del pref 32767
ip rule del pref 0
try 10.10.0.1
try 127.0.0.1
ip rule
ip rule add pref 5 table main
ip rule add pref 5 table local
try 10.10.0.1
try 127.0.0.1
ip rule`

func rules(w *transcript) {
	for line := range strings.Lines(ruleChanges) {
		f := strings.Fields(line)
		if f[0] == "try" {
			w.say("$ %s%s", line, attempt(f[1:]))
			continue
		}
		out, err := exec.Command(f[0], f[1:]...).CombinedOutput()
		w.say("$ %s%s%v", line, out, err)
	}
}

// ruleUsers tries what the rules say of the users who make sockets.
func ruleUsers(w *transcript) {
	for line := range strings.Lines(`ip addr add 10.0.0.1/24 dev lo
		ip route add 10.10.0.0/16 dev lo
		ip rule add to 10.10.0.0/16 uidrange 70-79 prohibit pref 5
		ip rule add to 10.10.0.0/16 uidrange 80-80 unreachable pref 6`) {
		f := strings.Fields(line)
		w.must(line, exec.Command(f[0], f[1:]...).Run())
	}
	runtime.LockOSThread() // for good: its user is another one
	become := func(uid int) {
		w.must("setresuid", unix.Setresuid(-1, uid, -1)) // the call, of this thread alone
	}
	for _, uid := range []int{0, 70, 79, 80, 81} {
		become(uid)
		w.say("user %d: %s", uid, attempt([]string{"10.10.0.9"}))
		become(0)
	}
}

// rulesTold listens to what the groups are told of rules.
func rulesTold(w *transcript) {
	w.told(4096, `ip rule add to 10.0.0.0/8 table 100
		ip rule add from 10.1.2.0/24 iif lo fwmark 1/3 ipproto tcp dport 5-6 uidrange 1-2 pref 7 goto 9
		ip rule add pref 9 nop
		ip rule del pref 7
		ip -6 rule add from fd00::/8 oif nosuch blackhole
		ip -6 rule del from fd00::/8
		ip rule del to 10.0.0.0/8
		ip -6 rule del pref 32766
		ip rule del pref 0`, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
}

// neighbours adds and removes neighbours of lo, whose link has none.
func neighbours(w *transcript) {
	// Of a message the header, ndmsg and the address: what follows has times.
	w.told(16+12+20, `ip neigh add 127.0.0.9 lladdr 02:00:00:00:00:01 dev lo
		ip -6 neigh add fd00::9 lladdr 02:00:00:00:00:01 dev lo
		ip -6 neigh replace fd00::9 lladdr 02:00:00:00:00:02 dev lo nud stale
		ip neigh del fd00::9 dev lo
		ip -6 neigh add fd00::10 lladdr 02:00:00:00:00:01 dev lo router
		ip neigh
		ip neigh show nud permanent
		ip neigh show dev lo to fd00::/64
		ip neigh get fd00::10 dev lo
		ip neigh get fd00::11 dev lo
		ip -j neigh show
		ip neigh add proxy 10.9.9.9 dev nosuch
		ip neigh show proxy
		ip neigh change fd00::12 lladdr 02:00:00:00:00:01 dev lo
		ip neigh add fd00::10 lladdr 02:00:00:00:00:01 dev lo
		ip neigh del fd00::10 dev lo
		ip neigh del fd00::10 dev lo
		ip neigh flush dev lo
		ip neigh del 0.0.0.0 dev lo
		ip neigh`, unix.RTNLGRP_NEIGH)
}

// told runs commands and says what they print and what groups are told meanwhile, of
// each message that many bytes.
func (w *transcript) told(most int, lines string, groups ...int) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	w.must("socket", err)
	w.must("bind", unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	for _, g := range groups {
		w.must("join", unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g))
	}
	b := make([]byte, 4096)
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		out, err := exec.Command(f[0], f[1:]...).CombinedOutput()
		w.say("$ %s: %s%v", strings.TrimSpace(line), out, err)
		for { // what is told is there before the command has its answer
			n, from, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
			if err != nil {
				w.result("then", err)
				break
			}
			w.say("%x from group %d", append(b[:8:8], b[16:min(n, most)]...), from.(*unix.SockaddrNetlink).Groups)
		}
	}
	unix.Close(fd)
}

// attempt tells what comes of connect, sendto and TCP's connect to an address.
func attempt(words []string) string {
	dst := netip.MustParseAddr(words[0])
	port, mark, dev := 9, 0, ""
	var from netip.AddrPort
	kinds := []string{"connect", "sendto", "tcp"}
	for i := 1; i+1 < len(words); i += 2 {
		switch v := words[i+1]; words[i] {
		case "mark":
			fmt.Sscan(v, &mark)
		case "dev":
			dev = v
		case "bind":
			from = netip.MustParseAddrPort(v)
		case "tcp":
			fmt.Sscan(v, &port)
			kinds = kinds[2:]
		case "udp":
			fmt.Sscan(v, &port)
			kinds = kinds[:2]
		}
	}
	sockaddr := func(a netip.Addr, port int) unix.Sockaddr {
		if a.Is4() {
			return &unix.SockaddrInet4{Addr: a.As4(), Port: port}
		}
		return &unix.SockaddrInet6{Addr: a.As16(), Port: port}
	}
	var said []string
	for _, kind := range kinds {
		family, typ := unix.AF_INET, unix.SOCK_DGRAM
		if dst.Is6() {
			family = unix.AF_INET6
		}
		if kind == "tcp" {
			typ = unix.SOCK_STREAM | unix.SOCK_NONBLOCK
		}
		fd, err := unix.Socket(family, typ, 0)
		if err != nil {
			return err.Error()
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		if mark != 0 {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark)
		}
		if err == nil && dev != "" {
			err = unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, dev)
		}
		if err == nil && from.IsValid() {
			err = unix.Bind(fd, sockaddr(from.Addr(), int(from.Port())))
		}
		if err != nil {
			return err.Error()
		}
		if kind == "sendto" {
			err = unix.Sendto(fd, []byte("x"), 0, sockaddr(dst, port))
		} else {
			err = unix.Connect(fd, sockaddr(dst, port))
		}
		what := "ok"
		if err != nil {
			what = unix.ErrnoName(err.(syscall.Errno))
		}
		if err == nil && kind == "connect" {
			if sa, err := unix.Getsockname(fd); err == nil {
				switch sa := sa.(type) {
				case *unix.SockaddrInet4:
					what = "from " + netip.AddrFrom4(sa.Addr).String()
				case *unix.SockaddrInet6:
					what = "from " + netip.AddrFrom16(sa.Addr).String()
				}
			}
		}
		said = append(said, kind+": "+what)
		unix.Close(fd)
	}
	return strings.Join(said, ", ")
}

func TestRules(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip is not installed")
	}
	compareChanges(t, "rules")
	compareChanges(t, "rules-told")
}

func TestNeighbours(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip is not installed")
	}
	compareChanges(t, "neighbours")
}

func TestRuleUsers(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip is not installed")
	}
	if unix.Getuid() != 0 {
		t.Skip("only root can be several users")
	}
	compareChanges(t, "rules-users")
}
