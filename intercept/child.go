// SPDX-License-Identifier: Apache-2.0

// The child: from a fork of the supervisor to the program, with the filter on.

package intercept

import (
	"encoding/binary"
	"encoding/gob"
	"errors"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	childEnv  = "UMRUN_CHILD" // number of the control socket
	childName = "umrun-child" // argv[0]
)

// ChildMain is to be the first call of main, and of TestMain in packages that call
// [Start]: in a child that Start has made it becomes the program and does not
// return, in every other process it returns at once. steps are those that
// [Namespaces] of this executable may name.
func ChildMain(steps ...Step) {
	if os.Args[0] != childName {
		return
	}
	fd, err := strconv.Atoi(os.Getenv(childEnv))
	if err != nil {
		return
	}
	unix.CloseOnExec(fd)
	runChild(os.NewFile(uintptr(fd), "control"), steps)
	unix.Exit(125) // the supervisor has been told why, or is dead
}

// A childError is a step that failed.
type childError struct {
	step step
	err  error
	path string // of the executable, in stepExec
}

// runChild returns only if something fails.
//
// The filter is the thread's, not the process's: a goroutine that is locked to its
// thread installs it and calls execve, which makes that thread the whole process.
// Until then the other threads are free of it; so they do the talking, as calls of
// the filtered one may already be waiting for the supervisor.
func runChild(control *os.File, steps []Step) {
	unmapped := mapIDs(os.Getenv(childIDs)) // while we may: see childIDs
	// Targets of another Start may run already, as the same user: nobody opens
	// our descriptors while the listener is among them. The program has the
	// memory of a new process, which is dumpable.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return
	}
	var sp spec
	if err := gob.NewDecoder(control).Decode(&sp); err != nil {
		return
	}
	var link *os.File
	if sp.Link > 0 {
		unix.CloseOnExec(sp.Link)
		link = os.NewFile(uintptr(sp.Link), "link")
	}
	err := unmapped
	var handed []int
	if err == nil {
		handed, err = sp.Namespaces.prepare(steps, link)
	}
	if link != nil {
		link.Close()
	}
	if err != nil {
		tell(control, childError{step: stepNamespaces, err: err})
		return
	}
	if sp.Trial {
		_ = sendReport(control, report{Step: stepNamespaces}, nil)
		return
	}
	installed := make(chan filtered)
	goAhead := make(chan struct{}) // the supervisor's loop runs
	failed := make(chan childError)
	go func() { failed <- become(&sp, installed, goAhead) }() // ends with the process

	for {
		select {
		case f := <-installed:
			r := report{Step: stepListener}
			if f.domain != nil {
				r.Errno = uint32(Errno(f.domain))
			}
			if sendReport(control, r, unix.UnixRights(append([]int{f.listener}, handed...)...)) != nil {
				return
			}
			for _, fd := range handed {
				unix.Close(fd)
			}
			// The supervisor must hold the only one: while another is open
			// its death would leave calls waiting.
			unix.Close(f.listener)
			// From here on the supervisor may look at us, as execve may be
			// intercepted.
			if unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) != nil {
				return
			}
			if _, err := control.Read(make([]byte, 1)); err != nil {
				return // the supervisor died
			}
			close(goAhead)
		case e := <-failed:
			tell(control, e)
			return
		}
	}
}

// tell reports a failure.
func tell(control *os.File, e childError) {
	var errno unix.Errno
	if !errors.As(e.err, &errno) {
		errno = unix.EINVAL // such as a NUL in an argument
	}
	text := e.path
	if text == "" {
		text = e.err.Error()
	}
	if sendReport(control, report{Step: e.step, Errno: uint32(errno)}, nil) == nil {
		_, _ = control.WriteString(text)
	}
}

// filtered is what a thread has that is about to become the program.
type filtered struct {
	listener int
	domain   error // why it is in no domain of its own
}

// become turns the calling thread into the program.
func become(sp *spec, installed chan<- filtered, goAhead <-chan struct{}) childError {
	runtime.LockOSThread() // never unlocked: it carries the filter
	if sp.Dir != "" {
		if err := unix.Chdir(sp.Dir); err != nil {
			return childError{step: stepChdir, err: err}
		}
	}
	// The death signal is the thread's too. It is sent when the *thread* that
	// forked us ends: see family.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return childError{step: stepSetup, err: err}
	}
	if sp.Session {
		if _, err := unix.Setsid(); err != nil {
			return childError{step: stepSetup, err: err}
		}
	}
	if err := ignoreSignals(sp.SigIgnore); err != nil {
		return childError{step: stepSetup, err: err}
	}
	for _, fd := range sp.Missing {
		unix.CloseOnExec(fd)
	}
	if sp.SetUmask {
		unix.Umask(sp.Umask)
	}
	if sp.SetMask {
		var set unix.Sigset_t
		set.Val[0] = sp.SigMask
		if err := unix.PthreadSigmask(unix.SIG_SETMASK, &set, nil); err != nil {
			return childError{step: stepSetup, err: err}
		}
	}
	if sp.Namespaces.user() {
		if err := dropCaps(); err != nil {
			return childError{step: stepSetup, err: err}
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return childError{step: stepSetup, err: err}
	}
	domain := EnterDomain() // before the filter, which may refuse it
	listener, err := installFilter(sp.Filter, sp.Interruptible)
	if err != nil {
		return childError{step: stepFilter, err: err}
	}
	installed <- filtered{listener, domain}
	<-goAhead
	// Exec also gives back the limit of descriptors (RLIMIT_NOFILE) that the
	// runtime has raised at its start.
	e := childError{stepExec, syscall.Exec(sp.Path, sp.Argv, sp.Env), sp.Path}
	for _, path := range sp.Search {
		// execvp(3) goes on for these, and remembers what may not be executed.
		if e.err != error(unix.ENOENT) && e.err != error(unix.ENOTDIR) && e.err != error(unix.EACCES) {
			break
		}
		if err := syscall.Exec(path, sp.Argv, sp.Env); e.err != error(unix.EACCES) || err != error(unix.ENOENT) && err != error(unix.ENOTDIR) {
			e.err, e.path = err, path
		}
	}
	return e
}

// ignoreSignals sets the disposition of each signal of set to SIG_IGN, by the
// system call: os/signal.Ignore would leave it to the runtime, whose execve
// knows nothing of it.
func ignoreSignals(set uint64) error {
	var act struct { // struct sigaction of the kernel, <asm-generic/signal.h>
		handler, flags, restorer uintptr
		mask                     uint64
	}
	act.handler = 1 // SIG_IGN
	for sig := uintptr(1); sig <= 64; sig++ {
		if set>>(sig-1)&1 == 0 {
			continue
		}
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&act)), 0, unsafe.Sizeof(act.mask), 0, 0); errno != 0 {
			return errno
		}
	}
	return nil
}

// sendReport tells the supervisor.
func sendReport(control *os.File, r report, oob []byte) error {
	var b [reportSize]byte
	binary.NativeEndian.PutUint32(b[:], uint32(r.Step))
	binary.NativeEndian.PutUint32(b[4:], r.Errno)
	return unix.Sendmsg(int(control.Fd()), b[:], oob, nil, 0)
}
