// SPDX-License-Identifier: Apache-2.0

// Namespaces: a target that begins in some of its own.

package intercept

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Namespaces are those of its own that a target begins in, and what is done there
// before the filter is installed and the program runs.
//
// With CLONE_NEWUSER the child begins with every capability in the new user namespace,
// for the step, and with none when the program starts. One user and one group are
// mapped there, the caller's effective ones, to themselves: every other is seen as the
// overflow user and group (user_namespaces(7)), and setgroups(2) is denied.
type Namespaces struct {
	Flags uintptr // CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWUTS (clone(2))
	Step  string  // the Step that makes them ready; empty: none
	Data  []byte  // for the Step
}

// A Step makes the namespaces of a target ready. Run is called in the child, which
// shares nothing with the supervisor but descriptors 0 to 2, the inherited ones, and
// the executable.
type Step struct {
	Name string
	Run  func(data []byte, link *os.File) error // link is nil without [Config].Link

	// Hand, if it is not nil, returns descriptors for the supervisor, after Run: at most
	// maxHanded, see [Supervisor.Handed].
	Hand func() []int
}

// maxHanded is how many descriptors a Step may hand over.
const maxHanded = 8

// A StepError says that a Step failed.
type StepError struct {
	Text string
	Err  unix.Errno // EINVAL if there was none
}

// Error is the text of the error that Step.Run returned.
func (e *StepError) Error() string { return e.Text }

// Unwrap returns the errno.
func (e *StepError) Unwrap() error { return e.Err }

// user reports whether there is a user namespace.
func (ns *Namespaces) user() bool { return ns != nil && ns.Flags&unix.CLONE_NEWUSER != 0 }

// attributes are what fork needs to know.
func (ns *Namespaces) attributes() *syscall.SysProcAttr {
	sys := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if ns == nil {
		return sys
	}
	sys.Cloneflags = ns.Flags
	if ns.user() { // else execve(2) would lose what clone(2) gave
		for c := range uintptr(lastCap() + 1) {
			sys.AmbientCaps = append(sys.AmbientCaps, c)
		}
	}
	return sys
}

// lastCap is the highest capability that the kernel knows. The kernel itself is asked:
// the child may have another /proc by then.
func lastCap() (last int) {
	for c := range 64 {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err != nil {
			break
		}
		last = c
	}
	return last
}

// childIDs is the variable that asks the child to map its user and group, UID:GID. It
// does that itself, and first of all: our own mappings of it would need a child that
// is dumpable when it is forked, which a copy of us is not (proc(5), "dumpable").
const childIDs = "UMRUN_CHILD_IDS"

// env is what the child is told of the namespaces before it can ask.
func (ns *Namespaces) env() []string {
	if !ns.user() {
		return nil
	}
	return []string{fmt.Sprintf("%s=%d:%d", childIDs, os.Geteuid(), os.Getegid())}
}

// mapIDs maps the user and group of ids to themselves, user_namespaces(7).
func mapIDs(ids string) error {
	uid, gid, ok := strings.Cut(ids, ":")
	if !ok {
		return nil
	}
	for _, f := range []struct{ file, text string }{
		{"setgroups", "deny"},
		{"uid_map", uid + " " + uid + " 1"},
		{"gid_map", gid + " " + gid + " 1"},
	} {
		if err := os.WriteFile("/proc/self/"+f.file, []byte(f.text), 0); err != nil {
			return err
		}
	}
	return nil
}

// prepare does the Step, and returns what it hands over.
func (ns *Namespaces) prepare(steps []Step, link *os.File) (handed []int, err error) {
	if ns == nil || ns.Step == "" {
		return nil, nil
	}
	for _, s := range steps {
		if s.Name != ns.Step {
			continue
		}
		if err = s.Run(ns.Data, link); err == nil && s.Hand != nil {
			handed = s.Hand()
		}
		return handed, err
	}
	return nil, fmt.Errorf("there is no step %q: %w", ns.Step, unix.EINVAL)
}

// dropCaps takes every capability from the calling thread, and from what it becomes.
func dropCaps() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	for c := range uintptr(lastCap() + 1) {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return err
		}
	}
	var none [2]unix.CapUserData // version 3 has two halves
	return unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
}

// Try makes the namespaces for a child that runs the Step and no program. It needs
// [ChildMain], as [Start] does. The error is nil, a [*StepError], or says what else was
// not allowed.
func (ns *Namespaces) Try() error {
	ours, theirs, err := controlPair()
	if err != nil {
		return err
	}
	defer ours.Close()
	pid, err := forkChild(&fdPlan{files: []uintptr{0, 1, 2, theirs.Fd()}, control: 3}, ns)
	theirs.Close()
	if err != nil {
		return fmt.Errorf("clone: %w", err)
	}
	defer func() {
		_ = unix.Kill(pid, unix.SIGKILL)
		for {
			if _, err := unix.Wait4(pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
	if err := instruct(ours, spec{Namespaces: ns, Trial: true}); err != nil {
		return err
	}
	var buf [reportSize]byte
	if _, err := io.ReadFull(ours, buf[:]); err != nil {
		return fmt.Errorf("the child ended before it had an answer: %w", err)
	}
	r := parseReport(buf[:])
	if r.Errno == 0 {
		return nil
	}
	return r.failure(&Config{}, ours)
}
