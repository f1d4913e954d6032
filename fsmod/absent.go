// SPDX-License-Identifier: Apache-2.0

// Places of mounts that are not there: directories are made up for them, and they are put
// into the lists of those that they are in.

package fsmod

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// glue is a row for what is missing on the way to a new one: a directory that takes no
// changes, which would be lost with the view. nil: nothing is.
func (t *table) glue(m *mount) (*mount, error) {
	for i := range m.at {
		if i == 0 || m.at[i] != '/' {
			continue
		}
		in, name := t.lookup(m.at[:i])
		if _, err := in.stat(name); !errors.Is(err, unix.ENOENT) {
			continue
		}
		g := Mount{Kind: Tmpfs, Target: m.at[:i], ReadOnly: true}
		fs, err := openTmpfs(g.Target)
		if err != nil {
			return nil, err
		}
		row := rowAt(Mounted{Mount: g, FS: fs})
		row.glued = true
		return row, nil
	}
	return nil, nil
}

// findAbsent notes the mounts that their parents' own lists do not have.
func (t *table) findAbsent() {
	t.absent = make(map[listingKey][]*mount)
	for _, m := range t.rows {
		if m.at == "" || !slices.Contains(t.mounts, m) {
			continue
		}
		i := strings.LastIndexByte(m.at, '/')
		in, name := t.lookup(m.at[:i])
		st, err := in.stat(name)
		if err != nil {
			continue
		}
		if _, err := in.stat(strings.TrimPrefix(name+m.at[i:], "/")); errors.Is(err, unix.ENOENT) {
			key := listingKey{in, inodeOf(&st)}
			t.absent[key] = append(t.absent[key], m)
		}
	}
}

// dirents are the entries of those that are absent from a directory with some entries.
func dirents(absent []*mount, there []Dirent) (more []Dirent) {
	for _, m := range absent {
		name := m.at[strings.LastIndexByte(m.at, '/')+1:]
		if slices.ContainsFunc(there, func(e Dirent) bool { return e.Name == name }) {
			continue // the host has it by now
		}
		if st, err := m.stat(""); err == nil {
			more = append(more, Dirent{name, st.Ino, uint8(st.Mode >> 12)}) // IFTODT of dirent.h
		}
	}
	return more
}

// readDir lists the directory that a descriptor is of, from its beginning, without "." and
// "..".
func readDir(dir int) ([]Dirent, error) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var all []Dirent
	buf := make([]byte, 8*os.Getpagesize())
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil || n <= 0 {
			return all, err
		}
		for b := buf[:n]; len(b) > 19; { // struct linux_dirent64
			size := binary.NativeEndian.Uint16(b[16:])
			name, _, _ := strings.Cut(string(b[19:size]), "\x00")
			if name != "." && name != ".." {
				all = append(all, Dirent{name, binary.NativeEndian.Uint64(b), b[18]})
			}
			b = b[size:]
		}
	}
}
