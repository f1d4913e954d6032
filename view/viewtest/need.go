// SPDX-License-Identifier: Apache-2.0

// What a test needs of the machine, and the one way to skip for the lack of it.

package viewtest

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"umrun/intercept"
)

// Need skips the test, with a sentence that names the missing feature, unless
// the machine has all of them. A feature is "root", "tun", "amd64", "domains"
// (of Landlock), or else a program of the PATH.
//
// Where the environment says that everything was installed (UMRUN_TEST_FULL=1,
// set by make test when it runs as root) a lack is a failure instead: a skip
// must not hide a broken set-up.
func Need(t testing.TB, features ...string) {
	t.Helper()
	for _, f := range features {
		err := lacks(f)
		switch {
		case err == nil:
		case os.Getenv("UMRUN_TEST_FULL") == "1":
			t.Fatalf("needs %s: %v", f, err)
		default:
			t.Skipf("needs %s: %v", f, err)
		}
	}
}

// Optional skips unless the program is installed, also where everything else
// was: for programs that make test does not install.
func Optional(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("needs %s, which make test does not install: %v", program, err)
	}
}

func lacks(feature string) error {
	switch feature {
	case "root":
		if os.Geteuid() != 0 {
			return fmt.Errorf("runs as uid %d and cannot make network namespaces", os.Geteuid())
		}
	case "tun":
		f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		f.Close()
	case "amd64":
		if runtime.GOARCH != "amd64" {
			return fmt.Errorf("this machine is %s", runtime.GOARCH)
		}
	case "domains":
		if !intercept.HasDomains() {
			return fmt.Errorf("there is no LANDLOCK_ACCESS_NET_BIND_TCP (Linux 6.7, with Landlock)")
		}
	default:
		_, err := exec.LookPath(feature)
		return err
	}
	return nil
}
