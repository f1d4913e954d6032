// SPDX-License-Identifier: Apache-2.0

// Others that plug in: QEMU, and namespaces of vdens.

package vde_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestQEMU: QEMU's -netdev vde joins our switch, and vde_switch beside us. Its other
// side is a socket of ours behind a hub within it, so that it takes no guest.
func TestQEMU(t *testing.T) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("needs qemu-system-x86_64, which make test does not install")
	}
	if out, _ := exec.Command(qemu, "-netdev", "help").Output(); !bytes.Contains(out, []byte("\nvde\n")) {
		t.Skip("this QEMU has no -netdev vde")
	}
	sw, _ := startSwitch(t)
	own := filepath.Join(t.TempDir(), "own")
	for _, tt := range []struct{ name, dir, url string }{{"switch", own, "switch://" + own}, {"vde_switch", sw, sw}} {
		t.Run(tt.name, func(t *testing.T) {
			l := plug(t, tt.url)
			heard := listen(t, l)
			guest, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer guest.Close()
			port := freePort(t)
			start(t, qemu, "-machine", "none", "-nodefaults", "-display", "none", "-netdev", "vde,id=v,sock="+tt.dir,
				"-netdev", fmt.Sprintf("dgram,id=d,local.type=inet,local.host=127.0.0.1,local.port=%d,remote.type=inet,remote.host=127.0.0.1,remote.port=%d", port, guest.LocalAddr().(*net.UDPAddr).Port),
				"-netdev", "hubport,id=h1,hubid=0,netdev=v", "-netdev", "hubport,id=h2,hubid=0,netdev=d")
			there := frame(broadcast, mac(1), strings.Repeat("q", 1500))
			b := make([]byte, 9000)
			eventually(t, func() error {
				write(t, l, there)
				guest.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
				n, err := guest.Read(b)
				if err == nil && !bytes.Equal(b[:n], there) {
					err = fmt.Errorf("got %d bytes", n)
				}
				return err
			})
			back := frame(mac(1), mac(2), "from the machine")
			if _, err := guest.WriteTo(back, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}); err != nil {
				t.Fatal(err)
			}
			heard.want(t, back)
		})
	}
}

// TestVdens: the kernel's stack in a namespace that vdens plugs into our switch.
func TestVdens(t *testing.T) {
	need(t, "vdens", "ip")
	dir := filepath.Join(t.TempDir(), "own")
	l := plug(t, "switch://"+dir)
	heard := listen(t, l)
	start(t, "vdens", "vde://"+dir, "sh", "-c", "ip link set vde0 address 02:00:00:00:00:77 up && ip addr add 10.9.8.7/24 dev vde0 && cat")
	// Who has 10.9.8.7? Tell 10.9.8.1. (RFC 826)
	who := append(append(append([]byte{}, broadcast...), mac(1)...), 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	who = append(append(who, mac(1)...), 10, 9, 8, 1, 0, 0, 0, 0, 0, 0, 10, 9, 8, 7)
	eventually(t, func() error {
		write(t, l, who)
		for {
			select {
			case f := <-heard.frames:
				if len(f) >= 42 && bytes.Equal(f[:12], append(mac(1), mac(0x77)...)) && bytes.Equal(f[20:22], []byte{0, 2}) {
					return nil
				}
			case <-time.After(50 * time.Millisecond):
				return errors.New("no answer to ARP")
			}
		}
	})
}
