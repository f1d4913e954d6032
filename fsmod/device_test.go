// SPDX-License-Identifier: Apache-2.0

// Devices, opened by real programs.

package fsmod_test

import (
	"os"
	"strings"
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

// TestSealed: nothing below a sealed directory is opened for writing.
func TestSealed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/f", []byte("old\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	conf := fsmod.Config{Sealed: []string{dir}}
	for _, tc := range []struct{ name, script, want string }{
		{"write", "echo x >$D/f", "Read-only file system"},
		{"append", "cd $D; echo x >>./f", "Read-only file system"},
		{"read and write", "cd /; echo x 1<>$D/../${D##*/}/f", "Read-only file system"},
		{"make", "echo x >$D/new", "Read-only file system"},
		{"link", "ln -s $D $D-link; echo x >$D-link/f; rm $D-link", "Read-only file system"},
		{"directory", "cd $D/..; echo x >/proc/self/cwd/${D##*/}/f", "Read-only file system"},
		{"descriptor", "exec 5<$D/f; echo x >>/proc/self/fd/5", "Read-only file system"},
		{"creat", "/usr/bin/python3 -c 'import ctypes,os;l=ctypes.CDLL(None,use_errno=True);print(l.creat(b\"'$D/f'\",420), os.strerror(ctypes.get_errno()))'", "Read-only file system"},
		{"read", "cat $D/f", "old\n"},
		{"beside", "echo x >$D-beside && rm $D-beside && echo fine", "fine\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := runWith(t, conf, "sh", "-c", "D="+dir+"; "+tc.script)
			hide, err := fsmod.OpenBuiltin(fsmod.Mount{Kind: fsmod.Hide, Target: other})
			if err != nil {
				t.Fatal(err)
			}
			mounted := conf
			mounted.Mounts = []fsmod.Mounted{{Mount: fsmod.Mount{Kind: fsmod.Hide, Target: other}, FS: hide}}
			if again := runWith(t, mounted, "sh", "-c", "D="+dir+"; "+tc.script); again != got {
				t.Errorf("with mounts %q, without %q", again, got)
			}
			if b, err := os.ReadFile(dir + "/f"); !strings.Contains(got, tc.want) || err != nil || string(b) != "old\n" {
				t.Errorf("got %q, want %q; the file has %q", got, tc.want, b)
			}
		})
	}
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
