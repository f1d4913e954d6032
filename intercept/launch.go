// SPDX-License-Identifier: Apache-2.0

// Launch: from a Config to a supervised program.

package intercept

import (
	"context"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Config says what to run and what to intercept.
type Config struct {
	Path  string   // the executable; not searched in PATH
	Argv  []string // Argv[0] is the name the program sees; nil: Path alone
	Env   []string // nil: that of the supervisor
	Dir   string   // working directory; empty: the supervisor's
	Rules Rules
	Log   *slog.Logger // nil: nothing is logged

	// Stdin, Stdout and Stderr are the program's first descriptors; nil: those of
	// the supervisor.
	Stdin, Stdout, Stderr *os.File

	// SigMask, if set, is the signal mask that the program starts with: bit n-1
	// blocks signal n. Else it starts with the supervisor's.
	SigMask *uint64

	// SigIgnore are the signals that the program starts with ignored, as bits
	// like those of SigMask. execve(2) keeps them so, but the Go runtime has put
	// handlers in their place in this process.
	SigIgnore uint64

	// Missing are those of the first three descriptors that the program starts without:
	// the Go runtime has put /dev/null in the place of those that this process lacked.
	Missing []int

	// Umask, if set, is the program's file mode creation mask; else it is the supervisor's.
	Umask *int

	// Session has the program begin a session of its own, setsid(2).
	Session bool

	// Inherited lists the descriptors above 2 that the supervisor itself was
	// started with and hands on, under the same numbers. nil: every one that is
	// not close-on-exec when Start runs. See [InheritedFDs].
	Inherited []int

	// InspectFD is asked about each inherited descriptor whether the program may
	// have it; nil asks [LocalFD]. What it refuses is open in no process of the
	// target, and in [Supervisor.ClosedFDs].
	InspectFD func(fd int) (pass bool)

	// OnChange, if set, is told when the program (the first process) is stopped or
	// continued (waitpid(2), WUNTRACED and WCONTINUED), so that the caller can do
	// job control. It runs on a goroutine that Close waits for, and must not block.
	OnChange func(unix.WaitStatus)

	// Search are more paths of the executable, tried in turn if Path is not there or may
	// not be executed, as execvp(3) does: for those who cannot look before, since the
	// target will see other files.
	Search []string

	// Namespaces, if set, are those of its own that the target begins in.
	Namespaces *Namespaces

	// Link, if set, is a descriptor for the Step of Namespaces, which the program does
	// not get. It stays the caller's.
	Link *os.File

	// Meter, if set, counts the calls that are received.
	Meter *Meter

	// Waiting, if set, is told how many threads wait for calls in the kernel. Each has one of
	// the runtime's processors (GOMAXPROCS) most of the time; others need one as well.
	Waiting func(threads int)

	// interruptible does without WAIT_KILLABLE_RECV, for tests.
	interruptible bool
	// silentAfter is that of turn.go if it is 0, for tests.
	silentAfter int
}

// An ExecError says that everything was ready but the program could not be run:
// execve(2) or chdir(2) failed.
type ExecError struct {
	Call string // "execve" or "chdir"
	Path string
	Err  unix.Errno
}

// Error is the message of the failed call.
func (e *ExecError) Error() string { return e.Call + " " + e.Path + ": " + e.Err.Error() }

// Unwrap returns the errno.
func (e *ExecError) Unwrap() error { return e.Err }

// A Supervisor is a running program whose system calls are intercepted, and its
// descendants.
type Supervisor struct {
	n      *notifier
	f      *family
	closed []int
	handed []*os.File
}

// Start runs the program of cfg under its rules and those that always hold, and
// returns when execve(2) has succeeded. ctx limits only the start.
//
// The calling process becomes a child subreaper, and not dumpable: both for good,
// and both before the target exists (prctl(2)). It reads its own /proc/self as
// before, but files there that only their owner may write belong to root.
//
// Errors: [*ExecError]; [*UnsupportedError]; EBUSY when a listener is installed
// already, that is inside another supervisor.
func Start(ctx context.Context, cfg Config) (*Supervisor, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := checkNotifySizes(); err != nil {
		return nil, err
	}
	for _, r := range cfg.Rules {
		if !r.Do.deny && r.Handler == nil {
			return nil, fmt.Errorf("rule for %s call %d has no handler: %w", r.Arch, r.NR, unix.EINVAL)
		}
	}
	// Who can open our descriptors can take the listener and answer for us.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("PR_SET_DUMPABLE: %w", err)
	}
	// A daemon must stay our descendant: Yama's scope 1 allows us those only.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("PR_SET_CHILD_SUBREAPER: %w", err)
	}
	ours, theirs, err := controlPair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	fds, err := planFDs(&cfg, theirs)
	if err != nil {
		theirs.Close()
		return nil, err
	}
	f, err := newFamily(cfg.OnChange, func() (int, error) { return forkChild(fds, cfg.Namespaces) })
	theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("start the child: %w", err)
	}
	s := &Supervisor{f: f, closed: fds.refused}
	// While the child starts.
	rules := append(baseRules(), cfg.Rules...)
	prog, err := compileFilter(rules)
	if err == nil {
		err = s.handshake(ctx, ours, cfg, fds.link, rules, prog)
	}
	if err != nil {
		f.kill()
		<-f.exited
		s.Close()
		return nil, err
	}
	return s, nil
}

// controlPair makes the socket over which Start and ChildMain talk.
func controlPair() (ours *net.UnixConn, theirs *os.File, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("control socket: %w", err)
	}
	theirs = os.NewFile(uintptr(p[1]), "control")
	file := os.NewFile(uintptr(p[0]), "control")
	defer file.Close() // FileConn duplicates
	c, err := net.FileConn(file)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("control socket: %w", err)
	}
	return c.(*net.UnixConn), theirs, nil
}

// spec is what the child is told, first.
type spec struct {
	Path      string
	Search    []string
	Argv, Env []string
	Dir       string
	SetMask   bool // apply SigMask: gob cannot tell a pointer to zero from nil
	SigMask   uint64
	SigIgnore uint64
	Missing   []int
	SetUmask  bool // apply Umask
	Umask     int
	Session   bool
	Filter    []unix.SockFilter

	Interruptible bool
	Namespaces    *Namespaces
	Link          int  // number of the descriptor for the Step; 0: none
	Trial         bool // tell how the step went, and end
}

// report is what the child says: the listener (with SCM_RIGHTS, and why there is no
// domain), or which step failed, and a text follows. End of file instead says that execve has succeeded.
type report struct {
	Step  step
	Errno uint32
}

type step uint32

const (
	stepListener step = iota
	stepNamespaces
	stepSetup  // prctl, sigprocmask
	stepFilter // seccomp
	stepChdir
	stepExec
)

const reportSize = 8 // bytes of a report

// handshake leads the child from its start to execve: spec, listener, go-ahead.
func (s *Supervisor) handshake(ctx context.Context, c *net.UnixConn, cfg Config, link int, rules Rules, prog []unix.SockFilter) error {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err := s.converse(c, cfg, link, rules, prog)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (s *Supervisor) converse(c *net.UnixConn, cfg Config, link int, rules Rules, prog []unix.SockFilter) error {
	sp := spec{Path: cfg.Path, Search: cfg.Search, Namespaces: cfg.Namespaces, Argv: cfg.Argv, Env: cfg.Env, Dir: cfg.Dir, SigIgnore: cfg.SigIgnore, Missing: cfg.Missing, Session: cfg.Session, Filter: prog, Interruptible: cfg.interruptible, Link: link}
	if cfg.SigMask != nil {
		sp.SetMask, sp.SigMask = true, *cfg.SigMask
	}
	if cfg.Umask != nil {
		sp.SetUmask, sp.Umask = true, *cfg.Umask
	}
	if sp.Argv == nil {
		sp.Argv = []string{sp.Path}
	}
	if sp.Env == nil {
		sp.Env = os.Environ()
	}
	if err := instruct(c, sp); err != nil {
		return err
	}
	fd, err := s.receiveListener(c, &cfg)
	if err != nil {
		return err
	}
	n, err := newNotifier(fd, rules, &cfg)
	if err != nil {
		return err
	}
	s.n = n
	s.f.serve(n)
	if _, err := c.Write([]byte{1}); err != nil {
		return fmt.Errorf("start the program: %w", err)
	}
	var buf [reportSize]byte
	switch _, err := io.ReadFull(c, buf[:]); err {
	case io.EOF:
		return nil
	case nil:
		return parseReport(buf[:]).failure(&cfg, c)
	default:
		return fmt.Errorf("start the program: %w", err)
	}
}

// instruct tells the child what to do.
func instruct(c *net.UnixConn, sp spec) error {
	if err := gob.NewEncoder(c).Encode(sp); err != nil {
		return fmt.Errorf("instruct the child: %w", err)
	}
	return nil
}

// receiveListener waits for the child's filter to be installed, and keeps what the Step
// hands over.
func (s *Supervisor) receiveListener(c *net.UnixConn, cfg *Config) (int, error) {
	buf := make([]byte, reportSize)
	oob := make([]byte, unix.CmsgSpace(4*(1+maxHanded)))
	n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
	if err == nil && n < reportSize {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return -1, fmt.Errorf("the child ended before it ran anything (does main call ChildMain first?): %w", err)
	}
	r := parseReport(buf)
	if r.Step != stepListener {
		return -1, r.failure(cfg, c)
	}
	if r.Errno != 0 {
		cfg.Log.Info("the program is not kept from other processes of its user: there is no Landlock domain", "errno", unix.Errno(r.Errno))
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err == nil && len(msgs) == 1 {
		var fds []int
		if fds, err = unix.ParseUnixRights(&msgs[0]); err == nil && len(fds) >= 1 {
			for i, fd := range fds {
				unix.CloseOnExec(fd)
				if i > 0 {
					s.handed = append(s.handed, os.NewFile(uintptr(fd), "handed"))
				}
			}
			return fds[0], nil
		}
	}
	return -1, fmt.Errorf("no listener from the child: %w", errors.Join(err, unix.EPROTO))
}

func parseReport(b []byte) report {
	return report{Step: step(binary.NativeEndian.Uint32(b)), Errno: binary.NativeEndian.Uint32(b[4:])}
}

// maxText bounds the text of an error, in bytes.
const maxText = 4096

// failure is the error that a report stands for, whose text is still to come: the path
// of an execve, else a sentence.
func (r report) failure(cfg *Config, rest io.Reader) error {
	errno := unix.Errno(r.Errno)
	text, _ := io.ReadAll(io.LimitReader(rest, maxText))
	switch {
	case r.Step == stepNamespaces:
		return &StepError{Text: string(text), Err: errno}
	case r.Step == stepExec:
		return &ExecError{Call: "execve", Path: string(text), Err: errno}
	case r.Step == stepChdir:
		return &ExecError{Call: "chdir", Path: cfg.Dir, Err: errno}
	case r.Step == stepFilter && errno == unix.EBUSY:
		return &UnsupportedError{Feature: "a supervisor inside another one (a seccomp listener is installed already)", Err: errno}
	case r.Step == stepFilter:
		return &UnsupportedError{Feature: "SECCOMP_FILTER_FLAG_NEW_LISTENER", Kernel: "5.0", Err: errno}
	}
	return fmt.Errorf("prepare the program: %w", errno)
}

// fdPlan says which descriptors the child starts with.
type fdPlan struct {
	files   []uintptr // by number; ^0: closed
	control int       // number of the control socket there
	link    int       // number of Config.Link; 0: there is none
	refused []int     // inherited, but not handed on
}

// closedFD marks a hole in syscall.ProcAttr.Files.
const closedFD = ^uintptr(0)

// planFDs gives the child its first three descriptors, what is inherited under its
// own numbers, and the control socket under the lowest number that is left.
func planFDs(cfg *Config, control *os.File) (*fdPlan, error) {
	inherited := cfg.Inherited
	if inherited == nil {
		var err error
		if inherited, err = InheritedFDs(); err != nil {
			return nil, err
		}
	}
	pass := cfg.InspectFD
	if pass == nil {
		pass = LocalFD
	}
	p := &fdPlan{files: []uintptr{0, 1, 2}}
	for i, f := range []*os.File{cfg.Stdin, cfg.Stdout, cfg.Stderr} {
		if f != nil {
			p.files[i] = f.Fd()
		}
	}
	limit, err := mostFDs()
	if err != nil {
		return nil, err
	}
	for _, fd := range inherited {
		if fd <= 2 {
			continue
		}
		if fd >= limit {
			// It was opened under a higher limit, and no call makes another there: but
			// who does not close it has it after fork and exec.
			stay := pass(fd)
			if !stay {
				p.refused = append(p.refused, fd)
			}
			if err := closeOnExec(fd, !stay); err != nil {
				return nil, fmt.Errorf("descriptor %d: %w", fd, err)
			}
			continue
		}
		for len(p.files) <= fd {
			p.files = append(p.files, closedFD)
		}
		if pass(fd) {
			p.files[fd] = uintptr(fd)
		} else {
			p.refused = append(p.refused, fd)
		}
	}
	p.control = slices.Index(p.files, closedFD)
	if p.control < 0 {
		p.control = len(p.files)
		p.files = append(p.files, closedFD)
	}
	p.files[p.control] = control.Fd()
	if cfg.Link != nil {
		p.link = len(p.files)
		p.files = append(p.files, cfg.Link.Fd())
	}
	return p, nil
}

// mostFDs is one more than the highest number that a descriptor for the child may have:
// syscall.ForkExec first moves some out of the way, behind all others.
func mostFDs() (int, error) {
	const moved = 8 // a pipe, the first three, control, link, and some
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("RLIMIT_NOFILE: %w", err)
	}
	return int(min(l.Cur, 1<<30)) - moved, nil
}

func closeOnExec(fd int, on bool) error {
	flags := 0
	if on {
		flags = unix.FD_CLOEXEC
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags)
	return err
}

// InheritedFDs returns the descriptors above 2 that are not close-on-exec, in
// ascending order. Called before anything else is opened, these are what the
// process was started with: Go opens everything close-on-exec, but libraries of
// other languages need not.
func InheritedFDs() ([]int, error) {
	fds, err := openFDs()
	if err != nil {
		return nil, err
	}
	fds = slices.DeleteFunc(fds, func(fd int) bool {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		return fd <= 2 || err != nil || flags&unix.FD_CLOEXEC != 0
	})
	slices.Sort(fds)
	return fds, nil
}

// LocalFD reports whether descriptor fd may be handed on to a program that is to
// live on another network: everything but sockets that are not AF_UNIX, and O_PATH
// descriptors, which stand for a file that nobody has opened and cannot be asked.
func LocalFD(fd int) bool {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return err != nil && errors.Is(err, unix.ENOTSOCK) || domain == unix.AF_UNIX && err == nil
}

// forkChild starts this same executable, which will find itself in ChildMain.
func forkChild(p *fdPlan, ns *Namespaces) (int, error) {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, childEnv) }) // somebody else's
	return syscall.ForkExec("/proc/self/exe", []string{childName}, &syscall.ProcAttr{
		Env:   append(append(env, fmt.Sprintf("%s=%d", childEnv, p.control)), ns.env()...),
		Files: p.files,
		Sys:   ns.attributes(),
	})
}

// Handed returns the descriptors that the Step of the namespaces has handed over, in its
// order. They are closed with the supervisor.
func (s *Supervisor) Handed() []*os.File { return s.handed }

// ClosedFDs returns the inherited descriptors that the program was not given.
func (s *Supervisor) ClosedFDs() []int { return slices.Clone(s.closed) }
