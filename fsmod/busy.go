// SPDX-License-Identifier: Apache-2.0

// Who uses a mount.

package fsmod

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// userOf says who of the target is in a mount, or has something of it open or mapped;
// empty: nobody. It is a look at procfs, which whoever comes meanwhile, or has sent a
// descriptor that nobody has received, is not seen by; nor is a mapping alone of a file that
// has a name on the host.
func (m *Module) userOf(t *table, r *mount) string {
	if m.tasks == nil {
		return ""
	}
	for _, pid := range m.tasks() {
		if what := t.used(pid, r); what != "" {
			comm, _ := os.ReadFile(taskFile(pid, "comm"))
			return fmt.Sprintf("%s of process %d (%s) is in it", what, pid, bytes.TrimSpace(comm))
		}
	}
	return ""
}

// writes reports whether somebody of the target can write to a file of a mount by a descriptor.
func (m *Module) writes(t *table, r *mount) bool {
	if m.tasks == nil {
		return false
	}
	return slices.ContainsFunc(m.tasks(), func(pid int) bool {
		return eachFD(pid, func(fd int, _ string) bool {
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			in := t.tagOf(fd)
			return err == nil && flags&unix.O_ACCMODE != unix.O_RDONLY && in != nil && in.tag == r.tag
		}) != ""
	})
}

// eachFD calls f with a duplicate of each descriptor of a process that is of a file, and its name
// in /proc, until it is true, and returns the number of that.
func eachFD(pid int, f func(fd int, name string) bool) (number string) {
	fds, _ := os.ReadDir(taskFile(pid, "fd"))
	if len(fds) == 0 {
		return ""
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(pidfd)
	for _, e := range fds {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		name := taskFile(pid, "fd/"+e.Name())
		if host, err := readlink(name); err != nil || !strings.HasPrefix(host, "/") {
			continue // a socket, a pipe
		}
		fd, err := unix.PidfdGetfd(pidfd, n, 0)
		if err != nil {
			continue // closed meanwhile
		}
		found := f(fd, name)
		unix.Close(fd)
		if found {
			return e.Name()
		}
	}
	return ""
}

// used names what a process has of a mount.
func (t *table) used(pid int, r *mount) string {
	threads, _ := os.ReadDir(taskFile(pid, "task"))
	for _, th := range threads {
		for _, what := range []string{"cwd", "root"} {
			if t.usedBy(taskFile(pid, "task/"+th.Name()+"/"+what), r) {
				return map[string]string{"cwd": "the working directory", "root": "the root directory"}[what]
			}
		}
	}
	if host, err := readlink(taskFile(pid, "exe")); err == nil && r.private(host) {
		return "the program"
	}
	maps, _ := os.ReadFile(taskFile(pid, "maps"))
	for line := range bytes.Lines(maps) {
		if i := bytes.IndexByte(line, '/'); i >= 0 && r.private(string(bytes.TrimSuffix(line[i:], []byte("\n")))) {
			return "a mapping"
		}
	}
	if n := eachFD(pid, func(fd int, name string) bool {
		in := t.tagOf(fd)
		return in != nil && in.tag == r.tag || isPath(fd) && t.usedBy(name, r)
	}); n != "" {
		return "descriptor " + n
	}
	return ""
}

// usedBy reports whether a magic link of a task leads to a place in a mount.
func (t *table) usedBy(link string, r *mount) bool {
	host, err := readlink(link)
	if err != nil || !strings.HasPrefix(host, "/") {
		return false
	}
	var st unix.Stat_t
	if unix.Stat(link, &st) != nil {
		return false
	}
	if in := t.lastSeen(inodeOf(&st)); in != nil {
		return in.tag == r.tag
	}
	return r.private(host)
}

// private reports whether a path of the host is of a file that is nowhere but in m.
func (m *mount) private(host string) bool {
	switch m.Kind {
	case Tmpfs, File, Hide, Image:
	default:
		return false
	}
	if m.namer == nil {
		return false
	}
	_, ok := m.namer.Name(strings.TrimSuffix(host, deleted))
	return ok
}
