// SPDX-License-Identifier: Apache-2.0

// What is said of devices that cannot be opened.

package tap

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		kind, is  string
		err       error
		what, try string
	}{
		{"tap", "", unix.EPERM, "there is no device t0, and only root may make one", "sudo ip tuntap add dev t0 mode tap user $USER"},
		{"tun", "tun", unix.EPERM, "the device t0 belongs to somebody else", "sudo ip tuntap del dev t0 mode tun"},
		{"tap", "tap", unix.EBUSY, "the device t0 is in use", ""},
		{"tap", "tun", unix.EINVAL, "t0 is a TUN device, no TAP", "-n tun:t0"},
		{"tap", "other", unix.EINVAL, "t0 is no TAP device", "master t0 up"},
		{"tap", "tap", unix.ENOMEM, "tap:t0: cannot allocate memory", ""},
	} {
		r := refusal("t0", tt.kind, tt.is, tt.err)
		if r.What != tt.what || !errors.Is(r, tt.err) || !strings.Contains(strings.Join(r.Try, " "), tt.try) {
			t.Errorf("%+v: %+v", tt, r)
		}
	}
	for _, err := range []error{unix.EACCES, unix.ENOENT} {
		if r := noClone(err); r.Why == "" || len(r.Try) != 1 || !errors.Is(r, err) {
			t.Errorf("%v: %+v", err, r)
		}
	}
}
