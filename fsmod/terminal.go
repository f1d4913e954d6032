// SPDX-License-Identifier: Apache-2.0

// The controlling terminal, which /dev/tty stands for (tty(4)).

package fsmod

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// The kernel opens by /dev/tty the terminal of who asks, and that is us. So the caller's is found out,
// which is ours as long as it has not begun a session of its own.

// isTerminalOfCaller reports whether an object is the device /dev/tty.
func (o *object) isTerminalOfCaller() bool {
	return o.typ() == unix.S_IFCHR && o.st.Rdev == unix.Mkdev(5, 0)
}

// terminalOf opens the controlling terminal of a task with O_PATH; -1: it is ours.
func terminalOf(tid int) (fd int, err error) {
	its, err := terminalNumber(strconv.Itoa(tid))
	if err != nil {
		return -1, unix.EIO
	}
	if its == 0 {
		return -1, unix.ENXIO
	}
	if ours, err := terminalNumber("self"); err == nil && ours == its {
		return -1, nil
	}
	major, minor := its>>8&0xfff, its&0xff|its>>12&0xfff00 // linux/kdev_t.h: new_decode_dev
	name := "/dev/pts/" + strconv.FormatUint(minor, 10)
	if major != 136 { // UNIX98_PTY_SLAVE_MAJOR of linux/major.h
		b, err := os.ReadFile("/sys/dev/char/" + strconv.FormatUint(major, 10) + ":" + strconv.FormatUint(minor, 10) + "/uevent")
		if err != nil {
			return -1, unix.ENXIO
		}
		_, rest, _ := bytes.Cut(b, []byte("DEVNAME="))
		device, _, _ := bytes.Cut(rest, []byte("\n"))
		name = "/dev/" + string(device)
	}
	if fd, err = unix.Open(name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
		return -1, unix.ENXIO
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(uint32(major), uint32(minor)) {
		unix.Close(fd)
		return -1, unix.ENXIO
	}
	return fd, nil
}

// terminalNumber is the device number of a task's controlling terminal (proc_pid_stat(5), tty_nr), 0 if it
// has none.
func terminalNumber(task string) (uint64, error) {
	b, err := os.ReadFile("/proc/" + task + "/stat")
	if err != nil {
		return 0, err
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) // state, ppid, pgrp, session, tty_nr
	if len(f) < 5 {
		return 0, unix.EIO
	}
	n, err := strconv.ParseInt(string(f[4]), 10, 64)
	return uint64(uint32(n)), err
}
