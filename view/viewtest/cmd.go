// SPDX-License-Identifier: Apache-2.0

// Commands inside a namespace, with deadlines and whole results.

package viewtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The ordinary user of the laboratory: no account, no privileges.
const (
	UID = 61234
	GID = 61234
)

// DefaultTimeout bounds a command that sets no timeout of its own.
const DefaultTimeout = 60 * time.Second

// A Cmd is a command in a namespace. Stdin is empty, the outputs are kept, and
// it is killed with its process group when its time is over. Set the fields of
// the embedded exec.Cmd before Start.
type Cmd struct {
	*exec.Cmd
	ns      *NS
	ctx     context.Context
	cancel  context.CancelFunc
	stdout  buffer
	stderr  buffer
	waited  sync.Once
	waitErr error
}

// A Result is what a command left.
type Result struct {
	Stdout, Stderr string
	Status         int            // exit status, 128+n for signal n, -1 if it never ran
	Signal         syscall.Signal // 0 when it exited
	TimedOut       bool
	Args           []string
	Took           time.Duration
}

func (r Result) String() string {
	late := ""
	if r.TimedOut {
		late = " (killed at its deadline)"
	}
	return fmt.Sprintf("%s\nstatus %d%s after %v\n-- stdout\n%s\n-- stderr\n%s",
		strings.Join(r.Args, " "), r.Status, late, r.Took.Round(time.Millisecond), clip(r.Stdout), clip(r.Stderr))
}

// clip keeps failure messages readable.
func clip(s string) string {
	const most = 4000
	if len(s) <= most {
		return s
	}
	return s[:most/2] + "\n[...]\n" + s[len(s)-most/2:]
}

// Command prepares a command that lives until ctx ends, or DefaultTimeout.
func (n *NS) Command(ctx context.Context, args ...string) *Cmd {
	limit := DefaultTimeout
	if end, ok := ctx.Deadline(); ok {
		limit = time.Until(end)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	c := &Cmd{Cmd: exec.CommandContext(ctx, args[0], args[1:]...), ns: n, ctx: ctx, cancel: cancel}
	c.Cmd.Stdout, c.Cmd.Stderr = &c.stdout, &c.stderr
	c.Env = append(environ(), "LC_ALL=C", "http_proxy=", "https_proxy=", "no_proxy=*")
	// A group of its own, so that what it started goes with it; the death of
	// the namespace's thread, that is of the test process, kills it too.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = 2 * time.Second
	return c
}

// environ is the environment without what git tells its own children, as those of
// a bisect or a rebase: GIT_DIR would turn the laboratory's git on the project's
// repository.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "GIT_") })
}

// AsUser makes the command run as the laboratory's ordinary user with an own
// home directory.
func (c *Cmd) AsUser(home string) *Cmd {
	c.SysProcAttr.Credential = &syscall.Credential{Uid: UID, Gid: GID}
	c.Env = append(c.Env, "HOME="+home, "USER=lab", "LOGNAME=lab", "XDG_RUNTIME_DIR=", "XDG_CONFIG_HOME=",
		"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin") // not root's, which the user may not search
	c.Dir = home
	return c
}

// Capable leaves the user capabilities, by their numbers; call it after AsUser.
func (c *Cmd) Capable(caps ...uintptr) *Cmd {
	c.SysProcAttr.AmbientCaps = caps
	return c
}

// Start forks the command from the namespace's thread.
func (c *Cmd) Start() (err error) {
	c.ns.Do(func() { err = c.Cmd.Start() })
	if err != nil {
		c.cancel()
	}
	return err
}

// Wait waits for the end; it may be called more than once.
func (c *Cmd) Wait() error {
	c.waited.Do(func() {
		c.waitErr = c.Cmd.Wait()
		c.cancel()
	})
	return c.waitErr
}

// Stop kills the command and its group and waits.
func (c *Cmd) Stop() {
	c.cancel()
	c.Wait()
}

// Output is what was written to stdout until now.
func (c *Cmd) Output() string { return c.stdout.String() }

// Errors is what was written to stderr until now.
func (c *Cmd) Errors() string { return c.stderr.String() }

// Result runs a prepared command, or waits for a started one.
func (c *Cmd) Result() Result {
	start := time.Now()
	r := Result{Args: c.Args, Status: -1}
	if c.Process == nil {
		if err := c.Start(); err != nil {
			r.Stderr = err.Error()
			return r
		}
	}
	err := c.Wait()
	r.Took = time.Since(start)
	r.Stdout, r.Stderr = c.stdout.String(), c.stderr.String()
	r.TimedOut = errors.Is(c.ctx.Err(), context.DeadlineExceeded)
	if ps := c.ProcessState; ps != nil {
		ws := ps.Sys().(syscall.WaitStatus)
		r.Status = ws.ExitStatus()
		if ws.Signaled() {
			r.Signal = ws.Signal()
			r.Status = 128 + int(ws.Signal())
		}
	} else if err != nil {
		r.Stderr += err.Error()
	}
	return r
}

// MustRun runs a command that has to exit with 0 and returns its stdout.
func (n *NS) MustRun(t testing.TB, args ...string) string {
	t.Helper()
	r := n.Command(context.Background(), args...).Result()
	if r.Status != 0 {
		t.Fatalf("in the %s namespace: %v", n.Name, r)
	}
	return r.Stdout
}

// buffer is a bytes.Buffer that may be read while the command still writes.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

var _ io.Writer = (*buffer)(nil)

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Eventually polls f until it returns nil, and fails the test with its last
// error after d.
func Eventually(t testing.TB, d time.Duration, f func() error) {
	t.Helper()
	if err := poll(d, f); err != nil {
		t.Fatalf("not within %v: %v", d, err)
	}
}

func poll(d time.Duration, f func() error) error {
	end := time.Now().Add(d)
	for {
		err := f()
		if err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}
