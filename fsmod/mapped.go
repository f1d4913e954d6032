// SPDX-License-Identifier: Apache-2.0

// Which files a thread that has just become another program maps.
//
// proc_pid_maps(5) is all that anybody may read, and its numbers are not those of stat(2):
// on file systems with subvolumes or layers stat tells a device of each. So a file that is
// to be executed is mapped here too, and what our own maps say of it is what the program's
// are to say. Where these are stat's numbers, they are of one file only, and so on all of the file
// system: the next of its files are not mapped here. Where they are not, files of two subvolumes
// may have them both, and the name is looked at as well.

package fsmod

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// A mapped is a file as proc_pid_maps(5) shows it.
type mapped struct {
	dev  string // MAJOR:MINOR, hexadecimal
	ino  uint64 // 0: no file
	path string // escaped, as are newlines there
}

// A wanted is a file that a program may map.
type wanted struct {
	mapped
	st inode // as stat(2) tells it
}

// exact reports whether the numbers are those of stat, and so of one file only.
func (w *wanted) exact() bool { return w.mapped == statMapped(w.st, w.path) }

func statMapped(st inode, path string) mapped {
	return mapped{fmt.Sprintf("%02x:%02x", unix.Major(st.dev), unix.Minor(st.dev)), st.ino, path}
}

// exactFS has the file systems on which maps has been seen to show stat's numbers, as fileSystem. One
// that has taken the number of another of its kind shows them likewise; if not, a program is killed.
var exactFS sync.Map

type fileSystem struct {
	dev   uint64
	magic int64
}

// wantedFile tells how an open file is shown that is mapped. One that cannot be mapped here
// has stat's numbers: where they are others, its program is killed.
func wantedFile(fd int, st *unix.Stat_t) wanted {
	w := wanted{st: inodeOf(st)}
	w.mapped = statMapped(w.st, "")
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) != nil {
		return w
	}
	on := fileSystem{st.Dev, int64(fs.Type)}
	if _, ok := exactFS.Load(on); ok {
		return w
	}
	page, err := unix.Mmap(fd, 0, 1, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return w
	}
	defer unix.Munmap(page)
	begin := fmt.Appendf(nil, "%p-", page)[len("0x"):]
	var buf [procSize]byte
	b, err := intercept.ReadProc("/proc/self/maps", buf[:])
	if err != nil {
		return w
	}
	for line := range bytes.Lines(b) {
		if bytes.HasPrefix(bytes.TrimLeft(line, "0"), begin) {
			if got, err := mappedLine(line); err == nil {
				w.mapped = got
				if w.exact() {
					exactFS.Store(on, nil)
				}
			}
		}
	}
	return w
}

// mappedLine reads a line: address, perms, offset, dev, inode, path.
func mappedLine(line []byte) (f mapped, err error) {
	var word []byte
	for i := range 5 {
		line = bytes.TrimLeft(line, " ")
		word, line, _ = bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
		switch {
		case len(word) == 0:
			return f, unix.EIO
		case i == 3:
			f.dev = string(word)
		case i == 4:
			f.ino, err = strconv.ParseUint(string(word), 10, 64)
		}
	}
	f.path = string(bytes.TrimLeft(line, " "))
	return f, err
}

// is reports whether a program maps the file.
func (w *wanted) is(f mapped) bool {
	if f.dev != w.dev || f.ino != w.ino {
		return false
	}
	if f.path == w.path || w.exact() {
		return true
	}
	// Another name of it, if it is the file that is there: who could put it there has no
	// need of another.
	var st unix.Stat_t
	return unix.Lstat(f.path, &st) == nil && inodeOf(&st) == w.st
}

// mapsOnly makes sure that a process which has just become another program maps no files
// but these.
func mapsOnly(pid int, files []wanted) error {
	var buf [procSize]byte
	b, err := intercept.ReadProc(taskFile(pid, "maps"), buf[:])
	if err != nil {
		return fmt.Errorf("mappings: %w", err)
	}
	for line := range bytes.Lines(b) {
		f, err := mappedLine(line)
		if err != nil {
			return fmt.Errorf("mappings: %w", err)
		}
		if f.ino != 0 && !slices.ContainsFunc(files, func(w wanted) bool { return w.is(f) }) {
			return fmt.Errorf("%s is mapped: %w", f.path, unix.EACCES)
		}
	}
	return nil
}
