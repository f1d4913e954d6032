// SPDX-License-Identifier: Apache-2.0

// Mountinfo: what is mounted below a directory.

package nsmount

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A submount is mounted somewhere below a directory.
type submount struct {
	rel string // path below the directory
	dir bool
	fs  string // kind of file system
}

// pseudo are the file systems that hold nothing but the kernel's own state, which has
// no copy. (FUSE is none: programs serve files by it.)
var pseudo = map[string]bool{
	"autofs": true, "binfmt_misc": true, "bpf": true, "cgroup": true, "cgroup2": true, "configfs": true,
	"debugfs": true, "devpts": true, "efivarfs": true, "fusectl": true, "hugetlbfs": true, "mqueue": true,
	"nfsd": true, "nsfs": true, "proc": true, "pstore": true, "rpc_pipefs": true, "securityfs": true,
	"selinuxfs": true, "smackfs": true, "sysfs": true, "tracefs": true,
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
		id, at, kind, ok := parseMountinfo(line)
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

// parseMountinfo reads a line of proc_pid_mountinfo(5).
func parseMountinfo(line string) (id uint64, at, kind string, ok bool) {
	// Only blanks separate: other space of Unicode's stands as it is in a name.
	head, tail, ok := strings.Cut(line, " - ")
	fields := strings.Split(head, " ")
	kinds := strings.Split(tail, " ")
	if len(fields) < 5 || !ok {
		return 0, "", "", false
	}
	id, err := strconv.ParseUint(fields[0], 10, 64)
	return id, unescape(fields[4]), kinds[0], err == nil
}

// unescape resolves the octal numbers that stand for blanks and backslashes.
func unescape(s string) string {
	var w strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				w.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		w.WriteByte(s[i])
	}
	return w.String()
}
