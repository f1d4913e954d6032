// SPDX-License-Identifier: Apache-2.0

// Mountinfo: what is mounted below a directory.

package nsmount

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	format "umrun/fsmod/cow"
)

// A submount is mounted somewhere below a directory.
type submount struct {
	rel string // path below the directory
	dir bool
	fs  string // kind of file system
}

// submounts lists what is mounted below the directory at path, that fd is of, and can
// be seen there: parents before children.
func submounts(path string, fd int) ([]submount, error) {
	b, err := os.ReadFile("../mountinfo") // of /proc/self, see byFD
	if err != nil {
		return nil, err
	}
	real, err := filepath.EvalSymlinks(path) // as mountinfo has it
	if err != nil {
		return nil, err
	}
	var subs []submount
	for line := range strings.Lines(string(b)) {
		id, at, kind, ok := format.ParseMountinfo(line)
		rel, below := relative(real, at)
		if !ok || !below {
			continue
		}
		// What is covered by another mount is not seen.
		if got, err := mountID(fd, rel); err != nil || got != id {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstatat(fd, rel, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT); err != nil {
			continue
		}
		subs = append(subs, submount{rel, st.Mode&unix.S_IFMT == unix.S_IFDIR, kind})
	}
	return subs, nil
}

// relative returns the path of at below root.
func relative(root, at string) (string, bool) {
	if root != "" && root != "/" {
		root += "/"
	}
	rel, ok := strings.CutPrefix(at, root)
	return rel, ok && rel != ""
}
