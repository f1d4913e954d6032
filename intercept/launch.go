// SPDX-License-Identifier: Apache-2.0

// Launch: from a Config to a supervised program.

package intercept

import (
	"context"
	"log/slog"

	"golang.org/x/sys/unix"
)

// A Config says what to run and what to intercept.
type Config struct {
	Path  string   // the executable; not searched in PATH
	Argv  []string // Argv[0] is the name the program sees; nil: Path
	Env   []string // nil: none
	Dir   string   // working directory; empty: the supervisor's
	Rules Rules
	Log   *slog.Logger // required

	// SigMask, if set, is the signal mask that the program starts with: bit n-1
	// blocks signal n. Else it starts with the supervisor's.
	SigMask *uint64

	// InspectFD is asked about each inherited descriptor above 2 whether the
	// program may have it; nil asks [NetworkFD].
	InspectFD func(fd int) (pass bool)

	// OnChange, if set, is told when the program (the first process) is stopped or
	// continued, so that the caller can do job control. It must not block.
	OnChange func(unix.WaitStatus)
}

// A Supervisor is a running program whose system calls are intercepted.
type Supervisor struct{}

// Start runs the program of cfg.
func Start(ctx context.Context, cfg Config) (*Supervisor, error) { return nil, unix.ENOSYS }

// PID returns the process number of the program.
func (s *Supervisor) PID() int { return 0 }

// ClosedFDs returns the inherited descriptors that the program was not given.
func (s *Supervisor) ClosedFDs() []int { return nil }

// Wait waits for the program (the first process) to end.
func (s *Supervisor) Wait() (unix.WaitStatus, error) { return 0, unix.ENOSYS }

// WaitAll waits until no task of the target is left.
func (s *Supervisor) WaitAll(ctx context.Context) error { return unix.ENOSYS }

// Signal sends a signal to the program (the first process).
func (s *Supervisor) Signal(sig unix.Signal) error { return unix.ENOSYS }

// Close ends supervision.
func (s *Supervisor) Close() error { return nil }

// ChildMain is what main and TestMain call first.
func ChildMain() {}
