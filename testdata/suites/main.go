// SPDX-License-Identifier: Apache-2.0

// Suites runs public test suites natively and under umrun, and compares them
// test by test: Go's own net, net/http and crypto/tls, what CPython tests of
// sockets, and what both test of files, these in views with mounts by both engines
// (SUITE@ENGINE). A test that passes natively must pass under umrun, or be listed.
//
//	a namespace with nothing but lo       another one of the same kind
//	+---------------------------+         +-----------------------------+
//	| net.test -test.v          |         | umrun -n none -- net.test   |
//	+---------------------------+         +-----------------------------+
//
// The suites ask for outside names and addresses, so they run only where there
// is no way out: jail.go refuses to start one anywhere else. They run as an
// ordinary user, as umrun is meant to be used, and one at a time.
//
// A test that hangs is ended with its whole process tree, and the rest of the
// suite goes on without it. One that fails under umrun is tried once more by
// itself; if it passes then it is called flaky and is no difference.
//
// The list (known.txt) has one test a line, NAME # REASON, where NAME may be a
// pattern as path.Match takes it. A reason that begins with "sometimes:" is for
// a test that may pass as well. The status is 1 if an unlisted test differs, or
// a listed one does not any more.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// options are the flags.
type options struct {
	umrun    string
	python   string
	known    string
	only     string
	run      string
	logs     string
	long     bool
	stall    time.Duration // a suite that reports nothing for so long hangs
	deadline time.Duration // of one run of one suite
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "jail" {
		os.Exit(jail(os.Args[2:]))
	}
	var o options
	flag.StringVar(&o.umrun, "umrun", "bin/umrun", "the program to test")
	flag.StringVar(&o.python, "python", "/usr/bin/python3", "the Python whose test package is used")
	flag.StringVar(&o.known, "known", "testdata/suites/known.txt", "the tests that are known to differ, with reasons")
	flag.StringVar(&o.only, "only", "", "the suites to run, separated by commas; empty for all")
	flag.StringVar(&o.run, "run", "", "only these tests of them, separated by commas")
	flag.StringVar(&o.logs, "logs", "", "keep what the suites print in this directory")
	flag.BoolVar(&o.long, "long", false, "run Go's tests without -test.short")
	flag.DurationVar(&o.stall, "stall", 75*time.Second, "a suite that reports nothing for so long hangs")
	flag.DurationVar(&o.deadline, "deadline", 10*time.Minute, "longest time for one run of one suite")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	same, err := compareAll(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "suites:", err)
	}
	if err != nil || !same {
		os.Exit(1)
	}
}

// compareAll runs every suite that is asked for; it reports whether the
// differences are those of the list.
func compareAll(ctx context.Context, o options) (same bool, err error) {
	list, err := readKnown(o.known)
	if err != nil {
		return false, err
	}
	// Where an ordinary user may read: the checkout may be in a closed directory.
	dir, err := os.MkdirTemp("", "umrun-suites-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return false, err
	}
	r := &runner{options: o, dir: dir, umrun: filepath.Join(dir, "umrun")}
	if err := copyFile(r.umrun, o.umrun); err != nil {
		return false, err
	}
	if o.logs == "" {
		r.logs = dir
	} else if err := os.MkdirAll(o.logs, 0o755); err != nil {
		return false, err
	}

	same = true
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "suite\tpass natively\talso under umrun\tflaky\tlisted\tnot listed\t\n")
	for _, s := range suites {
		if o.only != "" && !hasWord(o.only, s.name) && !hasWord(o.only, s.String()) {
			continue
		}
		d, err := r.compare(ctx, s, list)
		if err != nil {
			return false, fmt.Errorf("%v: %w", &s, err)
		}
		d.print(os.Stdout)
		fmt.Fprintf(table, "%v\t%d\t%d\t%d\t%d\t%d\t\n", &s, d.native, d.umrun, len(d.flaky), len(d.listed), len(d.unlisted))
		if len(d.unlisted) > 0 || len(d.stale) > 0 {
			same = false
		}
	}
	return same, table.Flush()
}

// A difference is what one suite shows.
type difference struct {
	suite         string
	native, umrun int // tests that pass
	flaky         []string
	listed        []string
	lines         map[*known]int // of the list, with how many tests each stands for
	unlisted      []string       // with what happened
	stale         []string       // listed, but no difference
}

// compare runs one suite both ways.
func (r *runner) compare(ctx context.Context, s suite, list []*known) (difference, error) {
	d := difference{suite: s.String()}
	if err := s.prepare(ctx, r); err != nil {
		return d, err
	}
	native, err := r.run(ctx, s, false, words(r.options.run))
	if err != nil {
		return d, fmt.Errorf("natively: %w", err)
	}
	umrun, err := r.run(ctx, s, true, words(r.options.run))
	if err != nil {
		return d, fmt.Errorf("under umrun: %w", err)
	}
	var differ, again []string
	for name, n := range native {
		if n != pass {
			continue
		}
		d.native++
		if umrun[name] != pass {
			differ = append(differ, name)
			if top := s.top(name); umrun[name] != skip && !hasWord(strings.Join(again, ","), top) && find(list, s.String(), name) == nil {
				again = append(again, top)
			}
		} else {
			d.umrun++
		}
	}
	sort.Strings(differ)
	retried := results{}
	if len(again) > 0 {
		if retried, err = r.run(ctx, s, true, again); err != nil {
			return d, fmt.Errorf("again: %w", err)
		}
	}
	d.lines = map[*known]int{}
	for _, name := range differ {
		k := find(list, s.String(), name)
		switch {
		case k != nil:
			d.lines[k]++
			d.listed = append(d.listed, name)
		case retried[name] == pass:
			d.flaky = append(d.flaky, name)
		case umrun[name] == fail && hasChild(differ, name):
			// What differs is told by its subtests.
		default:
			d.unlisted = append(d.unlisted, fmt.Sprintf("%s  %s", name, umrun[name]))
		}
	}
	for _, k := range list {
		if r.options.run == "" && k.suite() == s.String() && d.lines[k] == 0 && !k.sometimes() {
			d.stale = append(d.stale, k.pattern)
		}
	}
	return d, nil
}

func (d *difference) print(w io.Writer) {
	fmt.Fprintf(w, "%s: %d tests pass natively, %d of them under umrun\n", d.suite, d.native, d.umrun)
	var listed []string
	for k, n := range d.lines {
		listed = append(listed, fmt.Sprintf("%s (%d)  # %s", k.pattern, n, k.reason))
	}
	sort.Strings(listed)
	for _, part := range []struct {
		title string
		lines []string
	}{
		{"listed", listed},
		{"pass the second time", d.flaky},
		{"LISTED, BUT NO LONGER A DIFFERENCE", d.stale},
		{"NOT LISTED", d.unlisted},
	} {
		if len(part.lines) > 0 {
			fmt.Fprintf(w, "  %s:\n", part.title)
		}
		for _, l := range part.lines {
			fmt.Fprintf(w, "    %s\n", l)
		}
	}
}

// hasChild reports whether a subtest of name is in the list.
func hasChild(list []string, name string) bool {
	for _, l := range list {
		if strings.HasPrefix(l, name+"/") {
			return true
		}
	}
	return false
}

func words(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

func hasWord(list, word string) bool {
	for _, w := range words(list) {
		if w == word {
			return true
		}
	}
	return false
}

// copyFile copies a program so that everybody can run it.
func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// output runs a command of the host, outside of every jail: it must not use the
// network.
func output(ctx context.Context, argv ...string) (string, error) {
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Stderr = os.Stderr
	b, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", argv[0], err)
	}
	return strings.TrimSpace(string(b)), nil
}
