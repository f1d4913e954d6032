// SPDX-License-Identifier: Apache-2.0

// VDE as a network: a switch, or what else a URL of vdeplug names.

package view

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/nat"
	"umrun/stacks/pipe"
	"umrun/stacks/tap"
	"umrun/stacks/vde"
)

// vdeNetwork is a plug in a VDE network.
type vdeNetwork struct {
	Network
	addressing
	url *vde.URL
	nat nat.Options // of slirp://
}

func newVDE(n Network) (*vdeNetwork, error) {
	target := n.Target
	if strings.HasPrefix(target, "//") {
		target = string(VDE) + ":" + target // it was a URL with that scheme
	}
	u, err := vde.Parse(target)
	if err != nil {
		return nil, badConfig("-n %s: %w", n.Spec, err)
	}
	a, err := n.addressing()
	if err != nil {
		return nil, err
	}
	if a.mtu > vde.MaxMTU {
		return nil, badConfig("-n %s: mtu=%d: VDE carries %d at most", n.Spec, a.mtu, vde.MaxMTU)
	}
	v := &vdeNetwork{Network: n, addressing: a, url: u}
	if slices.ContainsFunc(u.Plugs(), func(p *vde.URL) bool { return p.Scheme == "slirp" }) {
		t, err := newNAT(n)
		if err != nil {
			return nil, err
		}
		v.nat = t.opts
	}
	return v, nil
}

func (v *vdeNetwork) describe() (PlanNetwork, []string) {
	d, warnings := v.addressing.describe()
	d.URL, d.MTU = v.url.String(), cmp.Or(v.addressing.mtu, vde.DefaultMTU)
	for _, p := range v.url.Plugs() {
		if p.Scheme == "cmd" {
			warnings = append(warnings, fmt.Sprintf("the command %q runs outside of the view, on this machine's own network", p.Arg))
		}
	}
	return d, warnings
}

func (v *vdeNetwork) open(ctx context.Context, log *slog.Logger) (opened, error) {
	l, err := vde.Open(ctx, v.url, vde.Options{
		Log:         log,
		MTU:         v.addressing.mtu,
		Description: fmt.Sprintf("umrun %s user=%d pid=%d", v.Name, os.Geteuid(), os.Getpid()),
		Elsewhere: func(ctx context.Context, u *vde.URL) (stacks.Link, error) {
			if u.Scheme == "tap" {
				return v.openTAP(u, log)
			}
			return v.openSlirp(ctx, log)
		},
	})
	if err != nil {
		return opened{}, v.problem(err)
	}
	return opened{links: []stacks.LinkConfig{v.link(l)}}, nil
}

// openTAP opens the device of tap://NAME.
func (v *vdeNetwork) openTAP(u *vde.URL, log *slog.Logger) (stacks.Link, error) {
	l, err := openDevice(v.Spec, tap.Options{Name: u.Arg, Type: stacks.LinkEthernet, MTU: v.addressing.mtu}, log)
	if err != nil {
		return nil, err // not a nil *tap.Link
	}
	return l, nil
}

// openSlirp makes the network of slirp://: a cable with a NAT at its other end.
func (v *vdeNetwork) openSlirp(ctx context.Context, log *slog.Logger) (stacks.Link, error) {
	near, far := pipe.New(pipe.Config{MTU: cmp.Or(v.addressing.mtu, vde.DefaultMTU), Offload: true, Ethernet: true})
	o := v.nat
	o.Log = log
	s, err := nat.Serve(context.WithoutCancel(ctx), far, o) // until Close
	if err != nil {
		near.Close()
		far.Close()
		return nil, err
	}
	return &slirpLink{near, s}, nil
}

// A slirpLink is the near end of a cable, and all that is behind it.
type slirpLink struct {
	*pipe.End
	server *nat.Server
}

// Close implements [stacks.Link].
func (l *slirpLink) Close() error { return errors.Join(l.End.Close(), l.server.Close()) }

// problem words why there is no plug.
func (v *vdeNetwork) problem(err error) error {
	if already := (*Problem)(nil); errors.As(err, &already) {
		return err
	}
	p := &Problem{Code: ExitNetwork, What: fmt.Sprintf("-n %s: %v", v.Spec, err), Err: err}
	var se *vde.SwitchError
	if !errors.As(err, &se) {
		return p
	}
	dir := cmp.Or(se.Dir, "/tmp/vde.ctl") // vde_switch's own, of an ordinary user
	switch {
	case errors.Is(err, unix.ENOENT) && se.Port != "" && !strings.Contains("0123456789", se.Port[:1]):
		p.Why = fmt.Sprintf("Neither is there a port group %s: a group is a socket of that name in the directory.", se.Port)
		fallthrough
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOTDIR):
		p.Try = []string{"vde_switch -s " + dir + " -d", "-n switch://" + dir}
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		p.Why = "The switch lets in those who may write to its socket; -m and -g of vde_switch say who that is."
		p.Try = []string{"ls -l " + dir + "/ctl", "id"}
		if se.Dir == "" {
			p.Try[0] = "ls -l /var/run/vde.ctl/ctl /tmp/vde.ctl/ctl"
		}
	case errors.Is(err, vde.ErrRefused):
		p.Why = "The port may belong to another user, or the switch have fewer ports, or not be allowed to use our socket."
		p.Try = []string{"-n vde://" + dir + " without a port", "vde_switch with -n PORTS"}
	}
	return p
}
