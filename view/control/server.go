// SPDX-License-Identifier: Apache-2.0

// Server: a view's end, and the asking end.

package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a message may take.
const patience = 10 * time.Second

// mostConns is how many connections are served at once: a program of any view of the user's can
// make them and say nothing, and each takes a descriptor of umrun's. More wait.
const mostConns = 64

// A Server answers at the socket of a view.
type Server struct {
	l    *net.UnixListener
	lock *os.File
	log  *slog.Logger
	do   func(Request) Answer
	room chan struct{} // holds one for each connection, and one to accept the next
	wg   sync.WaitGroup
	once sync.Once

	mu    sync.Mutex
	conns map[net.Conn]bool // guarded by mu; nil: closed
}

// Serve makes the socket of a view and answers there with do, which may be called by
// several goroutines at once. [ErrTaken]: another view has the name.
func Serve(name string, log *slog.Logger, do func(Request) Answer) (*Server, error) {
	l, lock, err := listen(name)
	if err != nil {
		return nil, err
	}
	s := &Server{l: l, lock: lock, log: log, do: do, room: make(chan struct{}, mostConns), conns: make(map[net.Conn]bool)}
	s.wg.Go(s.accept)
	return s, nil
}

func (s *Server) accept() {
	for {
		s.room <- struct{}{}
		c, err := s.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptors, say
			<-s.room
			s.log.Warn("control socket", "err", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		s.mu.Lock()
		open := s.conns != nil
		if open {
			s.conns[c] = true
		}
		s.mu.Unlock()
		if !open {
			c.Close()
			return
		}
		s.wg.Go(func() {
			if err := s.answer(c); err != nil && !errors.Is(err, net.ErrClosed) {
				s.log.Warn("a request on the control socket", "err", err)
			}
			c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
			<-s.room
		})
	}
}

// answer serves a connection.
func (s *Server) answer(c *net.UnixConn) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	line, refused, err := readRequest(c)
	if err != nil {
		return err
	}
	var a Answer
	if refused != nil {
		s.log.Warn("a request on the control socket is refused", "err", refused)
		a.Error = &Error{Code: 125, What: "refused: " + refused.Error(), Why: "A process in a view, or in a sandbox that the view's umrun is not in, cannot ask: it could undo what its mounts hide."}
	} else if r, err := DecodeRequest(line); err != nil {
		a.Error = &Error{Code: 125, What: err.Error(), Try: []string{"the umrun that runs the view"}}
	} else {
		a = s.do(r)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	return json.NewEncoder(c).Encode(a)
}

// readRequest reads a request, and says why who has sent it may not; nil: it may.
func readRequest(c *net.UnixConn) (line []byte, refused, err error) {
	peer, refused := trusted(c)
	buf := make([]byte, maxRequest)
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	for len(line) == 0 || line[len(line)-1] != '\n' {
		n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
		if err != nil || n == 0 || len(line)+n > maxRequest {
			return nil, refused, fmt.Errorf("a message that does not end: %w", errors.Join(err, unix.EBADMSG))
		}
		if w, err := writer(oob[:oobn]); refused == nil && (err != nil || w != peer) {
			refused = fmt.Errorf("process %d has connected, and another speaks: %w", peer, errors.Join(unix.EPERM, err))
		}
		line = append(line, buf[:n]...)
	}
	return line, refused, nil
}

// writer is the process that has written what was read (SCM_CREDENTIALS, unix(7)).
func writer(oob []byte) (int32, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) != 1 {
		return 0, errors.Join(err, unix.EBADMSG)
	}
	cr, err := unix.ParseUnixCredentials(&msgs[0])
	if err != nil {
		return 0, err
	}
	return cr.Pid, nil
}

// readLine reads an answer.
func readLine(r io.Reader) ([]byte, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxAnswer)).ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("a message that does not end: %w", err)
	}
	return line, nil
}

// trusted returns the process that has connected, and nil if it may ask: it is the same
// user's, or root's, and in no view.
func trusted(c *net.UnixConn) (pid int32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	var bad error
	pidfd := -1
	if err := raw.Control(func(fd uintptr) {
		peer, bad = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD); err == nil {
			pidfd = n
		}
	}); err != nil || bad != nil {
		return 0, errors.Join(err, bad)
	}
	if pidfd >= 0 {
		defer unix.Close(pidfd)
	}
	if peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		return peer.Pid, fmt.Errorf("process %d is of user %d: %w", peer.Pid, peer.Uid, unix.EPERM)
	}
	theirs, err := filters(strconv.Itoa(int(peer.Pid)))
	if err != nil {
		return peer.Pid, fmt.Errorf("process %d: %w", peer.Pid, err)
	}
	ours, err := filters("self")
	if err != nil {
		return peer.Pid, err
	}
	if theirs > ours {
		return peer.Pid, fmt.Errorf("process %d is in a view, or a sandbox: %w", peer.Pid, unix.EPERM)
	}
	// That was who has connected, and no later one of the same number.
	if pidfd >= 0 {
		if err := unix.PidfdSendSignal(pidfd, 0, nil, 0); err != nil {
			return peer.Pid, fmt.Errorf("process %d: %w", peer.Pid, err)
		}
	}
	return peer.Pid, nil
}

// filters returns how many seccomp filters a process has.
func filters(pid string) (int, error) {
	b, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0, err
	}
	_, rest, ok := bytes.Cut(b, []byte("\nSeccomp_filters:"))
	if !ok {
		return 0, fmt.Errorf("its filters cannot be counted: %w", unix.ENOTSUP) // Linux < 5.9
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return strconv.Atoi(string(bytes.TrimSpace(line)))
}

// Close ends it, and removes the socket. Twice is fine.
func (s *Server) Close() (err error) {
	s.once.Do(func() {
		err = s.l.Close() // which removes the socket
		s.mu.Lock()
		for c := range s.conns {
			c.Close()
		}
		s.conns = nil
		s.mu.Unlock()
		s.wg.Wait()
		err = errors.Join(err, os.Remove(s.lock.Name()), s.lock.Close())
	})
	return err
}

// ErrNoView says that there is no view of a name.
var ErrNoView = errors.New("there is no view of that name")

// Ask asks the view of a name.
func Ask(ctx context.Context, name string, r Request) (a Answer, err error) {
	if !ValidName(name) {
		return a, ErrNoView
	}
	dir, err := Dir()
	if err != nil {
		return a, err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", filepath.Join(dir, name))
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		return a, ErrNoView
	case err != nil:
		return a, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := json.NewEncoder(c).Encode(r); err != nil {
		return a, fmt.Errorf("ask the view: %w", err)
	}
	line, err := readLine(c)
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
		return a, fmt.Errorf("the view %s has ended before it answered", name)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return a, fmt.Errorf("the view %s has not answered in time: its umrun may be stopped: %w", name, os.ErrDeadlineExceeded)
	case err != nil:
		return a, fmt.Errorf("the view %s has not answered: %w", name, err)
	}
	return a, nil
}
