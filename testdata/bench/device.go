// SPDX-License-Identifier: Apache-2.0

// TAP and TUN devices against what the kernel has instead: a veth.

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
)

// The network of this comparison:
//
//	                    namespace s                          namespace v
//	+------------------------------------------------+     +---------------------+
//	| umrun -n tap:tap0      tap0 10.97.1.2          | veth| agent               |
//	|   agent 10.97.1.1        the server            |=====| 10.97.3.1           |
//	| umrun -n tun:tun0      tun0 10.97.2.2          |     |                     |
//	|   agent 10.97.2.1        inner 10.97.3.2       |     |                     |
//	+------------------------------------------------+     +---------------------+
//
// A device is the wire to umrun's stack, so that its packets are made and read by system
// calls, twice if the stack is a kernel's in a namespace of its own; a veth hands
// super-segments from one kernel stack to another. It is a ceiling, what a container has
// that a privileged program made.

// deviceAddr is the server's address at the i-th way to it: tap0, tun0, the veth.
func deviceAddr(i int) string { return fmt.Sprintf("10.97.%d.2", i+1) }

// deviceSpec is umrun's network on the i-th of both devices.
func (b *bench) deviceSpec(i int, stack string) string {
	return fmt.Sprintf("%s:%[1]s0,ip=10.97.%d.1/24,cc=%s,stack=%s", [2]string{"tap", "tun"}[i], i+1, b.cc, stack)
}

// deviceWorld makes both namespaces and starts the servers. All of it ends with b's world.
func (b *bench) deviceWorld(ctx context.Context) (s, v *namespace, err error) {
	for _, ns := range []**namespace{&s, &v} {
		if *ns, err = newNamespace(); err != nil {
			return nil, nil, err
		}
		b.w.undo = append(b.w.undo, (*ns).close)
	}
	lines := []string{"link set lo up", fmt.Sprintf("link add inner type veth peer name outer netns /proc/%d/fd/%d", os.Getpid(), v.file.Fd())}
	for i, dev := range []string{"tap0", "tun0", "inner"} {
		if dev != "inner" {
			lines = append(lines, fmt.Sprintf("tuntap add dev %s mode %s", dev, dev[:3]))
		}
		lines = append(lines, fmt.Sprintf("addr add 10.97.%d.2/24 dev %s", i+1, dev), "link set "+dev+" up",
			fmt.Sprintf("route add 10.97.%d.1 dev %s congctl %s", i+1, dev, b.cc))
	}
	if err := s.ip(ctx, lines...); err != nil {
		return nil, nil, err
	}
	if err := v.ip(ctx, "link set lo up", "addr add 10.97.3.1/24 dev outer", "link set outer up", "route add 10.97.3.2 dev outer congctl "+b.cc); err != nil {
		return nil, nil, err
	}
	for i := range 3 {
		if err := b.w.server(ctx, s, b.self, "serve", deviceAddr(i)); err != nil {
			return nil, nil, err
		}
	}
	return s, v, nil
}

// devices measures both kinds.
func (b *bench) devices(ctx context.Context) error {
	s, v, err := b.deviceWorld(ctx)
	if err != nil {
		return err
	}
	todo := slices.Clone(rows)
	for i := range todo {
		todo[i].target = 0
	}
	for i, kind := range []string{"tap", "tun"} {
		for stack := range strings.SplitSeq(b.stacks, ",") {
			if err := b.pairs(ctx, kind+", stack="+stack+": umrun on the device / the kernel over a veth", todo,
				func() (*side, error) { return b.under(ctx, s, deviceAddr(i), b.deviceSpec(i, stack)) },
				func() (*side, error) { return b.native(ctx, v, deviceAddr(2), 0) }); err != nil {
				return err
			}
		}
	}
	return nil
}
