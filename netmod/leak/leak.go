// SPDX-License-Identifier: Apache-2.0

// The rules: doors, and the judgement of one socket address.

package leak

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// A Door is a socket by which a daemon of the host serves network.
type Door struct {
	Path string // absolute; ends in a slash if it stands for all sockets of a directory
	Name string // of the daemon, for messages
	Bus  bool   // part of the system D-Bus
}

// Doors returns the known doors. Each also counts below /var/run, which is /run
// on most systems but not on all.
func Doors() []Door {
	return []Door{
		{Path: "/run/nscd/socket", Name: "nscd"},
		{Path: "/run/.nscd_socket", Name: "nscd"}, // glibc before 2.3
		{Path: "/run/systemd/resolve/", Name: "systemd-resolved"},
		{Path: "/run/avahi-daemon/socket", Name: "avahi-daemon"},
		{Path: "/run/mdnsd", Name: "mdnsd"},
		{Path: "/run/dbus/system_bus_socket", Name: "the system D-Bus", Bus: true},
	}
}

// Config says which doors are shut.
type Config struct {
	DBus bool         // leave the system D-Bus open (--dbus host)
	Log  *slog.Logger // nil: silence
}

// Rules judge destinations.
type Rules struct {
	doors []Door // all shut
	log   *slog.Logger
	own   string // the supervisor's root; tests have another
}

// New returns the rules of c.
func New(c Config) *Rules {
	r := &Rules{log: c.Log, own: "/"}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	for _, d := range Doors() {
		if d.Bus && c.DBus {
			continue
		}
		below := d
		below.Path = "/var" + d.Path
		r.doors = append(r.doors, d, below)
	}
	return r
}

// Dirs opens what a task's paths begin at, with O_PATH: "root", "cwd", or "fd/N".
// The caller closes what it gets. [intercept.Task] implements it.
type Dirs interface {
	OpenDir(what string) (*os.File, error)
}

// A Verdict is the answer to one call.
type Verdict struct {
	Allow bool
	Errno unix.Errno // what the call fails with if it is not allowed
	Why   string     // in words, if it is not allowed
}

var allow = Verdict{Allow: true}

// Judge returns nil if task may connect or send to the address, else the errno
// for it. sa is the copied sockaddr, as long as the program said it is. Judge
// walks the path, and waits where connect(2) would: on a network file system
// that does not answer.
func (r *Rules) Judge(task *intercept.Task, sa []byte) error {
	v := r.Check(task, sa)
	if v.Allow {
		return nil
	}
	if r.log.Enabled(context.Background(), slog.LevelDebug) {
		r.log.Debug("connection to the host refused", "tid", task.TID(), "addr", string(name(sa)), "why", v.Why, "errno", v.Errno)
	}
	return v.Errno
}

// JudgeFile is Judge of the file that an address leads to, by a descriptor of it.
func (r *Rules) JudgeFile(fd int) error {
	id, mode, err := identify(fd)
	if err != nil || mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil
	}
	root, err := os.OpenFile(r.own, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return unix.EACCES
	}
	defer root.Close()
	var d *Door
	if name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil {
		d = r.byName(name)
	}
	if d == nil {
		d = r.byInode(root, id)
	}
	if d == nil {
		return nil
	}
	v := shut(d)
	r.log.Debug("connection to the host refused", "why", v.Why, "errno", v.Errno)
	return v.Errno
}

// Check is Judge for whatever opens directories.
func (r *Rules) Check(task Dirs, sa []byte) Verdict {
	p := name(sa)
	switch {
	case len(p) == 0:
		return allow // another family, unnamed, or malformed: the kernel's to answer
	case p[0] == 0:
		// Abstract names are no files. None of the daemons listens on one today;
		// those that did used the path of their socket.
		if d := r.byName(path.Clean(string(p[1:]))); d != nil {
			return shut(d)
		}
		return allow
	}
	if i := bytes.IndexByte(p, 0); i >= 0 {
		p = p[:i] // unix(7): what follows the NUL does not count
	}
	return r.checkPath(task, string(p))
}

// name returns what follows the family in a sockaddr_un that the kernel would
// take; empty if there is nothing to judge.
func name(sa []byte) []byte {
	if len(sa) < 2 || len(sa) > unix.SizeofSockaddrUnix || binary.NativeEndian.Uint16(sa) != unix.AF_UNIX {
		return nil
	}
	return sa[2:]
}

// shut is the verdict on a door.
func shut(d *Door) Verdict {
	return Verdict{Errno: unix.ECONNREFUSED, Why: d.Name + " would use the host's network"}
}

// byName returns the door that has a name, or nil.
func (r *Rules) byName(clean string) *Door {
	for i := range r.doors {
		d := &r.doors[i]
		if dir, ok := strings.CutSuffix(d.Path, "/"); clean == d.Path || ok && path.Dir(clean) == dir {
			return d
		}
	}
	return nil
}

// checkPath judges a path name.
func (r *Rules) checkPath(task Dirs, p string) Verdict {
	root, err := task.OpenDir("root")
	if err != nil {
		return blind(err)
	}
	defer root.Close()
	found, err := resolve(task, root, p)
	switch {
	case err == nil:
		defer found.Close()
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EBADF):
		return allow // nothing is there
	default:
		if d := r.byName(path.Clean(p)); d != nil {
			return shut(d)
		}
		return allow
	}
	id, mode, err := identify(int(found.Fd()))
	if err != nil || mode&unix.S_IFMT != unix.S_IFSOCK {
		return allow // ECONNREFUSED by the kernel
	}
	if name, ok := nameIn(root, found); ok {
		if d := r.byName(name); d != nil {
			return shut(d)
		}
	}
	if d := r.byInode(root, id); d != nil {
		return shut(d)
	}
	if home, err := os.OpenFile(r.own, unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
		defer home.Close()
		if !same(home, root) {
			if d := r.byInode(home, id); d != nil {
				return shut(d)
			}
		}
	}
	return allow
}

// blind is the verdict where the task cannot be looked at: a dead one needs no
// answer, any other gets none but a refusal.
func blind(err error) Verdict {
	if errors.Is(err, unix.ESRCH) {
		return allow
	}
	return Verdict{Errno: unix.EACCES, Why: "its root directory cannot be opened: " + err.Error()}
}

// byInode returns the door that the inode is in a root, or nil.
func (r *Rules) byInode(root *os.File, want inode) *Door {
	for i := range r.doors {
		d := &r.doors[i]
		f, err := openIn(root, d.Path)
		if err != nil {
			continue
		}
		id, _, err := identify(int(f.Fd()))
		hit := err == nil && id == want
		if !hit && strings.HasSuffix(d.Path, "/") {
			hit = holds(f, want)
		}
		f.Close()
		if hit {
			return d
		}
	}
	return nil
}
