// SPDX-License-Identifier: Apache-2.0

// The helper's side: a process in the namespaces, parent of the command.

package fusemount

import (
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"umrun/fsmod/imagemount"
)

const childName = "umrun-fuse" // argv[0]

// ChildMain is to be called first thing in main, and in TestMain of packages that start
// servers: in a helper it does its work and does not return, in every other process it returns
// at once.
func ChildMain() {
	if os.Args[0] != childName {
		return
	}
	for fd := controlFD; fd <= holdFD; fd++ {
		unix.CloseOnExec(fd)
	}
	h := &helper{requests: make(chan byte), gone: make(chan struct{}), first: make(chan int, 1), seen: make(chan error, 1)}
	if err := gob.NewDecoder(os.NewFile(specFD, "spec")).Decode(&h.spec); err != nil {
		unix.Exit(exitKilled)
	}
	h.place = place{dir: h.Place}
	unix.Exit(h.run())
}

// Exit statuses of the helper.
const (
	exitOrderly = 0
	exitKilled  = 1 // the command, or it could not begin
)

// A helper is what there is in the helper's process.
type helper struct {
	spec
	place    place
	requests chan byte     // closed when the caller wants no more, or is dead
	gone     chan struct{} // closed when no process of the command is left
	first    chan int      // exit status of the process that was started; has room for it
	seen     chan error    // what came of waiting for the mount; has room for it
	status   int           // what first told; the helper's own goroutine has it
}

// run is the life of the helper.
func (h *helper) run() int {
	if err := h.arrive(); err != nil {
		return h.fail(err)
	}
	if h.Trial {
		return h.trial()
	}
	stop := make(chan os.Signal, 1) // a second one says nothing new
	signal.Notify(stop, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	files := []uintptr{0, 1, 2}
	if h.Held {
		files = append(files, holdFD)
	}
	pid, err := syscall.ForkExec(h.Argv[0], h.Argv, &syscall.ProcAttr{
		Dir: h.Dir, Env: h.Env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return h.fail(fmt.Errorf("%s: %w", h.Argv[0], err))
	}
	// These three end with the process.
	go h.listen()
	go h.reap(pid)
	go h.await()
	up := false
	seen, gone := h.seen, h.gone
	for {
		select {
		case h.status = <-h.first:
			if h.status != 0 && !up {
				_ = h.say(message{Kind: failed, Status: h.status}, -1)
				return h.end(up)
			}
		case err := <-seen:
			seen = nil
			if err == nil {
				up, err = true, h.mounted()
			}
			if err != nil {
				_ = h.say(message{Kind: failed, Text: err.Error(), Errno: errnoOf(err)}, -1)
				return h.end(up)
			}
		case <-gone:
			gone = nil
			select {
			case h.status = <-h.first:
			default:
			}
			if !up {
				m := message{Kind: failed, Status: h.status}
				if _, _, err := h.look(); err != nil { // which await has not seen yet
					m = message{Kind: failed, Text: err.Error(), Errno: errnoOf(err)}
				}
				_ = h.say(m, -1)
				return h.end(up)
			}
			_ = h.say(message{Kind: ended, Status: h.status}, -1)
		case r, ok := <-h.requests:
			switch {
			case !ok:
				return h.end(up)
			case r == wantTree:
				h.tree()
			case r == wantGiven:
				h.unmount()
				_ = h.say(message{Kind: given}, -1)
			}
		case <-stop:
			return h.end(up)
		}
	}
}

// arrive makes the namespaces ready.
func (h *helper) arrive() error {
	if h.User {
		for _, f := range []struct{ file, text string }{
			{"setgroups", "deny"},
			{"uid_map", fmt.Sprintf("%d %d 1", h.UID, h.UID)},
			{"gid_map", fmt.Sprintf("%d %d 1", h.GID, h.GID)},
		} {
			if err := os.WriteFile("/proc/self/"+f.file, []byte(f.text), 0); err != nil {
				return err
			}
		}
	}
	// Nobody looks into us by /proc. (Who owns our user namespace, which is the user, may
	// trace us all the same, as any of the user's processes.)
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	if h.Shared {
		return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	}
	// What the host unmounts goes here, too; nothing gets out.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make the mounts slaves of the host's: %w", err)
	}
	return nil
}

// trial makes a FUSE mount that nobody serves.
func (h *helper) trial() int {
	fd, dev, err := imagemount.Connect("trial", "umrun")
	if err != nil {
		return h.fail(err)
	}
	unix.Close(fd)
	dev.Close()
	_ = h.say(message{Kind: ended}, -1)
	return exitOrderly
}

// fail tells what kept the command from running.
func (h *helper) fail(err error) int {
	_ = h.say(message{Kind: failed, Text: err.Error(), Errno: errnoOf(err)}, -1)
	return exitKilled
}

// say sends a message, with a descriptor unless that is -1.
func (h *helper) say(m message, fd int) error {
	m.Text = m.Text[:min(len(m.Text), maxMessage/2)]
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	return unix.Sendmsg(controlFD, b, oob, nil, unix.MSG_NOSIGNAL)
}

// listen hears what the caller wants.
func (h *helper) listen() {
	defer close(h.requests)
	var b [1]byte
	for {
		n, _, err := unix.Recvfrom(controlFD, b[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		h.requests <- b[0]
	}
}

// reap waits for all processes. Those of the command whose parents are gone are our children,
// since we are process 1 or a subreaper.
func (h *helper) reap(first int) {
	defer close(h.gone)
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil: // ECHILD
			return
		case pid == first && ws.Signaled():
			h.first <- 128 + int(ws.Signal())
		case pid == first:
			h.first <- ws.ExitStatus()
		}
	}
}

// await waits for the mount, and until somebody answers there.
func (h *helper) await() {
	h.seen <- func() error {
		f, err := os.Open("/proc/self/mountinfo")
		if err != nil {
			return err
		}
		defer f.Close()
		for {
			options, there, err := h.look()
			if err != nil {
				return err
			}
			if there {
				if err := h.usable(options); err != nil {
					return err
				}
				return unix.Stat(h.place.point(), new(unix.Stat_t))
			}
			// Proc_pid_mountinfo(5): a change is an exceptional condition.
			fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
			if _, err := unix.Poll(fds, int(lookAgain.Milliseconds())); err != nil && err != unix.EINTR {
				return err
			}
		}
	}()
}

// lookAgain is how often await looks, whatever poll(2) says.
const lookAgain = 200 * time.Millisecond

// look reports whether something is mounted on the mount point, and with what options of
// the file system.
func (h *helper) look() (options string, there bool, err error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", false, err
	}
	for line := range strings.Lines(string(b)) {
		mount, fs, ok := strings.Cut(line, " - ")
		m, f := strings.Fields(mount), strings.Fields(fs)
		if ok && len(m) > 4 && len(f) > 2 && m[4] == h.place.point() {
			if !strings.HasPrefix(f[0], "fuse") {
				return "", false, fmt.Errorf("it has mounted a %s, which is no FUSE file system: %w", f[0], unix.EINVAL)
			}
			options, there = f[2], true
		}
	}
	return options, there, nil
}

// ErrAllowOther says that a command let in others than its user, which an ordinary user's
// cannot: see the package's doc.
var ErrAllowOther = fmt.Errorf("it mounts with allow_other, and then the kernel lets in nobody from outside of its user namespace: %w", unix.EACCES)

// usable tells what keeps everybody out.
func (h *helper) usable(options string) error {
	for o := range strings.SplitSeq(options, ",") {
		if o == "allow_other" && h.User {
			return ErrAllowOther
		}
	}
	return nil
}

// mounted gives the root away.
func (h *helper) mounted() error {
	fd, err := unix.Open(h.place.point(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return h.say(message{Kind: mounted, Others: h.User && h.others()}, fd)
}

// others reports whether the root is somebody's who has no number in the user namespace: what
// is his nobody may write to, whatever its mode (fs/namei.c: inode_permission).
func (h *helper) others() bool {
	var st unix.Stat_t
	var fs unix.Statfs_t
	err := errors.Join(unix.Stat(h.place.point(), &st), unix.Statfs(h.place.point(), &fs))
	return err == nil && fs.Flags&unix.ST_RDONLY == 0 && (int(st.Uid) != h.UID || int(st.Gid) != h.GID)
}

// tree gives a copy of the mount away.
func (h *helper) tree() {
	fd, err := unix.OpenTree(unix.AT_FDCWD, h.place.point(), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		_ = h.say(message{Kind: tree, Text: "copy the mount", Errno: errnoOf(err)}, -1)
		return
	}
	defer unix.Close(fd)
	_ = h.say(message{Kind: tree}, fd)
}
