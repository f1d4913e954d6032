// SPDX-License-Identifier: Apache-2.0

// Table: which mounts there are in a view that runs, and which of them its programs have made.
//
// Those that programs have made they may remove and change; all others, the host's and those
// of -m and umrun set, are locked to them. A copy that a bind makes is the program's, and what
// is mounted in it is whose the original is.

package nsmount

import (
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	format "umrun/fsmod/cow"
)

// A row is a line of mountinfo (proc_pid_mountinfo(5)).
type row struct {
	id, parent uint64
	unique     uint64 // 0: the kernel has none, see uniqueIDs
	shows      string // device and root
	point      string // as a path from the root of the namespace
	readOnly   bool
}

// A Made is a mount that a program has made.
type Made struct {
	ID     uint64
	Unique uint64 // as in row
	Shows  string // as in row; without Unique it is the best there is, as ID is given anew when a mount has gone
	Mount  fsmod.Mount
	Locked bool // it came in a copy, and the original is somebody else's
	Sealed bool // it stays read-only, as what it is a copy of
	Fresh  bool // its file system is its own, and was made by mount(2)
}

// device is the file system of it, as mountinfo numbers them.
func (m *Made) device() string {
	device, _, _ := strings.Cut(m.Shows, " ")
	return device
}

// readTable reads the mounts of the namespace that we are in. fds is of our /proc/self/fd.
func readTable(fds int) ([]row, error) {
	fd, err := unix.Openat(fds, "../mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var text []byte
	for b := make([]byte, 1<<16); ; {
		n, err := unix.Read(fd, b)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		text = append(text, b[:n]...)
	}
	var rows []row
	unique := uniqueIDs()
	for line := range strings.Lines(string(text)) {
		id, at, _, ok := format.ParseMountinfo(line)
		f := strings.SplitN(line, " ", 7)
		if !ok || len(f) < 7 {
			continue
		}
		parent, err := strconv.ParseUint(f[1], 10, 64)
		if err != nil {
			continue
		}
		rows = append(rows, row{
			id: id, parent: parent, unique: unique[id], shows: f[2] + " " + f[3], point: at,
			readOnly: f[5] == "ro" || strings.HasPrefix(f[5], "ro,"),
		})
	}
	return rows, nil
}

// find returns the row of a mount, or nil.
func find(rows []row, id uint64) *row {
	if i := slices.IndexFunc(rows, func(r row) bool { return r.id == id }); i >= 0 {
		return &rows[i]
	}
	return nil
}

// is reports whether it is the mount that m was, whose number it has.
func (r *row) is(m *Made) bool {
	return r.shows == m.Shows && (r.unique == m.Unique || r.unique == 0 || m.Unique == 0)
}

// stillMade are those of made that are there.
func stillMade(made []Made, rows []row) (still []Made) {
	for _, m := range made {
		if r := find(rows, m.ID); r != nil && r.is(&m) {
			m.Mount.Target, m.Mount.ReadOnly = r.point, r.readOnly
			still = append(still, m)
		}
	}
	return still
}

// below are the mounts in the part at path of a mount, parents before children, that itself
// not included.
func below(rows []row, of uint64, path string) (all []row) {
	for _, r := range rows {
		if r.parent != of || r.id == of || !within(path, r.point) {
			continue
		}
		all = append(append(all, r), below(rows, r.id, "/")...)
	}
	return all
}

// within reports whether a path is that of a directory, or in it.
func within(dir, path string) bool {
	_, ok := relative(dir, path)
	return ok || dir == path
}

// place is where a mount is in a tree of them: its path there, and how many are between it and
// the tree's root, as there may be several at one path.
type place struct {
	path  string
	depth int
}

// placeIn returns the place of r in the tree of mount root, a part of it at path.
func placeIn(rows []row, r row, root uint64, path string) place {
	p := place{path: strings.TrimPrefix(strings.TrimPrefix(r.point, path), "/")}
	for up := &r; up != nil && up.id != root && up.parent != up.id; up = find(rows, up.parent) {
		p.depth++
	}
	return p
}
