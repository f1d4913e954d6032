// SPDX-License-Identifier: Apache-2.0

// Mounts that a command serves: FUSE file systems beside the program.

package view

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/fusemount"
)

// A fuseServer is a command that serves a mount of the view. It is the user's own command: it
// has the host's files and the host's network, and nothing of the view's.
type fuseServer struct {
	*fusemount.Server
	mount   fsmod.Mount
	file    string // the image, if it is one
	plan    *Plan
	speech  *speech
	closing chan struct{}
	done    sync.WaitGroup
	once    sync.Once
	err     error

	given atomic.Bool // to the view, whose last mount ends the command; Close tells how
}

// give leaves the mount to who has it in the view.
func (s *fuseServer) give() error {
	s.given.Store(true)
	return s.Give()
}

// startFuse runs the command of m, whose kind [fsmod.Mount.Served] knows and whose image is in
// file, and waits until it has mounted something, for as long as Config.Wait allows. What is mounted is nobody's to see
// yet: who mounts it takes Server.Root, for the trap engine, or Server.Tree, for a namespace.
// The server is to be closed when the program can reach the mount no more: with the view,
// before that at any time, from any goroutine. The error is a [*Problem], and leaves nothing.
func (p *Plan) startFuse(ctx context.Context, m fsmod.Mount, file string) (*fuseServer, error) {
	if patience := p.conf.Wait; patience > 0 {
		c, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		ctx = c
	}
	way := p.Files.Fuse
	if way == "" { // the view was planned without
		var problem *Problem
		if way, problem = fuseWay(p.Files.Engine, m); problem != nil {
			return nil, problem
		}
	}
	speech, in, err := hear(string(m.Kind), p.conf.Log.With("mount", m.Target))
	if err != nil {
		return nil, err
	}
	s := &fuseServer{mount: m, file: file, plan: p, speech: speech, closing: make(chan struct{})}
	c := fusemount.Config{Command: fusemount.Shell(m.Source)}
	if m.Kind == fsmod.Image {
		c, err = serveWritable(m, file)
	}
	if err != nil {
		in.Close()
		<-speech.heard
		return nil, err
	}
	c.Env, c.Dir, c.Output, c.Shared = p.environ(), p.Dir, in, way == fusemount.Fusermount
	s.Server, err = fusemount.Start(ctx, c)
	in.Close()
	if c.Hold != nil {
		c.Hold.Close()
	}
	if err != nil {
		<-speech.heard
		return nil, s.problem(err)
	}
	if s.Others {
		p.conf.Log.Warn(fmt.Sprintf("-m %v: what the command shows is another user's or group's, and cannot be written to; file systems of libfuse take -o uid=$(id -u),gid=$(id -g)", m))
	}
	s.done.Go(s.watch)
	return s, nil
}

// environ is the environment of the program.
func (p *Plan) environ() []string {
	if p.conf.Env == nil {
		return os.Environ()
	}
	return p.conf.Env
}

// problem words why there is no mount.
func (s *fuseServer) problem(err error) *Problem {
	p := &Problem{Code: ExitConfig, Why: s.speech.why(), Err: err}
	how := err.Error()
	var ended *fusemount.EndedError
	switch {
	case errors.As(err, &ended):
		how = fmt.Sprintf("the command has mounted nothing, and ended with exit status %d", ended.Status)
	case errors.Is(err, fusemount.ErrNotMounted):
		how = fmt.Sprintf("the command has mounted nothing in %v", s.plan.conf.Wait)
		p.Try = []string{"--wait 1m", "{} in the command, where it takes the directory to mount on"}
	case errors.Is(err, fusemount.ErrAllowOther):
		how = "the command mounts with allow_other, and then the kernel lets in only who is in its user namespace"
		p.Why, p.Try = "", []string{"the same without allow_other: all processes of the view that are yours reach it"}
	}
	p.What = fmt.Sprintf("-m %v: %s", s.mount, how)
	return p
}

// device is the file system of the mount, as mountinfo numbers them. It is not given away yet.
func (s *fuseServer) device() (string, error) {
	var st unix.Statx_t
	err := unix.Statx(int(s.Root.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, 0, &st)
	return fmt.Sprintf("%d:%d", st.Dev_major, st.Dev_minor), err
}

// watch tells when the command ends before its time.
func (s *fuseServer) watch() {
	select {
	case <-s.Ended():
		select {
		case <-s.closing:
			return
		default:
		}
		if !s.given.Load() { // else its mounts have gone
			s.plan.conf.Log.Warn(fmt.Sprintf("-m %v: the command has ended (exit status %d): nothing in %s can be reached any more", s.mount, s.Status(), s.mount.Target))
		}
	case <-s.closing:
	}
}

// Close unmounts, and waits for the command to have written back and ended.
func (s *fuseServer) Close() error {
	s.once.Do(func() {
		close(s.closing)
		busy := time.AfterFunc(fusemount.Busy, func() {
			s.plan.conf.Log.Warn(fmt.Sprintf("-m %v: waiting for the command to write back and end, for at most %v", s.mount, fusemount.WriteBack+fusemount.Obey))
		})
		err := s.Server.Close()
		busy.Stop()
		s.done.Wait()
		<-s.speech.heard
		var ended *fusemount.EndedError
		switch {
		case errors.As(err, &ended):
			s.err = fmt.Errorf("-m %v: the command %w: not all that was written may be there%s", s.mount, err, s.speech.last())
		case errors.Is(err, fusemount.ErrKilled):
			s.err = fmt.Errorf("-m %v: the command %w: what it had not written back is lost", s.mount, err)
		case err == nil && s.mount.Kind == fsmod.Image && !unmounted(s.file):
			s.err = fmt.Errorf("-m %v: it was not unmounted: not all that was written may be there (e2fsck -p %s)%s", s.mount, s.mount.Source, s.speech.last())
		default:
			s.err = err
		}
	})
	return s.err
}

// fuseWay tells by what a command can mount here, as PlanFiles.Fuse has it.
func fuseWay(engine FSEngine, m fsmod.Mount) (way string, problem *Problem) {
	private := fusemount.Probe()
	if private == nil {
		return "namespace", nil
	}
	problem = &Problem{Code: ExitMachine, What: fmt.Sprintf("-m %v: %v", m, private), Try: []string{"umrun doctor"}, Err: private}
	if mend := mendFuse(private); mend != "" {
		problem.Try = append([]string{mend}, problem.Try...)
	}
	if engine != EngineTrap {
		return "", problem
	}
	shared := fusemount.ProbeShared()
	if shared == nil {
		return fusemount.Fusermount, nil
	}
	if shared.Error() != private.Error() {
		problem.Why = fmt.Sprintf("Without a private mount namespace it takes fusermount3: %v.", shared)
	}
	return "", problem
}

// mendFuse says what lets this user have file systems of commands.
func mendFuse(err error) string {
	var pe *os.PathError
	if !errors.As(err, &pe) || pe.Path != "/dev/fuse" {
		return ""
	}
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return "chmod 666 /dev/fuse, as root"
	}
	return "modprobe fuse, as root"
}

// checkFuse tells whether -m fuse: can be had, and how.
func checkFuse() Finding {
	f := Finding{Name: "fuse", Verdict: OK, Text: "FUSE file systems (-m fuse:) can be mounted, in a private mount namespace"}
	err := fusemount.Probe()
	if err == nil {
		if !haveTool(extServe) {
			f.Verdict, f.Text, f.Mend = Note, f.Text+"; images cannot be written to (:rw): "+extServe+" is not installed", "apt-get install "+extServe
		}
		return f
	}
	f.Verdict, f.Mend = Note, mendFuse(err)
	shared := fusemount.ProbeShared()
	if shared == nil {
		f.Text = fmt.Sprintf("FUSE file systems (-m fuse:) can be mounted by fusermount3, with --fs-engine trap, where the host sees them; not in a private mount namespace: %v", err)
		return f
	}
	f.Text = fmt.Sprintf("FUSE file systems (-m fuse:) cannot be mounted: %v", err)
	if f.Mend == "" {
		f.Mend = "apt-get install fuse3, for --fs-engine trap"
	}
	return f
}
