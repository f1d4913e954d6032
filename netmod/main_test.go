// SPDX-License-Identifier: Apache-2.0

// Tests run targets: functions of this test binary that it executes again, once
// natively on the kernel's loopback, once under the module on a loopback of its
// own. What they print must be the same.

package netmod_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/netmod"
	"umrun/stacks/netstack"
)

// targetEnv names the target. Targets run without the race detector's second of
// waiting at the end, and without the runtime's signals, which would interrupt them.
const targetEnv = "NETMOD_TARGET"

// targets are the programs, by name. Each prints what it sees.
var targets = map[string]func(w *transcript){}

func TestMain(m *testing.M) {
	intercept.ChildMain()
	if name := os.Getenv(targetEnv); name != "" {
		targets[name](&transcript{})
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// A transcript is what a target prints.
type transcript struct{ mu sync.Mutex }

func (w *transcript) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Printf(format+"\n", args...)
}

// result says how a call ended: its errno, or ok.
func (w *transcript) result(what string, err error) {
	if err == nil {
		w.say("%s: ok", what)
		return
	}
	w.say("%s: %v", what, unix.ErrnoName(intercept.Errno(err)))
}

// must ends the target when its own preparations fail.
func (w *transcript) must(what string, err error) {
	if err != nil {
		w.say("%s: %v", what, err)
		os.Exit(1)
	}
}

// natively runs a target on the kernel.
func natively(t *testing.T, name string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), targetEnv+"="+name, "GORACE=atexit_sleep_ms=0", "GODEBUG=asyncpreemptoff=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("natively: %v\n%s", err, out)
	}
	return string(out)
}

// A world is a module on a stack of its own.
type world struct {
	stack *netstack.Stack
	mod   *netmod.Module
	log   *bytes.Buffer
	meter *intercept.Meter // nil: nothing is counted
}

func newWorld(t testing.TB, change func(*netmod.Config)) *world {
	t.Helper()
	w := &world{log: new(bytes.Buffer)}
	log := slog.New(slog.NewTextHandler(&lockedWriter{w: w.log}, nil))
	var err error
	if w.stack, err = netstack.New(netstack.Config{Log: log}); err != nil {
		t.Fatal(err)
	}
	conf := netmod.Config{Stack: w.stack, Log: log}
	if change != nil {
		change(&conf)
	}
	if w.mod, err = netmod.New(conf); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.mod.Close(); err != nil {
			t.Error(err)
		}
		if err := w.stack.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// run runs argv under the module, or the target name if argv is nil.
func (w *world) run(t *testing.T, name string, argv ...string) (string, unix.WaitStatus) {
	t.Helper()
	r, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	path := "/proc/self/exe"
	if len(argv) > 0 {
		path = argv[0]
	} else {
		argv = []string{"target"}
	}
	env := append(os.Environ(), targetEnv+"="+name, "GORACE=atexit_sleep_ms=0", "GODEBUG=asyncpreemptoff=1")
	sup, err := intercept.Start(ctx, intercept.Config{
		Path: path, Argv: argv, Env: env, Rules: w.mod.Rules(),
		Stdout: pw, Stderr: pw, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Meter: w.meter,
	})
	pw.Close()
	if err != nil {
		r.Close()
		t.Fatal(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = sup.Signal(unix.SIGKILL) })
	defer stop()
	out, err := io.ReadAll(r)
	r.Close()
	if err != nil {
		t.Error(err)
	}
	status, err := sup.Wait()
	if err != nil {
		t.Error(err)
	}
	if err := w.mod.Drain(ctx, nil); err != nil {
		t.Error(err)
	}
	if err := sup.Close(); err != nil {
		t.Error(err)
	}
	return string(out), status
}

// known lists, per target, lines of the kernel that differ here, with what is said
// instead; the reason stands beside each.
type known map[string]string

// compare runs a target natively and under the module.
func compare(t *testing.T, name string, differ known) {
	t.Helper()
	want := natively(t, name)
	if want == "" {
		t.Fatal("the target says nothing")
	}
	lines := strings.Split(want, "\n")
	seen := make(map[string]bool)
	for i, l := range lines {
		if d, ok := differ[l]; ok {
			lines[i] = d
			seen[l] = true
		}
	}
	for l := range differ {
		if seen[l] {
			continue
		}
		t.Errorf("known difference that did not occur: %q", l)
	}
	w := newWorld(t, nil)
	got, status := w.run(t, name)
	if status.Signaled() {
		t.Errorf("target ended by %v", status.Signal())
	}
	if d := cmp.Diff(strings.Join(lines, "\n"), got); d != "" {
		t.Errorf("transcript differs from the kernel's (-kernel +umrun):\n%s\n%s", d, w.log)
	}
}
