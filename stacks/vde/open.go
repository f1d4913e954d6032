// SPDX-License-Identifier: Apache-2.0

// Open: from a URL to a link.

package vde

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"umrun/stacks"
)

// Options are what [Open] takes beside the URL. The zero value is good.
type Options struct {
	// Log gets set-up and tear-down. Nil discards.
	Log *slog.Logger

	// MTU is what the stack will send at most, bytes of the network layer; 0 is 1500.
	MTU int

	// Description names the plug where a switch lists its ports. Empty: "umrun" and
	// the process.
	Description string

	// Elsewhere opens the plugs that other packages have: tap://, the URL's ARG being
	// the name of the device, and slirp://, an Ethernet network with a NAT at its end.
	// Nil: they are refused.
	Elsewhere func(context.Context, *URL) (stacks.Link, error)

	plain bool // frames without offload headers: another plug is in between
}

// Largest and ordinary MTU, bytes of the network layer.
const (
	MaxMTU     = 9216 // of vdeplug's own nodes, VDE_MAXMTU
	DefaultMTU = 1500 // of vde_switch
)

// etherLen and tagLen are the sizes of an Ethernet header and of an 802.1Q tag in it.
const (
	etherLen = 14
	tagLen   = 4
)

// maxFrame is the longest frame that anybody sends, a tag included.
const maxFrame = etherLen + tagLen + MaxMTU

// Open plugs into the network that u names. The link carries frames,
// [stacks.LinkEthernet], and offloads, see [stacks.Offloads]: it cuts super-segments
// where the other end takes none. The context bounds the opening alone: names are
// resolved in it.
//
// Errors are [*SwitchError] where there is no switch or it does not let us in, else
// those of the system calls.
func Open(ctx context.Context, u *URL, o Options) (stacks.Link, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MTU == 0 {
		o.MTU = DefaultMTU
	}
	if o.MTU < 68 || o.MTU > MaxMTU {
		return nil, fmt.Errorf("%s: an MTU of %d: VDE carries 68 to %d bytes", u, o.MTU, MaxMTU)
	}
	if o.Description == "" {
		o.Description = fmt.Sprintf("umrun: user=%d pid=%d", os.Geteuid(), os.Getpid())
	}
	l, err := open(ctx, u, o)
	if err != nil || o.plain {
		return l, err
	}
	return withOffload(l), nil
}

// OpenFrames is Open without offload: frames pass as they are on the wire.
func OpenFrames(ctx context.Context, u *URL, o Options) (stacks.Link, error) {
	o.plain = true
	return Open(ctx, u, o)
}
