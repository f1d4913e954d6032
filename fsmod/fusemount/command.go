// SPDX-License-Identifier: Apache-2.0

// The command: how it is told where to mount.

package fusemount

import "strings"

// here is the word of a command that stands for the mount point.
const here = "{}"

// Held is what a command calls [Config].Hold.
const Held = "/proc/self/fd/3"

// Shell makes a [Config].Command of a line of sh(1) that mounts something at a directory: {} in
// it is the directory, which is the last word if {} does not stand in it.
func Shell(line string) func(point string) []string {
	if !strings.Contains(line, here) {
		line += " " + here
	}
	return func(point string) []string {
		return []string{"/bin/sh", "-c", strings.ReplaceAll(line, here, point)}
	}
}
