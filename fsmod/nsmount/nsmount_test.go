// SPDX-License-Identifier: Apache-2.0

// Tests of what needs no namespace. The mounts themselves are tried in view/viewtest.

package nsmount

import (
	"testing"

	"umrun/fsmod"
)

func TestParseMountinfo(t *testing.T) {
	for _, tc := range []struct {
		line, at, kind string
		id             uint64
		ok             bool
	}{
		{"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n", "/mnt2", "ext3", 36, true},
		{`7 1 0:5 / /a\040b\134c rw - tmpfs none rw`, `/a b\c`, "tmpfs", 7, true},
		{"7 1 0:5 / /x rw shared:1 master:2 - fuse.sshfs me@host: rw", "/x", "fuse.sshfs", 7, true},
		{"7 1 0:5 /r\u00a0x /a\u00a0b\rc rw - tmpfs none rw", "/a\u00a0b\rc", "tmpfs", 7, true},
		{"", "", "", 0, false},
		{"7 1 0:5 / /x rw", "", "", 0, false},
		{"x 1 0:5 / /x rw - tmpfs none rw", "/x", "tmpfs", 0, false},
	} {
		id, at, kind, ok := parseMountinfo(tc.line)
		if ok != tc.ok || id != tc.id || at != tc.at || kind != tc.kind {
			t.Errorf("%q: got %d %q %q %v", tc.line, id, at, kind, ok)
		}
	}
}

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
		fsmod.Image: true, fsmod.Fuse: false,
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
