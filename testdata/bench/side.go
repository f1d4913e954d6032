// SPDX-License-Identifier: Apache-2.0

// A side: an agent that runs, natively or under umrun, and who works for it.

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// grace is what a measurement may take beyond its length.
const grace = 30 * time.Second

// nobody is the address for agents that talk to no server.
const nobody = "0.0.0.0"

// A side is one agent. It is used by one goroutine.
type side struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
	addr   string // of the server
	worker int    // process that moves the agent's packets; 0: the kernel alone
}

// under starts an agent under umrun.
func (b *bench) under(ctx context.Context, ns *namespace, addr, spec string) (*side, error) {
	s, err := b.side(ctx, ns, addr, b.umrun, "-q", "-n", spec, "--", b.self, "agent")
	if err == nil {
		s.worker = s.cmd.Process.Pid
	}
	return s, err
}

// native starts an agent on the kernel's stack.
func (b *bench) native(ctx context.Context, ns *namespace, addr string, worker int) (*side, error) {
	s, err := b.side(ctx, ns, addr, b.self, "agent")
	if err == nil {
		s.worker = worker
	}
	return s, err
}

// side starts an agent by argv and waits for it.
func (b *bench) side(ctx context.Context, ns *namespace, addr string, argv ...string) (*side, error) {
	s, err := b.sideOf(ctx, ns, addr, argv...)
	if err != nil {
		return nil, err
	}
	// It answers, and the first packets of a tunnel are not part of a sample.
	if err := s.ready(ctx, b.cc); err != nil {
		s.giveUp()
		return nil, errors.Join(err, s.cmd.Wait())
	}
	return s, nil
}

// sideOf only starts it.
func (b *bench) sideOf(ctx context.Context, ns *namespace, addr string, argv ...string) (*side, error) {
	s := &side{cmd: exec.CommandContext(ctx, argv[0], argv[1:]...), addr: addr}
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(unix.SIGTERM) }
	s.cmd.WaitDelay = patience // whoever it leaves behind may hold its output
	s.cmd.Stderr = &s.stderr
	in, err := s.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.in, s.out = in, bufio.NewReader(out)
	if err := ns.start(s.cmd); err != nil {
		return nil, err
	}
	return s, nil
}

// ready waits for the agent's first answer, and checks that both ends of its
// connections have the congestion control that they shall have.
func (s *side) ready(ctx context.Context, cc string) error {
	if s.addr == nobody {
		_, err := s.ask(ctx, "ready", 0, 0)
		return err
	}
	r, err := s.ask(ctx, "cc", 0, 0)
	if want := cc + " " + cc; err == nil && r.Text != want {
		err = fmt.Errorf("congestion control of the ends: %s, not %s", r.Text, want)
	}
	return err
}

// measure takes a sample; its CPU is that of the agent and its worker.
func (s *side) measure(ctx context.Context, kind string, d time.Duration) (sample, error) {
	before := usage(s.worker)
	r, err := s.ask(ctx, kind, d, 0)
	r.CPU += usage(s.worker).cpu - before.cpu
	return r, err
}

// ask lets the agent do one thing.
func (s *side) ask(ctx context.Context, kind string, d time.Duration, n int) (r sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, d+grace)
	defer cancel()
	stop := context.AfterFunc(ctx, s.giveUp)
	defer stop()
	fmt.Fprintln(s.in, kind, s.addr, int64(d), n)
	line, err := s.out.ReadBytes('\n')
	switch {
	case ctx.Err() != nil:
		return r, fmt.Errorf("%s: no answer in %v: %w%s", kind, d+grace, ctx.Err(), s.stderr.String())
	case err != nil:
		return r, fmt.Errorf("%s: the agent ended: %w\n%s", kind, err, s.stderr.String())
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return r, fmt.Errorf("%s: %w in %q", kind, err, line)
	}
	if r.Err != "" {
		return r, errors.New(r.Err)
	}
	return r, nil
}

// patience is how long a side may take to end when it is told to: longer than the
// --kill-after of timeout(1).
const patience = 4 * time.Second

// giveUp ends a side that does not answer. It is told before it is killed, as what is
// killed ends nobody else: pasta under timeout(1) would stay.
func (s *side) giveUp() {
	s.cmd.Process.Signal(unix.SIGTERM)
	time.AfterFunc(patience, func() { s.cmd.Process.Kill() })
}

// close ends the agent, and expects that it ends well.
func (s *side) close() error {
	s.in.Close()
	t := time.AfterFunc(grace, s.giveUp)
	defer t.Stop()
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w\n%s", s.cmd.Args[0], err, s.stderr.String())
	}
	return nil
}

// A use is what a process has used, or holds.
type use struct {
	cpu     float64 // seconds
	rss     int     // KiB
	threads int
	fds     int // without pidfds, of which there is one for each thread of the program
}

// usage reads it from proc(5); all zero for a process that is not there.
func usage(pid int) (u use) {
	if pid == 0 {
		return u
	}
	dir := fmt.Sprintf("/proc/%d/", pid)
	stat, _ := os.ReadFile(dir + "stat")
	// Behind the name, which is in parentheses: utime and stime are fields 14 and
	// 15 of the line, in ticks of which there are 100 a second.
	if _, rest, ok := strings.Cut(string(stat), ") "); ok {
		if f := strings.Fields(rest); len(f) > 12 {
			utime, _ := strconv.Atoi(f[11])
			stime, _ := strconv.Atoi(f[12])
			u.cpu = float64(utime+stime) / 100
		}
	}
	status, _ := os.ReadFile(dir + "status")
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		switch name {
		case "VmRSS":
			u.rss = n
		case "Threads":
			u.threads = n
		}
	}
	fds, _ := filepath.Glob(dir + "fd/*")
	for _, fd := range fds {
		if what, err := os.Readlink(fd); err == nil && what != "anon_inode:[pidfd]" {
			u.fds++
		}
	}
	return u
}
