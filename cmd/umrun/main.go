// SPDX-License-Identifier: Apache-2.0

// Entry and exit.

package main

import (
	"context"
	"errors"
	"os"

	"umrun/view"
)

// exitStatus is the program's own end, on its way through error returns.
type exitStatus int

func (exitStatus) Error() string { return "the program ended" }

func main() {
	view.Init() // does not return in the process that becomes the program
	os.Exit(status(execute(context.Background(), os.Args[1:])))
}

// status tells what is to be told of err and returns the exit status.
func status(err error) int {
	if st := exitStatus(0); errors.As(err, &st) {
		return int(st)
	}
	if err != nil {
		view.Report(os.Stderr, err)
	}
	return view.ExitCode(err)
}
