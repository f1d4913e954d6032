// SPDX-License-Identifier: Apache-2.0

// The bench of make bench runs, and what it finds is sane.

package viewtest_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"umrun/view/viewtest"
)

// moduleRoot is seen from the directory of the tests.
const moduleRoot = "../.."

// buildBench returns the path of the bench.
func buildBench(ctx context.Context, t *testing.T) string {
	t.Helper()
	bench := filepath.Join(filepath.Dir(viewtest.Binary(t)), "bench") // where everyone may execute it
	build := exec.CommandContext(ctx, "go", "build", "-o", bench, "./testdata/bench")
	build.Dir = moduleRoot
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bench
}

// TestIntegrationBenchBare: the supervisor that does nothing keeps what Go runs a thread by
// while it waits in the kernel, and leaves one more to who starts the program.
func TestIntegrationBenchBare(t *testing.T) {
	viewtest.Need(t, "go")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	bench := buildBench(ctx, t)
	ctx, cancel = context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	run := exec.CommandContext(ctx, bench, "bare", "ls", "-d", "/")
	run.Env = append(os.Environ(), "GOMAXPROCS=1")
	run.WaitDelay = time.Second
	if out, err := run.CombinedOutput(); err != nil || string(out) != "/\n" {
		t.Errorf("with one processor: %v, %q", err, out)
	}
}

// TestIntegrationBench runs it with samples that are too short to say how fast
// anything is. It fails by itself if bytes are lost, if a congestion control is
// not what it shall be, or if a descriptor is left.
func TestIntegrationBench(t *testing.T) {
	viewtest.Need(t, "root", "tun", "ip", "go", "vde_switch", "vde_plug", "danted", "tinyproxy", "sshd", "ssh-keygen")
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	bench := buildBench(ctx, t)
	// Without the rivals: they are not installed by make test, and one of them can hang. The
	// devices, the nat and the rows of a tunnel are among the pairs.
	const rows = "crrgo,udp,vde,pairs,calls,page,files,start,idle,leak"
	run := exec.CommandContext(ctx, bench, "-quick", "-only", rows, "-umrun", viewtest.Binary(t))
	run.Dir = moduleRoot                                                  // where the bench looks for wireguard-go too
	run.Cancel = func() error { return run.Process.Signal(os.Interrupt) } // so that it cleans up
	run.WaitDelay = 10 * time.Second
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("bench: %v\n%s", err, out)
	}
	for _, row := range []string{"same by Go's net", "bulk up", "bulk down", "connect/request/close", "vde_switch alone", "wg, kernel", "nat, kernel",
		"tap, kernel", "tun, netstack", "vde, kernel", "socks5, netstack", "http, kernel", "ssh, netstack", "host, the host's", "netns, the namespace's",
		"A trapped call", "Files in a view", "-n FILE.conf", "An idle view", "Nothing is left behind"} {
		if !strings.Contains(string(out), row) {
			t.Errorf("it says nothing of %q:\n%s", row, out)
		}
	}
}
