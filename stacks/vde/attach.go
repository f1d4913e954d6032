// SPDX-License-Identifier: Apache-2.0

// Asking a switch for a port.

package vde

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A SwitchError says why there is no port of a switch.
type SwitchError struct {
	Dir  string // as the URL has it; empty: the default switch
	Port string // or group, as the URL has it; empty: any
	Err  error  // unix.Errno, ErrRefused, or a cause
}

// ErrRefused is the cause where a switch has hung up, or kept silent, instead of giving
// a port: it tells no reason. The port may be taken by another user, or there may be no
// such port; the switch may not be allowed to use our socket.
var ErrRefused = errors.New("the switch refused the port without saying why")

func (e *SwitchError) Error() string {
	where := e.Dir
	if where == "" {
		where = "the default places"
	}
	switch {
	case errors.Is(e.Err, unix.ENOENT), errors.Is(e.Err, unix.ECONNREFUSED), errors.Is(e.Err, unix.ENOTDIR):
		return fmt.Sprintf("there is no VDE switch at %s: %v", where, e.Err)
	case e.Port != "":
		return fmt.Sprintf("port %s of the VDE switch at %s: %v", e.Port, where, e.Err)
	}
	return fmt.Sprintf("VDE switch at %s: %v", where, e.Err)
}

func (e *SwitchError) Unwrap() error { return e.Err }

// A place says which port of which switch is wanted.
type place struct {
	dir   string // as the URL has it
	word  string // port or port group as the URL has it
	group int    // owner of our socket; -1: as it comes
	mode  uint32 // of our socket
	set   bool   // mode is the user's wish
	descr string
}

// An attachment is a port that a switch has given us.
type attachment struct {
	ctl  *os.File // its end of file is the end of the port, in both directions
	data *sock
	peer string // the switch's socket

	offload bool // datagrams have a virtio_net_hdr; see offloadToken
}

func (a *attachment) close() {
	a.ctl.Close()
	a.data.close()
}

// attachTimeout bounds the wait for the switch's answer: it is a process of this
// machine, and one that does not answer is stuck.
const attachTimeout = 3 * time.Second

// fallbackDirs are where our socket goes when the switch's directory is not ours to
// write: the switch has to find it.
var fallbackDirs = []string{"/var/run", "/var/tmp", "/tmp"}

// serial tells our sockets in one directory apart.
var serial atomic.Uint32

// attach asks for a port. The errors are what SwitchError.Err holds.
func (p *place) attach(ctx context.Context) (_ *attachment, err error) {
	dir, err := resolveDir(p.dir)
	if err != nil {
		return nil, err
	}
	ctl, req, err := p.dial(dir)
	if err != nil {
		return nil, err
	}
	a := &attachment{ctl: ctl}
	defer func() {
		if err != nil {
			ctl.Close()
			if a.data != nil {
				a.data.close()
			}
		}
	}()
	if a.data, err = socket(unix.AF_UNIX, unix.SOCK_DGRAM, "VDE port"); err != nil {
		return nil, err
	}
	if req.path, err = bindNear(a.data, dir); err != nil {
		return nil, err
	}
	defer os.Remove(req.path) // the connection needs no name, and nothing is left behind
	if err = p.permit(req.path, dir); err != nil {
		return nil, err
	}
	if a.peer, a.offload, err = ask(ctx, ctl, req); err != nil {
		return nil, err
	}
	err = a.data.control(func(fd int) error { return unix.Connect(fd, &unix.SockaddrUnix{Name: a.peer}) })
	return a, err
}

// resolveDir makes dir the absolute path that the switch knows: it has a working
// directory of its own. Without dir, the user's and the system's default switches
// are tried.
func resolveDir(dir string) (string, error) {
	if dir != "" {
		abs, err := filepath.Abs(dir)
		if err == nil {
			abs, err = filepath.EvalSymlinks(abs)
		}
		return abs, errnoOf(err)
	}
	var tries []string
	if home := os.Getenv("HOME"); home != "" {
		tries = append(tries, home+"/.vdeplug/default", home+"/.vde2/default.switch")
	}
	for _, d := range append(tries, "/var/run/vde.ctl", "/tmp/vde.ctl") {
		if _, err := os.Stat(d + "/ctl"); err == nil {
			return filepath.EvalSymlinks(d)
		}
	}
	return "", unix.ENOENT
}

// errnoOf leaves the errno of an error of package os: its path is told elsewhere.
func errnoOf(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// dial connects to the control socket: that of the port group if there is one, else
// the general one, where the port is part of the request.
func (p *place) dial(dir string) (*os.File, *request, error) {
	req := &request{descr: p.descr}
	if n, err := strconv.Atoi(p.word); err == nil && n >= 0 {
		if n == 0 {
			req.typ = reqPort0
		} else {
			req.port = n
		}
	} else if p.word != "" {
		f, err := dialControl(filepath.Join(dir, p.word))
		return f, req, err
	}
	f, err := dialControl(filepath.Join(dir, "ctl"))
	return f, req, err
}

func dialControl(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if len(path) >= sockaddrLen-2 {
		err = unix.ENAMETOOLONG
	} else {
		// A listener whose queue is full gives EAGAIN: many views start at once.
		for range 100 {
			if err = unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != unix.EAGAIN {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// bindNear gives s a path: in the switch's directory, else in one of fallbackDirs.
func bindNear(s *sock, dir string) (string, error) {
	var first error
	for i, d := range append([]string{dir}, fallbackDirs...) {
		format := "%s/.%05d-%05d"
		if i > 0 {
			format = "%s/vde.%05d-%05d"
		}
		for range 1000 {
			path := fmt.Sprintf(format, d, os.Getpid(), serial.Add(1)%100000)
			err := s.control(func(fd int) error { return unix.Bind(fd, &unix.SockaddrUnix{Name: path}) })
			if err == nil {
				return path, nil
			}
			if first == nil && err != unix.EADDRINUSE {
				first = err
			}
			if err != unix.EADDRINUSE { // else of a process that had our number before
				break
			}
		}
	}
	return "", fmt.Errorf("a socket in %s or %s: %w", dir, strings.Join(fallbackDirs, ", "), first)
}

// permit lets the switch in: it checks that it may read and write our socket, and
// connects to it. What umask left of the permissions does not matter.
func (p *place) permit(path, dir string) error {
	mode, gid := p.mode, p.group
	var st unix.Stat_t
	if !p.set && gid < 0 && unix.Stat(filepath.Join(dir, "ctl"), &st) == nil && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		// A switch of somebody else's. It is in reach of all for as long as it takes to
		// connect; afterwards only the switch can send to us (unix(7), EPERM).
		if os.Chown(path, -1, int(st.Gid)) == nil {
			mode |= 0o070
		} else {
			mode |= 0o077
		}
	}
	if gid >= 0 {
		if err := os.Chown(path, -1, gid); err != nil {
			return fmt.Errorf("group=%d: %w", gid, errnoOf(err))
		}
	}
	return os.Chmod(path, fs.FileMode(mode&0o777))
}

// ask sends the request and waits for the switch's socket. offload says that a node of
// umrun's has agreed to super-segments.
func ask(ctx context.Context, ctl *os.File, req *request) (peer string, offload bool, err error) {
	b, err := req.encode()
	if err != nil {
		return "", false, err
	}
	end := time.Now().Add(attachTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	ctl.SetDeadline(end)
	stop := context.AfterFunc(ctx, func() { ctl.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if stop() {
			ctl.SetDeadline(time.Time{})
		}
	}()
	if _, err := ctl.Write(b); err != nil {
		return "", false, replyError(ctx, err)
	}
	var sa [sockaddrLen]byte
	if _, err := io.ReadFull(ctl, sa[:]); err != nil {
		return "", false, replyError(ctx, err)
	}
	path, err := sockaddrPath(sa[:])
	if err != nil {
		return "", false, fmt.Errorf("its answer is %w", err)
	}
	behind := string(sa[2+len(path)+1:])
	return path, strings.HasSuffix(req.descr, offloadToken) && strings.HasPrefix(behind, offloadToken+"\x00"), nil
}

// replyError words why no answer came.
func replyError(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		// vde_switch 2.3.2 answers so where it has no such port.
		return fmt.Errorf("%w: no answer in %s", ErrRefused, attachTimeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
		return ErrRefused
	}
	return err
}
