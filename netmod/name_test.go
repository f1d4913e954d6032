// SPDX-License-Identifier: Apache-2.0

// Socket addresses of the wrong family or length, held against the kernel.

package netmod_test

import (
	"encoding/binary"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestNameTranscripts(t *testing.T) {
	for name, differ := range map[string]known{
		"wrong-family": nil,
	} {
		t.Run(name, func(t *testing.T) { compare(t, name, differ) })
	}
}

func init() {
	targets["wrong-family"] = wrongFamily
}

// wrongFamily names addresses of 127.0.0.1 and ::1, port 9, with families and
// lengths that do not fit. Nothing is sent.
func wrongFamily(w *transcript) {
	for _, s := range []struct {
		name        string
		family, typ int
	}{
		{"tcp4", unix.AF_INET, unix.SOCK_STREAM}, {"tcp6", unix.AF_INET6, unix.SOCK_STREAM},
		{"udp4", unix.AF_INET, unix.SOCK_DGRAM}, {"udp6", unix.AF_INET6, unix.SOCK_DGRAM},
	} {
		for _, family := range []uint16{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, 99} {
			if int(family) == s.family {
				continue
			}
			for _, length := range []uintptr{0, 1, 2, 15, 16, 23, 24, 28, 128} {
				var sa [128]byte
				binary.NativeEndian.PutUint16(sa[:], family)
				binary.BigEndian.PutUint16(sa[2:], 9)
				if family == unix.AF_INET {
					copy(sa[4:], []byte{127, 0, 0, 1})
				} else {
					sa[23] = 1
				}
				for _, call := range []struct {
					name string
					nr   uintptr
				}{{"connect", unix.SYS_CONNECT}, {"bind", unix.SYS_BIND}} {
					fd, err := unix.Socket(s.family, s.typ|unix.SOCK_NONBLOCK, 0)
					w.must("socket", err)
					_, _, e := unix.Syscall(call.nr, uintptr(fd), uintptr(unsafe.Pointer(&sa)), length)
					unix.Close(fd)
					if e == 0 {
						w.say("%s %s family %d, %d bytes: ok", s.name, call.name, family, length)
						continue
					}
					w.say("%s %s family %d, %d bytes: %s", s.name, call.name, family, length, unix.ErrnoName(e))
				}
			}
		}
	}
}
