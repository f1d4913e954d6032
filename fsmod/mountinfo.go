// SPDX-License-Identifier: Apache-2.0

// /proc/PID/mounts and mountinfo: what the kernel says of its mounts, and then the view's.

package fsmod

import (
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// firstMountID is the number of the first mount of a view in mountinfo. The kernel's own are
// lower, unless it has made so many.
const firstMountID = 1 << 30

// openMounts answers an open for reading of mounts or mountinfo of a task.
func (m *Module) openMounts(c *intercept.Call, o *object, flags int) (intercept.Action, bool) {
	last := path.Base(o.view)
	if last != "mounts" && last != "mountinfo" || !isProc(o.fd) || flags&(unix.O_ACCMODE|unix.O_PATH|unix.O_DIRECTORY) != 0 {
		return intercept.Action{}, false
	}
	var host []byte
	var err error
	m.guardedFile(c, o, func() { host, err = os.ReadFile(procFD(o.fd)) })
	if err != nil {
		return fail(err), true
	}
	text := m.table.describe(host, last == "mountinfo")
	fd, err := m.deliver("", "", Node{Content: text}, uint64(flags))
	if err != nil {
		return fail(err), true
	}
	return intercept.InstallFD(fd, flags&unix.O_CLOEXEC != 0), true
}

// describe adds the mounts of the view to what the kernel says of its own.
func (t *table) describe(host []byte, info bool) []byte {
	b := host
	for i, r := range t.rows {
		if r.glued {
			continue
		}
		options := "rw"
		if r.ReadOnly {
			options = "ro"
		}
		own := options
		for _, f := range []struct {
			flag uint64
			name string
		}{{unix.MS_NOSUID, ",nosuid"}, {unix.MS_NODEV, ",nodev"}} {
			if r.flags&f.flag != 0 {
				own += f.name
			}
		}
		kind, source := r.describe()
		if !info {
			b = fmt.Appendf(b, "%s %s %s %s 0 0\n", escapeMount(source), escapeMount(r.Target), kind, own)
			continue
		}
		var st unix.Stat_t
		if s, err := r.stat(""); err == nil {
			st = s
		}
		b = fmt.Appendf(b, "%d %d %d:%d / %s %s - %s %s %s\n", firstMountID+i, t.parent(host, i), unix.Major(st.Dev), unix.Minor(st.Dev),
			escapeMount(r.Target), own, kind, escapeMount(source), options)
	}
	return b
}

// parent is the number of the mount that row i is in.
func (t *table) parent(host []byte, i int) int {
	for k := i - 1; k >= 0; k-- {
		if !t.rows[k].glued && covers(t.rows[k].at, t.rows[i].at) { // which is not listed
			return firstMountID + k
		}
	}
	var id, best int
	for line := range strings.Lines(string(host)) {
		f := strings.Fields(line)
		if len(f) < 5 || !covers(strings.TrimSuffix(f[4], "/"), t.rows[i].at) || len(f[4]) < best {
			continue
		}
		best = len(f[4])
		_, _ = fmt.Sscan(f[0], &id)
	}
	return id
}

// describe is the type and the source of a mount, as mount(8) prints them.
func (m *mount) describe() (kind, source string) {
	switch m.Kind {
	case Tmpfs:
		return "tmpfs", "tmpfs"
	case Bind:
		return "umrun.bind", m.Source
	}
	if m.Source == "" {
		return "umrun." + string(m.Kind), "none"
	}
	return "umrun." + string(m.Kind), m.Source
}

// escapeMount writes a path as fs/proc_namespace.c:mangle does.
func escapeMount(s string) string {
	if !strings.ContainsAny(s, " \t\n\\#") {
		return s
	}
	var b strings.Builder
	for _, c := range []byte(s) {
		if strings.IndexByte(" \t\n\\#", c) >= 0 {
			fmt.Fprintf(&b, "\\%03o", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}
