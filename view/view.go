// SPDX-License-Identifier: Apache-2.0

// View: a running program and the networks under it.

package view

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/fusemount"
	"umrun/fsmod/nsmount"
	"umrun/intercept"
	"umrun/netmod"
	"umrun/netmod/leak"
	"umrun/netmod/tun"
	"umrun/stacks"
	"umrun/stacks/kernel"
	"umrun/stacks/netconf"
	"umrun/stacks/netstack"
	"umrun/stacks/proxy"
	"umrun/stacks/wg"
	"umrun/view/control"
)

// Init must be the first thing that main, or TestMain, does: the process that
// becomes the program is a copy of the calling one and does not come back from
// it. Everywhere else it does nothing.
func Init() {
	intercept.ChildMain(nsmount.Step())
	nsmount.ChildMain()
	fusemount.ChildMain()
	kernel.ChildMain()
}

// LibseccompVersion returns the version of the library that compiles the filter.
func LibseccompVersion() string { return intercept.LibseccompVersion() }

// A View is a running program on its networks. Methods are safe for concurrent
// use.
type View struct {
	plan   *Plan
	nets   []opened
	st     stacks.Stack
	mod    *netmod.Module
	files  *fsmod.Module // nil: the program sees the host's
	tun    *tun.Module   // nil: the program makes no interfaces
	kept   closers       // what holds the directories that cows write to, images, commands that serve mounts
	images *images       // those among kept; nil: none
	sup    *intercept.Supervisor
	seen   *observation
	asked  *control.Server // nil: it has no name
	kernel kernelMounts    // by the engine ns
	ns     func() (*nsmount.Namespace, error)
	since  time.Time                 // of its start
	known  chan struct{}             // closed when sup is, or will never be
	disks  map[string]*fsmod.Disk    // by their paths; among kept
	life   context.Context           // ends when the view is to be closed
	end    context.CancelFunc        // of life
	ports  closers                   // that are published
	all    *publishAll               // nil: those alone
	ended  atomic.Pointer[time.Time] // when the program ended; nil: it has not

	closeOnce sync.Once
	closeErr  error
}

// Start makes a plan of conf and starts it, see [Plan.Start].
func Start(ctx context.Context, conf Config) (*View, error) {
	p, err := MakePlan(conf)
	if err != nil {
		return nil, err
	}
	return p.Start(ctx)
}

// Start opens the networks, waits for them to be up, and starts the program. ctx
// bounds Start alone. On error nothing is left behind. The view must be closed.
func (p *Plan) Start(ctx context.Context) (_ *View, err error) {
	for _, w := range p.Warnings {
		p.conf.Log.Warn(w)
	}
	v := &View{plan: p, since: time.Now(), known: make(chan struct{})}
	v.life, v.end = context.WithCancel(context.Background())
	v.ns = sync.OnceValues(v.namespace)
	know := sync.OnceFunc(func() { close(v.known) })
	defer func() {
		know()
		if err != nil {
			v.Close()
		}
	}()
	if err := v.serveControl(); err != nil { // a name is one view's, and no other begins anything
		return nil, err
	}
	nets, err := p.up(ctx, p.conf.Wait)
	if err != nil {
		return nil, err
	}
	v.nets = nets
	var resolver netmod.Resolver
	v.st, resolver = p.join(nets)
	if p.conf.far != nil {
		v.st = newProviderStack(v.st.(*netstack.Stack), p.conf.far)
	}
	conf := p.netmod(v.st, resolver)
	if p.conf.PublishAll {
		v.all = newPublishAll(p.conf.Log)
		conf.Opened, conf.Closed = v.all.opened, v.all.gone
	}
	if v.mod, err = netmod.New(conf); err != nil {
		return nil, err
	}
	if err := v.publish(&nets[0]); err != nil {
		return nil, err
	}
	for _, o := range nets {
		o.learner.tell(v.mod)
		o.provider.tell(v.mod)
	}
	if p.observed() {
		if v.seen, err = p.observe(stacksOf(nets), v.mod, p.asked.name); err != nil {
			return nil, err
		}
	}
	fsmod.Sweep() // what others have left
	fusemount.Sweep()
	if err := p.openFiles(ctx, v); err != nil {
		return nil, err
	}
	v.sup, err = p.launch(ctx, v)
	know()
	if err != nil {
		return nil, p.startProblem(err)
	}
	if fds := v.sup.ClosedFDs(); len(fds) > 0 {
		p.conf.Log.Warn("inherited network descriptors are closed: they lead out of the view", "fds", fmt.Sprint(fds))
	}
	if names := p.foreignStdio(); len(names) > 0 {
		p.conf.Log.Warn("a connection of the host's network was handed in: what is read and written there does not go through the view", "as", strings.Join(names, ", "))
	}
	return v, nil
}

// openFiles makes the module of path calls, if there is anything for it to answer.
func (p *Plan) openFiles(ctx context.Context, v *View) (err error) {
	conf := fsmod.Config{Log: p.conf.Log}
	if _, real := v.st.(stacks.KernelStack); !real && !p.conf.NoProc {
		conf.Trees = netTrees(v.mod)
		if os.Geteuid() == 0 || p.conf.far != nil {
			conf.Sealed = hostsNetwork
		}
	}
	if p.Files != nil && p.Files.Engine == EngineTrap {
		if conf.Mounts, err = p.trapFiles(ctx, v); err != nil {
			return err
		}
		defer func() { v.disown(conf.Mounts, err) }()
		conf.Mountable = len(conf.Mounts) == 0 || p.conf.Name != ""
		conf.Tasks, conf.Member, conf.Image = v.processes, v.has, func(file string, m fsmod.Mount) (fsmod.Mounted, string, error) { return p.targetImage(v.life, file, m) }
		conf.Hostname = p.conf.Hostname
	}
	if conf.Devices, err = v.devices(); err != nil {
		return err
	}
	if conf.Trees != nil || conf.Mounts != nil || conf.Mountable || len(conf.Devices) > 0 {
		if v.files, err = fsmod.New(conf); err == nil && v.files.Mounts() {
			v.mod.UsePaths(v.files)
		}
	}
	return err
}

// foreignStdio names the standard descriptors that are sockets of the host's network.
// Who starts a program so (inetd does) wants it to talk there, so they stay; the
// program can do nothing with them but read and write, since every other call on a
// socket that is not the view's is refused.
func (p *Plan) foreignStdio() (names []string) {
	files := []*os.File{p.conf.Stdin, p.conf.Stdout, p.conf.Stderr}
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		fd := i
		if files[i] != nil {
			fd = int(files[i].Fd())
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && !intercept.LocalFD(fd) {
			names = append(names, name)
		}
	}
	return names
}

// rules are those of all modules.
func (v *View) rules() intercept.Rules {
	var rules intercept.Rules
	if v.tun != nil {
		rules = v.tun.Rules() // before those of other sockets
	}
	rules = append(rules, v.mod.Rules()...)
	if v.files != nil {
		rules = append(rules, v.files.Rules()...)
	}
	if v.plan.Files != nil && v.plan.Files.Engine == EngineNS {
		calls := &nsmount.Calls{Namespace: v.ns, Image: v.programImage, Unmounted: v.unmounted, Log: v.plan.conf.Log}
		rules = append(rules, calls.Rules()...)
	}
	return rules
}

// launch starts the program, and as execvp(3) does it gives a file that is neither
// a binary nor names its interpreter to the shell.
func (p *Plan) launch(ctx context.Context, v *View) (*intercept.Supervisor, error) {
	conf := intercept.Config{
		Path:      p.Path,
		Argv:      p.Argv,
		Env:       p.conf.Env,
		Dir:       p.conf.Dir,
		Rules:     v.rules(),
		Log:       p.conf.Log,
		Stdin:     p.conf.Stdin,
		Stdout:    p.conf.Stdout,
		Stderr:    p.conf.Stderr,
		SigMask:   p.conf.SigMask,
		SigIgnore: p.conf.SigIgnore,
		Missing:   p.conf.Missing,
		Umask:     p.conf.Umask,
		Session:   p.conf.far != nil, // a terminal's signals are the program's
		OnChange:  v.changed,
		Meter:     p.conf.Meter,
		Waiting:   p.conf.Waiting,
	}
	if p.Files != nil {
		p.inMounts(&conf)
		if p.Files.Engine == EngineNS {
			if err := p.mountFiles(ctx, v, &conf); err != nil {
				return nil, err
			}
		}
		defer v.images.started()
	}
	s, err := intercept.Start(ctx, conf)
	if ee := (*intercept.ExecError)(nil); errors.As(err, &ee) && ee.Err == unix.ENOEXEC {
		conf.Path, conf.Search, conf.Argv = shell, nil, append([]string{shell, ee.Path}, p.Argv[1:]...)
		s, err = intercept.Start(ctx, conf)
	}
	return s, err
}

// shell is what execvp(3) takes for files without an interpreter (_PATH_BSHELL).
const shell = "/bin/sh"

// up opens the networks and waits until they are up, for as long as patience allows in
// all; without any it only opens.
func (p *Plan) up(ctx context.Context, patience time.Duration) ([]opened, error) {
	if patience > 0 {
		wctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return p.upWithin(ctx, wctx, true)
	}
	return p.upWithin(ctx, ctx, false)
}

// upWithin is up until wctx ends, which ends with ctx.
func (p *Plan) upWithin(ctx, wctx context.Context, wait bool) (nets []opened, err error) {
	defer func() {
		if err == nil {
			return
		}
		for _, o := range nets {
			o.close()
		}
		nets = nil
		if ctx.Err() != nil {
			err = ctx.Err() // given up from outside
		}
	}()
	for i := range p.nets {
		o, err := p.openStack(wctx, i)
		if err != nil {
			return nets, p.downProblem(i, err)
		}
		nets = append(nets, o)
	}
	if !wait {
		return nets, nil
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wctx, cancel := context.WithCancel(wctx)
	defer cancel()
	type outcome struct {
		network int
		err     error
	}
	results := make(chan outcome, len(nets))
	waiting := 0
	for i, o := range nets {
		if o.wait != nil {
			waiting++
			wg.Go(func() { results <- outcome{i, o.wait(wctx)} })
		}
	}
	for range waiting {
		if r := <-results; r.err != nil {
			return nets, p.downProblem(r.network, r.err)
		}
	}
	return nets, nil
}

// stacksOf returns the stacks of open networks.
func stacksOf(nets []opened) (all []stacks.Stack) {
	for _, o := range nets {
		all = append(all, o.stack)
	}
	return all
}

// downProblem words why a network is not up.
func (p *Plan) downProblem(i int, err error) error {
	n := p.conf.Networks[i]
	var silent *wg.NoAnswerError
	var unasked *netconf.NoAnswerError
	var unresolved *net.DNSError
	var unusable *proxy.UnusableError
	switch {
	case errors.As(err, &unusable):
		return n.unusable(unusable)
	case errors.As(err, &unasked):
		return &Problem{
			Code: ExitNetwork,
			What: unasked.Error(),
			Why:  unasked.Hint(),
			Try:  []string{"an address of its own: ip=PREFIX", "--no-wait"},
			Err:  err,
		}
	case errors.As(err, &silent):
		return &Problem{
			Code: ExitNetwork,
			What: silent.Error(),
			Why:  silent.Hint(),
			Try:  []string{"umrun check " + n.Target, "--no-wait"},
			Err:  err,
		}
	case errors.As(err, &unresolved), errors.Is(err, context.DeadlineExceeded):
		return &Problem{
			Code: ExitNetwork,
			What: err.Error(),
			Why:  "The endpoint's name is asked of this machine's own resolver, outside of the tunnel.",
			Try:  []string{"an address instead of the name in " + n.Target},
			Err:  err,
		}
	}
	return err
}

// netmod makes the configuration of the socket calls' module.
func (p *Plan) netmod(st stacks.Stack, resolver netmod.Resolver) netmod.Config {
	conf := netmod.Config{
		Stack:    st,
		Resolver: resolver,
		Doors:    leak.New(leak.Config{DBus: p.conf.DBus, Log: p.conf.Log}),
		Log:      p.conf.Log,
		Active:   p.conf.Active,
		Owners:   p.observed(),
	}
	for _, a := range p.listen {
		conf.ResolverAddrs = append(conf.ResolverAddrs, a.Addr())
	}
	return conf
}

// startProblem words why the program could not be started.
func (p *Plan) startProblem(err error) error {
	var un *intercept.UnsupportedError
	var ee *intercept.ExecError
	var failed *intercept.StepError
	switch {
	case errors.As(err, &failed):
		return mountProblem(failed)
	case errors.As(err, &un):
		return &Problem{Code: ExitMachine, What: err.Error(), Try: []string{"umrun doctor"}, Err: err}
	case !errors.As(err, &ee) || ee.Call != "execve":
		return err
	case ee.Err == unix.ENOENT && p.Files != nil: // what the host has says nothing
		return &Problem{Code: ExitNotFound, What: p.Argv[0] + ": there is no such program in the view, or not the interpreter that it names", Err: err}
	case ee.Err == unix.ENOENT:
		// The file is there: what is missing is the interpreter that it names.
		return &Problem{Code: ExitNotFound, What: p.Path + ": the interpreter that it names does not exist", Err: err}
	}
	return notRun(p.Path, ee.Err)
}

// changed is told by the supervisor that the program was stopped or continued.
func (v *View) changed(ws unix.WaitStatus) {
	f := v.plan.conf.OnStop
	switch {
	case f == nil:
	case ws.Stopped():
		f(ws.StopSignal())
	case ws.Continued():
		f(unix.SIGCONT)
	}
}

// endGrace is how long what the program leaves behind may take to end by itself,
// and once more to obey SIGTERM.
const endGrace = time.Second

// Wait waits until the program has ended (with [Config.WaitAll] its last
// descendant; else what it leaves behind is ended) and until what was written is
// delivered, and returns the exit status: the program's own, or 128+N if signal N
// ended it. The status is valid even with an error, which says what was not
// delivered. The end of ctx cuts short the waiting for descendants and for
// delivery, not that for the program.
func (v *View) Wait(ctx context.Context) (status int, err error) {
	ws, err := v.sup.Wait()
	if err != nil {
		return ExitFailed, err
	}
	now := time.Now()
	v.ended.Store(&now)
	status = ws.ExitStatus()
	if ws.Signaled() {
		status = exitSignalBase + int(ws.Signal())
	}
	if v.plan.conf.WaitAll {
		if err := v.sup.WaitAll(ctx); err != nil {
			return status, err
		}
	} else if n, err := v.sup.EndAll(ctx, endGrace); n > 0 || err != nil {
		v.plan.conf.Log.Warn("processes that the program left behind were ended, since their network ends with it; --wait-all waits for them", "processes", n)
	}
	return status, v.mod.Drain(ctx, v.plan.conf.Pending)
}

// Ended reports whether the program has ended, and when Wait learned of it. Its
// last bytes may still be on their way.
func (v *View) Ended() (at time.Time, ended bool) {
	if p := v.ended.Load(); p != nil {
		return *p, true
	}
	return time.Time{}, false
}

// PID returns the process number of the program.
func (v *View) PID() int { return v.sup.PID() }

// Signal sends sig to the program.
func (v *View) Signal(sig unix.Signal) error { return v.sup.Signal(sig) }

// Close tears the view down in the reverse order of its making. A program that
// still runs loses its network: its socket calls fail. Twice is fine.
func (v *View) Close() error {
	v.closeOnce.Do(func() { v.closeErr = v.close() })
	return v.closeErr
}

func (v *View) close() error {
	var errs []error
	v.end()
	if v.asked != nil {
		errs = append(errs, v.asked.Close())
	}
	if v.sup != nil {
		errs = append(errs, v.sup.Close())
	}
	if v.files != nil {
		errs = append(errs, v.files.Close())
	}
	if v.tun != nil {
		errs = append(errs, v.tun.Close())
	}
	if v.mod != nil {
		errs = append(errs, v.mod.Close())
	}
	errs = append(errs, v.kernel.Close(), v.kept.Close())
	v.all.close()
	errs = append(errs, v.ports.Close())
	for _, o := range v.nets {
		if r, ok := o.resolver.(io.Closer); ok {
			errs = append(errs, r.Close())
		}
	}
	if v.st != nil {
		errs = append(errs, v.st.Close())
	}
	errs = append(errs, v.seen.close()) // the stack's last packets are seen too
	return errors.Join(errs...)
}
