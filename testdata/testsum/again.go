// SPDX-License-Identifier: Apache-2.0

// The second chance: on a shared machine a test that waits for the world can fail
// though nothing is wrong.

package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// tryAgain is the command of -again.
var tryAgain string

// maxAgain is how many tests of a run may be unsteady: more are a sign of a defect.
const maxAgain = 3

// neverAgain are words of failures that no second run takes back: what left the
// view once is a leak, and a race is there though it is not always seen. Its report may
// be in the output of another test; that of the one that had it says "race detected".
var neverAgain = regexp.MustCompile(`outside of the tunnel|DATA RACE|race detected|panic:|fatal error:`)

// A failure is a failed test, without what is behind the first slash.
type failure struct{ pkg, test string }

// failures are those of a run.
type failures struct {
	tests []failure
	final bool // one of them is never again
}

// add notes a failed test or a part of one.
func (f *failures) add(pkg, test string, output []string) {
	top, _, _ := strings.Cut(test, "/")
	if x := (failure{pkg, top}); !slices.Contains(f.tests, x) {
		f.tests = append(f.tests, x)
	}
	f.final = f.final || slices.ContainsFunc(output, neverAgain.MatchString)
}

// explain reports whether tests that failed are all that is wrong with the package:
// its process came to its end and said so, and nothing between the tests is final.
func (f *failures) explain(pkg string, output []string) bool {
	return slices.ContainsFunc(f.tests, func(x failure) bool { return x.pkg == pkg }) &&
		slices.Contains(output, "FAIL\n") && !slices.ContainsFunc(output, neverAgain.MatchString)
}

// steady runs the failed tests again, alone and twice, and reports whether all of them
// passed both times. They are named, whatever comes of it.
func (f *failures) steady() bool {
	command := strings.Fields(tryAgain)
	if len(command) == 0 || len(f.tests) == 0 || len(f.tests) > maxAgain || f.final {
		return false
	}
	good := true
	for _, x := range f.tests {
		args := append(slices.Clone(command[1:]), "-count=2", "-run", "^"+x.test+"$", x.pkg)
		out, err := exec.Command(command[0], args...).CombinedOutput()
		if err != nil {
			good = false
			os.Stdout.Write(out)
			fmt.Printf("FAILED AGAIN %s.%s: %v\n", x.pkg, x.test, err)
			continue
		}
		fmt.Printf("UNSTEADY %s.%s failed, and passed twice when run again alone\n", x.pkg, x.test)
	}
	return good
}
