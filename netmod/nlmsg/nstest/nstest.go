// SPDX-License-Identifier: Apache-2.0

// Package nstest runs the tests of a package in a network namespace of their own,
// where the kernel can be asked, and changed, as an oracle. It is for tests only.
package nstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// inside marks the process that Run started in a namespace; its value says why it is
// in none, if not empty.
const inside = "UMRUN_NSTEST_INSIDE"

// Run is for TestMain, instead of m.Run: it runs the tests again in a fresh network
// namespace, by way of a user namespace unless root does it, and returns the status to
// exit with, which is not 0 if a goroutine is left. Where no namespace can be made the
// tests run all the same, and [Need] skips those that want it.
func Run(m *testing.M) int {
	if _, ok := os.LookupEnv(inside); ok {
		status := m.Run()
		if err := goleak.Find(); status == 0 && err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
		return status
	}
	again := func(why string, attr *syscall.SysProcAttr) error {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), inside+"="+why)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = attr
		return cmd.Run()
	}
	attr := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if os.Getuid() != 0 {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	}
	err := again("", attr)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		err = again(err.Error(), nil)
	}
	if err != nil {
		return 1
	}
	return 0
}

// Need skips a test that is not in a namespace.
func Need(t testing.TB) {
	t.Helper()
	if why, ok := os.LookupEnv(inside); !ok || why != "" {
		t.Skip("no network namespace can be made here: " + why)
	}
}
