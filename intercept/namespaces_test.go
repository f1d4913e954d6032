// SPDX-License-Identifier: Apache-2.0

// Tests of targets in namespaces of their own, and of searching for the program there.

package intercept

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// testSteps are what the child of these tests can do.
var testSteps = []Step{
	{Name: "hostname", Run: func(data []byte, _ *os.File) error { return unix.Sethostname(data) }},
	{Name: "fail", Run: func(data []byte, _ *os.File) error { return fmt.Errorf("%s: %w", data, unix.EXDEV) }},
}

// own are namespaces that an ordinary user may make, or the test is skipped.
func own(t *testing.T) *Namespaces {
	t.Helper()
	ns := &Namespaces{Flags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWUTS, Step: "hostname", Data: []byte("inside")}
	if err := ns.Try(); err != nil {
		t.Skipf("this machine allows no user namespaces: %v", err)
	}
	return ns
}

// TestNamespaces: the step has had its effect, the program has no capability, one user
// and no descriptor of ours, and can be looked at.
func TestNamespaces(t *testing.T) {
	ns := own(t)
	others, err := InheritedFDs()
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan error, 1) // one call
	look := func(c *Call) Action {
		f, err := c.DupFD(1)
		if err == nil {
			f.Close()
		}
		seen <- err
		return add1000(c)
	}
	_, out := start(t, Config{Namespaces: ns, Rules: onCall(look)}, "call").wait(t)
	if out != "call: 1000\n" {
		t.Errorf("got %q", out)
	}
	if err := <-seen; err != nil {
		t.Errorf("a target in a user namespace: %v", err)
	}
	script := `uname -n; grep '^Cap' /proc/self/status; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; ls /proc/self/fd | wc -l; readlink /proc/self/ns/mnt`
	read := func(c *Call) Action {
		if err := c.ReadMem(Addr(c.Args[1]), make([]byte, 1)); err != nil {
			t.Errorf("memory of a target in a user namespace: %v", err)
		}
		return Continue()
	}
	rules := Rules{{NR: unix.SYS_OPENAT, Do: Notify, Handler: HandlerFunc(read)}}
	_, out = start(t, Config{Namespaces: ns, Rules: rules, Path: "/bin/sh", Argv: []string{"sh", "-c", script}}).wait(t)
	got := strings.Fields(out)
	none := "0000000000000000"
	want := fmt.Sprintf("inside CapInh: %s CapPrm: %s CapEff: %s CapBnd: %s CapAmb: %s %d %d 1 %d %d 1 deny %d",
		none, none, none, none, none, os.Geteuid(), os.Geteuid(), os.Getegid(), os.Getegid(), 4+len(others))
	if len(got) == 0 || strings.Join(got[:len(got)-1], " ") != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	here, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil || len(got) == 0 || got[len(got)-1] == here {
		t.Errorf("the mounts are those of %s, %v", here, err)
	}
	if name, err := os.Hostname(); err != nil || name == "inside" {
		t.Errorf("the host's name is %s, %v", name, err)
	}
}

// TestNamespacesFail: the error of a step is that of Start, and of Try.
func TestNamespacesFail(t *testing.T) {
	ns := own(t)
	for _, tc := range []struct {
		step, want string
		errno      unix.Errno
	}{
		{"fail", "it did not work: invalid cross-device link", unix.EXDEV},
		{"nowhere", `there is no step "nowhere": invalid argument`, unix.EINVAL},
	} {
		ns.Step, ns.Data = tc.step, []byte("it did not work")
		_, started := Start(context.Background(), Config{Path: "/bin/true", Namespaces: ns})
		for _, err := range []error{started, ns.Try()} {
			var se *StepError
			if !errors.As(err, &se) || se.Text != tc.want || se.Err != tc.errno || !errors.Is(err, tc.errno) {
				t.Errorf("%s: got %v", tc.step, err)
			}
		}
	}
	bad := &Namespaces{Flags: unix.CLONE_NEWUSER | unix.CLONE_FS} // clone(2), EINVAL
	if err := bad.Try(); !errors.Is(err, unix.EINVAL) {
		t.Errorf("clone: %v", err)
	}
}

// TestSearch: the program is the first that can be executed, as for execvp(3).
func TestSearch(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("echo"), 0o644); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("echo"), 0o755); err != nil {
		t.Fatal(err)
	}
	missing, below := filepath.Join(dir, "missing"), filepath.Join(plain, "x")
	_, out := start(t, Config{Path: missing, Search: []string{plain, below, targetPath(t)}, Argv: []string{"target", "exit", "0"}}).wait(t)
	if out != "" {
		t.Errorf("got %q", out)
	}
	for _, tc := range []struct {
		paths []string
		path  string
		errno unix.Errno
	}{
		{[]string{missing, below}, below, unix.ENOTDIR},
		{[]string{plain, missing}, plain, unix.EACCES},
		{[]string{missing, plain, below}, plain, unix.EACCES},
		{[]string{missing, script, "/bin/true"}, script, unix.ENOEXEC},
	} {
		_, err := Start(context.Background(), Config{Path: tc.paths[0], Search: tc.paths[1:]})
		var ee *ExecError
		if !errors.As(err, &ee) || ee.Path != tc.path || ee.Err != tc.errno {
			t.Errorf("%q: got %v, want %s of %s", tc.paths, err, tc.errno, tc.path)
		}
	}
}
