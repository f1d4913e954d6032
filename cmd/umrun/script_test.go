// SPDX-License-Identifier: Apache-2.0

// Runs the scripts of testdata/script.

package main

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"umrun/intercept"
	"umrun/stacks/kernel"
	"umrun/view"
)

func TestMain(m *testing.M) {
	view.Init()
	testscript.Main(m, map[string]func(){"umrun": main})
}

// raceEnv keeps processes that are built with the race detector from sleeping for
// a second at their end.
const raceEnv = "atexit_sleep_ms=0"

// TestScript runs every script. Beside testscript's own commands there is
//
//	status N COMMAND [ARG...]   run it and want exit status N
//
// and beside its conditions [root], [userns] for machines that allow network namespaces,
// [notify] for those on which calls can be intercepted, and [domains] for those with
// Landlock's domains.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:      "../../testdata/script",
		Deadline: time.Now().Add(4 * time.Minute),
		Setup: func(e *testscript.Env) error {
			e.Setenv("GORACE", raceEnv)
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Geteuid() == 0, nil
			case "userns":
				return kernel.Probe(false) == nil, nil
			case "domains":
				return intercept.HasDomains(), nil
			case "notify":
				for _, f := range view.Doctor(t.Context()) {
					if f.Verdict == view.Fail {
						return false, nil
					}
				}
				return true, nil
			}
			return false, errors.New("unknown condition " + cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": wantStatus},
	})
}

func wantStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var ee *exec.ExitError
		if !errors.As(err, &ee) {
			ts.Fatalf("%s: %v", args[1], err)
		}
		got = ee.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}
