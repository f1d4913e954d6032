// SPDX-License-Identifier: Apache-2.0

// A supervisor in a process of its own, for tests that limit it, run it as another
// user, or kill it.

package intercept

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// superviseEnv makes the test binary a supervisor of target, with the arguments.
const superviseEnv = "INTERCEPT_SUPERVISE"

// supervise does not return in such a process.
func supervise() {
	path, ok := os.LookupEnv(superviseEnv)
	if !ok {
		return
	}
	os.Unsetenv(superviseEnv)
	args := strings.Fields(os.Getenv("INTERCEPT_ARGS"))
	call := HandlerFunc(add1000)
	if len(args) > 0 && args[0] == "memory" {
		call = useMemory
	}
	s, err := Start(context.Background(), Config{
		Path:  path,
		Argv:  append([]string{"target"}, args...),
		Rules: append(onCall(call), onWait(park(Restart()))...),
		Log:   slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		var u *UnsupportedError
		fmt.Println("start:", err, errors.As(err, &u))
		os.Exit(125)
	}
	ws, err := s.Wait()
	if err == nil {
		err = s.WaitAll(context.Background())
	}
	s.Close()
	if err != nil {
		fmt.Println("wait:", err)
	}
	fmt.Printf("supervisor: %d\n", ws.ExitStatus())
	os.Exit(0)
}

// super is a running supervisor process.
type super struct {
	*exec.Cmd
	out *output
	in  *os.File // standard input of its target
}

// startSupervisor runs a supervisor of the target. wrap, if not nil, is a command
// whose last word is replaced by the supervisor.
func startSupervisor(t *testing.T, wrap []string, args ...string) *super {
	t.Helper()
	return startSupervisorOf(t, targetPath(t), wrap, args...)
}

func startSupervisorOf(t *testing.T, path string, wrap []string, args ...string) *super {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	argv := []string{exe}
	if wrap != nil {
		exe = public(t, exe)
		argv = append(wrap[:len(wrap)-1:len(wrap)-1], exe)
	}
	s := &super{Cmd: exec.CommandContext(ctx, argv[0], argv[1:]...), out: new(output)}
	in, inw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	s.in = inw
	s.Env = append(os.Environ(), superviseEnv+"="+path, "INTERCEPT_ARGS="+strings.Join(args, " "))
	s.Stdin, s.Stdout, s.Stderr = in, s.out, s.out
	s.WaitDelay = 5 * time.Second
	if err := s.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		inw.Close()
		_ = s.Cmd.Wait()
	})
	return s
}

// public copies a program to where every user finds it.
func public(t *testing.T, exe string) string {
	t.Helper()
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "intercept") // t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, filepath.Base(exe))
	if err := os.WriteFile(copied, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return copied
}

// ordinary returns a command that runs its last word as an ordinary user, for
// startSupervisor; nil if this is one already.
func ordinary(t *testing.T) []string {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("setpriv is not installed, and root may do everything")
	}
	return []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "supervisor"}
}
