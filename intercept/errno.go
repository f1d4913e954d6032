// SPDX-License-Identifier: Apache-2.0

// Errno: from an error of the supervisor to the one number that the target sees.

package intercept

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Errno returns the errno by which a target is told about err: the unix.Errno that
// err wraps, else a fitting one, else EIO. It is the only such mapping; a package
// whose errors have a better errno wraps a unix.Errno. nil is 0.
func Errno(err error) unix.Errno {
	var errno unix.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno):
		if errno == 0 {
			return unix.EIO // an error that denies being one
		}
		return errno
	case errors.Is(err, ErrGone), errors.Is(err, context.Canceled):
		return unix.EINTR
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return unix.ETIMEDOUT
	case errors.Is(err, net.ErrClosed), errors.Is(err, fs.ErrClosed):
		// The stack or file was taken down under the program.
		return unix.ENETDOWN
	case errors.Is(err, fs.ErrNotExist):
		return unix.ENOENT
	case errors.Is(err, fs.ErrExist):
		return unix.EEXIST
	case errors.Is(err, fs.ErrPermission):
		return unix.EACCES
	case errors.Is(err, fs.ErrInvalid):
		return unix.EINVAL
	case errors.Is(err, errors.ErrUnsupported):
		return unix.EOPNOTSUPP
	}
	return unix.EIO
}
