// SPDX-License-Identifier: Apache-2.0

// What can be asked of a running view by its name.

package view

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"umrun/fsmod"
	"umrun/view/control"
)

// checkName tells whether the view may be called as it is.
func (p *Plan) checkName() error {
	if name := p.conf.Name; name != "" && !control.ValidName(name) {
		return &Problem{Code: ExitConfig, What: fmt.Sprintf("--name %s: a name is up to 63 letters, digits, - and _, and begins with a letter or digit", name)}
	}
	return nil
}

// serveControl makes the control socket of a view that has a name.
func (v *View) serveControl() (err error) {
	name := v.plan.conf.Name
	if name == "" {
		return nil
	}
	v.asked, err = control.Serve(name, v.plan.conf.Log, v.answer)
	if errors.Is(err, control.ErrTaken) {
		return &Problem{Code: ExitConfig, What: fmt.Sprintf("--name %s: %v", name, err), Try: []string{"umrun ps"}, Err: err}
	}
	if err != nil {
		return fmt.Errorf("--name %s: %w", name, err)
	}
	return nil
}

// processes returns the numbers of the program's processes. The program may ask for it
// before Start has returned, but not before it is about to.
func (v *View) processes() []int {
	<-v.known
	if v.sup == nil {
		return nil
	}
	return v.sup.Processes()
}

// has reports whether a task is of the program. Before the program begins none is.
func (v *View) has(tid int) bool {
	select {
	case <-v.known:
		return v.sup != nil && v.sup.Has(tid)
	default: // its own execve may be what asks
		return false
	}
}

// answer does what was asked for. It may be asked before the program begins.
func (v *View) answer(r control.Request) (a control.Answer) {
	if r.Op == control.Info {
		a.View = v.describe()
		return a
	}
	err := v.begun()
	switch {
	case err != nil:
	case r.Op == control.Mount:
		err = v.mountSpec(string(r.Spec), string(r.Dir))
	case r.Op == control.Umount:
		err = v.Unmount(string(r.Path), r.Lazy)
	}
	if err == nil {
		return a
	}
	a.Error = &control.Error{Code: ExitCode(err), What: err.Error()}
	if p := (*Problem)(nil); errors.As(err, &p) {
		a.Error.Why, a.Error.Try = p.Why, p.Try
	}
	return a
}

// begun waits until the program begins.
func (v *View) begun() error {
	<-v.known
	if v.sup == nil {
		return &Problem{Code: ExitFailed, What: fmt.Sprintf("the view %s has not started", v.plan.conf.Name)}
	}
	return nil
}

// mountSpec makes the mount that is written so.
func (v *View) mountSpec(spec, dir string) error {
	m, err := ParseMount(spec, dir)
	if err != nil {
		return err
	}
	return v.Mount(m)
}

// describe says what the view is.
func (v *View) describe() *control.View {
	d := &control.View{Name: v.plan.conf.Name, Command: slices.Clone(v.plan.Argv), Since: v.since, Networks: []control.Network{}}
	for _, n := range v.plan.Networks {
		d.Networks = append(d.Networks, control.Network{Name: n.Name, Addresses: n.Addresses})
	}
	mounts := fsmod.Order(v.plan.conf.Mounts)
	select {
	case <-v.known:
		if v.sup != nil {
			d.PID, mounts = v.PID(), v.Mounts()
		}
	default: // its networks are not up yet
	}
	for _, m := range mounts {
		d.Mounts = append(d.Mounts, m.String())
	}
	return d
}

// AskView asks the running view of a name. Errors are Problems.
func AskView(ctx context.Context, name string, r control.Request) (control.Answer, error) {
	a, err := control.Ask(ctx, name, r)
	switch {
	case errors.Is(err, control.ErrNoView):
		return a, &Problem{Code: ExitConfig, What: fmt.Sprintf("%v: %s", err, name), Why: "A view has the name that it was started with, by --name, and is spoken to by its own user.", Try: []string{"umrun ps"}, Err: err}
	case err != nil:
		return a, &Problem{Code: ExitFailed, What: err.Error(), Err: err}
	case a.Error != nil:
		return a, &Problem{Code: a.Error.Code, What: a.Error.What, Why: a.Error.Why, Try: a.Error.Try}
	}
	return a, nil
}
