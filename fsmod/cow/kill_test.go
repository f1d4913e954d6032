// SPDX-License-Identifier: Apache-2.0

// A process that is killed in the middle of everything.

package cow

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	killFiles  = 5
	killSize   = 2_000_000
	killRecord = "a record"
)

// TestKill kills a process that appends to files of the lower layer and renames them from
// one directory of it to another, at any time. After that each file is under one of its
// two names, whole, and has every record that was acknowledged; nothing is left in
// copies/; and overlayfs shows the same.
func TestKill(t *testing.T) {
	if dir := os.Getenv("LAB_COW_KILL"); dir != "" {
		killed(t, dir)
		return
	}
	if !inNamespace(t) {
		return
	}
	rounds := 6
	if os.Getenv("LAB_COW_SEEDS") != "" {
		rounds = 500
	}
	dir := t.TempDir()
	onTmpfs(t, dir, "")
	lower := filepath.Join(dir, "lower")
	for _, d := range []string{lower, lower + "/d", lower + "/e"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	body := bytes.Repeat([]byte("lower"), killSize/5)
	for i := range killFiles {
		if err := os.WriteFile(fmt.Sprintf("%s/%c/f%02d", lower, "de"[i%2], i), body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before := dumpReal(t, lower)
	acknowledged, middle := 0, 0
	for i := range rounds {
		upper := filepath.Join(dir, fmt.Sprintf("upper%d", i))
		when := func() { time.Sleep(time.Duration(rand.Int64N(int64(8 * time.Millisecond)))) }
		if i%2 == 0 { // while something is copied
			when = func() {
				for end := time.Now().Add(5 * time.Second); names(t, upper+"/work/copies") == "" && time.Now().Before(end); {
				}
			}
		}
		acks := killAfter(t, dir, upper, when)
		acknowledged += len(acks)
		if names(t, upper+"/work/copies") != "" {
			middle++
		}
		afterKill(t, lower, upper, body, acks)
		if err := os.RemoveAll(upper); err != nil {
			t.Fatal(err)
		}
	}
	if acknowledged == 0 || middle == 0 {
		t.Errorf("%d operations acknowledged, %d times killed while something was made: that tells nothing", acknowledged, middle)
	}
	if after := dumpReal(t, lower); after != before {
		t.Errorf("the lower layer changed:\n%s", diff(before, after))
	}
}

// killAfter runs killed until when returns, and tells what it has acknowledged.
func killAfter(t *testing.T, dir, upper string, when func()) []string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), "LAB_COW_KILL="+dir, "LAB_COW_UPPER="+upper)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	var acks []string
	s := bufio.NewScanner(out)
	for s.Scan() {
		if s.Text() == "ready" {
			done.Go(func() {
				when()
				_ = cmd.Process.Kill()
			})
			continue
		}
		acks = append(acks, s.Text())
	}
	done.Wait()
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the process was not killed: %v %v", err, acks)
	}
	return acks
}

// killed works until it is killed.
func killed(t *testing.T, dir string) {
	fs, err := New(Config{Lower: Host(dir + "/lower"), Upper: os.Getenv("LAB_COW_UPPER"), Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("ready")
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	for {
		i := r.IntN(killFiles)
		at, other := fmt.Sprintf("d/f%02d", i), fmt.Sprintf("e/f%02d", i)
		fd, err := fs.Open(at, unix.O_WRONLY|unix.O_APPEND, 0)
		if err == unix.ENOENT {
			at, other = other, at
			fd, err = fs.Open(at, unix.O_WRONLY|unix.O_APPEND, 0)
		}
		if err == nil {
			_, err = unix.Write(fd, []byte(killRecord))
			closeAll(fd)
		}
		if err == nil {
			_, _ = unix.Write(1, []byte(fmt.Sprintf("%02d\n", i)))
			err = fs.Rename(at, other, unix.RENAME_NOREPLACE)
		}
		if err != nil {
			t.Fatal(i, err)
		}
	}
}

// afterKill looks at what a killed process has left.
func afterKill(t *testing.T, lower, upper string, body []byte, acks []string) {
	t.Helper()
	fs, err := New(Config{Lower: Host(lower), Upper: upper})
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	if left := names(t, upper+"/work/copies"); left != "" {
		t.Errorf("left in copies/: %s", left)
	}
	ours := dump(fs)
	for i := range killFiles {
		name := fmt.Sprintf("f%02d", i)
		var found [][]byte
		for _, d := range []string{"d/", "e/"} {
			fd, err := fs.Open(d+name, unix.O_RDONLY, 0)
			if err == unix.ENOENT {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			f := os.NewFile(uintptr(fd), name)
			content := new(bytes.Buffer)
			if _, err := content.ReadFrom(f); err != nil {
				t.Fatal(err)
			}
			f.Close()
			found = append(found, content.Bytes())
		}
		if len(found) != 1 {
			t.Fatalf("%s is in %d places", name, len(found))
		}
		records, whole := bytes.CutPrefix(found[0], body)
		want := 0
		for _, a := range acks {
			if a == name[1:] {
				want++
			}
		}
		n := len(records) / len(killRecord)
		if !whole || string(records) != strings.Repeat(killRecord, n) || n != want && n != want+1 {
			t.Fatalf("%s: whole %v, %d records, %d acknowledged", name, whole, n, want)
		}
	}
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
	real := mountOverlay(t, lower, upper)
	defer unmount(t, real)
	if theirs := dump(real); theirs != ours {
		t.Fatalf("- overlayfs, + ours\n%s", diff(theirs, ours))
	}
}
