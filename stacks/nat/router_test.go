// SPDX-License-Identifier: Apache-2.0

// A router next to the tests' host, in a process and namespace of its own.

package nat_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// startRouter puts a router behind the host for the length of the test:
//
//	view --link-- host 192.0.0.2 --rt0--rt1-- 192.0.0.1 router
//	              2001:db8:9::2               2001:db8:9::1
//
// It forwards 198.18.0.0/15 and 2001:db8:18::/48, to nobody.
func startRouter(t *testing.T) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), isRouter+"=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	run(t, fmt.Sprintf("link add rt0 type veth peer name rt1 netns %d", cmd.Process.Pid))
	t.Cleanup(func() { exec.Command("ip", "link", "del", "rt0").Run() })
	run(t, "link set rt0 up", "addr add 192.0.0.2/24 dev rt0", "addr add 2001:db8:9::2/64 dev rt0 nodad")
	fmt.Fprintln(in, "go")
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("router: %q, %v", line, err)
	}
	run(t, "route add 198.18.0.0/15 via 192.0.0.1", "route add 2001:db8:18::/48 via 2001:db8:9::1")
}

func run(t *testing.T, lines ...string) {
	t.Helper()
	if err := ip(lines...); err != nil {
		t.Fatal(err)
	}
}

// ip runs ip(8) once for each line.
func ip(lines ...string) error {
	for _, args := range lines {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
	}
	return nil
}

// router is the router's process; it ends with its input.
func router() int {
	in := bufio.NewReader(os.Stdin)
	in.ReadString('\n')
	for _, f := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/net/"+f, []byte("1"), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "router:", err)
			return 1
		}
	}
	if err := ip(
		"link set lo up", "link set rt1 up",
		"addr add 192.0.0.1/24 dev rt1", "addr add 2001:db8:9::1/64 dev rt1 nodad",
		"route add 198.18.0.0/15 via 192.0.0.77", "route add 2001:db8:18::/48 via 2001:db8:9::77",
	); err != nil {
		fmt.Fprintln(os.Stderr, "router:", err)
		return 1
	}
	fmt.Println("up")
	io.Copy(io.Discard, in)
	return 0
}
