// SPDX-License-Identifier: Apache-2.0

// Changes of the mounts of a view that runs.
//
// An ordinary user's view is in a user namespace that its owner may go into, and there it
// has every capability (user_namespaces(7)); but only a process with one thread may. So a
// child does it, before it is Go: the runtime has more from its start on. It begins in the
// view's mount namespace, and goes to look for the sources to one that was copied before
// the view's mounts were made, where the host's files are all there is.

package nsmount

/*
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int enter(const char *name, int kind)
{
	const char *fd = getenv(name);

	return fd ? setns(atoi(fd), kind) : 0;
}

__attribute__((constructor)) static void enter_namespaces(void)
{
	if (strcmp(program_invocation_name, "umrun-mount") != 0) // enterName: else the variables are somebody's
		return;
	if (enter("UMRUN_ENTER_USER", CLONE_NEWUSER) != 0 || enter("UMRUN_ENTER_MOUNTS", CLONE_NEWNS) != 0)
		_exit(125);
}
*/
import "C"

import (
	"encoding/gob"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
)

// A Namespace is that of a view, by what its Step has handed over.
type Namespace struct {
	files []*os.File // host's mounts, view's mounts, and an ordinary user's user namespace
}

// keep opens the namespaces, in the child that becomes the program: see [Namespace].
func keep() (kept []int, err error) {
	host := -1
	onThread(func() {
		if err = unix.Unshare(unix.CLONE_NEWNS); err == nil {
			host, err = unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
	})
	if err != nil {
		return nil, err
	}
	kept = []int{host}
	for _, name := range []string{"mnt", "user"} {
		fd, err := unix.Open("/proc/self/ns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		kept = append(kept, fd)
	}
	return kept, nil
}

// onThread runs f on a thread that ends with it. That is not the first one, which would stay,
// and whose namespaces /proc/self tells of.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		onThread(f) // on another one, since this is taken
		runtime.UnlockOSThread()
	}()
	<-done
}

// NewNamespace is the namespace that was handed over; the files stay the caller's.
func NewNamespace(handed []*os.File) (*Namespace, error) {
	if len(handed) != 3 {
		return nil, fmt.Errorf("%d descriptors of namespaces: %w", len(handed), unix.EINVAL)
	}
	return &Namespace{handed}, nil
}

// A Change is one of the mounts of a view.
type Change struct {
	Mount  fsmod.Mount // is made; or with no Kind:
	Umount string      // the topmost mount there goes
	Lazy   bool        // though it is in use

	Places []string // as in [Plan]
	User   bool     // set by Do
}

// A reply is a child's answer. The text is empty if all went well.
type reply struct {
	Text  string
	Errno unix.Errno
}

// A ChangeError is why a change was not made.
type ChangeError struct {
	Text string
	Err  unix.Errno
}

// Error is what the child has said.
func (e *ChangeError) Error() string { return e.Text }

// Unwrap returns the errno.
func (e *ChangeError) Unwrap() error { return e.Err }

const (
	enterName = "umrun-mount" // argv[0]

	enterHost    = 3 // numbers of descriptors there
	enterView    = 4
	enterUser    = 5
	enterControl = 6
	enterLink    = 7

	// changePatience is how long a change may take.
	changePatience = 30 * time.Second
)

// Do makes a change. link is as in [intercept.Config]; it may be nil.
func (n *Namespace) Do(ch Change, link *os.File) error {
	ch.User = Unprivileged()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "control")
	ours := os.NewFile(uintptr(pair[0]), "control")
	c, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return err
	}
	defer c.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{enterName}
	cmd.Env = []string{fmt.Sprintf("UMRUN_ENTER_MOUNTS=%d", enterView)}
	if ch.User {
		cmd.Env = append(cmd.Env, fmt.Sprintf("UMRUN_ENTER_USER=%d", enterUser))
	}
	cmd.Dir = "/"
	cmd.ExtraFiles = append(slices.Clone(n.files), theirs)
	if link != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, link)
	}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return fmt.Errorf("start a process to go there: %w", err)
	}
	defer cmd.Wait() // it ends with its answer
	_ = c.SetDeadline(time.Now().Add(changePatience))
	var r reply
	err = gob.NewEncoder(c).Encode(ch)
	if err == nil {
		err = gob.NewDecoder(c).Decode(&r)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		return fmt.Errorf("the process that was to go to the view's namespace has not answered: %w", err)
	}
	if r.Text != "" {
		return &ChangeError{r.Text, r.Errno}
	}
	return nil
}

// ChildMain is to be called at the beginning of main, and of TestMain in packages that call
// Do: in a child of that it makes the change, and does not return.
func ChildMain() {
	if os.Args[0] != enterName {
		return
	}
	// A program of the view is of the same user.
	err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	for fd := enterHost; fd <= enterLink; fd++ {
		unix.CloseOnExec(fd)
	}
	control := os.NewFile(enterControl, "control")
	var ch Change
	if err == nil {
		err = gob.NewDecoder(control).Decode(&ch)
	}
	if err == nil {
		err = ch.make()
	}
	var r reply
	if err != nil {
		r = reply{err.Error(), unix.EINVAL}
		errors.As(err, &r.Errno)
	}
	_ = gob.NewEncoder(control).Encode(r)
	unix.Exit(0)
}

// make makes the change, in the view's namespaces.
func (ch *Change) make() error {
	if ch.Mount.Kind == "" {
		flags := unix.UMOUNT_NOFOLLOW
		if ch.Lazy {
			flags |= unix.MNT_DETACH
		}
		return unix.Unmount(ch.Umount, flags)
	}
	var link *os.File
	if _, err := unix.FcntlInt(enterLink, unix.F_GETFD, 0); err == nil {
		link = os.NewFile(enterLink, "link")
	}
	b := &builder{plan: &Plan{Mounts: []fsmod.Mount{ch.Mount}, Places: ch.Places, User: ch.User}, pool: -1, link: link}
	src, err := b.openOnHost(ch.Mount)
	if err != nil {
		return err
	}
	if err := unix.Fchdir(b.fds); err != nil {
		return err
	}
	if _, err := os.Stat(ch.Mount.Target); err != nil {
		return err // there is no glue for what is in use
	}
	if err := b.mount(ch.Mount, src); err != nil {
		return err
	}
	return b.finish()
}

// openOnHost is open where the host's files are, on a thread that goes there for it.
func (b *builder) openOnHost(m fsmod.Mount) (s source, err error) {
	onThread(func() {
		if err = unix.Unshare(unix.CLONE_FS); err == nil {
			err = unix.Setns(enterHost, unix.CLONE_NEWNS)
		}
		if err == nil {
			err = b.begin()
		}
		if err != nil {
			return
		}
		s, err = b.open(0, m)
		if err == nil && s.path >= 0 { // of another namespace: a copy is of none
			s.path, err = cloneTree(s.path, "", false)
		}
	})
	return s, err
}
