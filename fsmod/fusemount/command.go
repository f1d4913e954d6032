// SPDX-License-Identifier: Apache-2.0

// The command: how it is told where to mount.

package fusemount

import "strings"

// here is the word of a command that stands for the mount point.
const here = "{}"

// Shell returns what runs a line of sh(1) that mounts something at a directory: {} in it is
// the directory, which is the last word if {} does not stand in it.
func Shell(line string) []string {
	if !strings.Contains(line, here) {
		line += " " + here
	}
	return []string{"/bin/sh", "-c", line}
}

// at puts the mount point into the arguments. It has no character that means anything to a
// shell, see newPlace.
func at(args []string, dir string) []string {
	var all []string
	for _, a := range args {
		all = append(all, strings.ReplaceAll(a, here, dir))
	}
	return all
}
