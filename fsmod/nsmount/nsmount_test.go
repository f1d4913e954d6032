// SPDX-License-Identifier: Apache-2.0

// Tests of what needs no namespace. The mounts themselves are tried in view/viewtest.

package nsmount

import (
	"testing"

	"umrun/fsmod"
)

func TestRelative(t *testing.T) {
	for _, tc := range []struct {
		root, at, want string
		ok             bool
	}{
		{"/", "/proc", "proc", true},
		{"/", "/", "", false},
		{"/a", "/a/b", "b", true},
		{"/a", "/ab", "", false},
		{"/a", "/a", "", false},
		{"", "dev/shm", "dev/shm", true},
		{"dev", "dev/shm", "shm", true},
		{"dev", "device", "", false},
	} {
		if got, ok := relative(tc.root, tc.at); ok != tc.ok || ok && got != tc.want {
			t.Errorf("%q in %q: got %q, %v", tc.at, tc.root, got, ok)
		}
	}
}

func TestBelow(t *testing.T) {
	c := &cow{subs: []submount{{rel: "dev"}, {rel: "dev/shm"}, {rel: "device"}, {rel: "sys/fs"}, {rel: "sys/fs/cg/x"}}}
	for rel, want := range map[string]int{"": 3, "dev": 1, "sys": 1, "sys/fs": 1, "etc": 0} {
		if got := c.below(rel); len(got) != want {
			t.Errorf("below %q: got %v", rel, got)
		}
	}
}

func TestSupports(t *testing.T) {
	for kind, want := range map[fsmod.Kind]bool{
		fsmod.Bind: true, fsmod.Tmpfs: true, fsmod.Cow: true, fsmod.Merge: true, fsmod.Hide: true, fsmod.File: true,
		fsmod.Image: true, fsmod.Fuse: true,
	} {
		if got := Supports(fsmod.Mount{Kind: kind}) == nil; got != want {
			t.Errorf("%s: %v", kind, got)
		}
	}
	for device, want := range map[string]bool{fsmod.Null: true, fsmod.Zero: true, fsmod.Ramdisk: false, fsmod.TUN: false} {
		if got := Supports(fsmod.Mount{Kind: fsmod.Dev, Source: device}) == nil; got != want {
			t.Errorf("%s: %v", device, got)
		}
	}
}
