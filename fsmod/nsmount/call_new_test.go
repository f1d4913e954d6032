// SPDX-License-Identifier: Apache-2.0

// Tests of what a mount(2) of a program says.

package nsmount

import "testing"

// TestFuseFD: the descriptor is read as the kernel reads it (lib/kstrtox.c, base 0).
func TestFuseFD(t *testing.T) {
	for _, tt := range []struct {
		fstype, data string
		fd           int
		ok           bool
	}{
		{"fuse", "fd=7,rootmode=40000", 7, true},
		{"fuse.x", "rootmode=40000,fd=7,fd=8", 8, true},
		{"fuseblk", "fd=0x10", 16, true},
		{"fuse", "fd=010", 8, true},
		{"fuse", "fd=-1", 0, false},
		{"fuse", "fd=", 0, false},
		{"fuse", "rootmode=40000", 0, false},
		{"tmpfs", "fd=7", 0, false},
		{"fusex", "fd=7", 0, false},
	} {
		if fd, ok := fuseFD(tt.fstype, tt.data); ok != tt.ok || ok && fd != tt.fd {
			t.Errorf("%s %q: %d, %t", tt.fstype, tt.data, fd, ok)
		}
	}
}
