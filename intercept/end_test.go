// SPDX-License-Identifier: Apache-2.0

// Tests of the end of what a program leaves behind.

package intercept

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestEndAll: what outlives the program is ended, those that ignore SIGTERM too,
// and those that have left for a session of their own.
func TestEndAll(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	in, enough, err := os.Pipe() // the program ends when all are there
	if err != nil {
		t.Fatal(err)
	}
	s, err := Start(context.Background(), Config{
		Path: "/bin/sh",
		Argv: []string{"sh", "-c", `
			sleep 100 & echo $!
			(trap '' TERM; sleep 100 & echo $!; wait) &
			setsid sleep 100 & echo $!
			read _; exit 3`},
		Stdin:  in,
		Stdout: w,
		Log:    slog.New(slog.DiscardHandler),
	})
	w.Close()
	in.Close()
	if err != nil {
		enough.Close()
		t.Fatal(err)
	}
	defer s.Close()
	var pids [3]int
	_, err = fmt.Fscan(r, &pids[0], &pids[1], &pids[2])
	enough.Close()
	if err != nil {
		t.Fatal(err)
	}
	ws, err := s.Wait()
	if err != nil || ws.ExitStatus() != 3 {
		t.Fatalf("program: %v %v", ws, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	n, err := s.EndAll(ctx, 100*time.Millisecond)
	if err != nil || n < 4 { // three sleeps and the shell that ignores SIGTERM
		t.Errorf("EndAll signalled %d, %v", n, err)
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, 0); err != unix.ESRCH {
			t.Errorf("process %d: %v", pid, err)
		}
	}
}

// TestEndAllGrace: who ends in time is not signalled.
func TestEndAllGrace(t *testing.T) {
	s, err := Start(context.Background(), Config{
		Path: "/bin/sh", Argv: []string{"sh", "-c", "sleep 0.2 & exit 0"}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Wait(); err != nil {
		t.Fatal(err)
	}
	if n, err := s.EndAll(context.Background(), 10*time.Second); n != 0 || err != nil {
		t.Errorf("EndAll signalled %d, %v", n, err)
	}
}

// TestHas: of the target are the program, what it started, and daemons; nobody else.
func TestHas(t *testing.T) {
	script := func(s string) *run {
		return start(t, Config{Path: "/bin/sh", Argv: []string{"sh", "-c", s}})
	}
	r := script("sleep 100 & echo $!; (setsid sleep 100 & echo $!); echo done; wait")
	other := script("echo done; exec sleep 100")
	r.out.await(t, "done")
	other.out.await(t, "done")
	helper := exec.Command("sleep", "100")
	if err := helper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = helper.Process.Kill()
		_ = helper.Wait()
	})
	members := []int{r.PID()}
	for _, word := range strings.Fields(r.out.String())[:2] {
		members = append(members, atoi(word))
	}
	for _, pid := range members {
		if !r.Has(pid) {
			t.Errorf("%d of %v is none", pid, members)
		}
	}
	for name, pid := range map[string]int{"the supervisor": os.Getpid(), "init": 1, "a helper": helper.Process.Pid, "another target": other.PID(), "nobody": 1 << 22, "no number": 0} {
		if r.Has(pid) {
			t.Errorf("%s, %d, is one", name, pid)
		}
	}
	for _, pid := range members {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	r.wait(t)
	if err := other.Signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	other.wait(t)
}
