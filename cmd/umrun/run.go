// SPDX-License-Identifier: Apache-2.0

// A run: from flags to the exit status of the program.

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"umrun/fsmod"
	"umrun/view"
)

// run runs the program of args, or prints the plan to out.
func (f *flags) run(ctx context.Context, args []string, out io.Writer) error {
	starting, cancel := context.WithCancel(ctx)
	defer cancel()
	relay, err := startRelay(cancel)
	if err != nil {
		return err
	}
	defer relay.close()
	log, closeLog, err := openLog(f, os.Stderr)
	if err != nil {
		return err
	}
	defer closeLog()
	conf, err := f.config(args)
	if err != nil {
		return err
	}
	mask := blockedSignals()
	conf.SigMask, conf.SigIgnore = &mask, ignoredSignals()
	conf.Missing = missingStdio()
	umask := unix.Umask(0o77)
	unix.Umask(umask &^ 0o700) // umrun has to get into the directories that it makes
	conf.Umask = &umask
	conf.OnStop = relay.stopped
	conf.Log = log
	conf.Pending = func(bytes, _ int) {
		log.Warn(fmt.Sprintf("the program has ended, %d bytes of it are still on their way: waiting up to a minute, Ctrl-C gives them up", bytes))
	}
	procs := startProcs(log)
	conf.Active, conf.Waiting = procs.active, procs.waiting
	meter, closeMeter, err := openMeter(f.traps)
	if err != nil {
		return err
	}
	conf.Meter = meter
	plan, err := view.MakePlan(conf)
	if err != nil {
		return err
	}
	if f.dryRun {
		return printJSON(out, plan)
	}
	procs.deaf.Store(slices.ContainsFunc(plan.Networks, func(n view.PlanNetwork) bool { return n.Stack == "kernel" }))
	v, err := plan.Start(starting)
	if sig := relay.ended(); sig != 0 && err != nil {
		return exitStatus(128 + int(sig)) // given up by the user, not failed
	}
	if err != nil {
		return err
	}
	defer v.Close()
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	relay.attach(v, cancel)
	if f.verbose && term.IsTerminal(int(os.Stderr.Fd())) {
		fmt.Fprintln(os.Stderr, startLine(plan))
	}
	st, err := v.Wait(waiting)
	switch {
	case err == nil:
	case relay.ended() != 0:
		log.Warn(err.Error())
	default:
		// The program has run: its status is worth more than what went wrong
		// afterwards.
		log.Error(err.Error())
	}
	if err := v.Close(); err != nil {
		log.Error(err.Error())
	}
	if err := closeMeter(); err != nil {
		log.Error(err.Error())
	}
	return exitStatus(st)
}

// config makes a view's configuration of the flags, with everything checked that
// needs no file but profiles.
func (f *flags) config(args []string) (conf view.Config, err error) {
	if f.noWait {
		f.wait = 0
	}
	switch {
	case len(args) == 0:
		return conf, badFlag("there is no program to run: umrun [flags] [--] PROGRAM [ARG...]")
	case f.quiet && f.verbose:
		return conf, badFlag("-q and -v do not go together")
	case f.wait < 0:
		return conf, badFlag("--wait %v is less than nothing", f.wait)
	case f.dbus != "none" && f.dbus != "host":
		return conf, badFlag("--dbus %s: it is none or host", f.dbus)
	}
	switch f.backend {
	case "auto", "notify":
	case "ptrace":
		return conf, &view.Problem{
			Code: view.ExitMachine,
			What: "the ptrace backend is not built yet",
			Try:  []string{"--backend auto", "umrun doctor"},
		}
	default:
		return conf, badFlag("--backend %s: it is auto, notify or ptrace", f.backend)
	}
	if err := refuseConfig(); err != nil {
		return conf, err
	}
	nets, err := parseNetworks(f.nets)
	if err != nil {
		return conf, err
	}
	var ports []view.Publish
	for _, s := range f.publish {
		p, err := view.ParsePublish(s)
		if err != nil {
			return conf, err
		}
		ports = append(ports, p)
	}
	var mounts []fsmod.Mount
	if len(f.mounts) > 0 {
		cwd, err := os.Getwd()
		if err != nil {
			return conf, view.NoDir(err)
		}
		for _, s := range f.mounts {
			m, err := view.ParseMount(s, cwd)
			if err != nil {
				return conf, err
			}
			mounts = append(mounts, m)
		}
	}
	var hosts []view.HostName
	for _, s := range f.hosts {
		h, err := view.ParseHostName(s)
		if err != nil {
			return conf, err
		}
		hosts = append(hosts, h)
	}
	return view.Config{
		Mounts:     mounts,
		FSEngine:   view.FSEngine(f.engine),
		Hosts:      hosts,
		Hostname:   f.host,
		Name:       f.name,
		Publish:    ports,
		PublishAll: f.all,
		Networks:   nets,
		Routes:     f.routes,
		Argv:       args,
		Env:        os.Environ(),
		Wait:       f.wait,
		WaitAll:    f.waitAll,
		DNS:        f.dns,
		DBus:       f.dbus == "host",
		Backend:    f.backend,
		NoProc:     f.noProc,
		Pcap:       f.pcap,
		Flows:      f.flows,
	}, nil
}

// badFlag is a mistake on the command line.
func badFlag(format string, a ...any) error {
	return &view.Problem{Code: view.ExitConfig, What: fmt.Sprintf(format, a...), Try: []string{"umrun --help"}}
}

// printJSON writes what --json and --dry-run show.
func printJSON(w io.Writer, what any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(what)
}

// startLine is what -v says on a terminal.
func startLine(p *view.Plan) string {
	var nets []string
	for _, n := range p.Networks {
		nets = append(nets, strings.TrimSpace(n.Name+" "+strings.Join(n.Addresses, " ")))
	}
	return fmt.Sprintf("umrun: %s on %s", p.Path, strings.Join(nets, "; "))
}
