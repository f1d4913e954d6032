// SPDX-License-Identifier: Apache-2.0

// The little that is read from /proc.

package intercept

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ReadProc reads a file of procfs into buf, or into more memory if that is too little, in a
// third of the time that os.ReadFile takes. What it returns may be buf's.
func ReadProc(path string, buf []byte) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer closeShort(fd)
	for n := 0; ; {
		got, err := unix.Read(fd, buf[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n += got; got == 0 {
			return buf[:n], nil
		}
		if n == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}

// closeShort is close(2) of a file whose close waits for nothing.
func closeShort(fd int) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// procSize is more than most files of procfs have.
const procSize = 4096

// A procFile is a file of a task, which is read as a whole.
type procFile [procSize]byte

// read reads a file of a task.
func (p *procFile) read(tid int, file string) ([]byte, error) {
	return ReadProc("/proc/"+strconv.Itoa(tid)+"/"+file, p[:])
}

// statusField returns a numeric field of /proc/TID/status (proc_pid_status(5)).
// ESRCH when the task is gone, ENODATA when this kernel has no such field.
func statusField(tid int, field string) (int, error) {
	var p procFile
	b, err := p.read(tid, "status")
	if err != nil {
		return 0, fmt.Errorf("status of %d: %w", tid, unix.ESRCH)
	}
	return parseStatus(b, field)
}

// parseStatus finds "field:\tN" in the text of a status file.
func parseStatus(b []byte, field string) (int, error) {
	for line := range bytes.Lines(b) {
		name, rest, ok := bytes.Cut(line, []byte(":"))
		if ok && string(name) == field {
			return strconv.Atoi(string(bytes.TrimSpace(rest)))
		}
	}
	return 0, fmt.Errorf("%s in /proc/TID/status: %w", field, unix.ENODATA)
}

// threadGroup returns the thread group of a thread.
func threadGroup(tid int) (int, error) { return statusField(tid, "Tgid") }

// openFDs returns the numbers of our own descriptors.
func openFDs() ([]int, error) { return selfNumbers("fd") }

// selfNumbers returns the numbers in a directory of /proc/self, but for the
// descriptor by which "fd" is read.
func selfNumbers(dir string) ([]int, error) {
	d, err := os.Open("/proc/self/" + dir)
	if err != nil {
		return nil, fmt.Errorf("list /proc/self/%s: %w", dir, err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list /proc/self/%s: %w", dir, err)
	}
	var numbers []int
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil && (dir != "fd" || n != int(d.Fd())) {
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}

// fdFlags returns the flags of a task's descriptor, with O_CLOEXEC for
// close-on-exec (proc_pid_fdinfo(5)). EBADF if it is not open.
func fdFlags(tid, fd int) (uint32, error) {
	var p procFile
	b, err := p.read(tid, "fdinfo/"+strconv.Itoa(fd))
	if err != nil {
		return 0, fmt.Errorf("descriptor %d of %d: %w", fd, tid, unix.EBADF)
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("flags:")); ok {
			flags, err := strconv.ParseUint(string(bytes.TrimSpace(rest)), 8, 32)
			return uint32(flags), err
		}
	}
	return 0, fmt.Errorf("flags of descriptor %d: %w", fd, unix.ENODATA)
}

// exiting reports whether the task has begun to exit: PF_EXITING in the flags of
// /proc/PID/stat (proc_pid_stat(5), field 9).
func exiting(pid int) bool {
	var p procFile
	b, err := p.read(pid, "stat")
	if err != nil {
		return false
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) // from field 3, state
	if len(fields) < 7 {
		return false
	}
	const pfExiting = 0x4 // linux/sched.h
	flags, err := strconv.ParseUint(string(fields[6]), 10, 64)
	return err == nil && flags&pfExiting != 0
}
