// SPDX-License-Identifier: Apache-2.0

// The little that is read from /proc.

package intercept

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// statusField returns a numeric field of /proc/TID/status (proc_pid_status(5)).
// ESRCH when the task is gone, ENODATA when this kernel has no such field.
func statusField(tid int, field string) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return 0, fmt.Errorf("status of %d: %w", tid, unix.ESRCH)
	}
	return parseStatus(b, field)
}

// parseStatus finds "field:\tN" in the text of a status file.
func parseStatus(b []byte, field string) (int, error) {
	for line := range bytes.Lines(b) {
		name, rest, ok := bytes.Cut(line, []byte(":"))
		if ok && string(name) == field {
			return strconv.Atoi(string(bytes.TrimSpace(rest)))
		}
	}
	return 0, fmt.Errorf("%s in /proc/TID/status: %w", field, unix.ENODATA)
}

// threadGroup returns the thread group of a thread.
func threadGroup(tid int) (int, error) { return statusField(tid, "Tgid") }
