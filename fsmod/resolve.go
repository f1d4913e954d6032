// SPDX-License-Identifier: Apache-2.0

// Where a path leads, as far as generated trees are concerned.

package fsmod

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// resolve finds the tree that a path of the calling thread leads into, and the path in
// it. Names are taken as they are written: of symbolic links it knows those of procfs
// and sysfs.
func (m *Module) resolve(c *intercept.Call, dir int, name string) (tree, rest string, ok bool) {
	if !strings.HasPrefix(name, "/") {
		base := "cwd"
		if dir != unix.AT_FDCWD {
			base = fmt.Sprintf("fd/%d", dir)
		}
		at, err := link(c, base)
		if err != nil {
			return "", "", false
		}
		if tree, rest, ok = m.inside(at); ok { // one of ours
			return tree, clean(rest + "/" + name), true
		}
		name = at + "/" + name
	} else if root, err := link(c, "root"); err == nil && root != "/" {
		name = root + name
	}
	return m.treeOf(canonical(path.Clean(name)))
}

// treeOf finds the tree that a canonical path is in.
func (m *Module) treeOf(name string) (tree, rest string, ok bool) {
	for tree := range m.trees {
		if name == tree {
			return tree, "", true
		}
		if rest, ok := strings.CutPrefix(name, tree+"/"); ok {
			return tree, rest, true
		}
	}
	return "", "", false
}

// clean is path.Clean of a path in a tree, above which there is nothing.
func clean(p string) string { return strings.TrimPrefix(path.Clean("/"+p), "/") }

// link reads a magic link of the calling thread: proc_pid_fd(5), proc_pid_cwd(5). It does
// not tell the runtime of the call, which takes no longer than that would.
func link(c *intercept.Call, name string) (string, error) {
	var path [64]byte
	var buf [pathMax]byte
	p := append(path[:0], "/proc/"...)
	p = strconv.AppendInt(p, int64(c.TID), 10)
	p = append(append(append(p, '/'), name...), 0)
	at := unix.AT_FDCWD
	n, _, errno := unix.RawSyscall6(unix.SYS_READLINKAT, uintptr(at), uintptr(unsafe.Pointer(&p[0])), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0)
	if errno != 0 {
		return "", errno
	}
	return string(buf[:n]), nil
}

// canonical writes the network directory of a process as /proc/net, and that of a
// device as /sys/class/net.
func canonical(p string) string {
	if rest, ok := strings.CutPrefix(p, "/sys/devices/virtual/net"); ok && (rest == "" || rest[0] == '/') {
		return "/sys/class/net" + rest
	}
	rest, ok := strings.CutPrefix(p, "/proc/")
	if !ok {
		return p
	}
	parts := strings.Split(rest, "/")
	process := func(s string) bool { return s == "self" || s == "thread-self" || numeric(s) }
	switch {
	case len(parts) >= 4 && process(parts[0]) && parts[1] == "task" && numeric(parts[2]) && parts[3] == "net":
		parts = parts[3:]
	case len(parts) >= 2 && process(parts[0]) && parts[1] == "net":
		parts = parts[1:]
	}
	return "/proc/" + strings.Join(parts, "/")
}

func numeric(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}
