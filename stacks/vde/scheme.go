// SPDX-License-Identifier: Apache-2.0

// The schemes: which there are, what their URLs hold, who opens them.

package vde

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"

	"umrun/stacks"
)

// A scheme is what umrun knows of a kind of plug.
type scheme struct {
	form    form
	options []string
	word    bool // a word in brackets that is no option has a meaning
	example string
	check   func(*URL) error // of what can be seen without opening; may be nil
}

func (s scheme) has(name string) bool { return slices.Contains(s.options, name) }

func (s scheme) names() string {
	if len(s.options) == 0 {
		return "none"
	}
	return strings.Join(s.options, ", ")
}

var nodeOptions = []string{"mode", "dirmode", "grp", "hashsize", "hashseed", "expiretime"}

var schemes = map[string]scheme{
	"vde": {form: formPath, options: []string{"port", "portgroup", "group", "mode"}, word: true,
		example: "vde://DIR[PORT]", check: checkClient},
	"switch": {form: formPath, options: nodeOptions, example: "switch://DIR[mode=0660]", check: checkNode},
	"hub":    {form: formPath, options: nodeOptions, example: "hub://DIR", check: checkNode},
	"multi":  {form: formPath, options: nodeOptions, example: "multi://DIR", check: checkNode},
	"ptp":    {form: formRaw, example: "ptp://PATH", check: needArg},
	"udp":    {form: formRaw, example: "udp://PORT->HOST:PORT", check: checkUDP},
	"cmd":    {form: formRaw, example: "cmd://ssh HOST vde_plug", check: checkCmd},
	"tap":    {form: formRaw, example: "tap://NAME", check: needArg},
	"vxvde": {form: formOptions, options: []string{"port", "vni", "grp", "ttl", "rcvbuf", "v4", "v6", "hashsize", "expiretime", "if", "bind"},
		example: "vxvde://239.0.0.1/vni=1", check: checkVX},
	"vxlan": {form: formOptions, options: []string{"port", "vni", "ttl", "rcvbuf", "v4", "v6", "hashsize", "expiretime", "if"},
		example: "vxlan://239.0.0.1/vni=1", check: checkVX},
	"vlan": {form: formNest, options: []string{"u", "untag", "t", "tag", "x", "trunk", "q", "qinq", "ad"},
		example: "vlan://5{vde://DIR}", check: checkVLAN},
	"slirp": {form: formOptions, example: "slirp://"},
	"null":  {form: formRaw, example: "null://"},
}

// open opens the plug that u names.
func open(ctx context.Context, u *URL, o Options) (stacks.Link, error) {
	switch u.Scheme {
	case "vde":
		return openClient(ctx, u, o)
	case "switch", "hub", "multi":
		return openNode(u, o)
	case "ptp":
		return openPTP(u, o)
	case "udp":
		return openUDP(ctx, u, o)
	case "cmd":
		return openCmd(u, o)
	case "vxvde", "vxlan":
		return openVX(ctx, u, o)
	case "vlan":
		return openVLAN(ctx, u, o)
	case "tap", "slirp":
		if o.Elsewhere == nil {
			return nil, fmt.Errorf("%s: there is nobody to open %s://", u, u.Scheme)
		}
		return o.Elsewhere(ctx, u)
	case "null":
		return newNull(o), nil
	}
	return nil, fmt.Errorf("unknown scheme %q", u.Scheme) // of a URL that Parse did not make
}

// refused are the schemes of vdeplug that umrun does not have, and what to use
// instead.
var refused = map[string]string{
	"agno":      "it encrypts with one key for all and no key exchange; use a WireGuard network, or cmd://ssh HOST vde_plug",
	"pcap":      "it opens an interface of the host raw; bridge the interface with a TAP device and use tap://NAME",
	"macvtap":   "bridge the interface with a TAP device and use tap://NAME",
	"seqpacket": "it takes a descriptor by its number, and umrun hands none to a network; use ptp://PATH",
	"bonding":   "frames of one connection would overtake each other; use multi://DIR or one of its plugs",
	"vdesl":     "use cmd://COMMAND with a program that speaks over the serial line",
	"p2p":       "it is called ptp:// now",
}

func needArg(u *URL) error {
	if u.Arg == "" {
		return errors.New("there is nothing behind ://")
	}
	return nil
}

// groupID returns the number of a group: a number, or a name of the host's.
func groupID(name string) (int, error) {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 {
		return n, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("there is no group %q", name)
	}
	return strconv.Atoi(g.Gid)
}

// A null is a network with nobody on it.
type null struct {
	mtu  int
	done chan struct{}
	once sync.Once
}

func newNull(o Options) *null { return &null{mtu: o.MTU, done: make(chan struct{})} }

func (*null) Type() stacks.LinkType { return stacks.LinkEthernet }
func (n *null) MTU() int            { return n.mtu }
func (*null) BatchSize() int        { return 1 }

func (n *null) Close() error {
	n.once.Do(func() { close(n.done) })
	return nil
}

func (n *null) Read([][]byte, []int) (int, error) {
	<-n.done
	return 0, net.ErrClosed
}

func (n *null) Write(bufs [][]byte) (int, error) {
	select {
	case <-n.done:
		return 0, net.ErrClosed
	default:
		return len(bufs), nil
	}
}
