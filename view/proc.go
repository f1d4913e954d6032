// SPDX-License-Identifier: Apache-2.0

// The view's /proc/net and /sys/class/net: what the program reads of its network.

package view

import (
	"slices"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/netmod"
	"umrun/netmod/procnet"
)

// hostsNetwork is where a program that root runs could change the host's network, as if it
// were its own. An ordinary user has no right to.
var hostsNetwork = []string{"/proc/sys/net", "/sys/class/net"}

// netTrees are the generated trees that tell of mod's network.
func netTrees(mod *netmod.Module) map[string]fsmod.Tree {
	return map[string]fsmod.Tree{"/proc/net": procNet{mod}, "/sys/class/net": sysNet{mod}}
}

// procNet is /proc/net.
type procNet struct{ mod *netmod.Module }

// ofHost are the files that tell of the host's AF_UNIX sockets, which are the view's.
var ofHost = []string{"unix"}

// Has implements [fsmod.Tree]. What the view does not have the host may, and must not
// be told of instead; so it is not only its own names.
func (procNet) Has(name string) bool { return procnet.Known(name) }

// Open implements [fsmod.Tree].
func (p procNet) Open(path string) (fsmod.Node, error) {
	if path == "" {
		n := fsmod.Node{Dir: true}
		for _, name := range append(procnet.Names(), ofHost...) {
			n.Entries = append(n.Entries, fsmod.Entry{Name: name})
		}
		return n, nil
	}
	if slices.Contains(ofHost, path) {
		return fsmod.Node{}, fsmod.ErrHost
	}
	content, ok := procnet.File(path, p.mod.ProcNet())
	if !ok {
		return fsmod.Node{}, unix.ENOENT
	}
	return fsmod.Node{Content: content}, nil
}

// sysNet is /sys/class/net.
type sysNet struct{ mod *netmod.Module }

// Has implements [fsmod.Tree].
func (s sysNet) Has(name string) bool {
	return procnet.KnownSys(name) || s.mod.HasInterface(name)
}

// Open implements [fsmod.Tree].
func (s sysNet) Open(path string) (fsmod.Node, error) {
	content, names, err := procnet.Sys(path, s.mod.ProcNet())
	if err != nil {
		return fsmod.Node{}, err
	}
	n := fsmod.Node{Content: content, Dir: names != nil}
	for _, name := range names {
		n.Entries = append(n.Entries, fsmod.Entry{Name: name, Dir: path == "" || name == "statistics"})
	}
	return n, nil
}
