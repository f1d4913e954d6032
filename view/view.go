// SPDX-License-Identifier: Apache-2.0

// View: a running program and the networks under it.

package view

import (
	"context"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// Init must be the first thing that main, or TestMain, does: the process that
// becomes the program is a copy of the calling one and does not come back from
// it. Everywhere else it does nothing.
func Init() { intercept.ChildMain() }

// LibseccompVersion returns the version of the library that compiles the filter.
func LibseccompVersion() string { return "unknown" }

// A View is a running program on its networks.
type View struct{}

// Start makes a plan of conf and starts it.
func Start(ctx context.Context, conf Config) (*View, error) {
	return nil, NotBuilt("running a program")
}

// Wait waits for the end of the program and returns its exit status.
func (v *View) Wait(ctx context.Context) (int, error) { return 0, nil }

// Signal sends sig to the program.
func (v *View) Signal(sig unix.Signal) error { return nil }

// PID returns the process number of the program.
func (v *View) PID() int { return 0 }

// Ended reports whether the program has ended.
func (v *View) Ended() bool { return false }

// Close tears down.
func (v *View) Close() error { return nil }
