// SPDX-License-Identifier: Apache-2.0

// Observing a view: packets and flows into files.

package view

import (
	"errors"
	"fmt"
	"io"
	"net/netip"

	"umrun/netmod"
	"umrun/stacks"
	"umrun/stacks/observe"
)

// An observation is what is recorded of a view's networks.
type observation struct {
	recorders []*observe.Recorder
	files     []io.Closer
}

// observed tells whether anything is recorded.
func (p *Plan) observed() bool {
	for _, n := range p.conf.Networks {
		if _, ok := n.value("pcap"); ok {
			return true
		}
	}
	return p.conf.Pcap != "" || p.conf.Flows != ""
}

// observe begins to record what the plan says. Files are created anew.
func (p *Plan) observe(sts []stacks.Stack, mod *netmod.Module, name func(netip.Addr) string) (_ *observation, err error) {
	o := new(observation)
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	capture := func(flag, file string) (*observe.Capture, error) {
		c, err := observe.CreateCapture(file)
		if err != nil {
			return nil, badConfig("%s: %w", flag, err)
		}
		o.files = append(o.files, c)
		return c, nil
	}
	var all []*observe.Capture
	if p.conf.Pcap != "" {
		c, err := capture("--pcap", p.conf.Pcap)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	var flows *observe.Flows
	if p.conf.Flows != "" {
		if flows, err = observe.CreateFlows(p.conf.Flows, name); err != nil {
			return nil, badConfig("--flows: %w", err)
		}
		o.files = append(o.files, flows)
	}
	for i, n := range p.conf.Networks {
		captures := all[:len(all):len(all)]
		if file, ok := n.value("pcap"); ok {
			c, err := capture(fmt.Sprintf("-n %s", n.Spec), file)
			if err != nil {
				return nil, err
			}
			captures = append(captures, c)
		}
		if len(captures) == 0 && flows == nil {
			continue
		}
		r, err := observe.Start(observe.Config{
			Network:  n.Name,
			Stack:    sts[i],
			Captures: captures,
			Flows:    flows,
			Owner:    ownerIn(mod),
			Log:      p.conf.Log,
		})
		if err != nil {
			return nil, err
		}
		o.recorders = append(o.recorders, r)
	}
	return o, nil
}

// ownerIn finds whose a flow is among the sockets of mod.
func ownerIn(mod *netmod.Module) func(observe.Flow) (observe.Owner, bool) {
	return func(f observe.Flow) (observe.Owner, bool) {
		o, inode, ok := mod.Owner(f.Proto, f.Matches)
		return observe.Owner{PID: o.PID, Program: o.Program, Socket: inode}, ok
	}
}

// close writes what was seen last and ends the files.
func (o *observation) close() error {
	if o == nil {
		return nil
	}
	var errs []error
	told := make(map[string]bool) // a file that is full says so to each who writes to it
	add := func(err error) {
		for _, err := range parts(err) {
			if !told[err.Error()] {
				told[err.Error()] = true
				errs = append(errs, fmt.Errorf("%w; what follows is missing in it", err))
			}
		}
	}
	for _, r := range o.recorders {
		add(r.Close())
	}
	for _, f := range o.files {
		add(f.Close())
	}
	return errors.Join(errs...)
}

// parts are the errors that errors.Join has joined.
func parts(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, err := range joined.Unwrap() {
		all = append(all, parts(err)...)
	}
	return all
}
