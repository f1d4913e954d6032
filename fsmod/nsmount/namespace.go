// SPDX-License-Identifier: Apache-2.0

// The namespaces of a view that runs, and the child that goes there.
//
// An ordinary user's view is in a user namespace that its owner may go into, and there it
// has every capability (user_namespaces(7)); but only a process with one thread may. So a
// child does it, before it is Go: the runtime has more from its start on.

package nsmount

/*
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int own_fds = -1; // O_PATH of our /proc/self/fd, of a /proc that nobody in the view can cover

static int enter(const char *name, int kind)
{
	const char *fd = getenv(name);

	return fd ? setns(atoi(fd), kind) : 0;
}

// forget_signals drops what came before we had a session of our own, and was blocked: see begin.
static void forget_signals(void)
{
	sigset_t none;

	for (int s = 1; s < NSIG; s++) {
		void (*was)(int) = signal(s, SIG_IGN); // POSIX.1, "Signal Actions": a pending one is discarded

		if (was != SIG_ERR)
			signal(s, was);
	}
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

__attribute__((constructor)) static void enter_namespaces(void)
{
	if (strcmp(program_invocation_name, "umrun-mount") != 0) // enterName: else the variables are somebody's
		return;
	forget_signals();
	own_fds = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (own_fds < 0 || enter("UMRUN_ENTER_USER", CLONE_NEWUSER) != 0 || enter("UMRUN_ENTER_MOUNTS", CLONE_NEWNS) != 0)
		_exit(125);
}

static int get_own_fds(void) { return own_fds; }
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
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/intercept"
)

// A Namespace is that of a view, by what its Step has handed over. Methods are safe for
// concurrent use: one change is made at a time.
type Namespace struct {
	files []*os.File // view's mounts, its user namespace, the base (pin.go), and host's mounts if they were kept

	mu   sync.Mutex // held while a child makes a change; no other lock is taken meanwhile
	made []Made     // by programs of the view; guarded by mu
}

// keep opens the namespaces, in the child that becomes the program: see [Namespace].
func keep(host bool) (kept []int, err error) {
	for _, name := range []string{"mnt", "user"} {
		fd, err := unix.Open("/proc/self/ns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		kept = append(kept, fd)
	}
	if !host {
		return kept, nil
	}
	fd := -1
	intercept.OnThread(func() {
		if err = unix.Unshare(unix.CLONE_NEWNS); err == nil {
			fd, err = unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
	})
	return append(kept, fd), err
}

// NewNamespace is the namespace that was handed over; the files stay the caller's.
func NewNamespace(handed []*os.File) (*Namespace, error) {
	if len(handed) < 3 {
		return nil, fmt.Errorf("%d descriptors of namespaces: %w", len(handed), unix.EINVAL)
	}
	return &Namespace{files: handed}, nil
}

// Has reports whether a thread is in the view's namespaces, and in none of its own.
func (n *Namespace) Has(tid int) bool {
	for i, name := range []string{"mnt", "user"} {
		var ours, its unix.Stat_t
		if unix.Fstat(int(n.files[i].Fd()), &ours) != nil || unix.Stat("/proc/"+strconv.Itoa(tid)+"/ns/"+name, &its) != nil ||
			ours.Dev != its.Dev || ours.Ino != its.Ino {
			return false
		}
	}
	return true
}

// An order is what a child is to do: one of the four.
type order struct {
	Change *Change
	Call   *Call
	Trial  bool   // see trial
	Real   string // see [Namespace.Real]
	Made   []Made
	User   bool // the view has a user namespace
}

// A reply is a child's answer. The text is empty if all went well.
type reply struct {
	Text  string
	Errno unix.Errno
	Path  string // what was asked for
	Made  []Made // what there is by now of what programs have mounted
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

	enterView    = 3 // numbers of descriptors there
	enterUser    = 4
	enterControl = 5
	enterLink    = 6
	enterBase    = 7
	enterHost    = 8 // of a Change
	enterRoot    = 8 // of a Call: O_PATH of the caller's root and working directory
	enterCwd     = 9

	// changePatience is how long a change may take.
	changePatience = 30 * time.Second
)

// Real is an absolute path with the symbolic links that the view has in it resolved, as far as
// it is there.
func (n *Namespace) Real(path string) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r, err := n.ask(order{Real: path}, nil)
	return r.Path, err
}

// do has a child follow an order, and returns its error. link is as in [intercept.Config]; it
// may be nil. The rest is what the order needs. n.mu is held.
func (n *Namespace) do(o order, link *os.File, rest ...*os.File) error {
	_, err := n.ask(o, link, rest...)
	return err
}

// ask is do, with the whole answer.
func (n *Namespace) ask(o order, link *os.File, rest ...*os.File) (r reply, err error) {
	o.User, o.Made = Unprivileged(), n.made
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return r, fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "control")
	ours := os.NewFile(uintptr(pair[0]), "control")
	c, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return r, err
	}
	defer c.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{enterName}
	cmd.Env = []string{fmt.Sprintf("UMRUN_ENTER_MOUNTS=%d", enterView)}
	if o.User {
		cmd.Env = append(cmd.Env, fmt.Sprintf("UMRUN_ENTER_USER=%d", enterUser))
	}
	cmd.Dir = "/"
	cmd.ExtraFiles = append([]*os.File{n.files[0], n.files[1], theirs, link, n.files[2]}, rest...)
	err = begin(cmd)
	theirs.Close()
	if err != nil {
		return r, fmt.Errorf("start a process to go there: %w", err)
	}
	defer cmd.Wait() // it ends with its answer
	_ = c.SetDeadline(time.Now().Add(changePatience))
	err = gob.NewEncoder(c).Encode(o)
	if err == nil {
		err = gob.NewDecoder(c).Decode(&r)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		return r, fmt.Errorf("the process that was to go to the view's namespace has not answered: %w", err)
	}
	n.made = r.Made
	if r.Text != "" {
		return r, &ChangeError{r.Text, r.Errno}
	}
	return r, nil
}

// begin starts the child, which no signal to our process group ends, such as a terminal's: it has
// a session of its own. Until it has one it is in our group, with no handlers any more, and a
// signal would end it before it is anything; so it is forked with all of them blocked, and
// forgets what has come when it begins.
func begin(cmd *exec.Cmd) error {
	runtime.LockOSThread() // the mask is the thread's, and its child's
	defer runtime.UnlockOSThread()
	all, old := unix.Sigset_t{}, unix.Sigset_t{}
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return fmt.Errorf("rt_sigprocmask: %w", err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err := cmd.Start()
	if e := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil); e != nil && err == nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		err = fmt.Errorf("rt_sigprocmask: %w", e)
	}
	return err
}

// ChildMain is to be called at the beginning of main, and of TestMain in packages that call
// Do: in a child of that it makes the change, and does not return.
func ChildMain() {
	if os.Args[0] != enterName {
		return
	}
	// A program of the view is of the same user.
	err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	for fd := enterView; fd <= enterCwd; fd++ {
		unix.CloseOnExec(fd)
	}
	control := os.NewFile(enterControl, "control")
	var o order
	if err == nil {
		err = gob.NewDecoder(control).Decode(&o)
	}
	var r reply
	switch {
	case err != nil:
	case o.Real != "":
		r.Made, r.Path = o.Made, fsmod.RealPath(nil, o.Real)
	default:
		r.Made, err = o.follow(int(C.get_own_fds()))
	}
	if err != nil {
		r.Text, r.Errno = err.Error(), unix.EINVAL
		errors.As(err, &r.Errno)
	}
	_ = gob.NewEncoder(control).Encode(r)
	unix.Exit(0)
}

// follow does what was ordered, and returns what there is then of what programs have mounted.
func (o *order) follow(fds int) ([]Made, error) {
	rows, err := readTable(fds)
	if err != nil {
		return o.Made, err
	}
	made := stillMade(o.Made, rows)
	var link *os.File
	if _, err := unix.FcntlInt(enterLink, unix.F_GETFD, 0); err == nil {
		link = os.NewFile(enterLink, "link")
	}
	switch {
	case o.Trial:
		err = makeTrial(link)
	case o.Call != nil:
		c := caller{Call: o.Call, fds: fds, user: o.User, made: made, link: link}
		err = c.do()
		made = c.made
	default:
		err = o.Change.make(fds, o.User, link)
	}
	// A number is given anew when a mount has gone.
	now, e := readTable(fds)
	if e != nil {
		return nil, errors.Join(err, e)
	}
	p := pinner{base: enterBase, fds: fds, user: o.User}
	return stillMade(made, now), errors.Join(err, p.dropGone(now))
}
