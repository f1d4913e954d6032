// SPDX-License-Identifier: Apache-2.0

// Plan: what the child is told to make.

package nsmount

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/imagemount"
	"umrun/intercept"
)

// stepName is how the child finds Step.
const stepName = "nsmount"

// A Plan is what a view has of its own.
type Plan struct {
	Mounts []fsmod.Mount // in the order in which they are made, see fsmod.Order
	Files  []Generated   // laid over everything else
	Places []string      // where a cow is to be written to, whoever owns what is above
	Host   string        // the host's name; empty: that of the machine

	// User says that it is an ordinary user's, in a user namespace. Namespaces sets it.
	User bool

	// Keep has the host's mounts handed over, too, so that mounts can be made of them later, see
	// [Namespace].
	Keep bool

	// Trial mounts a tmpfs and nothing else.
	Trial bool
}

// A Generated file covers another one. Where there is none it appears, unless it is
// optional.
type Generated struct {
	Target   string
	Content  []byte
	Optional bool
}

// Supports says why a mount cannot be made by this engine; nil: it can.
func Supports(m fsmod.Mount) error {
	switch {
	case m.Kind == fsmod.Image, m.Kind == fsmod.Fuse:
		return imagemount.Supported()
	case m.Kind == fsmod.Dev && m.Source != fsmod.Null && m.Source != fsmod.Zero:
		return fmt.Errorf("the device %s in a mount namespace", m.Source)
	}
	return nil
}

// Namespaces returns what a target with these mounts begins in.
func (p *Plan) Namespaces() (*intercept.Namespaces, error) {
	p.User = Unprivileged()
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(p); err != nil {
		return nil, fmt.Errorf("encode the mounts: %w", err)
	}
	ns := &intercept.Namespaces{Flags: unix.CLONE_NEWNS, Step: stepName, Data: b.Bytes()}
	if p.User {
		ns.Flags |= unix.CLONE_NEWUSER
	}
	if p.Host != "" {
		ns.Flags |= unix.CLONE_NEWUTS
	}
	return ns, nil
}

// Step is to be given to [intercept.ChildMain].
func Step() intercept.Step {
	var kept []int
	return intercept.Step{
		Name: stepName,
		Run: func(data []byte, link *os.File) (err error) {
			kept, err = run(data, link)
			return err
		},
		Hand: func() []int { return kept },
	}
}

// run makes the mounts, in the child, and returns what is kept of the namespaces.
func run(data []byte, link *os.File) (kept []int, err error) {
	var p Plan
	if err := gob.NewDecoder(bytes.NewReader(data)).Decode(&p); err != nil {
		return nil, fmt.Errorf("decode the mounts: %w", err)
	}
	if p.Host != "" {
		if err := unix.Sethostname([]byte(p.Host)); err != nil {
			return nil, fmt.Errorf("sethostname %s: %w", p.Host, err)
		}
	}
	b := &builder{plan: &p, pool: -1, link: link}
	if err := b.enslave(); err != nil {
		return nil, err
	}
	if !p.Trial {
		if kept, err = keep(p.Keep); err != nil {
			return nil, fmt.Errorf("keep the namespace: %w", err)
		}
	}
	if b.base, err = newBase(); err != nil {
		return nil, fmt.Errorf("put the root directory on a base: %w", err)
	}
	if !p.Trial {
		kept = slices.Insert(kept, 2, b.base)
	}
	return kept, b.build()
}
