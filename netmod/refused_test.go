// SPDX-License-Identifier: Apache-2.0

// What docs/compatibility.md says is refused fails with the errno that it says.

package netmod_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/netmod/sockapi"
)

func init() { targets["listed-refusals"] = listedRefusals }

// refusals are the refused entries of sockapi's tables, by name, with calls that must
// fail with their errno. intercept refuses io_uring, and has its own test.
var refusals = map[string][]func() error{
	"AF_INET and AF_INET6, IPPROTO_MPTCP": {
		open(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP), open(unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)},
	"AF_INET and AF_INET6, IPPROTO_SCTP": {
		open(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP), open(unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_SCTP)},
	"AF_INET and AF_INET6, SOCK_SEQPACKET": {
		open(unix.AF_INET, unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP), open(unix.AF_INET6, unix.SOCK_SEQPACKET, 0)},
	"AF_INET and AF_INET6, SOCK_DCCP": {
		open(unix.AF_INET, unix.SOCK_DCCP, unix.IPPROTO_DCCP), open(unix.AF_INET6, unix.SOCK_DCCP, unix.IPPROTO_DCCP)},
	"AF_INET and AF_INET6, IPPROTO_UDPLITE": {
		open(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE), open(unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE)},
	"AF_NETLINK, other protocols": {
		open(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER), open(unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_AUDIT),
		open(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC)},
	"AF_PACKET, SOCK_PACKET": {open(unix.AF_PACKET, unix.SOCK_PACKET, 0)},
	"AF_VSOCK, AF_ALG, AF_CAN, AF_BLUETOOTH, AF_XDP and every other family": {
		open(unix.AF_VSOCK, unix.SOCK_STREAM, 0), open(unix.AF_ALG, unix.SOCK_SEQPACKET, 0), open(unix.AF_CAN, unix.SOCK_RAW, 1),
		open(unix.AF_BLUETOOTH, unix.SOCK_RAW, 1), open(unix.AF_XDP, unix.SOCK_RAW, 0), open(unix.AF_RDS, unix.SOCK_SEQPACKET, 0),
		open(unix.AF_TIPC, unix.SOCK_DGRAM, 0), open(unix.AF_KCM, unix.SOCK_DGRAM, 0), open(unix.AF_SMC, unix.SOCK_STREAM, 0),
		open(unix.AF_QIPCRTR, unix.SOCK_DGRAM, 0), open(1000, unix.SOCK_STREAM, 0), open(-1, unix.SOCK_STREAM, 0)},
	"MSG_FASTOPEN": {func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, []byte("x"), unix.MSG_FASTOPEN, &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 1}})
	}},
	"other SIOCSIF*, SIOCADDMULTI, SIOCSARP": {ioctl(unix.SIOCSIFMEM), ioctl(unix.SIOCADDMULTI), ioctl(unix.SIOCSARP)},
}

// open returns a socket(2) that is to fail.
func open(family, typ, proto int) func() error {
	return func() error {
		fd, err := unix.Socket(family, typ, proto)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

// ioctl returns an ioctl(2) that is to fail, on a UDP socket.
func ioctl(cmd int) func() error {
	return func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		var arg [128]byte // for any of them
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(&arg[0]))); e != 0 {
			return e
		}
		return nil
	}
}

func listedRefusals(w *transcript) {
	for _, name := range refusedNames() {
		for i, f := range refusals[name] {
			w.result(fmt.Sprintf("%s, %d", name, i), f())
		}
	}
}

func refusedNames() (names []string) {
	for name := range refusals {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// TestRefused: every refused entry is tried, and fails as it says.
func TestRefused(t *testing.T) {
	errnos := map[string]string{}
	for _, table := range sockapi.Tables() {
		for _, e := range table.Entries {
			if e.Support == sockapi.Refused {
				errnos[e.Name] = unix.ErrnoName(e.Errno)
			}
		}
	}
	for name := range errnos {
		if _, ok := refusals[name]; !ok && name != "io_uring_setup" {
			t.Errorf("%s is listed as refused, and not tried", name)
		}
	}
	w := newWorld(t, nil)
	out, _ := w.run(t, "listed-refusals")
	for _, line := range strings.Split(strings.TrimSuffix(out, "\n"), "\n") {
		what, got, _ := strings.Cut(line, ": ")
		name := what[:strings.LastIndex(what, ",")]
		if want, ok := errnos[name]; ok && got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
}
