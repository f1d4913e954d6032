// SPDX-License-Identifier: Apache-2.0

// TAP and TUN devices as networks.

package view

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"umrun/stacks"
	"umrun/stacks/tap"
)

// tapNetwork is a device of the kernel, with the stack at its user's end.
type tapNetwork struct {
	Network
	addressing
}

func newTAP(n Network) (*tapNetwork, error) {
	a, err := n.addressing()
	if err != nil {
		return nil, err
	}
	return &tapNetwork{n, a}, nil
}

func (t *tapNetwork) describe() (PlanNetwork, []string) {
	d, warnings := t.addressing.describe()
	d.Device = t.Target
	return d, warnings
}

func (t *tapNetwork) open(_ context.Context, log *slog.Logger) (opened, error) {
	o := tap.Options{Name: t.Target, Type: stacks.LinkIP, MTU: t.addressing.mtu}
	if t.ether {
		o.Type = stacks.LinkEthernet
	}
	l, err := openDevice(t.Spec, o, log)
	if err != nil {
		return opened{}, err
	}
	return opened{links: []stacks.LinkConfig{t.link(l)}}, nil
}

// openDevice opens a device for the network of spec. Errors are Problems.
func openDevice(spec string, o tap.Options, log *slog.Logger) (*tap.Link, error) {
	l, err := tap.Open(o)
	var r *tap.Refusal
	switch {
	case errors.As(err, &r):
		return nil, &Problem{Code: ExitMachine, What: fmt.Sprintf("-n %s: %s", spec, r.What), Why: r.Why, Try: r.Try, Err: r.Err}
	case err != nil:
		return nil, err
	}
	if !l.Up() {
		log.Warn(fmt.Sprintf("%s is down: nothing passes until somebody runs: ip link set %s up", l.Name(), l.Name()))
	}
	log.Info("device is open", "device", l.Name(), "mtu", cmp.Or(o.MTU, l.MTU()))
	return l, nil
}
