// SPDX-License-Identifier: Apache-2.0

// Where a path leads in a view: the places of mounts have no symbolic links in them.

package fsmod

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// RealPath is an absolute path of a view with its symbolic links resolved, as far as it is
// there. mounts are those that are made, in their order; their targets have no links. What
// is mounted decides: a link of the host's that is covered leads nowhere, and one in a mount
// does. A path that goes round in circles is returned as it is.
func RealPath(mounts []Mounted, name string) string {
	done, rest := "", strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		next := rest[0]
		rest = rest[1:]
		switch next {
		case "", ".":
			continue
		case "..":
			done = strings.TrimSuffix(path.Dir(done), "/")
			continue
		}
		to := readlinkIn(mounts, done+"/"+next)
		if to == "" {
			done += "/" + next
			continue
		}
		if links++; links > maxLinks {
			return name
		}
		if to[0] == '/' {
			done = ""
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	if done == "" {
		return "/"
	}
	return done
}

// readlinkIn is what a symbolic link of a view says; "" if there is none.
func readlinkIn(mounts []Mounted, at string) string {
	for i := len(mounts) - 1; i >= 0; i-- {
		switch root := strings.TrimSuffix(mounts[i].Target, "/"); {
		case at == root:
			return ""
		case strings.HasPrefix(at, root+"/"):
			fd, err := mounts[i].FS.Open(at[len(root)+1:], unix.O_PATH, 0)
			if err != nil {
				return ""
			}
			defer unix.Close(fd)
			buf := make([]byte, pathMax)
			n, err := unix.Readlinkat(fd, "", buf)
			if err != nil {
				return ""
			}
			return string(buf[:n])
		}
	}
	to, _ := readlink(at)
	return to
}
