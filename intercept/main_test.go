// SPDX-License-Identifier: Apache-2.0

// What the tests share: the program under supervision, and starting it.

package intercept

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	ChildMain(testSteps...)
	supervise() // a supervisor of its own, for tests that kill it
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if targetDir != "" {
			os.RemoveAll(targetDir)
		}
		os.Exit(code)
	}))
}

// targetDir holds the compiled target; empty: it was not needed yet.
var targetDir string

// target is testdata/target.c, compiled at its first use.
var target = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "intercept")
	if err != nil {
		return "", err
	}
	targetDir = dir
	exe := filepath.Join(dir, "target")
	out, err := exec.Command("cc", "-O1", "-o", exe, "testdata/target.c", "-lpthread").CombinedOutput()
	if err != nil {
		os.Stderr.Write(out)
	}
	return exe, err
})

// targetPath returns the program, or skips.
func targetPath(t testing.TB) string {
	t.Helper()
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skip("there is no C compiler to build the supervised program with")
	}
	exe, err := target()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// A run is a supervised target of a test.
type run struct {
	*Supervisor
	out *output
	in  *os.File // standard input of the program; nil: empty
	log *output

	copied chan struct{} // closed when the output has ended
}

// output is what a program has written so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// await waits until the output contains s.
func (o *output) await(t testing.TB, s string) {
	t.Helper()
	eventually(t, "output "+s, func() bool { return strings.Contains(o.String(), s) })
}

// eventually polls with a deadline.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still no %s", what)
		}
	}
}

// start runs the target with the arguments.
func start(t testing.TB, cfg Config, args ...string) *run {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = targetPath(t)
		cfg.Argv = append([]string{"target"}, args...)
	}
	r := &run{out: new(output), log: new(output)}
	cfg.Log = slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Stdin == nil {
		in, inw, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cfg.Stdin, r.in = in, inw
		defer in.Close()
		t.Cleanup(func() { inw.Close() })
	}
	cfg.Stdout = pw
	if cfg.Stderr == nil {
		cfg.Stderr = pw
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s, err := Start(ctx, cfg)
	pw.Close()
	if err != nil {
		pr.Close()
		t.Fatal(err)
	}
	r.Supervisor = s
	r.copied = make(chan struct{})
	go func() {
		defer close(r.copied)
		_, _ = io.Copy(r.out, pr)
	}()
	t.Cleanup(func() {
		s.f.kill()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		<-r.copied
		pr.Close()
	})
	return r
}

// wait returns how the program ended, and what all of the target wrote.
func (r *run) wait(t testing.TB) (unix.WaitStatus, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := r.WaitAll(ctx); err != nil {
		r.f.kill()
		t.Fatalf("wait for the target: %v; output so far:\n%s", err, r.out)
	}
	ws, err := r.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if s := r.log.String(); s != "" {
		t.Logf("log:\n%s", s)
	}
	select {
	case <-r.copied: // end of file: nobody of the target is left
	case <-ctx.Done():
		t.Fatal("the target's output did not end with the target")
	}
	return ws, r.out.String()
}

// onCall is the rule for the CALL of target.c.
func onCall(h HandlerFunc) Rules {
	return Rules{{NR: unix.SYS_GETPGID, Do: Notify, Handler: h}}
}

// onWait is the rule for the WAIT of target.c.
func onWait(h HandlerFunc) Rules {
	return Rules{{NR: unix.SYS_ACCEPT, Do: Notify, Handler: h}}
}

// park is a handler that waits for ever and answers an interruption with a.
func park(a Action) HandlerFunc {
	return func(c *Call) Action { return c.Park(func(Reason) Action { return a }) }
}

func itoa(n int) string { return strconv.Itoa(n) }

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
