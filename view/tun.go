// SPDX-License-Identifier: Apache-2.0

// /dev/net/tun: interfaces that programs of a view make.

package view

import (
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

// devices are the files that make descriptors of their own.
func (v *View) devices() map[string]fsmod.Device {
	a, ok := v.st.(stacks.Attacher)
	if far := v.plan.conf.far; ok && far != nil {
		v.tun = tun.New(tunNet{v.mod, a, v.st}, v.plan.conf.Log)
		return map[string]fsmod.Device{tunPath: v.tun, resolvConf: resolvFile{far.provider}}
	}
	return nil
}
