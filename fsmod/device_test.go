// SPDX-License-Identifier: Apache-2.0

// Devices, opened by real programs.

package fsmod_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
)

// aDevice says something to whoever opens it.
type aDevice string

func (d aDevice) Open(flags int) (int, error) {
	if flags&unix.O_ACCMODE == unix.O_WRONLY {
		return -1, unix.EBUSY
	}
	p := make([]int, 2)
	if err := unix.Pipe2(p, unix.O_CLOEXEC); err != nil {
		return -1, err
	}
	defer unix.Close(p[1])
	_, err := unix.Write(p[1], []byte(d))
	return p[0], err
}

func TestDevice(t *testing.T) {
	conf := fsmod.Config{Devices: map[string]fsmod.Device{"/dev/net/tun": aDevice("a device\n")}}
	for _, tc := range []struct{ name, script, want string }{
		{"whole path", "cat /dev/net/tun", "a device\n"},
		{"relative path", "cd /dev; cat net/tun", "a device\n"},
		{"roundabout", "cat /dev/../dev/./net//tun", "a device\n"},
		{"for writing", "echo x >/dev/net/tun", "sh: 1: cannot create /dev/net/tun: Device or resource busy\n"},
		{"another of that name", "cat /dev/tun", "cat: /dev/tun: No such file or directory\n"},
		{"the kernel's", "echo x >/dev/null; cat /dev/null; echo fine", "fine\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := runWith(t, conf, "sh", "-c", tc.script); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
