// SPDX-License-Identifier: Apache-2.0

// What the helper is told, and says.

package fusemount

import (
	"encoding/gob"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Descriptors of the helper.
const (
	controlFD = 3 + iota // SOCK_SEQPACKET: requests and messages
	specFD               // a memory file with the spec
	lockFD               // of the place
	holdFD               // Config.Hold; may be missing
)

// A spec says what the helper is to do.
type spec struct {
	Argv, Env []string
	Dir       string
	Place     string
	Shared    bool // no namespaces: see Config.Shared
	User      bool // there is a user namespace, whose maps are to be written
	UID, GID  int  // of the caller
	Held      bool // there is a holdFD
	Trial     bool // mount something of our own, and end
}

// A request is one byte.
const (
	wantTree  = 't'
	wantGiven = 'g' // no copy of the mount is to be left but those given away
)

// A message is one packet, with a descriptor where it says so.
type message struct {
	Kind   kind
	Status int    // of an end: exit status, or 128 and the signal
	Text   string // of an error
	Errno  unix.Errno
	Others bool // mounted: see Server.Others
}

type kind int

const (
	mounted kind = iota // with the root, O_PATH
	failed              // it will not be mounted; Errno is 0 if the command has ended, with Status
	tree                // with the detached mount, or Errno
	given               // we have the mount no more, nor any copy
	ended               // no process of the command is left
)

// maxMessage bounds a message, in bytes.
const maxMessage = 8192

// file puts s into a memory file.
func (s *spec) file() (*os.File, error) {
	fd, err := unix.MemfdCreate("umrun-fuse", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "spec")
	err = gob.NewEncoder(f).Encode(s)
	if err == nil {
		_, err = f.Seek(0, 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("instruct the helper: %w", err)
	}
	return f, nil
}

// errnoOf is the number in err; EIO if there is none.
func errnoOf(err error) unix.Errno {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EIO
}
