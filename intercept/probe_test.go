// SPDX-License-Identifier: Apache-2.0

// Tests of the probe.

package intercept

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestProbe(t *testing.T) {
	r := Probe(t.Context())
	t.Logf("Linux %s, Yama %d", r.Kernel, r.Yama)
	for _, f := range r.Features {
		t.Logf("%-45s %v", f.Name, f.Err)
	}
	// The other tests of this package cannot run without.
	if err := r.Missing(); err != nil {
		t.Error(err)
	}
	if len(children()) != 0 {
		t.Errorf("children are left: %v", children())
	}
}

func TestMissing(t *testing.T) {
	r := &Report{Features: []Feature{{Name: "a", Err: unix.EINVAL}, {Name: "b", Required: true, Kernel: "9.9", Err: unix.EPERM}}}
	var u *UnsupportedError
	if err := r.Missing(); !errors.As(err, &u) || u.Feature != "b" || !errors.Is(err, unix.EPERM) || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("missing: %v", err)
	}
}

func TestProbeFilterFlags(t *testing.T) {
	if err := probeFilterFlags(1 << 30); !errors.Is(err, unix.EINVAL) {
		t.Errorf("an unknown flag: %v", err)
	}
}
