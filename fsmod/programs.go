// SPDX-License-Identifier: Apache-2.0

// Programs that the kernel finds as well.
//
// Most programs are the host's, and nothing of the view is on the way to them or to their loader:
// the kernel, given the call's own path, executes what the view says. So the thread makes its
// call by itself, which takes a fraction of the time. The path is in memory that other threads
// may write to, and names may come to mean other files meanwhile: so what the thread has become is
// looked at before it runs. If that is not what was found it is something else that the view shows
// where the host has it, or the thread is killed.
//
// By which paths they were found is kept. It is good as long as the table is the same and the host
// has the same files, unchanged, under the names of the program and its loader: had a directory or a
// link on the way been changed since so that the view led elsewhere, and the host to the same
// file, then that would be one that the view had there before.

package fsmod

import (
	"bytes"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// programsMost bounds the programs that are kept.
const programsMost = 1 << 10

// programs are those that are kept, by their paths. The zero value has none.
type programs struct {
	mu    sync.Mutex
	table *table // by which they were found. Guarded by mu
	m     map[string]*program
}

// A program is one that the kernel finds as the view does. Nobody changes it.
type program struct {
	exe   inode
	parts []part
	files []uint64 // see image
}

// A part of a program is a file that the kernel finds by a name: a script, its interpreter, the
// loader of that.
type part struct {
	name string
	is   version
}

// A version is a file as it was at some time.
type version struct {
	inode
	size         int64
	mtime, ctime unix.Timespec
	mode         uint32
}

func versionOf(st *unix.Stat_t) version {
	return version{inodeOf(st), st.Size, st.Mtim, st.Ctim, st.Mode}
}

// known returns the program at a path, nil if it is not known.
func (ps *programs) known(t *table, path string) *program {
	ps.mu.Lock()
	p := ps.m[path]
	if ps.table != t {
		p = nil
	}
	ps.mu.Unlock()
	if p == nil {
		return nil
	}
	for i := range p.parts {
		var st unix.Stat_t
		if unix.Stat(p.parts[i].name, &st) != nil || versionOf(&st) != p.parts[i].is {
			return nil
		}
	}
	return p
}

// keep keeps a program that was found at a path, if that is absolute.
func (ps *programs) keep(t *table, path string, im *image) {
	if path[0] != '/' {
		return
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.table != t || len(ps.m) >= programsMost {
		ps.table, ps.m = t, make(map[string]*program)
	}
	ps.m[path] = &program{im.exe, im.parts, im.files}
}

// finds adds what the view has by the next of the names that the kernel would look for.
func (im *image) finds(name string, o *object) {
	im.parts = append(im.parts, part{name, versionOf(&o.st)})
	im.near = im.near && o.near
}

// isHosts reports whether the kernel finds the same files by these names.
func (im *image) isHosts(c *intercept.Call) bool {
	if !im.near || im.loader >= 0 {
		return false
	}
	for i, p := range im.parts {
		path := p.name
		if !strings.HasPrefix(path, "/") {
			if i > 0 {
				return false
			}
			path = taskFile(c.TID, "cwd/") + path
		}
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || inodeOf(&st) != p.is.inode || !isLocal(path) {
			return false
		}
	}
	return true
}

// localFS are file systems whose reads are ended by fatal signals alone (statfs(2)): those of user
// space may end when the thread is asked to stop.
var localFS = []int64{unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.RAMFS_MAGIC,
	unix.OVERLAYFS_SUPER_MAGIC, unix.SQUASHFS_MAGIC, unix.EROFS_SUPER_MAGIC_V1, unix.F2FS_SUPER_MAGIC, zfsMagic}

const zfsMagic = 0x2fc12fc1 // of OpenZFS

func isLocal(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && slices.Contains(localFS, int64(fs.Type))
}

// mayExecItself reports whether an execve(2) of the thread leads to where the view says, as far
// as that depends on the thread: of one that is not its group's leader it ends that and takes its
// number.
func (m *Module) mayExecItself(c *intercept.Call) bool {
	return !m.table.chrooted.Load() && c.Task.TGID() == c.TID
}

// execsItself has the thread make its call by itself. Where it is does not change by that.
func (m *Module) execsItself(c *intercept.Call, files []uint64) intercept.Action {
	return c.Inject(intercept.Injection{Exec: func(tid int, err error) error {
		if err == nil {
			return nil // the call failed
		}
		m.whose.became(c)
		if err == intercept.ErrExec {
			return sameFiles(tid, c, files, m.shows)
		}
		return nil
	}})
}

// shows reports whether a mapped file is one of the host's that the view shows where it is, by its
// name in /proc/PID/maps.
func (m *Module) shows(path []byte) bool {
	if len(path) == 0 || path[0] != '/' || bytes.IndexByte(path, '\\') >= 0 { // not all of such a name is told as it is
		return false
	}
	in, _ := m.table.lookup(string(path))
	return in == m.table.host
}
