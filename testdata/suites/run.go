// SPDX-License-Identifier: Apache-2.0

// One run of one suite: reports as they come, hangs, and what is run again.

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An outcome is what became of one test.
type outcome string

const (
	pass outcome = "pass"
	fail outcome = "fail"
	skip outcome = "skip"
	hang outcome = "hang" // it was running when the process was ended, or crashed
)

func (o outcome) String() string {
	if o == "" {
		return "was not run"
	}
	return string(o)
}

// results are the outcomes by name.
type results map[string]outcome

// A runner has what all suites share.
type runner struct {
	options
	dir   string // of this run, readable by everybody
	umrun string
	runs  int
}

// run runs a suite, or the tests of it that only names. A process that ends too
// early, or is silent for too long, is started again without the tests that are
// done with.
func (r *runner) run(ctx context.Context, s suite, umrun bool, only []string) (results, error) {
	all := results{}
	deadline := time.Now().Add(r.deadline)
	for range 20 {
		done := map[string]bool{}
		for name := range all {
			done[s.top(name)] = true
		}
		argv, err := s.command(r, only, done)
		if err != nil {
			return nil, err
		}
		kind := "native"
		if umrun {
			kind = "umrun"
		}
		r.runs++
		log := filepath.Join(r.logs, fmt.Sprintf("%s.%s.%d.log", strings.ReplaceAll(s.String(), "/", "_"), kind, r.runs))
		status, err := r.once(ctx, s, umrun, log, deadline, argv)
		if err != nil {
			return nil, err
		}
		got, running, err := parseLog(log)
		if err != nil {
			return nil, err
		}
		if len(got) == 0 && len(running) == 0 && (status != 0 || len(all) == 0) {
			return nil, fmt.Errorf("no test ran, status %d; see %s (-logs keeps it)", status, log)
		}
		for name, o := range got {
			all[name] = o
		}
		for name := range running {
			all[name] = hang
		}
		if len(running) == 0 {
			break
		}
		if time.Now().After(deadline) {
			fmt.Printf("%v, %s: the deadline of %v is over\n", &s, kind, r.deadline)
			break
		}
	}
	return all, nil
}

// once runs a command in a jail of its own, natively or under umrun, and returns its status.
func (r *runner) once(ctx context.Context, s suite, umrun bool, log string, deadline time.Time, argv []string) (int, error) {
	home, err := os.MkdirTemp(r.dir, "home-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(home)
	if err := os.Chmod(home, 0o777); err != nil { // for an ordinary user, who has it alone
		return 0, err
	}
	out, err := os.Create(log)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	dir := s.dir
	if dir == "" {
		dir = home
	}
	if umrun {
		argv = slices.Concat([]string{r.umrun}, s.flags(home), []string{"--"}, argv)
	}
	c := jailed(dir, argv...)
	c.Stdout, c.Stderr = out, out
	c.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + home, "TMPDIR=" + home, "LANG=C.UTF-8", "XDG_RUNTIME_DIR=" + home}
	if err := c.Start(); err != nil {
		return 0, fmt.Errorf("a namespace of its own: %w", err)
	}
	ended := make(chan error, 1) // one result, so that the waiter never waits
	go func() { ended <- c.Wait() }()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var size int64
	last := time.Now()
	asked := false
	for {
		select {
		case <-ended:
			return c.ProcessState.ExitCode(), nil
		case <-ctx.Done():
			_ = c.Process.Kill()
			<-ended
			return 0, ctx.Err()
		case now := <-tick.C:
			if fi, err := out.Stat(); err == nil && fi.Size() != size && !asked {
				size, last = fi.Size(), now
			}
			switch silent := now.Sub(last); {
			case (silent > r.stall || now.After(deadline)) && !asked:
				asked, last = true, now
				_ = c.Process.Signal(unix.SIGQUIT)
			case asked && silent > 5*time.Second:
				_ = c.Process.Kill() // the first of the namespace: all of it
			}
		}
	}
}

// parseLog reads what a suite reported: lines that begin with the byte 0x16, in
// the form of Go's -test.v=test2json. running are the tests that have no end.
func parseLog(file string) (got results, running map[string]bool, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	got, running = results{}, map[string]bool{}
	for _, part := range bytes.Split(b, []byte{0x16})[1:] {
		line, _, _ := strings.Cut(string(part), "\n")
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		switch f[0] + " " + f[1] {
		case "=== RUN", "=== CONT":
			running[f[2]] = true
		case "--- PASS:":
			got[f[2]] = pass
			delete(running, f[2])
		case "--- FAIL:":
			got[f[2]] = fail
			delete(running, f[2])
		case "--- SKIP:":
			got[f[2]] = skip
			delete(running, f[2])
		case "=== PAUSE":
			delete(running, f[2])
		}
	}
	return got, running, nil
}
