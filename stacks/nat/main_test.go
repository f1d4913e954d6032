// SPDX-License-Identifier: Apache-2.0

// The tests' network: a namespace of their own, with addresses that lead nowhere.

package nat_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const (
	inNamespace = "UMRUN_NAT_TEST_NETNS"
	isRouter    = "UMRUN_NAT_TEST_ROUTER"
)

// The host of these tests is a namespace with
//
//	lo    127.0.0.1, ::1, 10.255.0.1/32
//	ext0  198.51.100.2/24, 2001:db8::2/64   (its peer ext1 is deaf)
//	      203.0.113.0/24, 2001:db8:1::/64   unreachable
//	      192.0.2.0/24                      prohibited
//	      all else                          no route
var setup = []string{
	"link set lo up",
	"addr add 10.255.0.1/32 dev lo",
	"link add ext0 type veth peer name ext1",
	"link set ext0 up",
	"link set ext1 up",
	"addr add 198.51.100.2/24 dev ext0",
	"addr add 2001:db8::2/64 dev ext0 nodad",
	"route add unreachable 203.0.113.0/24",
	"route add unreachable 2001:db8:1::/64",
	"route add prohibit 192.0.2.0/24",
}

func TestMain(m *testing.M) {
	if os.Getenv(isRouter) != "" {
		os.Exit(router())
	}
	if os.Getenv(inNamespace) == "" {
		os.Exit(reexec())
	}
	// A fuzz worker is a child in the same namespace.
	if slices.Contains(os.Args, "-test.fuzzworker") {
		os.Exit(m.Run())
	}
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, "set up the test namespace:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// reexec runs the tests in namespaces of their own, as root of a user namespace
// where this is not root already.
func reexec() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	}
	fmt.Fprintln(os.Stderr, "FAIL: these tests need network namespaces (unprivileged user namespaces, or root):", err)
	return 1
}

func setUp() error {
	if err := ip(setup...); err != nil {
		return err
	}
	return pingRange("0 2147483647")
}

// pingRange sets who may open ping sockets, icmp(7).
func pingRange(groups string) error {
	const file = "/proc/sys/net/ipv4/ping_group_range"
	err := os.WriteFile(file, []byte(groups), 0o644)
	if errors.Is(err, syscall.EINVAL) { // only one group is mapped
		err = os.WriteFile(file, []byte("0 0"), 0o644)
	}
	return err
}

// eventually polls until ok or a deadline.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatal("never happened: " + what)
}
