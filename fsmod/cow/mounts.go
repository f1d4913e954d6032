// SPDX-License-Identifier: Apache-2.0

// What is mounted below the tree that is covered.

package cow

import (
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
)

// A Submount is a file system, or single file, that is mounted below a directory.
type Submount struct {
	Path   string // where
	Name   string // relative to the directory
	Type   string // of the file system, as in /proc/self/mountinfo
	Pseudo bool   // of the kernel's own state, which has no copy
	Dir    bool   // no single file
}

// Submounts lists what is mounted below dir, in the order of mounting, one for each place.
func Submounts(dir string) ([]Submount, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return submounts(dir, string(info), isDir), nil
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

func submounts(dir, info string, isDir func(string) bool) []Submount {
	under := strings.TrimSuffix(dir, "/") + "/"
	var all []Submount
	for line := range strings.Lines(info) {
		// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue: proc_pid_mountinfo(5)
		mount, super, ok := strings.Cut(line, " - ")
		fields := strings.Fields(mount)
		kind, _, _ := strings.Cut(super, " ")
		if !ok || len(fields) < 5 {
			continue
		}
		path := unescape(fields[4])
		if path == dir || dir != "/" && strings.HasPrefix(dir, strings.TrimSuffix(path, "/")+"/") {
			all = nil // mounted over it: what came before is out of sight
		}
		name, below := strings.CutPrefix(path, under)
		if !below || name == "" {
			continue
		}
		all = slices.DeleteFunc(all, func(m Submount) bool { return m.Name == name || strings.HasPrefix(m.Name, name+"/") })
		all = append(all, Submount{Path: path, Name: name, Type: kind, Pseudo: pseudo(kind), Dir: isDir(path)})
	}
	return all
}

// pseudo reports whether a file system shows something else than stored files.
func pseudo(kind string) bool {
	switch kind {
	case "autofs", "binder", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "cpuset", "debugfs",
		"devpts", "efivarfs", "functionfs", "fusectl", "hugetlbfs", "mqueue", "nfsd", "nsfs", "proc",
		"pstore", "resctrl", "rpc_pipefs", "securityfs", "selinuxfs", "smackfs", "sysfs", "tracefs":
		return true
	}
	return false
}

// unescape undoes what the kernel does to blanks and the like: \040.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		var c byte
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := fmt.Sscanf(s[i+1:i+4], "%3o", &c); n == 1 && err == nil {
				b.WriteByte(c)
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Escape writes a relative path as the name of a directory in UPPER/sub, with "/" as "%2F".
func Escape(name string) string { return url.PathEscape(name) }
