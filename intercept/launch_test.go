// SPDX-License-Identifier: Apache-2.0

// Tests of launching, ending and reaping.

package intercept

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// add1000 answers CALL(n) with 1000 + n.
func add1000(c *Call) Action { return Return(1000 + int64(int32(c.Args[0]))) }

func TestCalls(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"call", "call: 1000\n"},
		{"threads", "bad: 0\n"},
		{"fork", "bad: 0\n"},
		{"vfork", "call: 1008\nstatus: 0\n"},
		{"exec", "call: 1009\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, Config{Rules: onCall(add1000)}, tt.name)
			ws, out := r.wait(t)
			if ws != 0 || out != tt.want {
				t.Errorf("status %#x, output %q, want %q", ws, out, tt.want)
			}
		})
	}
}

func TestStatus(t *testing.T) {
	for _, n := range []int{0, 1, 77, 255} {
		ws, _ := start(t, Config{}, "exit", fmt.Sprint(n)).wait(t)
		if !ws.Exited() || ws.ExitStatus() != n {
			t.Errorf("exit(%d): status %#x", n, ws)
		}
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL, unix.SIGSEGV} {
		ws, _ := start(t, Config{}, "kill", fmt.Sprint(int(sig))).wait(t)
		if !ws.Signaled() || unix.Signal(ws.Signal()) != sig {
			t.Errorf("%v: status %#x", sig, ws)
		}
	}
}

// TestDaemon has a process that leaves session and parent: it stays ours, and is
// waited for and reaped.
func TestDaemon(t *testing.T) {
	r := start(t, Config{Rules: onCall(add1000)}, "daemon", "200")
	ws, err := r.Wait()
	if err != nil || ws != 0 {
		t.Fatalf("status %#x, %v", ws, err)
	}
	if out := r.out.String(); out != "" {
		t.Fatalf("the daemon was as fast as its parent: %q", out)
	}
	if _, out := r.wait(t); out != "daemon: 1005\n" {
		t.Errorf("output %q", out)
	}
	if err := r.Signal(unix.SIGTERM); !errors.Is(err, unix.ESRCH) {
		t.Errorf("signal after the end: %v", err)
	}
	for _, pid := range children() {
		if n, err := statusField(pid, "Seccomp_filters"); err == nil && n > r.f.filters {
			t.Errorf("child %d of the target was not reaped", pid)
		}
	}
}

func TestSignalAndJobControl(t *testing.T) {
	changes := make(chan unix.WaitStatus, 10)
	r := start(t, Config{OnChange: func(ws unix.WaitStatus) { changes <- ws }, Rules: onWait(park(Restart()))}, "wait")
	r.out.await(t, "ready")
	expect := func(what string, ok func(unix.WaitStatus) bool) {
		t.Helper()
		select {
		case ws := <-changes:
			if !ok(ws) {
				t.Errorf("%s: status %#x", what, ws)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: nothing was told", what)
		}
	}
	for range 2 {
		if err := r.Signal(unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		expect("stop", unix.WaitStatus.Stopped)
		if err := r.Signal(unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		expect("continue", unix.WaitStatus.Continued)
	}
	if err := r.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if ws, _ := r.wait(t); !ws.Signaled() || ws.Signal() != unix.SIGTERM {
		t.Errorf("status %#x", ws)
	}
}

// TestTraceMe: nobody who knows of it would be the tracer of the first process, or of an
// orphan. Others have their tracers.
func TestTraceMe(t *testing.T) {
	const want = "stopped: 1\ngoes on: 0\nstatus: 3\ntraceme: 0\nticks: 1\ncall: 1000\n"
	for _, args := range [][]string{{"traceme"}, {"traceme", "orphan"}} {
		ws, out := start(t, Config{Rules: onCall(add1000)}, args...).wait(t)
		if ws != 0 || out != want {
			t.Errorf("%q: status %#x, output %q, want %q", args, ws, out, want)
		}
	}
}

func TestStartErrors(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	for _, tt := range []struct {
		name string
		cfg  Config
		want unix.Errno
	}{
		{"missing", Config{Path: filepath.Join(dir, "none")}, unix.ENOENT},
		{"not executable", Config{Path: plain}, unix.EACCES},
		{"directory", Config{Path: dir}, unix.EACCES},
		{"no such directory", Config{Path: "/bin/true", Dir: filepath.Join(dir, "none")}, unix.ENOENT},
		{"NUL", Config{Path: "/bin/true", Argv: []string{"a\x00b"}}, unix.EINVAL},
	} {
		tt.cfg.Log = log
		_, err := Start(t.Context(), tt.cfg)
		var e *ExecError
		if !errors.As(err, &e) || e.Err != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if _, err := Start(t.Context(), Config{Path: "/bin/true", Rules: Rules{{NR: 1}}}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a rule without a handler: %v", err)
	}
	before, err := openFDs()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, Config{Path: "/bin/true", Log: log}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled start: %v", err)
	}
	if after, err := openFDs(); err != nil || len(after) > len(before) {
		t.Errorf("descriptors before %v, after %v, %v", before, after, err)
	}
}

// TestOthersChildren has two targets and other children in one process: everyone
// gets the status of his own.
func TestOthersChildren(t *testing.T) {
	a := start(t, Config{Rules: onCall(add1000)}, "daemon", "100")
	b := start(t, Config{Rules: onWait(park(Restart()))}, "wait")
	c := start(t, Config{}, "exit", "7")
	b.out.await(t, "ready")
	for i := range 20 {
		err := exec.CommandContext(t.Context(), "sh", "-c", fmt.Sprintf("exit %d", i)).Run()
		var e *exec.ExitError
		if i > 0 && (!errors.As(err, &e) || e.ExitCode() != i) {
			t.Errorf("status of an ordinary child: %v, want %d", err, i)
		}
	}
	if ws, _ := c.wait(t); ws.ExitStatus() != 7 {
		t.Errorf("third: status %#x", ws)
	}
	if ws, out := a.wait(t); ws != 0 || out != "daemon: 1005\n" {
		t.Errorf("first: status %#x, output %q", ws, out)
	}
	b.f.kill()
	if ws, _ := b.wait(t); ws.Signal() != unix.SIGKILL {
		t.Errorf("second: status %#x", ws)
	}
}

// TestBigSpec starts a program with more arguments and environment than a socket
// buffer holds.
func TestBigSpec(t *testing.T) {
	argv := []string{"sh", "-c", `echo $# ${#LONG}`, "sh"}
	for range 5000 {
		argv = append(argv, strings.Repeat("x", 100))
	}
	r := start(t, Config{Path: "/bin/sh", Argv: argv, Env: []string{"LONG=" + strings.Repeat("y", 100_000)}})
	if _, out := r.wait(t); out != "5000 100000\n" {
		t.Errorf("output %q", out)
	}
}

// TestInheritance checks what the program finds: its limit of descriptors (which
// the runtime raises for itself), no descriptor of ours, its signal mask, and
// inherited descriptors but for sockets of the network.
func TestInheritance(t *testing.T) {
	var old, rl unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if old.Cur != old.Max {
		t.Errorf("the supervisor may open only %d of %d descriptors", old.Cur, old.Max)
	}

	// What the test itself was started with; not all shells tidy up.
	others, err := InheritedFDs()
	if err != nil {
		t.Fatal(err)
	}
	others = slices.DeleteFunc(others, func(fd int) bool { return !LocalFD(fd) })

	file := inheritable(t, func() (int, error) { return unix.Open("/dev/null", unix.O_RDONLY, 0) }, 100)
	local := inheritable(t, func() (int, error) { return unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0) }, 101)
	inet := inheritable(t, func() (int, error) { return unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0) }, 102)
	netlink := inheritable(t, func() (int, error) { return unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, 0) }, 103)

	mask := uint64(1<<(unix.SIGUSR1-1) | 1<<(unix.SIGURG-1))
	r := start(t, Config{SigMask: &mask, Env: []string{"A=b"}}, "limits")
	if want := []int{inet, netlink}; !slices.Equal(r.ClosedFDs(), want) {
		t.Errorf("closed %v, want %v", r.ClosedFDs(), want)
	}
	_, out := r.wait(t)
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &rl); err != nil || rl != old {
		t.Errorf("the supervisor's limit is %v, was %v", rl, old)
	}
	_, out, _ = strings.Cut(out, "\n") // nofile is TestLimit's
	open := append(others, file, local)
	slices.Sort(open)
	var want string
	for _, fd := range open {
		want += fmt.Sprintf("open: %d\n", fd)
	}
	want += fmt.Sprintf("blocked: %d\nblocked: %d\nmarker: 0\n", unix.SIGUSR1, unix.SIGURG)
	if out != want {
		t.Errorf("the program found\n%s, want\n%s", out, want)
	}
}

// inheritable makes a descriptor that is not close-on-exec.
func inheritable(t *testing.T, open func() (int, error), as int) int {
	t.Helper()
	fd, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Dup3(fd, as, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(as) })
	return as
}

// TestLimit runs a supervisor with a low soft limit of descriptors: it has all that
// it may have, its program what the supervisor was started with.
func TestLimit(t *testing.T) {
	sup := startSupervisor(t, []string{"/bin/sh", "-c", `ulimit -S -n 256 && exec "$0"`, "/proc/self/exe"}, "limits")
	sup.out.await(t, "nofile: 256\n")
	sup.out.await(t, "supervisor: 0\n")
}
