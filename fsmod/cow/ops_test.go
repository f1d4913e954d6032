// SPDX-License-Identifier: Apache-2.0

// Random operations and trees, and what a tree looks like.

package cow

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An op is one operation with its arguments.
type op struct {
	what     string
	name, to string
	flags    int
	mode     uint32
	data     []byte
	at       int64
}

func (o op) String() string {
	return fmt.Sprintf("%s(%q, %q, %#x, %#o, %d bytes at %d)", o.what, o.name, o.to, o.flags, o.mode, len(o.data), o.at)
}

// randomName is one of few, so that operations meet.
func randomName(r *rand.Rand) string {
	var parts []string
	for range 1 + min(r.IntN(4), r.IntN(4)) {
		parts = append(parts, string("abcd"[r.IntN(4)]))
	}
	return strings.Join(parts, "/")
}

var whats = []string{
	"mkdir", "mkdir", "create", "create", "write", "read", "rename", "rename", "rename", "exchange", "noreplace",
	"link", "unlink", "unlink", "rmdir", "rmdir", "symlink", "chmod", "truncate", "setxattr", "rmxattr", "tmpfile",
	"list", "fifo", "node", "utime", "chown", "opentrunc", "stat", "opendir", "clear",
}

func randomOp(r *rand.Rand) op {
	o := op{what: whats[r.IntN(len(whats))], name: randomName(r), to: randomName(r), mode: []uint32{0o644, 0o755, 0o4711, 0o2775, 0o600, 0o1777}[r.IntN(6)]}
	o.data = bytes.Repeat([]byte{byte('A' + r.IntN(26))}, r.IntN(6000))
	o.at = r.Int64N(9000)
	o.flags = []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR}[r.IntN(3)]
	for _, f := range []int{unix.O_EXCL, unix.O_TRUNC, unix.O_APPEND} {
		if r.IntN(4) == 0 {
			o.flags |= f
		}
	}
	if r.IntN(30) == 0 {
		o.to = o.name
	}
	if r.IntN(60) == 0 && !slices.Contains([]string{"clear", "rename", "exchange", "noreplace", "link"}, o.what) {
		o.name = ""
	}
	return o
}

// said is an error as it is compared.
func said(err error) string {
	if err == nil {
		return "ok"
	}
	return unix.ErrnoName(errno(err))
}

// apply does it, and says what came of it.
func (o op) apply(fs files) string {
	on := func(fd int, err error, f func(fd int) error) string {
		if err == nil {
			err = f(fd)
			closeAll(fd)
		}
		return said(err)
	}
	switch o.what {
	case "mkdir":
		return said(fs.Mkdir(o.name, o.mode))
	case "create":
		fd, err := fs.Open(o.name, o.flags|unix.O_CREAT|unix.O_NONBLOCK, o.mode)
		return on(fd, err, func(fd int) error {
			_, err := unix.Write(fd, o.data)
			return err
		})
	case "write":
		fd, err := fs.Open(o.name, unix.O_RDWR|unix.O_NONBLOCK|o.flags&unix.O_APPEND, 0)
		return on(fd, err, func(fd int) error {
			_, err := unix.Pwrite(fd, o.data, o.at)
			return err
		})
	case "opentrunc":
		fd, err := fs.Open(o.name, o.flags|unix.O_TRUNC|unix.O_NONBLOCK, 0)
		return on(fd, err, func(int) error { return nil })
	case "truncate":
		fd, err := fs.Open(o.name, unix.O_WRONLY|unix.O_NONBLOCK, 0)
		return on(fd, err, func(fd int) error { return unix.Ftruncate(fd, o.at) })
	case "read":
		var content string
		fd, err := fs.Open(o.name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		return on(fd, err, func(fd int) error {
			content = readAll(fd)
			return nil
		}) + content
	case "opendir":
		fd, err := fs.Open(o.name, o.flags&unix.O_ACCMODE|unix.O_DIRECTORY, 0)
		return on(fd, err, func(int) error { return nil })
	case "rename":
		return said(fs.Rename(o.name, o.to, 0))
	case "exchange":
		return said(fs.Rename(o.name, o.to, unix.RENAME_EXCHANGE))
	case "noreplace":
		return said(fs.Rename(o.name, o.to, unix.RENAME_NOREPLACE))
	case "link":
		return said(fs.Link(o.name, o.to))
	case "unlink":
		return said(fs.Remove(o.name, false))
	case "rmdir":
		return said(fs.Remove(o.name, true))
	case "clear": // all of a directory, as rm -r does
		return clearAll(fs, o.name)
	case "symlink":
		return said(fs.Symlink(o.to, o.name))
	case "fifo":
		return said(fs.Mknod(o.name, unix.S_IFIFO|o.mode, 0))
	case "node":
		return said(fs.Mknod(o.name, unix.S_IFCHR|o.mode, uint64(o.at%2*259))) // 1:3 or a whiteout
	case "stat":
		fd, err := fs.Open(o.name, unix.O_PATH, 0)
		return on(fd, err, func(int) error { return nil })
	case "tmpfile":
		fd, err := fs.Open(o.name, unix.O_TMPFILE|unix.O_RDWR, o.mode)
		return on(fd, err, func(fd int) error {
			if _, err := unix.Write(fd, o.data); err != nil {
				return err
			}
			return fs.LinkFile(fd, o.to)
		})
	case "list":
		entries, err := listAll(fs, o.name)
		if err != nil {
			return said(err)
		}
		return strings.Join(entries, " ")
	}
	fd, err := fs.Own(o.name)
	if s := on(fd, err, func(fd int) error { return o.change(fd) }); s != "EACCES" || !strings.HasSuffix(o.what, "xattr") {
		return s
	}
	return "EPERM" // Own does not know what for
}

// change changes attributes by an O_PATH descriptor.
func (o op) change(fd int) error {
	switch o.what {
	case "chmod":
		return unix.Chmod(fdPath(fd), o.mode)
	case "chown":
		return unix.Fchownat(fd, "", int(o.at%3)*mayChown, int(o.at%2)*mayChown, unix.AT_EMPTY_PATH)
	case "utime":
		return unix.UtimesNanoAt(unix.AT_FDCWD, fdPath(fd), []unix.Timespec{{Sec: o.at}, {Sec: 2 * o.at}}, 0)
	case "setxattr":
		return unix.Setxattr(fdPath(fd), "user.word", o.data[:min(len(o.data), 100)], 0)
	case "rmxattr":
		return unix.Removexattr(fdPath(fd), "user.word")
	}
	panic("no operation " + o.what)
}

// mayChown is 1 where files can be given away.
var mayChown = func() int {
	if os.Getuid() == 0 {
		return 1
	}
	return 0
}()

func clearAll(fs files, name string) string {
	entries, err := listAll(fs, name)
	if err != nil {
		return said(err)
	}
	for _, e := range entries {
		e, _, _ = strings.Cut(e, ":")
		child := strings.TrimPrefix(name+"/"+e, "/")
		if err := fs.Remove(child, false); err == unix.EISDIR {
			if s := clearAll(fs, child); s != "ok" {
				return child + s
			}
		} else if err != nil {
			return child + said(err)
		}
	}
	if name == "" {
		return "ok"
	}
	return said(fs.Remove(name, true))
}

// listAll lists a directory as the trap engine does, with types, sorted.
func listAll(fs files, name string) ([]string, error) {
	fd, err := fs.Open(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer closeAll(fd)
	entries, merged, err := fs.List(name)
	if err == nil && !merged {
		entries, err = readDir(fd)
	}
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		if e.Type == unix.DT_CHR { // overlayfs lists whiteouts of the lower layer until it has copied the directory
			fd, err := fs.Open(strings.TrimPrefix(name+"/"+e.Name, "/"), unix.O_PATH, 0)
			if err == unix.ENOENT {
				continue
			}
			closeAll(fd)
		}
		all = append(all, fmt.Sprintf("%s:%d", e.Name, e.Type))
	}
	slices.Sort(all)
	return all, nil
}

func readAll(fd int) string {
	var all []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, buf)
		if err != nil {
			return said(err)
		}
		if n <= 0 {
			break
		}
		all = append(all, buf[:n]...)
	}
	return fmt.Sprintf("%d:%x", len(all), sha256.Sum256(all))
}

// dump describes a whole tree, a line for each name.
func dump(fs files) string {
	var b strings.Builder
	dumpInto(&b, fs, "")
	return b.String()
}

// planted is the time that files of a lower layer have.
var planted = time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)

func dumpInto(b *strings.Builder, fs files, name string) {
	fd, err := fs.Open(name, unix.O_PATH, 0)
	if err != nil {
		fmt.Fprintf(b, "%s %s\n", name, said(err))
		return
	}
	defer closeAll(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		fmt.Fprintf(b, "%s fstat %s\n", name, said(err))
		return
	}
	fmt.Fprintf(b, "%s %#o %d:%d rdev %d", name, st.Mode, st.Uid, st.Gid, st.Rdev)
	if m := time.Unix(st.Mtim.Unix()); time.Since(m) > 24*time.Hour && kind(&st) != unix.S_IFIFO { // ours is written to itself
		fmt.Fprintf(b, " of %v", m.UTC())
	}
	xattrs, err := xattrNames(fd)
	if err != nil && err != unix.EOPNOTSUPP {
		fmt.Fprintf(b, " listxattr %s", said(err))
	}
	slices.Sort(xattrs)
	for _, x := range xattrs {
		if !strings.HasPrefix(x, userPrefix) {
			v, err := xattr(fd, x, nil)
			fmt.Fprintf(b, " %s=%x%v", x, v, err)
		}
	}
	switch kind(&st) {
	case unix.S_IFREG:
		fmt.Fprintf(b, " %d links", st.Nlink)
		if r, err := fs.Open(name, unix.O_RDONLY, 0); err == nil {
			fmt.Fprintf(b, " %s", readAll(r))
			closeAll(r)
		} else {
			fmt.Fprintf(b, " %s", said(err))
		}
	case unix.S_IFLNK:
		buf := make([]byte, 4096)
		n, err := unix.Readlinkat(fd, "", buf)
		fmt.Fprintf(b, " -> %s %v", buf[:max(n, 0)], err)
	case unix.S_IFDIR:
		entries, err := listAll(fs, name)
		fmt.Fprintf(b, " %v %v\n", entries, err)
		for _, e := range entries {
			e, _, _ = strings.Cut(e, ":")
			dumpInto(b, fs, strings.TrimPrefix(name+"/"+e, "/"))
		}
		return
	}
	b.WriteByte('\n')
}

// dumpReal describes a directory of the host, so that every change is seen.
func dumpReal(t *testing.T, dir string) string {
	t.Helper()
	fs, err := newThrough(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer fs.close()
	var b strings.Builder
	b.WriteString(dump(fs))
	err = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		fmt.Fprintf(&b, "%s %d %v %v\n", path, st.Ino, st.Ctim, st.Mtim)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// plant makes a lower layer.
func plant(t *testing.T, dir string, r *rand.Rand) { plantWith(t, dir, r, false) }

// plantWith can leave out whiteouts and hard links, which a plain directory shows otherwise.
func plantWith(t *testing.T, dir string, r *rand.Rand, plain bool) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil && !os.IsExist(err) && !os.IsNotExist(err) && errno(err) != unix.ENOTDIR && errno(err) != unix.ELOOP && errno(err) != unix.EPERM {
			t.Fatal(err)
		}
	}
	check(os.Mkdir(dir, 0o755))
	for range 60 {
		name := filepath.Join(dir, randomName(r))
		kinds := 10
		if plain {
			kinds = 8
		}
		switch r.IntN(kinds) {
		case 0, 1, 2, 3:
			check(os.MkdirAll(name, []os.FileMode{0o755, 0o775 | os.ModeSetgid, 0o777 | os.ModeSticky}[r.IntN(3)]))
		case 4, 5, 6:
			f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, []os.FileMode{0o644, 0o755, 0o755 | os.ModeSetuid}[r.IntN(3)])
			check(err)
			if err == nil {
				_, err = f.WriteAt(bytes.Repeat([]byte{byte('a' + r.IntN(26))}, r.IntN(5000)), r.Int64N(200_000))
				check(err)
				check(unix.Fsetxattr(int(f.Fd()), "user.word", []byte("lower"), 0))
				check(f.Close())
			}
		case 7:
			check(os.Symlink("a/b", name))
		case 8:
			check(os.Link(filepath.Join(dir, randomName(r)), name))
		case 9:
			check(unix.Mknod(name, []uint32{unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR}[r.IntN(3)]|0o640, 0)) // a whiteout, too
		}
	}
	old := []unix.Timespec{{Sec: planted.Unix(), Nsec: 789}, {Sec: planted.Unix(), Nsec: 789}}
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil {
			err = unix.UtimesNanoAt(unix.AT_FDCWD, path, old, unix.AT_SYMLINK_NOFOLLOW)
		}
		return err
	})
	check(err)
}
