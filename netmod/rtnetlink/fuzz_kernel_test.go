// SPDX-License-Identifier: Apache-2.0

// Fuzzing against the kernel, which has the configuration of oracle_test.go.

package rtnetlink

import (
	"bytes"
	"encoding/binary"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FuzzIfreq asks the kernel and us about any struct ifreq, and for any number of
// bytes of SIOCGIFCONF.
func FuzzIfreq(f *testing.F) {
	oracle(f)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { unix.Close(fd) })
	commands := []uint32{
		unix.SIOCGIFFLAGS, unix.SIOCGIFADDR, unix.SIOCGIFDSTADDR, unix.SIOCGIFBRDADDR, unix.SIOCGIFNETMASK, unix.SIOCGIFMETRIC,
		unix.SIOCGIFMTU, unix.SIOCGIFHWADDR, unix.SIOCGIFINDEX, unix.SIOCGIFTXQLEN, unix.SIOCGIFMAP, siocgifslave, siocgifpflags,
		siocgifcount, unix.SIOCGIFMEM, unix.SIOCGIFENCAP, unix.SIOCRTMSG, siocPrivate, unix.SIOCWANDEV, unix.SIOCGIFNAME, unix.SIOCGIFCONF,
	}
	for i := range commands {
		for _, name := range []string{"lo", "tun0", "eth1", "off", "tun0:1", "tun0:", ":", "0123456789abcdefgh", "\x01"} {
			f.Add(uint8(i), []byte(name))
		}
		f.Add(uint8(i), append([]byte("eth1\x00xxxxxxxxxxx\x02\x00\x00\x00\xc0\x00\x02\x05"), make([]byte, 8)...))
	}
	f.Fuzz(func(t *testing.T, which uint8, head []byte) {
		cmd := commands[int(which)%len(commands)]
		if cmd == unix.SIOCGIFCONF {
			compareIfconf(t, fd, head)
			return
		}
		want := bytes.Repeat([]byte{0xaa}, IfreqLen)
		copy(want, head)
		got := bytes.Clone(want)
		_, _, wantErr := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(&want[0])))
		n, gotErr := Ioctl(twin(), nil, unix.AF_INET, cmd, got)
		if gotErr != wantErr {
			t.Fatalf("%v, the kernel %v", gotErr, wantErr)
		}
		if wantErr == 0 && !bytes.Equal(got[:n], want[:n]) {
			t.Errorf("%d bytes\n%x, the kernel\n%x", n, got, want)
		}
	})
}

// compareIfconf asks for as many bytes as the first two of b say.
func compareIfconf(t *testing.T, fd int, b []byte) {
	t.Helper()
	room := 0
	if len(b) >= 2 {
		room = int(binary.NativeEndian.Uint16(b)) % 500
	}
	buf := make([]byte, 500)
	conf := struct {
		size int32
		_    [4]byte
		buf  *byte
	}{size: int32(room), buf: &buf[0]}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCGIFCONF, uintptr(unsafe.Pointer(&conf))); errno != 0 {
		t.Fatal(errno)
	}
	if got := Ifconf(twin(), IfreqLen, room); !bytes.Equal(got, buf[:conf.size]) {
		t.Errorf("%x, the kernel\n%x", got, buf[:conf.size])
	}
}
