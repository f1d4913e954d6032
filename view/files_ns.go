// SPDX-License-Identifier: Apache-2.0

// Files of the view that the kernel serves: what is made for a start.

package view

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/cow"
	"umrun/fsmod/nsmount"
	"umrun/intercept"
)

// mountFiles has the program begin in a namespace with the mounts of the plan.
func (p *Plan) mountFiles(ctx context.Context, v *View, conf *intercept.Config) error {
	np := nsmount.Plan{Keep: p.conf.Name != "", Mounts: fsmod.Order(p.conf.Mounts), Host: p.conf.Hostname, Places: p.places(), Files: p.hostFiles()}
	for _, m := range np.Mounts {
		made := kernelMount{Mount: m}
		made.Target = real(m.Target)
		if m.Kind == fsmod.Cow && m.Source != "" {
			held, err := holdUpper(m)
			if err != nil {
				return err
			}
			made.held = held
		}
		v.kernel.all = append(v.kernel.all, made)
	}
	served := map[int]*fuseServer{}
	for i, m := range np.Mounts {
		if !m.Served() {
			continue
		}
		s, err := p.startFuse(ctx, m, m.Source)
		if err != nil {
			return err
		}
		v.kept = append(v.kept, s)
		served[i] = s
	}
	images, err := openImages(np.Mounts, served, p.conf.Log)
	if err != nil {
		return err
	}
	if images != nil {
		v.kept = append(v.kept, images)
		v.images, conf.Link = images, images.theirs
	}
	conf.Namespaces, err = np.Namespaces()
	return err
}

// holdUpper makes the directory that a cow writes to, and keeps other views from it
// until it is closed.
func holdUpper(m fsmod.Mount) (*os.File, error) {
	f, err := cow.HoldUpper(m.Source)
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, upperBusy(m)
	case err != nil:
		return nil, &Problem{Code: ExitConfig, What: fmt.Sprintf("-m %v: %v", m, err), Err: err}
	}
	return f, nil
}

// upperBusy says that two views cannot have one UPPER.
func upperBusy(m fsmod.Mount) *Problem {
	return &Problem{Code: ExitConfig, What: fmt.Sprintf("-m %v: another view is writing there", m),
		Try: []string{"another directory", "-m cow::" + m.Target}, Err: unix.EBUSY}
}

// places are where programs of an ordinary user write, on most machines.
func (p *Plan) places() []string {
	home, _ := os.UserHomeDir() // none, and then it is no place
	places := []string{p.Dir, home, os.TempDir(), "/tmp", "/var/tmp", "/dev/shm", os.Getenv("XDG_RUNTIME_DIR")}
	places = append(places, p.others...)
	for i, dir := range places {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			places[i] = real
		}
	}
	slices.Sort(places)
	return slices.DeleteFunc(slices.Compact(places), func(dir string) bool { return !filepath.IsAbs(dir) })
}

// hostFiles are the files that name hosts.
func (p *Plan) hostFiles() (files []nsmount.Generated) {
	if len(p.conf.Hosts) == 0 && p.conf.Hostname == "" {
		return nil
	}
	var b strings.Builder
	for _, h := range p.conf.Hosts {
		fmt.Fprintf(&b, "%v\t%s\n", h.Addr, h.Name)
	}
	if name := p.conf.Hostname; name != "" {
		fmt.Fprintf(&b, "127.0.1.1\t%s\n", name) // as Debian has it
		files = append(files, nsmount.Generated{Target: "/etc/hostname", Content: []byte(name + "\n"), Optional: true})
	}
	host, _ := os.ReadFile("/etc/hosts") // hosts(5): it may be missing
	return append(files, nsmount.Generated{Target: "/etc/hosts", Content: append([]byte(b.String()), host...)})
}

// mountProblem words why the mounts could not be made.
func mountProblem(err *intercept.StepError) *Problem {
	p := &Problem{Code: ExitFailed, What: err.Error(), Err: err}
	switch err.Err {
	case unix.ENOENT, unix.ENOTDIR, unix.EISDIR, unix.EACCES, unix.ELOOP:
		p.Code = ExitConfig
	case unix.EPERM:
		p.Code, p.Try = ExitMachine, []string{"umrun doctor"}
	}
	return p
}
