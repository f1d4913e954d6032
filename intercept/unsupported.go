// SPDX-License-Identifier: Apache-2.0

// UnsupportedError: this machine cannot.

package intercept

import (
	"errors"
	"fmt"
)

// An UnsupportedError says that the running kernel, or what it was told by those
// who run it, lacks a feature that cannot be done without.
type UnsupportedError struct {
	Feature string // what is missing, as the man pages call it
	Kernel  string // first Linux version that has it; empty if not a matter of version
	Err     error  // how the kernel refused; may be nil
}

// Error names the feature and what would have it.
func (e *UnsupportedError) Error() string {
	s := "not supported here: " + e.Feature
	if e.Kernel != "" {
		s += fmt.Sprintf(" (Linux %s or newer has it)", e.Kernel)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the kernel's error.
func (e *UnsupportedError) Unwrap() error { return e.Err }

// Is makes an UnsupportedError an errors.ErrUnsupported.
func (e *UnsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }
