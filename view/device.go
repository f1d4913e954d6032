// SPDX-License-Identifier: Apache-2.0

// Devices that a view has of its own: /dev/net/tun, by which programs make interfaces,
// and ramdisks.

package view

import (
	"fmt"
	"path/filepath"

	"umrun/fsmod"
	"umrun/netmod"
	"umrun/netmod/tun"
	"umrun/stacks"
)

// tunPath is where programs look for the device.
const tunPath = "/dev/net/tun"

// tunNet has devices become interfaces of a view's stack, in turn with other changes.
type tunNet struct {
	mod *netmod.Module
	to  stacks.Attacher
	st  stacks.Stack
}

func (n tunNet) Attach(l stacks.LinkConfig) (int, error) { return n.mod.Attach(n.to, l) }
func (n tunNet) Detach(index int) error                  { return n.mod.Detach(n.to, index) }
func (n tunNet) State() stacks.State                     { return n.st.State() }

// isDevice tells of mounts that are none of the engines': -m dev:tun:PATH, dev:ramdisk.
func isDevice(m fsmod.Mount) bool {
	return m.Kind == fsmod.Dev && (m.Source == fsmod.TUN || m.Source == fsmod.Ramdisk)
}

// planDevices finds those among the mounts, and whether there is a stack for interfaces.
func (p *Plan) planDevices(all []fsmod.Mount) error {
	for _, m := range all {
		if !isDevice(m) {
			continue
		}
		switch {
		case m.Source == fsmod.Ramdisk && (m.Size <= 0 || m.Size%512 != 0):
			return badConfig("-m %v: the size of a disk is a multiple of 512", m)
		case m.Source == fsmod.Ramdisk:
		case len(p.Networks) > 1:
			return badConfig("-m %v: with several networks it is not known whose the interfaces are", m)
		case p.Networks[0].Stack != "netstack":
			return badConfig("-m %v: it takes a userspace stack: stack=netstack", m)
		}
		p.Devices = append(p.Devices, PlanMount(m))
	}
	return nil
}

// devices are the files that make descriptors of their own.
func (v *View) devices() (map[string]fsmod.Device, error) {
	far := v.plan.conf.far
	v.disks = make(map[string]*fsmod.Disk)
	all := make(map[string]fsmod.Device)
	var paths []string // of TUNs
	for _, m := range v.plan.Devices {
		if m.Source == fsmod.TUN {
			paths = append(paths, m.Target)
			continue
		}
		disk, err := fsmod.NewDisk(filepath.Base(m.Target), m.Size)
		if err != nil {
			return nil, fmt.Errorf("-m %v: %w", fsmod.Mount(m), err)
		}
		v.kept = append(v.kept, disk)
		v.disks[m.Target], all[m.Target] = disk, disk
	}
	if far != nil {
		paths = []string{tunPath}
		all[resolvConf] = resolvFile{far.provider}
	}
	if a, ok := v.st.(stacks.Attacher); ok && len(paths) > 0 {
		v.tun = tun.New(tunNet{v.mod, a, v.st}, v.plan.conf.Log)
		for _, path := range paths {
			all[path] = v.tun
		}
	}
	return all, nil
}
