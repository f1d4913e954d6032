// SPDX-License-Identifier: Apache-2.0

// The plug that is a command, cmd://.

package vde

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// A command is a plug whose frames are what a program reads and writes. The program
// runs on the host, outside of any view, in a session of its own: it does not see the
// terminal, and Ctrl-C does not reach it. When it ends, the cable is pulled out until
// it has been started again, after a pause that grows while it does not live long.
type command struct {
	words []string
	text  string // as the URL has it
	mtu   int
	log   *slog.Logger

	life   context.Context // alive until Close
	cancel context.CancelFunc
	once   sync.Once
	wg     sync.WaitGroup // run, and what it starts

	mu  sync.Mutex
	cur *process      // nil while none runs; +checklocks:mu
	new chan struct{} // closed when cur changes; +checklocks:mu

	// Of Read, which has one caller at a time.
	dec    *decoder
	of     *process // that dec decodes
	frames [][]byte
}

// A process is one run of the command.
type process struct {
	cmd    *exec.Cmd
	out    *os.File // its standard input
	in     *os.File // its standard output
	errs   *os.File // its standard error
	pidfd  *os.File
	said   *tail
	copied chan struct{} // closed when all that it said was read
	ended  chan struct{} // closed when it is a zombie: its number is its own until end
	failed chan struct{} // closed by fail, nothing more is read
	once   sync.Once
	began  time.Time

	wmu sync.Mutex // of out: a frame is written whole
	buf []byte     // +checklocks:wmu
}

// Pauses before the command is started again, and how long it must live for the first.
const (
	pauseMin  = time.Second
	pauseMax  = 30 * time.Second
	livedLong = 30 * time.Second
)

// endGrace is how long the command may take to end by itself, and once more after
// SIGTERM.
const endGrace = 500 * time.Millisecond

// pipeSize is what is asked for the pipe from the command, bytes. That to it holds one
// page, which is written in whole frames and at once or not at all (pipe(7), PIPE_BUF):
// whoever reads a page at a time never sees half a frame. vde_plug loses its step where
// a read ends within a length.
const (
	pipeSize = 256 << 10
	pipePage = 4096
)

func checkCmd(u *URL) error {
	words, err := splitCommand(u.Arg)
	if err == nil && len(words) == 0 {
		err = errors.New("there is no command")
	}
	return err
}

func openCmd(u *URL, o Options) (stacks.Link, error) {
	words, err := splitCommand(u.Arg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	c := &command{words: words, text: u.Arg, mtu: o.MTU, log: o.Log, new: make(chan struct{})}
	p, err := c.start()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	c.life, c.cancel = context.WithCancel(context.Background())
	c.cur = p
	c.wg.Go(func() { c.run(p) })
	return c, nil
}

// start runs the command.
func (c *command) start() (_ *process, err error) {
	p := &process{
		said:   &tail{log: c.log, name: c.words[0]},
		copied: make(chan struct{}), ended: make(chan struct{}), failed: make(chan struct{}),
		began: time.Now(),
	}
	var opened []*os.File
	defer func() {
		if err != nil {
			closeAll(opened)
		}
	}()
	pipe := func() (r, w *os.File) {
		if err != nil {
			return nil, nil
		}
		if r, w, err = os.Pipe(); err == nil {
			opened = append(opened, r, w)
		}
		return r, w
	}
	stdin, out := pipe()
	in, stdout := pipe()
	errs, stderr := pipe()
	if err != nil {
		return nil, err
	}
	for f, size := range map[*os.File]int{in: pipeSize, out: pipePage} {
		if rc, err := f.SyscallConn(); err == nil { // best effort: a pipe of any size works
			rc.Control(func(fd uintptr) { unix.FcntlInt(fd, unix.F_SETPIPE_SZ, size) })
		}
	}
	pidfd := -1
	p.cmd = exec.Command(c.words[0], c.words[1:]...)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = stdin, stdout, stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd}
	if err = p.cmd.Start(); err != nil {
		return nil, err
	}
	closeAll([]*os.File{stdin, stdout, stderr})
	p.out, p.in, p.errs = out, in, errs
	if pidfd >= 0 {
		unix.SetNonblock(pidfd, true) // for the runtime's poller
		p.pidfd = os.NewFile(uintptr(pidfd), "pidfd")
	}
	c.wg.Go(func() { defer close(p.copied); io.Copy(p.said, errs) }) // until end closes it
	c.wg.Go(p.await)
	return p, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// await waits until the process is a zombie: in the runtime's poller, since waitid(2)
// would keep a P. It ends by end at the latest, which kills.
func (p *process) await() {
	defer close(p.ended)
	if p.pidfd == nil {
		<-p.copied // an old kernel; who ends closes its standard error
		return
	}
	rc, err := p.pidfd.SyscallConn()
	if err != nil {
		return
	}
	rc.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return err != nil && err != unix.EINTR || n > 0
	})
}

// fail has the process ended by run.
func (p *process) fail() { p.once.Do(func() { close(p.failed) }) }

// end ends the process and what it left in its session: end of file, then SIGTERM,
// then SIGKILL. It reaps.
func (p *process) end() {
	p.out.Close()
	gone := within(p.ended, endGrace)
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	if !gone && !within(p.ended, endGrace) {
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.ended
	}
	within(p.copied, endGrace) // its last words; somebody else may hold the other end
	closeAll([]*os.File{p.errs, p.in})
	<-p.copied
	p.cmd.Wait()
	if p.pidfd != nil {
		p.pidfd.Close()
	}
}

// within waits for c to be closed, and tells whether it was in time.
func within(c <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c:
		return true
	case <-t.C:
		return false
	}
}

// run watches one process after the other.
func (c *command) run(p *process) {
	pause := pauseMin
	for {
		select {
		case <-p.ended:
			within(p.failed, endGrace) // Read has its last frames; somebody else may hold the other end
		case <-p.failed:
		case <-c.life.Done():
		}
		c.swap(nil)
		p.end()
		if c.life.Err() != nil {
			return
		}
		if time.Since(p.began) > livedLong {
			pause = pauseMin
		}
		c.log.Warn("the command of a VDE network ended; frames are lost until it has been started again", "command", c.text, "status", p.cmd.ProcessState, "said", p.said.last(), "again_in", pause)
		for p = nil; p == nil; pause = min(2*pause, pauseMax) {
			t := time.NewTimer(pause)
			select {
			case <-c.life.Done():
				t.Stop()
				return
			case <-t.C:
			}
			var err error
			if p, err = c.start(); err != nil {
				c.log.Warn("the command of a VDE network cannot be started", "command", c.text, "err", err)
			}
		}
		c.swap(p)
	}
}

func (c *command) swap(p *process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cur = p
	close(c.new)
	c.new = make(chan struct{})
}

func (c *command) now() (*process, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cur, c.new
}

func (*command) Type() stacks.LinkType { return stacks.LinkEthernet }
func (c *command) MTU() int            { return c.mtu }
func (*command) BatchSize() int        { return batchSize }

// Read implements [stacks.Link].
func (c *command) Read(bufs [][]byte, sizes []int) (int, error) {
	for {
		p, changed := c.now()
		if p != nil && p != c.of {
			c.of, c.dec = p, newDecoder(p.in)
		}
		if p != nil {
			var err error
			c.frames, err = c.dec.read(c.frames, min(len(bufs), len(sizes)))
			n := 0
			for _, f := range c.frames {
				if len(f) <= len(bufs[n]) {
					sizes[n] = copy(bufs[n], f)
					n++
				}
			}
			if n > 0 {
				return n, nil // an error comes again
			}
			if err == nil {
				continue
			}
			if errors.Is(err, errOutOfStep) {
				c.log.Warn("the command of a VDE network is ended", "command", c.text, "err", err)
			}
			p.fail() // at the end of its output too: there is no other
		}
		select {
		case <-c.life.Done():
			return 0, net.ErrClosed
		case <-changed:
		}
	}
}

// Write implements [stacks.Link]. It waits where the command does not follow.
func (c *command) Write(bufs [][]byte) (int, error) {
	if c.life.Err() != nil {
		return 0, net.ErrClosed
	}
	p, _ := c.now()
	if p == nil {
		return len(bufs), nil
	}
	p.wmu.Lock()
	defer p.wmu.Unlock()
	p.buf = p.buf[:0]
	for i, f := range bufs {
		if len(f) <= maxFrame {
			p.buf = appendFrame(p.buf, f)
		}
		if i+1 < len(bufs) && len(p.buf)+lengthLen+len(bufs[i+1]) <= pipePage {
			continue
		}
		if _, err := p.out.Write(p.buf); err != nil {
			if c.life.Err() != nil {
				return i, net.ErrClosed
			}
			break // run sees the end
		}
		p.buf = p.buf[:0]
	}
	return len(bufs), nil
}

// Close implements [stacks.Link]. The command is ended, and waited for.
func (c *command) Close() error {
	c.once.Do(func() {
		c.cancel()
		c.wg.Wait()
	})
	return nil
}

// A tail keeps the last that a command said on its standard error, and logs all.
type tail struct {
	log  *slog.Logger
	name string

	mu   sync.Mutex
	line []byte // +checklocks:mu
	text string // the last whole line that was not empty; +checklocks:mu
}

// maxLine bounds what is kept of a line, bytes.
const maxLine = 4096

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for part := range bytes.Lines(b) {
		t.line = append(t.line, part[:min(len(part), maxLine-min(maxLine, len(t.line)))]...)
		if part[len(part)-1] == '\n' {
			t.endLocked()
		}
	}
	return len(b), nil
}

func (t *tail) endLocked() {
	if s := strings.TrimSpace(string(t.line)); s != "" {
		t.text = s
		t.log.Info(s, "command", t.name)
	}
	t.line = t.line[:0]
}

// last returns the last line.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.endLocked()
	return t.text
}
