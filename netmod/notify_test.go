// SPDX-License-Identifier: Apache-2.0

// What multicast groups are told, to whom and from where, and what is silent.

package netmod_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	targets["notified"] = notified
	targets["protocols"] = protocols
}

// netlinkMessage builds a request.
func netlinkMessage(typ, flags uint16, seq uint32, body ...[]byte) []byte {
	b := slices.Concat(append([][]byte{make([]byte, 16)}, body...)...)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], typ)
	binary.NativeEndian.PutUint16(b[6:], flags)
	binary.NativeEndian.PutUint32(b[8:], seq)
	return b
}

// loAddr asks for an address on lo to be added or removed.
func loAddr(typ, flags uint16, seq uint32, last byte) []byte {
	attr := func(typ byte) []byte { return []byte{8, 0, typ, 0, 10, 60, 0, last} }
	return netlinkMessage(typ, flags|unix.NLM_F_REQUEST, seq, []byte{unix.AF_INET, 32, 0, 0, 1, 0, 0, 0}, attr(unix.IFA_LOCAL), attr(unix.IFA_ADDRESS))
}

// An nlListener is a netlink socket and how it is called.
type nlListener struct {
	name string
	fd   int
	pid  uint32
}

// hear tells of every datagram that is there: from where it came, its control
// messages, and of each message the type, sequence number, and whose port it bears.
func (l nlListener) hear(w *transcript, all []nlListener) {
	for {
		buf, oob := make([]byte, 65536), make([]byte, 256)
		n, oobn, flags, from, err := unix.Recvmsg(l.fd, buf, oob, unix.MSG_DONTWAIT)
		if err != nil {
			w.say("%s: then %v", l.name, err)
			return
		}
		sa := from.(*unix.SockaddrNetlink)
		line := fmt.Sprintf("%s: from %d groups %#x flags %#x", l.name, sa.Pid, sa.Groups, flags)
		cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		w.must("control", err)
		for _, c := range cmsgs {
			line += fmt.Sprintf(" control %d %d %x", c.Header.Level, c.Header.Type, c.Data)
		}
		for b := buf[:n]; len(b) >= 16; b = b[min(len(b), int(binary.NativeEndian.Uint32(b)+3)&^3):] {
			port := "nobody"
			for _, o := range all {
				if binary.NativeEndian.Uint32(b[12:]) == o.pid {
					port = o.name
				}
			}
			line += fmt.Sprintf(" message %d flags %#x seq %d of %s", binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]), binary.NativeEndian.Uint32(b[8:]), port)
		}
		w.say("%s", line)
	}
}

func notified(w *transcript) {
	open := func(name string, groups uint32) nlListener {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		w.must("socket", err)
		w.must("bind", unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}))
		sa, err := unix.Getsockname(fd)
		w.must("getsockname", err)
		return nlListener{name, fd, sa.(*unix.SockaddrNetlink).Pid}
	}
	const addrs, routes = 1 << (unix.RTNLGRP_IPV4_IFADDR - 1), 1 << (unix.RTNLGRP_IPV4_ROUTE - 1)
	asks := open("asks", 0)
	hears := open("hears", addrs|routes)
	both := open("both", addrs)
	info := open("info", addrs)
	w.must("PKTINFO", unix.SetsockoptInt(info.fd, unix.SOL_NETLINK, unix.NETLINK_PKTINFO, 1))
	w.must("PASSCRED", unix.SetsockoptInt(info.fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
	all := []nlListener{asks, hears, both, info}
	kernel := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	for i, step := range []struct {
		by  nlListener
		req []byte
	}{
		{asks, loAddr(unix.RTM_NEWADDR, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL, 11, 1)},
		{both, loAddr(unix.RTM_NEWADDR, unix.NLM_F_ACK|unix.NLM_F_CREATE, 12, 2)},
		{both, loAddr(unix.RTM_DELADDR, unix.NLM_F_ACK|unix.NLM_F_ECHO, 13, 2)},
		{asks, loAddr(unix.RTM_NEWADDR, unix.NLM_F_ECHO|unix.NLM_F_CREATE, 14, 3)},
		{asks, loAddr(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 15, 3)},
		{info, netlinkMessage(unix.RTM_GETLINK, unix.NLM_F_REQUEST|unix.NLM_F_ACK, 16, []byte{0, 0, 0, 0, 99, 0, 0, 0}, make([]byte, 8))},
	} {
		w.say("step %d by %s", i, step.by.name)
		w.must("send", unix.Sendto(step.by.fd, step.req, 0, kernel))
		for _, l := range all {
			l.hear(w, all)
		}
	}
}

func TestNotified(t *testing.T) {
	compareChanges(t, "notified")
}

// protocols opens netlink sockets that are not asked about the network.
func protocols(w *transcript) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	w.must("uevent", err)
	w.result("bind", unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 3}))
	w.result("PASSCRED", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
	w.result("join", unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, 1))
	v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	w.say("protocol %d %v", v, err)
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLOUT}}
	_, err = unix.Poll(p, 0)
	w.say("poll %#x %v", p[0].Revents, err)
	_, _, err = unix.Recvfrom(fd, make([]byte, 100), 0)
	w.say("recvfrom: %v", err)
	for _, proto := range []int{unix.NETLINK_AUDIT, unix.NETLINK_NETFILTER, unix.NETLINK_CONNECTOR, unix.NETLINK_XFRM, 30, 32} {
		_, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, proto)
		w.say("protocol %d: %v", proto, err)
	}
}

// TestSilentProtocols: a socket for events of devices is as in a network namespace;
// the protocols that speak of the host are as on a kernel that has none of them.
func TestSilentProtocols(t *testing.T) {
	w := newWorld(t, nil)
	got, _ := w.run(t, "protocols")
	var want bytes.Buffer
	kernel := exec.Command("/proc/self/exe")
	kernel.Env = append(kernel.Environ(), targetEnv+"=protocols", "GORACE=atexit_sleep_ms=0")
	kernel.Stdout = &want
	if err := kernel.Run(); err != nil {
		t.Fatal(err)
	}
	cut := func(s string) []string {
		var out []string
		for line := range strings.Lines(s) {
			out = append(out, line)
		}
		return out
	}
	g, k := cut(got), cut(want.String())
	if len(g) != len(k) {
		t.Fatalf("%d lines, the kernel %d:\n%s", len(g), len(k), got)
	}
	for i := range g {
		refused := strings.HasPrefix(g[i], "protocol ") && strings.Contains(g[i], unix.EPROTONOSUPPORT.Error())
		if g[i] != k[i] && !refused {
			t.Errorf("kernel %q, umrun %q", k[i], g[i])
		}
	}
}
