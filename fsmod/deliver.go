// SPDX-License-Identifier: Apache-2.0

// Delivery: real descriptors for what was made up.

package fsmod

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// deliver makes the descriptor that open(2) with flags returns.
func (m *Module) deliver(tree, rest string, node Node, flags uint64) (int, error) {
	switch {
	case flags&(unix.O_CREAT|unix.O_EXCL) == unix.O_CREAT|unix.O_EXCL:
		return -1, unix.EEXIST
	case flags&unix.O_TMPFILE == unix.O_TMPFILE:
		return -1, unix.EOPNOTSUPP
	case node.Dir && flags&(unix.O_ACCMODE|unix.O_CREAT) != 0:
		return -1, unix.EISDIR
	case flags&unix.O_ACCMODE != unix.O_RDONLY && flags&unix.O_PATH == 0:
		return -1, unix.EACCES // files there are read-only
	case !node.Dir && flags&unix.O_DIRECTORY != 0:
		return -1, unix.ENOTDIR
	case node.Dir:
		return m.directory(tree, rest, node.Entries, flags)
	}
	return memory(filepath.Base(tree+"/"+rest), node.Content, flags)
}

// memory is a sealed file with a content, opened for reading.
func memory(name string, content []byte, flags uint64) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	for rest := content; len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		if err != nil {
			return -1, err
		}
		rest = rest[n:]
	}
	// As files of procfs: nobody may write, everybody may read.
	if err := unix.Fchmod(fd, 0o444); err != nil {
		return -1, err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return -1, err
	}
	return reopen(fd, flags)
}

// reopen opens what fd refers to anew, for reading. O_PATH is not kept: the kernel
// installs no such descriptor in another process (SECCOMP_IOCTL_NOTIF_ADDFD gives
// EBADF), so the program gets one that can do more.
func reopen(fd int, flags uint64) (int, error) {
	const kept = unix.O_NONBLOCK
	return unix.Open(procFD(fd), int(flags&kept)|unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// directory opens a real directory with the entries of one of a tree.
func (m *Module) directory(tree, rest string, entries []Entry, flags uint64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return -1, unix.ENOENT
	}
	if m.private == "" {
		var err error
		if m.private, m.lock, err = makePrivate(); err != nil {
			m.log.Error("make a directory for generated files", "err", err)
			return -1, unix.EACCES
		}
	}
	dir := filepath.Join(m.private, treeName(tree), rest)
	if err := fill(dir, entries); err != nil {
		m.log.Error("list generated files", "err", err)
		return -1, unix.EIO
	}
	const kept = unix.O_NONBLOCK
	return unix.Open(dir, int(flags&kept)|unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// treeName names the directory of a tree.
func treeName(tree string) string {
	return strings.ReplaceAll(strings.TrimPrefix(tree, "/"), "/", "-")
}

// fill makes a directory that has just these entries.
func fill(dir string, entries []Entry) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	there, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	old := make(map[string]bool, len(there))
	for _, e := range there {
		old[e.Name()] = true
	}
	for _, e := range entries {
		if old[e.Name] {
			delete(old, e.Name)
			continue
		}
		path := filepath.Join(dir, e.Name)
		if e.Dir {
			err = os.Mkdir(path, 0o755)
		} else {
			err = os.WriteFile(path, nil, 0o444)
		}
		if err != nil {
			return err
		}
	}
	for name := range old {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// inside tells which directory of a tree a real one of ours stands for.
func (m *Module) inside(dir string) (tree, rest string, ok bool) {
	m.mu.Lock()
	private := m.private
	m.mu.Unlock()
	if private == "" {
		return "", "", false
	}
	below, ok := strings.CutPrefix(dir, private+"/")
	if !ok {
		return "", "", false
	}
	first, rest, _ := strings.Cut(below, "/")
	for tree := range m.trees {
		if treeName(tree) == first {
			return tree, rest, true
		}
	}
	return "", "", false
}
