// SPDX-License-Identifier: Apache-2.0

// What make test says of a run is testdata/testsum's word: which failures get a second
// chance, and which never.

package umrun_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// run is a run of package p in the words of test2json: "ACTION TEST TEXT", with - for
// no test.
func run(t *testing.T, lines ...string) string {
	t.Helper()
	var b strings.Builder
	for _, l := range lines {
		f := strings.SplitN(l, " ", 3)
		e := map[string]string{"Action": f[0], "Package": "p"}
		if f[1] != "-" {
			e["Test"] = f[1]
		}
		if len(f) > 2 {
			e["Output"] = f[2] + "\n"
		}
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	return b.String()
}

func TestTestsum(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	testsum := filepath.Join(dir, "testsum")
	if out, err := exec.Command("go", "build", "-o", testsum, "./testdata/testsum").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const listed = `p\.TestS # why`
	// The command of -again tells what it was given, and passes unless FAILS says otherwise.
	again := filepath.Join(dir, "again")
	if err := os.WriteFile(again, []byte("#!/bin/sh\necho \"$@\" >>\"$TOLD\"\nexit ${FAILS:-0}\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	const failed = "output - FAIL"
	for _, tt := range []struct {
		name   string
		listed string // a line of what may be skipped
		events []string
		fails  bool   // what is run again does
		good   bool   // the status
		again  string // what was run
		says   string
	}{
		{name: "pass", events: []string{"pass TestA", "pass -"}, good: true, says: "1 passed, 0 failed, 0 skipped"},
		{name: "nothing", says: "no package was tested"},
		{name: "skip", listed: listed, events: []string{"output TestS why not", "skip TestS", "pass -"}, good: true, says: "skip p.TestS: why not"},
		{name: "forbidden skip", listed: listed, events: []string{"skip TestS2", "skip TestS", "pass -"}, says: "SKIP NOT ALLOWED p.TestS2"},
		{name: "a listed test passes", listed: listed, events: []string{"pass TestS", "pass -"}, good: true, says: "allowed:2: nothing was skipped here of p\\.TestS\n"},
		{name: "no listed test", listed: listed, events: []string{"pass TestA", "pass -"}, says: "allowed:2: no test is called p\\.TestS"},
		{name: "no test for the path", listed: `p\.TestS/a`, events: []string{"skip TestS/b", "pass TestS", "pass -"}, says: "no test is called p\\.TestS/a"},
		{name: "unsteady", events: []string{"output TestA too late", "fail TestA", failed, "fail -"},
			good: true, again: "-race -count=2 -run ^TestA$ p\n", says: "UNSTEADY p.TestA"},
		{name: "subtests are of one test", events: []string{"fail TestA/b", "fail TestA/c", "fail TestA", failed, "fail -"},
			good: true, again: "-race -count=2 -run ^TestA$ p\n", says: "0 failed, 3 unsteady"},
		{name: "fails again", events: []string{"fail TestA", failed, "fail -"}, fails: true,
			again: "-race -count=2 -run ^TestA$ p\n", says: "FAILED AGAIN p.TestA"},
		{name: "too many", events: []string{"fail TestA", "fail TestB", "fail TestC", "fail TestD", failed, "fail -"}, says: "4 failed"},
		{name: "leak in a subtest", events: []string{"output TestA/b 3 packets outside of the tunnel:", "fail TestA/b", "fail TestA", failed, "fail -"}, says: "2 failed"},
		{name: "race told elsewhere", events: []string{"output TestB WARNING: DATA RACE", "pass TestB",
			"output TestA testing.go:1: race detected during execution of test", "fail TestA", failed, "fail -"}, says: "1 failed"},
		{name: "race after the tests", events: []string{"fail TestA", failed, "output - WARNING: DATA RACE", "fail -"}, says: "a package failed"},
		{name: "panic", events: []string{"output TestA panic: boom", "fail TestA", "fail -"}, says: "1 failed"},
		{name: "a test did not end", events: []string{"fail TestA", "output TestB === RUN   TestB", "output TestB signal: killed", "fail -"}, says: "FAIL p.TestB: did not end"},
		{name: "the process died between tests", events: []string{"fail TestA", "output - signal: killed", "fail -"}, says: "a package failed"},
		{name: "no test failed", events: []string{"pass TestA", failed, "fail -"}, says: "a package failed"},
		{name: "unsteady, and a forbidden skip", events: []string{"fail TestA", "skip TestB", failed, "fail -"},
			again: "-race -count=2 -run ^TestA$ p\n", says: "1 unsteady"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			told, allowed := filepath.Join(dir, "told"), filepath.Join(dir, "allowed")
			if err := os.WriteFile(allowed, []byte("# a comment\n"+tt.listed+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(testsum, "-allowed", allowed, "-again", again+" -race")
			cmd.Stdin = strings.NewReader(run(t, tt.events...))
			cmd.Env = append(os.Environ(), "UMRUN_TEST_FULL=1", "TOLD="+told)
			if tt.fails {
				cmd.Env = append(cmd.Env, "FAILS=1")
			}
			out, err := cmd.CombinedOutput()
			if (err == nil) != tt.good {
				t.Errorf("%v, want good: %t", err, tt.good)
			}
			if b, _ := os.ReadFile(told); string(b) != tt.again {
				t.Errorf("run again: %q, want %q", b, tt.again)
			}
			if !strings.Contains(string(out), tt.says) {
				t.Errorf("it does not say %q:\n%s", tt.says, out)
			}
		})
	}
}
