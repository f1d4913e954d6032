// SPDX-License-Identifier: Apache-2.0

// Who calls: the user, the capabilities and the executable of the thread, as far as /proc tells.

package intercept

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// FSUID is the file system user id of the thread, which is what its sockets belong to
// (net/socket.c: sock_alloc). Unlike that of [Call.UID] it is told of every thread.
// ErrGone when the call is over.
func (c *Call) FSUID() (uint32, error) {
	var p procFile
	b, err := p.read(c.TID, "status")
	if err != nil || !c.Valid() { // else the number is the thread's that waits
		return 0, ErrGone
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("Uid:")); ok {
			if ids := bytes.Fields(rest); len(ids) == 4 {
				n, err := strconv.ParseUint(string(ids[3]), 10, 32)
				return uint32(n), err
			}
		}
	}
	return 0, fmt.Errorf("user of %d: %w", c.TID, unix.ENODATA)
}

// Exe is the path of the file that the thread executes, as the supervisor sees it; of a
// script that is its interpreter. ErrGone when the call is over, EACCES when the thread
// may not be looked into (prctl(2), PR_SET_DUMPABLE).
//
// The thread waits, so that it cannot execute another file meanwhile; other threads of
// its process can, and end this one by it.
func (c *Call) Exe() (string, error) {
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", c.TID))
	if !c.Valid() {
		return "", ErrGone
	}
	if err != nil {
		return "", fmt.Errorf("executable of %d: %w", c.TID, procError(err))
	}
	const gone = " (deleted)" // proc_pid_exe(5): it was, or was replaced
	if was, ok := strings.CutSuffix(name, gone); ok {
		if _, err := os.Lstat(name); err != nil {
			name = was
		}
	}
	return name, nil
}

// Capable reports whether the thread has an effective capability (linux/capability.h). Those in
// a user namespace of its own do not count.
func (c *Call) Capable(capability int) bool {
	var ours, its unix.Stat_t
	if unix.Stat("/proc/self/ns/user", &ours) != nil || unix.Stat(fmt.Sprintf("/proc/%d/ns/user", c.TID), &its) != nil || ours.Ino != its.Ino {
		return false
	}
	var p procFile
	status, err := p.read(c.TID, "status")
	if err != nil || !c.Valid() { // else the number is the thread's that waits
		return false
	}
	_, rest, _ := bytes.Cut(status, []byte("\nCapEff:\t"))
	word, _, _ := bytes.Cut(rest, []byte("\n"))
	caps, err := strconv.ParseUint(string(word), 16, 64)
	return err == nil && caps&(1<<capability) != 0
}
