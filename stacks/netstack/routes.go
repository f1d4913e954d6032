// SPDX-License-Identifier: Apache-2.0

// Routes as gVisor's table has them.

package netstack

import (
	"fmt"

	"gvisor.dev/gvisor/pkg/tcpip"

	"umrun/stacks"
)

// loopRoutes lead to addresses of the loopback interface. HandleLocal answers for
// its own; the table needs them for those of 127/8 that nobody bound.
func loopRoutes(st stacks.State) []tcpip.Route {
	var table []tcpip.Route
	for _, ifc := range st.Interfaces {
		if !ifc.Loop || !ifc.Up {
			continue
		}
		for _, p := range ifc.Addrs {
			table = append(table, gvRoute(stacks.Route{Dst: p.Masked(), IfIndex: ifc.Index}))
		}
	}
	return table
}

func gvRoute(r stacks.Route) tcpip.Route {
	sub, err := tcpip.NewSubnet(gvAddr(r.Dst.Addr()), tcpip.MaskFromBytes(maskOf(r.Dst)))
	if err != nil {
		// The prefix was masked, and masks of prefixes have the right length.
		panic(fmt.Sprintf("netstack: subnet of %s: %v", r.Dst, err))
	}
	t := tcpip.Route{Destination: sub, NIC: tcpip.NICID(r.IfIndex)}
	if r.Gateway.IsValid() {
		t.Gateway = gvAddr(r.Gateway)
	}
	if r.Src.IsValid() {
		t.SourceHint = gvAddr(r.Src)
	}
	t.MTU = uint32(r.MTU)
	return t
}
