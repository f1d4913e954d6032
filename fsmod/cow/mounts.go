// SPDX-License-Identifier: Apache-2.0

// What is mounted below the tree that is covered.

package cow

import (
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Submount is a file system, or single file, that is mounted below a directory.
type Submount struct {
	Path   string // where
	Name   string // relative to the directory
	Type   string // of the file system, as in /proc/self/mountinfo
	Pseudo bool   // of the kernel's own state, which has no copy
	Dir    bool   // no single file
}

// Submounts lists what is mounted below dir and can be seen there, parents before children.
func Submounts(dir string) ([]Submount, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return submounts(dir, string(info), look), nil
}

// look tells which mount a path leads to, and whether it is a directory.
func look(path string) (id uint64, dir bool) {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE|unix.STATX_MNT_ID, &st) != nil {
		return 0, false
	}
	return st.Mnt_id, st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// submounts lists those mounts of info that look finds at their places: the others are
// covered. The lines are in no order that tells: what is mounted in an initramfs, and moved,
// comes before the root.
func submounts(dir, info string, look func(string) (uint64, bool)) []Submount {
	under := strings.TrimSuffix(dir, "/") + "/"
	var all []Submount
	for line := range strings.Lines(info) {
		id, path, kind, ok := ParseMountinfo(line)
		name, below := strings.CutPrefix(path, under)
		if !ok || !below || name == "" {
			continue
		}
		if at, isDir := look(path); at == id {
			all = append(all, Submount{Path: path, Name: name, Type: kind, Pseudo: Pseudo(kind), Dir: isDir})
		}
	}
	slices.SortStableFunc(all, func(a, b Submount) int { return strings.Count(a.Name, "/") - strings.Count(b.Name, "/") })
	return all
}

// ParseMountinfo reads a line of proc_pid_mountinfo(5): the number of a mount, where it
// is, and the kind of its file system.
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
func ParseMountinfo(line string) (id uint64, at, kind string, ok bool) {
	// Only blanks separate: other space of Unicode's stands as it is in a name.
	head, tail, ok := strings.Cut(line, " - ")
	fields := strings.Split(head, " ")
	kind, _, _ = strings.Cut(tail, " ")
	if len(fields) < 5 || !ok {
		return 0, "", "", false
	}
	id, err := strconv.ParseUint(fields[0], 10, 64)
	return id, unescape(fields[4]), kind, err == nil
}

// MostFile is how large a single file that is mounted may be to be copied, in bytes.
const MostFile = 16 << 20

// Pseudo reports whether a kind of file system holds nothing but the kernel's own state,
// which has no copy. (FUSE is none: programs serve files by it.)
func Pseudo(kind string) bool {
	switch kind {
	case "autofs", "binder", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "cpuset", "debugfs",
		"devpts", "efivarfs", "functionfs", "fusectl", "hugetlbfs", "mqueue", "nfsd", "nsfs", "proc",
		"pstore", "resctrl", "rpc_pipefs", "securityfs", "selinuxfs", "smackfs", "sysfs", "tracefs":
		return true
	}
	return false
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

// Escape writes a relative path as the name of a directory in UPPER/sub, with "/" as "%2F".
func Escape(name string) string { return url.PathEscape(name) }
