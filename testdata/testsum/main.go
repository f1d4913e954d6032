// SPDX-License-Identifier: Apache-2.0

// Testsum reads `go test -json` and says what happened: failures and skips as
// they come, then one line of counts, and before it those that the conformance
// cases make of themselves ("conformance: ..."). Its status is 1 if a test failed, a
// package did not build, a test was skipped that the list does not allow, or the list
// names one that there is not.
//
// The list has one regular expression a line, over PACKAGE.TEST of a skip, with
// the reason behind " # ". A test that is there, and not skipped on this machine, may be listed, since
// another machine may lack what it needs: then a line says so, and no more.
//
// With -again a few failed tests are tried once more, see again.go.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
)

// event is one line of test2json.
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

func main() {
	allowed := flag.String("allowed", "", "file of tests that may be skipped")
	flag.StringVar(&tryAgain, "again", "", "command that runs tests again, to which -run and the package are added")
	flag.Parse()
	list, err := readList(*allowed)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(1)
	}
	if !sum(bufio.NewReaderSize(os.Stdin, 1<<20), list) {
		os.Exit(1)
	}
}

// An allowance is a line of the list.
type allowance struct {
	where string // FILE:LINE
	expr  string
	re    *regexp.Regexp
	used  bool // a test has such a name
	skips bool // and was skipped
}

func readList(path string) ([]*allowance, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []*allowance
	for i, line := range strings.Split(string(b), "\n") {
		expr, _, _ := strings.Cut(line, " # ")
		if expr = strings.TrimSpace(expr); expr == "" || strings.HasPrefix(expr, "#") {
			continue
		}
		re, err := regexp.Compile("^(?:" + expr + ")$")
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, i+1, err)
		}
		list = append(list, &allowance{where: fmt.Sprintf("%s:%d", path, i+1), expr: expr, re: re})
	}
	return list, nil
}

// sum prints the run and reports whether it is good.
func sum(r *bufio.Reader, allowed []*allowance) bool {
	var passed, failed, skipped, forbidden, packages int
	start := time.Now()
	output := map[string][]string{} // of tests that have not ended, by PACKAGE.TEST
	broken := false
	var failures failures
	var counts []string // that tests make themselves
	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				os.Stdout.Write(line) // not of the tests: the go command's own words
				continue
			}
			name := e.Package + "." + e.Test
			switch e.Action {
			case "output":
				output[name] = append(output[name], e.Output)
				if strings.HasPrefix(e.Output, "conformance: ") {
					counts = append(counts, e.Output)
				}
			case "build-output":
				fmt.Print(e.Output)
			case "build-fail":
				broken = true
			case "pass", "fail", "skip":
				if e.Test == "" { // a package
					packages++
					if e.Action == "fail" {
						broken = broken || !failures.explain(e.Package, output[name])
						show(output[name])
						fmt.Printf("FAIL %s\n", e.Package)
					} else if e.Action == "pass" {
						fmt.Printf("ok   %s %.1fs\n", e.Package, e.Elapsed)
					}
					delete(output, name)
					continue
				}
				listed := find(name, e.Action == "skip", allowed)
				switch e.Action {
				case "pass":
					passed++
				case "fail":
					failed++
					failures.add(e.Package, e.Test, output[name])
					show(output[name])
				case "skip":
					skipped++
					if listed || !complete() {
						fmt.Printf("skip %s: %s\n", name, reason(output[name]))
					} else {
						forbidden++
						fmt.Printf("SKIP NOT ALLOWED %s: %s\n", name, reason(output[name]))
					}
				}
				delete(output, name)
			}
		}
		if err != nil {
			break
		}
	}
	for name, out := range output { // the process died under them
		if !strings.HasSuffix(name, ".") {
			failed++
			broken = true
			fmt.Printf("FAIL %s: did not end\n", name)
			show(out)
		}
	}
	if forbidden > 0 {
		fmt.Printf("%d skips are not in the list of allowed ones\n", forbidden)
	}
	unused := 0
	for _, a := range allowed {
		if !a.used && complete() && !broken {
			unused++
			fmt.Printf("%s: no test is called %s\n", a.where, a.expr)
		} else if a.used && !a.skips && complete() {
			fmt.Printf("%s: nothing was skipped here of %s\n", a.where, a.expr)
		}
	}
	if broken {
		fmt.Println("a package failed")
	}
	if packages == 0 {
		fmt.Println("no package was tested")
	}
	unsteady := ""
	if failed > 0 && !broken && failures.steady() {
		unsteady = fmt.Sprintf(" %d unsteady,", failed)
		failed = 0
	}
	show(counts)
	fmt.Printf("%d packages in %v\n", packages, time.Since(start).Round(time.Second))
	fmt.Printf("%d passed, %d failed,%s %d skipped\n", passed, failed, unsteady, skipped)
	return failed == 0 && forbidden == 0 && unused == 0 && !broken && packages > 0
}

func show(lines []string) {
	for _, l := range lines {
		fmt.Print(l)
	}
}

// reason is what t.Skip was told.
func reason(lines []string) string {
	for _, l := range lines {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "===") && !strings.HasPrefix(l, "---") {
			return l
		}
	}
	return "no reason given"
}

// find reports whether a test is listed, and notes that, and whether it was skipped.
func find(name string, skipped bool, allowed []*allowance) (listed bool) {
	for _, a := range allowed {
		if a.re.MatchString(name) {
			a.used, listed = true, true
			a.skips = a.skips || skipped
		}
	}
	return listed
}

// complete reports whether all tests could run. An ordinary user's run shows its skips, but
// cannot be blamed for them.
func complete() bool { return os.Getenv("UMRUN_TEST_FULL") == "1" || os.Geteuid() == 0 }
