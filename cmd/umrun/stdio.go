// SPDX-License-Identifier: Apache-2.0

// Standard input, output and error: which of them umrun was started with, and whether
// what it writes itself arrives.

package main

/*
#include <fcntl.h>

// Noted before the Go runtime starts, which opens /dev/null for those that are missing.
static int missing;

__attribute__((constructor)) static void note_stdio(void) {
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			missing |= 1 << fd;
}

static int missing_stdio(void) { return missing; }
*/
import "C"

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"umrun/view"
)

// missingStdio are those of the first three descriptors that umrun was started without.
func missingStdio() (fds []int) {
	for fd := range 3 {
		if C.missing_stdio()>>fd&1 != 0 {
			fds = append(fds, fd)
		}
	}
	return fds
}

// An output is the standard output. It remembers the first error, so that who writes to
// it need not look.
type output struct{ err error }

// Write implements [io.Writer]; it never fails.
func (o *output) Write(p []byte) (int, error) {
	if o.err == nil && C.missing_stdio()>>1&1 != 0 {
		o.err = unix.EBADF
	}
	if o.err == nil {
		_, o.err = os.Stdout.Write(p)
	}
	return len(p), nil
}

// problem is what is to be told of it at the end: nil if everything has arrived.
func (o *output) problem() error {
	if o.err == nil {
		return nil
	}
	err := o.err
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		err = pe.Err
	}
	return &view.Problem{Code: view.ExitFailed, What: fmt.Sprintf("write to the standard output: %v", err), Err: o.err}
}
