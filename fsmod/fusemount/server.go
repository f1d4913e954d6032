// SPDX-License-Identifier: Apache-2.0

// The caller's side of the helper: how it is started, asked, and ended.

package fusemount

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"umrun/fsmod/nsmount"
)

// A Config says what to run.
type Config struct {
	// Command returns the arguments of the command that mounts at point, a path without any
	// character that means something to a shell. See [Shell].
	Command func(point string) []string
	Env     []string
	Dir     string

	// Output takes what the command says, on stdout and stderr. It stays the caller's.
	Output *os.File

	// Hold, if set, stays open as long as there may be something of the command, also when the
	// caller is dead: a lock, say. The command has it as [Held]. It stays the caller's.
	Hold *os.File

	// Shared does without namespaces: see the package's doc.
	Shared bool
}

// A Server is a command that serves a mount. Methods are safe for concurrent use.
type Server struct {
	Root *os.File // the root directory of the mount, O_PATH; closed by Close

	// Others says that the root is somebody else's, and can be written to. In an ordinary
	// user's namespace that means by nobody, and so it is for all that is not the user's and
	// the group's own.
	Others bool

	pid    int
	place  *place
	conn   *net.UnixConn
	heard  chan struct{}   // closed when the helper says no more
	ended  chan struct{}   // closed when no process of the command is left
	first  chan answer     // mounted or failed; has room for it
	trees  chan answer     // has room for one
	given  chan struct{}   // has room for one
	status int             // of the command; set before ended is closed
	asking sync.Mutex      // held while a tree is asked for, or the mount given away
	gave   atomic.Bool     // it was
	reaped unix.WaitStatus // of the helper; set before heard is closed

	once sync.Once
	err  error
}

// An answer is a message with its descriptor.
type answer struct {
	message
	file *os.File
}

// An EndedError says that a command ended: before it had mounted anything, or when it was to
// end, and not well.
type EndedError struct{ Status int } // exit status, or 128 and the signal

// Error says so.
func (e *EndedError) Error() string {
	return fmt.Sprintf("it ended with exit status %d", e.Status)
}

// ErrNotMounted says that a command had mounted nothing when ctx ended.
var ErrNotMounted = errors.New("it has mounted nothing in time")

// ErrKilled says that a command had to be killed after its mount was gone: it may not have
// written all that it should.
var ErrKilled = errors.New("it did not end, and was killed")

// Start runs a command and waits until it has mounted something that answers: then the mount
// is the Server's, for as long as the command serves it. ctx bounds Start alone. It needs
// [ChildMain]. On error nothing is left behind; that may be an [*EndedError], [ErrNotMounted]
// or [ErrAllowOther].
func Start(ctx context.Context, c Config) (*Server, error) {
	s, err := start(&spec{Env: c.Env, Dir: c.Dir, Shared: c.Shared, Held: c.Hold != nil}, &c)
	if err != nil {
		return nil, err
	}
	var a answer
	select {
	case a = <-s.first:
	case <-s.heard:
		select {
		case a = <-s.first: // it has said why
		default:
			a.message = message{Kind: failed, Text: "the helper has ended", Errno: unix.EIO}
		}
	case <-ctx.Done():
		s.Close()
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, ErrNotMounted
		}
		return nil, ctx.Err()
	}
	if a.Kind == mounted && a.file != nil {
		s.Root, s.Others = a.file, a.Others
		return s, nil
	}
	s.Close()
	return nil, a.failure()
}

// failure is the error of a message.
func (m *message) failure() error {
	switch {
	case m.Errno == 0:
		return &EndedError{m.Status}
	case m.Text == ErrAllowOther.Error():
		return ErrAllowOther
	}
	return fmt.Errorf("%s%w", strings.TrimSuffix(m.Text, m.Errno.Error()), m.Errno)
}

// start makes the helper.
func start(sp *spec, c *Config) (*Server, error) {
	p, err := newPlace()
	if err != nil {
		return nil, fmt.Errorf("a place to mount: %w", err)
	}
	sp.Place, sp.UID, sp.GID = p.dir, os.Geteuid(), os.Getegid()
	if c.Command != nil {
		sp.Argv = c.Command(p.point())
	}
	sp.User = !sp.Shared && nsmount.Unprivileged()
	s := &Server{place: p, heard: make(chan struct{}), ended: make(chan struct{}), first: make(chan answer, 1), trees: make(chan answer, 1), given: make(chan struct{}, 1)}
	if err := s.fork(sp, c); err != nil {
		return nil, errors.Join(err, p.remove())
	}
	go s.listen()
	return s, nil
}

// fork starts the process.
func (s *Server) fork(sp *spec, c *Config) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	theirs, ours := os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control")
	defer theirs.Close()
	defer ours.Close() // FileConn duplicates
	conn, err := net.FileConn(ours)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	s.conn = conn.(*net.UnixConn)
	memory, err := sp.file()
	if err != nil {
		s.conn.Close()
		return err
	}
	defer memory.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		s.conn.Close()
		return err
	}
	defer null.Close()
	out := null.Fd()
	if c.Output != nil {
		out = c.Output.Fd()
	}
	files := []uintptr{null.Fd(), out, out, theirs.Fd(), memory.Fd(), s.place.lock.Fd()}
	if c.Hold != nil {
		files = append(files, c.Hold.Fd())
	}
	// No death signal: when we are dead it has something to do.
	sys := &syscall.SysProcAttr{Setsid: true}
	if !sp.Shared {
		sys.Cloneflags = unix.CLONE_NEWNS | unix.CLONE_NEWPID
	}
	if sp.User {
		sys.Cloneflags |= unix.CLONE_NEWUSER
		sys.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN}
	}
	s.pid, err = syscall.ForkExec("/proc/self/exe", []string{childName}, &syscall.ProcAttr{
		Dir: "/", Env: os.Environ(), Sys: sys, Files: files,
	})
	if err != nil {
		s.conn.Close()
		return fmt.Errorf("clone: %w", err)
	}
	return nil
}

// listen hears the helper, and waits for it.
func (s *Server) listen() {
	defer close(s.heard)
	over := false
	for {
		a, err := s.receive()
		if err != nil {
			break
		}
		switch a.Kind {
		case mounted, failed:
			s.first <- a
		case tree:
			s.trees <- a
		case given:
			s.given <- struct{}{}
		case ended:
			if !over {
				over, s.status = true, a.Status
				close(s.ended)
			}
		}
	}
	for {
		if _, err := unix.Wait4(s.pid, &s.reaped, 0, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if !over {
		close(s.ended)
	}
}

// receive takes one message.
func (s *Server) receive() (a answer, err error) {
	b, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := s.conn.ReadMsgUnix(b, oob)
	if err == nil && n == 0 {
		err = net.ErrClosed
	}
	if err != nil {
		return a, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err == nil && len(msgs) == 1 {
		var fds []int
		if fds, err = unix.ParseUnixRights(&msgs[0]); err == nil && len(fds) == 1 {
			unix.CloseOnExec(fds[0])
			a.file = os.NewFile(uintptr(fds[0]), "fuse")
		}
	}
	if err == nil {
		err = json.Unmarshal(b[:n], &a.message)
	}
	return a, err
}

// Tree returns a copy of the mount that is attached nowhere, for move_mount(2). It is the
// caller's, and keeps the mount alive. A shared one has none (EOPNOTSUPP).
func (s *Server) Tree() (*os.File, error) {
	s.asking.Lock()
	defer s.asking.Unlock()
	if _, err := s.conn.Write([]byte{wantTree}); err != nil {
		return nil, fmt.Errorf("ask for the mount: %w", err)
	}
	select {
	case a := <-s.trees:
		if a.file == nil {
			return nil, fmt.Errorf("%s: %w", a.Text, a.Errno)
		}
		return a.file, nil
	case <-s.heard:
		return nil, fmt.Errorf("the helper has ended: %w", unix.ENOTCONN)
	}
}

// Give leaves the mount to those who have it by [Server.Tree]: when the last of them is gone, the
// command sees that, writes back, and ends in its own time. Root is closed. Close is still to be
// called; before that it ends the mount as ever. Once is enough. A shared one cannot be given away.
func (s *Server) Give() error {
	s.asking.Lock()
	defer s.asking.Unlock()
	if _, err := s.conn.Write([]byte{wantGiven}); err != nil {
		return fmt.Errorf("give the mount away: %w", err)
	}
	select {
	case <-s.given: // or it is busy for a moment
		s.gave.Store(true)
	case <-s.heard:
		return fmt.Errorf("the helper has ended: %w", unix.ENOTCONN)
	}
	return s.Root.Close()
}

// Ended is closed when no process of the command is left: then all that is done on the mount
// fails with ENOTCONN.
func (s *Server) Ended() <-chan struct{} { return s.ended }

// Status is the exit status of the command, or 128 and the signal that ended it, when Ended is
// closed; 0 if it went on in the background.
func (s *Server) Status() int { return s.status }

// Busy is how long Close may take before it is worth a word.
const Busy = 2 * time.Second

// Close unmounts and waits for the command to end, which has all the time that it needs to
// write back, up to [WriteBack]. The error is [ErrKilled], or an [*EndedError] if it failed.
// Twice is fine.
func (s *Server) Close() error {
	s.once.Do(func() {
		if s.Root != nil {
			s.Root.Close()
		}
		before := false
		select {
		case <-s.ended:
			before = !s.gave.Load() // the user has been told, or there was no mount yet
		default:
		}
		// The helper sees the end of file; what it says is still heard.
		if err := s.conn.CloseWrite(); err != nil && !slices.Contains([]error{unix.ENOTCONN, unix.EPIPE}, error(errnoOf(err))) {
			s.err = err
		}
		<-s.heard
		s.conn.Close()
		switch {
		case s.reaped.ExitStatus() != exitOrderly && s.Root != nil:
			s.err = ErrKilled
		case !before && s.status != 0 && s.Root != nil:
			s.err = &EndedError{s.status}
		}
		s.err = errors.Join(s.err, s.place.remove())
	})
	return s.err
}
