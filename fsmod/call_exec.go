// SPDX-License-Identifier: Apache-2.0

// execve(2) and execveat(2).
//
// The program is opened here, its descriptor given to the thread, and the thread made to
// call execveat(2) with it. A script is not left to the kernel, which would look for the
// interpreter by its name on the host: the interpreter is what is executed, with the
// arguments that binfmt_script gives it. The ELF loader is found by the kernel by a name
// in the file; where that means another file in the view, a copy of the program is
// executed that names the right one.
//
// The path that execveat(2) gets is the end of a string in memory that other threads may
// write to, and so may they write to the program's file. So what the thread has become is
// looked at before it runs: its files are those that were opened, or it is killed.

package fsmod

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

const (
	headSize   = 256 // BINPRM_BUF_SIZE, linux/binfmts.h
	maxScripts = 5   // as exec_binprm of fs/exec.c allows
)

func (m *Module) doExecve(c *intercept.Call) intercept.Action {
	m.noCores(c)
	return m.exec(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), c.Args[1], c.Args[2], 0)
}

func (m *Module) doExecveat(c *intercept.Call) intercept.Action {
	flags := int(uint32(c.Args[4]))
	if flags&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return intercept.Fail(unix.EINVAL)
	}
	return m.exec(c, int(int32(c.Args[0])), intercept.Addr(c.Args[1]), c.Args[2], c.Args[3], flags)
}

// closesOnExec reports whether a descriptor of the program is gone after an exec
// (proc_pid_fdinfo(5)).
func closesOnExec(c *intercept.Call, fd int) bool {
	var buf [procSize]byte
	b, err := intercept.ReadProc(taskFile(c.TID, "fdinfo/"+strconv.Itoa(fd)), buf[:])
	if err != nil {
		return true
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("flags:")); ok {
			flags, err := strconv.ParseUint(string(bytes.TrimSpace(rest)), 8, 64)
			return err != nil || flags&unix.O_CLOEXEC != 0
		}
	}
	return true
}

// An image is a program that is about to run.
type image struct {
	file   *os.File
	view   string   // what the view calls it
	m      *mount   // where that is
	prefix []string // arguments in the place of the first one; nil: none, it is no script
	loader int      // descriptor of the ELF loader, if it is another one than the host's; else -1
	files  []wanted // what it may map: its loader, and in the end the program
}

func (im *image) close() {
	if im.file != nil {
		im.file.Close()
	}
	if im.loader >= 0 {
		unix.Close(im.loader)
	}
}

func (m *Module) exec(c *intercept.Call, dir int, at intercept.Addr, argv, envp uint64, flags int) intercept.Action {
	path, err := c.ReadString(at, pathMax)
	if err != nil {
		return fail(err)
	}
	o, err := m.find(c, dir, at, flags)
	if err != nil {
		return fail(err)
	}
	name := path // as the kernel tells an interpreter of a script
	if dir != unix.AT_FDCWD && !strings.HasPrefix(path, "/") {
		name = strings.TrimSuffix("/dev/fd/"+strconv.Itoa(dir)+"/"+path, "/")
	}
	im, err := m.loadImage(c, o, name)
	if err != nil {
		return fail(err)
	}
	defer im.close()
	var page []byte
	var pointers []uint64
	if im.prefix != nil {
		if dir != unix.AT_FDCWD && name != path && closesOnExec(c, dir) {
			return intercept.Fail(unix.ENOENT) // its interpreter would not find it
		}
		if pointers, err = argPointers(c, argv); err != nil {
			return fail(err)
		}
	}
	var given []int // descriptors that the thread has for the exec
	if im.loader >= 0 {
		n, err := m.lend(c, im.loader) // open until the exec is over
		if err != nil {
			return fail(err)
		}
		given = append(given, n)
		if err := im.renameLoader(n); err != nil {
			return failLent(c, err, given...)
		}
	}
	m.table.runs(im)
	fd, err := m.lend(c, int(im.file.Fd()))
	if err != nil {
		return failLent(c, err, given...)
	}
	given = append(given, fd)
	if im.prefix != nil {
		page = []byte{0}
		for _, arg := range im.prefix {
			page = append(append(page, arg...), 0)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(im.file.Fd()), &st); err != nil {
		return failLent(c, err, given...)
	}
	files := append(im.files, wantedFile(int(im.file.Fd()), &st))
	prefix := im.prefix
	empty := uint64(at) + uint64(len(path))
	call := func(do func(intercept.Injected) (int64, error), tid int, empty, argv uint64) (int64, error) {
		result, err := do(intercept.Injected{NR: nrs(c).execveat, Args: [6]uint64{uint64(fd), empty, argv, envp, unix.AT_EMPTY_PATH}})
		if err == intercept.ErrExec {
			pid := tid
			if tgid := c.Task.TGID(); tgid != 0 {
				pid = tgid
			}
			if e := mapsOnly(pid, files); e != nil {
				return 0, e
			}
		}
		return result, err
	}
	return m.moves(c, func(tid int, do func(intercept.Injected) (int64, error)) (result int64, err error) {
		if prefix == nil {
			result, err = call(do, tid, empty, argv)
		} else {
			size := len(page) + 16 + 8*(len(prefix)+len(pointers)+1)
			content := make([]byte, size)
			copy(content, page)
			result, err = m.kept.onKept(c, do, content, func(tid int, at uint64) (int64, error) {
				table := argTable(c, at, prefix, pointers)
				from := uint64(len(page)+15) &^ 15
				if err := poke(tid, at+from, table); err != nil {
					return 0, err
				}
				return call(do, tid, at, at+from)
			})
		}
		if err != nil {
			return 0, err
		}
		return result, giveBack(c, do, given...) // it failed: its descriptors are to be as before
	})
}

// loadImage finds what is executed for o, which it takes.
func (m *Module) loadImage(c *intercept.Call, o object, name string) (*image, error) {
	im := &image{loader: -1}
	ok := false
	defer func() {
		if !ok {
			im.close()
		}
	}()
	for depth := 0; ; depth++ {
		if depth > maxScripts {
			o.close()
			return nil, unix.ELOOP
		}
		if o.view == "" && depth == 0 && o.fd >= 0 {
			o.view, _ = m.viewOf(o.fd, &o.st)
			if o.m == nil {
				o.m, _ = m.table.lookup(o.view)
			}
		}
		f, err := m.openProgram(&o)
		o.close()
		if err != nil {
			return nil, err
		}
		if im.file != nil {
			im.file.Close()
		}
		im.file, im.view, im.m = f, o.view, o.m
		var buf [headSize]byte
		n, err := f.ReadAt(buf[:], 0)
		switch {
		case n == 0 && err != io.EOF:
			return nil, err
		case n == 0:
			return nil, unix.ENOEXEC
		}
		head := buf[:n]
		if !bytes.HasPrefix(head, []byte("#!")) {
			err := m.elf(c, im)
			ok = err == nil
			return im, err
		}
		interpreter, arg, err := scriptLine(head)
		if err != nil {
			return nil, err
		}
		line := []string{interpreter}
		if arg != "" {
			line = append(line, arg)
		}
		line = append(line, name)
		if im.prefix != nil {
			line = append(line, im.prefix[1:]...)
		}
		im.prefix, name = line, interpreter
		if o, err = m.resolvePath(c, unix.AT_FDCWD, interpreter, true, 0); err != nil {
			return nil, err
		}
	}
}

// openProgram opens an object to be executed.
func (m *Module) openProgram(o *object) (*os.File, error) {
	switch {
	case o.typ() == unix.S_IFLNK:
		return nil, unix.ELOOP
	case o.typ() != unix.S_IFREG:
		return nil, unix.EACCES
	}
	if err := faccess(o.fd, unix.X_OK); err != nil {
		return nil, err
	}
	fd, err := o.reopen(0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), o.view), nil
}

// scriptLine reads the first line of a script as fs/binfmt_script.c does.
func scriptLine(head []byte) (interpreter, arg string, err error) {
	line := head[2:]
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		line = line[:i]
	} else if len(head) == headSize && !bytes.ContainsAny(bytes.TrimLeft(line, " \t"), " \t\x00") {
		return "", "", unix.ENOEXEC // the name may go on
	}
	if i := bytes.IndexByte(line, 0); i >= 0 {
		line = line[:i]
	}
	line = bytes.Trim(line, " \t")
	i := bytes.IndexAny(line, " \t")
	if i < 0 {
		i = len(line)
	}
	if i == 0 {
		return "", "", unix.ENOEXEC
	}
	return string(line[:i]), string(bytes.TrimLeft(line[i:], " \t")), nil
}

// elf looks which loader a program names, and whether the view has another one than the
// kernel would find.
func (m *Module) elf(c *intercept.Call, im *image) error {
	name, _, err := elfLoader(im.file)
	if err != nil || name == "" {
		return err
	}
	o, err := m.resolvePath(c, unix.AT_FDCWD, name, true, 0)
	if err != nil {
		return err
	}
	defer o.close()
	if o.typ() != unix.S_IFREG {
		return unix.EACCES
	}
	fd, err := o.reopen(0)
	im.files = append(im.files, wantedFile(fd, &o.st))
	var st unix.Stat_t
	if unix.Stat(m.hostRoot(c, name)+name, &st) == nil && inodeOf(&st) == inodeOf(&o.st) {
		if err == nil {
			unix.Close(fd)
		}
		return nil
	}
	if err == nil {
		im.loader = fd
	}
	return err
}

// hostRoot is where the kernel begins to look for a name.
func (m *Module) hostRoot(c *intercept.Call, name string) string {
	switch {
	case !strings.HasPrefix(name, "/"):
		return taskFile(c.TID, "cwd/")
	case m.table.chrooted.Load():
		return taskFile(c.TID, "root")
	}
	return ""
}

// runs notes what the view calls a program that the host has another name for.
func (t *table) runs(im *image) {
	bound := im.m != nil && im.m.alias
	if !t.alias && im.loader < 0 {
		return
	}
	var st unix.Stat_t
	if unix.Fstat(int(im.file.Fd()), &st) != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if im.view == "" || !bound && im.loader < 0 {
		delete(t.exes, inodeOf(&st))
		return
	}
	const enough = 1 << 12
	if len(t.exes) >= enough {
		clear(t.exes)
	}
	t.exes[inodeOf(&st)] = im.view
}

// argPointers reads the arguments of a program but the first, which a script's
// interpreter does not get.
func argPointers(c *intercept.Call, argv uint64) (pointers []uint64, err error) {
	size := uint64(pointerSize(c))
	const most = 1 << 20
	var page [4096]byte
	for argv != 0 {
		// As many as there are up to the end of the page, and no byte behind it.
		n := max((4096-argv%4096)/size, 1) * size
		b := page[:n]
		if err := c.ReadMem(intercept.Addr(argv), b); err != nil {
			return nil, err
		}
		for ; len(b) > 0; b = b[size:] {
			var word [8]byte
			copy(word[:], b[:size])
			p := binary.LittleEndian.Uint64(word[:])
			if p == 0 {
				argv = 0
				break
			}
			if pointers = append(pointers, p); len(pointers) > most {
				return nil, unix.E2BIG
			}
		}
		if argv != 0 {
			argv += n
		}
	}
	if len(pointers) > 0 {
		pointers = pointers[1:]
	}
	return pointers, nil
}

func pointerSize(c *intercept.Call) int {
	if c.Arch == intercept.I386 {
		return 4
	}
	return 8
}

// argTable is an argument vector: of the prefix, whose strings are behind a NUL at the
// address at, and the pointers.
func argTable(c *intercept.Call, at uint64, prefix []string, pointers []uint64) (b []byte) {
	put := func(p uint64) {
		if pointerSize(c) == 4 {
			b = binary.NativeEndian.AppendUint32(b, uint32(p))
		} else {
			b = binary.NativeEndian.AppendUint64(b, p)
		}
	}
	at++
	for _, s := range prefix {
		put(at)
		at += uint64(len(s)) + 1
	}
	for _, p := range pointers {
		put(p)
	}
	put(0)
	return b
}
