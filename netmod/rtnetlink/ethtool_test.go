// SPDX-License-Identifier: Apache-2.0

// SIOCETHTOOL of a TUN device, and which sockets serve which commands: asked of the
// kernel and of us.

package rtnetlink

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernelIoctl is one command on a socket of the namespace.
func kernelIoctl(fd int, cmd uint32, arg unsafe.Pointer) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(arg))
	return errno
}

func TestKernelEthtool(t *testing.T) {
	oracle(t)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, dev := range []string{"tun0", "lo", "nope"} {
		for _, c := range []struct{ cmd, words uint32 }{
			{ethtoolGSet, 0}, {ethtoolGDrvInfo, 0}, {ethtoolGMsgLvl, 0}, {ethtoolGLink, 0}, {ethtoolGTSInfo, 0},
			{ethtoolGLinkSet, 0}, {ethtoolGLinkSet, 4}, {ethtoolGLinkSet, 9},
			{0x02, 0}, {0x05, 0}, {0x0b, 0}, {0x99, 0}, // set link, wake on LAN, EEPROM, none
		} {
			t.Run(fmt.Sprintf("%s %#x %d", dev, c.cmd, c.words), func(t *testing.T) {
				want := make([]byte, 512)
				binary.NativeEndian.PutUint32(want, c.cmd)
				want[15] = byte(c.words)
				got := bytes.Clone(want)
				ifr := make([]byte, IfreqLen)
				copy(ifr, dev)
				out, gotErr := Ethtool(twin(), ifr, got[:EthtoolLen])
				copy(got, out)
				req := struct { // struct ifreq, aligned and seen by the collector
					name [unix.IFNAMSIZ]byte
					data unsafe.Pointer
					_    [IfreqLen - unix.IFNAMSIZ - 8]byte
				}{data: unsafe.Pointer(&want[0])}
				copy(req.name[:], dev)
				wantErr := kernelIoctl(fd, unix.SIOCETHTOOL, unsafe.Pointer(&req))
				if c.cmd == 0x02 && wantErr == 0 { // a setting: the TUN device takes it, the view none
					wantErr = unix.EOPNOTSUPP
				}
				if gotErr != wantErr {
					t.Fatalf("%v, the kernel %v", gotErr, wantErr)
				}
				if wantErr != 0 {
					return
				}
				if c.cmd == ethtoolGDrvInfo { // behind the version is the rest of the kernel's own
					n := 36 + bytes.IndexByte(want[36:68], 0)
					clear(want[n:68])
				}
				if !bytes.Equal(got, want) {
					t.Errorf("\n%x, the kernel\n%x", bytes.TrimRight(got, "\x00"), bytes.TrimRight(want, "\x00"))
				}
			})
		}
	}
}

// TestKernelIoctlFamilies: IPv4 addresses are of AF_INET and AF_PACKET sockets.
func TestKernelIoctlFamilies(t *testing.T) {
	oracle(t)
	for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_UNIX, unix.AF_NETLINK, unix.AF_PACKET} {
		typ := unix.SOCK_DGRAM
		fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, cmd := range []uint32{unix.SIOCGIFADDR, unix.SIOCGIFBRDADDR, unix.SIOCGIFDSTADDR, unix.SIOCGIFNETMASK, unix.SIOCGIFFLAGS,
			unix.SIOCGIFINDEX, unix.SIOCGIFNAME, unix.SIOCGIFMTU, unix.SIOCGIFHWADDR, unix.SIOCGIFTXQLEN, unix.SIOCGIFMAP, siocgifpflags} {
			want := make([]byte, IfreqLen)
			copy(want, "tun0")
			if cmd == unix.SIOCGIFNAME {
				copy(want[unix.IFNAMSIZ:], u32(2))
			}
			got := bytes.Clone(want)
			wantErr := kernelIoctl(fd, cmd, unsafe.Pointer(&want[0]))
			_, gotErr := Ioctl(twin(), nil, family, cmd, got)
			if gotErr != wantErr || wantErr == 0 && !bytes.Equal(got, want) {
				t.Errorf("family %d command %#x: %v %x, the kernel %v %x", family, cmd, gotErr, got, wantErr, want)
			}
		}
		unix.Close(fd)
	}
}
