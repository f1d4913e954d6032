// SPDX-License-Identifier: Apache-2.0

// Tests of the ways around the supervisor.

package intercept

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDoors tries what the base rules deny, with garbage in unused bits, and by
// the other entries of x86.
func TestDoors(t *testing.T) {
	rules := append(onCall(add1000), Rule{Arch: I386, NR: 132, Handler: HandlerFunc(func(c *Call) Action {
		if c.Arch != I386 {
			t.Errorf("arch %v", c.Arch)
		}
		return Return(2000 + int64(c.Args[0]))
	})})
	// libseccomp traps socketcall along with i386 socket (359), whatever arguments
	// the rule is for; no rule wants it, so nobody may let it pass.
	never := HandlerFunc(func(*Call) Action { t.Error("the wrong handler was asked"); return Continue() })
	rules = append(rules,
		Rule{Arch: I386, NR: 359, Args: []Arg{ArgEqual32(0, unix.AF_INET)}, Handler: never},
		Rule{Arch: I386, NR: 102, Args: []Arg{ArgEqual32(0, 20)}, Handler: never})
	_, out := start(t, Config{Rules: rules}, "doors").wait(t)
	want := `listener: EBUSY
listener, high bits: EBUSY
listener, more flags: EBUSY
plain filter: 0
io_uring_setup: ENOSYS
io_uring_enter: ENOSYS
io_uring_register: ENOSYS
add_key: ENOSYS
request_key: ENOSYS
keyctl: ENOSYS
TIOCSTI: EIO
TIOCLINUX: ENOTTY
typed: 0
undumpable: 0
dumpable: 1
bad dumpable: EINVAL
`
	x86 := `x32: ENOSYS
i386 listener: EBUSY
i386 io_uring_setup: ENOSYS
i386 prctl: 0
i386 TIOCSTI: EIO
i386 TIOCLINUX: ENOTTY
i386 call: 2003
i386 socketcall: ENOSYS
`
	if runtime.GOARCH == "amd64" {
		want += x86
	}
	if out != want {
		t.Errorf("output\n%s, want\n%s", out, want)
	}
}

// TestOrphaned kills the supervisor and lets the program, which has called off its
// death signal, look for a way out: all calls fail, and no new listener can be had.
func TestOrphaned(t *testing.T) {
	s := startSupervisor(t, nil, "orphaned")
	s.out.await(t, "ready")
	if err := s.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Process.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.in.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	s.out.await(t, "call: ENOSYS\nlistener: EBUSY\ncall: ENOSYS\n")
}

// TestDeathSignal kills the supervisor: the program dies too.
func TestDeathSignal(t *testing.T) {
	s := startSupervisor(t, nil, "wait")
	s.out.await(t, "ready")
	var pid int
	eventually(t, "child", func() bool {
		b, err := os.ReadFile(filepath.Join("/proc", itoa(s.Process.Pid), "task", itoa(s.Process.Pid), "children"))
		if err != nil {
			return false
		}
		// The thread that forked has the child, and need not be the first.
		files, _ := filepath.Glob(filepath.Join("/proc", itoa(s.Process.Pid), "task/*/children"))
		for _, f := range files {
			more, _ := os.ReadFile(f)
			b = append(b, more...)
		}
		for _, word := range strings.Fields(string(b)) {
			pid = atoi(word)
		}
		return pid != 0
	})
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if err := s.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	eventually(t, "death of the program", func() bool {
		n, err := unix.Poll(p, 0)
		return err == nil && n == 1
	})
}

// TestSteal runs as an ordinary user, whose program tries to take the supervisor's
// descriptors: the listener is among them.
func TestSteal(t *testing.T) {
	s := startSupervisorOf(t, public(t, targetPath(t)), ordinary(t), "steal")
	s.out.await(t, "supervisor: 0\n")
	if out := s.out.String(); !strings.Contains(out, "taken: 0\ngetfd: EPERM\nmem: EACCES\n") || strings.Contains(out, "uid: 0\n") || !strings.Contains(out, "call: 1001\n") {
		t.Errorf("output\n%s", out)
	}
}

// TestStealAsRoot is TestSteal where the program may do everything but what its domain
// forbids, and tells what the program of another Start could take: nothing either.
func TestStealAsRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("TestSteal is about ordinary users")
	}
	if !HasDomains() {
		t.Skip("Landlock has no LANDLOCK_ACCESS_NET_BIND_TCP here (Linux 6.7)")
	}
	_, out := start(t, Config{Rules: onCall(add1000)}, "steal").wait(t)
	if !strings.Contains(out, "taken: 0\ngetfd: EPERM\nmem: EACCES\nuid: 0\ncall: 1001\n") {
		t.Errorf("output\n%s", out)
	}
	other := start(t, Config{Rules: onCall(add1000)}, "wait")
	other.out.await(t, "ready")
	_, out = start(t, Config{Rules: onCall(add1000)}, "steal", itoa(other.PID())).wait(t)
	if !strings.Contains(out, "taken: 0\ngetfd: EPERM\nmem: EACCES\n") {
		t.Errorf("of another target:\n%s", out)
	}
	if err := other.Signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	other.wait(t)
}

// TestExecuteOnly runs a program that its user may not read: what needs its memory
// fails, and is told about.
func TestExecuteOnly(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can make a program that its user can run but not read")
	}
	secret := public(t, targetPath(t))
	if err := os.Chmod(secret, 0o711); err != nil {
		t.Fatal(err)
	}
	s := startSupervisorOf(t, secret, ordinary(t), "memory")
	s.out.await(t, "supervisor: 0\n")
	if out := s.out.String(); !strings.Contains(out, "string: EPERM\n") || !strings.Contains(out, "write: EPERM\n") || strings.Count(out, "may not be read") != 1 {
		t.Errorf("output\n%s", out)
	}
}

// TestNested starts a supervisor inside a supervisor.
func TestNested(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, Config{Path: exe, Env: append(os.Environ(), superviseEnv+"="+targetPath(t), "INTERCEPT_ARGS=call")})
	ws, out := r.wait(t)
	if ws.ExitStatus() != 125 || !strings.Contains(out, "inside another") || !strings.Contains(out, "true") {
		t.Errorf("status %#x, output %q", ws, out)
	}
}
