// SPDX-License-Identifier: Apache-2.0

// The end of a command: unmounted, asked, killed.

package fusemount

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// WriteBack is how long a command may take to end when its mount is gone.
	WriteBack = 30 * time.Second
	// Obey is how long it may take when it is told to, by SIGTERM.
	Obey = 10 * time.Second

	killed = 2 * time.Second // for the kernel to end it
)

// end unmounts, waits for the command to end, and sees to it that it does. One that has
// mounted nothing has nothing to write back.
func (h *helper) end(up bool) int {
	unmounted := make(chan struct{})
	go func() { // which may block until the command has ended
		defer close(unmounted)
		h.unmount()
	}()
	how := exitOrderly
	patience, obey := WriteBack, Obey
	if !up {
		patience, obey = 0, killed
	}
	if !over(h.gone, patience) {
		h.signal(unix.SIGTERM)
		h.signal(unix.SIGCONT)
		if !over(h.gone, obey) {
			how = exitKilled
			h.signal(unix.SIGKILL)
			over(h.gone, killed)
		}
	}
	over(unmounted, killed)
	select {
	case h.status = <-h.first:
	default:
	}
	if how == exitOrderly {
		_ = h.say(message{Kind: ended, Status: h.status}, -1)
	}
	_ = h.place.remove() // the caller does, if it lives
	return how
}

// over waits for c to be closed.
func over(c <-chan struct{}, d time.Duration) bool {
	select {
	case <-c:
		return true
	default:
	}
	select {
	case <-c:
		return true
	case <-time.After(d):
		return false
	}
}

// unmount detaches what is mounted. That there is nothing any more is no error.
func (h *helper) unmount() {
	point := h.place.point()
	if h.Shared {
		h.fusermount("-u", point)
		h.fusermount("-u", "-z", point)
		return
	}
	if err := unix.Unmount(point, 0); err == unix.EBUSY {
		_ = unix.Unmount(point, unix.MNT_DETACH)
	}
}

// fusermount runs fusermount3(1) if something is mounted, and waits until it is not. It is
// reaped as what the command leaves behind.
func (h *helper) fusermount(args ...string) {
	path, err := exec.LookPath(Fusermount)
	if _, there, e := h.look(); err != nil || e != nil || !there {
		return
	}
	if _, err := syscall.ForkExec(path, append([]string{Fusermount}, args...), &syscall.ProcAttr{Dir: "/", Env: h.Env, Files: []uintptr{0, 1, 2}}); err != nil {
		return
	}
	for range fusermountTries {
		if _, there, err := h.look(); err != nil || !there {
			return
		}
		time.Sleep(fusermountTry)
	}
}

const (
	fusermountTries = 100
	fusermountTry   = 10 * time.Millisecond
)

// signal sends a signal to all processes of the command.
func (h *helper) signal(sig unix.Signal) {
	if os.Getpid() == 1 { // of a namespace: it is all but us
		_ = unix.Kill(-1, sig)
		return
	}
	for _, pid := range descendants(os.Getpid()) {
		_ = unix.Kill(pid, sig)
	}
}

// descendants lists the processes below one.
func descendants(pid int) (all []int) {
	files, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		for _, s := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(s); err == nil {
				all = append(append(all, child), descendants(child)...)
			}
		}
	}
	return all
}
