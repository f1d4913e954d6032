// SPDX-License-Identifier: Apache-2.0

// Two views on a VDE switch, beside what people do without umrun: a TAP in a
// namespace, plugged into the switch by vde_plug, at both ends.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// umrun -n vde:sw, agent ------- vde_switch ------- umrun -n vde:sw, server
// namespace, TAP, vde_plug ---------- | ----------- vde_plug, TAP, namespace
// umrun -n vde:own, agent ------------------------- umrun -n switch://own, server
const (
	vdeTAP1, vdeTAP2     = "10.55.0.1", "10.55.0.2"
	vdeView              = "10.55.0.3"
	vdeServer, vdeClient = "10.55.1.1", "10.55.1.2"
	ownServer, ownClient = "10.55.2.1", "10.55.2.2"
	vdeFloor             = 2 // of the TAPs, in bulk
	vdeTAPName           = "vde0"
)

// vdeWorld starts a vde_switch in dir, and has two TAPs plugged into it, the first of them
// with a server. It returns the second's namespace, and the process that plugs it.
func (b *bench) vdeWorld(ctx context.Context, dir string) (*namespace, int, error) {
	if err := have("vde_switch", "vde_plug"); err != nil {
		return nil, 0, fmt.Errorf("%w\n  try: apt-get install vde-switch vdeplug", err)
	}
	w := b.w
	if _, err := b.helper(ctx, w.u, dir+"/ctl", "vde_switch", "-s", dir); err != nil {
		return nil, 0, err
	}
	var ends [2]*namespace
	var plugs [2]int
	for i, addr := range []string{vdeTAP1, vdeTAP2} {
		ns, err := newNamespace()
		if err != nil {
			return nil, 0, err
		}
		w.undo = append(w.undo, ns.close)
		if err := ns.ip(ctx, "link set lo up", "tuntap add dev "+vdeTAPName+" mode tap", "addr add "+addr+"/24 dev "+vdeTAPName, "link set "+vdeTAPName+" up",
			"route replace 10.55.0.0/24 dev "+vdeTAPName+" proto kernel scope link src "+addr+" congctl "+b.cc); err != nil {
			return nil, 0, err
		}
		cmd, err := b.helper(ctx, ns, "", "vde_plug", "vde://"+dir, "tap://"+vdeTAPName)
		if err != nil {
			return nil, 0, err
		}
		ends[i], plugs[i] = ns, cmd.Process.Pid
	}
	return ends[1], plugs[1], w.server(ctx, ends[0], b.self, "serve", vdeTAP1)
}

// vde measures both switches against the TAPs.
func (b *bench) vde(ctx context.Context) error {
	w := b.w
	dir := filepath.Join(w.dir, "vde")
	own := filepath.Join(w.dir, "own")
	end, plug, err := b.vdeWorld(ctx, dir)
	if err != nil {
		return err
	}
	if err := b.wire(ctx); err != nil {
		return err
	}
	cc := ",cc=" + b.cc
	if err := w.server(ctx, w.u, b.umrun, "-q", "-n", "vde:"+dir+",ip="+vdeServer+"/24"+cc, "--", b.self, "serve", vdeServer); err != nil {
		return err
	}
	if err := w.server(ctx, w.u, b.umrun, "-q", "-n", "switch://"+own+",ip="+ownServer+"/24"+cc, "--", b.self, "serve", ownServer); err != nil {
		return err
	}
	// No short connections: the servers outlive the clients, which come back with the
	// same address, and gVisor does not take a port out of TIME_WAIT for them.
	todo := []row{rows[0], rows[4]}
	todo[0].target, todo[1].target = vdeFloor, 0
	taps := func() (*side, error) { return b.native(ctx, end, vdeTAP1, plug) }
	if err := b.pairs(ctx, "vde: two views on one vde_switch / two TAPs by vde_plug", todo,
		func() (*side, error) { return b.under(ctx, w.u, vdeServer, "vde:"+dir+",ip="+vdeClient+"/24"+cc) }, taps); err != nil {
		return err
	}
	return b.pairs(ctx, "switch: two views on umrun's own switch:// / the same two TAPs", todo,
		func() (*side, error) { return b.under(ctx, w.u, ownServer, "vde:"+own+",ip="+ownClient+"/24"+cc) }, taps)
}

// have says which of these programs is not installed.
func have(programs ...string) error {
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			return err
		}
	}
	return nil
}

// helper starts a program that lives as long as its standard input is open, and waits
// for the file by which it shows that it is there; of a socket, until it listens.
func (b *bench) helper(ctx context.Context, ns *namespace, file string, argv ...string) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard // a switch tells of each port that is gone
	if err := ns.start(cmd); err != nil {
		return nil, err
	}
	b.w.undo = append(b.w.undo, func() { in.Close(); end(cmd) })
	for until := time.Now().Add(stepTime); file != ""; time.Sleep(10 * time.Millisecond) {
		info, err := os.Stat(file)
		if err == nil && info.Mode()&os.ModeSocket != 0 {
			var c net.Conn
			if c, err = net.Dial("unix", file); err == nil {
				c.Close()
			}
		}
		if err == nil {
			break
		}
		if time.Now().After(until) {
			return nil, errors.New(argv[0] + " does not start")
		}
	}
	return cmd, nil
}
