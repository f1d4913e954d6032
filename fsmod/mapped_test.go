// SPDX-License-Identifier: Apache-2.0

// A program that maps another file than was opened is found out by its device too.

package fsmod

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// TestMapsOnly runs a program of one file system, and looks at it as if that of another had
// been meant, whose inode number is the same. On an overlay stat(2) has other numbers.
func TestMapsOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes a mount namespace in a process with threads")
	}
	top := t.TempDir()
	intercept.OnThread(func() { testMapsOnly(t, top) })
}

func testMapsOnly(t *testing.T, top string) {
	check := func(err error) bool {
		if err != nil {
			t.Error(err)
		}
		return err == nil
	}
	if !check(unix.Unshare(unix.CLONE_NEWNS)) || !check(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")) {
		return
	}
	var programs, infos = []string{}, []wanted{}
	want := func(name string) (w wanted, f *os.File, ok bool) {
		f, err := os.Open(name)
		if !check(err) {
			return w, nil, false
		}
		var st unix.Stat_t
		ok = check(unix.Fstat(int(f.Fd()), &st))
		return wantedFile(int(f.Fd()), &st), f, ok
	}
	add := func(name string) bool {
		w, f, ok := want(name)
		if ok {
			programs, infos = append(programs, name), append(infos, w)
			f.Close()
		}
		return ok
	}
	for _, name := range []string{"a", "b"} {
		dir := filepath.Join(top, name)
		program := filepath.Join(dir, "upper", "sleep")
		if !check(os.Mkdir(dir, 0o755)) || !check(unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755")) ||
			!check(os.Mkdir(filepath.Join(dir, "upper"), 0o755)) || !check(os.Mkdir(filepath.Join(dir, "work"), 0o755)) ||
			!check(copyProgram("/bin/sleep", program)) || !add(program) {
			return
		}
	}
	if infos[0].ino != infos[1].ino || !infos[0].exact() {
		t.Errorf("the files are shown as %+v and %+v: the test shows nothing", infos[0], infos[1])
		return
	}
	over := filepath.Join(top, "over")
	if !check(os.Mkdir(over, 0o755)) || !check(unix.Mount("overlay", over, "overlay", 0, "lowerdir="+top+"/a/upper:"+top+"/b/work")) || !add(over+"/sleep") {
		return
	}
	if !addSubvolumes(t, top, check, add) {
		return
	}
	f, err := os.Open("/bin/sleep")
	if !check(err) {
		return
	}
	name, _, err := elfLoader(f)
	f.Close()
	if !check(err) || name == "" {
		return
	}
	loader, f, ok := want(name)
	if !ok {
		return
	}
	f.Close()
	for i, program := range programs {
		cmd := exec.Command(program, "60")
		cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true} // stopped by the exec
		if !check(cmd.Start()) {
			return
		}
		if _, err := unix.Wait4(cmd.Process.Pid, nil, 0, nil); !check(err) { // which ends after Start
			return
		}
		for j, w := range infos {
			err := mapsOnly(cmd.Process.Pid, []wanted{w, loader})
			if (err == nil) != (i == j) {
				t.Errorf("%s runs, and %s (%+v) was meant: %v", program, programs[j], w, err)
			}
		}
		if err := mapsOnly(cmd.Process.Pid, infos); err == nil {
			t.Errorf("%s runs, and its loader was not missed", program)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// addSubvolumes adds two programs of one btrfs, where that can be had: maps shows the same
// numbers for them.
func addSubvolumes(t *testing.T, top string, check func(error) bool, add func(string) bool) bool {
	const size = 128 << 20 // bytes; 109 MB are the least
	image, dir := filepath.Join(top, "image"), filepath.Join(top, "btrfs")
	if err := exec.Command("mkfs.btrfs", "--version").Run(); err != nil {
		t.Log("not with btrfs:", err)
		return true
	}
	if !check(os.Mkdir(dir, 0o755)) || !check(os.WriteFile(image, nil, 0o600)) || !check(os.Truncate(image, size)) || !check(exec.Command("mkfs.btrfs", "-q", image).Run()) {
		return false
	}
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Logf("not with btrfs: %s", out)
		return true
	}
	for _, name := range []string{"a", "b"} {
		sub := filepath.Join(dir, name)
		if !check(exec.Command("btrfs", "subvolume", "create", sub).Run()) || !check(copyProgram("/bin/sleep", sub+"/sleep")) || !add(sub+"/sleep") {
			return false
		}
	}
	return true
}

func copyProgram(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}
