// SPDX-License-Identifier: Apache-2.0

// Marks on descriptors: through which mount a file was opened.

package fsmod

import (
	"strings"

	"golang.org/x/sys/unix"
)

// A file that is opened through a mount is the file of some tree of the host, and may be
// open by its name there as well. Which mount a descriptor came through is noted in the
// open file description, where dup, fork and SCM_RIGHTS keep it: in its signal number of
// F_SETSIG (fcntl(2)), which is of no use to regular files and directories, but to tell of leases
// and of changes (F_NOTIFY): of what is marked by the signal that is the mark. F_SETSIG of the
// program on such files is refused.
const maxTag = 64 // _NSIG, arch/x86/include/uapi/asm/signal.h: valid_signal

// setTag marks fd, which is a regular file or a directory.
func setTag(fd int, tag int) {
	if tag != 0 {
		_, _, _ = unix.RawSyscall(unix.SYS_FCNTL, uintptr(fd), unix.F_SETSIG, uintptr(tag))
	}
}

// tagOf returns the mount of a descriptor, or nil.
func (t *table) tagOf(fd int) *mount {
	tag, _, errno := unix.RawSyscall(unix.SYS_FCNTL, uintptr(fd), unix.F_GETSIG, 0)
	if errno != 0 || tag == 0 || int(tag) > len(t.tagged) {
		return nil
	}
	return t.tagged[tag-1] // nil if it is gone
}

// cameThrough is the mount that an object without a name came through, before something of the file
// is changed. A descriptor of O_PATH, and one of what is neither a regular file nor a directory, has no
// mark: its mount is the one that shows what the host calls the file. So it is with a file that a copy
// has taken the place of, which is nothing to be changed any more. nil: it came through none. It is
// EACCES if that cannot be told, of a path that is too long.
func (t *table) cameThrough(o *object) (*mount, error) {
	if typ := o.typ(); typ == unix.S_IFREG || typ == unix.S_IFDIR {
		if mt := t.tagOf(o.fd); mt != nil || !isPath(o.fd) {
			return mt, nil
		}
	}
	host, err := nameOfFD(o.fd)
	switch {
	case err != nil:
		return nil, unix.EACCES
	case !strings.HasPrefix(host, "/"):
		return nil, nil
	}
	mt, _ := t.mountOfHost(strings.TrimSuffix(host, deleted), func() *mount { return t.lastSeen(inodeOf(&o.st)) })
	return mt, nil
}
