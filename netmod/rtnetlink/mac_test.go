// SPDX-License-Identifier: Apache-2.0

// Changes of a link address, by rtnetlink and ioctl: asked of the kernel and of us.

package rtnetlink

import (
	"encoding/binary"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

func TestKernelMAC(t *testing.T) {
	elsewhere(t)
	const tap = 9
	for _, line := range []string{"link add name tap0 index 9 address 02:00:00:00:00:09 type veth peer name tap1", "link set tap0 up"} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", line, err, out)
		}
	}
	k := newKernelSocket(t, Options{ExtAck: true})
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	mac := func(s string) net.HardwareAddr { m, _ := net.ParseMAC(s); return m }
	s := stacks.State{Interfaces: []stacks.Interface{
		{Index: 1, Name: "lo", Loop: true, MTU: 65536}, {Index: 2, Name: "tun0", MTU: 1500},
		{Index: tap, Name: "tap0", Type: stacks.LinkEthernet, MTU: 1500, MAC: mac("02:00:00:00:00:09")},
	}}
	set := func(next stacks.State, _ Origin) error { s = next; return nil }
	same := func(t *testing.T) {
		t.Helper()
		kernel := make([]byte, IfreqLen)
		copy(kernel, "tap0")
		ours := append([]byte(nil), kernel...)
		if errno := kernelIoctl(fd, unix.SIOCGIFHWADDR, unsafe.Pointer(&kernel[0])); errno != 0 {
			t.Fatal(errno)
		}
		if _, errno := Ioctl(s, set, unix.AF_INET, unix.SIOCGIFHWADDR, ours); errno != 0 {
			t.Fatal(errno)
		}
		if got, want := ours[16:24], kernel[16:24]; string(got) != string(want) {
			t.Errorf("ours is %x, the kernel's %x", got, want)
		}
	}
	type addr struct {
		name string
		mac  []byte
	}
	zero := addr{"zero", make([]byte, 6)}
	addrs := []addr{
		zero, {"good", mac("02:00:00:00:00:0a")}, {"the same", mac("02:00:00:00:00:0a")}, zero, {"short", []byte{2, 0, 0}},
		{"long", mac("02:00:00:00:00:00:00:01")}, {"group", mac("01:00:5e:00:00:01")}, {"broadcast", mac("ff:ff:ff:ff:ff:ff")},
	}
	for _, at := range addrs {
		a := at.mac
		for dev, index := range map[string]int{"lo": 1, "tun0": 2, "tap0": tap, "none": 77} {
			t.Run(at.name+" "+dev, func(t *testing.T) {
				req := linkReq(index, 0, 0, attribute(unix.IFLA_ADDRESS, a))
				want := errnoIn(k.answer(t, req))
				if got := errnoIn(Options{ExtAck: true}.Serve(s, set, req, k.port)); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("rtnetlink: %v, the kernel %v", got, want)
				}
				same(t)
				for _, hwType := range []uint16{unix.ARPHRD_ETHER, unix.ARPHRD_LOOPBACK, unix.ARPHRD_NONE} {
					ifr := make([]byte, IfreqLen)
					copy(ifr, dev)
					binary.NativeEndian.PutUint16(ifr[16:], hwType)
					copy(ifr[18:], a)
					ours := append([]byte(nil), ifr...)
					want := kernelIoctl(fd, unix.SIOCSIFHWADDR, unsafe.Pointer(&ifr[0]))
					if _, got := Ioctl(s, set, unix.AF_INET, unix.SIOCSIFHWADDR, ours); got != want {
						t.Errorf("SIOCSIFHWADDR of type %d: %v, the kernel %v", hwType, got, want)
					}
					same(t)
				}
			})
		}
	}
}
