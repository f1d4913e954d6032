// SPDX-License-Identifier: Apache-2.0

// A Problem: what failed, why, what to do next, and with which exit status.

package view

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// The exit statuses that are umrun's own. The program's status is passed on as it
// is, 128+N stands for an end by signal N; 125 to 127 are those of env(1).
const (
	ExitNetwork    = 120 // the network was not up in time
	ExitConfig     = 122 // bad flag or configuration
	ExitMachine    = 123 // this machine cannot enforce what was asked
	ExitFailed     = 125 // umrun itself failed, or what was asked is not built yet
	ExitNotExec    = 126 // the program is there and cannot be executed
	ExitNotFound   = 127 // there is no such program
	exitSignalBase = 128
)

// A Problem is an error as a person shall see it. Every error that leaves this
// package is one, or wraps one.
type Problem struct {
	Code int      // exit status, one of the Exit constants
	What string   // what failed: one line, lower case, no full stop
	Why  string   // likely reasons: sentences; may be empty
	Try  []string // commands or changes that help; may be empty
	Err  error    // the cause for errors.Is; not printed
}

// Error returns What.
func (p *Problem) Error() string { return p.What }

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }

// Report writes err in the form that docs and scripts know:
//
//	umrun: WHAT
//	  WHY
//	  try: A    or: B
//
// An error that is no Problem is its text in the first line.
func Report(w io.Writer, err error) {
	var b strings.Builder
	fmt.Fprintf(&b, "umrun: %s\n", err)
	p := openFilesProblem(err)
	if p != nil || errors.As(err, &p) {
		for line := range strings.Lines(p.Why) {
			fmt.Fprintf(&b, "  %s\n", strings.TrimSuffix(line, "\n"))
		}
		if len(p.Try) > 0 {
			fmt.Fprintf(&b, "  try: %s\n", strings.Join(p.Try, "    or: "))
		}
	}
	io.WriteString(w, b.String()) // one write, so that lines of several processes do not mix
}

// openFilesProblem tells what to do where umrun has no more descriptors, of which the runtime
// has taken all that the hard limit allows.
func openFilesProblem(err error) *Problem {
	const enough = 256 // where nothing but the start of a usual view fails for want of them
	var l unix.Rlimit
	if !errors.Is(err, unix.EMFILE) || unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return nil
	}
	return &Problem{
		Why: fmt.Sprintf("The hard limit of open files (RLIMIT_NOFILE, ulimit -Hn) is %d.", l.Max),
		Try: []string{fmt.Sprintf("ulimit -n %d, which a process that has lowered its hard limit needs root for", max(enough, 2*l.Max))},
	}
}

// ExitCode returns the status for err: 0 for nil, a Problem's own, else 125.
func ExitCode(err error) int {
	var p *Problem
	switch {
	case err == nil:
		return 0
	case errors.As(err, &p) && p.Code != 0:
		return p.Code
	}
	return ExitFailed
}

// NotBuilt is the answer to a word that is reserved and has nothing behind it yet.
func NotBuilt(what string) *Problem {
	return &Problem{Code: ExitFailed, What: what + " is not built yet"}
}

// badConfig is a Problem of the configuration.
func badConfig(format string, a ...any) *Problem {
	err := fmt.Errorf(format, a...)
	return &Problem{Code: ExitConfig, What: err.Error(), Err: errors.Unwrap(err)}
}
